"""The small parts: linear maps, RMSNorm, rotary positions, SwiGLU."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seekling.model import fused
from seekling.model.config import ModelConfig

if TYPE_CHECKING:
    from seekling.model.lora import LowRank


class Linear(nn.Module):
    """y = x W^T + b. ``weight`` [out, in], set by ``Decoder.init_weights``; most maps have no bias, few an adapter.

    Where there is a ``scale_O``, the weights are codes (int8.py).
    """

    adapter: LowRank | None
    scale_O: Tensor | None

    def __init__(self, num_in: int, num_out: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in))
        self.bias = nn.Parameter(torch.zeros(num_out)) if bias else None
        self.register_module("adapter", None)
        self.register_buffer("scale_O", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, scaled(self.weight, self.scale_O, x.dtype), self.bias)
        return y if self.adapter is None else self.adapter(x, y)


def scaled(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Weights [..., O, D] as products take them: codes times the scales [..., O] of their outputs."""
    return weight if scale is None else (weight * scale.unsqueeze(-1)).to(dtype)


def joined(x: Tensor, *maps: Linear) -> Tensor:
    """What several maps make of x, side by side, by one product: x is read once, and once is its gradient summed."""
    if any(linear.adapter is not None for linear in maps):
        return torch.cat([linear(x) for linear in maps], -1)
    weights: list[Tensor] = [linear.weight for linear in maps]
    biases: list[Tensor] = [linear.bias for linear in maps if linear.bias is not None]
    return F.linear(x, torch.cat(weights), torch.cat(biases) if biases else None)


def inner_dtype(place: str) -> torch.dtype:
    """What attention computes in under autocast: on a CPU float32, its way back in bfloat16 is far slower."""
    return torch.float32 if place == "cpu" else torch.get_autocast_dtype(place)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis (arXiv 1910.07467, eq. 4)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if (kernels := fused.learning(x, self.weight)) is not None:
            return fused.norm(kernels, x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight.type_as(x), self.eps)

    def add(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x + y, and its norm."""
        kernels = fused.learning(x, self.weight) if x.dtype == torch.float32 else None
        if kernels is not None and y.dtype in (torch.float32, fused.NARROW):
            return fused.add_norm(kernels, x, y, self.weight, self.eps)
        summed = x + y
        return summed, self(summed)


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x) (arXiv 2002.05202, eq. 6)."""

    def __init__(self, width: int, hidden: int, *, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = Linear(width, hidden, bias=bias)
        self.up_proj = Linear(width, hidden, bias=bias)
        self.down_proj = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if fused.learning(x, self.gate_proj.weight) is not None:
            return self.down_proj(gated(joined(x, self.gate_proj, self.up_proj)))
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def gated(both: Tensor) -> Tensor:
    """silu(first half) * second half."""
    if (kernels := fused.learning(both)) is not None:
        return fused.gate(kernels, both)
    gate, up = both.chunk(2, -1)
    return F.silu(gate) * up


def rotary_table(config: ModelConfig, num_positions: int) -> Tensor:
    """m e^{i t theta_j} for every position t and channel pair j: complex64 [T, R/2] (arXiv 2104.09864, eq. 15).

    The magnitude m is 1 unless positions are stretched by YaRN. Always made on the CPU, even where a device is set.
    """
    frequency, magnitude = frequencies(config), rotary_magnitude(config)
    angle = torch.arange(num_positions, dtype=torch.float64, device="cpu")[:, None] * frequency
    return torch.polar(torch.full_like(angle, magnitude), angle).to(torch.complex64)


def frequencies(config: ModelConfig) -> Tensor:
    """theta_j of each rotated channel pair, stretched as ``rope_scaling`` says: float64 [R/2]."""
    pairs = torch.arange(0, config.rotary_dim, 2, dtype=torch.float64, device="cpu")
    frequency = config.rope_theta ** (-pairs / config.rotary_dim)
    return frequency if config.rope_scaling is None else _STRETCH[config.rope_scaling.rope_type](config, frequency)


def _stretch_all(config: ModelConfig, frequency: Tensor) -> Tensor:
    assert config.rope_scaling is not None
    return frequency / config.rope_scaling.factor


def _stretch_slow(config: ModelConfig, frequency: Tensor) -> Tensor:
    """Llama 3.1: slow pairs by the factor, fast ones not, a blend between, by turns within the original length."""
    scaling = config.rope_scaling
    assert scaling is not None and scaling.low_freq_factor and scaling.high_freq_factor
    assert scaling.original_max_position_embeddings
    turns = scaling.original_max_position_embeddings * frequency / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return torch.lerp(frequency / scaling.factor, frequency, kept.clamp(0, 1))


def _stretch_by_ramp(config: ModelConfig, frequency: Tensor) -> Tensor:
    """YaRN (arXiv 2309.00071, section 3.2): kept below channel ``low``, stretched above ``high``, a ramp between."""
    scaling = config.rope_scaling
    assert scaling is not None
    low, high = ramp_ends(config)
    ramp = ((torch.arange(len(frequency), dtype=torch.float64, device="cpu") - low) / (high - low)).clamp(0, 1)
    return torch.lerp(frequency, frequency / scaling.factor, ramp)


def ramp_ends(config: ModelConfig) -> tuple[float, float]:
    """The channel pairs that turn ``beta_fast`` and ``beta_slow`` times within the original length."""
    scaling = config.rope_scaling
    assert scaling is not None and scaling.original_max_position_embeddings
    original = scaling.original_max_position_embeddings

    def pair(turns: float) -> float:
        turn_length = original / (2 * math.pi * turns)
        return config.rotary_dim * math.log(turn_length) / (2 * math.log(config.rope_theta))

    low, high = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.rotary_dim - 1)
    return (low, high) if low != high else (low, high + 0.001)


_STRETCH = {"linear": _stretch_all, "llama3": _stretch_slow, "yarn": _stretch_by_ramp}


def sharpness(factor: float, mscale: float = 1.0) -> float:
    """0.1 m ln(factor) + 1: how much YaRN sharpens attention over a longer context (arXiv 2309.00071, eq. 22)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def rotary_magnitude(config: ModelConfig) -> float:
    """What YaRN multiplies cos and sin by; DeepSeek's two ``mscale`` settings cancel each other here when equal."""
    scaling = config.rope_scaling
    if scaling is None or scaling.rope_type != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return sharpness(scaling.factor, scaling.mscale) / sharpness(scaling.factor, scaling.mscale_all_dim)
    return sharpness(scaling.factor)


def softmax_scale(config: ModelConfig) -> float:
    """1/sqrt(head width), times DeepSeek's YaRN sharpness squared where ``mscale_all_dim`` asks for it."""
    scale, scaling = config.qk_head_dim**-0.5, config.rope_scaling
    if config.parts.attention == "mla" and scaling is not None and scaling.mscale_all_dim:
        scale *= sharpness(scaling.factor, scaling.mscale_all_dim) ** 2
    return scale


def wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def rotate_interleaved(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate channel pairs (0,1), (2,3), ... as DeepSeek's weights expect. ``rotary`` broadcasts over heads."""
    if any(stride % 2 for stride in (*x.stride()[:-1], x.storage_offset())):
        x = x.clone(memory_format=torch.contiguous_format)  # beside an odd width, pairs would lie across words
    pairs = torch.view_as_complex(wide(x).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotary).flatten(-2).type_as(x)


def rotate_half(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate channel pairs (j, j + K/2), the layout of Llama and Qwen weights."""
    first, second = wide(x).chunk(2, -1)
    cos, sin = rotary.real, rotary.imag
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).type_as(x)
