"""Multi-token prediction as a loss: what the prediction layer says of token t+2, and how often it is right.

Pretraining learns it jointly with the next token (DeepSeek-V3, section 2.2, eq. 24-25). Later stages keep the layer
alive apart from what they teach: the same loss with the trunk, the embedding and the head held fixed, so that it
follows where the trunk goes and can still draft for it, and nothing else changes by a bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from seekling.learn.batch import Batch
from seekling.learn.logps import guesses
from seekling.model.decoder import Decoder
from seekling.model.moe import Routing

LAYER = "mtp."
"""How the names of its parameters begin."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """``loss``: weighed cross-entropy, a scalar, in nats. ``sums``: to report, summed over passes. ``routing``: of the
    layer's own experts."""

    loss: Tensor
    sums: dict[str, Tensor]
    routing: Routing | None


def look_ahead(
    model: Decoder, batch: Batch, states_BTD: Tensor, *, temperature: float = 1.0, apart: bool = False
) -> Ahead:
    """The prediction layer on a batch, each token t+2 weighed as the batch weighs it.

    Of the model's own states [B, T, D] and the token that really came at t+1. With ``apart`` the loss reaches only the
    layer's parameters.
    """
    ahead_BTD, routing = model.predict_next(batch.rows, states_BTD, apart=apart)
    targets_BT, weight_BT = two_ahead(batch)
    head_VD, told_BT = model.head_VD.detach() if apart else model.head_VD, weight_BT > 0
    nll_BT, right_BT = guesses(head_VD, ahead_BTD, targets_BT, told_BT, temperature)
    loss = (nll_BT * weight_BT).sum()
    sums = {"mtp_loss": loss.detach(), "mtp_right": right_BT.detach().sum(), "mtp_told": told_BT.sum()}
    return Ahead(loss, sums, routing)


def two_ahead(batch: Batch) -> tuple[Tensor, Tensor]:
    """Targets and weights for predicting t+2 from t; a text's last two positions have none."""
    targets_BT, weight_BT = batch.targets_BT.roll(-1, 1), batch.weight_BT.roll(-1, 1)
    same_BT = batch.rows.segments_BT == batch.rows.segments_BT.roll(-1, 1)
    same_BT[:, -1] = False
    return targets_BT, weight_BT * same_BT


def num_ahead(batch: Batch) -> int:
    """How many learned tokens of a batch can be predicted from two before."""
    return int((two_ahead(batch)[1] > 0).sum())


def weight_of(model: Decoder, mtp_weight: float) -> float:
    """``mtp_weight``, or 0 where a model has no prediction layer or nothing of it is trained."""
    learns = model.mtp is not None and any(weight.requires_grad for weight in model.mtp.parameters())
    return mtp_weight if learns else 0.0


def of_layer(*totals: Mapping[str, float]) -> dict[str, float]:
    """A step's figures of the prediction layer from the sums of its updates, where it learned.

    ``mtp_loss``: nats, weighed as each update weighs. ``mtp_acceptance``: the share of learned tokens that were the
    layer's first choice, given the one before.
    """
    own = [(each["mtp_loss"], each["mtp_right"], each["mtp_told"]) for each in totals if "mtp_loss" in each]
    if not own:
        return {}
    told = max(1.0, sum(count for _, _, count in own))
    loss = sum(loss * count for loss, _, count in own) / told
    return {"mtp_loss": loss, "mtp_acceptance": sum(right for _, right, _ in own) / told}
