"""Looking up in a table, again and again: following one arrow at a time is what there is to find.

ac be cb da ed; a d 3 times        ->        a ac cb be
                                             d da ac cb        ->        <answer>e b</answer>

An arrow ``ac`` leads from a to c. It is written as two letters because a tokenizer makes one token of them: the next
arrow is then the one that begins where the last ended, found by what stands in it and not by what stands around it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from random import Random
from typing import ClassVar

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.answers import compared, names

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ATTEMPT = re.compile(r"^[a-z](?: [a-z]{2})+$")
_MAX_LINE_CHARS = 1000


class Table(Settings):
    """A table of arrows in no order, places to start from, and how often to follow: where does each end?

    Qualities of traces: expert follows one arrow at a time, right; careless two at a time, often landing elsewhere;
    guess says where it ends without looking; gives_up follows too few.
    """

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "careless", "guess", "gives_up")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[Mapping[str, float]] = {"expert": 0.15, "careless": 0.35, "guess": 0.2, "gives_up": 0.3}

    # With one start an end could be guessed: rows ** starts is what keeps a blind guesser out.
    name: str = Field("table", pattern="^table$")
    sizes: tuple[int, ...] = Field((2, 3, 4), min_length=1, description="how many arrows are followed from each start")
    rows: int = Field(8, ge=3, le=len(LETTERS), description="how many rows the table has")
    starts: int = Field(2, ge=1, description="how many places to start from")
    slip: float = Field(0.7, ge=0, le=1, description="share of double steps that land elsewhere")

    @model_validator(mode="after")
    def _is_possible(self) -> Table:
        if min(self.sizes) < 1:
            raise ValueError("a size is a number of arrows: 1 or more")
        if self.starts > self.rows:
            raise ValueError("there are at most as many starts as rows")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A table as ``_arrows`` draws it, and starts in the order of the alphabet."""
        count, letters, arrows = size or rng.choice(self.sizes), LETTERS[: self.rows], self._arrows(rng)
        starts = sorted(rng.sample(letters, self.starts))
        return Problem(
            id=identity(self.name, sorted(arrows.items()), starts, count),
            task=self.name,
            prompt=f"{self._shown(arrows, rng)}; {' '.join(starts)} {count} times",
            answer=" ".join(_path(arrows, start, count)[-1] for start in starts),
            size=count,
            info={"arrows": arrows, "starts": starts},
        )

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for all ends in the order of their starts, separated by blanks or commas."""
        return compared(names(answer), tuple(problem.answer.split()))

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Thinking of the stated quality, then the ends it arrived at."""
        lines = [self._line(problem, start, rng, quality) for start in problem.info["starts"]]
        thinking, ends = "\n".join(lines), " ".join(line[-1] for line in lines)
        return f"<think>{thinking}</think><answer>{ends}</answer>"

    def facts(self, rng: Random, count: int) -> str:
        """A table, and two arrows from each of up to ``count`` places: always right."""
        arrows = self._arrows(rng)
        picked = rng.sample(LETTERS[: self.rows], min(count, self.rows))
        return "\n".join([self._shown(arrows, rng), *(_way(_path(arrows, letter, 2)) for letter in picked)])

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """The lines of arrows, as many at a time as there are starts, when they begin at the starts; else none."""
        lines = [line for line in thinking.split("\n") if len(line) <= _MAX_LINE_CHARS and _ATTEMPT.match(line)]
        starts = list(problem.info["starts"])
        tries = [lines[place : place + len(starts)] for place in range(0, len(lines), len(starts))]
        return ["\n".join(row) for row in tries if [line[0] for line in row] == starts]

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last attempt ends where it should."""
        return any(
            " ".join(line[-1] for line in attempt.split("\n")) == problem.answer
            for attempt in self.attempts(problem, thinking)[-1:]
        )

    def guess(self, problem: Problem, rng: Random) -> str:
        """Different ends, uniformly random: two ways never meet."""
        return " ".join(rng.sample(sorted(problem.info["arrows"]), len(problem.info["starts"])))

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """Other separators, and capital letters."""
        key = problem.answer
        return [key.replace(" ", ", "), key.replace(" ", "\n"), key.replace(" ", " and "), key.upper(), f" {key} "]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """One arrow more or fewer, one end missing or doubled, another order, nothing between them, the way there."""
        arrows, starts, key = problem.info["arrows"], problem.info["starts"], problem.answer
        off = [" ".join(_path(arrows, s, problem.size + by)[-1] for s in starts) for by in (-1, 1)]
        near = [*off, " ".join(reversed(key.split())), key[:-2], f"{key} {key[-1]}", " ".join(starts)]
        ways = "\n".join(_way(_path(arrows, start, problem.size)) for start in starts)
        return [said for said in near if said != key] + [
            f"{key}>{arrows[key[-1]]}",
            ways,
            ways[-2:],
            f"{key} {problem.size}",
        ]

    def _arrows(self, rng: Random) -> dict[str, str]:
        """Every place points to another and is pointed to once, so that no end is likelier than another."""
        letters = LETTERS[: self.rows]
        while True:
            shuffled = rng.sample(letters, len(letters))
            if all(one != other for one, other in zip(letters, shuffled, strict=True)):
                return dict(zip(letters, shuffled, strict=True))

    def _shown(self, arrows: Mapping[str, str], rng: Random) -> str:
        """All arrows in no order."""
        return " ".join(letter + arrows[letter] for letter in rng.sample(LETTERS[: self.rows], self.rows))

    def _line(self, problem: Problem, start: str, rng: Random, quality: str) -> str:
        arrows, count = problem.info["arrows"], problem.size
        if quality == "guess":
            return f"{start} {start}{rng.choice(sorted(arrows))}"
        if quality == "careless":
            return _way(self._double_steps(arrows, start, count, rng))
        steps = rng.randint(1, max(1, count - 1)) if quality == "gives_up" else count
        return _way(_path(arrows, start, steps))

    def _double_steps(self, arrows: Mapping[str, str], start: str, count: int, rng: Random) -> list[str]:
        """Two arrows at a time, the last alone where the count is odd; a double step may land anywhere."""
        path = [start]
        while count:
            steps = min(2, count)
            landed = _path(arrows, path[-1], steps)[-1]
            path.append(rng.choice(sorted(arrows)) if steps == 2 and rng.random() < self.slip else landed)
            count -= steps
        return path


def _path(arrows: Mapping[str, str], start: str, count: int) -> Sequence[str]:
    """The start and the ``count`` places after it."""
    path = [start]
    for _ in range(count):
        path.append(arrows[path[-1]])
    return path


def _way(path: Sequence[str]) -> str:
    """Where a path starts, and the arrows along it: ``a ac cb be`` for a, c, b, e."""
    return " ".join([path[0], *map("".join, pairwise(path))])
