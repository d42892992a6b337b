"""Self-tests of a policy: what samples, what learns and what is compared to are the model that is thought to be.

Each asks the real rooms (engine, packing, loss) about a few short rollouts and takes well under a second on a small
model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seekling.engine.config import Sampling
from seekling.engine.engine import Completion, Engine, Request
from seekling.engine.foreign import engine_for
from seekling.engine.sampler import seed_of
from seekling.learn.batch import Batch, Text, pack, text_of
from seekling.learn.config import Objective
from seekling.learn.reading import read
from seekling.learn.update import logps_said, rollout_loss
from seekling.model.decoder import Decoder, Hidden
from seekling.model.lora import LowRank, adapters
from seekling.records import Rollout, Stop
from seekling.selftests.answers import of_answers
from seekling.selftests.outcome import SelfTest

Prompts = Sequence[tuple[int, ...]]
Stops = int | Collection[int]

AGREEMENT_LIMIT, INVARIANCE_LIMIT, DELIVERY_LIMIT, ROUTES_LIMIT = 1e-4, 1e-5, 1e-3, 0.01
"""Of models held in float32: each at least forty times what sound ones show."""
ROUGH_AGREEMENT_LIMIT, ROUGH_INVARIANCE_LIMIT, ROUGH_DELIVERY_LIMIT, ROUGH_ROUTES_LIMIT = 0.1, 0.02, 0.2, 0.3
"""Of bases held in bfloat16, where single tokens scatter: agreement is then a root mean square.

Measured on random models of 2 to 24 layers (CPU): agreement 0.0001 to 0.08 nats, a quarter and more with most faults
planted; invariance below 1e-6, but kernels of accelerators may round by slice, and a loss divided per slice doubles;
adapters 0.01 to 0.1, where an engine with a copy of its own shows 1.
"""
MOVE = 0.3

SAMPLINGS: Mapping[str, tuple[Sampling, str]] = {
    "sampler and learner agree": (
        Sampling(),
        "Rollouts would be judged by a policy that did not say them; report this with your model's config.",
    ),
    "temperature is accounted for": (
        Sampling(temperature=0.8),
        "Sampler and learner must divide logits by one temperature.",
    ),
    "top-p and top-k are accounted for": (
        Sampling(top_p=0.9, top_k=12),
        "The learner must take log-probabilities over the tokens that the sampler chose among, and over no others.",
    ),
}
"""The ways of sampling under which both must give one log-probability, and what to do where they do not."""


def before_learning(
    engine: Engine, model: Decoder, reference: Any, prompts: Prompts, objective: Objective
) -> Iterator[SelfTest]:
    """All that is asked before a policy's first update, ``engine`` being who samples from ``model``."""
    stops = engine.stop_tokens
    yield from of_answers()
    yield from of_agreement(model, stops, prompts)
    yield of_routes(model, stops, prompts)
    yield of_delivery(engine, model, prompts)
    yield of_reference(model, reference, stops, prompts)
    yield of_invariance(model, stops, prompts, objective)
    yield of_stop(model, stops, prompts, objective)


def of_agreement(model: Decoder, stops: Stops, prompts: Prompts) -> list[SelfTest]:
    """Sampler and learner give one log-probability, routes replayed: largest difference in nats, way by way.

    Of a model held in bfloat16 it is the root mean square.
    """
    return [_agreement(model, stops, prompts, name, *way) for name, way in SAMPLINGS.items()]


def _agreement(model: Decoder, stops: Stops, prompts: Prompts, name: str, sampling: Sampling, advice: str) -> SelfTest:
    texts = [text_of(rollout) for rollout in _said(engine_for(model, stops), prompts, sampling)]
    learner = _learner_logps(model, texts, sampling.temperature)
    gap = _gap(learner, [text.values["behaviour"] for text in texts], texts)
    rough = _is_rough(model)
    figure, limit = (_size(gap), ROUGH_AGREEMENT_LIMIT) if rough else (_largest(gap), AGREEMENT_LIMIT)
    return SelfTest(name, figure, limit, advice)


