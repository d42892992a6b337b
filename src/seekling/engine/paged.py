"""A batch over a paged cache: every text is read once, in chunks beside the running rows, whoever begins with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.engine.batch import Batch, Completion, Request
from seekling.engine.config import Sampling
from seekling.engine.paging import NoPages, Paging
from seekling.errors import UserError
from seekling.model.decoder import Decoder
from seekling.model.ops import ops_for
from seekling.model.pages import SLOTS, Chunk, Pages, pages_for

READ_AT_ONCE = 2048
"""Tokens of waiting texts that one pass reads."""
FIRST_BYTES = 2**31
"""What a pool begins with at most; it grows as pages are needed."""


@dataclass(slots=True, eq=False)
class _Text:
    """A text that is read before rows go on with it: its pages, how much of it they hold, the state at its end.

    ``wanted`` counts the requests that have yet to begin with it.
    """

    tokens: tuple[int, ...]
    wanted: int = 0
    pages: list[int] = field(default_factory=list)
    read: int = 0
    state_D: Tensor | None = None


@dataclass(frozen=True, slots=True)
class _Said:
    """What a row had said when it made room for others."""

    tokens: NDArray[np.int64]
    logps: NDArray[np.float32]


class Paged(Batch):
    """Rows of a ``Decoder``. A row that finds no page makes room: it begins again later, with what it has said."""

    def __init__(
        self, model: Decoder, requests: Sequence[Request], sampling: Sampling, stop_tokens: Sequence[int]
    ) -> None:
        super().__init__(model, requests, sampling, stop_tokens)
        refuse_small_cache(sampling.cache_tokens, self.room)
        weight, slots, width = model.embed_tokens.weight, len(self.owner), pages_for(self.room)
        self.ops = ops_for(weight.dtype, self.device)
        # Rows, texts that wait for theirs, and a page each to begin with.
        self.most_pages = sampling.cache_tokens // SLOTS or max(1, slots * (2 * width + 1))
        page_bytes = model.config.cache_width * SLOTS * len(model.windows) * weight.dtype.itemsize
        first = min(self.most_pages, FIRST_BYTES // page_bytes)
        self.pages = Pages(model.config, first, dtype=weight.dtype, device=self.device)
        self.paging = Paging(first)
        self.tables = np.zeros((slots, width), np.int64)
        self.held: list[list[int]] = [[] for _ in range(slots)]
        self.entered = np.zeros(slots, np.int64)  # the later, the younger
        routed, active = len(model.config.moe_layers), model.config.num_experts_per_tok
        self.routes = np.zeros((first if routed else 0, SLOTS, routed, active), np.int16)
        self.texts: dict[tuple[int, ...], _Text] = {}
        self.entering: list[_Text] = []  # what the next requests begin with
        self.suspended: dict[int, _Said] = {}
        self.num_read_tokens = 0  # of texts
        for request in range(len(requests)):
            self._want(request)

    # --- entering -----------------------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Read on what the next requests begin with, and let those in whose text is read. Gaps close when none waits.

        A few slots more, and several enter together: each pass over the weights then reads more.
        """
        free = np.flatnonzero(self.owner < 0)
        if not self.waiting:
            if len(free) * 4 > len(self.owner):
                self._close_gaps(np.flatnonzero(self.owner >= 0))
        elif len(free) * 8 >= len(self.owner):
            asked = list(islice(self.waiting, len(free)))
            self.entering = list(dict.fromkeys(self.texts[self._tokens(request)] for request in asked))
            self._read_on()
            ready = [request for request in asked if self.texts[self._tokens(request)].state_D is not None]
            for slot, request in zip(free.tolist(), ready, strict=False):
                if not self._enter(slot, request):
                    break
            self.entering = []

    def _tokens(self, request: int) -> tuple[int, ...]:
        """What a request goes on from: its prompt, and what it had said before it made room."""
        said, prompt = self.suspended.get(request), self.requests[request].prompt
        return prompt if said is None else (*prompt, *said.tokens.tolist())

    def _want(self, request: int) -> None:
        tokens = self._tokens(request)
        self.texts.setdefault(tokens, _Text(tokens)).wanted += 1

    def _read_on(self) -> None:
        """Read a chunk of the texts that are next, in their order, as far as there are pages."""
        parts: list[tuple[_Text, int]] = []
        left = READ_AT_ONCE
        for text in self.entering:
            if text.state_D is None and left:
                if not (text.pages or self._begin(text)):
                    break
                parts.append((text, min(len(text.tokens) - text.read, left)))
                left -= parts[-1][1]
        if parts:
            self._read(parts)

    def _begin(self, text: _Text) -> bool:
        """Give a text its pages, those of a known beginning as they are. False: there are not enough."""
        shared = self.paging.find(text.tokens[:-1])  # the last is read in any case: its state chooses what comes next
        begun = sum(bool(other.pages) for other in self.entering)
        try:  # each that enters may need a page of its own, and each that runs the next one
            taken = self._take(pages_for(len(text.tokens)) - len(shared), spare=self._running() + begun + 1)
        except NoPages:
            self.paging.release(shared)
            return False
        text.pages, text.read = shared + taken, len(shared) * SLOTS
        return True

    def _read(self, parts: Sequence[tuple[_Text, int]]) -> None:
        positions = np.concatenate([np.arange(text.read, text.read + count) for text, count in parts])
        rows = np.repeat(np.arange(len(parts)), [count for _, count in parts])
        tables = np.zeros((len(parts), max(len(text.pages) for text, _ in parts)), np.int64)
        for row, (text, _) in enumerate(parts):
            tables[row, : len(text.pages)] = text.pages
        tokens = np.concatenate([np.array(text.tokens[text.read : text.read + count]) for text, count in parts])
        states_ND = self._extend(tokens, positions, rows, tables)
        end = 0
        for text, count in parts:
            end += count
            text.read += count
            if text.read == len(text.tokens):
                text.state_D = states_ND[end - 1]
                self.paging.note(text.tokens, text.pages)
        self.num_read_tokens += end

    def _enter(self, slot: int, request: int) -> bool:
        """Let a request go on from its text; what the text fills in part becomes its own. False: no page is left."""
        tokens = self._tokens(request)
        text = self.texts[tokens]
        whole, is_last = len(tokens) // SLOTS, text.wanted == 1
        if is_last:
            held = text.pages
            del self.texts[tokens]
        else:
            try:
                own = self._take(len(text.pages) - whole, self._running())
            except NoPages:
                return False
            held = text.pages[:whole] + own
            self.paging.share(held[:whole])
            self._copy(text.pages[whole:], own)
            text.wanted -= 1
        assert text.state_D is not None
        self.states_BD[slot] = text.state_D
        self.held[slot], self.tables[slot, : len(held)] = list(held), held
        self.owner[slot], self.seeds[slot], self.lengths[slot] = request, self.requests[request].seed, len(tokens)
        self.entered[slot] = self.entered.max() + 1
        said = self.suspended.pop(request, None)
        self.said[slot] = 0 if said is None else len(said.tokens)
        if said is not None:
            self.out_tokens[slot, : len(said.tokens)] = said.tokens
            self.out_logps[slot, : len(said.tokens)] = said.logps
        self.waiting.remove(request)
        return True

    # --- going on -----------------------------------------------------------------------------------------------------

    def _decode(self, tokens_B: NDArray[np.int64]) -> None:
        self._make_room()
        rows = np.flatnonzero(self.owner >= 0)
        count = np.arange(len(rows))
        states_BD = self._extend(tokens_B[rows], self.lengths[rows], count, self.tables[rows])
        if len(rows) == len(self.owner):
            self.states_BD = states_BD
        else:
            self.states_BD.index_copy_(0, torch.from_numpy(rows).to(self.device), states_BD)
        self.lengths[rows] += 1

    def _logits(self) -> Tensor:
        return self.ops.logits(self.model, self.states_BD)

    def _make_room(self) -> None:
        """A new page for each row whose last is full; while there are not enough, the youngest row makes room."""
        while True:
            full = [int(slot) for slot in np.flatnonzero((self.owner >= 0) & (self.lengths % SLOTS == 0))]
            try:
                taken = self._take(len(full))
                break
            except NoPages:
                self._suspend()
        for slot, page in zip(full, taken, strict=True):
            self.tables[slot, len(self.held[slot])] = page
            self.held[slot].append(page)

    def _suspend(self) -> None:
        """The youngest row lets go of its pages; it will begin again from all it has said."""
        running = np.flatnonzero(self.owner >= 0)
        assert len(running) > 1, "one request alone was seen to fit"
        slot = int(running[self.entered[running].argmax()])
        request, said = int(self.owner[slot]), int(self.said[slot])
        self.suspended[request] = _Said(self.out_tokens[slot, :said].copy(), self.out_logps[slot, :said].copy())
        self._let_go(slot)
        self._want(request)
        self.waiting.appendleft(request)

    def _let_go(self, slot: int) -> None:
        self.paging.release(self.held[slot])
        self.held[slot], self.owner[slot] = [], -1

    def _routes(self, slot: int) -> NDArray[np.int16] | None:
        if not len(self.routes):
            return None
        return self.routes[self.held[slot]].reshape(-1, *self.routes.shape[2:])[: self.lengths[slot]]

    def _leave(self, slot: int, last: int) -> tuple[int, Completion]:
        found = super()._leave(slot, last)
        tokens = (*self.requests[found[0]].prompt, *found[1].tokens)
        self.paging.note(tokens[: self.lengths[slot]], self.held[slot])
        self._let_go(slot)
        return found

    def _close_gaps(self, slots: NDArray[np.int64]) -> None:
        super()._close_gaps(slots)
        self.tables, self.entered = self.tables[slots], self.entered[slots]
        self.held = [self.held[slot] for slot in slots]

    # --- pages --------------------------------------------------------------------------------------------------------

    def _running(self) -> int:
        return int((self.owner >= 0).sum())

    def _take(self, count: int, spare: int = 0) -> list[int]:
        """``count`` pages, where ``spare`` more are left. The pool grows as far as it may; then texts that are not next
        are forgotten, though their pages stay known as long as nobody takes them. Raises NoPages."""
        lacking = count + spare - self.paging.available
        room = self.most_pages - self.pages.count
        if lacking > 0 and room:
            self._grow(self.pages.count + min(room, max(lacking, self.pages.count)))
        if count + spare > self.paging.available:
            for text in self.texts.values():
                if text.pages and text not in self.entering:
                    self.paging.release(text.pages)
                    text.pages, text.read, text.state_D = [], 0, None
        if count + spare > self.paging.available:
            raise NoPages
        return self.paging.take(count)

    def _grow(self, count: int) -> None:
        if len(self.routes):
            more = np.zeros((count - self.pages.count, *self.routes.shape[1:]), np.int16)
            self.routes = np.concatenate((self.routes, more))
        self.pages.grow(count)
        self.paging.add(count)

    def _copy(self, sources: list[int], targets: list[int]) -> None:
        if sources:
            self.pages.copy(sources, targets)
            if len(self.routes):
                self.routes[targets] = self.routes[sources]

    def _extend(
        self,
        tokens_N: NDArray[np.int64],
        positions_N: NDArray[np.int64],
        rows_N: NDArray[np.int64],
        tables_BP: NDArray[np.int64],
    ) -> Tensor:
        """Read tokens into the pages of their rows: states [N, D]."""
        tokens, positions, rows, tables = map(torch.from_numpy, (tokens_N, positions_N, rows_N, tables_BP))
        chunk = Chunk.of(tokens, positions, rows, tables, self.device)
        hidden = self.model.extend(chunk, self.pages, self.ops)
        if hidden.routings:
            chosen_NLA = torch.stack([routing.chosen_NA for routing in hidden.routings], 1)
            self.routes.reshape(-1, *self.routes.shape[2:])[chunk.places_N.cpu().numpy()] = chosen_NLA.cpu().numpy()
        return hidden.states_BTD


def refuse_small_cache(cache_tokens: int, room: int) -> None:
    """Raises UserError where a request of ``room`` tokens would not fit into the cache were it alone; 0 bounds none."""
    if cache_tokens and cache_tokens // SLOTS <= pages_for(room):
        raise UserError(
            f"a cache of {cache_tokens} tokens is too small for one request of {room}",
            next_step=f"Set sampling.cache_tokens to at least {SLOTS * (pages_for(room) + 1)}, or to 0.",
        )
