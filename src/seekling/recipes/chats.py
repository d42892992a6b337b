"""The user's own chats: rows of JSONL, JSON or parquet, here or on the hub, checked line by line, as messages.

Three shapes of row: ``messages``; ``prompt`` and ``completion``; ``chosen`` and ``rejected``, of which fine-tuning
reads the first, and stages that learn preferences read both (``read_pairs``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from seekling.errors import UserError
from seekling.remote.rows import Unread, parsed, rows_of

ROLES = ("system", "user", "assistant", "tool")
COLUMNS = ("messages", "prompt", "completion", "chosen", "rejected", "tools", "margin")
"""What is read of a row; everything else in it is passed over."""

DATA = "data.jsonl"
"""The chats that a stage gathered, in its folder."""

SHOWN_FAULTS = 5

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


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replies to one prompt, of which the first was preferred; by how much, where its row says so."""

    chosen: Row
    rejected: Row
    margin: float = 0.0


R = TypeVar("R", Row, Pair)

_SURROGATE = re.compile("[\ud800-\udfff]")


class _Fault(Exception):
    """What is wrong with one row: what was found, what is expected."""


def read(files: Sequence[Path]) -> Iterator[Row]:
    """Every row of ``files`` as a chat, in order.

    From the first faulty row on nothing more is yielded; the rest is only checked, and the end raises UserError with
    the first faults, their lines, and how many rows are wrong in all. Raises it at once for a file that is none.
    """
    return _read(files, _row, _CHATS)


def read_pairs(files: Sequence[Path]) -> Iterator[Pair]:
    """Every row of ``files`` as a pair of replies, like ``read``."""
    return _read(files, _pair, _PAIRS)


@dataclass(frozen=True, slots=True)
class _Sort:
    """What rows are meant to be, in words."""

    one: str
    columns: tuple[str, ...]
    expected: str
    advice: str


_CHATS = _Sort(
    "chat",
    ("messages", "completion", "chosen"),
    "expected messages, or prompt and completion, or chosen and rejected",
    'Write {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}, '
    "or prompt and completion, or prompt, chosen and rejected; docs/data.md shows each.",
)
_PAIRS = _Sort(
    "pair",
    ("chosen",),
    "expected prompt, chosen and rejected",
    'Write {"prompt": "...", "chosen": "...", "rejected": "..."}, each a string or messages; docs/preference.md.',
)


def _read(files: Sequence[Path], make: Callable[[Any, str], R], sort: _Sort) -> Iterator[R]:
    faults: list[str] = []
    num_rows = num_wrong = 0
    for file in files:
        before = num_rows
        for where, value in rows_of(file, partial(_columns, sort)):
            num_rows += 1
            try:
                row = make(value, where)
            except _Fault as fault:
                num_wrong += 1
                faults += [f"{where}: {fault}"] if len(faults) < SHOWN_FAULTS else []
                continue
            if not num_wrong:
                yield row
        if num_rows == before:
            raise UserError(
                f"{file} holds no {sort.one}s: it is empty", next_step=f"Write one {sort.one} a line; see docs/data.md."
            )
    if num_wrong:
        raise _wrong(faults, num_wrong, num_rows, sort)


def _wrong(faults: Sequence[str], num_wrong: int, num_rows: int, sort: _Sort) -> UserError:
    rows = f"1 row is no {sort.one}" if num_wrong == 1 else f"{num_wrong} rows are no {sort.one}s"
    more = [f"and {num_wrong - len(faults)} more"] if num_wrong > len(faults) else []
    return UserError(
        f"{rows}, of {num_rows}",
        where="\n        ".join([*faults, *more]),
        next_step=sort.advice,
    )


def _columns(sort: _Sort, file: Path, names: Sequence[str]) -> list[str]:
    """Which columns of a table are read. Raises UserError for a table of something else."""
    if not set(sort.columns) & set(names):
        raise UserError(f"{file} is no table of {sort.one}s: {_found_keys(names)}; {sort.expected}")
    return [name for name in names if name in COLUMNS]


def _row(value: Any, where: str) -> Row:
    given, said = _parts(_object(value, "messages, or prompt and completion"))
    return _conversation(given, said, value, where)


def _pair(value: Any, where: str) -> Pair:
    given, *replies = _replies(_object(value, "prompt, chosen and rejected"))
    if replies[0] == replies[1]:
        raise _Fault("chosen and rejected are the same; expected two different replies")
    rows = []
    for name, said in zip(("chosen", "rejected"), replies, strict=True):
        try:
            rows.append(_conversation(given, said, value, where))
        except _Fault as fault:
            raise _Fault(f"{name}: {fault}") from None
    return Pair(rows[0], rows[1], _margin(value.get("margin")))


def _object(value: Any, keys: str) -> dict[str, Any]:
    if isinstance(value, Unread):
        raise _Fault(value.said)
    if not isinstance(value, dict):
        raise _Fault(f"found {_kind(value)}; expected an object with {keys}")
    return value


def _conversation(given: list[Any], said: list[Any], row: Mapping[str, Any], where: str) -> Row:
    messages = [_message(number, message) for number, message in enumerate([*given, *said], 1)]
    if not any(message["role"] == "assistant" for message in messages[len(given) :]):
        raise _Fault("nothing to learn: the assistant says nothing; expected a message with its role")
    return Row(messages, where, len(given), _tools(row.get("tools")))


def _replies(row: Mapping[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """What two replies answer, and each of them. Whole conversations answer what they share at their front."""
    if any(row.get(key) is None for key in ("chosen", "rejected")):
        raise _Fault(f"{_found_keys(key for key in row if row[key] is not None)}; {_PAIRS.expected}")
    chosen, rejected = (_turns(key, row[key], "assistant") for key in ("chosen", "rejected"))
    whole = [not isinstance(turns[0], dict) or turns[0].get("role") != "assistant" for turns in (chosen, rejected)]
    if all(whole):
        shared = next((n for n, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
        shared = min(len(chosen), len(rejected)) if shared is None else shared
        if not shared:
            raise _Fault("chosen and rejected begin differently; expected one prompt in front of both")
        return chosen[:shared], chosen[shared:], rejected[shared:]
    if any(whole):
        raise _Fault("one of chosen and rejected holds the prompt and the other does not; expected both or neither")
    if row.get("prompt") is None:
        raise _Fault('"chosen" begins with the assistant; expected a prompt, or the whole conversation')
    return _turns("prompt", row["prompt"], "user"), chosen, rejected


def _margin(value: Any) -> float:
    """By how much a reply was preferred; a row that does not say asks for no margin."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Fault(f'"margin" is {_kind(value)}; expected a finite number')
    return float(value)


def _parts(row: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Messages that are given, and those that are said: only these are learned. ``messages`` has only the second."""
    has = {key for key in COLUMNS if row.get(key) is not None}
    if "messages" in has:
        return [], _turns("messages", row["messages"])
    if {"prompt", "completion"} <= has:
        return _turns("prompt", row["prompt"], "user"), _turns("completion", row["completion"], "assistant")
    if "chosen" not in has:
        raise _Fault(f"{_found_keys(row)}; {_CHATS.expected}")
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
        told = parsed(value.encode("utf-8", "replace"))
        value = told if isinstance(told, list) else value
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
