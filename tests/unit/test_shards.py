"""Folders of tensors: shards and their index, FP8 blocks, and a letter for whatever is wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seekling.errors import UserError
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.weights import Shards, dequantised, load_model, load_tensors, save_model
from tests.oracles.tiny import SHAPES, alone, build, text


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A model of several files with an index."""
    save_model(tmp_path / "model", build(SHAPES["v3"]), shard_bytes=4000)
    return tmp_path / "model"


def index_of(folder: Path) -> dict[str, str]:
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]  # type: ignore[no-any-return]


def test_a_large_model_is_cut_into_files_of_at_most_the_size_asked_for(sharded: Path) -> None:
    index = index_of(sharded)
    files = {name: load_file(sharded / name) for name in set(index.values())}
    assert len(files) > 3 and not (sharded / "model.safetensors").exists()
    for tensors in files.values():
        assert sum(t.nbytes for t in tensors.values()) <= 4000 or len(tensors) == 1
    assert {name for tensors in files.values() for name in tensors} == index.keys()


def test_a_model_in_many_files_is_the_model_in_one(sharded: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "whole", load_model(sharded))
    one, many = (load_model(place).state_dict() for place in (tmp_path / "whole", sharded))
    assert all(torch.equal(tensor, many[name]) for name, tensor in one.items())


def test_the_index_tells_the_size_of_all_tensors(sharded: Path) -> None:
    told = json.loads((sharded / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    assert told == sum(t.nbytes for name in set(index_of(sharded).values()) for t in load_file(sharded / name).values())


def test_a_missing_shard_is_named(sharded: Path) -> None:
    lost = sorted(set(index_of(sharded).values()))[1]
    (sharded / lost).unlink()
    with pytest.raises(UserError, match=lost):
        load_model(sharded)


def test_a_shard_that_lacks_what_the_index_promises_is_named(sharded: Path) -> None:
    index = index_of(sharded)
    name, file = next(iter(index.items()))
    tensors = load_file(sharded / file)
    del tensors[name]
    save_file(tensors, sharded / file)
    with pytest.raises(UserError, match=name):
        load_model(sharded)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"weight_map": {"a": "../a.safetensors"}}', '{"weight_map": {"a": 3}}']
)
def test_an_index_that_is_none_is_refused(content: str, sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=r"index\.json"):
        load_model(sharded)


