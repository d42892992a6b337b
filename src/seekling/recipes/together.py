"""What several processes find apart and all must know: rollouts, and what they earned. As journal lines: no pickle."""

from __future__ import annotations

import json
from collections.abc import Sequence

from seekling.evals.evaluate import Judged
from seekling.evals.judging import Judge
from seekling.learn.parallel.world import World
from seekling.recipes.journal import rollout_line, rollout_of, score_line, score_of
from seekling.records import Group, Problem, Score


def share(world: World, problems: Sequence[Problem]) -> Sequence[Problem]:
    """The problems that this process samples: neighbours, as many as others have, or one less."""
    count = len(problems)
    return problems[count * world.rank // world.size : count * (world.rank + 1) // world.size]


def joined(world: World, problems: Sequence[Problem], groups: list[Group]) -> list[Group]:
    """The groups of all ``problems``, each process having sampled its share."""
    if world.size == 1:
        return groups
    said = json.dumps([[rollout_line(rollout) for rollout in group.rollouts] for group in groups])
    rows = [row for part in world.gathered(said.encode()) for row in json.loads(part)]
    return [Group(problem, tuple(map(rollout_of, row))) for problem, row in zip(problems, rows, strict=True)]


def scores_of(world: World, judge: Judge, groups: Sequence[Group]) -> list[list[Score]]:
    """What each rollout earned. The first process judges: a check answers once, and a judge is paid once."""
    if world.size == 1:
        return judge.scores(groups)
    told = world.told([[score_line(score) for score in row] for row in judge.scores(groups)] if world.leads else [])
    return [[score_of(line) for line in row] for row in told]


def judged(world: World, judge: Judge, groups: Sequence[Group]) -> list[Judged]:
    """The groups with their scores."""
    rows = scores_of(world, judge, groups)
    return [Judged(group, tuple(row)) for group, row in zip(groups, rows, strict=True)]
