"""config.json to ``ModelConfig`` and back, torch-free: a key shapes the model, is checked, or is passed over by name.

Nothing is guessed: an unknown family, an unknown value of a known key, and a key that would change the arithmetic are
refused by name. Both spellings of what transformers 5 renamed are read, and both are written, since its readers differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seekling.config import parse
from seekling.errors import UserError, nearest
from seekling.model.config import FAMILIES, ModelConfig

FP8_BLOCK = 128
"""Rows and columns that share a scale in DeepSeek's FP8 weights."""

_ALIASES = {
    "num_experts": "n_routed_experts",
    "num_local_experts": "n_routed_experts",
    "num_mtp_layers": "num_nextn_predict_layers",
}

_SHAPE = set(ModelConfig.model_fields) - {"model_type", "rope_theta", "rope_scaling", "max_window_layers"}

_READ_ELSEWHERE = {
    "model_type", "rope_theta", "rope_scaling", "rope_parameters", "sliding_window", "use_sliding_window",
    "max_window_layers", "layer_types", "topk_method", "scoring_func", "qk_head_dim", "moe_layer_freq",
    "quantization_config", "dtype", "torch_dtype", "partial_rotary_factor", *_ALIASES,
}  # fmt: skip
"""Keys that some function below looks at."""

_HARMLESS = {
    "architectures", "transformers_version", "auto_map", "_name_or_path", "use_cache", "bos_token_id", "eos_token_id",
    "pad_token_id", "attention_dropout", "pretraining_tp", "ep_size", "aux_loss_alpha", "seq_aux",
    "router_aux_loss_coef", "output_router_logits", "use_mrope", "is_decoder", "return_dict", "id2label", "label2id",
    "problem_type", "chunk_size_feed_forward", "output_hidden_states", "output_attentions", "is_encoder_decoder",
    "hidden_act", "_attn_implementation_autoset", "unsloth_version", "unsloth_fixed", "default_theta",
    "tokenizer_class", "vision_config", "attn_implementation",
}  # fmt: skip
"""Keys that cannot change what a text model says; ``hidden_act`` is checked below, and silence about it is silu."""

_REFUSED = {
    "logit_scale", "logits_scaling", "final_logit_softcapping", "attn_logit_softcapping", "query_pre_attn_scalar",
    "residual_multiplier", "embedding_multiplier", "attention_multiplier", "scale_emb", "scale_depth",
    "clip_qkv", "use_qk_norm", "qk_layernorm", "parallel_residual", "no_rope_layers", "index_topk", "index_n_heads",
    "index_head_dim", "attention_sink", "o_lora_rank", "swiglu_limit", "hc_mult", "shared_expert_intermediate_size",
    "vision_config",
}  # fmt: skip
"""Keys of other architectures that change the arithmetic: set, they mean that this is another model."""


def config_from(values: Mapping[str, Any], where: str) -> ModelConfig:
    """The shape a config.json describes. Raises UserError naming the key that cannot be served, and what can."""
    family = _family(values, where)
    _check(values, family, where)
    _require(values, family, where)
    shape = {name: value for name, value in values.items() if name in _SHAPE and value is not None}
    shape |= {ours: values[theirs] for theirs, ours in _ALIASES.items() if values.get(theirs) is not None}
    shape |= _rope(values, where) | _windows(values, family, where) | _routing(values, family)
    wanted = {name: value for name, value in shape.items() if name in fields_of(family)}
    try:
        return parse(ModelConfig, {"model_type": family} | _defaults(family) | wanted)
    except UserError as error:
        raise UserError(f"the shape in {where} does not hold: {error.what}", where=where) from None


def passed_over(values: Mapping[str, Any]) -> list[str]:
    """Keys of a config.json that nobody here knows and that were left aside: a reader should see their names."""
    return sorted(values.keys() - _SHAPE - _READ_ELSEWHERE - _HARMLESS - _REFUSED)


