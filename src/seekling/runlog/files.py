"""Files that survive a crash: atomic writes, append-only lines, one lock per run directory.

Files are the truth. A line torn by a crash can only be the last one: it is dropped, anything else is an error.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from seekling.errors import UserError

T = TypeVar("T")


def write_atomic(file: Path, content: str | bytes) -> None:
    """Write beside, fsync, rename, fsync the folder: readers see the old file or the new one, never a part."""
    beside = file.with_name(f".{file.name}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise disk_error(file, error) from None


def write_json(file: Path, value: Any) -> None:
    """``write_atomic`` of indented JSON; NaN is refused."""
    write_atomic(file, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(file: Path) -> Any:
    """Parsed JSON. Raises UserError when missing or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing") from None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} is damaged: {error}", next_step="Restore it, or remove its folder and run again."
        ) from None


def sha256(file: Path) -> str:
    """The SHA-256 of a file, which is read in pieces: it may be larger than memory has room for."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class Lines:
    """An append-only JSONL file, open for one process. A torn last line is cut off on opening."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _cut_torn_tail(file)
            self._handle = file.open("ab")
        except OSError as error:
            raise disk_error(file, error) from None

    def append(self, record: Mapping[str, Any], *, sync: bool = False) -> None:
        """Write one line and flush it to the system (to the disk too with ``sync``)."""
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        try:
            self._handle.write(line.encode())
            self._handle.flush()
        except OSError as error:
            raise disk_error(self.file, error) from None
        if sync:
            self.sync()

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        try:
            os.fsync(self._handle.fileno())
        except OSError as error:
            raise disk_error(self.file, error) from None

    def close(self) -> None:
        """Flush to the disk and close."""
        with suppress(OSError):
            os.fsync(self._handle.fileno())
        with suppress(OSError):
            self._handle.close()


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Every whole line. Raises UserError naming file and line when one that is not the last is damaged."""
    return (record for _, record in placed_lines(file))


def placed_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """``read_lines``, each with the byte where it begins: for who wants to come back to one (``line_at``)."""
    if not file.exists():
        return
    with file.open("rb") as handle:
        place = 0
        for number, line in enumerate(handle, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError):
                raise _damaged(file, number, "The line is not JSON.") from None
            if not isinstance(record, dict):
                raise _damaged(file, number, "The line is no JSON object.")
            yield place, record
            place += len(line)


def line_at(file: Path, place: int) -> dict[str, Any]:
    """The line that begins at a byte ``placed_lines`` told. Raises UserError when it stands there no more."""
    try:
        with file.open("rb") as handle:
            handle.seek(place)
            record: dict[str, Any] = json.loads(handle.readline())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} has changed while it was in use: {error}", next_step="Run again.") from None
    return record


def read_records(file: Path, make: Callable[..., T]) -> Iterator[T]:
    """Every whole line as a record. Raises UserError naming file and line when one lacks what ``make`` needs."""
    for number, line in enumerate(read_lines(file), 1):
        try:
            yield make(**line)
        except TypeError as error:
            raise _damaged(file, number, f"The line is no record: {error}.") from None


def _damaged(file: Path, number: int, why: str) -> UserError:
    advice = f"{why} Delete that line, or restore the file from a copy."
    return UserError(f"line {number} of {file} is damaged", where=f"{file}:{number}", next_step=advice)


def is_locked(folder: Path) -> bool:
    """Whether some process works in a run directory now."""
    try:
        with (folder / ".lock").open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run directory for this process. Raises UserError naming the process that holds it already."""
    file = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = file.open("a+")
    except OSError as error:
        raise disk_error(folder, error) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise UserError(
                f"{folder} is in use by another process ({handle.read().strip() or 'unknown'})",
                next_step="Wait for it or stop it; or give this run another name with --name.",
            ) from None
        handle.truncate(0)
        handle.write(f"pid {os.getpid()}")
        handle.flush()
        yield


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(file: Path, error: OSError) -> UserError:
    """What the system said about ``file``, as a letter."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(
            f"the disk is full: cannot write {file}",
            next_step="Free some space (seekling runs prune shows what can go) and run the same command again.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"no permission to write {file}", next_step="Choose another folder with --runs.")
    return UserError(f"cannot write {file}: {error.strerror or error}", next_step="Choose another folder with --runs.")


def _cut_torn_tail(file: Path) -> None:
    if not file.exists():
        return
    with file.open("rb+") as handle:
        size = handle.seek(0, os.SEEK_END)
        position = size
        while position > 0:
            start = max(0, position - 65536)
            handle.seek(start)
            found = handle.read(position - start).rfind(b"\n")
            if found >= 0:
                position = start + found + 1
                break
            position = start
        if position != size:
            handle.truncate(position)
