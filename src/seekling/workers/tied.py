"""A program that lives as long as this process wants it, and never longer: also when this process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

LEASH = Path(__file__).with_name("leash.py")
SECRETS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
"""Ends of names of variables that no program inherits."""
LAST_BYTES = 2**16
NOTHING: Mapping[str, str] = MappingProxyType({})


class Tied:
    """A program with its own log. Its environment is this process's without secrets and Python's own settings.

    ``environment`` joins it, and ``unless_set`` where it says nothing itself.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], unless_set: Mapping[str, str] = NOTHING
    ) -> None:
        """Start it; what it says is added to ``log``. Raises OSError when that cannot be written."""
        self.log = log
        with log.open("ab") as output:
            self._from = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(LEASH), *command],
                stdin=subprocess.PIPE, stdout=output, stderr=output,
                env={**unless_set, **inherited(), **environment}, start_new_session=True,
            )  # fmt: skip
        self._end = weakref.finalize(self, _let_go, self._process)  # when it is forgotten, or Python ends

    def is_alive(self, after_s: float = 0.0) -> bool:
        """Whether it still runs, and goes on to for ``after_s``."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(after_s)
        return self._process.poll() is None

    def end(self) -> None:
        """Ask it to leave, kill it where it stays, and wait until it is gone."""
        self._end()

    def last_words(self, lines: int = 1) -> str:
        """The end of what it has said since it was started."""
        with self.log.open("rb") as said:
            said.seek(max(self._from, said.seek(0, os.SEEK_END) - LAST_BYTES))
            text = said.read().decode("utf-8", "replace")
        return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def inherited() -> dict[str, str]:
    """What a program inherits of the environment."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV")) and not name.upper().endswith(SECRETS)
    }


def _let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    with suppress(OSError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20.0)
    if process.poll() is None:  # the leash itself hangs
        process.kill()
        process.wait()
