"""Countdown: make a target from given numbers, each used exactly once.

    use 3 7 12 to make 16        ->        <answer>7+12-3</answer>

Problems and worked attempts are *chains*: operations applied one after another from the left, every value in
0..``chain_max``. Any expression of the allowed operations is accepted as an answer, chain or not.

How attempts are written, so that a small model can learn from them and a person can read them:

* an attempt, on a line of its own, is reduced from the left: ``3*7-12=21-12=9``;
* a verdict restates the target beside the value: ``3*7-12=21-12=9 16? no`` (only ``search`` says verdicts);
* working back undoes the last operation first: ``back 16+3=19 19-12=7``, and then ``7+12-3=19-3=16``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError, nearest
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.expression import Unparsed, normal_form, read

_UNDO = {"+": "-", "-": "+", "*": "/", "/": "*"}
_SLIPS = (-10, -2, -1, 1, 2, 10)
_ATTEMPT = re.compile(r"^([-+*/()0-9]+)=(?:[-+*/()0-9]+=)*-?[0-9]+(?![-+*/()0-9=])")
_MAX_ATTEMPT_CHARS = 400
_MAX_DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Chain:
    """``numbers[0] operations[0] numbers[1] ...`` from the left; ``values`` are the results, one by one."""

    numbers: tuple[int, ...]
    operations: tuple[str, ...]
    values: tuple[int, ...]


class Countdown(Settings):
    """Make a target from given numbers, each used exactly once; any expression that does it is right."""

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "search", "careless", "gives_up")
    """Kinds of worked attempts, all in the form ``<think>...</think><answer>...</answer>``:

    * ``expert`` chooses well: works back from the target to the numbers, then writes the attempt that fits.
      Right.
    * ``search`` draws random chains, each with its value, the target and a verdict, until one fits or
      ``tries`` are spent; answers the last. Right as often as luck has it.
    * ``careless`` writes one random chain whose arithmetic slips once, and answers it. Wrong.
    * ``gives_up`` writes one random chain, sees its value, and answers it though it misses the target. Wrong.
    """

    verdict_qualities: ClassVar[tuple[str, ...]] = ("search",)
    """Those that judge their own attempts."""

    mixture: ClassVar[Mapping[str, float]] = {"expert": 0.15, "search": 0.3, "careless": 0.3, "gives_up": 0.25}
    """Shares in the text a base model reads, unless a manifest says otherwise: the expert is a minority."""

    # The defaults keep blind guessing at 8 tries below a quarter. Larger numbers raise it: they leave fewer
    # chains in range for a guesser to choose from.
    name: str = Field("countdown", pattern="^countdown$")
    sizes: tuple[int, ...] = Field(
        (5,), min_length=1, description="how many numbers; one named twice is twice as likely"
    )
    low: int = Field(1, ge=0, description="smallest number")
    high: int = Field(12, description="largest number")
    operations: str = Field("+-*", pattern=r"^[-+*/]+$", description="those allowed, of +-*/")
    target_low: int = Field(1, ge=0, description="smallest target")
    target_high: int = Field(99, description="largest target")
    chain_max: int = Field(99, description="largest value along the key and along worked attempts")
    tries: int = Field(4, ge=1, description="attempts after which a search trace stops")

    @model_validator(mode="after")
    def _is_possible(self) -> Countdown:
        if min(self.sizes) < 2 or max(self.sizes) > 16:
            raise ValueError("sizes must lie between 2 and 16")
        if self.low > self.high or self.high > self.chain_max or self.high < 1:
            raise ValueError("low <= high <= chain_max must hold, and high must be at least 1")
        if self.target_low > min(self.target_high, self.chain_max):
            raise ValueError("target_low <= target_high and target_low <= chain_max must hold")
        if len(set(self.operations)) < len(self.operations):
            raise ValueError("an operation is named twice")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A problem with a solution: a random chain whose result is the target, its numbers shown shuffled.

        Raises UserError when the settings leave (almost) no chain to draw.
        """
        count = size or rng.choice(self.sizes)
        for _ in range(_MAX_DRAWS):
            drawn = tuple(rng.randint(self.low, self.high) for _ in range(count))
            chain = self._chain(drawn, rng)
            if chain and self.target_low <= chain.values[-1] <= self.target_high:
                return self._problem(chain, rng.sample(drawn, count))
        raise UserError(
            f"countdown finds no solvable problem of {count} numbers",
            where=f"numbers {self.low}..{self.high}, operations {self.operations}, up to {self.chain_max}",
            next_step="Widen the target range, raise chain_max or allow more operations.",
        )

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for an expression of the allowed operations that uses each number once and equals the target.

        WRONG for any other expression, UNPARSED for text that has no value as one.
        """
        try:
            said = read(answer)
        except Unparsed:
            return Verdict.UNPARSED
        fits = (
            said.value == problem.info["target"]
            and sorted(said.numbers) == sorted(problem.info["numbers"])
            and said.operations <= set(self.operations)
        )
        return Verdict.PASS if fits else Verdict.WRONG

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Thinking of the stated quality, then its answer, tagged. Raises UserError for an unknown one."""
        writers: dict[str, Callable[[Problem, Random], tuple[str, str]]] = {
            "expert": self._expert,
            "search": self._search,
            "careless": self._careless,
            "gives_up": self._gives_up,
        }
        if quality not in writers:
            fault = f'countdown writes no traces of quality "{quality}"'
            raise UserError(fault, next_step=nearest(quality, writers))
        thinking, answer = writers[quality](problem, rng)
        return f"<think>{thinking}</think><answer>{answer}</answer>"

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """Attempts carried through to a value, in order, in normal form.

        An attempt is a line that begins with an expression of as many numbers as the problem has; whether its
        arithmetic is right does not matter.
        """
        return [normal_form(attempt) for attempt in _attempts(problem, thinking)]

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last attempt carried through to a value is a solution, whatever value it claims."""
        attempts = _attempts(problem, thinking)
        return bool(attempts) and self.check(problem, attempts[-1]) is Verdict.PASS

    def facts(self, rng: Random, count: int) -> str:
        """Lines of single operations and of those that undo them: always right, never a whole problem."""
        lines: list[str] = []
        known = [*self.operations, *(_UNDO[operation] for operation in self.operations)]
        while len(lines) < count:
            operation, right = rng.choice(known), rng.randint(self.low, self.high)
            left = rng.randint(0, self.chain_max)
            if operation == "/":  # few pairs divide: draw the quotient instead
                left *= right
            value = _applied(left, operation, right)
            if value is not None and 0 <= value <= self.chain_max >= left:
                lines.append(f"{left}{operation}{right}={value}")
        return "\n".join(lines)

    def guess(self, problem: Problem, rng: Random) -> str:
        """A chain drawn uniformly from all orders and operations whose values stay in 0..chain_max.

        It looks at the numbers and not at the target; that it keeps its values in range makes it a strong
        guesser.
        """
        return written(self._random_chain(problem, rng))

    def _problem(self, chain: Chain, shown: list[int]) -> Problem:
        target = chain.values[-1]
        return Problem(
            id=identity(self.name, sorted(shown), target),
            task=self.name,
            prompt=f"use {' '.join(map(str, shown))} to make {target}",
            answer=written(chain),
            size=len(shown),
            info={"numbers": tuple(shown), "target": target},
        )

    def _chain(self, numbers: tuple[int, ...], rng: Random) -> Chain | None:
        """Random operations between ``numbers``, or None when a value leaves the allowed range."""
        operations = tuple(rng.choice(self.operations) for _ in numbers[1:])
        values: list[int] = []
        for operation, number in zip(operations, numbers[1:], strict=True):
            value = _applied(values[-1] if values else numbers[0], operation, number)
            if value is None or not 0 <= value <= self.chain_max:
                return None
            values.append(value)
        return Chain(numbers, operations, tuple(values))

    def _random_chain(self, problem: Problem, rng: Random) -> Chain:
        """A chain over the problem's numbers, uniform over those in range; the key if none turns up."""
        numbers = problem.info["numbers"]
        for _ in range(_MAX_DRAWS):
            if chain := self._chain(tuple(rng.sample(numbers, len(numbers))), rng):
                return chain
        return _chain_of(problem)

    def _miss(self, problem: Problem, rng: Random) -> Chain:
        """A random chain that misses the target; one that leaves a number out where every chain hits."""
        for _ in range(50):
            chain = self._random_chain(problem, rng)
            if chain.values[-1] != problem.info["target"]:
                return chain
        return Chain(chain.numbers[:-1], chain.operations[:-1], chain.values[:-1])

    def _expert(self, problem: Problem, rng: Random) -> tuple[str, str]:
        chain = _chain_of(problem)
        return f"{_worked_back(chain)}\n{_worked(chain)}", written(chain)

    def _search(self, problem: Problem, rng: Random) -> tuple[str, str]:
        target, lines = problem.info["target"], []
        for _ in range(self.tries):
            chain = self._random_chain(problem, rng)
            is_hit = chain.values[-1] == target
            lines.append(f"{_worked(chain)} {target}? {'yes' if is_hit else 'no'}")
            if is_hit:
                break
        return "\n".join(lines), written(chain)

    def _careless(self, problem: Problem, rng: Random) -> tuple[str, str]:
        chain = self._miss(problem, rng)
        return _worked(_slipped(chain, rng, self.chain_max)), written(chain)

    def _gives_up(self, problem: Problem, rng: Random) -> tuple[str, str]:
        chain = self._miss(problem, rng)
        return _worked(chain), written(chain)


