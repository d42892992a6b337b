"""Preferences nobody had to write down: two answers of a stage's own model, labelled by its task's hidden rule.

The rule knows how helpful an answer is (``Helpable``), and stands for people: it is not asked which of two is better,
but how likely somebody is to say so (Bradley and Terry 1952), so that some labels are wrong, as people's are. What
learns from them can then be held against both, the labels and the rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import islice
from random import Random
from typing import Any

from seekling.errors import UserError
from seekling.recipes.chats import Pair, Row
from seekling.recipes.config import Preferences, RewardModel
from seekling.recipes.curating import distinct
from seekling.recipes.evaluate import PROBLEMS_PER_CALL
from seekling.recipes.policy import Policy, generation_cost, sample_groups
from seekling.recipes.scenes import helpfulness_of
from seekling.recipes.stage import Clock, Interrupted, Stage
from seekling.records import Problem, Stop
from seekling.rewards.rated import heard_of
from seekling.runlog.run import Journal
from seekling.tasks.protocol import Helpable, problems, split_of
from seekling.tasks.registry import build_task
from seekling.verify.replies import emptiness


@dataclass(frozen=True, slots=True)
class Answered:
    """A labelled pair and by how much the rule prefers its chosen reply; or why there is none."""

    pair: Pair | None
    held_out: bool
    apart: float = 0.0
    why: str = ""


def drawn_pairs(stage: Stage, config: Preferences) -> Iterator[Answered]:
    """A pair of each problem: training ones first, then as many held-out ones as are compared."""
    task = build_task(config.task)
    trained = islice(problems(task, "train", f"{stage.seed}/pairs"), config.problems)
    num_watched = config.held_out_pairs if config.held_out else 0
    watched = distinct(problems(task, "held_out", "watch"), num_watched)  # of a small task all that there are
    pieces = [*batched(list(trained)), *batched(list(watched))]
    reads = config.reads if isinstance(config, RewardModel) else "whole"
    for place, (problem, texts) in enumerate(answers(stage, config, pieces)):
        said = list(dict.fromkeys(heard_of(text, reads) for text in texts))
        rule = {heard_of(text, reads): helpfulness(task, problem, text) for text in reversed(texts)}
        yield paired(problem, said, rule, config.noise, Random(f"{stage.seed}/pairs/{place}"))


def paired(problem: Problem, said: Sequence[str], rule: dict[str, float], noise: float, rng: Random) -> Answered:
    """Two different answers that say something, drawn from ``said``, the preferred one first."""
    held_out = split_of(problem.id) == "held_out"
    telling = [one for one in said if not emptiness(one)]
    if len(telling) < 2:
        return Answered(None, held_out, why="alike")
    one, other = rng.sample(telling, 2)
    if rule[one] == rule[other]:
        return Answered(None, held_out, why="tied")
    if not is_preferred(rule[one] - rule[other], noise, rng):
        one, other = other, one
    asked, where = {"role": "user", "content": problem.prompt}, f"problem {problem.id}"
    chosen, rejected = (Row([asked, {"role": "assistant", "content": text}], where, given=1) for text in (one, other))
    return Answered(Pair(chosen, rejected), held_out, rule[one] - rule[other])


def is_preferred(difference: float, noise: float, rng: Random) -> bool:
    """Whether the first of two is called better: with probability sigmoid(difference / noise); noise 0: if it is."""
    if not noise:
        return difference > 0
    return rng.random() < 0.5 * (1 + math.tanh(difference / (2 * noise)))


def helpfulness(task: Helpable, problem: Problem, text: str) -> float:
    """The rule's word on a whole text. Raises UserError for one that is no number."""
    value = helpfulness_of(task, problem, text)
    if not math.isfinite(value):
        raise UserError(
            f"the task's helpfulness is {value!r} for the text {text[:300]!r}",
            where=f"problem {problem.prompt[:300]!r}",
            next_step="It must return a finite number for every answer.",
        )
    return value


def batched(asked: Sequence[Problem]) -> list[Sequence[Problem]]:
    """In pieces that are sampled, and journaled, at once."""
    return [asked[start : start + PROBLEMS_PER_CALL] for start in range(0, len(asked), PROBLEMS_PER_CALL)]


def answers(
    stage: Stage, config: Preferences, pieces: Sequence[Sequence[Problem]]
) -> Iterator[tuple[Problem, Sequence[str]]]:
    """Each problem with the whole texts that the input's model answered, those that came to an end.

    What was sampled is journaled, and not sampled again.
    """
    policy = cache(lambda: _policy(stage))
    with closing(stage.journal()) as journal:
        for index, piece in enumerate(pieces):
            told = _recalled(journal, index, piece)
            if told is None:
                if stage.world.told(stage.stop_requested()):
                    raise Interrupted
                told = _asked(stage, config, policy(), index, piece)
                journal.write(index, {"problems": [problem.id for problem in piece], "answers": told})
                stage.tell(stage.name, index, len(pieces), {})
            yield from zip(piece, told, strict=True)


def _policy(stage: Stage) -> Policy:
    return Policy.load(stage.inputs[0].model, stage.device, stage.lanes, spoken=stage.dtype)


def _asked(stage: Stage, config: Preferences, policy: Policy, index: int, piece: Sequence[Problem]) -> list[list[str]]:
    clock = Clock()
    groups = sample_groups(policy, piece, config.samples, config.sampling, f"{stage.seed}/pairs/{index}")
    stage.charge(index, "generate", *generation_cost(policy, groups), clock.lap())
    return [[rollout.text for rollout in group.rollouts if rollout.stop is Stop.STOP] for group in groups]


def _recalled(journal: Journal, index: int, piece: Sequence[Problem]) -> Any:
    line = journal.recall(index)
    if line is None:
        return None
    told, ids = line.get("answers"), [problem.id for problem in piece]
    if line.get("problems") != ids or not isinstance(told, list) or len(told) != len(piece):
        raise UserError(
            f"step {index} in {journal.file} speaks of other problems than this run asks",
            next_step="The task's code or held_out_pairs has changed; delete the stage's folder to start it anew.",
        )
    return told
