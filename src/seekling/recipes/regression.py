"""What reinforcement makes a model forget: the same sets, asked before and after, problem by problem.

Both sides are asked with the same seeds, so a difference is taken over the same problems, and its interval is that of
the differences: much narrower than two intervals side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from seekling.engine.config import Sampling
from seekling.evals.evaluate import Judged, interval
from seekling.evals.judging import Judge
from seekling.evals.suites import TEMPERATURE, TOP_P, load, suite_figures
from seekling.recipes import together
from seekling.recipes.config import Grpo, names_task
from seekling.recipes.evaluate import PROBLEMS_PER_CALL, held_out
from seekling.recipes.policy import Policy, generation_cost, sample_groups
from seekling.recipes.stage import Clock, Interrupted, Stage
from seekling.records import Problem
from seekling.rewards.rubric import Rubric, answer_of
from seekling.runlog.files import read_json, write_json

FILE = "regression.json"


@dataclass(frozen=True, slots=True)
class Opened:
    """A set to be asked: its problems, who judges them, what a vote counts, and what a result says about it."""

    name: str
    problems: Sequence[Problem]
    judge: Judge
    vote: Callable[[str], str | None]
    about: dict[str, Any]


def regress(stage: Stage, config: Grpo, policy: Policy, when: Literal["before", "after"]) -> dict[str, float]:
    """Ask the stage's regression sets; writes regression.json. Returns after training how much of each is forgotten.

    What was asked in an earlier session is not asked again. Figures: ``forgotten`` (the most of any set, never below
    0), and for each set ``forgotten:NAME``, pass@1 before less pass@1 after.
    """
    if not config.regression:
        return {}
    file = stage.folder.folder / FILE
    told: dict[str, Any] = read_json(file) if file.exists() else {}
    asked = [config.regression_problems, config.regression_samples]
    for number, spec in enumerate(config.regression):
        known = told.get(spec, {}) if told.get(spec, {}).get("asked") == asked else {}
        if when not in known:
            opened = open_set(spec, config.regression_problems, stage)
            first = (2 * number + (when == "after")) * config.regression_problems
            found = _ask(stage, config, policy, opened, first)
            told = told | {spec: known | {"name": opened.name, "about": opened.about, "asked": asked, when: found}}
            write_json(file, told)
    if when == "before":
        return {}
    told = {spec: told[spec] | {"change": _change(told[spec])} for spec in config.regression}
    write_json(file, told)
    lost = {f"forgotten:{one['name']}": -one["change"]["value"] for one in told.values()}
    return {"forgotten": max(0.0, *lost.values())} | lost


def _change(told: Mapping[str, Any]) -> dict[str, float]:
    """How much more of each problem's rollouts pass afterwards, with the interval of these differences."""
    before, after = (told[when]["per_problem"] for when in ("before", "after"))
    return interval([now - then for then, now in zip(before, after, strict=True)])


def open_set(spec: str, count: int, stage: Stage) -> Opened:
    """A task's held-out problems, or the first ``count`` of a suite's or file's."""
    if names_task(spec):
        judge = Judge(spec, Rubric())
        return Opened(judge.task.name, held_out(judge.task, count), judge, answer_of, {"task": spec})
    loaded = load(spec, count, tell=stage.warn, stop_requested=stage.stop_requested)
    judge = loaded.judge()
    return Opened(loaded.name, loaded.problems, judge, judge.task.verifier.vote, loaded.about())


def _ask(stage: Stage, config: Grpo, policy: Policy, opened: Opened, first: int) -> dict[str, Any]:
    """Figures of one set. Its draws are named by the problems alone; ``first`` numbers its pieces in the ledger."""
    sampling = Sampling(
        temperature=TEMPERATURE, top_p=TOP_P,
        max_tokens=config.sampling.max_tokens, max_rows=config.sampling.max_rows,
    )  # fmt: skip
    clock, judged = Clock(), list[Judged]()
    for start in range(0, len(opened.problems), PROBLEMS_PER_CALL):
        if stage.stop_requested():
            raise Interrupted
        piece = opened.problems[start : start + PROBLEMS_PER_CALL]
        groups = sample_groups(policy, piece, config.regression_samples, sampling, "regression")
        judged += together.judged(policy.lanes.world, opened.judge, groups)
        stage.charge(first + start, "regression", *generation_cost(policy, groups), clock.lap())
    opened.judge.close()
    return suite_figures(judged, opened.vote)
