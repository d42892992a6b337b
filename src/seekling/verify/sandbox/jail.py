"""A bubblewrap jail around a zygote: namespaces of its own, a root of read-only binds, nothing of the host beside it.

It stands around the other layers, never in place of one. Kernels and containers that allow no namespaces have none, and
a box without one still holds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_TRIAL_S = 10.0
_LINKS = ("/lib", "/lib64", "/lib32", "/bin", "/sbin")


def found() -> str:
    """The bwrap program where it is here and works; else ""."""
    bwrap = shutil.which("bwrap") or ""
    return bwrap if bwrap and works(bwrap) else ""


def works(bwrap: str) -> bool:
    """Whether a jail stands here: by building one, since whether namespaces are allowed is nowhere to be read."""
    with suppress(OSError, subprocess.TimeoutExpired):
        command = jailed(bwrap, [sys.executable, "-S", "-c", ""], "")
        return subprocess.run(command, capture_output=True, timeout=_TRIAL_S, env={}, check=False).returncode == 0
    return False


def jailed(bwrap: str, command: Sequence[str], package_root: str) -> list[str]:
    """``command`` in a jail that shows the system's and Python's libraries and, of ours, ``package_root``.

    As root no user namespace is made: in one, files would still see the real root. The zygote drops it.
    """
    spaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.geteuid() != 0:
        spaces.append("--unshare-user")
    # No --die-with-parent: that follows the thread which began the jail. The end of the control socket ends it.
    return [bwrap, *spaces, "--new-session", *_binds(package_root), *_devices(), "--", *command]


def _binds(package_root: str) -> list[str]:
    pythons = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent), os.path.dirname(os.__file__)}
    folders = sorted({"/usr", *pythons, *filter(None, [package_root])})
    above = sorted({str(parent) for folder in folders for parent in Path(folder).parents} - {"/"})
    shown = [word for folder in above for word in ("--perms", "0755", "--dir", folder)]  # else as barred as outside
    shown += [word for folder in folders for word in ("--ro-bind", folder, folder)]
    for link in _LINKS:
        shown += ["--symlink", os.readlink(link), link] if os.path.islink(link) else ["--ro-bind-try", link, link]
    return [*shown, "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]


def _devices() -> list[str]:
    """Devices, without the unlimited memory that a fresh /dev would offer as files."""
    return ["--dev", "/dev", "--size", str(2**20), "--tmpfs", "/dev/shm", "--remount-ro", "/dev", "--chdir", "/"]
