"""One verdict on a reply to a question whose answer is mathematics, and which path decided.

The own reader decides whatever it can: it is strict, exact and bounded. What it leaves open goes to math-verify, where
a ``Library`` is given. A key that nobody can read is an error when problems are loaded (``check_gold``), never a
reward.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.verify.maths.answers import Answer
from seekling.verify.maths.grammar import read
from seekling.verify.maths.library import Library, is_fit
from seekling.verify.maths.limits import Beyond, Unreadable
from seekling.verify.maths.reading import bare, final_answer
from seekling.verify.maths.same import accepts, is_plain

Path = Literal["own", "math-verify", "none"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, the path that decided it ("none" where nobody could), and in words why."""

    verdict: Verdict
    path: Path
    said: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    """A text and what it was read as, or why it was not; ``beyond``: another reader may know its form."""

    text: str
    answer: Answer | None
    why: str = ""
    beyond: bool = False


def judge(reply: str, gold: str, *, asked: str = "", library: Library | None = None) -> Judgement:
    """Whether the final answer of ``reply`` is ``gold``.

    ``asked`` is the question: an answer that only repeats a formula of it is refused. INFRA_ERROR says that the key
    cannot be read, or that the library failed by itself; every other verdict is about the reply.
    """
    key = _key(bare(gold))
    if key.answer is None and not (key.beyond and library):
        return Judgement(Verdict.INFRA_ERROR, "none", f"the key cannot be read: {key.why}")
    try:
        said = _read(final_answer(reply))
    except Unreadable as error:
        return Judgement(Verdict.UNPARSED, "none", str(error))
    if asked and _repeats(said.text, key.text, asked):
        return Judgement(Verdict.WRONG, "own", "it repeats the question")
    return _own(key, said) or _others(key, said, library)


def check_gold(gold: str, library: Library | None = None) -> None:
    """Raises UserError for a key that cannot be read, by the own reader or by ``library``."""
    key = _key(bare(gold))
    if key.answer is None and not (key.beyond and library and library.reads(key.text)):
        way = "Write it as one number, expression, list, set, interval, matrix or word; see docs/maths.md."
        more = (
            " Its form may be known to math-verify: pip install 'seekling[tasks]'."
            if key.beyond and not library
            else ""
        )
        raise UserError(f"the answer {gold[:80]!r} cannot be read: {key.why}", next_step=way + more)


def _own(key: _Read, said: _Read) -> Judgement | None:
    """What the own reader decides; None where another may."""
    if said.answer is None:
        is_open = said.beyond and not (key.answer and is_plain(key.answer))
        return None if is_open else Judgement(Verdict.UNPARSED, "own", said.why)
    if key.answer is None:
        return None
    try:
        equal = accepts(key.answer, said.answer)
    except Unreadable as error:
        return Judgement(Verdict.UNPARSED, "own", str(error))
    if equal is None:
        return None
    return Judgement(Verdict.PASS if equal else Verdict.WRONG, "own", "compared exactly")


def _others(key: _Read, said: _Read, library: Library | None) -> Judgement:
    """What math-verify decides, or, without it, that nobody could."""
    if not is_fit(said.text, key.text):
        return Judgement(Verdict.UNPARSED, "own", said.why or "too long or deep to be compared")
    if library is None:
        return Judgement(Verdict.UNPARSED, "none", said.why or "equality is not decided without math-verify")
    verdict, why = library.compare(key.text, said.text)
    return Judgement(verdict, "math-verify", why)


def _read(text: str) -> _Read:
    try:
        return _Read(text, read(text))
    except Unreadable as error:
        return _Read(text, None, str(error), isinstance(error, Beyond))


@lru_cache(maxsize=4096)
def _key(text: str) -> _Read:
    """A key is read once for all its replies."""
    return _read(text)


def _repeats(said: str, key: str, asked: str) -> bool:
    """Whether an answer is a formula of the question, and the key is another: "simplify" is not answered by itself."""
    said, key, asked = (re.sub(r"\s", "", text) for text in (said, key, asked))
    is_formula = re.search(r"[-+*/^]|\\(?!text|%|\$)[A-Za-z]", said[1:]) is not None
    is_reduced = re.fullmatch(r"-?(?:\d+/\d+|\\[dt]?frac\{?\d+\}?\{?\d+\}?)", said) is not None
    return is_formula and not is_reduced and said != key and said in asked and key not in asked
