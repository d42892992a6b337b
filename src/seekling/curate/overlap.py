"""Evaluation sets kept out of training: which problem shares a run of words with which evaluation text.

Runs of 13 words are GPT-3's measure (Brown et al. 2020, arXiv 2005.14165, appendix C). Many problems are shorter than
that, so a shorter text is compared whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import Field

from seekling.config import Settings
from seekling.curate.words import grams, words


class Overlap(Settings):
    """What counts as having met an evaluation text."""

    run: int = Field(13, ge=1, description="words in common, in one run; a shorter text is compared whole")
    least: int = Field(5, ge=1, description="of fewer words than this, only texts that are equal meet")


@dataclass(frozen=True, slots=True)
class Met:
    """``where`` names the evaluation text, ``words`` is what both say."""

    where: str
    words: str


Table = Mapping[tuple[str, ...], str]
"""From runs to the first evaluation text that has them."""


class Index:
    """Evaluation texts, by the runs they hold. ``texts`` are (where it stands, what it says)."""

    def __init__(self, texts: Iterable[tuple[str, str]], overlap: Overlap) -> None:
        self.overlap = overlap
        self._texts = [(where, words(text)) for where, text in texts]
        self._parts: dict[int, Table] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def meets(self, text: str) -> Met | None:
        """The first evaluation text met, or None.

        Two texts meet when they share a run of m words, m being ``run`` or the words of the shorter text where that
        has fewer; below ``least`` words only equal ones do.
        """
        said = words(text)
        size = min(len(said), self.overlap.run)
        tables = [(size, self._parts_of(size))] if size >= self.overlap.least else []
        tables += [(n, whole) for n, whole in self._wholes.items() if self.overlap.least <= n < size]
        tables += [(n, whole) for n, whole in self._wholes.items() if n == len(said)]
        for n, table in tables:
            if gram := next((gram for gram in grams(said, n) if gram in table), None):
                return Met(table[gram], " ".join(gram))
        return None

    @cached_property
    def _wholes(self) -> dict[int, Table]:
        """Of each number of words, the texts that have just as many."""
        tables: dict[int, dict[tuple[str, ...], str]] = {}
        for where, said in self._texts:
            tables.setdefault(len(said), {}).setdefault(said, where)
        return dict(tables)

    def _parts_of(self, size: int) -> Table:
        """Every run of ``size`` words of the texts that have as many: made when a problem first asks for it."""
        if size not in self._parts:
            table: dict[tuple[str, ...], str] = {}
            for where, said in self._texts:
                for gram in grams(said, size) if len(said) >= size else ():
                    table.setdefault(gram, where)
            self._parts[size] = table
        return self._parts[size]
