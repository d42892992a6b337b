"""Texts of many lengths laid into rows of one: packing that no loss can notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.errors import UserError
from seekling.learn.config import Gaps
from seekling.learn.lanes import Lanes
from seekling.model.decoder import Rows
from seekling.records import Kept, Rollout


@dataclass(frozen=True, slots=True)
class Text:
    """One sequence to learn from. ``weight`` [T]: how much predicting token t counts (0: given, not learned).

    ``values`` are further numbers per token [T] (advantage, behaviour log-probability); ``routes`` [>=T-1, L, A] the
    experts a sampler used for each input position, or None; ``kept`` what a truncated one drew each token from.
    """

    tokens: Sequence[int]
    weight: NDArray[np.float32]
    values: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    routes: NDArray[np.int16] | None = None
    kept: Kept | None = None


def text_of(rollout: Rollout, *, replay: bool = True) -> Text:
    """Prompt and answer as one text; what was said is learned. The reference is the sampler until it is measured.

    Without ``replay`` the learner is not told the sampler's routes.
    """
    given = len(rollout.prompt)
    said = np.r_[np.zeros(given), np.ones(len(rollout.tokens))].astype(np.float32)
    behaviour = np.r_[np.zeros(given, np.float32), rollout.logps]
    values = {"behaviour": behaviour, "reference": behaviour}
    return Text((*rollout.prompt, *rollout.tokens), said, values, rollout.routes if replay else None, rollout.kept)


@dataclass(frozen=True, slots=True)
class KeptIds:
    """Which ids each of B T predictions may be one of: ``ids[ends[n-1]:ends[n]]``; an empty range means all."""

    ids: Tensor
    ends: Tensor

    def cut(self, start: int, end: int) -> KeptIds:
        """Those of predictions ``start`` to ``end``."""
        first, last = (int(self.ends[place - 1]) if place else 0 for place in (start, end))
        return KeptIds(self.ids[first:last], self.ends[start:end] - first)

    def to(self, device: torch.device) -> KeptIds:
        """The same on another device."""
        return KeptIds(self.ids.to(device), self.ends.to(device))


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows; every tensor [B, T] at position t speaks about predicting ``targets_BT`` = the next token."""

    rows: Rows
    targets_BT: Tensor
    weight_BT: Tensor
    values: Mapping[str, Tensor]
    routes: tuple[Tensor, ...] = ()
    kept: KeptIds | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.rows.segments_BT > 0).sum())

    def passes(self, count: int) -> Iterator[Batch]:
        """The same batch in at most ``count`` slices of rows as equal as can be (micro-batches)."""
        num_rows = len(self.targets_BT)
        count = min(count, num_rows)
        ends = [num_rows * place // count for place in range(count + 1)]
        for start, end in pairwise(ends):
            yield self._rows(start, end)

    def _rows(self, start: int, end: int) -> Batch:
        length = self.targets_BT.shape[1]
        rows, flat = slice(start, end), slice(start * length, end * length)
        return Batch(
            Rows(self.rows.tokens_BT[rows], self.rows.positions_BT[rows], self.rows.segments_BT[rows]),
            self.targets_BT[rows],
            self.weight_BT[rows],
            {name: value[rows] for name, value in self.values.items()},
            tuple(route_NA[flat] for route_NA in self.routes),
            self.kept.cut(flat.start, flat.stop) if self.kept else None,
        )

    def share(self, rank: int, size: int) -> Batch:
        """The rows of one of ``size`` processes, as many for each: where they do not go round, empty ones are added."""
        if size == 1:
            return self
        num_rows = len(self.targets_BT)
        own = self._rows(*_ends(num_rows, rank, size))
        return own._with_empty_rows(-(-num_rows // size) - len(own.targets_BT))

    def _with_empty_rows(self, count: int) -> Batch:
        if not count:
            return self
        length = self.targets_BT.shape[1]

        def more(tensor: Tensor, rows: int = count) -> Tensor:
            return torch.cat([tensor, tensor.new_zeros(rows, *tensor.shape[1:])])

        kept = self.kept
        if kept is not None:
            kept = KeptIds(kept.ids, torch.cat([kept.ends, kept.ends.new_full((count * length,), len(kept.ids))]))
        return Batch(
            Rows(more(self.rows.tokens_BT), more(self.rows.positions_BT), more(self.rows.segments_BT)),
            more(self.targets_BT),
            more(self.weight_BT),
            {name: more(value) for name, value in self.values.items()},
            tuple(more(route_NA, count * length) for route_NA in self.routes),
            kept,
        )

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        rows = Rows(*(t.to(device) for t in (self.rows.tokens_BT, self.rows.positions_BT, self.rows.segments_BT)))
        values = {name: value.to(device) for name, value in self.values.items()}
        routes = tuple(route.to(device) for route in self.routes)
        kept = self.kept.to(device) if self.kept else None
        return Batch(rows, self.targets_BT.to(device), self.weight_BT.to(device), values, routes, kept)


def _ends(num_rows: int, rank: int, size: int) -> tuple[int, int]:
    """Where one of ``size`` shares of rows, as equal as can be, begins and ends."""
    return num_rows * rank // size, num_rows * (rank + 1) // size


def in_world(of: Callable[[Batch], Tensor], batch: Batch, passes: int, lanes: Lanes) -> Tensor:
    """``of`` a batch [B, ...], each process taking its share of the rows and its lanes working on ``passes`` slices."""
    rank, size, num_rows = lanes.world.rank, lanes.world.size, len(batch.targets_BT)
    own = batch.share(rank, size)
    stacked = lanes.world.stacked(torch.cat(lanes.map(of, own.passes(passes))))
    if size == 1:
        return stacked
    shares = stacked.view(size, len(own.targets_BT), *stacked.shape[1:])
    ends = [_ends(num_rows, rank, size) for rank in range(size)]
    return torch.cat([share[: end - start] for share, (start, end) in zip(shares, ends, strict=True)])


def spread(batch: Batch, gaps: Gaps, limit: int, seed: int) -> Batch:
    """The same batch with random gaps between the positions of each text; none reaches ``limit``. Pure in ``seed``."""
    if not gaps.share:
        return batch
    rng, positions_BT = np.random.default_rng(seed), batch.rows.positions_BT.numpy()
    gap_BT = (rng.random(positions_BT.shape) < gaps.share) * rng.integers(1, gaps.longest + 1, positions_BT.shape)
    total_BT = gap_BT.cumsum(1)
    before_BT = np.maximum.accumulate(np.where(positions_BT == 0, total_BT, 0), 1)  # gaps of the row's earlier texts
    spread_BT = np.minimum(positions_BT + total_BT - before_BT, limit - 1)
    return replace(batch, rows=replace(batch.rows, positions_BT=torch.from_numpy(spread_BT)))


def first_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Indices per row: each text goes, longest first, into the first row with room for it."""
    rows: list[list[int]] = []
    left: list[int] = []
    first_open = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        row = next((r for r in range(first_open, len(rows)) if left[r] >= length), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(room)
        rows[row].append(index)
        left[row] -= length
        while first_open < len(rows) and left[first_open] < 2:
            first_open += 1
    return rows


def narrowest(texts: Sequence[Text], row_tokens: int) -> int:
    """The width of rows that wastes least, in tokens: ``row_tokens``, or the longest text's where hardly two share one.

    Never more than ``row_tokens``, so that ``pack`` refuses a longer text.
    """
    lengths = [len(text.tokens) for text in texts]
    longest = max(lengths)
    step = 2 ** max(0, longest.bit_length() - 6)  # few widths, for kernels made for each; a thirty-second is wasted
    longest = -(-longest // step) * step
    if longest >= row_tokens:
        return row_tokens
    return min((row_tokens, longest), key=lambda width: width * len(first_fit(lengths, width)))


def layout(lengths: Sequence[int], row_tokens: int, together: int = 1) -> list[tuple[int, int, int]]:
    """Row, first position and segment of each text, in the order of ``lengths``.

    Each run of ``together`` texts stands side by side in one row.
    """
    places = [(0, 0, 0)] * len(lengths)
    runs = [range(first, first + together) for first in range(0, len(lengths), together)]
    for row, members in enumerate(first_fit([sum(lengths[i] for i in run) for run in runs], row_tokens)):
        start = 0
        for segment, index in enumerate((i for member in members for i in runs[member]), 1):
            places[index] = (row, start, segment)
            start += lengths[index]
    return places


def unpack(value_BT: Tensor, lengths: Sequence[int]) -> list[NDArray[np.float32]]:
    """What ``pack`` laid out, text by text again: entry t is about predicting token t, entry 0 is 0."""
    values, row_tokens = value_BT.float().cpu().numpy(), value_BT.shape[1]
    found = []
    for (row, start, _), length in zip(layout(lengths, row_tokens), lengths, strict=True):
        found.append(np.r_[np.zeros(1, np.float32), values[row, start : start + length - 1]])
    return found


def pack(texts: Sequence[Text], row_tokens: int, together: int = 1) -> Batch:
    """Lay texts into rows of ``row_tokens``, each run of ``together`` into one row, whole.

    Raises UserError when one is longer than a row.
    """
    lengths = [len(text.tokens) for text in texts]
    longest = max(sum(lengths[first : first + together]) for first in range(0, len(lengths), together))
    if longest > row_tokens:
        raise UserError(
            f"a text of {longest} tokens does not fit a row of {row_tokens}"
            if together == 1
            else f"{together} texts that belong together have {longest} tokens and do not fit a row of {row_tokens}",
            next_step=f"Set packing.row_tokens to at least {longest}.",
        )
    places = layout(lengths, row_tokens, together)
    shape = (1 + max(row for row, _, _ in places), row_tokens)
    ids = {name: np.zeros(shape, np.int64) for name in ("tokens", "positions", "segments", "targets")}
    names = texts[0].values.keys()
    floats = {name: np.zeros(shape, np.float32) for name in ("weight", *names)}
    first_routes = texts[0].routes
    routes = np.zeros((*shape, *first_routes.shape[1:]), np.int64) if first_routes is not None else None
    for text, (row, start, segment), length in zip(texts, places, lengths, strict=True):
        here, shifted = slice(start, start + length), slice(start, start + length - 1)
        ids["tokens"][row, here] = text.tokens
        ids["positions"][row, here] = np.arange(length)
        ids["segments"][row, here] = segment
        ids["targets"][row, shifted] = text.tokens[1:]
        floats["weight"][row, shifted] = text.weight[1:]
        for name in names:
            floats[name][row, shifted] = text.values[name][1:]
        if routes is not None and text.routes is not None:
            routes[row, shifted] = text.routes[: length - 1]
    tensors = {name: torch.from_numpy(array) for name, array in (ids | floats).items()}
    layers = torch.from_numpy(routes).flatten(0, 1).unbind(1) if routes is not None else ()
    return Batch(
        Rows(tensors["tokens"], tensors["positions"], tensors["segments"]),
        tensors["targets"],
        tensors["weight"],
        {name: tensors[name] for name in names},
        tuple(layer.contiguous() for layer in layers),
        _kept_ids(texts, places, shape) if any(text.kept for text in texts) else None,
    )


def _kept_ids(texts: Sequence[Text], places: Sequence[tuple[int, int, int]], shape: tuple[int, int]) -> KeptIds:
    """The texts' kept sets in the order of the batch's predictions."""
    counts_N = np.zeros(shape[0] * shape[1], np.int64)
    ids: list[NDArray[np.int32]] = []
    for text, (row, start, _) in sorted(zip(texts, places, strict=True), key=lambda pair: pair[1]):
        if text.kept is not None:
            first = row * shape[1] + start + len(text.tokens) - len(text.kept.ends) - 1
            counts_N[first : first + len(text.kept.ends)] = np.diff(text.kept.ends, prepend=0)
            ids.append(text.kept.ids)
    return KeptIds(torch.from_numpy(np.concatenate(ids)).long(), torch.from_numpy(counts_N.cumsum()))
