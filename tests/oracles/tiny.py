"""Tiny random models of every family, and rows to feed them: shared by the parity tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder, Rows

V = 41
"""Vocabulary of the tiny models."""

COMMON = dict(
    vocab_size=V, hidden_size=24, num_hidden_layers=2, max_position_embeddings=48, intermediate_size=20,
    num_attention_heads=3, initializer_range=0.3,
)  # fmt: skip
LATENT = COMMON | dict(kv_lora_rank=8, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=8)
EXPERTS = LATENT | dict(n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=8, first_k_dense_replace=1)

SHAPES: dict[str, ModelConfig] = {
    "v3": ModelConfig(**EXPERTS, q_lora_rank=8, num_nextn_predict_layers=1, routed_scaling_factor=2.5),
    "v3-groups": ModelConfig(
        **EXPERTS | dict(first_k_dense_replace=0), n_group=3, topk_group=2, n_shared_experts=2, norm_topk_prob=False
    ),
    "mla-wide-values": ModelConfig(**LATENT | dict(v_head_dim=14)),
    "mla-odd": ModelConfig(
        **EXPERTS
        | dict(hidden_size=13, num_attention_heads=5, q_lora_rank=7, kv_lora_rank=9, qk_nope_head_dim=3,
               qk_rope_head_dim=2, v_head_dim=1, n_routed_experts=5, moe_intermediate_size=3)
    ),
    "llama": ModelConfig(**COMMON, model_type="llama", tie_word_embeddings=True),
    "qwen3": ModelConfig(
        **COMMON | dict(num_attention_heads=4), model_type="qwen3", num_key_value_heads=2, head_dim=10,
        rope_theta=1e6, rms_norm_eps=1e-5,
    ),
}  # fmt: skip
"""One shape per way a decoder can be put together."""


def build(config: ModelConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> Decoder:
    """Random weights, norms off one and router biases off zero, so that nothing is hidden by a neutral element."""
    model = Decoder(config).init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.copy_(0.5 + torch.rand(weight.shape, generator=generator))
        for router in model.routers():
            bias = router.e_score_correction_bias
            if bias is not None:
                bias.copy_(0.4 * torch.rand(bias.shape, generator=generator) - 0.2)
    return model.double() if dtype == torch.float64 else model


def numbers(model: Decoder) -> dict[str, NDArray[np.float64]]:
    """The state dict as float64 arrays, for an oracle."""
    return {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}


def text(length: int, seed: int = 0) -> list[int]:
    """Random tokens."""
    return np.random.default_rng((seed, length)).integers(0, V, length).tolist()


def alone(tokens: Sequence[int]) -> Rows:
    """One text, one row, no padding."""
    return Rows(torch.tensor([tokens]), torch.arange(len(tokens)).unsqueeze(0), torch.ones(1, len(tokens), dtype=int))


def packed(rows: Sequence[Sequence[Sequence[int]]], width: int) -> Rows:
    """Texts laid one after another into rows of ``width``; the rest is padding."""
    tokens, positions, segments = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    for row, members in enumerate(rows):
        start = 0
        for number, member in enumerate(members, 1):
            here = slice(start, start + len(member))
            tokens[row, here], positions[row, here] = torch.tensor(member), torch.arange(len(member))
            segments[row, here], start = number, start + len(member)
    return Rows(tokens, positions, segments)
