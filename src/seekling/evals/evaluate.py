"""Evaluate a sampler on problems: one table of figures, each with its interval over problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from seekling.evals.diversity import distinct, self_bleu
from seekling.evals.measure import bootstrap, maj_at_k, pass_at_k, powers_of_two
from seekling.records import Group, Problem, Rollout, Score, Verdict
from seekling.rewards.criteria import is_readable, told_language
from seekling.rewards.rubric import Rubric
from seekling.tasks.protocol import Task, Traceable
from seekling.text.reasoning import split

Sample = Callable[[Sequence[Problem], int], list[Group]]
"""From problems and a number of rollouts each to groups: the only thing an evaluation knows of a model."""

DIVERSITY_PROBLEMS, DIVERSITY_ROLLOUTS = 32, 8
"""Of how many problems, and of how many rollouts each, words are compared."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One problem with its rollouts and their scores."""

    group: Group
    scores: tuple[Score, ...]

    @property
    def num_passed(self) -> int:
        """How many rollouts passed."""
        return sum(score.verdict is Verdict.PASS for score in self.scores)


def figures(task: Task, judged: Sequence[Judged]) -> dict[str, Any]:
    """Every figure of an evaluation as plain JSON: pass@k, maj@k, lengths, format, diversity, by size."""
    num = len(judged[0].group.rollouts)
    ks = powers_of_two(num)

    def mean(figure: Callable[[Judged], float]) -> dict[str, float]:
        return interval([figure(j) for j in judged])

    return {
        "problems": len(judged),
        "samples": num,
        "pass_at_k": {str(k): interval([pass_at_k(num, j.num_passed, k) for j in judged]) for k in ks},
        "maj_at_k": {str(k): interval([_majority(j, k) for j in judged]) for k in ks},
        "mean_tokens": mean(lambda j: _mean(len(r.tokens) for r in j.group.rollouts)),
        "format_rate": mean(lambda j: _mean(s.parts.get("format", 0.0) for s in j.scores)),
        "distinct_answers": mean(lambda j: len({split(r.text).answer for r in j.group.rollouts})),
        "entropy": mean(lambda j: _mean(-r.logps.mean() for r in j.group.rollouts)),
        **_attempt_figures(task, judged),
        **_diversity_figures(judged),
        **_readable_figures(judged),
        "by_size": _by_size(judged),
    }


def criteria(judged: Sequence[Judged], rubric: Rubric) -> dict[str, dict[str, float]]:
    """What each criterion that is weighed beside accuracy and form gave on average, over the problems it applies to."""
    names = [name for name, weight in rubric.weights().items() if weight and name not in ("accuracy", "format")]
    given = {name: [[s.parts[name] for s in j.scores if name in s.parts] for j in judged] for name in names}
    return {name: interval([_mean(row) for row in rows if row]) for name, rows in given.items() if any(rows)}


def examples(judged: Sequence[Judged], num_problems: int, num_rollouts: int) -> list[dict[str, Any]]:
    """The first problems with their first rollouts, for a person to read."""
    return [
        {
            "problem_id": j.group.problem.id,
            "prompt": j.group.problem.prompt,
            "answer": j.group.problem.answer,
            "size": j.group.problem.size,
            "rollouts": [
                {"text": r.text, "verdict": s.verdict.value, "tokens": len(r.tokens)}
                for r, s in list(zip(j.group.rollouts, j.scores, strict=True))[:num_rollouts]
            ],
        }
        for j in judged[:num_problems]
    ]


@dataclass(frozen=True, slots=True)
class Attempts:
    """What one rollout's thinking is made of: attempts, how many are distinct, and tokens (new, repeated, other)."""

    made: int
    distinct: int
    new_tokens: float
    repeated_tokens: float
    other_tokens: float


def attempts_of(task: Any, problem: Problem, rollout: Rollout) -> Attempts:
    """Split a rollout's tokens among new attempts, repeats and the rest, by share of characters."""
    total = len(rollout.tokens)
    if not isinstance(task, Traceable):
        return Attempts(0, 0, 0.0, 0.0, float(total))
    made = task.attempts(problem, split(rollout.text).thinking)
    distinct = list(dict.fromkeys(made))
    characters = max(1, len(rollout.text))
    new = total * min(1.0, sum(map(len, distinct)) / characters)
    repeated = total * min(1.0, sum(map(len, made)) / characters) - new
    return Attempts(len(made), len(distinct), new, repeated, total - new - repeated)


def interval(values: Sequence[float]) -> dict[str, float]:
    """A bootstrap interval as plain JSON."""
    return asdict(bootstrap(values))


def _attempt_figures(task: Task, judged: Sequence[Judged]) -> dict[str, Any]:
    """Attempts per rollout and the share of them that are distinct (rollouts without attempts count as 1)."""
    made = [[attempts_of(task, j.group.problem, r) for r in j.group.rollouts] for j in judged]
    return {
        "attempts": interval([_mean(a.made for a in row) for row in made]),
        "distinct_attempts": interval([_mean(a.distinct / a.made if a.made else 1.0 for a in row) for row in made]),
    }


def _diversity_figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """How the first rollouts of the first problems differ in words: a fixed small sample, for it is dear to count."""
    texts = [[r.text for r in j.group.rollouts[:DIVERSITY_ROLLOUTS]] for j in judged[:DIVERSITY_PROBLEMS]]
    found = {f"distinct_{n}": interval([distinct(row, n) for row in texts]) for n in (1, 2, 3)}
    return found | {"self_bleu": interval([self_bleu(row) for row in texts])}


def _readable_figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """The share of rollouts that think in the problem's language, where problems tell one; nothing where none do."""
    told = [(j, language) for j in judged if (language := told_language(j.group.problem))]
    rates = [_mean(is_readable(split(r.text), language) for r in j.group.rollouts) for j, language in told]
    return {"readable_rate": interval(rates)} if rates else {}


def _by_size(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    sizes = sorted({j.group.problem.size for j in judged})
    share = {s: [j.num_passed / len(j.scores) for j in judged if j.group.problem.size == s] for s in sizes}
    return {str(size): interval(values) for size, values in share.items()}


def _majority(judged: Judged, k: int) -> float:
    answers = [split(rollout.text).answer for rollout in judged.group.rollouts]
    passed = [score.verdict is Verdict.PASS for score in judged.scores]
    return maj_at_k(answers, passed, k, draws=1 if k == len(answers) else 64)


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
