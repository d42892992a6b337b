"""Batched generation from a live policy.

A request's tokens depend on its own prompt, seed and sampling, never on its company (beyond float rounding).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import torch

from seekling.engine.batch import Batch
from seekling.engine.config import Sampling
from seekling.engine.paged import Paged
from seekling.engine.requests import Completion, Finished, Inserted, Likeliest, Request, refuse_long
from seekling.engine.rules import Ban, Banned, Rule
from seekling.errors import UserError
from seekling.model.decoder import Decoder
from seekling.model.int8 import hold_int8
from seekling.model.lora import adapters

__all__ = [
    "Ban", "Banned", "Completion", "Engine", "Finished", "Inserted", "Likeliest", "Request", "Rule", "Session",
    "refuse_long",
]  # fmt: skip


class Engine:
    """Samples from a policy it shares with the learner: no copy, so their log-probabilities agree.

    With a ``dtype`` that the policy is not held in, it samples from what that rounds it to, a copy made anew with every
    ``load``: products are faster, and the two disagree by rounding, which a learner can correct. So it is with
    ``weights`` "int8" (model/int8.py), which are half as long to read.
    """

    def __init__(
        self, model: Decoder, stop_tokens: int | Collection[int], dtype: torch.dtype | None = None,
        weights: Literal["int8"] | None = None,
    ) -> None:  # fmt: skip
        self.stop_tokens = (stop_tokens,) if isinstance(stop_tokens, int) else tuple(stop_tokens)
        self.dtype, self.weights, self.model, self.num_loads = dtype, weights, model, 0
        self.load(model)

    def load(self, model: Decoder) -> None:
        """Sample from ``model`` from now on. One with adapters is sampled as it is held."""
        self.policy = model
        weight = model.embed_tokens.weight
        is_held_so = self.weights is None and self.dtype in (None, weight.dtype)
        if is_held_so or adapters(model):
            self.model = model
        elif self.model is model or self.model.config != model.config:
            self.model = Decoder(model.config)
            self.model.rotary_TR = model.rotary_TR
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Sample from what the policy's weights are now. Nothing to copy where they are shared."""
        self.num_loads += 1
        if self.model is self.policy:
            return
        there = dict(self.policy.named_parameters())
        for name, weight in self.model.named_parameters():
            if weight.dtype == torch.int8:
                continue
            held = self.dtype or there[name].dtype
            kept = torch.float32 if name.endswith("gate.weight") else held  # a rounded router sends elsewhere
            if (weight.dtype, weight.device) != (kept, there[name].device):
                weight.data = torch.empty_like(there[name], dtype=kept)
            weight.copy_(there[name])
        for ours, theirs in zip(self.model.routers(), self.policy.routers(), strict=True):
            bias_E = theirs.e_score_correction_bias
            ours.e_score_correction_bias = None if bias_E is None else bias_E.clone()
        if self.weights == "int8":
            hold_int8(self.model, self.policy)

    def rest(self) -> None:
        """Nothing is sampled for a while: what an engine of its own holds memory for may go."""

    def close(self) -> None:
        """Nothing is sampled any more."""

    def session(self, sampling: Sampling) -> Session:
        """Requests that come and go while others run. ``sampling`` is theirs who have none of their own."""
        return Session(self, self._batch(sampling))

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """One completion per request, in order. Raises UserError when one of them cannot be answered."""
        return list(_in_order(self.stream(requests, sampling), len(requests)))

    def stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """(index, completion) as they finish."""
        session = self._asked(requests, sampling)
        while session.busy():
            for index, said in session.advance():
                if isinstance(said, UserError):
                    raise said
                yield index, said

    def tokens(self, request: Request, sampling: Sampling) -> Iterator[int]:
        """The tokens of one request as they are sampled, the stop token included."""
        session = self._asked([request], sampling)
        told = 0
        while session.busy():
            finished = session.advance()
            said = finished[0][1] if finished else None
            if isinstance(said, UserError):
                raise said
            heard = session.said_by(0) if said is None else list(said.tokens)
            yield from heard[told:]
            told = max(told, len(heard))

    def _asked(self, requests: Sequence[Request], sampling: Sampling) -> Session:
        session = self.session(sampling)
        for request in requests:
            session.add(request)
        return session

    def _batch(self, sampling: Sampling) -> Batch:
        return Paged(self.model, sampling, self.stop_tokens)


class Session:
    """Requests that come and go while others run, over one cache: what one has read another need not read again.

    One thread at a time may ask and advance.
    """

    def __init__(self, engine: Engine, batch: Batch) -> None:
        self.engine, self.batch, self.loaded = engine, batch, engine.num_loads

    @torch.inference_mode()
    def add(self, request: Request) -> int:
        """Ask; the request's number. Raises UserError for one that cannot be answered, and harms no other."""
        return self.batch.add(request)

    @torch.inference_mode()
    def drop(self, number: int) -> None:
        """Its answer is not wanted any more. One that has finished, or never was, may be named."""
        self.batch.drop(number)

    def busy(self) -> bool:
        """Whether ``advance`` has anything to do or tell."""
        return self.batch.busy()

    def said_by(self, number: int) -> list[int]:
        """What a request that runs has said so far."""
        return self.batch.said_by(number)

    @torch.inference_mode()
    def advance(self) -> list[Finished]:
        """One step for all. Returns who finished with it: what they said, or why they could not.

        Whoever was under way while weights were loaded has failed: half an answer is of no model. Raises UserError for
        good when they are those of a model of another shape, precision or device.
        """
        if self.loaded != self.engine.num_loads:
            self.batch.swap(
                self.engine.model,
                UserError("the weights were replaced while this was being answered", next_step="Ask again."),
            )
            self.loaded = self.engine.num_loads
        return self.batch.advance()


def _in_order(finished: Iterator[tuple[int, Completion]], count: int) -> list[Completion]:
    slots: list[Completion | None] = [None] * count
    for index, completion in finished:
        slots[index] = completion
    return [completion for completion in slots if completion is not None]
