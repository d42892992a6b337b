"""What keeps a bad update from being made: a loss or gradient that is no number, a spike, one that broke the weights.

An update that must not be leaves weights, router biases and optimizer state as they were; its texts are passed over and
the schedule goes on. What is remembered is part of a checkpoint, so that a killed run judges as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from statistics import median
from typing import Any

WINDOW = 100
"""Gradient norms remembered: the last ones that were numbers, those of skipped updates too."""
KNOWN = 20
"""With fewer of them nothing is called a spike."""


class Broken(Exception):
    """The update ``step`` left weights that are not finite: the model is lost, and the last checkpoint is not."""

    def __init__(self, step: int) -> None:
        super().__init__(f"update {step} left weights that are not finite numbers")
        self.step = step


class Guard:
    """Judges updates by their figures. ``spike`` is how many medians a norm may be; 0: any."""

    def __init__(self, spike: float = 0.0) -> None:
        self.spike = spike
        self.norms: list[float] = []
        self.in_a_row = 0
        self.barred: Collection[int] = ()
        """Updates that broke the weights once, and are not made again."""
        self.faults: list[str] = []
        """Of updates skipped since somebody last told them."""

    def skips(self, step: int, norm: float, loss: float = 0.0) -> bool:
        """Whether this update, whose gradient has that norm, must not be made."""
        fault = self._fault(step, norm, loss)
        if math.isfinite(norm) and norm > 0:  # a step without gradient says nothing of how large they are
            self.norms = [*self.norms, norm][-WINDOW:]
        self.in_a_row = self.in_a_row + 1 if fault else 0
        self.faults += [fault] if fault else []
        return bool(fault)

    def _fault(self, step: int, norm: float, loss: float) -> str:
        if step in self.barred:
            return "it broke the weights before"
        if not math.isfinite(loss):
            return "its loss is not a finite number"
        if not math.isfinite(norm):
            return "its gradient is not finite"
        usual = median(self.norms) if len(self.norms) >= KNOWN else math.inf
        if self.spike and norm > self.spike * usual:
            return f"its gradient norm, {norm:.3g}, is {norm / usual:.3g} times the usual {usual:.3g}"
        return ""

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it, as plain JSON values."""
        return {"norms": self.norms, "in_a_row": self.in_a_row}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.norms, self.in_a_row, self.faults = [float(x) for x in state["norms"]], int(state["in_a_row"]), []
