"""The sandbox, as callers see it: programs that nobody trusts, run on one input at a time, with nothing to win.

    box = Sandbox(Limits(wall_s=2))
    outcomes = box.call("def f(x): return x + 1", "f", [[1], [2]])

What the right answers are never enters: a program gets an input under a random id and answers JSON, and whether that is
right is for the caller to say, outside (``compare.same``). So there is nothing inside to read, patch or forge.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from queue import SimpleQueue
from typing import Any

from seekling.errors import UserError
from seekling.verify.sandbox.cell import Cell, Place
from seekling.verify.sandbox.doctor import SHARED, lacking, prove
from seekling.verify.sandbox.jail import found
from seekling.verify.sandbox.limits import Isolation, Layer, Limits, Outcome

UNSAFE = (
    'isolation = "unsafe-local": programs that a model wrote run without Landlock and seccomp, and may read what this '
    "user may read and use the network"
)


class Sandbox:
    """``size`` cells that threads share. Nothing starts before the first program; then canaries prove that it holds.

    Raises UserError where it does not, or where this system cannot hold a program, unless ``isolation`` asks for less;
    ``warn`` is then told.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        size: int = 1,
        isolation: Isolation = "strict",
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        self.limits, self.size, self.isolation, self.warn = limits or Limits(), size, isolation, warn
        self._idle: SimpleQueue[Cell] = SimpleQueue()
        self._cells: list[Cell] = []
        self._lock = threading.Lock()

    def call(self, program: str, function: str, inputs: Sequence[Any]) -> list[Outcome]:
        """What ``function`` of ``program`` answers to each of ``inputs``, every one a list of arguments (JSON)."""
        with self._cell() as cell:
            return cell.call(program, function, inputs)

    def run(self, program: str, stdin: str = "") -> Outcome:
        """A whole program with ``stdin``: ``value`` is its exit status, beside what it printed."""
        with self._cell() as cell:
            return cell.run(program, stdin)

    def begin(self) -> None:
        """Start and prove, so that no program waits for it."""
        with self._lock:
            if not self._cells:
                self._cells = self._made()
                for cell in self._cells:
                    self._idle.put(cell)

    def close(self) -> None:
        """Kill the zygotes and whatever runs in them."""
        for cell in self._cells:
            cell.close()

    @contextmanager
    def _cell(self) -> Iterator[Cell]:
        self.begin()
        cell = self._idle.get()
        try:
            yield cell
        finally:
            self._idle.put(cell)

    def _made(self) -> list[Cell]:
        if self.isolation == "unsafe-local":
            self.warn(UNSAFE)
            return self._started(Place(without=frozenset({Layer.LANDLOCK, Layer.SECCOMP})))
        refuse_where_lacking()
        cells = self._started(chosen(self.limits))
        try:
            prove(cells[0])
        except UserError:
            for cell in cells:
                cell.close()
            raise
        return cells

    def _started(self, place: Place) -> list[Cell]:
        return [Cell(self.limits, place) for _ in range(self.size)]


def refuse_where_lacking() -> None:
    """Raise a letter that says what could not be isolated here, if anything."""
    if lacks := lacking():
        raise UserError(f"no program that a model wrote can be isolated here ({'; '.join(lacks)})", next_step=SHARED)


def chosen(limits: Limits) -> Place:
    """A jail around the zygote where bubblewrap works, else none: the other layers hold without it."""
    place = Place(bwrap=_bwrap())
    cell = Cell(limits, place)
    try:
        cell.begin()
    except UserError:
        return Place()
    finally:
        cell.close()
    return place


@cache
def _bwrap() -> str:
    return found()
