"""The guard: which updates are not made, what it remembers, and that a killed run would judge alike."""

from __future__ import annotations

import json
import math
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seekling.learn.config import Optim
from seekling.learn.guard import KNOWN, WINDOW, Broken, Guard

norms = st.one_of(st.floats(0, 1e6), st.sampled_from([math.nan, math.inf, 0.0]))
updates = st.lists(st.tuples(norms, st.sampled_from([0.5, -1.0, math.nan, math.inf])), max_size=60)


def seen(spike: float, *norms: float) -> Guard:
    guard = Guard(spike)
    for step, norm in enumerate(norms):
        guard.skips(step, norm)
    return guard


@pytest.mark.parametrize("norm, loss", [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, -math.inf)])
def test_what_is_no_number_is_skipped_from_the_first_step_on(norm: float, loss: float) -> None:
    guard = Guard()
    assert guard.skips(0, norm, loss) and guard.in_a_row == 1
    assert len(guard.faults) == 1 and "finite" in guard.faults[0]
    assert not guard.skips(1, 1.0, 1.0) and guard.in_a_row == 0


def test_a_spike_is_more_than_so_many_medians_and_says_how_many() -> None:
    guard = seen(10.0, *[1.0, 2.0, 3.0] * KNOWN)
    assert not guard.skips(0, 20.0)
    assert guard.skips(1, 20.1)
    assert guard.faults == ["its gradient norm, 20.1, is 10.1 times the usual 2"]


def test_before_enough_is_known_nothing_is_a_spike() -> None:
    assert not seen(2.0, *[1.0] * (KNOWN - 1)).skips(0, 1e9)
    assert seen(2.0, *[1.0] * KNOWN).skips(0, 1e9)


def test_zero_turns_it_off_but_not_for_what_is_no_number() -> None:
    guard = seen(0.0, *[1.0] * WINDOW)
    assert not guard.skips(0, 1e30) and guard.skips(1, math.inf)


def test_steps_without_gradient_do_not_make_the_next_one_a_spike() -> None:
    guard = seen(5.0, *[1.0] * KNOWN, *[0.0] * (2 * WINDOW))
    assert not guard.skips(0, 1.0)


def test_a_level_that_stays_is_a_spike_no_more() -> None:
    """Skipped norms are remembered, so the usual follows; only how many in a row are borne is somebody else's."""
    guard = seen(5.0, *[1.0] * WINDOW)
    skipped = [guard.skips(step, 100.0) for step in range(WINDOW)]
    assert skipped[0] and not skipped[-1]
    assert skipped.count(True) == WINDOW // 2


def test_an_update_that_broke_the_weights_is_not_made_again() -> None:
    guard = Guard()
    guard.barred = {7}
    assert [guard.skips(step, 1.0, 1.0) for step in (6, 7, 8)] == [False, True, False]
    assert Broken(7).step == 7 and "7" in str(Broken(7))


@given(updates, st.integers(0, 60), st.sampled_from([0.0, 1.5, 10.0]))
def test_a_guard_restored_anywhere_judges_as_if_never_stopped(
    told: list[tuple[float, float]], cut: int, spike: float
) -> None:
    whole, first, second = Guard(spike), Guard(spike), Guard(spike)
    expected = [(whole.skips(step, *update), whole.in_a_row) for step, update in enumerate(told)]
    begun = [(first.skips(step, *update), first.in_a_row) for step, update in enumerate(told[:cut])]
    second.load(json.loads(json.dumps(first.state(), allow_nan=False)))  # as a checkpoint holds it
    assert second.state() == first.state()
    rest = [(second.skips(step, *update), second.in_a_row) for step, update in enumerate(told[cut:], len(begun))]
    assert begun + rest == expected and second.state() == whole.state()


def test_skipped_in_a_row_are_counted_on_behind_a_checkpoint() -> None:
    first, second = Guard(), Guard()
    assert first.skips(0, math.nan) and first.skips(1, math.nan)
    second.load(first.state())
    assert second.skips(2, math.nan) and second.in_a_row == 3


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=250))
def test_what_is_remembered_is_the_last_norms_and_no_more(found: list[float]) -> None:
    guard = seen(0.0, *found)
    assert guard.norms == found[-WINDOW:]
    assert not guard.skips(0, 2 * median(guard.norms))


def test_the_default_is_above_what_healthy_runs_show() -> None:
    """The largest norm over the median of the hundred before it, as seen: 5 in zero-tiny, 13 in knights' base."""
    assert Optim().spike >= 2 * 13
