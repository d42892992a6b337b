"""Verifiers of whole replies, as published evaluation sets need them: by name, with the version of what judges."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Protocol

from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.verify.constraints import CHECKERS, strict
from seekling.verify.maths.judge import check_gold, judge
from seekling.verify.maths.library import Library
from seekling.verify.maths.limits import Unreadable
from seekling.verify.maths.reading import final_answer

Row = Mapping[str, Any]
"""A row of a published set, as it stands there."""


class Verifier(Protocol):
    """Who judges a suite. ``sources`` are the modules that decide, ``beside`` a library that may decide too."""

    sources: ClassVar[tuple[str, ...]]
    beside: ClassVar[str]

    def told(self, row: Row) -> dict[str, Any]:
        """What judging needs of a row beside its answer."""
        ...

    def check_key(self, key: str, told: Mapping[str, Any]) -> None:
        """Raises UserError for a key that nobody here can judge by."""
        ...

    def judge(self, problem: Problem, reply: str) -> Verdict:
        """A verdict on what stands outside the thinking."""
        ...

    def vote(self, text: str) -> str | None:
        """What a whole rollout is counted as in a vote of the majority; None where it gives nothing to count."""
        ...


class Maths:
    """The value of a mathematical answer; math-verify, where it is installed, is asked what our reader leaves open."""

    sources: ClassVar[tuple[str, ...]] = ("seekling.verify.maths",)
    beside: ClassVar[str] = "math-verify"

    def __init__(self) -> None:
        self.library = Library() if Library.is_installed() else None

    def told(self, row: Row) -> dict[str, Any]:
        """Nothing: the answer is all."""
        return {}

    def check_key(self, key: str, told: Mapping[str, Any]) -> None:
        """Raises UserError for a key that has no value."""
        check_gold(key, self.library)

    def judge(self, problem: Problem, reply: str) -> Verdict:
        """PASS for the key's value, however it is written."""
        return judge(reply, problem.answer, asked=problem.prompt, library=self.library).verdict

    def vote(self, text: str) -> str | None:
        """The final answer as it is written, blanks apart."""
        try:
            return "".join(final_answer(text).split())
        except Unreadable:
            return None


class IfEval:
    """Instructions that can be checked: all of a prompt's must be followed, to the letter (strict, by prompt)."""

    sources: ClassVar[tuple[str, ...]] = tuple(f"seekling.verify.{n}" for n in ("constraints", "languages", "schema"))
    beside: ClassVar[str] = ""

    def told(self, row: Row) -> dict[str, Any]:
        """The instructions, and the arguments of each; what an instruction does not have, a table fills with null."""
        arguments = [dict(kwargs or {}) for kwargs in row.get("kwargs") or []]
        return {
            "instructions": list(row.get("instruction_id_list") or []),
            "kwargs": [{name: value for name, value in kwargs.items() if value is not None} for kwargs in arguments],
        }

    def check_key(self, key: str, told: Mapping[str, Any]) -> None:
        """Raises UserError for instructions that nothing here checks."""
        asked = told["instructions"]
        if not asked or len(asked) != len(told["kwargs"]):
            raise UserError("instruction_id_list and kwargs must be lists of one length")
        if unknown := [name for name in asked if name not in CHECKERS]:
            raise UserError(f'no checker knows the instruction "{unknown[0]}"')
        try:
            for pair in _pairs(told):
                strict("a reply", [pair])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"an instruction lacks an argument, or has a wrong one: {error}") from None

    def judge(self, problem: Problem, reply: str) -> Verdict:
        """PASS when every instruction is followed."""
        return Verdict.PASS if strict(reply, _pairs(problem.info)) else Verdict.WRONG

    def vote(self, text: str) -> str | None:
        """Nothing: no two texts are one answer."""
        return None


VERIFIERS: Mapping[str, Callable[[], Verifier]] = {"maths": Maths, "ifeval": IfEval}
"""By name."""


class Verified:
    """The task of a suite: all that stands outside the thinking, judged by a verifier that keeps limits of its own."""

    quick: ClassVar[bool] = True
    reads: ClassVar[str] = "reply"

    def __init__(self, label: str, verifier: str) -> None:
        self.name, self.verifier = label, VERIFIERS[verifier]()

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A suite is a list, from which nothing is drawn."""
        raise UserError(f'"{self.name}" is a list of problems; nothing can be drawn from it')

    def check(self, problem: Problem, answer: str) -> Verdict:
        """The verifier's word on a reply."""
        return self.verifier.judge(problem, answer)


def version_of(verifier: Verifier) -> str:
    """``0.1.0+1a2b3c4d``: the version of this package, and a digest of the verifier's own source."""
    digest = hashlib.sha256()
    for file in [file for module in verifier.sources for file in _files(module)]:
        digest.update(file.read_bytes())
    library = _version(verifier.beside) if verifier.beside else ""
    return f"{_version('seekling')}+{digest.hexdigest()[:8]}" + (f", {verifier.beside} {library}" if library else "")


def _pairs(told: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(zip(told["instructions"], told["kwargs"], strict=True))


def _files(module: str) -> list[Path]:
    """The source files of a module, or of a package and all below it."""
    found = find_spec(module)
    place = Path(found.origin) if found and found.origin else Path(module)
    return sorted(place.parent.rglob("*.py")) if place.name == "__init__.py" else [place]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
