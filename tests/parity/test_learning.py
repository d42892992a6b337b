"""Losses against loops written from the papers."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from seekling.learn.advantage import ADVANTAGES
from seekling.learn.ahead import two_ahead
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.config import Objective
from seekling.learn.objective import KL, policy_loss, token_weights
from seekling.learn.objective import Said as Tokens
from seekling.learn.presets import OBJECTIVES
from seekling.learn.update import text_loss, token_logps
from seekling.model.decoder import Decoder
from tests.oracles import learning as oracle
from tests.oracles import moe as moe_oracle
from tests.oracles.learning import Said, Told
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
    """Rewards to advantages to token weights to loss, as the recipe does it; a rollout is a row."""
    rewards = [[math.nan if s.reward is None else s.reward for s in group] for group in groups]
    advantage_R = ADVANTAGES[objective.advantage](torch.tensor(rewards, dtype=torch.float64)).flatten()
    said = [s for group in groups for s in group]
    return loss_of([Told(s.new, s.old, s.old, s.reference, float(a)) for s, a in zip(said, advantage_R, strict=True)],
                   objective)  # fmt: skip


def loss_of(told: list[Told], objective: Objective) -> torch.Tensor:
    """The objective on rollouts padded to one length, a row each; ``new`` may be learned through ``.grad`` of it."""
    return policy_loss(in_rows(told, objective), objective)


def in_rows(told: list[Told], objective: Objective) -> Tokens:
    lengths_R = torch.tensor([len(one.new) for one in told])
    weight_R = token_weights(lengths_R, objective.weighting, MAX_TOKENS)
    real_RT = torch.arange(int(lengths_R.max())) < lengths_R[:, None]

    def padded(name: str) -> torch.Tensor:
        rows = [torch.tensor(getattr(one, name), dtype=torch.float64) for one in told]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    advantage_RT = torch.tensor([one.advantage for one in told], dtype=torch.float64)[:, None] * real_RT
    logps = [padded(name) for name in ("new", "old", "behaviour", "reference")]
    return Tokens(*logps, advantage_RT, weight_R[:, None] * real_RT, real_RT.long(), torch.zeros_like(logps[0]))


OTHERS = {
    "reinforce": oracle.reinforce_loss,
    "rloo": oracle.whole_loss,
    "dapo": partial(oracle.dapo_loss, low=0.2, high=0.28),
    "reinforce++": partial(oracle.dapo_loss, low=0.2, high=0.2),
    "gspo": partial(oracle.gspo_loss, low=3e-4, high=4e-4),
    "cispo": partial(oracle.cispo_loss, cap=5.0),
    "sapo": oracle.sapo_loss,
    "vespo": oracle.vespo_loss,
}
NAMED = OBJECTIVES | {
    "sapo": Objective(clip="soft", weighting="per_rollout"),
    "vespo": Objective(clip="gamma", weighting="per_token"),
}


def told(seed: int, *, apart: float) -> list[Told]:
    """Twelve rollouts with advantages of either sign; the sampler is the old policy, or ``apart`` from it too."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(12):
        new = -rng.exponential(1.5, rng.integers(1, 8))
        others = [new + apart * rng.normal(size=len(new)) for _ in range(3)]
        found.append(Told(new.tolist(), *(o.tolist() for o in others), float(rng.normal())))
    return found


@pytest.mark.parametrize("apart", [0.0, 1e-4, 0.1, 0.8])
@pytest.mark.parametrize("name", OTHERS)
def test_every_named_objective_is_its_papers_equation(name: str, apart: float) -> None:
    for seed in range(3):
        rollouts = told(seed, apart=apart)
        assert float(loss_of(rollouts, NAMED[name])) == pytest.approx(OTHERS[name](rollouts), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", ["token", "sequence", "token_mask", "sequence_mask"])
def test_a_correction_weighs_the_gain_by_what_the_sampler_missed(kind: str) -> None:
    rollouts, objective = (
        told(4, apart=0.5),
        Objective(clip="none", correction=kind, correction_max=1.5, weighting="per_token"),
    )  # type: ignore[arg-type]
    terms = [
        w * one.advantage * math.exp(n - o)
        for one in rollouts
        for w, n, o in zip(oracle.corrections(one, kind, 1.5), one.new, one.old, strict=True)
    ]
    assert float(loss_of(rollouts, objective)) == pytest.approx(-float(np.mean(terms)), rel=1e-9)


def test_a_bad_rollout_that_the_policy_left_behind_is_left_out_and_a_good_one_is_not() -> None:
    far = [Told([-3.0, -3.0], [-3.0, -3.0], [-1.0, -1.0], [0.0, 0.0], advantage) for advantage in (1.0, -1.0)]
    objective = Objective(clip="none", weighting="per_token")
    gains = [float(loss_of([one], objective.model_copy(update={"stale_max": 0.5}))) for one in far]
    assert gains == [-1.0, 0.0]
    assert [float(loss_of([one], objective.model_copy(update={"stale_max": 2.5}))) for one in far] == [-1.0, 1.0]


def test_r1_is_grpo_with_a_clip_of_ten_and_a_light_hand() -> None:
    rollouts_ = rollouts(1, apart=0.8)
    slow = oracle.grpo_loss(rollouts_, low=1.0, high=10.0, beta=0.001)
    assert our_loss(rollouts_, OBJECTIVES["r1"]).item() == pytest.approx(slow, rel=1e-9)


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


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "reinforce", "reinforce++", "dapo", "gspo", "cispo"])
def test_on_policy_the_gradient_is_reinforce_with_a_baseline(name: str) -> None:
    """With ratio 1: d loss / d logp = -A w, and k3 to the same policy pulls nowhere. CISPO's weight is 1 then."""
    tokens = in_rows([replace(one, old=one.new, behaviour=one.new, reference=one.new) for one in told(2, apart=0.5)],
                     OBJECTIVES[name])  # fmt: skip
    logp = tokens.logp.clone().requires_grad_()
    policy_loss(replace(tokens, logp=logp), OBJECTIVES[name]).backward()
    torch.testing.assert_close(logp.grad, -tokens.advantage * tokens.weight)


@pytest.mark.parametrize("name", ["cispo", "vespo"])
def test_a_fixed_weight_lets_every_token_keep_its_gradient(name: str) -> None:
    tokens = in_rows(told(5, apart=0.3), NAMED[name])
    logp = tokens.logp.clone().requires_grad_()
    policy_loss(replace(tokens, logp=logp), NAMED[name]).backward()
    assert logp.grad is not None and bool((logp.grad != 0)[tokens.weight > 0].all())


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