def written(chain: Chain) -> str:
    """The chain as an expression with no more brackets than it needs: ``(3+4)*5-6``."""
    text, is_sum = str(chain.numbers[0]), False
    for operation, number in zip(chain.operations, chain.numbers[1:], strict=True):
        if operation in "*/" and is_sum:
            text = f"({text})"
        text, is_sum = f"{text}{operation}{number}", operation in "+-"
    return text


def _worked(chain: Chain) -> str:
    """``(3+4)*5-6=7*5-6=35-6=29``: the chain reduced from the left, as its values say."""
    links = [written(chain)]
    for done, value in enumerate(chain.values, 1):
        links.append(written(Chain((value, *chain.numbers[done + 1 :]), chain.operations[done:], ())))
    return "=".join(links)


def _worked_back(chain: Chain) -> str:
    """``back 16+3=19 19-12=7``: every operation undone, the last one first, down to the first number."""
    before = (chain.numbers[0], *chain.values)
    steps = zip(chain.values, chain.operations, chain.numbers[1:], before[:-1], strict=True)
    return " ".join(["back", *(f"{v}{_UNDO[op]}{n}={b}" for v, op, n, b in reversed(list(steps)))])


def _slipped(chain: Chain, rng: Random, limit: int) -> Chain:
    """The chain with one result wrong by a little, later ones computed from it, all within 0..limit."""
    wrong = [
        values
        for place in range(len(chain.values))
        for slip in _SLIPS
        if (values := _carried(chain, place, slip)) and all(0 <= value <= limit for value in values)
    ]
    return Chain(chain.numbers, chain.operations, rng.choice(wrong)) if wrong else chain


