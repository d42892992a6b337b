"""Activations that are computed again are those that were let go: the same bits in less memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from seekling.engine.config import Sampling
from seekling.engine.engine import Engine, Request
from seekling.errors import UserError
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.config import Optim, Packing
from seekling.learn.lanes import Lanes
from seekling.learn.optim import Optimizers
from seekling.learn.presets import OBJECTIVES
from seekling.learn.update import Loss, add, rollout_loss, step, text_loss
from seekling.model.decoder import Decoder
from seekling.recipes.config import Sft
from seekling.recipes.manifest import weight_settings
from seekling.recipes.policy import prepare
from tests.oracles.tiny import SHAPES, build, text


def said(model: Decoder) -> Batch:
    """Rollouts with the routes they took."""
    prompts = [tuple(text(3, seed)) for seed in range(6)]
    texts = []
    for number, one in enumerate(Engine(model, 3).generate([Request(p, i) for i, p in enumerate(prompts)],
                                                           Sampling(max_tokens=9))):  # fmt: skip
        own = np.r_[np.zeros(3), np.ones(len(one.tokens))].astype(np.float32)
        logps = np.r_[np.zeros(3, np.float32), one.logps]
        values = {"behaviour": logps, "reference": logps, "advantage": own * (-1.0) ** number}
        texts.append(Text((*prompts[number], *one.tokens), own / own.sum(), values, one.routes))
    return pack(texts, 24)


def written() -> Batch:
    return pack([Text(text(n, n), np.ones(n, np.float32) / 40) for n in (12, 9, 7, 5, 5, 3)], 14)


def of_text(model: Decoder, part: Batch) -> Loss:
    return text_loss(model, part, mtp_weight=0.3 if model.mtp is not None else 0.0, balance_weight=0.01)


def of_rollouts(model: Decoder, part: Batch) -> Loss:
    return rollout_loss(model, part, objective=OBJECTIVES["grpo"], temperature=0.8)


def learned(shape: str, *, recomputes: bool, lanes: int, dtype: torch.dtype, rollouts: bool) -> dict[str, Tensor]:
    """Weights after two steps."""
    model = build(SHAPES[shape])
    batch, loss = (said(model), of_rollouts) if rollouts else (written(), of_text)
    model.recomputes = recomputes
    optimizers = Optimizers(model, Optim(warmup_steps=0), 4)
    for index in range(2):
        step(model, optimizers, batch, loss, step_index=index, passes=2, lanes=Lanes(lanes), dtype=dtype)
    return dict(model.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rollouts", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_checkpointed_activations_change_no_bit(shape: str, rollouts: bool, dtype: torch.dtype) -> None:
    kept = learned(shape, recomputes=False, lanes=1, dtype=dtype, rollouts=rollouts)
    again = learned(shape, recomputes=True, lanes=2, dtype=dtype, rollouts=rollouts)
    assert kept.keys() == again.keys() and all(torch.equal(kept[name], again[name]) for name in kept)


def bytes_kept(model: Decoder) -> int:
    """What a forward pass keeps for the way back, weights apart."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        held = of_text(model, written())
    assert held.value.requires_grad
    return sum(kept.values())


def test_checkpointed_activations_are_a_fraction() -> None:
    deep = SHAPES["qwen3"].model_copy(update={"num_hidden_layers": 12})
    model = build(deep)
    all_of_them = bytes_kept(model)
    model.recomputes = True
    assert bytes_kept(model) < all_of_them / 4


def test_the_setting_is_heard_and_is_no_part_of_a_fingerprint() -> None:
    on, off = (Sft(name="a", source="b", data="c.jsonl", steps=1, packing=Packing(checkpoint_activations=yes))
               for yes in (True, False))  # fmt: skip
    model = build(SHAPES["llama"])
    prepare(model, on, "seed")
    assert model.recomputes
    prepare(model, off, "seed")
    assert not model.recomputes
    assert weight_settings(on) == weight_settings(off)


def test_a_model_of_transformers_refuses_it_before_training() -> None:
    config = Sft(name="a", source="b", data="c.jsonl", steps=1, packing=Packing(checkpoint_activations=True))
    with pytest.raises(UserError, match="through transformers") as told:
        prepare(torch.nn.Linear(1, 1), config, "seed")  # type: ignore[arg-type]
    assert "packing.passes" in told.value.next_step


# slices of a step


def test_a_stream_gives_results_in_order_and_runs_no_further_ahead_than_its_lanes() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item * item

    for count in (1, 2, 3):
        begun.clear()
        taken = []
        for number, result in enumerate(Lanes(count).stream(work, range(9))):
            taken.append(result)
            assert len(begun) <= number + 1 + count
        assert taken == [n * n for n in range(9)]


def test_a_stream_raises_what_its_work_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        list(Lanes(2).stream(lambda n: 1 // n, [2, 1, 0, 1]))


def test_gradients_are_added_in_order_and_let_go() -> None:
    generator = torch.Generator().manual_seed(0)
    slices = [[torch.randn(5, generator=generator), None] for _ in range(4)]
    told: Sequence[Sequence[Tensor | None]] = [list(found) for found in slices]
    grads: list[Tensor | None] = [None, None]
    for found in slices:
        add(grads, found)
        assert found == [None, None]
    expected = told[0][0]
    for found in told[1:]:
        expected = expected + found[0]  # type: ignore[operator]
    assert grads[1] is None and torch.equal(grads[0], expected)  # type: ignore[arg-type]
