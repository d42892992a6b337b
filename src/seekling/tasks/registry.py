"""Tasks by name: the built-in families, and a user's own as ``package.module:Name`` or ``./file.py:Name``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seekling.config import Settings, Source, fingerprint, parse
from seekling.errors import UserError, nearest
from seekling.tasks.arithmetic import Arithmetic
from seekling.tasks.bilingual import Bilingual
from seekling.tasks.blocks import Blocks
from seekling.tasks.boolean import Boolean
from seekling.tasks.code import Code
from seekling.tasks.countdown import Countdown
from seekling.tasks.gym import Gym
from seekling.tasks.helpful import Helpful
from seekling.tasks.instructions import Instructions
from seekling.tasks.knights import Knights
from seekling.tasks.letters import Letters
from seekling.tasks.maze import Maze
from seekling.tasks.mix import Mix
from seekling.tasks.modular import Modular
from seekling.tasks.nim import Nim
from seekling.tasks.own import FileTask
from seekling.tasks.protocol import Task
from seekling.tasks.requests import Requests
from seekling.tasks.sorting import Sorting
from seekling.tasks.table import Table
from seekling.tasks.tictactoe import TicTacToe
from seekling.tasks.word_problems import WordProblems
from seekling.tasks.zebra import Zebra
from seekling.workers.strangers import digest, found

FAMILIES: dict[str, type[Settings]] = {
    "arithmetic": Arithmetic,
    "bilingual": Bilingual,
    "blocks": Blocks,
    "boolean": Boolean,
    "code": Code,
    "countdown": Countdown,
    "instructions": Instructions,
    "knights": Knights,
    "letters": Letters,
    "maze": Maze,
    "modular": Modular,
    "nim": Nim,
    "requests": Requests,
    "sorting": Sorting,
    "table": Table,
    "tictactoe": TicTacToe,
    "word_problems": WordProblems,
    "zebra": Zebra,
}

OWN: dict[str, type[Settings]] = {"file": FileTask, "helpful": Helpful, "mix": Mix}
"""Tasks to which somebody else brings the problems, the judgement, or the tasks."""


def build_task(spec: str | Mapping[str, Any], source: Source | None = None, path: str = "") -> Any:
    """A task from its name, or from a table of ``name`` and its settings. Raises UserError with the nearest name."""
    table = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = str(table.get("name", ""))
    if ":" in name:
        return _strangers(name, {key: value for key, value in table.items() if key != "name"})
    known = FAMILIES | OWN | ({name: Gym} if name.startswith("rg/") else {})
    if name not in known:
        raise UserError(
            f'there is no task "{name}"',
            where=(source or Source()).where([int(p) if p.isdigit() else p for p in path.split(".")]) if path else "",
            next_step=nearest(name, known).capitalize() + ' Your own is written "./file.py:Name".',
        )
    return parse(known[name], table, source=source, path=path)


def content_hash(spec: str | Mapping[str, Any]) -> str | None:
    """Digest of the files in which a user's own task or problems stand; None for a built-in family.

    Of a mix: of all its parts' files.
    """
    name = spec if isinstance(spec, str) else str(spec.get("name", ""))
    if ":" in name:
        return digest(name)
    if name == "mix":
        files = [content_hash(part) for part in build_task(spec).tasks]
        return fingerprint(files) if any(files) else None
    return build_task(spec).content() if name == "file" else None


def _strangers(name: str, settings: Mapping[str, Any]) -> Task:
    """A user's own class, called with its settings."""
    make = found(name)
    try:
        task: Task = make(**settings)
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's module raises, its author needs the reason
        raise UserError(
            f'cannot make the task "{name}": {type(error).__name__}: {error}',
            next_step="The file must define the class named after the colon; see docs/api.md.",
        ) from None
    missing = [wanted for wanted in ("name", "draw", "check") if not hasattr(task, wanted)]
    if missing:
        raise UserError(f'"{name}" is not a task: it lacks {", ".join(missing)}', next_step="See docs/api.md.")
    return task
