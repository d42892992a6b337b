"""Checkpoints: exact, whole or not at all, two kept, a damaged one passed over."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from seekling.errors import UserError
from seekling.learn.config import Optim
from seekling.learn.optim import Optimizers
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder, Rows
from seekling.recipes import checkpoint
from seekling.recipes.checkpoint import KEEP, restore, save_checkpoint

SHAPE = ModelConfig(
    vocab_size=24, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, kv_lora_rank=4, qk_nope_head_dim=4,
    qk_rope_head_dim=2, v_head_dim=4, intermediate_size=16, n_routed_experts=4, moe_intermediate_size=8,
    num_nextn_predict_layers=1, max_position_embeddings=16,
)  # fmt: skip


def fresh(seed: int = 0) -> tuple[Decoder, Optimizers]:
    model = Decoder(SHAPE).init_weights(seed)
    return model, Optimizers(model, Optim(warmup_steps=1), 10)


def learn(model: Decoder, optimizers: Optimizers, step: int) -> None:
    """One step on a batch that is a function of the step alone."""
    tokens = torch.randint(SHAPE.vocab_size, (2, 8), generator=torch.Generator().manual_seed(step))
    positions = torch.arange(8).expand_as(tokens)
    hidden = model(Rows(tokens, positions, torch.ones_like(tokens)))
    model.logits(hidden.states_BTD).float().logsumexp(-1).sum().backward()
    optimizers.step(step)
    with torch.no_grad():
        for router in model.routers():
            router.e_score_correction_bias.add_(0.01 * (step + 1))


def state(model: Decoder, optimizers: Optimizers) -> dict[str, torch.Tensor]:
    return {**model.state_dict(), **optimizers.tensors()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def unexpected(text: str) -> None:
    raise AssertionError(text)


def test_what_is_restored_is_what_was_saved_and_learns_on_alike(tmp_path: Path) -> None:
    model, optimizers = fresh()
    for step in range(2):
        learn(model, optimizers, step)
    save_checkpoint(tmp_path, 2, model, optimizers)
    other, others = fresh(seed=1)
    assert restore(tmp_path, other, others, unexpected) == 2
    assert_equal(state(other, others), state(model, optimizers))
    for one, its in ((model, optimizers), (other, others)):
        learn(one, its, 2)
    assert_equal(state(other, others), state(model, optimizers))


def test_nothing_saved_begins_at_step_0(tmp_path: Path) -> None:
    assert restore(tmp_path / "none", *fresh(), unexpected) == 0


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 10, 6):
        save_checkpoint(tmp_path, step, *fresh())
    assert KEEP == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000006", "step-0000010"]
    save_checkpoint(tmp_path, 10, *fresh(seed=3))
    model, optimizers = fresh()
    assert restore(tmp_path, model, optimizers, unexpected) == 10
    assert_equal(state(model, optimizers), state(*fresh(seed=3)))


def test_a_save_that_fails_leaves_the_old_checkpoint_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 2, *fresh())

    def full(file: Path, tensors: object) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_checkpoint(tmp_path, 4, *fresh())
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000002"]


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["gone", "cut", "empty", "a folder", "one byte"])
def test_a_damaged_newest_falls_back_with_a_warning(tmp_path: Path, file: str, harm: str) -> None:
    model, optimizers = fresh()
    save_checkpoint(tmp_path, 2, model, optimizers)
    before = {name: tensor.clone() for name, tensor in state(model, optimizers).items()}
    learn(model, optimizers, 2)
    save_checkpoint(tmp_path, 4, model, optimizers)
    place = tmp_path / "step-0000004" / file
    data = place.read_bytes()
    place.unlink()
    if harm == "a folder":
        place.mkdir()
    elif harm != "gone":
        damaged = {
            "cut": data[: len(data) // 2],
            "empty": b"",
            "one byte": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        }
        place.write_bytes(damaged[harm])
    told: list[str] = []
    other, others = fresh(seed=1)
    assert restore(tmp_path, other, others, told.append) == 2
    assert_equal(state(other, others), before)
    assert len(told) == 1 and "step-0000004" in told[0] and "falling back" in told[0]


def test_a_file_more_than_was_saved_is_damage_too(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 2, *fresh())
    (tmp_path / "step-0000002" / "extra").write_text("x")
    told: list[str] = []
    assert restore(tmp_path, *fresh(), told.append) == 0 and len(told) == 1


def test_an_unfinished_save_is_not_seen(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 2, *fresh())
    shutil.copytree(tmp_path / "step-0000002", tmp_path / ".step-0000004.tmp")
    assert restore(tmp_path, *fresh(), unexpected) == 2


def test_nothing_of_a_checkpoint_that_does_not_fit_stays_behind(tmp_path: Path) -> None:
    from seekling.model.weights import load_tensors, save_tensors
    from seekling.runlog.files import write_json

    model, optimizers = fresh()
    learn(model, optimizers, 0)
    save_checkpoint(tmp_path, 1, model, optimizers)
    place = tmp_path / "step-0000001"
    saved = load_tensors(place / "optimizer.safetensors")
    save_tensors(place / "optimizer.safetensors", {**saved, "zz.of.another.model/step": torch.ones(1)})
    write_json(place / "state.json", {"next_step": 1, "sha256": checkpoint._digests(place)})
    other, others = fresh(seed=1)
    told: list[str] = []
    assert restore(tmp_path, other, others, told.append) == 0 and len(told) == 1
    assert_equal(state(other, others), state(*fresh(seed=1)))
