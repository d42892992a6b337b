"""What a run cost. ``spent`` counts every executed step, repeated ones too; ``kept`` those in the result."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seekling.runlog.files import Lines, read_records


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of work: ``kind`` is train, generate, reward or eval, or what a teacher does: teacher (it speaks) and
    teacher_scoring (it reads); ``flops`` are computed from the model's shape.

    ``folder`` is the stage's folder: a stage whose settings changed works in another, and only one is in the result.
    """

    stage: str
    session: int
    step: int
    kind: str
    tokens: int
    flops: float
    seconds: float
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """A sum of entries."""

    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost | Entry) -> Cost:
        return Cost(self.tokens + other.tokens, self.flops + other.flops, self.seconds + other.seconds)


class Ledger:
    """Append-only costs of one run."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ledger.jsonl"
        self._lines = Lines(self.file)

    def append(self, entry: Entry) -> None:
        """Record one piece of work."""
        self._lines.append(asdict(entry))

    def close(self) -> None:
        """Flush to the disk."""
        self._lines.close()


def read_ledger(folder: Path) -> list[Entry]:
    """Every entry, in the order written. Raises UserError for a line that is no entry."""
    return list(read_records(folder / "ledger.jsonl", Entry))


def spent(entries: Iterable[Entry]) -> dict[str, Cost]:
    """Cost of every executed step, per stage."""
    return _sum(entries)


def kept(entries: Iterable[Entry], folders: Container[str]) -> dict[str, Cost]:
    """Cost of the steps in the result, per stage: those of ``folders``; of a repeated step, the last execution."""
    last: dict[tuple[Any, ...], Entry] = {(e.folder, e.step, e.kind): e for e in entries if e.folder in folders}
    return _sum(last.values())


def total(costs: dict[str, Cost]) -> Cost:
    """Sum over stages."""
    return sum(costs.values(), Cost())


def _sum(entries: Iterable[Entry]) -> dict[str, Cost]:
    costs: dict[str, Cost] = {}
    for entry in entries:
        costs[entry.stage] = costs.get(entry.stage, Cost()) + entry
    return costs
