"""Answers of a model that has no preferences: random scores, the rules of a request, a draw."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from seekling.engine.rules import Rule
from seekling.text.tokenizer import Tokenizer, train

TEXTS = [
    '{"name": "bob", "age": 12, "tags": ["x", "y"], "ok": true} null false -1.5e3',
    "hello world, the answer is 42. <think>two and two</think> 3 + 4 = 7; Zürich 你好 🐳",
]


@cache
def speaker(vocab_size: int = 420) -> Tokenizer:
    """A small tokenizer with merges in it."""
    return train(TEXTS * 20, vocab_size)


def scores(vocab_size: int, place: int, seed: int) -> Tensor:
    """Random scores of one place, a function of place and seed."""
    return torch.from_numpy(np.random.default_rng([seed, place]).normal(size=vocab_size).astype(np.float32))


def say(
    rules: Sequence[Rule], vocab_size: int, stops: Sequence[int], *, seed: int = 0, most: int = 400, haste: float = 0.0,
) -> list[int]:  # fmt: skip
    """What is said under ``rules``; ``haste`` is added to the stops' scores. Nothing left to say is an error here."""
    said: list[int] = []
    while len(said) < most:
        logits_V = scores(vocab_size, len(said), seed)
        logits_V[list(stops)] += haste
        for rule in rules:
            rule.limit(said, logits_V)
        assert logits_V.max() > float("-inf"), "nothing may be said"
        noise_V = scores(vocab_size, len(said), seed + 1)
        said.append(int((logits_V + noise_V).argmax()))
        if said[-1] in stops or any(rule.ends(said) for rule in rules):
            break
    return said


def limits(rule: Rule, said: Sequence[int], vocab_size: int, seed: int = 0) -> Tensor:
    """The scores that a rule makes of random ones after ``said``."""
    logits_V = scores(vocab_size, len(said), seed)
    rule.limit(said, logits_V)
    return logits_V


def allowed(rule: Rule, said: Sequence[int], vocab_size: int) -> set[int]:
    """The tokens that a rule leaves."""
    return set(torch.isfinite(limits(rule, said, vocab_size)).nonzero().flatten().tolist())
