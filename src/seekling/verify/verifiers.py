"""Verifiers by name, for problems that come as a list with keys: whether what was said is what the key says.

Each reads strictly and can say of a key, before any training, whether it could ever be met: a key that cannot be read
has paid every answer, or none, in more than one trainer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from importlib import import_module
from typing import Any

from seekling.errors import UserError, nearest
from seekling.records import Verdict
from seekling.verify.answers import compared, integer, integers
from seekling.verify.replies import emptiness
from seekling.verify.schema import Unreadable, read
from seekling.workers.strangers import found

_NUMBER = re.compile(r"([-−]?)((?:0|[1-9][0-9]*)(?:\.[0-9]+)?)(?:/([1-9][0-9]*))?", re.ASCII)
_CHOICE = re.compile(r"\(?([A-Za-z])[.)]?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Verifier:
    """``judge(said, key)`` of a final answer; ``judge_reply`` of a whole reply, where there is a rule for its answer.

    ``check_key`` raises UserError for a key that nothing could meet. ``quick`` says that judging is short and bounded.
    ``standard`` is the key of a problem that has none; without it a key is a must.
    """

    about: str
    judge: Callable[[str, str], Verdict]
    check_key: Callable[[str], None]
    judge_reply: Callable[[str, str], Verdict] | None = None
    quick: bool = True
    standard: str = ""


def verifier(name: str) -> Verifier:
    """The verifier called ``name``; ``./file.py:name`` is a user's own, ``f(answer, key) -> bool or Verdict``."""
    if ":" in name:
        return _strangers(name)
    if name not in VERIFIERS:
        raise UserError(
            f'there is no verifier "{name}"',
            next_step=f'{nearest(name, VERIFIERS).capitalize()} Your own is written "./file.py:name".',
        )
    return VERIFIERS[name]


def exact(text: str) -> str:
    """The text itself, white space around it apart."""
    return text.strip()


def folded(text: str) -> str:
    """The text with case, runs of white space and ways of composing a letter set aside."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def number(text: str) -> Fraction | None:
    """The one number that ``text`` is, exactly: ``42``, ``-3.50``, ``7/4``; None for all else, ``1,000`` included."""
    read = _NUMBER.fullmatch(text.strip()) if len(text) <= 1000 else None
    if read is None:
        return None
    value = Fraction(read[2]) / int(read[3] or 1)
    return -value if read[1] else value


def choice(text: str) -> str | None:
    """The letter that ``text`` names, upper case: ``B``, ``b``, ``B.``, ``(B)``."""
    read = _CHOICE.fullmatch(text.strip())
    return read[1].upper() if read else None


def json_value(text: str) -> object | None:
    """The JSON that ``text`` is, in a form in which equal values are equal: ``1`` is ``1.0``, and ``true`` is not.

    None for what is no JSON, or says a key twice.
    """
    try:
        return _canonical(read(text, Decimal))
    except (Unreadable, RecursionError, ArithmeticError):
        return None


def _canonical(value: Any) -> object:
    if isinstance(value, dict):
        return "object", tuple((key, _canonical(value[key])) for key in sorted(value))
    if isinstance(value, list):
        return "list", tuple(_canonical(item) for item in value)
    return type(value).__name__, value


def _reading(about: str, reader: Callable[[str], object | None], kind: str) -> Verifier:
    """A verifier that compares what a reader makes of both sides; None is what cannot be read."""

    def judge(said: str, key: str) -> Verdict:
        return compared(reader(said), reader(key))

    def check_key(key: str) -> None:
        if reader(key) is None:
            raise UserError(f"the answer {key[:80]!r} is {kind}")

    return Verifier(about, judge, check_key)


def _spoken(read: Callable[[str], str], about: str) -> Verifier:
    """A verifier of texts: an empty one is no answer."""
    return _reading(about, lambda text: read(text) or None, "empty")


def says_something(said: str, key: str) -> Verdict:
    """PASS for a reply that is one at all, whatever it says: how good it is, is a judge's to say, not a rule's."""
    return Verdict.UNPARSED if emptiness(said) else Verdict.PASS


def _maths(about: str, *, with_library: bool) -> Verifier:
    """Answers of mathematics, by ``seekling.verify.maths``; imported, like the library's worker, when first asked."""

    def judged(reply: str, key: str) -> Verdict:
        library = _library() if with_library else None
        return Verdict(import_module("seekling.verify.maths.judge").judge(reply, key, library=library).verdict)

    def check_key(key: str) -> None:
        library = _library() if with_library else None
        import_module("seekling.verify.maths.judge").check_gold(key, library)

    return Verifier(about, lambda said, key: judged(f"<answer>{said}</answer>", key), check_key, judged)


@lru_cache(maxsize=1)
def _library() -> Any:
    """math-verify in its worker, one for the process. Raises UserError when it is not installed."""
    library = import_module("seekling.verify.maths.library").Library
    if not library.is_installed():
        raise UserError("math-verify is not installed", next_step="Run: .venv/bin/pip install -e '.[tasks]'")
    return library()


def _strangers(name: str) -> Verifier:
    function = found(name)
    if not callable(function):
        raise UserError(f'"{name}" is no function', next_step="Write f(answer, key), which returns True or False.")

    def judge(said: str, key: str) -> Verdict:
        value = function(said, key)
        return (Verdict.PASS if value else Verdict.WRONG) if isinstance(value, bool) else value

    return Verifier(f"the function {name}", judge, lambda key: None, quick=False)


VERIFIERS: Mapping[str, Verifier] = {
    "exact": _spoken(exact, "the very same text, white space around it apart"),
    "text": _spoken(folded, "the same text, whatever its case and spacing"),
    "integer": _reading("one whole number", integer, "no whole number in plain digits"),
    "integers": _reading("whole numbers in order", integers, "no list of whole numbers"),
    "number": _reading("one number, compared exactly: 0.5 is 1/2", number, "no number such as 42, -3.5 or 7/4"),
    "choice": _reading("a letter: B, (b), B.", choice, "no single letter"),
    "json": _reading("JSON of equal value", json_value, "no JSON"),
    "maths": _maths("an answer of mathematics, by the own reader", with_library=False),
    "math-verify": _maths("the same, and what it leaves open by math-verify", with_library=True),
    "reply": Verifier(
        "any reply that says something; how good it is, a judge in the rubric says",
        says_something,
        lambda key: None,
        standard="It does what was asked, truly and clearly.",
    ),
}
