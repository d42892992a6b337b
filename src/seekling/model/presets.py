"""Named shapes, as data: small ones to grow, published ones to count, plan and compare with."""

from __future__ import annotations

from typing import Any

from seekling.errors import UserError, nearest
from seekling.model.config import ModelConfig, RopeScaling


def _qwen25(**own: Any) -> ModelConfig:
    shape = dict(model_type="qwen2", vocab_size=151936, max_position_embeddings=32768, rope_theta=1e6)
    return ModelConfig(**(shape | own))


def _qwen3(**own: Any) -> ModelConfig:
    shape = dict(vocab_size=151936, head_dim=128, max_position_embeddings=40960, rope_theta=1e6)
    return ModelConfig(**({"model_type": "qwen3"} | shape | own))


def _llama31(factor: float, **own: Any) -> ModelConfig:
    stretched = RopeScaling(
        rope_type="llama3", factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )  # fmt: skip
    shape = dict(model_type="llama", vocab_size=128256, max_position_embeddings=131072, rope_theta=5e5)
    return ModelConfig(**(shape | dict(rms_norm_eps=1e-5, num_key_value_heads=8, rope_scaling=stretched) | own))


def _deepseek(model_type: str, mscale: float, **own: Any) -> ModelConfig:
    """DeepSeek's latent attention; 512 + 64 is what GPU kernels for it are built for."""
    yarn = RopeScaling(
        rope_type="yarn", factor=40.0, original_max_position_embeddings=4096, mscale=mscale, mscale_all_dim=mscale
    )
    shape = dict(
        model_type=model_type, max_position_embeddings=163840, rope_scaling=yarn, kv_lora_rank=512,
        qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
    )  # fmt: skip
    return ModelConfig(**(shape | own))


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
    "small-v3": ModelConfig(
        vocab_size=8192, hidden_size=512, num_hidden_layers=12, num_attention_heads=8, max_position_embeddings=4096,
        kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, intermediate_size=1408,
        n_routed_experts=32, num_experts_per_tok=4, moe_intermediate_size=256, num_nextn_predict_layers=1,
    ),
    "qwen2.5-0.5b": _qwen25(
        hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864,
        tie_word_embeddings=True,
    ),
    "qwen2.5-1.5b": _qwen25(
        hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2, intermediate_size=8960,
        tie_word_embeddings=True,
    ),
    "qwen2.5-7b": _qwen25(
        vocab_size=152064, hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        intermediate_size=18944, max_position_embeddings=131072,
    ),
    "qwen2.5-32b": _qwen25(
        vocab_size=152064, hidden_size=5120, num_hidden_layers=64, num_attention_heads=40, num_key_value_heads=8,
        intermediate_size=27648, max_position_embeddings=131072, rms_norm_eps=1e-5,
    ),
    "r1-distill-qwen-1.5b": _qwen25(
        hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2, intermediate_size=8960,
        max_position_embeddings=131072, rope_theta=10_000.0,
    ),
    "r1-distill-llama-8b": _llama31(
        8.0, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=14336,
    ),
    "qwen3-0.6b": _qwen3(
        hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, intermediate_size=3072,
        tie_word_embeddings=True,
    ),
    "qwen3-8b": _qwen3(
        hidden_size=4096, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, intermediate_size=12288,
    ),
    "qwen3-30b-a3b": _qwen3(
        model_type="qwen3_moe", hidden_size=2048, num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4,
        intermediate_size=6144, n_routed_experts=128, num_experts_per_tok=8, moe_intermediate_size=768,
    ),
    "llama-3.2-1b": _llama31(
        32.0, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, head_dim=64, intermediate_size=8192,
        tie_word_embeddings=True,
    ),
    "llama-3.1-8b": _llama31(
        8.0, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=14336,
    ),
    "llama-3.3-70b": _llama31(
        8.0, hidden_size=8192, num_hidden_layers=80, num_attention_heads=64, intermediate_size=28672,
    ),
    "mistral-7b-v0.3": ModelConfig(
        model_type="mistral", vocab_size=32768, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, intermediate_size=14336, max_position_embeddings=32768, rope_theta=1e6,
        rms_norm_eps=1e-5,
    ),
    "deepseek-v2-lite": _deepseek(
        "deepseek_v2", 0.707, vocab_size=102400, hidden_size=2048, num_hidden_layers=27, num_attention_heads=16,
        intermediate_size=10944, n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6,
        moe_intermediate_size=1408, norm_topk_prob=False,
    ),
    "deepseek-v2": _deepseek(
        "deepseek_v2", 0.707, vocab_size=102400, hidden_size=5120, num_hidden_layers=60, num_attention_heads=128,
        q_lora_rank=1536, intermediate_size=12288, n_routed_experts=160, n_shared_experts=2, num_experts_per_tok=6,
        moe_intermediate_size=1536, n_group=8, topk_group=3, norm_topk_prob=False, routed_scaling_factor=16.0,
    ),
    "deepseek-v3": _deepseek(
        "deepseek_v3", 1.0, vocab_size=129280, hidden_size=7168, num_hidden_layers=61, num_attention_heads=128,
        q_lora_rank=1536, intermediate_size=18432, n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8,
        moe_intermediate_size=2048, first_k_dense_replace=3, n_group=8, topk_group=4, routed_scaling_factor=2.5,
        num_nextn_predict_layers=1,
    ),
}  # fmt: skip


def preset(name: str) -> ModelConfig:
    """A named shape. Raises UserError naming the nearest preset."""
    if name not in PRESETS:
        raise UserError(f'there is no model preset "{name}"', next_step=nearest(name, PRESETS))
    return PRESETS[name]
