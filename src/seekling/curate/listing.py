"""A curated list: problems as JSON lines, each with the pass rate it was picked by. To be read, and edited, by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seekling.errors import UserError
from seekling.records import Problem
from seekling.runlog.files import write_atomic

LIST = "problems.jsonl"
"""What the list is called in its stage's folder."""


@dataclass(frozen=True, slots=True)
class Picked:
    """A problem, and the share of rollouts that solved it; None where nobody tried."""

    problem: Problem
    pass_rate: float | None = None


def write_list(file: Path, picked: Iterable[Picked]) -> None:
    """Write a list, whole or not at all. Raises UserError for a problem that JSON cannot hold."""
    write_atomic(file, "".join(f"{_line(one)}\n" for one in picked))


def read_list(file: Path) -> list[Picked]:
    """The problems of a list, in order. Raises UserError naming the line that is no problem."""
    if not file.exists():
        raise UserError(f"{file} is missing", next_step="Name a stage of kind curate: it leaves such a list.")
    lines = file.read_text(encoding="utf-8").split("\n")  # a last line without an end is a person's, and counts
    return [_picked(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def plain(problem: Problem) -> Problem:
    """The problem as its list will hold it: tuples have become lists. Raises UserError where JSON cannot hold it."""
    return replace(problem, info=json.loads(_json(problem))["info"])


def _line(one: Picked) -> str:
    return _json(one.problem, pass_rate=one.pass_rate)


def _json(problem: Problem, **more: Any) -> str:
    try:
        return json.dumps(asdict(problem) | more, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f'a problem of task "{problem.task}" cannot be written to a list: {error}',
            where=f"info of {problem.prompt[:80]!r}",
            next_step="Keep numbers, texts, lists and tables in a problem's info.",
        ) from None


def _picked(file: Path, number: int, line: str) -> Picked:
    try:
        row = json.loads(line)
        rate = row.pop("pass_rate", None)
        return Picked(Problem(**row), None if rate is None else float(rate))
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"line {number} of {file} is no problem: {error}",
            where=f"{file}:{number}",
            next_step="Mend or delete that line, or delete the stage's folder and run again.",
        ) from None
