"""What reading an answer may cost, counted before it is spent; and the two ways in which reading ends early."""

from __future__ import annotations

from fractions import Fraction

MAX_CHARS = 2_000
MAX_TOKENS = 600
MAX_DIGITS = 1_000
MAX_BITS = 4_096
MAX_DEPTH = 24
MAX_SCALE = 1_000
"""Largest power of ten in scientific notation, and largest exponent of a sum."""
STEPS = 1_500
"""Products of terms that one answer may take, a long number counting for several."""


class Unreadable(ValueError):
    """The text is no answer of a known form; the message says why."""


class TooLarge(Unreadable):
    """Reading it would cost more than an answer may: nobody else is asked either."""


class Beyond(Unreadable):
    """A form of mathematics that the own reader does not know, and math-verify may."""


class Budget:
    """Steps left to one reading."""

    def __init__(self, steps: int = STEPS) -> None:
        self._left = steps

    def spend(self, steps: int = 1) -> None:
        """Raises TooLarge when none are left."""
        self._left -= steps
        if self._left < 0:
            raise TooLarge("it takes too much arithmetic")


def bounded(value: Fraction) -> Fraction:
    """``value``, unless it has become too long a number. Raises TooLarge."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise TooLarge(f"a number of more than {MAX_BITS} bits")
    return value
