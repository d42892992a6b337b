"""Batched generation from a live policy.

A request's tokens depend on its own prompt, seed and sampling, never on its company (beyond float rounding).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import torch

from seekling.engine.batch import Ban, Batch, Completion, Request
from seekling.engine.config import Sampling
from seekling.engine.paged import Paged
from seekling.errors import UserError
from seekling.model.decoder import Decoder
from seekling.model.int8 import hold_int8
from seekling.model.lora import adapters

__all__ = ["Ban", "Completion", "Engine", "Request", "refuse_long"]


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
        self.dtype, self.weights, self.model = dtype, weights, model
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
        """Sample from what the policy's weights are now. Nothing to do where they are shared."""
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

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """One completion per request, in order. Raises UserError when a prompt leaves no room for an answer."""
        return list(_in_order(self.stream(requests, sampling), len(requests)))

    @torch.inference_mode()
    def stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """(index, completion) as they finish."""
        batch = self._batch(requests, sampling)
        while batch.busy():
            batch.admit()
            yield from batch.step()

    @torch.inference_mode()
    def tokens(self, request: Request, sampling: Sampling) -> Iterator[int]:
        """The tokens of one request as they are sampled, the stop token included."""
        batch = self._batch([request], sampling)
        said = 0
        while batch.busy():
            batch.admit()
            finished = batch.step()
            if finished or batch.said[0] > said:
                yield finished[0][1].tokens[said] if finished else int(batch.out_tokens[0, said])
                said += 1

    def _batch(self, requests: Sequence[Request], sampling: Sampling) -> Batch:
        refuse_long(requests, self.model.config.max_position_embeddings)
        return Paged(self.model, requests, sampling, self.stop_tokens)


def refuse_long(requests: Sequence[Request], limit: int) -> None:
    """Raises UserError when a prompt leaves no room for an answer within ``limit`` tokens."""
    for request in requests:
        if not 0 < len(request.prompt) < limit:
            raise UserError(
                f"a prompt of {len(request.prompt)} tokens does not fit the model's context of {limit}",
                next_step="Shorten the problem, or use a model with a longer context.",
            )


def _in_order(finished: Iterator[tuple[int, Completion]], count: int) -> list[Completion]:
    slots: list[Completion | None] = [None] * count
    for index, completion in finished:
        slots[index] = completion
    return [completion for completion in slots if completion is not None]
