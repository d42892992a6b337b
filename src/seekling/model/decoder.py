"""One decoder for every family: embed, blocks of attention and feed-forward, head, multi-token prediction.

rows of tokens -> hidden states -> logits               training: ``Decoder.forward``
a chunk of tokens + pages -> hidden states, pages       sampling: ``Decoder.extend``
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seekling.model import fused
from seekling.model.attention import GroupedQueryAttention, MultiHeadLatentAttention
from seekling.model.config import ModelConfig
from seekling.model.layers import Linear, RMSNorm, SwiGLU, inner_dtype, rotary_table, wide
from seekling.model.moe import DeepSeekMoE, Router, Routing, choose_experts
from seekling.model.ops import Ops
from seekling.model.pages import Chunk, Layer, Pages


@dataclass(frozen=True, slots=True)
class Rows:
    """Packed input. ``tokens_BT`` ids, ``positions_BT`` within each segment, ``segments_BT`` which text a token
    belongs to (0 is padding), side by side in its row; a token sees only earlier tokens of its own segment."""

    tokens_BT: Tensor
    positions_BT: Tensor
    segments_BT: Tensor

    def mask(self, window: int | None = None) -> Tensor:
        """True where query t may look at key s: bool [B, 1, T, T]. Padding looks at itself, so no row is empty.

        ``window``: only the last so many tokens, the query's own included.
        """
        same_BTT = (self.segments_BT.unsqueeze(2) == self.segments_BT.unsqueeze(1)).tril()
        return (same_BTT if window is None else same_BTT.triu(1 - window)).unsqueeze(1)

    def first(self, window: int | None = None) -> Tensor:
        """The same told by the first key that each query may look at: int32 [B, T]."""
        places_T = torch.arange(self.segments_BT.shape[1], device=self.segments_BT.device)
        begins_BT = self.segments_BT.diff(dim=1, prepend=self.segments_BT[:, :1]) != 0
        first_BT = torch.where(begins_BT, places_T, 0).cummax(1).values
        return (first_BT if window is None else first_BT.maximum(places_T + 1 - window)).int()

    def bias(self, like: Tensor, window: int | None = None) -> Tensor:
        """The mask as attention adds it, 0 or minus infinity, in the precision that products with ``like`` have.

        Made once: of a mask that is bool every layer makes such a one for itself, and keeps it for the way back.
        """
        place = like.device.type
        dtype = inner_dtype(place) if torch.is_autocast_enabled(place) else like.dtype
        mask = self.mask(window)
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, float("-inf"))


@dataclass(frozen=True, slots=True)
class Hidden:
    """What a pass leaves: states after the final norm, [B, T, D] of rows, [N, D] of a chunk, and the routing of each
    expert layer."""

    states_BTD: Tensor
    routings: list[Routing] = field(default_factory=list)


class Block(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward, each added to the stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        attention = MultiHeadLatentAttention if config.parts.attention == "mla" else GroupedQueryAttention
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = attention(config, config.window(layer))
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        moe = config.is_moe(layer)
        width, hidden = config.hidden_size, config.intermediate_size
        self.mlp = DeepSeekMoE(config) if moe else SwiGLU(width, hidden, bias=config.mlp_bias)

    def forward(
        self, x_BTD: Tensor, rotary_BTR: Tensor, seen: Tensor, replay_NA: Tensor | None = None
    ) -> tuple[Tensor, Routing | None]:
        attended_BTD = self.self_attn(self.input_layernorm(x_BTD), rotary_BTR, seen)
        x_BTD, normed_BTD = self.post_attention_layernorm.add(x_BTD, attended_BTD)
        if not isinstance(self.mlp, DeepSeekMoE):
            return x_BTD + self.mlp(normed_BTD), None
        fed_ND, routing = self.mlp(normed_BTD.flatten(0, -2), replay_NA)
        return x_BTD + fed_ND.view_as(x_BTD), routing

    def extend(self, x_ND: Tensor, rotary_TR: Tensor, chunk: Chunk, pages: Layer, ops: Ops) -> Routing | None:
        """Add to the stream ``x_ND``, in place, what is attended and what is fed."""
        normed_ND = ops.add_norm(x_ND, None, self.input_layernorm)
        attended_ND = self.self_attn.extend(normed_ND, rotary_TR, chunk, pages, ops)
        normed_ND = ops.add_norm(x_ND, attended_ND, self.post_attention_layernorm)
        fed_ND, routing = ops.feed(self.mlp, normed_ND)
        x_ND += fed_ND
        return routing


class NextToken(nn.Module):
    """Multi-token prediction of depth 1: from h_t and the embedding of token t+1, predict token t+2 (V3, eq. 21-24).

    Checkpoints put the embedding first in ``eh_proj``'s input, though the paper's equation 21 writes it second.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = Linear(2 * config.hidden_size, config.hidden_size)
        self.block = Block(config, config.num_hidden_layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, hidden_BTD: Tensor, next_embedding_BTD: Tensor, rotary_BTR: Tensor, seen: Tensor
    ) -> tuple[Tensor, Routing | None]:
        joined = torch.cat((self.enorm(next_embedding_BTD), self.hnorm(hidden_BTD)), -1)
        out_BTD, routing = self.block(self.eh_proj(joined), rotary_BTR, seen)
        return self.norm(out_BTD), routing

    def extend(
        self, hidden_ND: Tensor, next_embedding_ND: Tensor, rotary_TR: Tensor, chunk: Chunk, pages: Layer, ops: Ops
    ) -> Tensor:
        """The same over a cache: states [N, D]."""
        joined_ND = torch.cat((self.enorm(next_embedding_ND), self.hnorm(hidden_ND)), -1)
        x_ND = wide(self.eh_proj(joined_ND))
        ops.block(self.block, x_ND, rotary_TR, chunk, pages)
        return ops.add_norm(x_ND, None, self.norm)


