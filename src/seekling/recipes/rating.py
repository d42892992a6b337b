"""The reward model of a chain at a stage's disposal: loaded once, standardised, metered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from seekling.learn.lanes import Lanes
from seekling.recipes.reward_model import FACT, Rater, load_reward_model
from seekling.recipes.stage import Clock, Stage
from seekling.runlog.run import StageFolder


class Spent(NamedTuple):
    """What ratings cost: tokens read, FLOPs, seconds."""

    tokens: int
    flops: float
    seconds: float


NOTHING = Spent(0, 0.0, 0.0)


@dataclass
class Reading:
    """A ``Rate``: numbers in standard deviations from the mean of the reward model's held-out replies.

    Only differences at one prompt mean something to a reward model; where its zero lies does not. What it costs is
    added up until ``spent`` takes it.
    """

    rater: Rater
    mean: float = 0.0
    std: float = 1.0
    _spent: Spent = NOTHING

    def __call__(self, prompts: Sequence[str], replies: Sequence[str]) -> list[float | None]:
        """Standardised numbers; None for what cannot be read."""
        clock = Clock()
        told, tokens, flops = self.rater.rate(prompts, replies)
        before = self._spent
        self._spent = Spent(before.tokens + tokens, before.flops + flops, before.seconds + clock.lap())
        return [None if number is None else (number - self.mean) / self.std for number in told]

    def spent(self) -> Spent:
        """The cost of all ratings since this was last asked."""
        spent, self._spent = self._spent, NOTHING
        return spent


def spent_by(reading: Reading | None) -> Spent:
    """What a reward model cost since this was last asked; nothing where there is none."""
    return reading.spent() if reading else NOTHING


def charge(stage: Stage, index: int, rated: Spent) -> None:
    """Enter a step's ratings in the ledger, where there were any."""
    if rated.tokens:
        stage.charge(index, "reward", *rated)


def reading_of(stage: Stage) -> Reading | None:
    """The reward model that a stage reads, or None. Of several processes the first alone asks it."""
    raters = stage.reading("rater")
    return opened(raters[0], stage.device, Lanes(stage.lanes.count)) if raters else None


def opened(folder: StageFolder, device: torch.device, lanes: Lanes) -> Reading:
    """The reward model that a stage left."""
    scale = folder.facts()[FACT]
    return Reading(load_reward_model(folder.model, device, lanes), scale["mean"], scale["std"])
