"""The scenarios of a stage at work: each with a task, a judge, and problems of its own, asked from some step on.

A step samples for every scenario that has begun, and each group is judged by the judge of its own. What it drew is
one line of the journal, so that a resumed stage replays all of them or draws all of them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from random import Random
from typing import Any

import numpy as np

from seekling.evals.evaluate import attempts_of
from seekling.evals.judging import Judge
from seekling.recipes.config import Distill, Grpo, Scenario
from seekling.recipes.curating import Ask, askers
from seekling.recipes.journal import recall, remember
from seekling.recipes.lessons import is_spread
from seekling.recipes.policy import Policy, generation_cost, sample_groups
from seekling.recipes.rating import Spent
from seekling.recipes.stage import Stage
from seekling.recipes.together import scores_of
from seekling.records import Group, Problem, Score, Verdict
from seekling.rewards.rated import Rate
from seekling.rewards.rubric import answer_of
from seekling.runlog.run import Journal
from seekling.selftests.outcome import SelfTest
from seekling.selftests.tasks import of_key, of_split
from seekling.tasks.protocol import Helpable, problems, reads

NAMED = ("reward", "pass_rate", "format_rate", "response_length", "frac_zero_spread", "infra_errors")
"""Figures that every one of several scenarios has by its name."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One scenario: its judge, what a slot asks, and how what was said is scored (slot and groups to scores).

    ``seed`` names its draws, ``begin`` is the first step that asks it. ``is_own``: it is the stage's own task, whose
    figures have plain names. ``is_alone``: there is no other.
    """

    name: str
    is_own: bool
    is_alone: bool
    seed: str
    begin: int
    scenario: Scenario
    judge: Judge
    ask: Ask
    score: Callable[[int, list[Group]], list[list[Score]]]

    @property
    def weights(self) -> dict[str, float]:
        """The criteria that count, by the names of their parts."""
        return {name: weight for name, weight in self.scenario.rubric.weights().items() if weight}

    def named(self, figure: str) -> str:
        """``figure`` by the scenario's name."""
        return f"{self.name}/{figure}"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one scenario said in a step, and what each rollout earned."""

    scene: Scene
    groups: Sequence[Group]
    scores: Sequence[Sequence[Score]]

    @property
    def num_rollouts(self) -> int:
        """Of all its groups."""
        return sum(len(group.rollouts) for group in self.groups)


def scenes_of(stage: Stage, config: Grpo, rate: Rate | None = None) -> list[Scene]:
    """The stage's own scenario and all beside it, in order. ``rate`` asks the reward model that it reads.

    Raises UserError for a curated list that none of them can ask.
    """
    judges = [Judge(one.task, one.rubric, rate=rate) for one in config.scenarios]
    names = [one.name or judge.task.name for one, judge in zip(config.scenarios, judges, strict=True)]
    seeds = [stage.seed, *(f"{stage.seed}/{name}" for name in names[1:])]
    counts = [one.problems_per_step for one in config.scenarios]
    asks = askers(stage, config, [judge.task for judge in judges], seeds, counts)
    return [
        Scene(
            names[at], at == 0, not config.also, seeds[at], one.first_step(config.steps), one, judges[at],
            asks[at], _scorer(stage, config, judges[at], seeds[at]),
        )
        for at, one in enumerate(config.scenarios)
    ]  # fmt: skip


def _scorer(stage: Stage, config: Grpo, judge: Judge, seed: str) -> Callable[[int, list[Group]], list[list[Score]]]:
    """How groups are scored: checked, or (the control) with the step's scores dealt out at random."""

    def checked(slot: int, groups: list[Group]) -> list[list[Score]]:
        return scores_of(stage.world, judge, groups)

    def shuffled(slot: int, groups: list[Group]) -> list[list[Score]]:
        flat = [score for row in checked(slot, groups) for score in row]
        dealt = iter(Random(f"{seed}/shuffle/{slot}").sample(flat, len(flat)))
        return [[replace(next(dealt)) for _ in group.rollouts] for group in groups]

    return {"checked": checked, "shuffled": shuffled}[config.rewards]


# --- a step -----------------------------------------------------------------------------------------------------------


def draw(scene: Scene, policy: Policy, config: Grpo, index: int) -> Drawn:
    """Rollouts of one step, and what each earned; with ``refill``, of as many slots as it takes."""
    groups: list[Group] = []
    scores: list[list[Score]] = []
    for slot in slots(index, config):
        found = sample_groups(
            policy, scene.ask(slot), config.rollouts_per_problem, config.sampling, f"{scene.seed}/{slot}",
            tell_kept=True,
        )  # fmt: skip
        groups, scores = groups + found, scores + scene.score(slot, found)
        if sum(map(is_spread, scores)) >= scene.scenario.problems_per_step:
            break
    return Drawn(scene, groups, scores)


def slots(index: int, config: Grpo) -> range:
    """The slots of problems that a step may ask."""
    return range(index * (1 + config.refill), (index + 1) * (1 + config.refill))


