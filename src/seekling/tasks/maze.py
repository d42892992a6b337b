"""Mazes: a way from one square to another, around the walls.

    from a1 to c2 in 3x3 walls b1 b3        ->        <answer>D R R</answer>

Squares are named as on a chessboard, ``a1`` at the top left, columns by letter and rows by number downwards; moves
are U, D, L and R. Any way that keeps to open squares is right, or, with ``shortest``, any that is as short as can be.
What there is to find is to say where every move leads, so that the next one sets out from there:

    a1 D a2 R b2 R c2
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError, nearest
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import Turn, identity

STEPS: Mapping[str, tuple[int, int]] = {"U": (0, -1), "D": (0, 1), "L": (-1, 0), "R": (1, 0)}
"""Each move as columns to the right and rows down."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MOVES = re.compile(r"[UDLR](?:(?: *, *| *)[UDLR])*")
_ATTEMPT = re.compile(r"[a-z][0-9]{1,2}(?: [UDLR] [a-z][0-9]{1,2})+")
_MAX_CHARS = 4000
_MAX_DRAWS = 10_000

Square = tuple[int, int]
"""Column and row, from 0."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A square field of ``side``, its walls, and where the way begins and ends."""

    side: int
    walls: frozenset[Square]
    start: Square
    goal: Square

    def is_open(self, square: Square) -> bool:
        """Whether one can stand there."""
        return 0 <= min(square) <= max(square) < self.side and square not in self.walls

    def around(self, square: Square) -> Iterator[tuple[str, Square]]:
        """The moves that lead from ``square`` to an open one."""
        for move in STEPS:
            if self.is_open(there := _moved(square, move)):
                yield move, there

    def ways(self) -> dict[Square, str]:
        """From every square that can be left for the goal: a first move of a shortest way there ("" at the goal)."""
        back = {"U": "D", "D": "U", "L": "R", "R": "L"}
        found, waiting = {self.goal: ""}, deque([self.goal])
        while waiting:
            square = waiting.popleft()
            for move, there in self.around(square):
                if there not in found:
                    found[there] = back[move]
                    waiting.append(there)
        return found

    def shortest(self) -> list[str] | None:
        """The moves of a shortest way, or None when there is no way."""
        ways, square, moves = self.ways(), self.start, list[str]()
        while move := ways.get(square, ""):
            moves.append(move)
            square = _moved(square, move)
        return moves if square == self.goal else None

    def leads(self, moves: list[str]) -> bool:
        """Whether the moves keep to open squares and end at the goal."""
        square = self.start
        for move in moves:
            square = _moved(square, move)
            if not self.is_open(square):
                return False
        return square == self.goal


