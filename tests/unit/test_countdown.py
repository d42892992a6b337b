"""Countdown: its check against hostile answers, its traces, and settings that cannot be."""

from __future__ import annotations

import time
from random import Random

import pytest

from seekling.config import parse
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.selftests.outcome import require
from seekling.selftests.tasks import of_key
from seekling.tasks.countdown import Countdown
from seekling.tasks.protocol import Guessable, Task, Traceable, identity, problems
from seekling.text.reasoning import split

PROBLEM = Problem(
    id=identity("countdown", [3, 7, 12], 16),
    task="countdown",
    prompt="use 3 7 12 to make 16",
    answer="7+12-3",
    size=3,
    info={"numbers": (3, 7, 12), "target": 16},
)
TASK = Countdown(sizes=(3,))


def test_countdown_keeps_the_task_protocols() -> None:
    task: Task = TASK
    require(*of_key(task))
    assert isinstance(TASK, Traceable)
    assert isinstance(TASK, Guessable)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("7+12-3", Verdict.PASS), ("12 - (3 - 7)", Verdict.PASS), ("-3+7+12", Verdict.PASS),
        ("7+12−3", Verdict.PASS),
        ("7+12", Verdict.WRONG), ("16", Verdict.WRONG), ("7+12-3+3-3", Verdict.WRONG),
        ("7+7-12+3", Verdict.WRONG),
        ("3*7-12", Verdict.WRONG), ("32/(12-7-3)", Verdict.WRONG), ("712-3", Verdict.WRONG),
        ("7+12-3-0", Verdict.WRONG),
        ("7+12-3=16", Verdict.UNPARSED), ("7+12-3 or 3", Verdict.UNPARSED), ("", Verdict.UNPARSED),
        ("7+12-3/(1-1)", Verdict.UNPARSED), ("７+12-3", Verdict.UNPARSED), ("07+12-3", Verdict.UNPARSED),
        ("__import__('os').system('true')", Verdict.UNPARSED), ("7+12-3\x00", Verdict.UNPARSED),
        ("7+12-3\ud800", Verdict.UNPARSED), ("1" * 10**6, Verdict.UNPARSED), ("-" * 20_000, Verdict.UNPARSED),
        ("(" * 20_000 + "7+12-3" + ")" * 20_000, Verdict.UNPARSED), ("9**9**9", Verdict.UNPARSED),
    ],
)  # fmt: skip
def test_the_verdict_is_exact_and_never_slow(answer: str, verdict: Verdict) -> None:
    start = time.process_time()
    assert TASK.check(PROBLEM, answer) is verdict
    assert time.process_time() - start < 0.5


def test_an_operation_that_is_not_allowed_is_wrong() -> None:
    halves = Problem("", "countdown", "use 8 2 to make 4", "8/2", 2, {"numbers": (8, 2), "target": 4})
    assert Countdown(operations="+-*").check(halves, "8/2") is Verdict.WRONG
    assert Countdown(operations="+-*/").check(halves, "8/2") is Verdict.PASS


def test_blind_guessing_does_not_solve_the_default_task() -> None:
    task, rng = Countdown(), Random(0)
    drawn = [task.draw(rng) for _ in range(400)]
    solved = [any(task.check(p, task.guess(p, rng)) is Verdict.PASS for _ in range(8)) for p in drawn]
    assert sum(solved) / len(solved) <= 0.25


def test_an_expert_works_back_from_the_target() -> None:
    trace = TASK.trace(PROBLEM, Random(0), "expert")
    assert trace == "<think>back 16+3=19 19-12=7\n7+12-3=19-3=16</think><answer>7+12-3</answer>"


def test_a_search_restates_the_target_beside_the_value_before_each_verdict() -> None:
    lines = split(TASK.trace(PROBLEM, Random(1), "search")).thinking.split("\n")
    for line in lines:
        chain, target, verdict = line.split(" ")
        assert target == "16?"
        assert verdict == ("yes" if chain.split("=")[-1] == "16" else "no")
    assert all(line.endswith("no") for line in lines[:-1])


def test_attempts_are_read_back_and_repeats_are_equal() -> None:
    thinking = (
        "back 16+3=19 19-12=7\n7+12-3=19-3=16\nhm 3+7=10\n3+7=10\n3*7-12=21-12=9 16? no\n12+7-3=19-3=15\n7+12-3=19-"
    )
    assert TASK.attempts(PROBLEM, thinking) == ["7+12-3", "3*7-12", "7+12-3"]
    assert TASK.attempts(PROBLEM, "") == []


def test_a_hit_is_judged_by_the_expression_not_by_its_claim() -> None:
    assert TASK.hits(PROBLEM, "3*7-12=21-12=9 16? no\n7+12-3=19-3=15 16? no")
    assert not TASK.hits(PROBLEM, "3*7-12=21-12=16 16? yes")
    assert not TASK.hits(PROBLEM, "7+12-3=19-3=16 16? yes\n3*7-12=21-12=9 16? no"), "the last attempt counts"
    assert TASK.hits(PROBLEM, "7+12-3=19-3=16 16? yes\n3*7-12=21-"), "an unfinished attempt does not count"
    assert not TASK.hits(PROBLEM, "")


def test_reading_a_megabyte_of_thinking_is_quick() -> None:
    start = time.process_time()
    for thinking in ("7+12-3=" * 150_000, "7+12-3=16\n" * 30_000, "\n" * 10**6, "(" * 10**6, "7" * 10**6):
        TASK.attempts(PROBLEM, thinking)
    assert time.process_time() - start < 8.0


def test_an_unknown_quality_names_the_nearest() -> None:
    with pytest.raises(UserError, match='did you mean "expert"'):
        TASK.trace(PROBLEM, Random(0), "expret")


def test_where_every_chain_hits_the_wrong_qualities_are_still_wrong() -> None:
    sums = Countdown(sizes=(2, 3), operations="+")
    for problem in (sums.draw(Random(seed)) for seed in range(20)):
        for quality in ("careless", "gives_up"):
            answer = split(sums.trace(problem, Random(0), quality)).answer
            assert sums.check(problem, str(answer)) is Verdict.WRONG


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"sizes": []}, "sizes"), ({"sizes": [1]}, "between 2 and 16"), ({"sizes": [17]}, "between 2 and 16"),
        ({"low": 9, "high": 8}, "low <= high"), ({"high": 0, "low": 0}, "at least 1"),
        ({"high": 200}, "chain_max"),
        ({"operations": ""}, "operations"), ({"operations": "+^"}, "operations"),
        ({"operations": "++"}, "named twice"),
        ({"target_low": 50, "target_high": 40}, "target_low"), ({"name": "other"}, "name"),
        ({"szies": [3]}, 'mean "sizes"'),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings: dict, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        parse(Countdown, settings)


def test_settings_that_leave_no_problem_say_so() -> None:
    with pytest.raises(UserError, match="no solvable problem"):
        Countdown(sizes=(2,), operations="-", high=5, target_low=50).draw(Random(0))


def test_a_small_task_runs_out_aloud() -> None:
    tiny = Countdown(sizes=(2,), high=3, operations="+")
    with pytest.raises(UserError, match="run out of distinct"):
        for _ in problems(tiny, "train", "0", distinct=True, max_misses=500):
            pass
