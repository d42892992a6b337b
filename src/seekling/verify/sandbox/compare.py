"""Whether a program's answer is the expected one: by exact type first, outside the sandbox, from data alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two floats may be apart: either bound is enough. Integers, text and truth values have none."""

    relative: float = 1e-9
    absolute: float = 1e-9


USUAL, EXACT = Tolerance(), Tolerance(0.0, 0.0)


def same(value: Any, expected: Any, tolerance: Tolerance = USUAL) -> bool:
    """Whether two JSON values are equal: ``True``, ``1`` and ``1.0`` are three values, order counts in lists.

    Walks without recursion, so no nesting is too deep for it.
    """
    pairs = [(value, expected)]
    while pairs:
        one, other = pairs.pop()
        if type(one) is not type(other):
            return False
        if isinstance(one, dict):
            if one.keys() != other.keys():
                return False
            pairs += [(one[key], other[key]) for key in one]
        elif isinstance(one, list):
            if len(one) != len(other):
                return False
            pairs += zip(one, other, strict=True)
        elif one != other and not (isinstance(one, float) and _near(one, other, tolerance)):
            return False
    return True


def _near(one: float, other: float, tolerance: Tolerance) -> bool:
    return math.isclose(one, other, rel_tol=tolerance.relative, abs_tol=tolerance.absolute)
