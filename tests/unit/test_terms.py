"""From what a request asks to its rules, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from seekling.engine.grammar import Grammar
from seekling.engine.rules import AtLeast, Banned, Bias, Penalties, StopText, Thinking, Thought
from seekling.engine.terms import Terms, rules_for
from seekling.errors import UserError
from tests.oracles.saying import say, speaker

TOKENIZER = speaker()
V = TOKENIZER.vocab_size
OPEN, CLOSE = TOKENIZER.think_open, TOKENIZER.think_close
assert OPEN is not None and CLOSE is not None
THOUGHT = Thought((OPEN,), (CLOSE,))


def test_a_request_that_asks_nothing_has_no_rule() -> None:
    assert rules_for(Terms(), TOKENIZER, [1, 2]) == ()
    assert rules_for(Terms(thought=THOUGHT, max_tokens=7), TOKENIZER, []) == ()


def test_scores_change_before_tokens_are_left_out_and_a_forced_close_is_last() -> None:
    terms = Terms(
        ban=lambda said: (), repetition=1.1, bias={3: 1.0}, min_tokens=2, stop_texts=("x",), thought=THOUGHT,
        most_thought=5, regex="a",
    )  # fmt: skip
    kinds = [type(rule) for rule in rules_for(terms, TOKENIZER, [])]
    assert kinds == [Bias, Penalties, Banned, Grammar, AtLeast, Thinking, StopText]


def test_every_answer_gets_rules_of_its_own() -> None:
    terms = Terms(presence=0.5, regex="a+", stop_texts=("aa",))
    one, two = (rules_for(terms, TOKENIZER, []) for _ in range(2))
    assert not {id(rule) for rule in one} & {id(rule) for rule in two}


def test_a_grammar_that_is_at_its_end_outweighs_a_minimum() -> None:
    said = say(rules_for(Terms(regex="ab", min_tokens=9), TOKENIZER, []), V, TOKENIZER.stops)
    assert TOKENIZER.decode(said[:-1]) == "ab"


def test_stops_of_ones_own_take_the_place_of_the_tokenizers() -> None:
    rules = rules_for(Terms(regex="ab", stops=(50, 51)), TOKENIZER, [])
    assert set(say(rules, V, [50, 51])) & {50, 51, *TOKENIZER.stops} in ({50}, {51})


@pytest.mark.parametrize("asked", [
    {"json": {}, "regex": "a"}, {"regex": "a", "lark": 'start: "a"'}, {"json": True, "lark": 'start: "a"'},
    {"bias": {V: 1.0}}, {"bias": {-1: 1.0}}, {"stops": (V,)}, {"thought": Thought((V,), (1,))}, {"min_tokens": -1},
    {"min_tokens": 5, "max_tokens": 4}, {"most_thought": 3}, {"least_thought": 3}, {"regex": "("}, {"json": False},
    {"repetition": 0.0}, {"presence": 3.0}, {"stop_texts": ("",)}, {"bias": dict.fromkeys(range(301), 1.0)},
    {"thought": THOUGHT, "most_thought": 1, "least_thought": 2},
])  # fmt: skip
def test_what_cannot_be_or_contradicts_itself_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        rules_for(Terms(**asked), TOKENIZER, [])
