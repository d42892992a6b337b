"""Code: write a function that passes tests nobody has shown, run where it can do no harm and learn no answer.

    Write a Python function f(x). x is a list of whole numbers. In this order:
    1. add 3 to each number                            ->    <answer>def f(x):
    2. return the sum                                            return sum(v + 3 for v in x)</answer>
    f([4, 7, 2]) returns 22

What the function should answer to the hidden inputs stays outside the sandbox; each is compared there, by exact type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from random import Random
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from seekling.config import Settings, runtime
from seekling.errors import UserError, nearest
from seekling.records import Problem, Verdict
from seekling.tasks.functions import ARGUMENTS, Function, drawn, inputs, written
from seekling.verify.sandbox.box import Sandbox
from seekling.verify.sandbox.compare import same
from seekling.verify.sandbox.limits import Isolation, Limits, Outcome
from seekling.workers.pool import cores

_MAX_CHARS = 2**16
_FENCED = re.compile(r"\s*```(?:python|py)?[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_NAMES_IT = re.compile(r"\bf\b")
_STEP_LINE = re.compile(r"x = \S.*")

Asked = Sequence[tuple[Problem, str]]


class Code(Settings):
    """Functions of one argument, told step by step.

    Qualities of traces, each a line for each step and then the program they make: expert translates every step, in
    order (right); slips gets one step wrong, by its number or altogether; skips leaves one out; gives_up stops after
    the first.
    """

    quick: ClassVar[bool] = False
    qualities: ClassVar[tuple[str, ...]] = ("expert", "slips", "skips", "gives_up")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[Mapping[str, float]] = {"expert": 0.2, "slips": 0.3, "skips": 0.25, "gives_up": 0.25}

    name: str = Field("code", pattern="^code$")
    families: tuple[Literal["numbers", "lists", "strings"], ...] = Field(
        ("numbers", "lists", "strings"), min_length=1, description="what the functions are about"
    )
    sizes: tuple[int, ...] = Field((2, 3), min_length=1, description="how many steps a function has")
    tests: int = Field(12, ge=4, le=1000, description="hidden inputs on which a function must be right")
    shown: int = Field(2, ge=0, le=10, description="examples in the prompt; none of them is a hidden input")
    run: Limits = Field(Limits(wall_s=5.0, cpu_s=3), description="what one program may use")
    isolation: Isolation = Field("strict", description="unsafe-local runs programs as the user, with the network")
    boxes: int = runtime(0, ge=0, le=256, description="programs run side by side; 0 is one for each core")

    _box: Sandbox | None = PrivateAttr(None)

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A function of ``size`` steps each of which matters. The same behaviour is the same problem."""
        family = rng.choice(self.families)
        function = drawn(family, size or rng.choice(self.sizes), rng)
        return Problem(
            id=function.id(),
            task=self.name,
            prompt=self._prompt(function),
            answer=function.program(),
            size=len(function.steps),
            info={"family": family, "steps": function.steps},
        )

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for a program whose ``f`` is right on every hidden input; else the first that was not says why."""
        return self._judged(problem, answer)

    def check_all(self, asked: Asked) -> list[Verdict]:
        """As ``check``, on every core at once."""
        if not asked:
            return []
        box = self._sandbox()
        with ThreadPoolExecutor(min(box.size, len(asked))) as threads:
            return list(threads.map(lambda pair: self._judged(*pair), asked))

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """A line for each step, then the program of those lines. Raises UserError for an unknown quality."""
        writers: dict[str, Callable[[Function, Random], list[str]]] = {
            "expert": lambda function, rng: function.lines(),
            "slips": _slipped,
            "skips": lambda function, rng: function.without(rng.randrange(len(function.steps))).lines(),
            "gives_up": lambda function, rng: function.lines()[:1],
        }
        if quality not in writers:
            fault = f'code writes no traces of quality "{quality}"'
            raise UserError(fault, next_step=nearest(quality, writers))
        lines = writers[quality](_function(problem), rng)
        thinking = "\n".join(f"x = {line}" for line in lines)
        return f"<think>{thinking}</think><answer>{written(lines)}</answer>"

    def facts(self, rng: Random, count: int) -> str:
        """Single steps in words and in Python: always right, never a whole problem."""
        found = (drawn(rng.choice(self.families), 1, rng) for _ in range(count))
        return "\n".join(f"{step.words()[0]}: x = {step.lines()[0]}" for step in found)

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """The program of the thinking's lines, when there is one for every step."""
        lines = [line for line in thinking.split("\n") if _STEP_LINE.fullmatch(line)]
        return [written([line.removeprefix("x = ") for line in lines])] if len(lines) == problem.size else []

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the lines of the thinking solve the problem."""
        attempts = self.attempts(problem, thinking)
        return bool(attempts) and self.check(problem, attempts[-1]) is Verdict.PASS

    def guess(self, problem: Problem, rng: Random) -> str:
        """A random function of the same family and size."""
        return drawn(problem.info["family"], problem.size, rng).program()

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """Right programs that are written otherwise."""
        lines = _function(problem).lines()
        nested = "x"
        for line in lines:
            nested = f"(lambda x: {line})({nested})"
        steps = ", ".join(f"lambda x: {line}" for line in lines)
        key = problem.answer
        return [
            f"```python\n{key}\n```",
            f"f = lambda x: {nested}",
            f"from functools import reduce\nSTEPS = [{steps}]\n"
            "def f(x):\n    return reduce(lambda v, step: step(v), STEPS, x)",
            f"{key.replace('def f(', 'def solve(')}\n\nclass Solver:\n    def __call__(self, x):\n"
            "        return solve(x)\nf = Solver()",
            f"import sys\nprint('working')\n{key}\nprint(f.__name__, file=sys.stderr)",
            f"# a comment\r\n{key}\r\nif __name__ == '__main__':\r\n    raise SystemExit(f(input()))",
            key.replace("def f(x):", "def f(x: object, scale: int = 1) -> object:\n    '''Told so.'''"),
        ]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Programs that know the shown examples, are off by a little, leave early, or cheat."""
        function, key, hidden = _function(problem), problem.answer, self._hidden(_function(problem))
        known = {repr(x): function.value(x) for x in self._shown(function)}
        return [
            f"KNOWN = {known!r}\ndef f(x):\n    return KNOWN.get(repr(x), 0)",
            *(other.program() for other in function.near() if any(other.value(x) != function.value(x) for x in hidden)),
            f"{key.replace('def f(', 'def right(')}\ndef f(x):\n    v = right(x)\n"
            "    return v + 1 if type(v) is int else v[:-1]",
            f"{key.replace('def f(', 'def right(')}\ndef f(x):\n    v = right(x)\n"
            "    return float(v) if type(v) is int else {'value': v}",
            *(f"{key}\n{cheat}" for cheat in CHEATS),
            key.replace("def f(", "def g("),
            "def f(x):\n    return x",
            "",
        ]

    def _prompt(self, function: Function) -> str:
        steps = "\n".join(f"{place}. {words}" for place, words in enumerate(function.words(), 1))
        said = f"Write a Python function f(x). x is {ARGUMENTS[function.family]}. In this order:\n{steps}"
        if not function.words()[-1].startswith("return "):
            said += "\nand return what that gives."
        return "\n".join([said, *(f"f({x!r}) returns {function.value(x)!r}" for x in self._shown(function))])

    def _shown(self, function: Function) -> list[Any]:
        """The inputs shown: random ones, none of them hidden."""
        hidden = self._hidden(function)
        found = inputs(function.family, len(hidden) + 2 * self.shown + 3, Random(f"{function.id()}/shown"))
        return [x for x in found[3:] if x not in hidden][: self.shown]

    def _hidden(self, function: Function) -> list[Any]:
        return _tests(function, self.tests)

    def _judged(self, problem: Problem, answer: str) -> Verdict:
        program = _program(answer)
        if program is None:
            return Verdict.UNPARSED
        function = _function(problem)
        hidden = self._hidden(function)
        outcomes = self._sandbox().call(program, "f", [[x] for x in hidden])
        verdicts = (_verdict(outcome, function.value(x)) for outcome, x in zip(outcomes, hidden, strict=True))
        return next((verdict for verdict in verdicts if verdict is not Verdict.PASS), Verdict.PASS)

    def _sandbox(self) -> Sandbox:
        if self._box is None:
            self._box = Sandbox(self.run, size=self.boxes or cores(), isolation=self.isolation)
        return self._box


