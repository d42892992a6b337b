"""The engine against the training forward: what it says, with what probability, over which routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from seekling.engine import paged
from seekling.engine.config import Sampling
from seekling.engine.engine import Banned, Completion, Engine, Request
from seekling.engine.sampler import seed_of
from seekling.errors import UserError
from seekling.learn.update import token_logps
from seekling.model import kernels
from seekling.model.decoder import Decoder
from seekling.model.lora import add_adapters
from seekling.model.moe import Routing
from seekling.records import Stop
from tests.oracles.tiny import SHAPES, V, alone, build, text

STOP = 3
CONTEXT = SHAPES["v3"].max_position_embeddings
FAMILIES = pytest.mark.parametrize("name", ["v3", "v3-groups", "mla-odd", "qwen3", "llama"])


def ask(count: int, *, prompts: int = 5) -> list[Request]:
    """Requests over a few prompts of different lengths, each with its own seed."""
    return [Request(tuple(text(2 + i % prompts, i % prompts)), seed_of("test", i)) for i in range(count)]


@dataclass(frozen=True)
class Judged:
    """What the training forward makes of a completion: its log-probabilities [T] and logits [T, V], and routings."""

    logps: np.ndarray
    logits: torch.Tensor
    routings: list[Routing]


def judge(model: Decoder, request: Request, said: Completion, *, replay: bool, temperature: float = 1.0) -> Judged:
    rows = alone([*request.prompt, *said.tokens[:-1]])
    routes = None
    if replay and said.routes is not None:
        routes = [torch.from_numpy(said.routes[:, layer]).long() for layer in range(said.routes.shape[1])]
    targets = torch.tensor([[*request.prompt[1:], *said.tokens]])
    with torch.no_grad():
        hidden = model(rows, routes)
        logps, _ = token_logps(model, hidden, targets, temperature)
        start = len(request.prompt) - 1
        return Judged(logps[0, start:].numpy(), model.logits(hidden.states_BTD)[0, start:], hidden.routings)


@FAMILIES
def test_greedy_takes_the_argmax_of_the_full_forward(name: str) -> None:
    model, requests = build(SHAPES[name], dtype=torch.float64), ask(6)
    for request, said in zip(
        requests, Engine(model, STOP).generate(requests, Sampling(temperature=0, max_tokens=12)), strict=True
    ):
        judged = judge(model, request, said, replay=False)
        assert judged.logits.argmax(-1).tolist() == list(said.tokens)
        assert not said.logps.any(), "a certain token has log-probability 0"


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@FAMILIES
def test_the_sampler_and_the_training_forward_agree_on_every_token_the_stop_included(
    name: str, temperature: float
) -> None:
    model, requests = build(SHAPES[name]), ask(60)
    completions = Engine(model, STOP).generate(requests, Sampling(temperature=temperature, max_tokens=16, max_rows=16))
    assert sum(said.stop is Stop.STOP for said in completions) >= 2, "the test needs rollouts that stop"
    for request, said in zip(requests, completions, strict=True):
        judged = judge(model, request, said, replay=True, temperature=temperature)
        np.testing.assert_allclose(said.logps, judged.logps, rtol=0, atol=1e-4)


def top_gap(routing: Routing, model: Decoder, layer: int, position: int) -> float:
    """How much the last chosen expert's biased score exceeds the best one left out, groups aside."""
    bias = model.routers()[layer].e_score_correction_bias
    ordered = (routing.scores_NE[position] + bias).sort(descending=True).values
    active = routing.chosen_NA.shape[1]
    return float(ordered[active - 1] - ordered[active])


def test_without_replay_they_agree_but_for_routing_ties() -> None:
    """999 tokens of 1,000 to 1e-4; where they do not, an earlier position stood between two experts."""
    model, requests = build(SHAPES["v3"]), ask(300, prompts=20)
    completions = Engine(model, STOP).generate(requests, Sampling(max_tokens=20))
    apart, total = 0, 0
    for request, said in zip(requests, completions, strict=True):
        judged = judge(model, request, said, replay=False)
        gaps = np.abs(said.logps - judged.logps)
        apart, total = apart + int((gaps > 1e-4).sum()), total + len(gaps)
        assert said.routes is not None
        for t in np.flatnonzero(gaps > 1e-4):
            ties = [
                top_gap(routing, model, layer, position) < 1e-5
                for layer, routing in enumerate(judged.routings)
                for position in range(len(request.prompt) + t)
                if set(said.routes[position, layer]) != set(routing.chosen_NA[position].tolist())
            ]
            assert any(ties), f"{request.prompt} differs at token {t} with no routing tie before it"
    assert total > 3000 and apart <= total / 1000


