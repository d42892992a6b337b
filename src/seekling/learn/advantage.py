"""How much better a rollout was than others. Pure functions of rewards [P, G]; NaN marks a reward left open.

Every one is zero for an open reward, ignores a constant added to all rewards, and leaves a group without spread with
nothing to learn where it compares siblings. All are float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SMALLEST_STD = 1e-9
"""Below it rewards are equal but for rounding: there is nothing to divide by."""


def group_mean(rewards_PG: Tensor) -> Tensor:
    """A_i = r_i - mean(r) over its siblings (Dr. GRPO, arXiv 2503.20783, section 3.2)."""
    rewards_PG = rewards_PG.double()
    return (rewards_PG - rewards_PG.nanmean(-1, keepdim=True)).nan_to_num(0.0)


def group_mean_std(rewards_PG: Tensor) -> Tensor:
    """A_i = (r_i - mean(r)) / std(r) (GRPO, arXiv 2402.03300, section 4.1.2); 0 in a group without spread."""
    return over_std(group_mean(rewards_PG), ~rewards_PG.isnan(), each_group=True)


def leave_one_out(rewards_PG: Tensor) -> Tensor:
    """A_i = r_i - mean of the other siblings (RLOO, arXiv 2402.14740, eq. 6); 0 for one without others."""
    known_P1 = (~rewards_PG.isnan()).sum(-1, keepdim=True)
    return group_mean(rewards_PG) * known_P1 / (known_P1 - 1).clamp_min(1)


def batch_mean(rewards_PG: Tensor) -> Tensor:
    """A_i = r_i - mean over the whole batch: REINFORCE with a baseline (Williams 1992, section 4)."""
    rewards_PG = rewards_PG.double()
    return (rewards_PG - rewards_PG.nanmean()).nan_to_num(0.0)


def batch_mean_std(rewards_PG: Tensor) -> Tensor:
    """A_i = (r_i - mean) / std, both over the whole batch (REINFORCE++, arXiv 2501.03262, eq. 7)."""
    return over_std(batch_mean(rewards_PG), ~rewards_PG.isnan())


def group_mean_batch_std(rewards_PG: Tensor) -> Tensor:
    """A_i = (r_i - mean of its group) / std of the batch (REINFORCE++ with baseline; Lite PPO, arXiv 2508.08221)."""
    return over_std(group_mean(rewards_PG), ~rewards_PG.isnan())


def over_std(centred_PG: Tensor, known_PG: Tensor, *, each_group: bool = False) -> Tensor:
    """What is centred, divided by its sample standard deviation: each group's own, or the whole batch's."""
    over = (-1,) if each_group else (-2, -1)
    count = (known_PG.sum(over, keepdim=True) - 1).clamp_min(1)
    std = ((centred_PG * known_PG).square().sum(over, keepdim=True) / count).sqrt()
    return torch.where(std > SMALLEST_STD, centred_PG / std.clamp_min(SMALLEST_STD), 0.0)


def summed(parts_KPG: Tensor, weights_K: Tensor, known_PG: Tensor, advantage: Callable[[Tensor], Tensor]) -> Tensor:
    """Each criterion's own advantage, weighed, added, and put on the batch's scale (GDPO, arXiv 2601.05242, eq. 4-6).

    Rewards that are added before they are compared hide each other: (1, 0) and (0, 1) would be one group's equals.
    A part that does not apply to a rollout is NaN; ``known_PG`` says which rollouts have a reward at all.
    """
    apart_KPG = torch.stack([advantage(part_PG.masked_fill(~known_PG, torch.nan)) for part_PG in parts_KPG])
    total_PG = (apart_KPG * weights_K.double()[:, None, None]).sum(0)
    return batch_mean_std(total_PG.masked_fill(~known_PG, torch.nan))


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "group_mean_std": group_mean_std,
    "group_mean": group_mean,
    "leave_one_out": leave_one_out,
    "batch_mean": batch_mean,
    "batch_mean_std": batch_mean_std,
    "group_mean_batch_std": group_mean_batch_std,
}
