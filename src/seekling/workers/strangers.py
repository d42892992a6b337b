"""Functions and classes of a user's own, by name: ``./file.py:name`` or ``package.module:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from seekling.errors import UserError


def found(name: str) -> Any:
    """What stands under ``name``. Raises UserError with the module's own words when it cannot be had."""
    place, _, attribute = name.partition(":")
    try:
        return getattr(_module(place), attribute)
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's module raises, its author needs the reason
        raise UserError(
            f'cannot load "{name}": {type(error).__name__}: {error}',
            next_step="The file must define what stands after the colon, and load by itself.",
        ) from None


def digest(name: str) -> str:
    """SHA-256 of the file in which ``name`` stands: a changed file is another name. Raises UserError without one."""
    place, _, _ = name.partition(":")
    file = Path(place) if place.endswith(".py") else _origin(place)
    try:
        return sha256(file.read_bytes()).hexdigest()
    except OSError:
        raise _no_file(file) from None


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    file = Path(place)
    if not file.is_file():
        raise _no_file(file)
    spec = importlib.util.spec_from_file_location(f"seekling_user_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pydantic look their module up while it is being made
    spec.loader.exec_module(module)
    return module


def _origin(place: str) -> Path:
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(f"there is no module {place}", next_step='A file of your own is written "./file.py:name".')
    return Path(spec.origin)


def _no_file(file: Path) -> UserError:
    return UserError(f"there is no file {file}", next_step="Paths are read from the folder you run in.")
