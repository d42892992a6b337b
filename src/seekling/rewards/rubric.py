"""Rewards as a rubric: named, weighted criteria. A score keeps its parts; a failed check is never a reward."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from seekling.config import Settings
from seekling.records import Group, Score, Verdict
from seekling.text.reasoning import split


class Rubric(Settings):
    """Weights of the criteria; the reward is their weighted sum. R1-Zero used accuracy and format alike."""

    accuracy: float = Field(1.0, ge=0, description="the final answer passes the task's check")
    format: float = Field(0.0, ge=0, description="exactly one <think>...</think><answer>...</answer>")
    fresh: float = Field(0.0, ge=0, description="no line of the thinking repeats an earlier one")


def answer_of(text: str, reads: str = "answer") -> str | None:
    """What a check is asked about: the content of ``<answer>``, or for "reply" all that is outside the thinking.

    None when there is nothing of the kind: then the verdict is UNPARSED.
    """
    reasoning = split(text)
    return reasoning.answer if reads == "answer" else reasoning.reply.strip() or None


def score_groups(groups: Sequence[Group], verdicts: Sequence[Sequence[Verdict]], rubric: Rubric) -> list[list[Score]]:
    """Every rollout's score from its verdict and its text. INFRA_ERROR leaves the reward open: never 0, never 1."""
    return [
        [score(rollout.text, verdict, rubric) for rollout, verdict in zip(group.rollouts, row, strict=True)]
        for group, row in zip(groups, verdicts, strict=True)
    ]


def score(text: str, verdict: Verdict, rubric: Rubric) -> Score:
    """One rollout's score: the weighted sum of its parts."""
    reasoning = split(text)
    parts = {
        "accuracy": float(verdict is Verdict.PASS),
        "format": float(reasoning.well_formed),
        "fresh": float(is_fresh(reasoning.thinking)),
    }
    reward = sum(getattr(rubric, name) * part for name, part in parts.items())
    return Score(None if verdict is Verdict.INFRA_ERROR else reward, verdict, parts)


def is_fresh(thinking: str) -> bool:
    """Whether no line repeats an earlier one, empty lines apart."""
    lines = [line for line in thinking.split("\n") if line.strip()]
    return len(set(lines)) == len(lines)
