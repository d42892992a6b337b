"""What the kernel holds a program to: who it is, how much it may use, which files it may read, which calls it may make.

The zygote makes ready what all runs share; each run then binds itself, and nothing it does can loosen that. Standard
library only: the child's side imports this. Every function raises OSError where the kernel will not.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from seekling.verify.sandbox.seccomp import LIBC, assembled, install

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Landlock's calls, numbered alike on every machine."""
_VERSION_WANTED = 1
_BENEATH = 1
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""From which version of Landlock on how many rights over files there are."""
_TCP_RIGHTS, _SCOPES = 0b11, 0b11

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_OPEN_FILES = 64
_DEEPEST_STACK = 2**28

CHANNEL = 3
"""The descriptor over which a program is asked and answers; below it are the standard three, above it none."""

DEVICES = {"/dev/null": _READ_FILE | _WRITE_FILE, "/dev/urandom": _READ_FILE, "/dev/zero": _READ_FILE}


@dataclass(frozen=True, slots=True)
class Bonds:
    """What the zygote made ready: a Landlock ruleset's descriptor, a seccomp filter (None where left out), limits, and
    whether inherited descriptors are closed."""

    fence: int | None
    calls: bytes | None
    limits: Mapping[str, tuple[int, int]]
    closes: bool


def become(uid: int) -> None:
    """Give up being root for good: groups, group and user, saved ones too."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def prepared(terms: Mapping[str, Any]) -> Bonds:
    """Make ready for runs under ``terms``; ``terms["without"]`` names the layers left out."""
    without = terms["without"]
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    fence = None if "landlock" in without else fenced(readable())
    calls = None if "seccomp" in without else assembled(platform.machine())
    return Bonds(fence, calls, {} if "rlimits" in without else limits(terms), "descriptors" not in without)


def bind(bonds: Bonds) -> None:
    """Hold this process to ``bonds``. Last of all the filter, under which none of this could be done."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # when memory runs out it is this process that goes, not the zygote
    if bonds.fence is not None:
        _call(_RESTRICT_SELF, bonds.fence, 0)
    if bonds.closes:
        os.closerange(CHANNEL + 1, 2**16)
    for name, pair in bonds.limits.items():
        resource.setrlimit(getattr(resource, name), pair)
    _prctl(_PR_SET_DUMPABLE, 0)  # no core dump, whatever program the system pipes those to
    if bonds.calls is not None:
        install(bonds.calls, os.getpid())


def limits(terms: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Limit -> (soft, hard). Threads are counted by user, so ``terms["tasks"]`` says how many that user has."""
    most = {
        "RLIMIT_AS": terms["memory_bytes"],
        "RLIMIT_CPU": terms["cpu_s"],
        "RLIMIT_NPROC": terms["tasks"],
        "RLIMIT_NOFILE": _OPEN_FILES,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = _DEEPEST_STACK if hard == resource.RLIM_INFINITY else min(hard, _DEEPEST_STACK)
    return {name: _at_most(name, value) for name, value in most.items()} | {"RLIMIT_STACK": (stack, hard)}


def _at_most(name: str, value: int) -> tuple[int, int]:
    """``value``, or what is already allowed where that is less."""
    hard = resource.getrlimit(getattr(resource, name))[1]
    value = value if hard == resource.RLIM_INFINITY else min(hard, value)
    return value, value


def readable() -> list[str]:
    """Where Python's own library, what it links to, and time zones lie: all that a program may read."""
    places = [*sys.path, f"{sys.base_prefix}/lib", "/usr/lib", "/usr/lib64", "/lib", "/lib64"]
    places += ["/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime"]
    return [place for place in dict.fromkeys(places) if os.path.exists(place)]


def landlock_version() -> int:
    """0 where the kernel has none."""
    with suppress(OSError):
        return _call(_CREATE_RULESET, None, 0, _VERSION_WANTED)
    return 0


def fenced(places: Sequence[str]) -> int:
    """A ruleset (its descriptor) under which only ``places`` and a few devices can be read and nothing be written,
    made, run, connected to or signalled, as far as this kernel's Landlock goes."""
    version = landlock_version()
    rights = max((count for least, count in _FILE_RIGHTS.items() if least <= version), default=0)
    handled = struct.pack("=Q", (1 << rights) - 1)
    handled += struct.pack("=Q", _TCP_RIGHTS) if version >= 4 else b""
    handled += struct.pack("=Q", _SCOPES) if version >= 6 else b""
    fence = _call(_CREATE_RULESET, handled, len(handled), 0)
    for place in places:
        _allow(fence, place, _READ_FILE | _READ_DIR if os.path.isdir(place) else _READ_FILE)
    for device, allowed in DEVICES.items():
        if os.path.exists(device):
            _allow(fence, device, allowed)
    return fcntl.fcntl(fence, fcntl.F_DUPFD_CLOEXEC, 2 * CHANNEL)  # out of the way of what a run's own are numbered


def _allow(fence: int, place: str, allowed: int) -> None:
    descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        _call(_ADD_RULE, fence, _BENEATH, struct.pack("=Qi", allowed, descriptor), 0)
    finally:
        os.close(descriptor)


def _prctl(option: int, value: int) -> None:
    if LIBC.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _call(number: int, *arguments: Any) -> int:
    result: int = LIBC.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"kernel call {number}: {os.strerror(code)}")
    return result
