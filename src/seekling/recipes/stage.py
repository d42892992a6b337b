"""What a loop is handed: its inputs, its folder, its clock and ledger, and how to stop and go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from seekling.errors import UserError
from seekling.learn.guard import Broken
from seekling.learn.lanes import ONE, Lanes
from seekling.learn.optim import Optimizers
from seekling.learn.parallel.world import World
from seekling.model.decoder import Decoder
from seekling.model.foreign import Foreign, save_any
from seekling.model.lora import adapters, merged, save_adapter
from seekling.model.weights import save_model
from seekling.recipes.checkpoint import Best, best_of, restore, save_checkpoint, take_weights
from seekling.recipes.config import KINDS, StageSettings, Trained
from seekling.recipes.journal import SharedJournal
from seekling.records import StepRecord
from seekling.runlog.files import read_json, write_json
from seekling.runlog.ledger import Cost, Entry, Ledger
from seekling.runlog.run import Journal, MetricLog, StageFolder
from seekling.text.tokenizer import Tokenizer

S = TypeVar("S", bound=StageSettings)

Tell = Callable[[str, int, int, Mapping[str, float]], None]
"""(stage, step, of how many, figures): how a loop speaks to whoever watches."""


class Interrupted(Exception):
    """Someone asked the run to stop; the stage has saved itself, and the same command goes on."""


@dataclass
class Stage:
    """One stage at work. ``seed`` names its draws; ``inputs`` are the finished folders it reads, in order.

    ``closing`` is what ends with it, however it ends. ``home`` is where the stage stands when ``folder``, that of one
    of several processes which only follows, is not it.
    """

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
    home: Path | None = None
    closing: ExitStack = field(default_factory=ExitStack)
    metrics: MetricLog = field(init=False)
    _told: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _best: Best | None = None
    _spent: Cost = field(default_factory=Cost)
    _used: float = 0.0
    _self_testing: float = 0.0
    _began: float = field(init=False)
    _seconds_before: float = field(init=False)

    def __post_init__(self) -> None:
        self.folder.metrics()  # a damaged line is told before the work, not after it
        self.metrics = MetricLog(self.folder.folder)
        self._began, self._seconds_before = time.perf_counter(), float(self.folder.facts().get("seconds", 0.0))

    @property
    def checkpoints(self) -> Path:
        """Where this stage's checkpoints stand."""
        return (self.home or self.folder.folder) / "checkpoints"

    @property
    def world(self) -> World:
        """The processes that work on it."""
        return self.lanes.world

    def reading(self, leaving: str) -> list[StageFolder]:
        """The stages it reads that leave this (a key of ``config.LEAVINGS``), in order."""
        return [folder for folder in self.inputs if KINDS[folder.facts()["kind"]].leaves == leaving]

    def journal(self) -> Journal:
        """What was drawn and judged so far, kept by the first process and known to all."""
        return SharedJournal(self.folder.folder, self.world)

    @contextmanager
    def self_testing(self) -> Iterator[None]:
        """What is done within is start-up self-tests: the stage tells how long this session's took in all."""
        began = time.perf_counter()
        yield
        self._self_testing += time.perf_counter() - began
        self.folder.write(selftest_seconds=round(self._self_testing, 3))

    def charge(self, step: int, kind: str, tokens: int, flops: float, seconds: float) -> None:
        """Enter one piece of work in the ledger."""
        folder = self.folder.folder.name
        self.ledger.append(Entry(self.name, self.session, step, kind, tokens, flops, seconds, folder))

    def log(self, step: int, of: int, tokens: int, flops: float, seconds: float, figures: Mapping[str, Any]) -> None:
        """Write one step's record and tell it. Raises UserError when a figure is not finite: training diverged.

        Of a step with a skipped update the finite figures are written: why it was skipped is told.
        """
        wrong = [name for name, value in figures.items() if isinstance(value, float) and not math.isfinite(value)]
        if wrong and not figures.get("skipped"):
            raise self._diverged(f"at step {step} {wrong[0]} is not a finite number")
        told = {name: value for name, value in figures.items() if name not in wrong}
        self._told[step] = told
        self._spent += Cost(tokens, flops, seconds)
        self.metrics.write(StepRecord(step, self.session, seconds, tokens, flops, told))
        self.tell(self.name, step, of, {k: v for k, v in told.items() if isinstance(v, int | float)})

    def restore(self, config: Trained, model: Decoder, optimizers: Optimizers) -> int:
        """Fill model and optimizers from the newest sound checkpoint. Returns the step to do next.

        Where all steps are done the model is the one to export.
        """
        optimizers.guard.barred = self.world.told(sorted(self._barred()))
        start = restore(self.checkpoints, model, optimizers, self.warn)
        self._best = best_of(self.checkpoints, start) if start else None
        done = [record for record in self.folder.metrics() if record.step < start]
        self._spent = sum((Cost(record.tokens, record.flops, record.seconds) for record in done), Cost())
        self._use(config)
        known = done if start % config.checkpoint_every else []  # someone stopped it on the way
        self._told = {record.step: record.metrics for record in known}
        if self._best and config.export == "best":
            take_weights(self.checkpoints, self._best, model if self._is_over(start, config) else None)
        return start

    def steps(self, start: int, config: Trained, optimizers: Optimizers) -> Iterator[int]:
        """The steps to do from ``start`` on: all that are left, or as many as the budget lasts for; then it tells so.

        Each begins with the optimizers knowing what share of the budget is gone.
        """
        step = start
        while not self._is_over(step, config):
            optimizers.used = self._used
            yield step
            step += 1
        if step < config.steps:
            self.folder.write(ended={"by": "budget", "steps": step, "of": config.steps, **asdict(self._spent)})
            self.warn(
                f'stage "{self.name}": its budget is used up after {step} of at most {config.steps} steps'
                f" ({self._spent.tokens:,} tokens, {self._spent.flops:.4g} FLOPs, {self._spent.seconds:.1f} s)"
            )

    def _use(self, config: Trained) -> None:
        """Note the share of the budget that is gone. Of several processes the first measures, and all end alike."""
        self._used = self.world.told(config.budget.share(self._spent.tokens, self._spent.flops, self._spent.seconds))

    def _is_over(self, next_step: int, config: Trained) -> bool:
        """Whether all is done: every step, or as much as the budget allows."""
        return next_step >= config.steps or self._used >= 1

    def save(self, next_step: int, config: Trained, model: Decoder, optimizers: Optimizers) -> None:
        """A checkpoint when one is due or someone asked to stop. Raises Interrupted then, unless all is done.

        After the last step the model is the one to export. Raises UserError when too many updates in a row were
        skipped.
        """
        self._hold_skipped(next_step - 1, config, optimizers)
        self._use(config)
        asked, is_last = self.world.told(self.stop_requested()), self._is_over(next_step, config)
        is_compared = next_step % config.checkpoint_every == 0 or (is_last and config.export == "best")
        if asked or is_compared:
            self.refuse_broken(model)
            best = self._better(next_step, config) if is_compared else self._best
            known = self.world.told(best and asdict(best))
            best = Best(**known) if known else None
            self.metrics.sync()  # the figures of what is saved must outlive whatever it outlives
            save_checkpoint(self.checkpoints, next_step, model, optimizers, best=best, keep=config.keep)
            self._best = best
            self.note_seconds()
        if asked and not is_last:
            raise Interrupted
        if is_last and self._best and config.export == "best":
            take_weights(self.checkpoints, self._best, model)

    def _better(self, next_step: int, config: Trained) -> Best | None:
        """The best checkpoint, the one about to be saved among them: stops on the way change nothing of it."""
        name, before = config.best_by, (next_step - 1) // config.checkpoint_every * config.checkpoint_every
        steps = range(before if name == "loss" else next_step - 1, next_step)
        known = [self._told[step][name] for step in steps if name in self._told.get(step, {})]
        self._told.clear()
        return Best(next_step, name, math.fsum(known) / len(known)).or_better(self._best) if known else self._best

    def _hold_skipped(self, step: int, config: Trained, optimizers: Optimizers) -> None:
        guard, most = optimizers.guard, config.optim.max_skipped
        for fault in guard.faults:
            self.warn(f"step {step}: an update is skipped: {fault} ({guard.in_a_row} in a row, at most {most})")
        guard.faults = []
        if guard.in_a_row > most:
            raise self._diverged(f"{guard.in_a_row} updates in a row were skipped, the last at step {step}")

    def work(self, loop: Callable[[Stage, S], dict[str, float]], settings: S) -> dict[str, float]:
        """Run a loop; where an update broke the weights, again from the last checkpoint, without that update."""
        while True:
            try:
                return loop(self, settings)
            except Broken as broken:
                barred, how = self._barred() | {broken.step}, str(broken)
            self.closing.close()
            if self.world.leads:
                write_json(self.checkpoints / "barred.json", sorted(barred))
            self.warn(f'stage "{self.name}": {how}; back to the last checkpoint, to go on without that update')

    def _barred(self) -> frozenset[int]:
        """Updates that broke the weights in some session."""
        file = self.checkpoints / "barred.json"
        return frozenset(read_json(file) if file.exists() else ())

    def export(self, model: Decoder, tokenizer: Tokenizer) -> None:
        """Leave the finished model in the stage's folder; of an adapted one, merged, and its adapters beside it.

        Merged it is float32 whatever its base: rounded to bfloat16, what the adapters learned could vanish.
        """
        self.refuse_broken(model)
        if not self.world.leads:
            return
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
        """Mean figures of the last steps, from the log: a resumed stage tells what an uninterrupted one would.

        Skipped updates are counted over the whole stage.
        """
        records = self.folder.metrics()
        lines = [record.metrics for record in records[-num_steps:]]
        known = [{k: v for k, v in line.items() if isinstance(v, int | float)} for line in lines]
        names = sorted({name for line in known for name in line} - {"tokens_per_s"})
        values = {name: [line[name] for line in known if name in line] for name in names}
        means = {name: math.fsum(found) / len(found) for name, found in values.items()}
        skipped = math.fsum(record.metrics.get("skipped", 0.0) for record in records)
        return means | ({"skipped": skipped} if "skipped" in means else {})


class Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call."""
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        return elapsed
