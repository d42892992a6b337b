"""Groups to scores, the whole way: what each rollout said is read, checked within limits, and weighed by the rubric.

The one place where tasks meet rewards. Training, evaluations, controls and probes all judge through it, so that a
rollout is worth the same wherever it is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seekling.evals.evaluate import Judged
from seekling.records import Group, Score, Verdict
from seekling.rewards.given import Failed, Given, Tally
from seekling.rewards.rated import Rate
from seekling.rewards.rubric import Outside, Rubric, answer_of, score_groups
from seekling.tasks.checking import Checked, Checker
from seekling.tasks.protocol import reads
from seekling.tasks.registry import build_task


class Judge:
    """Scores for a task's rollouts. ``spec`` names the task as a manifest does; ``size`` workers, 0 for one a core.

    ``rate`` asks the reward model that the rubric weighs, if it does.
    ``scores`` raises TooManyFailed with the check's own words when more than 1 % of all checks so far failed by
    themselves: what is left would be a reward that nobody gave.
    """

    def __init__(
        self, spec: str | Mapping[str, Any], rubric: Rubric, *, size: int = 0, rate: Rate | None = None
    ) -> None:
        self.task: Any = build_task(spec)
        self.rubric = rubric
        self.checker = Checker(self.task, spec, size=size)
        self.outside = Outside(rubric, rate)
        self._tally = Tally(
            f'the check of task "{self.task.name}"', "Mend the task's check: it must return a verdict for every text."
        )

    def verdicts(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        """One verdict per rollout, without what else a rubric asks of strangers: no judge is paid for it."""
        asked = [(g.problem, answer_of(r.text, reads(self.task))) for g in groups for r in g.rollouts]
        told = iter(self.checker.verdicts(asked))
        rows = [[next(told) for _ in group.rollouts] for group in groups]
        self._tally.check(groups, [[_failure(checked) for checked in row] for row in rows])
        return [[checked.verdict for checked in row] for row in rows]

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


def _failure(checked: Checked) -> Given:
    """A check that failed by itself, as the tally counts it."""
    return Failed(checked.said) if checked.verdict is Verdict.INFRA_ERROR else None
