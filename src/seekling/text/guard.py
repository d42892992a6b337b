"""Look-alikes of control tokens in what people write: marked before a template sees them, so that none is parsed.

A mark is a private-use character that occurs nowhere in the conversation. It is put between the characters of a
look-alike, passes through the template with them, and is taken out when the text is encoded, as plain text. So
whether a control token in the rendered text is the template's own can be seen from the text.

Where a template itself writes a part of a control token (``"["`` before what a tool is called), a content could
complete it; then contents that begin or end like the rest of one are marked at that edge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from typing import Any

from seekling.errors import UserError

MARKS = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))
"""Code points that no standard gives a meaning."""

SPOKEN = frozenset({"content", "reasoning_content", "reasoning", "thinking"})
"""The fields of an assistant's message in which it may say reasoning tags."""


class Guard:
    """Marks the look-alikes of ``control`` (strings of two characters or more) in conversations.

    What an assistant says may hold those in ``tags``. ``literals`` is the template's own text.
    """

    def __init__(self, control: Collection[str], tags: Collection[str], literals: Collection[str] = ()) -> None:
        self._all = _pattern(control)
        self._for_assistant = _pattern([token for token in control if token not in tags])
        self._rest = _Rest(control) if _writes_parts(literals, control) else None
        self._literals = literals

    def mark(self, chat: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """``chat`` with its look-alikes marked, and the mark: "" where there are none.

        Marked is everything in its ``messages`` but the roles, and in ``tools``, ``documents`` and ``variables``.
        Lone surrogates, which are not text, become U+FFFD.
        """
        texts = list(texts_of(chat))
        joined = "\0".join(texts)
        if valid_text(joined) is not joined:
            return self.mark(_mapped(chat, valid_text, valid_text))
        if not self._all.search(joined) and not (self._rest and any(map(self._rest.touches, texts))):
            return dict(chat), ""
        mark = free_marks([*texts, *self._literals], 1)[0]
        messages = [self._message(message, mark) for message in chat["messages"]]
        variables = {name: self._marked(value, mark) for name, value in chat["variables"].items()}
        others = {name: self._marked(chat[name], mark) for name in ("tools", "documents")}
        return {**chat, "messages": messages, "variables": variables, **others}, mark

    def _message(self, message: Mapping[str, Any], mark: str) -> dict[str, Any]:
        says = message["role"] == "assistant"
        return {
            key: value if key == "role" else self._marked(value, mark, spoken=says and key in SPOKEN)
            for key, value in message.items()
        }

    def _marked(self, value: Any, mark: str, *, spoken: bool = False) -> Any:
        """A text with its look-alikes marked, or a structure with all its texts and keys."""
        pattern = self._for_assistant if spoken else self._all

        def key(text: str) -> str:
            return pattern.sub(lambda found: mark.join(found[0]) + mark, text)

        def change(text: str) -> str:
            if self._rest and self._rest.touches(text):
                core = text.strip()
                text = text.replace(core, f"{mark}{core}{mark}", 1)
            return key(text)

        return _mapped(value, change, key)


def free_marks(texts: Collection[str], count: int) -> list[str]:
    """Private-use characters that occur in none of ``texts``."""
    taken = set(chain.from_iterable(texts))
    free = (chr(point) for point in MARKS if chr(point) not in taken)
    found = [mark for mark, _ in zip(free, range(count), strict=False)]
    if len(found) < count:
        raise UserError("a conversation uses every private character there is", next_step="Leave it out.")
    return found


class _Rest:
    """What completes a control token that a template began, or begins one that it completes."""

    def __init__(self, control: Collection[str]) -> None:
        self._starts = {token[:end] for token in control for end in range(1, len(token))}
        self._ends = {token[start:] for token in control for start in range(1, len(token))}
        self._all = "\0".join(control)
        self._longest = max(map(len, control), default=0)

    def touches(self, text: str) -> bool:
        """Whether ``text``, outer whitespace aside, begins, ends or stands whole like a part of a control token."""
        core = text.strip()
        lengths = range(1, min(len(core), self._longest) + 1)
        return bool(core) and (
            any(core[:length] in self._ends or core[-length:] in self._starts for length in lengths)
            or (len(core) <= self._longest and core in self._all)
        )


def _pattern(control: Collection[str]) -> re.Pattern[str]:
    longest_first = sorted(control, key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _writes_parts(literals: Collection[str], control: Collection[str]) -> bool:
    """Whether a template's text ends like the beginning of a control token, or begins like the end of one."""
    starts = tuple({token[:end] for token in control for end in range(1, len(token))})
    ends = tuple({token[start:] for token in control for start in range(1, len(token))})
    return any(text.endswith(starts) or text.startswith(ends) for text in literals if text not in control)


def texts_of(value: Any) -> Iterator[str]:
    """Every string in a structure of JSON, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from texts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)


def _mapped(value: Any, change: Callable[[str], str], key: Callable[[str], str]) -> Any:
    """``value`` with every string in it changed, and every key by a rule of its own."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(item, change, key) for item in value]
    if isinstance(value, Mapping):
        return {key(name): _mapped(item, change, key) for name, item in value.items()}
    return value


def valid_text(text: str) -> str:
    """``text`` itself, or with lone surrogates as U+FFFD when it could not be written as UTF-8."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
