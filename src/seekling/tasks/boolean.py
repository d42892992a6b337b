"""Truth tables: working one connective at a time, each column written down, is what there is to find.

    p q r from 000 to 111: (p and not q) or r        ->        p and not q=00001100
                                                               00001100 or r=01011101

The answer is the last column: the values for all rows, so that nobody can guess it. A *column* is a string of 0 and 1,
its first digit the row where every variable is 0, its last the row where every one is 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from random import Random
from typing import ClassVar

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.answers import bits, compared

NAMES = "pqrstu"
CONNECTIVES = ("and", "or")
_SIDE = r"(?:(?:not )?[p-u]|[01]+|\([()p-u01 a-z]*\))"
_LINE = re.compile(rf"^(?:{_SIDE} (?:and|or) {_SIDE}=)?([01]+)$")
_MAX_LINE_CHARS = 400


class Boolean(Settings):
    """The truth table of an expression of and, or and not: its values for all rows, in order.

    Qualities of traces: expert works one connective at a time, each with its column, right; careless two at a time,
    often with one digit wrong; guess writes some column at once; gives_up works well and stops early.
    """

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "careless", "guess", "gives_up")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[Mapping[str, float]] = {"expert": 0.15, "careless": 0.4, "guess": 0.2, "gives_up": 0.25}

    name: str = Field("boolean", pattern="^boolean$")
    sizes: tuple[int, ...] = Field((2, 3, 4), min_length=1, description="how many connectives (and, or)")
    variables: int = Field(3, ge=2, le=len(NAMES), description="how many variables; the table has 2 to that many rows")
    negated: float = Field(0.4, ge=0, le=1, description="share of variables that stand with a not")
    slip: float = Field(0.7, ge=0, le=1, description="share of connectives done two at a time that go wrong")

    @model_validator(mode="after")
    def _is_possible(self) -> Boolean:
        if min(self.sizes) < 1:
            raise ValueError("a size is a number of connectives: 1 or more")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """An expression of ``size`` connectives whose column is neither constant nor that of a single variable."""
        count = size or rng.choice(self.sizes)
        trivial = {self._column(text) for text in self._literals()} | {"0" * self._rows, "1" * self._rows}
        while True:
            postfix = self._postfix(count, rng)
            *_, (expression, column) = self._worked(postfix, at_once=count)
            if column not in trivial:
                break
        names = " ".join(NAMES[: self.variables])
        return Problem(
            id=identity(self.name, self.variables, _normal(postfix)),
            task=self.name,
            prompt=f"{names} from {'0' * self.variables} to {'1' * self.variables}: {expression}",
            answer=column,
            size=count,
            info={"postfix": postfix},
        )

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for the whole column; UNPARSED for what is not made of zeros and ones."""
        return compared(bits(answer), problem.answer)

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Thinking of the stated quality, then the column it arrived at."""
        if quality == "guess":
            lines = [self._any_column(rng)]
        else:
            slip = self.slip if quality == "careless" else 0.0
            worked = self._worked(problem.info["postfix"], rng, at_once=2 if quality == "careless" else 1, slip=slip)
            lines = [f"{said}={column}" for said, column in worked]
            if quality == "gives_up":
                lines = lines[: rng.randint(1, max(1, len(lines) - 1))]
        thinking = "\n".join(lines)
        return f"<think>{thinking}</think><answer>{lines[-1].rpartition('=')[2]}</answer>"

    def facts(self, rng: Random, count: int) -> str:
        """Lines of one connective between columns and variables: always right."""
        return "\n".join(f"{said}={column}" for said, column in (self._fact(rng) for _ in range(count)))

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """The whole of the thinking, when every line of it ends in a column; else none."""
        lines = thinking.strip("\n").split("\n")
        return ["\n".join(lines)] if all(self._result(line) for line in lines) else []

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last line ends in the right column."""
        last = "".join(self.attempts(problem, thinking)).rpartition("\n")[2]
        return self._result(last) == problem.answer

    def guess(self, problem: Problem, rng: Random) -> str:
        """A uniformly random column."""
        return self._any_column(rng)

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """The column in groups, and white space around it."""
        key = problem.answer
        return [" ".join(key), f"{key[: len(key) // 2]} {key[len(key) // 2 :]}", f" {key}\n"]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """A digit wrong or missing or more, the rows from the other end, the column negated, or as another number."""
        key = problem.answer
        near = [key[::-1], key.translate(str.maketrans("01", "10")), key[:-1], key + "0", f"0{key}", key.lstrip("0")]
        wrong = [_flipped(key, place) for place in range(len(key))]
        wrong += [text for text in [*near, str(int(key, 2))] if text != key]
        return [*wrong, f"0b{key}", f"{key}=", key.replace("0", "O")]

    @property
    def _rows(self) -> int:
        return 1 << self.variables

    def _literals(self) -> list[str]:
        return [f"{sign}{name}" for name in NAMES[: self.variables] for sign in ("", "not ")]

    def _literal(self, rng: Random) -> str:
        sign = "not " if rng.random() < self.negated else ""
        return sign + rng.choice(NAMES[: self.variables])

    def _column(self, said: str) -> str:
        """The column of a variable, with or without its not; a column is its own."""
        if said[0] in "01":
            return said
        place = NAMES.index(said[-1])
        values = (row[place] ^ said.startswith("not") for row in product((0, 1), repeat=self.variables))
        return "".join(map(str, values))

    def _any_column(self, rng: Random) -> str:
        return "".join(rng.choice("01") for _ in range(self._rows))

    def _fact(self, rng: Random) -> tuple[str, str]:
        left, right = (self._any_column(rng) if rng.random() < 0.5 else self._literal(rng) for _ in range(2))
        connective = rng.choice(CONNECTIVES)
        return f"{left} {connective} {right}", _joined(self._column(left), connective, self._column(right))

    def _postfix(self, count: int, rng: Random) -> list[str]:
        """A random expression of ``count`` connectives, operands before their connective."""
        if not count:
            return [self._literal(rng)]
        left = rng.randrange(count)
        return [*self._postfix(left, rng), *self._postfix(count - 1 - left, rng), rng.choice(CONNECTIVES)]

    def _worked(
        self, postfix: Sequence[str], rng: Random | None = None, *, at_once: int, slip: float = 0.0
    ) -> Iterator[tuple[str, str]]:
        """(what is worked out, its column) after every ``at_once`` connectives and at the end.

        What has been worked out stands as its column in what comes later. ``slip``: how often a digit is wrong where
        more than one connective was done; then ``rng`` draws which.
        """
        stack: list[tuple[str, str]] = []
        done, last = 0, len(postfix) // 2
        for token in postfix:
            if token not in CONNECTIVES:
                stack.append((token, self._column(token)))
                continue
            (right, right_column), (left, left_column) = stack.pop(), stack.pop()
            said, column, done = f"{left} {token} {right}", _joined(left_column, token, right_column), done + 1
            if done % at_once and done < last:
                stack.append((f"({said})", column))
                continue
            if rng is not None and "(" in said and rng.random() < slip:
                column = _flipped(column, rng.randrange(len(column)))
            yield said, column
            stack.append((column, column))

    def _result(self, line: str) -> str | None:
        found = _LINE.match(line) if len(line) <= _MAX_LINE_CHARS else None
        return found[1] if found and len(found[1]) == self._rows else None


def _joined(left: str, connective: str, right: str) -> str:
    pick = min if connective == "and" else max
    return "".join(map(pick, left, right))


def _flipped(column: str, place: int) -> str:
    return column[:place] + "10"[int(column[place])] + column[place + 1 :]


def _normal(postfix: Sequence[str]) -> object:
    """The expression without the order of operands, and without brackets inside a run of one connective."""
    stack: list[tuple[str, list[str]]] = []
    for token in postfix:
        if token not in CONNECTIVES:
            stack.append(("", [token]))
            continue
        sides = [stack.pop(), stack.pop()]
        parts = [part for kind, parts in sides for part in (parts if kind in ("", token) else [repr((kind, parts))])]
        stack.append((token, sorted(parts)))
    return stack[0]
