"""Two models' distributions compared where something was said, and never all logits of either at once.

The loss is a sum over places of a weight, fixed before, times a number made of whole distributions. So the gradient of
a chunk's logits is known as soon as they are made: a chunk is made once, and nothing of it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seekling.learn.batch import Batch
from seekling.learn.distillation import distance, entropy, normalised, told, told_kl
from seekling.learn.lanes import Lanes
from seekling.learn.logps import Chunks, rows_per_chunk, spans, wide
from seekling.model.decoder import Decoder


class Taught(Protocol):
    """What a teacher said of a step's places, numbered from 0 in the batch's order or the texts'."""

    @property
    def width(self) -> int:
        """How many ids both models have; those beyond, which some models are padded with, are left out."""
        ...

    def apart(self, logq_CV: Tensor, rows_C: Tensor) -> Tensor:
        """How far the student's distributions are from the teacher's at places ``rows_C``: [C], with gradient."""
        ...


@dataclass(frozen=True, slots=True)
class TopK:
    """Of each place the teacher's likeliest ids [M, K], their log-probabilities [M, K], and that of all others [M]."""

    ids_MK: Tensor
    logp_MK: Tensor
    rest_M: Tensor
    width: int

    def apart(self, logq_CV: Tensor, rows_C: Tensor) -> Tensor:
        """KL(teacher || student), the rest as one."""
        known_CK, rest_C = normalised(self.logp_MK.index_select(0, rows_C), self.rest_M.index_select(0, rows_C))
        ids_CK = self.ids_MK.index_select(0, rows_C).long()
        return told_kl(ids_CK, known_CK.type_as(logq_CV), rest_C.type_as(logq_CV), logq_CV)


@dataclass(frozen=True, slots=True)
class States:
    """Of each place the state [M, D] that the teacher's head reads: its distributions are made when they are needed.

    ``first`` is the number of the first place that lies here: of several processes each has its own.
    """

    states_MD: Tensor
    head_VD: Tensor | None
    width: int
    temperature: float = 1.0
    beta: float = 1.0
    first: int = 0

    def apart(self, logq_CV: Tensor, rows_C: Tensor) -> Tensor:
        """The divergence that ``beta`` names."""
        own_CD = self.states_MD.index_select(0, rows_C - self.first)
        logits_CV = own_CD if self.head_VD is None else F.linear(own_CD, self.head_VD.to(own_CD.dtype))
        logp_CV = (logits_CV[:, : self.width].to(logq_CV.dtype) / self.temperature).log_softmax(-1)
        return distance(logp_CV, logq_CV, self.beta)


