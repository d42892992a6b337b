"""Policy objectives, KL estimates and cross-entropy as loops over rollouts and tokens (float64)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """One rollout: log-probabilities of its tokens under three policies, and the reward it earned (None: open)."""

    new: Sequence[float]
    old: Sequence[float]
    reference: Sequence[float]
    reward: float | None


def advantages(rewards: Sequence[float | None], *, divide: bool) -> list[float]:
    """r_i - mean(r), over std(r) for GRPO (arXiv 2402.03300, section 4.1.2); an open reward has no part in it."""
    known = [r for r in rewards if r is not None]
    if not known:
        return [0.0] * len(rewards)
    mean = sum(known) / len(known)
    std = math.sqrt(sum((r - mean) ** 2 for r in known) / max(1, len(known) - 1))
    if divide and std == 0:
        return [0.0] * len(rewards)
    return [0.0 if r is None else (r - mean) / (std if divide else 1.0) for r in rewards]


def k1(new: float, reference: float) -> float:
    """log(pi/ref)."""
    return math.log(math.exp(new) / math.exp(reference))


def k2(new: float, reference: float) -> float:
    """log(pi/ref)^2 / 2."""
    return math.log(math.exp(new) / math.exp(reference)) ** 2 / 2


def k3(new: float, reference: float) -> float:
    """ref/pi - log(ref/pi) - 1 (arXiv 2402.03300, eq. 4)."""
    ratio = math.exp(reference) / math.exp(new)
    return ratio - math.log(ratio) - 1


def surrogate(ratio: float, advantage: float, low: float, high: float) -> float:
    """min(r A, clip(r, 1-low, 1+high) A)."""
    clipped = min(max(ratio, 1 - low), 1 + high)
    return min(ratio * advantage, clipped * advantage)


def grpo_loss(groups: Sequence[Sequence[Said]], *, low: float, high: float, beta: float) -> float:
    """-J of GRPO (arXiv 2402.03300, eq. 3): mean over rollouts of the mean over their tokens."""
    total, count = 0.0, sum(len(group) for group in groups)
    for group in groups:
        for said, a in zip(group, advantages([s.reward for s in group], divide=True), strict=True):
            terms = [
                surrogate(math.exp(new - old), a, low, high) - beta * k3(new, reference)
                for new, old, reference in zip(said.new, said.old, said.reference, strict=True)
            ]
            total += sum(terms) / len(terms)
    return -total / count


def dr_grpo_loss(groups: Sequence[Sequence[Said]], *, low: float, high: float, max_tokens: int) -> float:
    """-J of Dr. GRPO (arXiv 2503.20783): no division by std or length; a constant, the token limit, instead."""
    total, count = 0.0, sum(len(group) for group in groups)
    for group in groups:
        for said, a in zip(group, advantages([s.reward for s in group], divide=False), strict=True):
            for new, old in zip(said.new, said.old, strict=True):
                total += surrogate(math.exp(new - old), a, low, high) / max_tokens
    return -total / count


def cross_entropy(logits: Sequence[float], target: int) -> float:
    """log sum e^v - v_target, in nats."""
    top = max(logits)
    return top + math.log(sum(math.exp(v - top) for v in logits)) - logits[target]


def entropy(logits: Sequence[float]) -> float:
    """-sum p log p, in nats."""
    logps = [-cross_entropy(logits, v) for v in range(len(logits))]
    return -sum(math.exp(lp) * lp for lp in logps)
