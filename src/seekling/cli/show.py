"""What stands on disk, printed: runs, stages, figures, costs. Reads files only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from rich.console import Console
from rich.table import Table

from seekling.cli.progress import duration
from seekling.errors import UserError, nearest
from seekling.runlog.files import is_locked, locked
from seekling.runlog.ledger import kept, read_ledger, spent, total
from seekling.runlog.run import Run, delete_folder, folder_bytes, list_runs, stale_stages

HEADLINES = {
    "pretrain": ("loss",),
    "sft": ("loss",),
    "dpo": ("held_out_accuracy", "rewards/margins", "loss"),
    "reward_model": ("held_out_accuracy", "margin", "loss"),
    "curate": ("drawn", "kept"),
    "grpo": ("reward", "held_out_pass", "response_length"),
    "distill": ("held_out_pass", "teacher_kl", "response_length", "loss"),
    "eval": ("pass@1", "mean_tokens"),
    "control": ("best_control", "gain_over_best_control"),
}
"""The figures by which a stage of each kind is known; the report has the rest."""


def letter(error: UserError) -> None:
    """Print an error as what, where, what next."""
    console = Console(stderr=True, highlight=False)
    console.print(f"error: {error.what}", style="bold red", markup=False, soft_wrap=True)
    for label, text in (("where", error.where), ("next", error.next_step)):
        if text:
            console.print(f"{label}:  {text}", markup=False, soft_wrap=True)


def find_run(runs: Path, name: str) -> Path:
    """A run directory by name or path. Raises UserError with the nearest name."""
    for candidate in (runs / name, Path(name)):
        if (candidate / "run.json").exists():
            return candidate
    known = [run.folder.name for run in list_runs(runs)]
    hint = nearest(name, known).capitalize() if known else "There is none yet: seekling run zero-tiny makes one."
    raise UserError(f'there is no run "{name}" in {runs}', next_step=hint)


def find_model(runs: Path, name: str) -> Path:
    """A model folder: itself, RUN/STAGE, or the last trained stage of RUN."""
    if (Path(name) / "config.json").exists():
        return Path(name)
    run_name, _, stage = name.partition("/")
    if "/" in name and not (runs / run_name / "run.json").exists():
        run_name, stage = name, ""
    run = Run(find_run(runs, run_name))
    if stage:
        folder = run.stage(stage).model
    else:
        models = [s.model for s in run.current() if (s.model / "config.json").exists() and _is_result(s.facts())]
        if not models:
            raise UserError(
                f'run "{run_name}" has no finished model yet',
                next_step=f"seekling show {run_name} tells how far it is.",
            )
        folder = models[-1]
    if not (folder / "config.json").exists():
        raise UserError(f"there is no model in {folder}", next_step=f"seekling show {run_name} lists the stages.")
    return folder


def _is_result(facts: dict[str, Any]) -> bool:
    """Whether a stage's model is one to talk to: neither a control nor a reward model."""
    return not (facts["settings"].get("rewards") == "shuffled" or facts["kind"] == "reward_model")


def list_command(runs: Path) -> None:
    """Every run: state, stages, cost."""
    table = Table("run", "state", "stages", "time", "tokens", "FLOPs", "size", "begun")
    for run in list_runs(runs):
        states = [stage.facts()["state"] for stage in run.current()]
        cost = total(spent(read_ledger(run.folder)))
        done, of = states.count("done"), len(run.folders())
        table.add_row(
            run.folder.name, _state(run, states), f"{done}/{of}", duration(cost.seconds), f"{cost.tokens:,}",
            f"{cost.flops:.2g}", f"{folder_bytes(run.folder) / 1e6:.0f} MB", run.facts()["created"][:16],
        )  # fmt: skip
    Console(highlight=False).print(table if table.row_count else f"no runs in {runs}; seekling run zero-tiny makes one")


def _state(run: Run, states: list[str]) -> str:
    """done, running, stopped, or gate missed."""
    if is_locked(run.folder):
        return "running"
    if "gate_missed" in states:
        return "gate missed"
    return "done" if states.count("done") == len(run.folders()) else "stopped"


