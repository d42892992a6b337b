"""Sampling from a model of transformers: its own cache, our draws.

Its caches hold rows of one length, so requests come in waves: prompts padded in front, answers in step, and no one
enters before all have left. Draws depend on (seed, position) alone, as everywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.engine.batch import Batch
from seekling.engine.config import Sampling
from seekling.engine.engine import Engine, Request, refuse_long
from seekling.model.decoder import Decoder
from seekling.model.foreign import Foreign, Reading


def engine_for(
    model: Decoder | Foreign, stop_tokens: int | Collection[int], dtype: torch.dtype | None = None
) -> Engine:
    """The engine that can sample from ``model``, ours in ``dtype``, a foreign model as it is held."""
    return ForeignEngine(model, stop_tokens) if isinstance(model, Foreign) else Engine(model, stop_tokens, dtype)


class ForeignEngine(Engine):
    """``Engine`` for a model of transformers: same requests, same draws, same completions, without routes."""

    model: Foreign  # type: ignore[assignment]

    def __init__(self, model: Foreign, stop_tokens: int | Collection[int]) -> None:
        super().__init__(model, stop_tokens)  # type: ignore[arg-type]

    def _batch(self, requests: Sequence[Request], sampling: Sampling) -> _Waves:
        refuse_long(requests, self.model.config.max_position_embeddings)
        return _Waves(self.model, requests, sampling, self.stop_tokens)


class _Waves(Batch):
    """The slots of the running wave."""

    model: Foreign  # type: ignore[assignment]
    reading: Reading

    def __init__(
        self, model: Foreign, requests: Sequence[Request], sampling: Sampling, stop_tokens: Sequence[int]
    ) -> None:
        super().__init__(model, requests, sampling, stop_tokens)  # type: ignore[arg-type]
        self.waiting = deque(sorted(self.waiting, key=lambda r: (len(requests[r].prompt), requests[r].prompt)))

    def admit(self) -> None:
        """Begin the next wave when all have left the last."""
        if not (self.owner >= 0).any():
            taken = self._wave()
            self._enter(np.arange(len(taken)), taken)

    def _wave(self) -> list[int]:
        """Requests from the shortest prompt up whose rows, padding included, stay within the context to the end."""
        rows = min(self.sampling.max_rows, len(self.waiting))
        limit, shortest = self.model.config.max_position_embeddings, len(self.requests[self.waiting[0]].prompt)
        answer = min(self.sampling.max_tokens, limit - shortest)
        taken: list[int] = []
        while len(taken) < rows:
            length = len(self.requests[self.waiting[0]].prompt)
            if length != shortest and (not self.model.pads or length + answer > limit):
                break
            taken.append(self.waiting.popleft())
        return taken

    def _enter(self, slots: NDArray[np.int64], taken: Sequence[int]) -> None:
        asked, count = [self.requests[request] for request in taken], len(taken)
        row = {prompt: place for place, prompt in enumerate(dict.fromkeys(request.prompt for request in asked))}
        self.reading, states_PV = self.model.begin(*self._padded(list(row)))
        sources = torch.tensor([row[request.prompt] for request in asked], device=self.device)
        self.model.select(self.reading, sources)
        self.states_BD = states_PV.index_select(0, sources)
        self.owner, self.said = np.array(taken), np.zeros(count, np.int64)
        self.seeds = np.array([request.seed for request in asked], np.uint64)
        self.lengths = np.array([len(request.prompt) for request in asked])
        self.out_tokens = np.zeros((count, self.sampling.max_tokens), np.int64)
        self.out_logps = np.zeros((count, self.sampling.max_tokens), np.float32)

    def _padded(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, prompts))
        tokens, mask = (torch.zeros(len(prompts), width, dtype=torch.long) for _ in range(2))
        for row, prompt in enumerate(prompts):
            tokens[row, width - len(prompt) :], mask[row, width - len(prompt) :] = torch.tensor(prompt), 1
        return tokens.to(self.device), mask.to(self.device)

    def _decode(self, tokens_B: NDArray[np.int64]) -> None:
        running = np.flatnonzero(self.owner >= 0)
        if 2 * len(running) <= len(self.owner):  # rows that left idle harmlessly until they are half
            self._close_gaps(running)
            tokens_B = tokens_B[running]
        seen_B = torch.from_numpy(self.owner >= 0).to(self.device)
        self.states_BD = self.model.go_on(self.reading, torch.from_numpy(tokens_B).to(self.device), seen_B)
        self.lengths = self.lengths + 1

    def _close_gaps(self, slots: NDArray[np.int64]) -> None:
        self.model.select(self.reading, torch.from_numpy(slots).to(self.device))
        super()._close_gaps(slots)