def of_routes(model: Decoder, stops: Stops, prompts: Prompts) -> SelfTest:
    """The learner, left to itself, sends tokens where the sampler did: figure = share of choices that differ.

    Replay would hide it: a sampler with another router is another model.
    """
    rollouts = _said(engine_for(model, stops), prompts, Sampling())
    texts = [text_of(rollout) for rollout in rollouts]
    batch = _packed(texts).to(_device(model))
    with torch.no_grad(), _cast(model):
        own = [routing.chosen_NA for routing in model(batch.rows).routings]
    real_N = (batch.weight_BT > 0).flatten()
    pairs = list(zip(own, batch.routes, strict=False))
    differ = [(a.sort(-1).values != b.sort(-1).values)[real_N].float().mean() for a, b in pairs]
    figure = float(torch.stack(differ).mean()) if differ else 0.0
    limit = ROUGH_ROUTES_LIMIT if _is_rough(model) else ROUTES_LIMIT
    advice = "A sampler with another router is another model; report this with your model's config."
    return SelfTest("sampler and learner choose the same experts", figure, limit, advice)


def of_reference(model: Decoder, reference: Any, stops: Stops, prompts: Prompts) -> SelfTest:
    """Before the first step the policy is its reference: largest difference in nats, each choosing its own experts."""
    texts = [text_of(rollout) for rollout in _said(engine_for(model, stops), prompts, Sampling())]
    ours, theirs = (_learner_logps(one, texts, replay=False) for one in (model, reference))
    gap = _gap(ours, theirs, texts)
    advice = "The KL would pull towards another model; reference and policy must begin with the same weights."
    figure, limit = (_size(gap), ROUGH_AGREEMENT_LIMIT) if _is_rough(model) else (_largest(gap), AGREEMENT_LIMIT)
    return SelfTest("policy begins as its reference", figure, limit, advice)


def of_width(vocabulary: Mapping[str, int], width: int) -> SelfTest:
    """A model of ``width`` ids can say every token of its vocabulary (token -> id): figure = those it cannot."""
    beyond = sum(place >= width for place in vocabulary.values())
    advice = "The tokenizer is another model's, or the model's vocabulary was cut: load the two that belong together."
    return SelfTest("every token can be said", float(beyond), 0.0, advice)


def of_vocabulary(student: Mapping[str, int], teacher: Mapping[str, int]) -> SelfTest:
    """Who learns and who speaks mean the same by every id (token -> id): figure = the teacher's tokens that differ."""
    differ = sum(student.get(token) != place for token, place in teacher.items())
    advice = "Ids of one would be read as other words by the other: use models of one tokenizer, or distil by text."
    return SelfTest("vocabularies are one", float(differ), 0.0, advice)


def of_wording(
    student: Prompts, teacher: Prompts, student_stops: Collection[int], teacher_stops: Collection[int]
) -> SelfTest:
    """Who learns is asked in the words in which who speaks was, and ends where it ends: figure = what differs.

    That is the prompts that differ, and stops of the teacher that are none of the student's.
    """
    differ = sum(ours != theirs for ours, theirs in zip(student, teacher, strict=True))
    differ += len(set(teacher_stops) - set(student_stops))
    advice = "The two have other chat templates or stops: give both one, or distil by text (a data stage and sft)."
    return SelfTest("teacher and student are asked alike", float(differ), 0.0, advice)


