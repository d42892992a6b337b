"""What stands between a pass's matrix products: torch defines it, kernels.c does the same, on any shape."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest
import torch

from seekling.model import ops as ops_module
from seekling.model.attention import GroupedQueryAttention
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.kernels import library
from seekling.model.layers import RMSNorm
from seekling.model.ops import Compiled, Ops, Plain, ops_for
from seekling.model.pages import Chunk, Pages
from tests.oracles.paged import chunk_of, pool
from tests.oracles.tiny import COMMON, EXPERTS, LATENT, build, text

CPU = torch.device("cpu")
CLOSE = {torch.float32: dict(rtol=1e-5, atol=1e-6), torch.bfloat16: dict(rtol=2e-2, atol=1e-5)}
DTYPES = pytest.mark.parametrize("dtype", CLOSE, ids=str)


def compiled(dtype: torch.dtype) -> Compiled:
    found = library(str(dtype).removeprefix("torch."))
    if found is None:
        pytest.skip("no C compiler here")
    return Compiled(found, dtype)


def drawn(seed: int) -> ModelConfig:
    """What the kernels treat apart: groups of one head and more, widths of whole vectors and not, windows."""
    rng = Random(seed)
    heads = rng.choice([1, 2, 3, 4, 8])
    if seed % 2:
        told = dict(
            kv_lora_rank=rng.choice([8, 9, 32, 40, 64]), qk_nope_head_dim=rng.choice([3, 6, 32]),
            v_head_dim=rng.choice([5, 8, 32]), qk_rope_head_dim=rng.choice([2, 4, 16]),
            q_lora_rank=rng.choice([None, 7]),
        )  # fmt: skip
        return ModelConfig(**COMMON | told | dict(num_attention_heads=heads, max_position_embeddings=128))
    told = dict(
        model_type=rng.choice(["llama", "qwen2", "qwen3", "mistral"]), head_dim=rng.choice([2, 6, 16, 32, 48, 64]),
        num_key_value_heads=rng.choice([n for n in (1, 2, 4, 8) if heads % n == 0]),
    )  # fmt: skip
    if told["model_type"] == "mistral":
        told["sliding_window"] = rng.choice([3, 17, 40])
    return ModelConfig(**COMMON | told | dict(num_attention_heads=heads, max_position_embeddings=128))


def read(model: Decoder, ops: Ops, texts: list[list[int]], cuts: list[list[int]]) -> torch.Tensor:
    """States of all tokens, read in three chunks that end at each row's cuts."""
    pages, tables = pool(model.config, len(texts), 90, model.embed_tokens.weight.dtype)
    found: list[list[torch.Tensor]] = [[] for _ in texts]
    for place in range(3):
        spans = [(cut[place], cut[place + 1]) for cut in cuts]
        chunk = chunk_of([t[a:b] for t, (a, b) in zip(texts, spans, strict=True)], [a for a, _ in spans], tables)
        states = model.extend(chunk, pages, ops).states_BTD
        for row, (start, end) in enumerate(pairwise(chunk.starts.tolist())):
            found[row].append(states[start:end].float())
    return torch.cat([part for row in found for part in row])


def held(model: Decoder, dtype: torch.dtype) -> Decoder:
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).square().mean().sqrt())


def asked(seed: int) -> tuple[Decoder, list[list[int]], list[list[int]]]:
    """A model, rows of many lengths, and where three chunks of each end; pages lie in no order."""
    rng, model = Random(seed), build(drawn(seed))
    texts = [text(rng.choice([4, 16, 17, 33, 80]), row) for row in range(rng.choice([1, 2, 5]))]
    return model, texts, [[0, *sorted(rng.sample(range(1, len(t)), 2)), len(t)] for t in texts]


@pytest.mark.parametrize("seed", range(24))
def test_kernels_compute_what_torch_does(seed: int) -> None:
    model, *rows = asked(seed)
    with torch.inference_mode():
        ours, torchs = (read(model, ops, *rows) for ops in (compiled(torch.float32), Plain()))
    torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=2e-5)


