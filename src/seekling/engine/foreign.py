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
from seekling.engine.engine import Engine
from seekling.engine.requests import Row
from seekling.errors import UserError
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

    def _batch(self, sampling: Sampling) -> _Waves:
        return _Waves(self.model, sampling, self.stop_tokens)


class _Waves(Batch):
    """The slots of the running wave."""

    model: Foreign  # type: ignore[assignment]
    reading: Reading

    def __init__(self, model: Foreign, sampling: Sampling, stop_tokens: Collection[int]) -> None:
        if sampling.drafts:
            raise UserError(
                "tokens cannot be guessed ahead for a model that runs through transformers",
                next_step='Leave sampling.drafts out, or import the model with through = "seekling".',
            )
        if sampling.deterministic:
            raise UserError(
                "a model that runs through transformers cannot be sampled deterministically",
                next_step='Leave sampling.deterministic out, or import the model with through = "seekling".',
            )
        super().__init__(model, sampling, stop_tokens)  # type: ignore[arg-type]

    def _refuse(self, row: Row) -> None:
        if row.vectors or row.request.tell_prompt:
            raise UserError(
                "a model that runs through transformers takes no vectors in a prompt, and tells nothing of it",
                next_step='Import it with through = "seekling", or leave that out.',
            )

    def admit(self) -> None:
        """Begin the next wave when all have left the last."""
        if self.waiting and not len(self.running()):
            self.waiting = deque(sorted(self.waiting, key=lambda n: (len(self.rows[n].text), self.rows[n].text)))
            self._enter(self._wave())

    def _wave(self) -> list[int]:
        """Requests from the shortest prompt up whose rows, padding included, stay within the context to the end."""
        shortest, limit = self.rows[self.waiting[0]], self.model.config.max_position_embeddings
        taken: list[int] = []
        most = 0
        while self.waiting and len(taken) < self.sampling.max_rows:
            row = self.rows[self.waiting[0]]
            most = max(most, min(row.sampling.max_tokens, limit - len(shortest.text)))
            is_longer = len(row.text) != len(shortest.text)
            if is_longer and (not self.model.pads or len(row.text) + most > limit):
                break
            taken.append(self.waiting.popleft())
        return taken

    def _enter(self, taken: Sequence[int]) -> None:
        asked = [self.rows[number].text for number in taken]
        place = {prompt: place for place, prompt in enumerate(dict.fromkeys(asked))}
        self.reading, states_PD = self.model.begin(*self._padded(list(place)))
        sources = torch.tensor([place[prompt] for prompt in asked], device=self.device)
        self.model.select(self.reading, sources)
        self.states = states_PD.index_select(0, sources)
        self._arrange([-1] * len(taken))
        self._lengthen()
        for slot, number in enumerate(taken):
            self._begin(slot, number, len(asked[slot]))
        self.at[:] = np.arange(len(taken))

    def _padded(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, prompts))
        tokens, mask = (torch.zeros(len(prompts), width, dtype=torch.long) for _ in range(2))
        for row, prompt in enumerate(prompts):
            tokens[row, width - len(prompt) :], mask[row, width - len(prompt) :] = torch.tensor(prompt), 1
        return tokens.to(self.device), mask.to(self.device)

    def _decode(self, rows_R: NDArray[np.int64]) -> None:
        if 2 * len(rows_R) <= len(self.owner):  # rows that left idle harmlessly until they are half
            self.model.select(self.reading, torch.from_numpy(rows_R).to(self.device))
            self._arrange(rows_R)
            self.at[:] = np.arange(len(rows_R))
        tokens_B = self.out_tokens[np.arange(len(self.owner)), np.maximum(self.said, 1) - 1]
        seen_B = torch.from_numpy(self.owner >= 0).to(self.device)
        self.states = self.model.go_on(self.reading, torch.from_numpy(tokens_B).to(self.device), seen_B)
        self.lengths += 1
