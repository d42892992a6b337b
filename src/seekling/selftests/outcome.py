"""A start-up self-test's outcome: a name, a figure, and the refusal to train when it fails.

Where peers train wrongly without a word, these speak: the sampler and the learner disagree, the loss depends on how
the batch is sliced, the answer key is judged wrong, held-out problems leak into training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from seekling.errors import SelfTestFailed


@dataclass(frozen=True, slots=True)
class SelfTest:
    """One test's outcome: it passes when ``figure`` does not exceed ``limit``."""

    name: str
    figure: float
    limit: float
    advice: str

    @property
    def passed(self) -> bool:
        """Whether training may start."""
        return self.figure <= self.limit


def require(*tests: SelfTest) -> list[dict[str, Any]]:
    """The outcomes as plain JSON. Raises SelfTestFailed naming the first that failed."""
    for test in tests:
        if not test.passed:
            raise SelfTestFailed(
                f'self-test "{test.name}" failed: {test.figure:.3g}, at most {test.limit:g} is allowed',
                next_step=test.advice,
            )
    return [{**asdict(test), "passed": test.passed} for test in tests]
