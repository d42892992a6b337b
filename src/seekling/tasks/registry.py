"""Tasks by name: the built-in families, and a user's own as ``package.module:Name`` or ``./file.py:Name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from seekling.config import Settings, Source, parse
from seekling.errors import UserError, nearest
from seekling.tasks.arithmetic import Arithmetic
from seekling.tasks.countdown import Countdown
from seekling.tasks.protocol import Task

FAMILIES: dict[str, type[Settings]] = {"arithmetic": Arithmetic, "countdown": Countdown}


def build_task(spec: str | Mapping[str, Any], source: Source | None = None, path: str = "") -> Any:
    """A task from its name, or from a table of ``name`` and its settings. Raises UserError with the nearest name."""
    table = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = str(table.get("name", ""))
    if ":" in name:
        return _strangers(name, {key: value for key, value in table.items() if key != "name"})
    if name not in FAMILIES:
        raise UserError(
            f'there is no task "{name}"',
            where=(source or Source()).where([int(p) if p.isdigit() else p for p in path.split(".")]) if path else "",
            next_step=nearest(name, FAMILIES).capitalize() + ' Your own is written "./file.py:Name".',
        )
    return parse(FAMILIES[name], table, source=source, path=path)


def content_hash(spec: str | Mapping[str, Any]) -> str | None:
    """SHA-256 of the file a user's own task stands in; None for a built-in family."""
    name = spec if isinstance(spec, str) else str(spec.get("name", ""))
    place, colon, _ = name.partition(":")
    if not colon:
        return None
    file = Path(place) if place.endswith(".py") else Path(importlib.util.find_spec(place).origin or "")  # type: ignore[union-attr]
    return sha256(file.read_bytes()).hexdigest()


def _strangers(name: str, settings: Mapping[str, Any]) -> Task:
    """A user's own class, called with its settings."""
    place, _, attribute = name.partition(":")
    try:
        found = getattr(_module(place), attribute)
        task: Task = found(**settings)
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


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    file = Path(place)
    if not file.is_file():
        raise UserError(f"there is no file {file}", next_step="Paths are read from the folder you run in.")
    spec = importlib.util.spec_from_file_location(f"seekling_user_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pydantic look their module up while it is being made
    spec.loader.exec_module(module)
    return module
