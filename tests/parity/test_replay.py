"""Router replay: a sampler that rounds differently chooses other experts now and then, and replay takes that away."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from seekling.engine.config import Sampling
from seekling.engine.engine import Engine, Request
from seekling.learn.batch import Text, text_of
from seekling.learn.reading import read
from seekling.learn.update import logps_said
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder, Rows
from seekling.records import Rollout

SHAPE = ModelConfig(
    vocab_size=96, n_routed_experts=16, num_experts_per_tok=2, num_hidden_layers=4, initializer_range=0.2
)


def policies() -> tuple[Decoder, Decoder]:
    """One policy twice: in float32, and with every weight rounded to bfloat16, as samplers hold them."""
    learner, sampler = Decoder(SHAPE).init_weights(3), Decoder(SHAPE).init_weights(3)
    with torch.no_grad():
        for weight in sampler.parameters():
            weight.copy_(weight.bfloat16().float())
    return learner, sampler


def said_by(sampler: Decoder) -> list[Text]:
    prompts = [tuple(3 + (5 * row + place) % 90 for place in range(6)) for row in range(24)]
    said = Engine(sampler, 2).generate([Request(p, n) for n, p in enumerate(prompts)], Sampling(max_tokens=24))
    return [
        text_of(Rollout(prompt, one.tokens, one.logps, "", one.stop, 0, one.routes))
        for prompt, one in zip(prompts, said, strict=True)
    ]


def apart(learner: Decoder, texts: list[Text], *, replay: bool) -> NDArray[np.float64]:
    """How far learner and sampler are apart, token by token, in nats."""
    told = read(learner, texts, partial(logps_said, replay=replay), row_tokens=64)
    return np.concatenate(
        [np.abs(a - t.values["behaviour"])[t.weight > 0] for a, t in zip(told, texts, strict=True)]
    ).astype(np.float64)


def other_routes(learner: Decoder, texts: list[Text]) -> float:
    """Share of choices that the learner, left to itself, makes differently."""
    differ = []
    for text in texts:
        assert text.routes is not None
        ids = torch.tensor([text.tokens[:-1]])
        rows = Rows(ids, torch.arange(ids.shape[1])[None], torch.ones_like(ids))
        with torch.no_grad():
            own = torch.stack([r.chosen_NA for r in learner(rows).routings], 1)
        differ.append((own.sort(-1).values != torch.from_numpy(text.routes).sort(-1).values).float().mean())
    return float(torch.stack(differ).mean())


def test_replay_removes_the_disagreement_that_routes_make() -> None:
    """The worst tokens are those whose experts differ: replayed, they are no worse than the others."""
    learner, sampler = policies()
    texts = said_by(sampler)
    assert other_routes(learner, texts) > 0.003, "rounding alone sends some tokens elsewhere"
    with_, without = (apart(learner, texts, replay=replay) for replay in (True, False))
    assert np.square(without).mean() > 4 * np.square(with_).mean()
    assert without.max() > 3 * with_.max()


def test_with_equal_weights_nothing_is_left_of_it() -> None:
    learner = policies()[0].double()  # in float32 each orders its sums as is fastest
    texts = said_by(learner)
    assert other_routes(learner, texts) == 0
    assert apart(learner, texts, replay=True).max() < 1e-5


@pytest.mark.parametrize("replay", [True, False])
def test_without_routes_a_text_is_read_by_the_learners_own(replay: bool) -> None:
    learner, sampler = policies()
    blind = [Text(t.tokens, t.weight, t.values) for t in said_by(sampler)]
    np.testing.assert_array_equal(apart(learner, blind, replay=replay), apart(learner, blind, replay=False))
