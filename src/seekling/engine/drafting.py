"""Who guesses what a row will say next, so that one pass reads several tokens of it instead of one.

A guess costs nothing but work: the tokens are drawn from the model's own states in any case (engine/batch.py). Where a
guess is drawn, it is with the number its token will be drawn with, so that the more alike two distributions are, the
more often they fall together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.engine.batch import counted
from seekling.engine.sampler import draw, uniforms
from seekling.errors import UserError

if TYPE_CHECKING:
    from seekling.engine.paged import Paged, Text

LONGEST, SHORTEST = 4, 2
"""Tokens by which a place in a text is recognised: tried from the longest down."""


class Drafter(Protocol):
    """Guesses for some slots of a batch."""

    def draft(self, rows_R: NDArray[np.int64], most_R: NDArray[np.int64]) -> list[list[int]]:
        """At most so many tokens for each slot."""

    def forget(self, number: int) -> None:
        """A request is done with."""


@dataclass(slots=True)
class Followed:
    """A growing text, and where each short sequence in it was last followed by something."""

    tokens: list[int] = field(default_factory=list)
    places: dict[tuple[int, ...], int] = field(default_factory=dict)

    def add(self, tokens: Sequence[int]) -> None:
        """Go on with these."""
        for token in tokens:
            end = len(self.tokens)
            for length in range(SHORTEST, min(LONGEST, end) + 1):
                self.places[tuple(self.tokens[end - length :])] = end
            self.tokens.append(token)

    def following(self, most: int) -> list[int]:
        """What came after the last place that was like the end: prompt look-up (Saxena 2023).

        Where that runs into the end itself, it goes on from there: a text that repeats itself goes on repeating.
        """
        for length in range(min(LONGEST, len(self.tokens)), SHORTEST - 1, -1):
            place = self.places.get(tuple(self.tokens[-length:]))
            if place is not None:
                behind = self.tokens[place : place + most]
                return _said([behind[step % len(behind)] for step in range(most)])
        return []


def _said(tokens: Sequence[int]) -> list[int]:
    """Up to what no model says: vectors inserted into a prompt have names below 0."""
    return list(takewhile(lambda token: token >= 0, tokens))


class LookUp:
    """What came after the last place in a row's own text that was like its end."""

    def __init__(self, batch: Paged) -> None:
        self.batch = batch
        self.texts: dict[int, Followed] = {}

    def draft(self, rows_R: NDArray[np.int64], most_R: NDArray[np.int64]) -> list[list[int]]:
        """At most so many tokens for each slot."""
        return [
            self._text(slot).following(int(most)) if most > 0 else [] for slot, most in zip(rows_R, most_R, strict=True)
        ]

    def _text(self, slot: int) -> Followed:
        batch = self.batch
        number, said = int(batch.owner[slot]), int(batch.said[slot])
        if number not in self.texts:
            self.texts[number] = Followed()
            self.texts[number].add(batch.rows[number].text)
        text = self.texts[number]
        heard = len(text.tokens) - len(batch.rows[number].text)
        text.add(batch.out_tokens[slot, heard:said].tolist())
        return text

    def forget(self, number: int) -> None:
        """A request is done with, for now."""
        self.texts.pop(number, None)


class Ahead:
    """The model's own prediction layer, which reads each state with the token that came of it (DeepSeek-V3, 2.2).

    Its entries stand where the states' tokens do, in a layer of pages of its own. A shared page's last entries are of
    the text that filled it: they may have been read with another token than ours, with guesses, or, where its row had
    rules, not at all. A guess may be the worse for it, and nothing else.
    """

    def __init__(self, batch: Paged) -> None:
        self.batch = batch
        if batch.model.mtp is None:
            raise UserError(
                "tokens are to be guessed by the model, which has no layer that does",
                where='sampling.draft_from = "model"', next_step='Let the text guess: draft_from = "text" or "auto".',
            )  # fmt: skip

    def forget(self, number: int) -> None:
        """Nothing is kept of a request."""

    def read(self, parts: Sequence[tuple[Text, int]], states_ND: Tensor, tables_BP: NDArray[np.int64]) -> None:
        """Read on in texts, each state with the token that follows it there."""
        tokens: list[int] = []
        picked, positions, counts, start = [], [], [], 0
        vectors: dict[int, Tensor] = {}
        for text, count in parts:
            known = min(count, len(text.tokens) - text.read - 1)
            tokens += text.tokens[text.read + 1 : text.read + 1 + known]
            picked.append(np.arange(start, start + known))
            positions.append(np.arange(text.read, text.read + known))
            counts.append(known)
            vectors |= text.vectors
            start += count
        rows = np.flatnonzero(counts)  # of a text whose last token came alone nothing is known
        if tokens:
            self._extend(
                self._picked(states_ND, np.concatenate(picked)), np.array(tokens), np.concatenate(positions),
                np.repeat(np.arange(len(rows)), np.array(counts)[rows]), tables_BP[rows], vectors,
            )  # fmt: skip

    def draft(self, rows_R: NDArray[np.int64], most_R: NDArray[np.int64]) -> list[list[int]]:
        """At most so many tokens for each slot. Rows that have rules are let be: what they may say depends on what
        they said."""
        batch, found = self.batch, [list[int]() for _ in rows_R]
        active = np.flatnonzero(~batch.ruled[rows_R])
        if not len(active):
            return found
        slots = rows_R[active]
        new_S = batch.new[slots]
        order_N, step_N = counted(np.arange(len(slots)), new_S - 1)
        slot_N, back_N = slots[order_N], new_S[order_N] - step_N
        states_ND = batch.states_at(batch.at[slot_N] + step_N)
        tokens_N = batch.out_tokens[slot_N, batch.said[slot_N] - back_N]
        ahead_ND = self._extend(states_ND, tokens_N, batch.lengths[slot_N] - back_N, order_N, batch.tables[slots])
        ahead_SD, step = self._picked(ahead_ND, new_S.cumsum() - 1), 0
        while len(more := np.flatnonzero(most_R[active] > step)):
            active, slots, ahead_SD = active[more], slots[more], self._picked(ahead_SD, more)
            if step:  # what it made of the state before stands for the state that is not known yet
                guessed_S = np.array([found[place][-1] for place in active])
                numbers_S, positions_S = np.arange(len(slots)), batch.lengths[slots] + step - 1
                ahead_SD = self._extend(ahead_SD, guessed_S, positions_S, numbers_S, batch.tables[slots])
            for place, guess in zip(active, self._draw(ahead_SD, slots, step).tolist(), strict=True):
                found[place].append(guess)
            step += 1
        return found

    def _picked(self, x: Tensor, places: NDArray[np.int64]) -> Tensor:
        return x.index_select(0, torch.from_numpy(places).to(self.batch.device))

    def _draw(self, ahead_SD: Tensor, slots: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        batch = self.batch
        logp_SV = batch._distribution(batch.logits(ahead_SD), slots)
        uniform_S = uniforms(batch.seeds[slots], (batch.said[slots] + step).astype(np.uint64))
        return draw(logp_SV, torch.from_numpy(uniform_S).to(batch.device)).cpu().numpy()

    def _extend(
        self, states_ND: Tensor, tokens_N: NDArray[np.int64], positions_N: NDArray[np.int64],
        rows_N: NDArray[np.int64], tables_BP: NDArray[np.int64], vectors: dict[int, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        batch = self.batch
        chunk = batch.chunk(np.maximum(tokens_N, 0), positions_N, rows_N, tables_BP)
        return batch.model.extend_ahead(states_ND, chunk, batch.pages, batch.ops, batch.embedded(tokens_N, vectors))