def test_pickled_weights_are_refused_with_the_reason_and_the_way_out(tmp_path: Path) -> None:
    save_model(tmp_path, build(SHAPES["llama"]))
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"(?s)pytorch_model.bin.*unpickling runs.*save_pretrained"):
        load_model(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_weight_that_is_no_finite_number_is_named(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    model = build(SHAPES["qwen3"])
    with torch.no_grad():
        model.layers[1].mlp.up_proj.weight[3, 5] = value
    save_model(tmp_path, model, dtype=dtype)
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight holds values that are no finite"):
        load_model(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_model_saved_in_a_smaller_type_keeps_its_router_biases(dtype: torch.dtype, tmp_path: Path) -> None:
    save_model(tmp_path, build(SHAPES["v3"]), dtype=dtype)
    kinds = {name: tensor.dtype for name, tensor in load_tensors(tmp_path / "model.safetensors").items()}
    biases = {name for name in kinds if name.endswith("e_score_correction_bias")}
    assert biases and {kinds[name] for name in biases} == {torch.float32}
    assert {kind for name, kind in kinds.items() if name not in biases} == {dtype}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


# --- FP8 --------------------------------------------------------------------------------------------------------------


def quantised(weight_RC: torch.Tensor, block: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks scaled into e4m3 and the scale of each, block by block, as DeepSeek-V3 publishes them."""
    rows, columns = weight_RC.shape
    scales = torch.zeros(-(-rows // block), -(-columns // block))
    out = torch.zeros_like(weight_RC)
    for r in range(scales.shape[0]):
        for c in range(scales.shape[1]):
            place = (slice(r * block, (r + 1) * block), slice(c * block, (c + 1) * block))
            scales[r, c] = weight_RC[place].abs().max() / 448
            out[place] = weight_RC[place] / scales[r, c]
    return out.to(torch.float8_e4m3fn), scales


@pytest.mark.parametrize("shape", [(128, 128), (576, 256), (130, 7), (1, 129), (64, 300)])
def test_fp8_blocks_come_back_within_their_step_edges_included(shape: tuple[int, int]) -> None:
    weight_RC = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    out_RC = dequantised(*quantised(weight_RC))
    limit = weight_RC.abs().max() / 448 * 16  # e4m3: 3 bits behind the leading one, so 1/16 of the value at most
    assert out_RC.dtype == torch.float32 and float((out_RC - weight_RC).abs().max()) <= float(limit)


def test_each_block_has_its_own_scale() -> None:
    weight, scales = torch.ones(200, 300).to(torch.float8_e4m3fn), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    out = dequantised(weight, scales)
    assert [out[0, 0], out[0, 128], out[127, 299], out[128, 0], out[199, 299]] == [1, 2, 3, 4, 6]


def quantise_folder(folder: Path) -> dict[str, torch.Tensor]:
    """Rewrite a folder's linear maps as FP8 with scales in a shard of their own. Returns the values they stand for."""
    tensors = load_tensors(folder / "model.safetensors")
    values, scales = dict(tensors), {}
    for name, tensor in tensors.items():
        if name.endswith("_proj.weight") and "eh_proj" not in name:
            tensors[name], scales[f"{name}_scale_inv"] = quantised(tensor)
            values[name] = dequantised(tensors[name], scales[f"{name}_scale_inv"])
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model-00001-of-00002.safetensors")
    save_file(scales, folder / "model-00002-of-00002.safetensors")
    index = dict.fromkeys(tensors, "model-00001-of-00002.safetensors") | dict.fromkeys(
        scales, "model-00002-of-00002.safetensors"
    )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    config = json.loads((folder / "config.json").read_text())
    scheme = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": scheme}))
    return values


def test_an_fp8_checkpoint_loads_as_the_values_it_stands_for(tmp_path: Path) -> None:
    model = build(SHAPES["v3"])
    save_model(tmp_path / "fp8", model)
    values = quantise_folder(tmp_path / "fp8")
    loaded = load_model(tmp_path / "fp8")
    save_model(tmp_path / "again", loaded)
    again = load_tensors(tmp_path / "again/model.safetensors")
    assert again.keys() == values.keys() and all(torch.equal(again[name], values[name]) for name in values)
    tokens = alone(text(9))
    with torch.no_grad():
        moved = (loaded(tokens).states_BTD - model(tokens).states_BTD).abs().max()
    assert 0 < float(moved) < 2


def test_fp8_without_its_scales_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, build(SHAPES["v3"]))
    quantise_folder(tmp_path)
    scales = tmp_path / "model-00002-of-00002.safetensors"
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    kept = {name: file for name, file in index.items() if file != scales.name}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": kept}))
    with pytest.raises(UserError, match="scales"):
        load_model(tmp_path)


def test_scales_of_another_grid_are_refused() -> None:
    with pytest.raises(UserError, match="do not fit a matrix of 130 x 7"):
        dequantised(torch.ones(130, 7).to(torch.float8_e4m3fn), torch.ones(1, 1))


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    save_model(tmp_path, build(SHAPES["llama"]))
    tensors = load_tensors(tmp_path / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.norm\.weight holds I8"):
        load_model(tmp_path)


def test_names_and_shapes_are_known_before_anything_is_read(sharded: Path) -> None:
    shards = Shards(sharded)
    assert shards.shapes["model.embed_tokens.weight"] == (41, 24)
    assert shards.kinds["lm_head.weight"] == "F32"


LOADED = """
import sys
from pathlib import Path
import torch
from seekling.model.weights import load_model

def told(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024

load_model(Path(sys.argv[2]), dtype=torch.bfloat16)  # what is imported along the way is no part of the model
before = told("VmRSS")
model = load_model(Path(sys.argv[1]), dtype=torch.bfloat16)
print(told("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("held", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.soak)])
def test_loading_needs_the_model_and_one_tensor_and_no_more(tmp_path: Path, held: torch.dtype) -> None:
    """Also where the file holds another type: no second copy of the whole ever stands."""
    shape = dict(model_type="llama", num_attention_heads=8, num_key_value_heads=8, head_dim=64, num_hidden_layers=12)
    model = Decoder(ModelConfig(vocab_size=8192, hidden_size=512, intermediate_size=2048, **shape)).init_weights(0)
    sizes = [2 * weight.numel() for weight in model.parameters()]
    whole, largest = sum(sizes), max(sizes)
    save_model(tmp_path / "model", model, dtype=held, shard_bytes=2**25)
    save_model(tmp_path / "small", build(SHAPES["v3"]))
    command = [sys.executable, "-c", LOADED, str(tmp_path / "model"), str(tmp_path / "small")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert whole > 100e6
    assert 0.9 * whole < int(done.stdout) <= 1.1 * whole + 2 * largest, (
        "in the file's type a tensor may be twice as large"
    )
