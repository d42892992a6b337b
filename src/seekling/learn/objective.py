"""The policy objective: a plain weighted sum over tokens, so that slicing, padding and order cannot change it.

    loss = sum_t weight_t * ( -min(ratio_t A_t, clip(ratio_t) A_t) + beta * kl_t )

Weights are computed once for the whole step (``token_weights``). With one update per batch of rollouts ratio = 1 and
the gradient is that of REINFORCE with a group baseline.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seekling.learn.config import Objective


def token_weights(lengths_R: Tensor, kind: str, max_tokens: int) -> Tensor:
    """Weight of every token of each rollout, for a whole step of R rollouts: float64 [R].

    per_rollout: 1/(R |o_i|) (GRPO); per_token: 1/sum_i |o_i| (DAPO, arXiv 2503.14476, eq. 8);
    constant: 1/(R max_tokens) (Dr. GRPO).
    """
    lengths_R = lengths_R.double()
    if kind == "per_rollout":
        return 1 / (len(lengths_R) * lengths_R)
    if kind == "per_token":
        return torch.full_like(lengths_R, 1 / float(lengths_R.sum()))
    return torch.full_like(lengths_R, 1 / (len(lengths_R) * max_tokens))


def clipped_surrogate(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """min(r A, clip(r, 1-low, 1+high) A), to be maximised (PPO, arXiv 1707.06347, eq. 7)."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def k1(log_ratio: Tensor) -> Tensor:
    """log pi/ref: unbiased, of either sign (Schulman, "Approximating KL divergence", 2020)."""
    return log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """(log pi/ref)^2 / 2: biased, small variance."""
    return log_ratio.square() / 2


def k3(log_ratio: Tensor) -> Tensor:
    """ref/pi - log(ref/pi) - 1: unbiased and never negative (GRPO's choice, arXiv 2402.03300, eq. 4)."""
    return torch.expm1(-log_ratio) + log_ratio


KL: dict[str, Callable[[Tensor], Tensor]] = {"none": torch.zeros_like, "k1": k1, "k2": k2, "k3": k3}


def policy_loss(
    logp: Tensor,
    behaviour: Tensor,
    advantage: Tensor,
    weight: Tensor,
    objective: Objective,
    reference: Tensor,
) -> Tensor:
    """The loss of any slice of a step; slices add up. All tensors have one shape; ``weight`` is 0 off the rollouts."""
    ratio = (logp - behaviour).exp()
    gain = clipped_surrogate(ratio, advantage, objective.clip_low, objective.clip_high)
    penalty = objective.beta * KL[objective.kl](logp - reference)
    return ((penalty - gain) * weight).sum()
