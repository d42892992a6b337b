"""A way to Python's own library for a user who may not pass the folders above it, as with a Python in root's home.

Root gives up being root before a program comes, and could then import nothing. So, in a mount namespace of the zygote's
own, the first folder that bars the way is covered by an empty one in which only the library is shown, read-only.
Standard library only: the child's side imports this.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from seekling.verify.sandbox.seccomp import LIBC

_NEW_MOUNTS = 0x20000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18


def reach(places: Iterable[str]) -> None:
    """Let everyone come to ``places``. Does nothing where everyone can; raises OSError where that is not allowed."""
    barred = {place: bar for place in places if (bar := barrier(place))}
    if not barred:
        return
    _checked(LIBC.unshare(_NEW_MOUNTS), next(iter(barred)))
    _mount("none", "/", _RECURSIVE | _PRIVATE)
    opened = {place: os.open(place, os.O_PATH) for place in barred}
    before = os.umask(0o022)
    for bar in sorted(set(barred.values())):
        _mount("tmpfs", bar, 0, "tmpfs", "mode=755,size=1m")
    for place, descriptor in opened.items():
        os.makedirs(place, exist_ok=True)
        _mount(f"/proc/self/fd/{descriptor}", place, _BIND)
        _mount("none", place, _REMOUNT | _BIND | _READ_ONLY)
        os.close(descriptor)
    os.umask(before)


def barrier(place: str) -> str:
    """The first folder on the way to ``place`` that not everyone may pass; "" where there is none."""
    path = "/"
    for part in os.path.realpath(place).split("/"):
        path = os.path.join(path, part)
        if not os.stat(path).st_mode & 0o001 and os.path.isdir(path):
            return path
    return ""


def _mount(source: str, target: str, flags: int, kind: str = "", data: str = "") -> None:
    words = [word.encode() or None for word in (kind, data)]
    _checked(LIBC.mount(source.encode(), target.encode(), words[0], ctypes.c_ulong(flags), words[1]), target)


def _checked(result: int, place: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"no other user can come to Python at {place}: {os.strerror(code)}")
