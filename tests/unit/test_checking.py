"""Checks that hang, crash, fill memory or lie: what their answers are worth, and that a run goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.arithmetic import Arithmetic
from seekling.tasks.checking import Checker, Limits
from seekling.tasks.registry import build_task

OWN = """
import os, time
from seekling import Problem, Verdict
from seekling.tasks.protocol import identity

CALLS = []

class Own:
    name = "own"
    limits = {"wall_s": 0.6, "memory_bytes": 2**29}

    def draw(self, rng, size=None):
        number = rng.randint(0, 10**6)
        return Problem(identity(number), "own", str(number), str(number), 1, {"deep": [1, 2]})

    def check(self, problem, answer):
        match answer:
            case "hang": time.sleep(600)
            case "spin":
                while True: pass
            case "fill": return Verdict.PASS if len("x" * 2**32) else Verdict.WRONG
            case "die": os._exit(0)
            case "raise": raise KeyError("no such unit")
            case "true": return True
            case "none": return None
            case "number": return 1.0
            case "text": return "splendid"
            case "count":
                CALLS.append(1)
                return Verdict.PASS if len(CALLS) == 1 else Verdict.WRONG
            case "secret": return Verdict.PASS if "SEEKLING_SECRET" in os.environ else Verdict.WRONG
            case "info": return Verdict.PASS if problem.info == {"deep": [1, 2]} else Verdict.WRONG
        return Verdict.PASS if answer == problem.answer else Verdict.WRONG
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("own") / "own.py"
    file.write_text(OWN)
    return f"{file}:Own"


@pytest.fixture(scope="module")
def checker(spec: str) -> Iterator[Checker]:
    made = Checker(build_task(spec), spec)
    yield made
    made.close()


@pytest.fixture
def problem(checker: Checker) -> Problem:
    return checker.task.draw(Random(0))


@pytest.mark.parametrize(
    ("said", "verdict", "why"),
    [
        ("hang", Verdict.TIMEOUT, "in time"),
        ("spin", Verdict.TIMEOUT, "time"),
        ("fill", Verdict.OOM, "memory"),
        ("die", Verdict.INFRA_ERROR, "died"),
        ("raise", Verdict.INFRA_ERROR, "KeyError: 'no such unit'"),
        ("true", Verdict.INFRA_ERROR, "it returned True"),
        ("none", Verdict.INFRA_ERROR, "it returned None"),
        ("number", Verdict.INFRA_ERROR, "it returned 1.0"),
        ("text", Verdict.INFRA_ERROR, "it returned 'splendid'"),
        ("info", Verdict.PASS, ""),
        ("x", Verdict.WRONG, ""),
        (None, Verdict.UNPARSED, "no answer"),
    ],
)
def test_every_way_to_fail_has_its_verdict(
    checker: Checker, problem: Problem, said: str | None, verdict: Verdict, why: str
) -> None:
    found = checker.verdicts([(problem, problem.answer), (problem, said), (problem, problem.answer + "0")])
    assert [checked.verdict for checked in found] == [Verdict.PASS, verdict, Verdict.WRONG]
    assert why in found[1].said


def test_a_hundred_answers_that_hang_do_not_hang_a_run(spec: str, problem: Problem) -> None:
    made = Checker(build_task(spec), spec, size=4, limits=Limits(wall_s=0.1))
    begun = time.monotonic()
    found = made.verdicts([(problem, "hang"), *[(problem, str(n)) for n in range(20)], (problem, "hang")])
    assert time.monotonic() - begun < 10
    assert [checked.verdict for checked in found].count(Verdict.TIMEOUT) == 2
    made.close()


def test_equal_answers_to_one_problem_are_checked_once(spec: str, problem: Problem) -> None:
    made = Checker(build_task(spec), spec, size=1)
    first = made.verdicts([(problem, "count")] * 5)
    assert [checked.verdict for checked in first + made.verdicts([(problem, "count")])] == [Verdict.PASS] * 6
    made.close()


def test_a_failure_of_the_check_itself_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN.replace('raise KeyError("no such unit")', f'''
                from pathlib import Path
                seen = Path({str(tmp_path / "seen")!r})
                if seen.exists(): return Verdict.PASS
                seen.touch()
                raise OSError("disk away")'''))  # fmt: skip
    spec = f"{file}:Own"
    made = Checker(build_task(spec), spec, size=1)
    asked = [(made.task.draw(Random(0)), "raise")]
    assert made.verdicts(asked)[0].said == "OSError: disk away"
    assert made.verdicts(asked)[0].verdict is Verdict.PASS
    made.close()


def test_a_check_sees_nothing_of_the_environment(
    checker: Checker, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEKLING_SECRET", "1")
    assert checker.verdicts([(problem, "secret")])[0].verdict is Verdict.WRONG


def test_a_quick_check_needs_no_worker_and_its_exceptions_leave_the_reward_open() -> None:
    class Raising(Arithmetic):
        def check(self, problem: Problem, answer: str) -> Verdict:
            if answer == "1":
                raise ValueError("odd")
            return super().check(problem, answer)

    made = Checker(Raising(), "arithmetic")
    problem = made.task.draw(Random(0))
    found = made.verdicts([(problem, problem.answer), (problem, "1")])
    assert [checked.verdict for checked in found] == [Verdict.PASS, Verdict.INFRA_ERROR]
    assert found[1].said == "ValueError: odd"
    assert made._pool is None


def test_a_task_that_cannot_be_made_in_a_worker_is_a_letter(spec: str, problem: Problem) -> None:
    made = Checker(build_task(spec), spec.replace("Own", "Gone"), size=1)
    with pytest.raises(UserError, match="cannot load"):
        made.verdicts([(problem, "1")])
    made.close()


def test_a_task_that_checks_many_at_once_is_asked_for_all(problem: Problem) -> None:
    class Many(Arithmetic):
        def check_all(self, asked: object) -> list[Verdict]:
            return [Verdict.PASS, "splendid"]  # type: ignore[list-item]

    found = Checker(Many(), "arithmetic").verdicts([(problem, "1"), (problem, "2"), (problem, "1")])
    assert [checked.verdict for checked in found] == [Verdict.PASS, Verdict.INFRA_ERROR, Verdict.PASS]