def fields_of(family: str) -> set[str]:
    """Which fields of ``ModelConfig`` mean something for a family."""
    common = {
        "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings", "rope_theta", "rope_scaling",
        "rms_norm_eps", "initializer_range", "tie_word_embeddings", "num_attention_heads", "intermediate_size",
    }  # fmt: skip
    experts = {"n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob"}
    deepseek = common | experts | {
        "attention_bias", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
        "n_shared_experts", "first_k_dense_replace", "n_group", "topk_group", "routed_scaling_factor",
    }  # fmt: skip
    grouped = common | {"num_key_value_heads", "head_dim"}
    windowed = {"sliding_window", "max_window_layers"}
    return {
        "llama": grouped | {"attention_bias", "mlp_bias"},
        "mistral": grouped | windowed,
        "qwen2": grouped | windowed,
        "qwen3": grouped | windowed | {"attention_bias"},
        "qwen3_moe": grouped | windowed | experts | {"attention_bias", "decoder_sparse_step", "mlp_only_layers"},
        "deepseek_v2": deepseek,
        "deepseek_v3": deepseek | {"rope_interleave", "num_nextn_predict_layers"},
    }[family]


def config_to(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """config.json as transformers and vLLM read it, old and new spellings side by side."""
    family, plain = config.model_type, config.model_dump(mode="json")
    shape = {name: plain[name] for name in plain if name in fields_of(family)}
    shape |= {"model_type": family, "architectures": [_ARCHITECTURES[family]], "hidden_act": "silu"}
    shape |= _rope_keys(config) | {"num_key_value_heads": config.kv_heads, "attention_dropout": 0.0}
    if config.parts.attention == "mla":
        shape |= _deepseek_keys(config)
        shape["num_key_value_heads"] = config.num_attention_heads
        if config.n_routed_experts is None:
            del shape["n_routed_experts"]
    else:
        shape |= {"head_dim": config.qk_head_dim} | _window_keys(config)
    if family == "qwen3_moe":
        shape["num_experts"] = shape["num_local_experts"] = shape.pop("n_routed_experts")
    return shape | {"use_cache": True, "dtype": dtype, "torch_dtype": dtype}


_ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM", "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
}  # fmt: skip


# --- reading ----------------------------------------------------------------------------------------------------------


def _family(values: Mapping[str, Any], where: str) -> str:
    family = values.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(
            f"models of type {family!r} are not built here; supported: {', '.join(FAMILIES)}",
            where=f"{where} (model_type)",
            next_step=f'{nearest(str(family), FAMILIES).capitalize()} An import stage with through = "transformers" '
            "runs every causal model of that library, more slowly.",
        )
    return family


def _check(values: Mapping[str, Any], family: str, where: str) -> None:
    """Raises UserError for a known key with a value that nothing here computes."""
    served: dict[str, tuple[Any, ...]] = {
        "hidden_act": ("silu", None), "moe_layer_freq": (1, None), "partial_rotary_factor": (1, 1.0, None),
        "mlp_bias": (True, False, None) if family == "llama" else (False, None),
    }  # fmt: skip
    scoring = FAMILIES[family].scoring
    if scoring:
        served["scoring_func"] = (scoring, None)
    if family == "deepseek_v2":
        served |= {"topk_method": ("greedy", "group_limited_greedy", None), "norm_topk_prob": (False, None)}
    if family == "deepseek_v3":
        served["topk_method"] = ("noaux_tc", None)
    if FAMILIES[family].attention == "mla":
        served["num_key_value_heads"] = (values.get("num_attention_heads"), None)
    for key, known in served.items():
        if values.get(key) not in known:
            allowed = " or ".join(repr(value) for value in known if value is not None)
            raise _unserved(key, values[key], where, f"only {allowed} is computed here")
    for key in sorted(_REFUSED & values.keys()):
        if values[key]:
            raise _unserved(key, values[key], where, "it belongs to another architecture and would change the result")
    _check_quantisation(values.get("quantization_config"), where)


