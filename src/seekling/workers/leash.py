"""Between a program and whoever wants it: ``python leash.py PROGRAM ARGUMENT...``, standard input a pipe from there.

When the pipe closes, however its other end died, the program and all it started are ended: asked, then killed. When
the program ends by itself, what it left behind is killed. Standard library only: this file runs as it stands.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

PATIENCE_S = 10.0
"""How long a program may take to leave when asked to."""


def main(command: list[str]) -> int:
    """The program's exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other end, which closes the pipe
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    threading.Thread(target=_watch, args=(program,), daemon=True).start()
    status = program.wait()
    _signal(program.pid, signal.SIGKILL)
    return status


def _watch(program: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    _signal(program.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        program.wait(PATIENCE_S)
    _signal(program.pid, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(abs(main(sys.argv[1:])))
