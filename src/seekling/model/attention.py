"""Attention over packed rows (training, prefill) and over a cache (decoding one token a row).

Every attention has two forms that must agree (tests/parity): ``forward`` attends within the rows it is given and
returns what a cache would keep; ``decode`` attends to that cache. For MLA the first is the naive form, the second
the absorbed one (DeepSeek-V2, arXiv 2405.04434, section 2.1.2 and appendix C).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seekling.model.config import ModelConfig
from seekling.model.layers import Linear, RMSNorm, inner_dtype, rotate_half, rotate_interleaved, softmax_scale


class MultiHeadLatentAttention(nn.Module):
    """Keys and values of all heads are read from one small latent per token (DeepSeek-V2, eq. 9-19)."""

    def __init__(self, config: ModelConfig) -> None:
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

    def forward(self, x_BTD: Tensor, rotary_BTR: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attend within each row. ``mask`` [B, 1, T, T] is True where a query may look; None is plain causal."""
        q_nope_BTHK, q_rope_BTHR = self._queries(x_BTD, rotary_BTR)
        latent_BTC, k_rope_BTR = self._latent(x_BTD, rotary_BTR)
        kv_BTHK = self.kv_b_proj(latent_BTC).unflatten(-1, (self.heads, -1))
        k_nope_BTHK, v_BTHK = kv_BTHK.split((self.nope, self.v_width), -1)
        k_rope_BTHR = k_rope_BTR.unsqueeze(2).expand(-1, -1, self.heads, -1)
        q_BHTK = torch.cat((q_nope_BTHK, q_rope_BTHR), -1).transpose(1, 2)
        k_BHTK = torch.cat((k_nope_BTHK, k_rope_BTHR), -1).transpose(1, 2)
        out_BHTK = attend(q_BHTK, k_BHTK, v_BTHK.transpose(1, 2), mask, self.scale)
        return self.o_proj(out_BHTK.transpose(1, 2).flatten(2)), torch.cat((latent_BTC, k_rope_BTR), -1)

    def decode(self, x_BD: Tensor, rotary_BR: Tensor, cache: LayerCache) -> Tensor:
        """One token per row against its cached latents: W^UK is absorbed into the query, W^UV into the output."""
        q_nope_BTHK, q_rope_BTHR = self._queries(x_BD.unsqueeze(1), rotary_BR.unsqueeze(1))
        latent_BTC, k_rope_BTR = self._latent(x_BD.unsqueeze(1), rotary_BR.unsqueeze(1))
        keys_BTW = cache.append(torch.cat((latent_BTC, k_rope_BTR), -1).unsqueeze(1))[0, :, 0]
        q_BHW = torch.cat((self._absorbed(q_nope_BTHK.squeeze(1)), q_rope_BTHR.squeeze(1)), -1)
        scores_BHT = torch.baddbmm(cache.bias_B1T, q_BHW, keys_BTW.transpose(1, 2), alpha=self.scale)
        context_BHC = torch.bmm(scores_BHT.softmax(-1), keys_BTW[..., : self.latent])
        return self.o_proj(self._unfolded(context_BHC).flatten(1))

    def _absorbed(self, q_BHK: Tensor) -> Tensor:
        """Queries as they look at latents: q W^UK, [B, H, C]."""
        q_HBK, adapter = q_BHK.transpose(0, 1), self.kv_b_proj.adapter
        absorbed_HBC = torch.matmul(q_HBK, self._per_head(self.kv_b_proj.weight)[0])
        if adapter is not None:
            absorbed_HBC = adapter.add(absorbed_HBC, q_HBK, self._per_head(adapter.B)[0], adapter.A)
        return absorbed_HBC.transpose(0, 1)

    def _unfolded(self, context_BHC: Tensor) -> Tensor:
        """Values as heads speak them, from latents: c W^UV^T, [B, H, K]."""
        context_HBC, adapter = context_BHC.transpose(0, 1), self.kv_b_proj.adapter
        out_HBK = torch.matmul(context_HBC, self._per_head(self.kv_b_proj.weight)[1].mT)
        if adapter is not None:
            out_HBK = adapter.add(out_HBK, context_HBC, adapter.A.mT, self._per_head(adapter.B)[1].mT)
        return out_HBK.transpose(0, 1)

    def _per_head(self, up: Tensor) -> tuple[Tensor, ...]:
        """The rows of ``kv_b_proj`` that make keys, and those that make values, head by head."""
        return up.unflatten(0, (self.heads, -1)).split((self.nope, self.v_width), 1)

    def _queries(self, x_BTD: Tensor, rotary_BTR: Tensor) -> tuple[Tensor, Tensor]:
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD))) if self.low_rank_q else self.q_proj(x_BTD)
        nope_BTHK, rope_BTHR = q.unflatten(-1, (self.heads, -1)).split((self.nope, self.rope), -1)
        return nope_BTHK, self.rotate(rope_BTHR, rotary_BTR.unsqueeze(2))

    def _latent(self, x_BTD: Tensor, rotary_BTR: Tensor) -> tuple[Tensor, Tensor]:
        latent_BTC, rope_BTR = self.kv_a_proj_with_mqa(x_BTD).split((self.latent, self.rope), -1)
        return self.kv_a_layernorm(latent_BTC), self.rotate(rope_BTR, rotary_BTR)


