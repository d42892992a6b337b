"""A user's own task for the end-to-end tests: sums of two numbers, small enough to train on in milliseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.answers import integer


@dataclass(frozen=True)
class Sums:
    """``3+4``: the simplest thing that has everything a task may have, plain facts excepted."""

    qualities: ClassVar[tuple[str, ...]] = ("right", "wrong", "checked")
    verdict_qualities: ClassVar[tuple[str, ...]] = ("checked",)
    mixture: ClassVar[dict[str, float]] = {"right": 0.6, "wrong": 0.2, "checked": 0.2}

    name: str = "sums"
    high: int = 40

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        terms = [rng.randint(1, self.high) for _ in range(size or 2)]
        key = identity("sums", *sorted(terms))
        return Problem(key, self.name, "+".join(map(str, terms)), str(sum(terms)), len(terms))

    def check(self, problem: Problem, answer: str) -> Verdict:
        value = integer(answer)
        if value is None:
            return Verdict.UNPARSED
        return Verdict.PASS if value == int(problem.answer) else Verdict.WRONG

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        value = int(problem.answer) + (rng.choice((-1, 1)) if quality == "wrong" else 0)
        verdict = "\nright" if quality == "checked" else ""
        return f"<think>{problem.prompt}={value}{verdict}</think><answer>{value}</answer>"

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        return re.findall(r"^\d+(?:\+\d+)+=\d+$", thinking, re.MULTILINE)

    def hits(self, problem: Problem, thinking: str) -> bool:
        made = self.attempts(problem, thinking)
        return bool(made) and made[-1].rpartition("=")[2] == problem.answer

    def guess(self, problem: Problem, rng: Random) -> str:
        return str(rng.randint(2, 2 * self.high))