def test_in_bfloat16_kernels_are_as_near_to_the_truth_as_torch_is() -> None:
    """Sums are float32 in either; over many shapes neither rounds more than the other."""
    ratios = []
    for seed in range(24):
        model, *rows = asked(seed)
        with torch.inference_mode():
            held(model, torch.bfloat16)
            ours, torchs = (read(model, ops, *rows) for ops in (compiled(torch.bfloat16), Plain()))
            true = read(held(model, torch.float32), Plain(), *rows)
        ratios.append(off(ours, true) / off(torchs, true))
    assert max(ratios) < 2 and sum(ratios) / len(ratios) < 1.05, ratios


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_the_number_of_threads_changes_no_bit_of_a_kernel(seed: int, threads: int) -> None:
    model = build(drawn(seed))
    texts = [text(40, row) for row in range(4)]
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, threads):
            torch.set_num_threads(count)
            with torch.inference_mode():
                x_ND, norm = torch.randn(64, 24, generator=torch.Generator().manual_seed(0)), model.norm
                pages, tables = pool(model.config, 4, 90)
                chunk, attention = chunk_of(texts, [0] * 4, tables), model.blocks[0].self_attn
                ops = compiled(torch.float32)
                # Products of matrices are torch's, and their threads are its own affair: they get one.
                normed = ops.add_norm(x_ND.clone(), x_ND, norm)
                gated = ops.swiglu(normed, normed)
                x = torch.randn(160, 24, generator=torch.Generator().manual_seed(1))
                found.append((normed, gated, *parts_of(attention, x, chunk, pages, ops, model.rotary_TR)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def parts_of(
    attention: Any, x: torch.Tensor, chunk: Chunk, pages: Pages, ops: Ops, rotary: torch.Tensor
) -> list[torch.Tensor]:
    """What an attention's kernels leave, given what its products gave."""
    layer, first = pages.layers[0], x[:, :1]
    if isinstance(attention, GroupedQueryAttention):
        widths = [proj.weight.shape[0] for proj in (attention.q_proj, attention.k_proj, attention.v_proj)]
        q, k, v = (first.expand(-1, width).contiguous() for width in widths)
        return [ops.attend_gqa((q, k, v), None, attention.shape, rotary, chunk, layer), *layer]
    heads, latent = attention.heads, attention.latent
    q = first.expand(-1, heads * (attention.nope + attention.rope)).contiguous().unflatten(-1, (heads, -1))
    entry = first.expand(-1, latent + attention.rope).contiguous()
    q = ops.write_mla(q, entry, attention.kv_a_layernorm, attention.shape, rotary, chunk, layer)
    absorbed = first.expand(-1, latent).expand(heads, -1, -1).contiguous()
    return [ops.attend_mla(absorbed, q, attention.shape, chunk, layer), *layer]


def routed(seed: int) -> ModelConfig:
    """Experts of many shapes: in groups or not, with a bias or without, weights normed or not, shared ones or none."""
    rng = Random(seed)
    groups = rng.choice([1, 1, 2, 4])
    experts = groups * rng.choice([2, 3, 8])
    kept = rng.randint(1, groups)
    told = dict(
        model_type=rng.choice(["deepseek_v3", "deepseek_v2"]), n_routed_experts=experts, n_group=groups,
        topk_group=kept, num_experts_per_tok=rng.randint(1, min(6, experts // groups * kept)),
        moe_intermediate_size=rng.choice([1, 7, 16, 40]), hidden_size=rng.choice([13, 24, 64]),
        norm_topk_prob=rng.random() < 0.5, routed_scaling_factor=rng.choice([1.0, 2.5]),
        n_shared_experts=rng.choice([0, 1, 2]), first_k_dense_replace=0,
    )  # fmt: skip
    if told["model_type"] == "deepseek_v2":
        told["norm_topk_prob"] = False
    return ModelConfig(**LATENT | told)


@pytest.mark.parametrize("seed", range(30))
def test_experts_are_chosen_weighed_and_asked_as_torch_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, config = Random(seed), routed(seed)
    monkeypatch.setattr(ops_module, "FEW_ROWS_EACH", 10**6)
    mlp = build(config).blocks[0].mlp
    x_ND = torch.randn(rng.choice([1, 2, 5, 33]), config.hidden_size, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        (ours, routing), (torchs, other) = (ops.feed(mlp, x_ND) for ops in (compiled(torch.float32), Plain()))
    assert torch.equal(routing.chosen_NA.sort(-1).values, other.chosen_NA.sort(-1).values)
    torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=2e-5)
    assert torch.equal(routing.scores_NE, other.scores_NE)


def test_experts_in_bfloat16_are_as_near_to_the_truth_as_torchs() -> None:
    ratios = []
    for seed in range(16):
        model = build(routed(seed))
        x_ND = torch.randn(20, model.config.hidden_size, generator=torch.Generator().manual_seed(seed))
        x_ND = x_ND.bfloat16().float()
        mlp = held(model, torch.bfloat16).blocks[0].mlp
        with torch.inference_mode():
            ours, torchs = (ops.feed(mlp, x_ND.bfloat16())[0].float() for ops in (compiled(torch.bfloat16), Plain()))
            true = Plain().feed(held(model, torch.float32).blocks[0].mlp, x_ND)[0]
        ratios.append(off(ours, true) / off(torchs, true))
    assert max(ratios) < 1.5 and sum(ratios) / len(ratios) < 1.02, ratios


def test_the_number_of_threads_changes_no_bit_of_experts() -> None:
    """The router's product is torch's; without shared experts all else is a kernel's."""
    config = routed(3).model_copy(update={"n_shared_experts": 0})
    mlp, before = build(config).blocks[0].mlp, torch.get_num_threads()
    x_ND = torch.randn(33, config.hidden_size, generator=torch.Generator().manual_seed(0))
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                fed_ND, routing = compiled(torch.float32).feed(mlp, x_ND)
            found.append((fed_ND, routing.chosen_NA))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for pair in found for one, other in zip(pair, found[0], strict=True))


SHAPES = {
    "tiles": LATENT | dict(
        hidden_size=64, intermediate_size=96, moe_intermediate_size=48, n_routed_experts=6, num_experts_per_tok=3,
        n_shared_experts=1, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=40,
    ),
    "low rank": LATENT | dict(hidden_size=64, q_lora_rank=32),
    "vectors": LATENT | dict(hidden_size=44, n_routed_experts=5, moe_intermediate_size=21),
    "qwen2": COMMON | dict(
        model_type="qwen2", num_attention_heads=4, hidden_size=64, intermediate_size=72, head_dim=16,
        num_key_value_heads=2,
    ),
    "qwen3": COMMON | dict(model_type="qwen3", hidden_size=64, intermediate_size=160, head_dim=32),
    "window": COMMON | dict(model_type="mistral", hidden_size=40, head_dim=16, sliding_window=5),
}  # fmt: skip
SHAPED = pytest.mark.parametrize("shape", SHAPES)


def states(model: Decoder, ops: Ops, spans: list[tuple[int, int, int]], room: int = 48) -> torch.Tensor:
    """States after what a second pass reads of several texts: (which, from, to); a first has read what is before."""
    pages, tables = pool(model.config, len(spans), room, model.embed_tokens.weight.dtype)
    texts = [text(room, row) for row, _, _ in spans]
    with torch.inference_mode():
        if any(start for _, start, _ in spans):
            model.extend(
                chunk_of([t[:start] for t, (_, start, _) in zip(texts, spans, strict=True)], [0] * len(spans), tables),
                pages,
                ops,
            )
        read = [t[start:end] for t, (_, start, end) in zip(texts, spans, strict=True)]
        chunk = chunk_of(read, [start for _, start, _ in spans], tables)
        return ops.logits(model, model.extend(chunk, pages, ops).states_BTD)


@SHAPED
@DTYPES
def test_a_block_in_one_call_is_the_block_by_parts(shape: str, dtype: torch.dtype) -> None:
    model, found = held(build(ModelConfig(**SHAPES[shape])), dtype), library(str(dtype).removeprefix("torch."))
    spans = [(row, 20, 20 + 1 + row % 3) for row in range(13)]
    compiled(dtype)
    assert found is not None
    whole, parts = (states(model, Compiled(found, dtype, rows), spans) for rows in (10**6, 0))
    bound = 1e-5 if dtype == torch.float32 else 0.02
    assert off(whole.float(), parts.float()) < bound * float(parts.float().square().mean().sqrt())


@SHAPED
@DTYPES
def test_to_the_bit_a_token_does_not_depend_on_what_is_read_beside_it(shape: str, dtype: torch.dtype) -> None:
    """One token alone, among 38 rows, and at the end of a longer piece of its own text."""
    model, ops = held(build(ModelConfig(**SHAPES[shape])), dtype), compiled(dtype)
    ops.few_rows = 10**6
    alone = states(model, ops, [(7, 20, 21)])
    beside = states(model, ops, [(row, 20, 21) for row in range(38)])
    longer = states(model, ops, [(row, 9 + row, 21) for row in range(9)])
    ends = torch.tensor([12 - row for row in range(9)]).cumsum(0) - 1
    assert torch.equal(alone[0], beside[7])
    assert torch.equal(alone[0], longer[ends[7]])


@SHAPED
@DTYPES
def test_the_number_of_threads_changes_no_bit_of_a_block(shape: str, dtype: torch.dtype) -> None:
    model, before, found = held(build(ModelConfig(**SHAPES[shape])), dtype), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            ops = compiled(dtype)
            ops.few_rows = 10**6
            found.append(states(model, ops, [(row, 20, 21) for row in range(32)]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_what_a_page_held_before_is_never_seen() -> None:
    """Pages come back with the entries of others; even numbers that are none change nothing."""
    for config in (ModelConfig(**LATENT), ModelConfig(**COMMON | dict(model_type="llama", head_dim=32))):
        model = build(config)
        with torch.inference_mode():
            pages, tables = pool(config, 1, 40)
            clean = model.extend(chunk_of([text(21)], [0], tables), pages, compiled(torch.float32)).states_BTD
            for layer in pages.layers:
                for part in layer:
                    part.fill_(float("nan"))
            again = model.extend(chunk_of([text(21)], [0], tables), pages, compiled(torch.float32)).states_BTD
        assert torch.equal(clean, again)


@DTYPES
def test_a_stream_is_normed_as_torch_norms_it_and_gates_likewise(dtype: torch.dtype) -> None:
    ops, generator = compiled(dtype), torch.Generator().manual_seed(0)
    for width in (1, 13, 64, 300):
        norm = RMSNorm(width, 1e-6).to(dtype)
        x, y = torch.randn(5, width, generator=generator), (30 * torch.randn(5, width, generator=generator)).to(dtype)
        ours, torchs = x.clone(), x.clone()
        torch.testing.assert_close(ops.add_norm(ours, y, norm), Plain().add_norm(torchs, y, norm), **CLOSE[dtype])
        torch.testing.assert_close(ours, torchs, rtol=1e-6, atol=1e-6)
        gate, up = y, x.to(dtype)
        torch.testing.assert_close(ops.swiglu(gate, up), Plain().swiglu(gate, up), **CLOSE[dtype])
        both = torch.cat((gate, up), -1)
        assert torch.equal(ops.swiglu(*both.chunk(2, -1)), ops.swiglu(gate, up)), "halves of one product need no copy"


def test_a_gate_far_out_is_nothing_or_itself() -> None:
    gate = torch.tensor([[-1e4, -100.0, -88.0, 0.0, 88.0, 100.0, 1e4]])
    gated = compiled(torch.float32).swiglu(gate, torch.ones_like(gate))
    torch.testing.assert_close(gated, torch.nn.functional.silu(gate), rtol=1e-5, atol=1e-30)


def test_a_float64_model_is_read_in_float64() -> None:
    assert isinstance(ops_for(torch.float64, CPU), Plain)
    model, tokens = build(ModelConfig(**EXPERTS), dtype=torch.float64), text(20)
    (pages, tables), (others, _) = (pool(model.config, 1, 20, torch.float64) for _ in range(2))
    with torch.inference_mode():
        whole = model.extend(chunk_of([tokens], [0], tables), pages, Plain()).states_BTD
        parts = [model.extend(chunk_of([[x]], [t], tables), others, Plain()).states_BTD for t, x in enumerate(tokens)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-11)
