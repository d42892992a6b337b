"""The fit command: the most memory each training stage of a manifest will hold, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from seekling.errors import UserError
from seekling.plan.inspect import size
from seekling.plan.machine import gives_back, machine
from seekling.recipes.fitting import Fit, Place, fits
from seekling.recipes.manifest import Manifest, load_manifest

PARTS = ("weights", "optimizer states", "gradients", "activations", "logits", "cache", "sampling", "reference",
         "reward model", "teacher", "Muon", "kept sets", "reading", "merged", "batch", "kernels", "runtime",
         "allocator")  # fmt: skip
"""In the order of telling."""
MOMENTS = {"load": "as it loads", "update": "in an update", "optimizer": "as the optimizer steps",
           "sample": "as it samples", "teach": "as its teacher speaks or reads",
           "export": "as adapters are merged"}  # fmt: skip
UNITS = {"": 2**30, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30,
         "ti": 2**40}  # fmt: skip


def fit_command(name: str, overrides: Sequence[str], memory: str, *, fill: float, prompt: int) -> int:
    """Print what every stage needs and whether it fits. Returns 0, or 1 where one does not."""
    manifest = load_manifest(name, overrides)
    place = place_of(manifest, read_size(memory) if memory else 0.0, fill=fill, prompt=prompt)
    console, found = Console(highlight=False), list(fits(manifest, place))
    if not found:
        raise UserError(f"{name} has no stage that trains", next_step="Give a manifest with one.")
    console.print(_table(found))
    what = "device memory" if place.kind == "accelerator" else "memory of this machine"
    console.print(f"{size(place.memory_bytes)} {what}, {place.lanes} slices of a step at once", markup=False)
    for one in found:
        for line in _verdict(one, place):
            console.print(line, markup=False, soft_wrap=True)
    return 0 if all(one.fits for one in found) else 1


def read_size(text: str) -> float:
    """``80GiB``, ``80GB``, ``512MiB``; a bare number is GiB. Raises UserError for anything else."""
    said = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text, re.IGNORECASE)
    if not said or said[2].lower() not in UNITS or not float(said[1]):
        raise UserError(f'"{text}" is no amount of memory', next_step="Write it as --device-memory 80GiB.")
    return float(said[1]) * UNITS[said[2].lower()]


def place_of(manifest: Manifest, memory: float, *, fill: float, prompt: int) -> Place:
    """Where the manifest would run: on the memory told, the accelerator that is here, or this machine's own."""
    facts, head = machine(), manifest.head
    lanes = head.threads or facts.cores or 1
    if head.device == "cpu":
        return Place("cpu", memory or facts.memory_bytes, lanes, fill, prompt, gives_back())
    memory = memory or _device_memory()
    if not memory:
        return Place("cpu", facts.memory_bytes, lanes, fill, prompt, gives_back())
    return Place("accelerator", memory, 1, fill, prompt)


def _device_memory() -> float:
    """Bytes of the accelerator torch would take; 0 where there is none."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    return float(torch.cuda.get_device_properties(0).total_memory)


def _table(found: Sequence[Fit]) -> Table:
    table = Table("", *(f"{one.stage.name} ({one.stage.kind})" for one in found))
    for part in PARTS:
        cells = [one.prediction.parts.get(part, 0.0) for one in found]
        if any(cells):
            table.add_row(part, *(size(cell) if cell else "" for cell in cells))
    table.add_row("largest", *(MOMENTS[one.prediction.largest] for one in found))
    table.add_row("peak", *(size(one.prediction.peak) for one in found), style="bold")
    return table


def _verdict(one: Fit, place: Place) -> Iterator[str]:
    """Whether a stage fits; where not, what is largest and what to change."""
    name, peak = one.stage.name, one.prediction.peak
    if one.fits:
        yield f"{name} fits: {peak / place.memory_bytes:.0%} of it"
        return
    part, most = next((part, most) for part, most in one.prediction.parts.items() if part != "runtime")
    yield f"{name} does not fit: {size(peak)}, most of it {part} ({size(most)}). Add, one after the other:"
    for words, left in one.changes.items():
        yield f"  {words:<44} {size(left.peak)}{', fits' if left.peak <= place.memory_bytes else ''}"
    if not any(left.peak <= place.memory_bytes for left in one.changes.values()):
        yield "  and even so it does not fit: take a smaller model, or a larger device"
