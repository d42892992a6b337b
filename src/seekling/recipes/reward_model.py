"""A reward model: the input's model says a number for a whole reply, learned from pairs (Bradley-Terry)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seekling.engine.sampler import seed_of
from seekling.errors import UserError
from seekling.learn.batch import Batch, Text
from seekling.learn.lanes import ONE, Lanes
from seekling.learn.preference import bradley_terry, in_pairs, off_centre, preferred
from seekling.learn.reading import read, values_after
from seekling.learn.update import Loss
from seekling.model.count import flops_per_token
from seekling.model.decoder import Decoder
from seekling.model.heads import add_head, head_of, load_scored, save_scored, speechless
from seekling.model.lora import adapters, merged
from seekling.recipes.chats import Row
from seekling.recipes.config import RewardModel
from seekling.recipes.pairs import Couple, closed, couples, together
from seekling.recipes.policy import Policy, held_in, prepare
from seekling.recipes.preferring import Way, at_end, counted, exactly, learn_pairs, proved, watched_in
from seekling.recipes.sft import encode
from seekling.recipes.stage import Stage
from seekling.recipes.text import learned
from seekling.runlog.files import read_json, write_json
from seekling.text.tokenizer import Tokenizer

WATCHED = {"loss": "held_out_loss", "accuracy": "held_out_accuracy", "margin": "held_out_margin"}
"""What is told of held-out pairs."""
FACT = "rating"
"""The fact of a finished stage that tells on which scale its numbers are."""
SMALLEST = 1e-6
"""A standard deviation below which a model says nothing."""
ROW_TOKENS = 512
"""Tokens in a row when replies are rated; longer ones make longer rows."""

Prompt = str | Sequence[Mapping[str, Any]]
"""What was asked, or the messages so far."""


def reward_model(stage: Stage, config: RewardModel) -> dict[str, float]:
    """Make of the input stage's model one that rates. Returns the last step's figures."""
    policy = Policy.load(stage.inputs[0].model, stage.device, stage.lanes, held_in(config))
    model = policy.model
    head = add_head(model, seed_of(stage.seed, "head") if config.head == "drawn" else None)
    speechless(model)
    prepare(model, config, stage.seed)
    head.requires_grad_(True)  # whatever else is frozen

    def flops(context: float, training: bool) -> float:
        return silent_flops(model, context, training=training)

    way = Way(ended, partial(rating_pass, config=config), flops, watched_in(config, WATCHED))
    with couples(stage, config, policy.tokenizer, model.config.max_position_embeddings) as found:
        pad = padding(policy.tokenizer, {text.tokens[-1] for text in together(found.train(0))})
        figures = learn_pairs(stage, config, model, found, way)
        stage.folder.write(**{FACT: scale_of(stage, config, model, found.held_out or found.train(0))})
    export(stage, model, policy.tokenizer, pad)
    return figures


def scale_of(stage: Stage, config: RewardModel, model: Decoder, found: Sequence[Couple]) -> dict[str, float]:
    """Mean and standard deviation of what a finished model says of replies: by them its numbers are read later.

    A reward model is only told differences: where its zero lies, and how far apart its numbers, is chance.
    """
    texts = together(found)
    told = read(
        model, texts, values_after, row_tokens=config.packing.row_tokens, passes=config.packing.passes,
        lanes=stage.lanes, dtype=stage.dtype,
    )  # fmt: skip
    numbers = np.array([values[-1] for values in told], np.float64)
    return {"mean": float(numbers.mean()), "std": max(float(numbers.std()), SMALLEST)}


def silent_flops(model: Decoder, context: float, *, training: bool) -> float:
    """FLOPs of a token without logits, which nobody asks for."""
    logits = 2.0 * model.config.vocab_size * model.config.hidden_size
    return flops_per_token(model.config, context, training=training) - (3 if training else 1) * logits


def ended(found: Sequence[Couple]) -> list[Text]:
    """The texts of couples, each weighing at its last token alone, where it is read; margins stand there too."""
    margins = [margin for couple in found for margin in (couple.margin, 0.0)]
    texts = []
    for text, margin in zip(proved(found), margins, strict=True):
        values = {**text.values, "margin": at_end(text, margin)}
        texts.append(replace(text, weight=at_end(text, 1 / len(found)), values=values))
    return texts


def rating_pass(model: Decoder, batch: Batch, *, config: RewardModel) -> Loss:
    """The loss of a slice, and sums over its pairs of what TRL's users know by these names."""
    read_BT, segments_BT = (batch.weight_BT > 0).float(), batch.rows.segments_BT
    chosen, rejected = in_pairs(values_after(model, batch) * read_BT, segments_BT)
    weight, margin = (in_pairs(x, segments_BT)[0] for x in (batch.weight_BT, batch.values["margin"]))
    pairs = bradley_terry(chosen, rejected, margin if config.margin else 0.0)
    pairs = pairs + config.centre * off_centre(chosen, rejected) if config.centre else pairs
    value = (pairs * weight).sum()
    with torch.no_grad():
        each = {
            "accuracy": preferred(chosen, rejected), "margin": chosen - rejected,
            "mean_reward": (chosen + rejected) / 2, "rewards/chosen": chosen, "rewards/rejected": rejected,
        }  # fmt: skip
        each |= exactly(batch, each["accuracy"])
        sums = counted(each, weight)
    return Loss(value, {"loss": value.detach(), **sums})


