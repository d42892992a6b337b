"""Start-up self-tests: each has a name and a figure, takes well under a second, and refuses to train when it fails.

Where peers train wrongly without a word, these speak: the sampler and the learner disagree, the loss depends on how
the batch is sliced, the answer key is judged wrong, held-out problems leak into training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import torch

from seekling.engine.config import Sampling
from seekling.engine.engine import Completion, Engine, Request
from seekling.engine.foreign import engine_for
from seekling.engine.sampler import seed_of
from seekling.errors import SelfTestFailed
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.config import Objective
from seekling.learn.update import rollout_loss, token_logps
from seekling.model.decoder import Decoder
from seekling.model.lora import LowRank, adapters
from seekling.records import Problem, Stop, Verdict
from seekling.tasks.checking import Checker
from seekling.tasks.corpus import Mixture, documents, training_problem
from seekling.tasks.protocol import Task, problems, split_of

AGREEMENT_LIMIT = 1e-4
INVARIANCE_LIMIT = 1e-5
ADAPTER_LIMIT = 1e-3
"""Of models held in float32: each at least forty times what sound ones show."""
ROUGH_AGREEMENT_LIMIT, ROUGH_INVARIANCE_LIMIT, ROUGH_ADAPTER_LIMIT = 0.1, 0.02, 0.2
"""Of bases held in bfloat16, where single tokens scatter: agreement is then a root mean square.

Measured on random models of 2 to 24 layers (CPU): agreement 0.0001 to 0.08 nats, a quarter and more with most faults
planted; invariance below 1e-6, but kernels of accelerators may round by slice, and a loss divided per slice doubles;
adapters 0.01 to 0.1, where an engine with a copy of its own shows 1.
"""
MOVE = 0.3
TEMPERATURE = 0.8
"""Not 1: a sampler or a learner that forgets it is found out."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """One test's outcome: it passes when ``figure`` does not exceed ``limit``."""

    name: str
    figure: float
    limit: float
    advice: str

    @property
    def passed(self) -> bool:
        """Whether training may start."""
        return self.figure <= self.limit


def require(*tests: SelfTest) -> list[dict[str, Any]]:
    """The outcomes as plain JSON. Raises SelfTestFailed naming the first that failed."""
    for test in tests:
        if not test.passed:
            raise SelfTestFailed(
                f'self-test "{test.name}" failed: {test.figure:.3g}, at most {test.limit:g} is allowed',
                next_step=test.advice,
            )
    return [{**asdict(test), "passed": test.passed} for test in tests]


def of_task(task: Task, checker: Checker | None = None, count: int = 64) -> SelfTest:
    """The task's own answer key must pass its own check: figure = share of keys that do not.

    Raises SelfTestFailed with the check's own words when it raises, or returns what is no verdict.
    """
    rng = Random(f"{task.name}/self-check")
    drawn = [task.draw(rng) for _ in range(count)]
    checked = (checker or Checker(task)).verdicts([(problem, problem.answer) for problem in drawn])
    wrong = [(p, one) for p, one in zip(drawn, checked, strict=True) if one.verdict is not Verdict.PASS]
    for problem, one in wrong:
        if one.verdict is Verdict.INFRA_ERROR:
            raise SelfTestFailed(
                f'the check of task "{task.name}" fails on its own answer key: {one.said}',
                where=f"problem {problem.prompt!r}, answer {problem.answer!r}",
                next_step="Mend the task's check: it must return a verdict for every text.",
            )
    first = f" Its answer {wrong[0][0].answer!r} to {wrong[0][0].prompt!r} does not pass." if wrong else ""
    advice = f"Mend the task's check or its answer key.{first}"
    return SelfTest("answer key passes", len(wrong) / count, 0.0, advice)


def of_split(task: Task, mixture: Mixture | None = None, count: int = 512) -> SelfTest:
    """No held-out problem occurs in training: figure = how many of ``count`` training draws are held out.

    Prompts are compared too: a task that gives one problem two ids would put it on both sides.
    """
    held_out = {p.prompt for p in islice(problems(task, "held_out", "self-test"), count)}
    rng = Random("self-test")
    drawn: list[Problem] = [training_problem(task, rng) for _ in range(count)]
    if mixture is not None:
        drawn += [d.problem for d in islice(documents(task, mixture, "self-test"), count) if d.problem is not None]
    advice = "A problem's id must depend on all that makes it the same problem, and on nothing else."
    leaked = sum(p.prompt in held_out or split_of(p.id) == "held_out" for p in drawn)
    return SelfTest("no held-out problem in training", leaked, 0.0, advice)


def of_agreement(model: Decoder, stops: int | Collection[int], prompts: Sequence[tuple[int, ...]]) -> SelfTest:
    """Sampler and learner give one log-probability: figure = largest difference in nats, routes replayed.

    Of a model held in bfloat16 it is the root mean square.
    """
    completions = _sample(model, stops, prompts)
    batch = _rollout_batch(prompts, completions).to(model.embed_tokens.weight.device)
    gap = (_learner_logps(model, batch) - batch.values["behaviour"])[batch.weight_BT > 0]
    advice = "Rollouts would be judged by a policy that did not say them; report this with your model's config."
    name, rough = "sampler and learner agree", _is_rough(model)
    figure, limit = (_size(gap), ROUGH_AGREEMENT_LIMIT) if rough else (float(gap.abs().max()), AGREEMENT_LIMIT)
    return SelfTest(name, figure, limit, advice)


