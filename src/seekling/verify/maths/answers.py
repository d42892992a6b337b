"""What an answer can be, once read. Frozen, and compared in ``same.py`` only: ``==`` here would mean less."""

from __future__ import annotations

from dataclasses import dataclass

from seekling.verify.maths.units import Unit
from seekling.verify.maths.values import Quotient


@dataclass(frozen=True, slots=True)
class Value:
    """A number or expression. ``work`` counts operations left to do, ``functions`` names those of numbers."""

    value: Quotient
    unit: Unit | None = None
    work: int = 0
    functions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words, in lower case, single blanks between."""

    text: str


@dataclass(frozen=True, slots=True)
class Based:
    """A number written in another base than ten."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Choice:
    """A lettered option, and what is said beside its letter."""

    letter: str
    beside: Answer | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """``x = 5``: a letter and what it is."""

    name: str
    item: Answer


@dataclass(frozen=True, slots=True)
class Relation:
    """``left sign right``; the sign is one of ``= < <= !=``, greater-than turned round."""

    sign: str
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class Group:
    """Several items. ``kind``: the two brackets of something ordered, ``{}`` a set, ``,`` or ``or`` a bare list,
    ``:`` a ratio, ``u`` a union, ``&`` relations that hold together, ``m`` a matrix of rows."""

    kind: str
    items: tuple[Answer, ...]


Answer = Value | Words | Based | Choice | Named | Relation | Group
