"""Chat messages to ids with an exact loss mask, and back.

The template shipped here never sees what a message says. It is rendered with a placeholder for each content, and
the contents are put in afterwards, each encoded by the rights of who said it: what a user or the system says is
never parsed for control tokens, an assistant may say the four reasoning tags, and only the template's own text makes
control tokens. What is rendered hence depends on the roles alone, and is rendered once for each pattern of roles.

Other templates may do anything with what a message says, so they get to see it (``published``): in a process that
can be killed, and with look-alikes of control tokens marked, so that the same holds there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any, Literal

from seekling.errors import UserError
from seekling.text.published import Chat as Chat
from seekling.text.published import Want, encode_laid, lay_out
from seekling.text.template import Template, bad_template
from seekling.text.tokenizer import CONTROL, TEMPLATE, Tokenizer

Message = Mapping[str, Any]
"""``{"role": "system" | "user" | "assistant", "content": text}``; other templates may know more roles and fields."""

Speaker = Literal["template", "system", "user", "assistant"]

Learned = tuple[list[int], list[bool]]
"""Ids [T] and loss mask [T]."""

_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a conversation and who said it."""

    text: str
    speaker: Speaker


def render(messages: Sequence[Message], *, add_generation_prompt: bool = False) -> list[Segment]:
    """The conversation as the template shipped here lays it out, in segments.

    ``add_generation_prompt`` opens an assistant's turn at the end. Raises UserError for messages that are none.
    """
    _check(messages)
    layout = _layout(tuple(message["role"] for message in messages), add_generation_prompt)
    return [Segment(p, "template") if isinstance(p, str) else _segment(messages[p]) for p in layout]


def render_text(
    tokenizer: Tokenizer, messages: Sequence[Message] | Chat, *, add_generation_prompt: bool = False
) -> str:
    """The conversation as the tokenizer's template lays it out: transformers' ``apply_chat_template`` as text.

    For people to read: ids come from the other functions here, which do not mistake what is said for control tokens.
    Raises UserError for messages that are none and for a template that does wrong.
    """
    chat = _chat(messages, add_generation_prompt)
    return next(iter(lay_out(tokenizer, [chat], "text")))[0][0].text


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message] | Chat, *, add_generation_prompt: bool = False
) -> Learned:
    """Ids [T] and loss mask [T] of one conversation.

    The mask is True exactly on what the assistant says and on the token that ends its turn. Raises UserError when
    the template does not end a turn so, and when it edits what was said before: then ``encode_turns`` helps.
    """
    return encode_chats(tokenizer, [messages], add_generation_prompt=add_generation_prompt)[0]


def encode_chats(
    tokenizer: Tokenizer, chats: Sequence[Sequence[Message] | Chat], *, add_generation_prompt: bool = False
) -> list[Learned]:
    """``encode_chat`` of many conversations at once; the tokenizer works on all of them in parallel."""
    if not tokenizer.is_shipped:
        asked = [_chat(chat, add_generation_prompt) for chat in chats]
        return _encoded(tokenizer, asked, "chat")
    rendered = [
        render(_messages(chat), add_generation_prompt=add_generation_prompt or _is_opened(chat)) for chat in chats
    ]
    ids = iter(_encode_segments(tokenizer, list(chain.from_iterable(rendered))))
    return [_stitched(tokenizer, [(segment, next(ids)) for segment in segments]) for segments in rendered]


def encode_turns(tokenizer: Tokenizer, messages: Sequence[Message] | Chat) -> list[Learned]:
    """Ids and loss masks of the texts that a conversation is learned from, under any template.

    They are one where every turn of the assistant continues the text before it. Where the template edits what was
    said before, or opens thinking in its generation prompt, they are one for each of the assistant's turns, each
    with the context in which it would be generated.
    """
    return encode_all_turns(tokenizer, [messages])[0]


def encode_all_turns(tokenizer: Tokenizer, chats: Sequence[Sequence[Message] | Chat]) -> list[list[Learned]]:
    """``encode_turns`` of many conversations at once."""
    if tokenizer.is_shipped:
        return [[learned] for learned in encode_chats(tokenizer, chats)]
    made: list[list[Learned]] = []
    for handful in lay_out(tokenizer, [_chat(chat, False) for chat in chats], "turns"):
        encoded = iter(encode_laid(tokenizer, list(chain.from_iterable(handful))))
        made += [[next(encoded) for _ in texts] for texts in handful]
    return made


def encode_prompts(tokenizer: Tokenizer, chats: Sequence[Sequence[Message] | Chat]) -> list[list[int]]:
    """Ids of conversations up to where the assistant's next token belongs."""
    if tokenizer.is_shipped:
        return [ids for ids, _ in encode_chats(tokenizer, chats, add_generation_prompt=True)]
    return [ids for ids, _ in _encoded(tokenizer, [_chat(chat, True) for chat in chats], "prompt")]


