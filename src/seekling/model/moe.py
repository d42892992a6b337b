"""DeepSeekMoE: fine-grained routed experts beside shared ones, balanced without an auxiliary loss.

Sources: DeepSeekMoE (arXiv 2401.06066) section 3; DeepSeek-V3 (arXiv 2412.19437) section 2.1.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seekling.model.config import ModelConfig
from seekling.model.layers import SwiGLU, gated, scaled, wide

if TYPE_CHECKING:
    from seekling.model.lora import LowRank

Feed = Callable[[Tensor, Tensor], Tensor]
"""From rows in the order of experts [M, D], and where each one's end [E], to what the experts make of them [M, D]."""
Exchange = Callable[[Tensor, Tensor, Feed], Tensor]
"""How rows meet their experts, wherever these live: ``feed`` has those that are here."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a layer sent its tokens: ``chosen_NA`` expert ids, ``scores_NE`` affinities before the bias."""

    chosen_NA: Tensor
    scores_NE: Tensor


def choose_experts(
    scores_NE: Tensor, bias_E: Tensor | None, *, top_k: int, num_groups: int = 1, top_groups: int = 1
) -> Tensor:
    """Pick ``top_k`` experts per token by biased score, within the ``top_groups`` best groups: [N, A].

    The bias chooses (eq. 16) but never weighs. A group counts by the sum of its two best biased scores (V3), or by its
    best where there is no bias (V2); the others are masked with -inf, not 0, since a biased score can be negative.
    """
    biased_NE = scores_NE if bias_E is None else scores_NE + bias_E
    if num_groups > 1:
        grouped_NGE = biased_NE.unflatten(-1, (num_groups, -1))
        counted = 1 if bias_E is None else min(2, grouped_NGE.shape[-1])
        best_NG = grouped_NGE.topk(counted, -1).values.sum(-1)
        allowed_NG = torch.zeros_like(best_NG, dtype=torch.bool).scatter(1, best_NG.topk(top_groups, -1).indices, True)
        biased_NE = grouped_NGE.masked_fill(~allowed_NG.unsqueeze(-1), float("-inf")).flatten(1)
    return biased_NE.topk(top_k, -1).indices


def expert_weights(scores_NE: Tensor, chosen_NA: Tensor, *, normalise: bool, scale: float) -> Tensor:
    """Gate values of the chosen experts, from the unbiased scores (eq. 13-14): [N, A]."""
    weights_NA = scores_NE.gather(-1, chosen_NA)
    if normalise:
        weights_NA = weights_NA / (weights_NA.sum(-1, keepdim=True) + 1e-20)
    return weights_NA * scale


