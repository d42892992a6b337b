"""A whole decoder on one text, from its state dict, in float64 loops: pre-norm blocks, head, next-token module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seekling.model.config import ModelConfig
from tests.oracles.attention import gqa, mla, rms_norm
from tests.oracles.moe import moe, swiglu

Array = NDArray[np.float64]
Weights = Mapping[str, Array]


def hidden_states(tokens: Sequence[int], w: Weights, c: ModelConfig) -> Array:
    """States after the final norm: [T, D]."""
    x = np.stack([w["embed_tokens.weight"][token] for token in tokens])
    for layer in range(c.num_hidden_layers):
        x = block(x, _below(w, f"layers.{layer}."), c, layer)
    return _norm(x, w["norm.weight"], c)


def logits(tokens: Sequence[int], w: Weights, c: ModelConfig) -> Array:
    """[T, V]."""
    return hidden_states(tokens, w, c) @ _head(w).T


def logits_two_ahead(tokens: Sequence[int], w: Weights, c: ModelConfig) -> Array:
    """What position t says about token t+2 (DeepSeek-V3, eq. 21-23; checkpoints put the embedding first): [T-1, V]."""
    states, m = hidden_states(tokens, w, c), _below(w, "mtp.")
    joined = [
        np.concatenate(
            (
                rms_norm(w["embed_tokens.weight"][tokens[t + 1]], m["enorm.weight"], c.rms_norm_eps),
                rms_norm(states[t], m["hnorm.weight"], c.rms_norm_eps),
            )
        )
        for t in range(len(tokens) - 1)
    ]
    x = np.stack([m["eh_proj.weight"] @ vector for vector in joined])
    return _norm(block(x, _below(m, "block."), c, c.num_hidden_layers), m["norm.weight"], c) @ _head(w).T


def block(x_TD: Array, w: Weights, c: ModelConfig, layer: int) -> Array:
    """x + attention(norm x), then x + feed-forward(norm x)."""
    attention = mla if c.parts.attention == "mla" else gqa
    x_TD = x_TD + attention(_norm(x_TD, w["input_layernorm.weight"], c), _below(w, "self_attn."), c)
    inner, mlp = _norm(x_TD, w["post_attention_layernorm.weight"], c), _below(w, "mlp.")
    if c.is_moe(layer):
        return x_TD + moe(inner, mlp, c)
    parts = [mlp[f"{part}_proj.weight"] for part in ("gate", "up", "down")]
    return x_TD + np.stack([swiglu(row, *parts) for row in inner])


def _norm(x_TD: Array, gain: Array, c: ModelConfig) -> Array:
    return np.stack([rms_norm(row, gain, c.rms_norm_eps) for row in x_TD])


def _head(w: Weights) -> Array:
    return w["lm_head.weight"] if "lm_head.weight" in w else w["embed_tokens.weight"]


def _below(w: Weights, prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}
