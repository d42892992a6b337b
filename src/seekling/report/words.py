"""Numbers as a person reads them: percent with one decimal, tokens in groups of three, seconds as minutes."""

from __future__ import annotations

from collections.abc import Iterable

from seekling.report.view import Estimate

THIN = "\u202f"
"""Narrow no-break space: between a number and its unit, and between groups of three digits."""

NO_BREAK = "\u00a0"

_POWERS = "kMGTPE"

_FLOP_UNITS = (
    (1e18, "EFLOP"),
    (1e15, "PFLOP"),
    (1e12, "TFLOP"),
    (1e9, "GFLOP"),
    (1e6, "MFLOP"),
    (1.0, "FLOP"),
)


def percent(share: float) -> str:
    """``0.8614`` -> ``86.1 %``."""
    return f"{100 * share:.1f}{THIN}%"


def interval(estimate: Estimate, *, shares: bool = True, digits: int = 1) -> str:
    """``[82.0, 89.5]`` (shares in percent), or ``""`` when no interval was written."""
    if estimate.low is None or estimate.high is None:
        return ""
    scale = 100.0 if shares else 1.0
    return f"[{scale * estimate.low:.{digits}f},{NO_BREAK}{scale * estimate.high:.{digits}f}]"


def number(value: float) -> str:
    """At most four significant digits, whole numbers in groups of three."""
    if abs(value) >= 1000 or value == int(value):
        return count(value)
    return f"{value:.3g}".replace("-", "\u2212") if abs(value) < 1e-3 else f"{value:.4g}".replace("-", "\u2212")


def count(value: float) -> str:
    """``1234567`` -> ``1 234 567`` with narrow spaces."""
    return f"{round(value):,}".replace(",", THIN).replace("-", "\u2212")


def flop_unit(values: Iterable[float]) -> tuple[float, str]:
    """One unit for a whole column, fit for its largest value, so that the column visibly adds up."""
    largest = max(values, default=0.0)
    return next((unit for unit in _FLOP_UNITS if largest >= unit[0]), _FLOP_UNITS[-1])


def flops(value: float) -> str:
    """``3.42e12`` -> ``3.42 TFLOP``."""
    scale, unit = flop_unit([value])
    return f"{value / scale:.3g}{THIN}{unit}"


def duration(seconds: float) -> str:
    """``212`` -> ``3 min 32 s``."""
    if seconds < 60:
        return f"{seconds:.1f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest}{THIN}s"
    return f"{minutes // 60}{THIN}h {minutes % 60}{THIN}min"


def short(value: float) -> str:
    """``1234567`` -> ``1.23M``; nothing for 0."""
    power = sum(abs(value) >= 999.5 * 1000**n for n in range(len(_POWERS)))
    return f"{value / 1000**power:.3g}{_POWERS[power - 1] if power else ''}" if value else ""
