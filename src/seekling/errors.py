"""Errors as letters to a person: what was wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something a person can mend. The door prints it without a traceback and exits with 2.

    ``what`` says what was wrong, ``where`` names the file, line or setting, ``next_step`` says what to do.
    """

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        self.what, self.where, self.next_step = what, where, next_step
        super().__init__("\n".join(part for part in (what, where, next_step) if part))


class GateMissed(UserError):
    """A stage finished, but its figure fell short of the gate its manifest sets. The door exits with 3."""


class TooManyFailed(UserError):
    """A check, a reward or a judge failed by itself too often to go on. The door exits with 2."""


class SelfTestFailed(UserError):
    """A start-up self-test refuses to train. The door exits with 4."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``'; did you mean "steps"?'`` or, when nothing is near, the known names in order."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(names)}"
