"""A program on a leash: it lives with whoever wants it and never longer, and inherits no secret."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from seekling.workers.tied import Tied

FAMILY = """
import json, os, signal, subprocess, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1] + ".part", "w").write(json.dumps([os.getpid(), child.pid]))
os.rename(sys.argv[1] + ".part", sys.argv[1])
print("hello"); print("", flush=True)
if "leaves" in sys.argv:
    sys.exit(3)
time.sleep(600)
"""


def family(folder: Path, *how: str) -> tuple[Tied, list[int]]:
    """A program with a child of its own, and both process ids."""
    note = folder / "pids"
    program = Tied([sys.executable, "-c", FAMILY, str(note), *how], folder / "said.log", {})
    return program, noted(note)


def noted(file: Path) -> list[int]:
    until(file.exists)
    pids: list[int] = json.loads(file.read_text())
    return pids


def until(true: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended: gone, or a zombie that nobody waits for."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_its_end_is_the_end_of_all_it_started(tmp_path: Path) -> None:
    program, pids = family(tmp_path)
    assert program.is_alive() and not any(map(gone, pids))
    program.end()
    assert not program.is_alive() and all(map(gone, pids))
    program.end()


def test_one_that_does_not_leave_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leash = tmp_path / "leash.py"
    source = (Path(__file__).parents[2] / "src/seekling/workers/leash.py").read_text()
    leash.write_text(source.replace("PATIENCE_S = 10.0", "PATIENCE_S = 0.3"))
    monkeypatch.setattr("seekling.workers.tied.LEASH", leash)
    program, pids = family(tmp_path, "stubborn")
    program.end()
    assert all(map(gone, pids))


def test_what_it_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    program, pids = family(tmp_path, "leaves")
    until(lambda: not program.is_alive())
    until(lambda: all(map(gone, pids)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_who_wanted_it_is_killed(tmp_path: Path, number: int) -> None:
    note = tmp_path / "pids"
    code = (
        "import sys, time; from pathlib import Path; from seekling.workers.tied import Tied\n"
        f"command = [sys.executable, '-c', {FAMILY!r}, {str(note)!r}]\n"
        f"program = Tied(command, Path({str(tmp_path / 'said.log')!r}), {{}})\n"
        "time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code])
    pids = noted(note)
    owner.send_signal(number)
    owner.wait()
    until(lambda: all(map(gone, pids)))


def test_its_words_are_kept_and_the_last_are_told(tmp_path: Path) -> None:
    (tmp_path / "said.log").write_text("of an earlier one\n")
    program, _ = family(tmp_path)
    until(lambda: "hello" in (tmp_path / "said.log").read_text())
    assert program.last_words() == "hello" == program.last_words(9)
    assert (tmp_path / "said.log").read_text().startswith("of an earlier one\n")
    program.end()


def test_no_secret_is_inherited_and_pythons_own_settings_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JUDGE_KEY", "HF_TOKEN", "db_password", "PYTHONPATH", "PLAIN", "SETTLED"):
        monkeypatch.setenv(name, "here")
    show = "import json, os; print(json.dumps(dict(os.environ)), flush=True)"
    given = {"OWN_KEY": "given"}
    program = Tied([sys.executable, "-c", show], tmp_path / "said.log", given, {"SETTLED": "else", "UNSET": "else"})
    until(lambda: program.last_words().endswith("}"))
    told = json.loads(program.last_words())
    assert not {"JUDGE_KEY", "HF_TOKEN", "db_password", "PYTHONPATH"} & told.keys()
    assert (told["PLAIN"], told["OWN_KEY"], told["SETTLED"], told["UNSET"]) == ("here", "given", "here", "else")
    assert told["PATH"] == os.environ["PATH"]
    program.end()


def test_a_log_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Tied(["true"], tmp_path / "nowhere" / "said.log", {})
