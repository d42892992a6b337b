"""The child's side: a small, clean Python that forks once for every run and never runs a program itself.

    python -S -s -P -B -c "..." < control

``control`` is a socket (standard input). The first message is the terms, answered by ``{"ready": true}`` or
``{"letter": ...}``; every later one is ``call`` or ``run`` with four descriptors: the run's channel, standard input,
output and errors. When the fork has ended, its status is told; a message meanwhile kills it, and so does the end of the
control socket. Standard library only, and nothing here was ever told a secret: what a program finds in its own memory
is what stands below.

What a program says over its channel is believed only as its answer. It could write there whatever it likes, and gains
nothing: what the right answer would be is not known here.
"""

from __future__ import annotations

import atexit
import bisect  # noqa: F401  # with the next ones: what most programs import is there already
import collections  # noqa: F401
import errno
import functools  # noqa: F401
import gc
import heapq  # noqa: F401
import itertools  # noqa: F401
import json
import math  # noqa: F401
import os
import random  # noqa: F401
import re  # noqa: F401
import resource
import select
import signal
import socket
import string  # noqa: F401
import sys
import threading
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Any, BinaryIO

from seekling.verify.sandbox.laws import CHANNEL, Bonds, become, bind, prepared, readable
from seekling.verify.sandbox.reach import reach

MESSAGE_BYTES = 2**16
_CANNOT_BIND = 70
"""Exit status of a fork that could not be bound, and so ran nothing."""
_WORDS = 300


def main() -> None:
    """Live until the control socket ends."""
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    terms = json.loads(control.recv(MESSAGE_BYTES))
    try:
        bonds = _settle(terms)
    except OSError as error:
        control.send(json.dumps({"letter": str(error)}).encode())
        return
    control.send(b'{"ready": true}')
    gc.freeze()  # so that a fork's collector leaves these pages shared
    while _attend(control, bonds):
        pass


def _settle(terms: Mapping[str, Any]) -> Bonds:
    """Become nobody, forget the environment, and make ready what runs share."""
    resource.setrlimit(resource.RLIMIT_CPU, (resource.getrlimit(resource.RLIMIT_CPU)[1],) * 2)
    os.chdir("/")
    os.umask(0o077)
    if terms["uid"] is not None:
        reach(place for place in readable() if place.startswith(sys.base_prefix))
        become(terms["uid"])
    if "environment" not in terms["without"]:
        os.environ.clear()
    return prepared(terms)


def _attend(control: socket.socket, bonds: Bonds) -> bool:
    """One run from its message to its status; False when the control socket has ended."""
    kind, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 4)
    if not kind:
        return False
    if len(descriptors) < 4:  # a message meant for a run that had already ended
        return True
    pid = os.fork()
    if pid == 0:
        _live(kind.decode(), descriptors, bonds)
    for descriptor in descriptors:
        os.close(descriptor)
    control.send(json.dumps(_end(control, pid)).encode())
    return True


def _end(control: socket.socket, pid: int) -> dict[str, float]:
    """Wait for a fork, killing it when a message comes; how it ended, and its processor seconds."""
    ended = os.pidfd_open(pid)
    watch = select.poll()
    watch.register(ended, select.POLLIN)
    watch.register(control, select.POLLIN)
    if ended not in dict(watch.poll()):
        control.recv(MESSAGE_BYTES)
        _kill(pid)
    os.close(ended)
    _, status, usage = os.wait4(pid, 0)
    return {"status": status, "cpu_s": usage.ru_utime + usage.ru_stime}


def _kill(pid: int) -> None:
    """The fork and, where it could bear any, what belongs to its session."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except OSError:  # no session yet; the fork itself stays a zombie until waited for, so its id is its own
            continue


def _live(kind: str, descriptors: list[int], bonds: Bonds) -> None:
    """The fork: bind, say so, and only then hear of the program. Never returns."""
    try:
        os.setsid()
        for number, descriptor in enumerate((*descriptors[1:], descriptors[0])):
            os.dup2(descriptor, number)
        bind(bonds)
        os.write(CHANNEL, b"{}\n")
    except BaseException:
        os._exit(_CANNOT_BIND)
    status = 1
    try:
        status = _work(kind, os.fdopen(CHANNEL, "rb"))
    finally:
        os._exit(status)


def _work(kind: str, channel: BinaryIO) -> int:
    order = json.loads(channel.readline())
    if kind == "run":
        channel.close()
        return _run(order["program"])
    _say(_answered(order, lambda: _load(order["program"], "program", order["function"])))
    function = getattr(sys.modules.get("program"), order["function"], None)
    for line in channel:
        _say(_asked(json.loads(line), function))
    return 0


def _asked(request: Mapping[str, Any], function: Any) -> dict[str, Any]:
    return _answered(request, lambda: _plain(function(*request["arguments"])))


def _load(program: str, name: str, function: str = "") -> None:
    """Run a program's own lines as the module ``name``; it must then have ``function``."""
    module = sys.modules[name] = ModuleType(name)
    exec(compile(program, "<program>", "exec", dont_inherit=True), module.__dict__)
    if function and not callable(getattr(module, function, None)):
        raise NameError(f"the program defines no function {function}")


def _answered(request: Mapping[str, Any], act: Any) -> dict[str, Any]:
    """``{"id", "value"}``, or what was raised instead, whatever a program may raise."""
    try:
        reply = {"id": request["id"], "value": act()}
        json.dumps(reply, allow_nan=False)
        return reply
    except BaseException as error:
        return {"id": request["id"], "error": _named(error), "words": _words(error), "kind": _kind(error)}


def _kind(error: BaseException) -> str:
    """What an error says about the program: that it is none, met a limit, tried what is forbidden, or is wrong."""
    if isinstance(error, SyntaxError):
        return "unparsed"
    if isinstance(error, MemoryError):
        return "oom"
    forbidden = isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EACCES)
    return "policy" if forbidden else "wrong"


def _named(error: BaseException) -> str:
    return str(type(error).__name__)[:_WORDS]


def _words(error: BaseException) -> str:
    try:
        return str(error)[:_WORDS]
    except BaseException:
        return ""


def _plain(value: Any) -> Any:
    """``value`` as JSON has it, exact types only; a tuple becomes the list that JSON would make of it."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (list, tuple):
        return [_plain(part) for part in value]
    if kind is dict and all(type(key) is str for key in value):
        return {key: _plain(part) for key, part in value.items()}
    raise TypeError(f"a value of type {kind.__name__} is no JSON")


def _say(reply: Mapping[str, Any]) -> None:
    """A reply, after all that was printed before it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            continue
    line = memoryview(json.dumps(reply).encode() + b"\n")
    while line:
        line = line[os.write(CHANNEL, line) :]


def _run(program: str) -> int:
    """A whole program, as Python would run it: its exit status, its threads awaited, its last words on stderr."""
    status = 0
    try:
        _load(program, "__main__")
    except SystemExit as leaving:
        status = _status(leaving.code)
    except BaseException:
        traceback.print_exc()
        status = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1