def of_adapter(engine: Engine, model: Decoder, prompts: Sequence[tuple[int, ...]]) -> SelfTest:
    """The engine samples from the very adapters that are trained: figure = share of their effect that it misses.

    Every ``B`` is moved a little and put back to the bit. Between, the engine samples, and the learner reads what was
    said, with the move and without: effect = what the move changed in log-probability, missed = what the sampler's
    differ from the learner's by (root mean squares). Where the move changes nothing, the figure is infinite.
    """
    pairs, endless = adapters(model), copy(engine)
    endless.stop_tokens = ()  # an answer that stops at once would tell nothing of decoding
    kept = [pair.B.detach().clone() for pair in pairs.values()]
    try:
        _move(model, pairs)
        requests, sampling = _requests(model, prompts)
        batch = _rollout_batch(prompts, endless.generate(requests, sampling)).to(model.embed_tokens.weight.device)
        moved_BT = _learner_logps(model, batch)
    finally:
        for pair, before in zip(pairs.values(), kept, strict=True):
            pair.B.data.copy_(before)
    said_BT = batch.weight_BT > 0
    effect = _size((moved_BT - _learner_logps(model, batch))[said_BT])
    missed = _size((moved_BT - batch.values["behaviour"])[said_BT])
    advice = "What is trained would not be what speaks; report this with your model's config and the stage's adapter."
    limit = ROUGH_ADAPTER_LIMIT if _is_rough(model) else ADAPTER_LIMIT
    figure = missed / effect if effect else float("inf")
    return SelfTest("adapters change what the engine samples from", figure, limit, advice)


@torch.no_grad()
def _move(model: Decoder, pairs: Mapping[str, LowRank]) -> None:
    """Add noise to every ``B`` such that scale B A is ``MOVE`` of the matrix beside it, root mean squares compared."""
    matrices = dict(model.named_parameters())
    for name, pair in pairs.items():
        generator = torch.Generator().manual_seed(seed_of("self-test", name))
        noise = torch.randn(pair.B.shape, generator=generator).to(pair.B)
        grown = pair.scale * pair.A.shape[-2] ** 0.5 * _size(pair.A)
        pair.B.add_(noise * (MOVE * _size(matrices[name]) / max(grown, 1e-12)))


def _size(tensor: torch.Tensor) -> float:
    """Root mean square."""
    return float(tensor.float().square().mean().sqrt())


def _is_rough(model: Decoder) -> bool:
    """Whether the model's weights are held in bfloat16."""
    return model.embed_tokens.weight.dtype == torch.bfloat16


def _learner_logps(model: Decoder, batch: Batch) -> torch.Tensor:
    """Log-probabilities [B, T] as a step would compute them, routes replayed: a bfloat16 base under autocast."""
    place = model.embed_tokens.weight.device.type
    with torch.no_grad(), torch.autocast(place, torch.bfloat16, enabled=_is_rough(model)):
        hidden = model(batch.rows, batch.routes or None)
        return token_logps(model, hidden, batch.targets_BT, TEMPERATURE)[0]


def of_invariance(
    model: Decoder, stops: int | Collection[int], prompts: Sequence[tuple[int, ...]], objective: Objective
) -> SelfTest:
    """The loss does not depend on slicing: figure = largest relative change between one pass and many."""
    batch = _rollout_batch(prompts, _sample(model, stops, prompts)).to(model.embed_tokens.weight.device)
    with torch.no_grad():
        losses = [
            sum(
                float(rollout_loss(model, part, objective=objective, temperature=TEMPERATURE).value)
                for part in batch.passes(count)
            )
            for count in (1, len(batch.targets_BT))
        ]
    gap = abs(losses[0] - losses[1]) / max(1e-3, abs(losses[0]))
    limit = ROUGH_INVARIANCE_LIMIT if _is_rough(model) else INVARIANCE_LIMIT
    return SelfTest("loss ignores slicing", gap, limit, "The objective must be a plain weighted sum.")


def _sample(model: Decoder, stops: int | Collection[int], prompts: Sequence[tuple[int, ...]]) -> list[Completion]:
    requests, sampling = _requests(model, prompts)
    said = engine_for(model, stops).generate(requests, sampling)
    if any(completion.stop is Stop.STOP for completion in said):
        return said
    # An untrained model hardly ever stops: let a token it does say be the stop, whose log-probability matters most.
    spoken = said[0].tokens[len(said[0].tokens) // 2]
    return engine_for(model, spoken).generate(requests, sampling)


def _requests(model: Decoder, prompts: Sequence[tuple[int, ...]]) -> tuple[list[Request], Sampling]:
    requests = [Request(prompt, seed_of("self-test", index)) for index, prompt in enumerate(prompts)]
    room = model.config.max_position_embeddings - max(map(len, prompts))
    return requests, Sampling(temperature=TEMPERATURE, max_tokens=max(1, min(24, room)))


def _rollout_batch(prompts: Sequence[tuple[int, ...]], completions: Sequence[Completion]) -> Batch:
    texts = []
    for index, (prompt, said) in enumerate(zip(prompts, completions, strict=True)):
        own = np.r_[np.zeros(len(prompt)), np.ones(len(said.tokens))].astype(np.float32)
        behaviour = np.r_[np.zeros(len(prompt), np.float32), said.logps]
        values = {
            "behaviour": behaviour,
            "reference": behaviour,
            "advantage": own * (1.0 - 2.0 * (index % 2)),
        }
        texts.append(Text((*prompt, *said.tokens), own / (index + 1), values, said.routes))
    return pack(texts, max(len(text.tokens) for text in texts) * 2)
