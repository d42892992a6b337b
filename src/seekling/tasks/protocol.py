"""What a task is: problems by split and seed, an exact check, and, optionally, worked traces to learn from.

The split of a problem is a function of its identity alone, so a held-out problem can occur neither in the
pretraining text nor in reinforcement learning, whoever draws it and with whatever seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from seekling.errors import UserError
from seekling.records import Problem, Verdict

Split = Literal["train", "held_out"]

HELD_OUT_SHARE = 0.1
"""Share of all identities that no training ever sees."""


class Task(Protocol):
    """A family of problems whose answers can be checked.

    More that a class may say of itself. ``quick = True``: its check is short, bounded and needs no sandbox, so
    it runs in the trainer's own process; every other check runs in killable workers. ``limits``: what differs from
    the usual limits there, as ``{"wall_s": 20}``. ``reads = "reply"``: what is checked is all that is said outside
    the thinking, not only what stands in ``<answer>``. ``check_all(asked)``: verdicts of many answers at once, for a
    task that keeps limits of its own.
    """

    name: str

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """One problem of any split, a pure function of ``rng``'s state; ``size`` overrides the usual sizes."""
        ...

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS, WRONG or UNPARSED for the final answer alone (tags already removed). Pure, never slow."""
        ...


@runtime_checkable
class Traceable(Protocol):
    """A task that can write worked attempts, and read them back.

    ``verdict_qualities`` are those of ``qualities`` whose traces judge their own attempts; ``mixture`` is the share of
    each in the text a base model reads, unless a manifest says otherwise.
    """

    qualities: ClassVar[tuple[str, ...]]
    verdict_qualities: ClassVar[tuple[str, ...]]
    mixture: ClassVar[Mapping[str, float]]

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """The thinking of one attempt of the stated ``quality`` and, after it, its answer (tagged)."""
        ...

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """The attempts made in ``thinking``, each in a normal form: equal strings are repeats."""
        ...

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last complete attempt in ``thinking`` solves the problem (an oracle, for controls)."""
        ...


@runtime_checkable
class Guessable(Protocol):
    """A task that a blind guesser can try: the cheapest thing that could also have raised the score."""

    def guess(self, problem: Problem, rng: Random) -> str:
        """One uniformly random well-formed answer, from the prompt alone."""
        ...


@runtime_checkable
class Auditable(Protocol):
    """A task that knows how its own checks could be wrong: what an audit tries beside the answers it tries on all."""

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """True answers in other forms than the key's, all of which must pass."""
        ...

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Answers near the truth that must not pass."""
        ...


@runtime_checkable
class Helpable(Protocol):
    """A task with a rule of its own for how helpful an answer is, which no policy is paid by.

    Preferences are drawn from it (``compare = "sampled"``), and what is learned from them is held against it.
    """

    def helpfulness(self, problem: Problem, answer: str) -> float:
        """How helpful what ``check`` would read is, higher for better, "" included. Pure, quick, any finite scale."""
        ...


@runtime_checkable
class Listed(Protocol):
    """A task whose problems are a list: asked in another order on every pass, each once before any comes again."""

    def listed(self, split: Split, size: int | None = None) -> Sequence[Problem]:
        """All problems of a split, at least one; of one size where it is told."""
        ...


@runtime_checkable
class Composed(Protocol):
    """A task made of others, its ``parts``: every problem is of one of them, which checks and traces it."""

    parts: Sequence[Task]
    tasks: Sequence[str | Mapping[str, Any]]
    """What names each part, as a manifest does."""

    def pick(self, rng: Random) -> Task:
        """One of the parts, as often as its share says."""
        ...

    def part_of(self, problem: Problem) -> Task:
        """The part that a problem is of. Raises UserError for a stranger's."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What an environment answers: what is seen next, whether it is over, and, when it is, how it ended."""

    observation: str
    done: bool = False
    verdict: Verdict | None = None


class Env(Protocol):
    """A problem of several turns. One object plays one episode at a time; equal actions give equal turns."""

    def reset(self, problem: Problem) -> str:
        """Begin anew, and say what is seen first."""
        ...

    def step(self, action: str) -> Turn:
        """Act. What cannot be read as an action is an answer too: it costs the turn, or the game."""
        ...


def reads(task: object) -> str:
    """What of a rollout is checked: "answer" (inside its tags) or "reply" (all that is outside the thinking)."""
    return str(getattr(task, "reads", "answer"))


def parts_of(task: Any) -> Sequence[Any]:
    """The parts of a task made of others; of any other, itself."""
    return task.parts if isinstance(task, Composed) else (task,)


def own_part(task: Any, problem: Problem) -> Any:
    """The part of ``task`` that ``problem`` is of."""
    return task.part_of(problem) if isinstance(task, Composed) else task


def identity(*parts: object) -> str:
    """Digest of what makes a problem the same problem: 16 hexadecimal digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def split_of(problem_id: str) -> Split:
    """The split of an identity, decided by its hash."""
    return "held_out" if int(problem_id[:8], 16) / 2**32 < HELD_OUT_SHARE else "train"


def problems(
    task: Task,
    split: Split,
    seed: str,
    *,
    size: int | None = None,
    distinct: bool = False,
    max_misses: int = 10_000,
) -> Iterator[Problem]:
    """Endless problems of one split, a pure function of (task, split, seed, size).

    ``distinct`` never repeats an identity; when none new turns up in ``max_misses`` draws, the task has run
    out and a UserError says how many there were. A list ends instead, when all of it has been asked.
    """
    rng, seen, misses = Random(f"{task.name}/{split}/{seed}/{size}"), set[str](), 0
    if isinstance(task, Listed):
        listed = task.listed(split, size)
        yield from rng.sample(listed, len(listed))
        while not distinct:
            yield from rng.sample(listed, len(listed))
        return
    while True:
        problem = task.draw(rng, size)
        if split_of(problem.id) != split or (distinct and problem.id in seen):
            misses += 1
            if misses > max_misses:
                raise UserError(
                    f'task "{task.name}" has run out of distinct {split} problems after {len(seen)}',
                    next_step="Ask for fewer problems or widen its sizes or numbers.",
                )
            continue
        misses = 0
        seen.add(problem.id)
        yield problem