class GroupedQueryAttention(nn.Module):
    """Several query heads share a key-value head (arXiv 2305.13245); Qwen3 normalises queries and keys per head."""

    def __init__(self, config: ModelConfig) -> None:
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

    def forward(self, x_BTD: Tensor, rotary_BTR: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attend within each row. ``mask`` [B, 1, T, T] is True where a query may look; None is plain causal."""
        q_BTHK, k_BTHK, v_BTHK = self._project(x_BTD, rotary_BTR)
        entry_BTW = torch.cat((k_BTHK, v_BTHK), 2).flatten(2)
        group = self.heads // self.kv_heads
        k_BHTK, v_BHTK = (t.transpose(1, 2).repeat_interleave(group, 1) for t in (k_BTHK, v_BTHK))
        out_BHTK = attend(q_BTHK.transpose(1, 2), k_BHTK, v_BHTK, mask, self.scale)
        return self.o_proj(out_BHTK.transpose(1, 2).flatten(2)), entry_BTW

    def decode(self, x_BD: Tensor, rotary_BR: Tensor, cache: LayerCache) -> Tensor:
        """One token per row against its cached keys and values; heads that share a key ask it side by side."""
        q_BTHK, k_BTHK, v_BTHK = self._project(x_BD.unsqueeze(1), rotary_BR.unsqueeze(1))
        keys_BHTK, values_BHTK = cache.append(torch.cat((k_BTHK, v_BTHK), 1))
        q_BHGK = q_BTHK.squeeze(1).unflatten(1, (self.kv_heads, -1)) * self.scale
        scores_BHGT = torch.matmul(q_BHGK, keys_BHTK.mT) + cache.bias_B1T.unsqueeze(1)
        return self.o_proj(torch.matmul(scores_BHGT.softmax(-1), values_BHTK).flatten(1))

    def _project(self, x_BTD: Tensor, rotary_BTR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projections = ((self.q_proj, self.heads), (self.k_proj, self.kv_heads), (self.v_proj, self.kv_heads))
        q_BTHK, k_BTHK, v_BTHK = (proj(x_BTD).unflatten(-1, (heads, -1)) for proj, heads in projections)
        if self.qk_norm:
            q_BTHK, k_BTHK = self.q_norm(q_BTHK), self.k_norm(k_BTHK)
        rotary = rotary_BTR.unsqueeze(2)
        return rotate_half(q_BTHK, rotary), rotate_half(k_BTHK, rotary), v_BTHK


class LayerCache:
    """One layer's cache as seen in one decode step: write this step's entries, read all so far.

    ``kept_CBHTK`` is the layer's buffer narrowed to the longest row, ``lengths_B`` how many entries each row holds
    before this step, ``bias_B1T`` 0 where a row may look and -inf beyond its length or its window.
    """

    def __init__(self, kept_CBHTK: Tensor, rows_B: Tensor, lengths_B: Tensor, bias_B1T: Tensor) -> None:
        self.kept_CBHTK, self.rows_B, self.lengths_B, self.bias_B1T = kept_CBHTK, rows_B, lengths_B, bias_B1T

    def append(self, entry_BCHK: Tensor) -> Tensor:
        """Write one entry per row at its length and return all entries [C, B, H, T, K]."""
        self.kept_CBHTK[:, self.rows_B, :, self.lengths_B] = entry_BCHK
        return self.kept_CBHTK


def attend(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(q k^T scale) v. Values narrower than keys are padded: unequal widths take a path twice as slow."""
    width = v_BHTK.shape[-1]
    padding = q_BHTK.shape[-1] - width
    v_BHTK = F.pad(v_BHTK, (0, padding)) if padding > 0 else v_BHTK
    place = q_BHTK.device.type
    if torch.is_autocast_enabled(place):
        q_BHTK, k_BHTK, v_BHTK = (x_BHTK.to(inner_dtype(place)) for x_BHTK in (q_BHTK, k_BHTK, v_BHTK))
    with torch.autocast(place, enabled=False):
        out = F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, attn_mask=mask, is_causal=mask is None, scale=scale
        )
    return out[..., :width]
