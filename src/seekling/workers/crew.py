"""Processes that work on one job, live together and die together: started here, or by torchrun.

The first one speaks to the person; what another says is kept, and shown when it was the one to fail. When one ends
other than well, all are ended. When whoever started them dies, they end themselves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MEET, TIED = "SEEKLING_MEET", "SEEKLING_TIED"
"""Where the processes meet, and that standard input is a pipe from whoever started them: set for those started here."""
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""All are on this machine: nothing need listen to others. What the environment says stands."""
GRACE_S = 5.0
"""How long the others may go on when one has failed: most fail of the same thing, and the first says it best."""
LEAVE_S = 60.0
"""How long the others may take to leave when the first has ended well."""
LAST_BYTES = 2**14


@dataclass(frozen=True, slots=True)
class Member:
    """One of ``size`` processes; ``local`` is its place among those on this machine, ``meet`` a URL torch knows."""

    rank: int
    size: int
    local: int
    meet: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a crew ended: whose end it was, its exit status (negative: killed by that signal), what it said last.

    Of the first process nothing is kept: a person has seen it.
    """

    rank: int
    status: int
    said: str = ""


def member() -> Member | None:
    """Who this process is among those started with it; None where it is alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return None
    rank = int(os.environ["RANK"])
    return Member(rank, size, int(os.environ.get("LOCAL_RANK", rank)), os.environ.get(MEET, "env://"))


def tie() -> None:
    """End this process at once when whoever started it here has gone, however that went."""
    if TIED in os.environ:
        threading.Thread(target=_until_let_go, daemon=True).start()


def _until_let_go() -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGKILL)


def run(command: Sequence[str], size: int, letters: Collection[int]) -> Ended:
    """Run ``command`` as ``size`` processes and wait for the end of all.

    SIGINT and SIGTERM go to the first, which decides for all. ``letters`` are exit statuses of a process that has said
    itself why it ends: when the first does so, that is how the crew ended, whoever else failed too.
    """
    with tempfile.TemporaryDirectory(prefix="seekling-") as folder:
        crew: list[_Started] = []
        try:
            crew += (_start(command, rank, size, Path(folder)) for rank in range(size))
            with _passed_on(crew[0].process):
                return _watched(crew, letters)
        finally:
            for one in crew:
                one.end()


@dataclass(frozen=True, slots=True)
class _Started:
    rank: int
    process: subprocess.Popen[bytes]
    said: IO[bytes] | None

    def has_failed(self) -> bool:
        return self.process.poll() not in (None, 0)

    def ended(self) -> Ended:
        status = self.process.returncode
        if self.said is None:
            return Ended(self.rank, status)
        self.said.seek(max(0, self.said.seek(0, os.SEEK_END) - LAST_BYTES))
        return Ended(self.rank, status, self.said.read().decode("utf-8", "replace").strip())

    def end(self) -> None:
        """Kill it, and what it started in its session, and wait until it is gone."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.said):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _start(command: Sequence[str], rank: int, size: int, folder: Path) -> _Started:
    said = None if rank == 0 else (folder / f"{rank}.log").open("w+b")
    told = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    environment: Mapping[str, str] = LOOPBACK | os.environ | told | {MEET: f"file://{folder}/meet", TIED: "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=environment, start_new_session=True
    )
    return _Started(rank, process, said)


def _watched(crew: Sequence[_Started], letters: Collection[int]) -> Ended:
    """Wait for the end of all, or of the first that fails."""
    first = crew[0]
    while not (failed := [one for one in crew[1:] if one.has_failed()]):
        if first.has_failed():
            return first.ended()
        if first.process.poll() == 0:
            _wait(lambda: all(one.process.poll() is not None for one in crew), LEAVE_S)
            return first.ended()
        time.sleep(0.05)
    _wait(lambda: first.process.poll() is not None, GRACE_S)
    return first.ended() if first.process.poll() in letters else failed[0].ended()


def _wait(done: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not done() and time.monotonic() < end:
        time.sleep(0.05)


@contextmanager
def _passed_on(first: subprocess.Popen[bytes]) -> Iterator[None]:
    """SIGINT and SIGTERM go to the first process alone."""

    def pass_on(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            first.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
