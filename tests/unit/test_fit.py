"""Predicted peaks: against what autograd keeps and what the allocator was asked for, and as laws of the settings."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from seekling.cli.fit import read_size
from seekling.engine import paged
from seekling.errors import UserError
from seekling.learn import logps, optim
from seekling.learn.batch import Text, first_fit, pack
from seekling.learn.config import Optim, Packing
from seekling.learn.lanes import ONE
from seekling.learn.optim import Optimizers
from seekling.learn.taught import States, Taught, TopK, compared, numbered, states_of, told_by
from seekling.learn.update import step, text_loss
from seekling.model import fused, kernels, pages
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder, Rows
from seekling.model.lora import add_adapters
from seekling.model.parameters import adapter_shapes, shapes
from seekling.plan import fit
from seekling.plan.fit import Sampled, Work, kept, predict
from seekling.plan.machine import GIVE_BACK, gives_back
from seekling.recipes.config import Pretrain
from seekling.recipes.fitting import COMPARED, Place, fill_of, fits, is_matrix, remedies, rows_of, work_of
from seekling.recipes.manifest import load_manifest

WIDE = dict(vocab_size=1500, hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=384,
            max_position_embeddings=128)  # fmt: skip
GROUPED = WIDE | dict(num_key_value_heads=2, head_dim=32)
LATENT = WIDE | dict(kv_lora_rank=48, q_lora_rank=40, qk_nope_head_dim=24, qk_rope_head_dim=16, v_head_dim=24)
EXPERTS = dict(n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=96)
MODELS = {
    "llama": ModelConfig(model_type="llama", **GROUPED),
    "tied qwen3": ModelConfig(model_type="qwen3", tie_word_embeddings=True, **GROUPED),
    "qwen3 experts": ModelConfig(model_type="qwen3_moe", **GROUPED, **EXPERTS),
    "latent": ModelConfig(**LATENT),
    "latent experts": ModelConfig(**LATENT, **EXPERTS),
}
TARGETS = ("self_attn", "mlp")
ROWS, LENGTH = 4, 64


def work(config: ModelConfig, *, passes: int = 1, adapter: int = 0, muon: bool = False, **more: object) -> Work:
    parameters = shapes(config)
    trained = adapter_shapes(config, adapter, TARGETS) if adapter else parameters
    of_muon = frozenset(name for name, shape in trained.items() if muon and is_matrix(name, shape))
    return Work(config, parameters, trained, of_muon, ROWS, LENGTH, passes, 1, adapted=bool(adapter), **more)  # type: ignore[arg-type]


def rows() -> Rows:
    tokens = torch.randint(0, 1500, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    return Rows(tokens, torch.arange(LENGTH).expand_as(tokens), torch.ones_like(tokens))


def kept_by(model: Decoder, dtype: torch.dtype) -> int:
    """Bytes that a forward pass keeps for the way back, weights apart."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    held: list[Tensor] = []
    cast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32, cache_enabled=False)
    with saved_tensors_hooks(note, lambda tensor: tensor), cast:
        assert model(rows()).states_BTD.requires_grad
    return sum(found.values())


