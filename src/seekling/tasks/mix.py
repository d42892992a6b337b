"""A task made of others: one base, one reinforcement, one evaluation for several families at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from random import Random
from typing import Any, Literal

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import Guessable, Helpable, Traceable, reads


class Mix(Settings):
    """Several tasks as one, each with its share: ``tasks = ["bilingual", "requests"], shares = [0.7, 0.3]``.

    A problem is drawn, checked and traced by its own task, which its ``task`` names. Each task takes those of
    ``text.qualities`` that it knows, or, where none are named, its own mixture. All must read the same part of a reply.
    """

    name: Literal["mix"] = "mix"
    tasks: tuple[str | dict[str, Any], ...] = Field(min_length=1, description="names of tasks, or tables with settings")
    shares: tuple[float, ...] = Field((), description="how often each is asked, relative to the others; none: alike")

    @model_validator(mode="after")
    def _go_together(self) -> Mix:
        if self.shares and (len(self.shares) != len(self.tasks) or min(self.shares) <= 0):
            raise ValueError("shares must be one number above 0 for each task")
        names = [part.name for part in self.parts]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise UserError(
                f'a mix has two tasks called "{doubled[0]}"',
                next_step="A problem is known by its task's name: give one of them other sizes in place of the second.",
            )
        if "mix" in names:
            raise UserError("a mix cannot hold a mix", next_step="Name the inner one's tasks in its place.")
        read = {reads(part): part.name for part in self.parts}
        if len(read) > 1:
            raise UserError(
                f'"{read["answer"]}" is checked by its <answer>, "{read["reply"]}" by all of its reply',
                next_step="Mix tasks that read the same.",
            )
        return self

    @cached_property
    def parts(self) -> tuple[Any, ...]:
        """The tasks themselves. Raises UserError for one that cannot be made."""
        from seekling.tasks.registry import build_task  # which knows this class by its name

        return tuple(build_task(spec) for spec in self.tasks)

    @property
    def reads(self) -> str:
        """What of a rollout is checked, by all alike."""
        return reads(self.parts[0])

    @property
    def qualities(self) -> tuple[str, ...]:
        """Those of all tasks, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in getattr(part, "qualities", ())))

    @property
    def verdict_qualities(self) -> tuple[str, ...]:
        """Those of all tasks, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in getattr(part, "verdict_qualities", ())))

    @property
    def mixture(self) -> Mapping[str, float]:
        """Each quality's share of all attempts, whatever task they are at."""
        whole = sum(self._shares)
        found = dict.fromkeys(self.qualities, 0.0)
        for part, share in zip(self.parts, self._shares, strict=True):
            for name, own in getattr(part, "mixture", {}).items():
                found[name] += own * share / whole
        return found

    def pick(self, rng: Random) -> Any:
        """One of the tasks, as often as its share says."""
        return rng.choices(self.parts, self._shares)[0]

    def part_of(self, problem: Problem) -> Any:
        """The task that a problem is of. Raises UserError where that is none of these."""
        found = next((part for part in self.parts if part.name == problem.task), None)
        if found is None:
            names = ", ".join(part.name for part in self.parts)
            raise UserError(f'a problem of task "{problem.task}" is none of the mix: {names}')
        return found

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A problem of one of the tasks; what a size means is that task's to say."""
        part = self.pick(rng)
        problem: Problem = part.draw(rng, size)
        return replace(problem, task=part.name)

    def check(self, problem: Problem, answer: str) -> Verdict:
        """The verdict of the problem's own task."""
        verdict: Verdict = self.part_of(problem).check(problem, answer)
        return verdict

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """As the problem's own task writes it. Raises UserError where that writes none."""
        return str(self._able(problem, Traceable, "writes no worked attempts").trace(problem, rng, quality))

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """As the problem's own task reads them; none where it reads none."""
        part = self.part_of(problem)
        return part.attempts(problem, thinking) if isinstance(part, Traceable) else []

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last attempt solves the problem, where its own task reads attempts."""
        part = self.part_of(problem)
        return isinstance(part, Traceable) and part.hits(problem, thinking)

    def guess(self, problem: Problem, rng: Random) -> str:
        """A guess of the problem's own task. Raises UserError where that makes none."""
        return str(self._able(problem, Guessable, "makes no guesses").guess(problem, rng))

    def helpfulness(self, problem: Problem, answer: str) -> float:
        """By the rule of the problem's own task. Raises UserError where that has none."""
        return float(self._able(problem, Helpable, "has no rule of helpfulness").helpfulness(problem, answer))

    @property
    def _shares(self) -> Sequence[float]:
        return self.shares or (1.0,) * len(self.tasks)

    def _able(self, problem: Problem, protocol: Any, lacks: str) -> Any:
        part = self.part_of(problem)
        if not isinstance(part, protocol):
            raise UserError(
                f'task "{part.name}", which is part of a mix, {lacks}', next_step="Leave it out of the mix."
            )
        return part
