"""A manifest becomes a run: stages in order, finished ones passed over, gates held, every step metered."""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from seekling.errors import GateMissed, UserError
from seekling.learn.lanes import Lanes
from seekling.model import kernels
from seekling.plan.machine import machine
from seekling.recipes import lineage
from seekling.recipes.config import KINDS, Control, Eval, Gate, Grpo, StageSettings, Trained
from seekling.recipes.manifest import Manifest
from seekling.recipes.stage import Interrupted, Stage, Tell
from seekling.runlog.files import locked
from seekling.runlog.ledger import Ledger, read_ledger
from seekling.runlog.run import Run, StageFolder
from seekling.workers.crew import Member, member

ADVICE = "Look at its curves in the report, change a setting (more steps, another learning rate) and run again."


@dataclass(frozen=True, slots=True)
class Watcher:
    """Whoever watches a run: how steps are told, how warnings are, and whether to stop."""

    tell: Tell
    warn: Callable[[str], None]
    stop_requested: Callable[[], bool] = lambda: False
    begin: Callable[[str, str], None] = lambda name, state: None


def run_manifest(manifest: Manifest, folder: Path, watcher: Watcher, again: Sequence[str] = ()) -> Path:
    """Run every stage that is not finished, and those named in ``again``. Returns the run's folder.

    Of several processes the first does so, and the others work on the stages it begins: only the first writes, tells
    and judges. Raises GateMissed at the first gate a stage misses, Interrupted when asked to stop, UserError for the
    rest.
    """
    if (who := member()) and who.rank:
        follow(manifest, folder)
        return folder
    with locked(folder):
        run = Run(folder)
        refuse_served(manifest, who)
        lineage.begin_again(manifest, run, again)
        lineage.refuse_lost(manifest, run)
        device, lanes = set_up(manifest, run, watcher.warn)
        session = run.open_session(manifest.to_toml(), session_facts(manifest, device, lanes))
        read_ledger(folder)  # a damaged line is told before the work, not after it
        ledger = Ledger(folder)
        try:
            for settings in manifest.stages:
                _run_stage(manifest, settings, run, session, device, lanes, ledger, watcher)
        finally:
            ledger.close()
        lanes.world.told("")
        lanes.world.close()
    return folder


def follow(manifest: Manifest, folder: Path) -> None:
    """Work on every stage that the first process begins, until it says that there is none.

    What this process writes stands in a folder of its own, which is thrown away.
    """
    device, lanes = set_up(manifest, Run(folder), lambda text: None)
    quiet = Watcher(lambda *told: None, lambda text: None)
    while name := lanes.world.told(""):
        settings, home = manifest.stage(name), folder / manifest.folder_name(name)
        with TemporaryDirectory(prefix="seekling-") as scratch, closing(Ledger(Path(scratch))) as ledger:
            own = Path(scratch) / home.name
            shutil.copytree(home, own, ignore=lambda place, names: [n for n in names if not n.endswith(".json")])
            stage = _begun(manifest, settings, Run(folder), StageFolder(own), 0, device, lanes, ledger, quiet)
            stage.home = home
            _worked(stage, settings)
    lanes.world.close()


def is_shared(settings: StageSettings) -> bool:
    """Whether all processes work on such a stage, or the first alone."""
    return isinstance(settings, Trained | Eval | Control)


def refuse_served(manifest: Manifest, who: Member | None) -> None:
    """Raises UserError where several processes would each ask a server for rollouts."""
    for stage in manifest.stages:
        if who and isinstance(stage, Grpo) and stage.sampler != "engine":
            raise UserError(
                f'stage "{stage.name}" samples through a server, and {who.size} processes would each hand it weights',
                next_step='Set sampler = "engine": each process then samples its share. Or run one process.',
            )


def set_up(manifest: Manifest, run: Run, warn: Callable[[str], None]) -> tuple[torch.device, Lanes]:
    """Deterministic algorithms, the device, and as many lanes as asked for (they cannot change a bit)."""
    earlier = run.facts()["sessions"][0] if (run.folder / "run.json").exists() else {}
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True) without importing half of torch
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    capability = torch.backends.cpu.get_cpu_capability()
    who = member()
    device = pick_device(manifest.head.device, who)
    facts = {"cpu_capability": capability, "torch": torch.__version__, "device": str(device), "kernels": kernels.told()}
    facts |= _company(manifest, who)
    for name, now in facts.items():
        before = earlier.get(name)
        if before is not None and before != now:
            warn(f"this run began with {name} {before} and goes on with {now}: equal within tolerance, not to the bit")
    if who is None:
        return device, _own_lanes(manifest, device)
    from seekling.learn.parallel.ranks import join  # with all that several processes need

    return device, Lanes(1, join(device, who, spread_experts=manifest.head.expert_parallel))


