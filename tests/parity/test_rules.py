"""Penalties against transformers' processor, and against loops from their definitions."""

from __future__ import annotations

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from seekling.engine.rules import Penalties
from tests.oracles.saying import scores

V = 50
PROMPT = [3, 3, 7, 11]
SAID = [7, 20, 21, 20, 49, 0, 20]


def looped(prompt: list[int], said: list[int], logits: list[float], r: float, p: float, f: float) -> list[float]:
    """The definitions, one token of the vocabulary at a time, in float64."""
    lowered = []
    for token, score in enumerate(logits):
        if token in prompt or token in said:
            score = score / r if score > 0 else score * r
        lowered.append(score - f * said.count(token) - p * (token in said))
    return lowered


@pytest.mark.parametrize("penalty", [0.7, 1.3, 5.0])
def test_repetition_is_that_of_transformers(penalty: float) -> None:
    logits_V = scores(V, 0, 0)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([PROMPT + SAID]), logits_V[None].clone())[0]
    Penalties(PROMPT, repetition=penalty).limit(SAID, logits_V)
    assert torch.equal(logits_V, theirs)


@pytest.mark.parametrize(("r", "p", "f"), [(1.0, 0.7, 0.0), (1.0, 0.0, -0.3), (1.2, 2.0, 0.9), (0.5, -2.0, 1.1)])
def test_all_three_are_what_their_definitions_say_at_every_token(r: float, p: float, f: float) -> None:
    rule = Penalties(PROMPT, r, p, f)
    for length in range(len(SAID) + 1):
        logits_V = scores(V, length, 1)
        expected = looped(PROMPT, SAID[:length], logits_V.tolist(), r, p, f)
        rule.limit(SAID[:length], logits_V)
        torch.testing.assert_close(logits_V, torch.tensor(expected))
