"""Controls: each stands at the trained model's tokens, and the oracle's stop rule holds until a hit."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seekling.evals.controls import (
    base_pass,
    blind_pass,
    cut_tokens,
    hold_thought_open,
    limit_for,
    passes_within,
)
from seekling.evals.evaluate import Judged
from seekling.evals.measure import pass_at_k
from seekling.records import Group, Problem, Rollout, Score, Stop, Verdict
from tests.e2e.manifests.sums import Sums

PROBLEM = Problem(id="1+2", task="sums", prompt="1+2", answer="3", size=2)


def judged(*rollouts: tuple[int, bool]) -> Judged:
    """Rollouts of (tokens, passed)."""
    said = tuple(
        Rollout((1,), tuple(range(length)), np.zeros(length, np.float32), "", Stop.STOP, 0) for length, _ in rollouts
    )
    scores = tuple(Score(float(ok), Verdict.PASS if ok else Verdict.WRONG) for _, ok in rollouts)
    return Judged(Group(PROBLEM, said), scores)


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(lengths, st.floats(1, 40))
def test_the_limit_is_the_largest_whose_mean_does_not_exceed_the_tokens(sizes: list[int], mean: float) -> None:
    rows = [judged(*((size, False) for size in sizes))]
    limit = limit_for(rows, mean)
    assert cut_tokens(rows, limit) <= mean
    assert limit == max(sizes) or cut_tokens(rows, limit + 1) > mean


def test_a_cut_rollout_counts_its_tokens_up_to_the_cut_and_does_not_pass() -> None:
    rows = [judged((4, True), (8, True), (8, False)), judged((2, True), (3, False), (10, True))]
    assert cut_tokens(rows, 6) == pytest.approx((4 + 6 + 6 + 2 + 3 + 6) / 6)
    assert passes_within(rows, 6) == [pytest.approx(1 / 3), pytest.approx(1 / 3)]
    assert passes_within(rows, 10) == [pytest.approx(2 / 3), pytest.approx(2 / 3)]


def test_the_end_of_thought_is_banned_until_an_attempt_hits() -> None:
    words = {1: "1+2=4", 2: "\n", 3: "1+2=3", 9: "</think>"}
    ban = hold_thought_open(Sums(), PROBLEM, 9, lambda said: "".join(words[token] for token in said))
    assert list(ban([])) == [9]
    assert list(ban([1])) == [9], "a wrong attempt does not open it"
    assert list(ban([1, 2])) == [9]
    assert list(ban([1, 2, 3])) == [], "a hit does"
    assert list(ban([1, 2, 3, 2, 1])) == [9], "the last attempt counts"
    assert list(ban([1, 9, 1])) == [], "once thought has ended there is nothing to hold"


def test_a_blind_guesser_hits_as_often_as_chance_says_and_needs_no_model() -> None:
    task = Sums(high=4)
    problems = [task.draw(Random(seed)) for seed in range(40)]
    once = blind_pass(task, problems, 1)
    assert np.mean(once) == pytest.approx(1 / 7, abs=0.03)
    assert np.mean(blind_pass(task, problems, 5)) == pytest.approx(1 - (6 / 7) ** 5, abs=0.04)
    assert once == blind_pass(task, problems, 1), "its draws are a function of the problem"


def test_the_base_gets_as_many_samples_as_the_tokens_buy_and_no_more_than_there_are() -> None:
    rows = [judged((4, True), (4, False), (4, False), (4, False))]
    assert base_pass(rows, 1.5) == [pytest.approx((pass_at_k(4, 1, 1) + pass_at_k(4, 1, 2)) / 2)]
    assert base_pass(rows, 0.2) == [pass_at_k(4, 1, 1)]
    assert base_pass(rows, 99) == [1.0]
