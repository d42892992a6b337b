"""Preferences, reward models and critics as loops over pairs, rollouts and tokens (float64), from the papers."""

from __future__ import annotations

import math
from collections.abc import Sequence


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x)."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def log_ratio(policy: Sequence[float], reference: Sequence[float]) -> float:
    """log pi(y|x)/ref(y|x) of a whole reply."""
    return sum(p - r for p, r in zip(policy, reference, strict=True))


def dpo(chosen: float, rejected: float, beta: float, smoothing: float) -> float:
    """arXiv 2305.18290, eq. 7; the labels turned round with probability ``smoothing``."""
    right, turned = sigmoid(beta * chosen - beta * rejected), sigmoid(beta * rejected - beta * chosen)
    return -(1 - smoothing) * math.log(right) - smoothing * math.log(turned)


def ipo(chosen: float, rejected: float, beta: float) -> float:
    """arXiv 2310.12036, eq. 17, with tau = beta."""
    return (chosen - rejected - 1 / beta / 2) ** 2


def bradley_terry(chosen: float, rejected: float, margin: float) -> float:
    """-log P(chosen beats rejected by margin): e^r_w / (e^r_w + e^(r_l + m))."""
    return -math.log(math.exp(chosen) / (math.exp(chosen) + math.exp(rejected + margin)))


def gae(rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> list[float]:
    """A_t = sum_l (gamma lam)^l delta_{t+l} (arXiv 1506.02438, eq. 16), every sum from its own beginning."""
    count = len(rewards)
    deltas = [rewards[t] + (gamma * values[t + 1] if t + 1 < count else 0.0) - values[t] for t in range(count)]
    return [sum((gamma * lam) ** k * deltas[t + k] for k in range(count - t)) for t in range(count)]


def value_loss(
    values: Sequence[float], olds: Sequence[float], targets: Sequence[float], weights: Sequence[float], clip: float
) -> float:
    """Half the greater of two squares, token by token."""
    total = 0.0
    for value, old, target, weight in zip(values, olds, targets, weights, strict=True):
        held = min(max(value, old - clip), old + clip) if clip else value
        total += weight * max((value - target) ** 2, (held - target) ** 2) / 2
    return total
