"""Start-up self-tests: each has a name and a figure, takes well under a second, and refuses to train when it fails.

Where peers train wrongly without a word, these speak: the sampler and the learner disagree, the loss depends on how
the batch is sliced, the answer key is judged wrong, held-out problems leak into training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import torch

from seekling.engine.config import Sampling
from seekling.engine.engine import Completion, Engine, Request
from seekling.engine.sampler import seed_of
from seekling.errors import SelfTestFailed
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.config import Objective
from seekling.learn.update import rollout_loss, token_logps
from seekling.model.decoder import Decoder
from seekling.records import Problem, Stop, Verdict
from seekling.tasks.corpus import Mixture, documents, training_problem
from seekling.tasks.protocol import Task, problems, split_of

AGREEMENT_LIMIT = 1e-4
INVARIANCE_LIMIT = 1e-5
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


def of_task(task: Task, count: int = 64) -> SelfTest:
    """The task's own answer key must pass its own check: figure = share of keys that do not."""
    rng = Random(f"{task.name}/self-check")
    drawn = [task.draw(rng) for _ in range(count)]
    wrong = [problem for problem in drawn if _judged(task, problem) is not Verdict.PASS]
    first = f" Its answer {wrong[0].answer!r} to {wrong[0].prompt!r} does not pass." if wrong else ""
    advice = f"Mend the task's check or its answer key.{first}"
    return SelfTest("answer key passes", len(wrong) / count, 0.0, advice)


def _judged(task: Task, problem: Problem) -> Verdict:
    """Raises SelfTestFailed with the check's own words when it raises."""
    try:
        return task.check(problem, problem.answer)
    except Exception as error:  # a stranger's check: its own words are what its author needs
        raise SelfTestFailed(
            f'the check of task "{task.name}" raises on its own answer key: {type(error).__name__}: {error}',
            where=f"problem {problem.prompt!r}, answer {problem.answer!r}",
            next_step="Mend the task's check: it must return a verdict for every text.",
        ) from None


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


def of_agreement(model: Decoder, stop_token: int, prompts: Sequence[tuple[int, ...]]) -> SelfTest:
    """Sampler and learner give one log-probability: figure = largest difference in nats, routes replayed."""
    completions = _sample(model, stop_token, prompts)
    batch = _rollout_batch(prompts, completions).to(model.embed_tokens.weight.device)
    with torch.no_grad():
        hidden = model(batch.rows, batch.routes or None)
        logp_BT, _ = token_logps(model, hidden, batch.targets_BT, TEMPERATURE)
    gap_BT = (logp_BT - batch.values["behaviour"]).abs() * (batch.weight_BT > 0)
    advice = "Rollouts would be judged by a policy that did not say them; report this with your model's config."
    return SelfTest("sampler and learner agree", float(gap_BT.max()), AGREEMENT_LIMIT, advice)


def of_invariance(
    model: Decoder, stop_token: int, prompts: Sequence[tuple[int, ...]], objective: Objective
) -> SelfTest:
    """The loss does not depend on slicing: figure = largest relative change between one pass and many."""
    batch = _rollout_batch(prompts, _sample(model, stop_token, prompts)).to(model.embed_tokens.weight.device)
    with torch.no_grad():
        losses = [
            sum(
                float(rollout_loss(model, part, objective=objective, temperature=TEMPERATURE).value)
                for part in batch.passes(count)
            )
            for count in (1, len(batch.targets_BT))
        ]
    gap = abs(losses[0] - losses[1]) / max(1e-3, abs(losses[0]))
    return SelfTest("loss ignores slicing", gap, INVARIANCE_LIMIT, "The objective must be a plain weighted sum.")


def _sample(model: Decoder, stop_token: int, prompts: Sequence[tuple[int, ...]]) -> list[Completion]:
    requests = [Request(prompt, seed_of("self-test", index)) for index, prompt in enumerate(prompts)]
    room = model.config.max_position_embeddings - max(map(len, prompts))
    sampling = Sampling(temperature=TEMPERATURE, max_tokens=max(1, min(24, room)))
    said = Engine(model, stop_token).generate(requests, sampling)
    if any(completion.stop is Stop.STOP for completion in said):
        return said
    # An untrained model hardly ever stops: let a token it does say be the stop, whose log-probability matters most.
    spoken = said[0].tokens[len(said[0].tokens) // 2]
    return Engine(model, spoken).generate(requests, sampling)


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
