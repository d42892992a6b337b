"""Laws of what a request asks of its own tokens: answers that begin again, budgets of thought, texts under grammars."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seekling.engine.grammar import Grammar, Written, from_schema
from seekling.engine.rules import AtLeast, Bias, Penalties, Rule, StopText, Thinking, Thought
from tests.oracles.saying import limits, say, speaker

settings.register_profile("laws", deadline=None)  # a busy machine is no broken law
settings.load_profile("laws")

TOKENIZER = speaker()
V, STOP = 6, 5
TABLE = [b"a", b"b", "ü".encode()[:1], "ü".encode()[1:], b"ab", b"#"]
MARKS = Thought((0, 1), (2, 3))
RULES: dict[str, Callable[[], Rule]] = {
    "penalties": lambda: Penalties([0, 3], 1.5, 0.5, 0.25),
    "bias": lambda: Bias({2: 1.0}),
    "minimum": lambda: AtLeast(4, [STOP]),
    "thought": lambda: Thinking(MARKS, [STOP], most=4, least=2),
    "thought from the prompt": lambda: Thinking(Thought((0,), (2, 2), started=True), [STOP], most=3),
    "stop": lambda: StopText(TABLE, ["ba", "ü", "bab"]),
}
SAID = st.lists(st.integers(0, V - 1), max_size=40)


@pytest.mark.parametrize("name", RULES)
@given(st.lists(SAID, min_size=1, max_size=4))
def test_a_rule_decides_from_what_is_said_alone_however_it_came_there(name: str, answers: list[list[int]]) -> None:
    rule = RULES[name]()
    for said in answers:  # each after the other, token by token, in one instance
        for length in range(len(said) + 1):
            fresh = RULES[name]()
            assert torch.equal(limits(rule, said[:length], V), limits(fresh, said[:length], V))
            assert rule.ends(said[:length]) == fresh.ends(said[:length])


@given(st.lists(st.text("abc", max_size=12), min_size=1, max_size=3), st.integers(0, 99))
def test_a_grammar_decides_from_what_is_said_alone(answers: list[str], seed: int) -> None:
    made = lambda: Grammar(Written("regex", "(a|bc)*"), TOKENIZER)  # noqa: E731
    rule = made()
    for text in answers:
        said = TOKENIZER.encode(text)
        for length in range(len(said) + 1):
            mine, fresh = (limits(one, said[:length], TOKENIZER.vocab_size, seed) for one in (rule, made()))
            assert torch.equal(mine, fresh)


@given(SAID, st.lists(st.sampled_from(["a", "b", "ab", "ba", "ü", "aüb", "#"]), min_size=1, max_size=4))
def test_an_answer_ends_with_the_token_that_completes_a_string(said: list[int], strings: list[str]) -> None:
    rule = StopText(TABLE, strings)
    for length in range(len(said) + 1):
        heard = b"".join(TABLE[token] for token in said[:length])
        assert rule.ends(said[:length]) == any(string.encode() in heard for string in strings)


def thoughts(said: list[int], thought: Thought) -> list[tuple[int, bool]]:
    """How many tokens each thought has, and whether it is closed: read from the end of each mark, without a rule."""
    found, inside, start, place = [], thought.started, 0, 0
    while place < len(said):
        mark = thought.close if inside else thought.open
        if tuple(said[place : place + len(mark)]) == mark:
            place += len(mark)
            found += [(place - len(mark) - start, True)] if inside else []
            inside, start = not inside, place
        else:
            place += 1
    return [*found, (len(said) - start, False)] if inside else found


@given(st.integers(0, 6), st.integers(0, 6), st.booleans(), st.integers(0, 10**6))
def test_every_thought_keeps_to_its_most_and_its_least(least: int, more: int, started: bool, seed: int) -> None:
    thought, most = Thought((0, 1), (2, 3), started), least + more
    said = say([Thinking(thought, [STOP], most, least)], V, [STOP], seed=seed, most=60, haste=0.5)
    for length, closed in thoughts(said, thought):
        assert length <= most + (0 if closed else len(thought.close))
        assert length >= least or (not closed and len(said) == 60)


@given(st.integers(0, 8), st.integers(0, 10**6))
def test_the_close_stands_exactly_after_the_most_where_it_does_not_stand_before(most: int, seed: int) -> None:
    thought = Thought((0,), (2, 3), started=True)
    never = Bias({2: -1e9})
    said = say([never, Thinking(thought, [STOP], most, most)], V, [STOP], seed=seed, most=most + 2)
    assert said[most:] == [2, 3]
    assert 2 not in said[:most]


# --- texts under grammars ---------------------------------------------------------------------------------------------

POINT: dict[str, Any] = {
    "type": "object", "additionalProperties": False, "required": ["x", "y"],
    "properties": {
        "x": {"type": "integer", "minimum": -5, "maximum": 120}, "y": {"type": "number"},
        "name": {"type": "string", "maxLength": 6},
    },
}  # fmt: skip
TREE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["left"],
    "properties": {"left": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "ok": {"type": "boolean"}},
}
LIST: dict[str, Any] = {"type": "array", "minItems": 2, "maxItems": 4, "items": {"enum": ["red", "grün", 3, None]}}
DAY: dict[str, Any] = {"type": "string", "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$"}


def is_point(value: Any) -> bool:
    x, y = value["x"], value["y"]
    whole = type(x) is int and -5 <= x <= 120 and type(y) in (int, float)
    return whole and value.keys() <= {"x", "y", "name"} and len(value.get("name", "")) <= 6


def is_tree(value: Any) -> bool:
    return value is None or (
        value.keys() <= {"left", "ok"} and is_tree(value["left"]) and value.get("ok") in (None, 0, 1)
    )


def is_list(value: Any) -> bool:
    return 2 <= len(value) <= 4 and all(item in ["red", "grün", 3, None] for item in value)


def is_day(value: Any) -> bool:
    return re.fullmatch("[0-9]{4}-(0[1-9]|1[0-2])", value) is not None


SCHEMAS = {"point": (POINT, is_point), "tree": (TREE, is_tree), "list": (LIST, is_list), "day": (DAY, is_day)}


def spoken(rules: list[Rule], seed: int, most: int = 3000) -> str:
    """What a model without preferences says, which must come to its stop."""
    said = say(rules, TOKENIZER.vocab_size, TOKENIZER.stops, seed=seed, most=most, haste=4.0)
    assert said[-1] in TOKENIZER.stops, TOKENIZER.decode(said)
    return TOKENIZER.decode(said[:-1])


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_what_is_said_under_a_schema_is_an_instance_of_it(name: str, seed: int) -> None:
    schema, fits = SCHEMAS[name]
    assert fits(json.loads(spoken([Grammar(from_schema(schema), TOKENIZER)], seed)))


PATTERNS = ["[a-z]{2,5}( [a-z]{1,3})*", "(ab|ba)+c?", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", "[^a]*", "(Zürich|你好|🐳)+!"]


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_what_is_said_under_an_expression_matches_it_whole(pattern: str, seed: int) -> None:
    assert re.fullmatch(pattern, spoken([Grammar(Written("regex", pattern), TOKENIZER)], seed))


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_what_is_said_under_a_lark_grammar_is_in_its_language(seed: int) -> None:
    sums = Written("lark", 'start: term (" + " term)*\nterm: NUMBER | "(" start ")"\nNUMBER: /[1-9][0-9]?/')
    text = spoken([Grammar(sums, TOKENIZER)], seed)
    assert re.fullmatch(r"[\d+ ()]+", text)
    assert sum(map(int, re.findall(r"\d+", text))) and text.count("(") == text.count(")")


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.booleans())
def test_a_text_stands_after_a_thought_of_bounded_length(seed: int, started: bool) -> None:
    opened, closed = TOKENIZER.think_open, TOKENIZER.think_close
    assert opened is not None and closed is not None
    thought = Thought((opened,), (closed,), started)
    rules = [Grammar(Written("regex", "[a-c]+"), TOKENIZER, thought), Thinking(thought, TOKENIZER.stops, 7, 3)]
    if not started:
        rules.insert(0, Bias({opened: 50.0}))
    head, _, text = spoken(rules, seed).partition("</think>")
    assert re.fullmatch("[a-c]+", text)
    assert head.startswith("<think>") is not started or started
