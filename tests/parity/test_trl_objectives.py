"""Our objectives against TRL's own, loss and gradient: numbers it gave on fixed tensors.

Where its meaning differs, the difference is shown: CISPO's cap, its entropy bonus, what its weights add to a spread.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seekling.learn.config import Objective
from seekling.learn.objective import Said, policy_loss, token_weights

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors/trl-objectives.json").read_text())
OURS = {
    "grpo": Objective(weighting="per_rollout", kl="k3", beta=0.04),
    "grpo two-sided": Objective(weighting="per_rollout", ratio_max=1.5),
    "grpo weighted kl": Objective(weighting="per_rollout", kl="k3_weighted", beta=0.1),
    "bnpo": Objective(weighting="per_token"),
    "dr_grpo": Objective(weighting="constant"),
    "dapo": Objective(weighting="per_token", clip_high=0.28),
    "dapo entropy": Objective(weighting="per_token", clip_high=0.28, entropy=0.02),
    "gspo": Objective(ratio="sequence", weighting="per_rollout", clip_low=3e-4, clip_high=4e-4),
    "luspo": Objective(ratio="sequence", weighting="whole"),
    "cispo": Objective(clip="cispo", clip_low=1.0, clip_high=0.2, weighting="per_token"),
    "sapo": Objective(clip="soft", weighting="per_rollout"),
    "vespo": Objective(clip="gamma", weighting="per_token"),
    "corrected": Objective(weighting="per_rollout", kl="k3", beta=0.04, correction="token", correction_max=1.1),
    "off-policy mask": Objective(weighting="per_rollout", stale_max=0.05),
}


def tensor(name: str) -> Tensor:
    return torch.tensor(VECTORS[name], dtype=torch.float64)


def ours(objective: Objective) -> tuple[float, Tensor]:
    lengths_R = torch.tensor(VECTORS["lengths"])
    new_RT = tensor("new").requires_grad_()
    real_RT = torch.arange(new_RT.shape[1]) < lengths_R[:, None]
    weight_R = token_weights(lengths_R, objective.weighting, VECTORS["max_tokens"])
    said = Said(
        new_RT, tensor("old"), tensor("behaviour"), tensor("reference"), tensor("advantages")[:, None] * real_RT,
        weight_R[:, None] * real_RT, real_RT.long(), tensor("entropies"),
    )  # fmt: skip
    loss = policy_loss(said, objective)
    return loss.item(), torch.autograd.grad(loss, new_RT)[0]


def test_every_loss_of_trl_is_asked() -> None:
    assert set(OURS) == set(VECTORS["losses"]) and VECTORS["trl"] == "1.16.0"


@pytest.mark.parametrize("name", OURS)
def test_loss_and_gradient_equal_trls(name: str) -> None:
    loss, grad = ours(OURS[name])
    told = VECTORS["losses"][name]
    assert loss == pytest.approx(told["loss"], rel=1e-6, abs=1e-9)
    torch.testing.assert_close(grad, torch.tensor(told["grad"], dtype=torch.float64), rtol=1e-6, atol=1e-9)


def test_trls_cap_of_cispo_is_of_the_ratio_itself_and_ours_of_what_it_is_above_one() -> None:
    """epsilon_high = 1.2 there is clip_high = 0.2 here; taken as ours it would let ratios count up to 2.2."""
    told = VECTORS["losses"]["cispo"]["loss"]
    assert ours(OURS["cispo"].model_copy(update={"clip_high": 1.2}))[0] != pytest.approx(told, rel=1e-3)


def test_trls_entropy_bonus_is_a_mean_over_tokens_and_ours_is_weighed_like_all_else() -> None:
    """Equal where every token counts alike; per rollout ours gives each rollout the same bonus, as the gain does."""
    entropy_RT, lengths_R = tensor("entropies"), torch.tensor(VECTORS["lengths"])
    with_, without = (ours(Objective(weighting="per_rollout", entropy=e))[0] for e in (0.02, 0.0))
    per_rollout = (entropy_RT.sum(1) / lengths_R).mean()
    assert without - with_ == pytest.approx(0.02 * float(per_rollout))
    assert float(per_rollout) != pytest.approx(float(entropy_RT.sum() / lengths_R.sum()), rel=1e-3)
