"""Us against transformers, on tiny random weights: what one saves the other loads, and both say the same.

transformers is a test dependency (``make setup-test``); without it these tests fail rather than hide.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, DeepseekV3Config, LlamaConfig, Qwen3Config

from seekling.model.config import ModelConfig
from seekling.model.weights import load_model, save_model
from tests.oracles.tiny import COMMON, EXPERTS, LATENT, V, alone, build, text

V3 = EXPERTS | dict(num_hidden_layers=3, rope_theta=500.0)
OURS = {
    "v3, groups, low-rank queries, next-token module": ModelConfig(
        **V3, q_lora_rank=8, n_group=3, topk_group=2, routed_scaling_factor=2.5, num_nextn_predict_layers=1
    ),
    "v3, plain queries, two shared experts, gates not normalised": ModelConfig(
        **V3 | dict(n_shared_experts=2, norm_topk_prob=False, first_k_dense_replace=0)
    ),
    "v3, wide values, tied head": ModelConfig(**V3 | dict(v_head_dim=14), tie_word_embeddings=True),
    "v3, dense throughout": ModelConfig(**LATENT | dict(rope_theta=500.0)),
    "llama": ModelConfig(**COMMON, model_type="llama", rms_norm_eps=1e-5, rope_theta=500.0),
    "llama, grouped queries, wide heads, tied": ModelConfig(
        **COMMON | dict(num_attention_heads=4), model_type="llama", num_key_value_heads=2, head_dim=10,
        tie_word_embeddings=True,
    ),
    "qwen3": ModelConfig(
        **COMMON | dict(num_attention_heads=4), model_type="qwen3", num_key_value_heads=2, head_dim=10, rope_theta=1e6
    ),
}  # fmt: skip

THEIR_V3 = dict(
    vocab_size=V, hidden_size=24, intermediate_size=20, moe_intermediate_size=8, num_hidden_layers=3,
    num_attention_heads=3, num_key_value_heads=3, n_shared_experts=1, n_routed_experts=6, kv_lora_rank=8,
    q_lora_rank=None, qk_rope_head_dim=4, v_head_dim=8, qk_nope_head_dim=6, n_group=2, topk_group=1,
    num_experts_per_tok=2, first_k_dense_replace=1, max_position_embeddings=48, initializer_range=0.3,
    rope_parameters={"rope_type": "default", "rope_theta": 500.0},
)  # fmt: skip
THEIR_COMMON = dict(
    vocab_size=V, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=10, max_position_embeddings=48, initializer_range=0.3,
    rope_parameters={"rope_type": "default", "rope_theta": 500.0},
)  # fmt: skip
THEIRS = {
    "deepseek_v3": DeepseekV3Config(**THEIR_V3, num_mtp_layers=0),
    "deepseek_v3 that names a next-token module it does not save": DeepseekV3Config(**THEIR_V3, num_mtp_layers=1),
    "llama": LlamaConfig(**THEIR_COMMON),
    "llama tied": LlamaConfig(**THEIR_COMMON, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**THEIR_COMMON),
}


def their_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0]


def our_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(alone(tokens)).states_BTD)[0]


@pytest.mark.parametrize("name", OURS)
def test_transformers_loads_what_we_save_and_says_the_same(name: str, tmp_path: Path) -> None:
    ours = build(OURS[name])
    save_model(tmp_path, ours)
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True, dtype=torch.float32)
    ahead = f"model.layers.{ours.config.num_hidden_layers}."
    unexpected = [key for key in report["unexpected_keys"] if not key.startswith(ahead)]
    assert not report["missing_keys"] and not unexpected and not report["mismatched_keys"]
    tokens = text(30)
    torch.testing.assert_close(their_logits(theirs.eval(), tokens), our_logits(ours, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", THEIRS)
def test_we_load_what_transformers_saves_and_say_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(THEIRS[name]).eval().float()
    for key, buffer in theirs.named_buffers():
        if key.endswith("e_score_correction_bias"):
            buffer.uniform_(-0.3, 0.3)
    theirs.save_pretrained(tmp_path)
    ours, tokens = load_model(tmp_path), text(30)
    torch.testing.assert_close(our_logits(ours, tokens), their_logits(theirs, tokens), rtol=1e-4, atol=1e-4)


def test_the_names_on_disk_are_those_transformers_writes(tmp_path: Path) -> None:
    save_model(tmp_path / "ours", build(OURS["v3, plain queries, two shared experts, gates not normalised"]))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    ours, again = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    assert ours.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in ours.items())
