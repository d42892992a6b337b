"""Signs of life: a live line on a terminal, plain lines elsewhere. Nothing here changes a run."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.live import Live
from rich.text import Text

SHOWN = {
    "reward": "reward {:.2f}",
    "pass_rate": "pass {:.0%}",
    "held_out_pass": "held-out {:.0%}",
    "pass@1": "pass@1 {:.0%}",
    "found": "{:.0f} found",
    "loss": "loss {:.3f}",
    "response_length": "length {:.0f}",
    "entropy": "entropy {:.2f}",
    "tokens_per_s": "{:,.0f} tokens/s",
}
"""How a step's figures are told, in this order."""
PLAIN_EVERY_S = 10.0


class Progress:
    """Tells stages and steps; use as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=False, highlight=False)
        self._live = (
            Live(console=self.console, refresh_per_second=8, transient=True) if self.console.is_terminal else None
        )
        self._began, self._first, self._last_plain, self._told = time.monotonic(), 0, 0.0, ""
        self._figures: dict[str, float] = {}

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._finish()
        if self._live:
            self._live.stop()

    def begin(self, name: str, state: str) -> None:
        """A stage starts, or is passed over because it has finished."""
        self._finish()
        self._began, self._first, self._figures = time.monotonic(), -1, {}
        if state != "running":
            self.console.print(f"{name:<12} {state}")

    def tell(self, name: str, step: int, of: int, figures: Mapping[str, float]) -> None:
        """One step is done."""
        self._first = step if self._first < 0 else self._first
        self._figures |= figures
        self._told = self._line(name, step, of)
        now = time.monotonic()
        if self._live:
            self._live.update(Text(self._told))
        elif now - self._last_plain > PLAIN_EVERY_S:
            self._last_plain = now
            print(self._told, flush=True)

    def warn(self, text: str) -> None:
        """Something a person should know, without stopping."""
        self.console.print(f"warning: {text}", markup=False, soft_wrap=True)

    def _line(self, name: str, step: int, of: int) -> str:
        elapsed = time.monotonic() - self._began
        done = step - self._first
        left = f"{duration(elapsed / done * (of - step))} left" if done > 0 and step < of else ""
        told = [template.format(self._figures[key]) for key, template in SHOWN.items() if key in self._figures]
        return "  ".join(part for part in (f"{name:<12} {min(step + 1, of):>5}/{of}", *told, left) if part)

    def _finish(self) -> None:
        if self._told:
            self.console.print(
                f"{self._told.partition(' left')[0]}  ({duration(time.monotonic() - self._began)})",
                markup=False, soft_wrap=True,
            )  # fmt: skip
        self._told = ""


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
