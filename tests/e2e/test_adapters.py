"""Stages that train adapters or parts: what they leave, that they resume to the bit, and what they refuse."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seekling.model.lora import adapters, load_adapter, merged
from seekling.model.weights import load_model
from tests.conftest import fresh_toy
from tests.e2e.forks import Forks, Misfortune
from tests.e2e.runs import assert_same_result, copied, only, stage

RUN = Path("runs/toy")
BASE = ["run", "toy.toml", "base.steps=30"]
ADAPTED = [*BASE, "tuned.adapter.rank=4", "zero.adapter.rank=4", "zero.optim.lr=0.02"]
NAME = "engine samples from the adapters that are trained"


@pytest.fixture(scope="module")
def pretrained(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model, and a manifest that goes on to fine-tuning and reinforcement."""
    folder = fresh_toy(tmp_path_factory.mktemp("pretrained") / "toy")
    whole = (folder / "toy.toml").read_text()
    only(folder, "base")
    assert forks.run(BASE, folder).code == 0
    (folder / "toy.toml").write_text(whole)
    return only(folder, "base", "tuned", "zero")


@pytest.fixture(scope="module")
def adapted(forks: Forks, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after fine-tuning and reinforcement by adapters, never interrupted."""
    folder = copied(pretrained, tmp_path_factory.mktemp("adapted") / "toy")
    ended = forks.run(ADAPTED, folder)
    assert ended.code == 0, ended.said
    return folder


def tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The exported weights of a stage."""
    return load_file(stage(folder / RUN, name).model / "model.safetensors")


def differing(folder: Path, name: str) -> set[str]:
    """Tensors in which a stage's model differs from the base."""
    before, after = tensors(folder, "base"), tensors(folder, name)
    assert before.keys() == after.keys()
    return {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}


@pytest.mark.parametrize("name", ["tuned", "zero"])
def test_an_adapted_stage_leaves_its_model_merged_and_its_adapters_beside_it(adapted: Path, name: str) -> None:
    folder = stage(adapted / RUN, name)
    base = load_model(stage(adapted / RUN, "base").model)
    model = load_adapter(folder.folder / "adapter", base)
    exported, whole = load_model(folder.model).state_dict(), merged(model).state_dict()
    assert exported.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[key]) for key, tensor in exported.items())
    assert all(bool(pair.B.any()) for key, pair in adapters(model).items() if "experts" not in key), "nothing learned"


@pytest.mark.parametrize("name", ["tuned", "zero"])
def test_what_has_no_adapter_is_the_bases_to_the_bit(adapted: Path, name: str) -> None:
    changed = differing(adapted, name)
    assert changed and all(".self_attn." in key or ".mlp." in key for key in changed)
    assert not [key for key in changed if "norm" in key or key.endswith(("mlp.gate.weight", "correction_bias"))]
    assert not [key for key in changed if key.startswith("model.layers.2.")], "the prediction layer is not trained"


def test_a_checkpoint_holds_the_adapters_and_not_the_base(adapted: Path) -> None:
    for name in ("tuned", "zero"):
        newest = sorted((stage(adapted / RUN, name).folder / "checkpoints").iterdir())[-1]
        saved = load_file(newest / "weights.safetensors")
        assert all("adapter." in key or key.endswith("correction_bias") for key in saved)
        moments = {key.rpartition("/")[0] for key in load_file(newest / "optimizer.safetensors")}
        assert moments == {key for key in saved if "adapter." in key}


@pytest.mark.parametrize("name", ["tuned", "zero"])
def test_the_start_up_check_stands_in_the_stages_facts(adapted: Path, name: str) -> None:
    (found,) = [test for test in stage(adapted / RUN, name).facts()["selftests"] if test["name"] == NAME]
    assert found["passed"] and 0 < found["figure"] < found["limit"] == 1e-3


@pytest.mark.parametrize(
    "at, number, how",
    [("checkpoint", 3, "torn"), ("export", 4, "after")]
    + [pytest.param(*point, marks=pytest.mark.soak)
       for point in (("step", 1, "before"), ("journal", 4, "torn"), ("step", 8, "after"))],
)  # fmt: skip
def test_adapted_stages_killed_anywhere_end_equal_to_the_bit(
    forks: Forks, pretrained: Path, adapted: Path, tmp_path: Path, at: str, number: int, how: str
) -> None:
    """Two steps of fine-tuning, then six of reinforcement, each moment counted over both."""
    folder = copied(pretrained, tmp_path / "toy")
    assert forks.run(ADAPTED, folder, Misfortune(at, number, how)).code == -signal.SIGKILL
    again = forks.run([*ADAPTED, "threads=2"], folder)
    assert again.code == 0, again.said
    assert_same_result(folder / RUN, adapted / RUN)
    for name in ("tuned", "zero"):
        ours, theirs = (stage(run / RUN, name).folder / "adapter" for run in (folder, adapted))
        assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in theirs.iterdir())
        assert all(p.read_bytes() == (theirs / p.name).read_bytes() for p in ours.iterdir())
        assert len([t for t in stage(folder / RUN, name).facts()["selftests"] if t["name"] == NAME]) == 1