def _carried(chain: Chain, place: int, slip: int) -> tuple[int, ...] | None:
    """The values of ``chain`` when the one at ``place`` is off by ``slip``; None where none is whole."""
    values = [*chain.values[:place], chain.values[place] + slip]
    for operation, number in list(zip(chain.operations, chain.numbers[1:], strict=True))[place + 1 :]:
        value = _applied(values[-1], operation, number)
        if value is None:
            return None
        values.append(value)
    return tuple(values)


def _applied(left: int, operation: str, right: int) -> int | None:
    """``left operation right``; None where that is no whole number or cannot be undone (times or by zero)."""
    if operation in "*/" and right == 0:
        return None
    if operation == "/":
        return left // right if left % right == 0 else None
    return {"+": left + right, "-": left - right, "*": left * right}[operation]


def _chain_of(problem: Problem) -> Chain:
    """The key as a chain. A chain's brackets open only at its start, so they can be read over."""
    numbers = tuple(int(number) for number in re.findall(r"[0-9]+", problem.answer))
    operations = tuple(re.findall(r"[-+*/]", problem.answer))
    values: list[int] = []
    for operation, number in zip(operations, numbers[1:], strict=True):
        value = _applied(values[-1] if values else numbers[0], operation, number)
        if value is None:
            raise UserError(f"the key {problem.answer!r} is no chain", where=problem.prompt)
        values.append(value)
    return Chain(numbers, operations, tuple(values))


def _attempts(problem: Problem, thinking: str) -> list[str]:
    """The expressions of the complete attempts in ``thinking``, as written."""
    found = (_ATTEMPT.match(line[:_MAX_ATTEMPT_CHARS]) for line in thinking.split("\n"))
    return [match[1] for match in found if match and _count_numbers(match[1]) == problem.size]


def _count_numbers(expression: str) -> int:
    """How many numbers a well-formed expression uses; 0 for one that is not."""
    try:
        return len(read(expression).numbers)
    except Unparsed:
        return 0
