"""Every supported family as transformers builds it: small odd configurations drawn at random, with random weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    DeepseekV3Config,
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)  # fmt: skip

from seekling.engine.config import Sampling
from seekling.engine.engine import Engine, Request
from seekling.model.decoder import Decoder, Rows
from seekling.model.weights import load_model, save_model
from tests.oracles.tiny import V, alone

Draw = Random


def _common(rng: Draw) -> dict[str, Any]:
    heads = rng.choice([2, 4, 6])
    return dict(
        vocab_size=V, hidden_size=heads * rng.choice([3, 5, 8]), num_hidden_layers=rng.choice([2, 3]),
        intermediate_size=rng.choice([13, 20, 32]), num_attention_heads=heads,
        max_position_embeddings=64, rms_norm_eps=rng.choice([1e-6, 1e-5]),
        tie_word_embeddings=rng.random() < 0.4, initializer_range=0.2, bos_token_id=1, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip


def _rope(rng: Draw, deepseek: bool = False) -> dict[str, Any]:
    theta = {"rope_theta": rng.choice([100.0, 1e4, 1e6])}
    yarn: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": rng.choice([2.0, 8.0]),
        "original_max_position_embeddings": 16,
    }
    kinds: list[dict[str, Any]] = [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": 2.5},
        {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 32},
        yarn, yarn | {"beta_fast": 8.0, "beta_slow": 2.0}, yarn | {"attention_factor": 1.3},
    ]  # fmt: skip
    if deepseek:
        kinds = [
            kinds[0],
            *(yarn | {"mscale": a, "mscale_all_dim": b} for a, b in ((1.0, 1.0), (0.707, 0.707), (1.0, 0.5))),
        ]
    return {"rope_parameters": rng.choice(kinds) | theta}


def _grouped(rng: Draw) -> dict[str, Any]:
    shape = _common(rng)
    heads = shape["num_attention_heads"]
    shared = rng.choice([n for n in (1, 2, heads) if heads % n == 0])
    return shape | _rope(rng) | dict(num_key_value_heads=shared, head_dim=rng.choice([4, 6, 10]))


def _windowed(rng: Draw) -> dict[str, Any]:
    on = rng.random() < 0.5
    return dict(use_sliding_window=on, sliding_window=rng.choice([3, 7]), max_window_layers=rng.choice([0, 1]))


def _latent(rng: Draw) -> dict[str, Any]:
    shape = _common(rng) | _rope(rng, deepseek=True)
    return shape | dict(
        num_key_value_heads=shape["num_attention_heads"], q_lora_rank=rng.choice([None, 7]),
        kv_lora_rank=rng.choice([8, 9]), qk_rope_head_dim=rng.choice([2, 4]), qk_nope_head_dim=rng.choice([3, 6]),
        v_head_dim=rng.choice([5, 8, 14]), n_shared_experts=rng.choice([1, 2]), attention_bias=rng.random() < 0.3,
        moe_intermediate_size=rng.choice([5, 8]), first_k_dense_replace=rng.choice([0, 1]),
    )  # fmt: skip


def _qwen2(rng: Draw) -> Any:
    shape = _grouped(rng)
    del shape["head_dim"]  # Qwen2 knows none of its own
    shape["hidden_size"] = shape["num_attention_heads"] * rng.choice([4, 6])
    return Qwen2Config(**shape | _windowed(rng))


def _qwen3_moe(rng: Draw) -> Any:
    experts = dict(
        num_experts=rng.choice([4, 6]), num_experts_per_tok=2, moe_intermediate_size=rng.choice([5, 8]),
        norm_topk_prob=rng.random() < 0.5, decoder_sparse_step=rng.choice([1, 2]),
        mlp_only_layers=rng.choice([[], [0]]), attention_bias=rng.random() < 0.3,
    )  # fmt: skip
    window = _windowed(rng)
    del window["max_window_layers"]
    return Qwen3MoeConfig(**_grouped(rng) | experts | window)


def _deepseek_v2(rng: Draw) -> Any:
    """Even widths only: this port of theirs reads rotated pairs as complex numbers in place."""
    groups = rng.choice([1, 3])
    method = "greedy" if groups == 1 else "group_limited_greedy"
    routing = dict(
        n_routed_experts=6, num_experts_per_tok=2, n_group=groups, topk_group=min(groups, 2), topk_method=method
    )
    even = dict(kv_lora_rank=8, qk_nope_head_dim=6, routed_scaling_factor=rng.choice([1.0, 16.0]))
    return DeepseekV2Config(**_latent(rng) | routing | even)


def _deepseek_v3(rng: Draw) -> Any:
    groups = rng.choice([1, 3])
    routing = dict(
        n_routed_experts=6, num_experts_per_tok=2, n_group=groups, topk_group=min(groups, 2),
        norm_topk_prob=rng.random() < 0.7, routed_scaling_factor=rng.choice([1.0, 2.5]),
        rope_interleave=rng.random() < 0.7, num_mtp_layers=rng.choice([0, 1]),
    )  # fmt: skip
    return DeepseekV3Config(**_latent(rng) | routing)


MAKERS: dict[str, Callable[[Draw], Any]] = {
    "llama": lambda rng: LlamaConfig(
        **_grouped(rng) | dict(attention_bias=rng.random() < 0.3, mlp_bias=rng.random() < 0.3)
    ),
    "mistral": lambda rng: MistralConfig(**_grouped(rng) | dict(sliding_window=rng.choice([None, 3, 7]))),
    "qwen2": _qwen2,
    "qwen3": lambda rng: Qwen3Config(**_grouped(rng) | _windowed(rng) | dict(attention_bias=rng.random() < 0.3)),
    "qwen3_moe": _qwen3_moe,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
}


def theirs(family: str, seed: int) -> Any:
    """A model of transformers, seeded: norms off one, biases and router biases off zero, so that nothing hides."""
    config = MAKERS[family](Draw(f"{family}/{seed}"))
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, experts_implementation="eager").eval()
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if weight.ndim == 1 and not name.endswith("inv_freq"):
                offset = 0.0 if name.endswith("bias") else 0.7
                weight.copy_(offset + 0.4 * (torch.rand(weight.shape, generator=generator) - 0.5 * (offset == 0)))
            elif weight.ndim >= 2:
                weight.copy_(0.25 * torch.randn(weight.shape, generator=generator))
    model.tie_weights()
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)
    return model


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two models are apart: logits relative to the largest, and greedy tokens that differ, near ties apart."""

    logits: float
    padded: float
    greedy_differs: int
    exported: float
    round_trip_bits: bool
    stray_keys: tuple[str, ...]


