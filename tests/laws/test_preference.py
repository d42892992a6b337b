"""Laws of preferences and critics: how a step of pairs is laid out cannot change it, and what every loss must obey."""

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

from seekling.errors import UserError
from seekling.learn.batch import Batch, Text, layout, pack
from seekling.learn.preference import averaged, bradley_terry, dpo_loss, in_pairs, ipo_loss, off_centre, preferred
from seekling.learn.update import Loss
from seekling.learn.value import gae, padded, returns_of, token_rewards, value_loss, whitened
from seekling.model.decoder import Decoder
from seekling.model.heads import add_head, head_of, speechless
from seekling.recipes.config import Dpo, RewardModel
from seekling.recipes.dpo import dpo_pass
from seekling.recipes.pairs import Couple, together
from seekling.recipes.preferring import weighed
from seekling.recipes.reward_model import ended, rating_pass
from tests.oracles import preference as oracle
from tests.oracles.tiny import SHAPES, build, text

settings.register_profile("laws", deadline=None)  # a busy machine is no broken law
settings.load_profile("laws")

NUMBER = st.floats(-8, 8)
BETA = st.floats(0.01, 2)


def one(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)


# what is asked of a pair


@given(NUMBER, NUMBER, BETA, st.floats(0, 0.49))
def test_dpo_and_ipo_equal_the_papers_equations(chosen: float, rejected: float, beta: float, smoothing: float) -> None:
    mine = float(dpo_loss(one(chosen), one(rejected), beta, smoothing))
    assert mine == pytest.approx(oracle.dpo(chosen, rejected, beta, smoothing), rel=1e-9)
    mine = float(ipo_loss(one(chosen), one(rejected), beta))
    assert mine == pytest.approx(oracle.ipo(chosen, rejected, beta), rel=1e-9)


@given(NUMBER, NUMBER, st.floats(0, 4))
def test_bradley_terry_equals_the_odds_it_is_named_after(chosen: float, rejected: float, margin: float) -> None:
    mine = float(bradley_terry(one(chosen), one(rejected), margin))
    assert mine == pytest.approx(oracle.bradley_terry(chosen, rejected, margin), rel=1e-9, abs=1e-12)


@given(NUMBER, NUMBER, BETA, NUMBER)
def test_only_the_difference_of_a_pair_counts(chosen: float, rejected: float, beta: float, constant: float) -> None:
    for loss in (partial(dpo_loss, beta=beta, smoothing=0.1), partial(ipo_loss, beta=beta), bradley_terry):
        before, after = (loss(one(chosen + by), one(rejected + by)) for by in (0.0, constant))
        torch.testing.assert_close(before, after, rtol=1e-9, atol=1e-9)


def test_a_policy_that_is_its_reference_has_the_loss_of_a_coin() -> None:
    zero = one(0.0)
    for smoothing in (0.0, 0.3):
        assert float(dpo_loss(zero, zero, 0.1, smoothing)) == pytest.approx(math.log(2))
    assert float(bradley_terry(zero, zero)) == pytest.approx(math.log(2))
    assert float(preferred(zero, zero)) == 0.5


@given(st.floats(0.05, 0.45), BETA)
def test_a_smoothed_loss_has_its_least_where_doubt_says(smoothing: float, beta: float) -> None:
    delta = one(math.log((1 - smoothing) / smoothing) / beta).requires_grad_()
    dpo_loss(delta, one(0.0), beta, smoothing).backward()
    assert delta.grad is not None and abs(float(delta.grad)) < 1e-9


@given(BETA, st.booleans())
def test_ipo_pulls_back_a_margin_that_is_beyond_its_goal(beta: float, beyond: bool) -> None:
    delta = one(1 / (2 * beta) + (0.5 if beyond else -0.5)).requires_grad_()
    ipo_loss(delta, one(0.0), beta).backward()
    assert delta.grad is not None and (float(delta.grad) > 0) == beyond


@given(NUMBER, NUMBER)
def test_rewards_that_are_centred_cost_nothing(a: float, b: float) -> None:
    assert float(off_centre(one(a), one(-a))) == 0
    assert float(off_centre(one(a), one(b))) == pytest.approx((a + b) ** 2)


# pairs in rows


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12), st.integers(18, 60))
def test_a_pair_is_never_parted_and_chosen_stands_first(pairs: list[tuple[int, int]], row_tokens: int) -> None:
    places = layout([length for pair in pairs for length in pair], row_tokens, together=2)
    taken = set()
    for (length, _), (row, start, segment), (other, beside, following) in zip(
        pairs, places[::2], places[1::2], strict=True
    ):
        assert row == other and beside == start + length
        assert segment % 2 == 1 and following == segment + 1
        taken.add((row, segment))
    assert len(taken) == len(pairs)


