"""Curated lists: written and read back, sieved by pass rate, asked in a stated order that a restart repeats."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from seekling.curate.curriculum import Curriculum, asker
from seekling.curate.listing import LIST, Picked, plain, read_list, write_list
from seekling.curate.passing import Passing, histogram, spread_share
from seekling.errors import UserError
from seekling.records import Problem

RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def problem(name: str, **info: object) -> Problem:
    return Problem(name, "sums", f"{name}?", name, 2, info)


def listed(*rates: float | None) -> list[Picked]:
    return [Picked(problem(f"p{number}"), rate) for number, rate in enumerate(rates)]


def asked(order: str, rates: tuple[float | None, ...] = RATES, *, steps: int = 4, seed: str = "s") -> list[list[str]]:
    curriculum = Curriculum(order=order)  # type: ignore[arg-type]
    ask = asker(listed(*rates), curriculum, seed=seed, per_step=3, group=8)
    return [[one.id for one in ask(step)] for step in range(steps)]


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["shuffled", "easy_first", "hard_first", "spread"])
def test_a_step_never_asks_a_problem_twice_and_asks_the_same_after_a_restart(order: str) -> None:
    steps = asked(order, steps=30)
    assert all(len(set(step)) == 3 for step in steps)
    ask = asker(listed(*RATES), Curriculum(order=order), seed="s", per_step=3, group=8)  # type: ignore[arg-type]
    assert [[one.id for one in ask(step)] for step in (29, 3)] == [steps[29], steps[3]]
    assert order in ("easy_first", "hard_first") or steps != asked(order, steps=30, seed="t")


def test_a_pass_asks_every_problem_before_any_comes_again() -> None:
    steps = asked("shuffled", steps=9)
    for start in (0, 3, 6):
        once = [name for step in steps[start : start + 3] for name in step]
        assert set(once[:7]) == {f"p{n}" for n in range(7)} and once[7:] == once[:2]
    assert steps[:3] != steps[3:6], "each pass has an order of its own"


def test_easy_comes_first_or_hard_does() -> None:
    assert [name for step in asked("easy_first", steps=2) for name in step] == ["p6", "p5", "p4", "p3", "p2", "p1"]
    assert [name for step in asked("hard_first", steps=2) for name in step] == ["p0", "p1", "p2", "p3", "p4", "p5"]


def test_equally_hard_problems_are_shuffled() -> None:
    same = (0.5,) * 7
    assert len({tuple(asked("easy_first", same, steps=1, seed=f"{n}")[0]) for n in range(8)}) > 4


def test_spread_prefers_what_divides_a_group_and_never_quite_drops_the_rest() -> None:
    drawn = Counter(name for step in asked("spread", (0.0, 1.0, 0.5, 0.5, 0.5, 0.02), steps=300) for name in step)
    assert min(drawn["p2"], drawn["p3"], drawn["p4"]) > 5 * max(drawn["p0"], drawn["p1"])
    assert drawn["p0"] < drawn["p5"] < drawn["p2"] and drawn["p0"] + drawn["p1"] > 0


def test_a_list_too_short_for_a_step_is_refused() -> None:
    with pytest.raises(UserError, match="has 2 problems, and a step asks 3"):
        asked("shuffled", (0.5, 0.5))


def test_an_order_by_rates_that_nobody_measured_is_refused() -> None:
    assert asked("shuffled", (None,) * 4)
    with pytest.raises(UserError, match="needs pass rates"):
        asked("spread", (0.5, 0.5, 0.5, None))


# --- pass rates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "fault"),
    [(0.0, "never solved"), (0.05, "solved too seldom, 0.05"), (0.1, ""), (0.5, ""), (0.9, ""),
     (0.95, "solved too often, 0.95"), (1.0, "always solved"), (None, "no check of it could be made")],
)  # fmt: skip
def test_what_teaches_nothing_is_left_out_with_the_reason(rate: float | None, fault: str) -> None:
    assert Passing().fault(rate) == fault


def test_both_ends_are_kept_and_must_be_in_order() -> None:
    assert Passing(low=0, high=1).fault(0.0) == Passing(low=0, high=1).fault(1.0) == ""
    with pytest.raises(ValueError, match="low must not be above high"):
        Passing(low=0.6, high=0.5)


def test_the_chance_of_a_spread_is_counted_exactly() -> None:
    assert spread_share(0, 8, 4) == spread_share(8, 8, 4) == spread_share(1, 1, 4) == 0.0
    assert spread_share(1, 4, 2) == pytest.approx(1 - 3 / 6), "of six pairs three hold the one that passed"
    assert spread_share(2, 4, 16) == 1.0, "fewer rollouts than a group: they are the group"
    assert spread_share(8, 64, 16) == pytest.approx(1 - spread_none(8, 64, 16))


def spread_none(passed: int, judged: int, group: int) -> float:
    from math import comb

    return (comb(passed, group) + comb(judged - passed, group)) / comb(judged, group)


def test_every_problem_is_counted_once_in_the_histogram() -> None:
    counts = histogram([0.0, 0.0, 1.0, 0.05, 0.1, 0.999, 0.5, None])
    assert sum(counts.values()) == 7
    assert counts["0"] == 2 and counts["1"] == 1 and counts["0-0.1"] == 1 and counts["0.1-0.2"] == 1
    assert counts["0.5-0.6"] == 1 and counts["0.9-1"] == 1


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_list_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    told = [Picked(plain(problem("三+四", numbers=(3, 4))), 0.25), Picked(problem("line\nbreak\u2028"), None)]
    write_list(tmp_path / LIST, told)
    assert read_list(tmp_path / LIST) == told
    assert told[0].problem.info["numbers"] == [3, 4], "what a task will see is what a file can hold"


def test_a_last_line_without_an_end_counts(tmp_path: Path) -> None:
    write_list(tmp_path / LIST, listed(0.1, 0.2))
    text = (tmp_path / LIST).read_text()
    (tmp_path / LIST).write_text(text.rstrip("\n"))
    assert len(read_list(tmp_path / LIST)) == 2


@pytest.mark.parametrize("line", ['{"id": "x"}', "not json", "[]", '{"pass_rate": "much"}', '{"id":1,"nonsense":2}'])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    write_list(tmp_path / LIST, listed(0.1))
    with (tmp_path / LIST).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"line 2 of .* is no problem"):
        read_list(tmp_path / LIST)


def test_a_missing_list_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing") as error:
        read_list(tmp_path / LIST)
    assert "curate" in error.value.next_step


@pytest.mark.parametrize("info", [{"task": object()}, {"rate": float("nan")}, {("a", "b"): 1}])
def test_what_json_cannot_hold_is_refused_before_it_is_lost(info: dict[object, object]) -> None:
    odd = Problem("x", "sums", "x?", "1", 1, info)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="cannot be written to a list"):
        plain(odd)
