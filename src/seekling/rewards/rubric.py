"""Rewards as a rubric: named, weighted criteria. A score keeps its parts; a failed check is never a reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from pydantic import Field, field_validator, model_validator

from seekling.config import Settings, fingerprint
from seekling.records import Group, Problem, Rollout, Score, Verdict
from seekling.rewards.criteria import (
    Language,
    Length,
    Overlong,
    Repetition,
    language_part,
    length_parts,
    manner,
    overlong_part,
    repeated_share,
)
from seekling.rewards.functions import Function, Functions
from seekling.rewards.given import Failed, Given
from seekling.rewards.judge import ModelJudge, Referee
from seekling.rewards.rated import Rate, Rated, Rating
from seekling.text.reasoning import split
from seekling.workers.strangers import digest


class Rubric(Settings):
    """Weights of the criteria; the reward is their weighted sum. R1-Zero used accuracy and format alike.

    A criterion with settings of its own is a table, or its weight alone. A key with a colon names a user's own
    function: ``"./rewards.py:brief" = 0.3``.
    """

    accuracy: float = Field(1.0, ge=0, description="the final answer passes the task's check")
    format: float = Field(0.0, ge=0, description="exactly one <think>...</think><answer>...</answer>")
    fresh: float = Field(0.0, ge=0, description="no line of the thinking repeats an earlier one")
    language: Language = Language()
    length: Length = Length()
    overlong: Overlong = Overlong()
    repetition: Repetition = Repetition()
    judge: ModelJudge = ModelJudge()
    rated: Rated = Rated()
    functions: dict[str, Function] = Field({}, description='own functions by name; "./rewards.py:brief" = 0.3 is short')

    @model_validator(mode="before")
    @classmethod
    def _with_functions(cls, value: Any) -> Any:
        """Keys with a colon are functions."""
        if not isinstance(value, Mapping):
            return value
        own = {key: weight for key, weight in value.items() if ":" in key}
        rest = {key: inner for key, inner in value.items() if key not in own}
        return rest | {"functions": {**rest.get("functions", {}), **own}} if own else rest

    @model_validator(mode="after")
    def _weighs_something(self) -> Rubric:
        if not any(self.weights().values()):
            raise ValueError("nothing is weighed: give at least one criterion a weight above 0")
        return self

    @field_validator("functions")
    @classmethod
    def _by_name(cls, value: dict[str, Function]) -> dict[str, Function]:
        if wrong := [name for name in value if ":" not in name]:
            raise ValueError(f'"{wrong[0]}" names no function: write "./file.py:{wrong[0]}"')
        return value

    def weights(self) -> dict[str, float]:
        """Every criterion's weight by the name of its part, user functions among them."""
        named = {name: getattr(self, name) for name in type(self).model_fields if name != "functions"}
        plain = {name: own if isinstance(own, float) else own.weight for name, own in named.items()}
        return plain | {name: function.weight for name, function in self.functions.items()}


def content_hash(rubric: Rubric) -> str | None:
    """What a fingerprint needs to know of a rubric beside its settings: the files of its functions; None without any.

    Raises UserError for a file that is not there.
    """
    own = {name: digest(name) for name, function in rubric.functions.items() if function.weight}
    return fingerprint(own) if own else None


class Outside:
    """Those criteria of a rubric that ask somebody else: functions in workers, a judge over the network, a rater.

    They are made when the rubric weighs them and work when first asked; ``close`` ends them. ``rate`` asks the reward
    model: raises UserError where the rubric weighs what it says, and there is none.
    """

    def __init__(self, rubric: Rubric, rate: Rate | None = None) -> None:
        self._sources: dict[str, Functions | Referee | Rating] = {
            name: Functions(name, function) for name, function in rubric.functions.items() if function.weight
        }
        if rubric.judge.weight:
            self._sources["judge"] = Referee(rubric.judge)
        if rubric.rated.weight:
            self._sources["rated"] = Rating(rubric.rated, rate)

    def given(self, groups: Sequence[Group]) -> list[list[dict[str, Given]]]:
        """Their parts for every rollout. Raises UserError when one of them fails on more than 1 % of rollouts."""
        rows = {name: source.given(groups) for name, source in self._sources.items()}
        return [
            [{name: row[at][number] for name, row in rows.items()} for number in range(len(group.rollouts))]
            for at, group in enumerate(groups)
        ]

    def close(self) -> None:
        """Kill the workers, close the connections."""
        for source in self._sources.values():
            source.close()


def answer_of(text: str, reads: str = "answer") -> str | None:
    """What a check is asked about: the content of ``<answer>``, or for "reply" all that is outside the thinking.

    None when there is nothing of the kind: then the verdict is UNPARSED.
    """
    reasoning = split(text)
    return reasoning.answer if reads == "answer" else reasoning.reply.strip() or None


def score_groups(
    groups: Sequence[Group],
    verdicts: Sequence[Sequence[Verdict]],
    rubric: Rubric,
    *,
    outside: Outside | None = None,
) -> list[list[Score]]:
    """Every rollout's score from its verdict, its text and its siblings.

    INFRA_ERROR, and a function or a judge that fails, leave the reward open: never 0, never 1. ``outside`` keeps
    workers and connections from one call to the next; without it they last for this one.
    """
    if outside is None:
        with closing(Outside(rubric)) as own:
            return score_groups(groups, verdicts, rubric, outside=own)
    scores = []
    for group, row, given in zip(groups, verdicts, outside.given(groups), strict=True):
        told = zip(row, _inside(group, row, rubric), given, strict=True)
        scores.append([_score(verdict, {**parts, **more}, rubric) for verdict, parts, more in told])
    return scores


def _inside(group: Group, verdicts: Sequence[Verdict], rubric: Rubric) -> list[dict[str, Given]]:
    """The parts of a group's rollouts that are computed here."""
    rows = [
        _alone(group.problem, rollout, verdict, rubric)
        for rollout, verdict in zip(group.rollouts, verdicts, strict=True)
    ]
    if rubric.length.weight:
        for parts, length in zip(rows, length_parts(group, verdicts, rubric.length), strict=True):
            parts["length"] = length
    return rows


def _alone(problem: Problem, rollout: Rollout, verdict: Verdict, rubric: Rubric) -> dict[str, Given]:
    """What one rollout earns by itself, in each criterion that is told or weighed."""
    reasoning = split(rollout.text)
    parts: dict[str, Given] = {"accuracy": float(verdict is Verdict.PASS), **manner(reasoning)}
    if rubric.language.weight:
        parts["language"] = language_part(reasoning.thinking, rubric.language, problem)
    if rubric.overlong.weight:
        parts["overlong"] = overlong_part(rollout, rubric.overlong)
    if rubric.repetition.weight:
        parts["repetition"] = -repeated_share(rollout.text, rubric.repetition.n)
    return parts


def _score(verdict: Verdict, given: Mapping[str, Given], rubric: Rubric) -> Score:
    """The weighted sum of what applies. Where something failed, or nothing that is weighed applies, there is none."""
    weights = rubric.weights()
    parts = {name: float(part) for name, part in given.items() if isinstance(part, int | float)}
    has_failed = any(isinstance(part, Failed) for part in given.values())
    if verdict is Verdict.INFRA_ERROR or has_failed or not any(weights[name] for name in parts):
        return Score(None, Verdict.INFRA_ERROR, parts)
    return Score(sum(weights[name] * part for name, part in parts.items()), verdict, parts)