def _require(values: Mapping[str, Any], family: str, where: str) -> None:
    """Raises UserError for a size that is not told: a default would build another model."""
    known = {_ALIASES.get(name, name) for name, value in values.items() if value is not None}
    needed = {
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "max_position_embeddings", "rms_norm_eps",
    }  # fmt: skip
    if FAMILIES[family].attention == "mla":
        needed |= {"kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"}
    if FAMILIES[family].scoring and not _is_dense(values):
        needed |= {"n_routed_experts", "num_experts_per_tok", "moe_intermediate_size"}
    if missing := sorted(needed - known):
        raise UserError(
            f"{where} does not say {', '.join(missing)}", next_step="Fetch the model's own config.json again."
        )


def _is_dense(values: Mapping[str, Any]) -> bool:
    """Whether no layer stands behind the dense ones: how a DeepSeek without experts is written."""
    first, layers = values.get("first_k_dense_replace"), values.get("num_hidden_layers")
    return (
        values.get("n_routed_experts") is None
        and isinstance(first, int)
        and isinstance(layers, int)
        and first >= layers
    )


def _check_quantisation(settings: Any, where: str) -> None:
    """Only DeepSeek's FP8: e4m3 blocks of 128 x 128 with one scale each."""
    if settings is None:
        return
    method = settings.get("quant_method") if isinstance(settings, Mapping) else settings
    block = settings.get("weight_block_size") if isinstance(settings, Mapping) else None
    known = method == "fp8" and block == [FP8_BLOCK, FP8_BLOCK] and settings.get("fmt", "e4m3") == "e4m3"
    if not known:
        advice = f"only fp8 (e4m3) with weight_block_size [{FP8_BLOCK}, {FP8_BLOCK}] is read"
        raise _unserved("quantization_config", settings, where, advice, "Use the unquantised checkpoint.")


def _unserved(key: str, value: Any, where: str, why: str, next_step: str = "") -> UserError:
    advice = next_step or 'An import stage with through = "transformers" runs what that library knows.'
    return UserError(f"{key} = {value!r}: {why}"[:400], where=f"{where} ({key})", next_step=advice)


