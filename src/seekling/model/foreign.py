"""Every causal model of transformers behind the decoder's interface: slower, and exactly the library's own logits.

Nothing is assumed about its hundreds of classes. What a model leaves are logits, after whatever its own code does to
them (scales, soft caps), never states before a head. How it may be driven (masks, positions, padding in front, a cache)
is tried out once on six tokens against the model reading them as one plain text; what fails is not used.
"""

from __future__ import annotations

import copy
import inspect
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from seekling.errors import UserError
from seekling.model.decoder import Hidden, Rows
from seekling.model.weights import SHARD_BYTES, Shards, as_os_error, is_finite, load_model, save_model
from seekling.runlog.files import disk_error, read_json, sync_folder, write_json

MARK = "seekling.json"
"""The file that tells a model folder's next reader to run it through transformers."""
UNLIMITED = 2**24
"""Context of a model that names none, such as a state-space model."""

_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx", "context_length")
_CACHES = ("past_key_values", "cache_params")
_TRIED = 6
"""Tokens of the text that a model is tried out on."""


@dataclass(frozen=True, slots=True)
class ForeignShape:
    """What loops and engine ask of a config. Routing, if any, is the library's own: none of it is told here.

    ``num_hidden_layers`` counts the layers whose cache is ours: none.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    max_position_embeddings: int
    num_parameters: int
    num_hidden_layers: int = 0
    cache_width: int = 0
    cache_shape: tuple[int, int, int] = (1, 1, 0)
    moe_layers: tuple[int, ...] = ()
    num_experts_per_tok: int = 0
    n_routed_experts: None = None
    num_nextn_predict_layers: int = 0

    def flops_per_token(self, *, training: bool) -> float:
        """2 per parameter forward, 3 times that to train: attention not counted, and all experts though few work."""
        return (3.0 if training else 1.0) * 2.0 * self.num_parameters


@dataclass(slots=True)
class Reading:
    """Rows read in step, and where each stands: ``tokens_BT``, ``mask_BT`` (0: not seen), the library's cache by name.

    Without a cache every further token reads its row anew.
    """

    tokens_BT: Tensor
    mask_BT: Tensor
    cache: dict[str, Any]


class Foreign(nn.Module):
    """A causal model of transformers as a policy; dropout stays off, since it would part sampler and learner.

    Parameters are named ``net.`` and as the library names them. ``inputs``, ``pads`` and ``caches`` are what trial
    found usable; ``notes`` say what that costs. Raises UserError when earlier tokens see later ones.
    """

    mtp = None
    head_VD = None
    """No matrix stands between states and logits."""

    def __init__(self, net: Any, generation: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.net = net
        self.eval()
        self.generation = generation
        self._accepted = frozenset(inspect.signature(net.forward).parameters)
        self.inputs = tuple(name for name in ("attention_mask", "position_ids") if name in self._accepted)
        self.pads = self.caches = True
        with torch.no_grad():
            self.config = _shape(net, self._try_out())

    @property
    def embed_tokens(self) -> Any:
        """The embedding table: where the model lies, and in which precision."""
        return self.net.get_input_embeddings()

    @property
    def notes(self) -> list[str]:
        """What a user should hear before a long run."""
        kind, limit = self.config.model_type, self.config.max_position_embeddings
        told = {
            f"{kind} has no cache that can be used here: every token sampled reads its whole text again": self.caches,
            f"{kind} cannot be padded in front: prompts of different lengths are sampled apart": self.pads,
            f"texts end at {limit:,} tokens: in longer ones {kind} turns the tokens before by other angles, so that "
            "sampler and learner would part": _turning_point(self.net.config) is None,
        }
        return [note for note, is_well in told.items() if not is_well]

    def forward(self, rows: Rows, replay: Sequence[Tensor] | None = None) -> Hidden:
        """Logits [B, T, V] as the states of packed rows: each text read as a row of its own. Padding gets zeros."""
        assert not replay, "a foreign model's routes are not recorded"
        self._refuse_positions(rows)
        device, shape = rows.tokens_BT.device, rows.tokens_BT.shape
        tokens_N, positions_N = rows.tokens_BT.flatten(), rows.positions_BT.flatten()
        places, found = [], []
        for index_RT, mask_RT in _alike(rows.segments_BT.cpu().numpy()):
            index, mask = torch.from_numpy(index_RT).to(device), torch.from_numpy(mask_RT).to(device)
            out = self._run(tokens_N[index] * mask, mask, positions_N[index] * mask)
            places.append(index[mask > 0])
            found.append(out.logits[mask > 0])
        flat_NV = found[0].new_zeros(shape.numel(), found[0].shape[-1])
        return Hidden(flat_NV.index_copy(0, torch.cat(places), torch.cat(found)).view(*shape, -1))

    def logits(self, states: Tensor) -> Tensor:
        """The states themselves."""
        return states

    def routers(self) -> list[Any]:
        """None whose bias is moved by rule."""
        return []

    def reference(self) -> Foreign:
        """The model as it stands now, for good: what is trained is copied, what is frozen shared."""
        frozen = {id(weight): weight for weight in self.parameters() if not weight.requires_grad}
        return copy.deepcopy(self, frozen).requires_grad_(False)

    # Sampling runs in inference mode, but some models keep tensors they make (rotary angles of a longer text) for later
    # passes, and autograd refuses those made in that mode.

    @torch.inference_mode(False)
    @torch.no_grad()
    def begin(self, tokens_BT: Tensor, mask_BT: Tensor) -> tuple[Reading, Tensor]:
        """Read prompts, padded in front where ``mask_BT`` is 0: the reading, and logits [B, V] of what comes next."""
        out = self._run(tokens_BT, mask_BT, _counted(mask_BT), last=True, use_cache=self.caches)
        cache = {name: out[name] for name in _CACHES if self.caches and out.get(name) is not None}
        return Reading(tokens_BT, mask_BT, cache), out.logits[:, -1]

    @torch.inference_mode(False)
    @torch.no_grad()
    def go_on(self, reading: Reading, tokens_B: Tensor, seen_B: Tensor) -> Tensor:
        """Append a token to each row, unseen where ``seen_B`` is 0 (a row that idles): the next one's logits [B, V]."""
        reading.tokens_BT = torch.cat((reading.tokens_BT, tokens_B[:, None]), 1)
        reading.mask_BT = torch.cat((reading.mask_BT, seen_B[:, None].to(reading.mask_BT)), 1)
        positions_BT = _counted(reading.mask_BT)
        if not reading.cache:
            return self._run(reading.tokens_BT, reading.mask_BT, positions_BT, last=True).logits[:, -1]
        told = {"attention_mask": reading.mask_BT, "position_ids": positions_BT[:, -1:]}
        given = {name: told[name] for name in self.inputs} | reading.cache
        given = self.net.prepare_inputs_for_generation(tokens_B[:, None], use_cache=True, **given)
        out = self.net(**given, return_dict=True)
        reading.cache = {name: out[name] for name in reading.cache}
        return out.logits[:, -1]

    @torch.inference_mode(False)
    def select(self, reading: Reading, rows_B: Tensor) -> None:
        """Keep these rows, in this order; a row named several times is copied."""
        reading.tokens_BT, reading.mask_BT = reading.tokens_BT[rows_B], reading.mask_BT[rows_B]
        for cache in reading.cache.values():
            cache.reorder_cache(rows_B)

    def _run(
        self, tokens_BT: Tensor, mask_BT: Tensor, positions_BT: Tensor, *, last: bool = False, use_cache: bool = False
    ) -> Any:
        told = {"attention_mask": mask_BT, "position_ids": positions_BT}
        given = {name: told[name] for name in self.inputs}
        wanted = {"use_cache": use_cache} | ({"logits_to_keep": 1} if last else {})
        more = {name: value for name, value in wanted.items() if name in self._accepted}
        return self.net(input_ids=tokens_BT, return_dict=True, **given, **more)

    def _refuse_positions(self, rows: Rows) -> None:
        """Raises UserError for a text beyond the context, and for gaps between positions that cannot be told."""
        kind, limit = self.config.model_type, self.config.max_position_embeddings
        if int(rows.positions_BT.max()) >= limit:
            raise UserError(f"a text of more than {limit} tokens does not fit the context of this {kind}",
                            next_step="Leave longer texts out, or cut them.")  # fmt: skip
        same_BT = (rows.segments_BT[:, 1:] == rows.segments_BT[:, :-1]) & (rows.segments_BT[:, 1:] > 0)
        if "position_ids" not in self.inputs and (same_BT & (rows.positions_BT.diff() != 1)).any():
            raise UserError(f"{kind} takes no positions", next_step="Train it without gaps.share.")

    # --- trials -------------------------------------------------------------------------------------------------------

    def _try_out(self) -> int:
        """Find out how the model may be driven. Returns how many logits it leaves. Raises UserError: not causal."""
        device, known = self.embed_tokens.weight.device, len(self.embed_tokens.weight)
        text_T = torch.arange(1, 1 + 7 * _TRIED, 7, device=device) % known
        other_T = text_T.clone()
        other_T[-1] = (text_T[-1] + 1) % known
        truth_TV, other_TV = (self.net(input_ids=ids[None], return_dict=True).logits[0] for ids in (text_T, other_T))
        if not _same(other_TV[:-1], truth_TV[:-1]):
            raise UserError(
                f"{self.net.config.model_type} is no causal model as configured: earlier tokens see later ones",
                next_step="Take a model that predicts the next token from those before it.",
            )
        without = tuple(name for name in self.inputs if name != "position_ids")
        for inputs in (self.inputs, without, ()):
            self.inputs = inputs
            if _holds(lambda: self._reads_behind(text_T, truth_TV)):
                break
        self.caches = _holds(lambda: self._continues(text_T, truth_TV))
        self.pads = _holds(lambda: self._reads_in_front(text_T, truth_TV))
        return truth_TV.shape[-1]

    def _reads_behind(self, text_T: Tensor, truth_TV: Tensor) -> bool:
        """Whether a short text padded behind reads as it does alone."""
        tokens_BT, mask_BT = text_T.repeat(2, 1), torch.ones(2, _TRIED, dtype=torch.long, device=text_T.device)
        tokens_BT[1, 3:] = mask_BT[1, 3:] = 0
        out_BTV = self._run(tokens_BT, mask_BT, _counted(mask_BT)).logits
        return _same(out_BTV[0], truth_TV) and _same(out_BTV[1, :3], truth_TV[:3])

    def _continues(self, text_T: Tensor, truth_TV: Tensor) -> bool:
        """Whether a cache, copied to a second row and cut to it, goes on as the text itself does."""
        ones_BT = torch.ones(2, _TRIED, dtype=torch.long, device=text_T.device)
        reading, first_BV = self.begin(text_T[None, :4], ones_BT[:1, :4])
        self.select(reading, ones_BT[0, :2] - 1)
        both_BV = self.go_on(reading, text_T[4].repeat(2), ones_BT[:, 0])
        self.select(reading, ones_BT[0, :1])
        last_BV = self.go_on(reading, text_T[5:], ones_BT[0, :1])
        found_TV = torch.cat((first_BV, both_BV, last_BV))
        return bool(reading.cache) and _same(found_TV, truth_TV[[3, 4, 4, 5]])

    def _reads_in_front(self, text_T: Tensor, truth_TV: Tensor) -> bool:
        """Whether a short text padded in front of it reads and goes on as it does alone."""
        tokens_BT, mask_BT = text_T.repeat(2, 1), torch.ones(2, _TRIED, dtype=torch.long, device=text_T.device)
        tokens_BT[1] = text_T.roll(3)
        tokens_BT[1, :3] = mask_BT[1, :3] = 0
        reading, first_BV = self.begin(tokens_BT, mask_BT)
        next_BV = self.go_on(reading, text_T[[0, 3]], mask_BT[:, -1])
        return _same(torch.cat((first_BV, next_BV[1:])), truth_TV[[5, 2, 3]])


