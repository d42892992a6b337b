"""Model shapes, torch-free. Field names are those of Hugging Face's config.json, where a thing has one name there.

``model_type`` picks the parts; nothing is decided by a magic size. ``seekling.model.exchange`` reads and writes
config.json, ``seekling.model.presets`` holds published shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from seekling.config import Settings

Family = Literal["llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "deepseek_v2", "deepseek_v3"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a family is made of, as data: what its config.json does not say because its code does."""

    attention: Literal["mla", "gqa"] = "gqa"
    scoring: Literal["", "sigmoid", "softmax"] = ""
    """Affinities of tokens to experts; a sigmoid comes with a bias that is moved by rule. Empty: always dense."""
    qk_norm: bool = False
    qkv_bias: bool = False


FAMILIES: dict[str, Parts] = {
    "llama": Parts(),
    "mistral": Parts(),
    "qwen2": Parts(qkv_bias=True),
    "qwen3": Parts(qk_norm=True),
    "qwen3_moe": Parts(qk_norm=True, scoring="softmax"),
    "deepseek_v2": Parts(attention="mla", scoring="softmax"),
    "deepseek_v3": Parts(attention="mla", scoring="sigmoid"),
}


class RopeScaling(Settings):
    """How rotary positions are stretched beyond the length a model was first trained on (config.json's names).

    ``linear`` divides every frequency by ``factor``; ``llama3`` only the slow ones (Llama 3.1); ``yarn`` ramps between
    both and sharpens attention (arXiv 2309.00071).
    """

    rope_type: Literal["linear", "llama3", "yarn"]
    factor: float = Field(ge=1)
    original_max_position_embeddings: int | None = Field(None, ge=1)
    low_freq_factor: float | None = Field(None, gt=0)  # llama3
    high_freq_factor: float | None = Field(None, gt=0)  # llama3
    beta_fast: float = Field(32.0, gt=0)  # yarn: turns within the original length above which nothing is stretched
    beta_slow: float = Field(1.0, gt=0)  # yarn: turns below which all is
    mscale: float | None = Field(None, ge=0)  # yarn, DeepSeek: sharpness of cos and sin
    mscale_all_dim: float | None = Field(None, ge=0)  # yarn, DeepSeek: sharpness of the whole softmax
    attention_factor: float | None = Field(None, gt=0)  # yarn: overrides what the two above imply
    truncate: bool = True  # yarn: whether the ramp's ends are rounded to whole channels

    @model_validator(mode="after")
    def _says_what_it_needs(self) -> RopeScaling:
        needed = {"llama3": ("low_freq_factor", "high_freq_factor"), "yarn": (), "linear": ()}[self.rope_type]
        needed += () if self.rope_type == "linear" else ("original_max_position_embeddings",)
        if missing := [name for name in needed if getattr(self, name) is None]:
            raise ValueError(f'rotary positions of type "{self.rope_type}" need {", ".join(missing)}')
        if self.low_freq_factor and self.high_freq_factor and self.low_freq_factor >= self.high_freq_factor:
            raise ValueError("high_freq_factor must exceed low_freq_factor")
        return self


