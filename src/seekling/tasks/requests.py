"""Tiny requests with constraints that can be checked, and a taste that cannot: the general side of a small world.

    name 3 of the sea with salt not tide end !        ->        <answer>wave salt sail thanks!</answer>

A check tells whether the constraints are kept. Whether the words are of the topic, differ, and are said courteously, it
does not ask; ``helpfulness`` knows, and is for whoever draws preferences: a reward model has to learn it from pairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.tasks.topics import TOPICS, Topic

Language = Literal["en", "zh"]

MOST = 5
"""Constraints that a request can make: with all of them, one more word than can be asked for is free."""
_MAX_CHARS = 10_000


@dataclass(frozen=True, slots=True)
class Words:
    """A language: how it asks, the words of courtesy, the marks that can end an answer, and what a thought says."""

    asks: str
    avoid: str
    end: str
    courtesies: tuple[str, ...]
    marks: tuple[str, ...]
    notes: str
    tries: str


LANGUAGES: Mapping[Language, Words] = {
    "en": Words("name {count} of {topic} with {wanted}", "not {word}", "end {mark}", ("thanks", "enjoy", "bye"),
                (".", "!"), "need {count} with {wanted}", "try"),
    "zh": Words("说 {count} 个 {topic} 要 {wanted}", "不 {word}", "末 {mark}", ("谢谢", "请用", "再见"),
                ("。", "！"), "记 {count} 要 {wanted}", "试"),
}  # fmt: skip
_OTHER: Mapping[Language, Language] = {"en": "zh", "zh": "en"}
_COURTESIES = frozenset(word for words in LANGUAGES.values() for word in words.courtesies)

_WORD = "(?:[A-Za-z]+|[\u4e00-\u9fff]+)"
_ANSWER = re.compile(rf"[ \t\r\n]*({_WORD}(?:[ \t\r\n]+{_WORD})*)[ \t\r\n]*([.!。！]?)[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer taken apart: the words that count, a word of courtesy behind them, the mark at the end; "" for none."""

    words: tuple[str, ...]
    courtesy: str
    mark: str

    def text(self) -> str:
        """As it is said."""
        return " ".join((*self.words, self.courtesy)).rstrip() + self.mark


def read(answer: str) -> Answer | None:
    """``wave salt sail thanks!`` taken apart; None for what is no list of words. The last word may be a courtesy."""
    found = _ANSWER.fullmatch(answer) if len(answer) <= _MAX_CHARS else None
    if found is None:
        return None
    words = tuple(found[1].lower().split())
    courtesy = words[-1] if words[-1] in _COURTESIES else ""
    return Answer(words[:-1] if courtesy else words, courtesy, found[2])


