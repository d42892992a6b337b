"""What stands between the matrix products of a training pass, each as one operation with a way back of its own.

layers.py and attention.py define in torch what is computed, anywhere and in any precision. Here is the same by
learning.c, for weights in float32 on a CPU where a C compiler is found: torch takes a norm apart into five operations
and keeps what each of them left, where one needs its input and a number a row.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seekling.model.kernels import library

NARROW = torch.bfloat16


def learning(x: Tensor, *weights: Tensor | None) -> ctypes.CDLL | None:
    """The library, where it knows what it is given; else None, and torch does it."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, NARROW):
        return None
    if any(weight is not None and weight.dtype != torch.float32 for weight in weights):
        return None
    return library("learning")


def norm(c: ctypes.CDLL, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight, as precise as x."""
    normed: Tensor = _Norm.apply(c, x, None, weight_D, eps)[1]
    return normed


def add_norm(c: ctypes.CDLL, x: Tensor, y: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + y, and its norm; ``x`` in float32."""
    summed, normed = _Norm.apply(c, x, y, weight_D, eps)
    return summed, normed


def gate(c: ctypes.CDLL, both: Tensor) -> Tensor:
    """silu(first half) * second half, along the last axis: [..., 2 F] to [..., F]."""
    gated: Tensor = _Gate.apply(c, both)
    return gated


def grouped(
    c: ctypes.CDLL, qkv_BTC: Tensor, norms: tuple[Tensor, Tensor] | None, eps: float, rotary_BTR: Tensor,
    heads: int, kv_heads: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Queries and keys normed and turned, keys and values repeated for every query head: float32, [B, T, H, K] each."""
    q_norm, k_norm = norms or (None, None)
    q_BTHK, k_BTHK, v_BTHK = _Grouped.apply(c, qkv_BTC, q_norm, k_norm, rotary_BTR, eps, heads, kv_heads)
    return q_BTHK, k_BTHK, v_BTHK


def latent(
    c: ctypes.CDLL, q_BTC: Tensor, kv_BTC: Tensor, rope_BTR: Tensor, rotary_BTR: Tensor, heads: int, *,
    interleaved: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Queries and keys with their last R channels turned, and values: float32, [B, T, H, .] each."""
    q_BTHK, k_BTHK, v_BTHK = _Latent.apply(c, q_BTC, kv_BTC, rope_BTR, rotary_BTR, heads, interleaved)
    return q_BTHK, k_BTHK, v_BTHK


def attend(
    c: ctypes.CDLL, q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, first_BT: Tensor | None, scale: float
) -> Tensor:  # fmt: skip
    """softmax(q k^T scale) v over keys from ``first_BT`` (the row's) to the query's own: [B, T, H V].

    Nothing is worked on that is not seen: of texts that share a row, each looks at its own alone.
    """
    if first_BT is None:
        first_BT = torch.zeros(q_BTHK.shape[:2], dtype=torch.int32)
    said: Tensor = _Attend.apply(c, q_BTHK, k_BTHK, v_BTHK, first_BT, scale)
    return said


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, c: ctypes.CDLL, x: Tensor, y: Tensor | None, weight_D: Tensor, eps: float
    ) -> tuple[Tensor | None, Tensor]:
        x, y = _rows(x), None if y is None else y.contiguous()
        out = torch.empty(x.shape, dtype=x.dtype)
        summed = None if y is None else torch.empty(x.shape, dtype=x.dtype)
        scales_N = torch.empty(x.numel() // x.shape[-1])
        c.norm_there(
            x.data_ptr(), x.dtype == NARROW, _stride(x), _at(y), y is not None and y.dtype == NARROW,
            weight_D.data_ptr(), eps, _at(summed), out.data_ptr(), scales_N.data_ptr(), *_size(x), _threads(),
        )  # fmt: skip
        ctx.c, ctx.of_y = c, None if y is None else y.dtype
        ctx.save_for_backward(x if summed is None else summed, weight_D, scales_N)
        return summed, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_sum: Tensor | None, of_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_D, scales_N = ctx.saved_tensors
        of_out = of_out.contiguous()
        beside = None if ctx.of_y is None or of_sum is None else of_sum.contiguous()
        of_x = torch.empty(x.shape, dtype=x.dtype)
        of_y = torch.empty(x.shape, dtype=NARROW) if ctx.of_y == NARROW else None
        of_weight_D = torch.empty_like(weight_D) if ctx.needs_input_grad[3] else None
        ctx.c.norm_back(
            of_out.data_ptr(), _at(beside), x.data_ptr(), x.dtype == NARROW, _stride(x), weight_D.data_ptr(),
            scales_N.data_ptr(), of_x.data_ptr(), _at(of_y), _at(of_weight_D), *_size(x), _threads(),
        )  # fmt: skip
        return None, of_x, of_x if of_y is None and ctx.of_y is not None else of_y, of_weight_D, None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, c: ctypes.CDLL, both: Tensor) -> Tensor:
        both = both.contiguous()
        out = torch.empty((*both.shape[:-1], both.shape[-1] // 2), dtype=both.dtype)
        c.gate_there(both.data_ptr(), out.data_ptr(), *_size(out), both.dtype == NARROW, _threads())
        ctx.c = c
        ctx.save_for_backward(both)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor | None, ...]:
        (both,) = ctx.saved_tensors
        of_out, of_both = of_out.contiguous(), torch.empty_like(both)
        ctx.c.gate_back(
            of_out.data_ptr(), both.data_ptr(), of_both.data_ptr(), *_size(of_out), both.dtype == NARROW, _threads()
        )
        return None, of_both


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, c: ctypes.CDLL, qkv_BTC: Tensor, q_norm_K: Tensor | None, k_norm_K: Tensor | None,
        rotary_BTR: Tensor, eps: float, heads: int, kv_heads: int,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        qkv_BTC, rotary_BTR = qkv_BTC.contiguous(), rotary_BTR.contiguous()
        width = qkv_BTC.shape[-1] // (heads + 2 * kv_heads)
        shape = _Shape(_size(qkv_BTC)[0], heads, kv_heads, width, width, 0, 0, eps, False, qkv_BTC.dtype == NARROW)
        found = tuple(torch.empty(*qkv_BTC.shape[:-1], heads, width) for _ in range(3))
        c.grouped_there(
            shape.here(), qkv_BTC.data_ptr(), _at(q_norm_K), _at(k_norm_K), rotary_BTR.data_ptr(), *map(_at, found)
        )
        ctx.c, ctx.shape, ctx.like = c, shape, (qkv_BTC.shape, qkv_BTC.dtype)
        ctx.save_for_backward(None if q_norm_K is None else qkv_BTC, q_norm_K, k_norm_K, rotary_BTR)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads_BTHK: Tensor) -> tuple[Tensor | None, ...]:
        qkv_BTC, q_norm_K, k_norm_K, rotary_BTR = ctx.saved_tensors
        grads_BTHK = tuple(grad_BTHK.contiguous() for grad_BTHK in grads_BTHK)
        of_qkv_BTC = torch.empty(ctx.like[0], dtype=ctx.like[1])
        of_norms = (None, None) if q_norm_K is None else torch.empty(2, len(q_norm_K)).unbind()
        ctx.c.grouped_back(
            ctx.shape.here(), *map(_at, grads_BTHK), _at(qkv_BTC), _at(q_norm_K), _at(k_norm_K),
            rotary_BTR.data_ptr(), of_qkv_BTC.data_ptr(), _at(of_norms[0]),
        )  # fmt: skip
        return None, of_qkv_BTC, *of_norms, None, None, None, None


class _Latent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, c: ctypes.CDLL, q_BTC: Tensor, kv_BTC: Tensor, rope_BTR: Tensor, rotary_BTR: Tensor, heads: int,
        interleaved: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        q_BTC, kv_BTC, rope_BTR, rotary_BTR = (
            q_BTC.contiguous(),
            kv_BTC.contiguous(),
            _rows(rope_BTR),
            rotary_BTR.contiguous(),
        )
        width, rotary = q_BTC.shape[-1] // heads, rope_BTR.shape[-1]
        values = kv_BTC.shape[-1] // heads - (width - rotary)
        shape = _Shape(
            _size(q_BTC)[0], heads, 0, width, rotary, values, _stride(rope_BTR), 0.0, interleaved, q_BTC.dtype == NARROW
        )
        found = tuple(torch.empty(*q_BTC.shape[:-1], heads, w) for w in (width, width, values))
        given = (q_BTC, kv_BTC, rope_BTR)
        c.latent_there(shape.here(), *map(_at, given), rotary_BTR.data_ptr(), *map(_at, found))
        ctx.c, ctx.shape, ctx.like = c, shape, ([x.shape for x in given], q_BTC.dtype)
        ctx.save_for_backward(rotary_BTR)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads_BTHK: Tensor) -> tuple[Tensor | None, ...]:
        grads_BTHK = tuple(grad_BTHK.contiguous() for grad_BTHK in grads_BTHK)
        found = tuple(torch.empty(shape, dtype=ctx.like[1]) for shape in ctx.like[0])
        ctx.c.latent_back(ctx.shape.here(), *map(_at, grads_BTHK), ctx.saved_tensors[0].data_ptr(), *map(_at, found))
        return None, *found, None, None, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, c: ctypes.CDLL, q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, first_BT: Tensor, scale: float
    ) -> Tensor:
        given = tuple(x.contiguous() for x in (q_BTHK, k_BTHK, v_BTHK, first_BT))
        (*rows, heads, width), values = q_BTHK.shape, v_BTHK.shape[-1]
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        out_BTC = torch.empty(*rows, heads * values, dtype=kind)
        logs_BTH = torch.empty(*rows, heads)
        sight = _Sight(*rows, heads, width, values, scale, kind == NARROW)
        c.attend_there(sight.here(), *map(_at, given), out_BTC.data_ptr(), logs_BTH.data_ptr())
        ctx.c, ctx.sight = c, sight
        ctx.save_for_backward(*given, logs_BTH)
        return out_BTC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out_BTC: Tensor) -> tuple[Tensor | None, ...]:
        given, of_out_BTC = ctx.saved_tensors, of_out_BTC.contiguous()
        found = tuple(torch.empty_like(x) for x in given[:3])
        ctx.c.attend_back(ctx.sight.here(), of_out_BTC.data_ptr(), *map(_at, given), *map(_at, found))
        return None, *found, None, None


