"""Sums, differences and products modulo a small number: reducing after every operation is what there is to find.

    (5*7+12)*3-4 mod 31        ->        5*7=35≡4+12=16≡16*3=48≡17-4=13≡13

Operations are done in the order in which they are written: brackets stand where the usual order is another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from random import Random
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.answers import compared, integer

_ATTEMPT = re.compile(r"^[0-9]+(?:(?:[-+*][0-9]+)+=-?[0-9]+≡[0-9]+)*$")
_SLIPS = (-10, -3, -2, -1, 1, 2, 3, 10)

Term = tuple[str, int]
"""An operation, one of ``+-*``, and its right number."""


class Modular(Settings):
    """Sums, differences and products of several numbers, modulo another.

    An attempt is one running line: an operation, its result, and what is left of it. Qualities of traces: expert does
    one operation at a time and reduces it, right; careless two at a time before reducing, often slipping; guess says
    some remainder at once; gives_up works well and stops early.
    """

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "careless", "guess", "gives_up")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[Mapping[str, float]] = {"expert": 0.15, "careless": 0.4, "guess": 0.25, "gives_up": 0.2}

    # Moduli below 29 would let a blind guesser through more than a quarter of the time at 8 tries.
    name: str = Field("modular", pattern="^modular$")
    sizes: tuple[int, ...] = Field((3, 4, 5), min_length=1, description="how many numbers a problem has")
    moduli: tuple[int, ...] = Field((31,), min_length=1, description="what remainders are of; one for each problem")
    operations: tuple[Literal["+", "-", "*"], ...] = Field(("+", "-", "*"), min_length=1, description="those drawn")
    term_max: int = Field(20, ge=1, description="largest number added or taken away")
    factor_max: int = Field(5, ge=2, description="largest factor; the smallest is 2")
    slip: float = Field(0.7, ge=0, le=1, description="share of operations done two at a time that go wrong")

    @model_validator(mode="after")
    def _is_possible(self) -> Modular:
        if min(self.sizes) < 2:
            raise ValueError("a size is a number of numbers: 2 or more")
        if min(self.moduli) < 2:
            raise ValueError("a modulus is 2 or more")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A problem of ``size`` numbers, every operation and number drawn by itself."""
        modulus, count = rng.choice(self.moduli), size or rng.choice(self.sizes)
        start, terms = rng.randrange(modulus), [self._term(rng) for _ in range(count - 1)]
        return Problem(
            id=identity(self.name, modulus, _normal(start, terms)),
            task=self.name,
            prompt=f"{_expression(start, terms)} mod {modulus}",
            answer=str(_value(start, terms) % modulus),
            size=count,
            info={"modulus": modulus, "start": start, "terms": terms},
        )

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for the remainder itself; a number that leaves it is WRONG, since it is not reduced."""
        return compared(integer(answer), int(problem.answer))

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Thinking of the stated quality, then the remainder it arrived at."""
        modulus, start, terms = problem.info["modulus"], problem.info["start"], _terms(problem)
        if quality == "guess":
            line = str(rng.randrange(modulus))
        else:
            kept = terms[: rng.randint(1, max(1, len(terms) - 1))] if quality == "gives_up" else terms
            line = self._line(start, kept, modulus, rng, at_once=2 if quality == "careless" else 1)
        return f"<think>{line}</think><answer>{line.rpartition('≡')[2]}</answer>"

    def facts(self, rng: Random, count: int) -> str:
        """A running line of ``count`` single operations below the modulus it is for: always right."""
        modulus = rng.choice(self.moduli)
        terms = [self._term(rng) for _ in range(count)]
        return f"mod {modulus}\n{self._line(rng.randrange(modulus), terms, modulus, rng, at_once=1)}"

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """Each worked line; an unfinished one is no attempt."""
        return [line for line in thinking.split("\n") if _ATTEMPT.match(line)]

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last attempt ends in the right remainder."""
        attempts = self.attempts(problem, thinking)
        return bool(attempts) and attempts[-1].rpartition("≡")[2] == problem.answer

    def guess(self, problem: Problem, rng: Random) -> str:
        """A uniformly random remainder."""
        return str(rng.randrange(problem.info["modulus"]))

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """White space around the number."""
        return [f" {problem.answer}", f"{problem.answer}\n", f"\t{problem.answer} "]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Numbers that leave the same remainder, neighbours, and the remainder with more said."""
        right, modulus = int(problem.answer), problem.info["modulus"]
        near = [right + modulus, right - modulus, right + 1, right - 1, right + modulus**9]
        return [*map(str, near), f"+{right}", f"{right}.0", f"{right} mod {modulus}", f"≡{right}", f"0{right}"]

    def _term(self, rng: Random) -> Term:
        operation = rng.choice(self.operations)
        return operation, rng.randint(2, self.factor_max) if operation == "*" else rng.randint(1, self.term_max)

    def _line(self, start: int, terms: list[Term], modulus: int, rng: Random, *, at_once: int) -> str:
        """Work ``at_once`` operations at a time, then reduce; more than one at a time may slip."""
        value, line = start, str(start)
        for first in range(0, len(terms), at_once):
            taken = terms[first : first + at_once]
            raw = _value(value, taken)
            if len(taken) > 1 and rng.random() < self.slip:
                raw += rng.choice(_SLIPS)
            value = raw % modulus
            line += "".join(f"{operation}{number}" for operation, number in taken) + f"={raw}≡{value}"
        return line


def _value(start: int, terms: list[Term]) -> int:
    value = start
    for operation, number in terms:
        value = {"+": value + number, "-": value - number, "*": value * number}[operation]
    return value


def _expression(start: int, terms: list[Term]) -> str:
    text, is_sum = str(start), False
    for operation, number in terms:
        text = f"({text})" if operation == "*" and is_sum else text
        text, is_sum = f"{text}{operation}{number}", operation != "*"
    return text


def _normal(start: int, terms: list[Term]) -> list[list[Term]]:
    """The runs of sums and of products, each sorted: within a run the order changes nothing."""
    first = ("*" if terms and terms[0][0] == "*" else "+", start)
    return [sorted(run) for _, run in groupby([first, *terms], key=lambda term: term[0] == "*")]


def _terms(problem: Problem) -> list[Term]:
    return [(operation, number) for operation, number in problem.info["terms"]]
