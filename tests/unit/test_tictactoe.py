"""Tic-tac-toe: values against a plain search, positions in one form, and games against both opponents."""

from __future__ import annotations

import time
from random import Random

import pytest

from seekling.config import parse
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.selftests.outcome import require
from seekling.selftests.tasks import of_key
from seekling.tasks.tictactoe import WORTH, TicTacToe, TicTacToeGame, values

TASK = TicTacToe()
LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


def worth(board: str, player: str) -> int:
    """What a board of 3x3 is worth to ``player``, who is to move: an oracle, written out."""
    other = "o" if player == "x" else "x"
    if any(all(board[square] == other for square in line) for line in LINES):
        return -1
    if "." not in board:
        return 0
    free = [square for square, mark in enumerate(board) if mark == "."]
    return max(-worth(board[:square] + player + board[square + 1 :], other) for square in free)


def asked(board: str) -> Problem:
    """A position of 3x3 with x to move."""
    told = {square + 1: WORTH[value] for square, value in values(board, 3, 3).items()}
    answer = " ".join(f"{square}={value}" for square, value in told.items())
    return Problem("p", "tictactoe", "", answer, board.count("."), {
        "board": board, "side": 3, "line": 3, "worth": tuple(told.items())
    })  # fmt: skip


def test_its_own_keys_pass() -> None:
    require(*of_key(TASK), *of_key(TicTacToe(asks="one")), *of_key(TicTacToe(side=3, line=3, sizes=(3, 6))))


def test_every_move_is_worth_what_the_whole_game_says() -> None:
    task = TicTacToe(side=3, line=3)
    for seed in range(40):
        board = task.draw(Random(seed), 3 + seed % 5).info["board"]
        for square, value in values(board, 3, 3).items():
            assert value == -worth(board[:square] + "x" + board[square + 1 :], "o")


def test_the_empty_board_is_a_draw_and_every_move_of_it_too() -> None:
    assert set(values("." * 9, 3, 3).values()) == {0}


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("3=win 6=draw 8=loss 9=loss", Verdict.PASS), ("9=loss, 8=loss, 6=draw, 3=win", Verdict.PASS),
        ("3 = win\n6 = draw\n8 = loss\n9 = loss", Verdict.PASS),
        ("3=win 6=draw 8=loss", Verdict.WRONG), ("3=win 6=draw 8=loss 9=draw", Verdict.WRONG),
        ("3=win 6=draw 8=loss 9=loss 9=loss", Verdict.WRONG), ("3=win 3=draw 6=draw 8=loss 9=loss", Verdict.WRONG),
        ("1=win 6=draw 8=loss 9=loss", Verdict.WRONG),
        ("3", Verdict.UNPARSED), ("", Verdict.UNPARSED), ("3=wins", Verdict.UNPARSED), ("3=WIN", Verdict.UNPARSED),
        ("3=win 6=draw 8=loss 9=loss?", Verdict.UNPARSED), ("win loss loss loss", Verdict.UNPARSED),
        ("3=win " * 50_000, Verdict.UNPARSED),
    ],
)  # fmt: skip
def test_the_verdict_is_exact_and_never_slow(answer: str, verdict: Verdict) -> None:
    problem = asked("xx.oo.x..")
    start = time.process_time()
    assert TASK.check(problem, answer) is verdict
    assert time.process_time() - start < 0.2


def test_where_one_square_is_asked_for_any_best_one_passes() -> None:
    one, problem = TicTacToe(asks="one"), asked("x.x.o.xo.")
    best = [square for square, value in problem.info["worth"] if value == "win"]
    assert len(best) == 2 and all(one.check(problem, str(square)) is Verdict.PASS for square in best)
    assert one.check(problem, "6") is one.check(problem, "1") is Verdict.WRONG
    assert one.check(problem, "two") is one.check(problem, "2 4") is Verdict.UNPARSED


def test_a_position_turned_or_mirrored_is_never_drawn_beside_itself() -> None:
    def turned(board: str) -> str:
        return "".join(board[4 * (3 - column) + row] for row in range(4) for column in range(4))

    boards = {TASK.draw(Random(seed)).info["board"] for seed in range(300)}
    for board in boards:
        others = [board, turned(board), turned(turned(board)), turned(turned(turned(board)))]
        others += ["".join(other[start : start + 4][::-1] for start in (0, 4, 8, 12)) for other in others]
        assert board == min(others)


def test_boards_are_those_of_a_game_in_which_x_is_to_move() -> None:
    for seed in range(60):
        problem = TASK.draw(Random(seed))
        board = problem.info["board"]
        assert board.count("o") - board.count("x") in (0, 1)
        assert board.count(".") == problem.size


def test_who_plays_by_the_values_never_falls_short_of_them() -> None:
    for seed in range(40):
        problem = TASK.draw(Random(seed))
        best = max(values(problem.info["board"], 4, 4).values())
        assert played(TicTacToeGame(), problem) is (Verdict.WRONG if best < 0 else Verdict.PASS)
        assert best < 0 or played(TicTacToeGame("random"), problem) is Verdict.PASS


def played(game: TicTacToeGame, problem: Problem) -> Verdict | None:
    """A game of best moves, read off what is seen."""
    seen = game.reset(problem)
    while True:
        board = "".join(mark if mark in "xo" else "." for mark in seen.split("; ")[-1].replace("/", "").split())
        worths = values(board, 4, 4)
        turn = game.step(str(max(worths, key=lambda square: worths[square]) + 1))
        if turn.done:
            return turn.verdict
        seen = turn.observation


def test_a_game_says_what_happens() -> None:
    game = TicTacToeGame()
    assert game.reset(asked("xx.oo.x..")) == "x x 3 / o o 6 / x 8 9"
    turn = game.step("8")
    assert (turn.observation, turn.done, turn.verdict) == ("o takes 6; o wins", True, Verdict.WRONG)
    game.reset(asked("xx.oo.x.."))
    turn = game.step("3")
    assert (turn.observation, turn.verdict) == ("x wins", Verdict.PASS)


def test_a_draw_passes_only_where_no_more_was_to_be_had() -> None:
    game = TicTacToeGame()
    game.reset(asked("xoxxoo..o"))  # 7 wins at once
    assert game.step("8").verdict is Verdict.WRONG
    game.reset(asked("xoxxoxo.o"))
    turn = game.step("8")
    assert (turn.observation, turn.verdict) == ("a draw", Verdict.PASS)


@pytest.mark.parametrize(
    ("action", "verdict"),
    [("1", Verdict.WRONG), ("10", Verdict.WRONG), ("b2", Verdict.UNPARSED), ("", Verdict.UNPARSED)],
)
def test_what_is_no_free_square_ends_the_game(action: str, verdict: Verdict) -> None:
    game = TicTacToeGame()
    game.reset(asked("xx.oo.x.."))
    turn = game.step(action)
    assert turn.done and turn.verdict is verdict


def test_equal_actions_give_equal_turns_of_a_random_opponent() -> None:
    problem, game = TASK.draw(Random(3)), TicTacToeGame("random")
    free = [str(square) for square, _ in problem.info["worth"]]
    first = [game.reset(problem), game.step(free[0])]
    assert first == [game.reset(problem), game.step(free[0])]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"sizes": [10]}, "between 1 and 9"),
        ({"sizes": []}, "sizes"),
        ({"side": 3, "line": 4}, "line <= side"),
        ({"sied": 3}, '"side"'),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        parse(TicTacToe, settings)


def test_more_free_squares_than_can_be_searched_are_refused() -> None:
    with pytest.raises(UserError, match="10 free squares"):
        TASK.draw(Random(0), 10)
