"""Named policy objectives, torch-free: one line each. ``docs/objectives.md`` has their equations side by side."""

from __future__ import annotations

from seekling.learn.config import Critic, Objective

REINFORCE = Objective(advantage="batch_mean", clip="none", weighting="per_token")
"""Williams 1992 with the batch's mean as baseline; one update per batch of rollouts."""

GRPO = Objective(advantage="group_mean_std", weighting="per_rollout", kl="k3", beta=0.04)
"""As published (arXiv 2402.03300, eq. 3 and 4; beta from its section 4.2)."""

R1 = Objective(
    advantage="group_mean_std", clip_low=1.0, clip_high=10.0, weighting="per_rollout", kl="k3", beta=0.001
)  # fmt: skip
"""GRPO with DeepSeek-R1's settings: a clip of 10 (below, no ratio is less than 0), beta 0.001 (Nature 645, methods)."""

DR_GRPO = Objective(advantage="group_mean", weighting="constant")
"""GRPO without its two biases: no division by the group's spread nor by a rollout's length (arXiv 2503.20783)."""

RLOO = Objective(advantage="leave_one_out", clip="none", weighting="whole", kl="k1", kl_in="reward", beta=0.05)
"""Leave-one-out baselines, the KL in the reward, a whole rollout as one action (arXiv 2402.14740)."""

REINFORCE_PP = Objective(advantage="batch_mean_std", weighting="per_token", kl="k1", kl_in="reward", beta=0.01)
"""Rewards normalised over the batch, PPO's clip, no critic (REINFORCE++, arXiv 2501.03262)."""

DAPO = Objective(advantage="group_mean_std", clip_low=0.2, clip_high=0.28, weighting="per_token")
"""Clip-higher, every token alike, no KL (arXiv 2503.14476). Its sampling is the stage's: refill, cut_off, overlong."""

GSPO = Objective(
    advantage="group_mean_std", ratio="sequence", clip_low=3e-4, clip_high=4e-4, weighting="per_rollout"
)  # fmt: skip
"""The ratio of whole rollouts, within a narrow clip (arXiv 2507.18071, section 5.1)."""

CISPO = Objective(advantage="group_mean_std", clip="cispo", clip_low=1.0, clip_high=4.0, weighting="per_token")
"""A clipped weight on every token's gradient, at most 5 (arXiv 2506.13585; the cap is ScaleRL's, 2510.13786)."""

PPO = Objective(
    advantage="gae", weighting="per_token", kl="k1", kl_in="reward", beta=0.01, critic=Critic(lam=0.95)
)  # fmt: skip
"""A value head and generalised advantages (arXiv 1707.06347); the KL as a reward of every token (2203.02155)."""

OBJECTIVES: dict[str, Objective] = {
    "reinforce": REINFORCE,
    "grpo": GRPO,
    "r1": R1,
    "dr_grpo": DR_GRPO,
    "rloo": RLOO,
    "reinforce++": REINFORCE_PP,
    "dapo": DAPO,
    "gspo": GSPO,
    "cispo": CISPO,
    "ppo": PPO,
}
