"""The eval stage: a model on held-out problems, every figure with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from seekling.evals.evaluate import Judged, examples, figures
from seekling.evals.judging import Judge
from seekling.recipes import together
from seekling.recipes.config import Control, Curate, Eval
from seekling.recipes.policy import Policy, generation_cost, sample_groups
from seekling.recipes.stage import Clock, Interrupted, Stage
from seekling.records import Group, Problem
from seekling.runlog.files import write_json
from seekling.tasks.protocol import problems

PROBLEMS_PER_CALL = 16
"""Problems sampled between two signs of life."""

HEADLINE = (
    "mean_tokens", "format_rate", "readable_rate", "entropy", "distinct_attempts",
    "distinct_1", "distinct_2", "distinct_3", "self_bleu",
)  # fmt: skip
"""Figures that are told beside those of passing."""


def evaluate(stage: Stage, config: Eval) -> dict[str, float]:
    """Evaluate the input stage's model; writes eval.json. Returns pass@1 and its neighbours."""
    judge = Judge(config.task, config.rubric)
    task = judge.task
    policy = Policy.load(stage.inputs[0].model, stage.device, stage.lanes)
    asked = held_out(task, config.problems)
    larger = held_out(task, config.problems, config.larger_size) if config.larger_size else []
    of = len(asked) + len(larger)
    judged = sample_judged(stage, policy, asked, config.samples, config, judge, of=of)
    found = figures(task, judged)
    if larger:
        beyond = sample_judged(stage, policy, larger, config.larger_samples, config, judge, done=len(asked), of=of)
        found["by_size"] |= figures(task, beyond)["by_size"]
    label = stage.inputs[0].facts()["name"]
    shown = examples(judged, num_problems=8, num_rollouts=2)
    about = {"model": label, "task": task.name, "seed": stage.seed, "larger_size": config.larger_size}
    write_json(stage.folder.folder / "eval.json", about | found | {"rollouts": shown})
    return headline(found)


def headline(found: dict[str, Any]) -> dict[str, float]:
    """The few figures a gate or a line of text wants, by their usual names.

    ``readable_rate`` is among them where problems tell their language.
    """
    last = max(found["pass_at_k"], key=int)
    return {
        "pass@1": found["pass_at_k"]["1"]["value"],
        f"pass@{last}": found["pass_at_k"][last]["value"],
        f"maj@{last}": found["maj_at_k"][last]["value"],
        **{name: found[name]["value"] for name in HEADLINE if name in found},
    }


def held_out(task: Any, count: int, size: int | None = None) -> list[Problem]:
    """The first ``count`` distinct held-out problems: the same for every model, seed and stage."""
    return list(islice(problems(task, "held_out", "eval", size=size, distinct=True), count))


def sample_judged(
    stage: Stage, policy: Policy, asked: Sequence[Problem], samples: int, config: Eval | Control | Curate, judge: Judge,
    *, done: int = 0, of: int | None = None, ban: Any = None,
) -> list[Judged]:  # fmt: skip
    """Sample and score in pieces, charging the ledger and showing signs of life."""
    judged: list[Judged] = []
    clock = Clock()
    for start in range(0, len(asked), PROBLEMS_PER_CALL):
        piece = asked[start : start + PROBLEMS_PER_CALL]
        if stage.stop_requested():
            raise Interrupted
        groups: list[Group] = sample_groups(policy, piece, samples, config.sampling, "eval", ban)
        judged += together.judged(policy.lanes.world, judge, groups)
        stage.charge(done + start, "eval", *generation_cost(policy, groups), clock.lap())
        passed = sum(j.num_passed for j in judged) / (len(judged) * samples)
        stage.tell(stage.name, done + start + len(piece) - 1, of or len(asked), {"pass@1": passed})
    return judged
