"""Optimizers, their schedule, and the step they take part in."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seekling.learn.batch import Batch, Text, pack
from seekling.learn.config import Optim
from seekling.learn.guard import KNOWN, Broken
from seekling.learn.lanes import Lanes
from seekling.learn.optim import Muon, Optimizers, is_matrix, orthogonalise, schedule_share
from seekling.learn.update import Loss, move_biases, step, text_loss
from seekling.model.decoder import Decoder
from seekling.model.lora import adapters, add_adapters, keep_trained
from seekling.model.weights import load_tensors, save_tensors
from tests.oracles.tiny import SHAPES, build, text

# Muon


def orthogonal(matrix_RC: Tensor) -> Tensor:
    return orthogonalise(matrix_RC.unsqueeze(0)).squeeze(0)


@pytest.mark.parametrize("shape", [(12, 12), (6, 20), (20, 6), (1, 9), (9, 1), (48, 96)], ids=str)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_orthogonalising_brings_every_singular_value_near_one(shape: tuple[int, int], scale: float) -> None:
    matrix = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    limit = 0.6 if min(shape) < 12 or shape[0] != shape[1] else 0.0  # a square one may be all but singular
    assert float(values.max()) < 1.3 and float(values.min()) > limit
    assert float((values > 0.6).float().mean()) > 0.8


def test_orthogonalising_turns_nothing() -> None:
    """The singular vectors stay: U f(S) V^T."""
    matrix = torch.randn(5, 9, generator=torch.Generator().manual_seed(1))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.mT @ orthogonal(matrix) @ vh.mT
    torch.testing.assert_close(inner, inner.diagonal().diag(), rtol=0, atol=1e-4)


def test_each_expert_is_orthogonalised_as_if_it_stood_alone() -> None:
    stack = torch.randn(5, 8, 12, generator=torch.Generator().manual_seed(2))
    stack = stack * torch.tensor([1e-3, 1.0, 5.0, 30.0, 1e3]).view(-1, 1, 1)  # a loud expert must not drown a quiet one
    together = orthogonalise(stack)
    for expert, alone in zip(together, stack, strict=True):
        torch.testing.assert_close(expert, orthogonal(alone), rtol=1e-4, atol=1e-5)
        assert float(torch.linalg.svdvals(expert).min()) > 0.6


def muon_steps(parameters: list[nn.Parameter], grads: list[list[Tensor]], **settings: float) -> None:
    muon = Muon(parameters, **{"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0} | settings)
    for gradient in grads:
        for p, grad in zip(parameters, gradient, strict=True):
            p.grad = grad.clone()
        muon.step()


def test_a_stack_of_experts_moves_as_its_matrices_would_alone() -> None:
    g = torch.Generator().manual_seed(3)
    start = torch.randn(3, 6, 10, generator=g)
    grads = [torch.randn(3, 6, 10, generator=g) for _ in range(3)]
    stack, alone = nn.Parameter(start.clone()), [nn.Parameter(m.clone()) for m in start]
    muon_steps([stack], [[grad] for grad in grads])
    muon_steps(alone, [list(grad) for grad in grads])
    torch.testing.assert_close(stack.data, torch.stack([p.data for p in alone]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape, gain", [((12, 6), math.sqrt(2)), ((6, 12), 1.0)], ids=["tall", "wide"])
def test_muon_takes_nesterov_steps_of_one_size_whatever_the_gradients_size(shape: tuple[int, int], gain: float) -> None:
    """W <- W (1 - lr decay) - lr sqrt(max(1, R/C)) orthogonalise(momentum looked ahead)."""
    g = torch.Generator().manual_seed(4)
    start, grads = torch.randn(shape, generator=g), [torch.randn(shape, generator=g) for _ in range(2)]
    p = nn.Parameter(start.clone())
    muon_steps([p], [[grad] for grad in grads], weight_decay=0.5)
    buffer, slow = torch.zeros_like(start), start.clone()
    for grad in grads:
        buffer = 0.9 * buffer + 0.1 * grad
        slow = slow * (1 - 0.1 * 0.5) - 0.1 * gain * orthogonal(0.9 * buffer + 0.1 * grad)
    torch.testing.assert_close(p.data, slow, rtol=1e-4, atol=1e-5)
    moved = [nn.Parameter(start.clone()) for _ in range(2)]
    for p, size in zip(moved, (1.0, 100.0), strict=True):
        muon_steps([p], [[grads[0] * size]])
    torch.testing.assert_close(moved[0].data, moved[1].data, rtol=1e-4, atol=1e-5)


def test_muon_has_the_hidden_matrices_and_adamw_the_rest() -> None:
    names = {name for name, p in Decoder(SHAPES["v3"]).named_parameters() if not is_matrix(name, p)}
    assert {"embed_tokens.weight", "lm_head.weight", "layers.1.mlp.gate.weight", "mtp.block.mlp.gate.weight"} <= names
    assert all(
        "norm" in name or name.endswith(("embed_tokens.weight", "lm_head.weight", "gate.weight")) for name in names
    )


def test_every_parameter_has_exactly_one_optimizer() -> None:
    for matrices in ("muon", "adamw"):
        model = Decoder(SHAPES["v3"])
        optimizers = Optimizers(model, Optim(matrices=matrices), 10)
        owned = [p for o in optimizers.all for group in o.param_groups for p in group["params"]]
        assert sorted(map(id, owned)) == sorted(map(id, model.parameters()))
        assert len(optimizers.all) == (2 if matrices == "muon" else 1)


@pytest.mark.parametrize("matrices", ["adamw", "muon"])
def test_matrices_decay_whoever_moves_them_and_nothing_else_does(matrices: str) -> None:
    model = build(SHAPES["v3"])
    optimizers = Optimizers(model, Optim(matrices=matrices, weight_decay=0.5, warmup_steps=0, schedule="constant"), 10)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizers.step(0)
    rate = optimizers.config.muon_lr if matrices == "muon" else optimizers.config.lr
    for name, p in model.named_parameters():
        share = 1 - rate * 0.5 if is_matrix(name, p) else 1.0
        torch.testing.assert_close(p.detach(), before[name] * share)


def test_what_is_frozen_has_no_optimizer() -> None:
    model = build(SHAPES["v3"])
    keep_trained(model, freeze=["embed_tokens", "mlp", "layers.0"])
    optimizers = Optimizers(model, Optim(), 10)
    owned = {optimizers.names[p] for o in optimizers.all for group in o.param_groups for p in group["params"]}
    assert owned == {name for name, weight in model.named_parameters() if weight.requires_grad}
    trained(model, optimizers, range(1))
    assert {key.rpartition("/")[0] for key in optimizers.tensors()} == owned


def test_adamw_has_the_adapters_and_muon_none() -> None:
    model = add_adapters(build(SHAPES["v3"]), rank=4, scale=2.0, targets=("self_attn", "mlp"), seed=0)
    optimizers = Optimizers(model, Optim(matrices="muon"), 10)
    assert [type(o) for o in optimizers.all] == [torch.optim.AdamW]
    assert len(optimizers.names) == 2 * len(adapters(model))


@pytest.mark.parametrize(
    "train, kinds",
    [(["q_b_proj"], [Muon]), (["input_layernorm"], [torch.optim.AdamW]), (["layers.1"], [torch.optim.AdamW, Muon])],
    ids=str,
)
def test_an_optimizer_with_nothing_to_do_is_none(train: list[str], kinds: list[type]) -> None:
    model = build(SHAPES["v3"])
    keep_trained(model, train=train)
    optimizers = Optimizers(model, Optim(warmup_steps=0), 10)
    assert [type(o) for o in optimizers.all] == kinds
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    trained(model, optimizers, range(2))
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_the_gradient_norm_ignores_what_is_frozen() -> None:
    whole, part = build(SHAPES["v3"]), build(SHAPES["v3"])
    keep_trained(part, train=["layers.1.self_attn.o_proj"])
    loss, config = partial(text_loss, num_rows=len(batch().targets_BT)), Optim(matrices="adamw", warmup_steps=0)
    figures = [step(m, Optimizers(m, config, 2), batch(), loss, step_index=0)["grad_norm"] for m in (whole, part)]
    again = build(SHAPES["v3"])
    expected = torch.autograd.grad(loss(again, batch()).value, [again.blocks[1].self_attn.o_proj.weight])[0].norm()
    assert figures[1] == pytest.approx(float(expected), rel=1e-4) and figures[0] > 1.5 * figures[1]


# schedule


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_schedule_rises_to_its_peak_and_then_never_rises_again(schedule: str) -> None:
    config = Optim(warmup_steps=10, schedule=schedule, final_share=0.2)
    shares = [schedule_share(config, step, 100) for step in range(100)]
    assert shares[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert shares[9] == shares[10] == max(shares) == 1
    assert all(after <= before for before, after in pairwise(shares[9:]))
    assert shares[-1] == (1 if schedule == "constant" else pytest.approx(0.2, abs=0.01))


def test_the_middle_of_the_fall_tells_the_schedules_apart() -> None:
    share = {s: schedule_share(Optim(warmup_steps=0, schedule=s, final_share=0.0), 25, 100) for s in
             ("constant", "linear", "cosine")}  # fmt: skip
    assert share == pytest.approx({"constant": 1, "linear": 0.75, "cosine": (1 + math.cos(math.pi / 4)) / 2})


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_fall_follows_the_budget_where_that_ends_first(schedule: str) -> None:
    config = Optim(warmup_steps=0, schedule=schedule, final_share=0.1)
    fallen = [schedule_share(config, step, 100) for step in range(101)]
    assert [schedule_share(config, step, 100, used) for step, used in ((0, 0.5), (20, 0.1), (3, 1.0))] == [
        fallen[50], fallen[20], fallen[100]
    ]  # fmt: skip
    warm = Optim(warmup_steps=10, schedule=schedule, final_share=0.1)
    assert schedule_share(warm, 4, 100, 0.5) == 0.5 * fallen[50], "a budget is used in warm-up too"
    assert schedule_share(Optim(schedule="constant", warmup_steps=0), 4, 100, 0.5) == 1


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_stage_shorter_than_its_warm_up_stays_on_the_rise(steps: int) -> None:
    config = Optim(warmup_steps=20)
    assert [schedule_share(config, s, steps) for s in range(steps)] == [(s + 1) / 20 for s in range(steps)]


def test_both_optimizers_follow_the_schedule() -> None:
    optimizers = Optimizers(nn.Linear(4, 4), Optim(lr=0.01, muon_lr=0.1, warmup_steps=4), 10)
    optimizers.step(1)
    assert [group["lr"] for o in optimizers.all for group in o.param_groups] == pytest.approx([0.005, 0.05])


# steps


def batch() -> Batch:
    rng = np.random.default_rng(0)
    made = pack([Text(text(n, n), rng.random(n).astype(np.float32)) for n in (12, 9, 7, 5, 5, 3)], 14)
    made.weight_BT.div_(made.weight_BT.sum())
    return made


LOSS = partial(text_loss, mtp_weight=0.3, balance_weight=0.01, num_rows=len(batch().targets_BT))


def trained(model: Decoder, optimizers: Optimizers, steps: range, passes: int = 2, lanes: int = 1) -> dict[str, float]:
    totals: dict[str, float] = {}
    for index in steps:
        totals = step(model, optimizers, batch(), LOSS, step_index=index, passes=passes, lanes=Lanes(lanes))
        move_biases(model, totals, 0.01)
    return totals


@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_a_resumed_optimizer_goes_on_to_the_bit(matrices: str, tmp_path: Path) -> None:
    """State goes to a file and back in the middle of a run."""
    config = Optim(matrices=matrices, warmup_steps=3)
    whole = build(SHAPES["v3"])
    trained(whole, Optimizers(whole, config, 6), range(6))
    first = build(SHAPES["v3"])
    before = Optimizers(first, config, 6)
    trained(first, before, range(3))
    save_tensors(tmp_path / "state.safetensors", before.tensors())
    second = build(SHAPES["v3"], seed=1)
    second.load_state_dict(first.state_dict())
    after = Optimizers(second, config, 6)
    after.load(load_tensors(tmp_path / "state.safetensors"))
    trained(second, after, range(3, 6))
    assert all(torch.equal(w, second.state_dict()[name]) for name, w in whole.state_dict().items())
    assert not torch.equal(whole.head_VD, first.head_VD)


def test_the_state_names_every_trained_parameter() -> None:
    model = build(SHAPES["v3"])
    optimizers = Optimizers(model, Optim(), 2)
    assert optimizers.tensors() == {}
    trained(model, optimizers, range(1))
    named = {key.rpartition("/")[0] for key in optimizers.tensors()}
    assert named == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("passes", [2, 3, 99])
def test_an_update_does_not_depend_on_its_slices(passes: int) -> None:
    one, many = build(SHAPES["v3"]), build(SHAPES["v3"])
    config = Optim(matrices="adamw", warmup_steps=0, eps=1e-3)
    figures = [
        trained(model, Optimizers(model, config, 4), range(2), passes=n) for model, n in ((one, 1), (many, passes))
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-4, abs=1e-6)
    for (name, a), b in zip(one.named_parameters(), many.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5, msg=name)


def test_lanes_do_not_change_a_bit() -> None:
    alone, side_by_side = build(SHAPES["v3"]), build(SHAPES["v3"])
    for model, lanes in ((alone, 1), (side_by_side, 2)):
        trained(model, Optimizers(model, Optim(), 3), range(2), passes=3, lanes=lanes)
    assert all(torch.equal(w, side_by_side.state_dict()[name]) for name, w in alone.state_dict().items())


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_gradients_are_clipped_to_the_limit_and_only_then(limit: float) -> None:
    """The figure is the norm before clipping; a single plain SGD-like step shows the norm after it."""
    layer = nn.Linear(3, 1, bias=False)
    optimizers = Optimizers(layer, Optim(matrices="adamw", clip_norm=limit), 1)
    layer.weight.grad = torch.tensor([[3.0, 0.0, 4.0]])
    seen: list[Tensor] = []
    optimizers.all[0].register_step_pre_hook(lambda *_: seen.append(layer.weight.grad.clone()))
    assert optimizers.step(0) == {"grad_norm": pytest.approx(5), "skipped": 0}
    assert float(seen[0].norm()) == pytest.approx(min(5, limit), rel=1e-3)
    assert layer.weight.grad is None, "gradients are cleared"


def everything(model: Decoder, optimizers: Optimizers) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in {**model.state_dict(), **optimizers.tensors()}.items()}


@pytest.mark.parametrize("matrices", ["muon", "adamw"])
@pytest.mark.parametrize("harm", ["loss", "one gradient", "spike"])
def test_a_skipped_update_leaves_weights_and_optimizer_to_the_bit_as_they_were(matrices: str, harm: str) -> None:
    model = build(SHAPES["v3"])
    optimizers = Optimizers(model, Optim(matrices=matrices, spike=3.0), 40)
    trained(model, optimizers, range(KNOWN))
    before = everything(model, optimizers)

    def harmed(model: Decoder, part: Batch) -> Loss:
        good = LOSS(model, part)
        if harm == "loss":
            return Loss(good.value, good.sums | {"loss": torch.tensor(math.nan)})
        if harm == "spike":
            return Loss(good.value * 1000, good.sums)
        norm = model.norm.weight  # the loss is finite, its gradient is not: the slope of a root at 0
        return Loss(good.value + (norm[0] - norm[0].detach()).clamp(min=0).sqrt(), good.sums)

    totals = step(model, optimizers, batch(), harmed, step_index=KNOWN)
    assert totals["skipped"] == 1 and optimizers.guard.in_a_row == 1 and len(optimizers.guard.faults) == 1
    after = everything(model, optimizers)
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.grad is None for p in model.parameters())
    assert trained(model, optimizers, range(KNOWN + 1, KNOWN + 2))["skipped"] == 0
    assert not torch.equal(model.head_VD, before["lm_head.weight"])


def test_an_update_that_breaks_the_weights_is_told_with_its_number() -> None:
    model = build(SHAPES["v3"])
    optimizers = Optimizers(model, Optim(warmup_steps=0, lr=1e38), 4)
    with pytest.raises(Broken) as broken:
        trained(model, optimizers, range(2, 4))
    assert broken.value.step in (2, 3)


def test_a_step_makes_the_loss_smaller() -> None:
    model = build(SHAPES["v3"])
    optimizers = Optimizers(model, Optim(warmup_steps=0, lr=1e-2, muon_lr=1e-2), 20)
    first, last = trained(model, optimizers, range(1)), trained(model, optimizers, range(1, 15))
    assert last["loss"] < first["loss"] - 0.5 and last["mtp_loss"] < first["mtp_loss"]


def test_a_step_in_bfloat16_is_nearly_the_step_in_float32() -> None:
    figures = []
    for dtype in (torch.float32, torch.bfloat16):
        model = build(SHAPES["qwen3"])
        optimizers = Optimizers(model, Optim(warmup_steps=0), 2)
        figures.append(step(model, optimizers, batch(), text_loss, step_index=0, dtype=dtype))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert figures[1]["loss"] == pytest.approx(figures[0]["loss"], rel=0.02)
    assert figures[1]["grad_norm"] == pytest.approx(figures[0]["grad_norm"], rel=0.1)


def test_biases_move_by_the_loads_of_the_step_and_of_their_own_layer() -> None:
    model = build(SHAPES["v3"])
    before = [router.e_score_correction_bias.clone() for router in model.routers()]
    totals = {f"load/{layer}/{e}": float(e == layer) for layer in range(2) for e in range(6)}
    move_biases(model, totals, 0.01)
    for layer, (old, router) in enumerate(zip(before, model.routers(), strict=True)):
        moved = router.e_score_correction_bias - old
        expected = torch.full((6,), 0.01).index_fill(0, torch.tensor(layer), -0.01)
        torch.testing.assert_close(moved, expected)


def test_the_bias_of_a_frozen_router_is_not_moved() -> None:
    model = build(SHAPES["v3-groups"])
    keep_trained(model, freeze=["layers.0.mlp.gate"])
    before = [router.e_score_correction_bias.clone() for router in model.routers()]
    totals = step(model, Optimizers(model, Optim(), 2), batch(), text_loss, step_index=0)
    move_biases(model, totals, 0.01)
    after = [router.e_score_correction_bias for router in model.routers()]
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])


def test_a_prediction_layer_that_is_not_trained_keeps_its_bias() -> None:
    model = build(SHAPES["v3"])
    before = [router.e_score_correction_bias.clone() for router in model.routers()]
    totals = step(model, Optimizers(model, Optim(), 2), batch(), text_loss, step_index=0)
    move_biases(model, totals, 0.01)
    after = [router.e_score_correction_bias for router in model.routers()]
    assert not torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
