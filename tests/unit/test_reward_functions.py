"""A user's own rewards: TRL's signature taken unchanged, ours beside it, and whatever else they do instead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from seekling.config import parse
from seekling.errors import UserError
from seekling.records import Group, Problem, Rollout, Stop, Verdict
from seekling.rewards.functions import Function, Functions
from seekling.rewards.given import Failed, Given
from seekling.rewards.rubric import Rubric, score_groups

Ask = Callable[..., list[Given]]


def group_of(*texts: str, **info: object) -> Group:
    problem = Problem("id7", "sums", "1+1", "2", 3, info)
    return Group(
        problem, tuple(Rollout((1,), (2, at), np.zeros(2, np.float32), t, Stop.STOP, 0) for at, t in enumerate(texts))
    )


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """What a function, given as source, says of texts; every worker is ended with the test."""
    made: list[Functions] = []

    def given(source: str, *texts: str, function: Function | None = None, **info: object) -> list[Given]:
        file = tmp_path / f"rewards{len(made)}.py"
        file.write_text(source)
        made.append(Functions(f"{file}:f", function or Function(weight=1.0), size=1))
        return made[-1].given([group_of(*texts, **info)])[0]

    yield given
    for functions in made:
        functions.close()


def test_trl_s_signature_is_taken_unchanged(ask: Ask) -> None:
    source = """
def f(completions, solution, **kwargs):
    assert kwargs["trainer_state"] is None and kwargs["prompts"] == ["1+1"] * 3
    assert kwargs["answer"] == ["2"] * 3 and kwargs["size"] == [3] * 3 and kwargs["task"] == ["sums"] * 3
    assert [ids[1] for ids in kwargs["completion_ids"]] == [0, 1, 2]
    kwargs["log_metric"]("length", 3.0)
    kwargs["log_extra"]("first", completions)
    return [1.0 if said == key else None if not said else 0 for said, key in zip(completions, solution)]
"""
    assert ask(source, "2", "3", "", solution="2") == [1.0, 0.0, None]


def test_conversational_completions_are_lists_of_messages(ask: Ask) -> None:
    source = """
def f(prompts, completions, **kwargs):
    assert prompts[0] == [{"role": "user", "content": "1+1"}]
    return [len(completion[0]["content"]) / 2 for completion in completions]
"""
    assert ask(source, "a", "bb", function=Function(weight=1, reads="messages")) == [0.5, 1.0]


def test_an_async_function_is_awaited(ask: Ask) -> None:
    source = """
import asyncio

async def one(text):
    await asyncio.sleep(0.001)
    return float(len(text))

async def f(prompts, completions, **kwargs):
    return await asyncio.gather(*(one(text) for text in completions))
