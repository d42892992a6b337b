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


# every other objective, each as its paper writes it


def batch_advantages(groups: Sequence[Sequence[float | None]], kind: str) -> list[list[float]]:
    """Advantages that need more than one group: by a loop over all rewards."""
    known = [r for group in groups for r in group if r is not None]
    mean = sum(known) / len(known) if known else 0.0
    if kind == "leave_one_out":
        return [[_without(group, place) for place in range(len(group))] for group in groups]
    if kind == "group_mean_batch_std":
        centred = [advantages(group, divide=False) for group in groups]
    else:
        centred = [[0.0 if r is None else r - mean for r in group] for group in groups]
    if kind == "batch_mean":
        return centred
    about = [a for group, row in zip(groups, centred, strict=True) for r, a in zip(group, row, strict=True)
             if r is not None]  # fmt: skip
    std = math.sqrt(sum(a * a for a in about) / max(1, len(about) - 1))
    return [[a / std if std else 0.0 for a in row] for row in centred]


def _without(group: Sequence[float | None], place: int) -> float:
    others = [r for at, r in enumerate(group) if at != place and r is not None]
    own = group[place]
    return own - sum(others) / len(others) if own is not None and others else 0.0


@dataclass(frozen=True)
class Told:
    """A rollout with its advantage, and a sampler that may differ from the policy that began the update."""

    new: Sequence[float]
    old: Sequence[float]
    behaviour: Sequence[float]
    reference: Sequence[float]
    advantage: float


def mean(values: Sequence[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def gspo_loss(told: Sequence[Told], *, low: float, high: float) -> float:
    """arXiv 2507.18071, eq. 5 and 7: one ratio a rollout, the geometric mean of its tokens'."""
    total = 0.0
    for one in told:
        ratio = math.exp(mean([n - o for n, o in zip(one.new, one.old, strict=True)]))
        total += surrogate(ratio, one.advantage, low, high)
    return -total / len(told)


def dapo_loss(told: Sequence[Told], *, low: float, high: float) -> float:
    """arXiv 2503.14476, eq. 8: every token of the batch counts alike."""
    terms = [
        surrogate(math.exp(n - o), one.advantage, low, high)
        for one in told for n, o in zip(one.new, one.old, strict=True)
    ]  # fmt: skip
    return -mean(terms)


def cispo_loss(told: Sequence[Told], *, cap: float) -> float:
    """arXiv 2506.13585, eq. 4 and 5, as a value (its gradient is that of log pi under a fixed weight)."""
    terms = [
        min(math.exp(n - o), cap) * one.advantage * n for one in told for n, o in zip(one.new, one.old, strict=True)
    ]
    return -mean(terms)


def sapo_loss(told: Sequence[Told]) -> float:
    """arXiv 2511.20347, eq. 5 and 6, temperatures 1 and 1.05: mean over rollouts of the mean over tokens."""
    total = 0.0
    for one in told:
        tau = 1.0 if one.advantage > 0 else 1.05
        gates = [4 / tau / (1 + math.exp(-tau * (math.exp(n - o) - 1))) for n, o in zip(one.new, one.old, strict=True)]
        total += one.advantage * mean(gates)
    return -total / len(told)


def vespo_loss(told: Sequence[Told]) -> float:
    """arXiv 2602.10693: a gamma weight of the whole rollout's ratio, fixed, times log pi; tokens alike."""
    terms = []
    for one in told:
        k, rate = (2.0, 3.0) if one.advantage >= 0 else (3.0, 2.0)
        log_w = min(20.0, max(math.log(1e-8), sum(n - o for n, o in zip(one.new, one.old, strict=True))))
        weight = math.exp(rate + k * log_w - rate * math.exp(log_w))
        terms += [weight * one.advantage * n for n in one.new]
    return -mean(terms)


def reinforce_loss(told: Sequence[Told]) -> float:
    """-A pi/old over all tokens alike: on policy its gradient is Williams's."""
    return -mean([one.advantage * math.exp(n - o) for one in told for n, o in zip(one.new, one.old, strict=True)])


def whole_loss(told: Sequence[Told]) -> float:
    """Mean over rollouts of the sum over their tokens: a whole rollout is one action (RLOO)."""
    total = sum(one.advantage * math.exp(n - o) for one in told for n, o in zip(one.new, one.old, strict=True))
    return -total / len(told)


def corrections(one: Told, kind: str, cap: float) -> list[float]:
    """old/behaviour of each token or of the whole rollout, cut at the cap, or 0 beyond it."""
    apart = [o - b for o, b in zip(one.old, one.behaviour, strict=True)]
    logs = [sum(apart)] * len(apart) if kind.startswith("sequence") else apart
    weights = [math.exp(x) for x in logs]
    return [(0.0 if w > cap else w) if kind.endswith("mask") else min(w, cap) for w in weights]
