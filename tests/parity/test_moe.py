"""Experts against loops written from the paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seekling.model.config import ModelConfig
from seekling.model.moe import DeepSeekMoE, Routing, balance_losses, choose_experts, run_experts
from tests.oracles import moe as oracle
from tests.oracles.tiny import EXPERTS, build


@dataclass(frozen=True)
class Stacked:
    """Random experts, and the tokens and gates sent to them."""

    x_ND: Tensor
    weights_NA: Tensor
    gate_up_EFD: Tensor
    down_EDF: Tensor


def stacked(tokens: int, experts: int, active: int, width: int, hidden: int, dtype: torch.dtype) -> Stacked:
    g = torch.Generator().manual_seed(tokens)
    shapes = ((tokens, width), (tokens, active), (experts, 2 * hidden, width), (experts, width, hidden))
    return Stacked(*(torch.randn(shape, generator=g, dtype=dtype) for shape in shapes))


def looped(s: Stacked, chosen_NA: Tensor) -> Tensor:
    rows = []
    for x, chosen, weights in zip(s.x_ND, chosen_NA.tolist(), s.weights_NA, strict=True):
        y = torch.zeros_like(x)
        for e, weight in zip(chosen, weights, strict=True):
            gate, up = (s.gate_up_EFD[e] @ x).chunk(2)
            y = y + weight * (s.down_EDF[e] @ (F.silu(gate) * up))
        rows.append(y)
    return torch.stack(rows)


LOADS = {
    "spread": lambda n: [[i % 5, (i + 2) % 5] for i in range(n)],
    "one expert gets nothing": lambda n: [[i % 4, (i + 1) % 4] for i in range(n)],
    "one expert gets one token": lambda n: [[4, 0]] + [[i % 2, 2 + i % 2] for i in range(n - 1)],
    "two experts get all": lambda n: [[3, 1]] * n,
    "the last alone gets all first choices": lambda n: [[4, i % 4] for i in range(n)],
}


@pytest.mark.parametrize("width, hidden", [(16, 8), (7, 5)], ids=["grouped kernel", "odd sizes"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("load", LOADS)
def test_grouped_experts_equal_looped_experts_in_value_and_gradient(
    load: str, dtype: torch.dtype, width: int, hidden: int
) -> None:
    s = stacked(11, 5, 2, width, hidden, dtype)
    chosen_NA = torch.tensor(LOADS[load](11))
    leaves = (s.x_ND, s.weights_NA, s.gate_up_EFD, s.down_EDF)
    for leaf in leaves:
        leaf.requires_grad_()
    grouped = run_experts(s.x_ND, chosen_NA, s.weights_NA, s.gate_up_EFD, s.down_EDF)
    torch.testing.assert_close(grouped, looped(s, chosen_NA), rtol=1e-4, atol=1e-4)
    for mine, slow in zip(
        torch.autograd.grad(grouped.square().sum(), leaves),
        torch.autograd.grad(looped(s, chosen_NA).square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, slow, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tokens", [1, 2])
def test_a_single_token_reaches_its_experts(tokens: int) -> None:
    s = stacked(tokens, 5, 2, 16, 8, torch.float32)
    chosen_NA = torch.tensor([[4, 1]] * tokens)
    out = run_experts(s.x_ND, chosen_NA, s.weights_NA, s.gate_up_EFD, s.down_EDF)
    torch.testing.assert_close(out, looped(s, chosen_NA), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        dict(n_group=3, topk_group=1),
        dict(n_group=2, topk_group=1, num_experts_per_tok=3, norm_topk_prob=False, routed_scaling_factor=2.5),
        dict(n_shared_experts=0, num_experts_per_tok=1),
        dict(n_shared_experts=3, num_experts_per_tok=6),
    ],
    ids=str,
)
def test_a_layer_of_experts_equals_the_papers_loops(changes: dict[str, int]) -> None:
    config = ModelConfig(**EXPERTS | changes)
    layer = build(config, seed=3).blocks[1].mlp
    assert isinstance(layer, DeepSeekMoE)
    x_ND = torch.randn(13, config.hidden_size, generator=torch.Generator().manual_seed(2))
    weights = {name: value.double().numpy() for name, value in layer.state_dict().items()}
    out_ND, _ = layer(x_ND)
    np.testing.assert_allclose(
        out_ND.detach(), oracle.moe(x_ND.double().numpy(), weights, config), rtol=1e-4, atol=1e-5
    )


def test_masked_groups_stay_out_when_every_biased_score_is_negative() -> None:
    """Filling masked groups with 0 instead of -inf would send every token to the groups that lost."""
    g = torch.Generator().manual_seed(0)
    scores_NE, bias_E = torch.rand(64, 12, generator=g), torch.full((12,), -2.0)
    chosen_NA = choose_experts(scores_NE, bias_E, top_k=3, num_groups=4, top_groups=2)
    for scores, chosen in zip(scores_NE.tolist(), chosen_NA.tolist(), strict=True):
        assert set(chosen) == oracle.route(scores, bias_E.tolist(), 3, 4, 2)


def test_the_balance_loss_equals_the_papers_loops_row_by_row() -> None:
    """f counts the best experts by unbiased score (eq. 18), whatever the bias made the router choose."""
    g = torch.Generator().manual_seed(5)
    scores_NE = torch.rand(18, 6, generator=g)
    weight_N = torch.tensor([1.0] * 9 + [1.0] * 4 + [0.0] * 5)
    row_N = torch.arange(2).repeat_interleave(9)
    biased_NA = choose_experts(scores_NE, torch.tensor([0.9, 0, 0, 0, 0, -0.9]), top_k=2)
    losses_R = balance_losses(Routing(biased_NA, scores_NE), weight_N, row_N, 2)
    rows = [scores_NE[:9].double().numpy(), scores_NE[9:13].double().numpy()]
    np.testing.assert_allclose(losses_R, [oracle.balance_loss(row, 2) for row in rows], rtol=1e-5)


def test_bfloat16_rounds_the_experts_and_never_the_routes() -> None:
    config = ModelConfig(**EXPERTS | dict(hidden_size=16, moe_intermediate_size=8, n_routed_experts=4))
    model = build(config)
    moe = next(block.mlp for block in model.blocks if isinstance(block.mlp, DeepSeekMoE))
    x_ND = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    exact_ND, routing = moe(x_ND)
    with torch.autocast("cpu", torch.bfloat16):
        rounded_ND, rounded = moe(x_ND)
    assert torch.equal(rounded.scores_NE, routing.scores_NE) and torch.equal(rounded.chosen_NA, routing.chosen_NA)
    gap = (rounded_ND.float() - exact_ND).norm() / exact_ND.norm()
    assert 0 < gap < 2e-2, "bfloat16 has eight bits: it must have been used, and no more may be lost"