class Maze(Settings):
    """A way through a maze: any that is open, or with ``shortest`` any of the shortest.

    Qualities of traces, all but the guess with the square that every move leads to: expert takes a shortest way
    (right); straight heads for the goal through whatever stands in between; slips misses one square and goes on from
    there; gives_up stops on the way; guess moves at random and names no square.
    """

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "straight", "slips", "gives_up", "guess")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[Mapping[str, float]] = {
        "expert": 0.2,
        "straight": 0.3,
        "slips": 0.2,
        "gives_up": 0.15,
        "guess": 0.15,
    }

    name: str = Field("maze", pattern="^maze$")
    sizes: tuple[int, ...] = Field((4,), min_length=1, description="squares on a side")
    walls: float = Field(0.35, ge=0, le=0.6, description="share of squares that are walls")
    least: int = Field(4, ge=1, description="fewest moves of a shortest way, where the side allows as many")
    shortest: bool = Field(False, description="only a way as short as can be is right")

    @model_validator(mode="after")
    def _is_possible(self) -> Maze:
        if not 2 <= min(self.sizes) <= max(self.sizes) <= len(_LETTERS):
            raise ValueError("sizes must lie between 2 and 26")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """Random walls, and two squares with a way between them. Raises UserError when the settings leave none."""
        side = size or rng.choice(self.sizes)
        squares = [(column, row) for row in range(side) for column in range(side)]
        for _ in range(_MAX_DRAWS):
            walls = rng.sample(squares, min(round(self.walls * len(squares)), len(squares) - 2))
            start, goal = rng.sample([square for square in squares if square not in walls], 2)
            grid = Grid(side, frozenset(walls), start, goal)
            key = grid.shortest()
            if key is not None and len(key) >= min(self.least, side):
                return self._problem(grid, key)
        raise UserError(f"maze finds no way in {side}x{side}", next_step="Ask for fewer walls, or a smaller least.")

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for moves that lead to the goal; WRONG for any others, UNPARSED for what is no list of moves."""
        moves = _read(answer)
        if moves is None:
            return Verdict.UNPARSED
        fits = not self.shortest or len(moves) == len(_read(problem.answer) or [])
        return Verdict.PASS if fits and _grid(problem).leads(moves) else Verdict.WRONG

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Squares and moves in turn, then the moves. Raises UserError for an unknown quality."""
        grid, way = _grid(problem), _read(problem.answer) or []
        writers: dict[str, Callable[[], tuple[str, list[str]]]] = {
            "expert": lambda: (_walked(grid.start, way), way),
            "straight": lambda: _straight(grid, rng),
            "slips": lambda: _slipped(grid, way, rng),
            "gives_up": lambda: (_walked(grid.start, way[: rng.randint(1, len(way) - 1)] if way[1:] else way[:0]), []),
            "guess": lambda: ("", _wandered(grid, rng)),
        }
        if quality not in writers:
            raise UserError(f'maze writes no traces of quality "{quality}"', next_step=nearest(quality, writers))
        thinking, moves = writers[quality]()
        moves = moves or re.findall("[UDLR]", thinking) or ["U"]
        return f"<think>{thinking}</think><answer>{' '.join(moves)}</answer>"

    def facts(self, rng: Random, count: int) -> str:
        """Single moves, as in a trace: always right, never a whole problem."""
        side, lines = max(self.sizes), list[str]()
        while len(lines) < count:
            square, move = (rng.randrange(side), rng.randrange(side)), rng.choice("UDLR")
            if 0 <= min(there := _moved(square, move)) <= max(there) < side:
                lines.append(f"{_name(square)} {move} {_name(there)}")
        return "\n".join(lines)

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """Lines of squares and moves in turn."""
        return [line for line in thinking.split("\n") if _ATTEMPT.fullmatch(line[:_MAX_CHARS])]

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the moves of the last attempt lead to the goal, whatever squares it names."""
        attempts = self.attempts(problem, thinking)
        moves = " ".join(re.findall("[UDLR]", attempts[-1])) if attempts else ""
        return bool(moves) and self.check(problem, moves) is Verdict.PASS

    def guess(self, problem: Problem, rng: Random) -> str:
        """A walk over the field that never comes back to a square; it sees neither the walls nor the goal."""
        return " ".join(_wandered(_grid(problem), rng))

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """The key without blanks and with commas; a way with a detour, where any way is right."""
        moves = _read(problem.answer) or []
        told = ["".join(moves), ", ".join(moves), f" {problem.answer}\n"]
        detour = [*moves, *{"U": "DU", "D": "UD", "L": "RL", "R": "LR"}[moves[-1]]]
        return told if self.shortest else [*told, " ".join(detour)]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Ways that stop short, go too far, leave the field, run through a wall, or are told as squares."""
        grid, moves = _grid(problem), _read(problem.answer) or []
        through = _straight(grid, rng)[1]
        told = [
            moves[:-1],
            moves[1:],
            [*moves, moves[-1]],
            [move for move in "LRUD" for _ in range(grid.side)],
            through,
        ]
        wrong = [" ".join(way) for way in told if way and not grid.leads(way)]
        return [*wrong, f"{problem.answer} ?", problem.answer.lower(), _walked(grid.start, moves), "0"]

    def _problem(self, grid: Grid, key: list[str]) -> Problem:
        walls = sorted(grid.walls)
        info = {"side": grid.side, "walls": tuple(walls), "start": grid.start, "goal": grid.goal}
        told = f" walls {' '.join(map(_name, walls))}" if walls else ""
        return Problem(
            id=identity(self.name, grid.side, walls, grid.start, grid.goal),
            task=self.name,
            prompt=f"from {_name(grid.start)} to {_name(grid.goal)} in {grid.side}x{grid.side}{told}",
            answer=" ".join(key),
            size=grid.side,
            info=info,
        )


