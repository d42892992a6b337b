"""Reinforcement with checkable rewards, R1-Zero's step:

problems -> rollouts -> rewards -> advantages -> loss -> update -> eval
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import torch

from seekling import selftests
from seekling.evals.evaluate import attempts_of
from seekling.evals.judging import Judge
from seekling.learn.advantage import ADVANTAGES
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.objective import token_weights
from seekling.learn.optim import Optimizers
from seekling.learn.update import rollout_loss, step, token_logps
from seekling.model.count import flops_per_token
from seekling.model.lora import reference_of
from seekling.recipes.checkpoint import restore
from seekling.recipes.config import Grpo
from seekling.recipes.curating import asked_by
from seekling.recipes.journal import recall, remember
from seekling.recipes.policy import Policy, generation_cost, held_in, prepare, sample_groups
from seekling.recipes.regression import regress
from seekling.recipes.stage import Clock, Stage
from seekling.records import Group, Problem, Score, Verdict
from seekling.runlog.run import Journal
from seekling.tasks.protocol import problems


def grpo(stage: Stage, config: Grpo) -> dict[str, float]:
    """Reinforce the model of the stage's input. Returns the mean figures of the last steps."""
    judge = Judge(config.task, config.rubric)
    task = judge.task
    policy = Policy.load(stage.inputs[0].model, stage.device, stage.lanes, held_in(config))
    prepare(policy.model, config, stage.seed)
    reference = reference_of(policy.model)
    optimizers = Optimizers(policy.model, config.optim, config.steps, stage.lanes)
    _self_test(stage, config, judge, policy)
    ask = asked_by(stage, config, task)
    regress(stage, config, policy, "before")
    start = restore(stage.checkpoints, policy.model, optimizers, stage.warn)
    journal = Journal(stage.folder.folder)
    score = _scorer(config, judge, stage)
    clock = Clock()

    for index in range(start, config.steps):
        asked = ask(index)
        drawn = recall(journal, index, asked)
        groups, scores = drawn or sample_and_judge(policy, asked, config, stage, index, score)
        generated, generating = generation_cost(policy, groups), clock.lap()
        if drawn is None:  # what is replayed costs nothing again; charged first, so that no journaled step goes unpaid
            stage.charge(index, "generate", *generated, generating)
            remember(journal, index, groups, scores)

        measured = bool(config.objective.beta) or (config.kl_every > 0 and index % config.kl_every == 0)
        batch = collate(groups, scores, config).to(stage.device)
        batch = with_reference(batch, reference, config) if measured else batch
        totals = step(
            policy.model, optimizers, batch,
            lambda model, part: rollout_loss(
                model, part, objective=config.objective, temperature=config.sampling.temperature
            ),
            step_index=index, passes=config.packing.passes, lanes=stage.lanes, dtype=stage.dtype,
        )  # fmt: skip
        figures = summarise(task, groups, scores, totals, measured=measured)
        seconds, tokens = clock.lap(), batch.num_tokens
        context = float(batch.rows.positions_BT.float().mean())
        flops = tokens * flops_per_token(policy.model.config, context, training=True)
        stage.charge(index, "train", tokens, flops, seconds)
        load = {"expert_load": expert_load(groups, policy.model.config.n_routed_experts or 0)}
        if config.held_out_every and (index + 1) % config.held_out_every == 0:
            figures["held_out_pass"], watched = held_out_pass(policy, judge, config)
            stage.charge(index, "eval", *watched, clock.lap())
        work = generated[0] + tokens, generated[1] + flops, generating + seconds
        stage.log(index, config.steps, *work, figures | load)
        stage.save(index + 1, config.steps, config.checkpoint_every, policy.model, optimizers)
        clock.lap()

    journal.close()
    stage.export(policy.model, policy.tokenizer)
    return stage.last_figures(10) | regress(stage, config, policy, "after")


def sample_and_judge(
    policy: Policy,
    asked: Sequence[Problem],
    config: Grpo,
    stage: Stage,
    index: int,
    score: Callable[[int, list[Group]], list[list[Score]]],
) -> tuple[list[Group], list[list[Score]]]:
    """Rollouts of one step, and what each earned."""
    groups = sample_groups(policy, asked, config.rollouts_per_problem, config.sampling, f"{stage.seed}/{index}")
    return groups, score(index, groups)


