"""Adapters and frozen parts: what is trained, what is shared, what is written, and what is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from seekling.config import parse
from seekling.errors import UserError
from seekling.learn.config import Adapter, Optim
from seekling.learn.optim import Optimizers
from seekling.learn.update import step, text_loss
from seekling.model import fused
from seekling.model.decoder import Decoder
from seekling.model.lora import (
    LowRank,
    adapters,
    add_adapters,
    keep_trained,
    load_adapter,
    matching,
    merged,
    reference_of,
    save_adapter,
    sites,
    told,
)
from seekling.model.weights import load_model, save_model
from seekling.recipes.config import Grpo, Pretrain, Sft
from tests.oracles.tiny import SHAPES, alone, build, packed, text
from tests.unit.test_optim import batch

ALL = ("self_attn", "mlp")
EVERY_SHAPE = pytest.mark.parametrize("name", SHAPES)


def adapted(name: str = "v3", *, seed: int = 1, targets: tuple[str, ...] = ALL, moved: bool = False) -> Decoder:
    model = add_adapters(build(SHAPES[name]), rank=4, scale=2.0, targets=targets, seed=seed)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for pair in adapters(model).values():
            pair.B.copy_(0.3 * torch.randn(pair.B.shape, generator=generator) * moved)
    return model


def logits(model: Decoder, length: int = 9) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(alone(text(length))).states_BTD)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- patterns ---------------------------------------------------------------------------------------------------------

NAMES = [told(name) for name, _ in build(SHAPES["v3"]).named_parameters()]


@pytest.mark.parametrize(
    "pattern, ends",
    [
        ("embed_tokens", ["embed_tokens.weight"]),
        ("mlp.gate", ["layers.1.mlp.gate.weight", "mtp.block.mlp.gate.weight"]),
        ("lm_head.weight", ["lm_head.weight"]),
        ("layers.1.mlp.experts", ["layers.1.mlp.experts.gate_up_proj", "layers.1.mlp.experts.down_proj"]),
        ("model.layers.[1-9].self_attn.q_?_proj", [f"layers.1.self_attn.q_{x}_proj.weight" for x in "ab"]),
        ("layers.0.*t_layernorm", ["layers.0.input_layernorm.weight"]),
    ],
)  # fmt: skip
def test_a_pattern_speaks_of_whole_parts_of_names(pattern: str, ends: list[str]) -> None:
    found = matching([pattern], NAMES)
    assert sorted(name.removeprefix("model.") for name in found) == sorted(ends)


@pytest.mark.parametrize(
    "pattern, hint",
    [
        ("mlp.gat", 'Did you mean "mlp.gate"?'),
        ("q_a_prj", 'Did you mean "q_a_proj"?'),
        ("self_attn.k_proj", 'Did you mean "self_attn.'),
        ("transformer.h", "Known here: "),
        ("", "Known here: "),
        ("gate_up", 'Did you mean "gate'),
    ],
)
def test_a_pattern_that_speaks_of_nothing_is_a_letter_with_what_it_may_mean(pattern: str, hint: str) -> None:
    with pytest.raises(UserError, match=f'is called "{pattern}"') as told_what:
        matching(["lm_head", pattern], NAMES)
    assert told_what.value.next_step.startswith(hint)
    assert "layers.0" not in told_what.value.next_step, "places are left out"


def test_train_and_freeze_leave_what_they_say() -> None:
    model = build(SHAPES["v3"])
    keep_trained(model, train=["self_attn", "mlp.experts"], freeze=["layers.0", "mtp"])
    left = {told(name) for name, weight in model.named_parameters() if weight.requires_grad}
    assert left == {n for n in NAMES if n.startswith("model.layers.1.") and ("self_attn" in n or "mlp.experts" in n)}
    keep_trained(model, freeze=["embed_tokens"])
    assert {told(n) for n, w in model.named_parameters() if not w.requires_grad} == {"model.embed_tokens.weight"}


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(UserError, match="nothing to train"):
        keep_trained(build(SHAPES["v3"]), train=["mtp"], freeze=["*"])


# --- settings ---------------------------------------------------------------------------------------------------------

STAGE: dict[str, Any] = {"name": "a", "from": "base", "steps": 1}


@pytest.mark.parametrize(
    "kind, settings, says",
    [
        (Pretrain, {"from": [], "adapter": {"rank": 4}}, "begins with random weights"),
        (Sft, {"adapter": {"rank": 4}, "freeze": ["mlp"]}, "leave this out"),
        (Grpo, {"adapter": {"rank": 4}, "train": ["mlp"]}, "leave this out"),
        (Sft, {"adapter": {"base": "bfloat16"}}, "set rank too"),
        (Sft, {"adapter": {"rank": -1}}, "rank"),
        (Sft, {"adapter": {"rank": 4, "targets": []}}, "targets"),
        (Sft, {"adapter": {"rnk": 4}}, "unknown setting"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(kind: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse(kind, STAGE | settings)


def test_a_stage_may_freeze_parts_or_stand_adapters_beside_them() -> None:
    assert parse(Pretrain, STAGE | {"from": [], "freeze": ["mtp"]}).freeze == ("mtp",)
    assert parse(Sft, STAGE | {"adapter": {"rank": 4}}).adapter.scale == 8
    assert Adapter(rank=16, alpha=8, rslora=True).scale == 2
    assert not parse(Grpo, STAGE).adapter.rank


# --- adapters ---------------------------------------------------------------------------------------------------------


@EVERY_SHAPE
def test_at_first_an_adapted_model_is_its_base_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, model = build(SHAPES[name]), adapted(name)
    torch.testing.assert_close(logits(base), logits(model), rtol=0, atol=1e-5)
    monkeypatch.setattr(fused, "library", lambda _: None)  # with kernels, maps without adapters are one product
    assert torch.equal(logits(base), logits(model))
    assert same(merged(model).state_dict(), base.state_dict())
    assert same(reference_of(model).state_dict(), base.state_dict())


def test_every_linear_map_of_the_main_layers_can_be_adapted_and_nothing_else() -> None:
    model = adapted()
    frozen = {told(name) for name, weight in model.named_parameters() if weight.requires_grad is False}
    beside = {told(name) for name in adapters(model)}
    assert beside <= frozen == set(NAMES)
    left = {name for name in frozen - beside if not name.startswith("mtp.")}
    assert all("norm" in n or n.endswith(("embed_tokens.weight", "lm_head.weight", "mlp.gate.weight")) for n in left)
    assert not any(name.startswith("mtp.") for name in beside)


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head", "mlp.gate", "mtp", "input_layernorm", "q_poj"])
def test_what_cannot_be_adapted_is_refused_by_name(target: str) -> None:
    with pytest.raises(UserError, match=f'is called "{target}"'):
        adapted(targets=("self_attn", target))


def test_a_draw_is_a_function_of_seed_and_name_and_of_no_other_adapter() -> None:
    few, many, other = adapted(targets=("kv_b_proj",)), adapted(), adapted(seed=2)
    for name, pair in adapters(few).items():
        assert torch.equal(pair.A, adapters(many)[name].A)
    halves = [pair.A.flatten()[0].item() for model in (many, other) for pair in adapters(model).values()]
    assert len(set(halves)) == len(halves), "two adapters share their draw"
    assert not any(pair.B.any() for pair in adapters(many).values())


def test_adapters_read_no_global_generator() -> None:
    before = torch.random.get_rng_state()
    adapted()
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_rank_of_a_stack_of_experts_is_that_of_each() -> None:
    pair = LowRank(torch.zeros(6, 16, 24), 3, 1.0)
    assert pair.A.shape == (6, 3, 24) and pair.B.shape == (6, 16, 3)


# --- sharing ----------------------------------------------------------------------------------------------------------


def places_of(model: Decoder) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in model.state_dict().items() if "adapter." not in name}


def test_the_reference_of_an_adapted_model_is_its_base_in_the_same_memory() -> None:
    model = adapted(moved=True)
    reference = reference_of(model)
    biases = {name for name, _ in model.named_buffers()}
    assert {n: p for n, p in places_of(reference).items() if n not in biases} == {
        n: p for n, p in places_of(model).items() if n not in biases
    }
    assert torch.equal(logits(reference), logits(build(SHAPES["v3"])))
    assert not any(weight.requires_grad for weight in reference.parameters())
    assert all(weight.requires_grad for pair in adapters(model).values() for weight in (pair.A, pair.B))


def test_a_reference_stands_still_while_its_model_learns() -> None:
    for freeze in ((), ("embed_tokens", "mlp")):
        model = build(SHAPES["v3"])
        keep_trained(model, freeze=freeze)
        before, reference = {n: t.clone() for n, t in model.state_dict().items()}, reference_of(model)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.1 * weight.requires_grad)
            for router in model.routers():
                router.e_score_correction_bias.add_(1)
        assert same(reference.state_dict(), before)
        shared = places_of(reference).items() & places_of(model).items()
        assert len(shared) == sum(not weight.requires_grad for weight in model.parameters())


def test_merging_leaves_the_model_as_it_was_and_copies_only_what_is_adapted() -> None:
    model = adapted(moved=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    whole = merged(model)
    assert same(model.state_dict(), before)
    changed = {name for name, place in places_of(whole).items() if places_of(model)[name] != place}
    assert changed == set(adapters(model))
    assert not adapters(whole)


# --- precision --------------------------------------------------------------------------------------------------------


def rough(name: str) -> Decoder:
    model = build(SHAPES[name])
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()
    add_adapters(model, rank=4, scale=2.0, targets=ALL, seed=1)
    return model


@EVERY_SHAPE
@pytest.mark.parametrize("autocast", [False, True])
def test_adapters_of_a_bfloat16_base_are_float32_and_learn(name: str, autocast: bool) -> None:
    model = rough(name)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        states_BTD = model(packed([[text(9, 1), text(5, 2)], [text(7, 3)]], 16)).states_BTD
        loss = model.logits(states_BTD).float().logsumexp(-1).sum()
    assert states_BTD.dtype == torch.bfloat16
    pairs = adapters(model)
    grads = torch.autograd.grad(loss, [pair.B for pair in pairs.values()])
    assert all(pair.A.dtype == pair.B.dtype == torch.float32 for pair in pairs.values())
    assert all(grad.dtype == torch.float32 and bool(grad.any()) for grad in grads)


def test_what_adapters_learned_does_not_vanish_in_a_merged_bfloat16_base() -> None:
    """A change of less than half a step of bfloat16 would be rounded away."""
    model = rough("qwen3")
    with torch.no_grad():
        for pair in adapters(model).values():
            pair.A.fill_(0.01)
            pair.B.fill_(0.001)
    whole, base = merged(model), reference_of(model)
    for name in adapters(model):
        matrix, before = whole.state_dict()[name], base.state_dict()[name]
        assert matrix.dtype == torch.float32 and not torch.equal(matrix, before.float())
        assert float((matrix.bfloat16() == before).float().mean()) > 0.5, "this test is about what rounding loses"


# --- learning ---------------------------------------------------------------------------------------------------------


def learn(model: Decoder, steps: int = 3) -> list[dict[str, float]]:
    optimizers = Optimizers(model, Optim(warmup_steps=0, lr=1e-2), steps)
    loss = partial(text_loss, num_rows=len(batch().targets_BT))
    return [step(model, optimizers, batch(), loss, step_index=index) for index in range(steps)]


@pytest.mark.parametrize("name", ["v3", "v3-groups", "llama", "qwen3"])
def test_steps_change_the_adapters_and_nothing_else(name: str) -> None:
    model = adapted(name)
    before = {n: tensor.clone() for n, tensor in model.state_dict().items()}
    figures = learn(model)
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed == {n for n, weight in model.named_parameters() if weight.requires_grad}
    assert figures[-1]["loss"] < figures[0]["loss"]


def test_a_frozen_part_stays_while_the_rest_learns() -> None:
    model = build(SHAPES["v3"])
    keep_trained(model, freeze=["embed_tokens", "mlp.gate", "layers.0", "mtp"])
    before = {n: tensor.clone() for n, tensor in model.state_dict().items()}
    learn(model)
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed == {n for n, weight in model.named_parameters() if weight.requires_grad}


# --- PEFT's folder ----------------------------------------------------------------------------------------------------


@EVERY_SHAPE
def test_a_saved_adapter_comes_back_to_the_bit_and_ready_to_learn(name: str, tmp_path: Path) -> None:
    model = adapted(name, moved=True)
    save_adapter(tmp_path, model, "somewhere")
    back = load_adapter(tmp_path, build(SHAPES[name]))
    assert same(back.state_dict(), model.state_dict())
    trained = [{n for n, weight in m.named_parameters() if weight.requires_grad} for m in (model, back)]
    assert trained[0] == trained[1]
    assert torch.equal(logits(back), logits(model))


def test_the_folder_holds_pefts_names_and_a_page(tmp_path: Path) -> None:
    save_adapter(tmp_path, adapted(moved=True), "org/base", "0123abc")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    told_config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert told_config["peft_type"] == "LORA" and told_config["task_type"] == "CAUSAL_LM"
    assert (told_config["r"], told_config["lora_alpha"], told_config["bias"]) == (4, 8, "none")
    assert (told_config["base_model_name_or_path"], told_config["revision"]) == ("org/base", "0123abc")
    assert told_config["target_modules"] == ["kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj"]
    shapes = {name: tuple(t.shape) for name, t in load_file(tmp_path / "adapter_model.safetensors").items()}
    prefix = "base_model.model.model.layers"
    assert shapes[f"{prefix}.0.self_attn.q_a_proj.lora_A.weight"] == (4, 24)
    assert shapes[f"{prefix}.0.mlp.down_proj.lora_B.weight"] == (24, 4)
    assert shapes[f"{prefix}.1.mlp.shared_experts.up_proj.lora_A.weight"] == (4, 24)
    page = (tmp_path / "README.md").read_text()
    assert "org/base" in page and "mlp.experts.down_proj" in page and "the merged model" in page
    assert "\0" not in page and not any(len(line) > 120 for line in page.splitlines() if "Adapted" not in line)


def test_targets_are_named_short_where_all_that_end_so_are_adapted(tmp_path: Path) -> None:
    save_adapter(tmp_path, adapted("qwen3", targets=("q_proj", "layers.1.self_attn.k_proj")), "base")
    told_config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert told_config["target_modules"] == ["model.layers.1.self_attn.k_proj", "q_proj"]
    assert told_config["target_parameters"] == []


def test_a_model_without_adapters_has_none_to_save(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no adapters to save"):
        save_adapter(tmp_path, build(SHAPES["qwen3"]), "base")
    assert not list(tmp_path.iterdir())


def test_adapters_of_several_ranks_are_not_written_as_one(tmp_path: Path) -> None:
    model = adapted("qwen3", targets=("q_proj",))
    layer = model.blocks[0].self_attn
    layer.q_proj.adapter = LowRank(layer.q_proj.weight, 2, 1.0)
    with pytest.raises(UserError, match="differ in rank"):
        save_adapter(tmp_path, model, "base")
    assert not list(tmp_path.iterdir())


Harm = Callable[[Path, dict[str, Any], dict[str, torch.Tensor]], None]


def told_as(**changes: Any) -> Harm:
    return lambda folder, config, tensors: config.update(changes)


def tensor_of(end: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Harm:
    def harm(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if name.endswith(end))
        tensors[name] = change(tensors[name]).contiguous()

    return harm


def renamed(old: str, new: str) -> Harm:
    def harm(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if old in name]:
            tensors[name.replace(old, new)] = tensors.pop(name)

    return harm


Q, EXPERTS = "0.self_attn.q_a_proj.lora_A.weight", "1.mlp.experts.lora_B.weight"
HARMS: dict[str, tuple[Harm, str]] = {
    "another kind": (told_as(peft_type="LOHA"), "of kind LOHA"),
    "no kind": (told_as(peft_type=None), "of kind None"),
    "dora": (told_as(use_dora=True), "use_dora is True"),
    "biases": (told_as(bias="all"), "bias is 'all'"),
    "whole modules": (told_as(modules_to_save=["lm_head"]), "modules_to_save is"),
    "another base": (told_as(init_lora_weights="pissa"), "init_lora_weights is 'pissa'"),
    "another rank": (told_as(r=8), "has rank 4; adapter_config.json says r = 8"),
    "no alpha": (told_as(lora_alpha=None), "lora_alpha = None"),
    "a rank in words": (told_as(r="four"), "says r = four"),
    "wide A": (tensor_of(Q, lambda t: torch.cat((t, t), 1)), r"A 4 x 48 and B .* do not fit a matrix of"),
    "ranks of two halves": (tensor_of(Q, lambda t: t[:3]), "do not fit"),
    "experts of another count": (tensor_of(EXPERTS, lambda t: t[:, :-1]), "do not fit a matrix of 6 x"),
    "no matrix": (tensor_of(Q, lambda t: t[0]), "no matrix of finite numbers"),
    "not a number": (tensor_of(Q, lambda t: t * float("nan")), "no matrix of finite numbers"),
    "whole numbers": (tensor_of(Q, lambda t: t.long()), "no matrix of finite numbers"),
    "a module it lacks": (renamed("0.self_attn.q_a_proj", "0.self_attn.q_proj"), "self_attn.q_proj, which this model"),
    "a layer it lacks": (renamed("layers.1.", "layers.7."), "layers.7.*which this model"),
    "half a pair": (renamed("0.self_attn.q_a_proj.lora_A", "7.lora_A"), "only one half"),
    "a magnitude": (renamed("q_a_proj.lora_A.weight", "q_a_proj.lora_magnitude_vector"), "no half of a low-rank pair"),
    "an embedding": (renamed("0.self_attn.q_a_proj.lora_A.weight", "0.lora_embedding_A"), "no half of a low-rank pair"),
    "nothing": (lambda folder, config, tensors: tensors.clear(), "holds no adapters"),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_an_adapter_that_cannot_be_used_is_refused_and_the_model_left_alone(harm: str, tmp_path: Path) -> None:
    save_adapter(tmp_path, adapted(moved=True), "base")
    told_config = json.loads((tmp_path / "adapter_config.json").read_text())
    tensors, (change, says) = load_file(tmp_path / "adapter_model.safetensors"), HARMS[harm]
    change(tmp_path, told_config, tensors)
    (tmp_path / "adapter_config.json").write_text(json.dumps(told_config))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    model = build(SHAPES["v3"])
    with pytest.raises(UserError, match=says):
        load_adapter(tmp_path, model)
    assert not adapters(model) and all(weight.requires_grad for weight in model.parameters())


def test_missing_damaged_and_pickled_files_are_letters(tmp_path: Path) -> None:
    model = build(SHAPES["v3"])
    with pytest.raises(UserError, match=r"adapter_config.json is missing"):
        load_adapter(tmp_path, model)
    save_adapter(tmp_path, adapted(moved=True), "base")
    weights = tmp_path / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    with pytest.raises(UserError, match="damaged or cut short"):
        load_adapter(tmp_path, model)
    weights.unlink()
    with pytest.raises(UserError, match=r"adapter_model\.safetensors is missing"):
        load_adapter(tmp_path, model)
    (tmp_path / "adapter_model.bin").write_bytes(whole)
    with pytest.raises(UserError, match="pickled"):
        load_adapter(tmp_path, model)
    (tmp_path / "adapter_config.json").write_text("[1]")
    with pytest.raises(UserError, match="does not hold a table"):
        load_adapter(tmp_path, model)


def test_a_model_with_adapters_takes_no_others(tmp_path: Path) -> None:
    model = adapted(moved=True)
    save_adapter(tmp_path, model, "base")
    with pytest.raises(UserError, match="has adapters already"):
        load_adapter(tmp_path, model)


def test_an_adapter_loads_onto_a_bfloat16_base_as_float32(tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", adapted(moved=True), "base")
    save_model(tmp_path / "base", build(SHAPES["v3"]))
    model = load_adapter(tmp_path / "adapter", load_model(tmp_path / "base", dtype=torch.bfloat16))
    assert all(pair.A.dtype == torch.float32 for pair in adapters(model).values())
    assert logits(model).dtype == torch.bfloat16 and len(sites(model)) > 0
