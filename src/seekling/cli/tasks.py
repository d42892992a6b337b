"""Tasks from the command line: what there is, a try by hand, and an audit of a check before a policy makes one."""

from __future__ import annotations

from inspect import cleandoc
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from seekling.config import Settings, parse_override
from seekling.errors import UserError
from seekling.evals.audit import Audit, audit, by_kind
from seekling.evals.judging import Judge
from seekling.records import Group, Rollout, Stop, Verdict
from seekling.rewards.rubric import Rubric
from seekling.runlog.files import write_json
from seekling.selftests.tasks import of_key
from seekling.tasks.checking import Checker
from seekling.tasks.gym import Gym
from seekling.tasks.protocol import problems
from seekling.tasks.registry import FAMILIES, OWN, build_task

SHOWN = 72
"""Characters of a prompt or a key that a table shows."""


def list_command() -> None:
    """Every family: what it is, its settings, a sample with its key, and whether its keys pass its own check."""
    console = Console(highlight=False)
    for name in FAMILIES:
        task = build_task(name)
        problem = task.draw(Random(0))
        knobs = ", ".join(knob for knob in type(task).model_fields if knob != "name")
        passed = _passed(max(test.figure for test in of_key(task, Checker(task, name), count=32)))
        console.print(f"{name:<14} {_about(type(task))}", markup=False, soft_wrap=True)
        console.print(f"{'':<14} {_short(problem.prompt)}  ->  {_short(problem.answer)}", markup=False, soft_wrap=True)
        console.print(f"{'':<14} settings: {knobs}; self-check: {passed}", markup=False, soft_wrap=True, style="dim")
    others: dict[str, type] = {**OWN, "rg/NAME": Gym}
    for name, family in others.items():
        console.print(f"{name:<14} {_about(family)}", markup=False, soft_wrap=True)
    console.print(
        "\nseekling tasks show NAME tells more; try NAME puts problems to you; audit NAME tries to deceive it."
    )


def show_command(name: str) -> None:
    """One family: its docstring, its settings, and three problems."""
    console, task = Console(highlight=False), build_task(name)
    console.print(cleandoc(type(task).__doc__ or "") + "\n", markup=False, soft_wrap=True)
    for setting, field in type(task).model_fields.items() if isinstance(task, Settings) else ():
        console.print(
            f"  {setting:<20} = {getattr(task, setting)!s:<24} {field.description or ''}", markup=False, soft_wrap=True
        )
    for problem in islice(problems(task, "train", "show"), 3):
        console.print(f"\nproblem (size {problem.size}): {problem.prompt}\nkey: {problem.answer}", markup=False)


def try_command(name: str, settings: list[str], *, count: int, seed: int) -> None:
    """Problems for a person: print one, read an answer, print the score and why. Ends with the input."""
    console, spec = Console(highlight=False), spec_of(name, settings)
    judge = Judge(spec, Rubric())
    for number, problem in enumerate(islice(problems(judge.task, "train", f"try/{seed}"), count), 1):
        console.print(f"\n[{number}/{count}] {problem.prompt}", markup=False)
        try:
            answer = input("your answer: ")
        except EOFError:
            return
        checked = judge.checker.verdicts([(problem, answer)])[0]
        score = judge.scores([Group(problem, (_typed(answer),))])[0][0]
        parts = ", ".join(f"{part} {value:g}" for part, value in score.parts.items())
        reward = "left open" if score.reward is None else f"{score.reward:g}"
        console.print(f"{checked.verdict.value}: reward {reward} ({parts})", markup=False)
        if checked.said:
            console.print(f"why: {checked.said}", markup=False)
        if checked.verdict is not Verdict.PASS:
            console.print(f"the key: {problem.answer}", markup=False)


def audit_command(name: str, settings: list[str], *, count: int, out: Path | None) -> int:
    """Print what went wrong, kind by kind. Returns 0 when nothing did, else 1."""
    console = Console(highlight=False)
    done = audit(Judge(spec_of(name, settings), Rubric()), count)
    table = Table("kind of answer", "should pass", "tried", "judged wrongly", title=f"{done.task}: {count} problems")
    deserving = {trial.kind: trial.deserves for trial in done.trials}
    for kind, (tried, wrong) in by_kind(done.trials).items():
        table.add_row(kind, "yes" if deserving[kind] else "no", str(tried), str(wrong) if wrong else "-")
    console.print(table)
    _tell_wrong(console, done)
    if out is not None:
        write_json(out, {"task": done.task, "problems": count} | done.figures())
    figures = done.figures()
    console.print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items()))
    return int(any(figures[bad] for bad in ("false_accepts", "false_rejects", "hangs", "crashes")))


def _tell_wrong(console: Console, done: Audit) -> None:
    for trial in done.wrong()[:10]:
        text, prompt = _short(trial.text, 100), _short(trial.problem.prompt, 100)
        console.print(f"{trial.kind}: {trial.verdict.value}\n  problem {prompt}\n  said    {text}", markup=False)


def spec_of(name: str, settings: list[str]) -> str | dict[str, Any]:
    """A task's table from its name and ``key=value`` settings."""
    table: dict[str, Any] = {"name": name}
    for text in settings:
        path, value = parse_override(text)
        if len(path) != 1:
            raise UserError(f'cannot read the setting "{text}"', next_step="Write it as key=value, e.g. high=50")
        table[path[0]] = value
    return table if settings else name


def _typed(answer: str) -> Rollout:
    import numpy as np

    return Rollout((0,), (0,), np.zeros(1, np.float32), f"<think></think><answer>{answer}</answer>", Stop.STOP, 0)


def _about(family: type) -> str:
    """The first line of a family's docstring."""
    return cleandoc(family.__doc__ or "").partition("\n")[0]


def _short(text: str, most: int = SHOWN) -> str:
    line = text.replace("\n", " / ")
    return line if len(line) <= most else line[: most - 1] + "…"


def _passed(figure: float) -> str:
    return "ok" if figure == 0 else f"{figure:.0%} of its keys fail"
