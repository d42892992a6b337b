"""The policy objective: a plain weighted sum over tokens, so that slicing, padding and order cannot change it.

    loss = sum_t weight_t * ( beta kl_t - correction_t gain(ratio_t, A_t) - entropy H_t )

Weights are computed once for the whole step (``token_weights``). ``old`` is the policy that began the update, which
the ratio is taken to; ``behaviour`` is who said the token. With our own engine they are one, and with one update per
batch of rollouts the ratio is 1 and the gradient that of REINFORCE with a group baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seekling.learn.config import Objective


@dataclass(frozen=True, slots=True)
class Said:
    """All that an objective knows of the tokens of a slice: [B, T] each.

    ``logp``, ``old``, ``behaviour``, ``reference``: log-probabilities in nats. ``weight`` is 0 where nothing was said;
    ``segments`` says which rollout of its row a token belongs to.
    """

    logp: Tensor
    old: Tensor
    behaviour: Tensor
    reference: Tensor
    advantage: Tensor
    weight: Tensor
    segments: Tensor
    entropy: Tensor

    def summed(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over each rollout's tokens, at every one of them: [B, T]."""
        said = torch.where(self.weight > 0, value, 0.0)
        sums = said.new_zeros(len(said), said.shape[1] + 1).scatter_add(1, self.segments, said)
        return sums.gather(1, self.segments)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of ``value`` over each rollout's tokens, at every one of them: [B, T]."""
        return self.summed(value) / self.summed(torch.ones_like(value)).clamp_min(1)


def token_weights(lengths_R: Tensor, kind: str, max_tokens: int) -> Tensor:
    """Weight of every token of each rollout, for a whole step of R rollouts: float64 [R].

    per_rollout: 1/(R |o_i|) (GRPO); per_token: 1/sum_i |o_i| (DAPO, arXiv 2503.14476, eq. 8); constant:
    1/(R max_tokens) (Dr. GRPO); whole: 1/R, so that a rollout counts by its length (LUSPO, arXiv 2602.05261).
    """
    lengths_R = lengths_R.double()
    if kind == "per_rollout":
        return 1 / (len(lengths_R) * lengths_R)
    if kind == "per_token":
        return torch.full_like(lengths_R, 1 / float(lengths_R.sum()))
    return torch.full_like(lengths_R, 1 / (len(lengths_R) * (max_tokens if kind == "constant" else 1)))


# what policy and old policy are compared in


def token_ratio(said: Said) -> Tensor:
    """pi/old of each token (PPO, arXiv 1707.06347, eq. 6)."""
    return (said.logp - said.old).exp()


def sequence_ratio(said: Said) -> Tensor:
    """(pi(o)/old(o))^(1/|o|): a mean of logarithms, never their sum (GSPO, arXiv 2507.18071, eq. 7)."""
    return said.mean(said.logp - said.old).exp()


RATIOS: dict[str, Callable[[Said], Tensor]] = {"token": token_ratio, "sequence": sequence_ratio}


# how far a ratio counts; each is to be maximised


