"""Requests that come and go: each is answered as if it were alone, and its trouble is its own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from seekling.engine.config import Sampling
from seekling.engine.engine import Banned, Completion, Engine, Inserted, Request, Session
from seekling.engine.rules import Limits
from seekling.engine.sampler import seed_of
from seekling.engine.terms import Terms, rules_for
from seekling.errors import UserError
from seekling.model.decoder import Decoder
from seekling.records import Stop
from tests.oracles.saying import speaker
from tests.oracles.tiny import SHAPES, V, alone, build, text

STOP = 3
CONTEXT = SHAPES["v3"].max_position_embeddings
WIDTH = SHAPES["v3"].hidden_size


def finish(session: Session) -> dict[int, Completion | UserError]:
    found: dict[int, Completion | UserError] = {}
    while session.busy():
        found |= dict(session.advance())
    return found


def wishes() -> list[Request]:
    """Requests that agree in nothing."""
    ask = [tuple(text(3 + 4 * n, n)) for n in range(8)]
    return [
        Request(ask[0], 1), Request(ask[1], 2, Sampling(temperature=0, max_tokens=3)),
        Request(ask[2], 3, Sampling(top_k=2, max_tokens=12)), Request(ask[3], 4, Sampling(temperature=0.5, top_p=0.8)),
        Request(ask[4], 5, rules=(Banned(lambda said: range(20)),)),
        Request(ask[5], 6, Sampling(top_p=0.7, max_tokens=9), tell_kept=True), Request(ask[6], 7, likeliest=4),
        Request(ask[6], 7, likeliest=2, tell_prompt=True), Request(ask[7], 8, Sampling(min_p=0.2, max_tokens=20)),
    ]  # fmt: skip


def same(said: Completion | UserError, other: Completion | UserError) -> None:
    assert isinstance(said, Completion) and isinstance(other, Completion)
    assert (said.tokens, said.stop) == (other.tokens, other.stop)
    np.testing.assert_allclose(said.logps, other.logps, rtol=0, atol=1e-6)
    for ours, theirs in ((said.kept, other.kept), (said.told, other.told), (said.of_prompt, other.of_prompt)):
        assert (ours is None) == (theirs is None)
        for name in () if ours is None else type(ours).__slots__:
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("drafts", [0, 2])
def test_each_request_is_answered_by_its_own_wishes_whoever_else_asks(rows: int, drafts: int) -> None:
    """In float64: together, and one added after every step, each says what it says alone."""
    engine = Engine(build(SHAPES["v3"], dtype=torch.float64), STOP)
    others = Sampling(max_tokens=10)
    single = [engine.generate([wish], others)[0] for wish in wishes()]
    sampling = others.model_copy(update={"max_rows": rows, "drafts": drafts})
    for said, other in zip(engine.generate(wishes(), sampling), single, strict=True):
        same(said, other)
    session, found = engine.session(sampling), {}
    numbers = []
    for wish in wishes():
        numbers.append(session.add(wish))
        found |= dict(session.advance())
    found |= finish(session)
    for number, other in zip(numbers, single, strict=True):
        same(found[number], other)


def test_a_conversation_goes_on_where_it_was_though_others_came_between() -> None:
    engine = Engine(build(SHAPES["qwen3"], dtype=torch.float64), ())
    session, first = engine.session(Sampling(max_tokens=14)), Request(tuple(text(14, 1)), 4)
    session.add(first)
    said = finish(session)
    session.add(Request(tuple(text(9, 2)), 5))
    finish(session)
    read = session.batch.num_read_tokens  # type: ignore[attr-defined]
    then = Request((*first.prompt, *said[0].tokens, 9, 9), 6)  # type: ignore[union-attr]
    number = session.add(then)
    same(finish(session)[number], engine.generate([then], Sampling(max_tokens=14))[0])
    assert session.batch.num_read_tokens - read == len(then.prompt) - 16  # type: ignore[attr-defined]


def test_a_request_that_cannot_be_answered_is_refused_and_no_other_is_harmed() -> None:
    engine = Engine(build(SHAPES["v3"], dtype=torch.float64), STOP)
    sampling, good = Sampling(max_tokens=9, cache_tokens=48), Request(tuple(text(6)), 1)
    session = engine.session(sampling)
    session.add(good)
    session.advance()
    wide = Inserted((0,), torch.zeros(1, WIDTH + 1))
    for bad, why in (
        (Request((), 0), "a prompt of 0 tokens"), (Request(tuple(text(CONTEXT)), 0), f"a prompt of {CONTEXT} tokens"),
        (Request(tuple(text(30)), 0, Sampling(max_tokens=30)), "cache of 48 tokens is too small"),
        (Request(tuple(text(4)), 0, inserted=wide), "do not fit a prompt of 4 tokens"),
        (Request(tuple(text(4)), 0, inserted=Inserted((4,), torch.zeros(1, WIDTH))), "do not fit a prompt"),
        (Request(tuple(text(4)), 0, inserted=Inserted((1,), torch.full((1, WIDTH), torch.nan))), "no number"),
        (Request(tuple(text(4)), 0, inserted=Inserted((1, 1), torch.zeros(2, WIDTH))), "two vectors stand"),
        (Request((4, V), 0), f"token id {V} of a prompt is outside"), (Request((4, -1), 0), "token id -1 of a prompt"),
        (Request((4,), -1), "seed -1"), (Request((4,), 2**64), "seed"), (Request((4,), 0, likeliest=-1), "likeliest"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=why):
            session.add(bad)
    same(finish(session)[0], engine.generate([good], Sampling(max_tokens=9))[0])


def test_rules_that_leave_nothing_end_their_request_alone() -> None:
    engine, sampling = Engine(build(SHAPES["v3"], dtype=torch.float64), STOP), Sampling(max_tokens=9)
    good = [Request(tuple(text(6)), 1), Request(tuple(text(5)), 2)]
    session = engine.session(sampling)
    session.add(good[0])
    bad = session.add(Request(tuple(text(6)), 1, rules=(Banned(lambda said: range(V) if len(said) == 2 else ()),)))
    session.add(good[1])
    found = finish(session)
    assert isinstance(found[bad], UserError) and "leaves none that may come next" in str(found[bad])
    for number, one in zip((0, 2), good, strict=True):
        same(found[number], engine.generate([one], sampling)[0])
    with pytest.raises(UserError, match="leaves none"):
        engine.generate([Request((4, 5), 1, rules=(Banned(lambda said: range(V)),))], sampling)


class Fails(Limits):
    """A rule that raises after two tokens, when it limits or when it is asked for an end."""

    def __init__(self, verb: str, error: Exception) -> None:
        self.verb, self.error = verb, error

    def limit(self, said: Sequence[int], logits_V: torch.Tensor) -> None:
        self._fail("limit", said)

    def ends(self, said: Sequence[int]) -> bool:
        self._fail("ends", said)
        return False

    def _fail(self, verb: str, said: Sequence[int]) -> None:
        if verb == self.verb and len(said) == 2:
            raise self.error


@pytest.mark.parametrize("verb", ["limit", "ends"])
@pytest.mark.parametrize("error", [UserError("no more"), ValueError("no more")])
def test_a_rule_that_fails_fails_its_request_alone(verb: str, error: Exception) -> None:
    engine, sampling = Engine(build(SHAPES["v3"], dtype=torch.float64), STOP), Sampling(max_tokens=9)
    good = [Request(tuple(text(6)), 1), Request(tuple(text(5)), 2)]
    session = engine.session(sampling)
    for one in (good[0], Request(tuple(text(6)), 1, rules=(Fails(verb, error),)), good[1]):
        session.add(one)
    found = finish(session)
    assert isinstance(found[1], UserError) and "no more" in str(found[1])
    assert found[1] is error or found[1].__cause__ is error
    for number, one in zip((0, 2), good, strict=True):
        same(found[number], engine.generate([one], sampling)[0])


def test_who_is_dropped_makes_room_and_is_told_nothing() -> None:
    """Waiting, running, or waiting to begin again; and every page comes back."""
    engine = Engine(build(SHAPES["v3"], dtype=torch.float64), ())
    session = engine.session(Sampling(max_tokens=16, max_rows=4, cache_tokens=80))
    asked = [Request(tuple(text(9 + n % 3, n)), n) for n in range(9)]
    numbers = [session.add(one) for one in asked]
    found = {}
    for step, number in enumerate(numbers[:-2]):
        found |= dict(session.advance())
        if step % 2:
            session.drop(number)
    session.drop(numbers[-1])
    session.drop(999)
    found |= finish(session)
    kept = set(numbers) - {numbers[1], numbers[3], numbers[5], numbers[-1]}
    assert set(found) == kept
    for number in kept:
        same(found[number], engine.generate([asked[number]], Sampling(max_tokens=16))[0])
    assert not any(session.batch.paging.holders)  # type: ignore[attr-defined]


def test_weights_replaced_in_the_middle_fail_who_was_under_way_and_no_one_else() -> None:
    """Who waits is answered by the new weights, also where its beginning had been read with the old ones."""
    old, new = build(SHAPES["v3"], dtype=torch.float64), build(SHAPES["v3"], seed=1, dtype=torch.float64)
    engine, sampling = Engine(old, ()), Sampling(max_tokens=12, max_rows=2)
    session = engine.session(sampling)
    asked = [Request(tuple(text(17, 1)), seed) for seed in range(5)]
    for one in asked:
        session.add(one)
    session.advance()
    engine.load(new)
    found = finish(session)
    for number in (0, 1):
        assert isinstance(found[number], UserError) and "weights were replaced" in str(found[number])
    for number in (2, 3, 4):
        same(found[number], Engine(new, ()).generate([asked[number]], sampling)[0])


@pytest.mark.parametrize("other", ["qwen3", "float32"])
def test_a_session_is_not_carried_over_to_a_model_of_another_shape(other: str) -> None:
    """Its pages would be read as what they are not. It says so each time, and does nothing."""
    model = build(SHAPES["v3"], dtype=torch.float64)
    engine = Engine(model, ())
    session = engine.session(Sampling(max_tokens=6))
    session.add(Request((4, 5), 1))
    session.advance()
    engine.load(build(SHAPES["v3"]) if other == "float32" else build(SHAPES[other], dtype=torch.float64))
    for _ in range(2):
        with pytest.raises(UserError, match="while a session was open"):
            session.advance()
    engine.load(model)
    assert "weights were replaced" in str(finish(session)[0])


def test_what_is_told_of_tokens_is_the_models_own_opinion() -> None:
    """Before temperature, truncation and rules; of the prompt from its second token on, cached or not."""
    model = build(SHAPES["v3"], dtype=torch.float64)
    prompt, rule = tuple(text(37, 5)), Banned(lambda said: range(10, 20))
    sampling = Sampling(temperature=0.3, top_k=3, max_tokens=6)
    asked = [Request(prompt, seed, rules=(rule,), likeliest=5, tell_prompt=bool(seed % 2)) for seed in range(4)]
    for said in Engine(model, ()).generate(asked, sampling.model_copy(update={"max_rows": 2})):
        with torch.no_grad():
            logp = model.logits(model(alone([*prompt, *said.tokens])).states_BTD)[0].float().log_softmax(-1)
        check(said.told, logp[len(prompt) - 1 : -1], said.tokens)
        if said.of_prompt is not None:
            check(said.of_prompt, logp[: len(prompt) - 1], prompt[1:])
    told = Engine(model, ()).generate(asked, sampling)
    assert [said.of_prompt is not None for said in told] == [False, True, False, True]


def test_of_a_prompt_of_one_token_nothing_is_told_whoever_makes_room() -> None:
    """What a row had said when it made room is no prompt, though it is read again like one."""
    session = Engine(build(SHAPES["v3"], dtype=torch.float64), ()).session(Sampling(max_tokens=45, cache_tokens=80))
    for seed in range(3):
        session.add(Request((seed + 1,), seed, likeliest=1, tell_prompt=True))
    found, begun = {}, False
    while session.busy():
        found |= dict(session.advance())
        begun = begun or bool(session.batch.suspended)  # type: ignore[attr-defined]
    assert begun and all(isinstance(one, Completion) and one.of_prompt is None for one in found.values())


def check(told: object, logp_TV: torch.Tensor, tokens: Sequence[int]) -> None:
    top, ids = logp_TV.topk(5, -1)
    np.testing.assert_allclose(told.logps, logp_TV[range(len(tokens)), list(tokens)], rtol=0, atol=1e-5)  # type: ignore[attr-defined]
    np.testing.assert_allclose(told.top, top, rtol=0, atol=1e-5)  # type: ignore[attr-defined]
    assert np.array_equal(told.ids, ids)  # type: ignore[attr-defined]


def test_kept_sets_know_what_rules_forbid() -> None:
    model = build(SHAPES["v3"])
    request = Request(tuple(text(5)), 1, rules=(Banned(lambda said: range(len(said) + 1, V)),), tell_kept=True)
    (said,) = Engine(model, ()).generate([request], Sampling(max_tokens=4))
    assert said.kept is not None
    sets = np.split(said.kept.ids, said.kept.ends[:-1])
    assert [one.tolist() for one in sets] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]


class EndsAt(Limits):
    """A rule that ends an answer at a sequence."""

    def __init__(self, end: Sequence[int]) -> None:
        self.end = list(end)

    def limit(self, said: Sequence[int], logits_V: torch.Tensor) -> None:
        pass

    def ends(self, said: Sequence[int]) -> bool:
        return list(said[-len(self.end) :]) == self.end


def test_a_rule_can_end_an_answer() -> None:
    engine, request = Engine(build(SHAPES["v3"], dtype=torch.float64), ()), Request(tuple(text(5)), 1)
    (whole,) = engine.generate([request], Sampling(max_tokens=12))
    (cut,) = engine.generate([Request(request.prompt, 1, rules=(EndsAt(whole.tokens[5:7]),))], Sampling(max_tokens=12))
    assert cut.tokens == whole.tokens[:7] and cut.stop is Stop.STOP and whole.stop is Stop.LENGTH


TERMS = {
    "schema": Terms(json={"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}),
    "expression": Terms(regex="(yes|no), [a-z]{3,9}"), "nothing": Terms(), "bias": Terms(bias={70: 9.0}, presence=1.0),
    "minimum": Terms(min_tokens=12, repetition=1.3), "texts": Terms(stop_texts=("e", "a ", "1")),
}  # fmt: skip


def test_terms_are_kept_by_each_answer_in_any_company() -> None:
    """In a cache so small that rows begin again: what a rule remembers is of its own answer, and survives that."""
    tokenizer = speaker()
    shape = SHAPES["qwen3"].model_copy(update={"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 96})
    engine, sampling = Engine(build(shape, dtype=torch.float64), tokenizer.stops), Sampling(max_tokens=60)

    def requests() -> list[Request]:
        prompt = tuple(tokenizer.encode("what is it?"))
        rules = [rules_for(terms, tokenizer, prompt) for terms in TERMS.values()]
        return [Request(prompt, seed_of(n), rules=each, tell_kept=bool(each)) for n, each in enumerate(rules)]

    single = [engine.generate([request], sampling)[0] for request in requests()]
    tight = sampling.model_copy(update={"max_rows": 5, "cache_tokens": 128})
    for said, other in zip(engine.generate(requests(), tight), single, strict=True):
        same(said, other)
    texts = dict(zip(TERMS, (tokenizer.decode(said.tokens, skip_special=True) for said in single), strict=True))
    assert single[0].stop is Stop.LENGTH or isinstance(json.loads(texts["schema"])["sum"], int)
    assert re.fullmatch(TERMS["expression"].regex or "", texts["expression"])
    assert len(single[4].tokens) >= 12
    before = tokenizer.decode(single[5].tokens[:-1], skip_special=True)
    assert single[5].stop is Stop.STOP and not any(end in before for end in TERMS["texts"].stop_texts)
    assert any(end in texts["texts"] for end in TERMS["texts"].stop_texts), "also inside a token"


@pytest.mark.parametrize("drafts", [0, 2])
@pytest.mark.parametrize("name", ["v3", "qwen3"])
def test_vectors_inserted_into_a_prompt_stand_for_its_embeddings(name: str, drafts: int) -> None:
    """The embeddings of other tokens inserted say what those tokens say; equal vectors are read once, others apart."""
    model = build(SHAPES[name], dtype=torch.float64)
    prompt, places = list(text(40, 3)), (2, 3, 4, 18, 30)
    vectors = model.embed_tokens.weight[[prompt[place] for place in places]].detach()
    blank = [0 if place in places else token for place, token in enumerate(prompt)]
    sampling = Sampling(max_tokens=6, drafts=drafts)
    (plain,) = Engine(model, ()).generate([Request(tuple(prompt), 7)], sampling)
    inserted = Request(tuple(blank), 7, inserted=Inserted(places, vectors))
    other = Request(tuple(blank), 7, inserted=Inserted(places, vectors.flip(0)))
    session = Engine(model, ()).session(sampling)
    for request in (inserted, inserted, other, Request(tuple(blank), 7)):
        session.add(request)
    found = finish(session)
    same(found[0], plain)
    same(found[1], plain)
    for number in (2, 3):
        said = found[number]
        assert isinstance(said, Completion) and said.logps.tolist() != plain.logps.tolist()
    assert session.batch.num_read_tokens == 3 * 40  # type: ignore[attr-defined]


def test_vectors_may_change_once_they_were_given() -> None:
    """The cache knows them by what they held: later readers must find that."""
    engine, sampling = Engine(build(SHAPES["v3"], dtype=torch.float64), ()), Sampling(max_tokens=3)
    vectors, session = torch.ones(1, WIDTH), engine.session(sampling)
    request = Request((4, 5), 1, inserted=Inserted((0,), vectors))
    (known,) = engine.generate([request], sampling)
    session.add(request)
    vectors.zero_()
    same(finish(session)[0], known)


def test_who_comes_to_a_busy_session_is_let_in_at_once() -> None:
    session = Engine(build(SHAPES["v3"]), ()).session(Sampling(max_tokens=30))
    for seed in range(20):
        session.add(Request(tuple(text(4, seed)), seed))
    session.advance()
    late = session.add(Request(tuple(text(5)), 1))
    session.advance()
    assert len(session.said_by(late)) == 1


def test_tokens_can_be_heard_while_they_are_said() -> None:
    engine = Engine(build(SHAPES["v3"]), ())
    session = engine.session(Sampling(max_tokens=7))
    numbers = [session.add(Request(tuple(text(5)), seed_of(n))) for n in range(3)]
    heard: dict[int, list[list[int]]] = {number: [] for number in numbers}
    found = {}
    while session.busy():
        found |= dict(session.advance())
        for number in numbers:
            heard[number].append(session.said_by(number))
    for number in numbers:
        said = found[number]
        assert isinstance(said, Completion)
        assert [tuple(part) for part in heard[number][:6]] == [said.tokens[: n + 1] for n in range(6)]


def test_long_lived_sessions_hold_nothing_of_who_has_left() -> None:
    session = Engine(build(SHAPES["v3"]), STOP).session(Sampling(max_tokens=5, max_rows=4, drafts=2, draft_from="text"))
    sizes = []
    for start in range(0, 60, 6):
        for n in range(start, start + 6):
            session.add(Request(tuple(text(5 + n % 7, n)), n))
        finish(session)
        batch = session.batch
        sizes.append((len(batch.rows), len(batch.texts), len(batch.drafter.texts), batch.pages.count))  # type: ignore[attr-defined]
    assert all(size == sizes[1] for size in sizes[2:]) and sizes[-1][:3] == (0, 0, 0)


def test_sessions_that_only_begin_answers_hold_no_states_and_no_ways_to_draw_of_who_has_left() -> None:
    session = Engine(build(SHAPES["v3"]), ()).session(Sampling(max_rows=4))
    for n in range(20):
        for seed in range(2):
            session.add(Request((4, 5), seed, Sampling(max_tokens=1, temperature=1 + n / 100)))
        assert len(finish(session)) == 2
        assert len(session.batch.states) == 0 and len(session.batch._samplings) == len(session.batch._kinds) == 1


def test_the_policy_is_shared_with_a_session_too() -> None:
    model: Decoder = build(SHAPES["v3"])
    assert Engine(model, STOP).session(Sampling()).batch.model is model
