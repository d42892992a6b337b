"""Batched generation: rows of one batch are requests at different places in their answers.

    sample a token per row -> finished rows leave -> decode the others -> waiting requests take the free slots

A request's tokens depend on its own prompt, seed and sampling, never on its company (beyond float rounding).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.engine.config import Sampling
from seekling.engine.sampler import distribution, draw, uniforms
from seekling.errors import UserError
from seekling.model.cache import Cache
from seekling.model.decoder import Decoder, Rows
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


class Engine:
    """Samples from a policy it shares with the learner: no copy, so their log-probabilities agree."""

    def __init__(self, model: Decoder, stop_tokens: int | Collection[int]) -> None:
        self.model = model
        self.stop_tokens = (stop_tokens,) if isinstance(stop_tokens, int) else tuple(stop_tokens)

    def load(self, model: Decoder) -> None:
        """Sample from ``model`` from now on."""
        self.model = model

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
            yield finished[0][1].tokens[said] if finished else int(batch.out_tokens[0, said])
            said += 1

    def _batch(self, requests: Sequence[Request], sampling: Sampling) -> _Batch:
        refuse_long(requests, self.model.config.max_position_embeddings)
        return _Batch(self.model, requests, sampling, self.stop_tokens)


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


def _joined(sets: Sequence[NDArray[np.int64]]) -> Kept:
    """Sets of ids as one ragged array."""
    return Kept(np.concatenate(sets).astype(np.int32), np.cumsum([len(ids) for ids in sets], dtype=np.int64))


class _Batch:
    """The slots of the running batch. Per slot: which request, how many cache entries, the state that chooses next."""

    def __init__(
        self, model: Decoder, requests: Sequence[Request], sampling: Sampling, stop_tokens: Sequence[int]
    ) -> None:
        self.model, self.requests, self.sampling, self.stop_tokens = model, requests, sampling, stop_tokens
        self.waiting = deque(range(len(requests)))
        self.prompts = _Prompts(model, requests)
        weight = model.embed_tokens.weight
        self.device = weight.device
        slots = min(sampling.max_rows, len(requests))
        limit = model.config.max_position_embeddings
        longest = max((len(request.prompt) for request in requests), default=0)
        room = min(limit, longest + sampling.max_tokens)
        self.cache = Cache(model.config, slots, room, dtype=weight.dtype, device=self.device)
        self.room = room
        self.owner = np.full(slots, -1)  # request of each slot, -1 where free
        self.seeds = np.zeros(slots, np.uint64)
        self.said = np.zeros(slots, np.int64)  # tokens sampled so far
        self.lengths = np.zeros(slots, np.int64)  # cache entries
        self.states_BD = torch.zeros(slots, model.config.hidden_size, dtype=weight.dtype, device=self.device)
        self.out_tokens = np.zeros((slots, sampling.max_tokens), np.int64)
        self.out_logps = np.zeros((slots, sampling.max_tokens), np.float32)
        layers, active = len(model.config.moe_layers), model.config.num_experts_per_tok
        self.out_routes = np.zeros((slots, room, layers, active), np.int16)
        self.kept: dict[int, list[NDArray[np.int64]]] = {
            index: [] for index, request in enumerate(requests) if request.tell_kept and sampling.truncates
        }

    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self.waiting) or bool((self.owner >= 0).any())

    def admit(self) -> None:
        """Give free slots to waiting requests; with none waiting, close the gaps that finished rows left."""
        free = np.flatnonzero(self.owner < 0)
        if self.waiting and len(free) * 8 >= len(self.owner):
            taken = [self.waiting.popleft() for _ in range(min(len(free), len(self.waiting)))]
            self._enter(free[: len(taken)], taken)
        elif not self.waiting and len(free) * 4 > len(self.owner):
            self._close_gaps(np.flatnonzero(self.owner >= 0))

    def step(self) -> list[tuple[int, Completion]]:
        """One token for every running row. Returns the requests that finished with it."""
        tokens_B = self._sample()
        running = self.owner >= 0
        full = self.lengths + 1 >= self.room  # with this token, as long as what a learner can read back
        ended = np.isin(tokens_B, self.stop_tokens) | (self.said >= self.sampling.max_tokens) | full
        finished = [self._leave(int(slot), int(tokens_B[slot])) for slot in np.flatnonzero(running & ended)]
        if (self.owner >= 0).any():
            self._decode(tokens_B)
        return finished

    def _sample(self) -> NDArray[np.int64]:
        logits_BV = self.model.logits(self.states_BD)
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
        lengths = np.minimum(self.lengths, self.room - 1)  # free slots idle harmlessly at their old place
        lengths_B = torch.from_numpy(lengths).to(self.device)
        tokens = torch.from_numpy(tokens_B).to(self.device)
        hidden = self.model.decode(tokens, lengths_B, self.cache.views(lengths_B, int(lengths.max())))
        self.states_BD = hidden.states_BTD
        for layer, routing in enumerate(hidden.routings):
            self.out_routes[np.arange(len(lengths)), lengths, layer] = routing.chosen_NA.cpu().numpy()
        self.lengths = lengths + 1

    def _enter(self, slots: NDArray[np.int64], taken: Sequence[int]) -> None:
        sources, states_PD, entries, routes = self.prompts.take(taken)
        slots_B = torch.from_numpy(slots).to(self.device)
        self.cache.fill(slots_B, entries, sources)
        self.states_BD = self.states_BD.index_copy(0, slots_B, states_PD.index_select(0, sources))
        for slot, request, source in zip(slots, taken, sources.tolist(), strict=True):
            prompt = self.requests[request].prompt
            self.owner[slot], self.seeds[slot] = request, np.uint64(self.requests[request].seed)
            self.said[slot], self.lengths[slot] = 0, len(prompt)
            self.out_routes[slot, : len(prompt)] = routes[source, : len(prompt)]

    def _leave(self, slot: int, last: int) -> tuple[int, Completion]:
        request, said = int(self.owner[slot]), int(self.said[slot])
        self.owner[slot] = -1
        inputs = len(self.requests[request].prompt) + said - 1
        has_experts = bool(self.out_routes.shape[2])
        return request, Completion(
            tokens=tuple(self.out_tokens[slot, :said].tolist()),
            logps=self.out_logps[slot, :said].copy(),
            stop=Stop.STOP if last in self.stop_tokens else Stop.LENGTH,
            routes=self.out_routes[slot, :inputs].copy() if has_experts else None,
            kept=_joined(self.kept[request]) if request in self.kept else None,
        )

    def _close_gaps(self, slots: NDArray[np.int64]) -> None:
        slots_B = torch.from_numpy(slots).to(self.device)
        self.cache.keep(slots_B)
        self.states_BD = self.states_BD.index_select(0, slots_B)
        for name in ("owner", "seeds", "said", "lengths", "out_tokens", "out_logps", "out_routes"):
            setattr(self, name, getattr(self, name)[slots])


class _Prompts:
    """Prompts computed once each, in batches, however many rollouts ask for them."""

    BATCH = 64

    def __init__(self, model: Decoder, requests: Sequence[Request]) -> None:
        self.model, self.requests = model, requests
        self.order = list(dict.fromkeys(request.prompt for request in requests))
        self.next = 0
        self.row: dict[tuple[int, ...], int] = {}
        self.width = max((len(prompt) for prompt in self.order), default=0)
        self.entries: list[Tensor] = []
        self.states_PD = torch.empty(0)
        self.routes = np.zeros((0, 0, 0, 0), np.int16)
        self.num_computed_tokens = 0

    def take(self, taken: Sequence[int]) -> tuple[Tensor, Tensor, list[Tensor], NDArray[np.int16]]:
        """For these requests: row of each one's prompt, then the rows' last states, cache entries and routes."""
        while any(self.requests[request].prompt not in self.row for request in taken):
            self._compute(self.order[self.next : self.next + self.BATCH])
            self.next += self.BATCH
        rows = torch.tensor([self.row[self.requests[request].prompt] for request in taken])
        return rows.to(self.states_PD.device), self.states_PD, self.entries, self.routes

    def _compute(self, prompts: Sequence[tuple[int, ...]]) -> None:
        device = self.model.embed_tokens.weight.device
        tokens = torch.zeros(len(prompts), self.width, dtype=torch.long)
        segments = torch.zeros(len(prompts), self.width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)], segments[row, : len(prompt)] = torch.tensor(prompt), 1
            self.row[prompt] = len(self.row)
            self.num_computed_tokens += len(prompt)
        positions = torch.arange(self.width).expand_as(tokens)
        hidden = self.model(Rows(tokens.to(device), positions.to(device), segments.to(device)))
        last_P = (segments.sum(1) - 1).to(device)
        states_PD = hidden.states_BTD[torch.arange(len(prompts), device=device), last_P]
        routes = [r.chosen_NA.view(len(prompts), self.width, -1) for r in hidden.routings]
        stacked = torch.stack(routes, 2) if routes else torch.zeros(len(prompts), self.width, 0, 1)
        self._keep(states_PD, hidden.entries, stacked.cpu().numpy().astype(np.int16))

    def _keep(self, states_PD: Tensor, entries: list[Tensor], routes: NDArray[np.int16]) -> None:
        if not self.entries:
            self.states_PD, self.entries, self.routes = states_PD, entries, routes
            return
        self.states_PD = torch.cat((self.states_PD, states_PD))
        self.entries = [torch.cat(pair) for pair in zip(self.entries, entries, strict=True)]
        self.routes = np.concatenate((self.routes, routes))
