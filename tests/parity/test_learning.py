"""Losses against loops written from the papers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from seekling.learn.advantage import ADVANTAGES
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.config import Objective
from seekling.learn.objective import KL, policy_loss, token_weights
from seekling.learn.presets import OBJECTIVES
from seekling.learn.update import text_loss, token_logps, two_ahead
from seekling.model.decoder import Decoder
from tests.oracles import learning as oracle
from tests.oracles import moe as moe_oracle
from tests.oracles.learning import Said
from tests.oracles.tiny import SHAPES, V, build, text

MAX_TOKENS = 12


def rollouts(seed: int, *, apart: float) -> list[list[Said]]:
    """Three groups of four, lengths 1-7; policies ``apart`` nats from each other; one reward left open."""
    rng = np.random.default_rng(seed)
    groups = []
    for number in range(3):
        group = []
        for place in range(4):
            new = -rng.exponential(1.5, rng.integers(1, 8))
            old, reference = new + apart * rng.normal(size=len(new)), new + apart * rng.normal(size=len(new))
            reward = None if (number, place) == (1, 2) else float(rng.integers(0, 3))
            group.append(Said(new.tolist(), old.tolist(), reference.tolist(), reward))
        groups.append(group)
    return groups


def our_loss(groups: list[list[Said]], objective: Objective) -> torch.Tensor:
    """Rewards to advantages to token weights to loss, flat over all tokens, as the recipe does it."""
    rewards = [[math.nan if s.reward is None else s.reward for s in group] for group in groups]
    advantage_R = torch.cat([ADVANTAGES[objective.advantage](torch.tensor(r, dtype=torch.float64)) for r in rewards])
    said = [s for group in groups for s in group]
    lengths_R = torch.tensor([len(s.new) for s in said])
    weight_R = token_weights(lengths_R, objective.weighting, MAX_TOKENS)
    logps = [torch.tensor([x for s in said for x in getattr(s, who)], dtype=torch.float64)
             for who in ("new", "old", "reference")]  # fmt: skip
    per_token = [x.repeat_interleave(lengths_R) for x in (advantage_R, weight_R)]
    return policy_loss(logps[0], logps[1], *per_token, objective, logps[2])


@pytest.mark.parametrize("apart", [0.0, 0.1, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_grpo_is_the_papers_equation(seed: int, apart: float) -> None:
    groups, objective = rollouts(seed, apart=apart), OBJECTIVES["grpo"]
    slow = oracle.grpo_loss(groups, low=objective.clip_low, high=objective.clip_high, beta=objective.beta)
    assert our_loss(groups, objective).item() == pytest.approx(slow, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("apart", [0.0, 0.1, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_dr_grpo_is_the_papers_equation(seed: int, apart: float) -> None:
    groups, objective = rollouts(seed, apart=apart), OBJECTIVES["dr_grpo"]
    slow = oracle.dr_grpo_loss(groups, low=objective.clip_low, high=objective.clip_high, max_tokens=MAX_TOKENS)
    assert our_loss(groups, objective).item() == pytest.approx(slow, rel=1e-9, abs=1e-12)


def test_the_clip_bounds_are_each_on_their_own_side() -> None:
    groups, objective = rollouts(5, apart=0.5), replace_objective(clip_low=0.1, clip_high=0.4)
    slow = oracle.grpo_loss(groups, low=0.1, high=0.4, beta=objective.beta)
    swapped = oracle.grpo_loss(groups, low=0.4, high=0.1, beta=objective.beta)
    assert our_loss(groups, objective).item() == pytest.approx(slow, rel=1e-9) != pytest.approx(swapped, rel=1e-3)


def replace_objective(**changes: float) -> Objective:
    return OBJECTIVES["grpo"].model_copy(update=changes)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimates_are_schulmans(kind: str) -> None:
    new, reference = [-0.1, -2.0, -5.0, -1.0], [-0.5, -1.0, -5.0, -1.00001]
    mine = KL[kind](torch.tensor(new, dtype=torch.float64) - torch.tensor(reference, dtype=torch.float64))
    slow = [getattr(oracle, kind)(n, r) for n, r in zip(new, reference, strict=True)]
    np.testing.assert_allclose(mine, slow, rtol=1e-6, atol=1e-12)


def test_on_policy_the_gradient_is_reinforce_with_a_group_baseline() -> None:
    """With ratio 1: d loss / d logp = -A w, and k3 to the same policy pulls nowhere."""
    groups = rollouts(2, apart=0.0)
    objective, said = OBJECTIVES["grpo"], [s for group in groups for s in group]
    logp = torch.tensor([x for s in said for x in s.new], dtype=torch.float64, requires_grad=True)
    advantage = torch.linspace(-1, 1, len(logp), dtype=torch.float64)
    weight = torch.full_like(advantage, 0.01)
    policy_loss(logp, logp.detach(), advantage, weight, objective, logp.detach()).backward()
    torch.testing.assert_close(logp.grad, -advantage * weight)


def learned(lengths: list[int]) -> Batch:
    """Texts of these lengths in rows of 12, random weights (the first token's has nothing to predict it)."""
    rng = np.random.default_rng(0)
    texts = [Text(text(n, n), rng.random(n).astype(np.float32)) for n in lengths]
    return pack(texts, 12)


def slow_text_loss(batch: Batch, logits_BTV: torch.Tensor, ahead: int) -> float:
    """Cross-entropy of the token ``ahead`` within the same text, weighted by that token's own weight."""
    rows, total = batch.rows, 0.0
    for b in range(len(rows.tokens_BT)):
        for t in range(rows.tokens_BT.shape[1] - ahead):
            same = rows.segments_BT[b, t] == rows.segments_BT[b, t + ahead] != 0
            if same:
                weight = batch.weight_BT[b, t + ahead - 1].item()
                total += weight * oracle.cross_entropy(logits_BTV[b, t].tolist(), int(rows.tokens_BT[b, t + ahead]))
    return total


@pytest.fixture(scope="module")
def model() -> Decoder:
    return build(SHAPES["v3"])


def test_text_loss_is_the_weighted_cross_entropy_of_the_next_token(model: Decoder) -> None:
    batch = learned([5, 12, 7, 4, 3])
    with torch.no_grad():
        slow = slow_text_loss(batch, model.logits(model(batch.rows).states_BTD), 1)
        assert text_loss(model, batch).value.item() == pytest.approx(slow, rel=1e-5)


def test_the_next_token_module_is_judged_by_the_token_two_ahead_within_its_text(model: Decoder) -> None:
    batch = learned([5, 12, 7, 4, 3, 2, 1])
    with torch.no_grad():
        ahead, _ = model.predict_next(batch.rows, model(batch.rows).states_BTD)
        slow = slow_text_loss(batch, model.logits(ahead), 2)
        plain, both = text_loss(model, batch), text_loss(model, batch, mtp_weight=0.3)
    assert both.sums["mtp_loss"].item() == pytest.approx(slow, rel=1e-5)
    assert both.value.item() == pytest.approx(plain.value.item() + 0.3 * slow, rel=1e-5)


def test_two_ahead_never_crosses_a_texts_end() -> None:
    batch = learned([5, 7, 12, 4, 4, 4, 3, 2, 1])
    targets_BT, weight_BT = two_ahead(batch)
    rows = batch.rows
    for b, t in np.argwhere(weight_BT.numpy() > 0):
        assert rows.segments_BT[b, t] == rows.segments_BT[b, t + 2] != 0
        assert targets_BT[b, t] == rows.tokens_BT[b, t + 2]
    lengths = [int((segments == s).sum()) for segments in rows.segments_BT for s in set(segments.tolist()) - {0}]
    assert int((weight_BT > 0).sum()) == sum(max(0, n - 2) for n in lengths)


def test_balance_is_the_mean_over_rows_and_layers_of_the_papers_sequence_loss(model: Decoder) -> None:
    batch = learned([5, 12, 9])
    with torch.no_grad():
        hidden = model(batch.rows)
        states, routing = model.predict_next(batch.rows, hidden.states_BTD)
        loss = text_loss(model, batch, mtp_weight=0.3, balance_weight=0.5, num_rows=len(batch.targets_BT))
        without = text_loss(model, batch, mtp_weight=0.3)
    assert routing is not None and states.shape == hidden.states_BTD.shape
    real = batch.rows.segments_BT > 0
    per_row = [
        moe_oracle.balance_loss(r.scores_NE.view(*real.shape, -1)[b][real[b]].double().numpy(), r.chosen_NA.shape[1])
        for r in (*hidden.routings, routing)
        for b in range(len(real))
    ]
    assert loss.sums["balance_loss"].item() == pytest.approx(np.mean(per_row), rel=1e-5)
    assert loss.value.item() == pytest.approx(without.value.item() + 0.5 * np.mean(per_row), rel=1e-5)


def test_loads_count_every_real_token_once_per_active_expert(model: Decoder) -> None:
    batch = learned([5, 12, 9])
    with torch.no_grad():
        sums = text_loss(model, batch, mtp_weight=0.3).sums
    for layer in range(len(model.routers())):
        loads = [float(sums[f"load/{layer}/{expert}"]) for expert in range(6)]
        assert sum(loads) == 2 * batch.num_tokens


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_token_logps_and_entropies_are_those_of_the_tempered_distribution(model: Decoder, temperature: float) -> None:
    batch = learned([6])
    with torch.no_grad():
        hidden = model(batch.rows)
        logps, entropies = token_logps(model, hidden, batch.targets_BT, temperature)
        logits = (model.logits(hidden.states_BTD)[0] / temperature).tolist()
    for t in range(5):
        assert logps[0, t].item() == pytest.approx(
            -oracle.cross_entropy(logits[t], int(batch.targets_BT[0, t])), abs=1e-5
        )
        assert entropies[0, t].item() == pytest.approx(oracle.entropy(logits[t]), abs=1e-5)
    assert len(logits[0]) == V


def test_a_named_objective_differs_from_another_only_in_its_parts() -> None:
    grpo, dr = OBJECTIVES["grpo"], OBJECTIVES["dr_grpo"]
    assert (grpo.advantage, grpo.weighting, grpo.kl, grpo.beta) == ("group_mean_std", "per_rollout", "k3", 0.04)
    assert (dr.advantage, dr.weighting, dr.kl, dr.beta) == ("group_mean", "constant", "none", 0.0)
    one = [replace(said, reward=1.0) for said in rollouts(0, apart=0.5)[0]]
    assert our_loss([one], dr).item() == 0.0, "a group that all got right teaches nothing"
