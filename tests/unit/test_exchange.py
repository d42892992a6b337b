"""config.json in and out: published vectors, both spellings, and a name for whatever cannot be served."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest

from seekling.errors import UserError
from seekling.model.config import FAMILIES, ModelConfig
from seekling.model.exchange import config_from, config_to, fields_of, passed_over
from seekling.model.layers import frequencies, ramp_ends, rotary_magnitude, rotary_table, softmax_scale
from seekling.model.presets import PRESETS, preset

LLAMA: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "hidden_act": "silu",
}  # fmt: skip
QWEN = LLAMA | {"model_type": "qwen2"}
MOE = LLAMA | {
    "model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip
V3 = LLAMA | {
    "model_type": "deepseek_v3", "kv_lora_rank": 16, "q_lora_rank": None, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
    "v_head_dim": 8, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 2,
    "topk_group": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "num_nextn_predict_layers": 1,
}  # fmt: skip
V2 = V3 | {"model_type": "deepseek_v2", "scoring_func": "softmax", "topk_method": "group_limited_greedy"}
YARN = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 1.0}


def read(values: dict[str, Any]) -> ModelConfig:
    return config_from(values, "config.json")


# --- published vectors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-v2", "deepseek-v2-lite"])
def test_deepseeks_ramp_runs_from_pair_10_to_pair_23(name: str) -> None:
    assert ramp_ends(preset(name)) == (10, 23)


@pytest.mark.parametrize(
    "name, scale", [("deepseek-v3", 0.1352338), ("deepseek-v2", 0.1147214), ("deepseek-v2-lite", 0.1147214)]
)
def test_deepseeks_softmax_is_sharpened_as_published(name: str, scale: float) -> None:
    assert math.isclose(softmax_scale(preset(name)), scale, rel_tol=1e-6)
    assert rotary_magnitude(preset(name)) == 1.0


def test_yarn_keeps_fast_pairs_and_stretches_slow_ones_by_the_factor() -> None:
    stretched = frequencies(preset("deepseek-v3"))
    plain = frequencies(preset("deepseek-v3").model_copy(update={"rope_scaling": None}))
    ratio = (plain / stretched).tolist()
    assert ratio[:11] == [1.0] * 11 and all(math.isclose(r, 40) for r in ratio[23:])
    assert all(a < b for a, b in pairwise(ratio[10:24]))


def test_llama_3_keeps_pairs_that_turn_often_and_stretches_those_that_hardly_turn() -> None:
    config = preset("llama-3.1-8b")
    ratio = frequencies(config.model_copy(update={"rope_scaling": None})) / frequencies(config)
    assert float(ratio[0]) == 1.0 and math.isclose(float(ratio[-1]), 8.0)
    assert (ratio[1:] >= ratio[:-1]).all()


def test_positions_turn_the_table_with_the_magnitude_that_yarn_asks_for() -> None:
    table = rotary_table(read(LLAMA | {"rope_scaling": YARN | {"mscale": None, "mscale_all_dim": None}}), 3)
    assert math.isclose(float(table[2, 0].abs()), 0.1 * math.log(40) + 1, rel_tol=1e-6)


# --- both spellings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_shape_written_and_read_is_the_same_shape(name: str) -> None:
    config = PRESETS[name]
    again = read(json.loads(json.dumps(config_to(config))))
    meant = fields_of(config.model_type) - {"head_dim", "num_key_value_heads", "max_window_layers"}
    if config.parts.attention == "gqa":
        assert (again.qk_head_dim, again.kv_heads) == (config.qk_head_dim, config.kv_heads)
    if config.n_routed_experts is None:
        meant -= {"num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob", "n_routed_experts"}
    assert {n: getattr(again, n) for n in meant} == {n: getattr(config, n) for n in meant}


@pytest.mark.parametrize(
    "old, new",
    [
        ({"rope_theta": 5e5}, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
        ({"rope_theta": 1e4, "rope_scaling": YARN},
         {"rope_parameters": YARN | {"rope_theta": 1e4}}),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}},
         {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
        ({"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}),
    ],
    ids=["theta", "yarn", "linear", "dtype"],
)  # fmt: skip
def test_old_and_new_spellings_say_the_same(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert read(LLAMA | old) == read(LLAMA | new)


def test_the_number_of_experts_has_three_names() -> None:
    plain = {k: v for k, v in MOE.items() if k != "num_experts"}
    shapes = [read(plain | {name: 8}) for name in ("num_experts", "num_local_experts")]
    assert shapes[0] == shapes[1] and shapes[0].n_routed_experts == 8


def test_what_is_written_names_what_vllm_and_old_and_new_readers_want() -> None:
    told = config_to(preset("deepseek-v3"), "bfloat16")
    assert told["topk_method"] == "noaux_tc" and told["scoring_func"] == "sigmoid"
    assert told["dtype"] == told["torch_dtype"] == "bfloat16"
    assert told["rope_theta"] == told["rope_parameters"]["rope_theta"]
    assert told["rope_scaling"]["type"] == told["rope_parameters"]["rope_type"] == "yarn"
    moe = config_to(preset("qwen3-30b-a3b"))
    assert moe["num_experts"] == moe["num_local_experts"] == 128 and "n_routed_experts" not in moe


def test_a_family_is_told_nothing_of_other_families() -> None:
    told = config_to(preset("llama-3.1-8b"))
    assert not {"kv_lora_rank", "n_group", "sliding_window", "n_routed_experts"} & told.keys()


def test_qwens_window_is_off_unless_it_is_switched_on() -> None:
    off, on = ({"sliding_window": 7, "max_window_layers": 1, "use_sliding_window": use} for use in (False, True))
    assert read(QWEN | off).sliding_window is None
    assert [read(QWEN | on).window(layer) for layer in (0, 1)] == [None, 7]


def test_plain_greedy_routing_knows_no_groups() -> None:
    assert read(V2 | {"topk_method": "greedy"}).n_group == 1 and read(V2).n_group == 2


def test_yarn_without_a_factor_takes_the_one_its_lengths_imply() -> None:
    told = {"rope_type": "yarn", "original_max_position_embeddings": 32}
    scaling = read(LLAMA | {"rope_parameters": told}).rope_scaling
    assert scaling is not None and scaling.factor == 4


# --- refusals ---------------------------------------------------------------------------------------------------------

UPSIDE_DOWN = {"layer_types": ["sliding_attention", "full_attention"]}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown family": (LLAMA | {"model_type": "gpt2"}, r"(?s)'gpt2' are not built here; supported: llama, .*_v3"),
    "a family one letter off": (LLAMA | {"model_type": "deepseek_v4"}, "Did you mean"),
    "no family": ({k: v for k, v in LLAMA.items() if k != "model_type"}, "None are not built"),
    "another activation": (LLAMA | {"hidden_act": "gelu"}, r"hidden_act = 'gelu'.*'silu'"),
    "an unknown stretching": (LLAMA | {"rope_scaling": {"type": "longrope", "factor": 2}}, "longrope"),
    "stretching per layer": (LLAMA | {"rope_parameters": {"full_attention": {"rope_theta": 1}}}, "one table"),
    "half a rotation": (LLAMA | {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "half a rotation, new": (LLAMA | {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary"),
    "llama3 without its turns": (LLAMA | {"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "low_freq_factor"),
    "a bias where none is": (QWEN | {"mlp_bias": True}, "mlp_bias"),
    "another scoring": (V3 | {"scoring_func": "softmax"}, r"scoring_func = 'softmax'.*'sigmoid'"),
    "another choice of experts": (V3 | {"topk_method": "greedy"}, "topk_method"),
    "gates normalised in V2": (V2 | {"norm_topk_prob": True}, "norm_topk_prob"),
    "experts in every second layer": (V3 | {"moe_layer_freq": 2}, "moe_layer_freq"),
    "shared keys in latent attention": (V3 | {"num_key_value_heads": 2}, "num_key_value_heads"),
    "soft-capped logits": (LLAMA | {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    "sparse attention": (V3 | {"index_topk": 2048}, "index_topk"),
    "4-bit weights": (LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "unquantised"),
    "fp8 in other blocks": (V3 | {"quantization_config": {"quant_method": "fp8", "weight_block_size": [8, 8]}}, "128"),
    "windows in the middle": (
        QWEN | {"use_sliding_window": True, "sliding_window": 4} | UPSIDE_DOWN,
        "layer_types",
    ),
    "windows without a size": (QWEN | {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    "a size not told": ({k: v for k, v in LLAMA.items() if k != "hidden_size"}, "does not say hidden_size"),
    "experts not told": ({k: v for k, v in V3.items() if k != "n_routed_experts"}, "does not say n_routed_experts"),
    "a negative size": (LLAMA | {"hidden_size": -32}, "hidden_size"),
    "a huge size": (LLAMA | {"vocab_size": 10**12}, "vocab_size"),
    "a huge depth": (LLAMA | {"num_hidden_layers": 10**9}, "num_hidden_layers"),
    "a size in words": (LLAMA | {"hidden_size": "wide"}, "hidden_size"),
    "more experts chosen than there are": (MOE | {"num_experts_per_tok": 9}, "num_experts_per_tok exceeds"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_served_is_refused_by_name(fault: str) -> None:
    values, letter = REFUSED[fault]
    with pytest.raises(UserError, match=letter):
        read(values)


def test_keys_that_nobody_knows_are_passed_over_by_name() -> None:
    assert passed_over(LLAMA | {"my_own_key": 1, "use_cache": True, "bos_token_id": 1}) == ["my_own_key"]
    assert read(LLAMA | {"my_own_key": 1}) == read(LLAMA)


@pytest.mark.parametrize("name", PRESETS)
def test_nothing_that_we_write_is_unknown_to_us(name: str) -> None:
    assert passed_over(config_to(PRESETS[name])) == []


def test_every_family_has_its_fields() -> None:
    assert all(fields_of(family) <= set(ModelConfig.model_fields) for family in FAMILIES)
