"""What a reward model says of a reply, as one criterion among others: bounded, since it is a proxy and no rule.

A policy that is paid by a reward model finds what the model overrates (R1's own preference reward rose while its
programming fell, arXiv 2501.12948, supplement B.5). So the number is first told in standard deviations from the mean
of what the model says of usual replies, then cut, then, unless told otherwise, pushed through a sigmoid: the chance
that the reply is preferred to the usual one, on the scale of all other criteria. Beyond a good reply there is
little more to earn (arXiv 2402.00742; arXiv 2502.18770 found this form to resist longest).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from seekling.errors import UserError
from seekling.records import Group
from seekling.rewards.criteria import Criterion
from seekling.rewards.given import Given
from seekling.text.reasoning import split
from seekling.verify.replies import emptiness

Reads = Literal["reply", "whole"]
"""What of a text is rated: what is said outside the thinking, as for R1's helpfulness, or all, as for its safety."""
Rate = Callable[[Sequence[str], Sequence[str]], Sequence[float | None]]
"""From prompts and replies to a number each, in standard deviations from a usual reply's; None: it cannot be read."""

SHAPES: Mapping[str, Callable[[float], float]] = {
    "sigmoid": lambda number: 0.5 * (1 + math.tanh(number / 2)),
    "number": lambda number: number,
}
"""From a bounded number of standard deviations to a part of a reward."""


class Rated(Criterion):
    """What the reward model says that the stage reads: the chance, 0 to 1, that a reply is preferred to a usual one.

    What says nothing, and what the reward model cannot read (too long for it), is worth the least there is.
    """

    reads: Reads = Field("reply", description="what is rated: all outside the thinking, or the whole text")
    shape: Literal["sigmoid", "number"] = Field("sigmoid", description="or the standardised number itself")
    most: float = Field(4.0, gt=0, description="standard deviations that count at most, either way")


class Rating:
    """A reward model at work for one rubric. Raises UserError where there is none to ask."""

    def __init__(self, rated: Rated, rate: Rate | None) -> None:
        if rate is None:
            raise UserError(
                "the rubric weighs what a reward model says, and there is none",
                next_step='In a manifest: from = ["model", "rater"]. In Python: Judge(..., rate=...).',
            )
        self.rated, self._rate = rated, rate

    def given(self, groups: Sequence[Group]) -> list[list[Given]]:
        """A part for every rollout; equal replies to one problem are rated once."""
        rows = [[(g.problem.prompt, heard_of(r.text, self.rated.reads)) for r in g.rollouts] for g in groups]
        asked = list(dict.fromkeys(pair for row in rows for pair in row if not emptiness(pair[1])))
        told = self._rate([prompt for prompt, _ in asked], [reply for _, reply in asked]) if asked else []
        known = dict(zip(asked, told, strict=True))
        return [[self._part(known.get(pair)) for pair in row] for row in rows]

    def close(self) -> None:
        """Nothing to end: the model is the stage's."""

    def _part(self, number: float | None) -> float:
        most = self.rated.most
        return SHAPES[self.rated.shape](-most if number is None else min(most, max(-most, number)))


def heard_of(text: str, reads: Reads) -> str:
    """What of a text a reward model hears."""
    return (split(text).reply if reads == "reply" else text).strip()
