"""A training pass by learning.c: torch defines what is computed, there and back; C does the same, on any shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from seekling.learn.batch import Text, pack
from seekling.learn.config import Optim
from seekling.learn.optim import Optimizers
from seekling.learn.update import step, text_loss
from seekling.model import fused
from seekling.model.attention import GroupedQueryAttention, attend
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder, Rows
from seekling.model.layers import RMSNorm, gated
from seekling.model.lora import add_adapters
from tests.oracles.tiny import COMMON, SHAPES, V, build

CLOSE = {torch.float32: dict(rtol=1e-5, atol=1e-5), torch.bfloat16: dict(rtol=2e-2, atol=2e-2)}
DTYPES = pytest.mark.parametrize("dtype", CLOSE, ids=str)
MODELS = SHAPES | {
    "qwen2, of bias": ModelConfig(**COMMON | dict(num_attention_heads=4, num_key_value_heads=1, head_dim=6),
                                  model_type="qwen2"),
    "halves": SHAPES["v3"].model_copy(update={"rope_interleave": False}),
}  # fmt: skip
MODELS["mistral"] = ModelConfig(**COMMON | dict(model_type="mistral", head_dim=34, sliding_window=7))
Result = tuple[Tensor, ...]


@pytest.fixture(autouse=True)
def needs_a_compiler() -> None:
    if fused.library("learning") is None:
        pytest.skip("no C compiler here")


def both_ways(work: Callable[[], Result]) -> tuple[Result, Result]:
    """What ``work`` finds by C and by torch."""
    ours, found = work(), fused.library
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "library", lambda _: None)
        torchs = work()
    assert fused.library is found
    return ours, torchs


def with_grads(of: Callable[..., Tensor | Result], *given: Tensor) -> Result:
    """What ``of`` makes, and the gradients of what is given, from gradients that are drawn."""
    leaves = [x.detach().requires_grad_() for x in given]
    made = of(*leaves)
    outs = (made,) if isinstance(made, Tensor) else tuple(made)
    grads = torch.autograd.grad(outs, leaves, [drawn(x.shape, 9).to(x.dtype) for x in outs])
    return (*outs, *grads)


def drawn(shape: Sequence[int], seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(one: Result, other: Result, dtype: torch.dtype) -> None:
    for ours, torchs in zip(one, other, strict=True):
        assert ours.shape == torchs.shape and ours.dtype == torchs.dtype
        spread = max(1.0, float(torchs.detach().float().square().mean().sqrt())) if torchs.numel() else 1.0
        told = CLOSE[dtype]
        torch.testing.assert_close(ours, torchs, rtol=told["rtol"], atol=told["atol"] * spread)


@DTYPES
@pytest.mark.parametrize("rows", [0, 1, 63, 200])
@pytest.mark.parametrize("width", [1, 13, 64, 300])
def test_a_norm_and_its_gradients_are_torchs(width: int, rows: int, dtype: torch.dtype) -> None:
    norm = RMSNorm(width, 1e-6)
    x, weight = drawn((2, rows, width)).to(dtype), 1 + 0.3 * drawn((width,), 1)

    def normed(x: Tensor, weight: Tensor) -> Tensor:
        norm.weight = weight  # type: ignore[assignment]
        return norm(x)

    del norm.weight
    close(*both_ways(lambda: with_grads(normed, x, weight)), dtype)


@DTYPES
def test_what_is_added_before_a_norm_gets_the_gradients_of_both(dtype: torch.dtype) -> None:
    norm = RMSNorm(40, 1e-6)
    given = drawn((3, 70, 40)), drawn((3, 70, 40), 1).to(dtype)
    close(*both_ways(lambda: with_grads(norm.add, *given)), dtype)


def test_a_sum_whose_norm_alone_is_used_has_its_gradient_too() -> None:
    norm = RMSNorm(8, 1e-6)
    close(
        *both_ways(lambda: with_grads(lambda x, y: norm.add(x, y)[1], drawn((5, 8)), drawn((5, 8), 1))), torch.float32
    )


@DTYPES
def test_a_slice_of_columns_is_normed_where_it_lies(dtype: torch.dtype) -> None:
    norm, whole = RMSNorm(9, 1e-6), drawn((2, 31, 24)).to(dtype)
    close(*both_ways(lambda: with_grads(lambda x: norm(x[..., 5:14]), whole)), dtype)
    close(*both_ways(lambda: with_grads(lambda x: norm(x.transpose(0, 1)[..., 5:14]), whole)), dtype)


@DTYPES
@pytest.mark.parametrize("shape", [(0, 6), (1, 2), (3, 5, 26), (70, 1200)])
def test_a_gate_and_its_gradient_are_torchs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    both = (3 * drawn(shape)).to(dtype)
    close(*both_ways(lambda: with_grads(gated, both)), dtype)


def test_a_gate_far_out_is_nothing_or_itself_there_and_back() -> None:
    gate = torch.tensor([[-1e4, -100.0, -88.0, 0.0, 88.0, 100.0, 1e4]])
    ours, torchs = both_ways(lambda: with_grads(gated, torch.cat((gate, torch.ones_like(gate)), -1)))
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-30)


def looked(q: Tensor, k: Tensor, v: Tensor, rows: Rows, window: int | None) -> Tensor:
    """What attention says [B, T, H V], by whoever does it here."""
    if (c := fused.learning(q)) is not None:
        return fused.attend(c, q, k, v, rows.first(window), 0.3)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return attend(q, k, v, rows.bias(q, window), 0.3).transpose(1, 2).flatten(2)


def packed(length: int) -> Rows:
    """Two rows of segments of all lengths, one of them ending in padding."""
    places = torch.arange(length)
    segments_BT = torch.stack((1 + (places * 2).float().sqrt().long(), (1 + places // 19) * (places < 0.8 * length)))
    return Rows(segments_BT, segments_BT, segments_BT)


@pytest.mark.parametrize("window", [None, 1, 9, 40])
@pytest.mark.parametrize(("width", "values"), [(1, 1), (8, 24), (16, 8), (32, 32), (40, 33)])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 100])
def test_attention_and_its_gradients_are_torchs(length: int, width: int, values: int, window: int | None) -> None:
    rows, shape = packed(length), (2, length, 3)
    given = drawn((*shape, width)), drawn((*shape, width), 1), drawn((*shape, values), 2)
    close(*both_ways(lambda: with_grads(lambda q, k, v: looked(q, k, v, rows, window), *given)), torch.float32)


def test_a_score_far_above_others_is_all_that_counts() -> None:
    q, k, v = (30 * drawn((1, 33, 2, 8), seed) for seed in range(3))
    rows = Rows(*[torch.ones(1, 33, dtype=torch.long)] * 3)
    close(*both_ways(lambda: (looked(q, k, v, rows, None),)), torch.float32)


def batch_of(model: Decoder, rows: int = 6) -> Callable[[], Result]:
    """A pass over packed texts with padding, and every gradient."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 30, 3 * rows)
    texts = [Text(rng.integers(0, V, n).tolist(), np.full(n, 1 / lengths.sum(), np.float32)) for n in lengths]
    batch = pack(texts, 40)
    mtp = 0.3 if model.mtp is not None else 0.0

    def work(dtype: torch.dtype = torch.float32) -> Result:
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16, cache_enabled=False):
            value = text_loss(model, batch, mtp_weight=mtp, num_rows=len(batch.targets_BT)).value
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        found = torch.autograd.grad(value, trained, allow_unused=True)
        return (value.detach(), *(grad for grad in found if grad is not None))

    return work


