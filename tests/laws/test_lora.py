"""Laws of adapters and patterns, on shapes, ranks and targets drawn by hypothesis."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.lora import (
    adapters,
    add_adapters,
    keep_trained,
    load_adapter,
    matching,
    merged,
    reference_of,
    save_adapter,
    sites,
    told,
)
from tests.oracles.tiny import build, packed, text

ROWS = packed([[text(6, 1), text(3, 2)], [text(8, 3)]], 10)


@st.composite
def shapes(draw: st.DrawFn) -> ModelConfig:
    """Small decoders of every way to be put together, odd sizes included."""
    common = dict(
        vocab_size=41, num_hidden_layers=draw(st.integers(1, 3)), max_position_embeddings=16, initializer_range=0.3,
        intermediate_size=draw(st.integers(3, 20)), tie_word_embeddings=draw(st.booleans()),
    )  # fmt: skip
    if draw(st.booleans()):
        family = draw(st.sampled_from(["llama", "qwen2", "qwen3"]))
        heads = draw(st.sampled_from([2, 4]))
        return ModelConfig(**common, model_type=family, num_attention_heads=heads, hidden_size=heads * 6,
                           num_key_value_heads=draw(st.sampled_from([1, 2])))  # fmt: skip
    experts = draw(st.sampled_from([None, 4, 5]))
    return ModelConfig(
        **common, model_type=draw(st.sampled_from(["deepseek_v2", "deepseek_v3"])),
        hidden_size=draw(st.integers(7, 24)),
        num_attention_heads=draw(st.integers(1, 3)), q_lora_rank=draw(st.sampled_from([None, 5])),
        kv_lora_rank=draw(st.integers(4, 9)), qk_nope_head_dim=draw(st.integers(2, 6)), qk_rope_head_dim=4,
        v_head_dim=draw(st.integers(1, 9)), n_routed_experts=experts, moe_intermediate_size=draw(st.integers(2, 8)),
        first_k_dense_replace=draw(st.integers(0, 1)), n_shared_experts=draw(st.integers(0, 2)),
        num_nextn_predict_layers=draw(st.integers(0, 1)),
    )  # fmt: skip


def base_of(config: ModelConfig, seed: int) -> Decoder:
    return build(config, seed) if config.parts.scoring == "sigmoid" else Decoder(config).init_weights(seed)


@st.composite
def adapted(draw: st.DrawFn) -> tuple[Decoder, Decoder]:
    """A base, and the same with adapters at some of its sites, in float64."""
    config, seed = draw(shapes()), draw(st.integers(0, 99))
    base, model = base_of(config, seed).double(), base_of(config, seed).double()
    targets = draw(st.lists(st.sampled_from(sorted(sites(model))), min_size=1, max_size=6, unique=True))
    add_adapters(model, rank=draw(st.integers(1, 9)), scale=draw(st.floats(0.1, 4)), targets=targets, seed=seed)
    assert len(adapters(model)) >= len(targets)
    return base, model


def logits(model: Decoder) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(ROWS).states_BTD)


def move(model: Decoder, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for pair in adapters(model).values():
            pair.B.add_(0.2 * torch.randn(pair.B.shape, generator=generator, dtype=pair.B.dtype))


FEW = settings(max_examples=25, deadline=None, database=None)


@FEW
@given(adapted(), st.integers(0, 99))
def test_adapters_change_nothing_at_first_and_merging_changes_nothing_ever(
    pair: tuple[Decoder, Decoder], seed: int
) -> None:
    base, model = pair
    assert torch.equal(logits(model), logits(base))
    move(model, seed)
    torch.testing.assert_close(logits(merged(model)), logits(model), rtol=1e-8, atol=1e-8)
    assert torch.equal(logits(reference_of(model)), logits(base))


@FEW
@given(adapted(), st.integers(0, 99))
def test_what_is_saved_comes_back_to_the_bit(pair: tuple[Decoder, Decoder], seed: int) -> None:
    base, model = pair
    move(model, seed)
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(Path(folder), model, "base")
        load_adapter(Path(folder), base)
    found, back = adapters(model), adapters(base)
    assert found.keys() == back.keys()
    for name, own in found.items():
        assert torch.equal(own.A, back[name].A) and torch.equal(own.B, back[name].B)
        assert own.scale == pytest.approx(back[name].scale, rel=1e-12)


MODELS = [
    Decoder(ModelConfig(n_routed_experts=4, num_nextn_predict_layers=1)),
    Decoder(ModelConfig(model_type="qwen3")),
]
PARAMETERS = sorted({told(name) for model in MODELS for name, _ in model.named_parameters()})
PARTS = sorted({part for name in PARAMETERS for part in name.split(".")})
PATTERNS = st.lists(st.sampled_from([*PARTS, "*", "[01]", "?"]), min_size=1, max_size=3).map(".".join)


def found(*patterns: str) -> set[str]:
    try:
        return matching(patterns, PARAMETERS)
    except UserError:
        return set()


@given(st.sampled_from(PARAMETERS), st.data())
def test_a_run_of_whole_parts_of_a_name_speaks_of_it(name: str, data: st.DataObject) -> None:
    parts = name.split(".")
    start = data.draw(st.integers(0, len(parts) - 1))
    end = data.draw(st.integers(start + 1, len(parts)))
    assert name in matching([".".join(parts[start:end])], PARAMETERS)
    assert name in matching([name], PARAMETERS) and matching(["*"], PARAMETERS) == set(PARAMETERS)


@given(PATTERNS, PATTERNS)
def test_patterns_together_speak_of_what_each_speaks_of(one: str, other: str) -> None:
    assume(found(one) and found(other))
    assert matching([one, other], PARAMETERS) == found(one) | found(other)


@given(st.sampled_from(PARTS), st.data())
def test_a_part_cut_short_speaks_of_no_longer_one(part: str, data: st.DataObject) -> None:
    """``mlp.gate`` is the router, never ``mlp.gate_proj``."""
    cut = part[: data.draw(st.integers(1, len(part)))]
    assume(cut not in PARTS)
    with pytest.raises(UserError):
        matching([cut], PARAMETERS)


@FEW
@given(shapes(), st.data())
def test_what_is_trained_is_what_train_says_less_what_freeze_says(config: ModelConfig, data: st.DataObject) -> None:
    model = Decoder(config)
    named = {told(name): weight for name, weight in model.named_parameters()}
    part = st.sampled_from(sorted({part for name in named for part in name.split(".")}))
    train, freeze = data.draw(part, "train"), data.draw(part, "freeze")
    expected = matching([train], named) - matching([freeze], named)
    if not expected:
        with pytest.raises(UserError, match="nothing to train"):
            keep_trained(model, train=[train], freeze=[freeze])
        return
    keep_trained(model, train=[train], freeze=[freeze])
    assert {name for name, weight in named.items() if weight.requires_grad} == expected
