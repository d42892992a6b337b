"""Rewards as a rubric: named, weighted criteria. A score keeps its parts; a failed check is never a reward."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from seekling.config import Settings
from seekling.records import Problem, Score, Verdict
from seekling.text.reasoning import split

Check = Callable[[Problem, str], Verdict]


class Rubric(Settings):
    """Weights of the criteria; the reward is their weighted sum. R1-Zero used accuracy and format alike."""

    accuracy: float = Field(1.0, ge=0, description="the final answer passes the task's check")
    format: float = Field(0.0, ge=0, description="exactly one <think>...</think><answer>...</answer>")
    fresh: float = Field(0.0, ge=0, description="no line of the thinking repeats an earlier one")


def score(problem: Problem, text: str, rubric: Rubric, check: Check) -> Score:
    """Judge one rollout's text. A check that raises, or answers with no verdict, leaves the reward open
    (INFRA_ERROR): never 0, never 1."""
    reasoning = split(text)
    try:
        verdict = Verdict.UNPARSED if reasoning.answer is None else Verdict(check(problem, reasoning.answer))
    except Exception:  # a stranger's check may raise anything; the caller counts these and stops above 1 %
        return Score(None, Verdict.INFRA_ERROR)
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