@pytest.fixture(params=["compiled", "torch"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether C does what stands between products: both ways in turn."""
    if request.param == "torch":
        monkeypatch.setattr(fused, "library", lambda _: None)
    elif kernels.library("learning") is None:
        pytest.skip("no C compiler here")
    return bool(request.param == "compiled")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_kept_for_the_way_back_is_counted_to_a_few_hundredths(
    name: str, dtype: torch.dtype, compiled: bool
) -> None:
    """Masks and angles, which autograd keeps unseen, are why it may not be exact."""
    told = kept(work(MODELS[name], computed=dtype.itemsize, compiled=compiled))
    assert 1.0 <= told / kept_by(Decoder(MODELS[name]).init_weights(0), dtype) < 1.06


def asked_of_the_allocator(config: ModelConfig, setting: dict[str, object], **told: object) -> int:
    """The most bytes that stood at once in a second step, beside weights and states."""
    model = Decoder(config).init_weights(0)
    model.recomputes = bool(setting.get("recomputes"))
    if rank := int(setting.get("adapter", 0)):  # type: ignore[call-overload]
        add_adapters(model, rank=rank, scale=1.0, targets=TARGETS, seed=0)
    optimizers = Optimizers(model, Optim(matrices="muon" if setting.get("muon") else "adamw"), 4)
    batch = pack([Text(row.tolist(), np.ones(LENGTH, np.float32) / 999) for row in rows().tokens_BT], LENGTH)
    go = partial(step, model, optimizers, batch, partial(text_loss, num_rows=ROWS, **told), step_index=0,  # type: ignore[arg-type]
                 passes=int(setting.get("passes", 1)),  # type: ignore[call-overload]
                 dtype=torch.bfloat16 if setting.get("computed") == 2 else torch.float32)  # fmt: skip
    go()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        go()
    now = most = 0
    for event in seen.profiler.kineto_results.events():  # type: ignore[union-attr]
        now += event.nbytes() if event.name() == "[memory]" else 0
        most = max(most, now)
    return most


SETTINGS: dict[str, dict[str, object]] = {
    "whole": {}, "4 passes": {"passes": 4}, "checkpointed": {"recomputes": True}, "adapter": {"adapter": 4},
    "muon": {"muon": True, "passes": 4}, "bfloat16": {"computed": 2},
}  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["tied qwen3", "latent experts"])
def test_an_update_asks_for_what_was_told_or_a_little_less(name: str, setting: str, compiled: bool) -> None:
    told = work(MODELS[name], compiled=compiled, **SETTINGS[setting])  # type: ignore[arg-type]
    moments = predict(told).moments
    beside = ("weights", "optimizer states", "runtime", "kernels", "allocator", "batch")
    peak = max(sum(b for part, b in moments[m].items() if part not in beside) for m in ("update", "optimizer"))
    assert 0.96 <= peak / asked_of_the_allocator(MODELS[name], SETTINGS[setting]) < 1.15


@pytest.mark.parametrize("setting", ["whole", "4 passes", "muon"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_layer_that_looks_ahead_is_told_with_its_activations_and_states(
    apart: bool, setting: str, compiled: bool
) -> None:
    config = MODELS["latent experts"].model_copy(update={"num_nextn_predict_layers": 1})
    told = predict(work(config, ahead=True, compiled=compiled, **SETTINGS[setting])).moments  # type: ignore[arg-type]
    beside = ("weights", "optimizer states", "runtime", "kernels", "allocator", "batch")
    peak = max(sum(b for part, b in told[m].items() if part not in beside) for m in ("update", "optimizer"))
    real = asked_of_the_allocator(config, SETTINGS[setting], mtp_weight=0.1, mtp_apart=apart)
    assert 0.96 <= peak / real < 1.2
    own = sum(int(np.prod(shape)) for name, shape in shapes(config).items() if name.startswith("mtp."))
    without = predict(work(MODELS["latent experts"], **SETTINGS[setting])).moments  # type: ignore[arg-type]
    states = told["update"]["optimizer states"] - without["update"]["optimizer states"]
    assert 4 * own <= states <= 8 * own


def test_chunks_of_logits_are_bounded_as_the_loss_bounds_them() -> None:
    wide = MODELS["llama"].model_copy(update={"vocab_size": 150_000})
    asked = replace(work(wide), rows=64)
    token = 4 * 150_000
    chunk = logps.rows_per_chunk(150_000, 4, token * wide.hidden_size) * token
    assert fit.WHOLE_LOGITS == logps.CHUNK_BYTES
    assert predict(asked).moments["update"]["logits"] == pytest.approx(2.05 * chunk, rel=0.02)
    assert predict(replace(asked, rows=640)).moments["update"]["logits"] <= 2.05 * chunk


def test_constants_told_twice_are_the_same() -> None:
    assert (fit.READ_AT_ONCE, fit.PAGE) == (paged.READ_AT_ONCE, pages.SLOTS)


@pytest.mark.parametrize("name", MODELS)
def test_muon_has_what_the_optimizer_gives_it(name: str) -> None:
    model = Decoder(MODELS[name]).init_weights(0)
    for name_, weight in model.named_parameters():
        assert is_matrix(name_, tuple(weight.shape)) == optim.is_matrix(name_, weight)


# laws

SIZES = st.integers(1, 6)


@given(st.sampled_from(sorted(MODELS)), SIZES, SIZES, st.booleans(), st.sampled_from([2, 4]))
def test_more_of_anything_never_asks_for_less(name: str, count: int, passes: int, again: bool, computed: int) -> None:
    asked = replace(work(MODELS[name], recomputes=again, computed=computed), rows=8 * count, passes=passes)
    peak = predict(asked).peak
    for more in (
        replace(asked, rows=asked.rows + 8), replace(asked, row_tokens=2 * LENGTH), replace(asked, lanes=2),
        replace(asked, referenced=True),
        replace(asked, sampled=Sampled(64, 128, 2, 8, 64, 4096, 50)),
    ):  # fmt: skip
        assert predict(more).peak >= peak * 0.999


@given(st.sampled_from(sorted(MODELS)), SIZES)
def test_checkpointing_and_adapters_ask_for_less(name: str, count: int) -> None:
    asked = replace(work(MODELS[name].model_copy(update={"num_hidden_layers": 8})), rows=8 * count)
    assert predict(replace(asked, recomputes=True)).peak < predict(asked).peak
    adapted = work(MODELS[name], adapter=4)
    assert predict(adapted).peak < predict(work(MODELS[name])).peak


def test_parts_of_the_largest_moment_are_the_peak_the_largest_first() -> None:
    told = predict(work(MODELS["latent"], sampled=Sampled(512, 128, 2, 8, 64, 4096)))
    assert sum(told.parts.values()) == told.peak == max(sum(parts.values()) for parts in told.moments.values())
    assert list(told.parts.values()) == sorted(told.parts.values(), reverse=True)
    assert set(told.moments) == {"load", "update", "optimizer", "sample"}


def test_guesses_are_read_and_the_prediction_layer_has_a_cache() -> None:
    def sampling(**how: object) -> dict[str, float]:
        return predict(work(MODELS["latent"], sampled=Sampled(512, 128, 2, 8, 64, 4096, **how))).moments["sample"]  # type: ignore[arg-type]

    plain, read, ahead = sampling(), sampling(drafts=3), sampling(drafts=3, ahead=True)
    layers = MODELS["latent"].num_hidden_layers
    assert read["cache"] == plain["cache"] and read["sampling"] > 2 * plain["sampling"]
    assert ahead["cache"] == pytest.approx(plain["cache"] * (layers + 1) / layers)


def test_merging_a_large_base_can_be_the_largest_moment_of_an_adapter() -> None:
    """On an accelerator it is done beside it."""
    short = replace(work(MODELS["llama"].model_copy(update={"hidden_size": 1024}), adapter=1), rows=1, returns=True)
    assert predict(short).largest == "export"
    matrices = sum(np.prod(s) for n, s in short.parameters.items() if n.startswith("layers.") and len(s) > 1)
    assert predict(short).parts["merged"] == 4 * matrices
    assert "export" not in predict(replace(short, place="accelerator")).moments


# manifests

PLACE = Place("cpu", 2**40, 2, fill=0.9)


def test_every_stage_that_trains_is_told_and_fits_a_large_machine() -> None:
    found = list(fits(load_manifest("zero-tiny"), PLACE))
    assert [one.stage.name for one in found] == ["base", "zero", "shuffled"]
    assert all(one.fits and not one.changes for one in found)


def test_rollouts_are_taken_to_be_as_long_as_they_may_be() -> None:
    manifest = load_manifest("zero-tiny", ["zero.problems_per_step=3", "zero.rollouts_per_problem=5"])
    zero, config = manifest.stage("zero"), manifest.stage("base").model  # type: ignore[attr-defined]
    assert rows_of(zero, config, PLACE) == 15  # type: ignore[arg-type]
    assert rows_of(zero, config, replace(PLACE, prompt=4)) == 15  # type: ignore[arg-type]  # 48 + 4 of 64
    short = load_manifest("zero-tiny", ["zero.sampling.max_tokens=12", "zero.packing.row_tokens=64"]).stage("zero")
    assert rows_of(short, config, replace(PLACE, prompt=20)) == 128  # type: ignore[arg-type]  # two in a row


def test_a_step_of_several_scenarios_counts_all_and_a_reward_model_stands_beside() -> None:
    also = "all.also=[{ task='letters', problems_per_step=6, rubric={ rated=1.0 } }]"
    folder = Path(__file__).parents[1] / "e2e/manifests"
    task = f"task={{ name='{folder}/tastes.py:Tastes', part='greet' }}"
    settings = [f"base.{task}", f"rater.{task}", "all.task=arithmetic", also]
    manifest = load_manifest(str(folder / "scenes.toml"), settings)
    place = replace(PLACE, prompt=24)
    base, _, everything = fits(manifest, place)
    config, grpo = base.stage.model, everything.stage  # type: ignore[attr-defined]
    assert rows_of(grpo, config, place) == (4 + 6) * 4 // 2, "two rollouts of 48 tokens in a row of 96"
    told = everything.prediction.moments["sample"]["reward model"]
    assert told == told_alone(config) and "reward model" not in base.prediction.moments["update"]


def told_alone(config: ModelConfig) -> float:
    return 4.0 * sum(math.prod(shape) for name, shape in shapes(config).items() if not name.startswith(("lm", "mtp")))


AHEAD = {
    "base.mtp_weight=0.1": True, "base.mtp_weight=0": False, "base.freeze=['mtp']": True, "zero.mtp_weight=0.1": True,
    "zero.mtp_weight=0": False, "zero.freeze=['mtp']": False, "zero.adapter.rank=4": False,
}  # fmt: skip


@pytest.mark.parametrize("setting", AHEAD)
def test_the_prediction_layer_counts_where_it_learns(setting: str) -> None:
    manifest = load_manifest("zero-tiny", [setting])
    stage, config = manifest.stage(setting.split(".")[0]), manifest.stage("base").model  # type: ignore[attr-defined]
    told = work_of(stage, config, "float32", PLACE)  # type: ignore[arg-type]
    assert told.ahead is AHEAD[setting]
    assert any(name.startswith("mtp.") for name in told.trained) is (AHEAD[setting] and "freeze" not in setting)


def test_what_to_change_is_written_as_a_command_line_takes_it_and_each_leaves_less() -> None:
    manifest = load_manifest("zero-tiny")
    zero, config = manifest.stage("zero"), manifest.stage("base").model  # type: ignore[attr-defined]
    peaks, words = [predict(work_of(zero, config, "float32", PLACE)).peak], []  # type: ignore[arg-type]
    for more, changed in remedies(zero, config, PLACE):  # type: ignore[arg-type]
        words += more.split()
        written = load_manifest("zero-tiny", words).stage("zero")
        assert work_of(written, config, "float32", PLACE) == work_of(changed, config, "float32", PLACE)  # type: ignore[arg-type]
        peaks.append(predict(work_of(changed, config, "float32", PLACE)).peak)
    assert len(peaks) > 4 and peaks == sorted(peaks, reverse=True)
    assert words[0] == "zero.packing.checkpoint_activations=true" and words[1].startswith("zero.packing.passes=")


def test_changes_end_with_the_first_that_fits() -> None:
    whole = next(one for one in fits(load_manifest("zero-tiny"), PLACE) if one.stage.name == "zero")
    tight = replace(PLACE, memory_bytes=0.8 * whole.prediction.peak)
    found = next(one for one in fits(load_manifest("zero-tiny"), tight) if one.stage.name == "zero")
    left = [one.peak for one in found.changes.values()]
    assert not found.fits and left[-1] <= tight.memory_bytes < min([*left[:-1], whole.prediction.peak])


def test_the_share_of_rows_that_holds_text_is_drawn_and_never_below_a_half() -> None:
    base = load_manifest("zero-tiny").stage("base")
    assert isinstance(base, Pretrain)
    from seekling.recipes.pretrain import grow_tokenizer
    from seekling.tasks.registry import build_task

    grown = grow_tokenizer(build_task(base.task), base.text, 448, "fit")
    seen = {room: fill_of(base.model_copy(update={"packing": Packing(row_tokens=room)}), lambda: grown)
            for room in (40, 64, 256)}  # fmt: skip
    assert 0.5 < seen[40] < seen[64] and seen[256] > 0.8
    assert fill_of(base.model_copy(update={"task": ""}), lambda: grown) == 0.5


@given(st.lists(st.integers(2, 30), min_size=1, max_size=40))
def test_first_fit_never_leaves_two_rows_that_would_share_one(lengths: list[int]) -> None:
    filled = sorted(sum(lengths[index] for index in row) for row in first_fit(lengths, 30))
    assert len(filled) == 1 or filled[0] + filled[1] > 30


# the door


@pytest.mark.parametrize(
    ("text", "size"), [("80GiB", 80 * 2**30), ("80GB", 80e9), ("0.5 TiB", 2**39), ("24", 24 * 2**30), ("512m", 512e6)]
)
def test_an_amount_of_memory_is_read_as_people_write_it(text: str, size: float) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-3GiB", "0", "80XB", "1e9"])
def test_what_is_no_amount_of_memory_is_refused_in_words(text: str) -> None:
    with pytest.raises(UserError, match="no amount of memory"):
        read_size(text)


def told(*words: str) -> subprocess.CompletedProcess[str]:
    """The command on a machine without torch."""
    blocked = "import sys; sys.modules['torch'] = None; from seekling.cli.main import main"
    code = f"{blocked}; sys.argv[1:] = {[*words]!r}; main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_a_manifest_is_told_without_torch_and_its_exit_code_says_whether_it_fits() -> None:
    large = told("fit", "zero-tiny", "--fill", "0.9", "--device-memory", "80GiB")
    assert large.returncode == 0 and "zero fits: " in large.stdout and "activations" in large.stdout, large.stderr
    small = told("fit", "zero-tiny", "--fill", "0.9", "--device-memory", "800MiB", "zero.problems_per_step=64")
    assert small.returncode == 1 and "zero does not fit" in small.stdout
    assert "zero.packing.checkpoint_activations=true" in small.stdout
    wrong = told("fit", "zero-tiny", "--device-memory", "lots")
    assert wrong.returncode == 2 and "no amount of memory" in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_model_that_runs_through_transformers_gets_a_letter(tmp_path: Path) -> None:
    file = tmp_path / "foreign.toml"
    file.write_text(f'[[stage]]\nname = "given"\nkind = "import"\nmodel = "{tmp_path}"\nthrough = "transformers"\n')
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    assert "through transformers" in told("fit", str(file), "--device-memory", "1GiB").stderr


# the C library


def test_freed_tensors_go_back_to_the_system_once_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import torch
from bench.loading import memory
from seekling.plan.machine import give_back
give_back()
torch.ones(8), torch.ones(9).sum()
before = memory("RssAnon")
for _ in range(3):
    held = [torch.ones(2**19) for _ in range(100)]
    del held
print(memory("RssAnon") - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**24  # of 200 MiB
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    assert not gives_back()
    for value, yes in (("4096", True), (str(GIVE_BACK + 1), False), ("many", False)):
        monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", value)
        assert gives_back() is yes


def test_a_chunk_that_is_compared_asks_for_no_more_than_is_planned() -> None:
    """The most bytes of logits that stand at once, over one chunk's."""
    vocab, count = 4_000, 64
    shape = MODELS["llama"].model_copy(update={"vocab_size": vocab, "hidden_size": 16})
    student, teacher = (Decoder(shape).init_weights(seed) for seed in (0, 1))
    text = Text([5] * (count // 2), np.r_[0, np.ones(count // 2 - 1)].astype(np.float32))
    batch = numbered(pack([text, text], count // 2))
    states_MD, _ = states_of(teacher, batch, 1, ONE, torch.float32)
    with torch.no_grad():
        rows = told_by(teacher, batch, 16, vocab, 1.0)[batch.weight_BT > 0]
    tables: dict[str, Taught] = {
        "on_policy": States(states_MD, teacher.head_VD, vocab),
        "logits": TopK(rows[:, :16].int(), rows[:, 16:-1], rows[:, -1], vocab),
    }
    for method, table in tables.items():
        states_BTD = student(batch.rows).states_BTD
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            compared(student, states_BTD, batch, table)
        now = most = 0
        for event in seen.profiler.kineto_results.events():  # type: ignore[union-attr]
            now += event.nbytes() if event.name() == "[memory]" else 0
            most = max(most, now)
        chunk, head = 4 * vocab * (count - 2), student.head_VD.nbytes  # whose gradient is counted by itself
        assert 0.6 < (most - head) / chunk / COMPARED[method] <= 1.0, (method, most / chunk)
