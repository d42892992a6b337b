"""What can be wrong with somebody's checkpoint: each a letter on one screen, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seekling.model.exchange import config_to
from seekling.model.presets import preset
from tests.e2e.forks import Forks, Misfortune
from tests.oracles.checkpoints import publish

MANIFEST = """
name = "mine"
[[stage]]
name = "start"
kind = "import"
model = "./published"
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a sound checkpoint."""
    folder = tmp_path_factory.mktemp("sound")
    publish("qwen2", folder / "published")
    (folder / "mine.toml").write_text(MANIFEST)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy to harm."""
    return Path(shutil.copytree(published, tmp_path / "work"))


def weights(folder: Path) -> Path:
    return folder / "published/model.safetensors"


def change_config(folder: Path, **values: object) -> None:
    file = folder / "published/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_tensor(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    tensors = load_file(weights(folder))
    changed = change(tensors.pop(name))
    save_file(tensors if changed is None else tensors | {name: changed}, weights(folder), metadata={"format": "pt"})


def cut(folder: Path) -> None:
    weights(folder).write_bytes(weights(folder).read_bytes()[:-100])


def shard(folder: Path) -> None:
    """An index that names a file which is not there."""
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (folder / "published/model.safetensors.index.json").write_text(json.dumps(index))
    weights(folder).rename(folder / "published/model-00001-of-00002.safetensors")


def pickle_only(folder: Path) -> None:
    weights(folder).rename(folder / "published/pytorch_model.bin")


def shrink_embedding(folder: Path) -> None:
    """A model of fewer embeddings than the tokenizer has ids, sound in itself."""
    change_tensor(folder, "model.embed_tokens.weight", lambda table: table[:200].clone())
    change_config(folder, vocab_size=200)


NORM = "model.layers.1.input_layernorm.weight"
ENDLESS = "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}"
FAULTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a missing shard": (shard, ("model-00002-of-00002.safetensors",)),
    "a truncated file": (cut, ("model.safetensors", "cut short")),
    "only pickled weights": (pickle_only, ("pickle", "save_pretrained")),
    "a shape that contradicts the config": (
        lambda f: change_tensor(f, NORM, lambda t: t[:5].clone()), (NORM, "(5,)", "(32,)"),
    ),
    "a kind that is no weight": (lambda f: change_tensor(f, NORM, lambda t: t.to(torch.int32)), (NORM, "I32")),
    "a missing tensor": (lambda f: change_tensor(f, NORM, lambda t: None), ("missing", NORM)),
    "a weight that is not a number": (lambda f: change_tensor(f, NORM, lambda t: t * float("nan")), (NORM, "finite")),
    "a negative size": (lambda f: change_config(f, hidden_size=-32), ("hidden_size",)),
    "a huge size": (lambda f: change_config(f, num_hidden_layers=10**9), ("num_hidden_layers",)),
    "an unknown family": (lambda f: change_config(f, model_type="gpt2"), ("gpt2", "qwen2", "transformers")),
    "an unknown value": (lambda f: change_config(f, hidden_act="gelu"), ("hidden_act", "gelu", "silu")),
    "a tokenizer of another model": (shrink_embedding, ("200 embeddings", "another model")),
    "no tokenizer": (lambda f: (f / "published/tokenizer.json").unlink(), ("tokenizer.json",)),
    "no config": (lambda f: (f / "published/config.json").unlink(), ("config.json",)),
    "a config that is no JSON": (lambda f: (f / "published/config.json").write_text("{"), ("config.json",)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_cannot_be_used_is_refused_with_its_name(fault: str, folder: Path, forks: Forks) -> None:
    harm, letter = FAULTS[fault]
    harm(folder)
    ended = forks.run(["run", "mine.toml"], folder)
    assert ended.code == 2, ended.said
    assert "Traceback" not in ended.said and len(ended.err.splitlines()) < 30
    assert not [part for part in letter if part not in ended.said], ended.said


def test_a_mended_checkpoint_is_imported_by_the_same_command(folder: Path, published: Path, forks: Forks) -> None:
    cut(folder)
    assert forks.run(["run", "mine.toml"], folder).code == 2
    shutil.copy(weights(published), weights(folder))
    ended = forks.run(["run", "mine.toml"], folder)
    assert ended.code == 0, ended.said


def test_a_template_that_never_ends_is_a_letter(folder: Path, forks: Forks) -> None:
    (folder / "published/chat_template.jinja").write_text(ENDLESS)
    ended = forks.run(["ask", "./published", "2 + 2?"], folder)
    assert ended.code == 2 and "template" in ended.said and "Traceback" not in ended.said


def test_verify_names_what_failed_and_exits_with_1(folder: Path, forks: Forks) -> None:
    change_tensor(folder, NORM, lambda t: t * float("inf"))
    ended = forks.run(["verify", "./published"], folder)
    assert ended.code == 1, ended.said
    assert "FAILED" in ended.said and NORM in ended.said and "1 checks failed" in ended.said


def test_a_full_disk_while_exporting_leaves_nothing_behind(folder: Path, forks: Forks) -> None:
    before = sorted(file.name for file in folder.iterdir())
    ended = forks.run(["export", "./published", "out"], folder, Misfortune(file_bytes=40_000))
    assert ended.code == 2 and "disk is full" in ended.said, ended.said
    assert sorted(file.name for file in folder.iterdir()) == before
    assert forks.run(["export", "./published", "out"], folder).code == 0


def test_an_export_that_is_killed_leaves_no_folder_of_the_name(folder: Path, forks: Forks) -> None:
    ended = forks.run(["export", "./published", "out"], folder, Misfortune("file", 3, "before"))
    assert ended.code < 0 and not (folder / "out").exists()
    assert forks.run(["export", "./published", "out"], folder).code == 0
    assert not [file for file in folder.iterdir() if file.name.startswith(".out")]


@pytest.mark.parametrize("words", [["export", "./published", "mine.toml"], ["export", "./published", "published"]])
def test_nothing_that_exists_is_written_over(words: list[str], folder: Path, forks: Forks) -> None:
    ended = forks.run(words, folder)
    assert ended.code == 2 and "exists and is not empty" in ended.said


def test_a_model_of_671_billion_is_inspected_from_its_config_and_index_alone(tmp_path: Path, forks: Forks) -> None:
    config = config_to(preset("deepseek-v3"), "bfloat16")
    scheme = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    (tmp_path / "r1").mkdir()
    (tmp_path / "r1/config.json").write_text(
        json.dumps(config | {"quantization_config": scheme, "auto_map": {"a": "b"}})
    )
    shards = {f"model.layers.{n % 61}.part.{n}": f"model-{n % 163:05d}-of-00163.safetensors" for n in range(1000)}
    (tmp_path / "r1/model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    ended = forks.run(["inspect", "./r1"], tmp_path)
    assert ended.code == 0, ended.said
    for said in (
        "671.03B",
        "36.63B",
        "11.61B",
        "35,136",
        "8 of 256 experts",
        "4 of 8 groups",
        "yarn",
        "FP8",
        "auto_map",
    ):
        assert said in ended.said, (said, ended.said)
