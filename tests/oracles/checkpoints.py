"""Whole checkpoints as somebody would publish them: weights by transformers, tokenizer and template beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DeepseekV3Config, GPT2Config, Qwen2Config

from seekling.text.tokenizer import Tokenizer
from tests.oracles.tokenizers import FAMILIES


def _shape(num_ids: int) -> dict[str, Any]:
    return dict(
        vocab_size=num_ids, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, initializer_range=0.05, rms_norm_eps=1e-6,
    )  # fmt: skip


def qwen2(num_ids: int) -> Any:
    """A small Qwen2.5: grouped queries, biases, tied head, embedding padded beyond the tokenizer."""
    return Qwen2Config(**_shape(num_ids + 11), num_key_value_heads=2, tie_word_embeddings=True)


def deepseek_v3(num_ids: int) -> Any:
    """A small DeepSeek-V3: latent attention, experts in groups, YaRN."""
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128,
            "mscale": 1.0, "mscale_all_dim": 1.0}  # fmt: skip
    return DeepseekV3Config(
        **_shape(num_ids), num_key_value_heads=4, moe_intermediate_size=16, n_routed_experts=8, num_experts_per_tok=2,
        n_shared_experts=1, n_group=2, topk_group=1, first_k_dense_replace=1, kv_lora_rank=16, q_lora_rank=12,
        qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, num_mtp_layers=0, rope_parameters=yarn,
    )  # fmt: skip


def gpt2(num_ids: int) -> Any:
    """A family that is not built here."""
    return GPT2Config(
        vocab_size=num_ids, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=None, eos_token_id=0
    )


MAKERS = {"qwen2": (qwen2, "qwen2.5"), "deepseek_v3": (deepseek_v3, "deepseek_r1"), "gpt2": (gpt2, "qwen2.5")}


def publish(name: str, folder: Path) -> Path:
    """Write a checkpoint as transformers writes it, tokenizer files beside. Returns the folder."""
    config, tokenizer = MAKERS[name]
    FAMILIES[tokenizer].write(folder)
    num_ids = Tokenizer.load(folder).vocab_size
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(num_ids), dtype=torch.float32).eval()
    for key, buffer in model.named_buffers():
        if key.endswith("e_score_correction_bias"):
            buffer.uniform_(-0.2, 0.2)
    generation = (
        json.loads((folder / "generation_config.json").read_text())
        if (folder / "generation_config.json").exists()
        else {}
    )
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder
