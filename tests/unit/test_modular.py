"""Modular arithmetic: its brackets mean what they say, and a trace is as right as its quality promises."""

from __future__ import annotations

import re
from random import Random

import pytest

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.tasks.modular import Modular
from seekling.tasks.registry import build_task
from seekling.verify.expression import read

TASK = Modular()


def whole(line: str) -> list[tuple[str, int, int]]:
    """The steps, each with the remainder that it goes on from before it."""
    found = re.findall(r"(?:^|≡)([0-9]+)((?:[-+*][0-9]+)+)=(-?[0-9]+)(?=≡([0-9]+))", line)
    return [(f"{start}{work}", int(raw), int(rest)) for start, work, raw, rest in found]


@pytest.mark.parametrize("seed", range(40))
def test_the_key_is_what_the_usual_rules_make_of_the_expression(seed: int) -> None:
    problem = TASK.draw(Random(seed))
    expression, modulus = problem.prompt.split(" mod ")
    assert read(expression).value % int(modulus) == int(problem.answer)


@pytest.mark.parametrize("seed", range(40))
def test_the_expert_does_one_operation_at_a_time_and_each_is_right(seed: int) -> None:
    problem = TASK.draw(Random(seed))
    line = TASK.trace(problem, Random(seed), "expert").split(">")[1].split("<")[0]
    done = whole(line)
    assert len(done) == problem.size - 1
    for work, raw, rest in done:
        assert read(work).value == raw and raw % 31 == rest and len(read(work).numbers) == 2


def test_facts_are_right_for_the_modulus_they_name() -> None:
    task = Modular(moduli=(31, 37))
    for seed in range(20):
        head, line = task.facts(Random(seed), 8).split("\n")
        done = whole(line)
        assert len(done) == 8
        assert all(read(work).value == raw and raw % int(head.split()[1]) == rest for work, raw, rest in done)


def test_a_careless_line_takes_two_at_a_time_and_is_wrong_about_as_often_as_slip_says() -> None:
    problem = TASK.draw(Random(1), 5)
    lines = [TASK.trace(problem, Random(seed), "careless") for seed in range(200)]
    wrong = sum(f"<answer>{problem.answer}<" not in line for line in lines) / 200
    assert all(line.count("≡") == 2 for line in lines)
    assert 0.8 < wrong < 0.99, "two double steps, each slipping seven times in ten"
    assert Modular(slip=0).trace(problem, Random(0), "careless").endswith(f"<answer>{problem.answer}</answer>")


def test_one_who_gives_up_answers_with_what_there_is_by_then() -> None:
    problem = TASK.draw(Random(2), 5)
    for seed in range(20):
        trace = TASK.trace(problem, Random(seed), "gives_up")
        assert 1 <= trace.count("≡") < 4
        assert trace.split("≡")[-1].split("<")[0] == trace.split("<answer>")[1].split("<")[0]


def test_a_number_that_is_not_reduced_is_wrong() -> None:
    problem = TASK.draw(Random(3))
    assert TASK.check(problem, str(int(problem.answer) + 31)) is Verdict.WRONG
    assert TASK.check(problem, f"{problem.answer} mod 31") is Verdict.UNPARSED


def test_the_order_of_what_is_added_or_multiplied_does_not_make_another_problem() -> None:
    from seekling.tasks.modular import _normal

    assert _normal(5, [("+", 7), ("-", 2)]) == _normal(7, [("-", 2), ("+", 5)])
    assert _normal(5, [("*", 7), ("+", 2)]) == _normal(7, [("*", 5), ("+", 2)])
    assert _normal(5, [("+", 7), ("*", 2)]) != _normal(5, [("*", 2), ("+", 7)])
    assert _normal(5, []) != _normal(7, [])


@pytest.mark.parametrize("wrong", [{"sizes": [1]}, {"sizes": []}, {"moduli": [1]}, {"operations": ["/"]}, {"slip": 2}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        build_task({"name": "modular"} | wrong)
