"""Attention against loops written from the papers, and its two forms against each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seekling.model.attention import MultiHeadLatentAttention
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.pages import SLOTS
from tests.oracles import attention as oracle
from tests.oracles.paged import PLAIN, chunk_of, pool
from tests.oracles.tiny import LATENT, SHAPES, build

LENGTH = 7
WIDTHS = [
    dict(q_lora_rank=None, v_head_dim=4),
    dict(q_lora_rank=None, v_head_dim=10),
    dict(q_lora_rank=6, v_head_dim=4),
    dict(q_lora_rank=6, v_head_dim=17),
    dict(q_lora_rank=5, v_head_dim=1, qk_nope_head_dim=3, qk_rope_head_dim=2, kv_lora_rank=9, hidden_size=15),
]


def layer_of(config: ModelConfig) -> tuple[Decoder, torch.nn.Module, dict[str, np.ndarray]]:
    model = build(config)
    attention = model.blocks[0].self_attn
    return model, attention, {name: value.double().numpy() for name, value in attention.state_dict().items()}


def stream(config: ModelConfig) -> Tensor:
    return torch.randn(1, LENGTH, config.hidden_size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_latent_attention_equals_the_papers_loops(widths: dict[str, int]) -> None:
    config = ModelConfig(**LATENT | widths)
    model, attention, weights = layer_of(config)
    x = stream(config)
    out = attention(x, model.rotary_TR[:LENGTH].unsqueeze(0), None)
    np.testing.assert_allclose(
        out[0].detach(), oracle.mla(x[0].double().numpy(), weights, config), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_grouped_query_attention_equals_the_papers_loops(name: str) -> None:
    config = SHAPES[name]
    model, attention, weights = layer_of(config)
    x = stream(config)
    out = attention(x, model.rotary_TR[:LENGTH].unsqueeze(0), None)
    np.testing.assert_allclose(
        out[0].detach(), oracle.gqa(x[0].double().numpy(), weights, config), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("widths", [*WIDTHS, dict(model_type="qwen3", head_dim=10)], ids=str)
def test_going_on_from_a_cache_equals_attending_within_the_row(widths: dict[str, Any]) -> None:
    """For latent attention this is absorbed = naive."""
    config = ModelConfig(**LATENT | widths)
    model, attention, _ = layer_of(config)
    x, rotary = stream(config), model.rotary_TR
    whole = attention(x, rotary[:LENGTH].unsqueeze(0), None)
    pages, tables = pool(config, 1, LENGTH)
    with torch.no_grad():
        for start, end in ((0, 3), (3, 4), (4, LENGTH)):
            chunk = chunk_of([[0] * (end - start)], [start], tables)
            step = attention.extend(x[0, start:end], rotary, chunk, pages.layers[0], PLAIN)
            torch.testing.assert_close(step, whole[0, start:end], rtol=1e-4, atol=1e-5)


def test_a_latent_cache_holds_the_normed_latent_and_one_rotated_key_for_all_heads() -> None:
    config = ModelConfig(**LATENT)
    model, attention, weights = layer_of(config)
    assert isinstance(attention, MultiHeadLatentAttention)
    x = stream(config)
    pages, tables = pool(config, 1, LENGTH)
    with torch.no_grad():
        attention.extend(x[0], model.rotary_TR, chunk_of([[0] * LENGTH], [0], tables), pages.layers[0], PLAIN)
    entry_SW = pages.layers[0][0][0]
    assert entry_SW.shape == (SLOTS, config.kv_lora_rank + config.qk_rope_head_dim)
    t = LENGTH - 1
    down = weights["kv_a_proj_with_mqa.weight"] @ x[0, t].double().numpy()
    latent = oracle.rms_norm(down[: config.kv_lora_rank], weights["kv_a_layernorm.weight"], 1e-6)
    key = oracle.rotate(down[config.kv_lora_rank :], t, config.rope_theta, interleaved=True)
    np.testing.assert_allclose(entry_SW[t], np.concatenate((latent, key)), rtol=1e-4, atol=1e-5)


def test_only_the_distance_between_positions_matters() -> None:
    config = SHAPES["v3"]
    model, attention, _ = layer_of(config)
    x = stream(config)
    here = attention(x, model.rotary_TR[:LENGTH].unsqueeze(0), None)
    later = attention(x, model.rotary_TR[30 : 30 + LENGTH].unsqueeze(0), None)
    torch.testing.assert_close(here, later, rtol=1e-4, atol=1e-5)
