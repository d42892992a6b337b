"""Laws of the figures: pass@k counts subsets, fractional k interpolates, intervals cover what they claim to."""

from __future__ import annotations

from itertools import combinations
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seekling.evals.measure import bootstrap, maj_at_k, pass_at_k

rollouts = st.lists(st.booleans(), min_size=1, max_size=9)


@given(rollouts, st.data())
def test_pass_at_k_is_the_share_of_all_subsets_that_hold_a_pass(passed: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(passed)))
    subsets = list(combinations(passed, k))
    share = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(len(passed), sum(passed), k) == pytest.approx(share, abs=1e-12)


@given(rollouts, st.data())
def test_a_fractional_k_lies_on_the_line_between_its_neighbours(passed: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.floats(1, len(passed)))
    at = [pass_at_k(len(passed), sum(passed), whole) for whole in (floor(k), min(floor(k) + 1, len(passed)))]
    share = k - floor(k)
    assert pass_at_k(len(passed), sum(passed), k) == pytest.approx((1 - share) * at[0] + share * at[1], abs=1e-12)


@given(rollouts, st.data())
def test_more_tries_never_pass_less(passed: list[bool], data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.tuples(*[st.floats(1, len(passed))] * 2)))
    assert pass_at_k(len(passed), sum(passed), low) <= pass_at_k(len(passed), sum(passed), high) + 1e-12


@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=7), st.data())
def test_maj_at_k_nears_the_mean_over_all_subsets(answers: list[str | None], data: st.DataObject) -> None:
    right = data.draw(st.sampled_from(["1", "2"]))
    k = data.draw(st.integers(1, len(answers)))
    exact = np.mean([_wins(subset, right) for subset in combinations(answers, k)])
    found = maj_at_k(answers, [answer == right for answer in answers], k, draws=600)
    assert found == pytest.approx(exact, abs=0.13)


def _wins(subset: tuple[str | None, ...], right: str) -> float:
    said = [answer for answer in subset if answer is not None]
    if not said:
        return 0.0
    most = max(said.count(answer) for answer in said)
    leaders = {answer for answer in said if said.count(answer) == most}
    return (right in leaders) / len(leaders)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_value_lies_in_its_interval_and_the_same_values_give_the_same(values: list[float]) -> None:
    interval = bootstrap(values)
    assert interval == bootstrap(values)
    assert interval.value == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.beta(2, 3, 60) for _ in range(300)]
    intervals = [bootstrap(sample, resamples=400) for sample in samples]
    covered = np.mean([interval.low <= 0.4 <= interval.high for interval in intervals])
    assert 0.90 <= covered <= 0.985
