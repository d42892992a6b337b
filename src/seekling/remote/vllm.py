"""vLLM's HTTP server: token ids in, token ids and log-probabilities out, and the weights that it speaks with.

What moves weights (pause, reload, sleep) is there under VLLM_SERVER_DEV_MODE=1, asks for no key, and loads whatever
folder it is told: such a server belongs on the loopback, or where only its trainer can reach it.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from seekling.errors import UserError
from seekling.remote.wire import Advice, Again, Patience, Unavailable, Wire, shown

IMPOSSIBLE = -9998.0
"""vLLM writes -9999 for the log-probability of a token that could not be drawn."""
MOST_BYTES = 2**28
MOST_KEPT = 128
"""Likeliest tokens that are asked for beside each sampled one, at most."""
_DTYPE = re.compile(r"dtype=(?:torch\.)?(\w+)")

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer to be sampled: ``tokens`` are the prompt's ids, ``most`` the longest answer, the stop included."""

    tokens: tuple[int, ...]
    seed: int
    most: int


@dataclass(frozen=True, slots=True)
class How:
    """How the next token is drawn. ``tell`` likeliest tokens are told beside each sampled one: 0 for none."""

    stops: tuple[int, ...]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    tell: int = 0


@dataclass(frozen=True, slots=True)
class Spoken:
    """An answer: ``logps`` as vLLM tells them, one a token, and which tokens each was drawn from, where that was asked.

    ``stopped``: the last token is a stop; else it met its limit.
    """

    tokens: tuple[int, ...]
    logps: tuple[float, ...]
    stopped: bool
    kept: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class About:
    """What a server says of itself. ``context`` counts tokens; ``dtype`` is "" where it does not tell."""

    model: str
    context: int
    version: str
    dtype: str