class Decoder(nn.Module):
    """A causal language model. Weights are uninitialised until ``init_weights`` or a load.

    ``recomputes``: training keeps only the input of each block and runs the block again on the way back, to the same
    bits (activation checkpointing, Chen et al. 2016, arXiv 1604.06174).
    """

    mtp: NextToken | None
    rotary_TR: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.recomputes = False
        table_VD = torch.empty(config.vocab_size, config.hidden_size)  # given, lest it be drawn and drawn again
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, _weight=table_VD)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = None if config.tie_word_embeddings else Linear(config.hidden_size, config.vocab_size)
        self.mtp = NextToken(config) if config.num_nextn_predict_layers else None
        self.windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
        rotary = rotary_table(config, config.max_position_embeddings)
        self.register_buffer("rotary_TR", rotary, persistent=False)

    def forward(self, rows: Rows, replay: Sequence[Tensor] | None = None) -> Hidden:
        """Hidden states of packed rows. ``replay`` forces the routes of each expert layer: [N, A] each."""
        routings = []
        for x_BTD, routing in self.walk(rows, replay):
            last_BTD = x_BTD
            routings += [routing] if routing is not None else []
        return Hidden(self.norm(last_BTD), routings)

    def walk(self, rows: Rows, replay: Sequence[Tensor] | None = None) -> Iterator[tuple[Tensor, Routing | None]]:
        """The stream [B, T, D] after each block, and where its experts were."""
        x_BTD, forced = self.embed_tokens(rows.tokens_BT), iter(replay or ())
        rotary_BTR, seen = self.rotary_TR[rows.positions_BT], {w: self._seen(rows, x_BTD, w) for w in set(self.windows)}
        for block, window in zip(self.blocks, self.windows, strict=True):
            replayed = next(forced) if replay and isinstance(block.mlp, DeepSeekMoE) else None
            x_BTD, routing = self._run(block, x_BTD, rotary_BTR, seen[window], replayed)
            yield x_BTD, routing

    def _run(self, block: Block, *given: Tensor | None) -> tuple[Tensor, Routing | None]:
        if not (self.recomputes and torch.is_grad_enabled()):
            return block(*given)
        return checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)  # no block draws anything

    def predict_next(self, rows: Rows, hidden_BTD: Tensor, *, apart: bool = False) -> tuple[Tensor, Routing | None]:
        """Hidden states whose logits at t speak about token t+2 [B, T, D]; the last two of a segment mean nothing.

        With ``apart`` no gradient goes beyond the prediction layer, to the states or to the embedding.
        """
        assert self.mtp is not None
        embedding_BTD = self.embed_tokens(rows.tokens_BT.roll(-1, 1))
        if apart:
            hidden_BTD, embedding_BTD = hidden_BTD.detach(), embedding_BTD.detach()
        return self.mtp(hidden_BTD, embedding_BTD, self.rotary_TR[rows.positions_BT], self._seen(rows, hidden_BTD))

    def _seen(self, rows: Rows, x_BTD: Tensor, window: int | None = None) -> Tensor:
        """What a query may look at, as kernels are told it or as torch adds it."""
        by_kernels = fused.learning(x_BTD, self.embed_tokens.weight) is not None
        return rows.first(window) if by_kernels else rows.bias(x_BTD, window)

    def extend(self, chunk: Chunk, pages: Pages, ops: Ops, embedded_ND: Tensor | None = None) -> Hidden:
        """Read a chunk of tokens behind what ``pages`` hold of their rows, and write it there: states [N, D].

        ``embedded_ND`` stands for the embeddings of its tokens, where some are of other origin.
        """
        embedded_ND = self.embed_tokens(chunk.tokens_N) if embedded_ND is None else embedded_ND
        x_ND, routings = wide(embedded_ND), []  # a sum of many small parts
        for block, layer in zip(self.blocks, pages.layers[: len(self.layers)], strict=True):
            routing = ops.block(block, x_ND, self.rotary_TR, chunk, layer)
            routings += [routing] if routing is not None else []
        return Hidden(ops.add_norm(x_ND, None, self.norm), routings)

    def extend_ahead(
        self, states_ND: Tensor, chunk: Chunk, pages: Pages, ops: Ops, embedded_ND: Tensor | None = None
    ) -> Tensor:
        """``predict_next`` over a cache: [N, D]. The chunk's tokens are those that follow the states, in the states'
        places; what comes of each speaks about the token after it."""
        assert self.mtp is not None
        embedded_ND = self.embed_tokens(chunk.tokens_N) if embedded_ND is None else embedded_ND
        return self.mtp.extend(states_ND, embedded_ND, self.rotary_TR, chunk, pages.layers[len(self.layers)], ops)

    def logits(self, states: Tensor) -> Tensor:
        """Unnormalised scores over the vocabulary: [..., V]."""
        if self.lm_head is not None and self.lm_head.scale_O is not None:
            return self.lm_head(states)
        return F.linear(states, self.head_VD)

    @property
    def blocks(self) -> list[Block]:
        """The main layers, in order."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def head_VD(self) -> Tensor:
        """The output matrix: its own, or the embedding table's."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def routers(self) -> list[Router]:
        """Every router, main layers first, then the prediction layer's."""
        return [module for module in self.modules() if isinstance(module, Router)]

    @torch.no_grad()
    def init_weights(self, seed: int) -> Decoder:
        """Normal(0, ``initializer_range``); maps back into the stream start smaller by sqrt(2 L); norms 1, biases 0.

        Each tensor's draw depends on (seed, its name) alone, so adding a part changes no other part.
        """
        residual = (2 * self.config.num_hidden_layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.ndim < 2:
                weight.fill_(0.0 if name.endswith(".bias") else 1.0)
                continue
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
            scale = self.config.initializer_range * (
                residual if name.endswith(("o_proj.weight", "down_proj", "down_proj.weight")) else 1
            )
            drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float32) * scale
            weight.copy_(drawn)
        return self


__all__ = ["Block", "Decoder", "Hidden", "NextToken", "Rows", "choose_experts"]
