"""A chat model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seekling.remote.config import Asked
from seekling.remote.wire import Advice, Again, Patience, Wire, key_in, shown

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked, and how patiently (see ``Patience``). ``url`` ends where ``/chat/completions`` begins."""

    url: str
    model: str
    key_env: str = ""
    timeout_s: float = 60.0
    tries: int = 4
    wait_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and the tokens it took as the endpoint counts them (0 where it does not).

    ``thinking`` is what the endpoint tells apart from the text (``reasoning_content``); ``is_cut``: it met its limit.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    thinking: str = ""
    is_cut: bool = False


class Chat:
    """One endpoint's connections, shared by threads. ``sleep`` is what waits between attempts."""

    def __init__(self, endpoint: Endpoint, sleep: Callable[[float], None] = time.sleep) -> None:
        self.endpoint = endpoint
        self._wire = Wire(
            endpoint.url, f'"{endpoint.model}" at {endpoint.url}', key=key_in(endpoint.key_env, endpoint.url),
            advice=_advice(endpoint), patience=Patience(endpoint.timeout_s, endpoint.tries, endpoint.wait_s),
            sleep=sleep,
        )  # fmt: skip

    def say(self, messages: Sequence[Message], **how: Any) -> Said:
        """The model's answer to ``messages``; ``how`` joins the request (temperature, max_tokens, seed).

        Raises what ``Wire.ask`` does.
        """
        body = {"model": self.endpoint.model, "messages": list(messages)} | how
        return self._wire.ask("/chat/completions", body, read=_said)

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()


def chat_with(asked: Asked) -> Chat:
    """Connections to the model that settings name. Raises UserError when its key is missing."""
    return Chat(Endpoint(asked.url, asked.model, asked.key_env, asked.timeout_s, asked.tries))


def _advice(endpoint: Endpoint) -> Advice:
    variable = endpoint.key_env
    return Advice(
        f"Set {variable} to a key that it takes." if variable else "Name the key's variable in key_env.",
        "Check the model's name, and that the address ends where /chat/completions begins.",
        "Change what is asked: its settings, or the model.",
    )


def _said(content: bytes) -> Said:
    try:
        told = json.loads(content)
        choice, usage = told["choices"][0], told.get("usage") or {}
        message = choice["message"]
        text, thinking = message.get("content"), message.get("reasoning_content") or message.get("reasoning") or ""
        num_in, num_out = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise Again(f"what it answers is no chat completion: {shown(content)!r}") from None
    if text is None and thinking:  # it thought until it met its limit
        text = ""
    if not isinstance(text, str) or not isinstance(thinking, str):
        raise Again("it answers without a text")
    return Said(_whole(text), num_in, num_out, _whole(thinking), choice.get("finish_reason") == "length")


def _whole(text: str) -> str:
    """``text`` with half characters (lone surrogates), which no file can hold, replaced."""
    return text.encode("utf-8", "replace").decode()
