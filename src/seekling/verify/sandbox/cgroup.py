"""A control group around a zygote, where this user may make one: memory and threads of all that is in it, together.

Root in a container or on a server usually may; an ordinary user may where the service manager delegates. Elsewhere
there is none, and the limits on the single process remain.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
_ZYGOTE_BYTES = 2**27
"""What the zygote itself and the kernel's own bookkeeping may take beside a program."""
_TASKS = 128
_NAME = re.compile(r"seekling-(\d+)-[0-9a-f]+")
_REMOVE_S = 1.0


@dataclass(frozen=True, slots=True)
class Group:
    """Folders of the group: one in version 2, one for each controller in version 1."""

    folders: tuple[Path, ...]

    @classmethod
    def make(cls, memory_bytes: int, root: Path = ROOT, own: Path = OWN) -> Group | None:
        """A group with both limits, or None where that cannot be had."""
        made: list[Path] = []
        try:
            for parent, limits in parents(memory_bytes + _ZYGOTE_BYTES, root, own.read_text()):
                _sweep(parent)
                folder = parent / f"seekling-{os.getpid()}-{secrets.token_hex(4)}"
                folder.mkdir()
                made.append(folder)
                for name, value in limits.items():
                    (folder / name).write_text(value)
        except OSError:
            Group(tuple(made)).remove()
            return None
        return cls(tuple(made)) if made else None

    def entering(self, command: Sequence[str]) -> list[str]:
        """``command`` begun inside the group, so that whatever it starts is inside too."""
        enter = " && ".join(f'echo $$ >"${place}"' for place in range(1, len(self.folders) + 1))
        files = [str(folder / "cgroup.procs") for folder in self.folders]
        return ["/bin/sh", "-c", f'{enter} && shift {len(files)} && exec "$@"', "sh", *files, *command]

    def remove(self) -> None:
        """Remove the group once its last process has been forgotten, which takes the kernel a moment."""
        deadline = time.monotonic() + _REMOVE_S
        for folder in self.folders:
            while folder.exists() and time.monotonic() < deadline:
                with suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.005)


def parents(memory_bytes: int, root: Path, own: str) -> list[tuple[Path, dict[str, str]]]:
    """Where groups go and what to write there: version 1 where it has both controllers, else version 2.

    ``own`` is the text of /proc/self/cgroup: ``number:controllers:path`` on each line. Raises OSError.
    """
    paths = {
        name: path for _, names, path in (line.split(":", 2) for line in own.splitlines()) for name in names.split(",")
    }
    if {"memory", "pids"} <= paths.keys():
        return [
            (_inside(root / "memory", paths["memory"]), {"memory.limit_in_bytes": str(memory_bytes)}),
            (_inside(root / "pids", paths["pids"]), {"pids.max": str(_TASKS)}),
        ]
    parent = _inside(root, paths.get("", "/"))
    control = parent / "cgroup.subtree_control"
    if not {"memory", "pids"} <= set(control.read_text().split()):
        control.write_text("+memory +pids")
    return [(parent, {"memory.max": str(memory_bytes), "memory.swap.max": "0", "pids.max": str(_TASKS)})]


def _inside(root: Path, path: str) -> Path:
    """``path`` below ``root``; ``root`` itself in a container that sees its own group as the top."""
    folder = root / path.lstrip("/")
    return folder if folder.is_dir() else root


def _sweep(parent: Path) -> None:
    """Remove what processes left that are gone."""
    for folder in parent.glob("seekling-*"):
        name = _NAME.fullmatch(folder.name)
        if name and not Path(f"/proc/{name[1]}").exists():
            with suppress(OSError):
                folder.rmdir()
