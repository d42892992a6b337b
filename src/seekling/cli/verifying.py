"""The verify command: is a checkpoint read rightly?"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from seekling.cli.models import locate_any
from seekling.evals.verify import verify
from seekling.plan.machine import machine

WORDS = {True: "passed", False: "FAILED", None: "not made"}


def verify_command(runs: Path, model: str) -> int:
    """Print every check as it is made. Returns the exit code: 0 when none failed."""
    console, failed = Console(highlight=False), 0
    for outcome in verify(locate_any(runs, model).folder, machine().memory_bytes):
        failed += outcome.passed is False
        style = {False: "bold red", None: "dim"}.get(outcome.passed)
        line = f"{WORDS[outcome.passed]:<9} {outcome.name}: {outcome.detail}"
        console.print(line, style=style, markup=False, soft_wrap=True)
    console.print(f"{failed} checks failed" if failed else "nothing failed", markup=False)
    return 1 if failed else 0