class Server:
    """A vLLM server. ``at_once`` bounds the requests under way, whoever's threads they come from."""

    def __init__(
        self, url: str, *, key: str = "", at_once: int = 64,
        patience: Patience | None = None, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.patience = patience or Patience(timeout_s=600.0)
        self._wire = Wire(url, f"vLLM at {url}", key=key, advice=_ADVICE, patience=self.patience, sleep=sleep)
        self._pool = ThreadPoolExecutor(at_once, "vllm")
        self._model = ""

    @property
    def called(self) -> str:
        """How letters name it."""
        return self._wire.called

    def close(self) -> None:
        """Drop what waits, and close the connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._wire.close()

    # --- what it is ---

    def is_healthy(self) -> bool:
        """Whether it answers now. Never raises for a server that is down."""
        try:
            self._wire.ask("/health", read=bytes, patience=Patience(5.0, 1))
        except Unavailable:
            return False
        return True

    def about(self) -> About:
        """What it serves. Raises UserError where that is not one model, or weights cannot be handed to it."""
        listed = self._wire.ask("/v1/models", read=_table)
        version = self._wire.ask("/version", read=_table)
        told = self._wire.ask("/server_info", read=_table)  # not there without VLLM_SERVER_DEV_MODE=1
        models = [one for one in listed.get("data", ()) if isinstance(one, dict) and not one.get("parent")]
        if len(models) != 1 or not isinstance(models[0].get("max_model_len"), int):
            names = ", ".join(str(one.get("id")) for one in models) or "none"
            raise self._unfit(f"it should serve one model, and serves {names}")
        self._model = str(models[0]["id"])
        dtype = _DTYPE.search(str(told.get("vllm_config", "")))
        return About(
            self._model, models[0]["max_model_len"], str(version.get("version", "")), dtype[1] if dtype else ""
        )

    def world_size(self) -> int:
        """How many workers hold its weights, one a GPU."""
        told = self._wire.ask("/get_world_size", read=_table).get("world_size")
        if not isinstance(told, int) or told < 1:
            raise self._unfit(f"it says that {told} workers hold its weights")
        return told

    # --- what it says ---

    def generate(self, asked: Sequence[Asked], how: How) -> list[Spoken]:
        """One answer for each, in order. Raises what ``Wire.ask`` does, and UserError for answers that cannot be."""
        return self._each(lambda one: self._generate(one, how), asked)

    def score(self, texts: Iterable[Sequence[int]]) -> list[tuple[float, ...]]:
        """Log-probabilities of each text's tokens after its first, at temperature 1: [T-1] each, in order."""
        return self._each(self._score, texts)

    def _each(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        futures = [self._pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            self._abort()
            raise

    def _abort(self) -> None:
        """Let what is under way end now, or nobody could leave before it is done."""
        try:
            self._wire.ask("/abort_requests", {}, read=bytes, patience=Patience(5.0, 1))
        except UserError:
            return

    def _generate(self, asked: Asked, how: How) -> Spoken:
        body = {
            "model": self._model, "prompt": list(asked.tokens), "seed": asked.seed, "max_tokens": asked.most,
            "temperature": how.temperature, "top_p": how.top_p, "top_k": how.top_k, "min_p": how.min_p,
            "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
            "ignore_eos": True, "stop_token_ids": list(how.stops), "logprobs": how.tell,
            "return_token_ids": True, "return_tokens_as_token_ids": True,
        }  # fmt: skip
        choice = self._wire.ask("/v1/completions", body, read=_choice, most_bytes=MOST_BYTES)
        if choice.get("finish_reason") not in ("stop", "length"):  # not asked again: whoever ended it meant to
            raise Unavailable(f"{self.called} ended an answer as {choice.get('finish_reason')!r}")
        try:
            spoken = _spoken(choice, how)
        except (TypeError, KeyError, ValueError, AttributeError):
            raise self._unfit("its answers come without token ids or log-probabilities") from None
        if fault := _fault(choice, spoken, asked, how):
            raise self._unfit(fault)
        return spoken

    def _score(self, tokens: Sequence[int]) -> tuple[float, ...]:
        body = {
            "model": self._model, "prompt": list(tokens), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0,
        }  # fmt: skip
        told = self._wire.ask("/v1/completions", body, read=_choice, most_bytes=MOST_BYTES).get("prompt_logprobs")
        try:
            pairs = zip(tokens, told or (), strict=True)
            return tuple(float(place[str(token)]["logprob"]) for token, place in list(pairs)[1:])
        except (TypeError, KeyError, ValueError):
            raise self._unfit("it does not tell the log-probabilities of a prompt") from None

    def _unfit(self, why: str) -> UserError:
        return UserError(
            f"{self.called} cannot be sampled from: {why}",
            next_step="docs/vllm.md says how it must be started, and which versions were tried.",
        )

    # --- the weights it speaks with ---

    def pause(self) -> None:
        """End what it is saying (none of it can be ours), and say nothing until ``resume``."""
        self._wire.ask("/pause?mode=abort", {}, read=bytes)

    def resume(self) -> None:
        """Speak again."""
        self._wire.ask("/resume", {}, read=bytes)

    def reload(self, folder: str) -> None:
        """Take the weights of a model folder that it can read, and forget all states that others left.

        Raises Unavailable with its own words where it cannot. That it says nothing is no proof: ask it afterwards.
        """
        once = replace(self.patience, tries=1)
        body = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
        self._wire.ask("/collective_rpc", body, read=bytes, patience=once)
        self.forget()

    def forget(self) -> None:
        """Forget the states that other weights left."""
        self._wire.ask("/reset_prefix_cache", {}, read=_success)

    def sleep(self) -> None:
        """Give back the memory of weights and cache; the weights are lost."""
        self._wire.ask("/sleep?level=2", {}, read=bytes)

    def wake(self, what: str) -> None:
        """Take memory again: "weights" (they must then be reloaded), then "kv_cache"."""
        self._wire.ask(f"/wake_up?tags={what}", {}, read=bytes)


_ADVICE = Advice(
    key="Set vllm.key_env to the variable that holds its key.",
    missing="Start it with VLLM_SERVER_DEV_MODE=1 in its environment, and name it as http://host:port.",
    request="It may serve another model, or a shorter context, than the stage samples from.",
)


def _table(content: bytes) -> dict[str, Any]:
    """A JSON object. Raises Again for anything else."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise Again(f"what it answers is cut short or no JSON: {shown(content)!r}")
    return told


def _choice(content: bytes) -> dict[str, Any]:
    told = _table(content).get("choices")
    if not isinstance(told, list) or len(told) != 1 or not isinstance(told[0], dict):
        raise Again(f"what it answers is no completion: {shown(content)!r}")
    return told[0]


def _success(content: bytes) -> None:
    """Raises Again where it could not forget: requests are still under way."""
    if content.strip() and _table(content).get("success") is False:
        raise Again("it could not reset its prefix cache")


def _spoken(choice: Mapping[str, Any], how: How) -> Spoken:
    """Raises TypeError, KeyError or ValueError for what is missing."""
    said = choice["logprobs"]
    tokens = tuple(map(int, choice["token_ids"]))
    logps = tuple(map(float, said["token_logprobs"]))
    kept = tuple(_kept(place) for place in said["top_logprobs"]) if how.tell else ()
    return Spoken(tokens, logps, bool(tokens) and tokens[-1] in how.stops, kept)


def _kept(place: Mapping[str, float]) -> tuple[int, ...]:
    """Ids, in order, of the tokens that could be drawn."""
    possible = (name for name, logp in place.items() if logp > IMPOSSIBLE)
    return tuple(sorted(int(name.removeprefix("token_id:")) for name in possible))


def _fault(choice: Mapping[str, Any], spoken: Spoken, asked: Asked, how: How) -> str:
    """What is wrong with an answer, or ""."""
    tokens, logps = spoken.tokens, spoken.logps
    if choice.get("prompt_token_ids") not in (None, list(asked.tokens)):
        return "it read another prompt than it was sent"
    if len(logps) != len(tokens) or (spoken.kept and len(spoken.kept) != len(tokens)):
        return f"it tells {len(logps)} log-probabilities of {len(tokens)} tokens"
    if not all(math.isfinite(logp) and IMPOSSIBLE < logp < 1e-3 for logp in logps):
        return "it tells log-probabilities that are none"
    if choice["finish_reason"] == "stop" and not spoken.stopped:
        return "it stopped where nothing told it to"
    if not spoken.stopped and len(tokens) != asked.most:
        return f"it said {len(tokens)} tokens of {asked.most} and calls that the limit"
    if any(token in how.stops for token in tokens[:-1]) or len(tokens) > asked.most:
        return "it went on after its stop"
    return ""
