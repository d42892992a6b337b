"""Hidden states become log-probabilities and entropies: the one place, and never all of a long batch's logits at once.

Logits are by far the largest thing a step could hold: 4,096 tokens of a vocabulary of 151,936 are 2.5 GB, four times
over. Positions that do not count have none at all. Those of the others are made whole where they fit ``CHUNK_BYTES``,
which takes the fewest operations; else in chunks, which are made again on the way back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seekling.learn.batch import KeptIds
from seekling.model.decoder import Decoder, Hidden

CHUNK_BYTES = 2**25
"""Logits that may be made whole. A chunk has as many, or up to four times as many where the head is large.

Counted once, in float32: whole ones stand in memory three times on the way back, those of a chunk twice.
"""


def token_logps(
    model: Decoder,
    hidden: Hidden,
    targets_BT: Tensor,
    temperature: float = 1.0,
    *,
    kept: KeptIds | None = None,
    pull_entropy: bool = False,
    wanted_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution, in nats, float32: two [B, T].

    With ``kept`` they are those of the truncated distribution that was sampled from. The entropy has a gradient where
    ``pull_entropy`` asks for it. Both are 0 where ``wanted_BT`` is False. A model in float64 is answered in float64.
    """
    how = _How(temperature, kept, tells_entropy=True, pulls_entropy=pull_entropy)
    return _read(model.head_VD, hidden.states_BTD, targets_BT, wanted_BT, how)


def cross_entropy(model: Decoder, states_BTD: Tensor, targets_BT: Tensor, wanted_BT: Tensor | None = None) -> Tensor:
    """-log p(target), in nats, float32: [B, T]; 0 where ``wanted_BT`` is False."""
    return -_read(model.head_VD, states_BTD, targets_BT, wanted_BT, _How())[0]


