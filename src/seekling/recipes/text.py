"""The loop of every stage that learns from text: pretraining and supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from seekling.engine.engine import Engine
from seekling.engine.sampler import seed_of
from seekling.learn.ahead import LAYER, of_layer, weight_of
from seekling.learn.batch import Text, pack, spread
from seekling.learn.config import Gaps
from seekling.learn.optim import Optimizers
from seekling.learn.update import move_biases, step, text_loss
from seekling.model.count import flops_per_token
from seekling.model.decoder import Decoder
from seekling.recipes.config import Pretrain, Sft
from seekling.recipes.policy import prepare
from seekling.recipes.stage import Clock, Stage
from seekling.selftests.outcome import require
from seekling.selftests.policies import of_delivery
from seekling.text.tokenizer import Tokenizer

Texts = Callable[[int], Sequence[Text]]
"""From a step to its texts: a pure function, so that a resumed stage reads what it would have read."""


def learn_text(
    stage: Stage, config: Pretrain | Sft, model: Decoder, tokenizer: Tokenizer, texts: Texts
) -> dict[str, float]:
    """Run the stage's steps from where they stand; leave the model in the stage's folder. Returns the last figures."""
    prepare(model, config, stage.seed)
    if config.adapter.rank:
        with stage.self_testing():
            _self_test(stage, model, tokenizer, texts(0))
    jointly = isinstance(config, Pretrain)
    optimizers = Optimizers(model, config.optim, config.steps, stage.lanes, apart=() if jointly else (LAYER,))
    start = stage.restore(config, model, optimizers)
    mtp = config.mtp_weight if jointly and model.mtp is not None else weight_of(model, config.mtp_weight)
    balance, speed = (config.balance_weight, config.bias_speed) if isinstance(config, Pretrain) else (0.0, 0.0)
    gaps = config.gaps if isinstance(config, Pretrain) else Gaps()
    clock = Clock()
    for index in stage.steps(start, config, optimizers):
        batch = pack(texts(index), config.packing.row_tokens)
        context = float(batch.rows.positions_BT.float().mean())
        batch = spread(batch, gaps, model.config.max_position_embeddings, seed_of(stage.seed, index, "gaps"))
        batch.weight_BT.div_(batch.weight_BT.sum())
        batch = batch.to(stage.device)
        loss = partial(
            text_loss, mtp_weight=mtp, mtp_apart=not jointly, balance_weight=balance, num_rows=len(batch.targets_BT)
        )
        totals = step(
            model, optimizers, batch, loss,
            step_index=index, passes=config.packing.passes, lanes=stage.lanes, dtype=stage.dtype,
        )  # fmt: skip
        if speed and not totals["skipped"]:
            move_biases(model, totals, speed)
        figures = {name: value for name, value in totals.items() if not name.startswith(("load/", "mtp_"))}
        figures |= of_layer(totals)
        seconds, tokens = clock.lap(), batch.num_tokens
        flops = tokens * flops_per_token(model.config, context, training=True, mtp=bool(mtp))
        stage.charge(index, "train", tokens, flops, seconds)
        shown = figures | {"tokens_per_s": tokens / seconds}
        stage.log(index, config.steps, tokens, flops, seconds, shown | {"expert_load": expert_shares(totals)})
        stage.save(index + 1, config, model, optimizers)
        clock.lap()
    stage.export(model, tokenizer)
    return stage.last_figures(1)


def _self_test(stage: Stage, model: Decoder, tokenizer: Tokenizer, texts: Sequence[Text]) -> None:
    """The stage must train what an engine samples from. Its outcome stands beside those the stage has already."""
    length = min(16, model.config.max_position_embeddings // 2)
    prompts = [tuple(text.tokens[:length]) for text in texts[:8]]
    outcomes = require(of_delivery(Engine(model, tokenizer.stops), model, prompts))
    names = {outcome["name"] for outcome in outcomes}
    before = [known for known in stage.folder.facts().get("selftests", []) if known["name"] not in names]
    stage.folder.write(selftests=[*before, *outcomes])


def fill(texts: Iterator[Text], tokens_per_step: int) -> list[Text]:
    """Take texts until their tokens reach a step's worth."""
    taken: list[Text] = []
    count = 0
    while count < tokens_per_step:
        taken.append(next(texts))
        count += len(taken[-1].tokens)
    return taken


def learned(ids: Sequence[int], mask: Sequence[bool | int]) -> Text:
    """A text learned where ``mask`` is true."""
    return Text(ids, np.asarray(mask, dtype=np.float32))


def expert_shares(totals: dict[str, float]) -> dict[str, list[float]]:
    """Each routed layer's share of tokens per expert, from a step's summed loads."""
    loads: dict[str, list[float]] = {}
    for name, value in totals.items():
        if name.startswith("load/"):
            loads.setdefault(name.split("/")[1], []).append(value)
    return {layer: [round(value / max(1.0, sum(values)), 5) for value in values] for layer, values in loads.items()}
