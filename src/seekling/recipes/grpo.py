"""Reinforcement with checkable rewards, R1-Zero's step:

problems -> rollouts -> rewards -> advantages -> loss -> update -> eval
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import torch

from seekling.errors import UserError
from seekling.evals.evaluate import attempts_of
from seekling.evals.judging import Judge
from seekling.learn.ahead import LAYER, num_ahead, of_layer, weight_of
from seekling.learn.batch import Text, narrowest, pack, text_of
from seekling.learn.optim import Optimizers
from seekling.learn.reading import read, values_before
from seekling.learn.update import logps_said, rollout_loss, step
from seekling.model.count import flops_per_token
from seekling.model.heads import add_head, save_head, take_head
from seekling.model.lora import reference_of
from seekling.recipes.config import Distill, Grpo
from seekling.recipes.curating import asked_by
from seekling.recipes.journal import recall, remember
from seekling.recipes.lessons import advantages, criticised, heard, is_spread, judged, updates, valued, with_spread
from seekling.recipes.policy import Policy, generation_cost, held_in, prepare, sample_groups, spoken_in
from seekling.recipes.regression import regress
from seekling.recipes.stage import Clock, Stage
from seekling.recipes.together import scores_of
from seekling.records import Group, Problem, Score, Verdict
from seekling.selftests.outcome import require
from seekling.selftests.policies import before_learning, of_width
from seekling.selftests.tasks import of_key, of_split
from seekling.tasks.protocol import problems


def grpo(stage: Stage, config: Grpo) -> dict[str, float]:
    """Reinforce the model of the stage's input. Returns the mean figures of the last steps."""
    judge = Judge(config.task, config.rubric)
    task = judge.task
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
        _self_test(stage, config, judge, policy, reference)
    policy = sampled_by(stage, config, policy, task)
    ask = asked_by(stage, config, task)
    regress(stage, config, policy, "before")
    start = stage.restore(config, policy.model, optimizers)
    policy.engine.load(policy.model)
    journal = stage.journal()
    score = _scorer(config, judge, stage)
    clock = Clock()

    for index in range(start, config.steps):
        drawn = recall(journal, index, partial(asked_in, config, ask, index))
        groups, scores = drawn or sample_and_judge(policy, ask, config, stage, index, score)
        generated, generating = generation_cost(policy, groups), clock.lap()
        if drawn is None:  # what is replayed costs nothing again; charged first, so that no journaled step goes unpaid
            stage.charge(index, "generate", *generated, generating)
            remember(journal, index, groups, scores)
        policy.engine.rest()

        measured = config.objective.needs_reference or (config.kl_every > 0 and index % config.kl_every == 0)
        lessons = learn_from(groups, scores, policy, reference if measured else None, config, stage.dtype)
        if not lessons:
            stage.warn(f"step {index}: no rollout is left to learn from; it makes no update")
        totals, tokens, flops = learn(stage, config, policy, optimizers, lessons, index)
        policy.engine.load(policy.model)
        figures = of_rollouts(task, groups, scores) | of_updates(totals, measured=measured)
        seconds = clock.lap()
        stage.charge(index, "train", tokens, flops, seconds)
        hold_mismatch(stage, config, index, figures.get("mismatch_kl", 0.0))
        load = {"expert_load": expert_load(groups, policy.model.config.n_routed_experts or 0)}
        if config.held_out_every and (index + 1) % config.held_out_every == 0:
            figures["held_out_pass"], watched = held_out_pass(policy, judge, config)
            stage.charge(index, "eval", *watched, clock.lap())
        work = generated[0] + tokens, generated[1] + flops, generating + seconds
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


Ask = Callable[[int], list[Problem]]
"""From a slot to its problems: a step has one, and ``refill`` more."""


def sample_and_judge(
    policy: Policy,
    ask: Ask,
    config: Grpo,
    stage: Stage,
    index: int,
    score: Callable[[int, list[Group]], list[list[Score]]],
) -> tuple[list[Group], list[list[Score]]]:
    """Rollouts of one step, and what each earned; with ``refill``, of as many slots as it takes."""
    groups: list[Group] = []
    scores: list[list[Score]] = []
    for slot in slots(index, config):
        found = sample_groups(
            policy, ask(slot), config.rollouts_per_problem, config.sampling, f"{stage.seed}/{slot}", tell_kept=True
        )
        groups, scores = groups + found, scores + score(slot, found)
        if sum(map(is_spread, scores)) >= config.problems_per_step:
            break
    return groups, scores


