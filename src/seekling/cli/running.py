"""The run command: a manifest runs, watched and interruptible, and ends with its report."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from seekling.cli.progress import Progress, duration
from seekling.errors import UserError
from seekling.recipes.manifest import Manifest, load_manifest
from seekling.workers import crew
from seekling.workers.crew import member

LETTERS = (2, 3, 4, 130)
"""Exit statuses of a run that has told its person why it ends."""


def run_command(name_or_file: str, overrides: Sequence[str], name: str, runs: Path, again: Sequence[str] = ()) -> int:
    """Run a manifest, and stages named in ``again`` though they are finished.

    Returns the exit code: 0, or 130 when someone stopped it.
    """
    manifest = load_manifest(name_or_file, overrides)
    if (who := member()) is None and manifest.head.processes > 1:
        return _run_crew(manifest.head.processes)
    crew.tie()
    folder = Path(name_or_file) if is_run(name_or_file) and not name else runs / (name or manifest.head.name)
    from seekling.recipes.pipeline import Watcher, run_manifest
    from seekling.recipes.stage import Interrupted
    from seekling.report.page import write_report

    if who and who.rank:
        return _follow(manifest, folder)
    with Progress() as progress, _stops() as stop_requested:
        watcher = Watcher(progress.tell, progress.warn, stop_requested, progress.begin)
        try:
            run_manifest(manifest, folder, watcher, again)
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


def _follow(manifest: Manifest, folder: Path) -> int:
    """What a process other than the first does: what it is told, without a word. The first decides when to stop."""
    from seekling.recipes.pipeline import Watcher, run_manifest
    from seekling.recipes.stage import Interrupted

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        run_manifest(manifest, folder, Watcher(lambda *told: None, lambda text: None))
    except Interrupted:
        return 130
    return 0


def _run_crew(size: int) -> int:
    """The same command as so many processes. Raises UserError when one died without a word of its own."""
    command = [sys.executable, "-P", "-m", "seekling.cli.main", *sys.argv[1:]]
    ended = crew.run(command, size, LETTERS)
    if ended.rank == 0 and ended.status >= 0:
        return ended.status
    if ended.rank == 0 and -ended.status in (signal.SIGINT, signal.SIGTERM):  # asked to stop before it could listen
        return 130
    if ended.said:
        print(ended.said, file=sys.stderr)
    how = f"was killed by signal {-ended.status}" if ended.status < 0 else f"ended with status {ended.status}"
    raise UserError(
        f"process {ended.rank} of {size} {how}; the others were ended",
        where="its last words stand above" if ended.said else "",
        next_step="The same command goes on from the last checkpoint.",
    )


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
    from seekling.report.read import read_run

    evaluations = [found for stage in read_run(folder).stages for found in stage.evaluations]
    return next((found.rollouts[-1].prompt for found in evaluations if found.rollouts), "12+7-5+20=")
