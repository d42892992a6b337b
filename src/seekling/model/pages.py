"""What requests have been read into: a pool of pages, and the tokens that one pass adds to it.

A page holds ``SLOTS`` tokens of one request, in all layers; requests whose texts begin alike share the pages of their
beginning. Which pages are whose is the engine's business (``engine/paging.py``); here they are numbers in a table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seekling.model.config import ModelConfig

SLOTS = 16
"""Tokens of a page: one vector of scores (kernels.c)."""


def pages_for(tokens: int) -> int:
    """Pages that so many tokens fill, the last one in part."""
    return -(-tokens // SLOTS)


Layer = tuple[Tensor, ...]
"""One layer's pages."""


class Pages:
    """The pool of every layer: ``layers[l]`` are the tensors of R pages.

    GQA: keys [R, J, K, S], transposed so that a page's scores are one product, and values [R, J, S, K]. MLA: one
    latent with its rotated key [R, S, W].
    """

    def __init__(
        self, config: ModelConfig, num_pages: int, *, dtype: torch.dtype, device: torch.device, ahead: bool = False
    ) -> None:
        """With ``ahead`` a layer more, for the prediction layer."""
        self.config, self.dtype, self.device = config, dtype, device
        self.layers = [self._empty(num_pages) for _ in range(config.num_hidden_layers + ahead)]

    @property
    def count(self) -> int:
        """Pages in the pool."""
        return len(self.layers[0][0])

    def grow(self, num_pages: int) -> None:
        """Make room for more."""
        more = num_pages - self.count
        for place, layer in enumerate(self.layers):
            self.layers[place] = tuple(torch.cat(pair) for pair in zip(layer, self._empty(more), strict=True))

    def copy(self, sources: list[int], targets: list[int]) -> None:
        """Copy whole pages: a beginning that ends within a page is shared up to there."""
        from_, to = (torch.tensor(numbers, device=self.device) for numbers in (sources, targets))
        for layer in self.layers:
            for part in layer:
                part.index_copy_(0, to, part.index_select(0, from_))

    def _empty(self, count: int) -> Layer:
        c = self.config
        if c.parts.attention == "mla":
            shapes: tuple[tuple[int, ...], ...] = ((count, SLOTS, c.cache_width),)
        else:
            heads, width = c.kv_heads, c.qk_head_dim
            shapes = (count, heads, width, SLOTS), (count, heads, SLOTS, width)
        return tuple(self._zeros(shape) for shape in shapes)

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        """On a CPU memory that the system gives as it is written to: what no token fills takes no room."""
        if self.device.type != "cpu":
            return torch.zeros(shape, dtype=self.dtype, device=self.device)
        size = (*shape[:-1], shape[-1] * self.dtype.itemsize)
        return torch.from_numpy(np.zeros(size, np.uint8)).view(self.dtype)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens that one pass reads, those of a row (a request) side by side and in order; int64 all.

    ``tokens_N`` ids, ``positions_N`` in their texts, ``places_N`` where their entries go (page * SLOTS + slot),
    ``rows_N`` the row of each; ``starts`` [B+1] where rows begin, ``tables_BP`` the pages of each row, as many as the
    longest has filled after this pass.
    """

    tokens_N: Tensor
    positions_N: Tensor
    places_N: Tensor
    rows_N: Tensor
    starts: Tensor
    tables_BP: Tensor

    @classmethod
    def of(
        cls, tokens_N: Tensor, positions_N: Tensor, rows_N: Tensor, tables_BP: Tensor, device: torch.device
    ) -> Chunk:
        """Lay out tokens by their rows' tables. What is given is int64 on the CPU; what is made is on ``device``.

        By numpy, whose calls are short beside a step of few rows.
        """
        positions, rows, tables = positions_N.numpy(), rows_N.numpy(), tables_BP.numpy()
        tables = np.ascontiguousarray(tables[:, : pages_for(int(positions.max()) + 1)])
        places = tables[rows, positions // SLOTS] * SLOTS + positions % SLOTS
        starts = rows.searchsorted(np.arange(len(tables) + 1))
        made = torch.from_numpy(places), rows_N, torch.from_numpy(starts), torch.from_numpy(tables)
        return cls(*(x.to(device) for x in (tokens_N, positions_N, *made)))