class ModelConfig(Settings):
    """One decoder. DeepSeek-V3 (arXiv 2412.19437) section 2.1 names in brackets."""

    model_type: Family = "deepseek_v3"
    vocab_size: int = Field(384, ge=8, le=2**24)
    hidden_size: int = Field(96, ge=2, le=2**17)
    num_hidden_layers: int = Field(3, ge=1, le=2**10)
    max_position_embeddings: int = Field(256, ge=8, le=2**24)
    rope_theta: float = Field(10_000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = Field(1e-6, gt=0)
    initializer_range: float = Field(0.02, gt=0)
    tie_word_embeddings: bool = False

    # attention
    num_attention_heads: int = Field(4, ge=1, le=2**12)
    num_key_value_heads: int | None = Field(None, ge=1)
    head_dim: int | None = Field(None, ge=1, le=2**14)
    attention_bias: bool = False  # of queries, keys, values and output; MLA: of the maps into latents and the output
    sliding_window: int | None = Field(None, ge=1)  # a token sees this many tokens, itself included
    max_window_layers: int = Field(0, ge=0)  # layers before this one see everything
    q_lora_rank: int | None = Field(None, ge=1, le=2**17)  # [d'_c], None: queries are projected straight from the width
    kv_lora_rank: int = Field(32, ge=1, le=2**17)  # [d_c]
    qk_nope_head_dim: int = Field(16, ge=1, le=2**14)  # [d_h]
    qk_rope_head_dim: int = Field(8, ge=2, multiple_of=2, le=2**14)  # [d^R_h]
    v_head_dim: int = Field(24, ge=1, le=2**14)
    rope_interleave: bool = True  # MLA: rotated pairs are neighbours; False: halves, as Llama's

    # feed-forward
    intermediate_size: int = Field(256, ge=1, le=2**20)
    mlp_bias: bool = False
    n_routed_experts: int | None = Field(None, ge=1, le=2**14)  # [N_r], None: every layer is dense
    n_shared_experts: int = Field(1, ge=0, le=2**10)  # [N_s]
    num_experts_per_tok: int = Field(2, ge=1)  # [K_r]
    moe_intermediate_size: int = Field(64, ge=1, le=2**20)
    first_k_dense_replace: int = Field(1, ge=0)
    decoder_sparse_step: int = Field(1, ge=1)  # every so many layers one routes
    mlp_only_layers: tuple[int, ...] = ()  # layers that stay dense
    n_group: int = Field(1, ge=1)
    topk_group: int = Field(1, ge=1)
    norm_topk_prob: bool = True
    routed_scaling_factor: float = Field(1.0, gt=0)

    num_nextn_predict_layers: int = Field(0, ge=0, le=1)  # [D], multi-token prediction depth

    @model_validator(mode="before")
    @classmethod
    def _family_defaults(cls, values: Any) -> Any:
        """Qwen's experts share nothing, and its first layer may route."""
        if isinstance(values, dict) and values.get("model_type") == "qwen3_moe":
            return {"n_shared_experts": 0, "first_k_dense_replace": 0} | values
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> ModelConfig:
        self._experts_fit()
        if self.num_attention_heads % self.kv_heads:
            raise ValueError("num_key_value_heads must divide num_attention_heads")
        if self.parts.attention == "gqa" and self.qk_head_dim % 2:
            raise ValueError("head_dim must be even for rotary positions")
        if self.parts.attention == "gqa" and not self.qk_head_dim:
            raise ValueError("hidden_size must reach num_attention_heads, or head_dim be given")
        if self.num_nextn_predict_layers and self.parts.attention != "mla":
            raise ValueError(f"num_nextn_predict_layers needs a DeepSeek family, not {self.model_type}")
        return self

    def _experts_fit(self) -> None:
        experts = self.n_routed_experts
        if experts is None:
            return
        if not self.parts.scoring:
            routing = ", ".join(name for name, parts in FAMILIES.items() if parts.scoring)
            raise ValueError(f"n_routed_experts needs a family that routes ({routing}), not {self.model_type}")
        if self.model_type == "qwen3_moe" and (self.n_shared_experts or self.first_k_dense_replace):
            raise ValueError("qwen3_moe shares no experts, and says by mlp_only_layers which layers stay dense")
        if experts % self.n_group or self.topk_group > self.n_group:
            raise ValueError("n_group must divide n_routed_experts, and topk_group must not exceed it")
        if self.num_experts_per_tok > experts // self.n_group * self.topk_group:
            raise ValueError("num_experts_per_tok exceeds the experts that the group limit leaves")

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

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """How a token's cached elements stand: (keys and values, their heads, a head's width); a latent whole."""
        if self.parts.attention == "mla":
            return 1, 1, self.cache_width
        return 2, self.kv_heads, self.qk_head_dim

    def is_moe(self, layer: int) -> bool:
        """Whether ``layer`` (the prediction layer counts as the one after the last) routes to experts."""
        routes = layer >= self.first_k_dense_replace and (layer + 1) % self.decoder_sparse_step == 0
        return self.n_routed_experts is not None and routes and layer not in self.mlp_only_layers

    @property
    def moe_layers(self) -> list[int]:
        """Main layers that route, in order: the layers whose routes a rollout records."""
        return [layer for layer in range(self.num_hidden_layers) if self.is_moe(layer)]

    def window(self, layer: int) -> int | None:
        """How many tokens a token of ``layer`` sees, itself included; None: all before it."""
        return self.sliding_window if layer >= self.max_window_layers else None
