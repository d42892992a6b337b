"""Processes live together and die together; the one that failed is named, with what it said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seekling.workers import crew
from seekling.workers.crew import Ended, Member, member, run

LETTERS = (2,)
SLEEP = "import time; time.sleep(60)"


def started(script: str, size: int = 3) -> Ended:
    """A crew of a script that knows its ``rank``."""
    return run([sys.executable, "-c", f"import os, sys\nrank = int(os.environ['RANK'])\n{script}"], size, LETTERS)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "GRACE_S", 1.0)
    monkeypatch.setattr(crew, "LEAVE_S", 1.0)


def test_a_crew_that_ends_well_ends_as_its_first() -> None:
    assert started("sys.exit(0)") == Ended(0, 0)


def test_each_is_told_who_it_is_and_where_all_meet(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from seekling.workers.crew import member
Path({str(tmp_path)!r}, str(rank)).write_text(repr(member()))
"""
    assert started(script) == Ended(0, 0)
    told = [(tmp_path / str(rank)).read_text() for rank in range(3)]
    assert [f"rank={rank}, size=3, local={rank}, meet='file://" in one for rank, one in enumerate(told)] == [True] * 3
    assert len({one.partition("meet=")[2] for one in told}) == 1


def test_one_that_dies_takes_the_others_along_and_is_named_with_its_last_words() -> None:
    began = time.monotonic()
    ended = started(f"if rank == 2: raise ValueError('two had enough')\n{SLEEP}")
    assert (ended.rank, ended.status) == (2, 1) and ended.said.endswith("ValueError: two had enough")
    assert "Traceback" in ended.said
    assert time.monotonic() - began < 20


def test_one_that_is_killed_is_named_by_its_signal() -> None:
    ended = started(f"if rank == 1: os.kill(os.getpid(), 9)\n{SLEEP}")
    assert (ended.rank, ended.status) == (1, -signal.SIGKILL)


def test_what_all_fail_of_is_told_by_the_first() -> None:
    assert started("import time; time.sleep(0.3 * (rank == 0)); print(rank); sys.exit(2)") == Ended(0, 2)


def test_the_first_that_breaks_because_another_died_is_not_blamed() -> None:
    ended = started(f"import time\nif rank == 0: time.sleep(0.5); sys.exit(1)\nif rank == 1: sys.exit(7)\n{SLEEP}")
    assert (ended.rank, ended.status) == (1, 7)


def test_one_that_never_leaves_is_not_waited_for() -> None:
    assert started(f"if rank == 0: sys.exit(0)\n{SLEEP}") == Ended(0, 0)


def test_nobody_waits_for_a_word_of_the_person() -> None:
    assert started("sys.exit(0 if not sys.stdin.isatty() else 3)") == Ended(0, 0)


def test_a_signal_goes_to_the_first_which_decides() -> None:
    script = f"""
import signal, time
def leave(number, frame): sys.exit(2 if rank == 0 else 9)
signal.signal(signal.SIGTERM, leave)
if rank == 0: os.kill(os.getppid(), signal.SIGTERM)
{SLEEP}
"""
    assert started(script) == Ended(0, 2)


def test_no_process_outlives_whoever_started_it(tmp_path: Path) -> None:
    child = f"""
import os, time
from pathlib import Path
from seekling.workers.crew import tie
tie()
Path({str(tmp_path)!r}, os.environ["RANK"]).write_text(str(os.getpid()))
time.sleep(60)
"""
    parent = f"import sys\nfrom seekling.workers.crew import run\nrun([sys.executable, '-c', {child!r}], 2, ())"
    process = subprocess.Popen([sys.executable, "-c", parent])
    end = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < 2 or not all(file.read_text() for file in tmp_path.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    for pid in [int(file.read_text()) for file in tmp_path.iterdir()]:
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < end, f"{pid} lives on"
            time.sleep(0.02)


def test_a_process_of_torchrun_is_a_member_and_one_alone_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", crew.MEET):
        monkeypatch.delenv(name, raising=False)
    assert member() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert member() is None, "torchrun with one process is one process"
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("RANK", "9")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert member() == Member(9, 16, 1, "env://")


def test_only_those_started_here_are_tied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of torchrun has no pipe that could close: it must not take an empty input for its end."""
    monkeypatch.delenv(crew.TIED, raising=False)
    crew.tie()
    assert os.getpid()
