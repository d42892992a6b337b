"""A policy at work: a model and its tokenizer from a stage's folder, and how to sample groups with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from seekling.engine.config import Sampling
from seekling.engine.engine import Ban, Completion, Engine, Request
from seekling.engine.sampler import seed_of
from seekling.learn.lanes import ONE, Lanes
from seekling.model.count import flops_per_token
from seekling.model.decoder import Decoder
from seekling.model.weights import load_model
from seekling.records import Group, Problem, Rollout
from seekling.text.chat import prompt_ids
from seekling.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Policy:
    """Model, tokenizer, and the engine that samples from that very model."""

    model: Decoder
    tokenizer: Tokenizer
    engine: Engine
    lanes: Lanes = ONE

    @classmethod
    def load(cls, folder: Path, device: torch.device, lanes: Lanes = ONE) -> Policy:
        """From an exported model folder."""
        tokenizer = Tokenizer.load(folder)
        model = load_model(folder, device=str(device))
        return cls(model, tokenizer, Engine(model, tokenizer.eos), lanes)

    def prompt(self, problem: Problem) -> tuple[int, ...]:
        """A problem's ids, up to where the answer begins."""
        return tuple(prompt_ids(self.tokenizer, problem.prompt))


BanFor = Callable[[Problem], Ban]


def sample_groups(
    policy: Policy,
    problems: Sequence[Problem],
    num_rollouts: int,
    sampling: Sampling,
    seed: str,
    ban: BanFor | None = None,
) -> list[Group]:
    """``num_rollouts`` per problem. Each rollout's draws depend on (seed, problem, its number) alone.

    The problems always make two batches, so that two lanes can sample side by side and one changes no bit.
    """
    prompts = [policy.prompt(problem) for problem in problems]
    requests = [
        Request(prompt, seed_of(seed, problem.id, number), ban(problem) if ban else None)
        for problem, prompt in zip(problems, prompts, strict=True)
        for number in range(num_rollouts)
    ]
    middle = len(problems) // 2 * num_rollouts
    shares = [share for share in (requests[:middle], requests[middle:]) if share]
    said = chain(*policy.lanes.map(lambda share: policy.engine.generate(share, sampling), shares))
    rollouts = [_rollout(policy, request, completion) for request, completion in zip(requests, said, strict=True)]
    rows = [tuple(rollouts[start : start + num_rollouts]) for start in range(0, len(rollouts), num_rollouts)]
    return [Group(problem, row) for problem, row in zip(problems, rows, strict=True)]


def generation_cost(policy: Policy, groups: Sequence[Group]) -> tuple[int, float]:
    """Tokens sampled, and FLOPs with each group's prompt computed once."""
    sampled = sum(len(rollout.tokens) for group in groups for rollout in group.rollouts)
    prompts = sum(len(group.rollouts[0].prompt) for group in groups)
    context = 0.5 * sampled / max(1, sum(len(g.rollouts) for g in groups)) + prompts / max(1, len(groups))
    return sampled, (sampled + prompts) * flops_per_token(policy.model.config, context, training=False)


def _rollout(policy: Policy, request: Request, said: Completion) -> Rollout:
    text = policy.tokenizer.decode(said.tokens, skip_special=True)
    return Rollout(request.prompt, said.tokens, said.logps, text, said.stop, request.seed, said.routes)
