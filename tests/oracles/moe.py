"""DeepSeekMoE, one token and one expert at a time (float64): DeepSeek-V3 (arXiv 2412.19437), section 2.1.2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seekling.model.config import ModelConfig

Array = NDArray[np.float64]


def silu(x: Array) -> Array:
    """x / (1 + e^-x)."""
    return np.array([value / (1 + math.exp(-value)) for value in x])


def swiglu(x: Array, gate: Array, up: Array, down: Array) -> Array:
    """down(silu(gate x) * up x) (arXiv 2002.05202, eq. 6)."""
    return down @ (silu(gate @ x) * (up @ x))


def best(values: Sequence[float], count: int) -> list[int]:
    """Indices of the ``count`` largest values."""
    return sorted(range(len(values)), key=lambda i: -values[i])[:count]


def route(scores: Sequence[float], bias: Sequence[float], top_k: int, num_groups: int, top_groups: int) -> set[int]:
    """Experts of one token: best groups by the sum of their two best biased scores, then the best experts in them."""
    biased = [score + b for score, b in zip(scores, bias, strict=True)]
    size = len(biased) // num_groups
    groups = [list(range(g * size, (g + 1) * size)) for g in range(num_groups)]
    worth = [sum(sorted((biased[e] for e in group), reverse=True)[:2]) for group in groups]
    open_experts = [e for g in best(worth, top_groups) for e in groups[g]]
    return {open_experts[i] for i in best([biased[e] for e in open_experts], top_k)}


def gates(scores: Sequence[float], chosen: set[int], *, normalise: bool, scale: float) -> dict[int, float]:
    """g_i = scale s_i / sum over the chosen s_j (eq. 13): the bias has no part in it."""
    total = sum(scores[e] for e in chosen) if normalise else 1.0
    return {e: scale * scores[e] / total for e in chosen}


def moe(x_TD: Array, w: Mapping[str, Array], c: ModelConfig) -> Array:
    """Shared experts plus gated routed experts of every token (eq. 12): [T, D]."""
    assert c.n_routed_experts is not None
    out = []
    for x in x_TD:
        scores = [1 / (1 + math.exp(-float(centre @ x))) for centre in w["gate.weight"]]
        chosen = route(
            scores, w["gate.e_score_correction_bias"].tolist(), c.num_experts_per_tok, c.n_group, c.topk_group
        )
        y = np.zeros_like(x)
        for e, gate in gates(scores, chosen, normalise=c.norm_topk_prob, scale=c.routed_scaling_factor).items():
            first, second = np.split(w["gate_up_proj"][e], 2)
            y = y + gate * swiglu(x, first, second, w["down_proj"][e])
        if c.n_shared_experts:
            names = (f"shared_experts.{part}_proj.weight" for part in ("gate", "up", "down"))
            y = y + swiglu(x, *(w[name] for name in names))
        out.append(y)
    return np.stack(out)


def balance_loss(scores_TE: Array, top_k: int) -> float:
    """sum_i f_i P_i of one sequence (eq. 17-20): f_i counts the top-k of the unbiased scores."""
    tokens, experts = scores_TE.shape
    loss = 0.0
    for i in range(experts):
        f = sum(i in best(row.tolist(), top_k) for row in scores_TE) * experts / (top_k * tokens)
        p = sum(row[i] / sum(row) for row in scores_TE) / tokens
        loss += f * p
    return loss


def move_bias(bias: Sequence[float], load: Sequence[float], speed: float) -> list[float]:
    """Down by ``speed`` where an expert is overloaded, up where it is underloaded (section 2.1.2)."""
    mean = sum(load) / len(load)
    return [b - speed if n > mean else b + speed if n < mean else b for b, n in zip(bias, load, strict=True)]
