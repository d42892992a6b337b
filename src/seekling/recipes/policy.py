"""A policy at work: a model and its tokenizer from a stage's folder, and how to sample groups with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from seekling.engine.config import Sampling
from seekling.engine.engine import Ban, Banned, Completion, Engine, Request
from seekling.engine.foreign import engine_for
from seekling.engine.sampler import seed_of
from seekling.errors import UserError
from seekling.learn.lanes import ONE, Lanes
from seekling.model.count import flops_per_token
from seekling.model.decoder import Decoder
from seekling.model.foreign import load_any
from seekling.model.lora import add_adapters, keep_trained
from seekling.plan.machine import give_back
from seekling.recipes.config import Pretrain, Sft, Trained
from seekling.recipes.together import joined, share
from seekling.records import Group, Problem, Rollout
from seekling.text.chat import encode_prompts
from seekling.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Policy:
    """Model, tokenizer, and the engine that samples from that very model."""

    model: Decoder
    tokenizer: Tokenizer
    engine: Engine
    lanes: Lanes = ONE

    @classmethod
    def load(
        cls, folder: Path, device: torch.device, lanes: Lanes = ONE, dtype: torch.dtype = torch.float32,
        *, spoken: torch.dtype | None = None,
    ) -> Policy:  # fmt: skip
        """From a model folder, held in ``dtype``, sampled in ``spoken``. It stops at any of the tokenizer's stops."""
        model = load_any(folder, device=str(device), dtype=dtype)
        tokenizer = Tokenizer.load(folder).padded(model.config.vocab_size)
        return cls(model, tokenizer, engine_for(model, tokenizer.stops, spoken), lanes)

    def prompt(self, problem: Problem) -> tuple[int, ...]:
        """A problem's ids, up to where the answer begins."""
        return self.prompts([problem])[0]

    def prompts(self, problems: Sequence[Problem]) -> list[tuple[int, ...]]:
        """``prompt`` of several at once: somebody else's template runs in a process of its own."""
        asked = [[{"role": "user", "content": problem.prompt}] for problem in problems]
        return [tuple(ids) for ids in encode_prompts(self.tokenizer, asked)]


def held_in(config: Trained) -> torch.dtype:
    """What a stage's model is loaded in: float32, or what its adapters stand beside."""
    kind: torch.dtype = getattr(torch, config.adapter.base)
    return kind


def spoken_in(config: Trained, dtype: torch.dtype) -> torch.dtype | None:
    """What rollouts are sampled in: the arithmetic of the run; with adapters (None) what the base is held in."""
    return None if config.adapter.rank else dtype


def prepare(model: Decoder, config: Trained, seed: str) -> None:
    """Make of a loaded model what its stage trains: adapters on a frozen base, or what ``train`` and ``freeze`` leave.

    Raises UserError for a name that speaks of nothing, and when the stage's loss reaches nothing of what is left.
    """
    adapter, kind = config.adapter, held_in(config)
    _keep_less(model, config)
    if adapter.rank and not isinstance(model, Decoder):
        raise UserError(
            f'stage "{config.name}" would put adapters beside a model that runs through transformers',
            next_step='Train parts of it (train = ["self_attn"]), or import it with through = "seekling".',
        )
    if adapter.rank:
        for weight in model.parameters():
            weight.data = weight.data.to(kind)
        add_adapters(
            model, rank=adapter.rank, scale=adapter.scale, targets=adapter.targets, seed=seed_of(seed, "adapters")
        )
    elif config.train or config.freeze:
        keep_trained(model, train=config.train, freeze=config.freeze)
        alone = isinstance(config, Pretrain | Sft) and config.mtp_weight > 0  # it may learn to draft and nothing else
        if not alone and all(n.startswith("mtp.") for n, weight in model.named_parameters() if weight.requires_grad):
            raise UserError(
                f'stage "{config.name}" would train only the prediction layer, which what it teaches does not reach',
                next_step="Train something of the main layers too, or the layer alone in a stage of sft.",
            )


def _keep_less(model: Decoder, config: Trained) -> None:
    """Have each layer computed again on the way back, where told, and what it held given back.

    Raises UserError where a layer is not ours.
    """
    if isinstance(model, Decoder):
        model.recomputes = config.packing.checkpoint_activations
        if model.recomputes:
            give_back()
    elif config.packing.checkpoint_activations:
        raise UserError(
            f'stage "{config.name}" would checkpoint the activations of a model that runs through transformers',
            next_step="Leave packing.checkpoint_activations out and set packing.passes higher.",
        )


BanFor = Callable[[Problem], Ban]


def sample_groups(
    policy: Policy,
    problems: Sequence[Problem],
    num_rollouts: int,
    sampling: Sampling,
    seed: str,
    ban: BanFor | None = None,
    *,
    tell_kept: bool = False,
) -> list[Group]:
    """``num_rollouts`` per problem. Each rollout's draws depend on (seed, problem, its number) alone.

    With ``tell_kept`` they say what a truncated sampler chose among, as a learner needs to know. The problems always
    make two batches, so that two lanes can sample side by side and one changes no bit. Of several processes each
    samples its share, as one batch, and all know what all said.
    """
    world = policy.lanes.world
    own = share(world, problems)
    found = _sampled(policy, own, num_rollouts, sampling, seed, ban, tell_kept=tell_kept) if own else []
    return joined(world, problems, found)


def _sampled(
    policy: Policy, problems: Sequence[Problem], num_rollouts: int, sampling: Sampling, seed: str, ban: BanFor | None,
    *, tell_kept: bool,
) -> list[Group]:  # fmt: skip
    prompts = policy.prompts(problems)
    requests = [
        Request(
            prompt, seed_of(seed, problem.id, number), rules=(Banned(ban(problem)),) if ban else (), tell_kept=tell_kept
        )
        for problem, prompt in zip(problems, prompts, strict=True)
        for number in range(num_rollouts)
    ]
    middle = len(problems) // 2 * num_rollouts if policy.lanes.world.size == 1 else 0
    batches = [batch for batch in (requests[:middle], requests[middle:]) if batch]
    said = chain(*policy.lanes.map(lambda batch: policy.engine.generate(batch, sampling), batches))
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
    return Rollout(request.prompt, said.tokens, said.logps, text, said.stop, request.seed, said.routes, said.kept)
