"""What PPO needs of a critic: advantages from values, the critic's own loss, rewards at their places. Tensors only.

Ragged rollouts are padded, [R, T], with a mask that is true where the policy spoke. What it did not say (padding, or a
tool's words in between) has no reward and no advantage, and is stepped over as if it were not there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from seekling.learn.advantage import over_std


def padded(rows: Sequence[Tensor]) -> Tensor:
    """Ragged rows of numbers (or of truths), side by side: [R, T], zero (or false) behind a row's end."""
    return pad_sequence(list(rows), batch_first=True)


def token_rewards(reward_R: Tensor, penalty_RT: Tensor, mask_RT: Tensor) -> Tensor:
    """A reward for every token: minus its penalty, and at a rollout's last token its reward too: float64 [R, T].

    r_t = -beta kl_t + [t is last] r (arXiv 2203.02155, eq. 2, token by token). An open reward (NaN) pays nothing.
    """
    is_last_RT = mask_RT & (mask_RT.cumsum(1) == mask_RT.sum(1, keepdim=True))
    return is_last_RT * reward_R.double().nan_to_num(0.0).unsqueeze(1) - mask_RT * penalty_RT.double()


def gae(rewards_RT: Tensor, values_RT: Tensor, mask_RT: Tensor, gamma: float = 1.0, lam: float = 1.0) -> Tensor:
    """A_t = delta_t + gamma lam A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t (GAE, arXiv 1506.02438, eq. 16).

    ``values`` V_t is what the critic expected before token t was said. Behind the last token there is nothing more to
    expect: its V_{t+1} is 0. Float64 [R, T], 0 where nothing was said. ``values`` is never a path of the gradient.
    """
    rewards_RT, values_RT = rewards_RT.double(), values_RT.detach().double()
    ahead_R, value_R = (torch.zeros_like(rewards_RT[:, 0]) for _ in range(2))
    advantages = []
    for t in reversed(range(rewards_RT.shape[1])):
        said_R = mask_RT[:, t]
        delta_R = rewards_RT[:, t] + gamma * value_R - values_RT[:, t]
        ahead_R = torch.where(said_R, delta_R + gamma * lam * ahead_R, ahead_R)
        value_R = torch.where(said_R, values_RT[:, t], value_R)
        advantages.append(torch.where(said_R, ahead_R, 0.0))
    return torch.stack(advantages[::-1], 1)


def returns_of(advantages_RT: Tensor, values_RT: Tensor, mask_RT: Tensor) -> Tensor:
    """What the critic should have said: A_t + V_t, the lambda-return, float64 [R, T]; 0 where nothing was said."""
    return (advantages_RT.double() + values_RT.detach().double()) * mask_RT


def whitened(value_RT: Tensor, mask_RT: Tensor) -> Tensor:
    """Shifted and scaled over all that was said to mean 0 and sample standard deviation 1: float64; 0 elsewhere.

    Where all are alike nothing is left to learn from: 0.
    """
    value_RT = value_RT.double()
    mean = (value_RT * mask_RT).sum() / mask_RT.sum().clamp_min(1)
    return over_std((value_RT - mean) * mask_RT, mask_RT)


def value_loss(value: Tensor, old: Tensor, target: Tensor, weight: Tensor, clip: float = 0.0) -> Tensor:
    """sum_t weight_t max((V - R)^2, (clip(V, old +- c) - R)^2) / 2: a plain sum over tokens of any layout.

    A value that has moved by more than ``clip`` since the rollouts were drawn, the right way, has no gradient left
    (PPO2 of OpenAI baselines). ``clip`` 0: none.
    """
    squares = (value - target).square()
    if clip:
        squares = torch.maximum(squares, (old + (value - old).clamp(-clip, clip) - target).square())
    return (squares * weight).sum() / 2