def prompts(seed: int) -> list[list[int]]:
    """Three prompts of different lengths."""
    rng = Random(seed)
    return [[rng.randrange(2, V) for _ in range(length)] for length in (19, 7, 12)]


def logits_of_theirs(model: Any, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Logits [T, V] of each row, all in one padded batch."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        return [out[: len(row)] for out, row in zip(model(ids, attention_mask=mask).logits, rows, strict=True)]


def logits_of_ours(model: Decoder, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """The same, as packed rows with padding behind."""
    width = max(map(len, rows)) + 2
    ids, segments = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)], segments[place, : len(row)] = torch.tensor(row), 1
    with torch.no_grad():
        out = model.logits(model(Rows(ids, torch.arange(width).expand_as(ids), segments)).states_BTD)
    return [logits[: len(row)] for logits, row in zip(out, rows, strict=True)]


def gap(ours: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Largest difference, relative to the largest logit."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, other, strict=True))


def greedy_differences(ours: Decoder, other: Any, rows: Sequence[Sequence[int]], count: int = 12) -> int:
    """Tokens in which greedy continuations part, unless our two best logits lay within 1e-4 there."""
    said = Engine(ours, stop_tokens=-1).generate(
        [Request(tuple(row), 0) for row in rows], Sampling(temperature=0, max_tokens=count)
    )
    differs = 0
    for row, completion in zip(rows, said, strict=True):
        for use_cache in (True, False):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                out = other.generate(torch.tensor([row]), max_new_tokens=count, use_cache=use_cache, do_sample=False)
            differs += not _same(ours, row, completion.tokens, out[0, len(row) :].tolist())
    return differs


def _same(model: Decoder, row: Sequence[int], one: Sequence[int], other: Sequence[int]) -> bool:
    part = next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), None)
    if part is None:
        return True
    with torch.no_grad():
        best = model.logits(model(alone([*row, *one[:part]])).states_BTD)[0, -1].topk(2).values
    return bool(best[0] - best[1] < 1e-4)


def compare(family: str, seed: int, folder: Path) -> Agreement:
    """Everything that must agree for one drawn model, measured."""
    other, rows = theirs(family, seed), prompts(seed)
    other.save_pretrained(folder / "theirs")
    ours = load_model(folder / "theirs")
    single = gap([logits_of_ours(ours, [row])[0] for row in rows], [logits_of_theirs(other, [row])[0] for row in rows])
    padded = gap(logits_of_ours(ours, rows), logits_of_theirs(other, rows))
    save_model(folder / "ours", ours)
    again, state = load_model(folder / "ours").state_dict(), ours.state_dict()
    back, report = AutoModelForCausalLM.from_pretrained(
        folder / "ours", output_loading_info=True, dtype=torch.float32, experts_implementation="eager"
    )
    stray = [*report["missing_keys"], *report["unexpected_keys"], *map(str, report["mismatched_keys"])]
    ahead = f"model.layers.{ours.config.num_hidden_layers}."
    alone_back = [logits_of_theirs(back.eval(), [row])[0] for row in rows]
    return Agreement(
        single, padded, greedy_differences(ours, other, rows),
        gap([logits_of_ours(ours, [row])[0] for row in rows], alone_back),
        state.keys() == again.keys() and all(torch.equal(tensor, again[name]) for name, tensor in state.items()),
        tuple(key for key in stray if not key.startswith(ahead)),
    )  # fmt: skip
