"""Weights on disk: Hugging Face names and layouts, exact both ways. The only file that knows safetensors.

On disk every expert has its own tensors, in memory they are stacked; the prediction layer stands behind the last main
layer. ``places`` says which part of which tensor in memory a name on disk speaks of, and serves both directions.
Tensors are read one at a time into a model already allocated in its final precision. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from seekling.errors import UserError
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.exchange import FP8_BLOCK, config_from, config_to
from seekling.runlog.files import disk_error, read_json, sync_folder, write_json

SHARD_BYTES = 4 * 2**30
"""Largest file of a saved model; a larger model is cut into several, with an index."""
MAPPED_BYTES = 2**26
"""A file is mapped anew after so many bytes: pages that were read count as memory until they are let go."""

MTP_NAMES = {"norm.weight": "shared_head.norm.weight"}
_IDLE = re.compile(r"rotary_emb\.inv_freq$|_scale_inv$|\.(embed_tokens|shared_head\.head)\.weight$")
"""Names on disk that hold nothing new: rotary angles, scales of their neighbours, copies of embedding and head."""
_OS_ERROR = re.compile(r"os error (\d+)")

Build = Callable[[ModelConfig], Decoder]
"""From a shape to a model of it: a decoder, or one with more or fewer parts."""


# --- names ------------------------------------------------------------------------------------------------------------


def places(state: Mapping[str, Tensor], config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """(name on disk, the part of a tensor in memory it stands for): views, so that filling them fills the model."""
    for name, tensor in state.items():
        full = _disk_name(name, config)
        if full.endswith(".mlp.gate_up_proj"):
            gate, up = tensor.chunk(2, 1)
            yield from _per_expert(full, {"gate_proj": gate, "up_proj": up})
        elif full.endswith(".mlp.down_proj"):
            yield from _per_expert(full, {"down_proj": tensor})
        else:
            yield full, tensor


def _per_expert(full: str, stacks: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    prefix = full.rpartition(".")[0]
    for part, stack in stacks.items():
        yield from ((f"{prefix}.experts.{expert}.{part}.weight", own) for expert, own in enumerate(stack.unbind(0)))


def _disk_name(name: str, config: ModelConfig) -> str:
    if name in ("lm_head.weight", "score.weight"):
        return name
    if not name.startswith("mtp."):
        return f"model.{name}"
    tail = name.removeprefix("mtp.").removeprefix("block.")
    return f"model.layers.{config.num_hidden_layers}.{MTP_NAMES.get(tail, tail)}"


# --- a folder of tensors ----------------------------------------------------------------------------------------------


class Shards:
    """The tensors of a model folder by name, read one at a time, whichever of its files they stand in."""

    def __init__(self, folder: Path) -> None:
        """Read names, shapes and kinds. Raises UserError when a file is missing, cut short or not safetensors."""
        self.folder = folder
        self.file_of: dict[str, Path] = {}
        self.shapes: dict[str, torch.Size] = {}
        self.kinds: dict[str, str] = {}
        files = _files_of(folder)
        for file in dict.fromkeys(files.values()) if isinstance(files, dict) else files:
            self._learn(file, files)
        self._open, self._handle, self._mapped = Path(), None, 0
        if isinstance(files, dict) and (lost := sorted(files.keys() - self.file_of.keys())):
            raise _damaged(files[lost[0]], f"it does not hold {lost[0]}, which the index names")

    def _learn(self, file: Path, wanted: Mapping[str, Path] | Sequence[Path]) -> None:
        with _handle_on(file) as handle:
            for name in handle.keys():  # noqa: SIM118
                if isinstance(wanted, Mapping) and wanted.get(name) != file:
                    continue
                part = handle.get_slice(name)
                self.file_of[name], self.shapes[name] = file, torch.Size(part.get_shape())
                self.kinds[name] = part.get_dtype()

    def read(self, name: str) -> Tensor:
        """One tensor; FP8 blocks are multiplied by their scales. Raises UserError when it cannot be used."""
        tensor = self._raw(name)
        if tensor.dtype == torch.float8_e4m3fn:
            scale = f"{name}_scale_inv"
            if scale not in self.file_of:
                raise _damaged(self.file_of[name], f"{name} is FP8 and its scales ({scale}) are missing")
            tensor = dequantised(tensor, self._raw(scale))
        if not tensor.dtype.is_floating_point:
            raise _damaged(self.file_of[name], f"{name} holds {self.kinds[name]}: quantised weights are not read")
        return tensor

    def _raw(self, name: str) -> Tensor:
        file = self.file_of[name]
        if file != self._open or self._mapped > MAPPED_BYTES:
            self.close()
            self._open, self._handle, self._mapped = file, _handle_on(file), 0
        assert self._handle is not None
        tensor: Tensor = self._handle.get_tensor(name)
        self._mapped += tensor.nbytes
        return tensor

    def close(self) -> None:
        """Let go of the mapped file."""
        self._open, self._handle = Path(), None


def dequantised(weight_RC: Tensor, scales: Tensor, block: int = FP8_BLOCK) -> Tensor:
    """q times the scale of its ``block`` x ``block`` square, float32 [R, C]; edge blocks may be narrower.

    The published name says inverse; it is multiplied all the same (DeepSeek-V3, section 3.3).
    """
    rows, columns = weight_RC.shape
    if scales.shape != (-(-rows // block), -(-columns // block)):
        found = tuple(scales.shape)
        raise UserError(f"scales of shape {found} do not fit a matrix of {rows} x {columns} in blocks of {block}")
    out_RC = weight_RC.float()
    scale_PC = scales.float().repeat_interleave(block, 1)[:, :columns]
    for row, scale_C in enumerate(scale_PC):
        out_RC[row * block : (row + 1) * block] *= scale_C
    return out_RC


def _files_of(folder: Path) -> dict[str, Path] | list[Path]:
    """name -> file by the index, or else the only safetensors file."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        files = sorted(folder.glob("*.safetensors"))
        if len(files) == 1 or (folder / "model.safetensors") in files:
            return [folder / "model.safetensors"] if len(files) > 1 else files
        raise _no_weights(folder, files)
    told = read_json(index)
    names = told.get("weight_map") if isinstance(told, dict) else None
    if not isinstance(names, dict) or not all(isinstance(n, str) and Path(n).name == n for n in names.values()):
        raise _damaged(index, "it has no weight_map of names to files beside it")
    if missing := sorted({name for name in names.values() if not (folder / name).is_file()}):
        few = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise UserError(f"the folder lacks {few}, which its index names", where=str(index),
                        next_step="Fetch the missing files; the same download goes on where it stopped.")  # fmt: skip
    return {name: folder / file for name, file in names.items()}


