"""Workers: what they answer, and that nothing they do can hold up, fill up or outlive the parent."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from seekling.errors import UserError
from seekling.workers.worker import Worker, WorkerLost

HERE = Path(__file__).parents[2]


def deeds(setup: Any) -> Callable[[Any], Any]:
    """The target of these tests: does what it is asked, however bad."""
    if setup == "broken":
        raise UserError("no setup", where="here", next_step="mend it")
    while setup == "heavy" and time.process_time() < 1.3:
        pass
    return lambda request: DEEDS[request[0]](setup, *request[1:])


def spin(setup: Any) -> None:
    while True:
        pass


def bear(setup: Any) -> None:
    sleepers = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    print("noise that must not be taken for a reply")
    Path(setup).write_text(" ".join(str(sleeper.pid) for sleeper in sleepers))
    time.sleep(600)


def complain(setup: Any) -> None:
    raise UserError("what", where="where", next_step="next")


DEEDS: dict[str, Callable[..., Any]] = {
    "echo": lambda setup, value: value,
    "spin": spin,
    "sleep": lambda setup: time.sleep(600),
    "children": bear,
    "memory": lambda setup: len("x" * 2**32),
    "size": lambda setup, count: "x" * count,
    "exit": lambda setup: os._exit(3),
    "letter": complain,
    "about": lambda setup: {"pid": os.getpid(), "setup": setup, "environment": sorted(os.environ)},
}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child import this file, which a real target does not need."""
    monkeypatch.setattr("seekling.workers.worker.ROOT", f"{HERE / 'src'}{os.pathsep}{HERE}")


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("tests.unit.test_workers:deeds", memory_bytes=2**29)
    yield made
    made.close()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    """Whether a process ends within a moment."""
    until = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not is_alive(pid)


def test_a_worker_answers_many_requests_with_one_child(worker: Worker) -> None:
    first = worker.ask(["about"], 20)["pid"]
    for value in (None, 1.5, "深\ud800\n🐳", [{"a": []}], "x" * 3_000_000):
        assert worker.ask(["echo", value], 20) == value
    assert worker.ask(["about"], 20)["pid"] == first


def test_the_environment_is_clean_and_the_setup_arrives_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    made = Worker("tests.unit.test_workers:deeds", {"deep": [1]})
    about = made.ask(["about"], 20)
    made.close()
    assert about["setup"] == {"deep": [1]}
    assert "HF_TOKEN" not in about["environment"]
    assert set(about["environment"]) <= {"PYTHONPATH", "PYTHONHASHSEED", "TZ", "SYSTEMROOT", "LC_CTYPE"}


@pytest.mark.parametrize("deed", [["sleep"], ["spin"]])
def test_an_overrun_is_ended_and_the_next_request_is_answered(worker: Worker, deed: list[str]) -> None:
    pid = worker.ask(["about"], 20)["pid"]
    begun = time.monotonic()
    with pytest.raises(WorkerLost, match="in time"):
        worker.ask(deed, 0.3)
    assert time.monotonic() - begun < 3
    assert gone(pid)
    assert worker.ask(["echo", 1], 20) == 1


def test_a_busy_child_ends_itself_at_its_processor_time() -> None:
    made = Worker("tests.unit.test_workers:deeds", cpu_s=0.2)
    with pytest.raises(WorkerLost, match="processor time"):
        made.ask(["spin"], 60)
    made.close()


def test_what_a_start_costs_is_no_requests_processor_time() -> None:
    made = Worker("tests.unit.test_workers:deeds", "heavy", cpu_s=0.1)
    made.begin(60)
    assert made.ask(["echo", 1], 60) == 1
    with pytest.raises(WorkerLost, match="processor time"):
        made.ask(["spin"], 60)
    made.close()


def test_processor_time_is_counted_anew_for_each_request() -> None:
    made = Worker("tests.unit.test_workers:deeds", cpu_s=1.0)
    assert [made.ask(["echo", "x" * 10_000_000], 60)[:1] for _ in range(12)] == ["x"] * 12
    made.close()


def test_an_overrun_takes_its_descendants_along(tmp_path: Path) -> None:
    made = Worker("tests.unit.test_workers:deeds", str(tmp_path / "pids"))
    with pytest.raises(WorkerLost):
        made.ask(["children"], 3)
    sleepers = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(sleepers) == 2
    assert all(gone(pid) for pid in sleepers)


def test_memory_is_bounded_and_the_child_survives(worker: Worker) -> None:
    pid = worker.ask(["about"], 20)["pid"]
    with pytest.raises(UserError, match="memory"):
        worker.ask(["memory"], 20)
    assert worker.ask(["about"], 20)["pid"] == pid


def test_a_reply_without_measure_is_refused() -> None:
    made = Worker("tests.unit.test_workers:deeds", reply_bytes=2**20)
    with pytest.raises(WorkerLost, match="far too long"):
        made.ask(["size", 2**24], 20)
    assert made.ask(["size", 3], 20) == "xxx"
    made.close()


def test_a_child_that_dies_is_told_and_replaced(worker: Worker) -> None:
    with pytest.raises(WorkerLost, match="exit status 3"):
        worker.ask(["exit"], 20)
    assert worker.ask(["echo", 1], 20) == 1


def test_letters_pass_and_other_faults_become_letters(worker: Worker) -> None:
    with pytest.raises(UserError) as letter:
        worker.ask(["letter"], 20)
    assert (letter.value.what, letter.value.where, letter.value.next_step) == ("what", "where", "next")
    with pytest.raises(UserError, match="KeyError: 'unknown'"):
        worker.ask(["unknown"], 20)


def test_a_setup_that_fails_is_told_at_every_request() -> None:
    made = Worker("tests.unit.test_workers:deeds", "broken")
    for _ in range(2):
        with pytest.raises(UserError, match="no setup"):
            made.ask(["echo", 1], 20)


def test_threads_wait_for_each_other_and_get_their_own_answers(worker: Worker) -> None:
    answers: dict[int, int] = {}

    def ask(number: int) -> None:
        answers[number] = worker.ask(["echo", number], 30)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: number for number in range(8)}


def test_a_forgotten_worker_takes_its_child_along() -> None:
    made = Worker("tests.unit.test_workers:deeds")
    pid = made.ask(["about"], 20)["pid"]
    del made
    assert gone(pid)


def test_a_child_ends_with_its_parent() -> None:
    code = f"""
import seekling.workers.worker as w
w.ROOT = {os.pathsep.join([str(HERE / "src"), str(HERE)])!r}
made = w.Worker("tests.unit.test_workers:deeds")
print(made.ask(["about"], 20)["pid"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert gone(int(done.stdout))


def test_a_fork_neither_uses_nor_kills_its_parents_child(worker: Worker) -> None:
    pid = worker.ask(["about"], 20)["pid"]
    copy = os.fork()
    if not copy:
        own = worker.ask(["about"], 20)["pid"]
        worker.close()
        os._exit(own == pid)
    assert os.waitpid(copy, 0)[1] == 0
    assert worker.ask(["about"], 20)["pid"] == pid