@given(st.integers(0, 200))
@settings(max_examples=30)
def test_sums_by_pair_are_those_of_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [tuple(rng.integers(2, 9, 2)) for _ in range(rng.integers(1, 6))]
    texts = [Text([1] * n, np.r_[0, np.ones(n - 1)].astype(np.float32), {"x": rng.random(n).astype(np.float32)})
             for pair in pairs for n in pair]  # fmt: skip
    batch = pack(texts, int(rng.integers(16, 40)), together=2)
    chosen, rejected = in_pairs(batch.values["x"] * (batch.weight_BT > 0), batch.rows.segments_BT)
    for mine, own in ((chosen, texts[::2]), (rejected, texts[1::2])):
        found = sorted(float(x) for x in mine.flatten() if x)
        np.testing.assert_allclose(found, sorted(float(t.values["x"][1:].sum()) for t in own), rtol=1e-5)
    counts = in_pairs((batch.weight_BT > 0).float(), batch.rows.segments_BT)
    mean = averaged((chosen, rejected), counts)[0]
    assert bool((mean <= 1).all()) and mean.shape == chosen.shape


def couples_of(seed: int = 0) -> list[Couple]:
    """Pairs of unlike lengths, two of them with a prompt of their own length."""
    rng, made = np.random.default_rng(seed), []
    for number, (prompt, good, bad) in enumerate([(3, 4, 2), (2, 1, 5), (4, 3, 3), (1, 6, 1), (2, 2, 4)]):
        begins = text(prompt, seed + number)
        texts = [
            Text(begins + text(n, seed + 50 * side + number), np.r_[np.zeros(prompt), np.ones(n)].astype(np.float32))
            for side, n in enumerate((good, bad), 1)
        ]
        made.append(Couple(*texts, margin=float(rng.random())))
    return made


def preferring(found: Sequence[Couple]) -> list[Text]:
    """What a step of ``dpo`` reads: the reference is some other policy."""
    rng, texts = np.random.default_rng(9), weighed(together(found))
    count = sum(float((couple.chosen.weight > 0).sum()) for couple in found)
    return [
        replace(t, values={
            "reference": ((t.weight > 0) * rng.normal(-3, 1, len(t.tokens))).astype(np.float32),
            "chosen": (t.weight > 0) * np.float32(1 / count if number % 2 == 0 else 0),
        })
        for number, t in enumerate(texts)
    ]  # fmt: skip


DPO = dict(name="liked", data="x.jsonl", steps=1)
KINDS = {
    "dpo": (preferring, partial(dpo_pass, config=Dpo(**DPO, label_smoothing=0.1))),
    "ipo": (preferring, partial(dpo_pass, config=Dpo(**DPO, loss="ipo", beta=0.2))),
    "average": (preferring, partial(dpo_pass, config=Dpo(**DPO, average=True, nll=0.3))),
    "reward": (ended, partial(rating_pass, config=RewardModel(name="rater", data="x.jsonl", steps=1, centre=0.1))),
}
LAYOUTS = {
    "one slice": dict(width=20, count=1),
    "two slices": dict(width=20, count=2),
    "a slice per row": dict(width=20, count=99),
    "a pair per row": dict(width=14, count=3),
    "one long row": dict(width=80, count=2),
    "turned round": dict(width=20, count=2, turned=True),
}


def step_of(
    model: Decoder, kind: str, *, width: int, count: int, turned: bool = False
) -> tuple[float, list[Tensor], dict[str, float]]:
    """Loss, gradients and sums of a step laid out so."""
    lesson, loss = KINDS[kind]
    texts = lesson(couples_of())
    if turned:
        texts = [t for pair in reversed(list(zip(texts[::2], texts[1::2], strict=True))) for t in pair]
    total, sums = 0.0, dict[str, float]()
    model.zero_grad()
    for part in pack(texts, width, together=2).passes(count):
        done: Loss = loss(model, part)
        done.value.backward()
        total += float(done.value.detach())
        sums = {name: sums.get(name, 0.0) + float(value) for name, value in done.sums.items()}
    return total, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()], sums


def model_for(kind: str, name: str, dtype: torch.dtype) -> Decoder:
    model = build(SHAPES[name])
    if kind == "reward":
        add_head(speechless(model), seed=1)
        with torch.no_grad():
            head_of(model).weight.mul_(5)
    return model.double() if dtype == torch.float64 else model


