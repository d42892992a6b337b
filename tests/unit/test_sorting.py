"""Sorting: the key is sorted, and what the expert writes down as left is what is left."""

from __future__ import annotations

from random import Random

import pytest

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.tasks.registry import build_task
from seekling.tasks.sorting import Sorting

TASK = Sorting()


def thinking(trace: str) -> list[str]:
    return trace.split("<think>")[1].split("</think>")[0].split("\n")


def row(text: str) -> list[int]:
    return [int(word) for word in text.split()]


@pytest.mark.parametrize("order", ["up", "down"])
@pytest.mark.parametrize("size", [2, 5, 9])
def test_the_key_is_in_order_and_what_is_shown_is_not(order: str, size: int) -> None:
    task = build_task({"name": "sorting", "orders": [order]})
    for seed in range(20):
        problem = task.draw(Random(seed), size)
        shown = row(problem.prompt.removeprefix("sort ").removeprefix("down "))
        assert row(problem.answer) == sorted(shown, reverse=order == "down") != shown
        assert len(set(shown)) == size


@pytest.mark.parametrize("order", ["up", "down"])
def test_the_expert_takes_the_first_and_leaves_the_rest_as_it_stood(order: str) -> None:
    task = build_task({"name": "sorting", "orders": [order]})
    for seed in range(20):
        problem = task.draw(Random(seed))
        left = list(problem.info["numbers"])
        for line in thinking(task.trace(problem, Random(seed), "expert")):
            first, _, rest = line.replace(">", "<").partition("<")
            assert int(first) == (min if order == "up" else max)(left)
            left.remove(int(first))
            assert row(rest) == left
        assert not left


def test_facts_name_the_first_of_a_few() -> None:
    for seed in range(20):
        for line in TASK.facts(Random(seed), 8).split("\n"):
            first, _, rest = line.partition("<")
            assert all(int(first) < other for other in row(rest)) and rest


def test_the_careless_exchange_two_neighbours_as_often_as_slip_says() -> None:
    problem = TASK.draw(Random(1), 5)
    said = [TASK.trace(problem, Random(seed), "careless").split("<answer>")[1].split("<")[0] for seed in range(300)]
    wrong = [one for one in said if one != problem.answer]
    assert 0.6 < len(wrong) / 300 < 0.8
    right = row(problem.answer)
    assert all(sum(a != b for a, b in zip(row(one), right, strict=True)) == 2 for one in wrong)


def test_one_who_gives_up_leaves_the_rest_as_it_stood() -> None:
    problem = TASK.draw(Random(2), 5)
    for seed in range(10):
        trace = TASK.trace(problem, Random(seed), "gives_up")
        done = len(thinking(trace))
        said = row(trace.split("<answer>")[1].split("<")[0])
        assert said[:done] == row(problem.answer)[:done] and 1 <= done <= 2
        assert [n for n in problem.info["numbers"] if n not in said[:done]] == said[done:]


def test_equal_numbers_are_one_problem_in_whatever_order_they_are_shown() -> None:
    ids = {TASK.draw(Random(seed), 2).id for seed in range(50)}
    small = Sorting(sizes=(2,), high=2)
    assert len(ids) > 45 and len({small.draw(Random(seed)).id for seed in range(50)}) == 3


@pytest.mark.parametrize("said", ["1", "", "1 2 3 4 x", "1<2"])
def test_what_is_not_all_of_it_is_not_right(said: str) -> None:
    assert TASK.check(TASK.draw(Random(0)), said) is not Verdict.PASS


@pytest.mark.parametrize("wrong", [{"sizes": [1]}, {"sizes": []}, {"low": 97}, {"orders": ["sideways"]}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        build_task({"name": "sorting"} | wrong)


def test_more_numbers_than_there_are_is_a_letter() -> None:
    with pytest.raises(UserError, match="no 101 different numbers"):
        TASK.draw(Random(0), 101)