def _no_weights(folder: Path, files: Sequence[Path]) -> UserError:
    if files:
        return UserError(f"{folder} holds {len(files)} safetensors files and no index that says which tensor is where",
                         next_step="Fetch model.safetensors.index.json too.")  # fmt: skip
    pickled = [f.name for pattern in ("*.bin", "*.pt", "*.pth") for f in sorted(folder.glob(pattern))]
    if pickled:
        return UserError(
            f"{folder} holds only pickled weights ({pickled[0]}): unpickling runs whatever code is in them",
            next_step="Load them once with transformers where you trust them, and save_pretrained writes safetensors.",
        )
    return UserError(f"there are no weights in {folder}", next_step="Fetch its model.safetensors, or its shards.")


def _handle_on(file: Path) -> Any:
    """A handle on a file. Raises UserError when it is missing, truncated or not safetensors."""
    try:
        return safe_open(file, framework="pt")
    except FileNotFoundError:
        raise UserError(f"{file} is missing") from None
    except (SafetensorError, OSError) as error:
        raise _damaged(file, f"it is damaged or cut short: {error}") from None


def _damaged(file: Path, why: str) -> UserError:
    return UserError(f"{file} cannot be used: {why}", next_step="Restore it from a copy, or fetch or make it again.")


# --- tensors by name --------------------------------------------------------------------------------------------------


