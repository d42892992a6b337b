"""A batch over a paged cache: every text is read once, in chunks beside the running rows, whoever begins with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.engine.batch import Batch, counted, taken
from seekling.engine.config import Sampling
from seekling.engine.drafting import Ahead, Drafter, LookUp
from seekling.engine.paging import NoPages, Paging
from seekling.engine.requests import Likeliest, Row
from seekling.errors import UserError
from seekling.model.decoder import Decoder
from seekling.model.ops import Ops, exact_ops, ops_for
from seekling.model.pages import SLOTS, Chunk, Pages, pages_for

READ_AT_ONCE = 2048
"""Tokens of waiting texts that one pass reads."""
TOLD_AT_ONCE = 64
"""Tokens of a prompt whose scores over the vocabulary are in memory together."""
FIRST_BYTES = 2**31
"""What a pool begins with at most; it grows as pages are needed."""


@dataclass(frozen=True, slots=True)
class _Name:
    """Which text: its tokens, and how many likeliest ones are told of each, where they are told."""

    tokens: tuple[int, ...]
    likeliest: int | None = None


@dataclass(slots=True, eq=False)
class Text:
    """A text that is read before rows go on with it: its pages, how much of it they hold, the state at its end.

    ``wanted`` counts the requests that have yet to begin with it.
    """

    name: _Name
    vectors: dict[int, Tensor]
    wanted: int = 0
    pages: list[int] = field(default_factory=list)
    read: int = 0
    state_D: Tensor | None = None
    told: list[Likeliest] = field(default_factory=list)

    @property
    def tokens(self) -> tuple[int, ...]:
        """What it says; names below 0 are of vectors."""
        return self.name.tokens

    def forget(self) -> None:
        """Nothing of it is read."""
        self.pages, self.read, self.state_D, self.told = [], 0, None, []


@dataclass(frozen=True, slots=True)
class _Said:
    """What a row had said when it made room for others."""

    tokens: NDArray[np.int64]
    logps: NDArray[np.float32]


class Paged(Batch):
    """Rows of a ``Decoder``. A row that finds no page makes room: it begins again later, with what it has said."""

    pages: Pages
    """Made when the first requests enter."""

    def __init__(self, model: Decoder, sampling: Sampling, stop_tokens: Collection[int]) -> None:
        super().__init__(model, sampling, stop_tokens)
        self.ops = self._ops(model)
        self.paging = Paging(0)
        self.tables = np.zeros((0, 0), np.int64)
        self.held: list[list[int]] = []
        self.longest = 0  # tokens that a request and its answer may have
        self.texts: dict[_Name, Text] = {}
        self.entering: list[Text] = []  # what the next requests begin with
        self.suspended: dict[int, _Said] = {}
        self.num_read_tokens = 0  # of texts
        from_model = sampling.draft_from == "model" or (sampling.draft_from == "auto" and model.mtp is not None)
        self.drafter: Drafter | None = None if not sampling.drafts else Ahead(self) if from_model else LookUp(self)

    def _ops(self, model: Decoder) -> Ops:
        if self.sampling.deterministic:
            return exact_ops(model)
        return ops_for(model.embed_tokens.weight.dtype, self.device)

    # --- entering -----------------------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Read on what the next requests begin with, and let those in whose text is read. Gaps close when none waits.

        Where more wait than slots are free, a few slots more, and several enter together: each pass reads more then.
        """
        self._widen()
        free = np.flatnonzero(self.owner < 0)
        if not self.waiting:
            if len(free) * 4 > len(self.owner):
                self._arrange(self.running())
        elif len(free) >= min(len(self.waiting), len(self.owner) / 8):
            asked = list(islice(self.waiting, len(free)))
            self.entering = list(dict.fromkeys(self.texts[self._name(number)] for number in asked))
            self._read_on()
            ready = [number for number in asked if self.texts[self._name(number)].state_D is not None]
            states = [self.states]
            for slot, number in zip(free.tolist(), ready, strict=False):
                if (state_D := self._enter(slot, number)) is None:
                    break
                self.at[slot] = len(self.states) + len(states) - 1
                states.append(state_D.unsqueeze(0))
            if len(states) > 1:
                self.states = torch.cat(states)
            self.entering = []

    def _refuse(self, row: Row) -> None:
        refuse_small_cache(self.sampling.cache_tokens, len(row.text) + row.limit)
        self.longest = max(self.longest, len(row.text) + row.limit)

    def _tokens(self, number: int) -> tuple[int, ...]:
        """What a request goes on from: its prompt, and what it had said before it made room."""
        said, prompt = self.suspended.get(number), self.rows[number].text
        return prompt if said is None else (*prompt, *said.tokens.tolist())

    def _name(self, number: int) -> _Name:
        row = self.rows[number]
        tells = row.request.tell_prompt and number not in self.suspended
        return _Name(self._tokens(number), (row.request.likeliest or 0) if tells else None)

    def _want(self, number: int) -> None:
        name = self._name(number)
        self.texts.setdefault(name, Text(name, self.rows[number].vectors)).wanted += 1

    def _forgo(self, number: int) -> None:
        text = self.texts[self._name(number)]
        text.wanted -= 1
        if not text.wanted:
            self.paging.release(text.pages)
            del self.texts[text.name]
        self.suspended.pop(number, None)

    def _read_on(self) -> None:
        """Read a chunk of the texts that are next, in their order, as far as there are pages."""
        parts: list[tuple[Text, int]] = []
        left = READ_AT_ONCE
        for text in self.entering:
            if text.state_D is None and left:
                if not (text.pages or self._begin_text(text)):
                    break
                parts.append((text, min(len(text.tokens) - text.read, left)))
                left -= parts[-1][1]
        if parts:
            self._read(parts)

    def _begin_text(self, text: Text) -> bool:
        """Give a text its pages, those of a known beginning as they are. False: there are not enough.

        The last token is read in any case: its state chooses what comes next. Of a text that is told all are read.
        """
        shared = self.paging.find(text.tokens[:-1]) if text.name.likeliest is None else []
        begun = sum(bool(other.pages) for other in self.entering)
        try:  # each that enters may need a page of its own, and each that runs the next one
            taken = self._take(pages_for(len(text.tokens)) - len(shared), spare=len(self.running()) + begun + 1)
        except NoPages:
            self.paging.release(shared)
            return False
        text.pages, text.read = shared + taken, len(shared) * SLOTS
        return True

    def _read(self, parts: Sequence[tuple[Text, int]]) -> None:
        positions = np.concatenate([np.arange(text.read, text.read + count) for text, count in parts])
        rows = np.repeat(np.arange(len(parts)), [count for _, count in parts])
        tables = np.zeros((len(parts), max(len(text.pages) for text, _ in parts)), np.int64)
        for row, (text, _) in enumerate(parts):
            tables[row, : len(text.pages)] = text.pages
        tokens = np.concatenate([np.array(text.tokens[text.read : text.read + count]) for text, count in parts])
        vectors = {name: vector_D for text, _ in parts for name, vector_D in text.vectors.items()}
        states_ND = self._extend(tokens, positions, rows, tables, vectors)
        if isinstance(self.drafter, Ahead):
            self.drafter.read(parts, states_ND, tables)
        end = 0
        for text, count in parts:
            start, end = end, end + count
            self._tell(text, states_ND[start:end])
            text.read += count
            if text.read == len(text.tokens):
                text.state_D = states_ND[end - 1]
                self.paging.note(text.tokens, text.pages)
        self.num_read_tokens += end

    def _tell(self, text: Text, states_TD: Tensor) -> None:
        """What the model makes of the tokens after these, where somebody asked."""
        if text.name.likeliest is not None:
            came = text.tokens[text.read + 1 : text.read + 1 + len(states_TD)]
            for start in range(0, len(came), TOLD_AT_ONCE):
                logits_TV = self.logits(states_TD[: len(came)][start : start + TOLD_AT_ONCE])
                told = [max(token, 0) for token in came[start : start + TOLD_AT_ONCE]]
                text.told.append(Likeliest.of(logits_TV, told, text.name.likeliest))

    def _enter(self, slot: int, number: int) -> Tensor | None:
        """Let a request go on from its text; what the text fills in part becomes its own. Returns the state that
        chooses its next token; None: no page is left."""
        text, row = self.texts[self._name(number)], self.rows[number]
        tokens, is_last = text.tokens, text.wanted == 1
        whole = (len(tokens) - isinstance(self.drafter, Ahead)) // SLOTS  # who drafts writes at its last token
        if is_last:
            held = text.pages
            del self.texts[text.name]
        else:
            try:
                own = self._take(len(text.pages) - whole, len(self.running()))
            except NoPages:
                return None
            held = text.pages[:whole] + own
            self.paging.share(held[:whole])
            self._copy(text.pages[whole:], own)
            text.wanted -= 1
        self.held[slot], self.tables[slot, : len(held)] = list(held), held
        self._begin(slot, number, len(tokens))
        if text.told:
            row.of_prompt = Likeliest.joined(text.told)
        said = self.suspended.pop(number, None)
        if said is not None:
            self.said[slot] = len(said.tokens)
            self.out_tokens[slot, : len(said.tokens)] = said.tokens
            self.out_logps[slot, : len(said.tokens)] = said.logps
        self.waiting.remove(number)
        return text.state_D

    # --- going on -----------------------------------------------------------------------------------------------------

    def _decode(self, rows_R: NDArray[np.int64]) -> None:
        """Read each row's last token, and what is guessed to come behind it."""
        rows_R, most_R = self._make_room(rows_R)
        self._guess(rows_R, most_R)
        order_N, step_N = counted(np.arange(len(rows_R)), self.drafted[rows_R])
        slot_N = rows_R[order_N]
        tokens_N = self.out_tokens[slot_N, self.said[slot_N] - 1]
        if len(slot_N) > len(rows_R):
            tokens_N = np.where(step_N, self.drafts[slot_N, step_N - 1], tokens_N)
        self.states = self._extend(tokens_N, self.lengths[slot_N] + step_N, order_N, self.tables[rows_R])
        self.at[rows_R] = np.flatnonzero(step_N == 0)
        self.lengths[rows_R] += 1

    def _guess(self, rows_R: NDArray[np.int64], most_R: NDArray[np.int64]) -> None:
        self.drafted[rows_R] = 0
        if self.drafter is not None:
            for slot, guess in zip(rows_R, self.drafter.draft(rows_R, most_R), strict=True):
                self.drafted[slot], self.drafts[slot, : len(guess)] = len(guess), guess

    def logits(self, states_MD: Tensor) -> Tensor:
        """What states make of the vocabulary: [M, V]."""
        return self.ops.logits(self.model, states_MD)

    def _make_room(self, rows_R: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pages for what each row reads next: its last token, and the guesses behind it. While there are not enough,
        nobody guesses; then the youngest row makes room. Returns who is left, and how many guesses each may have."""
        spare = self.sampling.drafts if self.drafter is not None else 0
        while True:
            # With the last guess read, a token more is drawn.
            most_R = np.minimum(self.limits[rows_R] - self.said[rows_R] - 1, spare) * ~self.ruled[rows_R]
            held_R = np.array([len(self.held[slot]) for slot in rows_R])
            lacking_R = np.maximum(-(-(self.lengths[rows_R] + most_R + 1) // SLOTS) - held_R, 0)
            try:
                taken = self._take(int(lacking_R.sum()))
                break
            except NoPages:
                if not spare:
                    self._suspend()
                    rows_R = self.running()
                spare = 0
        for place in np.flatnonzero(lacking_R):
            slot, count = rows_R[place], lacking_R[place]
            self.tables[slot, held_R[place] : held_R[place] + count] = taken[:count]
            self.held[slot] += taken[:count]
            del taken[:count]
        return rows_R, most_R

    def _suspend(self) -> None:
        """The youngest row lets go of its pages; it will begin again from all it has said."""
        running = self.running()
        assert len(running) > 1, "one request alone was seen to fit"
        slot = int(running[self.entered[running].argmax()])
        number, said = int(self.owner[slot]), int(self.said[slot])
        self.suspended[number] = _Said(self.out_tokens[slot, :said].copy(), self.out_logps[slot, :said].copy())
        self._let_go(slot)
        self.waiting.appendleft(number)
        self._want(number)

    def swap(self, model: Decoder, why: UserError) -> None:
        """Whoever waits is read anew; not those who wait to begin again."""
        ops = self._ops(model)  # kernels know where weights lie
        super().swap(model, why)
        self.ops = ops
        for number in [*self.suspended]:
            self.waiting.remove(number)
            self._forgo(number)
            del self.rows[number]
            self.finished.append((number, why))
        for text in self.texts.values():
            self.paging.release(text.pages)
            text.forget()
        self.paging.forget()

    def _let_go(self, slot: int) -> None:
        tokens = (*self._of(slot).text, *self.out_tokens[slot, : self.said[slot]].tolist())
        self.paging.note(tokens[: self.lengths[slot]], self.held[slot])
        self.paging.release(self.held[slot])
        self.held[slot] = []
        if self.drafter is not None:
            self.drafter.forget(int(self.owner[slot]))
        super()._let_go(slot)

    def _routes(self, slot: int) -> NDArray[np.int16] | None:
        if not len(self.routes):
            return None
        return self.routes[self.held[slot]].reshape(-1, *self.routes.shape[2:])[: self.lengths[slot]]

    # --- slots and pages ----------------------------------------------------------------------------------------------

    def _arrange(self, slots: Iterable[int]) -> None:
        places = [int(slot) for slot in slots]
        super()._arrange(places)
        self.tables = taken(self.tables, np.array(places, np.int64))
        self.held = [self.held[place] if place >= 0 else [] for place in places]

    def _widen(self) -> None:
        super()._widen()
        if (lacking := pages_for(self.longest) - self.tables.shape[1]) > 0:
            self.tables = np.pad(self.tables, ((0, 0), (0, lacking)))
        if self.rows and not self.paging.holders:
            self._make_pages()

    def _make_pages(self) -> None:
        config, dtype = self.model.config, self.model.embed_tokens.weight.dtype
        ahead = isinstance(self.drafter, Ahead)
        page_bytes = config.cache_width * SLOTS * (config.num_hidden_layers + ahead) * dtype.itemsize
        first = min(self.most_pages, max(1, FIRST_BYTES // page_bytes))
        self.pages = Pages(config, first, dtype=dtype, device=self.device, ahead=ahead)
        self.paging.add(first)
        routed, active = len(config.moe_layers), config.num_experts_per_tok
        self.routes = np.zeros((first if routed else 0, SLOTS, routed, active), np.int16)

    @property
    def most_pages(self) -> int:
        """For rows, texts that wait for theirs, and a page each to begin with; or as many as are allowed."""
        return self.sampling.cache_tokens // SLOTS or max(1, len(self.owner) * (2 * self.tables.shape[1] + 1))

    def _take(self, count: int, spare: int = 0) -> list[int]:
        """``count`` pages, where ``spare`` more are left. The pool grows as far as it may; then texts that are not next
        are forgotten, though their pages stay known as long as nobody takes them. Raises NoPages."""
        lacking = count + spare - self.paging.available
        room = self.most_pages - self.pages.count
        if lacking > 0 and room > 0:
            self._grow(self.pages.count + min(room, max(lacking, self.pages.count)))
        if count + spare > self.paging.available:
            for text in self.texts.values():
                if text.pages and text not in self.entering:
                    self.paging.release(text.pages)
                    text.forget()
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

    # --- reading ------------------------------------------------------------------------------------------------------

    def _extend(
        self, tokens_N: NDArray[np.int64], positions_N: NDArray[np.int64], rows_N: NDArray[np.int64],
        tables_BP: NDArray[np.int64], vectors: dict[int, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Read tokens into the pages of their rows: states [N, D]."""
        chunk = self.chunk(np.maximum(tokens_N, 0), positions_N, rows_N, tables_BP)
        hidden = self.model.extend(chunk, self.pages, self.ops, self.embedded(tokens_N, vectors))
        if hidden.routings:
            chosen_NLA = torch.stack([routing.chosen_NA for routing in hidden.routings], 1)
            self.routes.reshape(-1, *self.routes.shape[2:])[chunk.places_N.cpu().numpy()] = chosen_NLA.cpu().numpy()
        return hidden.states_BTD

    def chunk(
        self, tokens_N: NDArray[np.int64], positions_N: NDArray[np.int64], rows_N: NDArray[np.int64],
        tables_BP: NDArray[np.int64],
    ) -> Chunk:  # fmt: skip
        """Tokens of rows, laid out by their tables."""
        tokens, positions, rows, tables = map(torch.from_numpy, (tokens_N, positions_N, rows_N, tables_BP))
        return Chunk.of(tokens, positions, rows, tables, self.device)

    def embedded(self, tokens_N: NDArray[np.int64], vectors: dict[int, Tensor] | None) -> Tensor | None:
        """Embeddings [N, D] of tokens among which are names of vectors; None: there are none."""
        if not vectors or (named := np.flatnonzero(tokens_N < 0)).size == 0:
            return None
        x_ND = self.model.embed_tokens(torch.from_numpy(np.maximum(tokens_N, 0)).to(self.device))
        given = torch.stack([vectors[int(tokens_N[place])].to(x_ND) for place in named])
        return x_ND.index_copy(0, torch.from_numpy(named).to(self.device), given)


def refuse_small_cache(cache_tokens: int, room: int) -> None:
    """Raises UserError where a request of ``room`` tokens would not fit into the cache were it alone; 0 bounds none."""
    if cache_tokens and cache_tokens // SLOTS <= pages_for(room):
        raise UserError(
            f"a cache of {cache_tokens} tokens is too small for one request of {room}",
            next_step=f"Set sampling.cache_tokens to at least {SLOTS * (pages_for(room) + 1)}, or to 0.",
        )
