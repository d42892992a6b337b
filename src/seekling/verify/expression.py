"""Exact arithmetic on whole numbers, read from text that nobody trusts, without ``eval``.

    sum     := product (("+" | "-") product)*
    product := signed (("*" | "/") signed)*
    signed  := ["-"] (number | "(" sum ")")

``×`` and ``÷`` are read as ``*`` and ``/``, ``−`` (U+2212) as ``-``. A number is plain ASCII digits without
leading zeros, so each has one spelling; one minus may stand before an operand, never two, and never a plus.
Powers, decimal points, implied products, ``=``, names and every other character make the text Unparsed, and
so does a division by zero. Limits are checked before the work they bound: a text of any size is answered at
once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_CHARS = 4096
MAX_DIGITS = 18
MAX_DEPTH = 100
MAX_BITS = 4096
"""Largest numerator or denominator of any intermediate value."""

_TOKEN = re.compile(r"[ \t\r\n]*([0-9]+|[-+*/()])")
_SPELLINGS = str.maketrans({"×": "*", "÷": "/", "−": "-"})
_RANK = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2, "negate": 3}


class Unparsed(ValueError):
    """The text is not an expression with a value, or goes beyond a limit; the message says which."""


@dataclass(frozen=True, slots=True)
class Expression:
    """What an expression is made of: exact value, numbers in order, operations (negation counts as ``-``)."""

    value: Fraction
    numbers: tuple[int, ...]
    operations: frozenset[str]


def read(text: str) -> Expression:
    """Value, numbers and operations of ``text``. Raises Unparsed."""
    tokens = list(_tokens(text))
    value = _fold(tokens, Fraction, _negated, _calculated)
    numbers = tuple(int(token) for token in tokens if token[0].isdigit())
    return Expression(value, numbers, frozenset(token for token in tokens if token in "+-*/"))


def evaluate(text: str) -> Fraction:
    """The exact value of ``text``. Raises Unparsed."""
    return read(text).value


def numbers_used(text: str) -> list[int]:
    """The numbers written in ``text``, in order, repeats included. Raises Unparsed."""
    return list(read(text).numbers)


def normal_form(text: str) -> str:
    """``text`` with terms and factors in a fixed order and needless brackets gone. Raises Unparsed.

    Texts of one form differ only by commuting, associating and opening brackets: ``12-3+7`` and ``7-(3-12)``.
    """
    return str(_fold(list(_tokens(text)), _form_of_number, _form_negated, _forms_combined))


def _tokens(text: str) -> Iterator[str]:
    if len(text) > MAX_CHARS:
        raise Unparsed(f"longer than {MAX_CHARS} characters")
    text = text.translate(_SPELLINGS).rstrip(" \t\r\n")
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if not found:
            raise Unparsed(f"unexpected character {text[place]!r}")
        token, place = found[1], found.end()
        if token[0] == "0" and token != "0":
            raise Unparsed("a number with leading zeros")
        if len(token) > MAX_DIGITS:
            raise Unparsed(f"a number of more than {MAX_DIGITS} digits")
        yield token


@dataclass(slots=True)
class _Stacks(Generic[T]):
    """Operands made so far and operators that still wait for their right side (Dijkstra's shunting yard)."""

    negate: Callable[[T], T]
    combine: Callable[[str, T, T], T]
    operands: list[T]
    waiting: list[str]

    def settle(self, rank: int) -> None:
        """Apply waiting operators that bind at least as tightly as ``rank``; a bracket stops it."""
        while self.waiting and _RANK[self.waiting[-1]] >= rank:
            operator, right = self.waiting.pop(), self.operands.pop()
            if operator == "negate":
                self.operands.append(self.negate(right))
            else:
                self.operands.append(self.combine(operator, self.operands.pop(), right))


def _fold(
    tokens: list[str], number: Callable[[int], T], negate: Callable[[T], T], combine: Callable[[str, T, T], T]
) -> T:
    """Fold an expression bottom-up without recursion. Raises Unparsed when the tokens are not one."""
    stacks = _Stacks(negate, combine, [], [])
    wants_operand, depth = True, 0
    for token in tokens:
        if wants_operand:
            wants_operand = _operand(token, stacks, number)
            depth += token == "("
        elif token == ")" and depth:
            stacks.settle(1)
            stacks.waiting.pop()
            depth -= 1
        elif token in "+-*/":
            stacks.settle(_RANK[token])
            stacks.waiting.append(token)
            wants_operand = True
        else:
            raise Unparsed(f"{token!r} where an operator belongs")
        if depth > MAX_DEPTH:
            raise Unparsed(f"more than {MAX_DEPTH} brackets within each other")
    if wants_operand or depth:
        raise Unparsed("it breaks off" if tokens else "empty")
    stacks.settle(1)
    return stacks.operands[0]


def _operand(token: str, stacks: _Stacks[T], number: Callable[[int], T]) -> bool:
    """Take a token where an operand belongs; whether an operand is still wanted after it."""
    if token[0].isdigit():
        stacks.operands.append(number(int(token)))
        return False
    if token == "(" or (token == "-" and stacks.waiting[-1:] != ["negate"]):
        stacks.waiting.append("(" if token == "(" else "negate")
        return True
    raise Unparsed(f"{token!r} where a number belongs")


def _negated(value: Fraction) -> Fraction:
    return -value


def _calculated(operator: str, left: Fraction, right: Fraction) -> Fraction:
    if operator == "/" and right == 0:
        raise Unparsed("division by zero")
    operations: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
        "+": Fraction.__add__,
        "-": Fraction.__sub__,
        "*": Fraction.__mul__,
        "/": Fraction.__truediv__,
    }
    value = operations[operator](left, right)
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise Unparsed(f"a value of more than {MAX_BITS} bits")
    return value


_OPPOSITE = {"+": "-", "-": "+", "*": "/", "/": "*"}


@dataclass(frozen=True, slots=True)
class _Form:
    """A sum of signed terms (``+ -``) or a product of factors (``* /``), flattened, each with its text."""

    parts: tuple[tuple[str, str], ...]
    is_sum: bool

    def __str__(self) -> str:
        """Plain parts first, then flipped ones, the shorter before the longer."""
        plain, flipped = "+-" if self.is_sum else "*/"
        ordered = sorted(self.parts, key=lambda part: (part[0] == flipped, len(part[1]), part[1]))
        return "".join(sign + text for sign, text in ordered).removeprefix(plain)


def _form_of_number(number: int) -> _Form:
    return _Form((("*", str(number)),), is_sum=False)


def _form_negated(form: _Form) -> _Form:
    return _Form(_flipped(_parts(form, is_sum=True)), is_sum=True)


def _forms_combined(operator: str, left: _Form, right: _Form) -> _Form:
    is_sum = operator in "+-"
    more = _parts(right, is_sum)
    return _Form(_parts(left, is_sum) + (_flipped(more) if operator in "-/" else more), is_sum)


def _parts(form: _Form, is_sum: bool) -> tuple[tuple[str, str], ...]:
    """The parts of ``form`` as a sum or as a product; of the other kind it is one part."""
    if form.is_sum == is_sum:
        return form.parts
    return (("+", str(form)),) if is_sum else (("*", f"({form})"),)


def _flipped(parts: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((_OPPOSITE[sign], text) for sign, text in parts)
