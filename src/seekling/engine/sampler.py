"""Logits to tokens, purely: every draw is a function of (seed, position) and of no global generator."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.engine.config import Sampling


def seed_of(*parts: object) -> int:
    """A 63-bit seed from whatever names a draw: (seed, stage, step, problem, rollout)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


def uniforms(seeds_B: NDArray[np.uint64], positions_B: NDArray[np.uint64]) -> NDArray[np.float32]:
    """One number in [0, 1) per (seed, position), 24 bits each: SplitMix64 (Steele, Lea, Flood 2014)."""
    z = seeds_B + (positions_B + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def distribution(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Log-probabilities [B, V] the sampler draws from: scaled, truncated, normalised, in float32."""
    logits_BV = logits_BV.float()
    if sampling.temperature == 0:
        best_B1 = logits_BV.argmax(-1, keepdim=True)
        return torch.full_like(logits_BV, float("-inf")).scatter(1, best_B1, 0.0)
    if sampling.temperature != 1:
        logits_BV = logits_BV / sampling.temperature
    logp_BV = logits_BV.log_softmax(-1)
    if not sampling.truncates:
        return logp_BV
    return logp_BV.masked_fill(~_kept(logp_BV, sampling), float("-inf")).log_softmax(-1)


def _kept(logp_BV: Tensor, sampling: Sampling) -> Tensor:
    """Which tokens survive top-k, top-p and min-p: bool [B, V]. The likeliest always does."""
    kept_BV = torch.ones_like(logp_BV, dtype=torch.bool)
    if 0 < sampling.top_k < logp_BV.shape[1]:
        kept_BV &= logp_BV >= logp_BV.topk(sampling.top_k, -1).values[:, -1:]
    if sampling.top_p < 1:
        ordered_BV, order_BV = logp_BV.masked_fill(~kept_BV, float("-inf")).softmax(-1).sort(-1, descending=True)
        before_BV = ordered_BV.cumsum(-1) - ordered_BV
        kept_BV &= torch.zeros_like(kept_BV).scatter(1, order_BV, before_BV < sampling.top_p)
    if sampling.min_p > 0:
        kept_BV &= logp_BV >= logp_BV.amax(-1, keepdim=True) + float(np.log(sampling.min_p))
    return kept_BV


def draw(logp_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The token at which the cumulative probability passes ``uniform_B``: inverse-CDF sampling, int64 [B].

    A token of probability zero is never drawn: the cumulative sum does not rise there, and the target stays
    strictly below the total.
    """
    cumulative_BV = logp_BV.exp().cumsum(-1)
    total_B = cumulative_BV[:, -1]
    target_B = torch.minimum(uniform_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
    return (cumulative_BV <= target_B.unsqueeze(1)).sum(-1)
