"""A teacher's distributions on disk: written once, read at random, every byte of them known by its checksum.

A piece is the teacher's answers to a few problems, one record for each token that it said: its likeliest ids, their
log-probabilities, and the logarithm of what all other tokens hold together. A piece has a seal beside it, written after
it; so what a crash cut off is no piece, and one that differs from its seal is damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seekling.errors import UserError
from seekling.learn.taught import TopK
from seekling.runlog.files import read_json, write_atomic, write_json

SHORT = 2**16
"""Vocabularies up to so many ids have ids of two bytes."""


def record(top_k: int, width: int) -> np.dtype[Any]:
    """One token: ``top_k`` ids below ``width``, their log-probabilities in float16, and that of the rest."""
    kind = np.uint16 if width <= SHORT else np.int32
    return np.dtype([("ids", kind, (top_k,)), ("logps", np.float16, (top_k,)), ("rest", np.float16)])


class Store:
    """The pieces in a folder. ``width``: how many ids a distribution is over."""

    def __init__(self, folder: Path, top_k: int, width: int, warn: Callable[[str], None]) -> None:
        self.folder, self.top_k, self.width, self.warn = folder, min(top_k, width - 1), width, warn
        self.record = record(self.top_k, width)
        self._pieces: dict[int, NDArray[Any]] = {}

    @property
    def bytes_per_token(self) -> int:
        """Bytes of a token that was said."""
        return self.record.itemsize

    def holds(self, piece: int, count: int) -> bool:
        """Whether a piece of ``count`` tokens is there, to the byte. A damaged one is told aloud, to be made again."""
        if not self._seal(piece).exists():
            return False
        try:
            sound = bool(read_json(self._seal(piece)) == self._sealed(count, self._file(piece).read_bytes()))
        except (OSError, UserError):
            sound = False
        if not sound:
            self.warn(f"{self._file(piece)} is damaged: the teacher is asked about these texts again")
        return sound

    def write(self, piece: int, rows: NDArray[np.float32]) -> None:
        """Keep what was told of each token [N, 2 K + 1], as ``learn.taught.told_by`` tells it."""
        records = np.zeros(len(rows), self.record)
        records["ids"], records["logps"] = rows[:, : self.top_k], rows[:, self.top_k : -1]
        records["rest"] = rows[:, -1]
        data = records.tobytes()
        self._seal(piece).unlink(missing_ok=True)
        self._pieces.pop(piece, None)
        write_atomic(self._file(piece), data)
        write_json(self._seal(piece), self._sealed(len(rows), data))

    def read(self, stretches: Sequence[tuple[int, int, int]]) -> TopK:
        """What was told of stretches of tokens (piece, first, end), one after the other."""
        found = np.concatenate([self._opened(piece)[start:end] for piece, start, end in stretches])
        ids, logps, rest = (torch.from_numpy(found[name].copy()) for name in self.record.names or ())
        return TopK(ids.int(), logps, rest, self.width)

    def _opened(self, piece: int) -> NDArray[Any]:
        if piece not in self._pieces:
            self._pieces[piece] = np.memmap(self._file(piece), self.record, "r")
        return self._pieces[piece]

    def _file(self, piece: int) -> Path:
        return self.folder / f"piece-{piece:05d}.bin"

    def _seal(self, piece: int) -> Path:
        return self.folder / f"piece-{piece:05d}.json"

    def _sealed(self, count: int, data: bytes) -> dict[str, Any]:
        return {
            "tokens": count, "top_k": self.top_k, "width": self.width, "bytes_per_token": self.bytes_per_token,
            "bytes": len(data), "sha256": sha256(data).hexdigest(),
        }  # fmt: skip
