"""What a reward model says as a part of a reward: bounded, asked once, worth the least where nothing was said."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.records import Group, Problem, Rollout, Stop, Verdict
from seekling.rewards.rated import SHAPES, Rated, Rating, heard_of
from seekling.rewards.rubric import Outside, Rubric, score_groups

PROBLEM = Problem("0", "greet", "greet 1", "", 1)
TEXTS = ("<think>a</think>good", "<think>b</think>good", "<think>c</think>", "bad")
NUMBERS = {"good": 1.5, "bad": -0.5}


def group(*texts: str) -> Group:
    return Group(PROBLEM, tuple(Rollout((1,), (2,), np.zeros(1, np.float32), t, Stop.STOP, 0) for t in texts))


class Rater:
    """A reward model that knows its answers, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, prompts: Sequence[str], replies: Sequence[str]) -> list[float | None]:
        assert set(prompts) == {PROBLEM.prompt}
        self.asked += replies
        return [NUMBERS.get(reply) for reply in replies]


def test_what_stands_outside_the_thinking_is_rated_once_for_all_who_say_it() -> None:
    rater = Rater()
    [row] = Rating(Rated(weight=1.0, shape="number"), rater).given([group(*TEXTS)])
    assert row == [1.5, 1.5, -4.0, -0.5] and rater.asked == ["good", "bad"]


def test_the_whole_text_is_rated_where_told() -> None:
    rater = Rater()
    [row] = Rating(Rated(weight=1.0, reads="whole", most=2.0), rater).given([group(*TEXTS)])
    assert rater.asked == list(TEXTS) and heard_of(TEXTS[0], "whole") == TEXTS[0]
    assert row[:3] == [SHAPES["sigmoid"](-2.0)] * 3, "what cannot be read is worth what silence is"


def test_where_nobody_says_anything_the_reward_model_is_not_asked() -> None:
    rater = Rater()
    [row] = Rating(Rated(weight=1.0), rater).given([group("", "<think>only thought</think>", ":")])
    assert len(set(row)) == 1 and not rater.asked


@given(st.floats(-50, 50), st.floats(-50, 50), st.sampled_from(sorted(SHAPES)), st.floats(0.5, 8))
@settings(max_examples=60)
def test_a_part_is_bounded_and_never_turns_an_order_round(one: float, other: float, shape: str, most: float) -> None:
    rating = Rating(Rated(weight=1.0, shape=shape, most=most), lambda p, r: [one, other])  # type: ignore[arg-type]
    [[first, second]] = rating.given([group("one", "other")])
    low, high = SHAPES[shape](-most), SHAPES[shape](most)
    assert low <= first <= high and low <= second <= high  # type: ignore[operator]
    assert (first >= second) == (one >= other) or first == second  # type: ignore[operator]


def test_the_sigmoid_is_the_chance_of_being_preferred_to_a_usual_reply() -> None:
    assert SHAPES["sigmoid"](0.0) == 0.5
    assert SHAPES["sigmoid"](1.3) == pytest.approx(1 / (1 + math.exp(-1.3)))


def test_it_is_weighed_like_any_criterion_and_shows_as_a_part() -> None:
    rubric = Rubric.model_validate({"accuracy": 0.5, "rated": {"weight": 2.0, "shape": "number"}})
    [[score, *_]] = score_groups([group(*TEXTS)], [[Verdict.PASS] * 4], rubric, outside=Outside(rubric, Rater()))
    assert score.parts["rated"] == 1.5 and score.reward == 0.5 + 3.0


def test_a_rubric_that_weighs_it_without_a_reward_model_is_a_letter() -> None:
    with pytest.raises(UserError, match="there is none"):
        Outside(Rubric.model_validate({"rated": 1.0}))
    Outside(Rubric(accuracy=1.0)).close()