def compared(
    model: Decoder, states_BTD: Tensor, batch: Batch, taught: Taught, temperature: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """sum_t weight_t T^2 d_t, with gradient, and sums over the places: ``teacher_kl`` (of d), ``entropy``, ``said``.

    ``batch.values["told"]`` has the number of each place that is learned. All in nats, float32, or float64 for a model
    in float64.
    """
    places_M = (batch.weight_BT > 0).flatten().nonzero().squeeze(1)
    rows_M = batch.values["told"].flatten().index_select(0, places_M).long()
    weight_M = batch.weight_BT.flatten().index_select(0, places_M) * temperature**2
    head_VD, states_ND = model.head_VD, states_BTD.flatten(0, 1)
    vocab, size = states_ND.shape[1] if head_VD is None else len(head_VD), wide(states_ND).itemsize
    at_once = rows_per_chunk(vocab, size, 0 if head_VD is None else head_VD.nbytes)
    pulls = torch.is_grad_enabled()
    value, sums_2 = _Compared.apply(states_ND, head_VD, places_M, rows_M, weight_M, taught, temperature, at_once, pulls)
    return value, {"teacher_kl": sums_2[0], "entropy": sums_2[1], "said": weight_M.new_tensor(len(places_M))}


class _Compared(torch.autograd.Function):
    """The gradient is made on the way there, chunk by chunk, and only scaled on the way back."""

    @staticmethod
    def forward(
        ctx: Any, states_ND: Tensor, head_VD: Tensor | None, places_M: Tensor, rows_M: Tensor, weight_M: Tensor,
        taught: Taught, temperature: float, at_once: int, pulls: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        device = states_ND.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states_ND.dtype
        made = Chunks(states_ND, head_VD, places_M, kind, temperature)
        value, sums_2 = (torch.zeros(shape, dtype=wide(states_ND), device=states_ND.device) for shape in ((), (2,)))
        with torch.autocast(device, enabled=False):
            for start, end in spans(len(places_M), at_once) if len(places_M) else ():
                part = slice(start, end)
                logits_CV = made.logits(start, end).requires_grad_(pulls)
                with torch.set_grad_enabled(pulls):
                    logq_CV = logits_CV[:, : taught.width].log_softmax(-1)
                    apart_C = taught.apart(logq_CV, rows_M[part])
                    weighed = (apart_C * weight_M[part]).sum()
                    if pulls:
                        grad_CV = torch.autograd.grad(weighed, logits_CV)[0]
                        made.take(start, end, grad_CV, *ctx.needs_input_grad[:2])
                        del grad_CV
                value += weighed.detach()
                sums_2 += torch.stack([apart_C.detach().sum(), entropy(logq_CV.detach()).sum()])
                del logits_CV, logq_CV  # else this chunk's would lie beside the next one's
        ctx.save_for_backward(made.of_states_ND, made.of_head_VD)
        ctx.mark_non_differentiable(sums_2)
        return value, sums_2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_value: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grads = [None if made is None else made * of_value.to(made.dtype) for made in ctx.saved_tensors]
        return (*grads, *[None] * 7)


def numbered(batch: Batch) -> Batch:
    """The same batch with its learned places numbered in order, as ``values["told"]``."""
    number_BT = (batch.weight_BT > 0).flatten().cumsum(0).view_as(batch.targets_BT) - 1
    return replace(batch, values={**batch.values, "told": number_BT.to(batch.weight_BT.dtype)})


def states_of(teacher: Decoder, batch: Batch, passes: int, lanes: Lanes, dtype: torch.dtype) -> tuple[Tensor, int]:
    """The teacher's states [M, D] at the learned places of this process's share, and the number of the first."""
    own, device = batch.share(lanes.world.rank, lanes.world.size), batch.targets_BT.device.type

    def read(part: Batch) -> Tensor:
        places_M = (part.weight_BT > 0).flatten().nonzero().squeeze(1)
        with torch.no_grad(), torch.autocast(device, dtype, enabled=dtype != torch.float32, cache_enabled=False):
            states_MD = teacher(part.rows).states_BTD.flatten(0, 1).index_select(0, places_M)
        return states_MD if dtype == torch.float32 else states_MD.to(dtype)

    numbers = own.values["told"][own.weight_BT > 0]
    return torch.cat(lanes.map(read, own.passes(passes))), int(numbers[0]) if len(numbers) else 0


def told_by(teacher: Decoder, batch: Batch, top_k: int, width: int, temperature: float) -> Tensor:
    """What is stored of the teacher's distributions: ids, their log-probabilities, the rest: float32 [B, T, 2 K + 1].

    0 where nothing is learned. Without a gradient. An id is exact in float32 up to 2^24.
    """
    places_M = (batch.weight_BT > 0).flatten().nonzero().squeeze(1)
    states_ND, head_VD = teacher(batch.rows).states_BTD.flatten(0, 1), teacher.head_VD
    device = states_ND.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states_ND.dtype
    made = Chunks(states_ND, head_VD, places_M, kind, temperature)
    vocab = states_ND.shape[1] if head_VD is None else len(head_VD)
    found = states_ND.new_zeros(len(states_ND), 2 * top_k + 1, dtype=torch.float32)
    at_once = rows_per_chunk(vocab, wide(states_ND).itemsize, 0 if head_VD is None else head_VD.nbytes)
    for start, end in spans(len(places_M), at_once) if len(places_M) else ():
        ids_CK, logp_CK, rest_C = told(made.logits(start, end)[:, :width].log_softmax(-1), top_k)
        line = torch.cat([ids_CK.float(), logp_CK.float(), rest_C.float().unsqueeze(1)], 1)
        found.index_copy_(0, places_M[start:end], line)
    return found.view(*batch.targets_BT.shape, -1)
