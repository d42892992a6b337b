"""Scores keep their parts; a check that fails to judge is never a reward."""

from __future__ import annotations

from typing import Any

import pytest

from seekling.config import parse
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.rewards.rubric import Rubric, score

PROBLEM = Problem(id="0", task="t", prompt="1+1", answer="2", size=2)
WELL, PLAIN, NOTHING = "<think>so</think><answer>2</answer>", "so <answer>2</answer>", "so 2"


def right(problem: Problem, answer: str) -> Verdict:
    return Verdict.PASS if answer == problem.answer else Verdict.WRONG


@pytest.mark.parametrize(
    ("text", "verdict", "accuracy", "form"),
    [
        (WELL, Verdict.PASS, 1.0, 1.0),
        (PLAIN, Verdict.PASS, 1.0, 0.0),
        (WELL.replace("<answer>2", "<answer>3"), Verdict.WRONG, 0.0, 1.0),
        (NOTHING, Verdict.UNPARSED, 0.0, 0.0),
    ],
)
def test_a_reward_is_the_weighted_sum_of_its_parts(text: str, verdict: Verdict, accuracy: float, form: float) -> None:
    found = score(PROBLEM, text, Rubric(accuracy=1.0, format=0.25), right)
    assert found.verdict is verdict
    assert found.parts == {"accuracy": accuracy, "format": form, "fresh": 1.0}
    assert found.reward == accuracy + 0.25 * form


@pytest.mark.parametrize(
    ("thinking", "fresh"),
    [("", 1.0), ("1+1=2", 1.0), ("1+1=2\nagain\n1+1=2", 0.0), ("a\n\nb\n \nc", 1.0), ("a\nb\nb", 0.0)],
)
def test_a_line_worked_twice_alike_is_not_fresh(thinking: str, fresh: float) -> None:
    found = score(PROBLEM, f"<think>{thinking}</think><answer>2</answer>", Rubric(accuracy=0.5, fresh=0.5), right)
    assert found.parts["fresh"] == pytest.approx(fresh)
    assert found.reward == pytest.approx(0.5 + 0.5 * fresh)


def raises(problem: Problem, answer: str) -> Verdict:
    raise KeyError("no such unit")


@pytest.mark.parametrize("said", [raises, lambda p, a: True, lambda p, a: None, lambda p, a: 1, lambda p, a: "fine"])
def test_a_check_that_raises_or_gives_no_verdict_leaves_the_reward_open(said: Any) -> None:
    found = score(PROBLEM, WELL, Rubric(format=1.0), said)
    assert found.verdict is Verdict.INFRA_ERROR and found.reward is None


def test_a_check_that_says_it_could_not_judge_leaves_the_reward_open() -> None:
    found = score(PROBLEM, WELL, Rubric(), lambda p, a: Verdict.INFRA_ERROR)
    assert found.reward is None and found.verdict is Verdict.INFRA_ERROR


def test_a_check_is_not_asked_when_there_is_no_answer() -> None:
    assert score(PROBLEM, NOTHING, Rubric(), raises).verdict is Verdict.UNPARSED


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(UserError, match="greater than or equal to 0"):
        parse(Rubric, {"accuracy": -1})
