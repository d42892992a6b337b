"""Is a checkpoint read rightly? Its shape, every tensor, its tokenizer, and its words against transformers' own.

For a person with a real folder: the same comparisons that the tests make on folders of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from seekling.engine.config import Sampling
from seekling.engine.engine import Engine, Request
from seekling.errors import UserError
from seekling.evals.diff import relative
from seekling.model.count import count_parameters
from seekling.model.decoder import Decoder, Rows
from seekling.model.exchange import passed_over
from seekling.model.weights import check_model, load_model, read_config
from seekling.runlog.files import read_json
from seekling.text.check import check_tokenizer
from seekling.text.tokenizer import Tokenizer

LIMIT = 1e-4
"""Largest difference of float32 logits, relative to the largest logit."""
TIE = 1e-3
"""Greedy choices may part where the two best logits are this close."""
TEXT = "A train leaves at 12:30 and arrives at 15:10. How long does it take? Let us count: 3 hours are 180 minutes."


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check. ``passed`` is None where it could not be made; ``detail`` says what was found, or why not."""

    name: str
    passed: bool | None
    detail: str


def verify(folder: Path, memory_bytes: int) -> Iterator[Outcome]:
    """Every check, as it is made. Later ones are left out when an earlier one makes them meaningless.

    ``memory_bytes``: both models are loaded in float32 for the last ones, if they fit in half of it.
    """
    try:
        shape = read_config(folder)
    except UserError as error:
        yield Outcome("config", False, str(error))
        return
    strange = passed_over(read_json(folder / "config.json"))
    count = count_parameters(shape)
    yield Outcome("config", True, f"{shape.model_type}" + (f"; passed over: {', '.join(strange)}" if strange else ""))
    weights = _weights(folder)
    yield weights
    yield from _words(folder, shape.vocab_size)
    if weights.passed:
        yield from _against_transformers(folder, 4 * (count.total + count.mtp), memory_bytes)


def _weights(folder: Path) -> Outcome:
    try:
        tensors = sum(1 for _ in check_model(folder))
        return Outcome("weights", True, f"{tensors} tensors: names, shapes, finite values")
    except UserError as error:
        return Outcome("weights", False, str(error))


def _words(folder: Path, num_embeddings: int) -> Iterator[Outcome]:
    try:
        tokenizer = Tokenizer.load(folder)
    except UserError as error:
        yield Outcome("tokenizer", False, str(error))
        return
    ids = tokenizer.vocab_size
    yield Outcome("tokenizer fits the embedding", ids <= num_embeddings, f"{ids} ids, {num_embeddings} embeddings")
    for check in check_tokenizer(tokenizer, folder):
        yield Outcome(f"tokenizer: {check.name}", check.passed, check.detail)


def _against_transformers(folder: Path, num_bytes: int, memory_bytes: int) -> Iterator[Outcome]:
    if not find_spec("transformers"):
        yield Outcome("logits", None, "transformers is not installed: .venv/bin/pip install 'seekling[hf]'")
        return
    if 2 * num_bytes > memory_bytes / 2:
        yield Outcome("logits", None, f"both models in float32 want {2 * num_bytes / 2**30:.0f} GiB, too much here")
        return
    from transformers import AutoModelForCausalLM

    ours, tokenizer = load_model(folder), Tokenizer.load(folder)
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    theirs.train(False)
    ids = tokenizer.encode(TEXT, framed=True)[: ours.config.max_position_embeddings - 17]
    gap = _logits_gap(ours, theirs, ids)
    yield Outcome("logits", gap < LIMIT, f"largest relative difference {gap:.1e} on {len(ids)} tokens, limit {LIMIT:g}")
    yield _greedy(ours, theirs, ids)


@torch.no_grad()
def _logits_gap(ours: Decoder, theirs: Any, ids: list[int]) -> float:
    tokens = torch.tensor([ids])
    rows = Rows(tokens, torch.arange(len(ids)).unsqueeze(0), torch.ones_like(tokens))
    return relative(ours.logits(ours(rows).states_BTD), theirs(tokens).logits)


@torch.no_grad()
def _greedy(ours: Decoder, theirs: Any, ids: list[int], count: int = 16) -> Outcome:
    said = Engine(ours, ()).generate([Request(tuple(ids), 0)], Sampling(temperature=0, max_tokens=count))[0].tokens
    for place in range(count):
        logits_V = theirs(torch.tensor([[*ids, *said[:place]]])).logits[0, -1]
        if int(logits_V.argmax()) != said[place]:
            margin = float(logits_V.max() - logits_V[said[place]])
            return Outcome("greedy continuation", margin < TIE, f"parts at token {place + 1}, margin {margin:.1e}")
    return Outcome("greedy continuation", True, f"{count} tokens alike, decoded with our cache")
