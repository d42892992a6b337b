"""``seekling doctor``: what is here, what each missing thing would give, and whether the core can run."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seekling.model import kernels
from seekling.plan.machine import Machine, existing_parent, machine

State = Literal["ok", "missing-optional", "problem"]

LEAST_MEMORY_BYTES = 2 * 2**30
"""What the built-in manifest may use at its peak."""

LEAST_DISK_BYTES = 2**30
"""Room for a few runs with their checkpoints."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MARKS: dict[State, str] = {
    "ok": "[green]ok[/]",
    "missing-optional": "[yellow]optional[/]",
    "problem": "[red]problem[/]",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing looked at. ``note`` says what it gives, or how to mend it."""

    name: str
    found: str
    state: State
    note: str = ""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of the package's own metadata; ``extra`` is "" for the core, ``least`` its lowest version."""

    name: str
    least: str
    extra: str


def doctor() -> int:
    """Print every row and a one-line verdict. Returns 0 when the core can run, 1 otherwise."""
    rows = examine(Path("runs"))
    console = Console()
    console.print(_table(rows))
    console.print(verdict(rows))
    return 1 if _problems(rows) else 0


def examine(runs: Path) -> list[Row]:
    """All rows, for runs kept in ``runs``."""
    facts = machine(runs)
    wanted = requirements(metadata_lines())
    return [
        python_row(facts),
        *torch_rows(),
        memory_row(facts),
        disk_row(facts),
        runs_row(runs),
        core_row(wanted),
        *extra_rows(wanted),
        program_row("compiler", kernels.COMPILERS, "compiled steps (faster sampling)", "gcc"),
        program_row("chromium", BROWSERS, "the browser tests of `make test`", "chromium"),
    ]


def verdict(rows: Iterable[Row]) -> str:
    """One line: ready, or what to mend first."""
    if problems := _problems(rows):
        return f"[red]Not ready[/]: {', '.join(problems)}. Mend what the table says, then ask again."
    return "[green]Ready[/]: .venv/bin/seekling run zero-tiny"


def python_row(facts: Machine) -> Row:
    """The interpreter that runs this."""
    return Row("python", f"{facts.python} on {facts.os}", "ok")


def torch_rows() -> list[Row]:
    """What torch is here and where it would compute; imports torch, so it says whether that works at all."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Row("torch", f"does not import: {error}"[:200], "problem", "make setup")]
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    capability = torch.backends.cpu.get_cpu_capability()
    # torch.accelerator counts a device only when its driver answers, whoever made it.
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return [
        Row("torch", f"{torch.__version__} ({build})", "ok"),
        device_row("" if device is None else str(device), has_cuda_build=bool(torch.version.cuda)),
        Row("threads", f"{torch.get_num_threads()} (CPU kernels: {capability})", "ok"),
    ]


def device_row(accelerator: str, *, has_cuda_build: bool) -> Row:
    """``accelerator`` is torch's name of the device, or "" when it sees none."""
    if accelerator:
        return Row("device", accelerator, "ok")
    if has_nvidia() and not has_cuda_build:
        return Row(
            "device",
            "cpu",
            "missing-optional",
            "an NVIDIA device is here: make gpu",
        )
    return Row("device", "cpu", "ok", "enough for zero-tiny")


def has_nvidia() -> bool:
    """Whether the system shows an NVIDIA device, whatever torch makes of it."""
    return Path("/dev/nvidia0").exists()


def memory_row(facts: Machine) -> Row:
    """Memory and cores; a problem below what zero-tiny may need."""
    found = f"{_gib(facts.memory_bytes)}, {facts.cores} cores ({facts.cpu})"
    if 0 < facts.memory_bytes < LEAST_MEMORY_BYTES:
        return Row("memory", found, "problem", f"zero-tiny may need {_gib(LEAST_MEMORY_BYTES)}")
    return Row("memory", found, "ok")


def disk_row(facts: Machine) -> Row:
    """Free disk where runs are written; a problem when a run would not fit."""
    found = f"{_gib(facts.free_disk_bytes)} free"
    if facts.free_disk_bytes < LEAST_DISK_BYTES:
        return Row("disk", found, "problem", f"free {_gib(LEAST_DISK_BYTES)}: seekling runs prune removes old stages")
    return Row("disk", found, "ok")


def runs_row(runs: Path) -> Row:
    """Whether runs can be kept here: by writing, since permissions alone do not tell."""
    try:
        with tempfile.TemporaryFile(dir=existing_parent(runs)) as file:
            file.write(b"seekling")
    except OSError as error:
        return Row("runs", f"cannot write to ./{runs}: {error.strerror}", "problem", "go to a folder that is yours")
    return Row("runs", f"./{runs} can be written", "ok")


def core_row(wanted: Iterable[Requirement]) -> Row:
    """Whether every library of the core is here, and new enough."""
    core = [line for line in wanted if not line.extra]
    if not core:
        return Row("core", "seekling itself is not installed", "problem", "make setup")
    if missing := [line.name for line in core if not is_met(line)]:
        return Row("core", f"missing or too old: {', '.join(missing)}", "problem", "make setup")
    return Row("core", f"{len(core)} libraries", "ok")


def extra_rows(wanted: Iterable[Requirement]) -> list[Row]:
    """One row for each extra of the package."""
    wanted = list(wanted)
    names = sorted({line.extra for line in wanted if line.extra})
    return [_extra_row(name, [line for line in wanted if line.extra == name]) for name in names]


def _extra_row(extra: str, lines: list[Requirement]) -> Row:
    missing = [line.name for line in lines if not is_met(line)]
    if missing:
        mend = "make test installs it" if extra == "test" else f".venv/bin/pip install -e '.[{extra}]'"
        return Row(f"extra {extra}", f"missing: {', '.join(missing)}", "missing-optional", mend)
    return Row(f"extra {extra}", f"{len(lines)} libraries", "ok")


def program_row(name: str, programs: Iterable[str], gives: str, package: str) -> Row:
    """A program that is found on the path, or what its absence costs."""
    found = next((path for program in programs if (path := shutil.which(program))), "")
    if found:
        return Row(name, found, "ok", gives)
    return Row(name, "none", "missing-optional", f"gives {gives}: sudo apt install {package}")


def metadata_lines() -> list[str]:
    """The requirement lines of the installed package; none when it is not installed."""
    try:
        return metadata.requires("seekling") or []
    except metadata.PackageNotFoundError:
        return []


def requirements(lines: Iterable[str]) -> list[Requirement]:
    """Read lines such as ``pytest>=8.3 ; extra == "test"``: the only forms pyproject.toml uses."""
    found = []
    for line in lines:
        name = re.match(r"[\w.\-]+", line)
        least = re.search(r">=\s*([\d.]+)", line)
        extra = re.search(r"""extra\s*==\s*["']([\w\-]+)["']""", line)
        if name:
            found.append(Requirement(name[0], least[1] if least else "0", extra[1] if extra else ""))
    return found


def is_met(requirement: Requirement) -> bool:
    """Whether the library is installed in at least the version wanted. It is not imported."""
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    return _numbers(found) >= _numbers(requirement.least)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]


def _problems(rows: Iterable[Row]) -> list[str]:
    return [row.name for row in rows if row.state == "problem"]


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes else "unknown"


def _table(rows: Iterable[Row]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", "state", "found", "gives, or how to mend it"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(row.name, MARKS[row.state], escape(row.found), escape(row.note))
    return table
