"""Threads side by side, one slice of a step each; and the world of processes they work in.

Operations on small models are too short for threads inside them: on two cores, two slices on a thread each take
little more than half the time of one after the other, where two threads inside every operation gain next to nothing.
What is split is fixed by settings, never by the number of lanes, and results are taken in order: the lanes a machine
has cannot change a bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from seekling.learn.parallel.world import ALONE, World

A = TypeVar("A")
B = TypeVar("B")


class Lanes:
    """``count`` threads with one torch thread each; a count of 1 works in the caller's thread.

    ``world`` are the processes that share a step among them before lanes do; of several, each has one lane.
    """

    def __init__(self, count: int = 1, world: World = ALONE) -> None:
        self.count, self.world = count, world
        self._pool = ThreadPoolExecutor(count, "lane", initializer=_one_thread) if count > 1 else None

    def map(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """``[work(item) for item in items]``, side by side. The first exception is raised."""
        if self._pool is None:
            return [work(item) for item in items]
        return list(self._pool.map(work, items))

    def stream(self, work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """The same, result by result: a lane begins with a further item when one is taken, so few lie waiting."""
        if self._pool is None:
            yield from map(work, items)
            return
        waiting, running = iter(items), deque[Future[B]]()
        for item in islice(waiting, self.count):
            running.append(self._pool.submit(work, item))
        while running:
            result = running.popleft().result()
            for item in islice(waiting, 1):
                running.append(self._pool.submit(work, item))
            yield result
            del result  # else it would lie here until the next one comes


def _one_thread() -> None:
    torch.set_num_threads(1)


ONE = Lanes()
"""One lane: everything after everything else."""
