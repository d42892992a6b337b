"""Conversations as texts to learn from, with the ranges that the assistant says: strings only, in a worker's child.

A turn is learned exactly as it would be generated. Its prompt is the conversation before it with the generation
prompt, and what is said is all the template writes after that, up to and with the token that ends the turn. When
every turn continues its prompt, and the conversation continues every turn, it is one text. A template that edits
what was said before (it cuts old thinking out), or opens thinking in the generation prompt, gives each turn a text
of its own. Where a template marks what is said itself (``{% generation %}``), its marks count and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from seekling.errors import UserError
from seekling.text.guard import Guard, free_marks, texts_of
from seekling.text.template import Template, bad_template

OPEN, CLOSE = "<think>", "</think>"
_OPENED = re.compile(rf"{OPEN}(\s*)\Z")
_REASONING = ("reasoning_content", "thinking", "reasoning")

Message = Mapping[str, Any]
Render = Callable[[int, bool], str]
"""From how many of the messages, and whether to open an assistant's turn behind them, to text."""


class Laid(NamedTuple):
    """A rendered text, the ranges of its characters that are learned, and the mark inside its look-alikes."""

    text: str
    said: list[tuple[int, int]]
    mark: str


def serve(setup: Mapping[str, Any]) -> Callable[[Any], Any]:
    """What a worker calls with a template and its tokenizer's ``control`` strings, ``tags``, ``stops`` and ``names``.

    A request is ``{"want": "text" | "prompt" | "chat" | "turns", "chats": [...], "first": number}``. Of each chat it
    answers a list of ``Laid``. "text" is not guarded: what it makes is for people, never for a model.
    """

    @cache
    def compiled() -> tuple[Template, Guard]:
        """By the first request, within its limits: jinja works constants out when it compiles."""
        template = Template(setup["template"])
        return template, Guard(setup["control"], setup["tags"], template.literals)

    def answer(request: Mapping[str, Any]) -> list[list[Laid]]:
        template, guard = compiled()
        laid = []
        for number, chat in enumerate(request["chats"], request["first"]):
            try:
                laid.append(_lay_out(template, guard, setup, chat, request["want"]))
            except UserError as error:
                where = f"conversation {number}" + (f": {error.where}" if error.where else "")
                raise UserError(error.what, where=where, next_step=error.next_step) from None
        return laid

    return answer


def _lay_out(template: Template, guard: Guard, setup: Mapping[str, Any], chat: Any, want: str) -> list[Laid]:
    chat, mark = (chat, "") if want == "text" else guard.mark(chat)
    messages = [_as_told(message) for message in chat["messages"]]

    @cache
    def render(count: int, opened: bool) -> str:
        return template.render(_variables(setup, chat, messages[:count], opened), mark)

    if want in ("text", "prompt"):
        return [Laid(render(len(messages), chat["open"]), [], mark)]
    if template.marks_speech:
        opening, closing = free_marks([mark, *template.literals, *texts_of(chat)], 2)
        variables = _variables(setup, chat, messages, chat["open"])
        return [Laid(*template.render_marked(variables, opening, closing, mark), mark)]
    one = one_text(render, messages, setup["stops"], opened=chat["open"])
    if one is not None:
        return [Laid(*one, mark)]
    if want == "chat":
        raise UserError(
            "this chat template edits what the assistant said before, so the conversation is no single text",
            next_step="Use encode_turns: one text for each of the assistant's turns, each with its own context.",
        )
    return [Laid(*text, mark) for text in turn_texts(render, messages, setup["stops"], setup["control"])]


def one_text(
    render: Render, messages: Sequence[Message], stops: Sequence[str], *, opened: bool
) -> tuple[str, list[tuple[int, int]]] | None:
    """The conversation and the ranges that the assistant says. None when a turn does not continue its prompt."""
    whole = render(len(messages), opened)
    said = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, through = render(place, True), render(place + 1, False)
        if not (through.startswith(prompt) and whole.startswith(through)):
            return None
        end = _end(through, len(prompt), stops)
        if not _keeps_thought(message, through[len(prompt) : end]):
            return None
        _refuse_loss(message, through[len(prompt) : end], place)
        said.append((len(prompt), end))
    return whole, said


def turn_texts(
    render: Render, messages: Sequence[Message], stops: Sequence[str], control: Sequence[str]
) -> list[tuple[str, list[tuple[int, int]]]]:
    """One text per turn of the assistant: its prompt, and what is said, to its end."""
    texts = []
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = render(place, True)
            said = _said_after(prompt, render(place + 1, False), message, stops, control)
            _refuse_loss(message, said, place)
            text = prompt + said
            texts.append((text, [(len(prompt), len(text))]))
    return texts


