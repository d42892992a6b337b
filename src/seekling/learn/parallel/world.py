"""How many processes learn together, and what one of them does: this is the world of a process that is alone.

Loops do not know which world they are in. What they ask of it is the same for one process, where nearly every answer is
what was asked about, and for many (``ranks``). Here nothing is imported that only many need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Matrices:
    """Matrices that lie here whole; a parameter [..., R, C] is a stack of them."""

    def shape(self, parameter: Tensor) -> tuple[int, int]:
        """Rows and columns of the whole matrix."""
        return parameter.shape[-2], parameter.shape[-1]

    def each(
        self, work: Callable[[Tensor], Tensor], values: Sequence[Tensor], params: Sequence[Tensor]
    ) -> list[Tensor]:
        """``work`` on the matrices of one shape, stacked [N, R, C]; ``values`` lie as their parameters do."""
        stacked_NRC = torch.cat([x.reshape(-1, *x.shape[-2:]) for x in values])
        counts = [x.numel() // (x.shape[-1] * x.shape[-2]) for x in values]
        return [part.view_as(x) for part, x in zip(torch.split(work(stacked_NRC), counts), values, strict=True)]


WHOLE = Matrices()


class Learner:
    """A model as this process trains it, alone: whole.

    ``model`` is what a loss is asked of, ``trained`` what an optimizer moves, by name.
    """

    matrices: Matrices = WHOLE

    def __init__(self, model: Any) -> None:
        self.model = model
        self.trained: dict[str, Tensor] = {n: weight for n, weight in model.named_parameters() if weight.requires_grad}

    def at_work(self) -> AbstractContextManager[None]:
        """Around an update: before it begins with the model's weights, and after it the model has what was learned."""
        return nullcontext()

    def gradients(self, value: Tensor) -> list[Tensor | None]:
        """Of a loss, in the order of ``trained``."""
        return [*torch.autograd.grad(value, list(self.trained.values()), allow_unused=True)]

    def shape(self, parameter: Tensor, value: Tensor) -> Sequence[int]:
        """That of the whole of which ``value``, which lies like a trained parameter, is a part."""
        return value.shape

    def whole(self, parameter: Tensor, value: Tensor) -> Tensor | None:
        """That whole, at the first process; None at others. All ask at once."""
        return value

    def part(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """What of a whole tensor lies here."""
        return whole


class World:
    """One process: it is the first, and all there are."""

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, tells and decides."""
        return self.rank == 0

    def told(self, value: T) -> T:
        """What the first process gave, as plain JSON values, at all of them. Waits for it as long as that takes."""
        return value

    def wait(self) -> None:
        """Until all are here."""

    def gathered(self, own: bytes) -> list[bytes]:
        """What each process gave, in order, at all of them."""
        return [own]

    def sums(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Each figure summed over the processes, which all know the same names."""
        return dict(figures)

    def norm(self, own: Tensor) -> Tensor:
        """The norm of a whole of which each process holds other entries, from the norms of these parts."""
        return own

    def stacked(self, own: Tensor) -> Tensor:
        """Tensors of one shape [B, ...], one after the other: [size B, ...]."""
        return own

    def close(self) -> None:
        """Take leave of the others."""

    def learner(self, model: nn.Module) -> Learner:
        """How this process trains a model; all processes ask at once."""
        return Learner(model)


ALONE = World()
