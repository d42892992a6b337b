"""A chat model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    """An answer, and the tokens it took as the endpoint counts them (0 where it does not)."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


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


def _advice(endpoint: Endpoint) -> Advice:
    variable = endpoint.key_env
    return Advice(
        f"Set {variable} to a key that it takes." if variable else "Name the key's variable in key_env.",
        "Check the model's name, and that the address ends where /chat/completions begins.",
        "Change what is asked: the settings of the judge, or the model.",
    )


def _said(content: bytes) -> Said:
    try:
        told = json.loads(content)
        text = told["choices"][0]["message"]["content"]
        usage = told.get("usage") or {}
        spent = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise Again(f"what it answers is no chat completion: {shown(content)!r}") from None
    if not isinstance(text, str):
        raise Again("it answers without a text")
    return Said(text, *spent)
