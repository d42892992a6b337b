"""A chat model behind an OpenAI-compatible endpoint: asked within limits, with patience, and never believed.

The key comes from an environment variable, goes to the endpoint and nowhere else: it stands in no error and no log, and
a redirect is not followed with it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2

from seekling.errors import UserError

MOST_BYTES = 2**22
"""What is read of one answer."""
MOST_WAIT_S = 60.0

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked, and how patiently.

    ``url`` ends where ``/chat/completions`` begins. ``timeout_s`` bounds a whole answer, ``tries`` counts attempts,
    and ``wait_s`` is the pause after the first, doubled after each.
    """

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


class Unavailable(UserError):
    """No answer after all tries: down, slow, overloaded, or answering what is none. It may pass another time."""


class _Again(Exception):
    """An attempt that failed in a way that may pass: in words, and how long the endpoint asks to wait."""

    def __init__(self, said: str, wait_s: float = 0.0) -> None:
        super().__init__(said)
        self.wait_s = wait_s


class Chat:
    """One endpoint's connections, shared by threads. ``sleep`` is what waits between attempts."""

    def __init__(self, endpoint: Endpoint, sleep: Callable[[float], None] = time.sleep) -> None:
        self.endpoint, self._sleep = endpoint, sleep
        self._key = _key(endpoint)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx2.Client(headers=headers, timeout=endpoint.timeout_s, limits=limits)

    def say(self, messages: Sequence[Message], **how: Any) -> Said:
        """The model's answer to ``messages``; ``how`` joins the request (temperature, max_tokens, seed).

        Raises UserError at once for what a person must mend (key, address, model, request), Unavailable after the last
        try for everything else.
        """
        body = {"model": self.endpoint.model, "messages": list(messages)} | how
        for attempt in range(self.endpoint.tries):
            try:
                return self._attempt(body)
            except _Again as again:
                last = again
            if attempt + 1 < self.endpoint.tries:
                self._sleep(min(MOST_WAIT_S, max(last.wait_s, self.endpoint.wait_s * 2**attempt)))
        raise Unavailable(
            f"{self._called} gives no answer: {last}",
            where=f"after {self.endpoint.tries} tries",
            next_step="See that the server runs and has room; then run the same command again.",
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def _called(self) -> str:
        return f'"{self.endpoint.model}" at {self.endpoint.url}'

    def _attempt(self, body: Mapping[str, Any]) -> Said:
        deadline = time.monotonic() + self.endpoint.timeout_s
        place = self.endpoint.url.rstrip("/") + "/chat/completions"
        try:
            with self._client.stream("POST", place, json=body) as answer:
                content = _content(answer, deadline, self.endpoint.timeout_s)
        except httpx2.TimeoutException:
            raise _Again(f"nothing within {self.endpoint.timeout_s:g} s") from None
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise UserError(
                f'"{self.endpoint.url}" is no address: {error}', next_step="Write it as http://host:8000/v1"
            ) from None
        except httpx2.TransportError as error:
            raise _Again(self._safe(f"{type(error).__name__}: {error}")) from None
        if answer.status_code != 200:
            raise self._refusal(answer, content)
        return _said(content)

    def _refusal(self, answer: httpx2.Response, content: bytes) -> Exception:
        """A status other than 200, as what it means for whoever asked."""
        status, words = answer.status_code, self._safe(_words(content))
        if status in (408, 409, 425, 429) or status >= 500:
            return _Again(f"status {status} {words}".strip(), _retry_after(answer))
        if status in (401, 403):
            variable = self.endpoint.key_env
            advice = f"Set {variable} to a key that it takes." if variable else "Name the key's variable in key_env."
            return UserError(f"{self._called} refuses the key (status {status}) {words}".strip(), next_step=advice)
        if status == 404:
            return UserError(
                f"{self._called} was not found (status 404) {words}".strip(),
                next_step="Check the model's name, and that the address ends where /chat/completions begins.",
            )
        return UserError(
            f"{self._called} refuses the request (status {status}) {words}".strip(),
            next_step="Change what is asked: the settings of the judge, or the model.",
        )

    def _safe(self, words: str) -> str:
        return words.replace(self._key, "[key]") if self._key else words


def _key(endpoint: Endpoint) -> str:
    """The key from the environment. Raises UserError when its variable is not set, or holds what no header can."""
    key = os.environ.get(endpoint.key_env, "").strip() if endpoint.key_env else ""
    if endpoint.key_env and not key:
        raise UserError(
            f"the environment has no {endpoint.key_env}, which should hold the key for {endpoint.url}",
            next_step=f"Run: export {endpoint.key_env}=...",
        )
    if not key.isascii() or not key.isprintable():
        raise UserError(f"{endpoint.key_env} holds what no key can: it is not plain ASCII")
    return key


def _content(answer: httpx2.Response, deadline: float, timeout_s: float) -> bytes:
    """The body, whole, in time and of a size: an endpoint that drips or floods is as good as silent."""
    content = bytearray()
    for piece in answer.iter_bytes():
        content += piece
        if time.monotonic() > deadline:
            raise _Again(f"it was not done within {timeout_s:g} s")
        if len(content) > MOST_BYTES:
            raise _Again("its answer is far too long")
    return bytes(content)


def _said(content: bytes) -> Said:
    try:
        told = json.loads(content)
        text = told["choices"][0]["message"]["content"]
        usage = told.get("usage") or {}
        spent = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise _Again(f"what it answers is no chat completion: {_words(content)!r}") from None
    if not isinstance(text, str):
        raise _Again("it answers without a text")
    return Said(text, *spent)


def _words(content: bytes) -> str:
    """The first words of a body, for a person: an error's message where it is one."""
    text = content.decode("utf-8", "replace")
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        text = str(json.loads(text)["error"]["message"])
    return " ".join(text.split())[:200]


def _retry_after(answer: httpx2.Response) -> float:
    try:
        return max(0.0, float(answer.headers.get("retry-after", "0")))
    except ValueError:  # a date: the usual pause will do
        return 0.0
