"""Looking up in a table: ends are where the arrows lead, and the expert follows each of them."""

from __future__ import annotations

import re
from itertools import pairwise
from random import Random

import pytest

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.tasks.registry import build_task
from seekling.tasks.table import Table

TASK = Table()


def arrows(text: str) -> dict[str, str]:
    return {word[0]: word[1] for word in text.split()}


@pytest.mark.parametrize("seed", range(30))
def test_the_key_is_where_the_arrows_shown_lead(seed: int) -> None:
    problem = TASK.draw(Random(seed))
    shown, _, asked = problem.prompt.partition("; ")
    *starts, count, times = asked.split()
    ends = []
    for place in starts:
        for _ in range(int(count)):
            place = arrows(shown)[place]
        ends.append(place)
    assert (problem.answer.split(), times, int(count)) == (ends, "times", problem.size)


@pytest.mark.parametrize("seed", range(20))
def test_every_row_points_elsewhere_and_is_pointed_to_once(seed: int) -> None:
    table = arrows(TASK.draw(Random(seed)).prompt.partition("; ")[0])
    assert sorted(table) == sorted(table.values()) == list("abcdefgh")
    assert all(one != other for one, other in table.items())


@pytest.mark.parametrize("seed", range(20))
def test_the_expert_follows_one_arrow_at_a_time(seed: int) -> None:
    problem = TASK.draw(Random(seed))
    lines = TASK.trace(problem, Random(seed), "expert").split("<think>")[1].split("</think>")[0].split("\n")
    table = arrows(problem.prompt.partition("; ")[0])
    for line, start in zip(lines, problem.info["starts"], strict=True):
        first, *way = line.split()
        assert first == start and len(way) == problem.size
        assert all(table[one] == other for one, other in way)
        assert all(arrow[-1] == following[0] for arrow, following in pairwise([first, *way]))


def test_the_careless_take_half_the_steps_and_land_elsewhere_about_as_often_as_slip_says() -> None:
    problem = TASK.draw(Random(1), 4)
    traces = [TASK.trace(problem, Random(seed), "careless") for seed in range(200)]
    assert all(re.search(r"<think>\w \w\w \w\w\n\w \w\w \w\w</think>", trace) for trace in traces)
    right = sum(f"<answer>{problem.answer}<" in trace for trace in traces)
    assert right < 20, "four double steps, each going wrong seven times in ten"
    sure = Table(slip=0).trace(problem, Random(0), "careless")
    assert f"<answer>{problem.answer}<" in sure


def test_facts_show_a_table_and_single_steps_in_it() -> None:
    for seed in range(10):
        shown, *rows = TASK.facts(Random(seed), 5).split("\n")
        pairs = [row.split() for row in rows]
        assert len(pairs) == 5 and all(place == one[0] and one[1] == other[0] for place, one, other in pairs)
        assert {arrow for _, *both in pairs for arrow in both} <= set(shown.split())


def test_the_order_in_which_rows_are_shown_does_not_make_another_problem() -> None:
    small = Table(rows=3, starts=1, sizes=(1,))
    drawn = [small.draw(Random(seed)) for seed in range(200)]
    assert len({problem.prompt for problem in drawn}) > 3 * len({problem.id for problem in drawn})


def test_ends_in_another_order_are_wrong() -> None:
    problem = TASK.draw(Random(3))
    first, second = problem.answer.split()
    assert (
        TASK.check(problem, f"{first}, {second}")
        is TASK.check(problem, f"{first.upper()} and {second}")
        is Verdict.PASS
    )
    assert TASK.check(problem, f"{second} {first}") is TASK.check(problem, first) is Verdict.WRONG
    assert TASK.check(problem, f"{first}>{second}") is Verdict.UNPARSED


@pytest.mark.parametrize("wrong", [{"sizes": [0]}, {"sizes": []}, {"rows": 2}, {"rows": 27}, {"starts": 9}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        build_task({"name": "table"} | wrong)
