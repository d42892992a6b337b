"""Rows of JSONL, JSON or parquet files, here or on the hub, by file and line; what cannot be read is told in its place.

Files are read as streams: a row is in memory while it is worked on, never the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from seekling.errors import UserError, nearest
from seekling.remote.choice import ROWS
from seekling.remote.hub import identity, is_data_name, locate_data, sha256_of

ROWS_AT_ONCE = 256
PIECE_CHARS = 2**16

Columns = Callable[[Path, Sequence[str]], list[str]]
"""From a table's file and the names of its columns to those that are read."""


@dataclass(frozen=True, slots=True)
class Unread:
    """What stands where a row should, in words."""

    said: str


class _Broken(Exception):
    """Why a row cannot be read: no ValueError, so that no reader takes it for a text that goes on."""


def files_of(data: str, revision: str = "", split: str = "train", **watch: Any) -> list[Path]:
    """The files that ``data`` names: a file, a folder's own files, or a hub data set (``watch`` as in ``locate_data``).

    Raises UserError for a name that leads to none.
    """
    path = Path(data).expanduser()
    if not path.exists() and is_data_name(data):
        return list(locate_data(data, revision, split=split, **watch).paths)
    if revision:
        raise UserError(f"{data} is here, and has no revision {revision}", next_step="Leave the revision out.")
    return _in_folder(path) if path.is_dir() else [_of_known_format(path)]


def digest_of(data: str, revision: str = "") -> Any:
    """What a fingerprint needs to know of ``data``: a file's SHA-256, each file's in a folder, a data set's commit."""
    path = Path(data).expanduser()
    if not path.exists() and is_data_name(data):
        return identity(data, revision, kind="dataset")
    files = files_of(data, revision)
    return {file.name: sha256_of(file) for file in files} if path.is_dir() else sha256_of(files[0])


def read_rows(files: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any] | Unread]]:
    """Every row of ``files`` that is an object, or what stands in its place, by file and line."""
    for file in files:
        for where, row in rows_of(file):
            is_row = isinstance(row, dict | Unread)
            yield where, row if is_row else Unread(f"a {type(row).__name__} where an object belongs")


def _in_folder(folder: Path) -> list[Path]:
    """A folder's own files, by name; what lies deeper may be another split."""
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.suffix in ROWS and entry.is_file())
        deeper = sorted({str(entry.parent) for entry in folder.glob("*/*") if entry.suffix in ROWS})
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror or error}") from None
    if not files:
        raise UserError(
            f"{folder} holds no {', '.join(ROWS)} files",
            next_step=f"Name one of its folders: {', '.join(deeper[:5])}" if deeper else "Check the path.",
        )
    return files


def _of_known_format(file: Path) -> Path:
    if not file.exists():
        near = [entry.name for entry in file.parent.glob("*") if entry.suffix in ROWS]
        hint = nearest(file.name, near) if near else "a file, a folder of files, or a data set of the hub as org/name"
        raise UserError(f"there is no data file {file}", next_step=f"{hint[:1].upper()}{hint[1:]}")
    if file.suffix not in ROWS:
        raise UserError(
            f"{file} is no data file: its name ends neither in {' nor in '.join(ROWS)}",
            next_step="Rename it if it is one of these, else convert it.",
        )
    return file


def rows_of(file: Path, columns: Columns | None = None) -> Iterator[tuple[str, Any]]:
    """Every row of one file with its place; one that cannot be read is ``Unread``. ``columns`` chooses from a table's.

    Raises UserError for a file that cannot be opened, or is no whole table.
    """
    try:
        if file.suffix == ".parquet":
            for number, row in enumerate(_table(file, columns), 1):
                yield f"{file}, row {number}", row
        else:
            for number, row in _items(file) if _is_array(file) else _lines(file):
                yield f"{file}, line {number}", row
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from None


def _is_array(file: Path) -> bool:
    """Whether a .json file is one list, rather than a row a line as many are."""
    with file.open("rb") as handle:
        start = handle.read(64)
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UserError(f"{file} is UTF-16", next_step="Save it as UTF-8.")
        return file.suffix == ".json" and start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    """Rows a line apart. Only a newline ends a line: JSON text may hold U+2028 and its kin as they are."""
    with file.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                yield number, parsed(line)