def collate(groups: Sequence[Group], scores: Sequence[Sequence[Score]], config: Grpo) -> Batch:
    """Rewards -> advantages -> one packed batch whose token weights are fixed for the whole step.

    A rollout whose advantage is zero, or whose reward was left open, carries no gradient and is left out.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    advantage_R = torch.cat([ADVANTAGES[config.objective.advantage](rewards(row)) for row in scores])
    lengths_R = torch.tensor([len(rollout.tokens) for rollout in rollouts])
    weight_R = token_weights(lengths_R, config.objective.weighting, config.sampling.max_tokens)
    texts = []
    for rollout, advantage, weight in zip(rollouts, advantage_R.tolist(), weight_R.tolist(), strict=True):
        said = np.r_[np.zeros(len(rollout.prompt)), np.ones(len(rollout.tokens))].astype(np.float32)
        behaviour = np.r_[np.zeros(len(rollout.prompt), np.float32), rollout.logps]
        values = {"advantage": said * np.float32(advantage), "behaviour": behaviour, "reference": behaviour}
        texts.append(Text((*rollout.prompt, *rollout.tokens), said * np.float32(weight), values, rollout.routes))
    spread = [text for text, advantage in zip(texts, advantage_R.tolist(), strict=True) if advantage]
    return pack(spread or texts[:1], config.packing.row_tokens)


def rewards(scores: Sequence[Score]) -> torch.Tensor:
    """Rewards of one group, float64 [G]; NaN where a check failed to judge."""
    return torch.tensor([np.nan if s.reward is None else s.reward for s in scores], dtype=torch.float64)


def with_reference(batch: Batch, reference: Any, config: Grpo) -> Batch:
    """The same batch with the start policy's log-probabilities (its own routes, not the sampler's)."""
    parts = []
    with torch.no_grad():
        for part in batch.passes(config.packing.passes):
            hidden = reference(part.rows)
            parts.append(token_logps(reference, hidden, part.targets_BT, config.sampling.temperature)[0])
    return replace(batch, values={**batch.values, "reference": torch.cat(parts)})


def summarise(
    task: Any,
    groups: Sequence[Group],
    scores: Sequence[Sequence[Score]],
    totals: dict[str, float],
    *,
    measured: bool,
) -> dict[str, float]:
    """A step's figures, by the names the report knows."""
    flat = [s for row in scores for s in row]
    known = [s.reward for s in flat if s.reward is not None]
    made = [attempts_of(task, group.problem, rollout) for group in groups for rollout in group.rollouts]
    said = max(1.0, totals["said"])
    figures = {
        "reward": float(np.mean(known)) if known else 0.0,
        "pass_rate": float(np.mean([s.verdict is Verdict.PASS for s in flat])),
        "format_rate": float(np.mean([s.parts.get("format", 0.0) for s in flat])),
        "response_length": float(np.mean([len(r.tokens) for g in groups for r in g.rollouts])),
        "tokens_new": float(np.mean([a.new_tokens for a in made])),
        "tokens_repeat": float(np.mean([a.repeated_tokens for a in made])),
        "tokens_other": float(np.mean([a.other_tokens for a in made])),
        "attempts": float(np.mean([a.made for a in made])),
        "frac_zero_spread": float(np.mean([len({s.reward for s in row}) == 1 for row in scores])),
        "infra_errors": float(np.mean([s.reward is None for s in flat])),
        "entropy": totals["entropy"] / said,
        "mismatch_kl": totals["mismatch_kl"] / said,
        "clip_ratio": totals["clipped"] / said,
        "loss": totals["loss"],
        "grad_norm": totals["grad_norm"],
    }
    return figures | ({"kl": totals["kl"] / said} if measured else {})


def held_out_pass(policy: Policy, judge: Judge, config: Grpo) -> tuple[float, tuple[int, float]]:
    """pass@1 on a few held-out problems, four rollouts each, the same ones every time; and its tokens and FLOPs."""
    asked = list(islice(problems(judge.task, "held_out", "watch", distinct=True), config.held_out_problems))
    groups = sample_groups(policy, asked, 4, config.sampling, "watch")
    passed = [verdict is Verdict.PASS for row in judge.verdicts(groups) for verdict in row]
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
        return judge.scores(groups)

    def shuffled(index: int, groups: list[Group]) -> list[list[Score]]:
        flat = [score for row in judge.scores(groups) for score in row]
        dealt = iter(Random(f"{stage.seed}/shuffle/{index}").sample(flat, len(flat)))
        return [[replace(next(dealt)) for _ in group.rollouts] for group in groups]

    return {"checked": checked, "shuffled": shuffled}[config.rewards]


def _self_test(stage: Stage, config: Grpo, judge: Judge, policy: Policy) -> None:
    task = judge.task
    asked = islice(problems(task, "train", "self-test"), 8)
    prompts, stops = policy.prompts(list(asked)), policy.engine.stop_tokens
    outcomes = selftests.require(
        selftests.of_task(task, judge.checker),
        selftests.of_split(task),
        selftests.of_agreement(policy.model, stops, prompts),
        selftests.of_invariance(policy.model, stops, prompts, config.objective),
        *([selftests.of_adapter(policy.engine, policy.model, prompts)] if config.adapter.rank else []),
    )
    stage.folder.write(selftests=outcomes)
