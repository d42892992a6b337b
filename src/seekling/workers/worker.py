"""A killable process that answers requests over pipes, one JSON line each: for work that may never end.

The child starts with the first request, in a clean environment and a session of its own, so that it is killed
together with whatever it started. After an overrun or a crash the next request starts a new child. The child
also stops itself at its processor time, so that none outlives a killed parent.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from seekling.errors import UserError
from seekling.records import Verdict

KEPT = ("SYSTEMROOT", "TZ")
"""What a child inherits of the environment; everything else, secrets included, stays here."""


ROOT = str(Path(__file__).resolve().parents[2])
"""Where a child finds this package."""

SAME_HASHES = {"PYTHONHASHSEED": "0"}
"""All children walk a set in the same order, so that equal requests get equal answers."""


class Overrun(UserError):
    """A request met a limit, or its child died: ``verdict`` says which, in the words of a check."""

    def __init__(self, verdict: Verdict, what: str, *, where: str = "") -> None:
        self.verdict = verdict
        super().__init__(what, where=where)


class WorkerLost(Overrun):
    """The child was killed or died. The next request starts a new one."""


class TooLong(ValueError):
    """A reply beyond what is read of one."""


@dataclass(frozen=True, slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    stderr: IO[bytes]
    parent: int


class Worker:
    """One child at a time, shared by threads: requests wait for each other.

    ``target`` names ``package.module:function``. The child calls it once, with ``setup``, and answers every
    request with what it returned, a function from JSON to JSON. ``memory_bytes`` bounds the child's address
    space, ``cpu_s`` its processor time per request, ``reply_bytes`` what is read of one reply.
    """

    def __init__(
        self,
        target: str,
        setup: object = None,
        *,
        memory_bytes: int = 2**29,
        cpu_s: float = 2.0,
        reply_bytes: int = 2**28,
    ) -> None:
        self.target, self.setup = target, setup
        self.memory_bytes, self.cpu_s, self.reply_bytes = memory_bytes, cpu_s, reply_bytes
        self._child: _Child | None = None
        self._end: weakref.finalize[..., Worker] | None = None
        self._lock = threading.Lock()

    def ask(self, request: object, timeout_s: float) -> Any:
        """The target's answer. Raises the UserError it raised, or WorkerLost when none came in time."""
        with self._lock:
            deadline = time.monotonic() + timeout_s
            self._begin(deadline)
            return self._exchange(request, deadline, self.cpu_s)

    def begin(self, timeout_s: float) -> None:
        """Start the child, if there is none, so that no request's time goes to that. Raises what its setup raises."""
        with self._lock:
            self._begin(time.monotonic() + timeout_s)

    def close(self) -> None:
        """Kill the child, if there is one."""
        with self._lock:
            self._drop()

    def _begin(self, deadline: float) -> None:
        if self._child is not None and self._child.parent == os.getpid():  # a forked copy leaves the child alone
            return
        self._child = _start(self.target, self.memory_bytes)
        self._end = weakref.finalize(self, _kill, self._child)  # when the worker is forgotten, or Python ends
        try:
            # The clock alone bounds a start: what is imported there may cost more than any request may.
            self._exchange(self.setup, deadline, max(self.cpu_s, deadline - time.monotonic()))
        except UserError:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._end is not None:
            self._end()
        self._child = self._end = None

    def _exchange(self, body: object, deadline: float, cpu_s: float) -> Any:
        assert self._child is not None
        line = json.dumps({"cpu_s": cpu_s, "body": body}).encode() + b"\n"
        try:
            outcome = json.loads(_converse(self._child, line, deadline, self.reply_bytes))
            if "reply" in outcome:
                return outcome["reply"]
            what, where, next_step = outcome["letter"]
            full = outcome.get("full", False)
        except (TimeoutError, OSError, ValueError, TypeError, KeyError) as error:
            verdict, reason = _reason(self._child, error)
            self._drop()
            raise WorkerLost(verdict, "a worker gave no answer", where=reason) from None
        if full:
            raise Overrun(Verdict.OOM, what)
        raise UserError(what, where=where, next_step=next_step)


def _start(target: str, memory_bytes: int) -> _Child:
    stderr = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the child
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "seekling.workers.child", target, str(memory_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        env={name: os.environ[name] for name in KEPT if name in os.environ} | {"PYTHONPATH": ROOT} | SAME_HASHES,
        start_new_session=True,
    )
    assert process.stdin and process.stdout
    os.set_blocking(process.stdin.fileno(), False)
    os.set_blocking(process.stdout.fileno(), False)
    return _Child(process, stderr, os.getpid())


def _converse(child: _Child, line: bytes, deadline: float, reply_bytes: int) -> bytes:
    """Send a line and read one, never waiting past ``deadline``, whichever side is stuck.

    Raises TimeoutError, EOFError's kin OSError when the child has gone, TooLong when it says too much.
    """
    assert child.process.stdin and child.process.stdout
    to, back = child.process.stdin.fileno(), child.process.stdout.fileno()
    unsent, reply = memoryview(line), bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(to, selectors.EVENT_WRITE)
        ready.register(back, selectors.EVENT_READ)
        while not reply.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for key, _ in ready.select(left):
                if key.fd == to:
                    unsent = unsent[os.write(to, unsent) :]
                    if not unsent:
                        ready.unregister(to)
                    continue
                if not (chunk := os.read(back, 2**20)):
                    raise BrokenPipeError
                reply += chunk
            if len(reply) > reply_bytes:
                raise TooLong("its reply is far too long")
    return bytes(reply)


def _reason(child: _Child, error: Exception) -> tuple[Verdict, str]:
    """Why no answer came: as a verdict, and in words, the child's own last ones where it died of something else."""
    if isinstance(error, TimeoutError):
        return Verdict.TIMEOUT, "it did not come to an end in time"
    if not isinstance(error, OSError):
        return Verdict.OUTPUT_LIMIT if isinstance(error, TooLong) else Verdict.INFRA_ERROR, str(error)
    with suppress(subprocess.TimeoutExpired):
        child.process.wait(5.0)
    if child.process.returncode == -signal.SIGXCPU:
        return Verdict.TIMEOUT, "it used more processor time than it may"
    child.stderr.seek(0)
    said = child.stderr.read().decode("utf-8", "replace").strip().splitlines()
    return Verdict.INFRA_ERROR, f"it died: {said[-1][:300] if said else f'exit status {child.process.returncode}'}"


def _kill(child: _Child) -> None:
    """Kill the child and its descendants, close the pipes. Does nothing in a fork of the parent."""
    if child.parent != os.getpid():
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    for pipe in (child.process.stdin, child.process.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    child.process.wait()
