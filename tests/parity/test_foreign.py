"""Models run through transformers, most of families we do not build: against the library itself and our own engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    MambaConfig,
    MixtralConfig,
    OlmoeConfig,
    OpenAIGPTConfig,
    Phi3Config,
    RobertaConfig,
    RwkvConfig,
)

from seekling.engine.config import Sampling
from seekling.engine.engine import Banned, Completion, Engine, Inserted, Request
from seekling.engine.foreign import ForeignEngine, engine_for
from seekling.engine.sampler import seed_of
from seekling.errors import UserError
from seekling.learn.batch import Text, pack
from seekling.learn.config import Optim
from seekling.learn.lanes import Lanes
from seekling.learn.optim import Optimizers
from seekling.learn.presets import OBJECTIVES
from seekling.learn.update import step, text_loss, token_logps
from seekling.model.foreign import Foreign, load_foreign, save_foreign
from seekling.model.weights import load_model
from seekling.recipes.checkpoint import restore, save_checkpoint
from seekling.records import Stop
from seekling.selftests.outcome import require
from seekling.selftests.policies import of_agreement, of_invariance
from tests.oracles import families
from tests.oracles.tiny import V, alone, packed, text

CONTEXT = 48
IDS = dict(vocab_size=V, bos_token_id=1, eos_token_id=None, pad_token_id=0)
LLAMA_LIKE = IDS | dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=20,
    max_position_embeddings=CONTEXT,
)  # fmt: skip
LONG = {"rope_type": "longrope", "rope_theta": 100.0, "short_factor": [1.0, 1.1, 1.2], "long_factor": [2.0, 2.5, 3.0],
        "original_max_position_embeddings": 24}  # fmt: skip

MAKERS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2Config(**IDS, n_embd=24, n_layer=2, n_head=3, n_positions=CONTEXT),
    "gpt_neox": lambda: GPTNeoXConfig(
        **IDS, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        max_position_embeddings=CONTEXT,
    ),
    "gemma2": lambda: Gemma2Config(
        **LLAMA_LIKE, head_dim=6, sliding_window=4, final_logit_softcapping=2.0, attn_logit_softcapping=3.0
    ),
    "granite": lambda: GraniteConfig(**LLAMA_LIKE, logits_scaling=3.0, embedding_multiplier=2.0),
    "phi3": lambda: Phi3Config(**LLAMA_LIKE, sliding_window=5),
    "mixtral": lambda: MixtralConfig(**LLAMA_LIKE, num_local_experts=4),
    "olmoe": lambda: OlmoeConfig(**LLAMA_LIKE, num_experts=5, num_experts_per_tok=2),
    "bloom": lambda: BloomConfig(**IDS, hidden_size=24, n_layer=2, n_head=4),  # no positions, no longest text
    "mamba": lambda: MambaConfig(**IDS, hidden_size=24, num_hidden_layers=2, state_size=4),
    "openai-gpt": lambda: OpenAIGPTConfig(**IDS, n_embd=24, n_layer=2, n_head=3, n_positions=CONTEXT),  # no cache
    "rwkv": lambda: RwkvConfig(**IDS, hidden_size=24, attention_hidden_size=24, num_hidden_layers=2),  # nor padding
}  # fmt: skip
STOP, STOPS = 3, (3, 5, 9, 17, 30)
KINDS = pytest.mark.parametrize("kind", MAKERS)


def random_model(config: Any) -> Any:
    """A model of transformers, every tensor drawn anew, so that no neutral element hides anything."""
    net = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1 and not name.endswith("A_log"):
                weight.copy_(0.25 * drawn)
            else:
                weight.add_(0.1 * drawn)
    net.tie_weights()
    return net


def foreign(kind: str) -> Foreign:
    return Foreign(random_model(MAKERS[kind]()))


def ask(count: int, prompts: int = 5) -> list[Request]:
    """Requests over a few prompts of different lengths, each with its own seed."""
    return [Request(tuple(text(2 + i % prompts, i % prompts)), seed_of("test", i)) for i in range(count)]


def logits_alone(net: Any, tokens: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return net(input_ids=torch.tensor([tokens])).logits[0]


# --- the forward pass -------------------------------------------------------------------------------------------------


@KINDS
def test_packed_rows_read_each_text_as_it_reads_alone(kind: str) -> None:
    model = foreign(kind)
    texts = [text(length, length) for length in (19, 3, 9, 2, 1, 11, 17)]
    rows = packed([texts[:2], texts[2:6], texts[6:]], 26)
    with torch.no_grad():
        hidden = model(rows)
        logits_BTV = model.logits(hidden.states_BTD)
    assert not hidden.routings
    ends = {row: np.cumsum([len(t) for t in members]) for row, members in enumerate((texts[:2], texts[2:6], texts[6:]))}
    for tokens, (row, end) in zip(
        texts, [(row, end) for row, row_ends in ends.items() for end in row_ends], strict=True
    ):
        truth_TV = logits_alone(model.net, tokens)
        found_TV = logits_BTV[row, end - len(tokens) : end]
        torch.testing.assert_close(found_TV, truth_TV, rtol=0, atol=1e-5 * float(truth_TV.abs().max()))


@KINDS
def test_the_loss_is_the_librarys_own(kind: str) -> None:
    model, texts = foreign(kind), [text(length, 7) for length in (12, 5, 21)]
    ones = [Text(tokens, np.r_[0, np.ones(len(tokens) - 1)].astype(np.float32)) for tokens in texts]
    ours = text_loss(model, pack(ones, 24)).value  # type: ignore[arg-type]
    ids = [torch.tensor([tokens]) for tokens in texts]
    model.net.config.use_cache = False  # rwkv's would be written over before the gradient reads it
    theirs = sum(model.net(input_ids=i, labels=i).loss * (i.shape[1] - 1) for i in ids)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for own, other in zip(
        torch.autograd.grad(ours, parameters, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(theirs, parameters, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4 * float(other.abs().max() + 1e-3))


@KINDS
def test_a_step_of_fine_tuning_lowers_the_loss(kind: str) -> None:
    model, tokens = foreign(kind), text(20, 5)
    batch = pack([Text(tokens, np.full(20, 1 / 20, np.float32)), Text(tokens[:9], np.full(9, 1 / 20, np.float32))], 24)
    optimizers = Optimizers(model, Optim(matrices="adamw", lr=2e-3, warmup_steps=0), 3)
    losses = [step(model, optimizers, batch, text_loss, step_index=index)["loss"] for index in range(3)]  # type: ignore[arg-type]
    assert losses[2] < losses[1] < losses[0]


def test_lanes_change_no_bit() -> None:
    results = []
    for lanes in (Lanes(1), Lanes(2)):
        model = foreign("mixtral")
        batch = pack([Text(text(20, i), np.full(20, 1 / 99, np.float32)) for i in range(6)], 24)
        optimizers = Optimizers(model, Optim(matrices="adamw"), 2, lanes)
        figures = step(model, optimizers, batch, text_loss, step_index=0, passes=4, lanes=lanes)  # type: ignore[arg-type]
        engine, sampling = ForeignEngine(model, STOP), Sampling(max_tokens=9)
        said = lanes.map(lambda own, e=engine, s=sampling: e.generate(own, s), [ask(9), ask(9, 3)])
        results.append((figures, [c.tokens for own in said for c in own], list(model.state_dict().values())))
    assert results[0][:2] == results[1][:2]
    assert all(map(torch.equal, results[0][2], results[1][2]))


# --- sampling ---------------------------------------------------------------------------------------------------------


def judged(model: Foreign, request: Request, said: Completion, temperature: float) -> np.ndarray:
    """What the training forward makes of a completion: log-probabilities [T]."""
    targets = torch.tensor([[*request.prompt[1:], *said.tokens]])
    with torch.no_grad():
        logps, _ = token_logps(model, model(alone([*request.prompt, *said.tokens[:-1]])), targets, temperature)  # type: ignore[arg-type]
    return logps[0, len(request.prompt) - 1 :].numpy()


@KINDS
def test_sampler_and_training_forward_agree_on_every_token_the_stop_included(kind: str) -> None:
    model, requests = foreign(kind), ask(30)
    said = ForeignEngine(model, STOP).generate(requests, Sampling(temperature=0.7, max_tokens=16))
    assert {s.stop for s in said} == {Stop.STOP, Stop.LENGTH}
    for request, own in zip(requests, said, strict=True):
        assert own.routes is None and own.logps.dtype == np.float32
        assert (own.stop is Stop.STOP) == (own.tokens[-1] == STOP)
        np.testing.assert_allclose(own.logps, judged(model, request, own, 0.7), rtol=0, atol=1e-4)


@KINDS
def test_the_self_tests_pass(kind: str) -> None:
    prompts, model = [tuple(text(4 + i % 3, i)) for i in range(8)], foreign(kind)
    require(
        *of_agreement(model, STOP, prompts),  # type: ignore[arg-type]
        of_invariance(model, STOP, prompts, OBJECTIVES["grpo"]),  # type: ignore[arg-type]
    )


@KINDS
def test_greedy_says_what_the_librarys_own_generation_says(kind: str) -> None:
    model, prompts = foreign(kind), [text(length, 2) for length in (13, 4, 7, 4)]
    said = ForeignEngine(model, -1).generate(
        [Request(tuple(p), 0) for p in prompts], Sampling(temperature=0, max_tokens=12)
    )
    for prompt, own in zip(prompts, said, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.net.generate(ids, attention_mask=ids * 0 + 1, max_new_tokens=12, do_sample=False, pad_token_id=0)
        other = theirs[0, len(prompt) :].tolist()
        part = next((i for i, (a, b) in enumerate(zip(own.tokens, other, strict=True)) if a != b), None)
        if part is not None:  # then two tokens must have been all but equally likely
            best = logits_alone(model.net, [*prompt, *other[:part]])[-1].topk(2).values
            assert best[0] - best[1] < 1e-4


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "mixtral", "bloom", "mamba", "openai-gpt", "rwkv"])
def test_a_request_says_the_same_in_any_company(kind: str) -> None:
    """In waves of other rows, in another order, alone: at most one rollout of 15 falls on a rounding tie."""
    model, requests, sampling = foreign(kind), ask(15), Sampling(max_tokens=14)
    engine = ForeignEngine(model, STOPS)
    together = engine.generate(requests, sampling)
    assert len({len(said.tokens) for said in together}) > 3, "the test needs rollouts of many lengths"
    few = engine.generate(requests, sampling.model_copy(update={"max_rows": 4}))
    turned = engine.generate(requests[::-1], sampling)[::-1]
    lone = [engine.generate([request], sampling)[0] for request in requests[:5]]
    for others in (few, turned, lone):
        pairs = [(a, b) for a, b in zip(together, others, strict=False) if a.tokens == b.tokens]
        assert len(pairs) >= len(others) - 1
        for a, b in pairs:
            np.testing.assert_allclose(a.logps, b.logps, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["qwen3", "deepseek_v3"])
def test_both_backends_say_the_same_with_the_same_seeds(family: str, tmp_path: Path) -> None:
    net = families.theirs(family, 1)
    net.save_pretrained(tmp_path)
    ours, theirs, requests = load_model(tmp_path), Foreign(net), ask(40)
    sampling = Sampling(temperature=0.8, top_p=0.95, min_p=0.01, max_tokens=14)
    one, other = (engine_for(model, (STOP, 5)).generate(requests, sampling) for model in (ours, theirs))
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a.tokens == b.tokens]
    assert len(pairs) >= 39, "one rollout of 40 may fall on a near tie"
    assert {a.tokens[-1] for a, _ in pairs if a.stop is Stop.STOP} == {STOP, 5}
    for a, b in pairs:
        assert a.stop is b.stop
        np.testing.assert_allclose(a.logps, b.logps, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "mamba", "rwkv"])
def test_rows_that_finished_are_let_go_when_they_are_half(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = foreign(kind), []
    go_on = Foreign.go_on
    monkeypatch.setattr(
        Foreign, "go_on", lambda self, r, t, s: rows.append((len(t), int(s.sum()))) or go_on(self, r, t, s)
    )
    ForeignEngine(model, STOPS).generate(ask(48, prompts=1), Sampling(max_tokens=30))
    assert len({count for count, _ in rows}) >= 2
    assert any(working < count for count, working in rows), "rows idle for a while"
    assert all(2 * working > count for count, working in rows)


@pytest.mark.parametrize(("kind", "counts"), [("gpt2", [9 + 4]), ("mixtral", [9 + 4]), ("rwkv", [4, 9])])
def test_a_groups_prompt_is_read_once(kind: str, counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = foreign(kind), []
    begin = Foreign.begin
    monkeypatch.setattr(Foreign, "begin", lambda self, t, m: read.append(int(m.sum())) or begin(self, t, m))
    prompts = [tuple(text(9, 1)), tuple(text(4, 2))]
    ForeignEngine(model, STOP).generate([Request(p, s) for s in range(8) for p in prompts], Sampling(max_tokens=3))
    assert read == counts


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "openai-gpt"])
def test_prompt_and_answer_together_never_exceed_the_context(kind: str) -> None:
    model = foreign(kind)
    requests = [Request(tuple(text(length)), 1) for length in (CONTEXT - 4, CONTEXT - 1, 3)]
    nearly, full, short = ForeignEngine(model, -1).generate(requests, Sampling(max_tokens=20))
    assert [len(said.tokens) for said in (nearly, full, short)] == [4, 1, 20]
    assert nearly.stop is Stop.LENGTH
    for request, said in zip(requests, (nearly, full, short), strict=True):
        np.testing.assert_allclose(said.logps, judged(model, request, said, 1.0), rtol=0, atol=1e-4)
    with pytest.raises(UserError, match=f"a prompt of {CONTEXT} tokens"):
        ForeignEngine(model, -1).generate([Request(tuple(text(CONTEXT)), 1)], Sampling(max_tokens=2))


def test_a_stream_and_its_tokens_are_those_of_the_whole() -> None:
    model, requests, sampling = foreign("gpt2"), ask(12), Sampling(max_tokens=14, max_rows=4)
    engine = ForeignEngine(model, STOP)
    whole = engine.generate(requests, sampling)
    streamed = dict(engine.stream(requests, sampling))
    assert [streamed[index].tokens for index in range(12)] == [said.tokens for said in whole]
    assert [tuple(engine.tokens(request, sampling)) for request in requests[:4]] == [s.tokens for s in whole[:4]]
    assert engine.generate([], sampling) == []


def test_a_banned_token_is_never_said() -> None:
    model, banned = foreign("gpt2"), tuple(range(0, V, 2))
    requests = [Request(tuple(text(5)), seed, rules=(Banned(lambda said: banned),) * (seed < 8)) for seed in range(16)]
    said = ForeignEngine(model, STOP).generate(requests, Sampling(max_tokens=8))
    assert not {token for s in said[:8] for token in s.tokens} & set(banned)
    assert {token for s in said[8:] for token in s.tokens} & set(banned)


def test_after_load_another_model_is_sampled() -> None:
    one, other, sampling = foreign("gpt2"), foreign("gpt_neox"), Sampling(max_tokens=8)
    engine = ForeignEngine(one, STOP)
    engine.load(other)  # type: ignore[arg-type]
    assert [s.tokens for s in engine.generate(ask(5), sampling)] == [
        s.tokens for s in ForeignEngine(other, STOP).generate(ask(5), sampling)
    ]


def test_our_own_models_keep_our_own_engine(tmp_path: Path) -> None:
    families.theirs("qwen3", 0).save_pretrained(tmp_path)
    assert type(engine_for(load_model(tmp_path), STOP)) is Engine
    assert type(engine_for(foreign("gpt2"), STOP)) is ForeignEngine


@pytest.mark.parametrize("max_tokens", [1, 3], ids=["prompts", "answers"])
def test_what_a_model_keeps_from_sampling_can_be_trained_through(max_tokens: int) -> None:
    """Some keep angles they computed for a longer text; made in inference mode, autograd would refuse them."""
    net, kept = random_model(MAKERS["gpt2"]()), {"scale": torch.ones(1)}
    plain = net.forward

    def keeping(input_ids: torch.Tensor, **more: Any) -> Any:
        out = plain(input_ids=input_ids, **more)
        out["logits"] = out.logits * kept["scale"]
        kept["scale"] = torch.ones(1)
        return out

    net.forward = keeping
    model, batch = Foreign(net), pack([Text(text(9), np.ones(9, np.float32))], 9)
    ForeignEngine(model, -1).generate([Request(tuple(text(9, 1)), 0)], Sampling(max_tokens=max_tokens))
    text_loss(model, batch).value.backward()  # type: ignore[arg-type]


def test_a_reference_stays_and_shares_what_is_frozen() -> None:
    model, batch = foreign("gpt2"), pack([Text(text(9), np.ones(9, np.float32))], 9)
    model.net.transformer.wpe.weight.requires_grad_(False)
    reference, before = model.reference(), {name: own.clone() for name, own in model.state_dict().items()}
    step(model, Optimizers(model, Optim(matrices="adamw"), 1), batch, text_loss, step_index=0)  # type: ignore[arg-type]
    assert not torch.equal(model.embed_tokens.weight, before["net.transformer.wte.weight"])
    assert all(torch.equal(own, before[name]) for name, own in reference.state_dict().items())
    assert reference.net.transformer.wpe.weight is model.net.transformer.wpe.weight
    assert reference.net.lm_head.weight is reference.embed_tokens.weight, "tied as the model is"
    assert not any(weight.requires_grad for weight in reference.parameters())
    with torch.no_grad():
        reference(batch.rows)


# --- what trial finds out ---------------------------------------------------------------------------------------------


def test_how_each_model_may_be_driven_is_found_out() -> None:
    told = {kind: (model.inputs, model.caches, model.pads) for kind in MAKERS for model in [foreign(kind)]}
    both = ("attention_mask", "position_ids")
    usual = dict.fromkeys(MAKERS, (both, True, True))
    assert told == usual | {
        "bloom": (both[:1], True, True),
        "mamba": (both[:1], True, True),
        "openai-gpt": (both, False, True),
        "rwkv": (both[:1], False, False),
    }


def test_positions_that_a_model_counts_its_own_way_are_left_to_it() -> None:
    """Roberta's begin behind its padding token."""
    shape = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20)
    own = dict(pad_token_id=1, max_position_embeddings=50, is_decoder=True)
    model = Foreign(random_model(RobertaConfig(**IDS | shape | own)))
    assert model.inputs == ("attention_mask",)
    texts = [[token for token in text(length) if token != 1] for length in (9, 5)]
    with torch.no_grad():
        found_TV = model(packed([texts], 16)).states_BTD[0]
    truth_TV = torch.cat([logits_alone(model.net, tokens) for tokens in texts])
    torch.testing.assert_close(found_TV[: len(truth_TV)], truth_TV)


