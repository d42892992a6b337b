"""What a model says of whole texts, token by token, without a gradient: log-probabilities, or a head's values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.learn.batch import Batch, Text, in_world, pack, unpack
from seekling.learn.lanes import ONE, Lanes
from seekling.learn.logps import cross_entropy
from seekling.model.decoder import Decoder
from seekling.model.heads import head_of

Of = Callable[[Decoder, Batch], Tensor]
"""From a slice of a step to a number for each of its positions: [B, T]."""


def read(
    model: Decoder, texts: Sequence[Text], of: Of, *, row_tokens: int, passes: int = 1, lanes: Lanes = ONE,
    dtype: torch.dtype = torch.float32,
) -> list[NDArray[np.float32]]:  # fmt: skip
    """``of`` each text [T], computed as a step in ``dtype`` would: entry t is about token t, entry 0 is 0."""
    batch = pack(texts, row_tokens).to(model.embed_tokens.weight.device)
    place, is_cast = batch.targets_BT.device.type, dtype != torch.float32

    def told(part: Batch) -> Tensor:
        with torch.no_grad(), torch.autocast(place, dtype, enabled=is_cast, cache_enabled=False):
            return of(model, part)

    return unpack(in_world(told, batch, passes, lanes), [len(text.tokens) for text in texts])


def logps(model: Decoder, batch: Batch) -> Tensor:
    """log p of each target that is learned, in nats, float32; 0 of others: [B, T]. With gradient."""
    states_BTD = model(batch.rows, batch.routes or None).states_BTD
    return -cross_entropy(model, states_BTD, batch.targets_BT, batch.weight_BT > 0)


def values_before(model: Decoder, batch: Batch) -> Tensor:
    """What the model's head expects before each target is said: a critic's V_t, float32 [B, T]. With gradient."""
    return head_of(model)(model(batch.rows, batch.routes or None).states_BTD)


def values_after(model: Decoder, batch: Batch) -> Tensor:
    """What the head says once each target has been said, so at a text's last token of the whole: [B, T]."""
    return values_before(model, batch).roll(-1, 1)
