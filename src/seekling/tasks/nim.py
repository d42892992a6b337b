"""Nim: find the moves that win, among piles from which players take in turn; who takes the last object wins.

    nim 3 5 12        ->        <answer>12>6</answer>

A move ``12>6`` takes 6 from a pile of 12. It wins when the piles it leaves have nim-sum 0 (Bouton, 1901). An answer
names every winning move, since a single one among so few would be guessed. What there is to find is the nim-sum: add
the piles up bit by bit, and take from each pile that this makes smaller:

    3^5=6^12=10        the nim-sum, from the left
    3^10=9             more than the pile: no move
    5^10=15
    12^10=6            less: a winning move
    12>6
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from operator import xor
from random import Random
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError, nearest
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import Turn, identity

_MOVE = re.compile(r"([1-9][0-9]{0,5})>(0|[1-9][0-9]{0,5})")
_MOVES = re.compile(rf"{_MOVE.pattern}(?:(?: *, *| +){_MOVE.pattern})*")
_MAX_CHARS = 400
_SLIPS = (-2, -1, 1, 2)

Move = tuple[int, int]
"""What a pile has and what is left of it."""


class Nim(Settings):
    """Piles of objects: every move that wins, or, with ``asks = "one"``, any of them.

    Qualities of traces: expert works out the nim-sum and tries it on every pile (right); sums adds the piles up as
    plain numbers and takes from the largest; slips works as the expert does with one result wrong; guess names a move
    at once.
    """

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "sums", "slips", "guess")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[Mapping[str, float]] = {"expert": 0.2, "sums": 0.25, "slips": 0.3, "guess": 0.25}

    name: str = Field("nim", pattern="^nim$")
    sizes: tuple[int, ...] = Field((3, 4), min_length=1, description="how many piles")
    high: int = Field(15, ge=3, le=100_000, description="most objects in a pile; the least is 1")
    asks: Literal["all", "one"] = Field("all", description="one: any winning move is right, and easy to guess")

    @model_validator(mode="after")
    def _is_possible(self) -> Nim:
        if not 2 <= min(self.sizes) <= max(self.sizes) <= 30:
            raise ValueError("sizes must lie between 2 and 30")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """Piles from which the player to move can win. The order of piles does not make another problem."""
        count, piles = size or rng.choice(self.sizes), [0]
        while not reduce(xor, piles):
            piles = [rng.randint(1, self.high) for _ in range(count)]
        prompt = f"nim {' '.join(map(str, piles))}"
        key = _written(winning(piles), self.asks)
        return Problem(identity(self.name, sorted(piles)), self.name, prompt, key, count, {"piles": tuple(piles)})

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS when the moves named are those that win, in any order; UNPARSED for what names no moves."""
        moves = _read(answer)
        if moves is None or (self.asks == "one" and len(moves) > 1):
            return Verdict.UNPARSED
        wins = set(winning(problem.info["piles"]))
        is_right = len(set(moves)) == len(moves) and (set(moves) <= wins if self.asks == "one" else set(moves) == wins)
        return Verdict.PASS if is_right else Verdict.WRONG

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Thinking of the stated quality, then its moves. Raises UserError for an unknown quality."""
        writers: dict[str, Callable[[list[int], Random], tuple[list[str], list[Move]]]] = {
            "expert": lambda piles, rng: _worked(piles),
            "sums": _summed,
            "slips": lambda piles, rng: _worked(piles, (rng.randrange(2 * len(piles) - 1), rng.choice(_SLIPS))),
            "guess": lambda piles, rng: ([], [_random_move(piles, rng)]),
        }
        if quality not in writers:
            raise UserError(f'nim writes no traces of quality "{quality}"', next_step=nearest(quality, writers))
        lines, moves = writers[quality](list(problem.info["piles"]), rng)
        answer = _written(moves, self.asks)
        return f"<think>{chr(10).join([*lines, answer])}</think><answer>{answer}</answer>"

    def facts(self, rng: Random, count: int) -> str:
        """Nim-sums of two numbers: always right, never a whole problem."""
        most = 2 ** self.high.bit_length() - 1
        pairs = [(rng.randint(0, most), rng.randint(0, most)) for _ in range(count)]
        return "\n".join(f"{a}^{b}={a ^ b}" for a, b in pairs)

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """Lines that name moves, in order of their piles."""
        found = (_read(line) for line in thinking.split("\n"))
        return [" ".join(f"{pile}>{rest}" for pile, rest in sorted(moves)) for moves in found if moves]

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last line that names moves names the right ones."""
        attempts = self.attempts(problem, thinking)
        return bool(attempts) and self.check(problem, attempts[-1]) is Verdict.PASS

    def guess(self, problem: Problem, rng: Random) -> str:
        """A legal move from one pile or from three, each pile as likely: winning moves come in odd numbers."""
        piles = sorted(set(problem.info["piles"]))
        count = 1 if self.asks == "one" or len(piles) < 3 else rng.choice((1, 3))
        return _written([_random_move([pile], rng) for pile in rng.sample(piles, count)], self.asks)

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """The same moves in another order, and with commas."""
        moves = winning(problem.info["piles"])[:: -1 if self.asks == "all" else len(problem.info["piles"])]
        told = [f"{pile}>{rest}" for pile, rest in moves]
        return [", ".join(told), f" {','.join(told)}\n", "  ".join(told)]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Moves that lose, that are none, and the right ones with one too many, too few or twice."""
        piles, key = list(problem.info["piles"]), problem.answer
        losing = [(p, r) for p in piles for r in range(p) if (p, r) not in winning(piles)]
        missing = max(piles) + 1
        told = [f"{p}>{r}" for p, r in rng.sample(losing, min(3, len(losing)))]
        told += [f"{key} {told[0]}"] if told else []
        return [*told, f"{key} {key}", f"{missing}>0", f"{piles[0]}>{piles[0] + 1}", f"{key} {missing}>1", "0"]


class NimGame:
    """Nim as a game: every turn is one move, ``12>6``; the opponent moves between. Taking the last object wins.

    The perfect opponent wins as soon as it can, so one move off loses; a random one draws from the problem's id.
    """

    def __init__(self, opponent: Literal["perfect", "random"] = "perfect") -> None:
        self.opponent = opponent
        self._piles: list[int] = []
        self._rng = Random(0)

    def reset(self, problem: Problem) -> str:
        """The piles as they stand."""
        self._piles, self._rng = list(problem.info["piles"]), Random(f"nim/{problem.id}")
        return self._seen()

    def step(self, action: str) -> Turn:
        """Take, and see what the opponent takes. What is no legal move ends the game."""
        moves = _read(action)
        if moves is None or len(moves) != 1 or not self._moved(moves[0]):
            return Turn("no such move", True, Verdict.UNPARSED if moves is None else Verdict.WRONG)
        if not any(self._piles):
            return Turn("you took the last", True, Verdict.PASS)
        wins = winning(self._piles) if self.opponent == "perfect" else []
        reply = wins[0] if wins else _random_move([pile for pile in self._piles if pile], self._rng)
        self._moved(reply)
        told = f"{reply[0]}>{reply[1]}; {self._seen()}"
        return Turn(told) if any(self._piles) else Turn(told, True, Verdict.WRONG)

    def _moved(self, move: Move) -> bool:
        pile, rest = move
        if pile not in self._piles or not rest < pile:
            return False
        self._piles[self._piles.index(pile)] = rest
        return True

    def _seen(self) -> str:
        return f"nim {' '.join(str(pile) for pile in self._piles if pile) or 0}"


def winning(piles: list[int] | tuple[int, ...]) -> list[Move]:
    """The moves that leave nim-sum 0, in the order of the piles; equal piles count once."""
    total = reduce(xor, piles)
    return [(pile, pile ^ total) for pile in dict.fromkeys(piles) if pile ^ total < pile]


def _read(text: str) -> list[Move] | None:
    """The moves that ``text`` lists, and nothing else; None for any other text."""
    said = text.strip(" \t\r\n")
    if len(said) > _MAX_CHARS or not _MOVES.fullmatch(said):
        return None
    return [(int(pile), int(rest)) for pile, rest in _MOVE.findall(said)]


def _written(moves: list[Move], asks: str) -> str:
    return " ".join(f"{pile}>{rest}" for pile, rest in (moves if asks == "all" else moves[:1]))


def _worked(piles: list[int], slip: tuple[int, int] = (-1, 0)) -> tuple[list[str], list[Move]]:
    """The nim-sum from the left, then tried on every pile; ``slip`` is which result is off, and by how much."""

    def said(place: int, result: int) -> int:
        return abs(result + slip[1]) if place == slip[0] else result

    total, line = piles[0], str(piles[0])
    for place, pile in enumerate(piles[1:]):
        total = said(place, total ^ pile)
        line += f"^{pile}={total}"
    lines, moves = [line], []
    for place, pile in enumerate(dict.fromkeys(piles), len(piles) - 1):  # equal piles once: no line repeats another
        rest = said(place, pile ^ total)
        lines.append(f"{pile}^{total}={rest}")
        if rest < pile:
            moves.append((pile, rest))
    return lines, moves or [(max(piles), 0)]


def _summed(piles: list[int], rng: Random) -> tuple[list[str], list[Move]]:
    """Piles added up as numbers, as if that said anything, and the largest cut by what is over an even total."""
    total, line = piles[0], str(piles[0])
    for pile in piles[1:]:
        total += pile
        line += f"+{pile}={total}"
    return [line], [(max(piles), rng.randrange(max(piles)))]


def _random_move(piles: list[int], rng: Random) -> Move:
    pile = rng.choice(piles)
    return pile, rng.randrange(pile)