def test_frozen_parts_are_the_bases_to_the_bit_and_the_rest_learns(
    forks: Forks, pretrained: Path, tmp_path: Path
) -> None:
    folder = copied(pretrained, tmp_path / "toy")
    parts = ['tuned.freeze=["embed_tokens", "mlp", "layers.0"]', 'zero.train=["experts", "o_proj"]']
    ended = forks.run([*BASE, *parts], folder)
    assert ended.code == 0, ended.said
    tuned, zero = differing(folder, "tuned"), differing(folder, "zero")
    assert tuned and not [key for key in tuned if "embed_tokens" in key or ".mlp." in key or "layers.0." in key]
    assert any("self_attn" in key for key in tuned) and "lm_head.weight" in tuned
    assert zero and all(".experts." in key or key.endswith("o_proj.weight") for key in zero)
    assert not (stage(folder / RUN, "zero").folder / "adapter").exists()
    for name in ("tuned", "zero"):
        newest = sorted((stage(folder / RUN, name).folder / "checkpoints").iterdir())[-1]
        assert not [key for key in load_file(newest / "weights.safetensors") if "embed_tokens" in key]


def test_the_bias_of_a_frozen_router_stays_through_pretraining(forks: Forks, tmp_path: Path) -> None:
    folder = only(fresh_toy(tmp_path / "toy"), "base")
    ended = forks.run(["run", "toy.toml", "base.steps=3", 'base.freeze=["layers.1.mlp.gate"]'], folder)
    assert ended.code == 0, ended.said
    biases = {key: bool(t.any()) for key, t in tensors(folder, "base").items() if key.endswith("correction_bias")}
    assert biases == {
        "model.layers.1.mlp.gate.e_score_correction_bias": False,
        "model.layers.2.mlp.gate.e_score_correction_bias": True,
    }


def test_a_bfloat16_base_learns_and_is_exported_in_float32(forks: Forks, pretrained: Path, tmp_path: Path) -> None:
    folder = copied(pretrained, tmp_path / "toy")
    rough = ["dtype=bfloat16", "tuned.adapter.base=bfloat16", "zero.adapter.base=bfloat16"]
    ended = forks.run([*ADAPTED, *rough], folder)
    assert ended.code == 0, ended.said
    for name in ("tuned", "zero"):
        folder_of = stage(folder / RUN, name)
        assert {tensor.dtype for tensor in tensors(folder, name).values()} == {torch.float32}
        assert json.loads((folder_of.model / "config.json").read_text())["dtype"] == "float32"
        found = {test["name"]: test for test in folder_of.facts()["selftests"]}
        assert found[NAME]["passed"] and found[NAME]["limit"] == 0.2
        halves = load_file(folder_of.folder / "adapter" / "adapter_model.safetensors")
        assert {half.dtype for half in halves.values()} == {torch.float32}
        assert any(bool(half.any()) for key, half in halves.items() if "lora_B" in key)
    assert found["sampler and learner agree"]["limit"] == 0.1


def test_a_prediction_layer_may_learn_alone_and_what_speaks_stays(
    forks: Forks, pretrained: Path, tmp_path: Path
) -> None:
    folder = copied(pretrained, tmp_path / "toy")
    ended = forks.run([*BASE, 'tuned.train=["mtp"]', "zero.steps=1"], folder)
    assert ended.code == 0, ended.said
    moved = differing(folder, "tuned")
    assert moved and all(key.startswith("model.layers.2.") for key in moved)
    for name in ("tuned", "zero"):
        figures = [record.metrics for record in stage(folder / RUN, name).metrics()]
        assert all(0 <= told["mtp_acceptance"] <= 1 and told["mtp_loss"] > 0 for told in figures), name


LETTERS = {
    'tuned.adapter={rank = 4, targets = ["q_prj"]}': ('called "q_prj"', 'Did you mean "q_proj"?'),
    "tuned.adapter={rank = 4, base = 'bfloat16'}": ("computes in float32", 'dtype = "bfloat16"'),
    'tuned.freeze=["mlp.gat"]': ('called "mlp.gat"', 'Did you mean "mlp.gate"?'),
    'tuned.freeze=["*"]': ("leave nothing to train", "Freeze less"),
    'tuned.train=["mtp"] | tuned.mtp_weight=0': ("only the prediction layer", "main layers"),
    'zero.train=["mtp"]': ("only the prediction layer", "main layers"),
}


@pytest.mark.parametrize("setting", LETTERS)
def test_what_cannot_be_trained_is_a_letter_and_no_traceback(
    forks: Forks, pretrained: Path, tmp_path: Path, setting: str
) -> None:
    ended = forks.run([*BASE, *setting.split(" | ")], copied(pretrained, tmp_path / "toy"))
    assert ended.code == 2 and "Traceback" not in ended.said
    assert all(said in ended.err for said in LETTERS[setting]), ended.err


def test_an_adapted_policy_is_evaluated_like_any_other(forks: Forks, pretrained: Path, tmp_path: Path) -> None:
    folder = copied(pretrained, tmp_path / "toy")
    evaluated = next(
        part
        for part in (fresh_toy(tmp_path / "new") / "toy.toml").read_text().split("[[stage]]")
        if "zero-eval" in part
    )
    (folder / "toy.toml").write_text((folder / "toy.toml").read_text() + "\n[[stage]]" + evaluated)
    ended = forks.run([*ADAPTED, "zero.steps=1"], folder)
    assert ended.code == 0, ended.said
    assert "pass@1" in stage(folder / RUN, "zero-eval").facts()["figures"]
