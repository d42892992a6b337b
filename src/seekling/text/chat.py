"""Chat messages to ids with an exact loss mask, and back.

A template never sees what a message says. It is rendered with a placeholder for each content, and the
contents are put in afterwards, each encoded by the rights of who said it: what a user or the system says is
never parsed for control tokens, an assistant may say the four reasoning tags, and only the template's own
text makes control tokens. What is rendered hence depends on the roles alone, and is rendered once for each
pattern of roles.

The price: a template that edits contents (strips them, cuts old thinking out) edits a placeholder instead.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from seekling.errors import UserError
from seekling.text.tokenizer import CONTROL, TEMPLATE, Tokenizer

Message = Mapping[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``."""

Speaker = Literal["template", "system", "user", "assistant"]

RENDER_CPU_S = 2
"""CPU seconds a foreign template may take before it is killed."""
RENDER_WALL_S = 20.0
RENDER_BYTES = 2**29
RENDER_CHARS = 2**20

_FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What a wrong template can raise besides jinja's own errors."""

_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a conversation and who said it."""

    text: str
    speaker: Speaker


def render(
    messages: Sequence[Message], template: str = TEMPLATE, *, add_generation_prompt: bool = False
) -> list[Segment]:
    """The conversation as ``template`` lays it out, in segments.

    ``add_generation_prompt`` opens an assistant's turn at the end.

    Raises UserError for messages that are none, and for a template that is broken, endless or reaches for
    what it must not touch.
    """
    _check(messages)
    layout = _layout(template, tuple(message["role"] for message in messages), add_generation_prompt)
    return [Segment(p, "template") if isinstance(p, str) else _segment(messages[p]) for p in layout]


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], *, add_generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """Ids [T] and loss mask [T] of one conversation.

    The mask is True exactly on what the assistant says and on the end-of-sentence token after it. Raises
    UserError when the template does not put that token right after an assistant's content.
    """
    return encode_chats(tokenizer, [messages], add_generation_prompt=add_generation_prompt)[0]


def encode_chats(
    tokenizer: Tokenizer, chats: Sequence[Sequence[Message]], *, add_generation_prompt: bool = False
) -> list[tuple[list[int], list[bool]]]:
    """``encode_chat`` of many conversations at once; the tokenizer works on all of them in parallel."""
    rendered = [render(chat, tokenizer.template, add_generation_prompt=add_generation_prompt) for chat in chats]
    ids = iter(_encode_segments(tokenizer, list(chain.from_iterable(rendered))))
    return [_stitched(tokenizer, [(segment, next(ids)) for segment in segments]) for segments in rendered]


def parse_chat(tokenizer: Tokenizer, ids: Sequence[int]) -> list[dict[str, str]]:
    """The messages of ids laid out by the shipped template: ``encode_chat``'s inverse.

    A last assistant's turn without its end is a message as far as it goes, and none when it is empty (a
    generation prompt). Raises UserError for ids of another layout.
    """
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
    messages = [{"role": "user", "content": problem_prompt}]
    return encode_chat(tokenizer, messages, add_generation_prompt=True)[0]


def _segment(message: Message) -> Segment:
    role: Speaker = message["role"]  # type: ignore[assignment]  # checked by _check
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
def _layout(template: str, roles: tuple[str, ...], add_generation_prompt: bool) -> tuple[str | int, ...]:
    """The template's own text and, between it, the numbers of the messages whose contents stand there."""
    if "\ue000" in template:
        raise _bad_template("it contains the character U+E000, which marks contents here")
    request = {"template": template, "roles": roles, "add_generation_prompt": add_generation_prompt}
    text = _fill(request) if template == TEMPLATE else _fill_in_child(request)
    pieces = _PLACEHOLDER.split(text)
    parts = (int(piece) if odd % 2 else piece for odd, piece in enumerate(pieces))
    layout = tuple(part for part in parts if part != "")
    placed = [part for part in layout if isinstance(part, int)]
    if placed != list(range(len(roles))):
        raise _bad_template("it does not put every message in once and in order")
    return layout


def _fill(request: Mapping[str, object]) -> str:
    """Render with placeholders for contents. Raises UserError for anything the template does wrong."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise
    roles: Sequence[str] = request["roles"]  # type: ignore[assignment]
    try:
        return environment.from_string(str(request["template"])).render(
            messages=[{"role": role, "content": f"\ue000{i}\ue001"} for i, role in enumerate(roles)],
            add_generation_prompt=request["add_generation_prompt"],
            bos_token=CONTROL["bos"],
            eos_token=CONTROL["eos"],
        )
    except UserError:
        raise
    except (TemplateError, *_FAULTS) as error:
        raise _bad_template(f"{type(error).__name__}: {error}"[:300]) from None


def _fill_in_child(request: Mapping[str, object]) -> str:
    """``_fill`` in a process with limits on time and memory: a foreign template may never end."""
    limits = {"cpu_s": RENDER_CPU_S, "bytes": RENDER_BYTES, "chars": RENDER_CHARS}
    package_root = str(Path(__file__).resolve().parents[2])
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "seekling.text.chat"],
            input=json.dumps({**request, **limits}).encode(),
            capture_output=True,
            timeout=RENDER_WALL_S,
            env={**{k: v for k, v in os.environ.items() if k == "SYSTEMROOT"}, "PYTHONPATH": package_root},
            check=False,
        )
        reply = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):  # killed by us, or by a limit before it could speak
        raise _bad_template("it does not come to an end within its limits of time and memory") from None
    if "text" not in reply:
        raise _bad_template(reply["error"])
    return str(reply["text"])


def _answer_parent() -> None:
    """The child's whole life: limits, one request, one reply."""
    request = json.loads(sys.stdin.buffer.read())
    with suppress(ImportError, OSError, ValueError):  # without such limits, the parent's clock remains
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_s"], request["cpu_s"]))
        resource.setrlimit(resource.RLIMIT_AS, (request["bytes"], request["bytes"]))
    try:
        text = _fill(request)
        reply = {"text": text} if len(text) <= request["chars"] else {"error": "what it makes is far too long"}
    except UserError as error:
        reply = {"error": error.where or error.what}
    sys.stdout.write(json.dumps(reply))


def _raise(message: str) -> None:
    raise TemplateError(message)


def _bad_template(reason: str) -> UserError:
    return UserError("the chat template cannot be used", where=reason, next_step="Mend chat_template.jinja.")


def _no_stop() -> UserError:
    return _bad_template("it does not put the end-of-sentence token right after an assistant's content")


def _not_a_chat(reason: str) -> UserError:
    return UserError("these ids are no chat", where=reason, next_step="Give ids that encode_chat made.")


if __name__ == "__main__":
    _answer_parent()
