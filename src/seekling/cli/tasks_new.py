"""``seekling tasks new``: a commented start, and what to do with it next."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from seekling.tasks.new import write_start

NEXT = {
    "task": (
        "seekling tasks audit ./my_task.py:MyTask    try answers made to deceive its check",
        "seekling tasks try ./my_task.py:MyTask      answer a few problems yourself",
        "seekling run train.toml                     grow a model on it",
    ),
    "file": (
        "seekling tasks try file data=problems.jsonl verifier=integer      answer a few problems yourself",
        "seekling tasks audit file data=problems.jsonl verifier=integer    try answers made to deceive the verifier",
        "seekling run train.toml                                           reinforce a model on them",
    ),
    "reward": ('rubric = { accuracy = 1.0, "./rewards.py:brief" = 0.2 }    in a stage of kind grpo',),
}


def tasks_new_command(place: Path, kind: str) -> None:
    """Write the start, and print its files and what comes next."""
    console = Console(highlight=False)
    for file in write_start(place, kind):
        console.print(f"wrote {file}", markup=False, soft_wrap=True)
    console.print(f"\nnext, in {place}:", markup=False, soft_wrap=True)
    for line in NEXT[kind]:
        console.print(f"  {line}", markup=False, soft_wrap=True)
