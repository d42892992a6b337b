"""Attention over packed rows (training) and over a cache (sampling: prompts in chunks, then a token at a time).

Every attention has two forms that must agree (tests/parity): ``forward`` attends within the rows it is given;
``extend`` writes what is new into a cache and attends to all of it. For MLA the first is the naive form, the second
the absorbed one (DeepSeek-V2, arXiv 2405.04434, section 2.1.2 and appendix C).
"""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seekling.model import fused
from seekling.model.config import ModelConfig
from seekling.model.layers import Linear, RMSNorm, inner_dtype, joined, rotate_half, rotate_interleaved, softmax_scale
from seekling.model.ops import Heads, Ops
from seekling.model.pages import Chunk, Layer


class MultiHeadLatentAttention(nn.Module):
    """Keys and values of all heads are read from one small latent per token (DeepSeek-V2, eq. 9-19)."""

    def __init__(self, config: ModelConfig, window: int | None = None) -> None:
        super().__init__()
        c, heads = config, config.num_attention_heads
        self.heads, self.nope, self.rope, self.v_width = (
            heads,
            c.qk_nope_head_dim,
            c.qk_rope_head_dim,
            c.v_head_dim,
        )
        self.latent = c.kv_lora_rank
        self.scale = softmax_scale(c)
        self.rotate = rotate_interleaved if c.rope_interleave else rotate_half
        if c.q_lora_rank is None:
            self.q_proj: nn.Module = Linear(c.hidden_size, heads * c.qk_head_dim)
        else:
            self.q_a_proj = Linear(c.hidden_size, c.q_lora_rank, bias=c.attention_bias)
            self.q_a_layernorm = RMSNorm(c.q_lora_rank, 1e-6)
            self.q_b_proj = Linear(c.q_lora_rank, heads * c.qk_head_dim)
        self.kv_a_proj_with_mqa = Linear(c.hidden_size, c.kv_lora_rank + c.qk_rope_head_dim, bias=c.attention_bias)
        self.kv_a_layernorm = RMSNorm(c.kv_lora_rank, 1e-6)
        self.kv_b_proj = Linear(c.kv_lora_rank, heads * (c.qk_nope_head_dim + c.v_head_dim))
        self.o_proj = Linear(heads * c.v_head_dim, c.hidden_size, bias=c.attention_bias)
        self.low_rank_q = c.q_lora_rank is not None
        self.shape = Heads(heads, c.qk_rope_head_dim, c.qk_rope_head_dim, self.scale, c.rope_interleave, window)

    def forward(self, x_BTD: Tensor, rotary_BTR: Tensor, seen: Tensor | None) -> Tensor:
        """Attend within each row to what is ``seen``: ``Rows.first`` by kernels, ``Rows.bias``; None: causal."""
        kernels = fused.learning(x_BTD, self.kv_b_proj.weight)
        if kernels is not None:
            qkv = self._project_at_once(kernels, x_BTD, rotary_BTR)
            return self.o_proj(fused.attend(kernels, *qkv, seen, self.scale))
        q_BHTK, k_BHTK, v_BHTK = (x_BTHK.transpose(1, 2) for x_BTHK in self._project(x_BTD, rotary_BTR))
        out_BHTK = attend(q_BHTK, k_BHTK, v_BHTK, seen, self.scale)
        return self.o_proj(out_BHTK.transpose(1, 2).flatten(2))

    def extend(self, x_ND: Tensor, rotary_TR: Tensor, chunk: Chunk, pages: Layer, ops: Ops) -> Tensor:
        """Tokens of a chunk against their cached latents: W^UK is absorbed into the query, W^UV into the output."""
        q_NHK = self._whole_queries(x_ND).unflatten(-1, (self.heads, -1))
        q_NHK = ops.write_mla(
            q_NHK, self.kv_a_proj_with_mqa(x_ND), self.kv_a_layernorm, self.shape, rotary_TR, chunk, pages
        )
        absorbed_HNC = self._absorbed(q_NHK[..., : self.nope])
        return self.o_proj(self._unfolded(ops.attend_mla(absorbed_HNC, q_NHK, self.shape, chunk, pages)).flatten(1))

    def _absorbed(self, q_NHK: Tensor) -> Tensor:
        """Queries as they look at latents: q W^UK, [H, N, C]."""
        q_HNK, adapter = q_NHK.transpose(0, 1), self.kv_b_proj.adapter
        absorbed_HNC = torch.matmul(q_HNK, self._per_head(self.kv_b_proj.weight)[0])
        if adapter is not None:
            absorbed_HNC = adapter.add(absorbed_HNC, q_HNK, self._per_head(adapter.B)[0], adapter.A)
        return absorbed_HNC

    def _unfolded(self, context_HNC: Tensor) -> Tensor:
        """Values as heads speak them, from latents: c W^UV^T, [N, H, K]."""
        adapter = self.kv_b_proj.adapter
        out_HNK = torch.matmul(context_HNC, self._per_head(self.kv_b_proj.weight)[1].mT)
        if adapter is not None:
            out_HNK = adapter.add(out_HNK, context_HNC, adapter.A.mT, self._per_head(adapter.B)[1].mT)
        return out_HNK.transpose(0, 1)

    def _per_head(self, up: Tensor) -> tuple[Tensor, ...]:
        """The rows of ``kv_b_proj`` that make keys, and those that make values, head by head."""
        return up.unflatten(0, (self.heads, -1)).split((self.nope, self.v_width), 1)

    def _project(self, x_BTD: Tensor, rotary_BTR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_nope_BTHK, q_rope_BTHR = self._queries(x_BTD, rotary_BTR)
        latent_BTC, k_rope_BTR = self._latent(x_BTD, rotary_BTR)
        kv_BTHK = self.kv_b_proj(latent_BTC).unflatten(-1, (self.heads, -1))
        k_nope_BTHK, v_BTHK = kv_BTHK.split((self.nope, self.v_width), -1)
        k_rope_BTHR = k_rope_BTR.unsqueeze(2).expand(-1, -1, self.heads, -1)
        return torch.cat((q_nope_BTHK, q_rope_BTHR), -1), torch.cat((k_nope_BTHK, k_rope_BTHR), -1), v_BTHK

    def _project_at_once(
        self, kernels: ctypes.CDLL, x_BTD: Tensor, rotary_BTR: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same by learning.c."""
        if self.low_rank_q:
            both, widths = joined(x_BTD, self.q_a_proj, self.kv_a_proj_with_mqa), (self.latent, self.rope)
            q, latent_BTC, rope_BTR = both.split((both.shape[-1] - sum(widths), *widths), -1)
            q = self.q_b_proj(self.q_a_layernorm(q))
        else:  # wide queries apart: what is kept of the latents would keep them too
            q = self.q_proj(x_BTD)
            latent_BTC, rope_BTR = self.kv_a_proj_with_mqa(x_BTD).split((self.latent, self.rope), -1)
        kv_BTC = self.kv_b_proj(self.kv_a_layernorm(latent_BTC))
        interleaved = self.shape.interleaved
        return fused.latent(kernels, q, kv_BTC, rope_BTR, rotary_BTR, self.heads, interleaved=interleaved)

    def _queries(self, x_BTD: Tensor, rotary_BTR: Tensor) -> tuple[Tensor, Tensor]:
        q = self._whole_queries(x_BTD)
        nope_BTHK, rope_BTHR = q.unflatten(-1, (self.heads, -1)).split((self.nope, self.rope), -1)
        return nope_BTHK, self.rotate(rope_BTHR, rotary_BTR.unsqueeze(2))

    def _whole_queries(self, x: Tensor) -> Tensor:
        return self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if self.low_rank_q else self.q_proj(x)

    def _latent(self, x_BTD: Tensor, rotary_BTR: Tensor) -> tuple[Tensor, Tensor]:
        latent_BTC, rope_BTR = self.kv_a_proj_with_mqa(x_BTD).split((self.latent, self.rope), -1)
        return self.kv_a_layernorm(latent_BTC), self.rotate(rope_BTR, rotary_BTR)


class GroupedQueryAttention(nn.Module):
    """Several query heads share a key-value head (arXiv 2305.13245); Qwen3 normalises queries and keys per head."""

    def __init__(self, config: ModelConfig, window: int | None = None) -> None:
        super().__init__()
        c, width = config, config.qk_head_dim
        self.heads, self.kv_heads, self.scale = c.num_attention_heads, c.kv_heads, softmax_scale(c)
        bias = c.attention_bias or c.parts.qkv_bias
        self.q_proj = Linear(c.hidden_size, c.num_attention_heads * width, bias=bias)
        self.k_proj = Linear(c.hidden_size, c.kv_heads * width, bias=bias)
        self.v_proj = Linear(c.hidden_size, c.kv_heads * width, bias=bias)
        self.o_proj = Linear(c.num_attention_heads * width, c.hidden_size, bias=c.attention_bias)
        if c.parts.qk_norm:
            self.q_norm = RMSNorm(width, c.rms_norm_eps)
            self.k_norm = RMSNorm(width, c.rms_norm_eps)
        self.qk_norm = c.parts.qk_norm
        self.shape = Heads(self.heads, self.kv_heads, width, self.scale, interleaved=False, window=window)

    def forward(self, x_BTD: Tensor, rotary_BTR: Tensor, seen: Tensor | None) -> Tensor:
        """Attend within each row to what is ``seen``: ``Rows.first`` by kernels, ``Rows.bias``; None: causal."""
        kernels = fused.learning(x_BTD, self.q_proj.weight)
        if kernels is not None:
            qkv = self._project_at_once(kernels, x_BTD, rotary_BTR)
            return self.o_proj(fused.attend(kernels, *qkv, seen, self.scale))
        q_BHTK, k_BHTK, v_BHTK = (x_BTHK.transpose(1, 2) for x_BTHK in self._project(x_BTD, rotary_BTR))
        out_BHTK = attend(q_BHTK, k_BHTK, v_BHTK, seen, self.scale)
        return self.o_proj(out_BHTK.transpose(1, 2).flatten(2))

    def extend(self, x_ND: Tensor, rotary_TR: Tensor, chunk: Chunk, pages: Layer, ops: Ops) -> Tensor:
        """Tokens of a chunk against their cached keys and values."""
        qkv = self.q_proj(x_ND), self.k_proj(x_ND), self.v_proj(x_ND)
        norms = (self.q_norm, self.k_norm) if self.qk_norm else None
        return self.o_proj(ops.attend_gqa(qkv, norms, self.shape, rotary_TR, chunk, pages))

    def _project(self, x_BTD: Tensor, rotary_BTR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projections = ((self.q_proj, self.heads), (self.k_proj, self.kv_heads), (self.v_proj, self.kv_heads))
        q_BTHK, k_BTHK, v_BTHK = (proj(x_BTD).unflatten(-1, (heads, -1)) for proj, heads in projections)
        if self.qk_norm:
            q_BTHK, k_BTHK = self.q_norm(q_BTHK), self.k_norm(k_BTHK)
        rotary, group = rotary_BTR.unsqueeze(2), self.heads // self.kv_heads
        k_BTHK, v_BTHK = (x_BTHK.repeat_interleave(group, 2) for x_BTHK in (rotate_half(k_BTHK, rotary), v_BTHK))
        return rotate_half(q_BTHK, rotary), k_BTHK, v_BTHK

    def _project_at_once(
        self, kernels: ctypes.CDLL, x_BTD: Tensor, rotary_BTR: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same by learning.c."""
        qkv_BTC = joined(x_BTD, self.q_proj, self.k_proj, self.v_proj)
        norms, eps = ((self.q_norm.weight, self.k_norm.weight), self.q_norm.eps) if self.qk_norm else (None, 0.0)
        return fused.grouped(kernels, qkv_BTC, norms, eps, rotary_BTR, self.heads, self.kv_heads)


def attend(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """softmax(q k^T scale + bias) v. Values narrower than keys are padded: unequal widths take a path twice as slow."""
    width = v_BHTK.shape[-1]
    padding = q_BHTK.shape[-1] - width
    v_BHTK = F.pad(v_BHTK, (0, padding)) if padding > 0 else v_BHTK
    place = q_BHTK.device.type
    if torch.is_autocast_enabled(place):
        q_BHTK, k_BHTK, v_BHTK = (x_BHTK.to(inner_dtype(place)) for x_BHTK in (q_BHTK, k_BHTK, v_BHTK))
    with torch.autocast(place, enabled=False):
        out = F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, attn_mask=bias, is_causal=bias is None, scale=scale
        )
    return out[..., :width]