def company(engine: Engine, requests: Sequence[Request], sampling: Sampling) -> dict[str, list[Completion]]:
    """The same requests in every company: together, a few at a time, one slot, turned round, alone."""
    turned = engine.generate(list(reversed(requests)), sampling.model_copy(update={"max_rows": 5}))
    return {
        "three rows": engine.generate(requests, sampling.model_copy(update={"max_rows": 3})),
        "one row": engine.generate(requests, sampling.model_copy(update={"max_rows": 1})),
        "turned round": list(reversed(turned)),
        "alone": [engine.generate([request], sampling)[0] for request in requests],
    }


@pytest.mark.parametrize("name", ["v3", "qwen3"])
def test_a_request_says_the_same_in_any_company(name: str) -> None:
    """Exact in a float64 model: whoever shares the batch, in what order, in how many rows, admitted when."""
    model, requests, sampling = build(SHAPES[name], dtype=torch.float64), ask(24), Sampling(max_tokens=14)
    together = Engine(model, STOP).generate(requests, sampling)
    assert len({len(said.tokens) for said in together}) > 3, "the test needs rollouts of many lengths"
    for where, others in company(Engine(model, STOP), requests, sampling).items():
        for said, other in zip(together, others, strict=True):
            assert said.tokens == other.tokens, where
            np.testing.assert_allclose(said.logps, other.logps, rtol=0, atol=1e-5, err_msg=where)


def test_in_float32_company_changes_a_rollout_rarely() -> None:
    model, requests, sampling = build(SHAPES["v3"]), ask(100), Sampling(max_tokens=14)
    together = Engine(model, STOP).generate(requests, sampling)
    few = Engine(model, STOP).generate(requests, sampling.model_copy(update={"max_rows": 7}))
    assert sum(a.tokens != b.tokens for a, b in zip(together, few, strict=True)) <= 1


def test_a_groups_prompt_is_computed_once() -> None:
    model = build(SHAPES["v3"])
    prompts = [tuple(text(9, 1)), tuple(text(4, 2))]
    requests = [Request(prompt, seed) for seed in range(16) for prompt in prompts]
    batch, _ = batch_of(model, requests, Sampling(max_tokens=5, max_rows=6))
    assert batch.num_read_tokens == 9 + 4


def test_prompts_read_in_several_chunks_are_the_same_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests, sampling = build(SHAPES["v3"], dtype=torch.float64), ask(14, prompts=7), Sampling(max_tokens=6)
    at_once = Engine(model, STOP).generate(requests, sampling)
    monkeypatch.setattr(paged, "READ_AT_ONCE", 3)
    in_turn = Engine(model, STOP).generate(requests, sampling)
    assert [said.tokens for said in at_once] == [said.tokens for said in in_turn]
    assert all(np.array_equal(a.routes, b.routes) for a, b in zip(at_once, in_turn, strict=True))


def test_finished_rows_leave_and_waiting_ones_take_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests, sampling = build(SHAPES["v3"]), ask(40), Sampling(max_tokens=14, max_rows=8)
    rows: list[int] = []
    decode = paged.Paged._decode

    def counted(self: paged.Paged, running: np.ndarray) -> None:
        rows.append(len(running))
        decode(self, running)

    monkeypatch.setattr(paged.Paged, "_decode", counted)
    completions = Engine(model, STOP).generate(requests, sampling)
    said = sum(len(c.tokens) for c in completions)
    assert max(rows) == 8 and rows[-1] < 8, "gaps close when nobody waits"
    assert sum(rows) < 1.5 * said, "most rows of most steps are at work"


def test_a_stream_hands_out_each_completion_once_as_it_finishes() -> None:
    model, requests, sampling = build(SHAPES["v3"]), ask(12), Sampling(max_tokens=14, max_rows=4)
    streamed = list(Engine(model, STOP).stream(requests, sampling))
    assert sorted(index for index, _ in streamed) == list(range(12))
    assert [index for index, _ in streamed] != list(range(12))
    whole = Engine(model, STOP).generate(requests, sampling)
    assert all(said.tokens == whole[index].tokens for index, said in streamed)


