"""A model of transformers that cannot or may not be run is refused in a letter; others are counted and saved whole."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from seekling.engine.config import Sampling
from seekling.engine.engine import Request
from seekling.engine.foreign import ForeignEngine
from seekling.errors import UserError
from seekling.model import foreign as module
from seekling.model.foreign import MARK, Foreign, is_foreign, load_foreign, mark_foreign, save_foreign

CONFIG = dict(vocab_size=41, n_embd=24, n_layer=2, n_head=3, n_positions=48, bos_token_id=1, eos_token_id=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny random gpt2 as transformers saves it."""
    GPT2LMHeadModel(GPT2Config(**CONFIG)).save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def rewrite(file: Path, **change: Any) -> None:
    told = json.loads(file.read_text()) | change
    file.write_text(json.dumps({name: value for name, value in told.items() if value is not None}))


def refused(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        load_foreign(folder, warn=pytest.fail)
    return caught.value


# --- what is loaded ---------------------------------------------------------------------------------------------------


def test_a_foreign_model_answers_what_the_loops_ask_of_a_decoder(folder: Path) -> None:
    model = load_foreign(folder, warn=pytest.fail)
    shape = model.config
    assert (shape.model_type, shape.vocab_size, shape.hidden_size, shape.max_position_embeddings) == (
        "gpt2",
        41,
        24,
        48,
    )
    assert (list(shape.moe_layers), shape.n_routed_experts, shape.num_nextn_predict_layers) == ([], None, 0)
    assert model.mtp is None and model.routers() == []
    assert model.embed_tokens.weight.shape == (41, 24)
    assert all(name.startswith("net.") for name, _ in model.named_parameters())
    assert not model.training


def test_flops_are_counted_by_parameters_alone(folder: Path) -> None:
    model = load_foreign(folder)
    count = sum(weight.numel() for weight in model.parameters())
    assert model.config.num_parameters == count
    assert model.config.flops_per_token(training=False) == 2 * count
    assert model.config.flops_per_token(training=True) == 6 * count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_held_in_the_precision_that_is_asked_for(folder: Path, dtype: torch.dtype) -> None:
    model = load_foreign(folder, dtype=dtype, warn=pytest.fail)
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    said = ForeignEngine(model, 2).generate([Request((3, 4, 5), 0)], Sampling(max_tokens=4))
    assert said[0].logps.dtype == "float32"


def test_transformers_is_imported_only_for_a_foreign_model() -> None:
    code = """
import importlib, pkgutil, sys, seekling
for found in pkgutil.walk_packages(seekling.__path__, "seekling."):
    importlib.import_module(found.name)
assert "torch" in sys.modules
print("transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "False", done.stderr


# --- what is refused --------------------------------------------------------------------------------------------------


def test_without_transformers_the_letter_says_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    letter = refused(folder)
    assert "needs transformers" in letter.what
    assert letter.next_step == "Run: .venv/bin/pip install -e '.[hf]'"


def test_a_transformers_too_old_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "4.57.1")
    assert "transformers 5 or newer, not 4.57.1" in refused(folder).what


def test_a_model_that_wants_its_own_code_is_refused_and_the_code_does_not_run(folder: Path, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(witness)!r}, 'w')\n")
    own = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    rewrite(folder / "config.json", model_type="own", auto_map=own)
    assert "a stranger's code is never run here" in refused(folder).what
    assert not witness.exists()


def test_a_built_in_class_is_taken_where_the_folder_offers_code_too(folder: Path, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(witness)!r}, 'w')\n")
    rewrite(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_own.Model"})
    heard: list[str] = []
    assert load_foreign(folder, warn=heard.append).net.__class__ is GPT2LMHeadModel
    assert not witness.exists()
    assert ["auto_map" in note for note in heard] == [True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "unheard_of"}, "knows no model of type 'unheard_of'"),
        ({"model_type": None}, "knows no model of type None"),
        ({"model_type": ["gpt2"]}, "knows no model of type"),
        ({"model_type": "vit"}, "vit is no causal language model"),
        ({"n_head": 5}, "cannot run the model"),
        ({"n_embd": 48}, "cannot run the model"),
        ({"n_layer": 3}, "missing transformer.h.2"),
    ],
)
def test_a_config_that_cannot_be_served_is_refused(folder: Path, change: dict[str, Any], words: str) -> None:
    rewrite(folder / "config.json", **change)
    assert words in refused(folder).what


def test_only_pickled_weights_are_refused_with_the_reason(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\\x80\\x04.")
    assert "only pickled weights (pytorch_model.bin)" in refused(folder).what


def test_weights_that_are_cut_short_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "damaged or cut short" in refused(folder).what


def test_no_weight_is_ever_drawn_at_random(folder: Path) -> None:
    """The library would fill in what is missing, and only mention it."""
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.1.attn.c_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "missing transformer.h.1.attn.c_proj.weight" in refused(folder).what


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.ln_f.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "transformer.ln_f.weight holds values that are no finite numbers" in refused(folder).what


def test_quantised_weights_are_refused() -> None:
    net = torch.nn.Module()
    net.packed = torch.nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UserError, match="packed in here is quantised"):
        module._refuse_weights(Path("here"), net, {"missing_keys": (), "mismatched_keys": ()})


def test_tensors_that_nothing_reads_are_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors") | {"value_head.weight": torch.zeros(3)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    heard: list[str] = []
    load_foreign(folder, warn=heard.append)
    assert [note for note in heard if "value_head.weight" in note] == heard and len(heard) == 1


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    assert "config.json is missing" in refused(tmp_path / "nowhere").what


# --- what is saved ----------------------------------------------------------------------------------------------------


def test_a_folder_tells_its_next_reader_to_use_transformers(folder: Path, tmp_path: Path) -> None:
    assert not is_foreign(folder)
    mark_foreign(folder)
    assert is_foreign(folder)
    save_foreign(tmp_path / "saved", load_foreign(folder))
    assert is_foreign(tmp_path / "saved")
    assert {file.name for file in (tmp_path / "saved").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", MARK,
    }  # fmt: skip


@pytest.mark.parametrize("through", ["seekling", None])
def test_a_mark_that_says_otherwise_is_no_mark(folder: Path, through: str | None) -> None:
    (folder / MARK).write_text(json.dumps({"through": through}))
    assert not is_foreign(folder)


def test_generation_settings_are_written_back_as_they_stood(folder: Path, tmp_path: Path) -> None:
    """Published ones hold what the library reads and will not write."""
    told = {"do_sample": False, "temperature": 0.6, "top_p": 0.95, "eos_token_id": [2, 7]}
    (folder / "generation_config.json").write_text(json.dumps(told))
    model = load_foreign(folder)
    model.net.generation_config.validate(strict=True)
    save_foreign(tmp_path / "saved", model)
    assert json.loads((tmp_path / "saved/generation_config.json").read_text()) == told


def test_a_large_model_is_saved_in_several_files(folder: Path, tmp_path: Path) -> None:
    model = load_foreign(folder)
    save_foreign(tmp_path / "saved", model, shard_bytes=20_000)
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 2
    again = load_foreign(tmp_path / "saved").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O: No space left (os error 28)")]
)
def test_on_a_full_disk_nothing_half_written_stays(
    folder: Path, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, saved = load_foreign(folder), tmp_path / "saved"

    def full(beside: Path, **_: Any) -> None:
        (beside / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(model.net, "save_pretrained", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_foreign(saved, model)
    assert not list(saved.iterdir())


def test_a_cache_that_forgets_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library returns is believed only as far as it was tried."""
    net, forward = GPT2LMHeadModel.from_pretrained(folder), GPT2LMHeadModel.forward

    @wraps(forward)
    def forgetful(self: Any, input_ids: torch.Tensor, past_key_values: Any = None, **more: Any) -> Any:
        out = forward(self, input_ids=input_ids, past_key_values=past_key_values, **more)
        if past_key_values is not None:
            out.logits = out.logits + 1.0
        return out

    monkeypatch.setattr(GPT2LMHeadModel, "forward", forgetful)
    model = Foreign(net)
    assert not model.caches and "no cache" in model.notes[0]
