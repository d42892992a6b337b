"""``seekling sandbox doctor``: what holds a model's programs here, and every canary that tries to get out."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seekling.errors import UserError
from seekling.verify.sandbox.box import chosen
from seekling.verify.sandbox.cell import Cell, Place
from seekling.verify.sandbox.doctor import SHARED, Finding, examined, lacking
from seekling.verify.sandbox.laws import landlock_version
from seekling.verify.sandbox.limits import Layer, Limits

State = Literal["holds", "none", "LEAKS"]
_MARKS: dict[State, str] = {"holds": "[green]holds[/]", "none": "[yellow]none[/]", "LEAKS": "[red]LEAKS[/]"}
_RUNS = 50


def sandbox_doctor() -> int:
    """Print layers, what came of the canaries, and a verdict. Returns 0 when the box holds, 1 otherwise."""
    console = Console()
    if lacks := lacking():
        console.print(f"[red]No sandbox here[/]: {escape('; '.join(lacks))}. {SHARED}")
        return 1
    limits = Limits()
    cell = Cell(limits, chosen(limits))
    try:
        start = time.monotonic()
        findings = examined(cell)
        seconds = time.monotonic() - start
        console.print(_table(_rows(cell, findings)))
        console.print(_verdict(findings, seconds, _median_ms(cell)))
    except UserError as error:
        console.print(f"[red]The sandbox does not start[/]: {escape(error.what)}")
        return 1
    finally:
        cell.close()
    return 0 if all(finding.held for finding in findings) else 1


def _rows(cell: Cell, findings: Sequence[Finding]) -> list[tuple[str, State, str, str]]:
    layers = [_layer_row(layer, findings) for layer in Layer]
    group, place = cell.group(), cell.place
    return [
        *layers,
        ("control group", "holds" if group else "none", "memory and threads of all together", _in_group(cell)),
        ("bubblewrap", "holds" if place.bwrap else "none", "namespaces around it all", _in_jail(place)),
    ]


def _layer_row(layer: Layer, findings: Sequence[Finding]) -> tuple[str, State, str, str]:
    tried = [finding for finding in findings if finding.canary.layer is layer]
    out = [f"{finding.canary.name}: {finding.said}" for finding in tried if not finding.held]
    held = f"{len(tried) - len(out)} of {len(tried)} canaries held"
    return layer.value, "LEAKS" if out else "holds", _HOLDS[layer], "; ".join([held, *out])


def _in_group(cell: Cell) -> str:
    return "made" if cell.group() else "this user may make none; limits on the single process remain"


def _in_jail(place: Place) -> str:
    return place.bwrap or "not here, or not allowed to make namespaces: sudo apt install bubblewrap"


def _median_ms(cell: Cell) -> float:
    times = []
    for _ in range(_RUNS):
        start = time.monotonic()
        cell.call("def f(x): return x + 1", "f", [[1]])
        times.append(time.monotonic() - start)
    return statistics.median(times) * 1000


def _verdict(findings: Sequence[Finding], seconds: float, median_ms: float) -> str:
    out = [finding.canary.name for finding in findings if not finding.held]
    if out:
        return f"[red]Does not hold[/]: {escape(', '.join(out))}. Nothing that a model wrote will be run here."
    figures = f"{len(findings)} canaries in {seconds:.1f} s; a run takes {median_ms:.1f} ms (median of {_RUNS})"
    return f"[green]Holds[/] on {platform.machine()}, Landlock {landlock_version()}: {figures}."


def _table(rows: Sequence[tuple[str, State, str, str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("layer", "state", "what it keeps in", "found"):
        table.add_column(title, overflow="fold")
    for name, state, keeps, found in rows:
        table.add_row(name, _MARKS[state], keeps, escape(found))
    return table


_HOLDS = {
    Layer.IDENTITY: "the rights of whoever runs this",
    Layer.ENVIRONMENT: "secrets in variables",
    Layer.DESCRIPTORS: "files that are open already",
    Layer.RLIMITS: "memory, processor time, threads",
    Layer.LANDLOCK: "files: Python's library and nothing else, nothing written",
    Layer.SECCOMP: "kernel calls: no network, no process, no signal",
    Layer.CLOCK: "time",
    Layer.OUTPUT: "what is printed",
}
