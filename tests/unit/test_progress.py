"""Signs of life: plain lines without a terminal, one live line on one, and neither can break a run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from seekling.cli import progress
from seekling.cli.progress import Progress, duration


def console(*, terminal: bool) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        _environ={"TERM": "xterm"},
        width=60,
        highlight=False,
        color_system=None,
    )


def said(where: Console) -> str:
    assert isinstance(where.file, io.StringIO)
    return where.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_are_told_in_two_units_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_without_a_terminal_lines_are_plain_and_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    where = console(terminal=False)
    with Progress(where) as watched:
        watched.begin("base", "running")
        for step in range(50):
            watched.tell("base", step, 50, {"loss": 1.0, "unknown": 3.0})
        watched.begin("zero", "finished before")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and "1/50" in lines[0] and "loss 1.000" in lines[0] and "unknown" not in lines[0]
    assert "base            50/50  loss 1.000" in said(where) and "zero         finished before" in said(where)
    assert "\x1b" not in said(where)


def test_time_left_is_told_once_there_is_something_to_go_by(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    watched = Progress(console(terminal=False))
    watched.begin("zero", "running")
    watched.tell("zero", 40, 100, {})
    assert "left" not in watched._told, "a resumed stage has done one step, not 41"
    now = 110.0
    watched.tell("zero", 50, 100, {})
    assert "50 s left" in watched._told


def test_long_lines_and_brackets_are_told_as_they_are() -> None:
    where = console(terminal=False)
    with Progress(where) as watched:
        watched.warn("checkpoint " + "x" * 100 + " [red] is damaged")
    assert said(where) == "warning: checkpoint " + "x" * 100 + " [red] is damaged\n"


def test_on_a_terminal_the_line_is_live_and_gone_at_the_end() -> None:
    where = console(terminal=True)
    with Progress(where) as watched:
        watched.begin("zero", "running")
        watched.tell("zero", 0, 2, {"reward": 0.5, "pass_rate": 0.25})
        watched.tell("zero", 1, 2, {"reward": 0.75})
    assert "\x1b" in said(where)
    assert "reward 0.75" in said(where) and "pass 25%" in said(where), "a figure measured now and then stays in sight"
