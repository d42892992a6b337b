"""Laws of the prediction layer kept alive: its loss is the papers', it reaches the layer alone, and the rest stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from seekling.engine.config import Sampling
from seekling.engine.engine import Engine, Request
from seekling.learn import logps
from seekling.learn.ahead import LAYER, look_ahead, num_ahead, of_layer, two_ahead, weight_of
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.config import Optim
from seekling.learn.lanes import Lanes
from seekling.learn.optim import Optimizers
from seekling.learn.presets import OBJECTIVES
from seekling.learn.update import Loss, rollout_loss, step, text_loss
from seekling.model.decoder import Decoder
from seekling.model.lora import add_adapters, keep_trained
from seekling.recipes.config import Dpo
from seekling.recipes.dpo import dpo_pass
from tests.oracles.tiny import SHAPES, V, build, text


def written() -> Batch:
    """Texts of many lengths, one too short to be foretold, learned in part."""
    rng = np.random.default_rng(0)
    made = pack(
        [Text(text(n, n), (rng.random(n) * (rng.random(n) < 0.8)).astype(np.float32)) for n in (12, 9, 2, 7, 5)], 14
    )
    made.weight_BT.div_(made.weight_BT.sum())
    return made


def said() -> Batch:
    """Rollouts of the model itself, good and bad."""
    prompts = [tuple(text(3, n)) for n in range(6)]
    told = Engine(build(SHAPES["v3"]), 3).generate(
        [Request(p, n) for n, p in enumerate(prompts)], Sampling(max_tokens=9)
    )
    texts = []
    for place, (prompt, answer) in enumerate(zip(prompts, told, strict=True)):
        own = np.r_[np.zeros(len(prompt)), np.ones(len(answer.tokens))].astype(np.float32)
        behaviour = np.r_[np.zeros(len(prompt), np.float32), answer.logps]
        values = {"behaviour": behaviour, "reference": behaviour, "advantage": own * np.float32((-1) ** place)}
        texts.append(Text((*prompt, *answer.tokens), own / len(answer.tokens), values, answer.routes))
    return pack(texts, 14)


def of_text(mtp_weight: float, batch: Batch) -> Callable[[Decoder, Batch], Loss]:
    return partial(text_loss, mtp_weight=mtp_weight, mtp_apart=True)


def of_rollouts(mtp_weight: float, batch: Batch) -> Callable[[Decoder, Batch], Loss]:
    return partial(
        rollout_loss,
        objective=OBJECTIVES["dr_grpo"],
        temperature=0.8,
        mtp_weight=mtp_weight,
        num_ahead=num_ahead(batch),
    )


def compared() -> Batch:
    """Pairs of texts of which the first of two was chosen."""
    texts = []
    for place, length in enumerate((9, 6, 7, 8)):
        own = (np.arange(length) > 2).astype(np.float32)
        values = {"reference": -3 * own, "chosen": own / 20 * (place % 2 == 0)}
        texts.append(Text(text(length, place), own / (2 * own.sum()), values))
    return pack(texts, 16, together=2)


def of_pairs(mtp_weight: float, batch: Batch) -> Callable[[Decoder, Batch], Loss]:
    told = {"name": "liked", "from": "base", "steps": 4, "task": "arithmetic", "mtp_weight": mtp_weight}
    return partial(dpo_pass, config=Dpo(**told))


KINDS = {"text": (of_text, written), "rollouts": (of_rollouts, said), "pairs": (of_pairs, compared)}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def gradients(model: Decoder, loss: Loss) -> dict[str, Tensor | None]:
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss.value, list(named.values()), allow_unused=True), strict=True))


def foreseen(model: Decoder, count: int) -> list[int]:
    """A text that the prediction layer writes, each token its likeliest."""
    ids = text(count, 1)
    for place in range(2, count):
        batch = pack([Text(ids, np.ones(count, np.float32))], count)
        with torch.no_grad():
            ahead_BTD, _ = model.predict_next(batch.rows, model(batch.rows).states_BTD)
            ids[place] = int(model.logits(ahead_BTD)[0, place - 2].argmax())
    return ids


def test_loss_and_acceptance_are_those_of_a_loop_whole_and_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(SHAPES["v3"], dtype=torch.float64)
    weight = np.random.default_rng(0).random(12).astype(np.float32) * (np.arange(12) != 5)
    batch = pack([Text(foreseen(model, 12), weight), Text(text(9, 3), weight[:9]), Text([4, 7], weight[:2])], 16)
    for temperature in (1.0, 0.6):
        with torch.no_grad():
            states_BTD = model(batch.rows).states_BTD
            logits_BTV = model.logits(model.predict_next(batch.rows, states_BTD)[0])
        rows, loss, right, told = batch.rows, 0.0, 0, 0
        for b, t in np.ndindex(*batch.targets_BT.shape):
            inside = t + 2 < rows.tokens_BT.shape[1] and rows.segments_BT[b, t] == rows.segments_BT[b, t + 2] != 0
            if inside and (weight := float(batch.weight_BT[b, t + 1])) > 0:
                token = int(rows.tokens_BT[b, t + 2])
                loss -= weight * float((logits_BTV[b, t] / temperature).log_softmax(-1)[token])
                right, told = right + (int(logits_BTV[b, t].argmax()) == token), told + 1
        assert 3 < right < told - 3
        for chunked in (False, True):
            with monkeypatch.context() as patch:
                if chunked:
                    patch.setattr(logps, "CHUNK_BYTES", 0)
                    patch.setattr(logps, "rows_per_chunk", lambda *_: 3)
                ahead = look_ahead(model, batch, states_BTD, temperature=temperature)
            assert ahead.loss.item() == pytest.approx(loss, rel=1e-6)
            assert (int(ahead.sums["mtp_right"]), int(ahead.sums["mtp_told"])) == (right, told)


def test_what_a_layer_that_is_always_right_foretells_is_all_accepted() -> None:
    """Where the likeliest token is what comes, acceptance is 1: a text written by the layer's own choices."""
    model = build(SHAPES["v3"])
    batch = pack([Text(foreseen(model, 12), np.ones(12, np.float32))], 12)
    with torch.no_grad():
        sums = {name: float(x) for name, x in look_ahead(model, batch, model(batch.rows).states_BTD).sums.items()}
    assert of_layer(sums)["mtp_acceptance"] == 1 and sums["mtp_told"] == 10


