"""A pool: replies in order, faults that stay with their own request."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.workers.pool import Pool

HERE = Path(__file__).parents[2]


def deeds(setup: Any) -> Callable[[Any], Any]:
    """The target of these tests."""
    if setup == "broken":
        raise UserError("no setup", where="here")
    return lambda request: DEEDS[request[0]](setup, *request[1:])


def once(setup: Any, name: str) -> str:
    """Dies the first time it is asked, wherever that is; answers the second."""
    mark = Path(setup) / name
    if not mark.exists():
        mark.touch()
        os._exit(9)
    return "alive"


def late(setup: Any, value: Any, seconds: float) -> Any:
    time.sleep(seconds)
    return value


def oppose(setup: Any) -> None:
    raise UserError("what", where="where")


DEEDS: dict[str, Callable[..., Any]] = {
    "late": late,
    "once": once,
    "exit": lambda setup: os._exit(3),
    "memory": lambda setup: len("x" * 2**32),
    "size": lambda setup, count: "x" * count,
    "letter": oppose,
    "pid": lambda setup: os.getpid(),
}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child import this file, which a real target does not need."""
    monkeypatch.setattr("seekling.workers.worker.ROOT", f"{HERE / 'src'}{os.pathsep}{HERE}")


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    made = Pool("tests.unit.test_pool:deeds", str(tmp_path), size=2, memory_bytes=2**29, reply_bytes=2**20)
    yield made
    made.close()


def test_replies_come_in_the_order_of_the_requests_whoever_was_faster(pool: Pool) -> None:
    requests = [["late", number, 0.05 * (number % 3 == 0)] for number in range(12)]
    assert [reply.value for reply in pool.ask_all(requests, 20)] == list(range(12))
    assert pool.ask_all([], 20) == []


def test_a_fault_costs_its_own_request_and_no_other(pool: Pool) -> None:
    bad = [["late", 0, 60], ["memory"], ["size", 2**24], ["exit"], ["letter"]]
    good = [["late", number, 0] for number in range(5)]
    replies = pool.ask_all([request for pair in zip(bad, good, strict=True) for request in pair], 0.5)
    assert [reply.value for reply in replies[1::2]] == list(range(5))
    assert [reply.failure for reply in replies[::2]] == [
        Verdict.TIMEOUT, Verdict.OOM, Verdict.OUTPUT_LIMIT, Verdict.INFRA_ERROR, Verdict.INFRA_ERROR,
    ]  # fmt: skip
    assert replies[-2].said == "what: where" and "exit status 3" in replies[6].said


def test_a_request_whose_worker_died_is_asked_once_more(pool: Pool) -> None:
    assert pool.ask_all([["once", "a"], ["once", "b"]], 20)[0].value == "alive"


def test_two_workers_share_the_requests(pool: Pool) -> None:
    pool.ask_all([["pid"], ["pid"]], 20)
    begun = time.monotonic()
    pool.ask_all([["late", 0, 0.4]] * 4, 20)
    assert 0.75 < time.monotonic() - begun < 1.5
    assert len({reply.value for reply in pool.ask_all([["late", 0, 0.1], ["late", 0, 0.1], ["pid"], ["pid"]], 20)}) >= 2


def test_the_time_a_child_takes_to_start_is_no_request_s(tmp_path: Path) -> None:
    made = Pool("tests.unit.test_pool:deeds", str(tmp_path), size=1)
    assert made.ask_all([["pid"]], 0.05)[0].failure is None
    made.close()


def test_a_setup_that_fails_is_a_letter_to_the_one_who_asked() -> None:
    made = Pool("tests.unit.test_pool:deeds", "broken", size=2)
    with pytest.raises(UserError, match="no setup"):
        made.ask_all([["pid"], ["pid"]], 20)
    with pytest.raises(UserError, match="no setup"):
        made.ask_all([["pid"]], 20)  # its worker went back to the others
    made.close()


def test_what_is_no_json_is_said_and_asked_of_nobody(pool: Pool) -> None:
    replies = pool.ask_all([{1, 2}, ["late", 1, 0]], 20)  # type: ignore[list-item]
    assert replies[0].failure is Verdict.INFRA_ERROR and "no JSON" in replies[0].said
    assert replies[1].value == 1


def test_threads_may_share_a_pool(pool: Pool) -> None:
    found: dict[int, list[Any]] = {}

    def ask(number: int) -> None:
        found[number] = [reply.value for reply in pool.ask_all([["late", (number, i), 0] for i in range(20)], 20)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [[number, i] for i in range(20)] for number in range(4)}
