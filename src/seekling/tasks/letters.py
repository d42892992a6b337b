"""Counting letters: spelling the word, with a running count at every letter, is what there is to find.

    count a b n in banana        ->        b1 a1 n1 a2 n2 a3        ->        <answer>3 1 2</answer>

A model reads a word in pieces of several letters and cannot see how they are spelled; it must have learned that.
Several letters are asked for at once, because a single count could be guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import ClassVar

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.answers import compared, integers

_ATTEMPT = re.compile(r"^[a-z][0-9]+(?: [a-z][0-9]+)*$")
_MAX_LINE_CHARS = 1000


class Letters(Settings):
    """How often each of several letters occurs in a made-up word.

    Qualities of traces: expert spells the word and counts along, right; careless says the counts without spelling,
    often off by one; guess says those of another word; gives_up stops spelling early and answers with what it has.
    """

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "careless", "guess", "gives_up")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[Mapping[str, float]] = {"expert": 0.15, "careless": 0.35, "guess": 0.2, "gives_up": 0.3}

    name: str = Field("letters", pattern="^letters$")
    sizes: tuple[int, ...] = Field((6, 7, 8), min_length=1, description="how many letters a word has")
    alphabet: str = Field("abenrs", pattern="^[a-z]{2,26}$", description="letters that words are made of")
    asked: int = Field(3, ge=1, description="how many letters are to be counted; fewer than the alphabet has")
    slip: float = Field(0.7, ge=0, le=1, description="share of careless counts with one of them off by one")

    @model_validator(mode="after")
    def _is_possible(self) -> Letters:
        if min(self.sizes) < 1:
            raise ValueError("a size is a number of letters: 1 or more")
        if len(set(self.alphabet)) < len(self.alphabet) or self.asked > len(self.alphabet):
            raise ValueError("the alphabet names each letter once, and at least as many as are asked for")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A word of ``size`` letters, each drawn by itself; letters asked for are in the order of the alphabet."""
        word = self._word(rng, size or rng.choice(self.sizes))
        asked = sorted(rng.sample(self.alphabet, self.asked))
        return Problem(
            id=identity(self.name, word, asked),
            task=self.name,
            prompt=f"count {' '.join(asked)} in {word}",
            answer=_counts(word, asked),
            size=len(word),
            info={"word": word, "asked": asked},
        )

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for all counts in the order asked, separated by blanks or commas."""
        return compared(integers(answer), integers(problem.answer))

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Thinking of the stated quality, then the counts it arrived at."""
        word, asked = problem.info["word"], problem.info["asked"]
        if quality in ("expert", "gives_up"):
            spelled = word[: rng.randint(1, max(1, len(word) - 1))] if quality == "gives_up" else word
            thinking, said = _spelled(spelled), _counts(spelled, asked)
        else:
            said = self.guess(problem, rng) if quality == "guess" else self._slipped(problem, rng)
            thinking = " ".join(map("{}{}".format, asked, said.split()))
        return f"<think>{thinking}</think><answer>{said}</answer>"

    def facts(self, rng: Random, count: int) -> str:
        """Words of up to ``count`` letters, spelled: always right."""
        word = self._word(rng, rng.randint(1, max(1, count)))
        return f"{word}\n{_spelled(word)}"

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """Each line of letters with counts."""
        return [line for line in thinking.split("\n") if len(line) <= _MAX_LINE_CHARS and _ATTEMPT.match(line)]

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last counts of the last attempt are right for the letters asked; one not named counts 0."""
        last = {item[0]: item[1:] for line in self.attempts(problem, thinking)[-1:] for item in line.split()}
        return bool(last) and " ".join(last.get(letter, "0") for letter in problem.info["asked"]) == problem.answer

    def guess(self, problem: Problem, rng: Random) -> str:
        """The counts of another random word of the same length: better than counts drawn uniformly."""
        return _counts(self._word(rng, problem.size), problem.info["asked"])

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """Other separators."""
        key = problem.answer
        return [key.replace(" ", ", "), key.replace(" ", ","), key.replace(" ", "\n"), f" {key} "]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Each count off by one, one missing, one more, all in one number, the sum, another order."""
        counts = list(integers(problem.answer) or ())
        near = [[*counts[:place], n + by, *counts[place + 1 :]] for place, n in enumerate(counts) for by in (-1, 1)]
        near += [counts[:-1], [*counts, 0], [*counts, counts[-1]]]
        near += [counts[::-1]] if counts[::-1] != counts else []
        said = [" ".join(map(str, row)) for row in near]
        named = " ".join(map("{}{}".format, problem.info["asked"], counts))
        return [*said, f"{problem.answer.replace(' ', '')}x", named, problem.answer.replace(" ", ";") + ";"]

    def _word(self, rng: Random, length: int) -> str:
        return "".join(rng.choice(self.alphabet) for _ in range(length))

    def _slipped(self, problem: Problem, rng: Random) -> str:
        """The right counts, or, as often as ``slip`` says, one of them off by one; none is negative."""
        counts = list(integers(problem.answer) or ())
        if rng.random() < self.slip:
            place = rng.randrange(len(counts))
            counts[place] += rng.choice((-1, 1)) if counts[place] else 1
        return " ".join(map(str, counts))


def _counts(word: str, asked: Sequence[str]) -> str:
    return " ".join(str(word.count(letter)) for letter in asked)


def _spelled(word: str) -> str:
    """``b1 a1 n1 a2 n2 a3``: each letter with how often it has occurred by then."""
    seen: Counter[str] = Counter()
    items = []
    for letter in word:
        seen[letter] += 1
        items.append(f"{letter}{seen[letter]}")
    return " ".join(items)
