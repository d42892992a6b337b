"""The user's own chats: rows of JSONL, JSON or parquet, here or on the hub, checked line by line, as messages.

Three shapes of row: ``messages``; ``prompt`` and ``completion``; ``chosen`` (with ``rejected``, which fine-tuning does
not read). Files are read as streams: a row is in memory while it is worked on, never the file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from seekling.errors import UserError, nearest
from seekling.remote.hub import identity, is_data_name, locate_data, sha256_of

SUFFIXES = (".jsonl", ".json", ".parquet")
ROLES = ("system", "user", "assistant", "tool")
COLUMNS = ("messages", "prompt", "completion", "chosen", "rejected", "tools")
"""What is read of a row; everything else in it is passed over."""

SHOWN_FAULTS = 5
ROWS_AT_ONCE = 256
PIECE_CHARS = 2**16

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation. ``given``: how many messages at its front are prompt, not to be learned whoever says them.

    ``tools`` are the functions the assistant may call, as a template wants them. ``where`` is file and line.
    """

    messages: list[Message]
    where: str
    given: int = 0
    tools: list[Any] | None = None


_SURROGATE = re.compile("[\ud800-\udfff]")


class _Fault(Exception):
    """What is wrong with one row: what was found, what is expected."""


def find(data: str, revision: str = "", split: str = "train", **watch: Any) -> list[Path]:
    """The files that ``data`` names: a file, a folder's own files, or a hub data set (``watch`` as in ``locate_data``).

    Raises UserError for a name that leads to none.
    """
    path = Path(data).expanduser()
    if not path.exists() and is_data_name(data):
        return list(locate_data(data, revision, split=split, **watch).paths)
    if revision:
        raise UserError(f"{data} is here, and has no revision {revision}", next_step="Leave the revision out.")
    return _in_folder(path) if path.is_dir() else [_of_known_format(path)]


def content_hash(data: str, revision: str = "") -> Any:
    """What a fingerprint needs to know of ``data``: a file's SHA-256, each file's in a folder, a data set's commit."""
    path = Path(data).expanduser()
    if not data:
        return None
    if not path.exists() and is_data_name(data):
        return identity(data, revision, kind="dataset")
    files = find(data, revision)
    return {file.name: sha256_of(file) for file in files} if path.is_dir() else sha256_of(files[0])


def read(files: Sequence[Path]) -> Iterator[Row]:
    """Every row of ``files`` as a chat, in order.

    From the first faulty row on nothing more is yielded; the rest is only checked, and the end raises UserError with
    the first faults, their lines, and how many rows are wrong in all. Raises it at once for a file that is none.
    """
    faults: list[str] = []
    num_rows = num_wrong = 0
    for file in files:
        before = num_rows
        for where, value in _rows(file):
            num_rows += 1
            try:
                row = _row(value, where)
            except _Fault as fault:
                num_wrong += 1
                faults += [f"{where}: {fault}"] if len(faults) < SHOWN_FAULTS else []
                continue
            if not num_wrong:
                yield row
        if num_rows == before:
            raise UserError(f"{file} holds no chats: it is empty", next_step="Write one chat a line; see docs/data.md.")
    if num_wrong:
        raise _wrong(faults, num_wrong, num_rows)


def _wrong(faults: Sequence[str], num_wrong: int, num_rows: int) -> UserError:
    rows = "1 row is no chat" if num_wrong == 1 else f"{num_wrong} rows are no chats"
    more = [f"and {num_wrong - len(faults)} more"] if num_wrong > len(faults) else []
    return UserError(
        f"{rows}, of {num_rows}",
        where="\n        ".join([*faults, *more]),
        next_step='Write {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}, '
        "or prompt and completion, or prompt, chosen and rejected; docs/data.md shows each.",
    )


# --- files ------------------------------------------------------------------------------------------------------------


