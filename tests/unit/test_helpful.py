"""Requests that only a judge can grade: what they ask, what the judge is told, and what a check may say of them."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.selftests.tasks import of_key, of_split
from seekling.tasks.checking import Checker
from seekling.tasks.helpful import DEMANDS, READERS, REQUESTS, SUBJECTS, Helpful
from seekling.tasks.protocol import problems, reads
from seekling.tasks.registry import build_task

TASK = Helpful()


def test_every_language_has_as_many_of_everything() -> None:
    for table in (REQUESTS, SUBJECTS, READERS, DEMANDS):
        assert len({len(entries) for entries in table.values()}) == 1
        assert all(len(set(entries)) == len(entries) for entries in table.values())


def test_a_request_makes_as_many_demands_as_its_size_and_its_standard_repeats_them() -> None:
    rng = Random(3)
    for size in (0, 1, 4, 9, 12):
        problem = TASK.draw(rng, size)
        demands = [one for one in DEMANDS[problem.info["language"]] if one in problem.prompt]
        assert problem.size == size and len(demands) == min(size, 9)
        assert all(one in problem.answer for one in demands) and "{" not in problem.prompt


def test_requests_that_differ_in_wording_alone_are_the_same_problem() -> None:
    drawn = [Helpful(languages=("en",), sizes=(0,)).draw(Random(seed)) for seed in range(2000)]
    by_id: dict[str, set[str]] = {}
    for problem in drawn:
        by_id.setdefault(problem.id, set()).add(problem.prompt)
    assert len(by_id) <= 24 * 8 and max(map(len, by_id.values())) > 1


def test_it_is_a_task_like_any_other_but_for_what_its_check_can_say() -> None:
    assert reads(TASK) == "reply" and TASK.quick and build_task("helpful") == TASK
    assert all(test.passed for test in of_key(TASK, Checker(TASK))) and of_split(TASK).passed
    assert len(list(islice(problems(TASK, "held_out", "x", distinct=True), 100))) == 100
    problem = TASK.draw(Random(1))
    assert TASK.check(problem, "Yeast makes gas.") is Verdict.PASS
    assert TASK.check(problem, "Solution:") is Verdict.UNPARSED
    assert TASK.check(problem, TASK.guess(problem, Random(0))) is Verdict.PASS


def test_too_many_demands_are_refused() -> None:
    with pytest.raises(UserError, match="0 to 9 demands"):
        build_task({"name": "helpful", "sizes": [10]})
