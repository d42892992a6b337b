"""Several workers at once: many independent requests, each with limits of its own, none of which can cost another.

Replies come back in the order of the requests, whoever answered them. A request that overruns a limit kills the
worker that took it and nothing else; one whose worker died is asked once more, of another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.workers.worker import Worker

START_S = 60.0
"""Time for a child to import what it needs: no request pays for it."""
TRIES = 2


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request came to: a ``value``, or the ``failure`` that stands in for it and, in words, why."""

    value: Any = None
    failure: Verdict | None = None
    said: str = ""


def cores() -> int:
    """Cores this process may run on: fewer than the machine has under taskset or a container's cpuset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """``size`` workers (0: one a core) for one target and setup; see ``Worker`` for the limits."""

    def __init__(self, target: str, setup: object = None, *, size: int = 0, **limits: Any) -> None:
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._workers = [Worker(target, setup, **limits) for _ in range(size or cores())]
        for worker in self._workers:
            self._idle.put(worker)

    def ask_all(self, requests: Sequence[object], timeout_s: float) -> list[Reply]:
        """One reply each. Raises UserError only when no worker can be set up: a request's own fault is its reply."""
        if not requests:
            return []
        with ThreadPoolExecutor(min(len(self._workers), len(requests))) as threads:
            return list(threads.map(lambda request: self._ask(request, timeout_s), requests))

    def close(self) -> None:
        """Kill the children."""
        for worker in self._workers:
            worker.close()

    def _ask(self, request: object, timeout_s: float) -> Reply:
        worker = self._idle.get()
        try:
            for _ in range(TRIES):
                worker.begin(START_S)
                reply = _reply(worker, request, timeout_s)
                if reply.failure is not Verdict.INFRA_ERROR:
                    break
            return reply
        finally:
            self._idle.put(worker)


def _reply(worker: Worker, request: object, timeout_s: float) -> Reply:
    try:
        return Reply(worker.ask(request, timeout_s))
    except UserError as error:
        failure = getattr(error, "verdict", Verdict.INFRA_ERROR)
        return Reply(failure=failure, said=": ".join(part for part in (error.what, error.where) if part))
    except (TypeError, ValueError) as error:
        return Reply(failure=Verdict.INFRA_ERROR, said=f"a request that is no JSON: {error}"[:300])