def save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors beside, flush, rename: readers see the old file or the new one."""
    beside = file.with_name(f".{file.name}.tmp")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(plain, beside, metadata={"format": "pt"})
        with beside.open("rb") as handle:
            os.fsync(handle.fileno())
        beside.replace(file)
        sync_folder(file.parent)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise disk_error(file, as_os_error(error)) from None


def stream_tensors(
    file: Path, kinds: Mapping[str, tuple[torch.dtype, Sequence[int]]], tensors: Iterable[Tensor]
) -> None:
    """``save_tensors`` of tensors that are made one at a time, in the order of ``kinds``: no two need be in memory."""
    beside, places, end = file.with_name(f".{file.name}.tmp"), {}, 0
    for name, (dtype, shape) in kinds.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        places[name] = {"dtype": _KINDS[dtype], "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps({"__metadata__": {"format": "pt"}, **places}).encode()
    header += b" " * (-len(header) % 8)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as handle:
            handle.write(len(header).to_bytes(8, "little") + header)
            for (dtype, shape), tensor in zip(kinds.values(), tensors, strict=True):
                assert tensor.dtype == dtype and tensor.shape == tuple(shape)
                handle.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise disk_error(file, error) from None


_KINDS = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64"}
"""What safetensors calls them."""


def as_os_error(error: Exception) -> OSError:
    """The library wraps what the system said in words; the number in them tells a full disk from a forbidden one."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    number = _OS_ERROR.search(str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


class OnDisk(Mapping[str, Tensor]):
    """The tensors of a file, each read when it is asked for. Raises UserError when it is not sound safetensors."""

    def __init__(self, file: Path) -> None:
        self._handle = _handle_on(file)

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._handle.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._handle.keys())

    def __len__(self) -> int:
        return len(self._handle.keys())


def load_tensors(file: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Read all tensors. Raises UserError when the file is missing, truncated or not safetensors."""
    with _handle_on(file) as handle:
        return {name: handle.get_tensor(name).to(device, copy=True) for name in handle.keys()}  # noqa: SIM118


# --- models -----------------------------------------------------------------------------------------------------------


def save_model(
    folder: Path, model: Decoder, *, dtype: torch.dtype | None = None, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write the weights, cut into files of at most ``shard_bytes``, their index, and config.json last.

    ``dtype`` casts the parameters as they are written; router biases stay float32.
    """
    tensors = dict(places(model.state_dict(), model.config))
    assert not any(".adapter." in name for name in tensors), "merge adapters first: no reader knows them by these names"
    kept = {name for name, _ in places(dict(model.named_buffers()), model.config)}
    shards = _shards_of(tensors, kept, dtype, shard_bytes)
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        parts = {n: tensors[n] if n in kept or dtype is None else tensors[n].to(dtype) for n in names}
        save_tensors(folder / file, parts)
        index |= dict.fromkeys(names, file)
    if len(shards) > 1:
        size = sum(_bytes_of(tensor, name in kept, dtype) for name, tensor in tensors.items())
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})
    kind = dtype or next(model.parameters()).dtype
    write_json(folder / "config.json", config_to(model.config, str(kind).removeprefix("torch.")))


def _shards_of(
    tensors: Mapping[str, Tensor], kept: set[str], dtype: torch.dtype | None, shard_bytes: int
) -> list[list[str]]:
    """Names in files of at most ``shard_bytes``, in order; a larger tensor has a file of its own."""
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, tensor in tensors.items():
        size = _bytes_of(tensor, name in kept, dtype)
        if shards[-1] and size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= size
    return shards


def _bytes_of(tensor: Tensor, is_kept: bool, dtype: torch.dtype | None) -> int:
    return tensor.numel() * (tensor.dtype if is_kept or dtype is None else dtype).itemsize


