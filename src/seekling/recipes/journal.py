"""Rollouts and scores as journal lines, exactly: what was drawn and judged before an update, replayed after a crash."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seekling.errors import UserError
from seekling.learn.parallel.world import World
from seekling.records import Group, Kept, Problem, Rollout, Score, Stop, Verdict
from seekling.runlog.run import Journal

Drawn = tuple[list[Group], list[list[Score]]]


class SharedJournal(Journal):
    """A journal that the first of several processes keeps; the others hear what it says."""

    def __init__(self, folder: Path, world: World) -> None:
        super().__init__(folder)
        self.world = world

    def recall(self, step: int) -> dict[str, Any] | None:
        """What the first process finds. All ask at once."""
        return self.world.told(super().recall(step))

    def write(self, step: int, entry: Mapping[str, Any]) -> None:
        """At the first process alone."""
        if self.world.leads:
            super().write(step, entry)


def remember(
    journal: Journal, step: int, groups: Sequence[Group], scores: Sequence[Sequence[Score]], **more: Any
) -> None:
    """Write a step's groups and scores, and what else its line is to tell."""
    lines = [_group_line(group, row) for group, row in zip(groups, scores, strict=True)]
    journal.write(step, {"groups": lines, **more})


def recall(journal: Journal, step: int, ask: Callable[[Mapping[str, Any]], Sequence[Problem]]) -> Drawn | None:
    """A journaled step, or None. Raises UserError when it speaks of other problems than this run would ask.

    ``ask`` tells which those are, from the step's line.
    """
    line = journal.recall(step)
    if line is None:
        return None
    try:
        return _drawn(journal, step, line, ask(line))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"what {journal.file} says of step {step} is damaged ({type(error).__name__}: {error})",
            next_step="Delete that line, or restore the file from a copy; the step is then drawn again.",
        ) from None


def _drawn(journal: Journal, step: int, line: dict[str, Any], asked: Sequence[Problem]) -> Drawn:
    if [group["problem"] for group in line["groups"]] != [problem.id for problem in asked]:
        raise UserError(
            f"step {step} in {journal.file} speaks of other problems than this run asks",
            next_step="The task's code has changed since; delete the stage's folder to start it anew.",
        )
    groups = [
        Group(problem, tuple(rollout_of(told) for told in group["rollouts"]))
        for problem, group in zip(asked, line["groups"], strict=True)
    ]
    return groups, [[score_of(told) for told in group["rollouts"]] for group in line["groups"]]


def _group_line(group: Group, scores: Sequence[Score]) -> dict[str, Any]:
    told = [rollout_line(rollout) | score_line(score) for rollout, score in zip(group.rollouts, scores, strict=True)]
    return {"problem": group.problem.id, "prompt": group.problem.prompt, "rollouts": told}


def rollout_line(rollout: Rollout) -> dict[str, Any]:
    """A rollout as plain JSON values, to the bit."""
    routes = None if rollout.routes is None else [list(rollout.routes.shape), _pack(rollout.routes)]
    return {
        "text": rollout.text, "stop": rollout.stop.value, "seed": rollout.seed, "prompt": list(rollout.prompt),
        "tokens": list(rollout.tokens), "logps": _pack(rollout.logps), "routes": routes,
        **({"kept": [_pack(rollout.kept.ids), _pack(rollout.kept.ends)]} if rollout.kept else {}),
    }  # fmt: skip


def score_line(score: Score) -> dict[str, Any]:
    """A score as plain JSON values."""
    return {"reward": score.reward, "verdict": score.verdict.value, "parts": dict(score.parts)}


def rollout_of(told: dict[str, Any]) -> Rollout:
    """The rollout of a line."""
    routes = told["routes"] and _unpack(told["routes"][1], np.int16).reshape(told["routes"][0])
    logps = _unpack(told["logps"], np.float32)
    prompt, tokens = tuple(told["prompt"]), tuple(told["tokens"])
    kept = Kept(_unpack(told["kept"][0], np.int32), _unpack(told["kept"][1], np.int64)) if "kept" in told else None
    return Rollout(prompt, tokens, logps, told["text"], Stop(told["stop"]), told["seed"], routes, kept)


def score_of(told: dict[str, Any]) -> Score:
    """The score of a line."""
    return Score(told["reward"], Verdict(told["verdict"]), told["parts"])


def _pack(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _unpack(text: str, dtype: Any) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype).copy()
