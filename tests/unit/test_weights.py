"""Weights on disk: exact round trip, and a letter for everything that can be wrong with a folder."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seekling.errors import UserError
from seekling.model.weights import OnDisk, load_model, load_tensors, save_model, save_tensors, stream_tensors
from tests.oracles.tiny import SHAPES, alone, build, text

EXPERT = "model.layers.1.mlp.experts.2.up_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", build(SHAPES["v3"]))
    return tmp_path / "model"


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Rewrite the folder's weights after ``change``."""
    tensors = load_tensors(folder / "model.safetensors")
    change(tensors)
    save_tensors(folder / "model.safetensors", tensors)


@pytest.mark.parametrize("name", SHAPES)
def test_a_saved_model_comes_back_to_the_bit(name: str, tmp_path: Path) -> None:
    model = build(SHAPES[name])
    save_model(tmp_path, model)
    again = load_model(tmp_path)
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[key]) and tensor.dtype == after[key].dtype for key, tensor in before.items())
    with torch.no_grad():
        assert torch.equal(model(alone(text(9))).states_BTD, again(alone(text(9))).states_BTD)


def test_saving_what_was_loaded_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again", load_model(folder))
    for name in ("model.safetensors", "config.json"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["v3", "qwen3"])
def test_a_model_loads_in_another_precision_and_says_nearly_the_same(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Rotary angles are complex: casting them to a real type would drop the positions without a word."""
    model, rows = build(SHAPES[name]), alone(text(12))
    save_model(tmp_path, model)
    other = load_model(tmp_path, dtype=dtype)
    assert {weight.dtype for weight in other.parameters()} == {dtype}
    assert {router.e_score_correction_bias.dtype for router in other.routers()} <= {torch.float32}
    with torch.no_grad():
        routes = [routing.chosen_NA for routing in model(rows).routings] or None
        exact, rounded = model(rows, routes).states_BTD, other(rows, routes).states_BTD
    torch.testing.assert_close(rounded.float(), exact, rtol=0.1, atol=0.1)


def test_experts_have_their_own_names_on_disk_and_the_prediction_layer_stands_behind_the_last(folder: Path) -> None:
    names = load_tensors(folder / "model.safetensors").keys()
    assert EXPERT in names and "model.layers.1.mlp.gate.e_score_correction_bias" in names
    assert {"model.layers.2.eh_proj.weight", "model.layers.2.shared_head.norm.weight"} <= names
    assert not any("gate_up" in name or "mtp" in name for name in names)


def test_copies_of_embedding_and_head_in_the_prediction_layer_are_passed_over(folder: Path) -> None:
    def add_copies(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.2.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.2.shared_head.head.weight"] = tensors["lm_head.weight"].clone()

    edit(folder, add_copies)
    assert load_model(folder).mtp is not None


DAMAGE: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "a tensor is missing": (lambda t: t.pop("model.norm.weight"), "missing model.norm.weight"),
    "a tensor too many": (lambda t: t.update({"model.extra.weight": torch.ones(1)}), "unexpected model.extra.weight"),
    "a tensor of another shape": (lambda t: t.update({"model.norm.weight": torch.ones(3)}), r"norm.weight is \(3,\)"),
    "an expert is missing": (lambda t: t.pop(EXPERT), "expert"),
    "the last expert is missing": (
        lambda t: [t.pop(f"model.layers.1.mlp.experts.5.{p}_proj.weight") for p in ("gate", "up", "down")],
        r"missing model.layers.1.mlp.experts.5.down_proj.weight, .*experts.5.gate_proj",
    ),
    "an expert of another shape": (lambda t: t.update({EXPERT: torch.ones(2, 24)}), r"up_proj.weight is \(2, 24\)"),
    "an expert of another rank": (lambda t: t.update({EXPERT: torch.ones(2)}), r"up_proj.weight is \(2,\)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_weights_that_do_not_fit_their_config_are_refused_by_name(damage: str, folder: Path) -> None:
    change, letter = DAMAGE[damage]
    edit(folder, change)
    with pytest.raises(UserError, match=letter):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_a_file_cut_short_is_refused(keep: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged or cut short"):
        load_model(folder)


def test_a_damaged_header_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(b"\xff" * 16 + file.read_bytes()[16:])
    with pytest.raises(UserError, match="damaged or cut short"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        load_model(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model folder"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', '{"hidden_size": -1}', '{"model_type": "gpt2"}'])
def test_a_config_that_describes_no_model_is_refused(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError):
        load_model(folder)


def test_a_config_of_another_shape_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(UserError, match=r"do not fit its config\.json"):
        load_model(folder)


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", {"x": torch.arange(3)})
    assert load_tensors(tmp_path / "a.safetensors")["x"].tolist() == [0, 1, 2]


# --- one tensor at a time ---------------------------------------------------------------------------------------------


def test_tensors_that_come_one_at_a_time_are_a_file_like_any_other(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5), "none": torch.empty(0, 4), "count": torch.tensor(7.0), "half": torch.ones(3).bfloat16(),
        "turned": torch.arange(6).view(2, 3).T,
    }  # fmt: skip
    made: list[str] = []

    def one_by_one() -> Iterator[Tensor]:
        for name, tensor in tensors.items():
            made.append(name)
            yield tensor

    kinds = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    stream_tensors(tmp_path / "a.safetensors", kinds, one_by_one())
    for read in (load_tensors(tmp_path / "a.safetensors"), OnDisk(tmp_path / "a.safetensors")):
        assert set(read) == set(tensors) and len(read) == len(made)
        assert all(
            torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items()
        )
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_full_disk_leaves_no_part_of_a_stream(tmp_path: Path) -> None:
    def torn() -> Iterator[Tensor]:
        yield torch.ones(2)
        raise OSError(errno.ENOSPC, "no space left")

    with pytest.raises(UserError, match="the disk is full"):
        stream_tensors(tmp_path / "a.safetensors", dict.fromkeys("ab", (torch.float32, (2,))), torn())
    assert not list(tmp_path.iterdir())


def test_tensors_on_disk_are_refused_when_the_file_is_damaged(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", {"x": torch.arange(3)})
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-4])
    with pytest.raises(UserError, match="cannot be used"):
        OnDisk(tmp_path / "a.safetensors")