def export(stage: Stage, model: Decoder, tokenizer: Tokenizer, pad: int) -> None:
    """Leave the reward model in the stage's folder, adapters merged, and a tokenizer that pads with ``pad``."""
    stage.refuse_broken(model)
    if not stage.world.leads:
        return
    tokenizer.save(stage.folder.model)
    pad_with(stage.folder.model, tokenizer.decode([pad]))
    dtype = None
    if adapters(model):
        head, dtype = head_of(model), torch.float32
        model = merged(model, place="cpu")
        model.score = head
    save_scored(stage.folder.model, model, pad, dtype)


def padding(tokenizer: Tokenizer, ends: set[int]) -> int:
    """A token to pad with: transformers reads a text at its last token that is none, so no text may end with it.

    Raises UserError when there is none.
    """
    known = [token for token in (tokenizer.pad, tokenizer.bos, *tokenizer.stops) if token is not None]
    for token in known:
        if token not in ends:
            return token
    raise UserError(
        "the tokenizer has no token to pad with but the one that ends a reply",
        next_step="Give it a pad_token of its own in tokenizer_config.json.",
    )


def pad_with(folder: Path, token: str) -> None:
    """Have the tokenizer in a folder pad with ``token``: its padding and the model's must be one."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        told = read_json(folder / name) if (folder / name).is_file() else {}
        if name == "tokenizer_config.json" or "pad_token" in told:
            write_json(folder / name, told | {"pad_token": token})


# --- in use -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rater:
    """A reward model and its tokenizer."""

    model: Decoder
    tokenizer: Tokenizer
    lanes: Lanes = ONE

    def score(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> list[float]:
        """A number for each reply to its prompt, higher for better: only differences at one prompt mean something.

        Raises UserError for a prompt that is no chat, and for a reply that does not fit the model's context.
        """
        return self._read(self._texts(rows_of(prompts, replies)))

    def rate(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> tuple[list[float | None], int, float]:
        """The same, and None for what cannot be read; then the tokens that were, and FLOPs.

        Raises UserError where nothing at all can be read: then it is not the replies.
        """
        rows = rows_of(prompts, replies)
        try:
            texts: list[Text | None] = [*self._texts(rows)]
        except UserError:  # whose fault was it?
            texts = [self._text(row) for row in rows]
            if not any(texts):
                raise
        sound = [text for text in texts if text is not None]
        told, tokens = iter(self._read(sound)), [len(text.tokens) for text in sound]
        context = sum(n * (n - 1) / 2 for n in tokens) / max(1, sum(tokens))
        work = sum(tokens) * silent_flops(self.model, context, training=False)
        return [None if text is None else next(told) for text in texts], sum(tokens), work

    def _read(self, texts: Sequence[Text]) -> list[float]:
        if not texts:
            return []
        rows = max(ROW_TOKENS, *(len(text.tokens) for text in texts))
        passes = max(1, sum(len(text.tokens) for text in texts) // (4 * rows))
        told = read(self.model, texts, values_after, row_tokens=rows, passes=passes, lanes=self.lanes)
        return [float(values[-1]) for values in told]

    def _text(self, row: Row) -> Text | None:
        try:
            return self._texts([row])[0]
        except UserError:
            return None

    def _texts(self, rows: Sequence[Row]) -> list[Text]:
        texts, room = [], self.model.config.max_position_embeddings
        for row, encoded in zip(rows, encode(self.tokenizer, rows), strict=True):
            texts.append(learned(*closed(row, encoded)))
            if len(texts[-1].tokens) > room:
                raise UserError(
                    f"a reply has {len(texts[-1].tokens)} tokens with its prompt; the reward model reads {room}",
                    where=row.where,
                    next_step="Rate shorter replies, or leave this one out.",
                )
        return texts


def rows_of(prompts: Sequence[Prompt], replies: Sequence[str]) -> list[Row]:
    """A chat of each reply and what it answers."""
    rows = []
    for place, (prompt, reply) in enumerate(zip(prompts, replies, strict=True), 1):
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
        rows.append(Row([*asked, {"role": "assistant", "content": reply}], f"reply {place}", given=len(asked)))
    return rows


def load_reward_model(folder: Path, device: torch.device | None = None, lanes: Lanes = ONE) -> Rater:
    """The reward model in a folder: a stage's ``model``, or transformers' ``*ForSequenceClassification`` of one label.

    Raises UserError for a folder of something else.
    """
    model = load_scored(folder, device=str(device or "cpu"))
    return Rater(model, Tokenizer.load(folder).padded(model.config.vocab_size), lanes)
