"""Weights on disk: Hugging Face names and layouts, exact round trip. The only file that knows safetensors.

On disk every expert has its own tensors, in memory they are stacked; the prediction layer stands behind the last
main layer. Nothing is ever unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from seekling.config import parse
from seekling.errors import UserError
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.runlog.files import read_json, write_atomic, write_json

MTP_NAMES = {"norm.weight": "shared_head.norm.weight"}
_EXPERT = re.compile(r"^(.*\.mlp)\.experts\.(\d+)\.(gate|up|down)_proj\.weight$")
_STACKED = re.compile(r"^(.*\.mlp)\.(gate_up_proj|down_proj)$")


def save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(file, save(plain, metadata={"format": "pt"}))


def load_tensors(file: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Read all tensors. Raises UserError when the file is missing, truncated or not safetensors."""
    try:
        with safe_open(file, framework="pt", device=device) as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{file} is missing") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is damaged or cut short: {error}",
            next_step="Restore it from a copy, or delete its folder and run the same command again.",
        ) from None


def save_model(folder: Path, model: Decoder) -> None:
    """Write model.safetensors and config.json."""
    save_tensors(folder / "model.safetensors", to_disk_names(model.state_dict(), model.config))
    write_json(folder / "config.json", config_json(model.config))


def load_model(folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Decoder:
    """Build the model a folder describes and fill it. Raises UserError naming what is missing or does not fit."""
    config = read_config(folder)
    found = from_disk_names(load_tensors(folder / "model.safetensors"), config)
    if not any(name.startswith("mtp.") for name in found):  # transformers names the prediction layer, but drops it
        config = config.model_copy(update={"num_nextn_predict_layers": 0})
    with torch.device("meta"):
        model = Decoder(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    _compare(folder, expected, {name: tensor.shape for name, tensor in found.items()})
    model = Decoder(config)
    model.load_state_dict(found)
    for weight in model.parameters():  # buffers keep their precision: rotary angles are complex, biases float32
        weight.data = weight.data.to(dtype)
    return model.to(device)


def read_config(folder: Path) -> ModelConfig:
    """The shape a folder's config.json describes; keys that do not shape the model are passed over."""
    if not folder.is_dir():
        raise UserError(f"there is no model folder {folder}")
    values = read_json(folder / "config.json")
    if not isinstance(values, dict):
        raise UserError(f"{folder / 'config.json'} does not hold a table of settings")
    known = {name: value for name, value in values.items() if name in ModelConfig.model_fields}
    return parse(ModelConfig, known | _rope_theta(folder, values))


def _rope_theta(folder: Path, values: Mapping[str, Any]) -> dict[str, float]:
    """``rope_theta`` from where transformers 5 writes it. Raises UserError for stretched positions (YaRN and kin)."""
    theta: dict[str, float] = {}
    for key in ("rope_scaling", "rope_parameters"):
        rope = values.get(key) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise UserError(f'rotary positions of type "{kind}" are not supported', where=f"{folder / 'config.json'}")
        theta |= {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
    return theta


def config_json(config: ModelConfig) -> dict[str, Any]:
    """config.json as transformers and vLLM read it (both spellings of what was renamed)."""
    shape = config.model_dump(mode="json")
    if config.parts.attention == "mla":
        rope = {"rope_type": "default", "rope_theta": config.rope_theta}
        extra = {
            "architectures": ["DeepseekV3ForCausalLM"], "scoring_func": "sigmoid", "topk_method": "noaux_tc",
            "rope_interleave": True, "rope_parameters": rope, "hidden_act": "silu", "attention_bias": False,
        }  # fmt: skip
        shape["num_key_value_heads"] = config.num_attention_heads
        shape.pop("head_dim")
        if (
            config.n_routed_experts is None
        ):  # for transformers, layers are dense by standing before the first routed one
            shape.pop("n_routed_experts")
            shape["first_k_dense_replace"] = config.num_hidden_layers + config.num_nextn_predict_layers
    else:
        name = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[config.model_type]
        rope = {"rope_type": "default", "rope_theta": config.rope_theta}
        extra = {
            "architectures": [name],
            "rope_parameters": rope,
            "hidden_act": "silu",
            "attention_bias": False,
        }
        shape |= {"num_key_value_heads": config.kv_heads, "head_dim": config.qk_head_dim}
    return shape | extra | {"dtype": "float32", "torch_dtype": "float32"}


def to_disk_names(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """In-memory names and stacks to Hugging Face names, one tensor per expert."""
    disk: dict[str, Tensor] = {}
    for name, tensor in state.items():
        full = _disk_name(name, config)
        stacked = _STACKED.match(full)
        if not stacked or tensor.ndim != 3:
            disk[full] = tensor
            continue
        for expert, matrix in enumerate(tensor.unbind(0)):
            halves = zip(("gate", "up"), matrix.chunk(2, 0), strict=True)
            parts = [("down", matrix)] if stacked[2] == "down_proj" else list(halves)
            disk |= {f"{stacked[1]}.experts.{expert}.{part}_proj.weight": half for part, half in parts}
    return disk


def from_disk_names(disk: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The inverse of ``to_disk_names``. Copies of embedding and head in the prediction layer are passed over."""
    state: dict[str, Tensor] = {}
    experts: dict[tuple[str, int, str], Tensor] = {}
    for name, tensor in disk.items():
        if match := _EXPERT.match(name):
            experts[_memory_name(match[1], config), int(match[2]), match[3]] = tensor
        elif not name.endswith(("shared_head.head.weight",)) and not re.search(r"layers\.\d+\.embed_tokens", name):
            state[_memory_name(name, config)] = tensor
    for prefix in {prefix for prefix, _, _ in experts}:
        count = 1 + max(expert for owner, expert, _ in experts if owner == prefix)
        try:
            per = {part: [experts[prefix, e, part] for e in range(count)] for part in ("gate", "up", "down")}
        except KeyError as error:
            raise UserError(f"an expert's tensor is missing: {error}") from None
        try:
            both = [torch.cat(pair) for pair in zip(per["gate"], per["up"], strict=True)]
            state |= {f"{prefix}.gate_up_proj": torch.stack(both), f"{prefix}.down_proj": torch.stack(per["down"])}
        except RuntimeError as error:
            raise UserError(f"the experts of {prefix} differ in shape: {error}") from None
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return state


def _disk_name(name: str, config: ModelConfig) -> str:
    if name == "lm_head.weight":
        return name
    if not name.startswith("mtp."):
        return f"model.{name}"
    tail = name.removeprefix("mtp.").removeprefix("block.")
    return f"model.layers.{config.num_hidden_layers}.{MTP_NAMES.get(tail, tail)}"


def _memory_name(name: str, config: ModelConfig) -> str:
    tail = name.removeprefix("model.")
    behind = f"layers.{config.num_hidden_layers}."
    if not tail.startswith(behind):
        return tail
    tail = {disk: memory for memory, disk in MTP_NAMES.items()}.get(
        tail.removeprefix(behind), tail.removeprefix(behind)
    )
    own = tail.startswith(("enorm", "hnorm", "eh_proj", "norm."))
    return f"mtp.{tail}" if own else f"mtp.block.{tail}"


def _compare(folder: Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    wrong = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    if missing or extra or wrong:
        what = [f"missing {missing[:3]}" if missing else "", f"unexpected {extra[:3]}" if extra else ""]
        what += [f"{n} is {tuple(found[n])}, config.json says {tuple(expected[n])}" for n in sorted(wrong)[:3]]
        raise UserError(f"the weights in {folder} do not fit its config.json: " + "; ".join(filter(None, what)))