def _own_lanes(manifest: Manifest, device: torch.device) -> Lanes:
    """Those of a process that works alone."""
    return Lanes((manifest.head.threads or machine().cores or 1) if device.type == "cpu" else 1)


def _company(manifest: Manifest, who: Member | None) -> dict[str, Any]:
    """How many processes work on it, and whether each has experts of its own."""
    return {"processes": who.size, "expert_parallel": manifest.head.expert_parallel} if who else {"processes": 1}


def pick_device(wanted: str, who: Member | None = None) -> torch.device:
    """The device asked for, or the accelerator torch finds, or the CPU; of several processes each has its own.

    Raises UserError when it cannot be used, or when this machine has fewer than it has processes.
    """
    found = _device(wanted)
    if who is None or found.type == "cpu":
        return found
    if who.local >= (count := torch.accelerator.device_count()):
        raise UserError(
            f"this machine has {count} devices of type {found.type}, and process {who.rank} would need another",
            next_step=f'Start at most {count} processes here, or set device = "cpu".',
        )
    return torch.device(found.type, who.local)


def _device(wanted: str) -> torch.device:
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
        "device": str(device), "dtype": manifest.head.dtype, "torch": torch.__version__, "kernels": kernels.told(),
        "python": platform.python_version(), **_company(manifest, member()),
    }  # fmt: skip
    return {
        "run": {
            **code(),
            "seed": manifest.head.seed,
            "stages": [manifest.folder_name(stage.name) for stage in manifest.stages],
        },
        "session": session,
    }


def code() -> dict[str, str]:
    """Version and commit of this package."""
    return {"version": version("seekling"), "commit": commit()}


@cache
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
    manifest: Manifest, settings: StageSettings, run: Run, session: int, device: torch.device, lanes: Lanes,
    ledger: Ledger, watcher: Watcher,
) -> None:  # fmt: skip
    folder = StageFolder(run.folder / manifest.folder_name(settings.name))
    if folder.is_done():
        watcher.begin(settings.name, "finished before")
    elif lineage.is_lost(manifest, run, settings.name):
        watcher.begin(settings.name, "gone, and nothing that is left to do reads it")
        return
    else:
        if watcher.stop_requested():
            raise Interrupted
        folder.folder.mkdir(parents=True, exist_ok=True)
        for change in _changes(folder.facts().get("settings", {}), settings.model_dump(mode="json", by_alias=True)):
            watcher.warn(f'stage "{settings.name}" began with other runtime settings: {change}')
        by = lineage.code_of(folder, code(), watcher.warn)
        since = {} if folder.facts() else {"started": time.time()}
        folder.write(**lineage.about(manifest, settings), code=by, **since)
        watcher.begin(settings.name, "running")
        if is_shared(settings):
            lanes.world.told(settings.name)
        elif lanes.world.size > 1:
            lanes = _own_lanes(manifest, device)
        stage = _begun(manifest, settings, run, folder, session, device, lanes, ledger, watcher)
        figures, left = _worked(stage, settings), folder.left()
        folder.write(figures=figures, state="done", left=left)
        lineage.tell_readers(manifest, run, settings.name, left, watcher.warn)
    _hold_gate(settings, folder)


def _begun(
    manifest: Manifest, settings: StageSettings, run: Run, folder: StageFolder, session: int, device: torch.device,
    lanes: Lanes, ledger: Ledger, watcher: Watcher,
) -> Stage:  # fmt: skip
    inputs = tuple(StageFolder(run.folder / manifest.folder_name(name)) for name in settings.sources)
    folder.write(parents=lineage.parents(inputs, watcher.warn))
    return Stage(
        settings.name, folder, inputs, f"{manifest.head.seed}/{settings.name}", session, device,
        getattr(torch, manifest.head.dtype), ledger, watcher.tell, watcher.warn, watcher.stop_requested, lanes,
    )  # fmt: skip


def _worked(stage: Stage, settings: StageSettings) -> dict[str, float]:
    """The stage's figures."""
    try:
        return stage.work(_loop(settings.kind), settings)
    finally:
        stage.closing.close()
        stage.metrics.close()
        stage.note_seconds()


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """``packing.passes was 2, is 1`` for every setting that differs: equal fingerprints leave only runtime ones."""
    for name in before.keys() & now.keys():
        was, is_ = before[name], now[name]
        if isinstance(was, dict) and isinstance(is_, dict):
            yield from _changes(was, is_, f"{path}{name}.")
        elif was != is_:
            yield f"{path}{name} was {was}, is {is_}"


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
