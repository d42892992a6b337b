"""Multi-step sums and differences: choosing to work one operation at a time is what there is to find.

A problem is ``12+7-5+20=``; every partial result stays within ``[0, chain_max]``. The text a base model reads holds
attempts of mixed quality (``Arithmetic.qualities``); only a minority works one operation at a time and right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate
from random import Random
from typing import ClassVar

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.answers import compared, integer

AGAIN, SAME, DIFFER = "again", "same", "differ"
_ATTEMPT = re.compile(r"^\d+(?:(?:[+-]\d+)+=\d+)*$")
_PROMPT = re.compile(r"^\d+(?:[+-]\d+)+=$")


class Arithmetic(Settings):
    """Sums and differences of several numbers.

    An attempt is one running line, ``12+7=19-5=14+20=34``. Qualities of traces: expert does one operation at a time,
    right; careless two at a time, often slipping; guess says a number near the truth at once; gives_up answers with a
    partial result; rechecks tries quickly, works it again and compares (it judges its own attempts: a switch can
    remove it from the text).
    """

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "careless", "guess", "gives_up", "rechecks")
    verdict_qualities: ClassVar[tuple[str, ...]] = ("rechecks",)
    mixture: ClassVar[Mapping[str, float]] = {
        "expert": 0.12,
        "careless": 0.4,
        "guess": 0.2,
        "gives_up": 0.13,
        "rechecks": 0.15,
    }

    name: str = "arithmetic"
    sizes: tuple[int, ...] = Field((3, 4, 5), description="how many numbers a problem has")
    low: int = Field(1, ge=1, description="smallest number")
    high: int = Field(20, ge=2, description="largest number")
    chain_max: int = Field(99, ge=4, description="largest partial result; none is negative")
    slip: float = Field(0.7, ge=0, le=1, description="share of careless lines that end wrong")

    @model_validator(mode="after")
    def _in_order(self) -> Arithmetic:
        if not self.low < self.high <= self.chain_max:
            raise ValueError("low < high <= chain_max must hold")
        if not self.sizes or min(self.sizes) < 2:
            raise ValueError("sizes needs at least one size, each 2 or more")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A problem of ``size`` numbers whose partial results stay in range, uniform over the next legal terms."""
        size = size or rng.choice(self.sizes)
        value = rng.randint(self.low, self.high)
        terms = [value]
        while len(terms) < size:
            term = self._term(rng)
            if 0 <= value + term <= self.chain_max:
                terms.append(term)
                value += term
        key = identity(self.name, tuple(sorted(terms)))
        prompt = f"{_expression(terms)}="
        return Problem(id=key, task=self.name, prompt=prompt, answer=str(value), size=size)

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS when the answer is the one integer that is right."""
        return compared(integer(answer), int(problem.answer))

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Thinking of the stated quality, then the answer it arrived at."""
        thinking, value = self.worked(problem.prompt, rng, quality)
        return f"<think>{thinking}</think><answer>{value}</answer>"

    def worked(self, prompt: str, rng: Random, quality: str) -> tuple[str, int]:
        """The thinking of one attempt at ``12+7-5=``, and where it ends."""
        work = self._rechecks if quality == "rechecks" else self._attempt
        return work(_terms(prompt), rng, quality)

    def facts(self, rng: Random, count: int) -> str:
        """A running line of ``count`` single operations from a random start, as in a primer: always right."""
        value = rng.randint(0, self.chain_max)
        line = str(value)
        while count:
            term = self._term(rng)
            if 0 <= value + term <= self.chain_max:
                value, count = value + term, count - 1
                line += f"{term:+d}={value}"
        return line

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """Each worked line; an unfinished one is no attempt."""
        return [line for line in thinking.split("\n") if _ATTEMPT.match(line)]

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last attempt ends in the right result."""
        attempts = self.attempts(problem, thinking)
        return bool(attempts) and attempts[-1].rpartition("=")[2] == problem.answer

    def guess(self, problem: Problem, rng: Random) -> str:
        """A uniformly random legal result."""
        return str(rng.randint(0, self.chain_max))

    def _term(self, rng: Random) -> int:
        return rng.choice((1, -1)) * rng.randint(self.low, self.high)

    def _attempt(self, terms: list[int], rng: Random, quality: str) -> tuple[str, int]:
        if quality == "guess":
            value = min(self.chain_max, max(0, sum(terms) + rng.randint(-10, 10)))
            return str(value), value
        steps = rng.randint(1, max(1, len(terms) - 2)) if quality == "gives_up" else len(terms)
        return self._chain(terms, rng, operations=2 if quality == "careless" else 1, steps=steps)

    def _chain(self, terms: list[int], rng: Random, *, operations: int, steps: int) -> tuple[str, int]:
        """Work left to right, ``operations`` at a time, ``steps`` times; more than one at a time may slip."""
        value, line, rest = terms[0], str(terms[0]), terms[1:]
        for _ in range(steps):
            taken, rest = rest[:operations], rest[operations:]
            if not taken:
                break
            value += sum(taken)
            if len(taken) > 1 and rng.random() < self.slip:
                value = self._slip(value, rest, rng)
            line += "".join(f"{term:+d}" for term in taken) + f"={value}"
        return line, value

    def _slip(self, right: int, rest: list[int], rng: Random) -> int:
        """A near miss from which the rest of the chain stays in range, or ``right`` when there is none."""
        misses = [right + by for by in (-10, -2, -1, 1, 2, 10)]
        legal = [v for v in misses if all(0 <= w <= self.chain_max for w in accumulate(rest, initial=v))]
        return rng.choice(legal) if legal else right

    def _rechecks(self, terms: list[int], rng: Random, quality: str) -> tuple[str, int]:
        """A quick attempt, then another with more or less care; the verdict has both results in sight."""
        quick, before = self._attempt(terms, rng, rng.choice(("careless", "guess")))
        line, value = self._attempt(terms, rng, rng.choice(("expert", "careless")))
        return "\n".join((quick, AGAIN, line, SAME if value == before else DIFFER)), value


def _expression(terms: list[int]) -> str:
    return "".join(str(term) if place == 0 else f"{term:+d}" for place, term in enumerate(terms))


def _terms(prompt: str) -> list[int]:
    if not _PROMPT.match(prompt):
        raise ValueError(f"not a sum: {prompt!r}")
    return [int(term) for term in re.findall(r"[+-]?\d+", prompt)]