@pytest.mark.parametrize("dtype, limit", [(torch.float64, 1e-6), (torch.float32, 1e-4)], ids=["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["v3", "qwen3"])
def test_neither_loss_nor_gradient_depends_on_how_pairs_are_laid_out(
    name: str, kind: str, dtype: torch.dtype, limit: float
) -> None:
    model = model_for(kind, name, dtype)
    first, first_grads, first_sums = step_of(model, kind, **LAYOUTS["one slice"])
    largest = max(float(grad.abs().max()) for grad in first_grads)
    assert largest > 1e-3 and first_sums["pairs"] == len(couples_of())
    for layout_, how in LAYOUTS.items():
        value, grads, sums = step_of(model, kind, **how)
        assert value == pytest.approx(first, rel=limit, abs=limit), layout_
        assert sums == pytest.approx(first_sums, rel=10 * limit, abs=limit), layout_
        apart = max(float((a - b).abs().max()) for a, b in zip(first_grads, grads, strict=True))
        assert apart <= limit * max(1.0, largest), layout_


@pytest.mark.parametrize("kind, side", [("dpo", 0), ("dpo", 1), ("reward", 0), ("reward", 1)])
def test_the_stop_carries_a_gradient_and_the_prompt_of_a_preference_none(kind: str, side: int) -> None:
    """DPO learns each reply's tokens, its last included; a reward model is read at the last token alone."""
    model = model_for(kind, "qwen3", torch.float64)
    lesson, loss = KINDS[kind]
    batch = pack(lesson(couples_of()[:1]), 20, together=2)
    pulled: list[Tensor] = []

    def cut(_: object, __: object, hidden: object) -> object:
        states = hidden.states_BTD.detach().requires_grad_()  # type: ignore[attr-defined]
        pulled.append(states)
        return replace(hidden, states_BTD=states)  # type: ignore[type-var]

    model.register_forward_hook(cut)
    loss(model, batch).value.backward()
    assert pulled[0].grad is not None
    pull_T = pulled[0].grad[0].abs().sum(-1) > 0
    (start, length, given) = ((0, 7, 3), (7, 5, 3))[side]
    own = pull_T[start : start + length].tolist()
    if kind == "dpo":
        assert own == [given - 1 <= t < length - 1 for t in range(length)]
    else:
        assert own == [t == length - 1 for t in range(length)]


# a critic

ROLLOUT = st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=9)
SHARE = st.floats(0, 1)


def ragged(rollouts: Sequence[Sequence[tuple[float, float]]]) -> tuple[Tensor, Tensor, Tensor]:
    rewards, values = (
        padded([torch.tensor([pair[n] for pair in r], dtype=torch.float64) for r in rollouts]) for n in (0, 1)
    )
    return rewards, values, padded([torch.ones(len(r), dtype=torch.bool) for r in rollouts])


@given(st.lists(ROLLOUT, min_size=1, max_size=4), SHARE, SHARE)
def test_advantages_of_a_critic_equal_the_papers_sums(
    rollouts: list[list[tuple[float, float]]], gamma: float, lam: float
) -> None:
    mine = gae(*ragged(rollouts), gamma, lam)
    for row, rollout in zip(mine, rollouts, strict=True):
        slow = oracle.gae([r for r, _ in rollout], [v for _, v in rollout], gamma, lam)
        np.testing.assert_allclose(row[: len(rollout)], slow, rtol=1e-9, atol=1e-9)
        assert not row[len(rollout) :].any()


@given(st.lists(ROLLOUT, min_size=1, max_size=4))
def test_with_gamma_and_lambda_one_an_advantage_is_the_return_less_the_value(
    rollouts: list[list[tuple[float, float]]],
) -> None:
    rewards, values, mask = ragged(rollouts)
    to_come = rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(gae(rewards, values, mask), (to_come - values) * mask)
    torch.testing.assert_close(returns_of(gae(rewards, values, mask), values, mask), to_come * mask)


@given(st.lists(ROLLOUT, min_size=1, max_size=4), SHARE)
def test_with_lambda_zero_an_advantage_looks_one_token_ahead(
    rollouts: list[list[tuple[float, float]]], gamma: float
) -> None:
    rewards, values, mask = ragged(rollouts)
    ahead = torch.cat((values[:, 1:], torch.zeros(len(values), 1, dtype=values.dtype)), 1)
    torch.testing.assert_close(gae(rewards, values, mask, gamma, 0.0), (rewards + gamma * ahead - values) * mask)


@given(st.lists(ROLLOUT, min_size=1, max_size=4), st.floats(-5, 5), SHARE)
def test_a_critic_that_shares_a_constant_in_the_reward_leaves_advantages_alone(
    rollouts: list[list[tuple[float, float]]], constant: float, lam: float
) -> None:
    """What comes at the end for certain is expected by every value before it, and surprises nobody (gamma 1)."""
    rewards, values, mask = ragged(rollouts)
    at_end = token_rewards(torch.full((len(rollouts),), constant), torch.zeros_like(rewards), mask)
    before = gae(rewards, values, mask, 1.0, lam)
    torch.testing.assert_close(gae(rewards + at_end, values + constant * mask, mask, 1.0, lam), before)


@given(st.lists(ROLLOUT, min_size=1, max_size=3), st.integers(0, 8), st.integers(1, 4), SHARE, SHARE)
def test_what_others_say_in_between_is_stepped_over(
    rollouts: list[list[tuple[float, float]]], place: int, count: int, gamma: float, lam: float
) -> None:
    rewards, values, mask = ragged(rollouts)
    place = min(place, rewards.shape[1])

    def with_gap(x: Tensor, filled: float) -> Tensor:
        gap = torch.full((len(x), count), filled).to(x.dtype)
        return torch.cat((x[:, :place], gap, x[:, place:]), 1)

    apart = gae(with_gap(rewards, 7.0), with_gap(values, 7.0), with_gap(mask, 0), gamma, lam)
    torch.testing.assert_close(torch.cat((apart[:, :place], apart[:, place + count :]), 1),
                               gae(rewards, values, mask, gamma, lam))  # fmt: skip
    assert not apart[:, place : place + count].any()


def test_a_reward_is_paid_at_the_last_token_and_an_open_one_not_at_all() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 1], [1, 1, 1]]).bool()
    paid = token_rewards(torch.tensor([2.0, 3.0, math.nan]), torch.full((3, 3), 0.5), mask)
    assert paid.tolist() == [[-0.5, 1.5, 0.0], [-0.5, 0.0, 2.5], [-0.5, -0.5, -0.5]]