def parsed(line: bytes) -> Any:
    """One JSON value, whole and without a key said twice; ``Unread`` for what is none."""
    try:
        return json.loads(line.decode("utf-8").lstrip("\ufeff"), object_pairs_hook=_object, parse_constant=_refuse)
    except _Broken as broken:
        return Unread(str(broken))
    except UnicodeDecodeError as error:
        return Unread(f"not UTF-8: byte {line[error.start]:#x} at {error.start}; save the file as UTF-8")
    except json.JSONDecodeError as error:
        return Unread(f"not JSON: {error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:
        return Unread(f"not JSON: {'nested too deep' if isinstance(error, RecursionError) else error}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises _Broken for a key that is there twice: JSON readers disagree about which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Broken(f'the key "{twice}" is there twice; expected once')
    return found


def _items(file: Path) -> Iterator[tuple[int, Any]]:
    """Rows of one JSON list, each parsed when enough of the file has been read. What breaks the list ends it."""
    with file.open(encoding="utf-8-sig", newline="") as handle:
        tape = _Tape(handle)
        try:
            tape.take("[")
            while not tape.ends_with("]"):
                yield tape.line, tape.value()
        except _Broken as broken:
            yield tape.line, Unread(str(broken))
        except UnicodeDecodeError:
            yield tape.line, Unread("not UTF-8; save the file as UTF-8")


def _refuse(name: str) -> None:
    raise _Broken(f"not JSON: {name} is no number")


class _Tape:
    """The text of a JSON list, read a piece at a time; ``line`` is where reading stands."""

    def __init__(self, handle: TextIO) -> None:
        self._handle, self._text, self._at, self.line = handle, "", 0, 1
        self._decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse)
        self._is_first = True

    def take(self, mark: str) -> None:
        """Pass over one expected character. Raises _Broken when another stands there."""
        if (found := self._next()) != mark:
            raise _Broken(f"not JSON: expected {mark}, found {found or 'the end of the file'}")
        self._pass(1)

    def ends_with(self, mark: str) -> bool:
        """Whether the list ends here; else its next value stands behind a comma, unless it is the first."""
        if self._next() == mark:
            return True
        if not self._is_first:
            self.take(",")
            self._next()
        self._is_first = False
        return False

    def value(self) -> Any:
        """The next value, whole. Raises _Broken when even the whole rest of the file does not hold one."""
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
            except ValueError as error:
                if self._more():
                    continue
                raise _Broken(f"not JSON: {getattr(error, 'msg', error)}") from None
            except RecursionError:
                raise _Broken("not JSON: nested too deep") from None
            self._pass(end - self._at)
            return found

    def _next(self) -> str:
        """The next character that is no blank; "" at the end of the file."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._pass(1)
            if not self._more():
                return ""

    def _pass(self, count: int) -> None:
        self.line += self._text.count("\n", self._at, self._at + count)
        self._at += count

    def _more(self) -> bool:
        """Read on, twice as far as what could not be used; forget what has been."""
        self._text = self._text[self._at :]
        self._at = 0
        piece = self._handle.read(max(PIECE_CHARS, len(self._text)))
        self._text += piece
        return bool(piece)


def _table(file: Path, choose: Columns | None) -> Iterator[Any]:
    """Rows of a parquet file, a few at a time, only the chosen columns; empty fields are left out."""
    pyarrow, parquet = _pyarrow(file)
    try:
        with parquet.ParquetFile(file) as table:
            columns = choose(file, table.schema_arrow.names) if choose else None
            for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
                yield from (_filled(row) for row in batch.to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{file} is no whole parquet file: {str(error).splitlines()[0][:160]}",
            next_step="It may have been cut off in copying: fetch or write it again.",
        ) from None


def _pyarrow(file: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"reading {file} needs pyarrow, which is not installed",
            next_step="Run: .venv/bin/pip install -e '.[data]'",
        ) from None
    return pyarrow, parquet


def _filled(value: Any) -> Any:
    """Without what is null: a table gives every row all fields that any row has."""
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items() if inner is not None}
    return [_filled(inner) for inner in value] if isinstance(value, list) else value
