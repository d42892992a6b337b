"""Preference learning: plain weighted sums over pairs of replies, of which the first was preferred.

    loss = sum_p weight_p f(x_p - y_p)

x and y are what a pair's two texts are worth: for ``dpo`` log pi/ref of each reply, for a reward model its number at
each text's last token. Weights are computed once for the whole step. A pair's texts stand side by side in one row of a
batch, as an odd segment (chosen) and the even one after it (rejected): slices of rows part no pair, so they add up.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Two = tuple[Tensor, Tensor]
"""A number for the chosen and for the rejected text of each pair."""


def in_pairs(value_BT: Tensor, segments_BT: Tensor) -> Two:
    """Sums over the tokens of each chosen and each rejected text: two [B, P]. A row's missing pairs are 0."""
    size = int(segments_BT.max()) + 1
    sums_BS = value_BT.new_zeros(len(value_BT), size).scatter_add(1, segments_BT, value_BT)
    return sums_BS[:, 1::2], sums_BS[:, 2::2]


def averaged(value: Two, count: Two) -> Two:
    """A sum over tokens as a mean of them; 0 for a pair that is none."""
    return value[0] / count[0].clamp_min(1), value[1] / count[1].clamp_min(1)


# what is asked of a pair's difference


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(beta (x - y)) of each pair; x, y = log pi/ref of whole replies (DPO, arXiv 2305.18290, eq. 7).

    ``smoothing`` is the share of pairs thought to be labelled the wrong way round: -(1-s) log sigmoid(z) - s log
    sigmoid(-z) (conservative DPO, Mitchell 2023). Above 0 the loss has its least where sigmoid(z) = 1 - s.
    """
    z = beta * (chosen - rejected)
    return -(1 - smoothing) * F.logsigmoid(z) - smoothing * F.logsigmoid(-z)


def ipo_loss(chosen: Tensor, rejected: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """(x - y - 1/(2 beta))^2 of each pair: a margin to reach, not to raise for ever (IPO, arXiv 2310.12036, eq. 17).

    Published of whole replies; others (TRL) take means per token. ``smoothing`` is not for it.
    """
    return (chosen - rejected - 1 / (2 * beta)).square()


PREFERENCES: dict[str, Callable[[Tensor, Tensor, float, float], Tensor]] = {"dpo": dpo_loss, "ipo": ipo_loss}


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """-log sigmoid(r_w - r_l - m) of each pair (Bradley and Terry 1952; InstructGPT, arXiv 2203.02155, eq. 1).

    ``margin`` m >= 0 asks more of pairs that differ more (Llama 2, arXiv 2307.09288, eq. 2).
    """
    return -F.logsigmoid(chosen - rejected - margin)


def off_centre(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(r_w + r_l)^2 of each pair: pairs alone leave rewards free to drift (arXiv 2312.09244, eq. 2)."""
    return (chosen + rejected).square()


# what is told of them


@torch.no_grad()
def preferred(chosen: Tensor, rejected: Tensor) -> Tensor:
    """1 where the chosen text is worth more, 1/2 where both are worth the same, as before the first step."""
    return (chosen > rejected).to(chosen.dtype) + (chosen == rejected).to(chosen.dtype) / 2
