"""Zebra puzzles, read from their words alone and solved by trying everything: one solution, and no idle clue."""

from __future__ import annotations

import re
from itertools import permutations, product
from random import Random

import pytest

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.tasks.registry import build_task
from seekling.tasks.zebra import Clue, Value, Zebra, solutions

TASK = Zebra()

FORMS = {
    r"(.+) lives in house (\d)": lambda a, k: a == int(k),
    r"(.+) does not live in house (\d)": lambda a, k: a != int(k),
    r"(.+) lives somewhere to the left of (.+)": lambda a, b: a < b,
    r"(.+) lives directly to the left of (.+)": lambda a, b: b - a == 1,
    r"(.+) lives next to (.+)": lambda a, b: abs(a - b) == 1,
    r"exactly one house stands between those of (.+) and (.+)": lambda a, b: abs(a - b) == 2,
    r"(.+) is not (.+)": lambda a, b: a != b,
    r"(.+) is (.+)": lambda a, b: a == b,
}


def word(phrase: str) -> str:
    """The value that a way to name somebody ends with."""
    return phrase.split()[-1].lower()


def is_true(clue: str, houses: dict[str, int]) -> bool:
    text = clue.removesuffix(".")
    for form, test in FORMS.items():
        found = re.fullmatch(form, text, re.IGNORECASE)
        if found:
            second = found[2] if found[2].isdigit() else houses[word(found[2])]
            return bool(test(houses[word(found[1])], second))
    raise AssertionError(clue)


def solved(prompt: str) -> list[str]:
    """Every row that the words of the puzzle allow, tried one after another."""
    _, *lines, _ = prompt.split("\n")
    kinds = [line.split(": ")[1].split(", ") for line in lines if ": " in line]
    clues = [line for line in lines if ": " not in line]
    found = []
    for orders in product(*(permutations(values) for values in kinds)):
        houses = {value.lower(): place for order in orders for place, value in enumerate(order, 1)}
        if all(is_true(clue, houses) for clue in clues):
            found.append(", ".join(" ".join(row) for row in zip(*orders, strict=True)))
    return found


@pytest.mark.parametrize("seed", range(25))
def test_there_is_exactly_one_solution_and_it_is_the_key(seed: int) -> None:
    problem = TASK.draw(Random(seed), 3)
    assert solved(problem.prompt) == [problem.answer]


@pytest.mark.parametrize(("size", "attributes"), [(2, 5), (3, 4), (4, 2)])
def test_other_sizes_have_one_solution_too(size: int, attributes: int) -> None:
    for seed in range(3):
        problem = Zebra(attributes=attributes).draw(Random(seed), size)
        assert solved(problem.prompt) == [problem.answer]


@pytest.mark.parametrize("seed", range(10))
def test_without_any_one_of_its_clues_there_are_more(seed: int) -> None:
    problem = TASK.draw(Random(seed), 3)
    clues = [line for line in problem.prompt.split("\n")[1:-1] if ": " not in line]
    assert clues and all(len(solved(problem.prompt.replace(clue + "\n", ""))) > 1 for clue in clues)


def test_the_solver_finds_every_solution() -> None:
    assert len(list(solutions([], 3, 2))) == 36
    left = Clue("left", Value(0, 0), Value(0, 1))
    assert len(list(solutions([left], 3, 1))) == 3
    assert list(solutions([left, Clue("at", Value(0, 1), 0)], 3, 1)) == []


@pytest.mark.parametrize("size", [5, 8])
def test_long_rows_are_drawn_and_the_solver_agrees(size: int) -> None:
    problem = TASK.draw(Random(1), size)
    assert len(list(solutions(problem.info["clues"], size, 3))) == 1
    assert len(problem.answer.split(", ")) == size


def test_a_house_or_a_word_out_of_place_is_wrong() -> None:
    problem = TASK.draw(Random(2), 3)
    first, second, third = problem.answer.split(", ")
    assert TASK.check(problem, f"{first}\n{second}\n{third}".upper()) is Verdict.PASS
    assert TASK.check(problem, f"{second}, {first}, {third}") is TASK.check(problem, first) is Verdict.WRONG
    assert TASK.check(problem, f"1: {first}; 2: {second}; 3: {third}") is Verdict.UNPARSED


@pytest.mark.parametrize("wrong", [{"sizes": [1]}, {"sizes": [9]}, {"attributes": 1}, {"attributes": 6}, {"direct": 2}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        build_task({"name": "zebra"} | wrong)


def test_more_houses_than_there_are_values_is_a_letter() -> None:
    with pytest.raises(UserError, match="no 9 houses"):
        TASK.draw(Random(0), 9)