def clipped_surrogate(ratio: Tensor, advantage: Tensor, low: float, high: float, ratio_max: float = 0.0) -> Tensor:
    """min(r A, clip(r, 1-low, 1+high) A) (PPO, arXiv 1707.06347, eq. 7).

    ``ratio_max`` bounds r on its own where A is negative and the minimum would not (INTELLECT-2, arXiv 2505.07291).
    """
    bounded = ratio.clamp_max(ratio_max) if ratio_max else ratio
    return torch.minimum(bounded * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def ppo(ratio: Tensor, said: Said, o: Objective) -> Tensor:
    """The lesser of the ratio and its clipped value, times the advantage."""
    return clipped_surrogate(ratio, said.advantage, o.clip_low, o.clip_high, o.ratio_max)


def cispo(ratio: Tensor, said: Said, o: Objective) -> Tensor:
    """sg[clip(r, 1-low, 1+high)] A log pi: no token loses its gradient (MiniMax-M1, arXiv 2506.13585, eq. 4)."""
    return ratio.clamp(1 - o.clip_low, 1 + o.clip_high).detach() * said.advantage * said.logp


SOFT_GOOD, SOFT_BAD = 1.0, 1.05
"""SAPO's temperatures for positive and negative advantages (arXiv 2511.20347, section 4)."""


def soft(ratio: Tensor, said: Said, o: Objective) -> Tensor:
    """4/tau sigmoid(tau (r - 1)) A: a gate that closes gradually, steeper for bad rollouts (SAPO, eq. 5)."""
    tau = by_sign(said.advantage, SOFT_GOOD, SOFT_BAD)
    return (tau * (ratio - 1)).sigmoid() * 4 / tau * said.advantage


GAMMA_GOOD, GAMMA_BAD = (2.0, 3.0), (3.0, 2.0)
"""VESPO's shape k and rate lambda for advantages of either sign (arXiv 2602.10693)."""
LOG_SMALLEST, LOG_LARGEST = -18.420680743952367, 20.0
"""Logarithms of ratios are held within log(1e-8) and 20, where exponentials still mean something."""


def gamma(ratio: Tensor, said: Said, o: Objective) -> Tensor:
    """sg[e^l w^k e^(-l w)] A log pi, w = pi(o)/behaviour(o) of the whole rollout (VESPO, arXiv 2602.10693).

    The weight is 1 at w = 1 and falls on both sides, so that neither stale nor runaway rollouts weigh much.
    """
    with torch.no_grad():
        apart = (said.logp - said.old).clamp(-LOG_LARGEST, LOG_LARGEST)
        apart = apart + correction(said, o).log().clamp(LOG_SMALLEST, LOG_LARGEST)
        log_w = said.summed(apart).clamp(LOG_SMALLEST, LOG_LARGEST)
        k, rate = (by_sign(said.advantage, *pair) for pair in zip(GAMMA_GOOD, GAMMA_BAD, strict=True))
        weight = (rate + k * log_w - rate * log_w.exp()).exp()
    return weight * said.advantage * said.logp


def by_sign(advantage: Tensor, good: float, bad: float) -> Tensor:
    """``good`` where the advantage is positive, ``bad`` elsewhere (where it is 0 neither counts)."""
    return torch.where(advantage > 0, torch.full_like(advantage, good), torch.full_like(advantage, bad))


def unclipped(ratio: Tensor, said: Said, o: Objective) -> Tensor:
    """r A: the importance-weighted policy gradient."""
    return ratio * said.advantage


CLIPS: dict[str, Callable[[Tensor, Said, Objective], Tensor]] = {
    "ppo": ppo, "cispo": cispo, "soft": soft, "gamma": gamma, "none": unclipped,
}  # fmt: skip


# what makes up for a sampler that is not the learner


def correction(said: Said, o: Objective) -> Tensor:
    """old/behaviour of each token, or of the whole rollout (a product), cut at the cap or left out beyond it.

    Truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training"); masked, arXiv 2510.18855. Never a path of the gradient.
    """
    if o.correction == "none":
        return torch.ones_like(said.old)
    apart = (said.old - said.behaviour).detach()
    weight = (said.summed(apart) if o.correction.startswith("sequence") else apart).exp()
    if o.correction.endswith("mask"):
        return torch.where(weight <= o.correction_max, weight, 0.0)
    return weight.clamp_max(o.correction_max)


def fresh(said: Said, o: Objective) -> Tensor:
    """1, or 0 for a rollout of negative advantage that the policy has left behind (DeepSeek-V3.2, arXiv 2512.02556)."""
    if not o.stale_max:
        return torch.ones_like(said.old)
    is_stale = said.mean(said.behaviour - said.logp.detach()) > o.stale_max
    return 1.0 - (is_stale & (said.advantage < 0)).to(said.old.dtype)


# estimates of KL(policy, reference)


def k1(log_ratio: Tensor) -> Tensor:
    """log pi/ref: unbiased, of either sign (Schulman, "Approximating KL divergence", 2020)."""
    return log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """(log pi/ref)^2 / 2: biased, small variance."""
    return log_ratio.square() / 2


def k3(log_ratio: Tensor) -> Tensor:
    """ref/pi - log(ref/pi) - 1: unbiased and never negative (GRPO's choice, arXiv 2402.03300, eq. 4)."""
    return torch.expm1(-log_ratio) + log_ratio


KL: dict[str, Callable[[Tensor], Tensor]] = {
    "none": torch.zeros_like, "k1": k1, "k2": k2, "k3": k3, "k3_weighted": k3,
}  # fmt: skip


def penalty(said: Said, ratio: Tensor, o: Objective) -> Tensor:
    """beta KL of each token. ``k3_weighted`` times the ratio: its gradient too is unbiased (DeepSeek-V3.2, eq. 7)."""
    estimate = KL[o.kl](said.logp - said.reference)
    return o.beta * (estimate * ratio if o.kl == "k3_weighted" else estimate)


def policy_loss(said: Said, o: Objective) -> Tensor:
    """The loss of any slice of a step that keeps rollouts whole; slices add up."""
    ratio = RATIOS[o.ratio](said)
    gain = CLIPS[o.clip](ratio, said, o) * fresh(said, o)
    gain = gain if o.clip == "gamma" else gain * correction(said, o)  # which gamma has in its weight
    lost = penalty(said, ratio, o) - gain if o.needs_reference and o.kl_in == "loss" else -gain
    lost = lost - o.entropy * said.entropy if o.entropy else lost
    return (lost * said.weight).sum()
