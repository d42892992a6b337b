"""Self-tests pass on a sound house, and each speaks up, by name, when its fault is planted."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from seekling import selftests
from seekling.engine import engine as engine_module
from seekling.engine.config import Sampling
from seekling.engine.engine import Completion, Engine, Request
from seekling.errors import SelfTestFailed
from seekling.learn import update
from seekling.learn.presets import OBJECTIVES
from seekling.model import moe
from seekling.model.attention import MultiHeadLatentAttention
from seekling.model.cache import Cache
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.layers import Linear
from seekling.model.lora import LowRank, adapters, add_adapters, merged
from seekling.model.moe import DeepSeekMoE
from seekling.records import Problem, Stop, Verdict
from seekling.selftests import of_adapter, of_agreement, of_invariance, of_split, of_task, require
from seekling.tasks import corpus
from seekling.tasks.arithmetic import Arithmetic
from seekling.tasks.corpus import Mixture
from tests.oracles.tiny import SHAPES, build, text

STOP = 3
PROMPTS = [tuple(text(4 + i % 3, i)) for i in range(8)]
TASK = Arithmetic(sizes=(3, 4), low=1, high=20, chain_max=50)
MIXTURE = Mixture(qualities={"expert": 1.0})


def untrained(name: str = "v3") -> Decoder:
    """As a stage finds it: initial weights of ordinary size."""
    return Decoder(SHAPES[name].model_copy(update={"initializer_range": 0.05})).init_weights(0)


def agreement() -> selftests.SelfTest:
    return of_agreement(untrained(), STOP, PROMPTS)


def invariance(objective: str = "grpo") -> selftests.SelfTest:
    return of_invariance(untrained(), STOP, PROMPTS, OBJECTIVES[objective])


@pytest.mark.parametrize("name", SHAPES)
def test_a_sound_model_passes(name: str) -> None:
    model = untrained(name)
    outcomes = require(
        of_agreement(model, STOP, PROMPTS),
        *(of_invariance(model, STOP, PROMPTS, objective) for objective in OBJECTIVES.values()),
    )
    assert all(outcome["passed"] for outcome in outcomes)


def test_a_model_of_the_presets_passes() -> None:
    tiny = ModelConfig(vocab_size=64, n_routed_experts=8, initializer_range=0.05)
    require(of_agreement(Decoder(tiny).init_weights(0), STOP, PROMPTS))


def test_a_sound_task_passes() -> None:
    assert [o["name"] for o in require(of_task(TASK), of_split(TASK, MIXTURE))] == [
        "answer key passes",
        "no held-out problem in training",
    ]


def test_the_rollouts_that_are_compared_hold_a_stop() -> None:
    """Also where the model never says the real one."""
    for stop_token in (STOP, -1):
        said = selftests._sample(untrained(), stop_token, PROMPTS)
        assert any(completion.stop is Stop.STOP for completion in said)


# planted faults


def forgets_temperature(patch: pytest.MonkeyPatch) -> None:
    drawn = engine_module.distribution
    patch.setattr(
        engine_module, "distribution", lambda logits, s: drawn(logits, s.model_copy(update={"temperature": 1.0}))
    )


def learner_forgets_temperature(patch: pytest.MonkeyPatch) -> None:
    read = update.token_logps
    patch.setattr(selftests, "token_logps", lambda model, hidden, targets, *_: read(model, hidden, targets))


def decodes_one_position_off(patch: pytest.MonkeyPatch) -> None:
    decode = Decoder.decode
    patch.setattr(Decoder, "decode", lambda self, tokens, positions, c: decode(self, tokens, positions + 1, c))


def sees_one_entry_too_few(patch: pytest.MonkeyPatch) -> None:
    views = Cache.views

    def short(self: Cache, lengths_B: torch.Tensor, longest: int) -> Any:
        seen = views(self, lengths_B, longest)
        for view in seen:
            view.bias_B1T[:, 0, 0] = float("-inf")
        return seen

    patch.setattr(Cache, "views", short)


def changed(patch: pytest.MonkeyPatch, change: Any) -> None:
    generate = Engine.generate

    def faulty(self: Engine, requests: list[Request], sampling: Sampling) -> list[Completion]:
        return [change(said) for said in generate(self, requests, sampling)]

    patch.setattr(Engine, "generate", faulty)


def stop_without_its_logp(patch: pytest.MonkeyPatch) -> None:
    def silent(said: Completion) -> Completion:
        return replace(said, logps=np.r_[said.logps[:-1], np.float32(0)]) if said.stop is Stop.STOP else said

    changed(patch, silent)


def routes_of_the_wrong_layer(patch: pytest.MonkeyPatch) -> None:
    changed(patch, lambda said: replace(said, routes=(said.routes + 1) % 6))


def logps_shifted_by_one(patch: pytest.MonkeyPatch) -> None:
    changed(patch, lambda said: replace(said, logps=np.roll(said.logps, 1)))


def experts_weigh_more_in_decoding(patch: pytest.MonkeyPatch) -> None:
    forward = DeepSeekMoE.forward

    def faulty(self: DeepSeekMoE, x_ND: torch.Tensor, replay_NA: torch.Tensor | None = None) -> Any:
        out, routing = forward(self, x_ND, replay_NA)
        return (out if replay_NA is not None else out * 1.1), routing

    patch.setattr(DeepSeekMoE, "forward", faulty)


DISAGREEMENTS = [
    forgets_temperature, learner_forgets_temperature, decodes_one_position_off, sees_one_entry_too_few,
    stop_without_its_logp, routes_of_the_wrong_layer, logps_shifted_by_one, experts_weigh_more_in_decoding,
]  # fmt: skip


@pytest.mark.parametrize("plant", DISAGREEMENTS, ids=lambda plant: plant.__name__)
def test_a_sampler_that_disagrees_with_the_learner_is_refused_by_name(
    plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert agreement().passed
    plant(monkeypatch)
    with pytest.raises(SelfTestFailed, match='"sampler and learner agree" failed'):
        require(agreement())


@pytest.mark.parametrize("per", ["weight", "rows", "tokens"])
def test_a_loss_divided_once_per_slice_is_refused_by_name(per: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invariance().passed
    sound = update.policy_loss

    def divided(logp: Any, behaviour: Any, advantage: Any, weight: Any, *rest: Any) -> Any:
        by = {"weight": weight.sum(), "rows": len(weight), "tokens": (weight > 0).sum()}[per]
        return sound(logp, behaviour, advantage, weight, *rest) / by

    monkeypatch.setattr(update, "policy_loss", divided)
    with pytest.raises(SelfTestFailed, match='"loss ignores slicing" failed'):
        require(invariance())


class WrongKey(Arithmetic):
    """Its key is one off in one problem of seven."""

    def check(self, problem: Problem, answer: str) -> Verdict:
        off = int(int(problem.id, 16) % 7 == 0)
        return super().check(problem, str(int(answer) + off))


def test_a_wrong_answer_key_is_refused_by_name() -> None:
    test = of_task(WrongKey(sizes=(3,), low=1, high=20, chain_max=50))
    assert 0.05 < test.figure < 0.3, "the share of wrong keys is the figure"
    with pytest.raises(SelfTestFailed, match='"answer key passes" failed'):
        require(test)


def test_a_check_that_raises_is_refused_in_its_own_words() -> None:
    class Raises(Arithmetic):
        def check(self, problem: Problem, answer: str) -> Verdict:
            raise ZeroDivisionError("no such sum")

    with pytest.raises(SelfTestFailed, match="no such sum"):
        require(of_task(Raises()))


def test_a_split_that_leaks_into_the_text_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the task: the leak shows though no problem is met twice."""
    large = Arithmetic(sizes=(8,), low=1, high=1000, chain_max=9999)
    assert of_split(large, MIXTURE).passed
    monkeypatch.setattr(corpus, "split_of", lambda problem_id: "train")
    with pytest.raises(SelfTestFailed, match='"no held-out problem in training" failed'):
        require(of_split(large, MIXTURE))


