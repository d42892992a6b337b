"""Figures of an evaluation, from rollouts made by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from seekling.evals.evaluate import (
    DIVERSITY_PROBLEMS,
    DIVERSITY_ROLLOUTS,
    Judged,
    attempts_of,
    examples,
    figures,
)
from seekling.recipes.evaluate import headline
from seekling.records import Group, Problem, Rollout, Score, Stop, Verdict
from seekling.rewards.rubric import Rubric, answer_of, score_groups
from tests.e2e.manifests.sums import Sums

TASK = Sums()


def problem(prompt: str, size: int = 2) -> Problem:
    return Problem(id=prompt, task="sums", prompt=prompt, answer=str(sum(map(int, prompt.split("+")))), size=size)


def rollout(text: str, num_tokens: int = 4, logp: float = -0.5) -> Rollout:
    logps = np.full(num_tokens, logp, np.float32)
    return Rollout((1,), tuple(range(num_tokens)), logps, text, Stop.STOP, 0)


def said(prompt: str, *texts: str) -> Judged:
    group = Group(problem(prompt), tuple(rollout(text) for text in texts))
    answers = [answer_of(text) for text in texts]
    verdicts = [Verdict.UNPARSED if one is None else TASK.check(group.problem, one) for one in answers]
    return Judged(group, tuple(score_groups([group], [verdicts], Rubric())[0]))


RIGHT, WRONG = "<think>1+2=3</think><answer>3</answer>", "<think>1+2=4\n1+2=4</think><answer>4</answer>"


def test_every_figure_is_a_mean_over_problems() -> None:
    found = figures(TASK, [said("1+2", RIGHT, WRONG, RIGHT, RIGHT), said("2+2", WRONG, RIGHT, RIGHT, RIGHT)])
    assert found["problems"] == 2 and found["samples"] == 4
    assert found["pass_at_k"]["1"]["value"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert found["pass_at_k"]["4"]["value"] == 1.0
    assert found["maj_at_k"]["4"]["value"] == 0.5, "three of four say 3: right for 1+2, wrong for 2+2"
    assert found["mean_tokens"]["value"] == 4.0 and found["entropy"]["value"] == pytest.approx(0.5)
    assert found["format_rate"]["value"] == 1.0 and found["distinct_answers"]["value"] == 2.0
    assert found["distinct_attempts"]["value"] == pytest.approx((3 * 1 + 0.5) / 4)
    assert found["by_size"].keys() == {"2"}
    json.dumps(found, allow_nan=False)


def test_thinking_is_readable_in_the_language_that_its_problem_tells() -> None:
    english, mixed = "<think>first 1+2=3</think><answer>3</answer>", "<think>first 1+2=3 又 3</think><answer>3</answer>"
    silent = said("2+2", RIGHT)
    assert "readable_rate" not in figures(TASK, [silent]), "no problem tells its language"
    told = said("1+2", english, mixed, english, "first")
    told = replace(told, group=replace(told.group, problem=replace(told.group.problem, info={"language": "en"})))
    found = figures(TASK, [told])
    assert found["readable_rate"]["value"] == 0.5 and headline(found)["readable_rate"] == 0.5
    assert figures(TASK, [told, said("2+2", RIGHT, RIGHT, RIGHT, RIGHT)])["readable_rate"]["value"] == 0.5


def test_likeness_is_measured_on_the_first_siblings_of_the_first_problems() -> None:
    found = figures(TASK, [said("1+2", RIGHT, RIGHT)])
    assert found["self_bleu"]["value"] == pytest.approx(1.0) and found["distinct_1"]["value"] < 0.5
    first = [said("1+2", *[RIGHT] * DIVERSITY_ROLLOUTS, WRONG)] * DIVERSITY_PROBLEMS
    beyond = said("2+2", *[WRONG] * (DIVERSITY_ROLLOUTS + 1))
    assert figures(TASK, [*first, beyond])["self_bleu"] == figures(TASK, first)["self_bleu"]
    assert {"self_bleu", "entropy", "distinct_1", "distinct_2", "distinct_3"} <= headline(found).keys()
    assert "readable_rate" not in headline(found)


def test_attempts_split_a_rollouts_tokens_without_loss() -> None:
    one = attempts_of(TASK, problem("1+2"), rollout(WRONG, 10))
    assert (one.made, one.distinct) == (2, 1)
    assert one.new_tokens > 0 and one.repeated_tokens == pytest.approx(one.new_tokens)
    assert one.new_tokens + one.repeated_tokens + one.other_tokens == pytest.approx(10)
    nothing = attempts_of(object(), problem("1+2"), rollout(WRONG, 10))
    assert (nothing.made, nothing.other_tokens) == (0, 10.0)


def test_a_rollout_that_could_not_be_judged_is_no_pass() -> None:
    group = Group(problem("1+2"), (rollout(RIGHT),))
    open_ = Judged(group, (Score(None, Verdict.INFRA_ERROR),))
    assert open_.num_passed == 0 and figures(TASK, [open_])["pass_at_k"]["1"]["value"] == 0.0


def test_examples_are_the_first_few_in_full() -> None:
    shown = examples([said("1+2", RIGHT, WRONG), said("2+2", WRONG, WRONG)], 1, 1)
    assert shown == [
        {"problem_id": "1+2", "prompt": "1+2", "answer": "3", "size": 2,
         "rollouts": [{"text": RIGHT, "verdict": "pass", "tokens": 4}]}
    ]  # fmt: skip
