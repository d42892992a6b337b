"""Texts as the words by which two of them are compared: whatever changes no problem is taken away.

Width, case, blanks and punctuation go; numbers and signs of arithmetic stay, since 3 + 5 and 3 - 5 are two problems.
Chinese and Japanese are written without blanks and are taken character by character.
"""

from __future__ import annotations

import re
import unicodedata

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_UNSPACED}]|[0-9]+|(?:(?![{_UNSPACED}])[^\W\d_])+|[^\W_]|[-+*/=<>^%!|×÷−√≤≥≠∈∪∩∑∫]")
_NUMBER = re.compile(r"[0-9]+")


def words(text: str) -> tuple[str, ...]:
    """The words of ``text``, in order. A text of nothing but other signs is taken sign by sign."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return tuple(_WORD.findall(plain)) or tuple(plain.replace(" ", ""))


def numbers(of: tuple[str, ...]) -> tuple[str, ...]:
    """The numbers among words, in order: a template filled in twice differs in these."""
    return tuple(word for word in of if _NUMBER.fullmatch(word))


def grams(of: tuple[str, ...], size: int) -> list[tuple[str, ...]]:
    """Every run of ``size`` words; the whole text where it has fewer."""
    return [of[start : start + size] for start in range(max(1, len(of) - size + 1))]