def _said_after(prompt: str, through: str, message: Message, stops: Sequence[str], control: Sequence[str]) -> str:
    """What the assistant says after a prompt, where the template may write the two otherwise once it is said.

    It may cut the thinking out, which the prompt opened or the assistant did: then the thinking is the message's
    own, and where there is none, the thought is closed at once. Or it may move what stands earlier (a system message
    that it keeps with the last question): then what is said begins behind the same control token.
    """
    opened = _OPENED.search(prompt)
    before = prompt if through.startswith(prompt) or not opened else prompt[: opened.start()]
    if through.startswith(before):
        start = len(before)
    else:
        start = _where_said(before, through, message) or _behind_tail(before, through, control)
    written = through[start : _end(through, start, stops)]
    if before == prompt and _keeps_thought(message, written):
        return written
    if prompt.rstrip().endswith(CLOSE):
        raise UserError(
            "the chat template closes the thought before the assistant's turn, and the assistant thinks",
            next_step="Turn thinking on by the template's variable (enable_thinking, thinking), or leave it out.",
        )
    gap = opened[1] if opened else ""
    if opened and written.startswith(OPEN):
        return _after_opening(written, gap)
    content = str(message.get("content") or "")
    written = written.removeprefix(CLOSE)
    kept = next((form for form in _forms(content.rpartition(CLOSE)[2]) if written.startswith(form)), None)
    if kept is None:
        raise bad_template("it changes what the assistant says")
    rest = written[len(kept) :]
    if CLOSE in content:
        return (_after_opening(content, gap) if opened else content) + rest
    reasoning = str(message.get("reasoning_content") or "")
    closed = f"{reasoning.strip(chr(10))}\n{CLOSE}\n\n" if gap else f"{reasoning}{CLOSE}"
    return closed + kept + rest


def _keeps_thought(message: Message, written: str) -> bool:
    """Whether what a template writes holds the thinking that a message's content holds."""
    content = message.get("content")
    thought = content.rpartition(CLOSE)[0] if isinstance(content, str) else ""
    return thought.strip().removeprefix(OPEN).strip() in written


def _refuse_loss(message: Message, said: str, place: int) -> None:
    """Raise UserError when a template silently leaves out a part of what the assistant says: none would learn it."""
    content = message.get("content")
    answer = content.rpartition(CLOSE)[2].strip() if isinstance(content, str) else ""
    reasoning = str(message.get("reasoning_content") or "").strip()
    calls = [call.get("function", call) for call in message.get("tool_calls") or [] if isinstance(call, Mapping)]
    names = [str(call.get("name", "")) for call in calls if isinstance(call, Mapping)]
    parts = [("what the assistant says", answer), ("its reasoning", reasoning), *(("a tool call", n) for n in names)]
    lost = [part for part, text in parts if text not in said]
    if lost:
        raise UserError(
            f"the chat template leaves out {lost[0]} in message {place + 1}",
            next_step="Write it into the content (reasoning within <think> and </think>), or take another template.",
        )


def _where_said(before: str, through: str, message: Message) -> int:
    """Where ``through`` parts from ``before``, if it goes on there with what the assistant says, and else 0.

    So the prompt may end with more than the template keeps: a line break too many, a thought that is closed already.
    """
    pairs = enumerate(zip(before, through, strict=False))
    parted = next((place for place, (one, other) in pairs if one != other), min(len(before), len(through)))
    content = message.get("content")
    says = isinstance(content, str) and any(form and through.startswith(form, parted) for form in _forms(content))
    return parted if says else 0


def _forms(text: str) -> tuple[str, str, str]:
    """A text as templates may write it: with its outer blanks, or without."""
    return text, text.lstrip(), text.strip()


def _behind_tail(before: str, through: str, control: Sequence[str]) -> int:
    """Where, in ``through``, the turn begins that ``before`` opens: behind its last control token and what follows."""
    found = max((before.rfind(token) for token in control), default=-1)
    tail = before[found:]
    place = through.rfind(tail) if found >= 0 else -1
    if place < 0:
        raise bad_template("it lays out an assistant's turn otherwise than its generation prompt begins it")
    return place + len(tail)


def _after_opening(text: str, gap: str) -> str:
    """``text`` without the opening tag that the prompt ends with, and without the blanks that follow it there."""
    bare = text.lstrip()
    return bare.removeprefix(OPEN).removeprefix(gap) if bare.startswith(OPEN) else text


def _end(text: str, start: int, stops: Sequence[str]) -> int:
    """Where the token ends that ends a turn: the last stop after ``start``."""
    found = max(((text.rfind(stop, start), len(stop)) for stop in stops), default=(-1, 0))
    if found[0] < 0:
        raise UserError(
            "the chat template does not end an assistant's turn with a token that stops the model",
            where=f"stops: {', '.join(stops)}",
            next_step="Name the token that ends a turn under eos_token_id in generation_config.json.",
        )
    return sum(found)


def _variables(setup: Mapping[str, Any], chat: Mapping[str, Any], messages: Any, opened: bool) -> dict[str, Any]:
    given = {"messages": messages, "tools": chat["tools"], "documents": chat["documents"]}
    return {**setup["names"], **chat["variables"], **given, "add_generation_prompt": opened}


def _as_told(message: Message) -> dict[str, Any]:
    """A message as templates expect it: no empty fields, and reasoning under each of its names.

    transformers drops a content of null as well, though DeepSeek's template asks ``content is none`` before it writes
    an assistant's tool calls: there the calls are missed, and ``_refuse_loss`` says so.
    """
    told = {key: value for key, value in message.items() if value is not None}
    reasoning = next((told[key] for key in _REASONING if key in told), None)
    return told if reasoning is None else {"thinking": reasoning, **told, "reasoning_content": reasoning}
