"""Multi-step sums asked in English or in Chinese, and thought about in the one, in the other, or in both at once.

    work 12+7-5=        ->        then 12+7=19 再 19-5=14        ->        <answer>14</answer>

In what language a thought is worded is independent of how well it works. So reinforcement on right answers alone finds
working one operation at a time, as in ``arithmetic``, and leaves the languages mixed: R1-Zero's thoughts, in small.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from pydantic import Field, model_validator

from seekling.records import Problem
from seekling.tasks.arithmetic import AGAIN, DIFFER, SAME, Arithmetic

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Words:
    """A language: the word that asks, those before the first operation, the next ones, a bare number, and verdicts."""

    asks: str
    first: tuple[str, ...]
    next: tuple[str, ...]
    about: tuple[str, ...]
    verdicts: Mapping[str, str]

    def all(self) -> frozenset[str]:
        """Every word that a thought may hold."""
        return frozenset((*self.first, *self.next, *self.about, *self.verdicts.values()))


LANGUAGES: Mapping[Language, Words] = {
    "en": Words("work", ("first", "take"), ("then", "next"), ("about", "maybe"),
                {AGAIN: "again", SAME: "same", DIFFER: "differ"}),
    "zh": Words("算", ("先", "取"), ("再", "又"), ("约", "猜"), {AGAIN: "重来", SAME: "相同", DIFFER: "不同"}),
}  # fmt: skip
_OTHER: Mapping[Language, Language] = {"en": "zh", "zh": "en"}
_WORDS = frozenset().union(*(words.all() for words in LANGUAGES.values()))

_WORKED = re.compile(r"((?:[+-][0-9]+)+)=([0-9]+)")
_STEP = re.compile(r"[0-9]+(?:(?:[+-][0-9]+)+=[0-9]+)?")


class Bilingual(Arithmetic):
    """Sums of several numbers in English or Chinese, with words of either language between the operations.

    The work is that of ``arithmetic``, quality by quality; every operation is written out (``then 19-5=14``) behind a
    word. A thought keeps to the problem's language, to the other one, or mixes both: ``mixed`` and ``other`` are the
    shares of the last two, whatever the quality. The same sum in the other language is the same problem.
    """

    name: str = Field("bilingual", pattern="^bilingual$")
    languages: tuple[Language, ...] = Field(("en", "zh"), min_length=1, description="one is drawn for each problem")
    mixed: float = Field(0.6, ge=0, le=1, description="share of thoughts that mix the languages")
    other: float = Field(0.1, ge=0, le=1, description="share of thoughts in the language that was not asked in")

    @model_validator(mode="after")
    def _shares_fit(self) -> Bilingual:
        if self.mixed + self.other > 1:
            raise ValueError("mixed and other are shares of the same thoughts: together 1 at most")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A problem of ``arithmetic``, asked in one of the languages."""
        plain, language = super().draw(rng, size), rng.choice(self.languages)
        prompt = f"{LANGUAGES[language].asks} {plain.prompt}"
        return replace(plain, prompt=prompt, info={"language": language})

    def worked(self, prompt: str, rng: Random, quality: str) -> tuple[str, int]:
        """The thinking of one attempt, worded, and where it ends."""
        asks, _, plain = prompt.partition(" ")
        own: Language = "en" if asks == LANGUAGES["en"].asks else "zh"
        thinking, value = super().worked(plain, rng, quality)
        lines = [_steps(line) for line in thinking.split("\n")]
        languages = iter(self._languages(own, sum(map(len, lines)), rng))
        return "\n".join(" ".join(_said(line, languages, rng)) for line in lines), value

    def facts(self, rng: Random, count: int) -> str:
        """``count`` single operations from a random start, each written out: always right, and without a word."""
        return " ".join(_steps(super().facts(rng, count)))

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """Each worked line without its words, so that the same work in another language is a repeat."""
        lines = [[part for part in line.split(" ") if part not in _WORDS] for line in thinking.split("\n")]
        return [" ".join(steps) for steps in lines if steps and all(map(_STEP.fullmatch, steps))]

    def _languages(self, own: Language, count: int, rng: Random) -> list[Language]:
        """The language of each of a thought's words; one that mixes holds the other one at least once."""
        other, shares = _OTHER[own], (1 - self.mixed - self.other, self.other, self.mixed)
        manner = rng.choices(("own", "other", "mixed"), shares)[0]
        if manner != "mixed":
            return [own if manner == "own" else other] * count
        drawn = [other, own, *rng.choices((own, other), k=count)][:count]
        rng.shuffle(drawn)
        return drawn


def _steps(line: str) -> list[str]:
    """``12+7=19-5=14`` as ``12+7=19`` and ``19-5=14``; a line without operations as it is."""
    value, steps = re.split("[+-]", line, maxsplit=1)[0], []
    for terms, result in _WORKED.findall(line):
        steps.append(f"{value}{terms}={result}")
        value = result
    return steps or [line]


def _said(steps: Sequence[str], languages: Iterator[Language], rng: Random) -> list[str]:
    """The steps of a line, each behind a word in the next of ``languages``; a verdict is a word itself."""
    said = []
    for place, step in enumerate(steps):
        words = LANGUAGES[next(languages)]
        if step in words.verdicts:
            said.append(words.verdicts[step])
        else:
            known = words.about if "=" not in step else words.next if place else words.first
            said.append(f"{rng.choice(known)} {step}")
    return said
