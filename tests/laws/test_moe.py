"""Laws of routing: what the bias may do, and where its rule leads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seekling.model.moe import Routing, balance_losses, choose_experts, expert_load, expert_weights, move_bias
from tests.oracles import moe as oracle

settings.register_profile("laws", deadline=None)  # a busy machine is no broken law
settings.load_profile("laws")


@st.composite
def routers(draw: Any) -> tuple[Tensor, Tensor, int, int, int]:
    """Scores, bias, experts per token, groups, groups kept: all that fit together."""
    groups = draw(st.integers(1, 4))
    size = draw(st.integers(1, 4))
    kept = draw(st.integers(1, groups))
    top_k = draw(st.integers(1, kept * size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = rng.random((draw(st.integers(1, 8)), groups * size))
    bias = draw(st.sampled_from([0.0, 0.5, 3.0])) * (rng.random(groups * size) * 2 - draw(st.integers(0, 2)))
    return torch.tensor(scores), torch.tensor(bias), top_k, groups, kept


@given(routers())
def test_routing_equals_the_papers_loops(router: tuple[Tensor, Tensor, int, int, int]) -> None:
    scores_NE, bias_E, top_k, groups, kept = router
    chosen_NA = choose_experts(scores_NE, bias_E, top_k=top_k, num_groups=groups, top_groups=kept)
    for scores, chosen in zip(scores_NE.tolist(), chosen_NA.tolist(), strict=True):
        assert len(set(chosen)) == top_k
        assert set(chosen) == oracle.route(scores, bias_E.tolist(), top_k, groups, kept)


@given(routers(), st.booleans(), st.sampled_from([1.0, 2.5]))
def test_gates_come_from_unbiased_scores(
    router: tuple[Tensor, Tensor, int, int, int], normalise: bool, scale: float
) -> None:
    """The bias chooses, but never weighs."""
    scores_NE, bias_E, top_k, groups, kept = router
    chosen_NA = choose_experts(scores_NE, bias_E, top_k=top_k, num_groups=groups, top_groups=kept)
    weights_NA = expert_weights(scores_NE, chosen_NA, normalise=normalise, scale=scale)
    for scores, chosen, weights in zip(scores_NE.tolist(), chosen_NA.tolist(), weights_NA.tolist(), strict=True):
        slow = oracle.gates(scores, set(chosen), normalise=normalise, scale=scale)
        np.testing.assert_allclose(weights, [slow[e] for e in chosen], rtol=1e-9)
    if normalise:
        np.testing.assert_allclose(weights_NA.sum(1), scale)


@given(routers(), st.floats(-2, 2))
def test_an_equal_bias_for_all_changes_no_route(router: tuple[Tensor, Tensor, int, int, int], shift: float) -> None:
    scores_NE, bias_E, top_k, _, _ = router
    routes = [choose_experts(scores_NE, bias, top_k=top_k).sort(-1).values for bias in (bias_E, bias_E + shift)]
    assert torch.equal(*routes)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.floats(1e-4, 0.1))
def test_the_rule_moves_each_bias_by_one_step_towards_balance(load: list[int], speed: float) -> None:
    bias = [0.01 * i for i in range(len(load))]
    moved = move_bias(torch.tensor(bias, dtype=torch.float64), torch.tensor(load, dtype=torch.float64), speed)
    np.testing.assert_allclose(moved, oracle.move_bias(bias, load, speed), atol=1e-12)


def test_the_bias_rule_leads_a_lopsided_router_to_balance() -> None:
    """Two of eight experts are liked by all; the rule spreads the tokens without touching a score."""
    g = torch.Generator().manual_seed(0)
    scores_NE = (torch.randn(512, 8, generator=g) * 0.5 + torch.tensor([2.0, 1.5, 0, 0, 0, 0, 0, -1.5])).sigmoid()
    bias_E = torch.zeros(8)

    def busiest(bias_E: Tensor) -> float:
        return float(expert_load(choose_experts(scores_NE, bias_E, top_k=2), 8).max()) / (512 * 2 / 8)

    at_first = busiest(bias_E)
    for _ in range(200):
        bias_E = move_bias(bias_E, expert_load(choose_experts(scores_NE, bias_E, top_k=2), 8), 0.01)
    assert at_first > 3 and busiest(bias_E) < 1.25


@given(routers(), st.data())
def test_loads_count_what_is_sent_and_leave_padding_out(
    router: tuple[Tensor, Tensor, int, int, int], data: Any
) -> None:
    scores_NE, bias_E, top_k, groups, kept = router
    chosen_NA = choose_experts(scores_NE, bias_E, top_k=top_k, num_groups=groups, top_groups=kept)
    real = data.draw(st.lists(st.booleans(), min_size=len(scores_NE), max_size=len(scores_NE)))
    load = expert_load(chosen_NA, scores_NE.shape[1], torch.tensor(real))
    sent = [e for row, counts in zip(chosen_NA.tolist(), real, strict=True) if counts for e in row]
    assert load.tolist() == [sent.count(e) for e in range(scores_NE.shape[1])]


def test_the_balance_loss_is_one_when_balanced_and_grows_with_the_skew() -> None:
    def loss(scores_TE: Tensor) -> float:
        row_N, weight_N = torch.zeros(len(scores_TE), dtype=torch.long), torch.ones(len(scores_TE))
        chosen_NA = scores_TE.topk(1, -1).indices
        return float(balance_losses(Routing(chosen_NA, scores_TE), weight_N, row_N, 1))

    even = torch.full((4, 4), 0.2) + 0.6 * torch.eye(4)
    assert abs(loss(even) - 1) < 1e-6
    skewed = torch.tensor([[0.8, 0.2, 0.2, 0.2]] * 4)
    assert loss(skewed) > 2


def test_the_balance_loss_pushes_down_the_busy_experts_score() -> None:
    scores_TE = torch.tensor([[0.8, 0.2, 0.2, 0.2]] * 4, requires_grad=True)
    routing = Routing(scores_TE.topk(1, -1).indices, scores_TE)
    balance_losses(routing, torch.ones(4), torch.zeros(4, dtype=torch.long), 1).sum().backward()
    assert scores_TE.grad is not None
    assert (scores_TE.grad[:, 0] > 0).all() and (scores_TE.grad[:, 1:] < 0).all()
