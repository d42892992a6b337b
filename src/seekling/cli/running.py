"""The run command: a manifest runs, watched and interruptible, and ends with its report."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from seekling.cli.progress import Progress, duration
from seekling.errors import UserError
from seekling.recipes.manifest import load_manifest


def run_command(name_or_file: str, overrides: Sequence[str], name: str, runs: Path) -> int:
    """Run a manifest. Returns the exit code: 0, or 130 when someone stopped it."""
    manifest = load_manifest(name_or_file, overrides)
    folder = Path(name_or_file) if is_run(name_or_file) and not name else runs / (name or manifest.head.name)
    from seekling.recipes.pipeline import Watcher, run_manifest
    from seekling.recipes.stage import Interrupted
    from seekling.report.page import write_report

    with Progress() as progress, _stops() as stop_requested:
        watcher = Watcher(progress.tell, progress.warn, stop_requested, progress.begin)
        try:
            run_manifest(manifest, folder, watcher)
        except Interrupted:
            progress.warn(f"stopped and saved; this goes on: {_same_command(name_or_file, overrides, name, runs)}")
            return 130
        except UserError:
            with suppress(UserError):  # the first letter is the one that matters
                if (folder / "run.json").exists():
                    write_report(folder)
            raise
    _farewell(folder, write_report(folder), runs)
    return 0


def is_run(name: str) -> bool:
    """Whether this is a run directory, whose own manifest is to go on in it."""
    return (Path(name) / "run.json").exists()


def _same_command(name_or_file: str, overrides: Sequence[str], name: str, runs: Path) -> str:
    options = [*(["--name", name] if name else []), *(["--runs", str(runs)] if runs != Path("runs") else [])]
    return shlex.join(["seekling", "run", name_or_file, *overrides, *options])


@contextmanager
def _stops() -> Iterator[Callable[[], bool]]:
    """First ctrl-C or SIGTERM: finish the step and save. Second: stop at once."""
    asked: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        with suppress(OSError):  # no print: a signal may come in the middle of one
            os.write(2, b"\nfinishing this step and saving; again to stop at once (the last checkpoint stays)\n")

    before = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _farewell(folder: Path, report: Path, runs: Path) -> None:
    from seekling.report.story import summary
    from seekling.runlog.ledger import read_ledger, spent, total

    print()
    for label, value in summary(folder):
        print(f"  {label:<28} {value}")
    cost = total(spent(read_ledger(folder)))
    print(f"  {'work metered':<28} {duration(cost.seconds)}, {cost.tokens:,} tokens, {cost.flops:.3g} FLOPs")
    where = "" if runs == Path("runs") else f" --runs {runs}"
    print(f"\nreport:   {report}")
    print(f'talk:     .venv/bin/seekling ask {folder.name} "{_example(folder)}"{where}')


def _example(folder: Path) -> str:
    """A held-out problem of this run, to ask about."""
    from seekling.runlog.files import read_json

    for file in sorted(folder.glob("*/eval.json")):
        rollouts = read_json(file).get("rollouts") or []
        if rollouts:
            return str(rollouts[-1]["prompt"])
    return "12+7-5+20="
