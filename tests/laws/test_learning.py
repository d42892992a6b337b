"""Laws of advantages and objectives, and the great one: how a step is laid out cannot change its loss or gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seekling.engine.config import Sampling
from seekling.engine.engine import Completion, Engine, Request
from seekling.learn import update
from seekling.learn.advantage import ADVANTAGES, group_mean, group_mean_std, summed
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.config import Objective
from seekling.learn.objective import KL, Said, clipped_surrogate, k1, k2, k3, policy_loss, token_weights
from seekling.learn.presets import OBJECTIVES
from seekling.learn.update import Loss, rollout_loss, text_loss, token_logps
from seekling.model.decoder import Decoder, Hidden
from tests.oracles import learning as oracle
from tests.oracles.tiny import SHAPES, build, text

settings.register_profile("laws", deadline=None)  # a busy machine is no broken law
settings.load_profile("laws")

REWARDS = st.lists(st.sampled_from([0.0, 0.5, 1.0, None]) | st.floats(-10, 10), min_size=1, max_size=12)
EVERY_ADVANTAGE = pytest.mark.parametrize("kind", ADVANTAGES)


def tensor(rewards: Sequence[float | None]) -> Tensor:
    return torch.tensor([math.nan if r is None else r for r in rewards], dtype=torch.float64)


def judge(kind: str, *groups: Sequence[float | None] | Tensor) -> Tensor:
    """Advantages of groups of one size, one after the other."""
    rows = [group if isinstance(group, Tensor) else tensor(group) for group in groups]
    return ADVANTAGES[kind](torch.stack(rows)).flatten()


# advantages


@EVERY_ADVANTAGE
@given(rewards=REWARDS)
def test_advantages_equal_the_papers_loops_and_sum_to_zero(kind: str, rewards: list[float | None]) -> None:
    groups = [rewards, [1.0, *rewards[1:]]]
    mine = judge(kind, *groups)
    spreads = [np.std([r for r in group if r is not None] or [0.0]) for group in groups]
    if all(spread == 0 or spread > 1e-6 for spread in spreads):  # nearer to no spread at all, rounding decides
        slow = [oracle.advantages(group, divide=kind == "group_mean_std") for group in groups]
        slow = slow if kind in ("group_mean", "group_mean_std") else oracle.batch_advantages(groups, kind)
        np.testing.assert_allclose(mine, [a for row in slow for a in row], rtol=1e-6, atol=1e-9)
    assert abs(float(mine.sum())) < 1e-6


@EVERY_ADVANTAGE
@given(rewards=REWARDS, constant=st.integers(-8, 8))
def test_a_constant_added_to_all_rewards_changes_no_advantage(
    kind: str, rewards: list[float | None], constant: int
) -> None:
    known = [round(r * 64) / 64 if r is not None else None for r in rewards]  # sums of these are exact
    before, after = (judge(kind, tensor(known) + by) for by in (0, constant))
    torch.testing.assert_close(before, after, rtol=1e-9, atol=1e-9)


@EVERY_ADVANTAGE
@given(rewards=REWARDS, place=st.integers(0, 12))
def test_an_open_reward_has_no_advantage_and_moves_nobodys_baseline(
    kind: str, rewards: list[float | None], place: int
) -> None:
    place = min(place, len(rewards))
    with_open = judge(kind, [*rewards[:place], None, *rewards[place:]])
    assert with_open[place] == 0
    without = judge(kind, rewards)
    torch.testing.assert_close(torch.cat((with_open[:place], with_open[place + 1 :])), without)


@EVERY_ADVANTAGE
@given(reward=st.floats(-1e6, 1e6), count=st.integers(1, 9), failed=st.integers(0, 3))
def test_a_group_without_spread_teaches_nothing(kind: str, reward: float, count: int, failed: int) -> None:
    advantage = judge(kind, [reward] * count + [None] * failed)
    assert advantage.abs().max() < 1e-9 * max(1, abs(reward))


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=12), st.sampled_from([0.25, 3.0]))
def test_division_by_the_spread_forgets_the_scale_of_rewards(rewards: list[float], scale: float) -> None:
    torch.testing.assert_close(group_mean_std(tensor(rewards)), group_mean_std(tensor(rewards) * scale))
    torch.testing.assert_close(group_mean(tensor(rewards)) * scale, group_mean(tensor(rewards) * scale))


# objectives


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_token_weights_sum_as_their_names_say(lengths: list[int]) -> None:
    count, total = torch.tensor(lengths), float(sum(lengths))
    sums = {kind: float((token_weights(count, kind, 64) * count).sum()) for kind in
            ("per_rollout", "per_token", "constant", "whole")}  # fmt: skip
    assert sums["per_rollout"] == pytest.approx(1) and sums["per_token"] == pytest.approx(1)
    assert sums["constant"] == pytest.approx(total / (64 * len(lengths)))
    assert sums["whole"] == pytest.approx(total / len(lengths))
    assert len(set(token_weights(count, "per_token", 64).tolist())) == 1
    per_rollout = token_weights(count, "per_rollout", 64) * count
    torch.testing.assert_close(per_rollout, torch.full_like(per_rollout, 1 / len(lengths)))


@pytest.mark.parametrize(
    "ratio, advantage, moves",
    [
        (1.5, +1.0, False),  # already likelier than 1 + high: no more push up
        (1.5, -1.0, True),  # too likely and bad: push down all the same
        (0.5, +1.0, True),  # unlikely and good: pull it up
        (0.5, -1.0, False),  # already unlikelier than 1 - low: no more push down
        (1.05, +1.0, True),
        (0.95, -1.0, True),
    ],
)
def test_the_clip_stops_only_what_has_gone_far_enough(ratio: float, advantage: float, moves: bool) -> None:
    r = torch.tensor(ratio, requires_grad=True)
    clipped_surrogate(r, torch.tensor(advantage), 0.2, 0.3).backward()
    assert r.grad == (advantage if moves else 0)


@pytest.mark.parametrize("ratio, moves", [(1.25, True), (1.35, False)])
def test_the_upper_bound_is_the_high_one(ratio: float, moves: bool) -> None:
    r = torch.tensor(ratio, requires_grad=True)
    clipped_surrogate(r, torch.tensor(1.0), 0.2, 0.3).backward()
    assert bool(r.grad) == moves


@pytest.mark.parametrize("ratio, moves", [(0.75, False), (0.85, True)])
def test_the_lower_bound_is_the_low_one(ratio: float, moves: bool) -> None:
    r = torch.tensor(ratio, requires_grad=True)
    clipped_surrogate(r, torch.tensor(-1.0), 0.2, 0.3).backward()
    assert bool(r.grad) == moves


@given(st.floats(0.01, 4), st.floats(-3, 3))
def test_the_surrogate_never_exceeds_the_plain_one(ratio: float, advantage: float) -> None:
    mine = float(clipped_surrogate(torch.tensor(ratio), torch.tensor(advantage), 0.2, 0.3))
    assert mine <= ratio * advantage + 1e-5
    assert mine == pytest.approx(oracle.surrogate(ratio, advantage, 0.2, 0.3), rel=1e-4, abs=1e-5)


@given(st.floats(-5, 5))
def test_k2_and_k3_are_never_negative_and_vanish_where_policies_agree(log_ratio: float) -> None:
    x = torch.tensor(log_ratio, dtype=torch.float64)
    assert k2(x) >= 0 and k3(x) >= 0
    assert k1(x) == x and KL["none"](x) == 0
    assert k2(x * 0) == k3(x * 0) == 0


def test_k1_and_k3_have_the_true_kl_as_their_mean() -> None:
    g = torch.Generator().manual_seed(0)
    new, reference = (torch.randn(50, generator=g, dtype=torch.float64).log_softmax(0) for _ in range(2))
    true = (new.exp() * (new - reference)).sum()
    for estimate in (k1, k3):
        torch.testing.assert_close((new.exp() * estimate(new - reference)).sum(), true)


EVERY_OBJECTIVE = {
    **OBJECTIVES,
    "soft": Objective(clip="soft"),
    "gamma": Objective(clip="gamma"),
    "corrected": Objective(correction="sequence", stale_max=0.05),
    "masked": Objective(correction="token_mask", kl="k3_weighted", beta=0.1, entropy=0.01),
}


def said(seed: int, rows: int = 4, length: int = 12) -> Said:
    """Random tokens of random rollouts, two in each row, a few of them given rather than said."""
    g = torch.Generator().manual_seed(seed)
    new, old, behaviour, reference = torch.randn(4, rows, length, generator=g, dtype=torch.float64) / 4 - 2
    segments = 1 + (torch.arange(length) >= length // 2).long().expand(rows, -1)
    advantage = torch.randn(rows, 2, generator=g, dtype=torch.float64).gather(1, segments - 1)
    weight = (torch.rand(rows, length, generator=g) > 0.2) * torch.rand(rows, 1, generator=g).double()
    entropy = torch.rand(rows, length, generator=g, dtype=torch.float64)
    return Said(new, old, behaviour, reference, advantage, weight, segments, entropy)


def rows_of(whole: Said, rows: slice) -> Said:
    return Said(*(getattr(whole, name)[rows] for name in Said.__slots__))


@pytest.mark.parametrize("name", EVERY_OBJECTIVE)
@given(seed=st.integers(0, 1000), cut=st.integers(1, 3))
@settings(max_examples=20)
def test_slices_of_a_step_add_up_to_the_step(name: str, seed: int, cut: int) -> None:
    whole, objective = said(seed), EVERY_OBJECTIVE[name]
    parts = [policy_loss(rows_of(whole, rows), objective) for rows in (slice(0, cut), slice(cut, None))]
    torch.testing.assert_close(sum(parts), policy_loss(whole, objective))


@pytest.mark.parametrize("name", EVERY_OBJECTIVE)
def test_what_was_given_rather_than_said_changes_no_loss(name: str) -> None:
    whole, objective = said(7), EVERY_OBJECTIVE[name]
    given_BT = whole.weight == 0
    assert given_BT.any()
    noise = torch.randn(whole.logp.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = replace(whole, logp=torch.where(given_BT, whole.logp + noise, whole.logp))
    torch.testing.assert_close(policy_loss(moved, objective), policy_loss(whole, objective))


def test_a_rollouts_mean_is_its_own_whoever_shares_its_row() -> None:
    whole = said(3)
    mine = whole.mean(whole.logp)
    for row, segment in ((0, 1), (0, 2), (3, 2)):
        own = (whole.segments[row] == segment) & (whole.weight[row] > 0)
        torch.testing.assert_close(mine[row][own], whole.logp[row][own].mean().expand(int(own.sum())))


def test_a_criterion_that_varies_counts_though_the_sum_does_not() -> None:
    """(1, 0) and (0, 1) earn the same in sum; apart, each criterion is compared by itself."""
    parts_KPG = torch.tensor([[[1.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]]).double()
    known_PG = torch.ones(1, 3, dtype=torch.bool)
    apart = summed(parts_KPG, torch.tensor([1.0, 0.5]), known_PG, group_mean_std)
    assert group_mean_std(parts_KPG.sum(0)).abs().max() == 0
    assert apart[0, 0] > 0 > apart[0, 1] and abs(float(apart.sum())) < 1e-9


# the layout of a step

LAYOUTS = {
    "one slice": dict(width=24, count=1),
    "two slices": dict(width=24, count=2),
    "a slice per row": dict(width=24, count=99),
    "padded, a text per row": dict(width=12, count=1),
    "padded wide": dict(width=40, count=3),
    "turned round": dict(width=24, count=2, turned=True),
}


def step_of(
    model: Decoder, texts: Sequence[Text], loss: object, *, width: int, count: int, turned: bool = False
) -> tuple[float, list[Tensor]]:
    """Loss and gradients of a step laid out so."""
    batch = pack(list(reversed(texts)) if turned else texts, width)
    if turned:
        batch = turned_rows(batch)
    total = 0.0
    model.zero_grad()
    for part in batch.passes(count):
        value = loss(model, part, len(batch.targets_BT)).value  # type: ignore[operator]
        value.backward()
        total += float(value.detach())
    return total, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def turned_rows(batch: Batch) -> Batch:
    """The same rows, the last first."""
    length = batch.targets_BT.shape[1]
    rows = replace(batch.rows, **{name: getattr(batch.rows, name).flip(0) for name in
                                  ("tokens_BT", "positions_BT", "segments_BT")})  # fmt: skip
    routes = tuple(r.view(-1, length, r.shape[1]).flip(0).flatten(0, 1) for r in batch.routes)
    values = {name: value.flip(0) for name, value in batch.values.items()}
    return Batch(rows, batch.targets_BT.flip(0), batch.weight_BT.flip(0), values, routes)


def written() -> list[Text]:
    rng = np.random.default_rng(1)
    lengths = [12, 11, 9, 7, 7, 5, 3, 2]
    return [Text(text(n, n), (rng.random(n) / sum(lengths)).astype(np.float32)) for n in lengths]


def said_by(model: Decoder) -> list[Text]:
    """Rollouts, their behaviour log-probabilities moved so that some ratios are clipped."""
    prompts = [tuple(text(3, i)) for i in range(8)]
    completions = Engine(model, 3).generate([Request(p, i) for i, p in enumerate(prompts)], Sampling(max_tokens=9))
    return [rollout_text(p, c, (-1.0) ** i, i) for i, (p, c) in enumerate(zip(prompts, completions, strict=True))]


def rollout_text(prompt: tuple[int, ...], said: Completion, advantage: float, seed: int) -> Text:
    own = np.r_[np.zeros(len(prompt)), np.ones(len(said.tokens))].astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, 0.2, len(own)).astype(np.float32)
    behaviour = np.r_[np.zeros(len(prompt), np.float32), said.logps] + own * noise
    values = {"behaviour": behaviour, "reference": behaviour - own * noise / 2, "advantage": own * advantage}
    return Text((*prompt, *said.tokens), own / (8 * len(said.tokens)), values, said.routes)


def text_step(model: Decoder, part: Batch, num_rows: int) -> Loss:
    return text_loss(model, part, mtp_weight=0.3 if model.mtp is not None else 0.0)


def rollout_step(objective: Objective, model: Decoder, part: Batch, num_rows: int) -> Loss:
    return rollout_loss(model, part, objective=objective, temperature=1.0)


@pytest.mark.parametrize("dtype, limit", [(torch.float64, 1e-6), (torch.float32, 1e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize("kind", ["text", *OBJECTIVES])
@pytest.mark.parametrize("name", ["v3", "v3-groups", "qwen3"])
def test_neither_loss_nor_gradient_depends_on_how_a_step_is_laid_out(
    name: str, kind: str, dtype: torch.dtype, limit: float
) -> None:
    """Slices, packing, padding, order of rows and of texts. Gradients are compared by their largest entry."""
    model = build(SHAPES[name], dtype=dtype)
    texts = written() if kind == "text" else said_by(model)
    loss = text_step if kind == "text" else partial(rollout_step, OBJECTIVES[kind])
    first_loss, first_grads = step_of(model, texts, loss, **LAYOUTS["one slice"])
    largest = max(float(grad.abs().max()) for grad in first_grads)
    assert largest > 1e-3
    for layout, how in LAYOUTS.items():
        value, grads = step_of(model, texts, loss, **how)
        assert value == pytest.approx(first_loss, rel=limit, abs=limit), layout
        apart = max(float((a - b).abs().max()) for a, b in zip(first_grads, grads, strict=True))
        assert apart <= limit * max(1.0, largest), layout


def test_the_balance_loss_of_a_step_does_not_depend_on_its_slices() -> None:
    model = build(SHAPES["v3"])

    def loss(model: Decoder, part: Batch, num_rows: int) -> Loss:
        return text_loss(model, part, mtp_weight=0.3, balance_weight=1.0, num_rows=num_rows)

    first_loss, first = step_of(model, written(), loss, width=12, count=1)
    for count in (2, 3, 99):
        value, grads = step_of(model, written(), loss, width=12, count=count)
        assert value == pytest.approx(first_loss, rel=1e-5)
        for a, b in zip(first, grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def grad_by_target(model: Decoder, texts: list[Text]) -> Tensor:
    """How the loss pulls at every state that predicts a target, through the head: [B, T]."""
    batch = pack(texts, max(len(t.tokens) for t in texts))
    taken: list[Tensor] = []

    def spy(_: object, __: object, hidden: Hidden) -> None:
        hidden.states_BTD.retain_grad()
        taken.append(hidden.states_BTD)

    handle = model.register_forward_hook(spy)
    rollout_loss(model, batch, objective=OBJECTIVES["dr_grpo"], temperature=1.0).value.backward()
    handle.remove()
    assert taken[0].grad is not None
    return taken[0].grad.abs().sum(-1)


def test_the_stop_token_carries_a_gradient_and_the_prompt_none() -> None:
    model = build(SHAPES["v3"])
    prompt, said = (5, 6, 7), (9, 8, 3)  # 3 is the stop token
    own = np.array([0, 0, 0, 1, 1, 1], np.float32)
    values = {name: own * x for name, x in (("behaviour", -9.0), ("reference", -9.0), ("advantage", -1.0))}
    pull = grad_by_target(model, [Text((*prompt, *said), own / 6, values)])[0]
    assert (pull > 0).tolist() == [False, False, True, True, True, False]


def test_a_rollout_without_advantage_carries_no_gradient() -> None:
    model = build(SHAPES["v3"])
    texts = said_by(model)[:2]
    texts[0] = replace(texts[0], values={**texts[0].values, "advantage": np.zeros(len(texts[0].tokens), np.float32)})
    pull = grad_by_target(model, texts)
    assert sorted(bool(row.any()) for row in pull) == [False, True]


@pytest.mark.parametrize("kl", ["none", "k1", "k2", "k3"])
def test_what_was_not_said_cannot_poison_the_loss(kl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt token the policy finds next to impossible: weight 0 times an infinite ratio would be no number."""
    model = build(SHAPES["qwen3"])
    objective = OBJECTIVES["dr_grpo"].model_copy(update={"kl": kl, "beta": 0.1})
    batch = pack(said_by(model), 24)

    def impossible(*args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        logp_BT, entropy_BT = token_logps(*args, **kwargs)  # type: ignore[arg-type]
        return logp_BT * torch.where(batch.weight_BT > 0, 1.0, 1000.0), entropy_BT

    monkeypatch.setattr(update, "token_logps", impossible)
    result = rollout_loss(model, batch, objective=objective, temperature=1.0)
    result.value.backward()
    assert math.isfinite(float(result.value.detach())) and all(math.isfinite(float(v)) for v in result.sums.values())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
