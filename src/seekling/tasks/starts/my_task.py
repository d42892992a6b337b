"""A task of your own: add up the digits of a number. Change it to yours, top to bottom, then audit it and train."""

from __future__ import annotations

from random import Random
from typing import ClassVar

from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.answers import integer


class MyTask:
    """``4719:`` asks for 21. What this says in its first line is what `seekling tasks show` says."""

    name = "my-task"
    # Its check is short and always ends, so it may run in the trainer's own process. Leave this line out for a check
    # that could hang, fill memory or crash: it then runs in workers that are killed when they overrun.
    quick = True

    # --- what every task needs ---

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """One problem, from ``rng`` and nothing else. ``size`` must be honoured, also one you never train on."""
        size = size or rng.choice((3, 4))
        digits = [rng.randint(1, 9) for _ in range(size)]
        # The identity decides what is held out: put in it all that makes two problems the same, and no wording.
        key = identity(self.name, digits)
        return Problem(key, self.name, "".join(map(str, digits)) + ":", str(sum(digits)), size)

    def check(self, problem: Problem, answer: str) -> Verdict:
        """A verdict on what stands in <answer>. Strict: what is read loosely is paid for what was not said."""
        value = integer(answer)  # seekling.verify has more readers, for other answers
        if value is None:
            return Verdict.UNPARSED
        return Verdict.PASS if value == int(problem.answer) else Verdict.WRONG

    # --- for the audit: how this check could be wrong ---

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """True answers in other forms, all of which must pass."""
        return [f" {problem.answer}\n"]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Answers near the truth, none of which may pass."""
        return [str(int(problem.answer) + 1), problem.answer + "0", f"not {problem.answer}"]

    # --- to grow a base model from nothing on it; an imported model needs none of this ---

    qualities = ("expert", "guess")
    verdict_qualities = ()
    # A minority that works well is something for reinforcement to find; a majority that does not leaves it something
    # to add.
    mixture: ClassVar[dict[str, float]] = {"expert": 0.3, "guess": 0.7}

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """A worked attempt as the base model will read it: thinking, then the answer."""
        if quality == "guess":
            return f"<think></think><answer>{self.guess(problem, rng)}</answer>"
        running, lines = 0, []
        for digit in problem.prompt.removesuffix(":"):
            lines.append(f"{running}+{digit}={running + int(digit)}")
            running += int(digit)
        return "<think>" + "\n".join(lines) + f"</think><answer>{running}</answer>"

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """The attempts in a thought, for figures of diversity: here all of it is one."""
        return [thinking] if thinking.strip() else []

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the thought solves the problem, for a control."""
        return thinking.endswith(f"={problem.answer}")

    def guess(self, problem: Problem, rng: Random) -> str:
        """A blind guess, for the cheapest control: a task that guessing solves proves nothing."""
        return str(rng.randint(problem.size, 9 * problem.size))
