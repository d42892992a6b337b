"""pass@k, maj@k and intervals by hand; their laws stand in tests/laws/test_measure.py."""

from __future__ import annotations

import math

import pytest

from seekling.evals.measure import bootstrap, maj_at_k, pass_at_k, powers_of_two


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(4, 1, 1) == 0.25
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert pass_at_k(4, 3, 2) == 1.0
    assert pass_at_k(4, 0, 4) == 0.0


@pytest.mark.parametrize("k", [0, 0.5, 5, -1])
def test_k_beyond_the_rollouts_is_refused(k: float) -> None:
    with pytest.raises(ValueError, match="between 1 and 4"):
        pass_at_k(4, 2, k)


def test_the_most_frequent_answer_decides() -> None:
    assert maj_at_k(["3", "3", "4"], [True, True, False], 3, draws=1) == 1.0
    assert maj_at_k(["3", "4", "4"], [True, False, False], 3, draws=1) == 0.0


def test_ties_are_broken_evenly() -> None:
    assert maj_at_k(["3", "4"], [True, False], 2, draws=1) == 0.5
    assert maj_at_k(["3", "4", "5"], [True, False, False], 3, draws=1) == pytest.approx(1 / 3)
    assert maj_at_k(["3", "4", "3", "4", "5"], [True, False, True, False, False], 5, draws=1) == 0.5


def test_no_answer_never_wins() -> None:
    assert maj_at_k([None, None, "3"], [False, False, True], 3, draws=1) == 1.0
    assert maj_at_k([None, None], [False, False], 2, draws=1) == 0.0


def test_maj_at_1_is_near_pass_at_1() -> None:
    answers, passed = ["1", "2", "3", "4"], [True, False, False, False]
    assert maj_at_k(answers, passed, 1, draws=4000) == pytest.approx(0.25, abs=0.03)


def test_an_interval_of_equal_values_is_a_point_and_of_none_is_none() -> None:
    interval = bootstrap([0.5] * 9)
    assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5)
    assert math.isnan(bootstrap([]).value)


def test_powers_of_two_end_at_the_limit() -> None:
    assert powers_of_two(1) == [1]
    assert powers_of_two(8) == [1, 2, 4, 8]
    assert powers_of_two(9) == [1, 2, 4, 8]