def _in_folder(folder: Path) -> list[Path]:
    """A folder's own files, by name; what lies deeper may be another split."""
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.suffix in SUFFIXES and entry.is_file())
        deeper = sorted({str(entry.parent) for entry in folder.glob("*/*") if entry.suffix in SUFFIXES})
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror or error}") from None
    if not files:
        raise UserError(
            f"{folder} holds no {', '.join(SUFFIXES)} files",
            next_step=f"Name one of its folders: {', '.join(deeper[:5])}" if deeper else "Check the path.",
        )
    return files


def _of_known_format(file: Path) -> Path:
    if not file.exists():
        near = [entry.name for entry in file.parent.glob("*") if entry.suffix in SUFFIXES]
        hint = nearest(file.name, near) if near else "a file, a folder of files, or a data set of the hub as org/name"
        raise UserError(f"there is no data file {file}", next_step=f"{hint[:1].upper()}{hint[1:]}")
    if file.suffix not in SUFFIXES:
        raise UserError(
            f"{file} is no data file: its name ends neither in {' nor in '.join(SUFFIXES)}",
            next_step="Rename it if it is one of these, else convert it.",
        )
    return file


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Every row with its place; a row that cannot be read is a ``_Fault``."""
    try:
        if file.suffix == ".parquet":
            for number, row in enumerate(_table(file), 1):
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
                yield number, _parsed(line)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8").lstrip("\ufeff"), object_pairs_hook=_object)
    except _Fault as fault:
        return fault
    except UnicodeDecodeError as error:
        return _Fault(f"not UTF-8: byte {line[error.start]:#x} at {error.start}; save the file as UTF-8")
    except json.JSONDecodeError as error:
        return _Fault(f"not JSON: {error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:
        return _Fault(f"not JSON: {'nested too deep' if isinstance(error, RecursionError) else error}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises _Fault for a key that is there twice: JSON readers disagree about which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Fault(f'the key "{twice}" is there twice; expected once')
    return found


def _items(file: Path) -> Iterator[tuple[int, Any]]:
    """Rows of one JSON list, each parsed when enough of the file has been read. What breaks the list ends it."""
    with file.open(encoding="utf-8-sig", newline="") as handle:
        tape = _Tape(handle)
        try:
            tape.take("[")
            while not tape.ends_with("]"):
                yield tape.line, tape.value()
        except _Fault as fault:
            yield tape.line, fault
        except UnicodeDecodeError:
            yield tape.line, _Fault("not UTF-8; save the file as UTF-8")


class _Tape:
    """The text of a JSON list, read a piece at a time; ``line`` is where reading stands."""

    def __init__(self, handle: TextIO) -> None:
        self._handle, self._text, self._at, self.line = handle, "", 0, 1
        self._decoder = json.JSONDecoder(object_pairs_hook=_object)
        self._is_first = True

    def take(self, mark: str) -> None:
        """Pass over one expected character. Raises _Fault when another stands there."""
        if (found := self._next()) != mark:
            raise _Fault(f"not JSON: expected {mark}, found {found or 'the end of the file'}")
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
        """The next value, whole. Raises _Fault when even the whole rest of the file does not hold one."""
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
            except ValueError as error:
                if self._more():
                    continue
                raise _Fault(f"not JSON: {getattr(error, 'msg', error)}") from None
            except RecursionError:
                raise _Fault("not JSON: nested too deep") from None
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


def _table(file: Path) -> Iterator[Any]:
    """Rows of a parquet file, a few at a time, only the columns that count; empty fields are left out."""
    pyarrow, parquet = _pyarrow(file)
    try:
        with parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if not {"messages", "completion", "chosen"} & set(names):
                raise UserError(f"{file} is no table of chats: {_found_keys(names)}; {_EXPECTED_KEYS}")
            columns = [name for name in names if name in COLUMNS]
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


# --- rows -------------------------------------------------------------------------------------------------------------

_EXPECTED_KEYS = "expected messages, or prompt and completion, or chosen and rejected"


def _row(value: Any, where: str) -> Row:
    if isinstance(value, _Fault):
        raise value
    if not isinstance(value, dict):
        raise _Fault(f"found {_kind(value)}; expected an object with messages, or prompt and completion")
    given, said = _parts(value)
    messages = [_message(number, message) for number, message in enumerate([*given, *said], 1)]
    if not any(message["role"] == "assistant" for message in messages[len(given) :]):
        raise _Fault("nothing to learn: the assistant says nothing; expected a message with its role")
    return Row(messages, where, len(given), _tools(value.get("tools")))


def _parts(row: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Messages that are given, and those that are said: only these are learned. ``messages`` has only the second."""
    has = {key for key in COLUMNS if row.get(key) is not None}
    if "messages" in has:
        return [], _turns("messages", row["messages"])
    if {"prompt", "completion"} <= has:
        return _turns("prompt", row["prompt"], "user"), _turns("completion", row["completion"], "assistant")
    if "chosen" not in has:
        raise _Fault(f"{_found_keys(row)}; {_EXPECTED_KEYS}")
    chosen = _turns("chosen", row["chosen"], "assistant")
    begins = chosen[0].get("role") if isinstance(chosen[0], dict) else None
    if begins != "assistant":  # a whole conversation, its prompt included
        shared = _shared(chosen, row.get("rejected"))
        return chosen[:shared], chosen[shared:]
    if "prompt" not in has:
        raise _Fault('"chosen" begins with the assistant; expected a prompt, or the whole conversation')
    return _turns("prompt", row["prompt"], "user"), chosen


