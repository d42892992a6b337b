"""Groups to scores, the whole way: what each rollout said is read, checked within limits, and weighed by the rubric.

The one place where tasks meet rewards. Training, evaluations, controls and probes all judge through it, so that a
rollout is worth the same wherever it is judged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from seekling.errors import UserError
from seekling.evals.evaluate import Judged
from seekling.records import Group, Problem, Score, Verdict
from seekling.rewards.rubric import Outside, Rubric, answer_of, score_groups
from seekling.tasks.checking import Checked, Checker
from seekling.tasks.protocol import reads
from seekling.tasks.registry import build_task

MOST_FAILED = 0.01
"""Share of checks that may fail by themselves before a run stops. One alone never stops it."""


class Judge:
    """Scores for a task's rollouts. ``spec`` names the task as a manifest does.

    ``scores`` raises UserError with the check's own words when more than 1 % of all checks so far failed by
    themselves: what is left would be a reward that nobody gave.
    """

    def __init__(self, spec: str | Mapping[str, Any], rubric: Rubric, *, size: int = os.cpu_count() or 1) -> None:
        self.task: Any = build_task(spec)
        self.rubric = rubric
        self.checker = Checker(self.task, spec, size=size)
        self.outside = Outside(rubric)
        self._seen = self._failed = 0

    def verdicts(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        """One verdict per rollout, without what else a rubric asks of strangers: no judge is paid for it."""
        asked = [(g.problem, answer_of(r.text, reads(self.task))) for g in groups for r in g.rollouts]
        checked = self.checker.verdicts(asked)
        self._stop_on_broken(asked, checked)
        told = iter(checked)
        return [[next(told).verdict for _ in group.rollouts] for group in groups]

    def scores(self, groups: Sequence[Group]) -> list[list[Score]]:
        """One score per rollout."""
        return score_groups(groups, self.verdicts(groups), self.rubric, outside=self.outside)

    def judged(self, groups: Sequence[Group]) -> list[Judged]:
        """The groups with their scores."""
        return [Judged(group, tuple(row)) for group, row in zip(groups, self.scores(groups), strict=True)]

    def close(self) -> None:
        """Kill the workers, close the connections, if there are any."""
        self.checker.close()
        self.outside.close()

    def _stop_on_broken(self, asked: Sequence[tuple[Problem, str | None]], checked: Sequence[Checked]) -> None:
        failed = [
            (pair, one.said) for pair, one in zip(asked, checked, strict=True) if one.verdict is Verdict.INFRA_ERROR
        ]
        self._seen, self._failed = self._seen + len(asked), self._failed + len(failed)
        if self._failed < 2 or self._failed <= MOST_FAILED * self._seen:
            return
        (problem, answer), said = failed[0]
        raise UserError(
            f'the check of task "{self.task.name}" fails on {self._failed} of {self._seen} rollouts: {said}',
            where=f"first on problem {problem.prompt!r}, answer {answer!r}",
            next_step="Mend the task's check: it must return a verdict for every text; the same command goes on.",
        )
