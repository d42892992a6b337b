"""Exact values: quotients of sums of terms over atoms, in a form in which equal values usually look equal.

A term is a rational number times powers of atoms: letters, pi, e, i, and primes under roots (the square root of 12 is 2
times 3 to the 1/2). Exponents may be negative or fractions, so that only a sum in a denominator needs a denominator.
Roots of different primes are independent over the rationals, and so are letters and pi: when the difference of two
values is a sum of such terms that does not vanish, the values differ. What a known function or the root of a sum comes
to is an atom of its own; for those a difference is only believed when numbers show it.
"""

from __future__ import annotations

import cmath
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any
from zlib import crc32

from seekling.verify.maths.limits import MAX_BITS, MAX_SCALE, Budget, TooLarge, Unreadable, bounded


@dataclass(frozen=True, slots=True, order=True)
class Atom:
    """What a term is made of. ``key`` tells atoms apart; ``inner`` is what a root, power or function is of."""

    key: str
    kind: str = field(compare=False)
    inner: tuple[Any, ...] = field(default=(), compare=False)


Exponent = int | Fraction
Monomial = tuple[tuple[Atom, Exponent], ...]
Sum = dict[Monomial, Fraction]

ONE: Sum = {(): Fraction(1)}
PI, E, IMAGINARY = Atom("pi", "constant"), Atom("e", "constant"), Atom("i", "i")
PLUS_MINUS, INFINITY = Atom("±", "±"), Atom("∞", "∞")
SURE = frozenset({"prime", "letter", "constant", "i", "∞", "±"})
"""Kinds of atoms whose independence makes an exact difference a proof."""
PRIMES = tuple(n for n in range(2, 1000) if all(n % d for d in range(2, math.isqrt(n) + 1)))
_SURE_DIGITS = 7
"""A number without a factor below 1,000 is prime when it has fewer digits; beyond, it may hide two."""
_KEY_CHARS = 120
POINTS = ("a", "b", "c")
"""Names of the places at which values with letters are compared by number."""


@dataclass(frozen=True, slots=True)
class Quotient:
    """``top / bottom``; ``bottom`` is 1 unless dividing by a sum."""

    top: Sum
    bottom: Sum

    @property
    def key(self) -> str:
        """Equal keys are equal values; equal values with sums in denominators may have several keys."""
        lead = self.bottom[min(self.bottom)] if self.bottom is not ONE else Fraction(1)
        top = _text({term: factor / lead for term, factor in self.top.items()})
        return top if self.bottom is ONE else f"{top}//{_text({t: f / lead for t, f in self.bottom.items()})}"

    @property
    def rational(self) -> Fraction | None:
        """The rational number this is, or None."""
        if self.bottom is not ONE or any(self.top):
            return None
        return self.top.get((), Fraction(0))

    def atoms(self) -> Iterable[Atom]:
        """All atoms, those inside others too."""
        for terms in (self.top, self.bottom):
            for term in terms:
                for atom, _ in term:
                    yield atom
                    for part in atom.inner:
                        if isinstance(part, Quotient):
                            yield from part.atoms()


def number(value: Fraction | int) -> Quotient:
    """A rational number as a value."""
    return Quotient({(): Fraction(value)} if value else {}, ONE)


def atom(of: Atom, exponent: Exponent = 1) -> Quotient:
    """One atom, or a power of it."""
    return Quotient({((of, exponent),): Fraction(1)}, ONE)


def letter(name: str) -> Quotient:
    """A variable."""
    return atom(Atom(name, "letter"))


