"""Problems by how often a policy solves them: those that teach nothing, since all siblings earn alike, are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import Field, model_validator

from seekling.config import Settings


class Passing(Settings):
    """Which pass rates are kept, both ends included. The usual ends leave out what always or never passes."""

    low: float = Field(0.1, ge=0, le=1, description="smallest pass rate to keep")
    high: float = Field(0.9, ge=0, le=1, description="largest pass rate to keep")

    @model_validator(mode="after")
    def _is_a_range(self) -> Passing:
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self

    def fault(self, rate: float | None) -> str:
        """Why a problem of this pass rate is left out; "" for one to keep. None: no check of it could be made."""
        if rate is None:
            return "no check of it could be made"
        if rate < self.low:
            return "never solved" if rate == 0 else f"solved too seldom, {rate:.3g}"
        return "" if rate <= self.high else "always solved" if rate == 1 else f"solved too often, {rate:.3g}"


def spread_share(passed: int, judged: int, group: int) -> float:
    """Chance that ``group`` rollouts, drawn from ``judged`` of which ``passed`` pass, do not all earn alike.

    For fewer judged rollouts than a group has, they are the group. Exact: siblings are drawn without replacement.
    """
    size = min(group, judged)
    if size < 2:
        return 0.0
    return 1.0 - _all_of(passed, judged, size) - _all_of(judged - passed, judged, size)


def histogram(rates: Sequence[float | None], bins: int = 10) -> dict[str, int]:
    """How many problems have which pass rate: never, always, and equal steps between."""
    counts = Counter(_bin(rate, bins) for rate in rates if rate is not None)
    inner = [_name(number, bins) for number in range(bins)]
    return {name: counts[name] for name in ("0", *inner, "1")}


def _bin(rate: float, bins: int) -> str:
    return f"{rate:.0f}" if rate in (0, 1) else _name(min(int(rate * bins), bins - 1), bins)


def _name(number: int, bins: int) -> str:
    return f"{number / bins:.2g}-{(number + 1) / bins:.2g}"


def _all_of(kind: int, of: int, size: int) -> float:
    """Chance that ``size`` drawn from ``of`` are all of the ``kind`` that there are so many of."""
    chance = 1.0
    for taken in range(size):
        chance *= max(0, kind - taken) / (of - taken)
    return chance
