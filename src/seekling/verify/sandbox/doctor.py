"""Whether a box holds: what this system lacks for one, and what came of every canary in one."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from seekling.errors import UserError
from seekling.verify.sandbox.canaries import CANARIES, WALL_S, Canary, baited
from seekling.verify.sandbox.cell import Cell
from seekling.verify.sandbox.laws import landlock_version
from seekling.verify.sandbox.limits import Layer, Outcome
from seekling.verify.sandbox.seccomp import MACHINES

_CANARY_S = 5.0
SHARED = "Run it on Linux (5.13 or later), in a container or a virtual machine there."


@dataclass(frozen=True, slots=True)
class Finding:
    """What a canary came to: ``held``, or in words how not."""

    canary: Canary
    held: bool
    said: str = ""


def lacking() -> list[str]:
    """What a program could not be kept from here, since the system has no means: empty where it has them all."""
    if sys.platform != "linux":
        return ["files, network, processes and memory: this system is not Linux"]
    lacks = []
    if landlock_version() < 1:
        lacks.append("files: this kernel has no Landlock (since 5.13), or it is switched off")
    if platform.machine() not in MACHINES:
        lacks.append(f"kernel calls: their numbers on {platform.machine()} are not known here")
    if not hasattr(os, "pidfd_open"):
        lacks.append("processes: this Python cannot wait for one by descriptor")
    return lacks


def examined(cell: Cell, canaries: Sequence[Canary] = CANARIES) -> list[Finding]:
    """Let every canary try. Raises UserError when the box does not even start."""
    cell.begin()
    with baited(cell.limits, cell.threads()) as bait:
        return [_finding(canary, _tried(cell, canary, bait)) for canary in canaries]


def prove(cell: Cell) -> None:
    """Raise a letter naming every canary that got out."""
    if out := [finding for finding in examined(cell) if not finding.held]:
        raise UserError(
            f"the sandbox does not hold: {'; '.join(f'{f.canary.name} ({f.said})' for f in out)}"[:1500],
            next_step="seekling sandbox doctor shows each layer. Nothing that a model wrote will be run.",
        )


def _tried(cell: Cell, canary: Canary, bait: dict[str, object]) -> Outcome:
    wall_s = WALL_S if canary.layer is Layer.CLOCK else max(cell.limits.wall_s, _CANARY_S)
    limits = cell.limits.model_copy(update={"wall_s": wall_s})
    return cell.call(canary.program, "escape", [[bait]], limits)[0]


def _finding(canary: Canary, outcome: Outcome) -> Finding:
    if outcome.verdict is None:
        return Finding(canary, outcome.value is False, "" if outcome.value is False else "it got out")
    held = outcome.verdict in canary.ends
    return Finding(canary, held, "" if held else f"{outcome.verdict}: {outcome.said}")
