"""Self-tests of a task: its key, its check, its split."""

from __future__ import annotations

from itertools import islice
from random import Random

from seekling.errors import SelfTestFailed
from seekling.records import Problem, Verdict
from seekling.selftests.outcome import SelfTest
from seekling.tasks.checking import Checker
from seekling.tasks.corpus import Mixture, documents, training_problem
from seekling.tasks.protocol import Task, problems, reads, split_of

NONSENSE = "(no answer at all: \x7f \u2205)"
"""What no check may pass."""


def of_key(task: Task, checker: Checker | None = None, count: int = 64) -> list[SelfTest]:
    """The task's own answer key can be read, passes its own check, and nonsense does not pass in its place.

    Figures: shares of keys that cannot be read, of the others that do not pass, of problems where nonsense does. The
    last is not asked of a task that reads the whole reply: short and plain is all that some constraints want.
    Raises SelfTestFailed with the check's own words when it raises, or returns what is no verdict.
    """
    rng = Random(f"{task.name}/self-check")
    drawn = [task.draw(rng) for _ in range(count)]
    checker = checker or Checker(task)
    checked = checker.verdicts([(problem, problem.answer) for problem in drawn])
    for problem, one in zip(drawn, checked, strict=True):
        if one.verdict is Verdict.INFRA_ERROR:
            raise SelfTestFailed(
                f'the check of task "{task.name}" fails on its own answer key: {one.said}',
                where=f"problem {problem.prompt!r}, answer {problem.answer!r}",
                next_step="Mend the task's check: it must return a verdict for every text.",
            )
    unread = [p for p, one in zip(drawn, checked, strict=True) if one.verdict is Verdict.UNPARSED]
    wrong = [p for p, one in zip(drawn, checked, strict=True) if one.verdict not in (Verdict.PASS, Verdict.UNPARSED)]
    fooled = [
        p
        for p, one in zip(drawn, checker.verdicts([(p, NONSENSE) for p in drawn]), strict=True)
        if one.verdict is Verdict.PASS and reads(task) == "answer"
    ]
    return [
        _share("answer key can be read", unread, count, "Mend the answer key, or the check that reads it."),
        _share("answer key passes", wrong, count, "Mend the task's check or its answer key."),
        _share("nonsense does not pass", fooled, count, "Mend the check: it must refuse what it cannot read."),
    ]


def _share(name: str, found: list[Problem], of: int, advice: str) -> SelfTest:
    first = f" So it is with the answer {found[0].answer!r} to {found[0].prompt!r}." if found else ""
    return SelfTest(name, len(found) / of, 0.0, advice + first)


def of_split(task: Task, mixture: Mixture | None = None, count: int = 512) -> SelfTest:
    """No held-out problem occurs in training: figure = how many of ``count`` training draws are held out.

    Prompts are compared too: a task that gives one problem two ids would put it on both sides.
    """
    held_out = {p.prompt for p in islice(problems(task, "held_out", "self-test"), count)}
    rng = Random("self-test")
    drawn: list[Problem] = [training_problem(task, rng) for _ in range(count)]
    if mixture is not None:
        drawn += [d.problem for d in islice(documents(task, mixture, "self-test"), count) if d.problem is not None]
    advice = "A problem's id must depend on all that makes it the same problem, and on nothing else."
    leaked = sum(p.prompt in held_out or split_of(p.id) == "held_out" for p in drawn)
    return SelfTest("no held-out problem in training", leaked, 0.0, advice)
