"""A run's metrics sent on to a tracker, by the names that TRL's users know. The run's own files stay the truth.

Trackers are read from nowhere and asked for nothing: this reads ``metrics.jsonl`` as the report does, so a tracker
that is down, slow or not installed costs a run nothing, and a finished run can be sent too.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from seekling.errors import UserError
from seekling.records import StepRecord
from seekling.runlog.files import is_locked
from seekling.runlog.run import Run

TRACKERS = ("trackio", "wandb")
"""Libraries with one shape: ``init(project=, name=, config=)``, then ``log(metrics, step=)`` and ``finish()``."""

NAMES = {
    "pass_rate": "rewards/accuracy/mean",
    "format_rate": "rewards/format/mean",
    "held_out_pass": "eval/rewards/accuracy/mean",
    "response_length": "completions/mean_length",
    "frac_zero_spread": "frac_reward_zero_std",
    "clip_ratio": "clip_ratio/region_mean",
    "clip_ratio_low": "clip_ratio/low_mean",
    "clip_ratio_high": "clip_ratio/high_mean",
    "mismatch_kl": "sampling/mismatch_kl",
    "correction": "sampling/importance_sampling_ratio/mean",
}
"""Our names -> TRL's where they differ (prime-rl's for the mismatch); ``reward``, ``loss``, ``entropy`` are one."""


@dataclass
class Sent:
    """How far each stage's metrics have been sent: the next line, and the tracker's step to count on from."""

    lines: dict[str, int]
    step: int = 0


def metrics_of(record: StepRecord, stage: str) -> dict[str, float]:
    """One step's figures under a tracker's names, the stage in front; what is no number is left out."""
    told: Mapping[str, Any] = {**record.metrics, "num_tokens": record.tokens, "step_time": record.seconds}
    return {
        f"{stage}/{NAMES.get(name, name)}": float(value)
        for name, value in told.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def unsent(run: Run, sent: Sent) -> Iterator[tuple[int, dict[str, float]]]:
    """Steps that were not sent yet, in order of stage and step, each with a step number that only rises."""
    for stage in run.current():
        name = str(stage.facts()["name"])
        records = stage.metrics()
        for record in records[sent.lines.get(stage.folder.name, 0) :]:
            yield sent.step, metrics_of(record, name)
            sent.step += 1
        sent.lines[stage.folder.name] = len(records)


def tracker(name: str) -> Any:
    """The tracker's library. Raises UserError for one that is unknown or not installed."""
    if name not in TRACKERS:
        raise UserError(f'there is no tracker "{name}"', next_step=f"Known: {', '.join(TRACKERS)}.")
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{name} is not installed", next_step=f"pip install {name}") from None


def send(run: Run, to: str, project: str, *, follow: bool, wait: Callable[[float], None] = time.sleep) -> int:
    """Send every step of a run to a tracker; with ``follow``, further ones until the run ends. Returns how many.

    Raises UserError in the tracker's own words when it fails: the run's files are untouched.
    """
    library, sent = tracker(to), Sent({})
    try:
        library.init(project=project, name=run.folder.name, config=run.facts())
        while True:
            goes_on = follow and is_locked(run.folder)  # asked first: what ends now is read once more
            for step, metrics in unsent(run, sent):
                library.log(metrics, step=step)
            if not goes_on:
                break
            wait(2.0)
        library.finish()
    except UserError:
        raise
    except Exception as error:  # whatever a tracker raises, it is no fault of the run's
        raise UserError(f"{to} failed after {sent.step} steps: {type(error).__name__}: {error}") from None
    return sent.step
