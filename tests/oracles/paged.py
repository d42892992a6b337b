"""Chunks of tokens over pages, as an engine would lay them out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seekling.model.config import ModelConfig
from seekling.model.ops import Ops, Plain
from seekling.model.pages import Chunk, Pages, pages_for

PLAIN: Ops = Plain()


def pool(config: ModelConfig, rows: int, room: int, dtype: torch.dtype = torch.float32) -> tuple[Pages, torch.Tensor]:
    """Pages for ``rows`` texts of ``room`` tokens, and their tables, the pages of a row not side by side."""
    width = pages_for(room)
    pages = Pages(config, rows * width, dtype=dtype, device=torch.device("cpu"))
    return pages, torch.arange(rows * width).view(width, rows).T.flip(0).contiguous()


def chunk_of(texts: Sequence[Sequence[int]], before: Sequence[int], tables_BP: torch.Tensor) -> Chunk:
    """New tokens of each row behind the ``before`` it has."""
    counts = torch.tensor([len(text) for text in texts])
    rows_N = torch.arange(len(texts)).repeat_interleave(counts)
    positions_N = torch.cat([torch.arange(len(text)) + start for text, start in zip(texts, before, strict=True)])
    tokens_N = torch.tensor([token for text in texts for token in text])
    return Chunk.of(tokens_N, positions_N, rows_N, tables_BP, torch.device("cpu"))
