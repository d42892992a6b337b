"""Checkpoints: a folder written aside and renamed, with a checksum per file; a damaged newest falls back.

Everything a stage needs to go on is in it: what it trains, router biases, optimizer state, what the guard remembers,
the next step, which checkpoint is the best so far. Frozen weights are the input's and stay there.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seekling.config import fingerprint
from seekling.errors import UserError
from seekling.learn.optim import Optimizers
from seekling.model.weights import OnDisk, load_tensors, save_tensors, stream_tensors
from seekling.runlog.files import disk_error, read_json, sha256, sync_folder, write_json

KEEP = 2
"""How many checkpoints stay beside the best: the newest, and the one to fall back to."""
DAMAGE = (UserError, KeyError, TypeError, ValueError, OSError, RuntimeError)
"""What reading a damaged checkpoint can end in."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best checkpoint of a stage so far: its step, and the figure that says so."""

    next_step: int
    figure: str
    value: float

    def or_better(self, other: Best | None) -> Best:
        """This one, unless ``other`` is better. Of equal ones the later counts, which has learned for longer."""
        if other is None or other.figure != self.figure:
            return self
        first, last = sorted((self, other), key=lambda best: best.next_step)
        is_loss = self.figure == "loss"
        return last if (last.value <= first.value if is_loss else last.value >= first.value) else first


def save_checkpoint(
    folder: Path, next_step: int, model: nn.Module, optimizers: Optimizers, best: Best | None = None, keep: int = KEEP
) -> None:
    """Write ``folder/step-<next_step>`` whole or not at all, then drop all but the newest and the best.

    Of several processes the first writes, and all wait until it has: a checkpoint does not tell how many there were.
    """
    if optimizers.world.leads:
        _save(folder, next_step, model, optimizers, best, keep)
    else:
        deque(optimizers.each(), 0)  # its parts go to the first
    optimizers.world.wait()


def _save(folder: Path, next_step: int, model: nn.Module, optimizers: Optimizers, best: Best | None, keep: int) -> None:
    target, beside = place_of(folder, next_step), folder / f".step-{next_step:07d}.tmp"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_tensors(beside / "weights.safetensors", trained(model))
        whole = (tensor for tensor in optimizers.each() if tensor is not None)
        stream_tensors(beside / "optimizer.safetensors", optimizers.kinds(), whole)
        told = {"next_step": next_step, "best": best and asdict(best), "guard": optimizers.guard.state()}
        write_json(beside / "state.json", _sealed(told | {"sha256": _digests(beside)}))
        shutil.rmtree(target, ignore_errors=True)
        beside.rename(target)
        sync_folder(folder)
    except OSError as error:
        raise disk_error(target, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for old in _newest_first(folder)[keep:]:
        if best is None or old != place_of(folder, best.next_step):
            shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path, model: nn.Module, optimizers: Optimizers, warn: Callable[[str], None]) -> int:
    """Fill model and optimizers from the newest sound checkpoint. Returns the step to do next (0: none was found)."""
    for place in _newest_first(folder):
        try:
            state, weights = _sound(place), load_tensors(place / "weights.safetensors", _device(model))
            next_step, pairs = int(state["next_step"]), _matched(trained(model), weights)
            optimizers.load(OnDisk(place / "optimizer.safetensors"))
            optimizers.guard.load(state["guard"])
            _fill(pairs)
            return next_step
        except DAMAGE as error:
            for optimizer in optimizers.all:
                optimizer.state.clear()  # nothing of it may stay behind
            warn(f"checkpoint {place} is damaged ({error}); falling back to the one before")
    return 0


def best_of(folder: Path, next_step: int) -> Best | None:
    """Which checkpoint was the best when the sound one of ``next_step`` was saved; None where none was compared."""
    told = read_json(place_of(folder, next_step) / "state.json")["best"]
    return told and Best(**told)


def take_weights(folder: Path, best: Best, model: nn.Module | None) -> None:
    """Fill the model from the best checkpoint; without one, only look whether it could be.

    Raises UserError when it is damaged: there is no second best, since all others are gone.
    """
    place = place_of(folder, best.next_step)
    try:
        _sound(place)
        if model is not None:
            _fill(_matched(trained(model), load_tensors(place / "weights.safetensors", _device(model))))
    except DAMAGE as error:
        raise UserError(
            f"the best checkpoint, {place}, is damaged ({error})",
            next_step="Restore it from a copy, or delete the stage's folder to start it anew.",
        ) from None


def place_of(folder: Path, next_step: int) -> Path:
    """Where the checkpoint stands from which ``next_step`` is done next."""
    return folder / f"step-{next_step:07d}"


def trained(model: nn.Module) -> dict[str, Tensor]:
    """What a stage may change, by name: parameters that are not frozen, and buffers (router biases)."""
    kept = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in kept}
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad} | buffers


def _matched(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each tensor with what was saved of it. Raises UserError when the two speak of different models."""
    shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in (own, saved)]
    if wrong := sorted(name for name, _ in shapes[0].items() ^ shapes[1].items()):
        raise UserError(f"it was written for another model: {wrong[0]} differs")
    return [(tensor, saved[name]) for name, tensor in own.items()]


def _fill(pairs: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for own, saved in pairs:
            own.copy_(saved)


def _sound(place: Path) -> dict[str, Any]:
    """The state of a checkpoint whose every byte is as it was written; raises one of ``DAMAGE`` for any other."""
    state = read_json(place / "state.json")
    if not isinstance(state, dict) or state != _sealed(state):
        raise UserError("its state.json differs from its seal")
    if state["sha256"] != _digests(place):
        raise UserError("its files differ from their checksums")
    return state


def _sealed(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with a digest of itself: a file cannot hold its own checksum, but its values can."""
    values = {name: value for name, value in state.items() if name != "seal"}
    return values | {"seal": fingerprint(values)}


def _device(model: nn.Module) -> str:
    return str(next(model.parameters()).device)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != "state.json"}
