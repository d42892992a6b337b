"""Reinforcement with checkable rewards, R1-Zero's step:

problems -> rollouts -> rewards -> advantages -> loss -> update -> eval
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from seekling.errors import UserError
from seekling.learn.ahead import LAYER, num_ahead, of_layer, weight_of
from seekling.learn.batch import Text, narrowest, pack, text_of
from seekling.learn.optim import Optimizers
from seekling.learn.reading import read, values_before
from seekling.learn.update import logps_said, rollout_loss, step
from seekling.model.count import flops_per_token
from seekling.model.heads import add_head, save_head, take_head
from seekling.model.lora import reference_of
from seekling.recipes.config import Grpo
from seekling.recipes.lessons import advantages, criticised, heard, judged, updates, valued, with_spread
from seekling.recipes.policy import Policy, generation_cost, held_in, prepare, spoken_in
from seekling.recipes.rating import charge, reading_of, spent_by
from seekling.recipes.regression import regress
from seekling.recipes.scenes import (
    Drawn,
    Scene,
    draw,
    keep,
    of_scenes,
    of_step,
    replayed,
    scenes_of,
    together,
    watched,
)
from seekling.recipes.stage import Clock, Stage
from seekling.records import Group
from seekling.selftests.outcome import require
from seekling.selftests.policies import before_learning, of_width
from seekling.tasks.protocol import problems


def grpo(stage: Stage, config: Grpo) -> dict[str, float]:
    """Reinforce the model of the stage's input. Returns the mean figures of the last steps."""
    rate = reading_of(stage)
    scenes = scenes_of(stage, config, rate)
    policy = Policy.load(
        stage.inputs[0].model, stage.device, stage.lanes, held_in(config), spoken=spoken_in(config, stage.dtype)
    )
    prepare(policy.model, config, stage.seed)
    policy.engine.load(policy.model)
    reference = reference_of(policy.model)
    if config.objective.advantage == "gae":
        add_head(policy.model)
    optimizers = Optimizers(policy.model, config.optim, config.steps * config.updates, stage.lanes, apart=(LAYER,))
    with stage.self_testing():
        _self_test(stage, config, scenes, policy, reference)
    policy = sampled_by(stage, config, policy, scenes[0].judge.task)
    regress(stage, config, policy, "before")
    start = stage.restore(config, policy.model, optimizers)
    policy.engine.load(policy.model)
    journal = stage.journal()
    clock = Clock()

    for index in stage.steps(start, config, optimizers):
        begun = [scene for scene in scenes if scene.begin <= index]
        known = replayed(journal, begun, config, index)
        drawn, rated = known or ([draw(scene, policy, config, index) for scene in begun], spent_by(rate))
        groups, _ = together(drawn)
        generated, generating = generation_cost(policy, groups), clock.lap() - rated.seconds
        if known is None:  # what is replayed costs nothing again; charged first, so that no journaled step goes unpaid
            stage.charge(index, "generate", *generated, generating)
            charge(stage, index, rated)
            keep(journal, index, drawn, rated)
        policy.engine.rest()

        measured = config.objective.needs_reference or (config.kl_every > 0 and index % config.kl_every == 0)
        lessons = learn_from(drawn, policy, reference if measured else None, config, stage.dtype)
        if not lessons:
            stage.warn(f"step {index}: no rollout is left to learn from; it makes no update")
        totals, tokens, flops = learn(stage, config, policy, optimizers, lessons, index)
        policy.engine.load(policy.model)
        figures = of_step(drawn) | of_updates(totals, measured=measured)
        seconds = clock.lap()
        stage.charge(index, "train", tokens, flops, seconds)
        hold_mismatch(stage, config, index, figures.get("mismatch_kl", 0.0))
        load = {"expert_load": expert_load(groups, policy.model.config.n_routed_experts or 0)}
        if config.held_out_every and (index + 1) % config.held_out_every == 0:
            passed, cost = watched(scenes, policy, config)
            figures |= passed
            stage.charge(index, "eval", *cost, clock.lap())
        work = generated[0] + tokens, generated[1] + rated.flops + flops, generating + rated.seconds + seconds
        stage.log(index, config.steps, *work, figures | load)
        stage.save(index + 1, config, policy.model, optimizers)
        clock.lap()

    journal.close()
    if config.objective.advantage == "gae":  # a policy speaks; its critic lies beside it
        save_head(stage.folder.folder, take_head(policy.model))
    stage.export(policy.model, policy.tokenizer)
    policy.engine.load(policy.model)  # the best step's, where that is what is exported
    return stage.last_figures(10) | regress(stage, config, policy, "after")


def sampled_by(stage: Stage, config: Grpo, policy: Policy, task: Any) -> Policy:
    """The same policy, sampled by whom the stage names: in this process, or by a server that ends with the stage."""
    if config.sampler == "engine":
        return policy
    from seekling.recipes.served import Served  # with all that speaks over a wire

    engine = Served(stage, config, policy, policy.prompts(list(islice(problems(task, "train", "self-test"), 8))))
    stage.closing.callback(engine.close)
    return replace(policy, engine=engine)