def test_equal_seeds_say_the_same_and_others_do_not() -> None:
    model, sampling, prompt = build(SHAPES["v3"]), Sampling(max_tokens=10), tuple(text(5))
    said = Engine(model, STOP).generate([Request(prompt, seed) for seed in (1, 2, 1, 3, 4)], sampling)
    assert said[0].tokens == said[2].tokens
    assert len({s.tokens for s in said}) >= 3


def test_generating_reads_and_moves_no_global_generator() -> None:
    model, requests, sampling = build(SHAPES["v3"]), ask(4), Sampling(max_tokens=6)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = Engine(model, STOP).generate(requests, sampling)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    assert [s.tokens for s in first] == [s.tokens for s in Engine(model, STOP).generate(requests, sampling)]


def test_first_tokens_follow_the_models_distribution() -> None:
    """Chi-square of 4,000 draws from one prompt, rare tokens pooled: one alarm in a million."""
    model, prompt, count = build(SHAPES["qwen3"]), tuple(text(5)), 4000
    with torch.no_grad():
        p = model.logits(model(alone(prompt)).states_BTD)[0, -1].softmax(-1).double().numpy()
    said = Engine(model, STOP).generate([Request(prompt, seed) for seed in range(count)], Sampling(max_tokens=1))
    drawn = np.bincount([s.tokens[0] for s in said], minlength=V)
    common = p * count >= 5
    observed, expected = np.append(drawn[common], drawn[~common].sum()), np.append(p[common], p[~common].sum()) * count
    freedom = len(observed) - 1
    limit = freedom * (1 - 2 / (9 * freedom) + 4.76 * (2 / (9 * freedom)) ** 0.5) ** 3  # Wilson-Hilferty
    assert ((observed - expected) ** 2 / expected).sum() < limit


@FAMILIES
def test_a_rollout_ends_with_its_stop_token_or_at_its_limit(name: str) -> None:
    said = Engine(build(SHAPES[name]), STOP).generate(ask(60), Sampling(max_tokens=16))
    for s in said:
        assert len(s.tokens) == len(s.logps) and s.logps.dtype == np.float32
        assert STOP not in s.tokens[:-1]
        assert (s.stop is Stop.STOP) == (s.tokens[-1] == STOP)
        assert s.stop is Stop.STOP or len(s.tokens) == 16
    assert {s.stop for s in said} == {Stop.STOP, Stop.LENGTH}


@pytest.mark.parametrize("length", [CONTEXT - 4, CONTEXT - 1])
def test_prompt_and_answer_together_never_exceed_the_context(length: int) -> None:
    """Or the learner could not read what the sampler wrote."""
    model = build(SHAPES["v3"])
    requests = [Request(tuple(text(length)), 1), Request(tuple(text(3)), 2)]
    long, short = Engine(model, -1).generate(requests, Sampling(max_tokens=20))
    assert len(long.tokens) == CONTEXT - length and long.stop is Stop.LENGTH
    assert len(short.tokens) == 20
    with torch.no_grad():
        model(alone([*requests[0].prompt, *long.tokens]))


@pytest.mark.parametrize("length", [0, CONTEXT, CONTEXT + 5])
def test_a_prompt_that_leaves_no_room_is_refused(length: int) -> None:
    engine, request = Engine(build(SHAPES["v3"]), STOP), Request(tuple(text(length)), 0)
    for use in (engine.generate, lambda r, s: list(engine.stream(r, s)), lambda r, s: list(engine.tokens(r[0], s))):
        with pytest.raises(UserError, match=f"a prompt of {length} tokens"):
            use([request], Sampling(max_tokens=2))


def test_no_requests_no_completions() -> None:
    assert Engine(build(SHAPES["v3"]), STOP).generate([], Sampling()) == []