def per_expert(x_MI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """x W^T, where rows up to ``ends_E[e]`` (and from the end before) belong to expert e: [M, O].

    The grouped kernel takes neither float64 nor rows that are no multiple of 16 bytes: those are looped. Autocast does
    not know it, so both sides are cast here; on a CPU to what the experts are held in, since its library makes a kernel
    in bfloat16 for every number of rows an expert ever had, which takes longer than the products (docs/log.md).
    """
    device = x_MI.device.type
    if torch.is_autocast_enabled(device):
        dtype = weight_EOI.dtype if device == "cpu" else torch.get_autocast_dtype(device)
        x_MI, weight_EOI = x_MI.to(dtype), weight_EOI.to(dtype)
    aligned = all(size % 8 == 0 for size in weight_EOI.shape[1:])  # in bfloat16 too, for autocast
    if aligned and weight_EOI.dtype != torch.float64:
        return F.grouped_mm(x_MI, weight_EOI.transpose(1, 2), offs=ends_E)
    parts = x_MI.tensor_split(ends_E[:-1].tolist())
    return torch.cat([F.linear(part, weight_OI) for part, weight_OI in zip(parts, weight_EOI, strict=True)])


def adapted(x_MI: Tensor, weight_EOI: Tensor, ends_E: Tensor, adapter: LowRank | None) -> Tensor:
    """``per_expert``, plus what each expert's adapter adds, through its rank: [M, O]."""
    y_MO = per_expert(x_MI, weight_EOI, ends_E)
    if adapter is None:
        return y_MO
    low_MR = per_expert(x_MI.to(adapter.A.dtype), adapter.A, ends_E)
    return (y_MO + adapter.scale * per_expert(low_MR, adapter.B, ends_E)).type_as(y_MO)


def local(sent_MD: Tensor, ends_E: Tensor, feed: Feed) -> Tensor:
    """The exchange of a process that has every expert: nothing travels."""
    return feed(sent_MD, ends_E)


def run_experts(
    x_ND: Tensor, chosen_NA: Tensor, weights_NA: Tensor, gate_up_EFD: Tensor, down_EDF: Tensor,
    gate_up_adapter: LowRank | None = None, down_adapter: LowRank | None = None,
    *, num_experts: int = 0, exchange: Exchange = local,
) -> Tensor:  # fmt: skip
    """Send every token to its experts and bring the weighted answers home: [N, D].

    Tokens are sorted by expert so that each expert is one contiguous product; ``index_select`` both ways keeps the
    backward pass deterministic where advanced indexing is not. ``num_experts`` counts those of all processes, where
    ``exchange`` takes tokens to others; the stacks are those of this one.
    """
    num_active, num_experts = chosen_NA.shape[1], num_experts or len(gate_up_EFD)
    expert_M, order_M = chosen_NA.flatten().sort(stable=True)
    ends_E = torch.searchsorted(expert_M, torch.arange(1, num_experts + 1, device=expert_M.device)).int()

    def feed(sent_MD: Tensor, ends_E: Tensor) -> Tensor:
        gated_MF = gated(adapted(sent_MD, gate_up_EFD, ends_E, gate_up_adapter))
        return adapted(gated_MF, down_EDF, ends_E, down_adapter)

    answered_MD = exchange(x_ND.index_select(0, order_M // num_active), ends_E, feed)
    home_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(len(order_M), device=order_M.device))
    returned_NAD = answered_MD.index_select(0, home_M).unflatten(0, (-1, num_active))
    return (returned_NAD * weights_NA.unsqueeze(-1)).sum(1)  # einsum would make it products of tiny matrices


class Router(nn.Module):
    """Affinities of tokens to experts: sigmoid with a bias moved by rule, not by gradient (V3, eq. 15-16), or softmax
    without one (DeepSeek-V2, Qwen3)."""

    e_score_correction_bias: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.n_routed_experts is not None
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.sigmoid = config.parts.scoring == "sigmoid"
        bias_E = torch.zeros(config.n_routed_experts, dtype=torch.float32) if self.sigmoid else None
        self.register_buffer("e_score_correction_bias", bias_E)

    def forward(self, x_ND: Tensor) -> Tensor:
        with torch.autocast(x_ND.device.type, enabled=False):  # a rounded score would send tokens elsewhere
            scores_NE = F.linear(wide(x_ND), wide(self.weight))
            return scores_NE.sigmoid() if self.sigmoid else scores_NE.softmax(-1)


class DeepSeekMoE(nn.Module):
    """Shared experts see every token, routed experts those the router sends them (eq. 12)."""

    gate_up_adapter: LowRank | None
    down_adapter: LowRank | None
    gate_up_scale: Tensor | None
    down_scale: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.n_routed_experts is not None
        self.config = config
        width, hidden, experts = config.hidden_size, config.moe_intermediate_size, config.n_routed_experts
        self.gate = Router(config)
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * hidden, width))
        self.down_proj = nn.Parameter(torch.empty(experts, width, hidden))
        self.shared_experts = SwiGLU(width, hidden * config.n_shared_experts) if config.n_shared_experts else None
        self.register_module("gate_up_adapter", None)
        self.register_module("down_adapter", None)
        self.register_buffer("gate_up_scale", None, persistent=False)
        self.register_buffer("down_scale", None, persistent=False)
        self.exchange: Exchange = local

    def forward(self, x_ND: Tensor, replay_NA: Tensor | None = None) -> tuple[Tensor, Routing]:
        """``replay_NA`` forces the routes a sampler took, so that both see the same experts (router replay)."""
        c = self.config
        scores_NE = self.gate(x_ND)
        chosen_NA = replay_NA
        if chosen_NA is None:
            chosen_NA = choose_experts(
                scores_NE.detach(), self.gate.e_score_correction_bias,
                top_k=c.num_experts_per_tok, num_groups=c.n_group, top_groups=c.topk_group,
            )  # fmt: skip
        weights_NA = expert_weights(
            scores_NE, chosen_NA, normalise=c.norm_topk_prob, scale=c.routed_scaling_factor
        ).type_as(x_ND)
        gate_up_EFD = scaled(self.gate_up_proj, self.gate_up_scale, x_ND.dtype)
        down_EDF = scaled(self.down_proj, self.down_scale, x_ND.dtype)
        out_ND = run_experts(
            x_ND, chosen_NA, weights_NA, gate_up_EFD, down_EDF, self.gate_up_adapter, self.down_adapter,
            num_experts=scores_NE.shape[1], exchange=self.exchange,
        )  # fmt: skip
        if self.shared_experts is not None:
            out_ND = out_ND + self.shared_experts(x_ND)
        return out_ND, Routing(chosen_NA, scores_NE)


