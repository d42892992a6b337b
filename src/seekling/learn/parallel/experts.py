"""Experts that live on one process each: tokens travel to them and come home (expert parallelism).

Process r of N holds experts r E/N to (r+1) E/N of each layer. ``travel`` is what ``run_experts`` takes as its exchange.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seekling.errors import UserError
from seekling.model.moe import DeepSeekMoE, Exchange, Feed


def travel(sent_MD: Tensor, ends_E: Tensor, feed: Feed, group: dist.ProcessGroup) -> Tensor:
    """Each row to the process with its expert, through ``feed`` there, and home again: [M, D] in the order given.

    All processes call at once, whether or not they have rows.
    """
    size, counts_E = group.size(), ends_E.long().diff(prepend=ends_E.new_zeros(1).long())
    arriving_SE = torch.empty_like(counts_E)
    dist.all_to_all_single(arriving_SE, counts_E, group=group)
    arriving_SE = arriving_SE.view(size, -1)
    leaving, arriving = counts_E.view(size, -1).sum(1).tolist(), arriving_SE.sum(1).tolist()
    here_MD = _Exchange.apply(sent_MD, leaving, arriving, group)
    # Rows arrive process by process, each in the order of experts; products want expert by expert.
    expert_M = (
        torch.arange(arriving_SE.shape[1], device=sent_MD.device).repeat(size).repeat_interleave(arriving_SE.flatten())
    )
    order_M = expert_M.argsort(stable=True)
    back_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(len(order_M), device=order_M.device))
    answered_MD = feed(here_MD.index_select(0, order_M), arriving_SE.sum(0).cumsum(0).int())
    return _Exchange.apply(answered_MD.index_select(0, back_M), arriving, leaving, group)


class _Exchange(torch.autograd.Function):
    """Rows to the processes they are for, ``leaving`` to and ``arriving`` from each; gradients go the other way."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, leaving: list[int], arriving: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.leaving, ctx.arriving, ctx.group = leaving, arriving, group
        return _exchanged(x_MD, leaving, arriving, group)

    @staticmethod
    def backward(ctx: Any, grad_MD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return _exchanged(grad_MD, ctx.arriving, ctx.leaving, ctx.group), None, None, None


def _exchanged(x_MD: Tensor, leaving: list[int], arriving: list[int], group: dist.ProcessGroup) -> Tensor:
    out_MD = x_MD.new_empty(sum(arriving), *x_MD.shape[1:])
    dist.all_to_all_single(out_MD, x_MD.contiguous(), arriving, leaving, group=group)
    return out_MD


def expert_stacks(model: nn.Module, size: int) -> dict[str, nn.Parameter]:
    """The stacked parameters of routed experts, adapters beside them included, by name.

    Raises UserError where ``size`` processes cannot share a layer's experts alike.
    """
    found: dict[str, nn.Parameter] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, DeepSeekMoE):
            num_experts = len(module.gate_up_proj)
            if num_experts % size:
                raise UserError(
                    f"{num_experts} experts cannot be shared alike by {size} processes",
                    next_step=f"Start a number of processes that divides {num_experts}, or leave expert_parallel out.",
                )
            found |= {f"{prefix}.{name}": p for name, p in module.named_parameters() if p.ndim == 3}
    return found


def send_out(model: nn.Module, exchange: Exchange) -> None:
    """Have every layer's tokens go through ``exchange``."""
    for module in model.modules():
        if isinstance(module, DeepSeekMoE):
            module.exchange = exchange
