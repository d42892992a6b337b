"""Self-tests pass on a sound house, and each speaks up, by name, when its fault is planted."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from seekling.engine import batch as batch_module
from seekling.engine.config import Sampling
from seekling.engine.engine import Completion, Engine, Request
from seekling.errors import SelfTestFailed
from seekling.learn import update
from seekling.learn.presets import OBJECTIVES
from seekling.model import moe
from seekling.model.attention import MultiHeadLatentAttention
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder, Hidden
from seekling.model.layers import Linear
from seekling.model.lora import LowRank, adapters, add_adapters, merged
from seekling.model.ops import Compiled, Plain
from seekling.model.pages import Chunk
from seekling.records import Kept, Problem, Stop, Verdict
from seekling.selftests import policies
from seekling.selftests.outcome import SelfTest, require
from seekling.selftests.policies import (
    of_agreement,
    of_delivery,
    of_invariance,
    of_reference,
    of_routes,
    of_stop,
    of_vocabulary,
    of_width,
)
from seekling.selftests.tasks import of_key, of_split
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


def agreement() -> list[SelfTest]:
    return of_agreement(untrained(), STOP, PROMPTS)


def failed(tests: list[SelfTest]) -> list[str]:
    return [test.name for test in tests if not test.passed]


def invariance(objective: str = "grpo") -> SelfTest:
    return of_invariance(untrained(), STOP, PROMPTS, OBJECTIVES[objective])


@pytest.mark.parametrize("name", SHAPES)
def test_a_sound_model_passes(name: str) -> None:
    model = untrained(name)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    outcomes = require(
        *of_agreement(model, STOP, PROMPTS),
        of_routes(model, STOP, PROMPTS),
        of_delivery(Engine(model, STOP), model, PROMPTS),
        of_reference(model, untrained(name), STOP, PROMPTS),
        *(of_invariance(model, STOP, PROMPTS, objective) for objective in OBJECTIVES.values()),
        *(of_stop(model, STOP, PROMPTS, objective) for objective in OBJECTIVES.values()),
    )
    assert all(outcome["passed"] for outcome in outcomes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "to the bit"


def test_a_model_of_the_presets_passes() -> None:
    tiny = ModelConfig(vocab_size=64, n_routed_experts=8, initializer_range=0.05)
    require(*of_agreement(Decoder(tiny).init_weights(0), STOP, PROMPTS))


def test_a_sound_task_passes() -> None:
    assert [o["name"] for o in require(*of_key(TASK), of_split(TASK, MIXTURE))] == [
        "answer key can be read",
        "answer key passes",
        "nonsense does not pass",
        "no held-out problem in training",
    ]


def test_the_rollouts_that_are_compared_hold_a_stop() -> None:
    """Also where the model never says the real one."""
    for stop_token in (STOP, -1):
        said = policies._said(Engine(untrained(), stop_token), PROMPTS, Sampling())
        assert any(rollout.stop is Stop.STOP for rollout in said)


# planted faults


def forgets_temperature(patch: pytest.MonkeyPatch) -> None:
    drawn = batch_module.distribution
    patch.setattr(
        batch_module, "distribution", lambda logits, s: drawn(logits, s.model_copy(update={"temperature": 1.0}))
    )


def learner_forgets_temperature(patch: pytest.MonkeyPatch) -> None:
    read = update.token_logps
    patch.setattr(update, "token_logps", lambda model, hidden, targets, _, **more: read(model, hidden, targets, **more))


def learner_forgets_what_was_kept(patch: pytest.MonkeyPatch) -> None:
    read = update.token_logps
    patch.setattr(update, "token_logps", lambda *args, **more: read(*args, **(more | {"kept": None})))


def keeps_one_token_too_many(patch: pytest.MonkeyPatch) -> None:
    """What was kept is told of the tokens' neighbours."""

    def shifted(said: Completion) -> Completion:
        kept = said.kept
        return said if kept is None else replace(said, kept=Kept(np.r_[kept.ids[1:], kept.ids[:1]], kept.ends))

    changed(patch, shifted)


