"""Tic-tac-toe: what every move is worth, by perfect play on both sides.

    x to move: x o 3 x / 5 o x o / o x 11 o / x 14 o x        ->        <answer>3=draw 5=loss 11=win 14=win</answer>

Free squares are shown by their numbers. A move is worth a win, a draw or a loss to who makes it, exactly, by looking
at every way the game can go on; an answer says it of all free squares, since a single move would be guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from random import Random
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import Turn, identity

WORTH: Mapping[int, str] = {1: "win", 0: "draw", -1: "loss"}
MOST_FREE = 9
"""Free squares up to which every way a game can go on is looked at."""
_VALUE = r"([1-9][0-9]?) *= *(win|draw|loss)"
_VALUES = re.compile(rf"{_VALUE}(?:(?: *, *|\s+){_VALUE})*")
_SQUARE = re.compile(r"[1-9][0-9]?")
_MAX_CHARS = 1000
_MAX_DRAWS = 2000


class TicTacToe(Settings):
    """What each free square is worth to the player to move; with ``asks = "one"``, any of the best.

    A size is the number of free squares. Of positions that mirror or turn into each other one stands for all.
    """

    quick: ClassVar[bool] = True

    name: str = Field("tictactoe", pattern="^tictactoe$")
    sizes: tuple[int, ...] = Field((4, 5), min_length=1, description="how many squares are free")
    side: int = Field(4, ge=3, le=6, description="squares on a side")
    line: int = Field(4, ge=3, le=6, description="how many in a row, a column or a diagonal win")
    asks: Literal["all", "one"] = Field("all", description="one: any best square is right, and easy to guess")

    @model_validator(mode="after")
    def _is_possible(self) -> TicTacToe:
        if not 1 <= min(self.sizes) <= max(self.sizes) <= min(MOST_FREE, self.side**2):
            raise ValueError(f"sizes must lie between 1 and {MOST_FREE}, and within the board")
        if self.line > self.side:
            raise ValueError("line <= side must hold")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A position of random play in which moves differ in worth, where there is one."""
        free = size or rng.choice(self.sizes)
        if not 1 <= free <= min(MOST_FREE, self.side**2):
            raise UserError(f"tictactoe has no board with {free} free squares", next_step=f"At most {MOST_FREE}.")
        board = self._position(free, rng)
        for _ in range(20):
            if len(set(values(board, self.side, self.line).values())) > 1:
                break
            board = self._position(free, rng)
        return self._problem(board)

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS when every free square is named once with what it is worth, in any order."""
        worth = _told(problem.info["worth"])
        if self.asks == "one":
            square = answer.strip(" \t\r\n")
            if not _SQUARE.fullmatch(square):
                return Verdict.UNPARSED
            return Verdict.PASS if worth.get(int(square)) == _best(worth) else Verdict.WRONG
        said = answer.strip(" \t\r\n")
        if len(said) > _MAX_CHARS or not _VALUES.fullmatch(said):
            return Verdict.UNPARSED
        named = [(int(square), value) for square, value in re.findall(_VALUE, said)]
        return Verdict.PASS if sorted(named) == sorted(worth.items()) else Verdict.WRONG

    def guess(self, problem: Problem, rng: Random) -> str:
        """Anything for every free square, or any one of them."""
        squares = list(_told(problem.info["worth"]))
        if self.asks == "one":
            return str(rng.choice(squares))
        return " ".join(f"{square}={rng.choice(list(WORTH.values()))}" for square in squares)

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """The same in another order, with commas and blanks; or another square as good."""
        worth = _told(problem.info["worth"])
        if self.asks == "one":
            return [f" {square}\n" for square, value in worth.items() if value == _best(worth)]
        told = [f"{square}={value}" for square, value in reversed(worth.items())]
        return [" ".join(told), ", ".join(told), "\n".join(told), problem.answer.replace("=", " = ")]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """One value wrong, one square left out, one twice, one that is taken; worse squares."""
        worth = _told(problem.info["worth"])
        taken = next((n for n in range(1, self.side**2 + 1) if n not in worth), self.side**2 + 1)
        if self.asks == "one":
            worse = [str(square) for square, value in worth.items() if value != _best(worth)]
            return [*worse, str(taken), f"{problem.answer} or {taken}", "0"]
        told = [f"{square}={value}" for square, value in worth.items()]
        wrong = rng.randrange(len(told))
        square, value = list(worth.items())[wrong]
        other = rng.choice([word for word in WORTH.values() if word != value])
        changed = [*told[:wrong], f"{square}={other}", *told[wrong + 1 :]]
        lists = [changed, [*told, told[0]], [*told, f"{taken}=draw"], [*told, f"{square}={other}"], told[:-1]]
        return [" ".join(lines) for lines in lists if lines] + [" ".join(worth.values()), "0"]

    def _position(self, free: int, rng: Random) -> str:
        """A board that random moves of both sides lead to, undecided, in its first form. x is to move."""
        squares = self.side**2
        for _ in range(_MAX_DRAWS):
            taken = rng.sample(range(squares), squares - free)
            board = ["."] * squares
            for turn, square in enumerate(reversed(taken)):  # from the last move back: o made it
                board[square] = "ox"[turn % 2]
            if not any(has_line("".join(board), player, self.side, self.line) for player in "xo"):
                return min(_turned("".join(board), self.side))
        raise UserError(
            f"tictactoe finds no undecided board of {self.side}x{self.side} with {free} free squares",
            next_step="Ask for a longer line, or for more free squares.",
        )

    def _problem(self, board: str) -> Problem:
        shown = [mark if mark != "." else str(place) for place, mark in enumerate(board, 1)]
        rows = " / ".join(" ".join(shown[start : start + self.side]) for start in range(0, len(shown), self.side))
        row = f", {self.line} in a row win" if self.line != self.side else ""
        worth = {square + 1: WORTH[value] for square, value in values(board, self.side, self.line).items()}
        told = " ".join(f"{square}={value}" for square, value in worth.items())
        first = next(str(square) for square, value in worth.items() if value == _best(worth))
        return Problem(
            id=identity(self.name, board, self.line, self.asks),
            task=self.name,
            prompt=f"x to move{row}: {rows}",
            answer=told if self.asks == "all" else first,
            size=board.count("."),
            info={"board": board, "side": self.side, "line": self.line, "worth": tuple(worth.items())},
        )


class TicTacToeGame:
    """A position played to its end, x first: every turn is the number of a free square; the opponent plays o.

    The game passes when x wins, or draws where no more was to be had. ``opponent`` is perfect, or random from the
    problem's id.
    """

    def __init__(self, opponent: Literal["perfect", "random"] = "perfect") -> None:
        self.opponent = opponent
        self._board, self._side, self._line, self._wanted = "", 0, 0, 0
        self._rng = Random(0)

    def reset(self, problem: Problem) -> str:
        """The board."""
        self._board, self._side, self._line = (problem.info[part] for part in ("board", "side", "line"))
        self._wanted = max(0, *values(self._board, self._side, self._line).values(), 0)
        self._rng = Random(f"tictactoe/{problem.id}")
        return self._seen()

    def step(self, action: str) -> Turn:
        """Take a square, and see which the opponent takes. What is no free square ends the game."""
        said = action.strip(" \t\r\n")
        if not _SQUARE.fullmatch(said):
            return Turn("no such square", True, Verdict.UNPARSED)
        square = int(said) - 1
        if square >= len(self._board) or self._board[square] != ".":
            return Turn("that square is not free", True, Verdict.WRONG)
        self._board = _placed(self._board, square, "x")
        if (over := self._over()) is not None:
            return over
        reply = self._reply()
        self._board = _placed(self._board, reply, "o")
        return self._over(reply) or Turn(f"o takes {reply + 1}; {self._seen()}")

    def _reply(self) -> int:
        worth = values(_swapped(self._board), self._side, self._line)
        good = [square for square, value in worth.items() if value == max(worth.values())]
        return good[0] if self.opponent == "perfect" else self._rng.choice(list(worth))

    def _over(self, reply: int | None = None) -> Turn | None:
        """The last turn, when the game is decided or the board full."""
        told = "" if reply is None else f"o takes {reply + 1}; "
        for player, result in (("x", 1), ("o", -1)):
            if has_line(self._board, player, self._side, self._line):
                return Turn(f"{told}{player} wins", True, Verdict.PASS if result >= self._wanted else Verdict.WRONG)
        if "." in self._board:
            return None
        return Turn(f"{told}a draw", True, Verdict.PASS if self._wanted == 0 else Verdict.WRONG)

    def _seen(self) -> str:
        shown = [mark if mark != "." else str(place) for place, mark in enumerate(self._board, 1)]
        return " / ".join(" ".join(shown[start : start + self._side]) for start in range(0, len(shown), self._side))


def values(board: str, side: int, line: int) -> dict[int, int]:
    """What each free square of an undecided board is worth to x, who is to move: 1, 0 or -1."""
    return {square: _value(_placed(board, square, "x"), side, line) for square, mark in enumerate(board) if mark == "."}


@lru_cache(maxsize=200_000)
def _value(board: str, side: int, line: int) -> int:
    """What a board is worth to x, who has just moved."""
    if has_line(board, "x", side, line):
        return 1
    if "." not in board:
        return 0
    return -max(values(_swapped(board), side, line).values())


@cache
def _rows(side: int, line: int) -> tuple[tuple[int, ...], ...]:
    """Every set of squares that wins."""
    found = []
    for row in range(side):
        for column in range(side):
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                last = row + down * (line - 1), column + right * (line - 1)
                if all(0 <= place < side for place in last):
                    found.append(tuple((row + k * down) * side + column + k * right for k in range(line)))
    return tuple(found)


def has_line(board: str, player: str, side: int, line: int) -> bool:
    """Whether ``player`` holds a winning row, column or diagonal."""
    return any(all(board[square] == player for square in row) for row in _rows(side, line))


def _placed(board: str, square: int, player: str) -> str:
    return board[:square] + player + board[square + 1 :]


def _swapped(board: str) -> str:
    return board.translate(str.maketrans("xo", "ox"))


def _turned(board: str, side: int) -> list[str]:
    """The board in all eight positions."""
    found = []
    for flip in (False, True):
        rows = [board[start : start + side] for start in range(0, side * side, side)]
        rows = rows[::-1] if flip else rows
        for _ in range(4):
            rows = ["".join(row[column] for row in reversed(rows)) for column in range(side)]
            found.append("".join(rows))
    return found


def _best(worth: Mapping[int, str]) -> str:
    return next(word for word in WORTH.values() if word in worth.values())


def _told(pairs: object) -> dict[int, str]:
    """Square to worth, in order; the pairs may have been through JSON."""
    return {int(square): str(value) for square, value in pairs}  # type: ignore[attr-defined]
