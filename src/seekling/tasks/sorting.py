"""Sorting numbers: taking the smallest of what is left, and writing down what is left, is what there is to find.

sort 31 7 22 15        ->        7<31 22 15
                                 15<31 22
                                 22<31
                                 31
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.answers import compared, integers

_ATTEMPT = re.compile(r"^-?[0-9]+(?:[<>]-?[0-9]+(?: -?[0-9]+)*)?$|^-?[0-9]+(?: -?[0-9]+)+$")
_MAX_LINE_CHARS = 1000


class Sorting(Settings):
    """Different numbers to put in order.

    Qualities of traces: expert takes the smallest and writes down what is left, until nothing is, right; careless
    writes the numbers in a row at once, often with two of them exchanged; guess takes them in any order; gives_up
    begins well and leaves the rest as it stood.
    """

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "careless", "guess", "gives_up")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[Mapping[str, float]] = {"expert": 0.15, "careless": 0.4, "guess": 0.2, "gives_up": 0.25}

    # Fewer than 4 numbers could be put in order blindly in 8 tries.
    name: str = Field("sorting", pattern="^sorting$")
    sizes: tuple[int, ...] = Field((4, 5), min_length=1, description="how many numbers a problem has")
    low: int = Field(0, description="smallest number")
    high: int = Field(99, description="largest number")
    orders: tuple[Literal["up", "down"], ...] = Field(("up",), min_length=1, description="smallest or largest first")
    slip: float = Field(0.7, ge=0, le=1, description="share of careless rows with two numbers exchanged")

    @model_validator(mode="after")
    def _is_possible(self) -> Sorting:
        if min(self.sizes) < 2:
            raise ValueError("a size is a number of numbers: 2 or more")
        if self.high - self.low + 1 < max(self.sizes):
            raise ValueError("low..high must hold as many numbers as the largest size")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """``size`` different numbers in any order but the right one. Raises UserError when there are not so many."""
        count, order = size or rng.choice(self.sizes), rng.choice(self.orders)
        if count > self.high - self.low + 1:
            raise UserError(f"{self.low}..{self.high} holds no {count} different numbers", next_step="Widen it.")
        shown = rng.sample(range(self.low, self.high + 1), count)
        right = sorted(shown, reverse=order == "down")
        if shown == right:
            shown = shown[::-1]
        return Problem(
            id=identity(self.name, order, sorted(shown)),
            task=self.name,
            prompt=f"sort {'down ' * (order == 'down')}{_row(shown)}",
            answer=_row(right),
            size=count,
            info={"numbers": shown, "order": order},
        )

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for all numbers in order, separated by blanks or commas."""
        return compared(integers(answer), integers(problem.answer))

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Thinking of the stated quality, then the numbers in the order it arrived at."""
        numbers, right = list(problem.info["numbers"]), list(integers(problem.answer) or ())
        if quality == "expert":
            thinking, said = self._crossed_off(problem, numbers, len(numbers)), right
        elif quality == "gives_up":
            taken = rng.randint(1, max(1, len(numbers) - 3))
            thinking = self._crossed_off(problem, numbers, taken)
            said = right[:taken] + [n for n in numbers if n not in right[:taken]]
        else:
            said = rng.sample(numbers, len(numbers)) if quality == "guess" else self._slipped(right, rng)
            thinking = _row(said)
        return f"<think>{thinking}</think><answer>{_row(said)}</answer>"

    def facts(self, rng: Random, count: int) -> str:
        """Lines that name the first of a few numbers: always right."""
        order = rng.choice(self.orders)
        sign, pick = _SIGNS[order], min if order == "up" else max
        lines = []
        for _ in range(count):
            rest = rng.sample(range(self.low, self.high + 1), rng.randint(2, max(2, max(self.sizes) - 1)))
            first = pick(rest)
            rest.remove(first)
            lines.append(f"{first}{sign}{_row(rest)}")
        return "\n".join(lines)

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """The order that the thinking arrives at, as a row, when it names as many numbers as there are; else none."""
        lines = [line for line in thinking.split("\n") if len(line) <= _MAX_LINE_CHARS and _ATTEMPT.match(line)]
        rows = [line for line in lines if " " in line and not re.search("[<>]", line)]
        firsts = [line for line in lines if line not in rows]
        told = [*rows, " ".join(re.split("[<>]", line)[0] for line in firsts)]
        return [row for row in told if len(row.split()) == problem.size]

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last attempt is the right order."""
        return self.attempts(problem, thinking)[-1:] == [problem.answer]

    def guess(self, problem: Problem, rng: Random) -> str:
        """The numbers in a uniformly random order."""
        return _row(rng.sample(list(problem.info["numbers"]), problem.size))

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """Other separators."""
        key = problem.answer
        return [key.replace(" ", ", "), key.replace(" ", ","), key.replace(" ", "\n"), f" {key.replace(' ', '  ')} "]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """The other way round, one missing, one twice, two exchanged, another number, and separators that are none."""
        right = list(integers(problem.answer) or ())
        swapped = [
            [*right[:place], right[place + 1], right[place], *right[place + 2 :]] for place in range(len(right) - 1)
        ]
        near = [
            right[::-1],
            right[:-1],
            right[1:],
            [*right, right[-1]],
            [right[0], *right],
            [*right[:-1], right[-1] + 1],
            *swapped,
        ]
        return [
            *map(_row, near),
            "".join(map(str, right)),
            problem.answer.replace(" ", "<"),
            problem.answer.replace(" ", ",,"),
        ]

    def _crossed_off(self, problem: Problem, numbers: Sequence[int], count: int) -> str:
        """``count`` lines of the first of what is left, and then what is left without it."""
        lines, rest, sign = [], list(numbers), _SIGNS[problem.info["order"]]
        for first in (integers(problem.answer) or ())[:count]:
            rest.remove(first)
            lines.append(f"{first}{sign}{_row(rest)}" if rest else str(first))
        return "\n".join(lines)

    def _slipped(self, right: list[int], rng: Random) -> list[int]:
        """The right order, or, as often as ``slip`` says, one with two neighbours exchanged."""
        if rng.random() >= self.slip:
            return right
        place = rng.randrange(len(right) - 1)
        return [*right[:place], right[place + 1], right[place], *right[place + 2 :]]


_SIGNS = {"up": "<", "down": ">"}


def _row(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