TOKEN = st.tuples(NUMBER, NUMBER, NUMBER, st.floats(0, 1))


@given(st.lists(TOKEN, min_size=1, max_size=12), st.sampled_from([0.0, 0.2, 1.0]), st.integers(0, 12))
def test_the_critics_loss_is_a_plain_sum_of_the_greater_squares(
    tokens: list[tuple[float, float, float, float]], clip: float, cut: int
) -> None:
    columns = torch.tensor(tokens, dtype=torch.float64).T
    whole = value_loss(*columns, clip=clip)
    assert float(whole) == pytest.approx(oracle.value_loss(*columns.tolist(), clip), rel=1e-9, abs=1e-12)
    parts = [value_loss(*columns[:, part], clip=clip) for part in (slice(0, cut), slice(cut, None))]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("value, moves", [(1.5, False), (1.1, True), (0.5, True)])
def test_a_value_that_has_gone_far_enough_towards_its_target_has_no_gradient(value: float, moves: bool) -> None:
    v = one(value).requires_grad_()
    value_loss(v, one(1.0), one(3.0), one(1.0), clip=0.2).backward()
    assert v.grad is not None and bool(v.grad) == moves


@given(st.lists(st.lists(NUMBER, min_size=1, max_size=6), min_size=1, max_size=4))
def test_whitening_leaves_mean_zero_and_spread_one_over_what_was_said(rows: list[list[float]]) -> None:
    tensors = [torch.tensor(row, dtype=torch.float64) for row in rows]
    mask = padded([torch.ones(len(row), dtype=torch.bool) for row in rows])
    white = whitened(padded(tensors) + 5.0 * ~mask, mask)
    said = white[mask]
    assert not white[~mask].any() and abs(float(said.mean())) < 1e-6
    spread = float(torch.cat(tensors).std()) if mask.sum() > 1 else 0.0
    if spread > 1e-6:
        assert float(said.std()) == pytest.approx(1.0)
    elif spread == 0:
        assert not said.any()


def test_a_batch_of_pairs_says_what_does_not_fit() -> None:
    with pytest.raises(UserError, match="2 texts that belong together have 14 tokens"):
        pack(ended(couples_of()), 11, together=2)


def test_passes_of_pairs_hold_whole_rows() -> None:
    batch: Batch = pack(ended(couples_of()), 20, together=2)
    assert sum(len(part.targets_BT) for part in batch.passes(2)) == len(batch.targets_BT)
    for part in batch.passes(99):
        assert int(part.rows.segments_BT.max()) % 2 == 0