def _holds(trial: Callable[[], bool]) -> bool:
    """A trial's outcome; a way of driving that raises, whatever it raises, is not one."""
    try:
        return trial()
    except Exception:
        return False


def _same(found: Tensor, truth: Tensor) -> bool:
    """Whether two logits agree to what their precision allows, relative to the largest. NaN does not."""
    limit = max(1e-4, 8 * torch.finfo(truth.dtype).eps)
    return bool((found - truth).abs().max() <= limit * truth.abs().max())


def _counted(mask_BT: Tensor) -> Tensor:
    """Positions of the tokens that are seen, counted from 0; an unseen one repeats its neighbour's."""
    return (mask_BT.cumsum(1) - 1).clamp(min=0)


def _alike(segments_BT: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Texts of packed rows in groups of similar length: flat indices [R, T], and 1 where they mean a token.

    Lengths of a group lie within a factor of two, so that one long text does not pad all others to its length.
    """
    owner_N = (segments_BT + np.arange(len(segments_BT))[:, None] * (segments_BT.max(initial=0) + 1)).ravel()
    starts = np.flatnonzero(np.diff(owner_N, prepend=-1))
    lengths = np.diff(starts, append=len(owner_N))
    real = segments_BT.ravel()[starts] > 0
    starts, lengths = starts[real], lengths[real]
    sizes = np.frexp(lengths - 0.5)[1]
    groups = []
    for size in np.unique(sizes):
        own = sizes == size
        offset_T = np.arange(lengths[own].max())
        mask_RT = offset_T < lengths[own, None]
        groups.append((starts[own, None] + offset_T * mask_RT, mask_RT.astype(np.int64)))
    return groups


def _shape(net: Any, vocab_size: int) -> ForeignShape:
    config = net.config.get_text_config()
    told = [_turning_point(net.config), *(getattr(config, name, None) for name in _LENGTHS)]
    known = [length for length in told if isinstance(length, int) and length > 0]
    return ForeignShape(
        net.config.model_type, vocab_size, net.get_input_embeddings().weight.shape[-1],
        known[0] if known else UNLIMITED, sum(weight.numel() for weight in net.parameters()),
    )  # fmt: skip


def _turning_point(config: Any) -> int | None:
    """The length beyond which LongRoPE turns all tokens by other angles, those read before included; None: no such."""
    config = config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [table for table in (rope, *rope.values()) if isinstance(table, dict)]
    own = getattr(config, "original_max_position_embeddings", None)
    points = [t.get("original_max_position_embeddings", own) for t in kinds if t.get("rope_type") == "longrope"]
    return min((point for point in points if point), default=None)


# --- folders ----------------------------------------------------------------------------------------------------------


def is_foreign(folder: Path) -> bool:
    """Whether a model folder is marked to be run through transformers."""
    if not (folder / MARK).is_file():
        return False
    told = read_json(folder / MARK)
    return isinstance(told, dict) and told.get("through") == "transformers"


def mark_foreign(folder: Path) -> None:
    """Have every later reader of a model folder run it through transformers."""
    write_json(folder / MARK, {"through": "transformers"})


def load_foreign(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    warn: Callable[[str], None] = warnings.warn,
) -> Foreign:
    """The causal model in a folder, run by transformers' own class; never by code from the folder, never unpickled.

    ``warn`` hears what will be slow or left out. Raises UserError when the library is not there, or cannot or may not
    run the model.
    """
    library = _library()
    values = _read_known(library, folder)
    Shards(folder).close()
    try:
        net, told = library.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, local_files_only=True,
            output_loading_info=True,
        )  # fmt: skip
        _refuse_weights(folder, net, told)
        model = Foreign(net.to(device), _generation(library, folder, net))
    except UserError:
        raise
    except Exception as error:  # a stranger's class: whatever it says is what there is to know
        raise UserError(
            f"transformers {library.__version__} cannot run the model: {type(error).__name__}: {error}"[:600],
            where=str(folder),
        ) from None
    if values.get("auto_map"):
        warn("config.json points to code in its folder (auto_map): transformers' own class is run instead")
    if idle := sorted(map(str, told["unexpected_keys"])):
        warn(f"transformers' class does not use {_few(idle)}: what is saved will not hold them")
    for note in model.notes:
        warn(note)
    return model


def load_any(folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """The model in a folder, run by whose code its import stage chose."""
    load = load_foreign if is_foreign(folder) else load_model
    return load(folder, device=device, dtype=dtype)


def save_any(folder: Path, model: Any, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write what ``load_any`` reads."""
    save = save_foreign if isinstance(model, Foreign) else save_model
    save(folder, model, shard_bytes=shard_bytes)


def save_foreign(folder: Path, model: Foreign, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write weights and settings as transformers reads them, config.json last; the mark beside them."""
    beside = folder / ".saving"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        model.net.save_pretrained(beside, max_shard_size=shard_bytes)
        if model.generation is not None:
            write_json(beside / "generation_config.json", model.generation)
        mark_foreign(folder)
        for file in sorted(beside.iterdir(), key=lambda file: file.name == "config.json"):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
            file.replace(folder / file.name)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        raise disk_error(folder, as_os_error(error)) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _library() -> Any:
    """transformers, imported when the first foreign model asks for it. Raises UserError when there is none of use."""
    install = "Run: .venv/bin/pip install -e '.[hf]'"
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"this model needs transformers, which cannot be imported here: {error}",
                        next_step=install) from None  # fmt: skip
    if int(transformers.__version__.split(".")[0]) < 5:
        raise UserError(f"this model needs transformers 5 or newer, not {transformers.__version__}", next_step=install)
    return transformers


def _read_known(library: Any, folder: Path) -> dict[str, Any]:
    """A folder's config.json. Raises UserError for a type that the library does not know, or that is not causal."""
    where, values = str(folder / "config.json"), read_json(folder / "config.json")
    told: dict[str, Any] = values if isinstance(values, dict) else {}
    kind, version = told.get("model_type"), library.__version__
    known = isinstance(kind, str) and kind in library.CONFIG_MAPPING
    if not known and told.get("auto_map"):
        raise UserError(
            f"a model of type {kind!r} wants code from its own repository (auto_map), and a stranger's code is never "
            f"run here; transformers {version} has no class of its own for it",
            where=where,
            next_step="Take a model whose class is part of transformers; a newer release may hold this one.",
        )
    if not known:
        raise UserError(f"transformers {version} knows no model of type {kind!r}", where=where,
                        next_step="A newer release may: .venv/bin/pip install -U transformers")  # fmt: skip
    if library.CONFIG_MAPPING[kind] not in library.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{kind} is no causal language model: transformers has no class for it that predicts the next token",
            where=where,
            next_step="Take a model that predicts the next token from those before it.",
        )
    return told


def _refuse_weights(folder: Path, net: Any, told: dict[str, Any]) -> None:
    """Raises UserError for missing tensors (the library draws them at random), quantised ones and broken ones."""
    if lost := sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]])):
        raise UserError(f"the weights in {folder} do not fit its config.json: missing {_few(lost)}",
                        next_step="Take both from one checkpoint.")  # fmt: skip
    for name, weight in net.named_parameters():
        if not weight.is_floating_point():
            raise UserError(f"{name} in {folder} is quantised ({weight.dtype}) and cannot be trained",
                            next_step="Take the checkpoint that was not quantised.")  # fmt: skip
        if not is_finite(weight):
            raise UserError(f"{folder} cannot be used: {name} holds values that are no finite numbers",
                            next_step="Restore it from a copy, or fetch or make it again.")  # fmt: skip


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _generation(library: Any, folder: Path, net: Any) -> dict[str, Any] | None:
    """The folder's generation settings as they stand, to be written back: the library will not save all it reads."""
    with suppress(UserError):
        told = read_json(folder / "generation_config.json")
        net.generation_config = library.GenerationConfig.from_model_config(net.config)
        return told if isinstance(told, dict) else None
    return None
