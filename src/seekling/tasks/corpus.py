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
from seekling.tasks.protocol import Composed, Task, Traceable, parts_of, split_of

MOST_MISSES = 10_000
"""Draws in a row outside the training split after which a task is taken to have no training problems."""


class Mixture(Settings):
    """What the text is made of. Shares are relative; a quality that is not named does not occur."""

    facts: float = Field(
        0.3, ge=0, le=1, description="share of documents that are plain facts (when the task has them)"
    )
    facts_per_document: int = Field(8, ge=1, description="single operations in a document of facts")
    qualities: dict[str, float] = Field(
        {}, description="share of each quality among worked attempts; empty takes the task's own mixture"
    )
    verdicts: bool = Field(True, description="false removes the traces that judge their own attempts")


@dataclass(frozen=True, slots=True)
class Document:
    """One text: a worked attempt at ``problem``, or plain ``text`` when there is none."""

    text: str
    problem: Problem | None = None


def documents(task: Any, mixture: Mixture, seed: str) -> Iterator[Document]:
    """Endless documents, a pure function of (task, mixture, seed); held-out problems never occur.

    Of a task made of others each document is of one of them, facts and attempts alike.
    """
    rng = Random(f"corpus/{seed}")
    taken = qualities_of(task, mixture)
    while True:
        part: Any = task.pick(rng) if isinstance(task, Composed) else task
        if mixture.facts and hasattr(part, "facts") and rng.random() < mixture.facts:
            yield Document(part.facts(rng, mixture.facts_per_document))
            continue
        problem = training_problem(part, rng)
        yield Document(part.trace(problem, rng, rng.choices(*taken[part.name])[0]), problem)


def training_problem(task: Task, rng: Random) -> Problem:
    """A problem of the training split. Raises UserError for a task that has next to none."""
    for _ in range(MOST_MISSES):
        problem = task.draw(rng)
        if split_of(problem.id) == "train":
            return problem
    raise UserError(
        f'task "{task.name}" drew {MOST_MISSES} problems and none for training',
        next_step="Its ids must differ: an id is the digest of what makes a problem the same problem.",
    )


def qualities_of(task: Any, mixture: Mixture) -> dict[str, tuple[list[str], list[float]]]:
    """What attempts a mixture takes of a task and how much of each, by the name of the task or of each of its parts.

    Each part takes the named qualities that it knows. Raises UserError where none are left of one.
    """
    parts = parts_of(task)
    for part in parts:
        if not isinstance(part, Traceable):
            raise UserError(
                f'task "{part.name}" writes no worked attempts to learn from',
                next_step="Give it qualities, trace, attempts and hits; or begin from a model that needs no such text.",
            )
    known = dict.fromkeys(quality for part in parts for quality in part.qualities)
    for quality in mixture.qualities or [own for part in parts for own in part.mixture]:
        if quality not in known:
            raise UserError(
                f'task "{task.name}" has no traces of quality "{quality}"', next_step=nearest(quality, known)
            )
    return {part.name: _taken(part, mixture) for part in parts}


def _taken(part: Any, mixture: Mixture) -> tuple[list[str], list[float]]:
    wanted = mixture.qualities or part.mixture
    verdict = () if mixture.verdicts else part.verdict_qualities
    # In the task's order: the order in which a manifest names them must not change the text.
    kept = {q: wanted.get(q, 0.0) for q in part.qualities if q not in verdict}
    kept = {q: share for q, share in kept.items() if share > 0}
    if not kept:
        raise UserError(
            f'no worked attempts are left in the text for task "{part.name}"',
            next_step="Give at least one quality a share above 0.",
        )
    return list(kept), list(kept.values())