"""
    assert ask(source, "a", "bb") == [1.0, 2.0]


def test_without_keywords_for_the_rest_only_what_is_asked_for_is_passed(ask: Ask) -> None:
    assert ask("def f(completions, answer): return [float(c == a) for c, a in zip(completions, answer)]", "2", "3") == [
        1.0,
        0.0,
    ]


def test_our_own_signature_sees_one_problem_and_one_text(ask: Ask) -> None:
    assert ask("def f(problem, text): return problem.size * len(text) / 2", "a", "bb") == [1.5, 3.0]
    assert ask("async def f(problem, text): return None if text == 'a' else True", "a", "bb") == [None, 1.0]


def test_numbers_of_other_libraries_are_numbers(ask: Ask) -> None:
    assert ask("import numpy\ndef f(completions, **_): return numpy.arange(len(completions)) / 4", "a", "b") == [
        0,
        0.25,
    ]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("float('nan')", "it returned nan, which is no finite number"),
        ("float('inf')", "it returned inf"),
        ("'1.0'", "it returned '1.0', which is no finite number"),
        ("[1.0]", "it returned [1.0]"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("{}['unit']", "KeyError: 'unit'"),
    ],
)
def test_what_is_no_number_is_never_a_reward_and_costs_no_sibling(ask: Ask, returned: str, said: str) -> None:
    good, bad = ask(f"def f(problem, text): return {returned} if text == 'bad' else 0.5", "fine", "bad")
    assert good == 0.5 and isinstance(bad, Failed) and said in bad.said


def test_one_completion_that_breaks_a_whole_call_is_found_and_the_others_are_kept(ask: Ask) -> None:
    source = "def f(completions, **_): return [1 / len(text) for text in completions]"
    one, none, two = ask(source, "a", "", "bb")
    assert (one, two) == (1.0, 0.5) and isinstance(none, Failed) and "ZeroDivisionError" in none.said


@pytest.mark.parametrize(
    ("body", "said"),
    [("[1.0]", "1 values"), ("1.0", "1.0"), ("None", "None"), ("'ab'", "'ab'"), ("[1, 2, 3]", "3 val")],
)
def test_a_call_must_return_a_number_for_each_completion(ask: Ask, body: str, said: str) -> None:
    with pytest.raises(UserError, match=f"fails on 2 of 2 rollouts: it returned {said}.* for 2 completions"):
        ask(f"def f(completions, **_): return {body}", "a", "b")


def test_above_one_failure_in_a_hundred_the_run_stops_and_names_function_and_item(ask: Ask) -> None:
    with pytest.raises(UserError, match=r'the reward ".*rewards0.py:f" fails on 2 of 3 rollouts: KeyError') as caught:
        ask("def f(problem, text): return {'a': 1.0}[text]", "a", "bad one", "b")
    assert "problem '1+1', text 'bad one'" in caught.value.where
    assert "Mend the function" in caught.value.next_step and "Nothing is lost" in caught.value.next_step


def test_one_that_never_ends_is_killed_and_fails_for_what_it_hung_on(ask: Ask) -> None:
    source = "def f(problem, text):\n    while text == 'hang': pass\n    return 1.0"
    began = time.monotonic()
    fine, hung = ask(source, "fine", "hang", function=Function(weight=1.0, wall_s=1.0))
    assert fine == 1.0 and isinstance(hung, Failed) and "time" in hung.said
    assert time.monotonic() - began < 15


def test_one_that_fills_its_memory_fails_and_the_next_is_answered(ask: Ask) -> None:
    source = "def f(problem, text): return float(len(bytearray(10 ** 10 if text == 'big' else 1)))"
    fine, big = ask(source, "fine", "big", function=Function(weight=1.0, memory_bytes=2**29))
    assert fine == 1.0 and isinstance(big, Failed) and "memory" in big.said


def test_one_that_kills_its_process_fails_for_that_item_alone(ask: Ask) -> None:
    fine, dead = ask("import os\ndef f(problem, text): return os._exit(3) if text == 'x' else 1.0", "fine", "x")
    assert fine == 1.0 and isinstance(dead, Failed) and "died" in dead.said


def test_what_it_prints_goes_nowhere_near_its_answers(ask: Ask) -> None:
    assert ask("def f(problem, text):\n    print('{\"reply\": 9}')\n    return 0.5", "a") == [0.5]


def test_it_sees_no_secrets_of_the_environment(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    assert ask("import os\ndef f(problem, text): return float('JUDGE_KEY' in os.environ)", "a") == [0.0]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("f = 3", "is no function"),
        ("def g(): pass", "has no attribute 'f'"),
        ("def f(text): return 1", r"takes \(text\), which is no signature known here"),
        ("def f(a, b, c): return 1", r"takes \(a, b, c\)"),
        ("def f(problem, text) return", "SyntaxError"),
        ("import no_such_module_here", "No module named"),
    ],
)
def test_a_file_that_holds_no_reward_is_a_letter(ask: Ask, source: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ask(source, "a")


def test_a_missing_column_is_said_in_the_function_s_own_words(ask: Ask) -> None:
    with pytest.raises(UserError, match=r"fails on 2 of 2 rollouts: TypeError: .*'solution'"):
        ask("def f(completions, solution, **_): return [1.0] * len(completions)", "a", "b", answer="2")


def test_a_weighed_function_is_part_of_the_score(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text("def brief(completions, **_): return [1 / len(text) for text in completions]")
    name = f"{tmp_path}/r.py:brief"
    rubric = parse(Rubric, {"accuracy": 1.0, name: 0.5})
    row = score_groups([group_of("ab", "abcd")], [[Verdict.PASS, Verdict.WRONG]], rubric)[0]
    assert [score.reward for score in row] == [1.25, 0.125]
    assert [score.parts[name] for score in row] == [0.5, 0.25]
