"""A manifest becomes a run: stages in order, finished ones passed over, gates held, every step metered."""

from __future__ import annotations

import importlib
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from seekling.errors import GateMissed, UserError
from seekling.learn.lanes import Lanes
from seekling.plan.machine import machine
from seekling.recipes.config import KINDS, Gate, StageSettings
from seekling.recipes.manifest import Manifest
from seekling.recipes.stage import Interrupted, Stage, Tell
from seekling.runlog.files import locked
from seekling.runlog.ledger import Ledger, read_ledger
from seekling.runlog.run import Run, StageFolder

ADVICE = "Look at its curves in the report, change a setting (more steps, another learning rate) and run again."


@dataclass(frozen=True, slots=True)
class Watcher:
    """Whoever watches a run: how steps are told, how warnings are, and whether to stop."""

    tell: Tell
    warn: Callable[[str], None]
    stop_requested: Callable[[], bool] = lambda: False
    begin: Callable[[str, str], None] = lambda name, state: None


def run_manifest(manifest: Manifest, folder: Path, watcher: Watcher) -> Path:
    """Run every stage that is not finished. Returns the run's folder.

    Raises GateMissed at the first gate a stage misses, Interrupted when asked to stop, UserError for the rest.
    """
    with locked(folder):
        run = Run(folder)
        device, lanes = set_up(manifest, run, watcher.warn)
        session = run.open_session(manifest.to_toml(), session_facts(manifest, device, lanes))
        read_ledger(folder)  # a damaged line is told before the work, not after it
        ledger = Ledger(folder)
        try:
            for index, settings in enumerate(manifest.stages):
                _run_stage(manifest, settings, index, run, session, device, lanes, ledger, watcher)
        finally:
            ledger.close()
    return folder


def set_up(manifest: Manifest, run: Run, warn: Callable[[str], None]) -> tuple[torch.device, Lanes]:
    """Deterministic algorithms, the device, and as many lanes as asked for (they cannot change a bit)."""
    earlier = run.facts()["sessions"][0] if (run.folder / "run.json").exists() else {}
    threads = manifest.head.threads or machine().cores or 1
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True) without importing half of torch
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    capability = torch.backends.cpu.get_cpu_capability()
    device = pick_device(manifest.head.device)
    facts = {"cpu_capability": capability, "torch": torch.__version__, "device": str(device)}
    for name, now in facts.items():
        before = earlier.get(name)
        if before is not None and before != now:
            warn(f"this run began with {name} {before} and goes on with {now}: equal within tolerance, not to the bit")
    return device, Lanes(threads if device.type == "cpu" else 1)


def pick_device(wanted: str) -> torch.device:
    """The device asked for, or the accelerator torch finds, or the CPU."""
    if wanted != "auto":
        try:
            torch.empty(1, device=wanted)
            return torch.device(wanted)
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f'device "{wanted}" cannot be used: {error}', next_step='Set device = "cpu" or "auto".'
            ) from None
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def session_facts(manifest: Manifest, device: torch.device, lanes: Lanes) -> dict[str, Any]:
    """Versions, hardware and precision, for run.json."""
    facts = machine()
    session = {
        "hardware": {"cpu": facts.cpu, "cores": facts.cores, "memory_bytes": facts.memory_bytes},
        "threads": lanes.count, "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": str(device), "dtype": manifest.head.dtype, "torch": torch.__version__,
        "python": platform.python_version(),
    }  # fmt: skip
    return {
        "run": {
            "version": version("seekling"),
            "commit": commit(),
            "seed": manifest.head.seed,
            "stages": [manifest.folder_name(stage.name) for stage in manifest.stages],
        },
        "session": session,
    }


def commit() -> str:
    """The commit this package runs from, or nothing outside a checkout."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def _run_stage(
    manifest: Manifest, settings: StageSettings, index: int, run: Run, session: int, device: torch.device, lanes: Lanes,
    ledger: Ledger, watcher: Watcher,
) -> None:  # fmt: skip
    folder = StageFolder(run.folder / manifest.folder_name(settings.name))
    if not folder.is_done():
        if watcher.stop_requested():
            raise Interrupted
        inputs = tuple(StageFolder(run.folder / manifest.folder_name(name)) for name in settings.sources)
        folder.folder.mkdir(parents=True, exist_ok=True)
        for change in _changes(folder.facts().get("settings", {}), settings.model_dump(mode="json", by_alias=True)):
            watcher.warn(f'stage "{settings.name}" began with other runtime settings: {change}')
        folder.write(**_about(manifest, settings, index), **({} if folder.facts() else {"started": time.time()}))
        watcher.begin(settings.name, "running")
        stage = Stage(
            settings.name, folder, inputs, f"{manifest.head.seed}/{settings.name}", session, device,
            getattr(torch, manifest.head.dtype), ledger, watcher.tell, watcher.warn, watcher.stop_requested,
            lanes,
        )  # fmt: skip
        try:
            figures = _loop(settings.kind)(stage, settings)
        finally:
            stage.metrics.close()
            stage.note_seconds()
        folder.write(figures=figures, state="done")
    else:
        watcher.begin(settings.name, "finished before")
    _hold_gate(settings, folder)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """``packing.passes was 2, is 1`` for every setting that differs: equal fingerprints leave only runtime ones."""
    for name in before.keys() & now.keys():
        was, is_ = before[name], now[name]
        if isinstance(was, dict) and isinstance(is_, dict):
            yield from _changes(was, is_, f"{path}{name}.")
        elif was != is_:
            yield f"{path}{name} was {was}, is {is_}"


def _about(manifest: Manifest, settings: StageSettings, index: int) -> dict[str, Any]:
    fingerprint = manifest.fingerprints[settings.name]
    plain = settings.model_dump(mode="json", by_alias=True)
    names = settings.sources
    return {
        "name": settings.name, "kind": settings.kind, "index": index, "fingerprint": fingerprint, "state": "running",
        "inputs": {"from": names[0] if len(names) == 1 else list(names)} if names else {}, "settings": plain,
        "gate": plain.get("gate", {}),
    }  # fmt: skip


def _loop(kind: str) -> Callable[[Stage, StageSettings], dict[str, float]]:
    module, _, name = KINDS[kind].loop.partition(":")
    loop: Callable[[Stage, StageSettings], dict[str, float]] = getattr(importlib.import_module(module), name)
    return loop


def _hold_gate(settings: StageSettings, folder: StageFolder) -> None:
    """Raises GateMissed with the figure and the bound when one is missed."""
    figures = folder.facts().get("figures", {})
    missed = [text for name, gate in settings.gate.items() if (text := _missed(name, gate, figures))]
    folder.write(state="gate_missed" if missed else "done", gate={n: g.model_dump() for n, g in settings.gate.items()})
    if missed:
        raise GateMissed(f'stage "{settings.name}" missed its gate: {"; ".join(missed)}', next_step=ADVICE)


def _missed(name: str, gate: Gate, figures: Mapping[str, float]) -> str:
    if name not in figures:
        return f'it has no figure "{name}" (it has {", ".join(sorted(figures))})'
    value = figures[name]
    if gate.min is not None and value < gate.min:
        return f"{name} is {value:.4g}, at least {gate.min:g} is asked"
    if gate.max is not None and value > gate.max:
        return f"{name} is {value:.4g}, at most {gate.max:g} is asked"
    return ""
