"""Attention of one text, written from the papers' equations as loops over positions, heads and channels (float64)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from seekling.model.config import ModelConfig

Array = NDArray[np.float64]
Weights = Mapping[str, Array]


def rms_norm(x: Array, gain: Array, eps: float) -> Array:
    """x_i g_i / sqrt(mean_j x_j^2 + eps) (arXiv 1910.07467, eq. 4)."""
    square = sum(float(value) ** 2 for value in x) / len(x)
    return np.array([value * g / math.sqrt(square + eps) for value, g in zip(x, gain, strict=True)])


def rotate(x: Array, position: int, theta: float, *, interleaved: bool) -> Array:
    """Turn pair j by position * theta^(-2j/R) (arXiv 2104.09864, eq. 15); pairs are (2j, 2j+1) or (j, j+R/2)."""
    out, half = np.empty_like(x), len(x) // 2
    for j in range(half):
        a, b = (2 * j, 2 * j + 1) if interleaved else (j, j + half)
        angle = position * theta ** (-2 * j / len(x))
        out[a] = x[a] * math.cos(angle) - x[b] * math.sin(angle)
        out[b] = x[a] * math.sin(angle) + x[b] * math.cos(angle)
    return out


def softmax(values: Array) -> Array:
    """e^v / sum e^v, safe for large v."""
    powers = np.array([math.exp(v - max(values)) for v in values])
    return powers / sum(powers)


def weighted_sum(shares: Array, vectors: list[Array]) -> Array:
    """sum_s shares_s vectors_s."""
    total = np.zeros_like(vectors[0])
    for share, vector in zip(shares, vectors, strict=True):
        total = total + share * vector
    return total


def mla(h_TD: Array, w: Weights, c: ModelConfig) -> Array:
    """Multi-head latent attention, naive form (DeepSeek-V2, eq. 9-19): [T, D]."""
    nope, rope, heads = c.qk_nope_head_dim, c.qk_rope_head_dim, c.num_attention_heads
    latents, shared_keys, queries = [], [], []
    for t, h in enumerate(h_TD):
        down = w["kv_a_proj_with_mqa.weight"] @ h
        latents.append(rms_norm(down[: c.kv_lora_rank], w["kv_a_layernorm.weight"], 1e-6))
        shared_keys.append(rotate(down[c.kv_lora_rank :], t, c.rope_theta, interleaved=True))
        if c.q_lora_rank is None:
            queries.append(w["q_proj.weight"] @ h)
        else:
            small = rms_norm(w["q_a_proj.weight"] @ h, w["q_a_layernorm.weight"], 1e-6)
            queries.append(w["q_b_proj.weight"] @ small)
    up_rows = nope + c.v_head_dim
    said = np.zeros((len(h_TD), heads, c.v_head_dim))
    for head in range(heads):
        up = w["kv_b_proj.weight"][head * up_rows : (head + 1) * up_rows]
        keys = [np.concatenate((up[:nope] @ latent, key)) for latent, key in zip(latents, shared_keys, strict=True)]
        values = [up[nope:] @ latent for latent in latents]
        for t in range(len(h_TD)):
            own = queries[t][head * (nope + rope) : (head + 1) * (nope + rope)]
            query = np.concatenate((own[:nope], rotate(own[nope:], t, c.rope_theta, interleaved=True)))
            scores = np.array([query @ keys[s] / math.sqrt(nope + rope) for s in range(t + 1)])
            said[t, head] = weighted_sum(softmax(scores), values[: t + 1])
    return np.stack([w["o_proj.weight"] @ row.reshape(-1) for row in said])


def gqa(h_TD: Array, w: Weights, c: ModelConfig) -> Array:
    """Grouped-query attention (arXiv 2305.13245), queries and keys normalised per head in Qwen3: [T, D]."""
    width, heads, per_key = c.qk_head_dim, c.num_attention_heads, c.num_attention_heads // c.kv_heads

    def turned(name: str, h: Array, head: int, t: int) -> Array:
        x = w[f"{name}_proj.weight"][head * width : (head + 1) * width] @ h
        if c.parts.qk_norm:
            x = rms_norm(x, w[f"{name}_norm.weight"], c.rms_norm_eps)
        return rotate(x, t, c.rope_theta, interleaved=False)

    said = np.zeros((len(h_TD), heads, width))
    for head in range(heads):
        kv = head // per_key
        keys = [turned("k", h, kv, t) for t, h in enumerate(h_TD)]
        values = [w["v_proj.weight"][kv * width : (kv + 1) * width] @ h for h in h_TD]
        for t, h in enumerate(h_TD):
            query = turned("q", h, head, t)
            scores = np.array([query @ keys[s] / math.sqrt(width) for s in range(t + 1)])
            said[t, head] = weighted_sum(softmax(scores), values[: t + 1])
    return np.stack([w["o_proj.weight"] @ row.reshape(-1) for row in said])
