"""Supervised fine-tuning: the assistant's words in a file of chats, or a task's own traces, learned from a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from seekling.errors import UserError
from seekling.learn.batch import Text
from seekling.recipes.config import Sft
from seekling.recipes.policy import Policy
from seekling.recipes.pretrain import encoded
from seekling.recipes.stage import Stage
from seekling.recipes.text import fill, learn_text, learned
from seekling.tasks.corpus import documents
from seekling.tasks.registry import build_task
from seekling.text.chat import encode_chats
from seekling.text.tokenizer import Tokenizer


def sft(stage: Stage, config: Sft) -> dict[str, float]:
    """Fine-tune the input stage's model. Returns the last step's figures."""
    if bool(config.data) == bool(config.task):
        raise UserError(
            f'stage "{stage.name}" needs either data or task', next_step='Set data = "chats.jsonl", or task.'
        )
    policy = Policy.load(stage.inputs[0].model, stage.device, stage.lanes)
    chats = read_chats(Path(config.data), policy.tokenizer) if config.data else []
    task = build_task(config.task) if config.task else None

    def texts(step: int) -> Sequence[Text]:
        seed = f"{stage.seed}/{step}"
        if task is None:
            return fill(_shuffled(chats, seed), config.tokens_per_step)
        return fill(encoded(policy.tokenizer, documents(task, config.text, seed)), config.tokens_per_step)

    return learn_text(stage, config, policy.model, policy.tokenizer, texts)


def read_chats(file: Path, tokenizer: Tokenizer) -> list[Text]:
    """Every line of a JSONL file as a text. Raises UserError naming the line that is not a chat."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # no splitlines: JSON text may hold U+2028 and kin
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    chats = [_messages(line, f"{file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not chats:
        raise UserError(f"{file} holds no chats")
    texts = [learned(ids, mask) for ids, mask in encode_chats(tokenizer, chats)]
    if mute := next((number for number, text in enumerate(texts, 1) if not text.weight.any()), 0):
        raise UserError(
            f"chat {mute} in {file} has nothing to learn", next_step="Only what an assistant says is learned: add it."
        )
    return texts


def _messages(line: str, where: str) -> list[dict[str, str]]:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"not JSON: {error}", where=where) from None
    if isinstance(row, dict) and {"prompt", "completion"} <= row.keys():
        row = {"messages": [_said("user", row["prompt"]), _said("assistant", row["completion"])]}
    messages = row.get("messages") if isinstance(row, dict) else None
    good = isinstance(messages, list) and messages and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    )  # fmt: skip
    if not good or not isinstance(messages, list):
        raise UserError(
            "this line is no chat", where=where,
            next_step='Write {"messages": [{"role": "user", "content": "..."}, ...]}, or prompt and completion.',
        )  # fmt: skip
    return messages


def _said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _shuffled(texts: list[Text], seed: str) -> Iterator[Text]:
    rng = Random(seed)
    while True:
        yield from rng.sample(texts, len(texts))
