"""One optimizer step from one batch: forward, loss, backward in passes whose size cannot change the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seekling.learn.ahead import look_ahead
from seekling.learn.batch import Batch
from seekling.learn.config import Critic, Objective
from seekling.learn.lanes import ONE, Lanes
from seekling.learn.logps import cross_entropy, token_logps
from seekling.learn.objective import RATIOS, Said, correction, k3, policy_loss
from seekling.learn.optim import Optimizers
from seekling.learn.value import value_loss
from seekling.model.decoder import Decoder, Hidden
from seekling.model.heads import head_of
from seekling.model.moe import Routing, balance_losses, expert_load, move_bias


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

    Where several processes learn together each takes its share of the rows in as many passes, ``model`` is left alike
    at all of them, and the figures are those of the whole.

    Returns the summed figures, ``grad_norm``, and 1 as ``skipped`` where the update must not be and all stays as it
    was. Neither lanes nor, beyond rounding, passes change the result.
    """
    learner, world = optimizers.learner, lanes.world

    def gradients(part: Batch) -> tuple[list[Tensor | None], dict[str, float]]:
        # No cache of casts: lanes would share it and clear it for each other, and bits would depend on who was first.
        place, is_cast = part.targets_BT.device.type, dtype != torch.float32
        with torch.autocast(place, dtype, enabled=is_cast, cache_enabled=False):
            result = loss(learner.model, part)
        return learner.gradients(result.value), {name: float(value) for name, value in result.sums.items()}

    grads: list[Tensor | None] = [None] * len(optimizers.names)
    figures: list[dict[str, float]] = []
    with learner.at_work():
        for found, sums in lanes.stream(gradients, batch.share(world.rank, world.size).passes(passes)):
            add(grads, found)
            figures.append(sums)
        for parameter, grad in zip(optimizers.names, grads, strict=True):
            parameter.grad = grad
        totals = world.sums({name: sum(sums[name] for sums in figures) for name in figures[0]})
        return totals | optimizers.step(step_index, totals["loss"])


def add(grads: list[Tensor | None], found: list[Tensor | None]) -> None:
    """Add a slice's gradients to those before it. ``found`` lets go of each as it is added: two sets at most stand."""
    for place, before in enumerate(grads):
        grad, found[place] = found[place], None
        if grad is not None:
            grads[place] = grad if before is None else before + grad


def text_loss(
    model: Decoder, batch: Batch, *, mtp_weight: float = 0.0, mtp_apart: bool = False, balance_weight: float = 0.0,
    num_rows: int = 1,
) -> Loss:  # fmt: skip
    """Weighted next-token cross-entropy, plus multi-token prediction and sequence balance, each times its weight.

    ``num_rows`` is the whole step's: the balance loss is a mean over rows (DeepSeek-V3, eq. 17-20, 24-25). With
    ``mtp_apart`` multi-token prediction reaches the prediction layer alone, and its experts are not balanced.
    """
    hidden = model(batch.rows)
    main = (cross_entropy(model, hidden.states_BTD, batch.targets_BT, batch.weight_BT > 0) * batch.weight_BT).sum()
    value, sums = main, {"loss": main.detach()}
    routings = list(hidden.routings)
    if mtp_weight:
        ahead = look_ahead(model, batch, hidden.states_BTD, apart=mtp_apart)
        routings += [ahead.routing] if ahead.routing is not None and not mtp_apart else []
        value, sums = value + mtp_weight * ahead.loss, sums | ahead.sums
    if routings:
        balance, told = balanced(routings, batch, num_rows)
        value = value + balance_weight * balance if balance_weight else value
        sums |= told
    return Loss(value, sums)


def balanced(routings: Sequence[Routing], batch: Batch, num_rows: int) -> tuple[Tensor, dict[str, Tensor]]:
    """A slice's part of the sequence balance loss, and its sums: that loss, and every expert's load by layer."""
    real_N = (batch.rows.segments_BT > 0).flatten()
    row_N = torch.arange(len(batch.targets_BT), device=real_N.device).repeat_interleave(batch.targets_BT.shape[1])
    rows = [balance_losses(routing, real_N, row_N, len(batch.targets_BT)) for routing in routings]
    balance = torch.stack(rows).sum() / (num_rows * len(routings))
    sums = {"balance_loss": balance.detach()}
    for layer, routing in enumerate(routings):
        load_E = expert_load(routing.chosen_NA, routing.scores_NE.shape[1], real_N)
        sums |= {f"load/{layer}/{expert}": load for expert, load in enumerate(load_E)}
    return balance, sums


