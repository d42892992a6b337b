"""One optimizer step from one batch: forward, loss, backward in passes whose size cannot change the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seekling.learn.batch import Batch
from seekling.learn.config import Objective
from seekling.learn.lanes import ONE, Lanes
from seekling.learn.objective import k3, policy_loss
from seekling.learn.optim import Optimizers
from seekling.model.decoder import Decoder, Hidden
from seekling.model.moe import balance_losses, expert_load, move_bias


@dataclass(frozen=True, slots=True)
class Loss:
    """What one pass contributes: a scalar to differentiate, and sums to report (summed over passes)."""

    value: Tensor
    sums: dict[str, Tensor]


def step(
    model: Decoder,
    optimizers: Optimizers,
    batch: Batch,
    loss: Callable[[Decoder, Batch], Loss],
    *,
    step_index: int,
    passes: int = 2,
    lanes: Lanes = ONE,
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Gradients of ``passes`` slices, side by side in lanes, added in order; one update.

    Returns the summed figures and ``grad_norm``. Neither lanes nor, beyond rounding, passes change the result.
    """
    parameters = list(optimizers.names)

    def gradients(part: Batch) -> tuple[tuple[Tensor | None, ...], dict[str, float]]:
        with torch.autocast(part.targets_BT.device.type, dtype, enabled=dtype != torch.float32):
            result = loss(model, part)
        found = torch.autograd.grad(result.value, parameters, allow_unused=True)
        return found, {name: float(value) for name, value in result.sums.items()}

    done = lanes.map(gradients, batch.passes(passes))
    for parameter, *grads in zip(parameters, *(found for found, _ in done), strict=True):
        known = [grad for grad in grads if grad is not None]
        parameter.grad = sum(known[1:], known[0]) if known else None
    totals = {name: sum(sums[name] for _, sums in done) for name in done[0][1]}
    return totals | {"grad_norm": optimizers.step(step_index)}


def token_logps(model: Decoder, hidden: Hidden, targets_BT: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution, in nats, float32: two [B, T]."""
    logits_BTV = model.logits(hidden.states_BTD).float()
    logp_BTV = (logits_BTV / temperature if temperature != 1 else logits_BTV).log_softmax(-1)
    with torch.no_grad():
        entropy_BT = -(logp_BTV.exp() * logp_BTV).sum(-1)
    return logp_BTV.gather(-1, targets_BT.unsqueeze(-1)).squeeze(-1), entropy_BT


def text_loss(
    model: Decoder, batch: Batch, *, mtp_weight: float = 0.0, balance_weight: float = 0.0, num_rows: int = 1
) -> Loss:
    """Weighted next-token cross-entropy, plus multi-token prediction and sequence balance, each times its weight.

    ``num_rows`` is the whole step's: the balance loss is a mean over rows (DeepSeek-V3, eq. 17-20, 24-25).
    """
    hidden = model(batch.rows)
    main = (cross_entropy(model.logits(hidden.states_BTD), batch.targets_BT) * batch.weight_BT).sum()
    value, sums = main, {"loss": main.detach()}
    routings = list(hidden.routings)
    if mtp_weight:
        ahead_BTD, routing = model.predict_next(batch.rows, hidden.states_BTD)
        routings += [routing] if routing is not None else []
        targets_BT, weight_BT = two_ahead(batch)
        mtp = (cross_entropy(model.logits(ahead_BTD), targets_BT) * weight_BT).sum()
        value, sums = value + mtp_weight * mtp, sums | {"mtp_loss": mtp.detach()}
    if routings:
        real_N = (batch.rows.segments_BT > 0).flatten()
        row_N = torch.arange(len(batch.targets_BT), device=real_N.device).repeat_interleave(batch.targets_BT.shape[1])
        rows = [balance_losses(routing, real_N, row_N, len(batch.targets_BT)) for routing in routings]
        balance = torch.stack(rows).sum() / (num_rows * len(routings))
        value, sums = value + balance_weight * balance, sums | {"balance_loss": balance.detach()}
        for layer, routing in enumerate(routings):
            load_E = expert_load(routing.chosen_NA, routing.scores_NE.shape[1], real_N)
            sums |= {f"load/{layer}/{expert}": load for expert, load in enumerate(load_E)}
    return Loss(value, sums)


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """-log p(target), in nats, float32: [B, T]."""
    flat = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), reduction="none")
    return flat.view_as(targets_BT)


def two_ahead(batch: Batch) -> tuple[Tensor, Tensor]:
    """Targets and weights for predicting t+2 from t; a text's last two positions have none."""
    targets_BT, weight_BT = batch.targets_BT.roll(-1, 1), batch.weight_BT.roll(-1, 1)
    same_BT = batch.rows.segments_BT == batch.rows.segments_BT.roll(-1, 1)
    same_BT[:, -1] = False
    return targets_BT, weight_BT * same_BT


def rollout_loss(model: Decoder, batch: Batch, *, objective: Objective, temperature: float) -> Loss:
    """The policy objective on rollouts, with the sampler's routes replayed when the batch holds them."""
    hidden = model(batch.rows, batch.routes or None)
    logp_BT, entropy_BT = token_logps(model, hidden, batch.targets_BT, temperature)
    said_BT, behaviour_BT = batch.weight_BT > 0, batch.values["behaviour"]
    # What was not said has weight 0, but 0 times an infinite ratio would be no number.
    logp_BT, reference_BT = (x.where(said_BT, behaviour_BT) for x in (logp_BT, batch.values["reference"]))
    value = policy_loss(logp_BT, behaviour_BT, batch.values["advantage"], batch.weight_BT, objective, reference_BT)
    with torch.no_grad():
        ratio_BT = (logp_BT - behaviour_BT).exp()
        outside_BT = (ratio_BT < 1 - objective.clip_low) | (ratio_BT > 1 + objective.clip_high)
        sums = {
            "loss": value.detach(),
            "said": said_BT.sum(),
            "entropy": (entropy_BT * said_BT).sum(),
            "kl": (k3(logp_BT - reference_BT) * said_BT).sum(),
            "mismatch_kl": (k3(logp_BT - behaviour_BT) * said_BT).sum(),
            "clipped": (outside_BT & said_BT).sum(),
        }
    return Loss(value, sums)


@torch.no_grad()
def move_biases(model: Decoder, totals: dict[str, float], speed: float) -> None:
    """Apply the balance rule to every router from a step's summed loads (``load/<layer>/<expert>``)."""
    for layer, router in enumerate(model.routers()):
        bias_E, is_frozen = router.e_score_correction_bias, not router.weight.requires_grad
        if bias_E is None or is_frozen or f"load/{layer}/0" not in totals:  # the prediction layer may not be trained
            continue
        loads = [totals[f"load/{layer}/{expert}"] for expert in range(len(bias_E))]
        bias_E.copy_(move_bias(bias_E, torch.tensor(loads, dtype=torch.float64), speed))
