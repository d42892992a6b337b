"""Scalar heads: what they begin as, where they stand, what trains them, and that a policy is written without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from seekling.errors import UserError
from seekling.learn.batch import Text
from seekling.learn.config import Optim
from seekling.learn.optim import Muon, Optimizers, is_matrix
from seekling.learn.reading import read, values_after, values_before
from seekling.model.decoder import Decoder
from seekling.model.heads import ScalarHead, add_head, head_of, load_head, save_head, speechless, take_head
from seekling.model.lora import add_adapters, keep_trained, reference_of
from seekling.model.weights import load_model, save_model
from seekling.recipes.checkpoint import restore, save_checkpoint
from seekling.recipes.reward_model import padding
from tests.oracles.tiny import SHAPES, alone, build, text

TEXTS = [Text(text(n, n), np.ones(n, np.float32)) for n in (7, 3, 5)]


def headed(name: str = "qwen3", seed: int | None = 1) -> Decoder:
    model = build(SHAPES[name])
    add_head(model, seed)
    return model


def test_a_head_begins_by_saying_nothing() -> None:
    head = ScalarHead(6)
    assert not head(torch.randn(2, 3, 6)).any() and head.weight.dtype == torch.float32


def test_a_drawn_head_is_a_function_of_its_seed() -> None:
    first, same, other = (headed(seed=seed).score.weight.detach() for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert float(first.std()) == pytest.approx(0.3, rel=0.5), "initializer_range"


def test_a_head_is_a_product_with_the_states() -> None:
    head = ScalarHead(5)
    head.draw(0, 1.0)
    states = torch.randn(2, 3, 5)
    torch.testing.assert_close(head(states), nn.functional.linear(states, head.weight)[..., 0])
    assert head.double()(states.double()).dtype == torch.float64


def test_a_head_does_not_change_what_the_model_says() -> None:
    model, rows = build(SHAPES["v3"]), alone(text(6))
    before = model.logits(model(rows).states_BTD)
    add_head(model, 1)
    assert torch.equal(model.logits(model(rows).states_BTD), before)


def test_values_stand_before_and_after_each_token() -> None:
    model = headed()
    before, after = (read(model, TEXTS, of, row_tokens=9, passes=2) for of in (values_before, values_after))
    for own, b, a in zip(TEXTS, before, after, strict=True):
        with torch.no_grad():
            slow = head_of(model)(model(alone(own.tokens)).states_BTD)[0]
        np.testing.assert_allclose(b[1:], slow[:-1], atol=1e-5)
        np.testing.assert_allclose(a[1:], slow[1:], atol=1e-5)


def test_a_model_without_speech_keeps_its_states_and_has_no_output_matrix() -> None:
    model, rows = headed("v3"), alone(text(6))
    before = model(rows).states_BTD
    assert model.lm_head is not None and model.mtp is not None
    assert speechless(model) is model
    assert torch.equal(model(rows).states_BTD, before)
    assert not [name for name in model.state_dict() if name.startswith(("lm_head", "mtp"))]


def test_muon_leaves_heads_to_adamw() -> None:
    model = headed()
    assert not is_matrix("score.weight", head_of(model).weight)
    optimizers = Optimizers(model, Optim(), 4)
    muon = {p for o in optimizers.all if isinstance(o, Muon) for g in o.param_groups for p in g["params"]}
    assert muon and head_of(model).weight not in muon and head_of(model).weight in optimizers.names


def test_a_checkpoint_holds_the_head(tmp_path: Path) -> None:
    model = headed()
    optimizers = Optimizers(model, Optim(), 4)
    save_checkpoint(tmp_path, 3, model, optimizers)
    other = headed(seed=2)
    assert restore(tmp_path, other, Optimizers(other, Optim(), 4), pytest.fail) == 3
    assert torch.equal(head_of(other).weight, head_of(model).weight)


def test_a_policy_is_written_and_referred_to_without_its_head(tmp_path: Path) -> None:
    model = headed()
    assert not hasattr(reference_of(model), "score")
    head = take_head(model)
    save_model(tmp_path, model)
    save_head(tmp_path / "critic", head)
    again = load_model(tmp_path)
    assert torch.equal(load_head(tmp_path / "critic", again).weight, head.weight)


def test_a_head_of_another_width_is_refused(tmp_path: Path) -> None:
    save_head(tmp_path, ScalarHead(7))
    with pytest.raises(UserError, match="no head for states of width 24"):
        load_head(tmp_path, build(SHAPES["llama"]))


def test_adapters_freeze_a_head_that_stood_before_and_parts_may_be_named() -> None:
    model = headed()
    add_adapters(model, rank=2, scale=1.0, targets=("self_attn",), seed=0)
    assert not head_of(model).weight.requires_grad
    model = headed()
    keep_trained(model, train=["score"])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["score.weight"]


def test_a_model_of_transformers_has_no_place_for_a_head() -> None:
    with pytest.raises(UserError, match="runs through transformers"):
        add_head(nn.Linear(2, 2))  # type: ignore[arg-type]


class Known:
    """What padding asks of a tokenizer."""

    def __init__(self, pad: int | None, bos: int | None, *stops: int) -> None:
        self.pad, self.bos, self.stops = pad, bos, stops


@pytest.mark.parametrize(
    "known, pad",
    [
        (Known(2, 0, 1), 2),
        (Known(1, 0, 1), 0),
        (Known(None, 0, 1), 0),
        (Known(1, None, 5, 1), 5),
        (Known(5, 0, 5, 1), 5),
    ],
)
def test_padding_never_ends_a_text(known: Known, pad: int) -> None:
    """Transformers reads a text at its last token that is no padding: were that the stop, it would be passed over."""
    assert padding(known, {1}) == pad  # type: ignore[arg-type]


def test_a_tokenizer_that_can_only_pad_with_its_stop_is_refused() -> None:
    with pytest.raises(UserError, match="no token to pad with"):
        padding(Known(1, None, 1), {1})  # type: ignore[arg-type]