def of_delivery(engine: Engine, model: Decoder, prompts: Prompts) -> SelfTest:
    """The engine samples from the very weights that are trained: figure = share of a move's effect that it misses.

    What is trained is moved and put back to the bit. Between, the engine samples, and the learner reads what was said
    with the move and without: effect = what the move changed in log-probability, missed = what the sampler's differ
    from the learner's by (root mean squares). Where the move changes nothing, the figure is infinite.
    """
    pairs, endless = adapters(model), copy(engine)
    endless.stop_tokens = ()  # an answer that stops at once would tell nothing of decoding
    move = _moved_adapters(model, pairs) if pairs else _doubled(model)
    try:
        move(True)
        endless.refresh()
        sampling = Sampling(max_tokens=_room(model, prompts))
        texts = [text_of(rollout) for rollout in _generated(endless, prompts, sampling)]
        moved = _learner_logps(model, texts)
    finally:
        move(False)
        endless.refresh()
    effect = _size(_gap(moved, _learner_logps(model, texts), texts))
    missed = _size(_gap(moved, [text.values["behaviour"] for text in texts], texts))
    name = "engine samples from the adapters that are trained" if pairs else "engine samples from what is trained"
    advice = "What is trained would not be what speaks; report this with your model's config and the stage's adapter."
    limit = ROUGH_DELIVERY_LIMIT if _is_rough(engine.model) else DELIVERY_LIMIT
    return SelfTest(name, missed / effect if effect else float("inf"), limit, advice)


