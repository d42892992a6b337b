"""Preference learning without a reward model (DPO and its kin): what was chosen becomes likelier than what was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from seekling.engine.foreign import engine_for
from seekling.learn.ahead import look_ahead, weight_of
from seekling.learn.batch import Batch, Text
from seekling.learn.logps import cross_entropy
from seekling.learn.preference import PREFERENCES, averaged, in_pairs, preferred
from seekling.learn.reading import logps, read
from seekling.learn.update import Loss
from seekling.model.count import flops_per_token
from seekling.model.decoder import Decoder
from seekling.model.lora import adapters, reference_of
from seekling.recipes.config import Dpo
from seekling.recipes.pairs import Couple, couples
from seekling.recipes.policy import Policy, held_in, prepare
from seekling.recipes.preferring import Way, counted, exactly, learn_pairs, proved, watched_in, weighed
from seekling.recipes.stage import Stage
from seekling.selftests.outcome import SelfTest
from seekling.selftests.policies import AGREEMENT_LIMIT, ROUGH_AGREEMENT_LIMIT, of_delivery

WATCHED = {
    "loss": "held_out_loss", "rewards/accuracies": "held_out_accuracy", "rewards/margins": "held_out_margin",
}  # fmt: skip
"""What is told of held-out pairs."""


def dpo(stage: Stage, config: Dpo) -> dict[str, float]:
    """Teach the input stage's model which replies are preferred. Returns the last step's figures."""
    policy = Policy.load(stage.inputs[0].model, stage.device, stage.lanes, held_in(config))
    model = policy.model
    prepare(model, config, stage.seed)
    reference = reference_of(model)

    def lesson(found: Sequence[Couple]) -> list[Text]:
        return referred(proved(found), reference, stage, config)

    def flops(context: float, training: bool) -> float:
        read_once = flops_per_token(model.config, context, training=False)
        trained = flops_per_token(model.config, context, training=True, mtp=bool(weight_of(model, config.mtp_weight)))
        return trained + read_once if training else read_once  # the reference's look is part of a step

    way = Way(lesson, partial(dpo_pass, config=config), flops, watched_in(config, WATCHED))
    with couples(stage, config, policy.tokenizer, model.config.max_position_embeddings) as found:
        first = lesson(found.train(0))
        with stage.self_testing():
            tests = of_policy(policy, first, stage, config)
        figures = learn_pairs(stage, config, model, found, way, *tests)
    stage.export(model, policy.tokenizer)
    return figures


def referred(texts: Sequence[Text], reference: Decoder, stage: Stage, config: Dpo) -> list[Text]:
    """Texts with the reference's log-probabilities; the weights of each sum to its pair's."""
    told = read(
        reference, texts, logps, row_tokens=config.packing.row_tokens, passes=config.packing.passes,
        lanes=stage.lanes, dtype=stage.dtype,
    )  # fmt: skip
    num_chosen = sum(float((text.weight > 0).sum()) for text in texts[::2])
    share = [1 / num_chosen, 0.0] * (len(texts) // 2)  # of every chosen token in the chosen replies' own loss
    return [
        replace(text, values={**text.values, "reference": own, "chosen": (text.weight > 0) * np.float32(s)})
        for text, own, s in zip(weighed(texts), told, share, strict=True)
    ]


def dpo_pass(model: Decoder, batch: Batch, *, config: Dpo) -> Loss:
    """The loss of a slice, and sums over its pairs of what TRL's users know by these names.

    A reward is beta log pi/ref of a whole reply.
    """
    states_BTD, said_BT = model(batch.rows, batch.routes or None).states_BTD, batch.weight_BT > 0
    logp_BT = -cross_entropy(model, states_BTD, batch.targets_BT, said_BT)
    apart_BT = (logp_BT - batch.values["reference"]) * said_BT
    summed, said, weight = (in_pairs(x, batch.rows.segments_BT) for x in (apart_BT, said_BT.float(), batch.weight_BT))
    judged = averaged(summed, said) if config.average else summed
    pairs = PREFERENCES[config.loss](*judged, config.beta, config.label_smoothing)
    value = (pairs * weight[0]).sum()
    with torch.no_grad():
        logp = in_pairs(logp_BT, batch.rows.segments_BT)
        rewards = config.beta * summed[0], config.beta * summed[1]
        each = {
            "rewards/chosen": rewards[0], "rewards/rejected": rewards[1], "rewards/margins": rewards[0] - rewards[1],
            "rewards/accuracies": preferred(*rewards), "logps/chosen": logp[0], "logps/rejected": logp[1],
        }  # fmt: skip
        each |= exactly(batch, each["rewards/accuracies"])
        sums = counted(each, weight[0])
    if config.nll:
        # Every chosen token alike, over the whole step (Llama 3, arXiv 2407.21783, section 4.1.4).
        nll = -(logp_BT * batch.values["chosen"]).sum()
        value, sums = value + config.nll * nll, sums | {"nll_loss": nll.detach()}
    sums = {"loss": value.detach(), **sums}
    if mtp_weight := weight_of(model, config.mtp_weight):
        chosen = replace(batch, weight_BT=batch.values["chosen"])
        ahead = look_ahead(model, chosen, states_BTD, apart=True)
        value, sums = value + mtp_weight * ahead.loss, sums | ahead.sums
    return Loss(value, sums)


def of_policy(policy: Policy, texts: Sequence[Text], stage: Stage, config: Dpo) -> list[SelfTest]:
    """What must hold before the first step: the policy is its reference, and adapters reach what speaks."""
    tests = [of_start(policy.model, texts, stage, config)]
    if adapters(policy.model):
        engine = engine_for(policy.model, policy.tokenizer.stops)
        tests.append(of_delivery(engine, policy.model, prompts_of(texts, policy.model)))
    return tests


def prompts_of(texts: Sequence[Text], model: Decoder) -> list[tuple[int, ...]]:
    """A few prompts, as far as a self-test's answers leave room for."""
    room = model.config.max_position_embeddings // 2
    return [tuple(t.tokens[: int((t.weight > 0).argmax())])[:room] for t in texts[:16:2]]


def of_start(model: Decoder, texts: Sequence[Text], stage: Stage, config: Dpo) -> SelfTest:
    """Before the first step the policy is its reference: largest difference in nats of a token that is learned."""
    told = read(model, texts, logps, row_tokens=config.packing.row_tokens, dtype=stage.dtype)
    apart = max(float(np.abs(own - text.values["reference"]).max()) for own, text in zip(told, texts, strict=True))
    is_rough = stage.dtype == torch.bfloat16 or config.adapter.base == "bfloat16"
    limit = ROUGH_AGREEMENT_LIMIT if is_rough else AGREEMENT_LIMIT
    advice = "Preferences would be measured from another model; reference and policy must begin with the same weights."
    return SelfTest("policy begins as its reference", apart, limit, advice)
