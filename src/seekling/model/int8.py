"""Weights as whole numbers of eight bits, for sampling where reading them is what takes time.

W[o, d] ~ codes[o, d] * scale[o], codes from -127 to 127, the scale of an output channel its largest weight over 127.
Held so: linear maps, routed experts and the output matrix, which a tied table is copied for. As they were: embeddings,
norms, biases, routers (a rounded score sends elsewhere), and MLA's kv_b_proj, which is read in two directions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seekling.model.decoder import Decoder
from seekling.model.layers import Linear
from seekling.model.moe import DeepSeekMoE


def to_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes of weights [..., O, D], and their scales [..., O], float32. A channel of zeros has scale 1."""
    most = weight.abs().amax(-1).float()
    scale = torch.where(most > 0, most / 127, torch.ones_like(most))
    return (weight.float() / scale.unsqueeze(-1)).round().to(torch.int8), scale


@torch.no_grad()
def hold_int8(model: Decoder, policy: Decoder) -> None:
    """Let ``model``, a copy of ``policy``, hold the codes of its weights; again after an update, where they lie."""
    if model.lm_head is None:
        model.lm_head = Linear(model.config.hidden_size, model.config.vocab_size)
    _hold(model.lm_head, "weight", "scale_O", policy.head_VD)
    for ours, theirs in zip(model.blocks, policy.blocks, strict=True):
        for name, module in ours.named_modules():
            if isinstance(module, Linear) and not name.endswith("kv_b_proj"):
                _hold(module, "weight", "scale_O", theirs.get_parameter(f"{name}.weight"))
            elif isinstance(module, DeepSeekMoE):
                _hold(module, "gate_up_proj", "gate_up_scale", theirs.get_parameter(f"{name}.gate_up_proj"))
                _hold(module, "down_proj", "down_scale", theirs.get_parameter(f"{name}.down_proj"))


def _hold(module: nn.Module, weight: str, scale: str, source: Tensor) -> None:
    held, (codes, scales) = getattr(module, weight), to_codes(source)
    if held.dtype != torch.int8 or held.shape != codes.shape:
        held.requires_grad_(False)
        held.data = codes
        setattr(module, scale, scales)
    else:
        held.copy_(codes)
        getattr(module, scale).copy_(scales)
