"""Figures with intervals: unbiased pass@k, maj@k, and bootstrap over problems. Pure functions of counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap(values_P: Sequence[float] | NDArray[np.float64], *, seed: int = 0, resamples: int = 1000) -> Interval:
    """Mean over problems, with the 2.5 and 97.5 percentiles of resampled means (Efron 1979).

    Problems are resampled whole: rollouts of one problem are not independent of each other.
    """
    array = np.asarray(values_P, dtype=np.float64)
    if not len(array):
        return Interval(math.nan, math.nan, math.nan)
    picks = np.random.default_rng(seed).integers(0, len(array), (resamples, len(array)))
    low, high = np.percentile(array[picks].mean(1), (2.5, 97.5))
    return Interval(float(array.mean()), float(low), float(high))


def pass_at_k(num_rollouts: int, num_passed: int, k: float) -> float:
    """Chance that at least one of ``k`` rollouts passes, drawn without replacement: 1 - C(n-c, k) / C(n, k).

    Unbiased (Chen et al. 2021, arXiv 2107.03374, eq. 1). A fractional ``k`` interpolates between its neighbours.
    """
    if not 1 <= k <= num_rollouts:
        raise ValueError(f"k must lie between 1 and {num_rollouts}, not {k}")
    floor = math.floor(k)
    if floor < k:
        low, high = (pass_at_k(num_rollouts, num_passed, whole) for whole in (floor, floor + 1))
        return low + (k - floor) * (high - low)
    return 1.0 - math.comb(num_rollouts - num_passed, floor) / math.comb(num_rollouts, floor)


def maj_at_k(answers: Sequence[str | None], passed: Sequence[bool], k: int, *, draws: int = 64, seed: int = 0) -> float:
    """Chance that the most frequent answer of ``k`` rollouts passes; ties are broken evenly, no answer never wins.

    Estimated from ``draws`` seeded subsets (exact when k is the number of rollouts, up to ties).
    """
    rng, right = Random(seed), {a for a, p in zip(answers, passed, strict=True) if p and a is not None}
    wins = 0.0
    for _ in range(draws):
        counts = Counter(a for a in rng.sample(list(answers), k) if a is not None)
        if counts:
            most = max(counts.values())
            leaders = [answer for answer, count in counts.items() if count == most]
            wins += sum(answer in right for answer in leaders) / len(leaders)
    return wins / draws


def powers_of_two(limit: int) -> list[int]:
    """1, 2, 4, ... up to ``limit``."""
    return [2**power for power in range(limit.bit_length()) if 2**power <= limit]
