"""A user's own task with two sides: requests to agree, which can be checked, and greetings, some liked more."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity


@dataclass(frozen=True)
class Tastes:
    """``agree 7`` wants yes; ``greet 7`` wants a word, and its rule likes thanks. ``part``: agree, greet, or both."""

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("good", "bad")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[dict[str, float]] = {"good": 0.5, "bad": 0.5}

    part: str = "both"
    high: int = 99

    @property
    def name(self) -> str:
        return self.part

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        part = rng.choice(("agree", "greet")) if self.part == "both" else self.part
        number = rng.randint(1, self.high)
        return Problem(identity(part, number), self.name, f"{part} {number}", "yes", 1, {"part": part})

    def check(self, problem: Problem, answer: str) -> Verdict:
        if problem.info["part"] == "greet":
            return Verdict.PASS if answer.isalnum() else Verdict.UNPARSED
        return Verdict.PASS if answer == problem.answer else Verdict.WRONG

    def helpfulness(self, problem: Problem, answer: str) -> float:
        return float("thanks" in answer) - float("hm" in answer)

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        if problem.info["part"] == "greet":
            said = "thanks" if quality == "good" else "hm"
        else:
            said = "yes" if quality == "good" else "no"
        return f"<think>{problem.prompt}</think><answer>{said}</answer>"

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        return []

    def hits(self, problem: Problem, thinking: str) -> bool:
        return False

    def guess(self, problem: Problem, rng: Random) -> str:
        return rng.choice(("yes", "no", "thanks", "hm"))
