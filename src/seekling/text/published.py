"""Conversations under any published chat template: laid out by a worker, encoded with exact loss masks.

A rendered text without look-alikes is encoded whole, as transformers does it. One with look-alikes is cut at the
control tokens that the template wrote, and what stands between them is encoded as plain text. The same is done
where a token would reach across the beginning of what the assistant says: its prompt ends there, and so must a
token.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any, Literal

from tokenizers import Encoding

from seekling.errors import UserError
from seekling.text.template import bad_template
from seekling.text.tokenizer import TAGS, Tokenizer
from seekling.text.turns import Laid
from seekling.workers.worker import Worker, WorkerLost

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
"""Who may speak. A role is written into control tokens by templates, so it is never the user's choice."""

Want = Literal["text", "prompt", "chat", "turns"]
Kind = Literal["start", "after", "inner"]

CPU_S = 2.0
"""Processor seconds that a template may take for one request before its process is killed."""
WALL_S = 20.0
MEMORY_BYTES = 2**29
REQUEST_CHATS, REQUEST_CHARS = 128, 2**18
"""A request to the worker holds at most so many conversations, and ends after so many characters."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation with what it needs besides messages: tools and documents as templates expect them.

    ``variables`` reach the template by their names (``enable_thinking``). ``opened`` opens an assistant's turn at
    the end.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    opened: bool = False


def lay_out(tokenizer: Tokenizer, chats: Sequence[Chat], want: Want) -> Iterator[list[list[Laid]]]:
    """Conversations as the tokenizer's template lays them out, a handful at a time: see ``turns.serve``.

    While one handful is worked on, the next is laid out. Raises UserError for messages that are none, and for a
    template that is broken, endless or reaches for what it must not touch; a conversation is named by its number,
    from 1.
    """
    handfuls = list(_handfuls(tokenizer, chats))
    with ThreadPoolExecutor(1) as ahead:
        asked = [ahead.submit(_asked, tokenizer, *handful, want) for handful in handfuls[:1]]
        for handful in [*handfuls[1:], None]:
            asked += [ahead.submit(_asked, tokenizer, *handful, want)] if handful else []
            yield from (future.result() for future in asked[:1])
            asked = asked[1:]


def encode_laid(tokenizer: Tokenizer, laid: Sequence[Laid]) -> list[tuple[list[int], list[bool]]]:
    """Ids [T] and mask [T] of laid out texts: True on the tokens of what is said."""
    encoded: list[tuple[list[int], list[bool]] | None] = [None] * len(laid)
    whole = [place for place, one in enumerate(laid) if not one.mark or one.mark not in one.text]
    if tokenizer.twins.exact:
        encodings = tokenizer.twins.whole.encode_batch([laid[place].text for place in whole], add_special_tokens=False)
        for place, encoding in zip(whole, encodings, strict=True):
            mask = _mask(encoding, laid[place])
            encoded[place] = None if mask is None else (encoding.ids, mask)
    rest = [place for place, one in enumerate(encoded) if one is None]
    for place, pieced in zip(rest, _encode_in_spans(tokenizer, [laid[place] for place in rest]), strict=True):
        encoded[place] = pieced
    return [one for one in encoded if one is not None]


def _asked(tokenizer: Tokenizer, template: str, first: int, chats: Sequence[Chat], want: Want) -> list[list[Laid]]:
    names = tuple(tokenizer.names.items())
    spelled = map(tokenizer.twins.whole.id_to_token, tokenizer.stops)
    stops = tuple(stop for stop in spelled if stop in tokenizer.control)
    worker = _worker(template, tokenizer.control, stops, names)
    rows = [_row(chat) for chat in chats]
    try:
        reply = worker.ask({"want": want, "chats": rows, "first": first}, WALL_S)
    except WorkerLost as lost:
        raise bad_template(lost.where) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"a conversation holds what is no JSON: {error}"[:300], where="messages") from None
    return [[Laid(text, said, mark) for text, said, mark in texts] for texts in reply]


@lru_cache(maxsize=8)
def _worker(
    template: str, control: tuple[str, ...], stops: tuple[str, ...], names: tuple[tuple[str, str], ...]
) -> Worker:
    tags = [tag for tag in TAGS.values() if tag in control]
    setup = {"template": template, "control": control, "tags": tags, "stops": stops, "names": dict(names)}
    return Worker("seekling.text.turns:serve", setup, memory_bytes=MEMORY_BYTES, cpu_s=CPU_S)


def _template(tokenizer: Tokenizer, has_tools: bool) -> str:
    template = tokenizer.tool_template if has_tools and tokenizer.tool_template else tokenizer.template
    if template is None:
        raise UserError(
            "this tokenizer has no chat template",
            next_step="Put a chat_template.jinja beside its tokenizer.json, or use the model's instruct version.",
        )
    return template


def _handfuls(tokenizer: Tokenizer, chats: Sequence[Chat]) -> Iterator[tuple[str, int, list[Chat]]]:
    """Conversations that one request asks for: their template, the number of the first, and they themselves."""
    taken: list[Chat] = []
    chars = 0
    for number, chat in enumerate(chats, 1):
        _check(chat, number)
        taken.append(chat)
        chars += sum(len(str(message.get("content"))) for message in chat.messages)
        template = _template(tokenizer, bool(chat.tools))
        is_last = number == len(chats) or template != _template(tokenizer, bool(chats[number].tools))
        if is_last or len(taken) == REQUEST_CHATS or chars > REQUEST_CHARS:
            yield template, number - len(taken) + 1, taken
            taken, chars = [], 0


def _check(chat: Chat, number: int) -> None:
    for place, message in enumerate(chat.messages, 1):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            raise UserError(
                f"message {place}: role {role!r} is none of {', '.join(ROLES)}", where=f"conversation {number}"
            )
        content = message.get("content")
        if not (content is None or isinstance(content, str | list)) or isinstance(content, bool):
            raise UserError(f"message {place}: its content is not text", where=f"conversation {number}")


def _row(chat: Chat) -> dict[str, Any]:
    return {
        "messages": [dict(message) for message in chat.messages],
        "tools": chat.tools,
        "documents": chat.documents,
        "variables": dict(chat.variables),
        "open": chat.opened,
    }


def _mask(encoding: Encoding, laid: Laid) -> list[bool] | None:
    """True on the tokens that begin within what is said. None when one reaches across the beginning of it."""
    mask = [False] * len(encoding)
    for start, end in laid.said:
        first, behind = _token_from(encoding, laid, start), _token_from(encoding, laid, end)
        if first and _chars(encoding, first - 1)[1] > start:
            return None
        mask[first:behind] = [True] * (behind - first)
    return mask


def _token_from(encoding: Encoding, laid: Laid, char: int) -> int:
    """The first token that begins at a character or behind it."""
    if char >= len(laid.text):
        return len(encoding)
    found = encoding.char_to_token(char)
    if found is None:  # a character that no token stands for
        return bisect_left([start for start, _ in encoding.offsets], char)
    return found + (_chars(encoding, found)[0] < char)


def _chars(encoding: Encoding, token: int) -> tuple[int, int]:
    """The characters that a token stands for; those of a text taken whole are always known."""
    return encoding.token_to_chars(token) or (0, 0)


@dataclass(frozen=True, slots=True)
class _Span:
    """A stretch between control tokens (or one of them: ``token``), of the text numbered ``home``."""

    home: int
    text: str
    token: int
    is_said: bool
    kind: Kind


def _encode_in_spans(tokenizer: Tokenizer, laid: Sequence[Laid]) -> list[tuple[list[int], list[bool]]]:
    """Cut at control tokens and where speech begins or ends; encode what lies between as plain text."""
    twins = tokenizer.twins
    found = twins.splitter.encode_batch([one.text for one in laid], add_special_tokens=False)
    cut = (_spans(home, one, splits, twins.found) for home, (one, splits) in enumerate(zip(laid, found, strict=True)))
    spans = list(chain.from_iterable(cut))
    ids: dict[int, list[int]] = {}
    for kind, twin in (("start", twins.plain), ("after", twins.after), ("inner", twins.inner)):
        own = [place for place, span in enumerate(spans) if span.kind == kind and span.token < 0]
        ids |= dict(zip(own, twin.encode_batch([spans[place].text for place in own]), strict=True))
    made: list[tuple[list[int], list[bool]]] = [([], []) for _ in laid]
    for place, span in enumerate(spans):
        tokens = [span.token] if span.token >= 0 else ids[place]
        made[span.home][0].extend(tokens)
        made[span.home][1].extend([span.is_said] * len(tokens))
    return made


def _spans(home: int, laid: Laid, splits: Encoding, found: Sequence[int]) -> Iterator[_Span]:
    edges = sorted({edge for said in laid.said for edge in said})
    for number, (begin, end) in zip(splits.ids, splits.offsets, strict=True):
        token = found[number]
        inside = [edge for edge in edges if begin < edge < end] if token < 0 else []
        for start, stop in pairwise([begin, *inside, end]):
            kind: Kind = "start" if not start else "after" if start == begin else "inner"
            text = laid.text[start:stop].replace(laid.mark, "") if laid.mark else laid.text[start:stop]
            yield _Span(home, text, token, any(a <= start < b for a, b in laid.said), kind)
