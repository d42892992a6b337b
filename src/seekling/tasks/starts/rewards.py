"""Rewards of your own. A rubric names them: ``rubric = { accuracy = 1.0, "./rewards.py:brief" = 0.2 }``.

They run in workers that are killed when they overrun. A number is a part of the reward; None says that the function
does not apply. What raises, or returns anything else, leaves that rollout's reward open, and stops the run when it
happens to more than one in a hundred.
"""

from __future__ import annotations

from typing import Any

from seekling.records import Problem


def brief(problem: Problem, text: str) -> float:
    """Ours: one problem, and all that one rollout said. Here: 1 for up to 100 characters, less beyond."""
    return min(1.0, 100 / max(1, len(text)))


def polite(completions: list[str], answer: list[str], **columns: Any) -> list[float | None]:
    """As for TRL: the rollouts of one problem, and a list for each of its fields, with one entry a rollout."""
    return [None if not text.strip() else float("please" in text.lower()) for text in completions]
