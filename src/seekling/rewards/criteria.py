"""Criteria that need nothing but a rollout and its siblings: how it thought, how long, how often the same.

Each gives every rollout a part of its reward: in [0, 1] what is wanted, in [-1, 0] what is punished.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.records import Group, Problem, Rollout, Verdict
from seekling.text.reasoning import Reasoning


class Criterion(Settings):
    """Something that can be weighed. A bare number in a manifest is its weight."""

    weight: float = Field(0.0, ge=0, description="its weight in the sum; 0 leaves it out")

    @model_validator(mode="before")
    @classmethod
    def _from_weight(cls, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return {"weight": value} if is_number else value


class Language(Criterion):
    """Whether the thinking keeps to one language: 0 to 1. ``prompt`` is that which the problem tells as its own."""

    target: Literal["en", "zh", "prompt"] = Field(
        "en", description="the language to think in; prompt: the problem's, where it tells one"
    )


class Length(Criterion):
    """Shorter when right (``linear``: among its siblings; ``cosine``: on a fixed scale, and longer when wrong)."""

    shape: Literal["linear", "cosine"] = Field("linear", description="Kimi k1.5's form, or the cosine of long-CoT work")
    max_tokens: int = Field(0, ge=0, description="cosine: the length at which it ends; not above sampling.max_tokens")

    @model_validator(mode="after")
    def _has_a_scale(self) -> Length:
        if self.weight and self.shape == "cosine" and not self.max_tokens:
            raise ValueError("the cosine form needs max_tokens, the length at which it ends")
        return self


class Overlong(Criterion):
    """DAPO's soft punishment: 0 up to ``max_tokens - buffer``, falling to -1 at ``max_tokens``."""

    max_tokens: int = Field(0, ge=0, description="where the punishment is full; not above sampling.max_tokens")
    buffer: int = Field(0, ge=0, description="over how many tokens it grows; 0 takes a fifth of max_tokens")

    @model_validator(mode="after")
    def _has_a_limit(self) -> Overlong:
        if self.weight and not self.max_tokens:
            raise ValueError("it needs max_tokens, the length at which the punishment is full")
        if self.buffer > self.max_tokens:
            raise ValueError("buffer cannot be longer than max_tokens")
        return self


class Repetition(Criterion):
    """Punished repetition: minus the share of n-grams of the whole text that were there before, -1 to 0."""

    n: int = Field(6, ge=1, description="how many words in a row make one piece (a Chinese character is a word)")


def is_fresh(thinking: str) -> bool:
    """Whether no line repeats an earlier one, empty lines apart."""
    lines = [line for line in thinking.split("\n") if line.strip()]
    return len(set(lines)) == len(lines)


# --- language ---------------------------------------------------------------------------------------------------------

_NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\\[A-Za-z]+"
    r"|https?://\S+|\w*\d\w*",
    re.DOTALL | re.ASCII,
)
"""Code, formulas, commands of TeX, addresses, and every word with a digit in it: of no language."""


def prose(text: str) -> str:
    """``text`` without code, formulas, numbers and addresses: what is in a language."""
    return _NOT_PROSE.sub(" ", text)


_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_WORD = re.compile(rf"([{_HAN}])|([{_LATIN}]+(?:['’-][{_LATIN}]+)*)|([^\W\d_]+?(?=[{_HAN}{_LATIN}]|[\W\d_]|\Z))")


def told_language(problem: Problem) -> Literal["en", "zh"] | None:
    """The language that a problem tells as its own, in ``info["language"]``; None for none, or one not known here."""
    told = problem.info.get("language")
    return told if told in ("en", "zh") else None


def is_readable(reasoning: Reasoning, language: Literal["en", "zh"]) -> bool:
    """Whether the form is kept and every word of the thinking is of ``language``. Thinking without a word is not."""
    return reasoning.well_formed and language_share(reasoning.thinking, language) == 1.0


def language_part(thinking: str, language: Language, problem: Problem) -> float | None:
    """The share of the target's words; None (does not apply) where the target is the problem's and it tells none."""
    target = told_language(problem) if language.target == "prompt" else language.target
    return None if target is None else language_share(thinking, target)


