"""The small parts: linear maps, RMSNorm, rotary positions, SwiGLU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seekling.model.config import ModelConfig


class Linear(nn.Module):
    """y = x W^T without bias. ``weight`` [out, in], set by ``Decoder.init_weights``."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis (arXiv 1910.07467, eq. 4)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.type_as(x), self.eps)


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x) (arXiv 2002.05202, eq. 6)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, hidden)
        self.up_proj = Linear(width, hidden)
        self.down_proj = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def rotary_table(config: ModelConfig, num_positions: int) -> Tensor:
    """e^{i t theta_j} for every position t and channel pair j: complex64 [T, R/2] (arXiv 2104.09864, eq. 15)."""
    pairs = torch.arange(0, config.rotary_dim, 2, dtype=torch.float64)
    frequency = config.rope_theta ** (-pairs / config.rotary_dim)
    angle = torch.arange(num_positions, dtype=torch.float64)[:, None] * frequency
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def rotate_interleaved(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate channel pairs (0,1), (2,3), ... as DeepSeek's weights expect. ``rotary`` broadcasts over heads."""
    if any(stride % 2 for stride in (*x.stride()[:-1], x.storage_offset())):
        x = x.clone(memory_format=torch.contiguous_format)  # beside an odd width, pairs would lie across words
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotary).flatten(-2).type_as(x)


def rotate_half(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate channel pairs (j, j + K/2), the layout of Llama and Qwen weights."""
    first, second = x.float().chunk(2, -1)
    cos, sin = rotary.real, rotary.imag
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).type_as(x)