def _rope(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``rope_theta`` and ``rope_scaling``, from where transformers 5 writes them or where others do."""
    found: dict[str, Any] = {"rope_theta": values["rope_theta"]} if values.get("rope_theta") is not None else {}
    for key in ("rope_scaling", "rope_parameters"):
        told = values.get(key)
        if told is None:
            continue
        if not isinstance(told, Mapping) or any(isinstance(value, Mapping) for value in told.values()):
            raise _unserved(key, told, where, "one table for all layers is read")
        own = {name: value for name, value in told.items() if value is not None}
        kind = own.pop("rope_type", own.pop("type", "default"))
        own.pop("type", None)
        if own.pop("partial_rotary_factor", 1.0) != 1.0:
            raise _unserved("partial_rotary_factor", told, where, "only whole heads are rotated here")
        if "rope_theta" in own:
            found["rope_theta"] = own.pop("rope_theta")
        if kind == "default":
            continue
        if kind not in ("linear", "llama3", "yarn"):
            raise _unserved(f"{key}.rope_type", kind, where, "linear, llama3 and yarn are computed here")
        found["rope_scaling"] = {"rope_type": kind} | _stretched(kind, own, values)
    return found


def _stretched(kind: str, own: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Without a factor or an original length, those that the model's own length implies (as transformers does)."""
    if kind == "linear":
        return own
    whole = values.get("max_position_embeddings")
    original = own.setdefault("original_max_position_embeddings", values.get("original_max_position_embeddings", whole))
    if "factor" not in own and isinstance(whole, int) and isinstance(original, int) and original:
        own["factor"] = whole / original
    return own


def _windows(values: Mapping[str, Any], family: str, where: str) -> dict[str, Any]:
    """``sliding_window`` and the layer it begins with; Qwen's is off unless ``use_sliding_window``."""
    window = values.get("sliding_window")
    if family.startswith("qwen") and not values.get("use_sliding_window", False):
        window = None
    if family not in ("qwen2", "qwen3"):
        return {"sliding_window": window}
    first = values.get("max_window_layers", 28)
    kinds = values.get("layer_types")
    if kinds and window is not None:
        first = kinds.count("full_attention")
        if kinds != ["full_attention"] * first + ["sliding_attention"] * (len(kinds) - first):
            raise _unserved("layer_types", kinds, where, "only full attention first, sliding after it, is computed")
    if kinds and window is None and "sliding_attention" in kinds:
        raise _unserved("layer_types", kinds, where, "it wants sliding_window and use_sliding_window")
    return {"sliding_window": window, "max_window_layers": first if window is not None else 0}


def _routing(values: Mapping[str, Any], family: str) -> dict[str, Any]:
    """DeepSeek-V2's plain greedy choice knows no groups, whatever ``n_group`` says."""
    if family == "deepseek_v2" and values.get("topk_method", "greedy") == "greedy":
        return {"n_group": 1, "topk_group": 1}
    return {}


def _defaults(family: str) -> dict[str, Any]:
    """What the families' own code assumes where a config.json is silent."""
    if family == "deepseek_v2":
        return {"norm_topk_prob": False, "first_k_dense_replace": 0, "n_shared_experts": 2, "q_lora_rank": None}
    if family == "qwen3_moe":
        return {"norm_topk_prob": False}
    return {"qwen3": {"head_dim": 128}, "mistral": {"num_key_value_heads": 8}}.get(family, {})


# --- writing ----------------------------------------------------------------------------------------------------------


def _rope_keys(config: ModelConfig) -> dict[str, Any]:
    theta, scaling = config.rope_theta, config.rope_scaling
    if scaling is None:
        return {"rope_theta": theta, "rope_scaling": None,
                "rope_parameters": {"rope_type": "default", "rope_theta": theta}}  # fmt: skip
    told = scaling.model_dump(mode="json", exclude_none=True)
    ramp = () if scaling.rope_type == "yarn" else ("beta_fast", "beta_slow", "truncate")
    own = {name: value for name, value in told.items() if name not in ramp}
    old = own | {"type": own["rope_type"]}
    return {"rope_theta": theta, "rope_scaling": old, "rope_parameters": own | {"rope_theta": theta}}


def _window_keys(config: ModelConfig) -> dict[str, Any]:
    family, window, layers = config.model_type, config.sliding_window, config.num_hidden_layers
    if family == "llama":
        return {}
    if family == "mistral":
        return {"sliding_window": window}
    keys = {"sliding_window": window, "use_sliding_window": window is not None}
    first = config.max_window_layers if window is not None else layers
    kinds = ["full_attention" if layer < first else "sliding_attention" for layer in range(layers)]
    return keys | ({"max_window_layers": first, "layer_types": kinds} if family != "qwen3_moe" else {})


def _deepseek_keys(config: ModelConfig) -> dict[str, Any]:
    """What DeepSeek's readers want beside the shape; vLLM refuses a V3 without ``topk_method``."""
    v3 = config.model_type == "deepseek_v3"
    greedy = "greedy" if config.n_group == 1 else "group_limited_greedy"
    keys: dict[str, Any] = {
        "scoring_func": config.parts.scoring, "topk_method": "noaux_tc" if v3 else greedy, "moe_layer_freq": 1,
        "pretraining_tp": 1, "ep_size": 1,
    }  # fmt: skip
    if config.n_routed_experts is None:
        # For transformers, layers are dense by standing before the first routed one.
        keys["first_k_dense_replace"] = config.num_hidden_layers + config.num_nextn_predict_layers
    return keys