class Calculator:
    """Arithmetic within a budget. Raises TooLarge beyond it, Unreadable for what has no value (0/0)."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def add(self, left: Quotient, right: Quotient) -> Quotient:
        """The sum."""
        if left.bottom is ONE and right.bottom is ONE:
            return Quotient(self._sum(left.top, right.top), ONE)
        top = self._sum(self._product(left.top, right.bottom), self._product(right.top, left.bottom))
        return Quotient(top, self._product(left.bottom, right.bottom))

    def negate(self, value: Quotient) -> Quotient:
        """Its opposite."""
        return Quotient({term: -factor for term, factor in value.top.items()}, value.bottom)

    def multiply(self, left: Quotient, right: Quotient) -> Quotient:
        """The product."""
        bottom = ONE if left.bottom is right.bottom is ONE else self._product(left.bottom, right.bottom)
        return Quotient(self._product(left.top, right.top), bottom)

    def divide(self, left: Quotient, right: Quotient) -> Quotient:
        """The quotient; dividing by one term leaves no denominator."""
        return self.multiply(left, self._inverse(right))

    def power(self, base: Quotient, exponent: Quotient) -> Quotient:
        """``base`` to an exponent that is a whole number, a fraction, or holds letters."""
        plain = exponent.rational
        if plain is None:
            return self._symbolic(base, exponent)
        if plain.denominator > 1:
            if plain.denominator > 64:
                raise TooLarge("a root of too high an index")
            if base.rational is not None and base.rational < 0:
                raise Unreadable("a fractional power of a negative number")
            return self.power(self.root(base, plain.denominator), number(plain.numerator))
        return self._whole(base, plain.numerator)

    def root(self, value: Quotient, index: int) -> Quotient:
        """The root that is real where there is one; the square root of a negative number is imaginary."""
        plain = value.rational
        if plain is not None and plain < 0 and (index % 2 or index == 2):
            sign = number(-1) if index % 2 else atom(IMAGINARY)
            return self.multiply(sign, self.root(number(-plain), index))
        if len(value.top) == 1 and value.bottom is ONE:
            term, factor = next(iter(value.top.items()))
            if factor > 0 and all(_has_plain_root(part, exponent, index) for part, exponent in term):
                return self._term_root(term, factor, index)
        return number(0) if not value.top else self._opaque(f"root{index}({value.key})", "root", (index, value))

    def logarithm(self, value: Quotient) -> Quotient:
        """The natural logarithm; of a product of numbers the sum of their logarithms."""
        if not value.top:
            raise Unreadable("a logarithm of nought")
        if value.bottom is not ONE or len(value.top) != 1:
            return self.function("ln", value)
        term, factor = next(iter(value.top.items()))
        if factor <= 0 or any(part.kind not in ("prime", "constant") for part, _ in term):
            return self.function("ln", value)
        total = number(0)
        for part, exponent in [*_factors(factor, self.budget), *term]:
            log = number(1) if part == E else self.function("ln", atom(part))
            total = self.add(total, self.multiply(number(Fraction(exponent)), log))
        return total

    def function(self, name: str, of: Quotient) -> Quotient:
        """A function of a value: an atom that knows its argument."""
        return self._opaque(f"{name}({of.key})", "function", (name, of))

    def _opaque(self, key: str, kind: str, inner: tuple[Any, ...]) -> Quotient:
        self.budget.spend(1 + len(key) // 16)
        if len(key) > _KEY_CHARS:
            key = f"{key[:16]}#{hashlib.sha256(key.encode()).hexdigest()}"
        return atom(Atom(key, kind, inner))

    def substitute(self, value: Quotient, sign: int) -> Quotient:
        """``value`` with its ± read as plus (1) or minus (-1)."""
        return Quotient(_signed(value.top, sign), ONE if value.bottom is ONE else _signed(value.bottom, sign))

    def equal(self, left: Quotient, right: Quotient) -> bool | None:
        """Whether two values are the same; None when numbers agree and no proof is at hand."""
        difference = self.add(left, self.negate(right)).top
        if not difference:
            return True
        whole = Quotient(difference, ONE)
        if all(part.kind in SURE and len(part.key) < _SURE_DIGITS for part in whole.atoms()):
            return False
        return False if any(_differs(difference, point) for point in POINTS) else None

    def _sum(self, left: Sum, right: Sum) -> Sum:
        self.budget.spend(1 + len(right) // 4)
        total = dict(left)
        for term, factor in right.items():
            total[term] = bounded(total.get(term, Fraction(0)) + factor)
            if not total[term]:
                del total[term]
        return total

    def _product(self, left: Sum, right: Sum) -> Sum:
        total: Sum = {}
        for term, factor in left.items():
            for other, multiplier in right.items():
                self.budget.spend(1 + (len(term) + len(other)) // 3 + (_bits(factor) + _bits(multiplier)) // 256)
                scale, merged = _merged(term, other)
                total[merged] = bounded(total.get(merged, Fraction(0)) + factor * multiplier * scale)
        return {term: factor for term, factor in total.items() if factor}

    def _inverse(self, value: Quotient) -> Quotient:
        if not value.top:
            raise Unreadable("a division by zero")
        if len(value.top) > 1:
            return Quotient(value.bottom, value.top)
        term, factor = next(iter(value.top.items()))
        scale, flipped = _merged(tuple((part, -exponent) for part, exponent in term), ())
        return Quotient(self._product(value.bottom, {flipped: scale / factor}), ONE)

    def _whole(self, base: Quotient, exponent: int) -> Quotient:
        if not base.top and exponent <= 0:
            raise Unreadable("zero to the power of zero or less")
        if exponent < 0:
            return self._inverse(self._whole(base, -exponent))
        self._afford(base, exponent)
        result = number(1)
        while exponent:
            if exponent & 1:
                result = self.multiply(result, base)
            exponent >>= 1
            if exponent:
                base = self.multiply(base, base)
        return result

    def _afford(self, base: Quotient, exponent: int) -> None:
        """A power is looked at before it is taken: what would not fit is not begun."""
        many = len(base.top) > 1 or len(base.bottom) > 1
        bits = max((_bits(factor) for factor in (*base.top.values(), *base.bottom.values())), default=1)
        if exponent * (bits - 1) > MAX_BITS or exponent > (64 if many else 10**6):
            raise TooLarge("a power too high to work out")
        if many and exponent > MAX_SCALE:
            raise TooLarge("a power too high to expand")

    def _term_root(self, term: Monomial, factor: Fraction, index: int) -> Quotient:
        result = number(1)
        for part, exponent in [*_factors(factor, self.budget), *term]:
            scale, merged = _merged(((part, _tidy(Fraction(exponent) / index)),), ())
            result = self.multiply(result, Quotient({merged: scale}, ONE))
        return result

    def _symbolic(self, base: Quotient, exponent: Quotient) -> Quotient:
        """``base`` to a sum with letters: ``2^(n+1)`` is 2 times ``2^n``, ``4^n`` is ``2^n`` squared."""
        term, factor = next(iter(base.top.items())) if len(base.top) == 1 else ((), Fraction(0))
        if factor <= 0 or base.bottom is not ONE or exponent.bottom is not ONE:
            return self._opaque(f"({base.key})^({exponent.key})", "power", (base, exponent))
        result = number(1)
        for part, times in [*_factors(factor, self.budget), *term]:
            for power, multiple in exponent.top.items():
                self.budget.spend()
                if not power:
                    raised = self.power(atom(part), number(multiple * times))
                else:
                    of = Quotient({power: Fraction(1)}, ONE)
                    key = f"{part.key}^({of.key})"
                    raised = atom(Atom(key, "power", (atom(part), of)), _tidy(multiple * times))
                result = self.multiply(result, raised)
        return result


def _text(terms: Sum) -> str:
    return "+".join(
        f"{factor}*" + "*".join(f"{part.key}^{exponent}" for part, exponent in term)
        for term, factor in sorted(terms.items())
    )


def _tidy(exponent: Exponent) -> Exponent:
    return exponent.numerator if exponent.denominator == 1 else exponent


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _merged(left: Monomial, right: Monomial) -> tuple[Fraction, Monomial]:
    """The product of two terms, and the number that comes out of it: whole powers of primes, of i, of ±."""
    if not left and not right:
        return Fraction(1), ()
    powers = dict(left)
    for part, exponent in right:
        powers[part] = _tidy(powers.get(part, 0) + exponent)
    scale, kept = Fraction(1), []
    for part, exponent in powers.items():
        if part.kind == "prime":
            whole = math.floor(exponent)
            if abs(whole) * int(part.key).bit_length() > MAX_BITS:
                raise TooLarge("a power too high to work out")
            scale, exponent = scale * Fraction(int(part.key)) ** whole, _tidy(exponent - whole)
        elif part.kind == "i":
            scale, exponent = scale * (1, 1, -1, -1)[int(exponent) % 4], exponent % 2
        elif part.kind == "±":
            exponent = exponent % 2
        if exponent:
            kept.append((part, exponent))
    return scale, tuple(sorted(kept))


def _signed(terms: Sum, sign: int) -> Sum:
    total: Sum = {}
    for term, factor in terms.items():
        rest = tuple(pair for pair in term if pair[0] != PLUS_MINUS)
        total[rest] = total.get(rest, Fraction(0)) + factor * (sign if len(rest) < len(term) else 1)
    return {term: factor for term, factor in total.items() if factor}


def _factors(value: Fraction, budget: Budget) -> list[tuple[Atom, int]]:
    """A positive rational number by primes below 1,000; what then remains is taken whole."""
    found: list[tuple[Atom, int]] = []
    for rest, sign in ((value.numerator, 1), (value.denominator, -1)):
        budget.spend(1 + rest.bit_length() // 16)
        for prime in PRIMES:
            if rest == 1 or prime * prime > rest:
                break
            times = 0
            while rest % prime == 0:
                rest, times = rest // prime, times + 1
            if times:
                found.append((Atom(str(prime), "prime"), sign * times))
        if rest > 1:
            root = math.isqrt(rest)
            base, times = (root, 2) if root * root == rest else (rest, 1)
            found.append((Atom(str(base), "prime"), sign * times))
    return found


def _has_plain_root(part: Atom, exponent: Exponent, index: int) -> bool:
    """Whether a root passes to this factor: the square root of x squared is not x."""
    return part.kind in ("prime", "constant") or (
        part.kind == "letter" and exponent.denominator % 2 == 1 and (index % 2 == 1 or exponent.numerator % 2 == 1)
    )


# --- by number --------------------------------------------------------------------------------------------------------

_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "ln": cmath.log, "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "sinh": cmath.sinh, "cosh": cmath.cosh,
    "tanh": cmath.tanh, "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan, "abs": lambda z: abs(z) + 0j,
    "sec": lambda z: 1 / cmath.cos(z), "csc": lambda z: 1 / cmath.sin(z), "cot": lambda z: 1 / cmath.tan(z),
}  # fmt: skip
FUNCTION_NAMES = frozenset(_FUNCTIONS) - {"abs"}


def _differs(terms: Sum, point: str) -> bool:
    """Whether a sum is surely not zero at a point; False also when that cannot be told there."""
    try:
        largest = max(map(abs, terms.values()))
        parts = [float(factor / largest) * _at_term(term, point) for term, factor in terms.items()]
    except (ArithmeticError, ValueError, KeyError):
        return False
    return abs(sum(parts)) > 1e-9 * sum(map(abs, parts))


def _at_term(term: Monomial, point: str) -> complex:
    value = 1 + 0j
    for part, exponent in term:
        value *= _at(part, point) ** (exponent if isinstance(exponent, int) else float(exponent))
    return value


def _at(part: Atom, point: str) -> complex:
    """An atom as a number: letters stand for numbers drawn from their names, between 1 and 3."""
    match part.kind:
        case "prime":
            return complex(int(part.key))
        case "constant":
            return complex(math.pi if part == PI else math.e)
        case "i":
            return 1j
        case "root":
            return complex(_at_value(part.inner[1], point) ** (1 / part.inner[0]))
        case "power":
            return complex(_at_value(part.inner[0], point) ** _at_value(part.inner[1], point))
        case "function":
            argument = _at_value(part.inner[1], point)
            if abs(argument) > 1e6:
                raise ValueError("too large an argument to know the function's value")
            return _FUNCTIONS[part.inner[0]](argument)
    return complex(1 + 2 * crc32(f"{point}{part.key}".encode()) / 2**32)


def _at_value(value: Quotient, point: str) -> complex:
    top, bottom = (sum(float(f) * _at_term(t, point) for t, f in terms.items()) for terms in (value.top, value.bottom))
    return complex(top / bottom)
