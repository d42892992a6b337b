"""What a model is, from its config alone: parts, sizes, cost per token, memory, and who will load it. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seekling.model.config import ModelConfig
from seekling.model.count import count_parameters, flops_per_token

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
CONTEXT = 4096
"""Context at which costs that grow with it are told."""
GPU_LATENT = 576
"""Latent and rotated width that vLLM's GPU kernels for latent attention are built for: DeepSeek's 512 + 64."""


def describe(config: ModelConfig) -> dict[str, str]:
    """Label -> what a person wants to know of a shape, in the order of telling."""
    count, context = count_parameters(config), min(CONTEXT, config.max_position_embeddings)
    forward, train = (flops_per_token(config, context, training=training) for training in (False, True))
    cached = config.cache_width * config.num_hidden_layers
    told = {
        "family": config.model_type,
        "layers": f"{config.num_hidden_layers} of width {config.hidden_size}",
        "attention": attention(config),
        "positions": positions(config),
        "feed-forward": feed_forward(config),
        "vocabulary": f"{config.vocab_size:,}, head {'the embedding' if config.tie_word_embeddings else 'of its own'}",
        "parameters": f"{quantity(count.total)} in all, {quantity(count.active)} met by one token (the table apart)",
        "prediction layer": f"{quantity(count.mtp)} parameters, in neither count" if count.mtp else "",
        "FLOPs per token": f"{quantity(forward)} forward, {quantity(train)} to train, at {context:,} tokens of context",
        "cache per token": f"{cached:,} numbers, {size(2 * cached)} in bfloat16 ({cache_kind(config)})",
        "memory of weights": ", ".join(f"{size(n * (count.total + count.mtp))} {kind}" for kind, n in BYTES.items()),
    }
    return {label: text for label, text in told.items() if text}


def attention(config: ModelConfig) -> str:
    """Kind of attention, heads and widths in a line."""
    c, bias = config, ", biases" if config.attention_bias or config.parts.qkv_bias else ""
    if c.parts.attention == "mla":
        query = f"queries through {c.q_lora_rank}" if c.q_lora_rank else "plain queries"
        widths = f"{c.qk_nope_head_dim} + {c.qk_rope_head_dim} rotated, values {c.v_head_dim}"
        return f"latent (MLA), {c.num_attention_heads} heads of {widths}; latent {c.kv_lora_rank}, {query}{bias}"
    kind = "multi-head" if c.kv_heads == c.num_attention_heads else "grouped-query"
    norm = ", queries and keys normalised" if c.parts.qk_norm else ""
    return f"{kind}, {c.num_attention_heads} heads of {c.qk_head_dim}, {c.kv_heads} for keys and values{norm}{bias}"


def positions(config: ModelConfig) -> str:
    """Longest context, rotary base, stretching and window in a line."""
    text = f"up to {config.max_position_embeddings:,}, rotary base {config.rope_theta:,.0f}"
    if scaling := config.rope_scaling:
        text += f", stretched {scaling.factor:g} times ({scaling.rope_type})"
    if config.sliding_window is not None:
        first = config.max_window_layers
        text += f", window of {config.sliding_window:,} tokens" + (f" from layer {first} on" if first else "")
    return text


def feed_forward(config: ModelConfig) -> str:
    """Dense width, and how layers route, in a line."""
    c, routed = config, len(config.moe_layers)
    if not routed:
        return f"dense, {c.intermediate_size:,} wide"
    shared = f" + {c.n_shared_experts} shared" if c.n_shared_experts else ""
    groups = f", {c.topk_group} of {c.n_group} groups" if c.n_group > 1 else ""
    bias = " with a moved bias" if c.parts.scoring == "sigmoid" else ""
    dense = f"; {c.num_hidden_layers - routed} dense of {c.intermediate_size:,}" if routed < c.num_hidden_layers else ""
    experts = f"{c.num_experts_per_tok} of {c.n_routed_experts} experts{shared}, {c.moe_intermediate_size:,} wide each"
    return f"{routed} layers with {experts}, {c.parts.scoring} router{bias}{groups}{dense}"


def cache_kind(config: ModelConfig) -> str:
    """What the cache holds."""
    return "latents and rotated keys" if config.parts.attention == "mla" else "keys and values"


def loaders(config: ModelConfig) -> dict[str, str]:
    """Engine -> whether it will load an exported folder of this shape, and why."""
    vllm = "yes"
    latent = config.kv_lora_rank + config.qk_rope_head_dim
    if config.parts.attention == "mla" and latent != GPU_LATENT:
        vllm = (
            f"yes, with VLLM_MLA_DISABLE=1: its kernels for latent attention want kv_lora_rank + qk_rope_head_dim = "
            f"{GPU_LATENT}, this is {latent}"
        )
    if config.parts.attention == "mla" and config.n_routed_experts is None:
        vllm = "not shown: a DeepSeek without experts"
    return {"transformers": "yes (5.0 or newer)", "vLLM": vllm, "seekling": "yes"}


def unusual(config: ModelConfig, values: Mapping[str, Any], strange: list[str]) -> list[str]:
    """What a reader should not miss: what is rare, what was passed over, what will be converted."""
    found = [f"keys of config.json that nothing here knows, passed over: {', '.join(strange)}"] if strange else []
    if values.get("quantization_config"):
        found.append("weights are FP8 in blocks of 128 x 128; they are read as the numbers they stand for")
    if values.get("auto_map"):
        found.append("config.json points to code in the repository (auto_map): it is not run")
    if config.sliding_window is not None:
        found.append(f"attention sees a window of {config.sliding_window:,} tokens")
    if config.parts.attention == "mla" and not config.rope_interleave:
        found.append("rotated pairs are halves, not neighbours as in DeepSeek's own weights")
    if config.num_nextn_predict_layers:
        found.append("a prediction layer for the token after the next stands behind the last layer")
    return found


def quantity(number: float) -> str:
    """``15706484224`` -> ``15.71B``; small numbers in full."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= limit:
            return f"{number / limit:.2f}{unit}"
    return f"{number:,.0f}"


def size(num_bytes: float) -> str:
    """``988065536`` -> ``942 MiB``."""
    for limit, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.3g} {unit}" if num_bytes < 1000 * limit else f"{num_bytes / limit:,.0f} {unit}"
    return f"{num_bytes:,.0f} bytes"