def test_what_will_be_slow_is_said() -> None:
    assert foreign("gpt2").notes == []
    assert [note.split(":")[0] for note in foreign("rwkv").notes] == [
        "rwkv has no cache that can be used here",
        "rwkv cannot be padded in front",
    ]


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    config = BertConfig(**IDS, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20)
    with pytest.raises(UserError, match="bert is no causal model as configured"):
        Foreign(random_model(config))


def test_longrope_is_held_to_the_length_up_to_which_its_angles_stay() -> None:
    """Beyond it transformers turns every token by other angles, those already in its cache excepted."""
    model = Foreign(random_model(Phi3Config(**LLAMA_LIKE, original_max_position_embeddings=24, rope_parameters=LONG)))
    assert model.config.max_position_embeddings == 24
    assert "texts end at 24 tokens" in model.notes[0]
    requests = [Request(tuple(text(20)), 1)]
    said = ForeignEngine(model, -1).generate(requests, Sampling(max_tokens=20))
    assert len(said[0].tokens) == 4
    np.testing.assert_allclose(said[0].logps, judged(model, requests[0], said[0], 1.0), rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="more than 24 tokens"):
        model(alone(text(25)))


def test_gaps_between_positions_reach_the_model_or_are_refused() -> None:
    rows = alone(text(9))
    rows.positions_BT[0, 4:] += 3
    model = foreign("gpt_neox")
    with torch.no_grad():
        truth = model.net(
            input_ids=rows.tokens_BT, attention_mask=rows.segments_BT, position_ids=rows.positions_BT
        ).logits
        torch.testing.assert_close(model(rows).states_BTD, truth)
        assert not torch.allclose(truth[0], logits_alone(model.net, text(9)), atol=1e-3)
    with pytest.raises(UserError, match="takes no positions"):
        foreign("bloom")(rows)


