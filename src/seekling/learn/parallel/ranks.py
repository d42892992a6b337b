"""Several processes that learn together, each with the whole model between updates and its share of it during them.

Nothing is pickled: what processes tell each other is JSON or plain numbers, as bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seekling.errors import UserError
from seekling.learn.parallel.shards import PATIENCE, Shards
from seekling.learn.parallel.world import Learner, World
from seekling.workers.crew import Member

T = TypeVar("T")


def join(device: torch.device, who: Member, *, spread_experts: bool) -> Ranks:
    """Meet the others: who returns has been met by all. Raises UserError when that fails."""
    backend = "gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:{_library(device)}"
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)
    try:
        dist.init_process_group(backend, init_method=who.meet, rank=who.rank, world_size=who.size, timeout=PATIENCE)
        met = Ranks(who.rank, who.size, device, spread_experts=spread_experts)
        met.wait()  # who left at once would be gone before the last had reached it
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{who.size} processes cannot meet at {who.meet}: {error}",
            next_step="Start them anew; a process of an earlier start may still hold the place.",
        ) from None
    return met


def _library(device: torch.device) -> str:
    return dist.get_default_backend_for_device(device)


class Ranks(World):
    """Process ``rank`` of ``size``."""

    def __init__(self, rank: int, size: int, device: torch.device, *, spread_experts: bool = False) -> None:
        self.rank, self.size, self.device = rank, size, device
        self.spread_experts = spread_experts

    def told(self, value: T) -> T:
        """A length, then so many bytes."""
        said = json.dumps(value, allow_nan=True).encode() if self.leads else b""
        length = torch.tensor([len(said)])
        dist.broadcast(length, 0)
        body = _bytes(said) if self.leads else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(body, 0)
        heard: T = value if self.leads else json.loads(body.numpy().tobytes())
        return heard

    def wait(self) -> None:
        """The first is waited for, then all are."""
        dist.broadcast(torch.zeros(1), 0)  # nobody passes before the first process is here
        self.sums({"": 0.0})  # and it not before the others are

    def gathered(self, own: bytes) -> list[bytes]:
        """All in the length of the longest."""
        lengths = self.stacked(torch.tensor([len(own)])).tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(own)] = _bytes(own)
        rows = self.stacked(padded.unsqueeze(0))
        return [row[:length].numpy().tobytes() for row, length in zip(rows, lengths, strict=True)]

    def sums(self, figures: Mapping[str, float]) -> dict[str, float]:
        """In float64, in the order of names."""
        names = sorted(figures)  # each process may have met them in another order
        values = torch.tensor([figures[name] for name in names], dtype=torch.float64)
        dist.all_reduce(values)
        summed = dict(zip(names, values.tolist(), strict=True))
        return {name: summed[name] for name in figures}

    def norm(self, own: Tensor) -> Tensor:
        """The root of the sum of squares, summed in float64."""
        square = own.double().square()
        dist.all_reduce(square)
        return square.sqrt().to(own.dtype)

    def stacked(self, own: Tensor) -> Tensor:
        """On whatever device they are."""
        parts = own.new_empty((self.size, *own.shape))
        dist.all_gather(list(parts.unbind()), own.contiguous())
        return parts.flatten(0, 1)

    def learner(self, model: nn.Module) -> Learner:
        """One that holds its part. Raises UserError for a model that cannot be shared out so."""
        return Shards(model, self.rank, self.size, self.device, spread_experts=self.spread_experts)

    def close(self) -> None:
        """Nobody can be told anything afterwards."""
        dist.destroy_process_group()


def _bytes(said: bytes) -> Tensor:
    return torch.frombuffer(bytearray(said), dtype=torch.uint8) if said else torch.empty(0, dtype=torch.uint8)
