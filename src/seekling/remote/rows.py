"""Rows of JSONL, JSON or parquet files, each with its place; what cannot be read is told in place of the row.

A file is in memory while it is read: these are lists of problems, not corpora.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seekling.errors import UserError
from seekling.remote.choice import ROWS
from seekling.remote.hub import identity, is_data_name, locate_data, sha256_of


@dataclass(frozen=True, slots=True)
class Unread:
    """What stands where a row should, in words."""

    said: str


def files_of(data: str, revision: str = "", split: str = "train") -> list[Path]:
    """The files that ``data`` names: a file, a folder's own files, or a hub data set. Raises UserError for none."""
    place = Path(data).expanduser()
    if not place.exists() and is_data_name(data):
        return list(locate_data(data, revision, split=split).paths)
    if place.is_dir():
        found = sorted(file for file in place.iterdir() if file.suffix in ROWS and file.is_file())
        if found:
            return found
    elif place.is_file() and place.suffix in ROWS:
        return [place]
    kinds = ", ".join(ROWS)
    if place.exists():
        raise UserError(f"{data} holds no problems", next_step=f"Name a file that ends in one of {kinds}.")
    raise UserError(f"there is no file {data}", next_step="Paths are read from the folder you run in.")


def digest_of(data: str, revision: str = "") -> Any:
    """What a fingerprint needs to know of ``data``: each file's SHA-256, a data set's commit."""
    if not Path(data).expanduser().exists() and is_data_name(data):
        return identity(data, revision, kind="dataset")
    return {file.name: sha256_of(file) for file in files_of(data, revision)}


def read_rows(files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any] | Unread]]:
    """Every row, or what is wrong with it, by file and line. Raises UserError for a file that cannot be opened."""
    for file in files:
        for where, row in _table(file) if file.suffix == ".parquet" else _texts(file):
            is_row = isinstance(row, dict | Unread)
            yield where, row if is_row else Unread(f"a {type(row).__name__} where an object belongs")


def _texts(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from None
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")  # JSON may hold U+2028: only a newline ends a line
    if file.suffix == ".json" and content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        told = _parsed(b"\n".join(lines))
        items = told if isinstance(told, list) else [told]
        yield from ((f"{file}, item {number}", item) for number, item in enumerate(items, 1))
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{file}, line {number}", _parsed(line)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        return Unread(f"not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        return Unread(f"not JSON: {error.msg} at line {error.lineno}, character {error.colno}")
    except RecursionError:
        return Unread("not JSON: nested too deep")
    except ValueError as error:
        return Unread(f"not JSON: {error}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(made := dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'the key "{next(name for name in names if names.count(name) > 1)}" is there twice')
    return made


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _table(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        advice = "Run: .venv/bin/pip install -e '.[data]'"
        raise UserError(f"reading {file} needs pyarrow, which is not installed", next_step=advice) from None
    try:
        rows = parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        said = str(error).splitlines()[0][:160]
        raise UserError(f"{file} is no whole parquet file: {said}", next_step="Fetch or write it again.") from None
    for number, row in enumerate(rows, 1):
        yield f"{file}, row {number}", {key: value for key, value in row.items() if value is not None}