def load_model(
    folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, build: Build = Decoder
) -> Decoder:
    """Build the model a folder describes and fill it, tensor by tensor: never more than itself and one tensor.

    Raises UserError naming what is missing, does not fit, or is not a finite number.
    """
    skeleton, shards = opened(folder, build)
    model = materialised(skeleton, device, dtype)
    with torch.no_grad():
        for name, part in places(model.state_dict(), model.config):
            part.copy_(_sound(shards, name))
    shards.close()
    return model


def opened(folder: Path, build: Build = Decoder) -> tuple[Decoder, Shards]:
    """The model a folder describes, without memory, and its tensors. Raises UserError where the two do not fit."""
    config, shards = read_config(folder), Shards(folder)
    ahead = f"model.layers.{config.num_hidden_layers}."
    if not any(name.startswith(ahead) for name in shards.file_of):  # transformers names the layer, but drops it
        config = config.model_copy(update={"num_nextn_predict_layers": 0})
    with torch.device("meta"):
        model = build(config)
    expected = {name: tensor.shape for name, tensor in places(model.state_dict(), model.config)}
    _compare(folder, expected, shards.shapes, model.config)
    return model, shards


def check_model(folder: Path) -> Iterator[tuple[int, int]]:
    """Read every tensor of a folder once, in the memory of one, and yield (how many were sound, of how many).

    Raises UserError like ``load_model``.
    """
    model, shards = opened(folder)
    names = [name for name, _ in places(model.state_dict(), model.config)]
    for count, name in enumerate(names, 1):
        _sound(shards, name)
        yield count, len(names)
    shards.close()


def _sound(shards: Shards, name: str) -> Tensor:
    tensor = shards.read(name)
    if not is_finite(tensor):
        raise _damaged(shards.file_of[name], f"{name} holds values that are no finite numbers")
    return tensor


def materialised(model: Decoder, device: str, dtype: torch.dtype) -> Decoder:
    """A model made on the meta device, given memory: parameters in ``dtype``, router biases float32.

    Not ``to_empty``: on meta tensors it waits seconds for torch's symbolic machinery to be imported.
    """
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty(weight.shape, dtype=dtype, device=device)))
        for name, buffer in list(module.named_buffers(recurse=False)):  # rotary angles are never on the meta device
            given = torch.zeros(buffer.shape, device=device) if buffer.is_meta else buffer.to(device)
            setattr(module, name, given)
    return model


def is_finite(tensor: Tensor) -> bool:
    """Whether every value is a finite number. A sum keeps what is not, at a hundredth of the price of asking each; one
    that overflows by itself asks again."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def read_config(folder: Path) -> ModelConfig:
    """The shape a folder's config.json describes. Raises UserError naming what cannot be served."""
    if not folder.is_dir():
        raise UserError(f"there is no model folder {folder}")
    values = read_json(folder / "config.json")
    if not isinstance(values, dict):
        raise UserError(f"{folder / 'config.json'} does not hold a table of settings")
    return config_from(values, str(folder / "config.json"))


def _compare(folder: Path, expected: Mapping[str, Any], found: Mapping[str, Any], config: ModelConfig) -> None:
    """Raises UserError unless the folder holds just the tensors of the shape it claims."""
    idle = {name for name in found.keys() - expected.keys() if _IDLE.search(name)}
    if config.tie_word_embeddings:
        idle.add("lm_head.weight")
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys() - idle)
    wrong = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    if "score.weight" in extra:
        raise UserError(
            f"the model in {folder} is a reward model: it rates what others say, and says nothing",
            next_step="Name a model that speaks, such as the one it was made from.",
        )
    if missing or extra or wrong:
        what = [_few("missing", missing), _few("unexpected", extra)]
        what += [f"{n} is {tuple(found[n])}, config.json says {tuple(expected[n])}" for n in sorted(wrong)[:3]]
        raise UserError(
            f"the weights in {folder} do not fit its config.json: " + "; ".join(filter(None, what)),
            next_step="Take both from one checkpoint; seekling inspect shows the shape that config.json describes.",
        )


def _few(word: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{word} {', '.join(names[:3])}{more}" if names else ""