def _doubled(model: Decoder) -> Callable[[bool], None]:
    """Every trained weight times two, and halved again, which floating point does exactly; zeros become 1/64."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    empty = [not bool(weight.any()) for weight in weights]

    @torch.no_grad()
    def move(there: bool) -> None:
        for weight, is_zero in zip(weights, empty, strict=True):
            _ = weight.fill_(2**-6 * there) if is_zero else weight.mul_(2.0 if there else 0.5)

    return move


def _moved_adapters(model: Decoder, pairs: Mapping[str, LowRank]) -> Callable[[bool], None]:
    """Noise on every ``B`` such that scale B A is ``MOVE`` of the matrix beside it, root mean squares compared."""
    kept = {name: pair.B.detach().clone() for name, pair in pairs.items()}
    matrices = dict(model.named_parameters())

    @torch.no_grad()
    def move(there: bool) -> None:
        for name, pair in pairs.items():
            pair.B.copy_(kept[name])
            if there:
                generator = torch.Generator().manual_seed(seed_of("self-test", name))
                noise = torch.randn(pair.B.shape, generator=generator).to(pair.B)
                grown = pair.scale * pair.A.shape[-2] ** 0.5 * _rms(pair.A)
                pair.B.add_(noise * (MOVE * _rms(matrices[name]) / max(grown, 1e-12)))

    return move


def of_invariance(model: Decoder, stops: Stops, prompts: Prompts, objective: Objective) -> SelfTest:
    """The loss does not depend on slicing: figure = largest relative change between one pass and many."""
    batch = _lessons(model, stops, prompts).to(_device(model))
    with torch.no_grad():
        losses = [
            sum(float(rollout_loss(model, p, objective=objective, temperature=1.0).value) for p in batch.passes(count))
            for count in (1, len(batch.targets_BT))
        ]
    gap = abs(losses[0] - losses[1]) / max(1e-3, abs(losses[0]))
    limit = ROUGH_INVARIANCE_LIMIT if _is_rough(model) else INVARIANCE_LIMIT
    return SelfTest("loss ignores slicing", gap, limit, "The objective must be a plain weighted sum.")


def of_stop(model: Decoder, stops: Stops, prompts: Prompts, objective: Objective) -> SelfTest:
    """Where an answer stops, the loss pulls: figure = share of stop tokens, and of others, without a gradient.

    A model whose stop is masked, or is also its padding, never learns to end.
    """
    batch = _lessons(model, stops, prompts).to(_device(model))
    pull_BT = _pull(model, batch, objective)
    said_BT = batch.values["said"] > 0
    untouched = float(((pull_BT == 0) & said_BT).sum() / said_BT.sum())
    advice = "Every token that was said must be learned from, the stop above all: look at masks, padding and weights."
    return SelfTest("stop tokens carry a gradient", untouched, 0.0, advice)


def _pull(model: Decoder, batch: Batch, objective: Objective) -> Tensor:
    """How strongly the loss pulls at the state from which each target is predicted: [B, T]."""
    states: list[Tensor] = []

    def cut(_: Any, __: Any, hidden: Hidden) -> Hidden:
        states.append(hidden.states_BTD.detach().requires_grad_())
        return Hidden(states[0], hidden.routings)

    handle = model.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            loss = rollout_loss(model, batch, objective=objective, temperature=1.0).value
            return torch.autograd.grad(loss, states[0])[0].abs().sum(-1)
    finally:
        handle.remove()


def _lessons(model: Decoder, stops: Stops, prompts: Prompts) -> Batch:
    """Rollouts with advantages of either sign, as an update would see them; ``said`` remembers what was."""
    texts = []
    for index, rollout in enumerate(_said(engine_for(model, stops), prompts, Sampling())):
        text = text_of(rollout)
        said = np.r_[np.zeros(len(rollout.prompt)), np.ones(len(rollout.tokens))].astype(np.float32)
        values = {**text.values, "advantage": said * np.float32(1 - 2 * (index % 2)), "said": said}
        texts.append(replace(text, weight=text.weight / np.float32(index + 1), values=values))
    return _packed(texts)


def _packed(texts: Sequence[Text]) -> Batch:
    return pack(texts, 2 * max(len(text.tokens) for text in texts))


def _said(engine: Engine, prompts: Prompts, sampling: Sampling) -> list[Rollout]:
    """A few answers, at least one of which stops."""
    sampling = sampling.model_copy(update={"max_tokens": _room(engine.model, prompts)})
    said = _generated(engine, prompts, sampling)
    if any(rollout.stop is Stop.STOP for rollout in said):
        return said
    # An untrained model hardly ever stops: let a token it does say be the stop, whose log-probability matters most.
    spoken = said[0].tokens[len(said[0].tokens) // 2]
    return _generated(engine_for(engine.model, spoken), prompts, sampling)


def _generated(engine: Engine, prompts: Prompts, sampling: Sampling) -> list[Rollout]:
    requests = [Request(prompt, seed_of("self-test", index), tell_kept=True) for index, prompt in enumerate(prompts)]
    said: list[Completion] = engine.generate(requests, sampling)
    return [
        Rollout(request.prompt, one.tokens, one.logps, "", one.stop, request.seed, one.routes, one.kept)
        for request, one in zip(requests, said, strict=True)
    ]


def _room(model: Decoder, prompts: Prompts) -> int:
    """How long an answer may be: 24 tokens, or what the context leaves."""
    return max(1, min(24, model.config.max_position_embeddings - max(map(len, prompts))))


def _learner_logps(
    model: Decoder, texts: Sequence[Text], temperature: float = 1.0, *, replay: bool = True
) -> list[Any]:
    """Log-probabilities of what was said as a step would compute them: a bfloat16 base under autocast."""
    row_tokens, dtype = 2 * max(len(text.tokens) for text in texts), model.embed_tokens.weight.dtype
    of = partial(logps_said, temperature=temperature, replay=replay)
    return read(model, texts, of, row_tokens=row_tokens, dtype=dtype if _is_rough(model) else torch.float32)


def _gap(ours: Sequence[Any], theirs: Sequence[Any], texts: Sequence[Text]) -> Any:
    """Differences over all that was said, whatever the loss makes of it."""
    said = [len(text.tokens) - int((text.weight > 0).argmax()) for text in texts]
    return np.concatenate([(a - b)[-count:] for a, b, count in zip(ours, theirs, said, strict=True)])


def _size(values: Any) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _largest(values: Any) -> float:
    return float(np.abs(values).max())


def _rms(tensor: Tensor) -> float:
    return float(tensor.float().square().mean().sqrt())


def _device(model: Decoder) -> torch.device:
    return model.embed_tokens.weight.device


def _is_rough(model: Decoder) -> bool:
    """Whether the model's weights are held in bfloat16."""
    return model.embed_tokens.weight.dtype == torch.bfloat16


def _cast(model: Decoder) -> torch.autocast:
    return torch.autocast(_device(model).type, torch.bfloat16, enabled=_is_rough(model))
