"""A model shared out: FSDP2 (``fully_shard``) with each process holding a part of every parameter it trains.

Between updates every process has the model whole, for sampling needs all of it; during one it is let go, and only its
parts and the layer at work are there. Every trained tensor is cut along its first dimension, a stack of experts too, so
that with expert parallelism a process holds whole experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from seekling.errors import UserError
from seekling.learn.parallel.experts import expert_stacks, send_out, travel
from seekling.learn.parallel.world import Learner, Matrices
from seekling.model.decoder import Block, Decoder, Hidden, NextToken

PATIENCE = timedelta(days=30)
"""The first process may work alone for long. One that died is noticed by whoever started them, not by waiting."""
BUCKET_BYTES = 2**26
"""Parts of many parameters travel together, so many bytes of each process at a time."""


class Cut:
    """How a first dimension of ``count`` is cut for ``size`` processes: as ``torch.chunk`` does, the last has less."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.most = count, -(-count // size)

    def rows(self, rank: int) -> slice:
        """Those of a process."""
        start = min(rank * self.most, self.count)
        return slice(start, min(start + self.most, self.count))


class Shards(Learner):
    """A model as one of several processes trains it. ``trained`` are this one's parts, as plain tensors."""

    def __init__(self, model: nn.Module, rank: int, size: int, device: torch.device, *, spread_experts: bool) -> None:
        if not isinstance(model, Decoder):
            raise UserError(
                "a model that runs through transformers is trained by one process",
                next_step='Import it with through = "seekling", or leave processes out.',
            )
        self.rank, self.size = rank, size
        self._whole = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._cuts = {name: Cut(len(weight), size) for name, weight in self._whole.items()}
        stacks = expert_stacks(model, size) if spread_experts else {}
        self.model = self._twin(model, stacks, device)
        sharded = dict(self.model.named_parameters())
        self._sharded = {name: sharded[name] for name in self._whole}
        self.trained = {name: _own(weight) for name, weight in self._sharded.items()}
        self._name_of: dict[Tensor, str] = {weight: name for name, weight in self.trained.items()}
        self.matrices = Parts(self._name_of, self._whole, self._cuts, rank, size)

    def _twin(self, model: Decoder, stacks: dict[str, nn.Parameter], device: torch.device) -> Decoder:
        """The same model once more: frozen tensors and buffers are shared, stacks cut, all else is given to FSDP."""
        cut = {id(p): nn.Parameter(self._rows(p), p.requires_grad) for p in stacks.values()}
        shared = {id(t): t for t in (*model.parameters(), *model.buffers()) if not t.requires_grad}
        others = {id(p): nn.Parameter(p.detach()) for p in model.parameters() if p.requires_grad}
        twin = deepcopy(model, others | shared | cut)
        if stacks:
            send_out(twin, partial(travel, group=dist.new_group(timeout=PATIENCE)))
        mesh = init_device_mesh(device.type, (self.size,))
        ignored = {p for p in twin.parameters() if not p.requires_grad or id(p) in {id(own) for own in cut.values()}}
        twin.register_forward_hook(_anchored)
        parts = [module for module in twin.modules() if isinstance(module, Block | NextToken)]
        for module in [*reversed(parts), twin]:
            fully_shard(module, mesh=mesh, ignored_params=ignored)
            assert isinstance(module, FSDPModule)
            module.set_gradient_divide_factor(1.0)  # a loss is a plain sum over the step: so are its gradients
            module.set_force_sum_reduction_for_comms(True)
        return twin

    def _rows(self, weight: Tensor) -> Tensor:
        own = weight.detach()[Cut(len(weight), self.size).rows(self.rank)]
        return own.clone() if weight.requires_grad else own

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Whole weights become parts, and are let go; afterwards the parts of all become whole weights.

        So the whole model is the one that counts: whatever changed it between updates is what is learned from.
        """
        with torch.no_grad():
            for name, own in self.trained.items():
                own.copy_(self._whole[name][self._cuts[name].rows(self.rank)])
        held = [weight.untyped_storage() for weight in self._whole.values() if _holds_nothing_else(weight)]
        sizes = [storage.size() for storage in held]
        for storage in held:
            storage.resize_(0)
        try:
            yield
        finally:
            for storage, size in zip(held, sizes, strict=True):
                storage.resize_(size)
        self._publish()

    @torch.no_grad()
    def _publish(self) -> None:
        """What each process has learned of its parts, at all of them."""
        for names in _buckets(self.trained):
            padded = [_padded(self.trained[name], self._cuts[name].most) for name in names]
            mine = torch.cat([part.flatten() for part in padded])
            parts_SL = mine.new_empty(self.size, len(mine))
            dist.all_gather(list(parts_SL.unbind()), mine)
            pieces = parts_SL.split([part.numel() for part in padded], 1)
            for name, piece_SL in zip(names, pieces, strict=True):
                whole = self._whole[name]
                whole.copy_(piece_SL.reshape(-1, *whole.shape[1:])[: len(whole)])

    def gradients(self, value: Tensor) -> list[Tensor | None]:
        """Of all processes' losses, summed: what of it lies here."""
        value.backward()
        found: list[Tensor | None] = []
        for weight in self._sharded.values():
            grad, weight.grad = weight.grad, None
            found.append(grad.to_local() if isinstance(grad, DTensor) else grad)
        return found

    def shape(self, parameter: Tensor, value: Tensor) -> Sequence[int]:
        """All rows; a count of steps has none."""
        return (self._cuts[self._name_of[parameter]].count, *value.shape[1:]) if value.ndim else ()

    def whole(self, parameter: Tensor, value: Tensor) -> Tensor | None:
        """The parts of all, in the first process's own memory, not its device's."""
        if value.ndim == 0:  # a count of steps is the same everywhere
            return value if self.rank == 0 else None
        cut = self._cuts[self._name_of[parameter]]
        mine = _padded(value, cut.most)
        parts = [torch.empty_like(mine) for _ in range(self.size)] if self.rank == 0 else None
        dist.gather(mine, parts, 0)
        return torch.cat(parts)[: cut.count].cpu() if parts else None

    def part(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """Its rows."""
        return whole[self._cuts[self._name_of[parameter]].rows(self.rank)] if whole.ndim else whole


class Parts(Matrices):
    """Matrices of which this process holds some rows, and stacks of which it holds some matrices."""

    def __init__(
        self, name_of: dict[Tensor, str], whole: dict[str, nn.Parameter], cuts: dict[str, Cut], rank: int, size: int
    ) -> None:
        self.name_of, self.cuts, self.rank, self.size = name_of, cuts, rank, size
        self.shapes = {name: (weight.shape[-2], weight.shape[-1]) for name, weight in whole.items() if weight.ndim > 1}

    def shape(self, parameter: Tensor) -> tuple[int, int]:
        """That of the whole, known to every process: all work on the same shapes in the same order."""
        return self.shapes[self.name_of[parameter]]

    def each(
        self, work: Callable[[Tensor], Tensor], values: Sequence[Tensor], params: Sequence[Tensor]
    ) -> list[Tensor]:
        """Stacks where they lie; of the others each process gathers some, works on them whole and sends rows home."""
        flat = [place for place, value in enumerate(values) if value.ndim == 2]
        done = dict(zip(flat, self._dealt(work, [values[p] for p in flat], params), strict=True)) if flat else {}
        stacks = [place for place, value in enumerate(values) if value.ndim > 2]
        if stacks:  # whole matrices already
            found = super().each(work, [values[p] for p in stacks], params)
            done |= dict(zip(stacks, found, strict=True))
        return [done[place] for place in range(len(values))]

    def _dealt(
        self, work: Callable[[Tensor], Tensor], values: Sequence[Tensor], params: Sequence[Tensor]
    ) -> list[Tensor]:
        """Each matrix gathered at one process, in turn, worked on there, and its rows sent home."""
        rows, columns = self.shape(params[0])
        cut, count = Cut(rows, self.size), len(values)
        num_rows = [len(range(*cut.rows(rank).indices(rows))) for rank in range(self.size)]
        dealt = [range(rank, count, self.size) for rank in range(self.size)]
        out = [len(dealt[rank]) * num_rows[self.rank] * columns for rank in range(self.size)]
        home = [len(dealt[self.rank]) * num_rows[rank] * columns for rank in range(self.size)]
        sent = torch.cat([values[place].flatten() for places in dealt for place in places])
        parts = _exchanged(sent, out, home).split(home)
        mine = [part.view(len(dealt[self.rank]), n, columns) for part, n in zip(parts, num_rows, strict=True)]
        done_NRC = work(torch.cat(mine, 1)) if dealt[self.rank] else torch.cat(mine, 1)
        back = torch.cat([done_NRC[:, cut.rows(rank)].flatten() for rank in range(self.size)])
        returned = _exchanged(back, home, out).split(out)
        found = {
            place: matrix
            for places, part in zip(dealt, returned, strict=True)
            for place, matrix in zip(places, part.view(len(places), num_rows[self.rank], columns), strict=True)
        }
        return [found[place] for place in range(count)]


def _exchanged(sent: Tensor, leaving: list[int], arriving: list[int]) -> Tensor:
    received = sent.new_empty(sum(arriving))
    dist.all_to_all_single(received, sent, arriving, leaving)
    return received


def _holds_nothing_else(weight: Tensor) -> bool:
    storage = weight.untyped_storage()
    return storage.resizable() and storage.size() == weight.nbytes


def _anchored(_: nn.Module, __: object, hidden: Hidden) -> Hidden:
    """States through which a gradient passes whatever is trained: without one FSDP would not notice a way back, and
    what is trained behind them, a head alone, would have no gradient and say nothing of it."""
    if not torch.is_grad_enabled() or hidden.states_BTD.requires_grad:
        return hidden
    return replace(hidden, states_BTD=hidden.states_BTD.detach().requires_grad_())


def _own(weight: nn.Parameter) -> nn.Parameter:
    """This process's part of a parameter, on the very memory that FSDP gathers it from."""
    data = weight.detach()
    return nn.Parameter(data.to_local()) if isinstance(data, DTensor) else weight


def _padded(part: Tensor, count: int) -> Tensor:
    """With rows of zeros behind it, ``count`` in all."""
    if len(part) == count:
        return part.contiguous()
    return torch.cat([part, part.new_zeros(count - len(part), *part.shape[1:])])


def _buckets(tensors: dict[str, Tensor]) -> Iterator[list[str]]:
    """Names whose tensors are of one kind and together no larger than a bucket, or a single larger one."""
    taken: list[str] = []
    kind, room = None, 0
    for name, tensor in tensors.items():
        if taken and (tensor.dtype != kind or tensor.nbytes > room):
            yield taken
            taken = []
        kind, room = tensor.dtype, (room if taken else BUCKET_BYTES) - tensor.nbytes
        taken.append(name)
    if taken:
        yield taken
