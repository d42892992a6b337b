"""Blocks world: plans carried out, shortest ones against a search from the goal, and plans that must not pass."""

from __future__ import annotations

import time
from random import Random

import pytest

from seekling.config import parse
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.selftests.outcome import require
from seekling.selftests.tasks import of_key
from seekling.tasks.blocks import Blocks, after, legal

TASK = Blocks()
PROBLEM = Problem(
    "", "blocks", "stacks BA C D, make ABC D", "A>table B>A C>B", 4, {"start": ("BA", "C", "D"), "goal": ("ABC", "D")}
)


def layers(start: frozenset[str]) -> dict[frozenset[str], int]:
    """Every state that can be reached, with the fewest moves to it."""
    found, edge = {start: 0}, [start]
    while edge:
        reached = {after(state, [move]) for state in edge for move in legal(state)}
        edge = [state for state in reached if state is not None and state not in found]
        found |= dict.fromkeys(edge, max(found.values()) + 1)
    return found


def test_its_own_keys_pass() -> None:
    require(*of_key(TASK), *of_key(Blocks(shortest=True)), *of_key(Blocks(sizes=(9,))))


def test_all_states_of_four_blocks_can_be_reached() -> None:
    assert len(layers(frozenset(("A", "B", "C", "D")))) == 73, "as counted by Slaney and Thiebaux (2001)"


def test_keys_of_few_blocks_are_as_short_as_can_be() -> None:
    for seed in range(20):
        problem = TASK.draw(Random(seed), 4)
        far = layers(frozenset(problem.info["start"]))[frozenset(problem.info["goal"])]
        assert problem.answer.count(">") == far >= TASK.least


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("A>table B>A C>B", Verdict.PASS), ("A > table, B > A, C > B", Verdict.PASS),
        ("A>C A>table B>A C>B", Verdict.PASS), ("A>table\nB>A\nC>B\n", Verdict.PASS),
        ("A>table B>A", Verdict.WRONG), ("B>A C>B", Verdict.WRONG), ("A>table B>A C>B D>C", Verdict.WRONG),
        ("A>table A>table B>A C>B", Verdict.WRONG), ("A>A B>A C>B", Verdict.WRONG), ("A>Z", Verdict.WRONG),
        ("B>table A>B C>A", Verdict.WRONG), ("C>table A>table B>A C>B", Verdict.WRONG),
        ("", Verdict.UNPARSED), ("a>table b>a c>b", Verdict.UNPARSED), ("A onto table", Verdict.UNPARSED),
        ("A>table B>A C>B?", Verdict.UNPARSED), ("table>A", Verdict.UNPARSED), ("A>Table B>A C>B", Verdict.UNPARSED),
        ("A>table " * 20_000, Verdict.UNPARSED), (" " * 100_000 + "A", Verdict.UNPARSED),
    ],
)  # fmt: skip
def test_the_verdict_is_exact_and_never_slow(answer: str, verdict: Verdict) -> None:
    start = time.process_time()
    assert TASK.check(PROBLEM, answer) is verdict
    assert time.process_time() - start < 0.2


def test_where_the_shortest_is_asked_for_a_detour_is_wrong() -> None:
    shortest = Blocks(shortest=True)
    assert shortest.check(PROBLEM, "A>C A>table B>A C>B") is Verdict.WRONG
    assert shortest.check(PROBLEM, "A>table B>A C>B") is Verdict.PASS


def test_the_order_in_which_stacks_are_named_makes_no_other_problem() -> None:
    seen: dict[str, set[str]] = {}
    for seed in range(3000):
        problem = Blocks(sizes=(3,), least=1).draw(Random(seed))
        seen.setdefault(problem.id, set()).add(problem.prompt)
    assert any(len(prompts) > 1 for prompts in seen.values())
    for prompts in seen.values():
        assert len({tuple(sorted(p.replace(",", "").split())) for p in prompts}) == 1


def test_many_blocks_have_a_plan_too_and_no_shortest_one() -> None:
    assert TASK.draw(Random(0), 20).size == 20
    with pytest.raises(UserError, match="cannot draw 7"):
        Blocks(shortest=True).draw(Random(0), 7)
    with pytest.raises(UserError, match="cannot draw 27"):
        TASK.draw(Random(0), 27)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"sizes": []}, "sizes"),
        ({"sizes": [1]}, "between 2"),
        ({"shortest": True, "sizes": [9]}, "up to 6"),
        ({"leats": 1}, '"least"'),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        parse(Blocks, settings)
