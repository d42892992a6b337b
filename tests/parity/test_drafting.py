"""Guessing ahead changes how many passes an answer takes, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seekling.engine import paged
from seekling.engine.config import Sampling
from seekling.engine.drafting import Followed, LookUp
from seekling.engine.engine import Banned, Completion, Engine, Request
from seekling.engine.sampler import seed_of
from seekling.errors import UserError
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.records import Stop
from tests.oracles.tiny import EXPERTS, SHAPES, alone, build, text

STOP = 3
AHEAD: dict[str, ModelConfig] = {
    "v3": SHAPES["v3"],
    "v3-groups": SHAPES["v3-groups"].model_copy(update={"num_nextn_predict_layers": 1}),
    "qwen3": SHAPES["qwen3"].model_copy(update={"num_nextn_predict_layers": 1}),
}
"""Models with a prediction layer."""


def ask(count: int) -> list[Request]:
    return [Request(tuple(text(2 + i % 21, i % 5)), seed_of("draft", i)) for i in range(count)]


def same(ours: list[Completion], theirs: list[Completion]) -> None:
    for said, other in zip(ours, theirs, strict=True):
        assert (said.tokens, said.stop) == (other.tokens, other.stop)
        np.testing.assert_allclose(said.logps, other.logps, rtol=0, atol=1e-6)
        assert said.routes is None or np.array_equal(said.routes, other.routes)


def with_drafts(sampling: Sampling, drafts: int, source: str = "auto") -> Sampling:
    return sampling.model_copy(update={"drafts": drafts, "draft_from": source})


@pytest.mark.parametrize("drafts", [1, 2, 5])
@pytest.mark.parametrize("source", ["model", "text"])
@pytest.mark.parametrize("name", AHEAD)
def test_guesses_change_no_token_no_route_and_no_log_probability(name: str, source: str, drafts: int) -> None:
    """Exact in float64, sampled and truncated, with stops, and in a cache so small that rows begin again."""
    model, requests = build(AHEAD[name], dtype=torch.float64), ask(30)
    sampling = Sampling(max_tokens=24, temperature=0.4, top_p=0.95)
    plain = Engine(model, STOP).generate(requests, sampling)
    guessed = Engine(model, STOP).generate(requests, with_drafts(sampling, drafts, source))
    same(guessed, plain)
    tight = with_drafts(sampling, drafts, source).model_copy(update={"max_rows": 6, "cache_tokens": 128})
    same(Engine(model, STOP).generate(requests, tight), plain)
    drafted, accepted = (sum(getattr(said, what) for said in guessed) for what in ("drafted", "accepted"))
    assert drafted > 10 and 3 <= accepted < drafted, f"the test needs guesses right and wrong, has {accepted}/{drafted}"


@pytest.mark.parametrize("source", ["model", "text"])
def test_greedy_with_guesses_is_greedy(source: str) -> None:
    engine, requests, sampling = Engine(build(AHEAD["v3"], dtype=torch.float64), ()), ask(8), Sampling(temperature=0)
    same(engine.generate(requests, with_drafts(sampling, 3, source)), engine.generate(requests, sampling))


def test_what_is_guessed_right_saves_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose layers add nothing repeats its last token: after three of them its text tells what comes."""
    model, request = Decoder(SHAPES["llama"]).init_weights(0), Request((5, 6, 7, 8), 1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
    passes: list[int] = []
    extend = Decoder.extend
    monkeypatch.setattr(Decoder, "extend", lambda self, *given: passes.append(1) or extend(self, *given))
    sampling = Sampling(temperature=0, max_tokens=30)
    (plain,) = Engine(model, ()).generate([request], sampling)
    assert plain.tokens == (8,) * 30 and len(passes) == 30
    passes.clear()
    (guessed,) = Engine(model, ()).generate([request], with_drafts(sampling, 4, "text"))
    assert guessed.tokens == plain.tokens and guessed.accepted >= 20 and len(passes) == 30 - guessed.accepted


@pytest.mark.parametrize("source", ["model", "text"])
def test_sampled_with_guesses_follows_the_models_distribution(source: str) -> None:
    """Chi-square over the second and third token of 3,000 answers: one alarm in a million."""
    small = EXPERTS | dict(vocab_size=8, initializer_range=0.15, num_nextn_predict_layers=1)
    config = ModelConfig(**small, q_lora_rank=8)
    model, prompt, count = build(config), (1, 2, 1, 2, 1), 3000
    requests = [Request(prompt, seed_of("chi", seed)) for seed in range(count)]
    said = Engine(model, ()).generate(requests, with_drafts(Sampling(max_tokens=4), 2, source))
    assert sum(one.accepted for one in said) > count / 100
    drawn, expected = np.zeros((8, 8, 8)), np.zeros((8, 8, 8))
    for one in said:
        drawn[one.tokens[:3]] += 1
    with torch.no_grad():
        for first in range(8):
            for second in range(8):
                rows = alone([*prompt, first, second])
                p = model.logits(model(rows).states_BTD)[0].softmax(-1).double()
                expected[first, second] = count * float(p[4, first] * p[5, second]) * p[6].numpy()
    common = expected >= 5
    observed = np.append(drawn[common], drawn[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    freedom = len(observed) - 1
    limit = freedom * (1 - 2 / (9 * freedom) + 4.76 * (2 / (9 * freedom)) ** 0.5) ** 3  # Wilson-Hilferty
    assert ((observed - wanted) ** 2 / wanted).sum() < limit


def test_the_prediction_layer_over_a_cache_is_the_one_that_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it made of a text it read in pieces and spoke in steps is ``predict_next`` of the whole."""
    model, request = build(AHEAD["v3"], dtype=torch.float64), Request(tuple(text(9, 2)), 5)
    made: dict[int, torch.Tensor] = {}
    ahead = Decoder.extend_ahead

    def noted(self: Decoder, states: torch.Tensor, chunk: paged.Chunk, *given: object) -> torch.Tensor:
        found = ahead(self, states, chunk, *given)
        made.update(zip(chunk.positions_N.tolist(), found, strict=True))
        return found

    monkeypatch.setattr(Decoder, "extend_ahead", noted)
    monkeypatch.setattr(paged, "READ_AT_ONCE", 4)
    (said,) = Engine(model, ()).generate([request], Sampling(max_tokens=14, drafts=1))
    rows = alone([*request.prompt, *said.tokens])
    with torch.no_grad():
        whole, _ = model.predict_next(rows, model(rows).states_BTD)
    assert len(made) >= 20
    for position in range(20):
        torch.testing.assert_close(made[position], whole[0, position], rtol=0, atol=1e-9)


def test_texts_of_which_one_token_is_left_are_read_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prediction layer reads nothing of them: no token is known that follows."""
    engine, sampling = Engine(build(AHEAD["v3"], dtype=torch.float64), ()), Sampling(max_tokens=5)
    requests = [Request(tuple(text(length, 1)), 1) for length in (1, 2, 7, 1, 10)]
    plain = engine.generate(requests, sampling)
    for at_once in (3, 2048):
        monkeypatch.setattr(paged, "READ_AT_ONCE", at_once)
        same(engine.generate(requests, with_drafts(sampling, 2, "model")), plain)


def test_rows_with_rules_are_not_guessed_for_and_their_neighbours_are() -> None:
    model = build(AHEAD["v3"], dtype=torch.float64)
    free = ask(6)
    ruled = [Request(one.prompt, one.seed, rules=(Banned(lambda said: (7, 9)),)) for one in ask(6)]
    sampling = Sampling(max_tokens=14)
    found = Engine(model, STOP).generate([*free, *ruled], with_drafts(sampling, 2))
    same(found, Engine(model, STOP).generate([*free, *ruled], sampling))
    assert all(one.drafted for one in found[:6] if len(one.tokens) > 3) and not any(one.drafted for one in found[6:])


def test_a_model_without_a_prediction_layer_is_not_asked_to_guess() -> None:
    with pytest.raises(UserError, match="has no layer that does"):
        Engine(build(SHAPES["qwen3"]), ()).session(Sampling(drafts=1, draft_from="model"))


def test_an_answer_ends_at_a_stop_inside_right_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses that know what would come, and go on beyond the stop."""
    model, request, sampling = (
        build(AHEAD["qwen3"], dtype=torch.float64),
        Request((5, 6, 7), 1),
        Sampling(max_tokens=20),
    )
    (whole,) = Engine(model, ()).generate([request], sampling)

    def known(self: LookUp, rows_R: np.ndarray, most_R: np.ndarray) -> list[list[int]]:
        places = self.batch.said[rows_R]
        return [list(whole.tokens[at : at + most]) for at, most in zip(places, most_R, strict=True)]

    monkeypatch.setattr(LookUp, "draft", known)
    for stop in whole.tokens:
        (said,) = Engine(model, stop).generate([request], with_drafts(sampling, 4, "text"))
        assert said.tokens == whole.tokens[: whole.tokens.index(stop) + 1] and said.stop is Stop.STOP


def test_the_prediction_layer_reads_each_of_equal_prompts_as_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the prompt fills its last page, into which each answer writes what its own first token made."""
    model, made = build(AHEAD["v3"], dtype=torch.float64), dict[tuple[int, int], torch.Tensor]()
    ahead = Decoder.extend_ahead

    def noted(self: Decoder, states: torch.Tensor, chunk: paged.Chunk, *given: object) -> torch.Tensor:
        found = ahead(self, states, chunk, *given)
        made.update(zip(zip(chunk.rows_N.tolist(), chunk.positions_N.tolist(), strict=True), found, strict=True))
        return found

    monkeypatch.setattr(Decoder, "extend_ahead", noted)
    requests = [Request(tuple(text(16, 4)), seed) for seed in range(3)]
    answers = Engine(model, ()).generate(requests, Sampling(max_tokens=4, drafts=1))
    assert len({said.tokens[0] for said in answers}) == 3
    for row, said in enumerate(answers):
        rows = alone([*requests[row].prompt, *said.tokens])
        with torch.no_grad():
            whole, _ = model.predict_next(rows, model(rows).states_BTD)
        torch.testing.assert_close(made[row, 16], whole[0, 16], rtol=0, atol=1e-9)


def test_the_prediction_layer_draws_with_the_number_that_the_token_is_drawn_with() -> None:
    """Where both know nothing, every token is as likely to both, and so every guess is right."""
    model = build(AHEAD["v3"], dtype=torch.float64)
    with torch.no_grad():
        model.head_VD.zero_()
    for said in Engine(model, ()).generate(ask(4), Sampling(max_tokens=12, drafts=3)):
        assert said.drafted == said.accepted >= 8


def test_a_limit_is_kept_to_the_token() -> None:
    model = build(AHEAD["qwen3"])
    for limit in (1, 2, 3, 7):
        said = Engine(model, ()).generate(ask(5), Sampling(max_tokens=limit, drafts=4))
        assert all(len(one.tokens) == len(one.logps) == limit for one in said)


def test_a_prompt_to_the_edge_of_the_context_is_answered_to_it() -> None:
    model = build(AHEAD["v3"])
    context = model.config.max_position_embeddings
    (said,) = Engine(model, ()).generate([Request(tuple(text(context - 5)), 1)], Sampling(drafts=3))
    assert len(said.tokens) == 5


def test_look_up_finds_the_latest_place_that_was_like_the_end() -> None:
    seen = Followed()
    seen.add([1, 2, 3, 9, 1, 2, 4, 8, 1, 2])
    assert seen.following(2) == [4, 8], "of two places with 1 2 the later"
    seen.add([3])
    assert seen.following(3) == [9, 1, 2], "of longer sequences first: 1 2 3"
    seen.add([7, 7, 7])
    assert seen.following(4) == [7, 7, 7, 7], "what repeats itself goes on repeating"
    seen.add([50])
    assert seen.following(3) == []
    assert Followed().following(2) == []


def test_vectors_of_a_prompt_are_never_guessed() -> None:
    seen = Followed()
    seen.add([1, 2, -7, 3, 1, 2])
    assert seen.following(3) == []