def guesses(
    head_VD: Tensor, states_BTD: Tensor, targets_BT: Tensor, wanted_BT: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """-log p(target), in nats, and 1 where the target is the likeliest token: two [B, T], float32; 0 if not wanted."""
    how = _How(temperature, tells_best=True)
    logp_BT, best_BT = _read(head_VD, states_BTD, targets_BT, wanted_BT, how)
    return -logp_BT, best_BT


@dataclass(frozen=True, slots=True)
class _How:
    """What is read from logits: after which temperature, among which ids; beside it entropies, or what is likeliest."""

    temperature: float = 1.0
    kept: KeptIds | None = None
    tells_entropy: bool = False
    pulls_entropy: bool = False
    tells_best: bool = False

    def at(self, index_M: Tensor) -> _How:
        """The same for the predictions ``index_M`` alone, which are in order."""
        if self.kept is None:
            return self
        counts_N = _counts(self.kept)
        is_chosen_N = torch.zeros_like(counts_N, dtype=torch.bool).index_fill_(0, index_M, True)
        ids = self.kept.ids[is_chosen_N.repeat_interleave(counts_N)]
        return replace(self, kept=KeptIds(ids, counts_N.index_select(0, index_M).cumsum(0)))


def _read(
    head_VD: Tensor | None, states_BTD: Tensor, targets_BT: Tensor, wanted_BT: Tensor | None, how: _How
) -> tuple[Tensor, Tensor]:
    """Log-probabilities, and what is told beside [B, T], of the positions that are wanted, 0 of others."""
    states_ND, targets_M = states_BTD.flatten(0, 1), targets_BT.flatten()
    index_M = None if wanted_BT is None else wanted_BT.flatten().nonzero().squeeze(1)
    if index_M is not None:
        targets_M, how = targets_M.index_select(0, index_M), how.at(index_M)
    vocab, itemsize = states_BTD.shape[-1] if head_VD is None else len(head_VD), wide(states_BTD).itemsize
    if len(targets_M) * vocab * itemsize <= CHUNK_BYTES:
        own_MD = states_ND if index_M is None else states_ND.index_select(0, index_M)
        logp_M, entropy_M = _plain(own_MD if head_VD is None else F.linear(own_MD, head_VD), targets_M, how)
    else:
        places_M = torch.arange(len(states_ND), device=states_ND.device) if index_M is None else index_M
        rows = rows_per_chunk(vocab, itemsize, 0 if head_VD is None else head_VD.nbytes)
        logp_M, entropy_M = _Chunked.apply(states_ND, head_VD, places_M, targets_M, how, rows)
    if index_M is None:
        return logp_M.view_as(targets_BT), entropy_M.view_as(targets_BT)
    blank_N = logp_M.new_zeros(targets_BT.numel())
    logp_N, entropy_N = (blank_N.index_copy(0, index_M, x) for x in (logp_M, entropy_M))
    return logp_N.view_as(targets_BT), entropy_N.view_as(targets_BT)


def rows_per_chunk(vocab_size: int, itemsize: int, head_bytes: int) -> int:
    """How many predictions' logits are made at a time: a quarter of the head in bytes, within bounds.

    Every chunk reads the whole head and writes to its whole gradient: short chunks of a large one would do little else.
    """
    room = min(4 * CHUNK_BYTES, max(CHUNK_BYTES, head_bytes // 4))
    return max(1, room // (vocab_size * itemsize))


def wide(states: Tensor) -> torch.dtype:
    """What softmax is computed in: float32, or more where the states are."""
    return torch.promote_types(states.dtype, torch.float32)


def _plain(logits_MV: Tensor, targets_M: Tensor, how: _How) -> tuple[Tensor, Tensor]:
    """From logits that may be held whole, by autograd's own rules."""
    logits_MV = logits_MV.to(wide(logits_MV))
    logits_MV = logits_MV / how.temperature if how.temperature != 1 else logits_MV
    if not how.tells_entropy:
        logp_M = -F.cross_entropy(logits_MV, targets_M, reduction="none")
        return logp_M, _is_best(logits_MV, targets_M, logp_M) if how.tells_best else torch.zeros_like(logp_M)
    logits_MV = logits_MV if how.kept is None else logits_MV.masked_fill(~possible(how.kept, logits_MV), float("-inf"))
    logp_MV = logits_MV.log_softmax(-1)
    del logits_MV  # which nothing needs, neither here nor on the way back
    with torch.set_grad_enabled(how.pulls_entropy and torch.is_grad_enabled()):
        finite_MV = logp_MV if how.kept is None else logp_MV.masked_fill(logp_MV.isneginf(), 0.0)
        entropy_M = -(logp_MV.exp() * finite_MV).sum(-1)
    return logp_MV.gather(-1, targets_M.unsqueeze(-1)).squeeze(-1), entropy_M


class _Chunked(torch.autograd.Function):
    """``_plain`` of logits = states W^T (without W, of the states), at most ``rows`` of them at a time.

    Nothing of a chunk is kept: on the way back its logits are made again. With p the distribution, H its entropy, g and
    h the gradients of log p(target) and of H, those of the logits are g (1(target) - p) - h p (log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any, states_ND: Tensor, head_VD: Tensor | None, places_M: Tensor, targets_M: Tensor, how: _How, rows: int
    ) -> tuple[Tensor, Tensor]:
        device = states_ND.device.type
        ctx.kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states_ND.dtype
        ctx.how, ctx.rows = how, rows
        logp_M = torch.zeros(len(targets_M), dtype=wide(states_ND), device=states_ND.device)
        entropy_M = torch.zeros_like(logp_M)
        made = Chunks(states_ND, head_VD, places_M, ctx.kind, how.temperature, how.kept)
        for start, end in spans(len(targets_M), rows):
            logp_CV = made.logits(start, end).log_softmax(-1)
            logp_M[start:end] = _at(logp_CV, targets_M[start:end])
            if how.tells_entropy:
                entropy_M[start:end] = -logp_CV.exp().mul_(_finite(logp_CV, how)).sum(-1)
            if how.tells_best:
                entropy_M[start:end] = _is_best(logp_CV, targets_M[start:end], logp_M)
            del logp_CV  # else this chunk's would lie beside the next one's
        ctx.save_for_backward(states_ND, head_VD, places_M, targets_M, logp_M, entropy_M)
        if not how.pulls_entropy:
            ctx.mark_non_differentiable(entropy_M)
        return logp_M, entropy_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_logp_M: Tensor, of_entropy_M: Tensor) -> tuple[Tensor | None, ...]:
        states_ND, head_VD, places_M, targets_M, logp_M, entropy_M = ctx.saved_tensors
        made = Chunks(states_ND, head_VD, places_M, ctx.kind, ctx.how.temperature, ctx.how.kept)
        with torch.autocast(states_ND.device.type, enabled=False):
            for start, end in spans(len(targets_M), ctx.rows):
                part = slice(start, end)
                pull_M1 = of_logp_M[part].unsqueeze(1)
                logp_CV = made.logits(start, end).log_softmax(-1)
                if ctx.how.pulls_entropy:
                    p_CV = logp_CV.exp()
                    rest_CV = _finite(logp_CV, ctx.how).add_(entropy_M[part].unsqueeze(1))
                    rest_CV = rest_CV.mul_(of_entropy_M[part].unsqueeze(1)).add_(pull_M1)
                    grad_CV = p_CV.mul_(rest_CV).neg_()
                    del rest_CV
                else:
                    grad_CV = logp_CV.exp_().mul_(-pull_M1)
                del logp_CV
                hit_M1 = pull_M1.masked_fill(logp_M[part].isneginf().unsqueeze(1), 0.0)  # what was not kept has none
                grad_CV.scatter_add_(1, targets_M[part].unsqueeze(1), hit_M1)
                made.take(start, end, grad_CV, *ctx.needs_input_grad[:2])
                del grad_CV
        return made.of_states_ND, made.of_head_VD, None, None, None, None


class Chunks:
    """Logits of a few predictions at a time, computed in ``kind``, and where their gradients go."""

    def __init__(
        self, states_ND: Tensor, head_VD: Tensor | None, places_M: Tensor, kind: torch.dtype, temperature: float = 1.0,
        kept: KeptIds | None = None,
    ) -> None:  # fmt: skip
        self.states_ND, self.places_M, self.kind = states_ND, places_M, kind
        self.temperature, self.kept = temperature, kept
        self.head_VD = None if head_VD is None else head_VD.to(kind)
        self.of_states_ND: Tensor | None = None
        self.of_head_VD: Tensor | None = None

    def logits(self, start: int, end: int) -> Tensor:
        """Those of predictions ``start`` to ``end``, tempered, minus infinity where they were not possible."""
        own_CD = self._own(start, end)
        logits_CV = (own_CD if self.head_VD is None else F.linear(own_CD, self.head_VD)).to(wide(own_CD))
        if self.temperature != 1:
            logits_CV.div_(self.temperature)
        if self.kept is not None:
            logits_CV.masked_fill_(~possible(self.kept.cut(start, end), logits_CV), float("-inf"))
        return logits_CV

    def take(self, start: int, end: int, grad_CV: Tensor, states: bool, head: bool) -> None:
        """Carry the gradient of a chunk's logits to the states, and to the head if it is trained."""
        grad_CV = (grad_CV.div_(self.temperature) if self.temperature != 1 else grad_CV).to(self.kind)
        if states:
            grad_CD = grad_CV if self.head_VD is None else grad_CV @ self.head_VD
            if self.of_states_ND is None:
                self.of_states_ND = torch.zeros_like(self.states_ND)
            self.of_states_ND.index_copy_(0, self.places_M[start:end], grad_CD.to(self.of_states_ND.dtype))
        if head and self.head_VD is not None:
            if self.of_head_VD is None:
                self.of_head_VD = torch.zeros_like(self.head_VD, dtype=wide(self.head_VD))
            if self.kind == self.of_head_VD.dtype:
                self.of_head_VD.addmm_(grad_CV.mT, self._own(start, end))
            else:  # each chunk rounded as the whole would be, their sum not
                self.of_head_VD.add_(grad_CV.mT @ self._own(start, end))

    def _own(self, start: int, end: int) -> Tensor:
        return self.states_ND.index_select(0, self.places_M[start:end]).to(self.kind)


def possible(kept: KeptIds, logits_MV: Tensor) -> Tensor:
    """Which tokens a sampler chose among: bool [M, V], for as many predictions as ``kept`` speaks of."""
    counts_M = _counts(kept)
    row = torch.arange(len(counts_M), device=kept.ids.device).repeat_interleave(counts_M)
    mask_MV = torch.zeros_like(logits_MV, dtype=torch.bool)
    mask_MV.view(-1)[row * mask_MV.shape[1] + kept.ids] = True
    return mask_MV | (counts_M == 0).unsqueeze(1)


def _counts(kept: KeptIds) -> Tensor:
    """How many ids each prediction was one of; 0 stands for all."""
    return kept.ends.diff(prepend=kept.ends.new_zeros(1))


def _at(logp_CV: Tensor, targets_C: Tensor) -> Tensor:
    return logp_CV.gather(-1, targets_C.unsqueeze(-1)).squeeze(-1)


def _is_best(scores_CV: Tensor, targets_C: Tensor, like: Tensor) -> Tensor:
    """1 where the target has the highest score, else 0."""
    return (scores_CV.argmax(-1) == targets_C).to(like.dtype)


def _finite(logp_CV: Tensor, how: _How) -> Tensor:
    """The same with 0 for minus infinity: p log p is 0 where p is. Changes its argument."""
    return logp_CV if how.kept is None else logp_CV.masked_fill_(logp_CV.isneginf(), 0.0)


def spans(count: int, most: int) -> list[tuple[int, int]]:
    """``count`` in parts as equal as can be, of at most ``most``."""
    parts = -(-count // most)
    return list(pairwise(count * part // parts for part in range(parts + 1)))