def test_a_banned_token_is_never_said_and_the_others_share_its_probability() -> None:
    model = build(SHAPES["v3"])
    prompt, banned = tuple(text(5)), tuple(range(0, V, 2))
    requests = [Request(prompt, seed, rules=(Banned(lambda said: banned),)) for seed in range(8)]
    requests += [Request(prompt, seed, rules=(Banned(lambda said: ()),)) for seed in range(8)] + [Request(prompt, 3)]
    said = Engine(model, STOP).generate(requests, Sampling(max_tokens=8))
    assert not {token for s in said[:8] for token in s.tokens} & set(banned)
    assert {token for s in said[8:] for token in s.tokens} & set(banned), "a ban is its request's own"
    assert said[8 + 3].tokens == said[16].tokens, "an empty ban changes nothing"
    judged = judge(model, requests[0], said[0], replay=True)
    allowed = judged.logits.float().index_fill(1, torch.tensor(banned), float("-inf")).log_softmax(-1)
    mine = allowed.gather(1, torch.tensor(said[0].tokens).unsqueeze(1)).squeeze(1)
    np.testing.assert_allclose(said[0].logps, mine, rtol=0, atol=1e-4)


def test_a_ban_sees_what_was_said_so_far() -> None:
    """No token twice: with four tokens allowed the fifth has nowhere to go but the stop."""
    model, others = build(SHAPES["v3"]), set(range(V)) - {5, 6, 7, 8, STOP}

    def no_repeats(said: Sequence[int]) -> set[int]:
        return others | set(said) | (set() if len(said) == 4 else {STOP})

    said = Engine(model, STOP).generate(
        [Request(tuple(text(5)), s, rules=(Banned(no_repeats),)) for s in range(6)], Sampling()
    )
    assert all(sorted(s.tokens[:4]) == [5, 6, 7, 8] and s.tokens[4:] == (STOP,) for s in said)


@FAMILIES
def test_tokens_stream_one_by_one_what_generate_returns(name: str) -> None:
    engine = Engine(build(SHAPES[name], dtype=torch.float64), STOP)
    for request in ask(5):
        sampling = Sampling(max_tokens=12)
        assert tuple(engine.tokens(request, sampling)) == engine.generate([request], sampling)[0].tokens


@pytest.mark.parametrize("name", ["v3", "v3-groups"])
def test_routes_are_those_of_every_input_position(name: str) -> None:
    """[P+T-1, L, A]: the prompt's positions and every said token's but the last, which is never an input."""
    config = SHAPES[name]
    model, requests = build(config, dtype=torch.float64), ask(20)
    completions = Engine(model, STOP).generate(requests, Sampling(max_tokens=10, max_rows=6))
    for request, said in zip(requests, completions, strict=True):
        assert said.routes is not None and said.routes.dtype == np.int16
        inputs = len(request.prompt) + len(said.tokens) - 1
        assert said.routes.shape == (inputs, len(config.moe_layers), config.num_experts_per_tok)
        judged = judge(model, request, said, replay=False)
        for layer, routing in enumerate(judged.routings):
            assert np.array_equal(np.sort(said.routes[:, layer]), routing.chosen_NA.sort(-1).values)


def test_a_model_without_experts_has_no_routes() -> None:
    assert Engine(build(SHAPES["qwen3"]), STOP).generate(ask(2), Sampling(max_tokens=3))[0].routes is None


def test_the_engine_samples_from_the_very_model_it_was_given() -> None:
    """No copy: an update of the policy is at once the sampler's; ``load`` gives it another."""
    model, other, requests, sampling = (
        build(SHAPES["v3"]), build(SHAPES["v3"], seed=1), ask(4), Sampling(max_tokens=8),
    )  # fmt: skip
    engine = Engine(model, STOP)
    before = [s.tokens for s in engine.generate(requests, sampling)]
    engine.load(other)
    loaded = [s.tokens for s in engine.generate(requests, sampling)]
    assert loaded != before
    engine.load(model)
    model.load_state_dict(other.state_dict())
    assert [s.tokens for s in engine.generate(requests, sampling)] == loaded


def long_ask(count: int, *, prompts: int = 4) -> list[Request]:
    """Requests whose prompts fill a page or two, some of them beginning alike."""
    stem = text(19, 9)
    return [
        Request((*stem[: 7 + 12 * (i % 2)], *text(1 + i % prompts, i % prompts)), seed_of("long", i))
        for i in range(count)
    ]