CHEATS = (
    "import sys\nsys.exit(0)",
    "import os\nos._exit(0)",
    "class Equal:\n    def __eq__(self, other): return True\ndef f(x): return Equal()",
    "class Equal(int):\n    def __eq__(self, other): return True\ndef f(x): return Equal(7)",
    "def f(x):\n    raise SystemExit(0)",
    "import os\ndef f(x):\n    os.write(3, b'{\"value\": 1}\\n')",
    "def f(x):\n    print('PASS')",
)
"""What earns a pass from checkers that run beside the program; each replaces the right ``f``, or ends before it."""


@lru_cache(maxsize=4096)
def _tests(function: Function, count: int) -> list[Any]:
    """Kept, since all rollouts of a group are checked by the same ones."""
    return function.tests(count, Random(f"{function.id()}/hidden"))


def _program(answer: str) -> str | None:
    """The program that an answer is, its fence removed; None for one that is too long or never names ``f``."""
    if len(answer) > _MAX_CHARS:
        return None
    fenced = _FENCED.fullmatch(answer)
    program = fenced[1] if fenced else answer
    return program if _NAMES_IT.search(program) else None


def _verdict(outcome: Outcome, expected: Any) -> Verdict:
    if outcome.verdict is not None:
        return outcome.verdict
    return Verdict.PASS if same(outcome.value, expected) else Verdict.WRONG


def _function(problem: Problem) -> Function:
    """The problem's own; its steps may have been through JSON."""
    return Function(problem.info["family"], tuple((name, k) for name, k in problem.info["steps"]))


def _slipped(function: Function, rng: Random) -> list[str]:
    """One line replaced by that of another step, or by its own with another number."""
    place = rng.randrange(len(function.steps))
    other = drawn(function.family, 1, rng)
    lines = function.lines()
    lines[place] = other.lines()[0] if other.lines()[0] != lines[place] else "x"
    return lines