def expert_load(chosen_NA: Tensor, num_experts: int, weight_N: Tensor | None = None) -> Tensor:
    """How many tokens each expert received: float64 [E]; ``weight_N`` 0 leaves padding out."""
    counted = torch.ones_like(chosen_NA, dtype=torch.float64)
    if weight_N is not None:
        counted = counted * weight_N.to(torch.float64).unsqueeze(1)
    return torch.zeros(num_experts, dtype=torch.float64, device=chosen_NA.device).index_add_(
        0, chosen_NA.flatten(), counted.flatten()
    )


def move_bias(bias_E: Tensor, load_E: Tensor, speed: float) -> Tensor:
    """The auxiliary-loss-free rule: overloaded experts become less likely, underloaded more (section 2.1.2)."""
    return bias_E + speed * torch.sign(load_E.mean() - load_E).to(bias_E.dtype)


def balance_losses(routing: Routing, weight_N: Tensor, row_N: Tensor, num_rows: int) -> Tensor:
    """Sequence-wise balance loss of each row [R] (eq. 17-20), padding (``weight_N`` 0) left out.

    f_i = E/(A T) sum_t 1(i among t's best by unbiased score), P_i = mean_t s_i,t / sum_j s_j,t; loss = sum_i f_i P_i:
    1 when balanced.
    """
    num_experts, top_k = routing.scores_NE.shape[1], routing.chosen_NA.shape[1]
    share_NE = routing.scores_NE / routing.scores_NE.sum(-1, keepdim=True)
    best_NA = routing.scores_NE.topk(top_k, -1).indices
    chosen_NE = torch.zeros_like(share_NE).scatter(1, best_NA, 1.0)
    weight_N1 = weight_N.to(share_NE.dtype).unsqueeze(1)
    zeros_RE = share_NE.new_zeros(num_rows, num_experts)
    tokens_R1 = zeros_RE[:, :1].index_add(0, row_N, weight_N1).clamp_min(1)
    chosen_RE = zeros_RE.index_add(0, row_N, chosen_NE * weight_N1) * (num_experts / top_k) / tokens_R1
    share_RE = zeros_RE.index_add(0, row_N, share_NE * weight_N1) / tokens_R1
    return (chosen_RE * share_RE).sum(-1)