class Requests(Settings):
    """Name so many words of a topic, one of them given, others forbidden, with a mark at the end where one is asked.

    A size is the number of constraints. The check takes any words, of the topic or not, the same twice or not; one word
    of courtesy at the end does not count. Qualities of traces: expert notes what is asked, tries it, and answers
    courteously; plain leaves the courtesy out; rude keeps to the constraints with words that help nobody; sloppy breaks
    one; guess says any words.
    """

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "plain", "rude", "sloppy", "guess")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[Mapping[str, float]] = {
        "expert": 0.12,
        "plain": 0.12,
        "rude": 0.12,
        "sloppy": 0.44,
        "guess": 0.2,
    }

    name: str = Field("requests", pattern="^requests$")
    sizes: tuple[int, ...] = Field((2, 3, 4), min_length=1, description="how many constraints")
    languages: tuple[Language, ...] = Field(("en", "zh"), min_length=1, description="one is drawn for each problem")
    topics: int = Field(6, ge=1, le=12, description="how many topics of each language there are")
    counts: tuple[int, ...] = Field((2, 3, 4), min_length=1, description="how many words are asked for")

    @model_validator(mode="after")
    def _is_possible(self) -> Requests:
        if not 2 <= min(self.sizes) <= max(self.sizes) <= MOST:
            raise ValueError(f"sizes must lie between 2 (so many words, one of them given) and {MOST}")
        if not 2 <= min(self.counts) <= max(self.counts) <= 4:
            raise ValueError("counts must lie between 2 and 4")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A request of ``size`` constraints, at most 5: how many words, one that must be there, and others."""
        size, language = size or rng.choice(self.sizes), rng.choice(self.languages)
        told, topic = LANGUAGES[language], rng.choice(TOPICS[language][: self.topics])
        mark = rng.choice(told.marks) if size > 2 and rng.random() < 0.5 else ""
        wanted, *unwanted = rng.sample(topic.words, size - 1 - bool(mark))
        count = rng.choice(self.counts)
        asks = told.asks.format(count=count, topic=topic.name, wanted=wanted)
        info = {"language": language, "topic": topic.name, "count": count}
        info |= {"wanted": wanted, "unwanted": unwanted, "mark": mark}
        key = identity(self.name, language, topic.name, count, wanted, sorted(unwanted), mark)
        bare = Problem(key, self.name, " ".join((asks, *_rest(told, unwanted, mark))), "", size, info)
        return replace(bare, answer=self._good(bare, Random(key)).text())

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS when every constraint is kept; UNPARSED for what is no list of words."""
        said = read(answer)
        if said is None:
            return Verdict.UNPARSED
        return Verdict.PASS if all(_kept(problem, said)) else Verdict.WRONG

    def helpfulness(self, problem: Problem, answer: str) -> float:
        """0 to 1: half for keeping every constraint (an eighth for keeping some), the rest for what nobody asked.

        That is 0.2 for words of the topic, each once, and no more of them than asked for; 0.2 for a word of courtesy
        in the problem's language; 0.1 for being in that language throughout.
        """
        said = read(answer)
        if said is None:
            return 0.0
        kept, language = _kept(problem, said), problem.info["language"]
        apt: float = len(set(said.words) & set(_topic(problem).words)) / max(problem.info["count"], len(said.words))
        is_courteous = said.courtesy in LANGUAGES[language].courtesies
        is_one = all(word.isascii() == (language == "en") for word in (*said.words, *said.courtesy.split()))
        keeps = 1.0 if all(kept) else sum(kept) / len(kept) / 4
        return (5 * keeps + 2 * apt + 2 * is_courteous + is_one) / 10

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Thinking of the stated quality, then the answer it tried."""
        told, said = LANGUAGES[problem.info["language"]], self._answer(problem, rng, quality).text()
        asked = told.notes.format(**problem.info)
        notes = " ".join((asked, *_rest(told, problem.info["unwanted"], problem.info["mark"])))
        lines = [notes] if quality in ("expert", "plain", "rude") else []
        thinking = "\n".join([*lines, f"{told.tries} {said}"])
        return f"<think>{thinking}</think><answer>{said}</answer>"

    def facts(self, rng: Random, count: int) -> str:
        """A topic, and up to ``count`` words that belong to it."""
        topic = rng.choice(TOPICS[rng.choice(self.languages)][: self.topics])
        return " ".join((topic.name, *rng.sample(topic.words, min(count, len(topic.words)))))

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """Each line that tries an answer, without the word that says so."""
        tries = tuple(f"{words.tries} " for words in LANGUAGES.values())
        found = [line.partition(" ")[2] for line in thinking.split("\n") if line.startswith(tries)]
        return [said for said in found if read(said) is not None]

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last answer tried keeps every constraint."""
        tried = self.attempts(problem, thinking)
        return bool(tried) and self.check(problem, tried[-1]) is Verdict.PASS

    def guess(self, problem: Problem, rng: Random) -> str:
        """Any words of any topics."""
        return self._answer(problem, rng, "guess").text()

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """Answers of every quality that keeps the constraints, other words of courtesy, other blanks."""
        said = [self._answer(problem, rng, quality).text() for quality in ("expert", "plain", "rude")]
        return [*said, f" {problem.answer} ", problem.answer.replace(" ", "\n"), problem.answer.upper()]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Answers with one constraint broken, the words twice, and what is no list of words."""
        said = self._good(problem, rng)
        doubled = replace(said, words=said.words * 2).text()
        return [*(broken.text() for broken in self._broken(problem, said, rng)), doubled, f"{said.text()}?", "1 2 3"]

    def _answer(self, problem: Problem, rng: Random, quality: str) -> Answer:
        if quality == "guess":
            words = [word for topic in TOPICS[problem.info["language"]][: self.topics] for word in topic.words]
            return Answer(tuple(rng.sample(words, rng.choice(self.counts))), "", "")
        if quality == "rude":
            return self._rude(problem, rng)
        good = self._good(problem, rng)
        if quality == "sloppy":
            return rng.choice(self._broken(problem, good, rng))
        return good if quality == "expert" else replace(good, courtesy="")

    def _good(self, problem: Problem, rng: Random) -> Answer:
        """Distinct words of the topic in any order, a word of courtesy, and the mark that is asked for."""
        wanted, others = problem.info["wanted"], _free(problem)
        words = [wanted, *rng.sample(others, problem.info["count"] - 1)]
        rng.shuffle(words)
        return Answer(tuple(words), rng.choice(LANGUAGES[problem.info["language"]].courtesies), problem.info["mark"])

    def _rude(self, problem: Problem, rng: Random) -> Answer:
        """The word that must be there, and beside it the same again, words of other topics, or the other language's."""
        language, name, count = problem.info["language"], problem.info["topic"], problem.info["count"] - 1
        fill = {
            "again": [problem.info["wanted"]] * count,
            "strays": _words_of(TOPICS[language][: self.topics], besides=name),
            "foreign": _words_of(TOPICS[_OTHER[language]][: self.topics]),
        }
        free = [word for word in fill[rng.choice(sorted(fill))] if word not in problem.info["unwanted"]]
        words = [problem.info["wanted"], *rng.sample(free, min(count, len(free)))]
        rng.shuffle(words)
        return Answer(tuple(words), "", problem.info["mark"])

    def _broken(self, problem: Problem, good: Answer, rng: Random) -> list[Answer]:
        """``good`` with one constraint broken and the others kept, once for each that there is."""
        wanted, told = problem.info["wanted"], LANGUAGES[problem.info["language"]]
        place = good.words.index(wanted)
        spare = rng.choice([word for word in _free(problem) if word not in good.words])
        short, rest = [*good.words], [word for word in good.words if word != wanted]
        short.remove(rng.choice(rest))
        found = [
            replace(good, words=tuple(rng.choice((short, [*good.words, spare])))),
            replace(good, words=(*good.words[:place], spare, *good.words[place + 1 :])),
        ]
        for word in problem.info["unwanted"]:
            at = rng.choice([number for number in range(len(good.words)) if number != place])
            found.append(replace(good, words=(*good.words[:at], word, *good.words[at + 1 :])))
        if good.mark:
            found.append(replace(good, mark=rng.choice([mark for mark in ("", *told.marks) if mark != good.mark])))
        return found


def _rest(told: Words, unwanted: Sequence[str], mark: str) -> list[str]:
    """The constraints beside how many and which one, in words."""
    return [*(told.avoid.format(word=word) for word in unwanted), *([told.end.format(mark=mark)] if mark else [])]


def _topic(problem: Problem) -> Topic:
    return next(topic for topic in TOPICS[problem.info["language"]] if topic.name == problem.info["topic"])


def _free(problem: Problem) -> list[str]:
    """The words of the topic that are neither given nor forbidden."""
    taken = (problem.info["wanted"], *problem.info["unwanted"])
    return [word for word in _topic(problem).words if word not in taken]


def _words_of(topics: Sequence[Topic], besides: str = "") -> list[str]:
    return [word for topic in topics if topic.name != besides for word in topic.words]


def _kept(problem: Problem, said: Answer) -> list[bool]:
    """Which constraints an answer keeps: how many words, the one given, each one forbidden, the mark."""
    asked = problem.info
    kept = [len(said.words) == asked["count"], asked["wanted"] in said.words]
    kept += [word not in said.words for word in asked["unwanted"]]
    return [*kept, said.mark == asked["mark"]] if asked["mark"] else kept
