"""Rollouts side by side: the same problems before and after, each text in its parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seekling.report.view import Comparison, EvalView, ProblemView, RolloutView

MAX_CHARACTERS = 3000
"""A longer rollout is cut on the page, aloud; the eval's file keeps it whole."""

_TAG = re.compile(r"</?(?:think|answer)>")


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a rollout: ``role`` is think, answer, tag or plain."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One problem, as it went before and as it went after; a side that has no such problem is None."""

    problem: ProblemView
    before: ProblemView | None
    after: ProblemView | None


def pairs(comparison: Comparison, limit: int) -> list[Pair]:
    """The first ``limit`` problems both sides tried, in the order of the file: none is picked by outcome."""
    before, after = (_by_id(side) for side in (comparison.before, comparison.after))
    both = [key for key in after if key in before]
    keys = both or list(after) or list(before)
    return [Pair(after.get(key) or before[key], before.get(key), after.get(key)) for key in keys[:limit]]


def tally(rollouts: Sequence[RolloutView]) -> str:
    """``3 of 8 shown pass``."""
    return f"{sum(r.verdict == 'pass' for r in rollouts)} of {len(rollouts)} kept here pass"


def parts(text: str) -> list[Part]:
    """Split a rollout at its tags, by the rules of ``text.reasoning``, but lose nothing: tags are parts too.

    A text whose first thinking tag closes was begun by the prompt, so it starts inside the thinking. Thinking
    nests; an answer's tags inside it mean nothing.
    """
    clipped = text[:MAX_CHARACTERS]
    first = next((tag for tag in _TAG.findall(clipped) if "think" in tag), "")
    found = list(_walk(clipped, depth=int(first == "</think>")))
    if len(text) > MAX_CHARACTERS:
        found.append(Part("tag", f" \u2026 {len(text) - MAX_CHARACTERS} more characters in the eval's file"))
    return found


def _walk(text: str, depth: int) -> Iterator[Part]:
    in_answer, end = False, 0
    for tag in _TAG.finditer(text):
        if tag.start() > end:
            yield Part(_role(depth, in_answer), text[end : tag.start()])
        yield Part("tag", tag[0])
        if "think" in tag[0]:
            depth, in_answer = max(0, depth + (-1 if tag[0].startswith("</") else 1)), False
        elif not depth:
            in_answer = tag[0] == "<answer>"
        end = tag.end()
    if end < len(text):
        yield Part(_role(depth, in_answer), text[end:])


def _role(depth: int, in_answer: bool) -> str:
    return "think" if depth else "answer" if in_answer else "plain"


def _by_id(evaluation: EvalView | None) -> dict[str, ProblemView]:
    return {problem.id: problem for problem in evaluation.rollouts} if evaluation else {}
