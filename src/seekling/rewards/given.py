"""Parts of a reward that somebody else gives: a user's function, a judge. They may fail, and that is never a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seekling.errors import TooManyFailed
from seekling.records import Group

MOST_FAILED = 0.01
"""Share of failures before a run stops. One alone never stops it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No part could be had, and in words why: it leaves the rollout's whole reward open."""

    said: str


Given = float | None | Failed
"""One part for one rollout; None says that the criterion does not apply to it."""


class Tally:
    """Counts what one source gave and what failed. ``name`` is what a person calls the source."""

    def __init__(self, name: str, next_step: str) -> None:
        self.name, self.next_step = name, next_step
        self._seen = self._failed = 0

    def check(self, groups: Sequence[Group], given: Sequence[Sequence[Given]]) -> None:
        """Raises TooManyFailed with the first failure's own words when more than 1 % of all so far have failed."""
        pairs = [
            (group, rollout, one)
            for group, row in zip(groups, given, strict=True)
            for rollout, one in zip(group.rollouts, row, strict=True)
        ]
        failed = [(group, rollout, one.said) for group, rollout, one in pairs if isinstance(one, Failed)]
        self._seen, self._failed = self._seen + len(pairs), self._failed + len(failed)
        if self._failed < 2 or self._failed <= MOST_FAILED * self._seen or not failed:
            return
        group, rollout, said = failed[0]
        raise TooManyFailed(
            f"{self.name} fails on {self._failed} of {self._seen} rollouts: {said}",
            where=f"first on problem {group.problem.prompt[:300]!r}, text {rollout.text[:300]!r}",
            next_step=f"{self.next_step} Nothing is lost: the same command goes on.",
        )
