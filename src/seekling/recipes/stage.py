"""What a loop is handed: its inputs, its folder, its clock and ledger, and how to stop and go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from seekling.errors import UserError
from seekling.records import StepRecord
from seekling.runlog.ledger import Entry, Ledger
from seekling.runlog.run import MetricLog, StageFolder

Tell = Callable[[str, int, int, Mapping[str, float]], None]
"""(stage, step, of how many, figures): how a loop speaks to whoever watches."""


class Interrupted(Exception):
    """Someone asked the run to stop; the stage has saved itself, and the same command goes on."""


@dataclass
class Stage:
    """One stage at work. ``seed`` names its draws; ``inputs`` are the finished folders it reads, in order."""

    name: str
    folder: StageFolder
    inputs: tuple[StageFolder, ...]
    seed: str
    session: int
    device: torch.device
    dtype: torch.dtype
    ledger: Ledger
    tell: Tell
    warn: Callable[[str], None]
    stop_requested: Callable[[], bool] = lambda: False
    metrics: MetricLog = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = MetricLog(self.folder.folder)

    @property
    def checkpoints(self) -> Path:
        """Where this stage's checkpoints stand."""
        return self.folder.folder / "checkpoints"

    def charge(self, step: int, kind: str, tokens: int, flops: float, seconds: float) -> None:
        """Enter one piece of work in the ledger."""
        self.ledger.append(Entry(self.name, self.session, step, kind, tokens, flops, seconds))

    def log(self, step: int, of: int, tokens: int, flops: float, seconds: float, figures: Mapping[str, Any]) -> None:
        """Write one step's record and tell it. Raises UserError when a figure is not finite: training diverged."""
        wrong = [name for name, value in figures.items() if isinstance(value, float) and not math.isfinite(value)]
        if wrong:
            raise UserError(
                f'stage "{self.name}" diverged at step {step}: {wrong[0]} is not a finite number',
                next_step="Lower the learning rate (optim.lr, optim.muon_lr); earlier checkpoints are untouched.",
            )
        self.metrics.write(StepRecord(step, self.session, seconds, tokens, flops, figures))
        self.tell(self.name, step, of, {k: v for k, v in figures.items() if isinstance(v, int | float)})


class Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call."""
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        return elapsed