def language_share(thinking: str, target: Literal["en", "zh"]) -> float:
    """Share of the target language's words among all words of ``thinking`` (DeepSeek-R1, section 2.3.2).

    A word is one Chinese character, or a run of letters of one script. Latin letters count as English (French is not
    told from it), Chinese characters as Chinese, every other script as neither. Code, formulas, numbers and single
    Latin letters (names of variables) are no words. Thinking without a word has share 0: silence earns nothing.
    """
    han = latin = other = 0
    for word in _WORD.finditer(prose(thinking)):
        han += word[1] is not None
        latin += word[2] is not None and len(word[2]) > 1
        other += word[3] is not None
    total = han + latin + other
    return (latin if target == "en" else han) / total if total else 0.0


# --- length -----------------------------------------------------------------------------------------------------------


def linear_lengths(lengths: Sequence[int], verdicts: Sequence[Verdict]) -> list[float]:
    """Length rewards of a group (Kimi k1.5, arXiv 2501.12599, section 2.3.3): 1/2 for the shortest to -1/2.

    A rollout that did not pass earns nothing by being short, and loses as much by being long; all of one length earn 0.
    """
    low, high = min(lengths), max(lengths)
    if low == high:
        return [0.0] * len(lengths)
    shares = [0.5 - (length - low) / (high - low) for length in lengths]
    return [share if v is Verdict.PASS else min(0.0, share) for share, v in zip(shares, verdicts, strict=True)]


def cosine_length(length: int, verdict: Verdict, max_tokens: int) -> float:
    """The cosine reward of arXiv 2502.03373, section 4.2, scaled to [-1, 1].

    Passing falls from 1 to 1/2 as the text grows to ``max_tokens``; not passing rises from -1 to 0, so that thinking
    longer costs least where it is needed; past the end it is -1.
    """
    if length > max_tokens:
        return -1.0
    begins, ends = (1.0, 0.5) if verdict is Verdict.PASS else (-1.0, 0.0)
    return ends + 0.5 * (begins - ends) * (1 + math.cos(math.pi * length / max_tokens))


def overlong_punishment(length: int, max_tokens: int, buffer: int) -> float:
    """DAPO (arXiv 2503.14476), eq. 13: 0 up to ``max_tokens - buffer``, then linear to -1."""
    return min(0.0, max(-1.0, (max_tokens - buffer - length) / buffer)) if buffer else -float(length >= max_tokens)


# --- repetition -------------------------------------------------------------------------------------------------------

_PIECE = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+|[^\w\s]")


def pieces(text: str) -> list[str]:
    """A text as words: runs of letters or digits, single Chinese characters and single marks, in lower case."""
    return _PIECE.findall(text.lower())


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Every ``n`` words in a row; none of a text of fewer."""
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def repeated_share(text: str, n: int) -> float:
    """Share of the n-grams of ``text`` that stood there before; 0 for a text of fewer than ``n`` words."""
    grams = ngrams(pieces(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


# --- all of them ------------------------------------------------------------------------------------------------------


def length_parts(group: Group, verdicts: Sequence[Verdict], length: Length) -> list[float]:
    """The length part of every rollout of a group, its tokens counted with the stop token."""
    lengths = [len(rollout.tokens) for rollout in group.rollouts]
    if length.shape == "linear":
        return linear_lengths(lengths, verdicts)
    return [cosine_length(num, verdict, length.max_tokens) for num, verdict in zip(lengths, verdicts, strict=True)]


def overlong_part(rollout: Rollout, overlong: Overlong) -> float:
    """The punishment of one rollout by its number of tokens."""
    buffer = overlong.buffer or max(1, overlong.max_tokens // 5)
    return overlong_punishment(len(rollout.tokens), overlong.max_tokens, buffer)


def manner(reasoning: Reasoning) -> dict[str, float]:
    """What is told of every rollout, weighed or not: its form, and whether no line of its thinking repeats another."""
    return {"format": float(reasoning.well_formed), "fresh": float(is_fresh(reasoning.thinking))}
