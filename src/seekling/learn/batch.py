"""Texts of many lengths laid into rows of one: packing that no loss can notice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.errors import UserError
from seekling.learn.config import Gaps
from seekling.model.decoder import Rows


@dataclass(frozen=True, slots=True)
class Text:
    """One sequence to learn from. ``weight`` [T]: how much predicting token t counts (0: given, not learned).

    ``values`` are further numbers per token [T] (advantage, behaviour log-probability); ``routes`` [>=T-1, L, A] the
    experts a sampler used for each input position, or None.
    """

    tokens: Sequence[int]
    weight: NDArray[np.float32]
    values: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    routes: NDArray[np.int16] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows; every tensor [B, T] at position t speaks about predicting ``targets_BT`` = the next token."""

    rows: Rows
    targets_BT: Tensor
    weight_BT: Tensor
    values: Mapping[str, Tensor]
    routes: tuple[Tensor, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.rows.segments_BT > 0).sum())

    def passes(self, count: int) -> Iterator[Batch]:
        """The same batch in at most ``count`` slices of rows as equal as can be (micro-batches)."""
        num_rows, length = self.targets_BT.shape
        count = min(count, num_rows)
        ends = [num_rows * place // count for place in range(count + 1)]
        for start, end in pairwise(ends):
            rows, flat = slice(start, end), slice(start * length, end * length)
            yield Batch(
                Rows(self.rows.tokens_BT[rows], self.rows.positions_BT[rows], self.rows.segments_BT[rows]),
                self.targets_BT[rows],
                self.weight_BT[rows],
                {name: value[rows] for name, value in self.values.items()},
                tuple(route_NA[flat] for route_NA in self.routes),
            )

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        rows = Rows(*(t.to(device) for t in (self.rows.tokens_BT, self.rows.positions_BT, self.rows.segments_BT)))
        values = {name: value.to(device) for name, value in self.values.items()}
        routes = tuple(route.to(device) for route in self.routes)
        return Batch(rows, self.targets_BT.to(device), self.weight_BT.to(device), values, routes)


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


def pack(texts: Sequence[Text], row_tokens: int) -> Batch:
    """Lay texts into rows of ``row_tokens``. Raises UserError when one is longer than a row."""
    longest = max(len(text.tokens) for text in texts)
    if longest > row_tokens:
        raise UserError(
            f"a text of {longest} tokens does not fit a row of {row_tokens}",
            next_step=f"Set packing.row_tokens to at least {longest}.",
        )
    rows = first_fit([len(text.tokens) for text in texts], row_tokens)
    shape = (len(rows), row_tokens)
    ids = {name: np.zeros(shape, np.int64) for name in ("tokens", "positions", "segments", "targets")}
    names = texts[0].values.keys()
    floats = {name: np.zeros(shape, np.float32) for name in ("weight", *names)}
    first_routes = texts[0].routes
    routes = np.zeros((*shape, *first_routes.shape[1:]), np.int64) if first_routes is not None else None
    for row, members in enumerate(rows):
        start = 0
        for segment, index in enumerate(members, 1):
            text, length = texts[index], len(texts[index].tokens)
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
            start += length
    tensors = {name: torch.from_numpy(array) for name, array in (ids | floats).items()}
    layers = torch.from_numpy(routes).flatten(0, 1).unbind(1) if routes is not None else ()
    return Batch(
        Rows(tensors["tokens"], tensors["positions"], tensors["segments"]),
        tensors["targets"],
        tensors["weight"],
        {name: tensors[name] for name in names},
        tuple(layer.contiguous() for layer in layers),
    )
