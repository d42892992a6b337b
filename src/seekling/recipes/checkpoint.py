"""Checkpoints: a folder written aside and renamed, with a checksum per file; a damaged newest falls back.

Everything a stage needs to go on is in it: what it trains, router biases, optimizer state, the next step. Frozen
weights are the input's and stay there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from seekling.errors import UserError
from seekling.learn.optim import Optimizers
from seekling.model.weights import load_tensors, save_tensors
from seekling.runlog.files import disk_error, read_json, sync_folder, write_json

KEEP = 2
"""How many checkpoints stay: the newest, and the one to fall back to."""


def save_checkpoint(folder: Path, next_step: int, model: nn.Module, optimizers: Optimizers) -> None:
    """Write ``folder/step-<next_step>`` whole or not at all, then drop the oldest."""
    target, beside = folder / f"step-{next_step:07d}", folder / f".step-{next_step:07d}.tmp"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_tensors(beside / "weights.safetensors", trained(model))
        save_tensors(beside / "optimizer.safetensors", optimizers.tensors())
        write_json(beside / "state.json", {"next_step": next_step, "sha256": _digests(beside)})
        shutil.rmtree(target, ignore_errors=True)
        beside.rename(target)
        sync_folder(folder)
    except OSError as error:
        raise disk_error(target, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for old in _newest_first(folder)[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path, model: nn.Module, optimizers: Optimizers, warn: Callable[[str], None]) -> int:
    """Fill model and optimizers from the newest sound checkpoint. Returns the step to do next (0: none was found)."""
    for place in _newest_first(folder):
        try:
            state = read_json(place / "state.json")
            if state["sha256"] != _digests(place):
                raise UserError("its files differ from their checksums")
            device = str(next(model.parameters()).device)
            next_step, weights = int(state["next_step"]), load_tensors(place / "weights.safetensors", device)
            pairs = _matched(trained(model), weights)
            optimizers.load(load_tensors(place / "optimizer.safetensors", device))
            with torch.no_grad():
                for own, saved in pairs:
                    own.copy_(saved)
            return next_step
        except (UserError, KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
            for optimizer in optimizers.all:
                optimizer.state.clear()  # nothing of it may stay behind
            warn(f"checkpoint {place} is damaged ({error}); falling back to the one before")
    return 0


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


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.iterdir() if file.name != "state.json")
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in files}
