"""The loop of every stage that learns from pairs: preference learning and reward models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from seekling.learn.batch import Batch, Text, pack
from seekling.learn.optim import Optimizers
from seekling.learn.update import Loss, step
from seekling.model.decoder import Decoder
from seekling.recipes.checkpoint import restore
from seekling.recipes.config import Preferences
from seekling.recipes.pairs import Couple, Couples
from seekling.recipes.stage import Clock, Stage
from seekling.selftests.outcome import SelfTest, require
from seekling.selftests.policies import INVARIANCE_LIMIT, ROUGH_INVARIANCE_LIMIT

Lesson = Callable[[Sequence[Couple]], list[Text]]
"""From couples to the texts of an update, side by side, the weight of each pair in them."""
PairLoss = Callable[[Decoder, Batch], Loss]
"""The loss of any slice of rows; its ``sums`` are those of ``counted``, and what is weighed, like the loss itself."""
WEIGHED = ("loss", "nll_loss", "grad_norm")


def learn_pairs(
    stage: Stage,
    config: Preferences,
    model: Decoder,
    found: Couples,
    lesson: Lesson,
    loss: PairLoss,
    flops: Callable[[float], float],
    watched: dict[str, str],
) -> dict[str, float]:
    """Run the stage's steps from where they stand. Returns the last step's figures and those on held-out pairs.

    ``flops`` are a token's, by the mean context it sees. ``watched`` says which sums are told of held-out pairs, and
    by what names; they are measured before a step's update, so that the first are those of the model that came in.
    """
    optimizers = Optimizers(model, config.optim, config.steps, stage.lanes)
    held_out = lesson(found.held_out) if found.held_out else []
    if not held_out and config.held_out:
        stage.warn("no pair is held out: whether others would be told apart is not measured")
    start = restore(stage.checkpoints, model, optimizers, stage.warn)

    clock = Clock()

    def measured(index: int) -> dict[str, float]:
        if not held_out:
            return {}
        totals = means(compared(stage, config, model, held_out, loss))
        stage.charge(index, "eval", *_work(held_out, flops, share=1 / 3), clock.lap())
        return {told: totals[name] for name, told in watched.items()}

    for index in range(start, config.steps):
        before = measured(index) if config.held_out_every and index % config.held_out_every == 0 else {}
        texts = lesson(found.train(index))
        batch = pack(texts, config.packing.row_tokens, together=2).to(stage.device)
        figures = means(step(
            model, optimizers, batch, loss,
            step_index=index, passes=config.packing.passes, lanes=stage.lanes, dtype=stage.dtype,
        ))  # fmt: skip
        seconds, work = clock.lap(), _work(texts, flops)
        stage.charge(index, "train", *work, seconds)
        stage.log(index, config.steps, *work, seconds, figures | before | {"tokens_per_s": work[0] / seconds})
        stage.save(index + 1, config.steps, config.checkpoint_every, model, optimizers)
        clock.lap()
    return stage.last_figures(1) | measured(config.steps)


def weighed(texts: Sequence[Text]) -> list[Text]:
    """Texts of pairs that weigh alike, fixed before a step is sliced: what is learned of a text weighs 1/pairs."""
    shares = [2 / (len(texts) * float((text.weight > 0).sum())) for text in texts]
    return [replace(t, weight=(t.weight > 0) * np.float32(share)) for t, share in zip(texts, shares, strict=True)]


def counted(each: Mapping[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
    """Sums over the pairs of a slice, and how many they are: where the weight is 0 there is none."""
    is_pair = weight > 0
    return {"pairs": is_pair.sum()} | {name: (value * is_pair).sum() for name, value in each.items()}


def means(totals: Mapping[str, float]) -> dict[str, float]:
    """A step's figures from its sums: means over its pairs, unless they are weighed already."""
    told = {name: value for name, value in totals.items() if name != "pairs"}
    return {name: value if name in WEIGHED else value / totals["pairs"] for name, value in told.items()}


def compared(
    stage: Stage, config: Preferences, model: Decoder, texts: Sequence[Text], loss: PairLoss, passes: int = 0
) -> dict[str, float]:
    """The sums that a step on ``texts`` would tell, without the step; in so many passes, or of eight rows each."""
    batch = pack(texts, config.packing.row_tokens, together=2).to(stage.device)

    def told(part: Batch) -> dict[str, float]:
        kind, is_cast = stage.device.type, stage.dtype != torch.float32
        with torch.no_grad(), torch.autocast(kind, stage.dtype, enabled=is_cast):
            return {name: float(value) for name, value in loss(model, part).sums.items()}

    parts = stage.lanes.map(told, batch.passes(passes or -(-len(batch.targets_BT) // 8)))
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def hold(
    stage: Stage, config: Preferences, model: Decoder, texts: Sequence[Text], loss: PairLoss, *more: SelfTest
) -> None:
    """The start-up self-tests of a stage of pairs, ``more`` among them. Raises SelfTestFailed."""
    stage.folder.write(selftests=require(*more, of_slicing(stage, config, model, texts, loss)))


def of_slicing(stage: Stage, config: Preferences, model: Decoder, texts: Sequence[Text], loss: PairLoss) -> SelfTest:
    """No slice parts a pair: figure = relative change of the loss from one pass to one for each row."""
    whole, sliced = (compared(stage, config, model, texts, loss, count)["loss"] for count in (1, len(texts)))
    gap = abs(whole - sliced) / max(1e-3, abs(whole))
    limit = INVARIANCE_LIMIT if stage.dtype == torch.float32 else ROUGH_INVARIANCE_LIMIT
    return SelfTest("loss ignores slicing", gap, limit, "A pair's two texts must be read in one pass.")


def _work(texts: Sequence[Text], flops: Callable[[float], float], share: float = 1.0) -> tuple[int, float]:
    """Tokens, and FLOPs: all of a step's, or the ``share`` of them that its forward pass is."""
    lengths = np.array([len(text.tokens) for text in texts])
    context = float((lengths * (lengths - 1) / 2).sum() / lengths.sum())
    return int(lengths.sum()), float(lengths.sum()) * flops(context) * share
