"""Requests to a server that may be down, slow, overloaded or wrong: asked with patience, within limits, never believed.

The key goes to the server and nowhere else: it stands in no error and no log, and a redirect is not followed with it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from seekling.errors import UserError

MOST_BYTES = 2**22
"""What is read of one answer, unless a caller expects more."""
MOST_WAIT_S = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """``timeout_s`` bounds a whole answer, ``tries`` counts attempts, ``wait_s`` is the first pause, doubled each."""

    timeout_s: float = 60.0
    tries: int = 4
    wait_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Advice:
    """What a person can do about a server that refuses: the key, the address or name (404), the request itself."""

    key: str = "Name the key's variable in key_env."
    missing: str = "Check the address."
    request: str = "Change what is asked."


class Unavailable(UserError):
    """No answer after all tries: down, slow, overloaded, or answering what is none. It may pass another time."""


class Again(Exception):
    """An attempt that failed in a way that may pass: in words, and how long the server asks to wait."""

    def __init__(self, said: str, wait_s: float = 0.0) -> None:
        super().__init__(said)
        self.wait_s = wait_s


class Wire:
    """One server's connections, shared by threads. ``called`` names it in letters; ``sleep`` waits between attempts."""

    def __init__(
        self, url: str, called: str, *, key: str = "", advice: Advice | None = None,
        patience: Patience | None = None, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.url, self.called = url.rstrip("/"), called
        self.patience, self.advice, self.sleep = patience or Patience(), advice or Advice(), sleep
        self._key = key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx2.Client(
            headers=headers, timeout=self.patience.timeout_s, limits=limits, trust_env=not is_here(url)
        )

    def ask(
        self, place: str, body: Any = None, *, read: Callable[[bytes], T],
        patience: Patience | None = None, most_bytes: int = MOST_BYTES,
    ) -> T:  # fmt: skip
        """``read`` of the answer to ``body`` (a POST; None: a GET) at ``place``; ``read`` raises Again for nonsense.

        Raises UserError at once for what a person must mend (key, address, request), Unavailable after the last try
        for everything else.
        """
        patience = patience or self.patience
        for attempt in range(patience.tries):
            try:
                return read(self._attempt(place, body, patience.timeout_s, most_bytes))
            except Again as again:
                last = again
            if attempt + 1 < patience.tries:
                self.sleep(min(MOST_WAIT_S, max(last.wait_s, patience.wait_s * 2**attempt)))
        raise Unavailable(
            f"{self.called} gives no answer: {last}",
            where=f"after {patience.tries} tries",
            next_step="See that the server runs and has room; then run the same command again.",
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _attempt(self, place: str, body: Any, timeout_s: float, most_bytes: int) -> bytes:
        deadline = time.monotonic() + timeout_s
        method, content = ("GET", None) if body is None else ("POST", body)
        try:
            with self._client.stream(method, self.url + place, json=content, timeout=timeout_s) as answer:
                told = _content(answer, deadline, timeout_s, most_bytes)
        except httpx2.TimeoutException:
            raise Again(f"nothing within {timeout_s:g} s") from None
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise UserError(f'"{self.url}" is no address: {error}', next_step="Write it as http://host:8000") from None
        except httpx2.TransportError as error:
            raise Again(self._safe(f"{type(error).__name__}: {error}")) from None
        if answer.status_code != 200:
            raise self._refusal(answer, told)
        return told

    def _refusal(self, answer: httpx2.Response, content: bytes) -> Exception:
        """A status other than 200, as what it means for whoever asked."""
        status, words = answer.status_code, self._safe(shown(content))
        if status in (408, 409, 425, 429) or status >= 500:
            return Again(f"status {status} {words}".strip(), _retry_after(answer))
        how, advice = {
            401: ("refuses the key", self.advice.key),
            403: ("refuses the key", self.advice.key),
            404: ("was not found", self.advice.missing),
        }.get(status, ("refuses the request", self.advice.request))
        return UserError(f"{self.called} {how} (status {status}) {words}".strip(), next_step=advice)

    def _safe(self, words: str) -> str:
        return words.replace(self._key, "[key]") if self._key else words


def is_here(url: str) -> bool:
    """Whether an address is this machine's own, which no proxy could reach."""
    with suppress(ValueError):
        return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    return False


def key_in(variable: str, url: str) -> str:
    """The key in an environment variable, "" for no variable. Raises UserError where it is not set or can be no key."""
    key = os.environ.get(variable, "").strip() if variable else ""
    if variable and not key:
        raise UserError(
            f"the environment has no {variable}, which should hold the key for {url}",
            next_step=f"Run: export {variable}=...",
        )
    if not key.isascii() or not key.isprintable():
        raise UserError(f"{variable} holds what no key can: it is not plain ASCII")
    return key


def shown(content: bytes) -> str:
    """The first words of a body, for a person: an error's message where it is one."""
    text = content.decode("utf-8", "replace")
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        text = str(json.loads(text)["error"]["message"])
    return " ".join(text.split())[:200]


def _content(answer: httpx2.Response, deadline: float, timeout_s: float, most_bytes: int) -> bytes:
    """The body, whole, in time and of a size: a server that drips or floods is as good as silent."""
    content = bytearray()
    for piece in answer.iter_bytes():
        content += piece
        if time.monotonic() > deadline:
            raise Again(f"it was not done within {timeout_s:g} s")
        if len(content) > most_bytes:
            raise Again("its answer is far too long")
    return bytes(content)


def _retry_after(answer: httpx2.Response) -> float:
    try:
        return max(0.0, float(answer.headers.get("retry-after", "0")))
    except ValueError:  # a date: the usual pause will do
        return 0.0