# --- folders ----------------------------------------------------------------------------------------------------------


@KINDS
def test_what_is_saved_returns_to_the_bit_and_loads_in_transformers(kind: str, tmp_path: Path) -> None:
    model = foreign(kind)
    model.net.save_pretrained(tmp_path / "theirs")
    first = load_foreign(tmp_path / "theirs", warn=lambda note: None)
    (tmp_path / "ours").mkdir()
    save_foreign(tmp_path / "ours", first)
    again = load_foreign(tmp_path / "ours", warn=lambda note: None).state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    back, report = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True, dtype="auto")
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    tokens = text(12)
    assert torch.equal(logits_alone(back.eval(), tokens), logits_alone(first.net, tokens))


@pytest.mark.parametrize("kind", ["gpt2", "mamba", "mixtral"])
def test_a_checkpoint_restores_model_and_optimizer_to_the_bit(kind: str, tmp_path: Path) -> None:
    batch = pack([Text(text(20, 1), np.full(20, 1 / 20, np.float32))], 20)

    def trained(model: Foreign, steps: range, optimizers: Optimizers) -> dict[str, torch.Tensor]:
        for index in steps:
            step(model, optimizers, batch, text_loss, step_index=index)  # type: ignore[arg-type]
        return model.state_dict()

    def fresh() -> tuple[Foreign, Optimizers]:
        model = foreign(kind)
        return model, Optimizers(model, Optim(matrices="adamw", warmup_steps=0), 4)

    model, optimizers = fresh()
    trained(model, range(2), optimizers)
    save_checkpoint(tmp_path, 2, model, optimizers)
    straight = trained(model, range(2, 4), optimizers)
    resumed, others = fresh()
    assert restore(tmp_path, resumed, others, warn=pytest.fail) == 2
    again = trained(resumed, range(2, 4), others)
    assert all(torch.equal(tensor, again[name]) for name, tensor in straight.items())


