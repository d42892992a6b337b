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
from seekling.learn.lanes import ONE, Lanes
from seekling.learn.optim import Optimizers
from seekling.model.decoder import Decoder
from seekling.model.foreign import Foreign, save_any
from seekling.model.lora import adapters, merged, save_adapter
from seekling.model.weights import save_model
from seekling.recipes.checkpoint import save_checkpoint
from seekling.records import StepRecord
from seekling.runlog.ledger import Entry, Ledger
from seekling.runlog.run import MetricLog, StageFolder
from seekling.text.tokenizer import Tokenizer

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
    lanes: Lanes = ONE
    metrics: MetricLog = field(init=False)
    _began: float = field(init=False)
    _seconds_before: float = field(init=False)

    def __post_init__(self) -> None:
        self.folder.metrics()  # a damaged line is told before the work, not after it
        self.metrics = MetricLog(self.folder.folder)
        self._began, self._seconds_before = time.perf_counter(), float(self.folder.facts().get("seconds", 0.0))

    @property
    def checkpoints(self) -> Path:
        """Where this stage's checkpoints stand."""
        return self.folder.folder / "checkpoints"

    def charge(self, step: int, kind: str, tokens: int, flops: float, seconds: float) -> None:
        """Enter one piece of work in the ledger."""
        folder = self.folder.folder.name
        self.ledger.append(Entry(self.name, self.session, step, kind, tokens, flops, seconds, folder))

    def log(self, step: int, of: int, tokens: int, flops: float, seconds: float, figures: Mapping[str, Any]) -> None:
        """Write one step's record and tell it. Raises UserError when a figure is not finite: training diverged."""
        wrong = [name for name, value in figures.items() if isinstance(value, float) and not math.isfinite(value)]
        if wrong:
            raise self._diverged(f"at step {step} {wrong[0]} is not a finite number")
        self.metrics.write(StepRecord(step, self.session, seconds, tokens, flops, figures))
        self.tell(self.name, step, of, {k: v for k, v in figures.items() if isinstance(v, int | float)})

    def save(self, next_step: int, of: int, every: int, model: Decoder, optimizers: Optimizers) -> None:
        """A checkpoint when one is due or someone asked to stop. Raises Interrupted then, unless all is done."""
        asked = self.stop_requested()
        if asked or next_step % every == 0:
            self.refuse_broken(model)
            save_checkpoint(self.checkpoints, next_step, model, optimizers)
            self.note_seconds()
        if asked and next_step < of:
            raise Interrupted

    def export(self, model: Decoder, tokenizer: Tokenizer) -> None:
        """Leave the finished model in the stage's folder; of an adapted one, merged, and its adapters beside it.

        Merged it is float32 whatever its base: rounded to bfloat16, what the adapters learned could vanish.
        """
        self.refuse_broken(model)
        tokenizer.save(self.folder.model)
        if isinstance(model, Foreign) or not adapters(model):
            save_any(self.folder.model, model)
            return
        save_model(self.folder.model, merged(model, place="cpu"), dtype=torch.float32)
        came = self.inputs[0].facts().get("source", {})  # of an imported model: where others find it too
        base, commit = came.get("model", str(self.inputs[0].model)), came.get("commit") or None
        save_adapter(self.folder.folder / "adapter", model, base, commit)

    def refuse_broken(self, model: Decoder) -> None:
        """Raises UserError when a weight is not finite: no file must ever hold such a model."""
        wrong = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
        if wrong:
            raise self._diverged(f"weights of {wrong[0]} are not finite numbers")

    def _diverged(self, how: str) -> UserError:
        return UserError(
            f'stage "{self.name}" diverged: {how}',
            next_step="Lower the learning rate (optim.lr, optim.muon_lr); earlier checkpoints are untouched.",
        )

    def note_seconds(self) -> None:
        """Write how long the stage has worked, all sessions together."""
        self.folder.write(seconds=self._seconds_before + time.perf_counter() - self._began)

    def last_figures(self, num_steps: int) -> dict[str, float]:
        """Mean figures of the last steps, from the log: a resumed stage tells what an uninterrupted one would."""
        lines = [record.metrics for record in self.folder.metrics()[-num_steps:]]
        known = [{k: v for k, v in line.items() if isinstance(v, int | float)} for line in lines]
        names = sorted({name for line in known for name in line} - {"tokens_per_s"})
        values = {name: [line[name] for line in known if name in line] for name in names}
        return {name: math.fsum(found) / len(found) for name, found in values.items()}


class Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call."""
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        return elapsed
