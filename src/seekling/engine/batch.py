"""Rows that are sampled together: requests at different places in their answers.

sample a token per row -> finished rows leave -> read the others on -> waiting requests take the free slots
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.engine.config import Sampling
from seekling.engine.sampler import distribution, draw, uniforms
from seekling.model.decoder import Decoder
from seekling.records import Kept, Stop

Ban = Callable[[Sequence[int]], Collection[int]]
"""From the tokens said so far to the tokens that must not come next: the seam for decode-time rules."""


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to be sampled. Requests with equal prompts share its computation.

    ``tell_kept``: its completion says which tokens each of its own was drawn from, where that was not all of them.
    """

    prompt: tuple[int, ...]
    seed: int
    ban: Ban | None = None
    tell_kept: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """What was sampled: ``tokens`` [T], ``logps`` [T] behaviour log-probabilities, ``routes`` [P+T-1, L, A]."""

    tokens: tuple[int, ...]
    logps: NDArray[np.float32]
    stop: Stop
    routes: NDArray[np.int16] | None
    kept: Kept | None = None


def _joined(sets: Sequence[NDArray[np.int64]]) -> Kept:
    """Sets of ids as one ragged array."""
    return Kept(np.concatenate(sets).astype(np.int32), np.cumsum([len(ids) for ids in sets], dtype=np.int64))


class Batch:
    """The slots of the running batch. Per slot: which request, how many cache entries, the state that chooses next.

    Who enters, and how rows are read on, is left to those who have a cache.
    """

    def __init__(
        self, model: Decoder, requests: Sequence[Request], sampling: Sampling, stop_tokens: Sequence[int]
    ) -> None:
        self.model, self.requests, self.sampling, self.stop_tokens = model, requests, sampling, stop_tokens
        self.waiting = deque(range(len(requests)))
        weight = model.embed_tokens.weight
        self.device = weight.device
        slots = min(sampling.max_rows, len(requests))
        longest = max((len(request.prompt) for request in requests), default=0)
        self.room = min(model.config.max_position_embeddings, longest + sampling.max_tokens)
        self.owner = np.full(slots, -1)  # request of each slot, -1 where free
        self.seeds = np.zeros(slots, np.uint64)
        self.said = np.zeros(slots, np.int64)  # tokens sampled so far
        self.lengths = np.zeros(slots, np.int64)  # cache entries
        self.states_BD = torch.zeros(slots, model.config.hidden_size, dtype=weight.dtype, device=self.device)
        self.out_tokens = np.zeros((slots, sampling.max_tokens), np.int64)
        self.out_logps = np.zeros((slots, sampling.max_tokens), np.float32)
        self.kept: dict[int, list[NDArray[np.int64]]] = {
            index: [] for index, request in enumerate(requests) if request.tell_kept and sampling.truncates
        }

    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self.waiting) or bool((self.owner >= 0).any())

    def admit(self) -> None:
        """Let waiting requests in."""
        raise NotImplementedError

    def step(self) -> list[tuple[int, Completion]]:
        """One token for every running row. Returns the requests that finished with it."""
        if not (self.owner >= 0).any():
            return []
        tokens_B = self._sample()
        running = self.owner >= 0
        full = self.lengths + 1 >= self.room  # with this token, as long as what a learner can read back
        ended = np.isin(tokens_B, self.stop_tokens) | (self.said >= self.sampling.max_tokens) | full
        finished = [self._leave(int(slot), int(tokens_B[slot])) for slot in np.flatnonzero(running & ended)]
        if (self.owner >= 0).any():
            self._decode(tokens_B)
        return finished

    def _sample(self) -> NDArray[np.int64]:
        logits_BV = self._logits()
        self._ban(logits_BV)
        logp_BV = distribution(logits_BV, self.sampling)
        uniform_B = torch.from_numpy(uniforms(self.seeds, self.said.astype(np.uint64))).to(self.device)
        chosen_B = draw(logp_BV, uniform_B)
        logp_B = logp_BV.gather(1, chosen_B.unsqueeze(1)).squeeze(1)
        tokens_B = chosen_B.cpu().numpy()
        rows = np.flatnonzero(self.owner >= 0)
        self._note_kept(logp_BV, rows)
        self.out_tokens[rows, self.said[rows]] = tokens_B[rows]
        self.out_logps[rows, self.said[rows]] = logp_B.cpu().numpy()[rows]
        self.said[rows] += 1
        return tokens_B

    def _logits(self) -> Tensor:
        return self.model.logits(self.states_BD)

    def _note_kept(self, logp_BV: Tensor, rows: NDArray[np.int64]) -> None:
        if self.kept:
            possible_BV = logp_BV.isfinite().cpu().numpy()
            for slot in rows:
                if (noted := self.kept.get(int(self.owner[slot]))) is not None:
                    noted.append(np.flatnonzero(possible_BV[slot]))

    def _ban(self, logits_BV: Tensor) -> None:
        for slot in np.flatnonzero(self.owner >= 0):
            ban = self.requests[self.owner[slot]].ban
            if ban is not None:
                said = self.out_tokens[slot, : self.said[slot]].tolist()
                logits_BV[slot, list(ban(said))] = float("-inf")

    def _decode(self, tokens_B: NDArray[np.int64]) -> None:
        """Read each running row's token, so that its state chooses the next."""
        raise NotImplementedError

    def _routes(self, slot: int) -> NDArray[np.int16] | None:
        """Where the tokens that a slot has read went; None: the model routes nothing."""
        return None

    def _leave(self, slot: int, last: int) -> tuple[int, Completion]:
        request, said = int(self.owner[slot]), int(self.said[slot])
        completion = Completion(
            tokens=tuple(self.out_tokens[slot, :said].tolist()),
            logps=self.out_logps[slot, :said].copy(),
            stop=Stop.STOP if last in self.stop_tokens else Stop.LENGTH,
            routes=self._routes(slot),
            kept=_joined(self.kept[request]) if request in self.kept else None,
        )
        self.owner[slot] = -1
        return request, completion

    def _close_gaps(self, slots: NDArray[np.int64]) -> None:
        """Forget every slot but these, which move to the front in this order."""
        self.states_BD = self.states_BD.index_select(0, torch.from_numpy(slots).to(self.device))
        for name in ("owner", "seeds", "said", "lengths", "out_tokens", "out_logps"):
            setattr(self, name, getattr(self, name)[slots])
