"""What a run may use, what it came to, and the layers that hold it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from seekling.config import Settings
from seekling.records import Verdict

Isolation = Literal["strict", "unsafe-local"]
"""``unsafe-local`` keeps time, memory and output in bounds and nothing else: the program is the user who runs it."""


class Layer(StrEnum):
    """What stands between a program and the machine. Each holds something that no other does."""

    IDENTITY = "identity"
    ENVIRONMENT = "environment"
    DESCRIPTORS = "descriptors"
    RLIMITS = "rlimits"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"
    CLOCK = "clock"
    OUTPUT = "output"


class Limits(Settings):
    """What one run of one program may use."""

    wall_s: float = Field(5.0, gt=0, le=600, description="seconds by the clock, over all of its inputs")
    cpu_s: int = Field(5, ge=1, le=600, description="processor seconds, over all of its inputs")
    memory_bytes: int = Field(2**29, ge=2**26, description="address space, Python itself included")
    output_bytes: int = Field(2**18, ge=0, description="most that it may print")
    answer_bytes: int = Field(2**20, ge=64, description="longest answer to one input, as JSON")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program came to on one input.

    ``verdict`` is None when it answered, whether rightly or not is not known here: nothing in a sandbox can pass.
    Else it says in the words of a check why there is no ``value``, and ``said`` in a person's. ``stdout`` and
    ``stderr`` hold what was printed during the whole run, ``seconds`` how long this input took.
    """

    verdict: Verdict | None
    value: Any = None
    said: str = ""
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
