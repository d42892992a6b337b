"""Counts from a config alone, against real tensors and against published figures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seekling.model import fused
from seekling.model.config import FAMILIES, ModelConfig
from seekling.model.count import count_parameters, flops_per_token
from seekling.model.decoder import Decoder, Rows
from seekling.model.presets import PRESETS, preset

settings.register_profile("laws", deadline=None)  # a busy machine is no broken law
settings.load_profile("laws")

SMALL = st.integers(1, 6)


@st.composite
def shapes(draw: Any) -> ModelConfig:
    family = draw(st.sampled_from(sorted(FAMILIES)))
    heads = draw(SMALL)
    values = dict(
        model_type=family, vocab_size=draw(st.integers(8, 30)), hidden_size=draw(st.integers(2, 12)),
        num_hidden_layers=draw(st.integers(1, 4)), intermediate_size=draw(SMALL), num_attention_heads=heads,
        tie_word_embeddings=draw(st.booleans()), attention_bias=draw(st.booleans()), mlp_bias=draw(st.booleans()),
        num_nextn_predict_layers=draw(st.integers(0, 1)) if family.startswith("deepseek") else 0,
        head_dim=2 * draw(SMALL), num_key_value_heads=draw(st.sampled_from([None, 1, heads])),
        q_lora_rank=draw(st.none() | SMALL), kv_lora_rank=draw(SMALL), qk_nope_head_dim=draw(SMALL),
        qk_rope_head_dim=2 * draw(SMALL), v_head_dim=draw(SMALL), max_position_embeddings=8,
    )  # fmt: skip
    if FAMILIES[family].scoring and draw(st.booleans()):
        experts, shared = draw(st.integers(1, 6)), family.startswith("deepseek")
        values |= dict(
            n_routed_experts=experts, moe_intermediate_size=draw(SMALL),
            num_experts_per_tok=draw(st.integers(1, experts)),
            n_shared_experts=draw(st.integers(0, 2 * shared)), first_k_dense_replace=draw(st.integers(0, 4 * shared)),
            decoder_sparse_step=draw(st.integers(1, 2)), mlp_only_layers=draw(st.sampled_from([(), (1,)])),
        )  # fmt: skip
    return ModelConfig(**values)


def counted(config: ModelConfig) -> tuple[int, int, int]:
    """Total, active and prediction-layer parameters of the real tensors."""
    with torch.device("meta"):
        sizes = {name: weight.numel() for name, weight in Decoder(config).named_parameters()}
    mtp = sum(size for name, size in sizes.items() if name.startswith("mtp."))
    total = sum(sizes.values()) - mtp
    idle = 0.0
    if config.n_routed_experts:
        stacks = [s for n, s in sizes.items() if n.endswith(("gate_up_proj", "mlp.down_proj")) and "mtp." not in n]
        idle = sum(stacks) * (1 - config.num_experts_per_tok / config.n_routed_experts)
    table = 0 if config.tie_word_embeddings else sizes["embed_tokens.weight"]
    return total, round(total - idle - table), mtp


PUBLISHED = {
    "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304, "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-32b": 32_763_876_352, "r1-distill-qwen-1.5b": 1_777_088_000, "r1-distill-llama-8b": 8_030_261_248,
    "qwen3-0.6b": 596_049_920, "qwen3-8b": 8_190_735_360, "qwen3-30b-a3b": 30_532_122_624,
    "llama-3.2-1b": 1_235_814_400, "llama-3.1-8b": 8_030_261_248, "llama-3.3-70b": 70_553_706_496,
    "mistral-7b-v0.3": 7_248_023_552, "deepseek-v2-lite": 15_706_484_224, "deepseek-v2": 235_741_434_880,
    "deepseek-v3": 671_026_404_352,
}  # fmt: skip
"""Parameters of published checkpoints (the hub's safetensors metadata; V3 without its prediction layer)."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_shape_counts_as_published(name: str) -> None:
    assert count_parameters(preset(name)).total == PUBLISHED[name]


def test_every_published_preset_is_counted() -> None:
    assert {name for name in PRESETS if not name.startswith(("tiny", "small"))} == PUBLISHED.keys()


@given(shapes())
def test_counts_equal_the_real_tensors(config: ModelConfig) -> None:
    count = count_parameters(config)
    assert (count.total, count.active, count.mtp) == counted(config)


def test_deepseek_v3_has_the_published_counts() -> None:
    count = count_parameters(preset("deepseek-v3"))
    assert round(count.total / 1e9, 2) == 671.03
    assert round(count.mtp / 1e9, 2) == 11.61
    assert round(count.active / 1e9, 2) == 36.63


def one_row(length: int) -> Rows:
    zeros = torch.zeros(1, length, dtype=torch.long)
    return Rows(zeros, torch.arange(length).unsqueeze(0), zeros + 1)


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(vocab_size=32, v_head_dim=24, q_lora_rank=8, num_nextn_predict_layers=1),
        ModelConfig(model_type="qwen3", vocab_size=32, num_key_value_heads=2, head_dim=16),
    ],
    ids=["latent", "grouped"],
)
def test_flops_equal_those_torch_counts(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch charges every query for all T positions; so does a context of T. What kernels do it does not see."""
    monkeypatch.setattr(fused, "library", lambda _: None)
    length = 16
    model = Decoder(config).init_weights(0)
    rows = one_row(length)
    for mtp in {False, model.mtp is not None}:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            states = model(rows).states_BTD
            model.logits(states)
            if mtp:
                model.logits(model.predict_next(rows, states)[0])
        expected = length * flops_per_token(config, length, training=False, mtp=mtp)
        assert counter.get_total_flops() == pytest.approx(expected, rel=1e-6)


def test_training_costs_three_forwards() -> None:
    config = preset("tiny-v3")
    assert flops_per_token(config, 50, training=True) == 3 * flops_per_token(config, 50, training=False)
