"""One run's descriptors, seen from outside: send a line, read one, keep what is printed, and never wait too long.

Everything that comes in is capped and none of it is trusted; whichever side is stuck, the deadline ends it.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
from collections.abc import Collection
from contextlib import suppress

from seekling.records import Verdict
from seekling.verify.sandbox.limits import Layer, Limits

_CHUNK = 2**16
_NEVER = float("inf")
_BEGIN_S, _END_S = 10.0, 0.25


class Cut(Exception):
    """A run is over before it has answered: ``verdict`` says why, or is None where its program has gone by itself."""

    def __init__(self, verdict: Verdict | None, said: str) -> None:
        self.verdict, self.said = verdict, said
        super().__init__(said)


class Lost(Exception):
    """The zygote is gone: the fault of nothing that ran in it."""


class Talk:
    """The parent's ends of one run. ``theirs`` are the fork's, to be sent and then closed here.

    ``control`` is the zygote's socket; what it says of the fork's end is kept in ``status``.
    """

    def __init__(self, control: socket.socket, limits: Limits, stdin: bytes, without: Collection[Layer]) -> None:
        self.limits, self.control, self.unfed = limits, control, memoryview(stdin)
        self.has_clock = Layer.CLOCK not in without
        self.deadline = time.monotonic() + _BEGIN_S
        self.most_printed = _NEVER if Layer.OUTPUT in without else limits.output_bytes
        self.status: dict[str, float] | None = None
        self.hung_up = False
        self.reply, self.unsent, self.printed = bytearray(), memoryview(b""), 0
        self.channel, channel = socket.socketpair()
        read, self.feed = os.pipe()
        self.output, output = os.pipe()
        self.errors, errors = os.pipe()
        self.theirs = [channel.detach(), read, output, errors]
        self.kept: dict[int, bytearray] = {self.output: bytearray(), self.errors: bytearray()}
        self._watch()

    def send_theirs(self, kind: bytes) -> None:
        """Have the zygote fork. Raises OSError when it is gone."""
        socket.send_fds(self.control, [kind], self.theirs)
        self._close_theirs()

    def start_clock(self) -> None:
        """From now on the program's own time runs: a machine under load takes none of it."""
        self.deadline = time.monotonic() + self.limits.wall_s if self.has_clock else _NEVER

    def ask(self, line: bytes) -> bytes:
        """Send ``line`` and read one. Raises Cut when it says too much, ends, or takes too long."""
        self._queue(line)
        while not self.reply.endswith(b"\n"):
            if self.status is None and not self.hung_up:
                self._turn()
            elif self.hung_up or not self._receive():  # its last words may come with its end
                raise self._gone()
        reply, self.reply = bytes(self.reply), bytearray()
        if reply.count(b"\n") > 1:
            raise Cut(Verdict.POLICY, "it said more than it was asked")
        return reply

    def _gone(self) -> Cut:
        """What to say of a program that has hung up: as a rule because it ended, and that is heard at once."""
        self.deadline = min(self.deadline, time.monotonic() + _END_S)
        try:
            while self.status is None:
                self._turn()
        except Cut:
            return Cut(Verdict.WRONG, "it closed its channel before it had answered")
        return Cut(None, "it ended before it had answered")

    def hear_out(self, line: bytes) -> None:
        """Send ``line`` and take in what is printed until the program has ended. Raises Cut."""
        self._queue(line)
        while self.status is None:
            self._turn()

    def end(self, grace_s: float) -> dict[str, float]:
        """Kill the fork if it still lives; how it ended. Raises Lost when the zygote does not tell."""
        if self.status is None:
            try:
                self.control.send(b"kill")
                self.control.settimeout(grace_s)
                self._hear_of_end()
            except OSError as error:
                raise Lost(str(error)) from None
        for source in self.kept:
            with suppress(OSError, Cut):
                while self._take(source):
                    pass
        assert self.status is not None
        return self.status

    def close(self) -> None:
        """Give back every descriptor."""
        self.selector.close()
        self.channel.close()
        self._close_theirs()
        for mine in (self.feed, self.output, self.errors):
            if mine >= 0:
                os.close(mine)

    def said(self) -> tuple[str, str]:
        """Standard output and standard error so far."""
        return self.kept[self.output].decode("utf-8", "replace"), self.kept[self.errors].decode("utf-8", "replace")

    def _watch(self) -> None:
        self.selector = selectors.DefaultSelector()
        for mine in (self.channel.fileno(), self.feed, self.output, self.errors):
            os.set_blocking(mine, False)
        self.selector.register(self.control, selectors.EVENT_READ, self._hear_of_end)
        self.selector.register(self.channel, selectors.EVENT_READ, self._receive)
        for source in self.kept:
            self.selector.register(source, selectors.EVENT_READ, lambda source=source: self._print(source))
        if self.unfed:
            self.selector.register(self.feed, selectors.EVENT_WRITE, self._feed)
        else:
            self._feed()

    def _queue(self, line: bytes) -> None:
        """Send at once what the socket takes; the rest whenever it takes more."""
        self.unsent = memoryview(line)
        self._send()

    def _turn(self) -> None:
        """Wait for one thing to happen, and do what it asks for. Raises Cut when none does, or the program is over."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Cut(Verdict.TIMEOUT, f"it did not come to an end within {self.limits.wall_s:g} s")
        for key, events in self.selector.select(None if left == _NEVER else left):
            if key.fileobj is self.channel and events & selectors.EVENT_WRITE:
                self._send()
            if key.fileobj is not self.channel or events & selectors.EVENT_READ:
                key.data()

    def _send(self) -> None:
        with suppress(BlockingIOError):
            while self.unsent:
                try:
                    self.unsent = self.unsent[self.channel.send(self.unsent) :]
                except (BrokenPipeError, ConnectionResetError):
                    self.unsent = memoryview(b"")  # its end is told by what comes back
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)
        if self.channel in self.selector.get_map():
            self.selector.modify(self.channel, events, self._receive)

    def _receive(self) -> bool:
        """Read once from the channel; False when there is nothing."""
        try:
            chunk = self.channel.recv(_CHUNK)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            chunk = b""
        self.reply += chunk
        if len(self.reply) > self.limits.answer_bytes:
            raise Cut(Verdict.OUTPUT_LIMIT, f"an answer of more than {self.limits.answer_bytes} bytes")
        if not chunk:
            self.selector.unregister(self.channel)
            self.hung_up = True
        return bool(chunk)

    def _hear_of_end(self) -> None:
        message = self.control.recv(_CHUNK)
        if not message:
            raise Lost("the zygote has died")
        self.status = json.loads(message)

    def _print(self, source: int) -> None:
        if not self._take(source):
            self.selector.unregister(source)

    def _take(self, source: int) -> bool:
        """Read once from a pipe of what is printed; False at its end. Raises Cut beyond the cap."""
        chunk = os.read(source, _CHUNK)
        self.printed += len(chunk)
        if self.printed > self.most_printed:
            raise Cut(Verdict.OUTPUT_LIMIT, f"it printed more than {self.limits.output_bytes} bytes")
        if self.most_printed < _NEVER:
            self.kept[source] += chunk
        return bool(chunk)

    def _feed(self) -> None:
        """Standard input, then its end."""
        with suppress(BlockingIOError, BrokenPipeError):
            self.unfed = self.unfed[os.write(self.feed, self.unfed) :] if self.unfed else self.unfed
            if self.unfed:
                return
        if self.feed in self.selector.get_map():
            self.selector.unregister(self.feed)
        os.close(self.feed)
        self.feed = -1

    def _close_theirs(self) -> None:
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = []
