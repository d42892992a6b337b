"""Exact parameter and FLOP counts from a config alone: nothing is allocated, torch is not imported.

A FLOP is one multiplication or addition; a matrix of R x C costs 2 R C a token forward, twice that backward.
"""

from __future__ import annotations

from dataclasses import dataclass

from seekling.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Count:
    """``total`` parameters, ``active`` those one token meets, ``mtp`` those of the prediction layer (in neither)."""

    total: int
    active: int
    mtp: int


def count_parameters(config: ModelConfig) -> Count:
    """Parameters by DeepSeek-V3's own way of counting (671.03e9 in all for V3, the prediction layer apart).

    ``active`` leaves the embedding table out (a look-up) and counts the head.
    """
    layers = range(config.num_hidden_layers)
    total = sum(_block(config, layer, active=False) for layer in layers)
    active = sum(_block(config, layer, active=True) for layer in layers)
    table, norm = config.vocab_size * config.hidden_size, config.hidden_size
    head = 0 if config.tie_word_embeddings else table
    return Count(total + table + head + norm, active + table + norm, _mtp(config, active=False))


def flops_per_token(config: ModelConfig, context: float, *, training: bool, mtp: bool = False) -> float:
    """FLOPs to process one token that sees ``context`` earlier ones: forward, or forward and backward (3x).

    Matrices count 2 per active parameter, attention 2 (K + V) per head and position seen, norms and biases nothing.
    """
    if not isinstance(config, ModelConfig):  # a model of transformers counts its own
        return config.flops_per_token(training=training)
    layers = config.num_hidden_layers + (config.num_nextn_predict_layers if mtp else 0)
    matrices = sum(_block(config, layer, active=True, norms=False) for layer in range(config.num_hidden_layers))
    matrices += config.vocab_size * config.hidden_size
    if mtp and config.num_nextn_predict_layers:
        matrices += _mtp(config, active=True, norms=False) + config.vocab_size * config.hidden_size
    value_width = config.v_head_dim if config.parts.attention == "mla" else config.qk_head_dim
    attention = layers * config.num_attention_heads * (config.qk_head_dim + value_width) * context
    return (3.0 if training else 1.0) * 2.0 * (matrices + attention)


def _block(config: ModelConfig, layer: int, *, active: bool, norms: bool = True) -> int:
    own = 2 * config.hidden_size if norms else 0
    return _attention(config, norms) + _feed_forward(config, layer, active, norms) + own


def _attention(config: ModelConfig, norms: bool) -> int:
    c, width, heads = config, config.hidden_size, config.num_attention_heads
    if c.parts.attention == "gqa":
        return width * c.qk_head_dim * (2 * heads + 2 * c.kv_heads) + (_gqa_vectors(c) if norms else 0)
    query_in = c.q_lora_rank or width
    query = query_in * heads * c.qk_head_dim + (width * c.q_lora_rank if c.q_lora_rank else 0)
    latent = width * (c.kv_lora_rank + c.qk_rope_head_dim)
    up = c.kv_lora_rank * heads * (c.qk_nope_head_dim + c.v_head_dim)
    return query + latent + up + heads * c.v_head_dim * width + (_mla_vectors(c) if norms else 0)


def _gqa_vectors(config: ModelConfig) -> int:
    """Head norms and biases."""
    c, head = config, config.qk_head_dim
    qkv = head * (c.num_attention_heads + 2 * c.kv_heads) if c.attention_bias or c.parts.qkv_bias else 0
    return (2 * head if c.parts.qk_norm else 0) + qkv + (c.hidden_size if c.attention_bias else 0)


def _mla_vectors(config: ModelConfig) -> int:
    """Norms of the latents and biases of the maps into them."""
    c, query = config, config.q_lora_rank or 0
    biases = query + c.kv_lora_rank + c.qk_rope_head_dim + c.hidden_size if c.attention_bias else 0
    return query + c.kv_lora_rank + biases


def _feed_forward(config: ModelConfig, layer: int, active: bool, norms: bool) -> int:
    c, width = config, config.hidden_size
    if not c.is_moe(layer):
        bias = 2 * c.intermediate_size + width if c.mlp_bias and norms else 0
        return 3 * width * c.intermediate_size + bias
    assert c.n_routed_experts is not None
    experts = (c.num_experts_per_tok if active else c.n_routed_experts) + c.n_shared_experts
    return experts * 3 * width * c.moe_intermediate_size + c.n_routed_experts * width


def _mtp(config: ModelConfig, *, active: bool, norms: bool = True) -> int:
    if not config.num_nextn_predict_layers:
        return 0
    width = config.hidden_size
    block = _block(config, config.num_hidden_layers, active=active, norms=norms)
    return block + 2 * width * width + (3 * width if norms else 0)
