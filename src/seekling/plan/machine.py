"""The machine as it is: facts a plan, a ledger or a doctor can quote. Reads files, never torch."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from seekling.workers.pool import cores

MEMINFO = Path("/proc/meminfo")
CPUINFO = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run stands on. ``cores`` and ``memory_bytes`` are what this process may use, not all there is.

    A figure that this system does not tell is 0; a name, "unknown".
    """

    python: str
    os: str
    cpu: str
    cores: int
    memory_bytes: int
    free_disk_bytes: int


def machine(folder: Path = Path()) -> Machine:
    """The facts of this machine; the free disk is that of the file system ``folder`` is, or will be, on."""
    return Machine(
        python=platform.python_version(),
        os=_os_name(),
        cpu=_cpu_model(_read(CPUINFO)),
        cores=cores(),
        memory_bytes=_memory_bytes(_read(MEMINFO), _read(CGROUP / "memory.max")),
        free_disk_bytes=shutil.disk_usage(existing_parent(folder)).free,
    )


GIVE_BACK = 2**17
"""Blocks of at least so many bytes go back to the system as they are freed, once told to."""
_M_MMAP_THRESHOLD = -3


def give_back() -> None:
    """Have the C library give freed tensors back at once, for as long as this process lives.

    glibc keeps what was freed for the next request, and before its version 2.38 hardly ever finds an aligned one room
    there: what a training step holds can double. Given back, every block is a page fault anew: a step of a small model
    takes up to twice as long, one of a larger model a fifth longer. Other C libraries are left as they are.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_THRESHOLD, GIVE_BACK)


def gives_back() -> bool:
    """Whether the environment has told glibc so already (MALLOC_MMAP_THRESHOLD_)."""
    told = os.environ.get("MALLOC_MMAP_THRESHOLD_", "")
    return told.isdigit() and int(told) <= GIVE_BACK


def existing_parent(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}".strip() or "unknown"


def _cpu_model(cpuinfo: str) -> str:
    """Model name from /proc/cpuinfo; Arm kernels write none, then the architecture must do."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine() or "unknown"


def _memory_bytes(meminfo: str, cgroup_limit: str) -> int:
    """The smaller of the machine's memory and the container's limit (cgroup v2; "max" means none)."""
    found = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    total = int(found[1]) * 1024 if found else 0
    limit = int(cgroup_limit) if cgroup_limit.strip().isdigit() else 0
    return min(total, limit) if total and limit else total or limit


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
