"""Strict readers of final answers: reading loosely pays a policy for what it did not say."""

from __future__ import annotations

import re

from seekling.records import Verdict

MAX_DIGITS = 4000
"""Below Python's own limit on the conversion of digits (4,300), so reading can neither fail nor take long."""

_INTEGER = re.compile(rf"[ \t\r\n]*([-−]?)(0|[1-9][0-9]{{0,{MAX_DIGITS - 1}}})[ \t\r\n]*")
_MAX_CHARS = MAX_DIGITS + 96
_MAX_LIST_CHARS = 10_000
_SEPARATOR = re.compile(r"[ \t\r\n]*,[ \t\r\n]*|[ \t\r\n]+")
_AND = re.compile(r"([,\w])[ \t\r\n]+and(?=[ \t\r\n]+\w)")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,30}")
_BITS = re.compile(r"[ \t\r\n]*([01]+(?: [01]+)*)[ \t\r\n]*")


def compared(said: object | None, right: object) -> Verdict:
    """The verdict on what a reader made of an answer: UNPARSED for None, else whether it is what is right."""
    if said is None:
        return Verdict.UNPARSED
    return Verdict.PASS if said == right else Verdict.WRONG


def integer(text: str) -> int | None:
    """The one integer that ``text`` is, or None.

    Accepted: ASCII digits without leading zeros, at most one minus (``-`` or U+2212) directly before them,
    ASCII whitespace around. Everything else is None, never a guess: full-width and other digits, a plus,
    thousands separators (``1,000`` may be one number or two), ``42.0``, ``1e3``, ``x=5``, ``5 or 6``, ``41
    = 42``, ``-0``. Lenient readers have been caught paying for ``41 = 42`` and for answers never given;
    strict ones miss some right answers (arXiv:2505.22203), which here costs little: the form is taught by
    the text and the format reward.
    """
    found = _INTEGER.fullmatch(text) if len(text) <= _MAX_CHARS else None
    if found is None or (found[1] and found[2] == "0"):
        return None
    return -int(found[2]) if found[1] else int(found[2])


def integers(text: str) -> tuple[int, ...] | None:
    """The integers that ``text`` lists, each as ``integer`` reads it, or None.

    Between two of them stands white space or one comma; nothing else may stand anywhere.
    """
    found = [integer(part) for part in _parts(text) or [""]]
    return None if None in found else tuple(value for value in found if value is not None)


def names(text: str) -> tuple[str, ...] | None:
    """The words that ``text`` lists, in lower case, or None: ASCII letters and digits, a letter first.

    Between two of them stands white space, one comma, ``and``, or a comma and ``and``.
    """
    parts = _parts(_AND.sub(r"\1", text)) if len(text) <= _MAX_LIST_CHARS else None
    if not parts or not all(map(_NAME.fullmatch, parts)):
        return None
    return tuple(part.lower() for part in parts)


def bits(text: str) -> str | None:
    """The zeros and ones that ``text`` is, or None. Single blanks between groups of them mean nothing."""
    found = _BITS.fullmatch(text) if len(text) <= _MAX_LIST_CHARS else None
    return found[1].replace(" ", "") if found else None


def _parts(text: str) -> list[str] | None:
    """What stands between separators; None for a text that is too long, and ``""`` where two commas meet."""
    return _SEPARATOR.split(text.strip(" \t\r\n")) if len(text) <= _MAX_LIST_CHARS else None
