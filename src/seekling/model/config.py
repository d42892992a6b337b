"""Model shapes, torch-free. Field names are those of Hugging Face's config.json, so a folder's config is this record.

``model_type`` picks the parts; nothing is decided by a magic size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class Parts:
    """What a family is made of: which attention, which rotary layout, which extras."""

    attention: Literal["mla", "gqa"]
    rope: Literal["interleaved", "half"]
    qk_norm: bool = False


FAMILIES = {
    "deepseek_v3": Parts(attention="mla", rope="interleaved"),
    "llama": Parts(attention="gqa", rope="half"),
    "qwen3": Parts(attention="gqa", rope="half", qk_norm=True),
}


class ModelConfig(Settings):
    """One decoder. DeepSeek-V3 (arXiv 2412.19437) section 2.1 names in brackets."""

    model_type: Literal["deepseek_v3", "llama", "qwen3"] = "deepseek_v3"
    vocab_size: int = Field(384, ge=8)
    hidden_size: int = Field(96, ge=2)
    num_hidden_layers: int = Field(3, ge=1)
    max_position_embeddings: int = Field(256, ge=8)
    rope_theta: float = Field(10_000.0, gt=0)
    rms_norm_eps: float = Field(1e-6, gt=0)
    initializer_range: float = Field(0.02, gt=0)
    tie_word_embeddings: bool = False

    # attention
    num_attention_heads: int = Field(4, ge=1)
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    q_lora_rank: int | None = Field(None, ge=1)  # [d'_c], None: queries are projected straight from the width
    kv_lora_rank: int = Field(32, ge=1)  # [d_c]
    qk_nope_head_dim: int = Field(16, ge=1)  # [d_h]
    qk_rope_head_dim: int = Field(8, ge=2, multiple_of=2)  # [d^R_h]
    v_head_dim: int = Field(24, ge=1)

    # feed-forward
    intermediate_size: int = Field(256, ge=1)
    n_routed_experts: int | None = Field(None, ge=1)  # [N_r], None: every layer is dense
    n_shared_experts: int = Field(1, ge=0)  # [N_s]
    num_experts_per_tok: int = Field(2, ge=1)  # [K_r]
    moe_intermediate_size: int = Field(64, ge=1)
    first_k_dense_replace: int = Field(1, ge=0)
    n_group: int = Field(1, ge=1)
    topk_group: int = Field(1, ge=1)
    norm_topk_prob: bool = True
    routed_scaling_factor: float = Field(1.0, gt=0)

    num_nextn_predict_layers: int = Field(0, ge=0, le=1)  # [D], multi-token prediction depth

    @model_validator(mode="after")
    def _fits_together(self) -> ModelConfig:
        experts = self.n_routed_experts
        if experts is not None:
            if self.model_type != "deepseek_v3":
                raise ValueError(f"n_routed_experts needs model_type deepseek_v3, not {self.model_type}")
            if self.num_experts_per_tok > experts // self.n_group * self.topk_group:
                raise ValueError("num_experts_per_tok exceeds the experts that the group limit leaves")
            if experts % self.n_group or self.topk_group > self.n_group:
                raise ValueError("n_group must divide n_routed_experts, and topk_group must not exceed it")
        if self.num_attention_heads % self.kv_heads:
            raise ValueError("num_key_value_heads must divide num_attention_heads")
        if self.parts.attention == "gqa" and self.qk_head_dim % 2:
            raise ValueError("head_dim must be even for rotary positions")
        return self

    @property
    def parts(self) -> Parts:
        """The parts this family is made of."""
        return FAMILIES[self.model_type]

    @property
    def kv_heads(self) -> int:
        """Key-value heads of grouped-query attention."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def qk_head_dim(self) -> int:
        """Width of one query or key head, rotary part included."""
        if self.parts.attention == "mla":
            return self.qk_nope_head_dim + self.qk_rope_head_dim
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """How many channels of a head are rotated."""
        return self.qk_rope_head_dim if self.parts.attention == "mla" else self.qk_head_dim

    @property
    def cache_width(self) -> int:
        """Cached elements per token and layer: latent + rotated key (MLA), or keys + values (GQA)."""
        if self.parts.attention == "mla":
            return self.kv_lora_rank + self.qk_rope_head_dim
        return 2 * self.kv_heads * self.qk_head_dim

    def is_moe(self, layer: int) -> bool:
        """Whether ``layer`` (the prediction layer counts as the one after the last) routes to experts."""
        return self.n_routed_experts is not None and layer >= self.first_k_dense_replace

    @property
    def moe_layers(self) -> list[int]:
        """Main layers that route, in order: the layers whose routes a rollout records."""
        return [layer for layer in range(self.num_hidden_layers) if self.is_moe(layer)]


PRESETS: dict[str, ModelConfig] = {
    "tiny-v3": ModelConfig(
        hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256,
        n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=64, n_shared_experts=1,
        first_k_dense_replace=1, routed_scaling_factor=1.0, num_nextn_predict_layers=1, initializer_range=0.05,
    ),
    "tiny-dense": ModelConfig(
        model_type="qwen3", hidden_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        head_dim=24, intermediate_size=256, initializer_range=0.05,
    ),
    "deepseek-v3": ModelConfig(
        vocab_size=129280, hidden_size=7168, num_hidden_layers=61, max_position_embeddings=163840,
        num_attention_heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
        v_head_dim=128, intermediate_size=18432, n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8,
        moe_intermediate_size=2048, first_k_dense_replace=3, n_group=8, topk_group=4, routed_scaling_factor=2.5,
        num_nextn_predict_layers=1,
    ),
}  # fmt: skip


def preset(name: str) -> ModelConfig:
    """A named shape. Raises UserError naming the nearest preset."""
    if name not in PRESETS:
        raise UserError(f'there is no model preset "{name}"', next_step=nearest(name, PRESETS))
    return PRESETS[name]
