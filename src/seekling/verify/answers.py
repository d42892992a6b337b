"""Strict readers of final answers: reading loosely pays a policy for what it did not say."""

from __future__ import annotations

import re

MAX_DIGITS = 4000
"""Below Python's own limit on the conversion of digits (4,300), so reading can neither fail nor take long."""

_INTEGER = re.compile(rf"[ \t\r\n]*([-−]?)(0|[1-9][0-9]{{0,{MAX_DIGITS - 1}}})[ \t\r\n]*")
_MAX_CHARS = MAX_DIGITS + 96


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