def _shared(chosen: list[Any], rejected: Any) -> int:
    """How many messages of a whole conversation are its prompt: what was rejected has them too."""
    others = rejected if isinstance(rejected, list) else []
    pairs = zip(chosen, others, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), 0)


def _turns(key: str, value: Any, speaker: str = "") -> list[Any]:
    """A list of messages; a string is one by ``speaker``."""
    if isinstance(value, str) and speaker:
        return [{"role": speaker, "content": value}]
    if isinstance(value, list) and value:
        return value
    found = "an empty list" if value == [] else _kind(value)
    raise _Fault(f'"{key}" is {found}; expected {"a string or " if speaker else ""}a list of messages')


def _message(number: int, message: Any) -> Message:
    """One message, as a template wants it: role, content, and whatever else it holds that is not null."""
    if not isinstance(message, dict):
        raise _Fault(f"message {number} is {_kind(message)}; expected an object with role and content")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        found = f"the role {role!r}" if "role" in message else f"no role ({_found_keys(message)})"
        raise _Fault(f"message {number} has {found}; expected {', '.join(ROLES[:-1])} or {ROLES[-1]}")
    calls = role == "assistant" and message.get("tool_calls")
    if not isinstance(content, str) and not (content is None and calls):
        raise _Fault(f"message {number} ({role}) has {_kind(content)} as content; expected a string")
    if role == "assistant" and not calls and not (content or "").strip():
        raise _Fault(f"message {number}: the assistant's text is empty; expected what it is to learn")
    rest = {key: value for key, value in message.items() if value is not None and value != []}
    _refuse_odd(number, rest)
    return {**rest, "content": content}


def _refuse_odd(number: int, message: Message) -> None:
    """Raises _Fault for what a program left behind: a number that is none, half a character."""
    pending: list[Any] = [message]
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list):
            pending.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise _Fault(f"message {number} holds {_kind(value)}; expected a number or null")
        elif isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
            raise _Fault(f"message {number} holds half a character (a lone surrogate); expected whole ones")


def _tools(value: Any) -> list[Any] | None:
    """The functions that can be called: a list, or a list written as JSON text, as tables hold it."""
    if isinstance(value, str) and value.strip():
        parsed = _parsed(value.encode("utf-8", "replace"))
        value = parsed if isinstance(parsed, list) else value
    if value is None or value in ("", []):
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise _Fault(f'"tools" is {_kind(value)}; expected a list of function descriptions')
    return value


def _kind(value: Any) -> str:
    """A value's kind in words."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "an infinite number"
    words = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return "null" if value is None else words.get(type(value), "an object")


def _found_keys(keys: Any) -> str:
    shown = ", ".join(str(key) for key in list(keys)[:8])
    return f"found the keys {shown}" if shown else "found no keys"
