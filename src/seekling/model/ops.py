"""What stands between the matrix products of ``Decoder.extend``, in two forms that must agree (tests/parity).

``Plain`` is torch, anywhere and in any precision, and the definition of what is computed. ``Compiled`` is kernels.c, on
a CPU, where a C compiler is found: a decode step of a small model has a hundred short operations, whose calls cost
more than their work, and torch reads a paged cache only after copying it together.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seekling.errors import UserError
from seekling.model import structs
from seekling.model.kernels import library
from seekling.model.layers import RMSNorm, SwiGLU, rotate_half, rotate_interleaved, wide
from seekling.model.moe import DeepSeekMoE, Routing
from seekling.model.pages import SLOTS, Chunk, Layer

if TYPE_CHECKING:
    from seekling.model.decoder import Block, Decoder

Part = TypeVar("Part")
Made = TypeVar("Made")

FEW_ROWS = {torch.float32: 32, torch.bfloat16: 128}
"""Tokens up to which products by kernels.c are faster than a library's."""
FEW_ROWS_EACH = 24
"""Rows an expert has, in the mean, up to which the same holds for experts."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The shape of an attention: H ``heads`` (J ``kv_heads`` of GQA), ``rotary`` channels R, what scores are scaled
    by, the ``window`` a token sees (None: all before it), and which channels are turned together."""

    heads: int
    kv_heads: int
    rotary: int
    scale: float
    interleaved: bool
    window: int | None = None


class Ops(Protocol):
    """The operations of a pass over paged caches. The stream ``x_ND`` is float32 (float64 in a float64 model)."""

    def add_norm(self, x_ND: Tensor, y_ND: Tensor | None, norm: RMSNorm) -> Tensor:
        """Add ``y_ND`` to the stream, in place, and return its norm in the model's precision."""

    def swiglu(self, gate_NF: Tensor, up_NF: Tensor) -> Tensor:
        """silu(gate) * up."""

    def attend_gqa(
        self, qkv: tuple[Tensor, Tensor, Tensor], norms: tuple[RMSNorm, RMSNorm] | None, shape: Heads,
        rotary_TR: Tensor, chunk: Chunk, pages: Layer,
    ) -> Tensor:  # fmt: skip
        """Norm and turn queries [N, H K] and keys [N, J K], write keys and values, look at what each may see: [N, H K].

        ``norms`` are those of queries and keys; None: there are none.
        """

    def write_mla(
        self, q_NHK: Tensor, entry_NW: Tensor, norm: RMSNorm, shape: Heads, rotary_TR: Tensor, chunk: Chunk,
        pages: Layer,
    ) -> Tensor:  # fmt: skip
        """Turn the last R of each query's channels, and write latents, normed, and rotary keys, turned: q [N, H, K]."""

    def attend_mla(self, absorbed_HNC: Tensor, q_NHK: Tensor, shape: Heads, chunk: Chunk, pages: Layer) -> Tensor:
        """Absorbed queries, and the last R channels of ``q_NHK``, against latents and rotary keys: [H, N, C]."""

    def feed(self, mlp: SwiGLU | DeepSeekMoE, x_ND: Tensor) -> tuple[Tensor, Routing | None]:
        """A block's feed-forward, and where its experts were."""

    def block(self, block: Block, x_ND: Tensor, rotary_TR: Tensor, chunk: Chunk, pages: Layer) -> Routing | None:
        """``Block.extend``: a whole block, added to the stream in place."""

    def logits(self, model: Decoder, x_ND: Tensor) -> Tensor:
        """``Decoder.logits``: [N, V]."""


def ops_for(dtype: torch.dtype, device: torch.device) -> Ops:
    """The fastest form there is for a model held so."""
    compiled = library(str(dtype).removeprefix("torch.")) if device.type == "cpu" else None
    return Plain() if compiled is None else Compiled(compiled, dtype)


