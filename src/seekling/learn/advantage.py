"""How much better a rollout was than its siblings. Pure functions of rewards; NaN marks a reward left open."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def group_mean(rewards_G: Tensor) -> Tensor:
    """A_i = r_i - mean(r) (Dr. GRPO, arXiv 2503.20783, section 3.2): float64 [G]."""
    rewards_G = rewards_G.double()
    return (rewards_G - rewards_G.nanmean()).nan_to_num(0.0)


def group_mean_std(rewards_G: Tensor) -> Tensor:
    """A_i = (r_i - mean(r)) / std(r) (GRPO, arXiv 2402.03300, section 4.1.2); 0 in a group without spread."""
    centred_G = group_mean(rewards_G)
    known = ~rewards_G.isnan()
    std = (centred_G.square().sum() / (known.sum() - 1).clamp_min(1)).sqrt()
    return centred_G / std if std > 1e-9 else torch.zeros_like(centred_G)


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "group_mean": group_mean,
    "group_mean_std": group_mean_std,
}
