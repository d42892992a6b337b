"""Copies among texts: equal ones, and those that share most of their runs of words.

MinHash (Broder 1997) proposes pairs, the true Jaccard similarity decides: so nothing is removed on an estimate, and a
copy is missed with a chance that is known. Runs of five words and a threshold of 0.8 follow Lee et al. 2022
(arXiv 2107.06499).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from seekling.config import Settings
from seekling.curate.words import grams, numbers, words

HASHES = 128
RECALL = 0.999
"""The least chance with which a pair right at the threshold is proposed; of pairs above it, more."""

_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_SEEDS_K = np.arange(1, HASHES + 1, dtype=np.uint64) * _GOLDEN


class Near(Settings):
    """What counts as a copy of a problem that stands before it."""

    threshold: float = Field(0.8, ge=0.4, le=1, description="least share of runs in common; 1: the same words only")
    run: int = Field(5, ge=1, description="words in a run; of Chinese, characters")
    same_numbers: bool = Field(True, description="a text with other numbers is another problem, however alike")


@dataclass(frozen=True, slots=True)
class Copy:
    """The text at ``place`` says what the kept one at ``of`` says; ``similarity`` is their Jaccard index."""

    place: int
    of: int
    similarity: float


def copies(texts: Sequence[str], near: Near) -> list[Copy]:
    """Those to remove so that no two that stay are alike; of two, the first stays. Every one names whom it copies."""
    found: list[Copy] = []
    equal: dict[tuple[str, ...], int] = {}
    kept: dict[tuple[object, ...], list[int]] = {}
    shingles: dict[int, frozenset[int]] = {}
    shape = bands_for(near.threshold)
    for place, text in enumerate(texts):
        said = words(text)
        if (first := equal.setdefault(said, place)) != place:
            found.append(Copy(place, first, 1.0))
            continue
        if near.threshold == 1:
            continue
        shingles[place] = shingled(said, near.run)
        keys = [(numbers(said) if near.same_numbers else (), *key) for key in _bands(shingles[place], shape)]
        others = sorted({other for key in keys for other in kept.get(key, ())})
        alike = ((other, jaccard(shingles[place], shingles[other])) for other in others)
        if met := next(((other, share) for other, share in alike if share >= near.threshold), None):
            found.append(Copy(place, *met))
            equal[said] = met[0]  # whoever equals this one copies what stays, not what goes
            del shingles[place]
            continue
        for key in keys:
            kept.setdefault(key, []).append(place)
    return found


def shingled(said: tuple[str, ...], run: int) -> frozenset[int]:
    """The runs of a text as 64-bit hashes."""
    digests = (blake2b("\x1f".join(gram).encode("utf-8", "surrogatepass"), digest_size=8) for gram in grams(said, run))
    return frozenset(int.from_bytes(digest.digest(), "little") for digest in digests)


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    """What two sets have in common, of what either has."""
    return len(one & other) / max(1, len(one | other))


def signature(shingles: frozenset[int]) -> NDArray[np.uint64]:
    """MinHash [HASHES]: two signatures agree at a place with the chance of the sets' Jaccard similarity."""
    hashed_S = np.fromiter(shingles, np.uint64, len(shingles))
    mixed_SK = (hashed_S[:, None] ^ _SEEDS_K) * _MIX_1
    mixed_SK = (mixed_SK ^ (mixed_SK >> np.uint64(31))) * _MIX_2
    lowest_K: NDArray[np.uint64] = (mixed_SK ^ (mixed_SK >> np.uint64(29))).min(0)
    return lowest_K


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, rows): the most rows, hence the fewest proposals, that still find ``RECALL`` of pairs at ``threshold``.

    A pair of similarity s is proposed with chance 1 - (1 - s^rows)^bands (Leskovec et al., Mining of Massive Datasets,
    section 3.4).
    """
    fitting = [r for r in range(1, HASHES + 1) if 1 - (1 - threshold**r) ** (HASHES // r) >= RECALL]
    return HASHES // max(fitting), max(fitting)


def _bands(shingles: frozenset[int], shape: tuple[int, int]) -> Iterator[tuple[int, bytes]]:
    bands, rows = shape
    lowest_K = signature(shingles)
    for band in range(bands):
        yield band, lowest_K[band * rows : (band + 1) * rows].tobytes()
