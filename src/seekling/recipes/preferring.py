"""The loop of every stage that learns from pairs: preference learning and reward models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.learn.ahead import LAYER, of_layer
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.optim import Optimizers
from seekling.learn.preference import in_pairs
from seekling.learn.update import Loss, step
from seekling.model.decoder import Decoder
from seekling.recipes.config import Preferences
from seekling.recipes.pairs import Couple, Couples, together
from seekling.recipes.stage import Clock, Stage
from seekling.selftests.outcome import SelfTest, require
from seekling.selftests.policies import INVARIANCE_LIMIT, ROUGH_INVARIANCE_LIMIT

Lesson = Callable[[Sequence[Couple]], list[Text]]
"""From couples to the texts of an update, side by side, the weight of each pair in them."""
PairLoss = Callable[[Decoder, Batch], Loss]
"""The loss of any slice of rows; its ``sums`` are those of ``counted``, and what is weighed, like the loss itself."""
Flops = Callable[[float, bool], float]
"""FLOPs of a token by the mean context it sees: of a step, or of a look without one."""
WEIGHED = ("loss", "nll_loss", "grad_norm", "skipped")
EXACT = "exact_accuracy"
"""Share of pairs told apart as the task's own rule would, whatever their labels say."""
BEFORE = "before"
"""The fact that keeps the figures of the model that came in."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a stage learns from pairs. ``watched``: which figures are told of held-out pairs too, and by what names."""

    lesson: Lesson
    loss: PairLoss
    flops: Flops
    watched: Mapping[str, str]


def learn_pairs(
    stage: Stage, config: Preferences, model: Decoder, found: Couples, way: Way, *tests: SelfTest
) -> dict[str, float]:
    """Run the stage's steps from where they stand, once ``tests`` and its own hold.

    Returns the last step's figures, and on held-out pairs those of the model that is left and of the one that came in.
    """
    first, held_out = way.lesson(found.train(0)), way.lesson(found.held_out) if found.held_out else []
    if not held_out and config.held_out:
        stage.warn("no pair is held out: whether others would be told apart is not measured")
    with stage.self_testing():
        stage.folder.write(selftests=require(*tests, of_slicing(stage, config, model, first, way.loss)))
    optimizers = Optimizers(model, config.optim, config.steps, stage.lanes, apart=(LAYER,))
    clock = Clock()

    def measured(steps_done: int) -> dict[str, float]:
        if not held_out:
            return {}
        figures = means(compared(stage, config, model, held_out, way.loss))
        stage.charge(steps_done, "eval", *_work(held_out, way.flops, training=False), clock.lap())
        return {told: figures[name] for name, told in way.watched.items()}

    if BEFORE not in stage.folder.facts():
        stage.folder.write(**{BEFORE: measured(0)})
    for index in stage.steps(stage.restore(config, model, optimizers), config, optimizers):
        texts = way.lesson(found.train(index))
        batch = pack(texts, config.packing.row_tokens, together=2).to(stage.device)
        figures = means(step(
            model, optimizers, batch, way.loss,
            step_index=index, passes=config.packing.passes, lanes=stage.lanes, dtype=stage.dtype,
        ))  # fmt: skip
        seconds, work = clock.lap(), _work(texts, way.flops, training=True)
        stage.charge(index, "train", *work, seconds)
        is_due = config.held_out_every > 0 and (index + 1) % config.held_out_every == 0
        figures |= (measured(index + 1) if is_due else {}) | {"tokens_per_s": work[0] / seconds}
        stage.log(index, config.steps, *work, seconds, figures)
        stage.save(index + 1, config, model, optimizers)
        clock.lap()
    last = stage.last_figures(1)
    if config.export == "best" or not last.keys() >= set(way.watched.values()):  # else the last step told them
        last |= measured(config.steps)
    return last | {f"{name}_before": value for name, value in stage.folder.facts()[BEFORE].items()}


