"""The whole decoder: against the papers' loops, cached against full, packed against alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder, Rows
from tests.oracles import decoder as oracle
from tests.oracles.paged import PLAIN, chunk_of, pool
from tests.oracles.tiny import SHAPES, V, alone, build, numbers, packed, text

CLOSE = dict(rtol=1e-4, atol=2e-5)
EVERY_SHAPE = pytest.mark.parametrize("name", SHAPES)


def logits(model: Decoder, rows: Rows) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(rows).states_BTD)


@EVERY_SHAPE
def test_a_decoder_equals_the_papers_loops(name: str) -> None:
    config, tokens = SHAPES[name], text(9)
    model = build(config)
    np.testing.assert_allclose(logits(model, alone(tokens))[0], oracle.logits(tokens, numbers(model), config), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@EVERY_SHAPE
def test_decoding_token_by_token_equals_the_full_forward(name: str, dtype: torch.dtype) -> None:
    """Rows of different lengths, each starting at another place, in one cache."""
    model = build(SHAPES[name], dtype=dtype)
    texts, starts = [text(14, 1), text(9, 2), text(11, 3)], [5, 1, 8]
    pages, tables = pool(model.config, 3, 16, dtype)
    with torch.no_grad():
        model.extend(chunk_of([t[:s] for t, s in zip(texts, starts, strict=True)], [0, 0, 0], tables), pages, PLAIN)
        for step in range(min(len(t) - s for t, s in zip(texts, starts, strict=True))):
            lengths = [start + step for start in starts]
            following = [[t[length]] for t, length in zip(texts, lengths, strict=True)]
            hidden = model.extend(chunk_of(following, lengths, tables), pages, PLAIN)
            for row, (tokens_so_far, length) in enumerate(zip(texts, lengths, strict=True)):
                whole = model(alone(tokens_so_far[: length + 1])).states_BTD[0, -1]
                torch.testing.assert_close(hidden.states_BTD[row], whole, **CLOSE)


@EVERY_SHAPE
def test_what_a_text_makes_of_its_tokens_does_not_depend_on_its_row_mates(name: str) -> None:
    """Packed = padded = alone: also for the next-token module, where a text has a token two ahead."""
    model = build(SHAPES[name])
    a, b, c = text(7, 1), text(5, 2), text(4, 3)
    together = packed([[a, b, c], [c, a], [b]], 20)
    places = [(0, 0, a), (0, 7, b), (0, 12, c), (1, 0, c), (1, 4, a), (2, 0, b)]
    with torch.no_grad():
        states = model(together).states_BTD
        ahead = model.predict_next(together, states)[0] if model.mtp is not None else None
        for row, start, member in places:
            own = model(alone(member)).states_BTD
            torch.testing.assert_close(states[row, start : start + len(member)], own[0], **CLOSE)
            if ahead is not None:
                own_ahead, _ = model.predict_next(alone(member), own)
                here = ahead[row, start : start + len(member) - 1]
                torch.testing.assert_close(here, own_ahead[0, :-1], **CLOSE)


@EVERY_SHAPE
def test_a_token_never_sees_a_later_one(name: str) -> None:
    model, tokens = build(SHAPES[name]), text(10)
    changed = [*tokens[:6], *((t + 1) % V for t in tokens[6:])]
    before, after = logits(model, alone(tokens)), logits(model, alone(changed))
    torch.testing.assert_close(before[:, :6], after[:, :6], **CLOSE)
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_the_next_token_module_equals_the_papers_loops_embedding_first() -> None:
    config, tokens = SHAPES["v3"], text(9)
    model = build(config)
    rows = alone(tokens)
    with torch.no_grad():
        ahead, _ = model.predict_next(rows, model(rows).states_BTD)
        mine = model.logits(ahead)[0, :-1]
    np.testing.assert_allclose(mine, oracle.logits_two_ahead(tokens, numbers(model), config), **CLOSE)


def test_the_next_token_module_speaks_from_tokens_up_to_the_next_and_no_further() -> None:
    """At t it sees h_t and token t+1, and so predicts t+2."""
    model, tokens, t = build(SHAPES["v3"]), text(9), 4

    def said(changed: int) -> torch.Tensor:
        other = [(x + 1) % V if i == changed else x for i, x in enumerate(tokens)]
        with torch.no_grad():
            return model.predict_next(alone(other), model(alone(other)).states_BTD)[0][0, t]

    unchanged = said(-1)
    assert not torch.allclose(said(t + 1), unchanged)
    torch.testing.assert_close(said(t + 2), unchanged, **CLOSE)


def test_replayed_routes_are_the_routes_taken() -> None:
    model, rows = build(SHAPES["v3-groups"]), alone(text(9))
    with torch.no_grad():
        free = model(rows)
        replayed = model(rows, [routing.chosen_NA for routing in free.routings])
        torch.testing.assert_close(replayed.states_BTD, free.states_BTD, rtol=0, atol=0)
        forced = [torch.tensor([[0, 1]] * 9)] * len(free.routings)
        other = model(rows, forced)
    assert all(torch.equal(r.chosen_NA, f) for r, f in zip(other.routings, forced, strict=True))
    assert not torch.allclose(other.states_BTD, free.states_BTD)


def test_initial_weights_are_a_function_of_seed_and_name() -> None:
    """Adding a part (here the next-token module) leaves every other draw alone."""
    config = SHAPES["v3"]
    first = Decoder(config).init_weights(7).state_dict()
    smaller = Decoder(config.model_copy(update={"num_nextn_predict_layers": 0})).init_weights(7).state_dict()
    assert all(torch.equal(first[name], weight) for name, weight in smaller.items())
    again, other = Decoder(config).init_weights(7).state_dict(), Decoder(config).init_weights(8).state_dict()
    assert all(torch.equal(first[name], weight) for name, weight in again.items())
    drawn = [name for name, weight in first.items() if weight.ndim > 1]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    assert len({first[name].flatten()[0].item() for name in drawn}) == len(drawn), "two tensors share their draw"


def test_initial_weights_read_no_global_generator() -> None:
    model = Decoder(SHAPES["v3"])
    before = torch.random.get_rng_state()
    model.init_weights(0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_initial_weights_have_the_stated_spread() -> None:
    config = ModelConfig(hidden_size=64, num_hidden_layers=2, intermediate_size=128, initializer_range=0.05)
    weights = Decoder(config).init_weights(0).state_dict()
    assert weights["layers.0.mlp.up_proj.weight"].std() == pytest.approx(0.05, rel=0.05)
    assert weights["layers.0.mlp.down_proj.weight"].std() == pytest.approx(0.05 / 2, rel=0.05)
    assert weights["layers.1.self_attn.o_proj.weight"].std() == pytest.approx(0.05 / 2, rel=0.05)
    assert bool((weights["norm.weight"] == 1).all())