def exact_ops(model: Decoder) -> Ops:
    """Ops under which what comes of a token depends on nothing but its own text, to the bit.

    Raises UserError where no kernels do all of the model: a library's products differ with the number of rows.
    """
    weight = model.embed_tokens.weight
    ops = ops_for(weight.dtype, weight.device)
    if not (isinstance(ops, Compiled) and ops.does(model)):
        raise UserError(
            "sampling cannot be deterministic here: no kernels do all of this model's work",
            next_step="That takes a CPU, a C compiler, float32 or bfloat16, and no adapters beside the weights.",
        )
    ops.few_rows = sys.maxsize
    return ops


class Plain:
    """In torch. Rows of one length each: shorter ones are padded, and what is added is cut away."""

    def add_norm(self, x_ND: Tensor, y_ND: Tensor | None, norm: RMSNorm) -> Tensor:
        if y_ND is not None:
            x_ND += y_ND
        return F.rms_norm(x_ND, norm.weight.shape, norm.weight.type_as(x_ND), norm.eps).type_as(norm.weight)

    def swiglu(self, gate_NF: Tensor, up_NF: Tensor) -> Tensor:
        return F.silu(gate_NF) * up_NF

    def attend_gqa(
        self, qkv: tuple[Tensor, Tensor, Tensor], norms: tuple[RMSNorm, RMSNorm] | None, shape: Heads,
        rotary_TR: Tensor, chunk: Chunk, pages: Layer,
    ) -> Tensor:  # fmt: skip
        keys_RJKS, values_RJSK = pages
        q_NHK, k_NJK, v_NJK = (
            x.unflatten(-1, (n, -1)) for x, n in zip(qkv, (shape.heads, *[shape.kv_heads] * 2), strict=True)
        )
        if norms is not None:
            q_NHK, k_NJK = norms[0](q_NHK), norms[1](k_NJK)
        turn = rotary_TR[chunk.positions_N].unsqueeze(1)
        q_NHK, k_NJK = rotate_half(q_NHK, turn), rotate_half(k_NJK, turn)
        page_N, slot_N = chunk.places_N // SLOTS, chunk.places_N % SLOTS
        keys_RJKS[page_N, :, :, slot_N] = k_NJK
        values_RJSK[page_N, :, slot_N] = v_NJK
        tables_BP, group = chunk.tables_BP, shape.heads // shape.kv_heads
        k_BJKT = keys_RJKS[tables_BP].permute(0, 2, 3, 1, 4).flatten(3)
        v_BJTK = values_RJSK[tables_BP].transpose(1, 2).flatten(2, 3)
        q_BJMK = (_rows(q_NHK, chunk) * shape.scale).unflatten(2, (shape.kv_heads, group)).permute(0, 2, 1, 3, 4)
        bias_BMT = _bias(chunk, shape.window, k_BJKT.shape[-1], q_BJMK)
        scores = torch.matmul(q_BJMK.flatten(2, 3), k_BJKT).unflatten(2, (-1, group))
        shares = wide(scores).add(bias_BMT[:, None, :, None])
        out_BJMK = torch.matmul(shares.softmax(-1).type_as(v_BJTK).flatten(2, 3), v_BJTK).unflatten(2, (-1, group))
        return _tokens(out_BJMK.permute(0, 2, 1, 3, 4).flatten(2), chunk)

    def write_mla(
        self, q_NHK: Tensor, entry_NW: Tensor, norm: RMSNorm, shape: Heads, rotary_TR: Tensor, chunk: Chunk,
        pages: Layer,
    ) -> Tensor:  # fmt: skip
        rotate, turn_NR = rotate_interleaved if shape.interleaved else rotate_half, rotary_TR[chunk.positions_N]
        nope_NHK, rope_NHR = q_NHK.tensor_split([q_NHK.shape[-1] - shape.rotary], -1)
        latent_NC, rope_NR = entry_NW.tensor_split([entry_NW.shape[-1] - shape.rotary], -1)
        written_NW = torch.cat((norm(latent_NC), rotate(rope_NR, turn_NR)), -1)
        pages[0].view(-1, written_NW.shape[-1]).index_copy_(0, chunk.places_N, written_NW)
        return torch.cat((nope_NHK, rotate(rope_NHR, turn_NR.unsqueeze(1))), -1)

    def attend_mla(self, absorbed_HNC: Tensor, q_NHK: Tensor, shape: Heads, chunk: Chunk, pages: Layer) -> Tensor:
        latents_BTW, width = pages[0][chunk.tables_BP].flatten(1, 2), absorbed_HNC.shape[-1]
        asked_NHW = torch.cat((absorbed_HNC.transpose(0, 1), q_NHK[..., q_NHK.shape[-1] - shape.rotary :]), -1)
        asked_BMW = _rows(asked_NHW, chunk).flatten(1, 2)
        scores_BMHT = torch.matmul(asked_BMW, latents_BTW.mT).unflatten(1, (-1, shape.heads)) * shape.scale
        bias_BMT = _bias(chunk, shape.window, latents_BTW.shape[1], asked_BMW)
        shares = wide(scores_BMHT) + bias_BMT.unsqueeze(2)
        out_BMC = torch.matmul(shares.softmax(-1).type_as(latents_BTW).flatten(1, 2), latents_BTW[..., :width])
        return _tokens(out_BMC.unflatten(1, (-1, shape.heads)), chunk).transpose(0, 1)

    def feed(self, mlp: SwiGLU | DeepSeekMoE, x_ND: Tensor) -> tuple[Tensor, Routing | None]:
        return mlp(x_ND) if isinstance(mlp, DeepSeekMoE) else (mlp(x_ND), None)

    def block(self, block: Block, x_ND: Tensor, rotary_TR: Tensor, chunk: Chunk, pages: Layer) -> Routing | None:
        return block.extend(x_ND, rotary_TR, chunk, pages, self)

    def logits(self, model: Decoder, x_ND: Tensor) -> Tensor:
        return model.logits(x_ND)