class _Here(ctypes.Structure):
    def here(self) -> Any:
        """Its address, with as many threads as torch has now: the way back may be another thread's."""
        self.threads = _threads()
        return ctypes.byref(self)


class _Sight(_Here):
    """``sight`` of learning.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "length", "heads", "width", "values")),
        ("scale", ctypes.c_float), ("narrow", ctypes.c_int), ("threads", ctypes.c_int),
    )  # fmt: skip


class _Shape(_Here):
    """``shape`` of learning.c."""

    _fields_ = (
        *((name, ctypes.c_int64)
          for name in ("tokens", "heads", "kv_heads", "width", "rotary", "values", "stride")),
        ("eps", ctypes.c_float), ("interleaved", ctypes.c_int), ("narrow", ctypes.c_int), ("threads", ctypes.c_int),
    )  # fmt: skip


def _threads() -> int:
    return torch.get_num_threads()


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _size(x: Tensor) -> tuple[int, int]:
    """Rows of the last axis, and how long they are."""
    return x.numel() // x.shape[-1], x.shape[-1]


def _rows(x: Tensor) -> Tensor:
    """The same where its rows lie at equal distances, as a slice of a product's columns does; else a copy."""
    even = x.stride(-1) == 1 and all(x.stride(i) == x.stride(i + 1) * x.shape[i + 1] for i in range(x.ndim - 2))
    return x if even else x.contiguous()


def _stride(x: Tensor) -> int:
    return x.stride(-2) if x.ndim > 1 else x.shape[-1]
