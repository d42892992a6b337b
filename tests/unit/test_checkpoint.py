"""Checkpoints: exact, whole or not at all, the newest and the best kept, a damaged one passed over."""

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
from seekling.recipes.checkpoint import KEEP, Best, best_of, place_of, restore, save_checkpoint, take_weights

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


@pytest.mark.parametrize("keep", [1, 3])
def test_so_many_are_kept_as_are_asked_for(tmp_path: Path, keep: int) -> None:
    for step in range(2, 12, 2):
        save_checkpoint(tmp_path, step, *fresh(), keep=keep)
    assert sorted(tmp_path.iterdir()) == [place_of(tmp_path, step) for step in range(2, 12, 2)][-keep:]


def test_the_best_stays_beside_the_newest_until_there_is_a_better_one(tmp_path: Path) -> None:
    best = Best(2, "loss", 0.5)
    for step in (2, 4, 6, 8):
        save_checkpoint(tmp_path, step, *fresh(), best=best)
    assert [place.name[-1] for place in sorted(tmp_path.iterdir())] == ["2", "6", "8"]
    assert [best_of(tmp_path, step) for step in (2, 6, 8)] == [best] * 3
    save_checkpoint(tmp_path, 10, *fresh(), best=Best(10, "loss", 0.4))
    assert [place.name[-2:] for place in sorted(tmp_path.iterdir())] == ["08", "10"]


def test_where_nothing_was_compared_there_is_no_best(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 2, *fresh())
    assert best_of(tmp_path, 2) is None


@pytest.mark.parametrize(
    ("figure", "values", "best"),
    [
        ("loss", (3.0, 1.0, 2.0), 1), ("held_out_pass", (0.3, 0.1, 0.2), 0),
        ("loss", (1.0, 1.0, 2.0), 1), ("held_out_pass", (0.1, 0.3, 0.3), 2), ("held_out_pass", (0.0, 0.0, 0.0), 2),
    ],
)  # fmt: skip
def test_less_loss_is_better_more_passes_are_and_of_equals_the_later(
    figure: str, values: tuple[float, ...], best: int
) -> None:
    found = None
    for step, value in enumerate(values):
        found = Best(step, figure, value).or_better(found)
    assert found is not None and found.next_step == best
    for one in (Best(1, figure, 0.5), Best(2, figure, 0.5)):
        assert one.or_better(Best(3 - one.next_step, figure, 0.5)).next_step == 2, "whoever asks"
    assert found.or_better(Best(9, "another figure", 1e9)) == found


def test_the_weights_of_the_best_are_taken_to_the_bit_and_the_optimizer_is_left_alone(tmp_path: Path) -> None:
    model, optimizers = fresh()
    learn(model, optimizers, 0)
    best = Best(1, "loss", 0.5)
    save_checkpoint(tmp_path, 1, model, optimizers, best=best)
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learn(model, optimizers, 1)
    moments = {name: tensor.clone() for name, tensor in optimizers.tensors().items()}
    assert not torch.equal(model.head_VD, saved["lm_head.weight"])
    take_weights(tmp_path, best, model)
    assert_equal(dict(model.state_dict()), saved)
    assert_equal(optimizers.tensors(), moments)


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_a_damaged_best_is_a_letter_before_the_work_and_never_another_one(tmp_path: Path, harm: str) -> None:
    best = Best(2, "loss", 0.5)
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, step, *fresh(), best=best)
    if harm == "gone":
        shutil.rmtree(place_of(tmp_path, 2))
    else:
        (place_of(tmp_path, 2) / "weights.safetensors").write_bytes(b"")
    for model in (None, fresh()[0]):
        with pytest.raises(UserError, match=r"the best checkpoint, .*step-0000002, is damaged"):
            take_weights(tmp_path, best, model)


def test_what_the_guard_remembers_is_restored_and_of_a_damaged_one_nothing(tmp_path: Path) -> None:
    model, optimizers = fresh()
    for step, norm in enumerate((1.0, 2.0, float("nan"))):
        optimizers.guard.skips(step, norm)
    save_checkpoint(tmp_path, 3, model, optimizers)
    _, others = fresh()
    restore(tmp_path, fresh()[0], others, unexpected)
    assert others.guard.state() == optimizers.guard.state() == {"norms": [1.0, 2.0], "in_a_row": 1}
    file = place_of(tmp_path, 3) / "state.json"
    file.write_text(file.read_text().replace("2.0", "3.0"))
    model, others = fresh()
    assert restore(tmp_path, model, others, lambda text: None) == 0, "another number is damage like any other"
    assert others.guard.state() == {"norms": [], "in_a_row": 0}


def test_any_flipped_digit_of_the_state_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 2, *fresh(), best=Best(2, "loss", 0.5))
    file = place_of(tmp_path, 2) / "state.json"
    whole = file.read_text()
    digits = [place for place, character in enumerate(whole) if character in "0123456789"]
    for place in digits[:: len(digits) // 40]:
        file.write_text(whole[:place] + str((int(whole[place]) + 1) % 10) + whole[place + 1 :])
        assert restore(tmp_path, *fresh(), lambda text: None) == 0
    file.write_text(whole)
    assert restore(tmp_path, *fresh(), unexpected) == 2


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
    told = checkpoint.read_json(place / "state.json") | {"sha256": checkpoint._digests(place)}
    write_json(place / "state.json", checkpoint._sealed(told))
    other, others = fresh(seed=1)
    told: list[str] = []
    assert restore(tmp_path, other, others, told.append) == 0 and len(told) == 1
    assert_equal(state(other, others), state(*fresh(seed=1)))