class TwoNames(Arithmetic):
    """Gives one and the same problem two ids, one on each side."""

    def draw(self, rng: Any, size: int | None = None) -> Problem:
        problem = super().draw(rng, size)
        return replace(problem, id=f"{rng.getrandbits(64):016x}")


def test_a_problem_with_two_ids_is_refused_by_name() -> None:
    with pytest.raises(SelfTestFailed, match='"no held-out problem in training" failed'):
        require(of_split(TwoNames(sizes=(2,), low=1, high=9, chain_max=20)))


# adapters


def adapted(name: str = "v3", dtype: torch.dtype = torch.float32) -> Decoder:
    model = untrained(name)
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return add_adapters(model, rank=4, scale=2.0, targets=("self_attn", "mlp"), seed=1)


PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@PRECISIONS
@pytest.mark.parametrize("name", SHAPES)
def test_a_sound_adapted_model_passes(name: str, dtype: torch.dtype) -> None:
    model = adapted(name, dtype)
    outcomes = require(
        of_adapter(Engine(model, STOP), model, PROMPTS),
        of_agreement(model, STOP, PROMPTS),
        of_invariance(model, STOP, PROMPTS, OBJECTIVES["grpo"]),
    )
    assert all(outcome["passed"] for outcome in outcomes)


def test_what_the_test_moves_it_puts_back_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted()
    with torch.no_grad():
        for pair in adapters(model).values():
            pair.B.copy_(torch.linspace(-1, 1, pair.B.numel()).view_as(pair.B))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert of_adapter(Engine(model, STOP), model, PROMPTS).passed
    monkeypatch.setattr(Engine, "generate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        of_adapter(Engine(model, STOP), model, PROMPTS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def engine_of_a_copy(patch: pytest.MonkeyPatch, model: Decoder) -> Decoder:
    return deepcopy(model)


def engine_of_a_merged_copy(patch: pytest.MonkeyPatch, model: Decoder) -> Decoder:
    return merged(model)


def sampler_drops_adapters(patch: pytest.MonkeyPatch, model: Decoder) -> Decoder:
    """As a decoding kernel that knows the base alone would."""
    forward = Linear.forward

    def faulty(self: Linear, x: torch.Tensor) -> torch.Tensor:
        y = forward(self, x)
        return torch.nn.functional.linear(x, self.weight, self.bias) if torch.is_inference_mode_enabled() else y

    patch.setattr(Linear, "forward", faulty)
    return model


def absorbed_keys_without_adapter(patch: pytest.MonkeyPatch, model: Decoder) -> Decoder:
    def faulty(self: MultiHeadLatentAttention, q_BHK: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bhk,hkc->bhc", q_BHK, self._per_head(self.kv_b_proj.weight)[0])

    patch.setattr(MultiHeadLatentAttention, "_absorbed", faulty)
    return model


def absorbed_values_without_adapter(patch: pytest.MonkeyPatch, model: Decoder) -> Decoder:
    def faulty(self: MultiHeadLatentAttention, context_BHC: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bhc,hkc->bhk", context_BHC, self._per_head(self.kv_b_proj.weight)[1])

    patch.setattr(MultiHeadLatentAttention, "_unfolded", faulty)
    return model


def experts_without_adapters_in_decoding(patch: pytest.MonkeyPatch, model: Decoder) -> Decoder:
    sound = moe.adapted

    def faulty(x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor, pair: LowRank | None) -> torch.Tensor:
        return sound(x, weight, ends, None if torch.is_inference_mode_enabled() else pair)

    patch.setattr(moe, "adapted", faulty)
    return model


STALE = [
    engine_of_a_copy, engine_of_a_merged_copy, sampler_drops_adapters, absorbed_keys_without_adapter,
    absorbed_values_without_adapter, experts_without_adapters_in_decoding,
]  # fmt: skip


@pytest.mark.parametrize("plant", STALE, ids=lambda plant: plant.__name__)
def test_an_engine_without_the_trained_adapters_is_refused_by_name(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted()
    assert of_adapter(Engine(model, STOP), model, PROMPTS).passed
    spoken = plant(monkeypatch, model)
    with pytest.raises(SelfTestFailed, match='"adapters change what the engine samples from" failed'):
        require(of_adapter(Engine(spoken, STOP), model, PROMPTS))


def test_an_engine_that_would_stop_at_once_is_heard_decoding_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first token comes from the prompt's forward pass, and what decoding does wrong would go unheard."""
    model = adapted()
    everything = Engine(model, range(model.config.vocab_size))
    assert of_adapter(everything, model, PROMPTS).passed
    assert len(everything.stop_tokens) == model.config.vocab_size, "the engine itself is left as it was"
    absorbed_keys_without_adapter(monkeypatch, model)
    assert not of_adapter(everything, model, PROMPTS).passed


@pytest.mark.parametrize("plant", [engine_of_a_copy, sampler_drops_adapters], ids=lambda plant: plant.__name__)
def test_so_it_is_beside_a_bfloat16_base(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(dtype=torch.bfloat16)
    assert of_adapter(Engine(plant(monkeypatch, model), STOP), model, PROMPTS).figure > 0.7


def test_adapters_that_nothing_reads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither engine nor learner: they agree, and train what changes nothing."""
    monkeypatch.setattr(LowRank, "add", lambda self, y, x, into, out: y)
    monkeypatch.setattr(moe, "adapted", lambda x, weight, ends, pair: moe.per_expert(x, weight, ends))
    model = adapted()
    assert of_adapter(Engine(model, STOP), model, PROMPTS).figure == float("inf")


def test_a_model_without_adapters_does_not_pass_for_an_adapted_one() -> None:
    model = untrained()
    assert not of_adapter(Engine(model, STOP), model, PROMPTS).passed


@pytest.mark.parametrize("plant", [forgets_temperature, routes_of_the_wrong_layer, logps_shifted_by_one])
def test_a_bfloat16_base_does_not_hide_a_sampler_that_disagrees(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(SHAPES["v3"])
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()
    assert of_agreement(model, STOP, PROMPTS).passed
    plant(monkeypatch)
    assert not of_agreement(model, STOP, PROMPTS).passed


def test_a_figure_that_is_no_number_does_not_pass() -> None:
    assert not selftests.SelfTest("any", float("nan"), 1.0, "").passed
