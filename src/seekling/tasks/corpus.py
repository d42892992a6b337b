"""The text a base model reads: facts, and worked attempts of mixed quality at training problems.

Every document is a pure function of (seed, stage, step, index). The mixture is what decides whether reinforcement
has something to find: a minority works well, a majority guesses, errs or gives up early.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import Field

from seekling.config import Settings
from seekling.errors import UserError, nearest
from seekling.records import Problem
from seekling.tasks.protocol import Task, split_of


class Mixture(Settings):
    """What the text is made of. Shares are relative; a quality that is not named does not occur."""

    facts: float = Field(
        0.3, ge=0, le=1, description="share of documents that are plain facts (when the task has them)"
    )
    facts_per_document: int = Field(8, ge=1)
    qualities: dict[str, float] = Field(
        {"expert": 0.15, "careless": 0.4, "guess": 0.2, "gives_up": 0.1, "rechecks": 0.15},
        description="share of each quality among worked attempts",
    )
    verdicts: bool = Field(True, description="false removes the traces that judge their own attempts")


@dataclass(frozen=True, slots=True)
class Document:
    """One text: a worked attempt at ``problem``, or plain ``text`` when there is none."""

    text: str
    problem: Problem | None = None


def documents(task: Any, mixture: Mixture, seed: str) -> Iterator[Document]:
    """Endless documents, a pure function of (task, mixture, seed); held-out problems never occur."""
    rng = Random(f"corpus/{seed}")
    qualities, shares = _qualities(task, mixture)
    while True:
        if mixture.facts and rng.random() < mixture.facts:
            yield Document(task.facts(rng, mixture.facts_per_document))
            continue
        problem = training_problem(task, rng)
        yield Document(task.trace(problem, rng, rng.choices(qualities, shares)[0]), problem)


def training_problem(task: Task, rng: Random) -> Problem:
    """A problem of the training split."""
    while True:
        problem = task.draw(rng)
        if split_of(problem.id) == "train":
            return problem


def _qualities(task: Any, mixture: Mixture) -> tuple[list[str], list[float]]:
    known = task.qualities
    for name in mixture.qualities:
        if name not in known:
            raise UserError(f'task "{task.name}" has no traces of quality "{name}"', next_step=nearest(name, known))
    verdict = () if mixture.verdicts else task.verdict_qualities
    kept = {name: share for name, share in mixture.qualities.items() if share > 0 and name not in verdict}
    if not kept:
        raise UserError(
            f'no worked attempts are left in the text for task "{task.name}"',
            next_step="Give at least one quality a share above 0.",
        )
    return list(kept), list(kept.values())
