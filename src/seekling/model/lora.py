"""What of a model is trained: some of its parameters, by pattern, or low-rank adapters beside frozen matrices (LoRA).

Names are those of transformers: ``model.layers.0.self_attn.q_proj``; the routed experts of a layer are one part,
``model.layers.1.mlp.experts``. Adapters are written and read in PEFT's format. Nothing here has a mode: with ``B`` zero
an adapted model is its base, to the bit.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seekling.errors import UserError
from seekling.model.decoder import Decoder
from seekling.model.foreign import Foreign
from seekling.model.layers import Linear
from seekling.model.moe import DeepSeekMoE
from seekling.model.parameters import matching, told
from seekling.model.weights import is_finite, load_tensors, save_tensors
from seekling.runlog.files import read_json, write_atomic, write_json

Site = Linear | DeepSeekMoE
"""Where adapters can stand: a linear map, or the routed experts of a layer."""


class LowRank(nn.Module):
    """y + (alpha/r) B A x beside a frozen matrix (LoRA, arXiv 2106.09685, eq. 3), or one pair per expert of a stack.

    ``A`` [(E,) r, I], ``B`` [(E,) O, r]: float32, whatever the matrix is held in. ``scale`` is alpha/r.
    """

    def __init__(self, matrix: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        *stack, num_out, num_in = matrix.shape
        kind, place = torch.promote_types(matrix.dtype, torch.float32), matrix.device
        self.A = nn.Parameter(torch.zeros((*stack, rank, num_in), dtype=kind, device=place))
        self.B = nn.Parameter(torch.zeros((*stack, num_out, rank), dtype=kind, device=place))
        self.scale = scale

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.add(y, x, self.A.mT, self.B.mT)

    def add(self, y: Tensor, x: Tensor, into: Tensor, out: Tensor) -> Tensor:
        """y + scale (x into) out, summed in the adapter's precision and answered in that of ``y``.

        Under autocast the products are autocast's. Absorbed attention gives A and B in other orders.
        """
        return (y + self.scale * (x.to(into.dtype) @ into @ out)).type_as(y)

    def merged(self, matrix: Tensor) -> Tensor:
        """W + scale B A, in float32 for a matrix of less."""
        return matrix.to(self.A.dtype) + self.scale * (self.B @ self.A)

    @torch.no_grad()
    def draw(self, seed: int, name: str) -> None:
        """``A`` uniform in +-1/sqrt(I), as PEFT draws it, a function of (seed, name) alone; ``B`` stays zero."""
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        drawn = torch.rand(self.A.shape, generator=generator, dtype=torch.float32)
        self.A.copy_((2 * drawn - 1) * self.A.shape[-1] ** -0.5)


# --- parts by name ----------------------------------------------------------------------------------------------------


def keep_trained(model: Decoder, *, train: Iterable[str] = (), freeze: Iterable[str] = ()) -> None:
    """Train only the parameters that ``train`` speaks of (without it, all), less those that ``freeze`` does.

    Raises UserError for a pattern that speaks of none, and when nothing is left.
    """
    named = {told(name): weight for name, weight in model.named_parameters()}
    kept = (matching(train, named) or named.keys()) - matching(freeze, named)
    if not kept:
        raise UserError("train and freeze leave nothing to train", next_step="Freeze less, or train more.")
    for name, weight in named.items():
        weight.requires_grad_(name in kept)


def sites(model: Decoder) -> dict[str, Site]:
    """Where adapters can stand, by name: every linear map of the main layers, and their routed experts.

    Not the embedding, the head and the routers; nor the prediction layer, which reinforcement does not train.
    """
    found: dict[str, Site] = {}
    for name, module in model.layers.named_modules(prefix="model.layers"):
        if isinstance(module, Linear):
            found[name] = module
        elif isinstance(module, DeepSeekMoE):
            found[f"{name}.experts"] = module
    return found


# --- adapters ---------------------------------------------------------------------------------------------------------


def add_adapters(model: Decoder, *, rank: int, scale: float, targets: Iterable[str], seed: int) -> Decoder:
    """Freeze the model and put an adapter at every site that ``targets`` speaks of. Returns the same model.

    Raises UserError for a target that speaks of none.
    """
    known = sites(model)
    chosen = matching(targets, known)
    model.requires_grad_(False)
    for name in [name for name in known if name in chosen]:
        for part, matrix in _matrices(known[name]).items():
            adapter = LowRank(matrix, rank, scale)
            adapter.draw(seed, f"{name}/{part}")
            setattr(known[name], part, adapter)
    return model


_BESIDE = {"adapter": "weight", "gate_up_adapter": "gate_up_proj", "down_adapter": "down_proj"}
"""Where an adapter is kept, and what it stands beside."""


def _matrices(site: Site) -> dict[str, Tensor]:
    """The adapters a site can have, and the matrix or stack each stands beside."""
    parts = ("adapter",) if isinstance(site, Linear) else ("gate_up_adapter", "down_adapter")
    return {part: getattr(site, _BESIDE[part]) for part in parts}


def adapters(model: nn.Module) -> dict[str, LowRank]:
    """Every adapter of a model by the name of the parameter it stands beside, in order."""
    split = ((name.rpartition("."), module) for name, module in model.named_modules() if isinstance(module, LowRank))
    return {f"{prefix}.{_BESIDE[own]}": module for (prefix, _, own), module in split}


@torch.no_grad()
def merged(model: Decoder, place: str | None = None) -> Decoder:
    """The same policy with every adapter added into its matrix: those are new, in float32; all else is shared.

    Beside a base of less than float32 that is a model to write, not one to run: its tensors are of two kinds. So it is
    when the new ones are to lie at another ``place``, one after the other.
    """
    matrices = dict(model.named_parameters())
    return _sharing(model, {name: pair.merged(matrices[name]).to(place) for name, pair in adapters(model).items()})


def reference_of(model: Decoder) -> Decoder:
    """The model before it learns, for good: what is trained is copied, what is frozen shared, adapters left out."""
    if isinstance(model, Foreign):
        return model.reference()
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    return _sharing(model, {name: own.clone() for name, own in model.state_dict().items() if name not in frozen})


def _sharing(model: Decoder, own: Mapping[str, Tensor]) -> Decoder:
    """A frozen decoder without adapters on the same tensors, those in ``own`` excepted."""
    with torch.device("meta"):
        plain = Decoder(model.config)
    shared = model.state_dict()
    plain.load_state_dict({name: own.get(name, shared[name]) for name in plain.state_dict()}, assign=True)
    plain.rotary_TR = model.rotary_TR
    return plain.requires_grad_(False)


# --- PEFT's format ----------------------------------------------------------------------------------------------------

PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PAIR = re.compile(rf"{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight")


def save_adapter(folder: Path, model: Decoder, base: str, revision: str | None = None) -> None:
    """Write the adapters of ``model`` as PEFT would, beside a page that says how to load them.

    ``base`` is the folder or hub name of the model they stand beside, ``revision`` its commit there. The configuration
    comes last: a folder that has one is whole. Raises UserError when there is none, or several ranks or scales.
    """
    found = {name: site for name, site in sites(model).items() if _held(site)}
    if not found:
        raise UserError("this model has no adapters to save", next_step="Add some, or save the model itself.")
    pairs = [pair for site in found.values() for pair in _held(site).values()]
    targets = _targets(model)
    config = _peft_config(base, pairs, targets) | {"revision": revision}
    save_tensors(folder / WEIGHTS, dict(_peft_tensors(found)))
    write_atomic(folder / "README.md", _page(base, pairs, targets))
    write_json(folder / CONFIG, config)


def _held(site: Site) -> dict[str, LowRank]:
    """The adapters a site has."""
    return {part: getattr(site, part) for part in _matrices(site) if getattr(site, part) is not None}


def _peft_tensors(found: Mapping[str, Site]) -> Iterator[tuple[str, Tensor]]:
    """Names and shapes of PEFT: of experts ``A`` [E r, I] expert by expert, ``B`` [O, r E] rank by rank.

    The first of two stacks is named as the base of the second, which is wrapped around it.
    """
    for name, site in found.items():
        held = _held(site)
        for part, pair in held.items():
            full = f"{PREFIX}{name}{'.base_layer' if len(held) == 2 and part == 'gate_up_adapter' else ''}"
            stacked = pair.A.ndim == 3
            yield f"{full}.lora_A.weight", pair.A.flatten(0, 1) if stacked else pair.A
            yield f"{full}.lora_B.weight", pair.B.permute(1, 2, 0).flatten(1) if stacked else pair.B


def _targets(model: Decoder) -> dict[str, list[str]]:
    """What PEFT must wrap, as modules and as parameters: short names where all that end so have adapters.

    Where experts route, PEFT takes a module called gate_proj for theirs: maps so called are told as parameters.
    """
    routes = bool(model.config.parts.scoring)
    modules: dict[str, bool] = {}
    parameters: dict[str, bool] = {}
    for name, site in sites(model).items():
        for part in _matrices(site):
            has = part in _held(site)
            if isinstance(site, DeepSeekMoE) or (routes and ".mlp." in name):
                parameters[f"{name}.{_BESIDE[part]}"] = has
            else:
                modules[name] = has
    return {"target_modules": _shortest(modules, 1), "target_parameters": _shortest(parameters, 3)}


def _shortest(names: Mapping[str, bool], parts: int) -> list[str]:
    """The names that are wanted; only the last ``parts`` of them, where every name that ends so is."""
    ends: dict[str, set[str]] = defaultdict(set)
    for name in names:
        ends[".".join(name.split(".")[-parts:])].add(name)
    short = {end for end, alike in ends.items() if all(names[name] for name in alike)}
    rest = {name for end in ends.keys() - short for name in ends[end] if names[name]}
    return sorted(short | rest)


def _peft_config(base: str, pairs: list[LowRank], targets: Mapping[str, list[str]]) -> dict[str, Any]:
    rank, alpha = pairs[0].A.shape[-2], pairs[0].scale * pairs[0].A.shape[-2]
    if any((pair.A.shape[-2], pair.scale) != (rank, pairs[0].scale) for pair in pairs):
        raise UserError("these adapters differ in rank or scale", next_step="Save the merged model instead.")
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": True,
        "r": rank, "lora_alpha": int(alpha) if alpha == int(alpha) else alpha, "lora_dropout": 0.0, "bias": "none",
        "use_rslora": False, "use_dora": False, "fan_in_fan_out": False, "init_lora_weights": True,
        "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, **targets,
    }  # fmt: skip


def _page(base: str, pairs: list[LowRank], targets: Mapping[str, list[str]]) -> str:
    """README.md of an adapter's folder."""
    wrapped = [*targets["target_modules"], *targets["target_parameters"]]
    rank, size = pairs[0].A.shape[-2], sum(pair.A.numel() + pair.B.numel() for pair in pairs)
    lines = [
        "# Low-rank adapters", "",
        f"{len(pairs)} adapters of rank {rank} ({size:,} parameters) for the model in `{base}`, in PEFT's format.",
        "The whole model, adapters merged, stands beside this folder in `model/`: it needs no PEFT.", "",
        "```python", "from peft import PeftModel", "from transformers import AutoModelForCausalLM", "",
        f'base = AutoModelForCausalLM.from_pretrained("{base}")',
        'policy = PeftModel.from_pretrained(base, ".")  # this folder', "```", "",
        f"Adapted: {', '.join(wrapped)}.",
    ]  # fmt: skip
    if targets["target_parameters"]:
        lines += [
            "", "Parameters among them (`target_parameters`) need transformers 5, which stacks the routed experts, and",
            "peft 0.21 or newer. Engines that read adapters themselves may pass over them: they need the merged model.",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def load_adapter(folder: Path, model: Decoder) -> Decoder:
    """Put the adapters of a PEFT folder on ``model``, frozen else, ready to train on. Returns the same model.

    Raises UserError, the model untouched, for what is missing, of another kind, or does not fit.
    """
    if adapters(model):
        raise UserError("this model has adapters already", next_step="Merge them first, or load its base.")
    told_config, known = _read_config(folder), sites(model)
    ready: list[tuple[Site, str, LowRank]] = []
    for name, (a, b) in _read_pairs(folder, str(model.embed_tokens.weight.device)).items():
        site = known.get(name.removesuffix(".base_layer"))
        if site is None:
            raise _misfit(folder, f"it adapts {name}, which this model does not have or does not adapt")
        ready.append((site, *_pair(folder, told_config, name, site, a, b)))
    model.requires_grad_(False)
    for site, part, pair in ready:
        setattr(site, part, pair)
    return model


def _pair(
    folder: Path, told_config: Mapping[str, Any], name: str, site: Site, a: Tensor, b: Tensor
) -> tuple[str, LowRank]:
    """The adapter that two halves on disk are, and its part of the site."""
    fitting = _fitting(site, a, b)
    if fitting is None:
        shapes = " or ".join(_of(matrix) for matrix in _matrices(site).values())
        raise _misfit(folder, f"{name}: A {_of(a)} and B {_of(b)} do not fit a matrix of {shapes}")
    part, a, b = fitting
    own = name if part == "adapter" else f"{name.removesuffix('.base_layer')}.{_BESIDE[part]}"
    pair = LowRank(_matrices(site)[part], a.shape[-2], _scale(told_config, own, a.shape[-2], folder))
    with torch.no_grad():
        pair.A.copy_(a)
        pair.B.copy_(b)
    return part, pair


def _fitting(site: Site, a: Tensor, b: Tensor) -> tuple[str, Tensor, Tensor] | None:
    """The part of a site that a pair stands beside, told by its shape: PEFT names stacks by the order of wrapping."""
    for part, matrix in _matrices(site).items():
        count = len(matrix) if matrix.ndim == 3 else 0
        if count and not (a.shape[0] % count or b.shape[1] % count):
            a_RI, b_OR = a.unflatten(0, (count, -1)), b.unflatten(1, (-1, count)).permute(2, 0, 1)
        else:
            a_RI, b_OR = a, b
        if (*a_RI.shape[:-2], b_OR.shape[-2], a_RI.shape[-1]) == matrix.shape and a_RI.shape[-2] == b_OR.shape[-1]:
            return part, a_RI, b_OR
    return None


def _of(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


_INITS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Initialisations that leave the base as it is; others (pissa, olora, corda, loftq) belong to a changed one."""
_FOREIGN = (
    "use_dora", "modules_to_save", "fan_in_fan_out", "lora_bias", "use_qalora", "layer_replication",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "kasa_config", "velora_config",
    "monteclora_config", "use_bdlora",
)  # fmt: skip
"""Settings that make of an adapter something else than y + scale B A x."""


def _read_config(folder: Path) -> dict[str, Any]:
    told_config = read_json(folder / CONFIG)
    if not isinstance(told_config, dict):
        raise _misfit(folder, f"{CONFIG} does not hold a table of settings")
    kind = told_config.get("peft_type")
    if kind != "LORA":
        raise _misfit(folder, f"it is of kind {kind}", "Only LORA is read.")
    strange = [name for name in _FOREIGN if told_config.get(name)]
    strange += ["bias"] if told_config.get("bias", "none") not in (None, "none") else []
    strange += ["init_lora_weights"] if told_config.get("init_lora_weights") not in _INITS else []
    if strange:
        why = f"its {strange[0]} is {told_config[strange[0]]!r}"
        raise _misfit(folder, why, "Only plain LoRA is read: merge it into its model with PEFT, and take that.")
    return told_config


def _scale(told_config: Mapping[str, Any], name: str, rank: int, folder: Path) -> float:
    """alpha/r of one module (alpha/sqrt(r) for rank-stabilised ones); checks the rank against what is told."""
    told_rank = _own(told_config.get("rank_pattern"), name, told_config.get("r"))
    alpha = _own(told_config.get("alpha_pattern"), name, told_config.get("lora_alpha"))
    if told_rank != rank or not rank or not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise _misfit(folder, f"{name} has rank {rank}; {CONFIG} says r = {told_rank}, lora_alpha = {alpha}")
    return alpha / (rank**0.5 if told_config.get("use_rslora") else rank)


def _own(patterns: Any, name: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that is a name, the end of one, or an expression for one."""
    for pattern, value in (patterns or {}).items():
        with suppress(re.error):  # not an expression, then a name
            if re.fullmatch(rf"(.*\.)?({pattern})", name):
                return value
        if name == pattern or name.endswith(f".{pattern}"):
            return value
    return default


def _read_pairs(folder: Path, device: str) -> dict[str, tuple[Tensor, Tensor]]:
    """(A, B) by the name of what they adapt."""
    file = folder / WEIGHTS
    if not file.is_file() and (folder / "adapter_model.bin").is_file():
        raise _misfit(folder, "its weights are pickled: unpickling runs whatever code is in them",
                      "Save it again with PEFT, which writes safetensors.")  # fmt: skip
    tensors = load_tensors(file, device)
    halves: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        named = _PAIR.fullmatch(key)
        if named is None:
            raise _misfit(folder, f"it holds {key}, which is no half of a low-rank pair")
        if tensor.ndim != 2 or not tensor.dtype.is_floating_point or not is_finite(tensor):
            raise _misfit(folder, f"{key} is no matrix of finite numbers")
        halves[named[1]][named[2]] = tensor
    if lone := [name for name, pair in halves.items() if len(pair) < 2]:
        raise _misfit(folder, f"{lone[0]} has only one half of its pair")
    if not halves:
        raise _misfit(folder, "it holds no adapters")
    return {name: (pair["A"], pair["B"]) for name, pair in halves.items()}


def _misfit(folder: Path, why: str, next_step: str = "Take adapter and model that belong together.") -> UserError:
    return UserError(f"the adapter in {folder} cannot be used: {why}", next_step=next_step)
