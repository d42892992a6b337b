"""What kernels.c is told of a model and a chunk: its structures, made once, and the tensors they point into kept alive.

Field by field as in the C files. ``None`` where a block is none of theirs: it has adapters, or is held in several ways.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from seekling.model.layers import Linear, RMSNorm, SwiGLU
from seekling.model.moe import DeepSeekMoE
from seekling.model.pages import Chunk

_POINTER, _WHOLE, _FLOAT, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int


class Unfit(Exception):
    """A block that is done by parts."""


class Shape(ctypes.Structure):
    """``shape`` of kernels.c."""

    _fields_ = (
        *((name, _WHOLE) for name in ("tokens", "heads", "kv_heads", "width", "window", "table_stride")),
        ("scale", _FLOAT), ("eps", _FLOAT), ("interleaved", _INT), ("threads", _INT),
    )  # fmt: skip


class Matrix(ctypes.Structure):
    """``matrix`` of products.h."""

    _fields_ = (("weight", _POINTER), ("bias", _POINTER), ("scales", _POINTER), ("num_out", _WHOLE), ("num_in", _WHOLE))


class Choice(ctypes.Structure):
    """``choice`` of kernels.c."""

    _fields_ = (
        *((name, _WHOLE) for name in ("experts", "best", "groups", "groups_kept")),
        ("normalise", _INT), ("sigmoid", _INT), ("scale", _FLOAT),
    )  # fmt: skip


class Stack(ctypes.Structure):
    """``stack`` of kernels.c."""

    _fields_ = (
        *((name, _POINTER) for name in ("gate_up", "down", "gate_up_scales", "down_scales")),
        *((name, _WHOLE) for name in ("experts", "width", "hidden")),
    )


class Layer(ctypes.Structure):
    """``layer`` of block.h."""

    _fields_ = (
        ("heads", Shape), ("is_latent", _WHOLE), ("nope", _WHOLE), ("v_width", _WHOLE),
        ("input_norm", _POINTER), ("after_norm", _POINTER),
        ("eps", _FLOAT), ("q_a_eps", _FLOAT), ("inner_eps", _FLOAT),
        ("q_a_norm", _POINTER), ("q_norm", _POINTER), ("k_norm", _POINTER),
        *((name, Matrix) for name in ("q_a", "q", "k", "v", "o")), ("kv_b", _POINTER),
        *((name, Matrix) for name in ("gate", "up", "down")),
        ("router", _POINTER), ("router_is_float", _INT), ("router_bias", _POINTER),
        ("choice", Choice), ("stack", Stack),
    )  # fmt: skip


class Pass(ctypes.Structure):
    """``chunk`` of block.h."""

    _fields_ = (
        *((name, _WHOLE) for name in ("tokens", "rows", "table_stride")),
        *((name, _POINTER) for name in ("positions", "places", "starts", "row_of", "tables", "rotary")),
        ("threads", _INT),
    )


def pass_of(chunk: Chunk, rotary_TR: Tensor) -> Pass:
    """A chunk, with as many threads as torch has here."""
    told = Pass(
        len(chunk.tokens_N), len(chunk.starts) - 1, chunk.tables_BP.stride(0), chunk.positions_N.data_ptr(),
        chunk.places_N.data_ptr(), chunk.starts.data_ptr(), chunk.rows_N.data_ptr(), chunk.tables_BP.data_ptr(),
        rotary_TR.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    told.kept = chunk
    return told


class Told:
    """The tensors of one block, as pointers. All but routers are held in ``dtype``."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.kept: list[Tensor] = []

    def pointer(self, weight: Tensor, *dtypes: torch.dtype) -> int:
        """Where a tensor lies. Raises Unfit where that says too little about it."""
        if weight.dtype not in (dtypes or (self.dtype,)) or not weight.is_contiguous():
            raise Unfit
        self.kept.append(weight)
        return weight.data_ptr()

    def matrix(self, layer: Linear) -> Matrix:
        """A linear map. Raises Unfit for one with an adapter."""
        if layer.adapter is not None:
            raise Unfit
        bias = None if layer.bias is None else self.pointer(layer.bias)
        return Matrix(*self._weights(layer.weight, layer.scale_O, bias), *layer.weight.shape)

    def _weights(self, weight: Tensor, scale: Tensor | None, bias: int | None) -> tuple[int, int | None, int | None]:
        if scale is None:
            return self.pointer(weight), bias, None
        return self.pointer(weight, torch.int8), bias, self.pointer(scale, torch.float32)

    def head(self, model: Any) -> Matrix:
        """The output matrix of a ``Decoder``."""
        scale_V = None if model.lm_head is None else model.lm_head.scale_O
        told = Matrix(*self._weights(model.head_VD, scale_V, None), *model.head_VD.shape)
        told.kept = self.kept
        return told

    def layer(self, block: Any) -> Layer:
        """A ``Block`` of decoder.py."""
        told = Layer(
            input_norm=self.pointer(block.input_layernorm.weight), eps=block.input_layernorm.eps,
            after_norm=self.pointer(block.post_attention_layernorm.weight),
        )  # fmt: skip
        attention, mlp = block.self_attn, block.mlp
        shape = attention.shape
        told.heads = Shape(
            heads=shape.heads, kv_heads=shape.kv_heads, window=shape.window or 0, scale=shape.scale,
            interleaved=shape.interleaved,
        )  # fmt: skip
        (self._latent if hasattr(attention, "latent") else self._grouped)(told, attention)
        if isinstance(mlp, DeepSeekMoE):
            self._sparse(told, mlp)
        self._dense(told, mlp.shared_experts if isinstance(mlp, DeepSeekMoE) else mlp)
        told.kept = self.kept
        return told

    def _norm(self, norm: RMSNorm) -> tuple[int, float]:
        return self.pointer(norm.weight), norm.eps

    def _grouped(self, told: Layer, attention: Any) -> None:
        told.q, told.k, told.v, told.o = (
            self.matrix(proj) for proj in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        )
        told.heads.width = told.q.num_out // attention.heads
        if attention.qk_norm:
            (told.q_norm, told.inner_eps), (told.k_norm, _) = map(self._norm, (attention.q_norm, attention.k_norm))

    def _latent(self, told: Layer, attention: Any) -> None:
        if attention.low_rank_q:
            told.q_a, told.q = self.matrix(attention.q_a_proj), self.matrix(attention.q_b_proj)
            told.q_a_norm, told.q_a_eps = self._norm(attention.q_a_layernorm)
        else:
            told.q = self.matrix(attention.q_proj)
        told.k, told.o = self.matrix(attention.kv_a_proj_with_mqa), self.matrix(attention.o_proj)
        told.k_norm, told.inner_eps = self._norm(attention.kv_a_layernorm)
        if attention.kv_b_proj.adapter is not None:
            raise Unfit
        told.kv_b = self.pointer(attention.kv_b_proj.weight)
        told.is_latent, told.nope, told.v_width = 1, attention.nope, attention.v_width
        told.heads.width = attention.latent + attention.rope

    def _dense(self, told: Layer, mlp: SwiGLU | None) -> None:
        if mlp is not None:
            told.gate, told.up, told.down = map(self.matrix, (mlp.gate_proj, mlp.up_proj, mlp.down_proj))

    def _sparse(self, told: Layer, mlp: DeepSeekMoE) -> None:
        weight, bias_E = mlp.gate.weight, mlp.gate.e_score_correction_bias
        told.router = self.pointer(weight, self.dtype, torch.float32)
        told.router_is_float = weight.dtype == torch.float32
        told.router_bias = None if bias_E is None else self.pointer(bias_E, torch.float32)
        told.choice, told.stack = choice_of(mlp), self.stack(mlp)

    def stack(self, mlp: DeepSeekMoE) -> Stack:
        """The routed experts. Raises Unfit where they have adapters, or live elsewhere."""
        if mlp.gate_up_adapter is not None or mlp.down_adapter is not None:
            raise Unfit
        experts, width, hidden = mlp.down_proj.shape
        if experts != len(mlp.gate.weight):
            raise Unfit
        gate_up, _, gate_up_scales = self._weights(mlp.gate_up_proj, mlp.gate_up_scale, None)
        down, _, down_scales = self._weights(mlp.down_proj, mlp.down_scale, None)
        return Stack(gate_up, down, gate_up_scales, down_scales, experts, width, hidden)


def choice_of(mlp: DeepSeekMoE) -> Choice:
    """How a layer's experts are chosen and weighed."""
    c = mlp.config
    return Choice(
        len(mlp.gate.weight), c.num_experts_per_tok, c.n_group, c.topk_group, c.norm_topk_prob, mlp.gate.sigmoid,
        c.routed_scaling_factor,
    )  # fmt: skip