def rollout_loss(
    model: Decoder,
    batch: Batch,
    *,
    objective: Objective,
    temperature: float,
    mtp_weight: float = 0.0,
    num_ahead: int = 1,
) -> Loss:
    """The policy objective on rollouts, with the sampler's routes replayed when the batch holds them.

    ``old``, who began the update, is in the batch's values where the policy has moved since; else it is the policy
    itself where a correction tells it from the sampler, and the sampler where nothing does.

    The prediction layer learns, apart, what was said, whatever it earned: each of the whole update's ``num_ahead``
    tokens alike.
    """
    hidden = model(batch.rows, batch.routes or None)
    said_BT, behaviour_BT = batch.weight_BT > 0, batch.values["behaviour"]
    logp_BT, entropy_BT = token_logps(
        model, hidden, batch.targets_BT, temperature,
        kept=batch.kept, pull_entropy=objective.entropy > 0, wanted_BT=said_BT,
    )  # fmt: skip
    # What was not said has weight 0, but 0 times an infinite ratio would be no number.
    logp_BT, reference_BT = (x.where(said_BT, behaviour_BT) for x in (logp_BT, batch.values["reference"]))
    old_BT = batch.values.get("old", behaviour_BT if objective.correction == "none" else logp_BT.detach())
    said = Said(
        logp_BT, old_BT, behaviour_BT, reference_BT,
        batch.values["advantage"], batch.weight_BT, batch.rows.segments_BT, entropy_BT,
    )  # fmt: skip
    value = policy_loss(said, objective)
    sums = {"loss": value.detach(), **counted(said, objective)}
    if "return" in batch.values:
        missed = critic_loss(model, hidden, batch, objective.critic)
        value, sums = value + missed, sums | {"critic_loss": missed.detach()}
    if mtp_weight:
        alike = replace(batch, weight_BT=said_BT.to(batch.weight_BT.dtype) / num_ahead)
        ahead = look_ahead(model, alike, hidden.states_BTD, temperature=temperature, apart=True)
        value, sums = value + mtp_weight * ahead.loss, sums | ahead.sums
    return Loss(value, sums)


def critic_loss(model: Decoder, hidden: Hidden, batch: Batch, critic: Critic) -> Tensor:
    """What the head on the model's states missed, weighed like the policy's loss."""
    states_BTD = hidden.states_BTD.detach() if critic.detach else hidden.states_BTD
    value_BT, told = head_of(model)(states_BTD), batch.values
    return critic.weight * value_loss(value_BT, told["value"], told["return"], batch.weight_BT, critic.clip)


@torch.no_grad()
def counted(said: Said, objective: Objective) -> dict[str, Tensor]:
    """Sums over what was said, for a step's figures: each over ``said`` is a mean."""
    said_BT, ratio_BT = said.weight > 0, RATIOS[objective.ratio](said)
    low_BT = (ratio_BT < 1 - objective.clip_low) & (said.advantage < 0)
    high_BT = (ratio_BT > 1 + objective.clip_high) & (said.advantage > 0)
    per_token = {
        "entropy": said.entropy,
        "kl": k3(said.logp - said.reference),
        "mismatch_kl": k3(said.logp - said.behaviour),
        "clipped_low": low_BT,
        "clipped_high": high_BT,
    }
    if objective.correction != "none":
        per_token["correction"] = correction(said, objective)
    return {"said": said_BT.sum()} | {name: (value * said_BT).sum() for name, value in per_token.items()}


def logps_said(model: Decoder, batch: Batch, *, temperature: float = 1.0, replay: bool = True) -> Tensor:
    """log p of what was said, as the sampler that said it would tell: float32 [B, T], 0 elsewhere.

    Kept sets hold, and with ``replay`` the sampler's routes; without, the model takes its own.
    """
    hidden = model(batch.rows, batch.routes if replay and batch.routes else None)
    said_BT = batch.weight_BT > 0
    return token_logps(model, hidden, batch.targets_BT, temperature, kept=batch.kept, wanted_BT=said_BT)[0]


@torch.no_grad()
def move_biases(model: Decoder, totals: dict[str, float], speed: float) -> None:
    """Apply the balance rule to every router from a step's summed loads (``load/<layer>/<expert>``)."""
    for layer, router in enumerate(model.routers()):
        bias_E, is_frozen = router.e_score_correction_bias, not router.weight.requires_grad
        if bias_E is None or is_frozen or f"load/{layer}/0" not in totals:  # the prediction layer may not be trained
            continue
        loads = [totals[f"load/{layer}/{expert}"] for expert in range(len(bias_E))]
        bias_E.copy_(move_bias(bias_E, torch.tensor(loads, dtype=torch.float64), speed))