def _rows(x: Tensor, chunk: Chunk) -> Tensor:
    """Tokens [N, ...] as padded rows [B, M, ...]."""
    counts_B = chunk.starts.diff()
    if len(x) == len(counts_B):
        return x.unsqueeze(1)
    padded = x.new_zeros(len(counts_B), int(counts_B.max()), *x.shape[1:])
    padded[chunk.rows_N, _within(chunk)] = x
    return padded


def _tokens(x: Tensor, chunk: Chunk) -> Tensor:
    """Padded rows [B, M, ...] as tokens [N, ...]."""
    return x.squeeze(1) if x.shape[1] == 1 else x[chunk.rows_N, _within(chunk)]


def _within(chunk: Chunk) -> Tensor:
    return torch.arange(len(chunk.rows_N), device=chunk.rows_N.device) - chunk.starts[chunk.rows_N]


def _bias(chunk: Chunk, window: int | None, most: int, like: Tensor) -> Tensor:
    """0 where a token may look, -inf beyond it and before its window; padding looks at the first: [B, M, T]."""
    own_BM = _rows(chunk.positions_N, chunk).unsqueeze(-1)
    places_T = torch.arange(most, device=own_BM.device)
    hidden_BMT = places_T > own_BM
    if window is not None:
        hidden_BMT |= places_T <= own_BM - window
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.zeros_like(hidden_BMT, dtype=kind).masked_fill_(hidden_BMT, float("-inf"))


