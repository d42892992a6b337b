"""The cheapest things that could also have raised the score, each at the trained model's mean tokens.

A gain counts only above the best of them: a decode rule, a blind guesser, more samples, shuffled rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Any

from seekling.evals.evaluate import Judged
from seekling.evals.measure import pass_at_k
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import Task


def hold_thought_open(task: Any, problem: Problem, close: int, decode: Callable[[Sequence[int]], str]) -> Any:
    """A ban on the end of thought until an attempt hits: an oracle's stop rule, stronger than any real one."""

    def ban(said: Sequence[int]) -> Collection[int]:
        return () if close in said or task.hits(problem, decode(said)) else (close,)

    return ban


def passes_within(judged: Sequence[Judged], limit: int) -> list[float]:
    """Per problem, the share of rollouts that passed in at most ``limit`` tokens."""
    return [
        sum(
            s.verdict is Verdict.PASS and len(r.tokens) <= limit
            for r, s in zip(j.group.rollouts, j.scores, strict=True)
        )
        / len(j.scores)
        for j in judged
    ]


def limit_for(judged: Sequence[Judged], mean_tokens: float) -> int:
    """The largest token limit at which these rollouts, cut there, say ``mean_tokens`` tokens on average."""
    lengths = [len(r.tokens) for j in judged for r in j.group.rollouts]
    fitting = [limit for limit in range(1, max(lengths) + 1) if _mean_cut(lengths, limit) <= mean_tokens]
    return fitting[-1] if fitting else 1


def cut_tokens(judged: Sequence[Judged], limit: int) -> float:
    """Mean tokens of the rollouts when cut at ``limit``."""
    return _mean_cut([len(r.tokens) for j in judged for r in j.group.rollouts], limit)


def blind_pass(task: Any, problems: Sequence[Problem], tries: int, *, draws: int = 64) -> list[float]:
    """Per problem, how often a guesser without a model hits within ``tries`` guesses."""
    return [sum(_blind_hit(task, p, tries, f"{p.id}/{draw}") for draw in range(draws)) / draws for p in problems]


def base_pass(judged: Sequence[Judged], k: float) -> list[float]:
    """Per problem, pass@k of the base (k may be fractional: equal total tokens rarely come out whole)."""
    return [pass_at_k(len(j.scores), j.num_passed, max(1.0, min(k, len(j.scores)))) for j in judged]


def _blind_hit(task: Any, problem: Problem, tries: int, seed: str) -> bool:
    rng = Random(f"blind/{seed}")
    return any(_right(task, problem, task.guess(problem, rng)) for _ in range(tries))


def _right(task: Task, problem: Problem, answer: str) -> bool:
    return task.check(problem, answer) is Verdict.PASS


def _mean_cut(lengths: Sequence[int], limit: int) -> float:
    return sum(min(length, limit) for length in lengths) / len(lengths)
