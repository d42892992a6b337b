"""The cache of a batch of running requests: one buffer per layer, one slot per request, passed in, never ambient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seekling.model.attention import LayerCache
from seekling.model.config import ModelConfig


class Cache:
    """``layers[l]`` [C, S, H, T, K]: S slots of T tokens, head by head as products of matrices want them.

    C is keys and values (GQA), or one latent with its rotated key and no heads (MLA): ``ModelConfig.cache_shape``.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_slots: int,
        num_tokens: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.parts = config.cache_shape
        kinds, heads, width = self.parts
        shape = (kinds, num_slots, heads, num_tokens, width)
        self.layers = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self.windows = [config.window(layer) for layer in range(config.num_hidden_layers)]

    def fill(self, slots_B: Tensor, entries: Sequence[Tensor], sources_B: Tensor) -> None:
        """Copy prompt entries [P, T, W] of row ``sources_B`` into slots: one prompt may fill many (a group)."""
        for layer, entry_PTW in zip(self.layers, entries, strict=True):
            entry_CBHTK = entry_PTW.index_select(0, sources_B).unflatten(-1, self.parts).permute(2, 0, 3, 1, 4)
            layer[..., : entry_PTW.shape[1], :].index_copy_(1, slots_B, entry_CBHTK)

    def keep(self, slots_B: Tensor) -> None:
        """Forget every slot but these, which move to the front in this order: layer by layer, lest all stand twice."""
        for place, layer in enumerate(self.layers):
            self.layers[place] = layer.index_select(1, slots_B)

    def views(self, lengths_B: Tensor, longest: int) -> list[LayerCache]:
        """What each layer sees when every slot appends one token to ``lengths_B`` entries."""
        rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        bias = {window: self._bias(lengths_B, longest, window) for window in set(self.windows)}
        return [
            LayerCache(layer[..., : longest + 1, :], rows_B, lengths_B, bias[window])
            for layer, window in zip(self.layers, self.windows, strict=True)
        ]

    def _bias(self, lengths_B: Tensor, longest: int, window: int | None) -> Tensor:
        """0 where the token at ``lengths_B`` may look, -inf elsewhere: [B, 1, T]."""
        places_T, own_B1 = torch.arange(longest + 1, device=lengths_B.device), lengths_B.unsqueeze(1)
        hidden_BT = places_T > own_B1
        if window is not None:
            hidden_BT |= places_T <= own_B1 - window
        zero = torch.zeros((), dtype=self.layers[0].dtype, device=lengths_B.device)
        return zero.expand(hidden_BT.shape).masked_fill(hidden_BT, float("-inf")).unsqueeze(1)