def extends(patch: pytest.MonkeyPatch, change: Callable[[Chunk], Chunk]) -> None:
    """Every chunk that goes on from a cache is another one."""
    extend = Decoder.extend

    def faulty(self: Decoder, chunk: Chunk, *given: Any) -> Hidden:
        goes_on = len(chunk.tokens_N) == len(chunk.tables_BP)
        return extend(self, change(chunk) if goes_on else chunk, *given)

    patch.setattr(Decoder, "extend", faulty)


def decodes_one_position_off(patch: pytest.MonkeyPatch) -> None:
    """What is turned by a position is turned by the next one's; what is seen stays."""

    def turned(self: Decoder, chunk: Chunk, *given: Any) -> Hidden:
        rotary_TR = self.rotary_TR
        self.rotary_TR = (
            rotary_TR.roll(-1, 0).contiguous() if len(chunk.tokens_N) == len(chunk.tables_BP) else rotary_TR
        )
        try:
            return extend(self, chunk, *given)
        finally:
            self.rotary_TR = rotary_TR

    extend = Decoder.extend
    patch.setattr(Decoder, "extend", turned)


def sees_one_entry_too_few(patch: pytest.MonkeyPatch) -> None:
    extends(patch, lambda chunk: replace(chunk, positions_N=(chunk.positions_N - 1).clamp_min(0)))


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
    def louder(form: type) -> None:
        feed = form.feed  # type: ignore[attr-defined]

        def faulty(self: Any, mlp: Any, x_ND: torch.Tensor) -> Any:
            fed_ND, routing = feed(self, mlp, x_ND)
            return (fed_ND if routing is None else fed_ND * 1.1), routing

        patch.setattr(form, "feed", faulty)

    louder(Plain)
    louder(Compiled)


DISAGREEMENTS = [
    decodes_one_position_off, sees_one_entry_too_few,
    stop_without_its_logp, routes_of_the_wrong_layer, logps_shifted_by_one, experts_weigh_more_in_decoding,
]  # fmt: skip


