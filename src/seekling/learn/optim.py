"""Optimizers and schedules: Muon for matrices, AdamW for the rest, and their state as named tensors."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seekling.learn.config import Optim
from seekling.learn.guard import Broken, Guard
from seekling.learn.lanes import ONE, Lanes
from seekling.learn.parallel.world import WHOLE, Matrices


def orthogonalise(matrices_NRC: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of each matrix towards 1 by a quintic Newton-Schulz iteration (Jordan 2024, Muon).

    Works on the wide orientation, where the Gram matrix is smallest; values end within about [0.7, 1.2].
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices_NRC.shape[-2] > matrices_NRC.shape[-1]
    x = matrices_NRC.mT if tall else matrices_NRC
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised per matrix (Jordan 2024); a parameter [..., R, C] is a stack of matrices.

    Matrices of one shape are orthogonalised together: for small models the products are cheap and the calls are not.
    ``matrices`` says how they lie here, whole or in part.
    """

    def __init__(
        self, params: Iterable[Tensor] | Iterable[dict[str, Any]], *, lr: float, momentum: float, weight_decay: float,
        lanes: Lanes = ONE, matrices: Matrices = WHOLE,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.lanes, self.matrices = lanes, matrices

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """W <- W (1 - lr decay) - lr sqrt(max(1, R/C)) orthogonalise(nesterov momentum)."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[self.matrices.shape(p)].append(p)
            self.lanes.map(partial(self._update, group), by_shape.values())

    @torch.no_grad()
    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        rows, columns = self.matrices.shape(params[0])
        updates = self._directions(params, group["momentum"])
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(params, updates, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def _directions(self, params: list[Tensor], momentum: float) -> list[Tensor]:
        for p in params:
            self.state[p].setdefault("momentum", torch.zeros_like(p))
        grads = [p.grad for p in params if p.grad is not None]
        buffers = [self.state[p]["momentum"] for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        ahead = torch._foreach_lerp(grads, buffers, momentum)
        return self.matrices.each(orthogonalise, ahead, params)


class Optimizers:
    """The optimizers of what a model trains (``requires_grad``) under one schedule; the frozen is not looked at.

    What is named like ``apart`` has a loss of its own, and is clipped and moved by itself: nothing it does can change
    a bit of the rest. ``used`` is the share of a budget that is gone, which a stage sets before each step.
    """

    used: float = 0.0

    def __init__(
        self, model: nn.Module, config: Optim, num_steps: int, lanes: Lanes = ONE, *, apart: tuple[str, ...] = ()
    ) -> None:
        self.config, self.num_steps, self.guard = config, num_steps, Guard(config.spike)
        self.world, self.learner = lanes.world, lanes.world.learner(model)
        trained = self.learner.trained
        self.names: dict[Tensor, str] = {p: name for name, p in trained.items()}
        own = [p for p, name in self.names.items() if name.startswith(apart)]
        self.parts = [[p for p, name in self.names.items() if not name.startswith(apart)], *([own] if own else [])]
        matrices = [p for name, p in trained.items() if config.matrices == "muon" and is_matrix(name, p)]
        decayed = [p for name, p in trained.items() if is_matrix(name.removeprefix("net."), p)]
        groups = self._groups(set(self.names) - {*matrices, *decayed}, weight_decay=0.0)
        groups += self._groups(set(decayed) - set(matrices), weight_decay=config.weight_decay)
        self.all: list[torch.optim.Optimizer] = []
        if groups:
            betas = (config.beta1, config.beta2)
            self.all.append(torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True))
        if matrices:
            self.all.append(Muon(
                self._groups(matrices), lr=config.muon_lr, momentum=config.momentum, weight_decay=config.weight_decay,
                lanes=lanes, matrices=self.learner.matrices,
            ))  # fmt: skip
        self.peaks = [group["lr"] for optimizer in self.all for group in optimizer.param_groups]

    def _groups(self, params: Collection[Tensor], **settings: float) -> list[dict[str, Any]]:
        """A group for each part: matrices that are orthogonalised together are of one."""
        chosen = set(params)
        return [{"params": own, **settings} for part in self.parts if (own := [p for p in part if p in chosen])]

    def step(self, step: int, loss: float = 0.0) -> dict[str, float]:
        """Clip, update, clear the gradients. Returns ``grad_norm`` before clipping, and 1 as ``skipped`` or 0.

        The norm is that of what is not apart. Where the gradient of what is apart is not finite, that alone stays.
        Where the guard finds fault with norm or loss, weights and state stay as they were. Raises Broken when the
        update left weights that are not finite.
        """
        norm = self._clip()
        is_skipped = self.guard.skips(step, norm, loss)
        if not is_skipped:
            self._update(step)
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)
        if not is_skipped and not math.isfinite(self._norm(list(self.names))):
            raise Broken(step)
        return {"grad_norm": norm, "skipped": float(is_skipped)}

    def _clip(self) -> float:
        norm, *apart = map(self._clipped, self.parts)
        for part, own in zip(self.parts[1:], apart, strict=True):
            for p in part if not math.isfinite(own) else ():
                p.grad = None
        return norm

    def _clipped(self, part: Sequence[Tensor]) -> float:
        norm = self.world.norm(nn.utils.get_total_norm([p.grad for p in part if p.grad is not None]))
        nn.utils.clip_grads_with_norm_(part, self.config.clip_norm, norm)
        return float(norm)

    def _norm(self, tensors: list[Tensor]) -> float:
        return float(self.world.norm(nn.utils.get_total_norm(tensors)))

    def _update(self, step: int) -> None:
        share = schedule_share(self.config, step, self.num_steps, self.used)
        groups = (group for optimizer in self.all for group in optimizer.param_groups)
        for group, peak in zip(groups, self.peaks, strict=True):
            group["lr"] = peak * share
        for optimizer in self.all:
            optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as ``parameter/slot`` -> tensor; of several processes all ask, and the first has it."""
        return {key: whole for key, whole in zip(self.kinds(), self.each(), strict=True) if whole is not None}

    def kinds(self) -> dict[str, tuple[torch.dtype, Sequence[int]]]:
        """What the state is made of: ``parameter/slot`` -> dtype and shape of the whole tensor."""
        return {
            f"{self.names[p]}/{slot}": (value.dtype, self.learner.shape(p, value)) for p, slot, value in self._held()
        }

    def each(self) -> Iterator[Tensor | None]:
        """The whole tensors of ``kinds``, made one at a time; of several processes all ask, and the first has them."""
        return (self.learner.whole(p, value) for p, _, value in self._held())

    def _held(self) -> Iterator[tuple[Tensor, str, Tensor]]:
        """In one order, whether it came here by steps or from a file: equal states are equal bytes."""
        states = [optimizer.state for optimizer in self.all]
        held = ((p, state[p]) for p in self.names for state in states if p in state)
        return ((p, slot, slots[slot]) for p, slots in held for slot in sorted(slots))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what ``tensors`` returned, or what of it lies here. Each is asked for once, when it is copied."""
        by_name = {name: p for p, name in self.names.items()}
        owner = {p: optimizer for optimizer in self.all for g in optimizer.param_groups for p in g["params"]}
        for key in tensors:
            name, slot = key.rsplit("/", 1)
            parameter = by_name[name]
            owner[parameter].state[parameter][slot] = self._part(parameter, tensors[key])

    def _part(self, parameter: Tensor, whole: Tensor) -> Tensor:
        return self.learner.part(parameter, whole).to(parameter.device, copy=True)


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon may have it: a hidden matrix, not an embedding, head, router (Jordan 2024) or half of an adapter."""
    others = ("embed_tokens", "lm_head", "score.", "gate.weight", "adapter.")
    return parameter.ndim >= 2 and not name.startswith("net.") and not any(part in name for part in others)


def schedule_share(config: Optim, step: int, num_steps: int, used: float = 0.0) -> float:
    """Share of the peak learning rate at ``step`` (counted from 0): linear warm-up, then the chosen fall.

    The fall is as far as the steps after warm-up are, or as ``used``, the share of a budget that is gone, whichever is
    further: what will end a stage first decides how low its last step is. A budget is used in warm-up too.
    """
    rise = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "constant":
        return rise
    progress = max(used, (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps))
    fall = progress if config.schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return rise * (1 - (1 - config.final_share) * fall)