def apart(one: Result, other: Result) -> float:
    """The largest distance of two gradients, relative."""
    return max(float((a - b).norm() / b.norm().clamp_min(1e-3)) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_every_gradient_of_a_model_is_torchs(name: str) -> None:
    assert apart(*both_ways(batch_of(build(MODELS[name])))) < 2e-5


@pytest.mark.parametrize("name", ["v3", "qwen3"])
def test_every_gradient_of_adapters_is_torchs(name: str) -> None:
    model = build(MODELS[name])
    add_adapters(model, rank=2, scale=1.0, targets=("self_attn", "mlp"), seed=0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += weight.requires_grad * 0.1 * drawn(weight.shape)
    assert apart(*both_ways(batch_of(model))) < 2e-5


def test_in_bfloat16_gradients_are_as_near_to_the_truth_as_torchs() -> None:
    """Sums are float32 in either; over many shapes neither rounds more than the other."""
    ratios = []
    for config in MODELS.values():
        work = batch_of(build(config))
        ours, torchs = both_ways(partial(work, torch.bfloat16))
        true = work()
        ours_off, torchs_off = (
            sum(float((a - b).square().sum()) for a, b in zip(found, true, strict=True)) ** 0.5
            for found in (ours, torchs)
        )
        ratios.append(ours_off / torchs_off)
    assert max(ratios) < 1.5 and sum(ratios) / len(ratios) < 1.05, ratios


def test_float64_is_torchs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "library", lambda _: pytest.fail("asked for"))
    batch_of(build(MODELS["v3"], dtype=torch.float64))(torch.float64)


@pytest.mark.parametrize("name", ["v3", "qwen3"])
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_the_number_of_threads_changes_no_bit(name: str, dtype: torch.dtype) -> None:
    """Of what C does: products, which are torch's, get one thread."""
    model, before = build(MODELS[name]), torch.get_num_threads()
    norm, x = model.norm, drawn((5, 37, 24))
    attention = model.blocks[0].self_attn
    rotary = model.rotary_TR[torch.arange(37)].expand(5, -1, -1)
    heads, width = attention.heads, MODELS[name].qk_head_dim

    def turned(*parts: Tensor) -> Result:
        c = fused.library("learning")
        assert c is not None
        if isinstance(attention, GroupedQueryAttention):
            norms = (norm.weight[:width], norm.weight[:width])
            return fused.grouped(c, *parts, norms, 1e-6, rotary, heads, attention.kv_heads)
        return fused.latent(c, *parts, rotary, heads, interleaved=True)

    if isinstance(attention, GroupedQueryAttention):
        parts = [drawn((5, 37, (heads + 2 * attention.kv_heads) * width)).to(dtype)]
    else:
        own = attention.nope + attention.v_width
        parts = [drawn((5, 37, size)).to(dtype) for size in (heads * width, heads * own, attention.rope)]
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            done = with_grads(norm.add, x, x.to(dtype)), with_grads(gated, x.to(dtype)), with_grads(turned, *parts)
            rows, seen = packed(100), (drawn((2, 100, 3, 17), seed) for seed in range(3))
            done = *done, with_grads(partial(looked, rows=rows, window=None), *seen)
            (of_weight,) = torch.autograd.grad(norm(x).sum(), norm.weight)
            found.append([of_weight, *(tensor for made in done for tensor in made)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for more in found[1:] for one, other in zip(found[0], more, strict=True))


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_a_training_step_with_and_without_kernels_agrees(dtype: torch.dtype) -> None:
    """Two steps of AdamW: losses and norms alike, and weights moved alike where a gradient is no rounding."""
    rng = np.random.default_rng(0)
    texts = [Text(rng.integers(0, V, 20).tolist(), np.full(20, 1 / 240, np.float32)) for _ in range(12)]
    batch = pack(texts, 40)

    def work() -> Result:
        model = build(MODELS["v3"])
        optimizers = Optimizers(model, Optim(matrices="adamw", lr=1e-4, warmup_steps=0), 4)
        loss = partial(text_loss, mtp_weight=0.3, num_rows=len(batch.targets_BT))
        told = [step(model, optimizers, batch, loss, step_index=place, dtype=dtype) for place in range(2)]
        return tuple(torch.tensor([row["loss"], row["grad_norm"]]) for row in told)

    ours, torchs = both_ways(work)
    rtol = 1e-5 if dtype == torch.float32 else 2e-2
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=0)


def test_nothing_is_kept_that_torch_does_not_keep() -> None:
    """A norm keeps its input and a number a row; a gate its input alone."""
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):  # type: ignore[func-returns-value]
        RMSNorm(40, 1e-6)(drawn((7, 40)).requires_grad_())
        gated(drawn((7, 40)).requires_grad_())
    assert sorted(kept) == [7, 40, 280, 280]
