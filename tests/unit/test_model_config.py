"""Model shapes: what fits together, and the letters about what does not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from seekling.config import parse
from seekling.errors import UserError
from seekling.model.config import ModelConfig
from seekling.model.presets import PRESETS, preset


@pytest.mark.parametrize(
    "values, letter",
    [
        (dict(model_type="qwen3", n_routed_experts=4), "n_routed_experts needs a family that routes"),
        (dict(model_type="gpt2"), "model_type"),
        (dict(model_type="qwen3_moe", n_routed_experts=4, n_shared_experts=1), "shares no experts"),
        (dict(model_type="qwen3_moe", n_routed_experts=4, first_k_dense_replace=1), "mlp_only_layers"),
        (dict(n_routed_experts=8, num_experts_per_tok=9), "num_experts_per_tok exceeds"),
        (dict(n_routed_experts=8, n_group=4, topk_group=1, num_experts_per_tok=3), "num_experts_per_tok exceeds"),
        (dict(n_routed_experts=9, n_group=2, num_experts_per_tok=2), "n_group must divide"),
        (dict(n_routed_experts=8, n_group=2, topk_group=3), "topk_group must not exceed"),
        (dict(model_type="llama", num_attention_heads=4, num_key_value_heads=3), "must divide num_attention_heads"),
        (dict(model_type="llama", head_dim=7), "head_dim must be even"),
        (dict(qk_rope_head_dim=3), "qk_rope_head_dim"),
        (dict(hiden_size=64), "hidden_size"),
        (dict(hidden_size="wide"), "hidden_size"),
    ],
    ids=str,
)
def test_a_shape_that_cannot_be_built_is_refused_by_name(values: dict[str, Any], letter: str) -> None:
    with pytest.raises(UserError, match=letter):
        parse(ModelConfig, values)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match="tiny-v3"):
        preset("tiny-v4")


def test_the_tiny_preset_is_a_true_small_deepseek_v3() -> None:
    tiny = preset("tiny-v3")
    assert tiny.parts.attention == "mla" and tiny.n_shared_experts == 1 and tiny.num_nextn_predict_layers == 1
    assert tiny.moe_layers == [1, 2]


def test_the_prediction_layer_counts_as_the_one_behind_the_last() -> None:
    config = preset("deepseek-v3")
    assert [config.is_moe(layer) for layer in (2, 3, 61)] == [False, True, True]
    assert len(config.moe_layers) == 58


def test_a_latent_cache_is_many_times_narrower_than_a_full_one() -> None:
    assert preset("deepseek-v3").cache_width == 512 + 64
    assert ModelConfig(model_type="llama", num_attention_heads=4, head_dim=16).cache_width == 2 * 4 * 16


def test_heads_share_keys_only_when_told_to() -> None:
    assert ModelConfig(model_type="llama", num_attention_heads=6, head_dim=4).kv_heads == 6
    assert ModelConfig(model_type="llama", num_attention_heads=6, num_key_value_heads=2, head_dim=4).kv_heads == 2


def test_shapes_and_counts_answer_without_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from seekling.model.presets import PRESETS\nfrom seekling.model.count import count_parameters\n"
        "print(len([count_parameters(c) for c in PRESETS.values()]))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(said) == len(PRESETS)