def slots(index: int, config: Grpo) -> range:
    """The slots of problems that a step may ask."""
    return range(index * (1 + config.refill), (index + 1) * (1 + config.refill))


def asked_in(config: Grpo, ask: Ask, index: int, count: int) -> list[Problem]:
    """What a step asks that has taken as many slots as ``count`` problems fill."""
    taken = slots(index, config)[: -(-count // config.problems_per_step)]
    return [problem for slot in taken for problem in ask(slot)]


def learn_from(
    groups: Sequence[Group],
    scores: Sequence[Sequence[Score]],
    policy: Policy,
    reference: Any,
    config: Grpo,
    dtype: torch.dtype,
) -> list[Text]:
    """Rewards -> advantages -> one text per rollout that the updates of this step may use."""
    if config.refill:
        groups, scores = with_spread(groups, scores, config.problems_per_step)
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
    weights = {name: weight for name, weight in config.rubric.weights().items() if weight}
    return heard(judged(texts, advantages(scores, weights, objective, texts)), rollouts, scores, config)


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


def of_rollouts(task: Any, groups: Sequence[Group], scores: Sequence[Sequence[Score]]) -> dict[str, float]:
    """A step's figures from what was said and what it earned, by the names the report knows."""
    flat = [s for row in scores for s in row]
    known = [s.reward for s in flat if s.reward is not None]
    made = [attempts_of(task, group.problem, rollout) for group in groups for rollout in group.rollouts]
    return {
        "reward": float(np.mean(known)) if known else 0.0,
        "pass_rate": float(np.mean([s.verdict is Verdict.PASS for s in flat])),
        "format_rate": float(np.mean([s.parts.get("format", 0.0) for s in flat])),
        "response_length": float(np.mean([len(r.tokens) for g in groups for r in g.rollouts])),
        "tokens_new": float(np.mean([a.new_tokens for a in made])),
        "tokens_repeat": float(np.mean([a.repeated_tokens for a in made])),
        "tokens_other": float(np.mean([a.other_tokens for a in made])),
        "attempts": float(np.mean([a.made for a in made])),
        "frac_zero_spread": float(np.mean([not is_spread(row) for row in scores])),
        "infra_errors": float(np.mean([s.reward is None for s in flat])),
    }


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


def held_out_pass(policy: Policy, judge: Judge, config: Grpo | Distill) -> tuple[float, tuple[int, float]]:
    """pass@1 on a few held-out problems, four rollouts each, the same ones every time; and its tokens and FLOPs."""
    asked = list(islice(problems(judge.task, "held_out", "watch", distinct=True), config.held_out_problems))
    groups = sample_groups(policy, asked, 4, config.sampling, "watch")
    world = policy.lanes.world
    rows = judge.verdicts(groups) if world.leads else []
    passed = world.told([verdict is Verdict.PASS for row in rows for verdict in row])
    return float(np.mean(passed)), generation_cost(policy, groups)


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


def _scorer(config: Grpo, judge: Judge, stage: Stage) -> Callable[[int, list[Group]], list[list[Score]]]:
    """How groups are scored: checked, or (the control) with the step's scores dealt out at random."""

    def checked(index: int, groups: list[Group]) -> list[list[Score]]:
        return scores_of(stage.world, judge, groups)

    def shuffled(index: int, groups: list[Group]) -> list[list[Score]]:
        flat = [score for row in checked(index, groups) for score in row]
        dealt = iter(Random(f"{stage.seed}/shuffle/{index}").sample(flat, len(flat)))
        return [[replace(next(dealt)) for _ in group.rollouts] for group in groups]

    return {"checked": checked, "shuffled": shuffled}[config.rewards]


def _self_test(stage: Stage, config: Grpo, judge: Judge, policy: Policy, reference: Any) -> None:
    task = judge.task
    prompts = policy.prompts(list(islice(problems(task, "train", "self-test"), 8)))
    outcomes = require(
        *(of_key(task, judge.checker) if stage.world.leads else ()),
        of_split(task),
        of_width(policy.tokenizer.whole.get_vocab(with_added_tokens=True), policy.model.config.vocab_size),
        *before_learning(policy.engine, policy.model, reference, prompts, config.objective),
    )
    stage.folder.write(selftests=outcomes)