class MazeGame:
    """A maze walked in the dark: each turn is one move, and only the open ways from where one stands are seen.

    A move into a wall costs its turn, and so does what is no move. ``turns_per_square`` bounds the game.
    """

    def __init__(self, turns_per_square: int = 4) -> None:
        self.turns_per_square = turns_per_square
        self._grid = Grid(2, frozenset(), (0, 0), (1, 1))
        self._at, self._turns = (0, 0), 0

    def reset(self, problem: Problem) -> str:
        """Where the way begins and ends, and the open ways."""
        self._grid = _grid(problem)
        self._at, self._turns = self._grid.start, self.turns_per_square * self._grid.side**2
        return f"from {_name(self._at)} to {_name(self._grid.goal)}; {self._seen()}"

    def step(self, action: str) -> Turn:
        """Move, and see."""
        moves = _read(action)
        there = dict(self._grid.around(self._at)).get(moves[0]) if moves and len(moves) == 1 else None
        self._turns -= 1
        self._at = there or self._at
        if self._at == self._grid.goal:
            return Turn(f"at {_name(self._at)}, the goal", True, Verdict.PASS)
        told = self._seen() if there else f"no way there; {self._seen()}"
        return Turn(told) if self._turns else Turn(f"{told}; no turns are left", True, Verdict.WRONG)

    def _seen(self) -> str:
        return f"at {_name(self._at)}, open: {' '.join(move for move, _ in self._grid.around(self._at)) or 'none'}"


def _moved(square: Square, move: str) -> Square:
    right, down = STEPS[move]
    return square[0] + right, square[1] + down


def _name(square: Square) -> str:
    return f"{_LETTERS[square[0]]}{square[1] + 1}"


def _read(text: str) -> list[str] | None:
    """The moves that ``text`` lists, blanks or commas between them or not; None for any other text."""
    said = text.strip(" \t\r\n")
    return re.findall("[UDLR]", said) if len(said) <= _MAX_CHARS and _MOVES.fullmatch(said) else None


def _grid(problem: Problem) -> Grid:
    """The problem's own; its squares may have been through JSON."""
    told: Mapping[str, Any] = problem.info
    walls = frozenset((column, row) for column, row in told["walls"])
    return Grid(told["side"], walls, tuple(told["start"]), tuple(told["goal"]))


def _walked(start: Square, moves: list[str]) -> str:
    """``a1 D a2 R b2``: every move with the square it leads to."""
    square, line = start, _name(start)
    for move in moves:
        square = _moved(square, move)
        line += f" {move} {_name(square)}"
    return line


def _straight(grid: Grid, rng: Random) -> tuple[str, list[str]]:
    """All moves that the goal is away, in a random order, through walls if need be."""
    right, down = grid.goal[0] - grid.start[0], grid.goal[1] - grid.start[1]
    moves = ["R" if right > 0 else "L"] * abs(right) + ["D" if down > 0 else "U"] * abs(down)
    rng.shuffle(moves)
    return _walked(grid.start, moves), moves


def _slipped(grid: Grid, way: list[str], rng: Random) -> tuple[str, list[str]]:
    """A shortest way on which one move is taken to lead elsewhere; from there on, a shortest way."""
    squares = [grid.start]
    for move in way:
        squares.append(_moved(squares[-1], move))
    place = rng.randrange(len(way))
    near = [there for _, there in grid.around(squares[place + 1]) if there not in (squares[place], grid.goal)]
    wrong = rng.choice(near) if near else squares[place + 1]
    rest = Grid(grid.side, grid.walls, wrong, grid.goal).shortest() or []
    line = _walked(grid.start, way[:place]) + f" {way[place]} {_walked(wrong, rest)}"
    return line, [*way[: place + 1], *rest]


def _wandered(grid: Grid, rng: Random) -> list[str]:
    square, been, moves = grid.start, {grid.start}, list[str]()
    for _ in range(rng.randint(2, 2 * grid.side)):
        free = [(m, t) for m in "UDLR" if 0 <= min(t := _moved(square, m)) <= max(t) < grid.side and t not in been]
        if not free:
            break
        move, square = rng.choice(free)
        been.add(square)
        moves.append(move)
    return moves
