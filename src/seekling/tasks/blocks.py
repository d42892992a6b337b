"""Blocks world: a plan that turns one set of stacks into another, moving one block at a time.

    stacks BA C D, make ABC D        ->        <answer>A>table B>A C>B</answer>

Stacks are written from the bottom up. Only a block with nothing on it moves, onto the table or onto another with
nothing on it. Any plan that does it is right, or, with ``shortest``, any that is as short as can be.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import ClassVar

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity

TABLE = "table"
MOST_SEARCHED = 6
"""Blocks up to which every plan is looked at (4,051 states); beyond, keys are plans that need not be the shortest."""
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MOVE = r"([A-Z]) *> *(table|[A-Z])"
_PLAN = re.compile(rf"{_MOVE}(?:(?: *, *|\s+){_MOVE})*")
_MAX_CHARS = 4000

State = frozenset[str]
"""Stacks, each a word from the bottom up."""
Move = tuple[str, str]
"""A block, and what it is put on."""


class Blocks(Settings):
    """Plans in blocks world: any that works, or with ``shortest`` any of the shortest.

    A size is the number of blocks.
    """

    quick: ClassVar[bool] = True

    name: str = Field("blocks", pattern="^blocks$")
    sizes: tuple[int, ...] = Field((4, 5), min_length=1, description="how many blocks")
    least: int = Field(3, ge=1, description="fewest moves of the key, where so few blocks allow as many")
    shortest: bool = Field(False, description=f"only a plan as short as can be is right; up to {MOST_SEARCHED} blocks")

    @model_validator(mode="after")
    def _is_possible(self) -> Blocks:
        if not 2 <= min(self.sizes) <= max(self.sizes) <= len(_LETTERS):
            raise ValueError("sizes must lie between 2 and 26")
        if self.shortest and max(self.sizes) > MOST_SEARCHED:
            raise ValueError(f"shortest plans are known up to {MOST_SEARCHED} blocks")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """Two random sets of stacks. Raises UserError for a size beyond what the settings can answer."""
        count = size or rng.choice(self.sizes)
        if not 2 <= count <= (MOST_SEARCHED if self.shortest else len(_LETTERS)):
            raise UserError(f"blocks cannot draw {count} blocks", next_step="Ask for fewer, or for no shortest plans.")
        while True:
            start, goal = _stacked(count, rng), _stacked(count, rng)
            if start != goal and len(plan := _plan(start, goal)) >= min(self.least, count - 1):
                return self._problem(start, goal, plan, rng)

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for a plan of legal moves that ends as asked; WRONG for another, UNPARSED for what is no plan."""
        moves = _read(answer)
        if moves is None:
            return Verdict.UNPARSED
        fits = not self.shortest or len(moves) == len(_read(problem.answer) or [])
        start, goal = frozenset(problem.info["start"]), frozenset(problem.info["goal"])
        return Verdict.PASS if fits and after(start, moves) == goal else Verdict.WRONG

    def guess(self, problem: Problem, rng: Random) -> str:
        """Legal moves at random, some number of them, without a look at the goal."""
        state, moves = frozenset(problem.info["start"]), list[Move]()
        for _ in range(rng.randint(1, 2 * problem.size)):
            moves.append(rng.choice(sorted(legal(state))))
            state = after(state, moves[-1:]) or state
        return _written(moves)

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """The key with commas and blanks; and, where any plan is right, with a move there and back."""
        moves = _read(problem.answer) or []
        told = [_written(moves, ", "), _written(moves, "\n"), problem.answer.replace(">", " > ")]
        goal = frozenset(problem.info["goal"])
        back = [
            [*moves, move, (move[0], below)]
            for move in sorted(legal(goal))
            for below in [_below(goal, move[0])]
            if below != move[1]
        ]
        return told if self.shortest else [*told, *(_written(plan) for plan in back[:2])]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Plans that stop short, go too far, are out of order, move a covered block or one that is not there."""
        moves, start = _read(problem.answer) or [], frozenset(problem.info["start"])
        goal, absent = frozenset(problem.info["goal"]), _LETTERS[problem.size % len(_LETTERS)]
        further = sorted(legal(goal))[:1]
        plans = [moves[:-1], moves[1:], [*moves, *further], [(absent, TABLE), *moves], moves[::-1], [*moves, moves[-1]]]
        covered = [(block, TABLE) for stack in sorted(start) for block in stack[:-1]][:1]
        wrong = [_written(plan) for plan in (*plans, [*covered, *moves]) if plan and after(start, plan) != goal]
        itself = f"{moves[0][0]}>{moves[0][0]} {problem.answer}"
        return [*wrong, itself, f"{problem.answer} or not", " ".join(sorted(goal)), "0"]

    def _problem(self, start: State, goal: State, plan: list[Move], rng: Random) -> Problem:
        shown, asked = (rng.sample(sorted(state), len(state)) for state in (start, goal))
        return Problem(
            id=identity(self.name, sorted(start), sorted(goal)),
            task=self.name,
            prompt=f"stacks {' '.join(shown)}, make {' '.join(asked)}",
            answer=_written(plan),
            size=sum(map(len, start)),
            info={"start": tuple(shown), "goal": tuple(asked)},
        )


def legal(state: State) -> Iterator[Move]:
    """Every move that changes ``state``."""
    for stack in state:
        for other in state - {stack}:
            yield stack[-1], other[-1]
        if len(stack) > 1:
            yield stack[-1], TABLE


def after(state: State, moves: Sequence[Move]) -> State | None:
    """What ``moves`` make of ``state``, or None when one of them is not legal."""
    for block, onto in moves:
        if (block, onto) not in set(legal(state)):
            return None
        source = next(stack for stack in state if stack[-1] == block)
        target = next((stack for stack in state if stack[-1] == onto), "")
        state = (state - {source, target}) | {target + block} | ({source[:-1]} - {""})
    return state


def _plan(start: State, goal: State) -> list[Move]:
    return _searched(start, goal) if sum(map(len, start)) <= MOST_SEARCHED else _rebuilt(start, goal)


def _searched(start: State, goal: State) -> list[Move]:
    """A shortest plan, breadth first; moves in order, so that equal problems have equal keys."""
    before: dict[State, tuple[State, Move] | None] = {start: None}
    waiting = deque([start])
    while goal not in before:
        state = waiting.popleft()
        for move in sorted(legal(state)):
            there = after(state, [move])
            if there is not None and there not in before:
                before[there] = (state, move)
                waiting.append(there)
    moves, step = list[Move](), before[goal]
    while step is not None:
        state, move = step
        moves.append(move)
        step = before[state]
    return moves[::-1]


def _rebuilt(start: State, goal: State) -> list[Move]:
    """Every stack taken down to what already stands right, then the goal built up."""
    standing = {stack[:height] for stack in goal for height in range(1, len(stack) + 1)}
    state, moves = start, list[Move]()
    for stack in sorted(start):
        while len(stack) > 1 and stack not in standing:
            moves.append((stack[-1], TABLE))
            stack = stack[:-1]
    state = after(start, moves) or start
    for stack in sorted(goal):
        for below, block in pairwise(stack):
            if not any(below + block in part for part in state):
                moves.append((block, below))
                state = after(state, moves[-1:]) or state
    return moves


def _stacked(count: int, rng: Random) -> State:
    """Blocks in a random order, each starting a new stack as often as not."""
    stacks: list[str] = []
    for block in rng.sample(_LETTERS[:count], count):
        if stacks and rng.random() < 0.6:
            stacks[rng.randrange(len(stacks))] += block
        else:
            stacks.append(block)
    return frozenset(stacks)


def _below(state: State, block: str) -> str:
    """What a block on top stands on."""
    stack = next(stack for stack in state if stack[-1] == block)
    return stack[-2] if len(stack) > 1 else TABLE


def _read(text: str) -> list[Move] | None:
    """The moves that ``text`` lists, and nothing else; None for any other text."""
    said = text.strip(" \t\r\n")
    if len(said) > _MAX_CHARS or not _PLAN.fullmatch(said):
        return None
    return [(block, onto) for block, onto in re.findall(_MOVE, said)]


def _written(moves: Sequence[Move], between: str = " ") -> str:
    return between.join(f"{block}>{onto}" for block, onto in moves)
