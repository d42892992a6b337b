"""Rows that are sampled together: requests at different places in their answers, which come and go at any step.

waiting requests take the free slots -> tokens are drawn for every row -> finished rows leave -> the others are read on

A row has one state, which chooses one token; or, where tokens were drafted and read behind its last one, a state each.
The first state's token is drawn; if it is the draft, the next state chooses the one after it, and so on. So a row says
what it would say undrafted, whoever drafts (engine/drafting.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.engine.config import Sampling
from seekling.engine.requests import Finished, Likeliest, Request, Row
from seekling.engine.sampler import distribution, draw, uniforms
from seekling.errors import UserError
from seekling.model.decoder import Decoder
from seekling.records import Stop

SLOT = np.dtype([
    ("owner", np.int64),  # number of its request, -1 where free
    ("seeds", np.uint64),
    ("said", np.int64),  # tokens sampled so far
    ("limits", np.int64),  # and at most
    ("kinds", np.int64),  # how they are drawn
    ("ruled", np.bool_),  # whether rules hold
    ("lengths", np.int64),  # cache entries; of drafts, those that were said
    ("at", np.int64),  # where its states begin among ``states``
    ("drafted", np.int64),  # tokens that were read behind its last one
    ("new", np.int64),  # tokens that the last step added
    ("entered", np.int64),  # the later, the younger
    ("tells", np.bool_),  # whether its completion says what the model made of its tokens
    ("keeps", np.bool_),  # and what they were drawn from
])  # fmt: skip
"""What is known of a slot of the running batch."""


class Batch:
    """The slots of the running batch: a table of them, whose columns are attributes, and the states that choose next.

    Who enters, and how rows are read on, is left to those who have a cache.
    """

    owner: NDArray[np.int64]
    seeds: NDArray[np.uint64]
    said: NDArray[np.int64]
    limits: NDArray[np.int64]
    kinds: NDArray[np.int64]
    ruled: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    at: NDArray[np.int64]
    drafted: NDArray[np.int64]
    new: NDArray[np.int64]
    entered: NDArray[np.int64]
    tells: NDArray[np.bool_]
    keeps: NDArray[np.bool_]

    def __init__(self, model: Decoder, sampling: Sampling, stop_tokens: Collection[int]) -> None:
        self.model, self.sampling, self.stop_tokens = model, sampling, tuple(stop_tokens)
        weight = model.embed_tokens.weight
        self.device = weight.device
        self.rows: dict[int, Row] = {}  # of all who wait or run
        self.waiting: deque[int] = deque()
        self.finished: list[Finished] = []
        self.num_asked = self.most_tokens = 0
        self._kinds: dict[tuple[float, ...], int] = {}
        self._samplings: dict[int, Sampling] = {}
        self._lay(np.zeros(0, SLOT))
        self.out_tokens = np.zeros((0, 0), np.int64)
        self.out_logps = np.zeros((0, 0), np.float32)
        self.drafts = np.zeros((0, sampling.drafts), np.int64)
        self.states = torch.zeros(0, model.config.hidden_size, dtype=weight.dtype, device=self.device)

    # --- asking -------------------------------------------------------------------------------------------------------

    def add(self, request: Request) -> int:
        """Ask for another answer; its number. Raises UserError for one that cannot be given, and leaves all else."""
        row = Row.of(request, self.sampling, self.model.config)
        self._refuse(row)
        number, self.num_asked = self.num_asked, self.num_asked + 1
        self.rows[number], self.most_tokens = row, max(self.most_tokens, row.limit)
        self.waiting.append(number)
        self._want(number)
        return number

    def drop(self, number: int) -> None:
        """Its answer is not wanted any more."""
        if number in self.waiting:
            self.waiting.remove(number)
            self._forgo(number)
        for slot in np.flatnonzero(self.owner == number):
            self._let_go(int(slot))
        self.rows.pop(number, None)

    def busy(self) -> bool:
        """Whether anyone waits, runs, or has not been told that they failed."""
        return bool(self.rows or self.finished)

    def said_by(self, number: int) -> list[int]:
        """What a request has said so far; who makes room for others is silent until it runs again."""
        for slot in np.flatnonzero(self.owner == number):
            tokens: list[int] = self.out_tokens[slot, : self.said[slot]].tolist()
            return tokens
        return []

    def _refuse(self, row: Row) -> None:
        """Raises UserError for what a cache cannot hold."""

    def _want(self, number: int) -> None:
        """A request has begun to wait."""

    def _forgo(self, number: int) -> None:
        """A request waits no longer, and does not run."""

    # --- a step -------------------------------------------------------------------------------------------------------

    def advance(self) -> list[Finished]:
        """A token, or several, for every running row. Returns the requests that finished with it."""
        self.admit()
        if len(running := self.running()):
            self._choose(running)
            if len(left := self.running()):
                self._decode(left)
            else:
                self.states = self.states[:0]
        finished, self.finished = self.finished, []
        return finished

    def running(self) -> NDArray[np.int64]:
        """The slots at work: [R]."""
        return np.flatnonzero(self.owner >= 0)

    def admit(self) -> None:
        """Let waiting requests in."""
        raise NotImplementedError

    def _choose(self, rows_R: NDArray[np.int64]) -> None:
        """Draw on from each row's states as long as they are those of what was drawn; who has ended leaves."""
        slot_M, step_M = counted(rows_R, self.drafted[rows_R])
        logits_MV = self.logits(self.states_at(self.at[slot_M] + step_M))
        told = self._told(logits_MV, slot_M)
        stuck = self._hear_rules(logits_MV, slot_M)
        logp_MV = self._distribution(logits_MV, slot_M)
        chosen_M, logp_M = self._draw(logp_MV, slot_M, step_M)
        self.new[rows_R] = 1 if len(slot_M) == len(rows_R) else self._accepted(rows_R, slot_M, step_M, chosen_M)
        came_M = step_M < self.new[slot_M]
        self._write(slot_M[came_M], step_M[came_M], chosen_M[came_M], logp_M[came_M])
        self._note(told, logp_MV, slot_M, came_M, chosen_M)
        self.said[rows_R] += self.new[rows_R]
        self.lengths[rows_R] += self.new[rows_R] - 1
        for slot, why in stuck:
            self._fail(slot, why)
        last_R = self.out_tokens[rows_R, self.said[rows_R] - 1]
        ended_R = self._stops(last_R) | (self.said[rows_R] >= self.limits[rows_R])
        ended_R |= self._ended_by_rules(rows_R)
        for slot in rows_R[ended_R & (self.owner[rows_R] >= 0)]:
            self._leave(int(slot))

    def logits(self, states_MD: Tensor) -> Tensor:
        """What states make of the vocabulary: [M, V]."""
        return self.model.logits(states_MD)

    def states_at(self, places_M: NDArray[np.int64]) -> Tensor:
        """These of the states: [M, D]."""
        if len(places_M) == len(self.states) and (places_M == np.arange(len(places_M))).all():
            return self.states
        return self.states.index_select(0, torch.from_numpy(places_M).to(self.device))

    def _distribution(self, logits_MV: Tensor, slot_M: NDArray[np.int64]) -> Tensor:
        """Log-probabilities [M, V] that each row's own sampling draws from."""
        kinds_M = self.kinds[slot_M]
        if (kinds_M == kinds_M[0]).all():
            return distribution(logits_MV, self._samplings[kinds_M[0]])
        logp_MV = torch.empty(logits_MV.shape, device=self.device)
        for kind in np.unique(kinds_M):
            where = torch.from_numpy(np.flatnonzero(kinds_M == kind)).to(self.device)
            logp_MV[where] = distribution(logits_MV[where], self._samplings[kind])
        return logp_MV

    def _draw(
        self, logp_MV: Tensor, slot_M: NDArray[np.int64], step_M: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The token each state chooses, by its row's seed and place, and its log-probability."""
        places_M = (self.said[slot_M] + step_M).astype(np.uint64)
        uniform_M = torch.from_numpy(uniforms(self.seeds[slot_M], places_M)).to(self.device)
        chosen_M = draw(logp_MV, uniform_M)
        logp_M = logp_MV.gather(1, chosen_M.unsqueeze(1)).squeeze(1)
        return chosen_M.cpu().numpy(), logp_M.cpu().numpy()

    def _accepted(
        self, rows_R: NDArray[np.int64], slot_M: NDArray[np.int64], step_M: NDArray[np.int64],
        chosen_M: NDArray[np.int64],
    ) -> NDArray[np.int64]:  # fmt: skip
        """How many tokens each row has drawn: up to the first that is not its draft, or that ends it."""
        chosen_BK = np.full((len(self.owner), self.drafts.shape[1] + 1), -1)
        chosen_BK[slot_M, step_M] = chosen_M
        chosen_RK, drafted_R = chosen_BK[rows_R, :-1], self.drafted[rows_R]
        accepted_RK = (chosen_RK == self.drafts[rows_R]) & (np.arange(chosen_RK.shape[1]) < drafted_R[:, None])
        accepted_R: NDArray[np.int64] = (accepted_RK & ~self._stops(chosen_RK)).cumprod(1).sum(1)
        for slot, drafted, accepted in zip(rows_R, drafted_R.tolist(), accepted_R.tolist(), strict=True):
            row = self._of(slot)
            row.drafted, row.accepted = row.drafted + drafted, row.accepted + accepted
        return accepted_R + 1

    def _stops(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (tokens[..., None] == np.array(self.stop_tokens, np.int64)).any(-1)
        return found

    def _write(
        self, slot_K: NDArray[np.int64], step_K: NDArray[np.int64], tokens_K: NDArray[np.int64],
        logp_K: NDArray[np.float32],
    ) -> None:  # fmt: skip
        places_K = self.said[slot_K] + step_K
        self.out_tokens[slot_K, places_K], self.out_logps[slot_K, places_K] = tokens_K, logp_K

    # --- what single requests ask for ---------------------------------------------------------------------------------

    def _of(self, slot: int) -> Row:
        return self.rows[int(self.owner[slot])]

    def _hear_rules(self, logits_MV: Tensor, slot_M: NDArray[np.int64]) -> list[tuple[int, UserError]]:
        """Let rules speak. Returns the slots whose rules leave nothing to say, and why."""
        stuck = []
        for place in np.flatnonzero(self.ruled[slot_M]):
            row, logits_V = self._of(slot_M[place]), logits_MV[place].float()
            try:  # rules may be anybody's: whatever they raise, others must not notice
                for rule in row.request.rules:
                    rule.limit(row.said, logits_V)
                if not logits_V.isfinite().any():
                    why = "; ".join(filter(None, (rule.trouble() for rule in row.request.rules)))
                    raise UserError(
                        "what a request asks of its tokens leaves none that may come next", where=why,
                        next_step="Forbid less, or let the grammar end or go on where it stood.",
                    )  # fmt: skip
            except Exception as error:
                stuck.append((int(slot_M[place]), as_letter(error)))
            else:
                logits_MV[place] = logits_V
        return stuck

    def _ended_by_rules(self, rows_R: NDArray[np.int64]) -> NDArray[np.bool_]:
        ended_R = np.zeros(len(rows_R), np.bool_)
        for place in np.flatnonzero(self.ruled[rows_R] & (self.owner[rows_R] >= 0)):
            slot = rows_R[place]
            row = self._of(slot)
            row.said.append(int(self.out_tokens[slot, self.said[slot] - 1]))
            try:
                row.is_ended = ended_R[place] = any(rule.ends(row.said) for rule in row.request.rules)
            except Exception as error:
                self._fail(int(slot), as_letter(error))
        return ended_R

    def _told(self, logits_MV: Tensor, slot_M: NDArray[np.int64]) -> dict[int, Tensor]:
        """The scores of those who want to be told, as they are before any rule."""
        return {int(place): logits_MV[place].clone() for place in np.flatnonzero(self.tells[slot_M])}

    def _note(
        self, told: dict[int, Tensor], logp_MV: Tensor, slot_M: NDArray[np.int64], came_M: NDArray[np.bool_],
        chosen_M: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Write down what completions say of how their tokens came about."""
        for where, logits_V in told.items():
            row = self._of(slot_M[where])
            if came_M[where] and row.told is not None:
                row.told.append(Likeliest.of(logits_V[None], [int(chosen_M[where])], row.request.likeliest or 0))
        for place in np.flatnonzero(came_M & self.keeps[slot_M]):
            if (kept := self._of(slot_M[place]).kept) is not None:
                kept.append(np.flatnonzero(logp_MV[place].isfinite().cpu().numpy()))

    # --- entering and leaving -----------------------------------------------------------------------------------------

    def _begin(self, slot: int, number: int, entries: int) -> None:
        """Give a slot to a request of which the cache holds ``entries`` tokens."""
        row = self.rows[number]
        self.table[slot] = (
            number, row.request.seed, 0, row.limit, self._kind(row.sampling), bool(row.request.rules), entries, 0, 0, 0,
            self.entered.max() + 1, row.told is not None, row.kept is not None,
        )  # fmt: skip

    def _kind(self, sampling: Sampling) -> int:
        """The number of a way to draw; those that no row has any more are given anew."""
        way = (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p)
        if way not in self._kinds:
            used = set(self.kinds[self.running()].tolist())
            self._kinds = {known: kind for known, kind in self._kinds.items() if kind in used}
            self._kinds[way] = next(kind for kind in range(len(used) + 1) if kind not in used)
            self._samplings[self._kinds[way]] = sampling
        return self._kinds[way]

    def _decode(self, rows_R: NDArray[np.int64]) -> None:
        """Read each running row's last token, so that its state chooses the next."""
        raise NotImplementedError

    def _routes(self, slot: int) -> NDArray[np.int16] | None:
        """Where the tokens that a slot has read went; None: the model routes nothing."""
        return None

    def _let_go(self, slot: int) -> None:
        """A slot is free."""
        self.owner[slot] = -1

    def _fail(self, slot: int, why: UserError) -> None:
        number = int(self.owner[slot])
        self._let_go(slot)
        del self.rows[number]
        self.finished.append((number, why))

    def _leave(self, slot: int) -> None:
        number, row, tokens = int(self.owner[slot]), self._of(slot), self.out_tokens[slot, : self.said[slot]]
        stop = Stop.STOP if row.is_ended or int(tokens[-1]) in self.stop_tokens else Stop.LENGTH
        logps = self.out_logps[slot, : self.said[slot]].copy()
        self.finished.append((number, row.completion(tuple(tokens.tolist()), logps, stop, self._routes(slot))))
        self._let_go(slot)
        del self.rows[number]

    def swap(self, model: Decoder, why: UserError) -> None:
        """The weights are ``model``'s now: who has been read with others fails. Raises UserError, and changes nothing,
        for a model that is not alike."""
        old, new = self.model.embed_tokens.weight, model.embed_tokens.weight
        if (model.config, new.dtype, new.device) != (self.model.config, old.dtype, old.device):
            raise UserError(
                "a model of another shape, precision or device was loaded while a session was open",
                next_step="Open a new session for it.",
            )
        self.model = model
        for slot in self.running():
            self._fail(int(slot), why)

    # --- slots --------------------------------------------------------------------------------------------------------

    def _lay(self, table: NDArray[np.void]) -> None:
        self.table = table
        for name in SLOT.names or ():
            setattr(self, name, table[name])

    def _arrange(self, slots: Iterable[int]) -> None:
        """Forget every slot but these, which come in this order; -1 is a new one."""
        places = np.fromiter(slots, np.int64)
        self._lay(taken(self.table, places))
        self.owner[places < 0] = -1
        self.out_tokens, self.out_logps, self.drafts = (
            taken(x, places) for x in (self.out_tokens, self.out_logps, self.drafts)
        )

    def _widen(self) -> None:
        """Slots for all who are asked, up to the most, and room for what each may say."""
        slots = min(self.sampling.max_rows, len(self.rows))
        if slots > len(self.owner):
            self._arrange([*range(len(self.owner)), *[-1] * (slots - len(self.owner))])
        self._lengthen()

    def _lengthen(self) -> None:
        if (lacking := self.most_tokens - self.out_tokens.shape[1]) > 0:
            more = (0, 0), (0, lacking)
            self.out_tokens, self.out_logps = np.pad(self.out_tokens, more), np.pad(self.out_logps, more)


def as_letter(error: Exception) -> UserError:
    """What a rule raised, as a request ends with it."""
    if isinstance(error, UserError):
        return error
    letter = UserError(f"a rule of a request failed: {error!r}", next_step="Mend the rule, or ask without it.")
    letter.__cause__ = error
    return letter


def taken(x: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """``x`` at these places; nothing at those below 0."""
    found = np.zeros((len(places), *x.shape[1:]), x.dtype)
    found[places >= 0] = x[places[places >= 0]]
    return found


def counted(rows_R: NDArray[np.int64], more_R: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each row 1 + ``more`` times, and the how-many-eth time it is, from 0: [M] both."""
    if not more_R.any():
        return rows_R, np.zeros(len(rows_R), np.int64)
    count_R = more_R + 1
    ends_R = count_R.cumsum()
    return np.repeat(rows_R, count_R), np.arange(ends_R[-1]) - np.repeat(ends_R - count_R, count_R)