def weighed(texts: Sequence[Text]) -> list[Text]:
    """Texts of pairs that weigh alike, fixed before a step is sliced: what is learned of a text weighs 1/pairs."""
    shares = [2 / (len(texts) * float((text.weight > 0).sum())) for text in texts]
    return [replace(t, weight=(t.weight > 0) * np.float32(share)) for t, share in zip(texts, shares, strict=True)]


def watched_in(config: Preferences, told: Mapping[str, str]) -> dict[str, str]:
    """What is told of held-out pairs: where an exact rule labelled them, also how often that is met."""
    return dict(told) | ({EXACT: f"held_out_{EXACT}"} if config.compare == "sampled" else {})


def proved(found: Sequence[Couple]) -> list[Text]:
    """The texts of couples, side by side; where an exact rule is known chosen ones tell whether it agrees (1, -1)."""
    if not any(couple.apart for couple in found):
        return together(found)
    signs = [sign for couple in found for sign in (float(np.sign(couple.apart)), 0.0)]
    return [replace(t, values={"truth": at_end(t, sign)}) for t, sign in zip(together(found), signs, strict=True)]


def at_end(text: Text, value: float) -> NDArray[np.float32]:
    """``value`` at a text's last token, 0 elsewhere: [T]."""
    told = np.zeros(len(text.tokens), np.float32)
    told[-1] = value
    return told


def exactly(batch: Batch, right: Tensor) -> dict[str, Tensor]:
    """From which pairs were told apart as labelled to which were as the exact rule would; of no rule nothing."""
    if "truth" not in batch.values:
        return {}
    truth, _ = in_pairs(batch.values["truth"], batch.rows.segments_BT)
    return {EXACT: (1 + truth * (2 * right - 1)) / 2}


def counted(each: Mapping[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
    """Sums over the pairs of a slice, and how many they are: where the weight is 0 there is none."""
    is_pair = weight > 0
    return {"pairs": is_pair.sum()} | {name: (value * is_pair).sum() for name, value in each.items()}


def means(totals: Mapping[str, float]) -> dict[str, float]:
    """A step's figures from its sums: means over its pairs, unless they are weighed already."""
    told = {name: value for name, value in totals.items() if name != "pairs" and not name.startswith("mtp_")}
    own = {name: value if name in WEIGHED else value / totals["pairs"] for name, value in told.items()}
    return own | of_layer(totals)


def compared(
    stage: Stage, config: Preferences, model: Decoder, texts: Sequence[Text], loss: PairLoss, passes: int = 0
) -> dict[str, float]:
    """The sums that a step on ``texts`` would tell, without the step; in so many passes, or of eight rows each."""
    batch = pack(texts, config.packing.row_tokens, together=2).to(stage.device)

    def told(part: Batch) -> dict[str, float]:
        kind, is_cast = stage.device.type, stage.dtype != torch.float32
        with torch.no_grad(), torch.autocast(kind, stage.dtype, enabled=is_cast, cache_enabled=False):
            return {name: float(value) for name, value in loss(model, part).sums.items()}

    parts = stage.lanes.map(told, batch.passes(passes or -(-len(batch.targets_BT) // 8)))
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def of_slicing(stage: Stage, config: Preferences, model: Decoder, texts: Sequence[Text], loss: PairLoss) -> SelfTest:
    """No slice parts a pair: figure = relative change of the loss from one pass to one for each row."""
    whole, sliced = (compared(stage, config, model, texts, loss, count)["loss"] for count in (1, len(texts)))
    gap = abs(whole - sliced) / max(1e-3, abs(whole))
    limit = INVARIANCE_LIMIT if stage.dtype == torch.float32 else ROUGH_INVARIANCE_LIMIT
    return SelfTest("loss ignores slicing", gap, limit, "A pair's two texts must be read in one pass.")


def _work(texts: Sequence[Text], flops: Flops, *, training: bool) -> tuple[int, float]:
    """Tokens and FLOPs of a step, or of a look."""
    lengths = np.array([len(text.tokens) for text in texts])
    count, context = int(lengths.sum()), float((lengths * (lengths - 1) / 2).sum() / lengths.sum())
    return count, count * flops(context, training)
