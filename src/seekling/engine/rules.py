"""What a request asks of its own tokens, beyond how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Ban = Callable[[Sequence[int]], Collection[int]]
"""From the tokens said so far to the tokens that must not come next: the seam for decode-time rules."""


class Rule(Protocol):
    """What a request asks of its own tokens. ``said`` is all it has said, the last token included.

    Rows may begin again, so a rule decides from ``said`` alone: it may remember how far it has read, and must notice
    when ``said`` is no continuation of that.
    """

    def limit(self, said: Sequence[int], logits_V: Tensor) -> None:
        """Change in place the scores that the next token is drawn from, float32 [V]: -inf where it must not be."""

    def ends(self, said: Sequence[int]) -> bool:
        """Whether the answer ends with the token said last."""


@dataclass(frozen=True, slots=True)
class Banned:
    """Tokens that must not come next."""

    ban: Ban

    def limit(self, said: Sequence[int], logits_V: Tensor) -> None:
        logits_V[list(self.ban(said))] = float("-inf")

    def ends(self, said: Sequence[int]) -> bool:
        return False
