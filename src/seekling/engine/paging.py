"""Who holds which pages of the cache: counted, shared by texts that begin alike, given up when none are left.

A page that is full of tokens is known by those tokens and all before them; while it is not needed for anything else,
whoever begins with the same text takes it as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from seekling.model.pages import SLOTS

Key = tuple[int, tuple[int, ...]]
"""What a full page holds: the name of what the page before it holds (0: none is before), and its own tokens."""


class NoPages(Exception):
    """Every page is held by somebody."""


class Paging:
    """The ``count`` pages of a pool: free, held by ``holders``, or kept because their text may return."""

    def __init__(self, count: int) -> None:
        self.free = list(range(count - 1, -1, -1))
        self.holders = [0] * count
        self._known: dict[Key, int] = {}
        self._keys: dict[int, Key] = {}
        self._names: dict[int, int] = {}  # of what a known page holds; never given twice, as pages are
        self._next = 1
        self._kept: OrderedDict[int, None] = OrderedDict()  # known and held by no one, the longest unused first

    @property
    def available(self) -> int:
        """Pages that can be taken."""
        return len(self.free) + len(self._kept)

    def add(self, count: int) -> None:
        """The pool has grown to ``count``."""
        self.free[:0] = range(count - 1, len(self.holders) - 1, -1)
        self.holders += [0] * (count - len(self.holders))

    def take(self, count: int) -> list[int]:
        """Hold ``count`` pages that nobody holds. Raises NoPages, and takes none, where there are fewer."""
        if count > self.available:
            raise NoPages
        taken = [self.free.pop() if self.free else self._forgotten() for _ in range(count)]
        for page in taken:
            self.holders[page] = 1
        return taken

    def share(self, pages: Sequence[int]) -> None:
        """Hold pages that somebody holds, or that are kept."""
        for page in pages:
            self.holders[page] += 1
            self._kept.pop(page, None)

    def release(self, pages: Sequence[int]) -> None:
        """Hold them no longer. A known page is kept as long as there are others to take."""
        for page in reversed(pages):  # the end of a text is given up before its beginning
            self.holders[page] -= 1
            if not self.holders[page]:
                if page in self._keys:
                    self._kept[page] = None
                else:
                    self.free.append(page)

    def note(self, tokens: Sequence[int], pages: Sequence[int]) -> None:
        """The full ones of ``pages`` hold ``tokens``: whoever begins so may share them."""
        before = 0
        for place in range(len(tokens) // SLOTS):
            key = (before, tuple(tokens[place * SLOTS : (place + 1) * SLOTS]))
            page = self._known.get(key)
            if page is None:
                page = pages[place]
                if page in self._keys:
                    return  # it stands in another text's line, whose beginning was forgotten
                self._known[key], self._keys[page], self._names[page] = page, key, self._next
                self._next += 1
            before = self._names[page]

    def forget(self) -> None:
        """No page is known any more."""
        self.free += self._kept
        for known in (self._known, self._keys, self._names, self._kept):
            known.clear()

    def find(self, tokens: Sequence[int]) -> list[int]:
        """The known pages with which ``tokens`` begin, held from now on."""
        found: list[int] = []
        for place in range(len(tokens) // SLOTS):
            before = self._names[found[-1]] if found else 0
            page = self._known.get((before, tuple(tokens[place * SLOTS : (place + 1) * SLOTS])))
            if page is None:
                break
            found.append(page)
        self.share(found)
        return found

    def _forgotten(self) -> int:
        """The kept page that was used longest ago; what follows it in a text can no longer be found, and is kept on."""
        page, _ = self._kept.popitem(last=False)
        del self._known[self._keys.pop(page)], self._names[page]
        return page
