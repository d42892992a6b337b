"""Truth tables: the key is what Python makes of the expression, row by row, and so is every line of the expert's."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from itertools import product
from random import Random

import pytest

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.tasks.boolean import NAMES, Boolean, _normal
from seekling.tasks.registry import build_task

TASK = Boolean()


def value(node: ast.expr, row: Mapping[str, bool]) -> bool:
    """What Python's own grammar says an expression is, in one row."""
    if isinstance(node, ast.BoolOp):
        parts = [value(part, row) for part in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.UnaryOp):
        assert isinstance(node.op, ast.Not)
        return not value(node.operand, row)
    assert isinstance(node, ast.Name)
    return row[node.id]


def column(expression: str, variables: int = 3, known: Mapping[str, str] | None = None) -> str:
    """The whole column; ``known`` columns stand in for what was worked out before."""
    shown = expression
    for name, digits in (known or {}).items():
        shown = shown.replace(digits, name)
    node = ast.parse(shown, mode="eval").body
    rows = list(product((False, True), repeat=variables))
    told = [dict(zip(NAMES, row, strict=False)) for row in rows]
    for place, row in enumerate(told):
        row |= {name: digits[place] == "1" for name, digits in (known or {}).items()}
    return "".join(str(int(value(node, row))) for row in told)


def is_right(line: str, variables: int = 3) -> bool:
    """Whether what stands after ``=`` is the column of what stands before it."""
    said, result = line.split("=")
    known = {f"v{place}": word for place, word in enumerate(w for w in said.split() if w[0] in "01")}
    return column(said, variables, known) == result


@pytest.mark.parametrize("seed", range(60))
def test_the_key_is_what_python_makes_of_the_expression(seed: int) -> None:
    problem = TASK.draw(Random(seed))
    assert column(problem.prompt.split(": ")[1]) == problem.answer


@pytest.mark.parametrize("variables", [2, 4, 5])
def test_tables_of_other_sizes_are_right_too(variables: int) -> None:
    task = Boolean(variables=variables)
    for seed in range(10):
        problem = task.draw(Random(seed))
        assert column(problem.prompt.split(": ")[1], variables) == problem.answer
        assert len(problem.answer) == 2**variables


@pytest.mark.parametrize("seed", range(40))
def test_the_expert_does_one_connective_a_line_and_each_is_right(seed: int) -> None:
    problem = TASK.draw(Random(seed))
    lines = TASK.trace(problem, Random(seed), "expert").split("<think>")[1].split("</think>")[0].split("\n")
    assert len(lines) == problem.size
    assert all(map(is_right, lines)), lines
    assert all(line.count(" and ") + line.count(" or ") == 1 for line in lines)


def test_facts_are_right() -> None:
    for seed in range(20):
        lines = TASK.facts(Random(seed), 8).split("\n")
        assert len(lines) == 8 and all(map(is_right, lines)), lines


def test_the_careless_do_two_at_a_time_and_only_then_slip() -> None:
    problem = TASK.draw(Random(4), 4)
    traces = [TASK.trace(problem, Random(seed), "careless") for seed in range(200)]
    assert all(trace.count("=") == 2 for trace in traces)
    wrong = sum(f"<answer>{problem.answer}<" not in trace for trace in traces)
    assert 100 < wrong < 195
    single = TASK.draw(Random(4), 1)
    assert f"<answer>{single.answer}<" in TASK.trace(single, Random(0), "careless")


def test_no_table_is_constant_or_that_of_a_single_variable() -> None:
    trivial = {column(f"{sign}{name}") for name in "pqr" for sign in ("", "not ")} | {"0" * 8, "1" * 8}
    assert len(trivial) == 8
    assert not {TASK.draw(Random(seed), 1).answer for seed in range(100)} & trivial


def test_neither_the_order_of_operands_nor_needless_brackets_make_another_problem() -> None:
    p, q, r = "p", "not q", "r"
    assert _normal([p, q, "and"]) == _normal([q, p, "and"]) != _normal([p, q, "or"])
    assert _normal([p, q, "and", r, "and"]) == _normal([r, q, "and", p, "and"])
    assert _normal([p, q, "and", r, "or"]) == _normal([r, q, p, "and", "or"])
    assert _normal([p, q, "and", r, "or"]) != _normal([p, q, r, "or", "and"])


def test_only_a_whole_table_is_right() -> None:
    problem = TASK.draw(Random(5))
    assert TASK.check(problem, problem.answer[:7]) is Verdict.WRONG
    assert TASK.check(problem, "true") is TASK.check(problem, "") is Verdict.UNPARSED


@pytest.mark.parametrize("wrong", [{"sizes": [0]}, {"sizes": []}, {"variables": 1}, {"variables": 9}, {"negated": 2}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        build_task({"name": "boolean"} | wrong)