class Compiled:
    """By kernels.c, with as many threads as torch has here. A chunk of up to ``few_rows`` passes a block in one call.

    Made for weights where they lie: they may change, but not be others.
    """

    def __init__(self, compiled: ctypes.CDLL, dtype: torch.dtype, few_rows: int | None = None) -> None:
        self.c, self.dtype = compiled, dtype
        self.few_rows = FEW_ROWS[dtype] if few_rows is None else few_rows
        self._layers: dict[Block, structs.Layer | None] = {}
        self._heads: dict[Decoder, structs.Matrix | None] = {}
        self._pass: structs.Pass | None = None

    def add_norm(self, x_ND: Tensor, y_ND: Tensor | None, norm: RMSNorm) -> Tensor:
        weight = norm.weight
        out_ND = torch.empty(x_ND.shape, dtype=weight.dtype)
        y = None if y_ND is None else y_ND.contiguous().data_ptr()
        self.c.add_norm(
            x_ND.data_ptr(), y, weight.data_ptr(), norm.eps, out_ND.data_ptr(), *x_ND.shape, torch.get_num_threads()
        )
        return out_ND

    def swiglu(self, gate_NF: Tensor, up_NF: Tensor) -> Tensor:
        out_NF = torch.empty(gate_NF.shape, dtype=gate_NF.dtype)
        self.c.swiglu(
            gate_NF.data_ptr(), up_NF.data_ptr(), gate_NF.stride(0), out_NF.data_ptr(), *gate_NF.shape,
            torch.get_num_threads(),
        )  # fmt: skip
        return out_NF

    def attend_gqa(
        self, qkv: tuple[Tensor, Tensor, Tensor], norms: tuple[RMSNorm, RMSNorm] | None, shape: Heads,
        rotary_TR: Tensor, chunk: Chunk, pages: Layer,
    ) -> Tensor:  # fmt: skip
        keys, values = pages
        told = self._shape(shape, chunk, keys.shape[2], norms[0].eps if norms else 0.0)
        q_ND, k, v = qkv
        queries = torch.empty(q_ND.shape, dtype=torch.float32)
        out_ND = torch.empty_like(q_ND)
        q_norm, k_norm = (norm.weight.data_ptr() for norm in norms) if norms else (None, None)
        self.c.write_gqa(
            told, q_ND.data_ptr(), k.data_ptr(), v.data_ptr(), q_norm, k_norm, rotary_TR.data_ptr(),
            chunk.positions_N.data_ptr(), chunk.places_N.data_ptr(), queries.data_ptr(), keys.data_ptr(),
            values.data_ptr(),
        )  # fmt: skip
        self.c.attend_gqa(
            told, queries.data_ptr(), keys.data_ptr(), values.data_ptr(), chunk.positions_N.data_ptr(),
            chunk.starts.data_ptr(), len(chunk.starts) - 1, chunk.tables_BP.data_ptr(), out_ND.data_ptr(),
        )  # fmt: skip
        return out_ND

    def write_mla(
        self, q_NHK: Tensor, entry_NW: Tensor, norm: RMSNorm, shape: Heads, rotary_TR: Tensor, chunk: Chunk,
        pages: Layer,
    ) -> Tensor:  # fmt: skip
        self.c.write_mla(
            self._shape(shape, chunk, entry_NW.shape[-1], norm.eps), q_NHK.data_ptr(), q_NHK.shape[-1],
            entry_NW.data_ptr(), norm.weight.data_ptr(), rotary_TR.data_ptr(), chunk.positions_N.data_ptr(),
            chunk.places_N.data_ptr(), pages[0].data_ptr(),
        )  # fmt: skip
        return q_NHK

    def attend_mla(self, absorbed_HNC: Tensor, q_NHK: Tensor, shape: Heads, chunk: Chunk, pages: Layer) -> Tensor:
        absorbed_HNC = absorbed_HNC.contiguous()
        out_HNC = torch.empty_like(absorbed_HNC)
        self.c.attend_mla(
            self._shape(shape, chunk, pages[0].shape[-1], 0.0), absorbed_HNC.data_ptr(), q_NHK.data_ptr(),
            q_NHK.shape[-1], pages[0].data_ptr(), chunk.positions_N.data_ptr(), chunk.rows_N.data_ptr(),
            chunk.tables_BP.data_ptr(), out_HNC.data_ptr(),
        )  # fmt: skip
        return out_HNC

    def feed(self, mlp: SwiGLU | DeepSeekMoE, x_ND: Tensor) -> tuple[Tensor, Routing | None]:
        if not isinstance(mlp, DeepSeekMoE):
            return self._gated(mlp, x_ND), None
        is_long = len(x_ND) * mlp.config.num_experts_per_tok > FEW_ROWS_EACH * len(mlp.down_proj)
        stack = None if is_long else _fitting(structs.Told(self.dtype).stack, mlp)
        if stack is None:
            return Plain().feed(mlp, x_ND)
        scores_NE = mlp.gate(x_ND)
        chosen_NA, weights_NA = self._choose(mlp, scores_NE)
        out_ND = torch.empty_like(x_ND)
        self.c.experts(
            x_ND.data_ptr(), chosen_NA.data_ptr(), weights_NA.data_ptr(), ctypes.byref(stack), out_ND.data_ptr(),
            *chosen_NA.shape, torch.get_num_threads(),
        )  # fmt: skip
        if mlp.shared_experts is not None:
            out_ND += self._gated(mlp.shared_experts, x_ND)
        return out_ND, Routing(chosen_NA, scores_NE)

    def block(self, block: Block, x_ND: Tensor, rotary_TR: Tensor, chunk: Chunk, pages: Layer) -> Routing | None:
        layer = self._layer(block) if len(x_ND) <= self.few_rows else None
        if layer is None:
            return block.extend(x_ND, rotary_TR, chunk, pages, self)
        if self._pass is None or self._pass.kept is not chunk:
            self._pass = structs.pass_of(chunk, rotary_TR)
        keys, values, routing = pages[0].data_ptr(), pages[-1].data_ptr(), None
        if layer.router:
            best, experts = layer.choice.best, layer.choice.experts
            routing = Routing(
                torch.empty(len(x_ND), best, dtype=torch.long), torch.empty(len(x_ND), experts, dtype=torch.float32)
            )
        self.c.block(
            ctypes.byref(layer), ctypes.byref(self._pass), x_ND.data_ptr(), keys, values,
            *((None, None) if routing is None else (routing.chosen_NA.data_ptr(), routing.scores_NE.data_ptr())),
        )  # fmt: skip
        return routing

    def does(self, model: Decoder) -> bool:
        """Whether a pass of few tokens is left to nobody else."""
        return self._head(model) is not None and all(self._layer(block) is not None for block in model.blocks)

    def _layer(self, block: Block) -> structs.Layer | None:
        if block not in self._layers:
            self._layers[block] = _fitting(structs.Told(self.dtype).layer, block)
        return self._layers[block]

    def logits(self, model: Decoder, x_ND: Tensor) -> Tensor:
        head = self._head(model) if len(x_ND) <= self.few_rows else None
        if head is None:
            return model.logits(x_ND)
        x_ND = x_ND.contiguous()
        out_NV = torch.empty(len(x_ND), head.num_out, dtype=x_ND.dtype)
        self.c.linear(ctypes.byref(head), x_ND.data_ptr(), len(x_ND), out_NV.data_ptr(), torch.get_num_threads())
        return out_NV

    def _head(self, model: Decoder) -> structs.Matrix | None:
        if model not in self._heads:
            self._heads[model] = _fitting(structs.Told(self.dtype).head, model)
        return self._heads[model]

    def _gated(self, mlp: SwiGLU, x_ND: Tensor) -> Tensor:
        down: Tensor = mlp.down_proj(self.swiglu(mlp.gate_proj(x_ND), mlp.up_proj(x_ND)))
        return down

    def _choose(self, mlp: DeepSeekMoE, scores_NE: Tensor) -> tuple[Tensor, Tensor]:
        """``choose_experts`` and ``expert_weights``: ids and weights [N, A], float32."""
        bias_E, choice = mlp.gate.e_score_correction_bias, structs.choice_of(mlp)
        chosen_NA = torch.empty(len(scores_NE), choice.best, dtype=torch.long)
        weights_NA = torch.empty(chosen_NA.shape, dtype=torch.float32)
        self.c.choose(
            scores_NE.data_ptr(), None if bias_E is None else bias_E.data_ptr(), len(scores_NE), ctypes.byref(choice),
            chosen_NA.data_ptr(), weights_NA.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return chosen_NA, weights_NA

    def _shape(self, shape: Heads, chunk: Chunk, width: int, eps: float) -> Any:
        window = shape.window or 0
        return ctypes.byref(
            structs.Shape(
                len(chunk.tokens_N), shape.heads, shape.kv_heads, width, window, chunk.tables_BP.stride(0),
                shape.scale, eps, shape.interleaved, torch.get_num_threads(),
            )
        )  # fmt: skip


def _fitting(made: Callable[[Part], Made], part: Part) -> Made | None:
    """What kernels.c is told of a part of a model; None: it is done otherwise."""
    try:
        return made(part)
    except structs.Unfit:
        return None
