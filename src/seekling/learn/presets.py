"""Named policy objectives, torch-free: one line each."""

from __future__ import annotations

from seekling.learn.config import Objective

GRPO = Objective(advantage="group_mean_std", weighting="per_rollout", kl="k3", beta=0.04)
"""As published (arXiv 2402.03300, eq. 3 and 4; beta from its section 4.2)."""

DR_GRPO = Objective(advantage="group_mean", weighting="constant")
"""GRPO without its two biases: no division by the group's spread nor by a rollout's length (arXiv 2503.20783)."""

OBJECTIVES: dict[str, Objective] = {"grpo": GRPO, "dr_grpo": DR_GRPO}