def test_nothing_is_guessed_ahead_nor_inserted_nor_told_of_a_prompt() -> None:
    engine, inserted = ForeignEngine(foreign("gpt2"), STOP), Inserted((0,), torch.ones(1, 24))
    with pytest.raises(UserError, match="cannot be guessed ahead"):
        engine.generate(ask(1), Sampling(drafts=1))
    for request in (Request((1, 2), 0, inserted=inserted), Request((1, 2), 0, likeliest=1, tell_prompt=True)):
        with pytest.raises(UserError, match="takes no vectors in a prompt"):
            engine.generate([request], Sampling(max_tokens=2))


def test_a_wave_holds_requests_of_many_wishes() -> None:
    """Each as it would be said alone: how it is drawn, how long, what is banned, what is told."""
    model = foreign("gpt2").double()
    wishes = [
        Request((4, 5, 6), 1), Request((4, 5, 6), 2, Sampling(temperature=0, max_tokens=3)),
        Request((7, 8, 9), 3, Sampling(top_k=2, max_tokens=12)),
        Request((7, 8, 9), 4, rules=(Banned(lambda said: range(20)),)), Request((1, 2, 3), 5, likeliest=2),
    ]  # fmt: skip
    together = ForeignEngine(model, STOP).generate(wishes, Sampling(max_tokens=8))
    for said, wish in zip(together, wishes, strict=True):
        (alone_,) = ForeignEngine(model, STOP).generate([wish], Sampling(max_tokens=8))
        assert said.tokens == alone_.tokens
        np.testing.assert_allclose(said.logps, alone_.logps, rtol=0, atol=1e-6)
    assert len(together[1].tokens) <= 3 and min(together[3].tokens) >= 20
    assert together[4].told is not None and together[4].told.ids.shape == (len(together[4].tokens), 2)