def parse_chat(tokenizer: Tokenizer, ids: Sequence[int]) -> list[dict[str, str]]:
    """The messages of ids laid out by the shipped template: ``encode_chat``'s inverse.

    A last assistant's turn without its end is a message as far as it goes, and none when it is empty (a
    generation prompt). Raises UserError for ids of another layout.
    """
    if not tokenizer.is_shipped:
        raise _not_a_chat("this tokenizer speaks another template")
    if not ids or ids[0] != tokenizer.bos:
        raise _not_a_chat("it does not begin with the beginning-of-sentence token")
    roles = {tokenizer.user: "user", tokenizer.assistant: "assistant"}
    turns: list[tuple[str, list[int]]] = [("system", [])]
    ended = False
    for token in ids[1:]:
        if token in roles:
            turns.append((roles[token], []))
        elif ended:
            raise _not_a_chat("text stands between an end of sentence and the next turn")
        elif token != tokenizer.eos:
            turns[-1][1].append(token)
        elif turns[-1][0] != "assistant":
            raise _not_a_chat(f"a turn of the {turns[-1][0]} ends with the end-of-sentence token")
        ended = token == tokenizer.eos
    if not turns[0][1]:  # no system text
        turns = turns[1:]
    if turns and turns[-1] == ("assistant", []) and not ended:  # a generation prompt
        turns.pop()
    return [{"role": role, "content": tokenizer.decode(content)} for role, content in turns]


def prompt_ids(tokenizer: Tokenizer, problem_prompt: str) -> list[int]:
    """Ids of a problem put to the assistant, up to where its first token belongs."""
    return encode_prompts(tokenizer, [[{"role": "user", "content": problem_prompt}]])[0]


def _encoded(tokenizer: Tokenizer, chats: Sequence[Chat], want: Want) -> list[Learned]:
    """Conversations of which each is one text, under a published template."""
    handfuls = lay_out(tokenizer, chats, want)
    return [*chain.from_iterable(encode_laid(tokenizer, [texts[0] for texts in handful]) for handful in handfuls)]


def _chat(chat: Sequence[Message] | Chat, opened: bool) -> Chat:
    if isinstance(chat, Chat):
        return replace(chat, opened=chat.opened or opened)
    return Chat(chat, opened=opened)


def _messages(chat: Sequence[Message] | Chat) -> Sequence[Message]:
    """The messages alone. The template shipped here knows neither tools nor variables, and must not drop them."""
    if not isinstance(chat, Chat):
        return chat
    if chat.tools or chat.documents or chat.variables:
        raise UserError("the template shipped here knows no tools, documents or variables", where="messages")
    return chat.messages


def _is_opened(chat: Sequence[Message] | Chat) -> bool:
    return isinstance(chat, Chat) and chat.opened


def _segment(message: Message) -> Segment:
    role: Speaker = message["role"]  # checked by _check
    return Segment(message["content"], role)


def _encode_segments(tokenizer: Tokenizer, segments: Sequence[Segment]) -> list[list[int]]:
    """The ids of each segment, encoded by the rights of its speaker."""
    ids: list[list[int]] = [[]] * len(segments)
    for speakers in (("template",), ("assistant",), ("system", "user")):
        own = [place for place, segment in enumerate(segments) if segment.speaker in speakers]
        encoded = tokenizer.encode_batch(
            [segments[place].text for place in own],
            special="template" in speakers,
            tags="assistant" in speakers,
        )
        for place, tokens in zip(own, encoded, strict=True):
            ids[place] = tokens
    return ids


def _stitched(tokenizer: Tokenizer, parts: Sequence[tuple[Segment, list[int]]]) -> tuple[list[int], list[bool]]:
    """Ids and mask of one conversation; the stop is the first id of what follows an assistant's content."""
    ids: list[int] = []
    mask: list[bool] = []
    was_said = False
    for segment, tokens in parts:
        if was_said and tokens[:1] != [tokenizer.eos]:
            raise _no_stop()
        is_said = segment.speaker == "assistant"
        ids += tokens
        mask += [is_said or (was_said and place == 0) for place in range(len(tokens))]
        was_said = is_said
    if was_said:
        raise _no_stop()
    return ids, mask


def _check(messages: Sequence[Message]) -> None:
    """Refuse what has no unambiguous layout. Raises UserError naming the message."""
    for place, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ("system", "user", "assistant"):
            fault = f"role {role!r} is none of system, user, assistant"
        elif not isinstance(content, str):
            fault = "its content is not text"
        elif role == "system" and (place or not content):
            fault = "a system message must stand first and not be empty"
        else:
            continue
        raise UserError(f"message {place + 1}: {fault}", where="messages")


@lru_cache(maxsize=4096)
def _layout(roles: tuple[str, ...], add_generation_prompt: bool) -> tuple[str | int, ...]:
    """The template's own text and, between it, the numbers of the messages whose contents stand there."""
    variables = {
        "messages": [{"role": role, "content": f"\ue000{i}\ue001"} for i, role in enumerate(roles)],
        "add_generation_prompt": add_generation_prompt,
        "bos_token": CONTROL["bos"],
        "eos_token": CONTROL["eos"],
    }
    pieces = _PLACEHOLDER.split(_shipped().render(variables))
    parts = (int(piece) if odd % 2 else piece for odd, piece in enumerate(pieces))
    return tuple(part for part in parts if part != "")


@lru_cache(maxsize=1)
def _shipped() -> Template:
    return Template(TEMPLATE)


def _no_stop() -> UserError:
    return bad_template("it does not put the end-of-sentence token right after an assistant's content")


def _not_a_chat(reason: str) -> UserError:
    return UserError("these ids are no chat", where=reason, next_step="Give ids that encode_chat made.")
