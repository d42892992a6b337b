"""Mazes: ways against a walk of every square, traces that say where every move leads, and the walk in the dark."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from random import Random

import pytest

from seekling.config import parse
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.selftests.outcome import require
from seekling.selftests.tasks import of_key
from seekling.tasks.maze import STEPS, Grid, Maze, MazeGame
from seekling.text.reasoning import split

TASK = Maze()
PROBLEM = Problem(
    "", "maze", "from a1 to c2 in 3x3 walls b1 b3", "D R R", 3,
    {"side": 3, "walls": ((1, 0), (1, 2)), "start": (0, 0), "goal": (2, 1)},
)  # fmt: skip


def distance(grid: Grid) -> int | None:
    """Moves of a shortest way, by relaxing every square until nothing changes: an oracle."""
    found = {grid.start: 0}
    for _ in range(grid.side**2):
        for square, far in list(found.items()):
            for right, down in STEPS.values():
                there = (square[0] + right, square[1] + down)
                if grid.is_open(there) and found.get(there, 10**6) > far + 1:
                    found[there] = far + 1
    return found.get(grid.goal)


def grid_of(problem: Problem) -> Grid:
    told = problem.info
    return Grid(told["side"], frozenset(told["walls"]), told["start"], told["goal"])


def test_its_own_keys_pass() -> None:
    require(*of_key(TASK), *of_key(Maze(shortest=True, sizes=(3, 6))))


def test_keys_are_as_short_as_can_be() -> None:
    for seed in range(60):
        problem = TASK.draw(Random(seed), 3 + seed % 4)
        assert len(problem.answer.split()) == distance(grid_of(problem)) >= min(TASK.least, problem.size)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("D R R", Verdict.PASS), ("DRR", Verdict.PASS), (" D, R, R\n", Verdict.PASS), ("D D U R R", Verdict.PASS),
        ("D R", Verdict.WRONG), ("R D R", Verdict.WRONG), ("D R R R", Verdict.WRONG), ("U D D R R", Verdict.WRONG),
        ("D D R U R", Verdict.WRONG), ("D R R L", Verdict.WRONG),
        ("", Verdict.UNPARSED), ("d r r", Verdict.UNPARSED), ("D R R.", Verdict.UNPARSED), ("a2 b2", Verdict.UNPARSED),
        ("a1 D a2 R b2 R c2", Verdict.UNPARSED), ("D R R or not", Verdict.UNPARSED), ("ＤＲＲ", Verdict.UNPARSED),
        ("D" * 100_000, Verdict.UNPARSED), ("D" + " " * 100_000 + "x", Verdict.UNPARSED), ("D ,,R", Verdict.UNPARSED),
    ],
)  # fmt: skip
def test_the_verdict_is_exact_and_never_slow(answer: str, verdict: Verdict) -> None:
    start = time.process_time()
    assert TASK.check(PROBLEM, answer) is verdict
    assert time.process_time() - start < 0.2


def test_where_the_shortest_is_asked_for_a_detour_is_wrong() -> None:
    assert Maze(shortest=True).check(PROBLEM, "D D U R R") is Verdict.WRONG
    assert Maze(shortest=True).check(PROBLEM, "D R R") is Verdict.PASS


def test_an_expert_says_where_every_move_leads() -> None:
    assert TASK.trace(PROBLEM, Random(0), "expert") == "<think>a1 D a2 R b2 R c2</think><answer>D R R</answer>"


def test_only_a_slip_names_a_square_to_which_its_move_does_not_lead() -> None:
    for seed in range(60):
        rng = Random(seed)
        problem = TASK.draw(rng)
        for quality in ("expert", "straight", "slips", "gives_up"):
            line = split(TASK.trace(problem, rng, quality)).thinking
            parts = line.split(" ")
            squares = [(ord(name[0]) - ord("a"), int(name[1:]) - 1) for name in parts[::2]]
            led = [(a + STEPS[m][0], b + STEPS[m][1]) for (a, b), m in zip(squares, parts[1::2], strict=False)]
            wrong = sum(there != led[place] for place, (_, there) in enumerate(pairwise(squares)))
            assert wrong <= (quality == "slips")


def test_an_expert_is_right_and_who_gives_up_is_not() -> None:
    for seed in range(60):
        problem = TASK.draw(Random(seed))
        assert TASK.check(problem, split(TASK.trace(problem, Random(seed), "expert")).answer or "") is Verdict.PASS
        assert TASK.check(problem, split(TASK.trace(problem, Random(seed), "gives_up")).answer or "") is Verdict.WRONG


def test_a_hit_is_judged_by_its_moves_not_by_the_squares_it_names() -> None:
    assert TASK.hits(PROBLEM, "a1 D a2 R b2 R c2")
    assert TASK.hits(PROBLEM, "a1 D a3 R b1 R a1")
    assert not TASK.hits(PROBLEM, "a1 R b1 D b2 R c2")
    assert not TASK.hits(PROBLEM, "a1 D a2 R b2 R c2\na1 D a2"), "the last attempt counts"
    assert not TASK.hits(PROBLEM, "")


def test_facts_are_single_moves_that_stay_inside() -> None:
    for line in TASK.facts(Random(0), 50).split("\n"):
        found = re.fullmatch(r"([a-d])([1-4]) ([UDLR]) ([a-d])([1-4])", line)
        assert found is not None
        right, down = STEPS[found[3]]
        assert (ord(found[1]) + right, int(found[2]) + down) == (ord(found[4]), int(found[5]))


def test_a_walk_in_the_dark_sees_only_the_open_ways() -> None:
    game = MazeGame()
    assert game.reset(PROBLEM) == "from a1 to c2; at a1, open: D"
    assert game.step("R").observation == "no way there; at a1, open: D"
    assert game.step("D").observation == "at a2, open: U D R"
    assert game.step("hm").observation == "no way there; at a2, open: U D R"
    assert game.step("R").observation == "at b2, open: L R"
    turn = game.step("R")
    assert (turn.observation, turn.done, turn.verdict) == ("at c2, the goal", True, Verdict.PASS)


def test_turns_run_out() -> None:
    game = MazeGame(turns_per_square=1)
    game.reset(PROBLEM)
    turns = [game.step("L") for _ in range(9)]
    assert [turn.done for turn in turns] == [False] * 8 + [True] and turns[-1].verdict is Verdict.WRONG


def test_settings_that_leave_no_way_say_so() -> None:
    with pytest.raises(UserError, match="no way"):
        Maze(sizes=(2,), walls=0.5, least=2).draw(Random(0), 2)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"sizes": []}, "sizes"),
        ({"sizes": [1]}, "between 2"),
        ({"walls": 0.9}, "walls"),
        ({"wals": 0.1}, 'mean "walls"'),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        parse(Maze, settings)


def test_an_unknown_quality_names_the_nearest() -> None:
    with pytest.raises(UserError, match='did you mean "expert"'):
        TASK.trace(PROBLEM, Random(0), "expret")
