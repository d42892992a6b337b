"""Where two models part: the same text through both, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seekling.model.decoder import Decoder, Rows

PARTED = 1e-5
"""Relative difference of the stream at which two models count as parted: well above float32 rounding."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Largest difference of logits, absolute and relative to the largest logit; mean KL in nats from the first model to
    the second; how often both like the same token best; relative difference of the stream behind each layer
    (layer 0 is the embedding), empty where the shapes cannot be compared."""

    logits: float
    relative: float
    kl: float
    same_best: float
    layers: tuple[float, ...]

    @property
    def first_parted(self) -> int | None:
        """The first layer behind which the streams differ, 0 for the embedding; None when they do not."""
        return next((layer for layer, gap in enumerate(self.layers) if gap > PARTED), None)


@torch.no_grad()
def difference(one: Decoder, other: Decoder, rows: Rows) -> Difference:
    """Compare two models of one vocabulary on ``rows`` (padding left out)."""
    real_BT = rows.segments_BT > 0
    streams = [_streams(model, rows) for model in (one, other)]
    logits = [
        model.logits(model.norm(stream[-1]))[real_BT].float()
        for model, stream in zip((one, other), streams, strict=True)
    ]
    widths = {stream[0].shape[-1] for stream in streams}
    comparable = len(widths) == 1 and len(streams[0]) == len(streams[1])
    layers = [relative(a[real_BT], b[real_BT]) for a, b in zip(*streams, strict=True)] if comparable else []
    logp = [x.log_softmax(-1) for x in logits]
    return Difference(
        logits=float((logits[0] - logits[1]).abs().max()),
        relative=relative(logits[0], logits[1]),
        kl=float((logp[0].exp() * (logp[0] - logp[1])).sum(-1).mean()),
        same_best=float((logits[0].argmax(-1) == logits[1].argmax(-1)).float().mean()),
        layers=tuple(layers),
    )


def relative(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((one - other).abs().max() / torch.maximum(one.abs().max(), other.abs().max()).clamp_min(1e-30))


def _streams(model: Decoder, rows: Rows) -> list[Tensor]:
    """The embedding, then the stream behind every layer."""
    return [model.embed_tokens(rows.tokens_BT), *(x_BTD for x_BTD, _ in model.walk(rows))]