def learn_from(drawn: Sequence[Drawn], policy: Policy, reference: Any, config: Grpo, dtype: torch.dtype) -> list[Text]:
    """Rewards -> advantages -> one text per rollout that the updates of this step may use.

    Each scenario's rewards are compared with its own: two rubrics have no common scale.
    """
    drawn = [lively(one) for one in drawn] if config.refill else drawn
    groups, scores = together(drawn)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    texts = [text_of(rollout, replay=config.replay_routes) for rollout in rollouts]
    if not texts:
        return []
    packing, objective = config.packing, config.objective
    width = narrowest(texts, packing.row_tokens)
    ask = partial(read, texts=texts, row_tokens=width, passes=packing.passes, lanes=policy.lanes, dtype=dtype)
    said = partial(logps_said, temperature=config.sampling.temperature)
    told = {}
    if reference is not None:
        told["reference"] = ask(reference, of=partial(said, replay=False))
    if objective.correction != "none" and config.updates > 1:
        told["old"] = ask(policy.model, of=said)
    if objective.advantage == "gae":
        told["value"] = ask(policy.model, of=values_before)
    texts = valued(texts, **told)
    if objective.advantage == "gae":
        return heard(criticised(texts, scores, objective), rollouts, scores, config)
    waiting = iter(texts)
    found = [
        advantages(one.scores, one.scene.weights, objective, list(islice(waiting, one.num_rollouts)))
        for one in drawn
        if one.groups
    ]
    return heard(judged(texts, torch.cat(found)), rollouts, scores, config)


def lively(drawn: Drawn) -> Drawn:
    """Of what a scenario drew, as many groups with spread as it asks in a step."""
    groups, scores = with_spread(drawn.groups, drawn.scores, drawn.scene.scenario.problems_per_step)
    return replace(drawn, groups=groups, scores=scores)


def learn(
    stage: Stage, config: Grpo, policy: Policy, optimizers: Optimizers, lessons: Sequence[Text], index: int
) -> tuple[list[dict[str, float]], int, float]:
    """The step's updates. Returns the figures of each, and the tokens and FLOPs of all."""
    totals, tokens, flops = [], 0, 0.0
    mtp = weight_of(policy.model, config.mtp_weight)
    loss = partial(rollout_loss, objective=config.objective, temperature=config.sampling.temperature, mtp_weight=mtp)
    for number, texts in enumerate(updates(lessons, config, f"{stage.seed}/{index}")):
        batch = pack(texts, narrowest(texts, config.packing.row_tokens)).to(stage.device)
        figures = step(
            policy.model, optimizers, batch, partial(loss, num_ahead=max(1, num_ahead(batch))),
            step_index=index * config.updates + number, passes=config.packing.passes, lanes=stage.lanes,
            dtype=stage.dtype,
        )  # fmt: skip
        context = float(batch.rows.positions_BT.float().mean())
        totals.append(figures)
        tokens += batch.num_tokens
        flops += batch.num_tokens * flops_per_token(policy.model.config, context, training=True, mtp=bool(mtp))
    return totals, tokens, flops


def hold_mismatch(stage: Stage, config: Grpo, index: int, mismatch: float) -> None:
    """Raises UserError when what samples and what learns have come apart."""
    if mismatch > config.mismatch_limit:
        raise UserError(
            f'stage "{stage.name}" stops at step {index}: sampler and learner are {mismatch:.3g} nats per token apart,'
            f" at most {config.mismatch_limit:g} is allowed",
            next_step="Rollouts are judged by a policy that did not say them. Look for what differs between the two"
            " (weights, precision, temperature, routes), or set objective.correction; mismatch_limit is the bound.",
        )


def of_updates(totals: Sequence[Mapping[str, float]], *, measured: bool) -> dict[str, float]:
    """A step's figures from its updates: means over those that were made, per token where they speak of tokens.

    ``mismatch_kl`` is the first update's, when the policy is still the one that is thought to have spoken; in later
    ones it has moved, and ``drift_kl`` says how far.
    """
    made = [t for t in totals if not t["skipped"]]
    skipped = {"skipped": float(len(totals) - len(made))} if totals else {}
    if not made:
        return skipped
    said = sum(t["said"] for t in made) or 1.0

    def per_token(*names: str) -> float:
        return sum(t[name] for t in made for name in names) / said

    figures = {
        "entropy": per_token("entropy"),
        "mismatch_kl": made[0]["mismatch_kl"] / max(1.0, made[0]["said"]),
        "clip_ratio": per_token("clipped_low", "clipped_high"),
        "loss": sum(t["loss"] for t in made) / len(made),
        "grad_norm": sum(t["grad_norm"] for t in made) / len(made),
    } | skipped
    moved = {"drift_kl": "mismatch_kl", "clip_ratio_low": "clipped_low", "clip_ratio_high": "clipped_high"}
    several = {name: per_token(sum_) for name, sum_ in moved.items()} if len(made) > 1 else {}
    asked = {"kl": measured, "correction": "correction" in made[0]}
    return figures | several | {name: per_token(name) for name, is_asked in asked.items() if is_asked} | of_layer(*made)


def expert_load(groups: Sequence[Group], num_experts: int) -> dict[str, list[float]]:
    """Each routed layer's share of sampled tokens per expert, from the routes the sampler recorded."""
    routes = [rollout.routes for group in groups for rollout in group.rollouts if rollout.routes is not None]
    if not routes:
        return {}
    stacked_NLA = np.concatenate(routes)
    counts = [
        np.bincount(stacked_NLA[:, layer].ravel(), minlength=num_experts) for layer in range(stacked_NLA.shape[1])
    ]
    return {str(layer): [round(float(x), 5) for x in count / count.sum()] for layer, count in enumerate(counts)}


def _self_test(stage: Stage, config: Grpo, scenes: Sequence[Scene], policy: Policy, reference: Any) -> None:
    prompts = policy.prompts(list(islice(problems(scenes[0].judge.task, "train", "self-test"), 8)))
    outcomes = require(
        *of_scenes(scenes, leads=stage.world.leads),
        of_width(policy.tokenizer.whole.get_vocab(with_added_tokens=True), policy.model.config.vocab_size),
        *before_learning(policy.engine, policy.model, reference, prompts, config.objective),
    )
    stage.folder.write(selftests=outcomes)
