"""The code task: its functions are what they say, its check pays for behaviour alone, its problems are endless."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seekling.config import parse
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.selftests.outcome import require
from seekling.selftests.tasks import of_key
from seekling.tasks import code, functions
from seekling.tasks.checking import Checker
from seekling.tasks.code import CHEATS, Code
from seekling.tasks.functions import FAMILIES, Function, drawn, inputs, probes
from seekling.tasks.protocol import Auditable, Guessable, Task, Traceable, problems
from seekling.tasks.registry import build_task
from seekling.text.reasoning import split
from seekling.verify.sandbox import box as boxes
from seekling.verify.sandbox.cell import Place
from seekling.verify.sandbox.compare import same
from seekling.verify.sandbox.limits import Layer, Outcome
from tests.fixtures.hostile import CHEATS as MORE_CHEATS

EACH_STEP = [(family, name) for family, steps in FAMILIES.items() for name in steps]


@pytest.fixture(scope="module")
def task() -> Iterator[Code]:
    made = Code(boxes=2)
    yield made
    made._sandbox().close()


@pytest.fixture(scope="module")
def hasty() -> Iterator[Code]:
    made = parse(Code, {"run": {"wall_s": 3.0, "cpu_s": 1}, "boxes": 1})
    yield made
    made._sandbox().close()


def some(task: Code, count: int, size: int | None = None) -> list[Problem]:
    rng = Random(f"{count}/{size}")
    return [task.draw(rng, size) for _ in range(count)]


def test_code_keeps_the_task_protocols(task: Code) -> None:
    plain: Task = task
    require(*of_key(plain))
    assert isinstance(task, Traceable) and isinstance(task, Guessable) and isinstance(task, Auditable)
    assert isinstance(build_task("code"), Code)
    assert not task.quick


# --- functions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "name"), EACH_STEP)
def test_a_step_does_what_its_python_does(task: Code, family: str, name: str) -> None:
    step = FAMILIES[family][name]
    for k in (step.ks[0], step.ks[-1]):
        function = Function(family, ((name, k),))
        asked = inputs(family, 25, Random(name))
        outcomes = task._sandbox().call(function.program(), "f", [[x] for x in asked])
        for x, outcome in zip(asked, outcomes, strict=True):
            assert outcome.verdict is None, outcome
            assert same(outcome.value, function.value(x)), (x, outcome)


@given(st.sampled_from(sorted(FAMILIES)), st.integers(1, 12), st.integers())
@settings(max_examples=40, deadline=None)
def test_every_step_of_a_drawn_function_matters(family: str, size: int, seed: int) -> None:
    function = drawn(family, size, Random(seed))
    assert len(function.steps) == size
    values = [function.value(x) for x in probes(family)]
    for place in range(size):
        assert [function.without(place).value(x) for x in probes(family)] != values
        assert [Function(family, function.steps[:place]).value(x) for x in probes(family)] != values
    assert max(Counter(map(repr, values)).values()) <= 0.6 * len(values)


@given(st.sampled_from(sorted(FAMILIES)), st.integers(1, 6), st.integers())
@settings(max_examples=40, deadline=None)
def test_hidden_inputs_tell_a_function_from_what_a_mistake_makes_of_it(family: str, size: int, seed: int) -> None:
    function = drawn(family, size, Random(seed))
    hidden, pool = function.tests(12, Random(7)), inputs(family, 120, Random(7))
    assert len(hidden) >= 12
    for other in function.near():
        if len(other.steps) == size - 1 or any(other.value(x) != function.value(x) for x in pool):
            assert any(other.value(x) != function.value(x) for x in hidden)


def test_what_does_the_same_is_the_same_problem() -> None:
    one = Function("lists", (("add", 2), ("reverse", 0), ("add", 3)))
    other = Function("lists", (("reverse", 0), ("add", 5)))
    assert one.id() == other.id() != Function("lists", (("add", 5),)).id()
    assert Function("numbers", (("add", 2),)).id() != Function("numbers", (("add", 3),)).id()


def test_a_program_is_python_of_as_many_lines_as_steps() -> None:
    for family in FAMILIES:
        program = drawn(family, 5, Random(1)).program()
        assert len(ast.parse(program).body[0].body) == 6  # type: ignore[attr-defined]


def test_a_family_that_is_full_is_a_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"reverse": FAMILIES["lists"]["reverse"]}
    monkeypatch.setitem(functions.FAMILIES, "lists", one)
    with pytest.raises(UserError, match="no function of 2 steps"):
        drawn("lists", 2, Random(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_are_distinct_and_begin_with_border_cases(family: str) -> None:
    found = inputs(family, 60, Random(0))
    assert len({repr(x) for x in found}) == 60
    assert found[:3] == inputs(family, 3, Random(9))
    assert json.loads(json.dumps(found)) == found


# --- problems ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_any_size_is_honoured(task: Code, size: int) -> None:
    for problem in some(task, 4, size):
        assert problem.size == size
        assert problem.prompt.count("\n") >= size
        assert task.check(problem, problem.answer) is Verdict.PASS


def test_equal_seeds_draw_equal_problems_and_there_are_many(task: Code) -> None:
    assert some(task, 5) == some(task, 5)
    stream = problems(task, "train", "0", distinct=True)
    assert len({next(stream).id for _ in range(300)}) == 300


def test_what_is_shown_is_true_and_never_hidden(task: Code) -> None:
    for problem in some(task, 30):
        function = code._function(problem)
        shown, hidden = task._shown(function), task._hidden(function)
        assert len(shown) == 2 and not [x for x in shown if x in hidden]
        for x in shown:
            assert f"f({x!r}) returns {function.value(x)!r}" in problem.prompt
        assert problem.answer not in problem.prompt


def test_a_problem_survives_json(task: Code) -> None:
    problem = some(task, 1)[0]
    back = Problem(**json.loads(json.dumps(asdict(problem))))
    assert task.check(back, problem.answer) is Verdict.PASS


# --- the check --------------------------------------------------------------------------------------------------------


def test_right_programs_pass_however_they_are_written(task: Code) -> None:
    rng = Random(0)
    asked = [(problem, said) for problem in some(task, 25) for said in task.others(problem, rng)]
    assert len(asked) >= 150
    verdicts = task.check_all(asked)
    assert not [pair for pair, verdict in zip(asked, verdicts, strict=True) if verdict is not Verdict.PASS]


def test_no_trap_passes(task: Code) -> None:
    rng = Random(0)
    asked = [(problem, said) for problem in some(task, 25) for said in task.traps(problem, rng)]
    assert len(asked) >= 400
    verdicts = task.check_all(asked)
    wrong = [pair for pair, v in zip(asked, verdicts, strict=True) if v in (Verdict.PASS, Verdict.INFRA_ERROR)]
    assert not wrong


@pytest.mark.parametrize("name", MORE_CHEATS)
def test_no_cheat_passes(task: Code, name: str) -> None:
    """The cheats were written for another function: here not even their honest part is right."""
    problem = some(task, 1, 3)[0]
    assert task.check(problem, MORE_CHEATS[name]) not in (Verdict.PASS, Verdict.INFRA_ERROR)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("", Verdict.UNPARSED), ("  \n ", Verdict.UNPARSED), ("x" * 70_000, Verdict.UNPARSED),
        ("I would sort it first.", Verdict.UNPARSED), ("def f(x:", Verdict.UNPARSED),
        ("```python\ndef f(x): return x", Verdict.UNPARSED), ("def g(x): return x", Verdict.UNPARSED),
        ("def f(x):\n    while True: pass", Verdict.TIMEOUT), ("def f(x): return 'x' * 10**9", Verdict.OOM),
        ("def f(x):\n    while True: print(x)", Verdict.OUTPUT_LIMIT),
        ("def f(x): open('/etc/passwd')", Verdict.POLICY), ("def f(x): return \ud800", Verdict.WRONG),
        ("def f(): return 1", Verdict.WRONG), ("f = 3", Verdict.WRONG), ("9**9**9", Verdict.UNPARSED),
    ],
)  # fmt: skip
def test_every_answer_has_its_verdict(hasty: Code, answer: str, verdict: Verdict) -> None:
    assert hasty.check(some(hasty, 1, 2)[0], answer) is verdict


def test_many_answers_are_checked_as_one_is(task: Code) -> None:
    drawn_ = some(task, 3)
    asked = [(p, said) for p in drawn_ for said in (p.answer, "def f(x): return None", "no")]
    assert task.check_all(asked) == [task.check(*pair) for pair in asked]
    assert task.check_all([]) == []


def test_the_checker_asks_for_all_at_once(task: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_MAX_CHARS", 10)
    problem = some(task, 1)[0]
    checker = Checker(task, "code")
    assert [c.verdict for c in checker.verdicts([(problem, "x" * 11), (problem, None)])] == [Verdict.UNPARSED] * 2
    checker.close()


def test_a_sandbox_that_leaks_stops_the_run_with_a_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "chosen", lambda limits: Place(without=frozenset({Layer.LANDLOCK})))
    task = Code(boxes=1)
    problem = some(task, 1)[0]
    with pytest.raises(UserError, match="does not hold"):
        Checker(task, "code").verdicts([(problem, problem.answer)])


def test_what_the_sandbox_loses_leaves_the_reward_open(task: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Outcome(Verdict.INFRA_ERROR, said="gone")
    monkeypatch.setattr(type(task._sandbox()), "call", lambda self, program, name, inputs: [lost] * len(inputs))
    problem = some(task, 1)[0]
    assert task.check(problem, problem.answer) is Verdict.INFRA_ERROR


# --- traces -----------------------------------------------------------------------------------------------------------


def test_only_the_expert_is_right(task: Code) -> None:
    rng, right = Random(0), Counter[str]()
    drawn_ = some(task, 30)
    for quality in task.qualities:
        parts = [split(task.trace(problem, rng, quality)) for problem in drawn_]
        verdicts = task.check_all([(p, part.answer or "") for p, part in zip(drawn_, parts, strict=True)])
        right[quality] = verdicts.count(Verdict.PASS)
    assert right["expert"] == 30
    assert right["skips"] == right["gives_up"] == 0 and right["slips"] <= 3


def test_an_expert_translates_every_step_in_order(task: Code) -> None:
    problem = some(task, 1, 4)[0]
    reasoning = split(task.trace(problem, Random(0), "expert"))
    assert reasoning.answer == problem.answer
    assert task.attempts(problem, reasoning.thinking) == [problem.answer]
    assert task.hits(problem, reasoning.thinking)


def test_an_attempt_has_a_line_for_every_step(task: Code) -> None:
    problem = some(task, 1, 3)[0]
    for quality, complete in (("skips", False), ("gives_up", False), ("slips", True)):
        thinking = split(task.trace(problem, Random(1), quality)).thinking
        assert bool(task.attempts(problem, thinking)) is complete
        assert not task.hits(problem, thinking)
    assert task.attempts(problem, "hm\nx = \ny = 2") == []


def test_facts_are_true_and_of_one_step(task: Code) -> None:
    for line in task.facts(Random(0), 12).split("\n"):
        words, _, python = line.partition(": x = ")
        assert ast.parse(python) and words


def test_guessing_does_not_solve_it(task: Code) -> None:
    rng = Random(0)
    verdicts = task.check_all([(problem, task.guess(problem, rng)) for problem in some(task, 60)])
    assert verdicts.count(Verdict.PASS) <= 3


def test_an_unknown_quality_and_a_wrong_setting_are_letters(task: Code) -> None:
    with pytest.raises(UserError, match='no traces of quality "experts"'):
        task.trace(some(task, 1)[0], Random(0), "experts")
    with pytest.raises(UserError, match="isolation"):
        parse(Code, {"isolation": "none"})
    with pytest.raises(UserError, match="families"):
        parse(Code, {"families": ["poems"]})


def test_less_isolation_is_asked_for_by_name() -> None:
    task = Code(isolation="unsafe-local", boxes=1)
    problem = some(task, 1)[0]
    with pytest.warns(UserWarning, match="unsafe-local"):
        assert task.check(problem, problem.answer) is Verdict.PASS
    assert task.check(problem, "def f(x): return None") is Verdict.WRONG
    task._sandbox().close()


def test_every_cheat_of_the_task_is_a_program_of_its_own() -> None:
    for cheat in CHEATS:
        assert ast.parse(cheat)
