"""Rewards become lessons: who is compared with whom, what each update is made of, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from seekling.learn.batch import Text, text_of
from seekling.learn.config import Objective
from seekling.learn.presets import OBJECTIVES
from seekling.recipes.config import Grpo
from seekling.recipes.lessons import (
    advantages,
    criticised,
    drift,
    heard,
    judged,
    rewards,
    updates,
    valued,
    weighed,
    with_spread,
)
from seekling.records import Group, Problem, Rollout, Score, Stop, Verdict

PROBLEM = Problem("p", "any", "1+1=", "2", 2)


def rollout(length: int, stop: Stop = Stop.STOP, said: int = 9) -> Rollout:
    logps = np.linspace(-1, -2, length).astype(np.float32)
    return Rollout((1, 2, 3), tuple(range(said, said + length)), logps, "", stop, 0)


def scores(*rewards_: float | None) -> list[Score]:
    return [Score(r, Verdict.INFRA_ERROR if r is None else Verdict.PASS, {"accuracy": r or 0.0}) for r in rewards_]


def settings(**more: Any) -> Grpo:
    return Grpo(name="zero", source="base", steps=1, **more)


def texts(*lengths: int) -> list[Text]:
    return [text_of(rollout(length, said=9 + number)) for number, length in enumerate(lengths)]


def test_only_groups_whose_rewards_differ_are_kept_and_no_more_than_wanted() -> None:
    told = [scores(1, 1), scores(0, 1), scores(None, 1), scores(1, 0), scores(0, 0.5)]
    groups = [Group(replace(PROBLEM, id=str(n)), ()) for n in range(5)]
    found, rows = with_spread(groups, told, 2)
    assert [group.problem.id for group in found] == ["1", "3"] and rows == [told[1], told[3]]
    assert len(with_spread(groups, told, 9)[0]) == 3, "fewer than wanted are all there are"


def test_a_text_says_the_stop_and_the_prompt_is_given() -> None:
    text = text_of(rollout(4))
    assert text.weight.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert text.values["behaviour"].tolist() == pytest.approx([0, 0, 0, -1, -4 / 3, -5 / 3, -2])


@pytest.mark.parametrize("minibatches, epochs", [(1, 1), (3, 1), (2, 2), (1, 3), (99, 1)])
def test_every_epoch_goes_through_all_lessons_once(minibatches: int, epochs: int) -> None:
    lessons = judged(texts(3, 4, 5, 6, 7), torch.arange(1, 6))
    parts = list(updates(lessons, settings(minibatches=minibatches, epochs=epochs), "0/zero/7"))
    assert len(parts) == min(minibatches, 5) * epochs
    said = [text.tokens for part in parts for text in part]
    assert sorted(said) == sorted(lesson.tokens for lesson in lessons for _ in range(epochs))


def test_the_lessons_of_an_update_are_a_function_of_its_name() -> None:
    lessons = judged(texts(3, 4, 5, 6, 7, 8), torch.arange(1, 7))
    first, again, other = (
        [[len(text.tokens) for text in part] for part in updates(lessons, settings(minibatches=2), seed)]
        for seed in ("0/zero/7", "0/zero/7", "0/zero/8")
    )
    assert first == again != other


def test_one_update_a_step_keeps_the_order_in_which_rollouts_were_drawn() -> None:
    lessons = judged(texts(3, 4, 5), torch.arange(1, 4))
    assert [len(text.tokens) for text in next(updates(lessons, settings(), "any"))] == [6, 7, 8]


def test_no_lesson_makes_no_update() -> None:
    assert list(updates([], settings(), "any")) == []


def test_weights_are_those_of_the_update_not_of_the_step() -> None:
    lessons = judged(texts(2, 2, 4, 4), torch.ones(4))
    for part in updates(lessons, settings(minibatches=2, objective="dapo"), "any"):
        assert sum(float(text.weight.sum()) for text in part) == pytest.approx(1)


def test_a_rollout_without_advantage_is_left_out_but_counts_in_the_weights() -> None:
    lessons = judged(texts(2, 4), torch.tensor([1.0, 0.0]))
    (text,) = weighed(lessons, settings(objective="dapo"))
    assert text.weight.max() == pytest.approx(1 / 6), "of all six tokens, though four teach nothing"


@pytest.mark.parametrize("more", [{"entropy": 0.01}, {"kl": "k3", "beta": 0.1}])
def test_it_is_kept_where_something_else_pulls_at_it(more: dict[str, Any]) -> None:
    lessons = judged(texts(2, 4), torch.tensor([1.0, 0.0]))
    assert len(weighed(lessons, settings(objective={"preset": "dapo", **more}))) == 2


def test_when_none_has_an_advantage_one_is_kept_for_its_figures() -> None:
    assert len(weighed(judged(texts(2, 4), torch.zeros(2)), settings())) == 1


def test_what_nobody_judged_is_never_heard_and_what_was_cut_off_only_where_told() -> None:
    said = [rollout(2), rollout(3, Stop.LENGTH), rollout(4)]
    lessons, told = [text_of(one) for one in said], [scores(1, 0, None)]
    assert [len(t.tokens) for t in heard(lessons, said, told, settings())] == [5, 6]
    assert [len(t.tokens) for t in heard(lessons, said, told, settings(cut_off="left_out"))] == [5]


def test_open_rewards_are_nan() -> None:
    assert rewards([scores(1, None), scores(0, 2)]).isnan().tolist() == [[False, True], [False, False]]


def test_a_kl_in_the_reward_is_that_of_the_whole_rollout() -> None:
    lessons = valued(texts(2, 4), reference=[np.zeros(5, np.float32), np.zeros(7, np.float32)])
    apart = drift(lessons, "k1")
    assert apart.tolist() == pytest.approx([-3.0, -6.0])
    objective = Objective(advantage="group_mean", kl="k1", kl_in="reward", beta=0.1)
    found = advantages([scores(1, 1)], {"accuracy": 1.0}, objective, lessons)
    assert found.tolist() == pytest.approx([-0.15, 0.15]), "rewards 1.3 and 1.6"


def test_criteria_are_compared_apart_where_told() -> None:
    told = [[Score(1.0, Verdict.PASS, {"a": 1.0, "b": 0.0}), Score(1.0, Verdict.PASS, {"a": 0.0, "b": 1.0})]]
    weights = {"a": 1.0, "b": 0.5}
    together = advantages(told, weights, Objective(advantage="group_mean_std"), texts(2, 2))
    apart = advantages(told, weights, Objective(advantage="group_mean_std", apart=True), texts(2, 2))
    assert together.tolist() == [0, 0] and apart[0] > 0 > apart[1]


def test_a_critic_that_expected_nothing_leaves_the_return_and_one_that_expected_all_leaves_nothing_to_learn() -> None:
    lessons = texts(2, 3)
    blank = valued(lessons, value=[np.zeros(len(t.tokens), np.float32) for t in lessons])
    found = criticised(blank, [scores(1, 0)], OBJECTIVES["ppo"].model_copy(update={"beta": 0.0}))
    assert found[0].values["return"][3:].tolist() == pytest.approx([0.95, 1.0])
    assert not found[0].values["return"][:3].any() and not found[1].values["return"].any()
    assert found[0].values["advantage"][-1] > 0 > found[1].values["advantage"][-1]


def test_each_tokens_kl_is_its_own_penalty_under_a_critic() -> None:
    lessons = texts(2, 2)
    blank = valued(
        lessons,
        value=[np.zeros(5, np.float32)] * 2,
        reference=[t.values["behaviour"] - np.float32([0, 0, 0, 1, 0]) for t in lessons],
    )
    objective = OBJECTIVES["ppo"].model_copy(update={"beta": 0.5, "critic": OBJECTIVES["ppo"].critic})
    found = criticised(blank, [scores(1, 1)], objective)
    assert found[0].values["return"][3:].tolist() == pytest.approx([-0.5 + 0.95, 1.0])


@pytest.mark.parametrize(
    "objective, says",
    [
        ({"advantage": "gae", "kl": "k1", "beta": 0.1}, 'kl_in = "reward"'),
        ({"advantage": "gae", "apart": True}, "apart compares criteria"),
        ({"apart": True, "kl": "k1", "beta": 0.1, "kl_in": "reward"}, "apart compares criteria"),
        ("grop", "grpo"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(objective: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        settings(objective=objective)


def test_siblings_without_chance_are_refused() -> None:
    with pytest.raises(ValidationError, match="temperature 0"):
        settings(sampling={"temperature": 0})


def test_texts_given_no_further_values_are_as_they_were() -> None:
    assert [text.values.keys() for text in valued(texts(2, 3))] == [{"behaviour", "reference"}] * 2