def asked_in(scene: Scene, config: Grpo, index: int, count: int) -> list[Problem]:
    """What a step asks of a scenario that has taken as many slots as ``count`` problems fill."""
    taken = slots(index, config)[: -(-count // scene.scenario.problems_per_step)]
    return [problem for slot in taken for problem in scene.ask(slot)]


def keep(journal: Journal, index: int, drawn: Sequence[Drawn], rated: Spent) -> None:
    """Journal a step: its groups scenario by scenario, how many each has, and what a reward model read for them."""
    groups, scores = together(drawn)
    asked = {one.scene.name: len(one.groups) for one in drawn}
    remember(journal, index, groups, scores, asked=asked, rated=[rated.tokens, rated.flops])


def replayed(journal: Journal, scenes: Sequence[Scene], config: Grpo, index: int) -> tuple[list[Drawn], Spent] | None:
    """A journaled step, or None. Raises UserError when it speaks of other problems than ``scenes`` would ask."""
    counts: list[int] = []
    rated: list[Spent] = []

    def ask(line: Mapping[str, Any]) -> list[Problem]:
        told = [asked_in(scene, config, index, line["asked"][scene.name]) for scene in scenes]
        counts.extend(map(len, told))
        tokens, flops = line["rated"]
        rated.append(Spent(tokens, flops, 0.0))
        return list(chain(*told))

    if (found := recall(journal, index, ask)) is None:
        return None
    groups, scores = iter(found[0]), iter(found[1])
    pairs = zip(scenes, counts, strict=True)
    return [Drawn(scene, list(islice(groups, n)), list(islice(scores, n))) for scene, n in pairs], rated[0]


def together(drawn: Sequence[Drawn]) -> tuple[list[Group], list[Sequence[Score]]]:
    """All groups of a step, and their scores."""
    return [group for one in drawn for group in one.groups], [row for one in drawn for row in one.scores]


# --- what is told of them ---------------------------------------------------------------------------------------------


def of_step(drawn: Sequence[Drawn]) -> dict[str, float]:
    """A step's figures: those of the stage's own task by plain names, and of several scenarios each by its name."""
    figures: dict[str, float] = {}
    for one in drawn:
        own, scene = of_rollouts(one.scene.judge.task, one.groups, one.scores), one.scene
        figures |= own if scene.is_own else {}
        figures |= {} if scene.is_alone else {scene.named(name): own[name] for name in NAMED}
        figures |= {scene.named(name): value for name, value in of_proxy(one).items()}
    return figures


def of_rollouts(task: Any, groups: Sequence[Group], scores: Sequence[Sequence[Score]]) -> dict[str, float]:
    """Figures of what was said and what it earned, by the names the report knows."""
    flat = [s for row in scores for s in row]
    known = [s.reward for s in flat if s.reward is not None]
    made = [attempts_of(task, group.problem, rollout) for group in groups for rollout in group.rollouts]
    return {
        "reward": float(np.mean(known)) if known else 0.0,
        "pass_rate": float(np.mean([s.verdict is Verdict.PASS for s in flat])),
        "format_rate": float(np.mean([s.parts.get("format", 0.0) for s in flat])),
        "response_length": float(np.mean([len(r.tokens) for g in groups for r in g.rollouts])),
        "tokens_new": float(np.mean([a.new_tokens for a in made])),
        "tokens_repeat": float(np.mean([a.repeated_tokens for a in made])),
        "tokens_other": float(np.mean([a.other_tokens for a in made])),
        "attempts": float(np.mean([a.made for a in made])),
        "frac_zero_spread": float(np.mean([not is_spread(row) for row in scores])),
        "infra_errors": float(np.mean([s.reward is None for s in flat])),
    }


def of_proxy(drawn: Drawn) -> dict[str, float]:
    """Where a reward model judges: mean and spread of what it gave, and of the rule it was learned from, if one is
    known.

    The rule is never part of a reward: it stands beside the proxy to show when only the proxy still rises.
    """
    scene, task = drawn.scene, drawn.scene.judge.task
    if "rated" not in scene.weights:
        return {}
    told = {"rated": [score.parts["rated"] for row in drawn.scores for score in row if "rated" in score.parts]}
    if isinstance(task, Helpable):
        told["helpfulness"] = [
            helpfulness_of(task, group.problem, rollout.text) for group in drawn.groups for rollout in group.rollouts
        ]
    means = {name: float(np.mean(values)) for name, values in told.items() if values}
    return means | {f"{name}_std": float(np.std(values)) for name, values in told.items() if values}


def helpfulness_of(task: Helpable, problem: Problem, text: str) -> float:
    """What the task's own rule says of a whole text: of the part that its check would read."""
    return float(task.helpfulness(problem, answer_of(text, reads(task)) or ""))


def watched(scenes: Sequence[Scene], policy: Policy, config: Grpo) -> tuple[dict[str, float], tuple[int, float]]:
    """Each scenario's pass@1 on a few held-out problems, begun or not; and the tokens and FLOPs of all."""
    told, tokens, flops = dict[str, float](), 0, 0.0
    for scene in scenes:
        told["held_out_pass" if scene.is_own else scene.named("held_out_pass")], cost = held_out_pass(
            policy, scene.judge, config
        )
        tokens, flops = tokens + cost[0], flops + cost[1]
    return told, (tokens, flops)


def held_out_pass(policy: Policy, judge: Judge, config: Grpo | Distill) -> tuple[float, tuple[int, float]]:
    """pass@1 on a few held-out problems, four rollouts each, the same ones every time; and its tokens and FLOPs."""
    asked = list(islice(problems(judge.task, "held_out", "watch", distinct=True), config.held_out_problems))
    groups = sample_groups(policy, asked, 4, config.sampling, "watch")
    world = policy.lanes.world
    rows = judge.verdicts(groups) if world.leads else []
    passed = world.told([verdict is Verdict.PASS for row in rows for verdict in row])
    return float(np.mean(passed)), generation_cost(policy, groups)


def of_scenes(scenes: Sequence[Scene], *, leads: bool) -> list[SelfTest]:
    """Every scenario's answer key, where this process judges, and its split; named where it is not the stage's own."""
    tests: list[SelfTest] = []
    for scene in scenes:
        own = [*(of_key(scene.judge.task, scene.judge.checker) if leads else ()), of_split(scene.judge.task)]
        tests += own if scene.is_own else [replace(test, name=scene.named(test.name)) for test in own]
    return tests
