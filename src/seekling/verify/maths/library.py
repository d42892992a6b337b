"""math-verify for what the own reader leaves open, in a worker that can be killed: it may hang, and fill memory.

It is asked only what is fit for it: text that could not be read otherwise and shows no sign of being made to deceive.
In version 0.9 it takes ``41 = 42`` for 42, rounds to six digits, and works out any integral that is put to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from threading import Thread
from typing import Any

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.workers.worker import Overrun, Worker

WALL_S, CPU_S, START_S, MEMORY_BYTES = 2.0, 2.0, 60.0, 2**30
_MAX_CHARS, _MAX_DIGITS, _MAX_DEPTH = 400, 20, 12
_UNFIT = re.compile(
    r"\\(?:int|oint|iint|sum|prod|lim|limsup|liminf|input|include|write|def|let|ldots|dots|approx|neg|boxed)(?![A-Za-z])"
    r"|[!;?]|__|\b(?:or|not|and|maybe)\b|\^\s*\{[^{}]*\^|\^\S\^"
)


class Library:
    """math-verify in a worker of its own, started when it is first asked."""

    def __init__(self) -> None:
        self._worker = Worker("seekling.verify.maths.library:serve", memory_bytes=MEMORY_BYTES, cpu_s=CPU_S)

    @staticmethod
    def is_installed() -> bool:
        """Whether the extra is there."""
        return find_spec("math_verify") is not None

    def compare(self, key: str, said: str) -> tuple[Verdict, str]:
        """Its verdict and, in words, why. INFRA_ERROR when the worker dies twice, or the key cannot be read."""
        for _ in range(2):
            try:
                self._worker.begin(START_S)
                verdict, why = self._worker.ask({"key": key, "said": said}, WALL_S)
                return Verdict(verdict), why
            except Overrun as error:
                found = error.verdict, ": ".join(part for part in (error.what, error.where) if part)
            except UserError as error:
                found = Verdict.INFRA_ERROR, ": ".join(part for part in (error.what, error.where) if part)
            Thread(target=self._renew, daemon=True).start()
            if found[0] is not Verdict.INFRA_ERROR:
                break
        return found

    def _renew(self) -> None:
        """Start a worker for the next request, while the caller goes on; what fails here fails there again, aloud."""
        with suppress(UserError):
            self._worker.begin(START_S)

    def reads(self, key: str) -> bool:
        """Whether it can read a key: as the answer to itself."""
        return is_fit(key, key) and self.compare(key, key)[0] is Verdict.PASS

    def close(self) -> None:
        """End the worker."""
        self._worker.close()


def is_fit(text: str, key: str = "") -> bool:
    """Whether a text may be put to the library: short, shallow, small numbers, no doubt, no work left to do."""
    if len(text) > _MAX_CHARS or not text.isascii() or not text.isprintable() or text.count("=") > key.count("="):
        return False
    if re.search(rf"\d{{{_MAX_DIGITS},}}", text) or _UNFIT.search(text):
        return False
    depth = deepest = 0
    for sign in text:
        depth += (sign in "({[") - (sign in ")}]")
        deepest = max(deepest, depth)
    return depth == 0 and deepest <= _MAX_DEPTH


def serve(setup: Any) -> Callable[[Mapping[str, str]], list[str]]:
    """The worker's side. The library's own time limits are off: the parent keeps time."""
    from math_verify import LatexExtractionConfig, parse, verify

    def read(text: str) -> list[Any]:
        config = LatexExtractionConfig(boxed_match_priority=-1)
        return list(parse(f"${text}$", extraction_config=[config], fallback_mode="no_fallback", parsing_timeout=None))

    def answer(request: Mapping[str, str]) -> list[str]:
        key, said = read(request["key"]), read(request["said"])
        if not key:
            return [Verdict.INFRA_ERROR, "math-verify cannot read the key"]
        if not said:
            return [Verdict.UNPARSED, "math-verify cannot read it"]
        equal = verify(key, said, float_rounding=12, numeric_precision=30, timeout_seconds=None)
        return [Verdict.PASS if equal else Verdict.WRONG, "math-verify compared"]

    # The first of each kind takes a second: no request pays for that.
    for warm in (
        ("1/2", "0.5"),
        (r"\cos 2x", r"1-2\sin^2 x"),
        (r"\{1\}", "x<1"),
    ):
        answer(dict(zip(("key", "said"), warm, strict=True)))
    return answer