def batch_of(
    model: Decoder, requests: Sequence[Request], sampling: Sampling, stops: Sequence[int] = (STOP,)
) -> tuple[paged.Paged, list[Completion]]:
    """A batch that has run to its end, and what was said."""
    batch, found = paged.Paged(model, sampling, stops), {}
    with torch.inference_mode():
        for request in requests:
            batch.add(request)
        while batch.busy():
            found |= dict(batch.advance())
    return batch, [found[place] for place in range(len(requests))]


@pytest.mark.parametrize("name", ["v3", "qwen3"])
@pytest.mark.parametrize(("rows", "cache_tokens", "at_once"), [(6, 64, 5), (8, 64, 2048), (8, 96, 1), (14, 80, 3)])
def test_who_makes_room_says_in_the_end_what_it_would_have_said(
    name: str, rows: int, cache_tokens: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact in float64: a cache so small that rows let go of their pages and begin again, texts read in pieces."""
    model, requests = build(SHAPES[name], dtype=torch.float64), long_ask(14)
    sampling = Sampling(max_tokens=12, top_p=0.95)
    plain = Engine(model, ()).generate(requests, sampling)
    suspended: list[int] = []
    suspend = paged.Paged._suspend
    monkeypatch.setattr(paged.Paged, "_suspend", lambda self: suspended.append(1) or suspend(self))
    monkeypatch.setattr(paged, "READ_AT_ONCE", at_once)
    tight = sampling.model_copy(update={"max_rows": rows, "cache_tokens": cache_tokens})
    found = Engine(model, ()).generate(requests, tight)
    assert suspended, "the test needs a cache that is too small"
    for said, other in zip(plain, found, strict=True):
        assert (said.tokens, said.stop) == (other.tokens, other.stop)
        np.testing.assert_allclose(said.logps, other.logps, rtol=0, atol=1e-6)  # kept in float32
        assert said.routes is None or np.array_equal(said.routes, other.routes)


def test_every_page_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(SHAPES["v3"])
    batch, _ = batch_of(model, long_ask(14), Sampling(max_tokens=12, max_rows=5, cache_tokens=96))
    assert not any(batch.paging.holders) and batch.paging.available == batch.pages.count
    assert not batch.texts and not batch.suspended


def test_texts_that_begin_alike_are_read_once_up_to_there() -> None:
    model, stem = build(SHAPES["v3"]), tuple(text(33, 1))
    requests = [Request((*stem, 5), 0), Request((*stem, 6, 7), 1), Request(stem[:16], 2), Request((*stem[:16], 8), 3)]
    batch, _ = batch_of(model, requests, Sampling(max_tokens=2, max_rows=1))
    assert batch.num_read_tokens == 34 + (35 - 32) + 16 + 1, "of the third the last token is read again, for its state"


def test_a_conversation_is_read_from_where_it_had_come_to() -> None:
    """What a row read while it spoke is known to whoever goes on from there."""
    model, first = build(SHAPES["qwen3"], dtype=torch.float64), Request(tuple(text(14, 1)), 4)
    sampling = Sampling(max_tokens=20, max_rows=1)
    (said,) = Engine(model, ()).generate([first], sampling)
    then = Request((*first.prompt, *said.tokens, 9, 9), 5)
    batch, _ = batch_of(model, [first, then], sampling, stops=())
    assert batch.num_read_tokens == 14 + len(then.prompt) - 32


def test_a_group_of_sixteen_reads_its_long_prompt_once() -> None:
    shape = SHAPES["llama"].model_copy(update={"max_position_embeddings": 600})
    prompt = tuple(text(512, 3))
    batch, found = batch_of(build(shape), [Request(prompt, seed) for seed in range(16)], Sampling(max_tokens=4))
    assert batch.num_read_tokens == 512 and len(found) == 16


def test_a_cache_too_small_for_one_request_is_a_letter_before_anything_runs() -> None:
    with pytest.raises(UserError, match=r"cache of 32 tokens is too small for one request of 29[\s\S]*at least 48"):
        Engine(build(SHAPES["v3"]), STOP).generate(long_ask(4), Sampling(max_tokens=8, cache_tokens=32))


def test_a_pool_that_grows_as_it_runs_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests, sampling = build(SHAPES["v3"]), long_ask(14), Sampling(max_tokens=14)
    whole = Engine(model, STOP).generate(requests, sampling)
    monkeypatch.setattr(paged, "FIRST_BYTES", 5000)
    grown = Engine(model, STOP).generate(requests, sampling)
    assert [said.tokens for said in whole] == [said.tokens for said in grown]
    assert all(np.array_equal(a.logps, b.logps) for a, b in zip(whole, grown, strict=True))


# --- the same bits ---


@pytest.mark.skipif(kernels.library("float32") is None, reason="no C compiler: there are no kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["v3", "v3-groups", "qwen3", "llama"])
def test_deterministic_sampling_is_equal_to_the_bit_in_any_company(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shares the batch, however few rows there are, chunks texts are read in, and rows that begin again."""
    engine, requests = Engine(build(SHAPES[name]), STOP, dtype), [*long_ask(14), *ask(14)]
    sampling = Sampling(max_tokens=12, deterministic=True)
    together, ways = engine.generate(requests, sampling), company(engine, requests, sampling)
    monkeypatch.setattr(paged, "READ_AT_ONCE", 5)
    tight = {"max_rows": 8, "cache_tokens": 80, "drafts": 2, "draft_from": "text"}
    ways["in pieces, a small cache, with guesses"] = engine.generate(requests, sampling.model_copy(update=tight))
    for where, others in ways.items():
        for said, other in zip(together, others, strict=True):
            assert said.tokens == other.tokens and said.logps.tobytes() == other.logps.tobytes(), where
            assert said.routes is None or np.array_equal(said.routes, other.routes), where


def test_what_no_kernels_do_is_not_sampled_deterministically(monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = build(SHAPES["qwen3"])
    add_adapters(adapted, rank=2, scale=1.0, targets=("q_proj",), seed=0)
    for model in (build(SHAPES["v3"], dtype=torch.float64), adapted):
        with pytest.raises(UserError, match="cannot be deterministic here"):
            Engine(model, STOP).generate(ask(1), Sampling(deterministic=True))


# --- sampling in fewer bits ---


@pytest.mark.parametrize("name", ["v3", "v3-groups", "qwen3", "llama"])
def test_an_engine_in_bfloat16_says_what_the_rounded_policy_would(name: str) -> None:
    model, sampling = build(SHAPES[name]), Sampling(max_tokens=12)
    rounded = build(SHAPES[name])
    for weight_name, weight in rounded.named_parameters():
        if not weight_name.endswith("gate.weight"):
            weight.data = weight.data.to(torch.bfloat16)
    ours = Engine(model, STOP, torch.bfloat16).generate(ask(20), sampling)
    theirs = Engine(rounded, STOP).generate(ask(20), sampling)
    assert [said.tokens for said in ours] == [said.tokens for said in theirs]
    assert all(weight.dtype == torch.float32 for weight in model.parameters()), "the policy is left as it is"


def test_it_follows_the_policy_with_every_load() -> None:
    model, sampling = build(SHAPES["v3"]), Sampling(temperature=0, max_tokens=8)
    engine = Engine(model, STOP, torch.bfloat16)
    before = engine.generate(ask(5), sampling)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(-1.5)
        for router in model.routers():
            router.e_score_correction_bias.neg_()
    assert [said.tokens for said in engine.generate(ask(5), sampling)] == [said.tokens for said in before]
    held = {id(weight): weight.data_ptr() for weight in engine.model.parameters()}
    engine.load(model)
    after = engine.generate(ask(5), sampling)
    fresh = Engine(model, STOP, torch.bfloat16).generate(ask(5), sampling)
    assert [said.tokens for said in after] == [said.tokens for said in fresh] != [said.tokens for said in before]
    assert {id(w): w.data_ptr() for w in engine.model.parameters()} == held, "a load makes no second copy"


def test_what_rounding_makes_of_log_probabilities_is_little() -> None:
    model, requests = build(SHAPES["qwen3"]), ask(40)
    completions = Engine(model, STOP, torch.bfloat16).generate(requests, Sampling(max_tokens=12))
    gaps = [
        said.logps - judge(model, request, said, replay=True).logps
        for request, said in zip(requests, completions, strict=True)
    ]
    size = float(np.sqrt(np.mean(np.square(np.concatenate(gaps)))))
    assert 1e-5 < size < 0.1


def test_the_policys_own_precision_makes_no_copy() -> None:
    model = build(SHAPES["v3"])
    assert Engine(model, STOP, torch.float32).model is model and Engine(model, STOP).model is model