def show_command(runs: Path, name: str) -> None:
    """One run's stages, gates and figures."""
    folder = find_run(runs, name)
    run, console = Run(folder), Console(highlight=False)
    entries = read_ledger(folder)
    all_spent, all_kept = spent(entries), kept(entries, run.folders())
    table = Table("stage", "kind", "state", "figures", "gate", "spent", "kept")
    for stage in run.current():
        facts = stage.facts()
        figures = "\n".join(_headline(facts))
        gates = ", ".join(f"{n}: {g}" for n, g in facts.get("gate", {}).items())
        costs = [duration(c[facts["name"]].seconds) if facts["name"] in c else "" for c in (all_spent, all_kept)]
        table.add_row(facts["name"], facts["kind"], facts["state"], figures, gates, *costs)
    console.print(table)
    whole = total(all_spent)
    console.print(f"spent in all: {duration(whole.seconds)}, {whole.tokens:,} tokens, {whole.flops:.3g} FLOPs")
    console.print(f"report: {folder / 'report.html'}")


def _headline(facts: dict[str, Any]) -> list[str]:
    """The few figures a stage is known by, one a line; all of them where its kind has none in particular."""
    figures = facts.get("figures", {})
    chosen = [name for name in HEADLINES.get(facts["kind"], ()) if name in figures] or list(figures)
    return [f"{name} {figures[name]:.3g}" for name in chosen]


def prune_command(runs: Path, name: str, *, yes: bool) -> None:
    """Delete the stage folders a run's manifest no longer names, after asking."""
    if not name:
        raise UserError("which run shall be pruned?", next_step="seekling runs prune RUN")
    folder = find_run(runs, name)
    stale = stale_stages(Run(folder))
    for place in stale:
        print(f"{folder_bytes(place) / 1e6:8.1f} MB  {place}")
    if not stale:
        print(f"nothing to prune: every stage in {folder} belongs to its manifest")
        return
    if yes or _agreed("delete these? [y/N] "):
        with locked(folder):
            for place in stale:
                delete_folder(place)
        print("deleted")


def _agreed(question: str) -> bool:
    """Whether a person says yes. Raises UserError when there is none to ask."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        raise UserError("nobody is there to answer, so nothing is deleted", next_step="Add --yes.") from None


def stages_command(kind: str) -> None:
    """Kinds and their settings, from the settings' own docs."""
    from seekling.recipes.config import KINDS

    if kind and kind not in KINDS:
        raise UserError(f'there is no stage kind "{kind}"', next_step=nearest(kind, KINDS))
    console = Console(highlight=False)
    for name, entry in KINDS.items():
        if not kind:
            console.print(f"{name:<10} {(entry.settings.__doc__ or '').splitlines()[0]}", markup=False)
        elif kind == name:
            console.print((entry.settings.__doc__ or "") + "\n", markup=False)
            _settings(console, entry.settings, "")
    if not kind:
        console.print("\nseekling stages KIND tells a kind's settings.")


def _settings(console: Console, model: type[BaseModel], prefix: str, values: BaseModel | None = None) -> None:
    """``values`` holds a nested model's defaults where its owner's differ from its own."""
    for name, field in model.model_fields.items():
        value = field.default if values is None else getattr(values, name)
        inner = value if isinstance(value, BaseModel) else None
        label = prefix + (field.alias or name)
        if inner is not None and prefix.count(".") < 2 and name != "model":
            console.print(f"{label}: {(type(inner).__doc__ or '').splitlines()[0]}", style="bold", markup=False)
            _settings(console, type(inner), f"{label}.", inner)
            continue
        default = "required" if value is PydanticUndefined else f"= {_plain(value)}"
        console.print(f"  {label:<28} {default:<22} {field.description or ''}", markup=False, soft_wrap=True)


def _plain(value: Any) -> str:
    return "(a preset)" if isinstance(value, BaseModel) else str(value)
