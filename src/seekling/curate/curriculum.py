"""In which order a curated list is asked. Every step's problems are a function of (list, seed, step) alone.

So a stage that was killed asks again what it would have asked, with no state to save.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

from pydantic import Field

from seekling.config import Settings
from seekling.curate.listing import Picked
from seekling.curate.passing import spread_share
from seekling.errors import UserError
from seekling.records import Problem

FINE = 1000
"""Rollouts that a pass rate is taken to stand for when the chance of a spread is computed from it."""


class Curriculum(Settings):
    """How a curated list is gone through. Whole passes, each problem once, except for "spread"."""

    order: Literal["shuffled", "easy_first", "hard_first", "spread"] = Field(
        "shuffled",
        description="by measured pass rate, equal ones shuffled; spread draws those likeliest to divide their group",
    )


def asker(
    listed: Sequence[Picked], curriculum: Curriculum, *, seed: str, per_step: int, group: int
) -> Callable[[int], list[Problem]]:
    """From a step to the ``per_step`` problems it asks, all distinct.

    Raises UserError for a list with too few problems, and for an order by pass rates that nobody measured.
    """
    if len(listed) < per_step:
        raise UserError(
            f"the curated list has {len(listed)} problems, and a step asks {per_step}",
            next_step="Widen the curation (problems, passing), or lower problems_per_step.",
        )
    if curriculum.order != "shuffled" and any(one.pass_rate is None for one in listed):
        raise UserError(
            f'the order "{curriculum.order}" needs pass rates, and the curated list has none',
            next_step='Give the curate stage a model: from = "base". Or set curriculum.order = "shuffled".',
        )
    if curriculum.order == "spread":
        return lambda step: _weighted(listed, Random(f"{seed}/curriculum/{step}"), per_step, group)
    steps_per_pass = -(-len(listed) // per_step)

    def ask(step: int) -> list[Problem]:
        ordered = _ordered(listed, curriculum, Random(f"{seed}/curriculum/{step // steps_per_pass}"))
        first = step % steps_per_pass * per_step
        return [ordered[place % len(ordered)].problem for place in range(first, first + per_step)]

    return ask


def _ordered(listed: Sequence[Picked], curriculum: Curriculum, rng: Random) -> list[Picked]:
    """One pass through the list. The last step of a pass fills up from its front."""
    shuffled = rng.sample(list(listed), len(listed))
    if curriculum.order == "shuffled":
        return shuffled
    return sorted(shuffled, key=lambda one: one.pass_rate or 0.0, reverse=curriculum.order == "easy_first")


def _weighted(listed: Sequence[Picked], rng: Random, count: int, group: int) -> list[Problem]:
    """Drawn without replacement, each by the chance that its group has a spread (Efraimidis and Spirakis 2006).

    One that never or always passed keeps a small chance: its rate was measured on a few rollouts.
    """
    keys = [rng.random() ** (1 / max(0.01, _spread(one, group))) for one in listed]
    best = sorted(range(len(listed)), key=lambda place: -keys[place])[:count]
    return [listed[place].problem for place in best]


def _spread(one: Picked, group: int) -> float:
    return spread_share(round(FINE * (one.pass_rate or 0.0)), FINE, group)
