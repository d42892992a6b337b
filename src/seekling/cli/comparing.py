"""The compare command: runs side by side, as text and as a page."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from seekling.cli.show import find_run
from seekling.config import runtime_fields, weight_values
from seekling.recipes.config import KINDS
from seekling.recipes.manifest import Head
from seekling.report import words
from seekling.report.compare import Contest, contest
from seekling.report.compare_page import write_page
from seekling.report.view import Estimate


def compare_command(runs: Path, names: Sequence[str], *, stage: str, figure: str, out: Path | None) -> None:
    """Print what each run scored at which compute, and write the page."""
    folders = [find_run(runs, name) for name in names]
    found = contest([(folder, plan_of(folder)) for folder in folders], figure, stage)
    console = Console(highlight=False)
    console.print(_scores(found))
    if found.ratios:
        console.print(_ratios(found))
    if found.differences:
        console.print(_differences(found))
    for mind in found.minds:
        console.print(f"mind: {mind}", markup=False, soft_wrap=True)
    print(f"page: {write_page(found, out or runs / 'compare.html')}")


def plan_of(run: Path) -> dict[str, Any]:
    """What of a run's manifest can change its result: no seed, no name, nothing of the machine."""
    values = tomllib.loads((run / "manifest.toml").read_text(encoding="utf-8"))
    stages = {table["name"]: _settings(table) for table in values.pop("stage", [])}
    own = runtime_fields(Head) | {"name", "seed"}
    return {name: value for name, value in values.items() if name not in own} | {"stage": stages}


def _settings(table: dict[str, Any]) -> dict[str, Any]:
    kind = KINDS.get(str(table.get("kind")))
    return weight_values(kind.settings, table) if kind else table


def _scores(found: Contest) -> Table:
    table = Table("run", "seeds", "stage", "task", found.figure, "interval", "FLOPs", "tokens", "device-s")
    for contender in found.contenders:
        for point in contender.points:
            table.add_row(
                contender.name, str(contender.seeds), point.stage, point.task, f"{point.score.value:.4g}",
                _ends(point.score), f"{point.cost.flops:.3g}", words.short(point.cost.tokens),
                f"{point.cost.seconds:.1f}",
            )  # fmt: skip
    return table


def _ratios(found: Contest) -> Table:
    title = f"against {found.contenders[0].name}"
    table = Table("run", "stage", "task", "error ratio", f"{found.told} ratio", "FLOPs ratio", title=title)
    for row in found.ratios:
        flops = "" if row.flops is None else f"{row.flops:.3g}"
        table.add_row(row.name, row.stage, row.task, _ratio(row.error), _ratio(row.accuracy), flops)
    return table


def _differences(found: Contest) -> Table:
    table = Table("setting", *(contender.name for contender in found.contenders), title="where they differ")
    for row in found.differences:
        table.add_row(row.where, *row.values)
    return table


def _ratio(estimate: Estimate | None) -> str:
    return f"{estimate.value:.3g} {_ends(estimate)}".strip() if estimate else "–"


def _ends(estimate: Estimate) -> str:
    return "" if estimate.low is None or estimate.high is None else f"[{estimate.low:.3g}, {estimate.high:.3g}]"
