"""A commented start for a task of one's own: files to change, written into a folder and never over anything."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from seekling.errors import UserError, nearest
from seekling.runlog.files import write_atomic

STARTS: Mapping[str, Mapping[str, str]] = {
    "task": {"my_task.py": "my_task.py", "train.toml": "task.toml"},
    "file": {"problems.jsonl": "problems.jsonl", "train.toml": "file.toml"},
    "reward": {"rewards.py": "rewards.py"},
}
"""What each kind of start writes, and which of the package's files it is."""


def write_start(place: Path, kind: str) -> list[Path]:
    """Write a start's files into ``place``. Returns them. Raises UserError, and writes nothing, where one is there."""
    if kind not in STARTS:
        raise UserError(f'there is no start called "{kind}"', next_step=f"{nearest(kind, STARTS).capitalize()}")
    if place.exists() and not place.is_dir():
        raise UserError(f"{place} is no folder", next_step="Name a folder, new or old.")
    if there := [name for name in STARTS[kind] if (place / name).exists()]:
        raise UserError(f"{place / there[0]} is there already", next_step="Name another folder, or move it away.")
    starts = resources.files("seekling.tasks").joinpath("starts")
    for name, source in STARTS[kind].items():
        write_atomic(place / name, starts.joinpath(source).read_text(encoding="utf-8"))
    return [place / name for name in STARTS[kind]]
