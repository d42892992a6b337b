"""The eval stage: models on held-out problems, every figure with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from typing import Any

from seekling.evals.evaluate import Judged, criteria, examples, figures
from seekling.evals.judging import Judge
from seekling.recipes import together
from seekling.recipes.config import AlsoAsked, Control, Curate, Eval
from seekling.recipes.policy import Policy, generation_cost, sample_groups
from seekling.recipes.stage import Clock, Interrupted, Stage
from seekling.records import Group, Problem
from seekling.runlog.files import write_json
from seekling.runlog.run import Journal
from seekling.tasks.protocol import problems
from seekling.tasks.registry import build_task

PROBLEMS_PER_CALL = 16
"""Problems sampled between two signs of life."""

HEADLINE = (
    "mean_tokens", "format_rate", "readable_rate", "entropy", "distinct_attempts",
    "distinct_1", "distinct_2", "distinct_3", "self_bleu",
)  # fmt: skip
"""Figures that are told beside those of passing."""


def evaluate(stage: Stage, config: Eval) -> dict[str, float]:
    """Ask every model of the stage's inputs every task; writes eval.json. Returns pass@1 and its neighbours.

    Of one model and one task the file holds the evaluation, and figures have their usual names. Of more it holds
    ``{"evaluations": [...]}``, and figures are called ``<model>/<task>/pass@1``. A pair that an earlier session has
    judged is not sampled again.
    """
    papers = sittings(config)
    if len(stage.inputs) * len(papers) == 1:
        policy, name = _policy(stage, 0), stage.inputs[0].facts()["name"]
        found, _ = _sat(stage, config, papers[0], policy, 0)
        write_json(stage.folder.folder / "eval.json", {"model": name} | found)
        return headline(found)
    journal = stage.journal()
    told = [one for number in range(len(stage.inputs)) for one in _examined(stage, config, papers, number, journal)]
    journal.close()
    write_json(stage.folder.folder / "eval.json", {"evaluations": told})
    return {f"{one['model']}/{one['label']}/{name}": value for one in told for name, value in headline(one).items()}


def _policy(stage: Stage, number: int) -> Policy:
    return Policy.load(stage.inputs[number].model, stage.device, stage.lanes)


def _examined(
    stage: Stage, config: Eval, papers: Sequence[Sitting], number: int, journal: Journal
) -> Iterator[dict[str, Any]]:
    """One of the models on every task; it is loaded for the first that no earlier session has judged."""
    name, loaded = stage.inputs[number].facts()["name"], cache(partial(_policy, stage, number))
    per_model = sum(paper.num_problems for paper in papers)
    done, of = number * per_model, len(stage.inputs) * per_model
    for place, paper in enumerate(papers, number * len(papers)):
        line = journal.recall(place)
        if line is None:
            found, judged = _sat(stage, config, paper, loaded(), done, of)
            line = {"model": name, "label": paper.label, **found, "criteria": criteria(judged, config.rubric)}
            journal.write(place, line)
        done += paper.num_problems
        yield {key: value for key, value in line.items() if key != "step"}


@dataclass(frozen=True, slots=True)
class Sitting:
    """What a model is asked at once: a task with its numbers, under a label that no other task of the stage has."""

    asked: AlsoAsked
    label: str
    larger_size: int | None

    @property
    def num_problems(self) -> int:
        """Problems of this sitting, at most: those of the larger size are as many again."""
        return self.asked.problems * (2 if self.larger_size else 1)


def sittings(config: Eval) -> list[Sitting]:
    """The stage's tasks. Of two with one name the second is called ``name-2``; the larger size is the first one's."""
    names = [build_task(one.task).name for one in config.asked]
    counts = [names[: place + 1].count(name) for place, name in enumerate(names)]
    labels = [name if count == 1 else f"{name}-{count}" for name, count in zip(names, counts, strict=True)]
    sizes = [config.larger_size, *[None] * len(config.also)]
    return [Sitting(*row) for row in zip(config.asked, labels, sizes, strict=True)]


def _sat(
    stage: Stage, config: Eval, paper: Sitting, policy: Policy, done: int, of: int | None = None
) -> tuple[dict[str, Any], list[Judged]]:
    """The figures of one model on one task, and what was said. ``done`` problems of ``of`` were asked before."""
    judge = Judge(paper.asked.task, config.rubric)
    task = judge.task
    asked = held_out(task, paper.asked.problems)
    larger = held_out(task, paper.asked.problems, paper.larger_size) if paper.larger_size else []
    of = of or len(asked) + len(larger)
    judged = sample_judged(stage, policy, asked, paper.asked.samples, config, judge, done=done, of=of)
    found = figures(task, judged)
    if larger:
        beyond = sample_judged(
            stage, policy, larger, config.larger_samples, config, judge, done=done + len(asked), of=of
        )
        found["by_size"] |= figures(task, beyond)["by_size"]
    judge.close()
    shown = examples(judged, num_problems=8, num_rollouts=2)
    about = {"task": task.name, "seed": stage.seed, "larger_size": paper.larger_size}
    return about | found | {"rollouts": shown}, judged


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