@pytest.mark.parametrize("plant", DISAGREEMENTS, ids=lambda plant: plant.__name__)
def test_a_sampler_that_disagrees_with_the_learner_is_refused_by_name(
    plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not failed(agreement())
    plant(monkeypatch)
    with pytest.raises(SelfTestFailed, match='"sampler and learner agree" failed'):
        require(*agreement())


@pytest.mark.parametrize("plant", [forgets_temperature, learner_forgets_temperature], ids=lambda plant: plant.__name__)
def test_a_forgotten_temperature_is_refused_by_its_own_name(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert failed(agreement()) == ["temperature is accounted for"]


@pytest.mark.parametrize(
    "plant", [learner_forgets_what_was_kept, keeps_one_token_too_many], ids=lambda plant: plant.__name__
)
def test_a_truncation_that_the_learner_does_not_know_is_refused_by_its_own_name(
    plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert failed(agreement()) == ["top-p and top-k are accounted for"]


def test_a_sampler_with_a_router_of_its_own_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay hides it from the log-probabilities: they agree, and the policy is another one."""
    assert of_routes(untrained(), STOP, PROMPTS).figure == 0
    changed(monkeypatch, lambda said: replace(said, routes=(said.routes + 1) % 6))
    with pytest.raises(SelfTestFailed, match='"sampler and learner choose the same experts" failed'):
        require(of_routes(untrained(), STOP, PROMPTS))


def test_a_model_without_experts_has_no_routes_to_differ_in() -> None:
    assert of_routes(untrained("qwen3"), STOP, PROMPTS).figure == 0


def test_a_reference_that_is_another_model_is_refused_by_name() -> None:
    model, other = untrained(), untrained()
    with torch.no_grad():
        other.norm.weight[0] += 0.01
    with pytest.raises(SelfTestFailed, match='"policy begins as its reference" failed'):
        require(of_reference(model, other, STOP, PROMPTS))


def test_a_stop_that_is_masked_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = policies.text_of

    def masked(rollout: Any, **how: Any) -> Any:
        text_ = sound(rollout, **how)
        is_stop = np.asarray(text_.tokens) == rollout.tokens[-1]
        return replace(text_, weight=np.where(is_stop, 0, text_.weight).astype(np.float32))

    monkeypatch.setattr(policies, "text_of", masked)
    with pytest.raises(SelfTestFailed, match='"stop tokens carry a gradient" failed'):
        require(of_stop(untrained(), STOP, PROMPTS, OBJECTIVES["dr_grpo"]))


def test_an_engine_with_weights_of_its_own_is_refused_by_name() -> None:
    model = untrained()
    assert of_delivery(Engine(model, STOP), model, PROMPTS).passed
    with pytest.raises(SelfTestFailed, match='"engine samples from what is trained" failed'):
        require(of_delivery(Engine(deepcopy(model), STOP), model, PROMPTS))


@pytest.mark.parametrize("part", ["layers.1.self_attn", "layers.1.mlp", "embed_tokens", "norm"])
def test_an_engine_that_is_stale_in_one_part_alone_is_refused_too(part: str) -> None:
    model, stale = untrained(), untrained()
    for name, weight in model.named_parameters():
        if not name.startswith(part):
            stale.get_parameter(name).data = weight.data  # all else is shared
    assert of_delivery(Engine(stale, STOP), model, PROMPTS).figure > 0.01


def test_weights_that_begin_at_zero_are_moved_too() -> None:
    """Doubling nothing would tell nothing: the router's, say, or an adapter's."""
    model = untrained()
    for name, weight in model.named_parameters():
        weight.requires_grad_(name == "layers.0.self_attn.o_proj.weight")
    with torch.no_grad():
        model.get_parameter("layers.0.self_attn.o_proj.weight").zero_()
    assert of_delivery(Engine(model, STOP), model, PROMPTS).passed
    assert not model.get_parameter("layers.0.self_attn.o_proj.weight").any()


def test_a_teacher_of_other_words_is_refused_by_name() -> None:
    student = {"a": 0, "b": 1, "c": 2}
    assert of_vocabulary(student, student).passed
    assert of_vocabulary(student, {"a": 0, "b": 2, "d": 3}).figure == 2
    with pytest.raises(SelfTestFailed, match='"vocabularies are one" failed'):
        require(of_vocabulary(student, {"a": 1}))


def test_a_tokenizer_wider_than_its_model_is_refused_by_name() -> None:
    assert of_width({"a": 0, "b": 2}, 3).passed
    with pytest.raises(SelfTestFailed, match='"every token can be said" failed'):
        require(of_width({"a": 0, "b": 2}, 2))


@pytest.mark.parametrize("per", ["weight", "rows", "tokens"])
def test_a_loss_divided_once_per_slice_is_refused_by_name(per: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invariance().passed
    sound = update.policy_loss

    def divided(said: Any, objective: Any) -> Any:
        by = {"weight": said.weight.sum(), "rows": len(said.weight), "tokens": (said.weight > 0).sum()}[per]
        return sound(said, objective) / by

    monkeypatch.setattr(update, "policy_loss", divided)
    with pytest.raises(SelfTestFailed, match='"loss ignores slicing" failed'):
        require(invariance())


class WrongKey(Arithmetic):
    """Its key is one off in one problem of seven."""

    def check(self, problem: Problem, answer: str) -> Verdict:
        off = int(int(problem.id, 16) % 7 == 0)
        return super().check(problem, str(int(answer) + off))


def test_a_wrong_answer_key_is_refused_by_name() -> None:
    tests = of_key(WrongKey(sizes=(3,), low=1, high=20, chain_max=50))
    assert 0.05 < tests[1].figure < 0.3, "the share of wrong keys is the figure"
    with pytest.raises(SelfTestFailed, match='"answer key passes" failed'):
        require(*tests)


class AllWrong(Arithmetic):
    """Judges in vain: every answer scores 0, the key too."""

    def check(self, problem: Problem, answer: str) -> Verdict:
        return Verdict.WRONG


class AllRight(Arithmetic):
    """As peers' rewards do where the gold answer cannot be read: whatever is said is right."""

    def check(self, problem: Problem, answer: str) -> Verdict:
        return Verdict.PASS


class Unreadable(Arithmetic):
    """Its key is written in a way that its own check cannot read."""

    def draw(self, rng: Any, size: int | None = None) -> Problem:
        return replace(super().draw(rng, size), answer="twelve or so")

    def check(self, problem: Problem, answer: str) -> Verdict:
        return Verdict.WRONG if answer.isdigit() else Verdict.UNPARSED


@pytest.mark.parametrize(
    "task, name",
    [(AllWrong, "answer key passes"), (AllRight, "nonsense does not pass"), (Unreadable, "answer key can be read")],
)
def test_a_check_that_judges_in_vain_is_refused_by_name(task: type[Arithmetic], name: str) -> None:
    assert failed(of_key(task(sizes=(3,)))) == [name]


def test_a_check_that_raises_is_refused_in_its_own_words() -> None:
    class Raises(Arithmetic):
        def check(self, problem: Problem, answer: str) -> Verdict:
            raise ZeroDivisionError("no such sum")

    with pytest.raises(SelfTestFailed, match="no such sum"):
        require(*of_key(Raises()))


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
        of_delivery(Engine(model, STOP), model, PROMPTS),
        *of_agreement(model, STOP, PROMPTS),
        of_invariance(model, STOP, PROMPTS, OBJECTIVES["grpo"]),
    )
    assert all(outcome["passed"] for outcome in outcomes)


def test_what_the_test_moves_it_puts_back_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted()
    with torch.no_grad():
        for pair in adapters(model).values():
            pair.B.copy_(torch.linspace(-1, 1, pair.B.numel()).view_as(pair.B))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert of_delivery(Engine(model, STOP), model, PROMPTS).passed
    monkeypatch.setattr(Engine, "generate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        of_delivery(Engine(model, STOP), model, PROMPTS)
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
    def faulty(self: MultiHeadLatentAttention, q_NHK: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nhk,hkc->hnc", q_NHK, self._per_head(self.kv_b_proj.weight)[0])

    patch.setattr(MultiHeadLatentAttention, "_absorbed", faulty)
    return model


def absorbed_values_without_adapter(patch: pytest.MonkeyPatch, model: Decoder) -> Decoder:
    def faulty(self: MultiHeadLatentAttention, context_HNC: torch.Tensor) -> torch.Tensor:
        return torch.einsum("hnc,hkc->nhk", context_HNC, self._per_head(self.kv_b_proj.weight)[1])

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
    assert of_delivery(Engine(model, STOP), model, PROMPTS).passed
    spoken = plant(monkeypatch, model)
    with pytest.raises(SelfTestFailed, match='"engine samples from the adapters that are trained" failed'):
        require(of_delivery(Engine(spoken, STOP), model, PROMPTS))


def test_an_engine_that_would_stop_at_once_is_heard_decoding_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first token comes from the prompt's forward pass, and what decoding does wrong would go unheard."""
    model = adapted()
    everything = Engine(model, range(model.config.vocab_size))
    assert of_delivery(everything, model, PROMPTS).passed
    assert len(everything.stop_tokens) == model.config.vocab_size, "the engine itself is left as it was"
    absorbed_keys_without_adapter(monkeypatch, model)
    assert not of_delivery(everything, model, PROMPTS).passed


@pytest.mark.parametrize("plant", [engine_of_a_copy, sampler_drops_adapters], ids=lambda plant: plant.__name__)
def test_so_it_is_beside_a_bfloat16_base(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(dtype=torch.bfloat16)
    assert of_delivery(Engine(plant(monkeypatch, model), STOP), model, PROMPTS).figure > 0.7


def test_adapters_that_nothing_reads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither engine nor learner: they agree, and train what changes nothing."""
    monkeypatch.setattr(LowRank, "add", lambda self, y, x, into, out: y)
    monkeypatch.setattr(moe, "adapted", lambda x, weight, ends, pair: moe.per_expert(x, weight, ends))
    model = adapted()
    assert of_delivery(Engine(model, STOP), model, PROMPTS).figure == float("inf")


@pytest.mark.parametrize("plant", [forgets_temperature, routes_of_the_wrong_layer, logps_shifted_by_one])
def test_a_bfloat16_base_does_not_hide_a_sampler_that_disagrees(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(SHAPES["v3"])
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()
    assert not failed(of_agreement(model, STOP, PROMPTS))
    plant(monkeypatch)
    assert failed(of_agreement(model, STOP, PROMPTS))


def test_a_figure_that_is_no_number_does_not_pass() -> None:
    assert not SelfTest("any", float("nan"), 1.0, "").passed