@EVERY_KIND
@pytest.mark.parametrize("chunked", [False, True])
def test_apart_the_loss_reaches_the_prediction_layer_and_nothing_else(
    kind: str, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunked:
        monkeypatch.setattr(logps, "CHUNK_BYTES", 0)
        monkeypatch.setattr(logps, "rows_per_chunk", lambda *_: 3)
    loss, batch = KINDS[kind][0], KINDS[kind][1]()
    model = build(SHAPES["v3"])
    without, with_ = (gradients(model, loss(weight, batch)(model, batch)) for weight in (0.0, 0.7))
    for name, grad in with_.items():
        if name.startswith(LAYER):
            assert without[name] is None and grad is not None and bool(grad.any()), name
        else:
            assert (grad is None) == (without[name] is None), name
            assert grad is None or torch.equal(grad, without[name]), name  # type: ignore[arg-type]


def test_apart_the_layer_learns_what_it_would_learn_jointly() -> None:
    model, batch = build(SHAPES["v3"]), written()
    jointly, apart = (gradients(model, text_loss(model, batch, mtp_weight=0.3, mtp_apart=x)) for x in (False, True))
    for name in (name for name in jointly if name.startswith(LAYER)):
        torch.testing.assert_close(apart[name], jointly[name], rtol=0, atol=0)
    for name in ("embed_tokens.weight", "lm_head.weight", "layers.1.self_attn.o_proj.weight"):
        assert not torch.equal(apart[name], jointly[name])  # type: ignore[arg-type]


def after(
    kind: str, weight: float, matrices: str, *, passes: int = 2, lanes: int = 1, dtype: torch.dtype = torch.float32,
    apart: Sequence[str] = (LAYER,),
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:  # fmt: skip
    """A model and its figures after a few steps whose gradients are all clipped."""
    model, batch = build(SHAPES["v3"]), KINDS[kind][1]()
    loss, config = KINDS[kind][0](weight, batch), Optim(matrices=matrices, clip_norm=0.05, warmup_steps=0, lr=0.01)
    optimizers = Optimizers(model, config, 4, Lanes(lanes), apart=tuple(apart))
    told = [
        step(model, optimizers, batch, loss, step_index=n, passes=passes, lanes=Lanes(lanes), dtype=dtype)
        for n in range(4)
    ]
    return dict(model.state_dict()), told


@EVERY_KIND
@pytest.mark.parametrize("matrices", ["adamw", "muon"])
@pytest.mark.parametrize(
    "how", [{}, {"lanes": 2}, {"passes": 1, "dtype": torch.bfloat16}], ids=["plain", "lanes", "bfloat16"]
)
def test_no_other_weight_and_no_other_figure_changes_by_a_bit(kind: str, matrices: str, how: dict[str, object]) -> None:
    (without, before), (with_, figures) = (after(kind, weight, matrices, **how) for weight in (0.0, 5.0))  # type: ignore[arg-type]
    moved = {name for name, weight in with_.items() if not torch.equal(weight, without[name])}
    own = {name for name in with_ if name.startswith(LAYER) and not name.endswith("correction_bias")}
    assert moved == own
    assert min(step["grad_norm"] for step in before) > 0.05, "nothing was clipped"
    assert [{name: x for name, x in step.items() if not name.startswith("mtp_")} for step in figures] == before
    assert figures[-1]["mtp_loss"] < figures[0]["mtp_loss"]


def test_clipped_together_the_rest_would_change() -> None:
    """The control of the law above: one norm for both, and every weight moves otherwise."""
    without, with_ = (after("text", weight, "adamw", apart=())[0] for weight in (0.0, 5.0))
    assert not torch.equal(with_["lm_head.weight"], without["lm_head.weight"])


@pytest.mark.parametrize("matrices", ["adamw", "muon"])
def test_no_group_of_an_optimizer_holds_some_of_the_layer_and_some_of_the_rest(matrices: str) -> None:
    """Matrices of one group are orthogonalised in one stack, whose size may decide how its products are rounded."""
    optimizers = Optimizers(build(SHAPES["v3"]), Optim(matrices=matrices), 1, apart=(LAYER,))
    groups = [{optimizers.names[p] for p in group["params"]} for own in optimizers.all for group in own.param_groups]
    assert all(len({name.startswith(LAYER) for name in group}) == 1 for group in groups)
    assert sorted(name for group in groups for name in group) == sorted(optimizers.names.values())


def test_a_layer_whose_gradient_is_no_number_stays_and_the_rest_learns() -> None:
    model, batch = build(SHAPES["v3"]), written()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    optimizers = Optimizers(model, Optim(warmup_steps=0), 2, apart=(LAYER,))

    def broken(model: Decoder, part: Batch) -> Loss:
        loss = text_loss(model, part)
        assert model.mtp is not None
        return Loss(loss.value + torch.nan * model.mtp.norm.weight.sum(), loss.sums)

    told = step(model, optimizers, batch, broken, step_index=0)
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert told["skipped"] == 0 and "lm_head.weight" in moved and not any(name.startswith(LAYER) for name in moved)


def test_what_a_rollout_earned_changes_nothing_of_what_the_layer_learns() -> None:
    model, batch = build(SHAPES["v3"]), said()
    loss = of_rollouts(0.7, batch)
    worse = replace(
        batch, weight_BT=batch.weight_BT * torch.rand_like(batch.weight_BT).add(0.5),
        values={**batch.values, "advantage": -3 * batch.values["advantage"]},
    )  # fmt: skip
    first, second = (gradients(model, loss(model, own)) for own in (batch, worse))
    for name in (name for name in first if name.startswith(LAYER)):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)


def test_every_token_said_weighs_the_same_however_long_its_rollout() -> None:
    model, batch = build(SHAPES["v3"]), said()
    sums = of_rollouts(0.7, batch)(model, batch).sums
    with torch.no_grad():
        ahead_BTD, _ = model.predict_next(batch.rows, model(batch.rows, batch.routes).states_BTD)
    targets_BT, weight_BT = two_ahead(batch)
    nll_BT = -(model.logits(ahead_BTD) / 0.8).log_softmax(-1).gather(-1, targets_BT.unsqueeze(-1)).squeeze(-1)
    assert len(set(weight_BT[weight_BT > 0].tolist())) > 1, "rollouts of one length show nothing"
    assert float(sums["mtp_loss"]) == pytest.approx(float(nll_BT[weight_BT > 0].mean().detach()), rel=1e-5)


@EVERY_KIND
def test_slices_of_a_step_sum_to_the_whole(kind: str) -> None:
    model, batch = build(SHAPES["v3"], dtype=torch.float64), KINDS[kind][1]()
    loss = KINDS[kind][0](0.7, batch)
    whole = loss(model, batch).sums
    parts = [loss(model, part).sums for part in batch.passes(3)]
    for name in ("mtp_loss", "mtp_right", "mtp_told"):
        assert sum(float(part[name]) for part in parts) == pytest.approx(float(whole[name]), rel=1e-6), name


def test_a_layer_learns_where_it_is_there_and_something_of_it_is_trained() -> None:
    assert weight_of(build(SHAPES["v3"]), 0.1) == 0.1
    assert weight_of(build(SHAPES["qwen3"]), 0.1) == 0
    frozen, part, adapted = (build(SHAPES["v3"]) for _ in range(3))
    keep_trained(frozen, freeze=["mtp"])
    keep_trained(part, freeze=["mtp.block"])
    add_adapters(adapted, rank=2, scale=1.0, targets=["self_attn", "mlp"], seed=0)
    assert [weight_of(model, 0.1) for model in (frozen, part, adapted)] == [0, 0.1, 0]


def test_a_step_in_which_no_layer_learned_tells_nothing_of_one() -> None:
    assert of_layer({"loss": 1.0}) == {}
    assert of_layer({"mtp_loss": 0.0, "mtp_right": 0.0, "mtp_told": 0.0}) == {"mtp_loss": 0.0, "mtp_acceptance": 0.0}


def test_only_what_was_chosen_of_a_pair_is_foretold() -> None:
    model, batch = build(SHAPES["v3"]), compared()
    chosen = batch.values["chosen"] > 0
    assert 0 < int(chosen.sum()) < int((batch.weight_BT > 0).sum())
    assert int(of_pairs(0.7, batch)(model, batch).sums["mtp_told"]) == int(chosen.sum())


STEPS = 60


def counting(strides: Sequence[int], seed: Sequence[int]) -> Batch:
    """Texts that count by a stride, which their first two tokens tell."""
    rng = np.random.default_rng(seed)
    starts = [(int(rng.integers(V)), int(rng.choice(strides))) for _ in range(16)]
    batch = pack([Text([(a + b * t) % V for t in range(12)], np.ones(12, np.float32)) for a, b in starts], 12)
    batch.weight_BT.div_(batch.weight_BT.sum())
    return batch


def taught(model: Decoder, strides: Sequence[int], mtp_weight: float, apart: tuple[str, ...]) -> Decoder:
    optimizers = Optimizers(model, Optim(lr=5e-3, muon_lr=0.03, warmup_steps=3), STEPS, apart=apart)
    loss = partial(text_loss, mtp_weight=mtp_weight, mtp_apart=bool(apart))
    for index in range(STEPS):
        step(model, optimizers, counting(strides, (index, *strides)), loss, step_index=index, passes=1)
    return model


def acceptance(model: Decoder, strides: Sequence[int]) -> float:
    batch = counting(strides, (99,))
    with torch.no_grad():
        sums = look_ahead(model, batch, model(batch.rows).states_BTD).sums
    return of_layer({name: float(value) for name, value in sums.items()})["mtp_acceptance"]


def test_a_layer_that_is_taught_on_drafts_on_and_one_that_is_left_does_not() -> None:
    """Fine-tuned to count otherwise than it was pretrained to."""
    base = taught(Decoder(SHAPES["v3"]).init_weights(0), (1, 2), 0.3, ())
    alive, left = (taught(deepcopy(base), (2, 3), weight, (LAYER,)) for weight in (0.1, 0.0))
    before, after, without = acceptance(base, (1, 2)), acceptance(alive, (2, 3)), acceptance(left, (2, 3))
    assert before > 0.9 and after > before - 0.05 and without < before - 0.3, (before, after, without)
