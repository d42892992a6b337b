"""Answers that keep to a schema, an expression or a grammar: which tokens may come where, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from seekling.engine.endings import lark_ends, schema_ends
from seekling.engine.grammar import Grammar, Written, compiled, from_schema
from seekling.engine.rules import Thought
from seekling.errors import UserError
from seekling.text.tokenizer import Tokenizer
from tests.oracles.saying import allowed, limits, say, speaker
from tests.oracles.tokenizers import FAMILIES

TOKENIZER = speaker()
V = TOKENIZER.vocab_size
STOPS = set(TOKENIZER.stops)
OPEN, CLOSE = TOKENIZER.think_open, TOKENIZER.think_close
assert OPEN is not None and CLOSE is not None


def regex(pattern: str, thought: Thought | None = None) -> Grammar:
    return Grammar(Written("regex", pattern), TOKENIZER, thought)


def lark(text: str) -> Grammar:
    return Grammar(Written("lark", text), TOKENIZER)


def texts(rule: Grammar, said: str = "") -> set[str]:
    """What may come next, as text."""
    return {TOKENIZER.decode([token]) for token in allowed(rule, TOKENIZER.encode(said), V)}


# --- which tokens -----------------------------------------------------------------------------------------------------

END = TOKENIZER.decode([TOKENIZER.eos])


def test_a_stop_may_come_exactly_where_the_grammar_may_end() -> None:
    rule = regex("ab?")
    assert texts(rule) == {"a"}
    assert texts(rule, "a") == {"b", END}
    assert texts(rule, "ab") == {END}


def test_after_the_end_only_a_stop_may_come() -> None:
    assert allowed(regex("a"), [*TOKENIZER.encode("a"), TOKENIZER.eos], V) == STOPS


def test_an_empty_text_may_be_all_there_is() -> None:
    assert texts(regex("")) == {END}


def test_no_token_of_control_is_text() -> None:
    control = {TOKENIZER.whole.token_to_id(name) for name in TOKENIZER.control}
    assert allowed(regex("(?s:.*)"), [], V) & control == STOPS
    assert allowed(regex("(?s:.*)"), [], V) >= set(range(len(control), V)) - {
        token for token, piece in enumerate(TOKENIZER.pieces.table) if any(byte >= 0x80 for byte in piece)
    }


@pytest.mark.parametrize("text", ['start: <think> "a"', f'start: <[{OPEN}]> "a"', "start: <[1]>"])
def test_a_grammar_cannot_ask_for_a_token_of_control(text: str) -> None:
    with pytest.raises(UserError):
        lark(text)


def test_what_stands_in_a_token_of_several_bytes_is_weighed_whole() -> None:
    assert len(TOKENIZER.encode("hello")) == 1
    assert texts(regex("hel[a-z]")) == {"h", "he", "hell"}
    assert "hello" in texts(regex("hel[a-z]*"))


def test_a_character_may_come_byte_by_byte() -> None:
    rule, said = regex("[🐳x]"), []
    for byte in "🐳".encode():
        token = TOKENIZER.pieces.table.index(bytes([byte]))
        assert limits(rule, said, V)[token] > float("-inf")
        said.append(token)
    assert allowed(rule, said, V) == STOPS


def test_what_leaves_no_choice_is_said_in_the_tokenizers_own_tokens() -> None:
    said = TOKENIZER.encode("hello world")
    for place, token in enumerate(said):
        assert allowed(regex("hello world"), said[:place], V) == {token}


def test_scores_of_what_may_come_are_untouched() -> None:
    rule = regex("[a-z]+")
    kept = sorted(allowed(rule, [], V))
    before = torch.zeros(V) + 1.5
    after = before.clone()
    rule.limit([], after)
    assert torch.equal(after[kept], before[kept])
    assert (after == float("-inf")).sum() == V - len(kept)


def test_a_model_with_more_embeddings_than_tokens_never_says_the_rest() -> None:
    rule = regex("(?s:.*)")
    logits_V = torch.zeros(V + 100)
    rule.limit([], logits_V)
    assert not logits_V[V:].isfinite().any()
    wide = Grammar(Written("regex", "a"), TOKENIZER.padded(V + 100))
    assert limits(wide, [], V + 100).isfinite().sum() == 1


@pytest.mark.parametrize("size", range(V, V + 34))
def test_a_vocabulary_may_be_of_any_size(size: int) -> None:
    wide = Grammar(Written("regex", "ab?"), TOKENIZER.padded(size))
    assert allowed(wide, TOKENIZER.encode("a"), size) == {TOKENIZER.eos, *TOKENIZER.encode("b")}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_under_a_grammar_is_decoded_to_what_the_grammar_says(name: str, tmp_path: Path) -> None:
    """Also where the tokenizer puts a blank before a beginning, composes characters, or falls back to bytes."""
    tokenizer = Tokenizer.load(FAMILIES[name].write(tmp_path))
    for pattern in ("e\u0301x 12345 你好 Zürich!", "(ab|e\u0301| 🐳){3,9} Zürich[!?]", "[a-zü ]{0,9}\\n<think>"):
        rule = Grammar(Written("regex", f"x{pattern}"), tokenizer)
        said = say([rule], tokenizer.vocab_size, tokenizer.stops, haste=9.0)
        assert said[-1] in tokenizer.stops
        assert re.fullmatch(f"x{pattern}", tokenizer.decode(said[:-1]))


# --- beside a thought -------------------------------------------------------------------------------------------------


def test_the_text_begins_after_the_thought_and_no_stop_comes_before_it() -> None:
    rule = regex("ab", Thought((OPEN,), (CLOSE,), started=True))
    said = TOKENIZER.encode("hello")
    assert allowed(rule, said, V) == set(range(V)) - STOPS
    assert allowed(rule, [*said, CLOSE], V) == set(TOKENIZER.encode("a"))
    assert allowed(rule, [*said, CLOSE, *TOKENIZER.encode("a")], V) == set(TOKENIZER.encode("b"))


def test_an_answer_may_open_the_thought_itself_or_begin_its_text_at_once() -> None:
    rule = regex("ab", Thought((OPEN,), (CLOSE,)))
    a, b = TOKENIZER.encode("a")[0], TOKENIZER.encode("b")[0]
    assert allowed(rule, [], V) == {OPEN, a}
    assert allowed(rule, [a], V) == {b}
    assert allowed(rule, [OPEN, b], V) == set(range(V)) - STOPS
    assert allowed(rule, [OPEN, b, CLOSE], V) == {a}


def test_marks_of_several_tokens_may_look_like_the_text() -> None:
    a, b, c = (TOKENIZER.encode(letter)[0] for letter in "abc")
    rule = regex("ac", Thought((a, b), (c, c)))
    assert allowed(rule, [], V) == {a}
    assert allowed(rule, [a], V) == {b, c}
    assert allowed(rule, [a, c], V) == STOPS
    assert allowed(rule, [a, b, c], V) == set(range(V)) - STOPS
    assert allowed(rule, [a, b, c, c], V) == {a}
    other = regex("cc", Thought((a, b), (c, c)))
    assert allowed(other, [], V) >= {a, c}
    assert allowed(other, [a], V) == {b}


# --- what is refused --------------------------------------------------------------------------------------------------

ITSELF = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}


@pytest.mark.parametrize("schema", [
    False, {"type": "strin"}, {"type": "string", "minLength": 5, "maxLength": 2}, {"$ref": "#"}, ITSELF,
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1}, {"anyOf": [ITSELF]},
    {"type": "array", "uniqueItems": True}, {"$ref": "https://example.com/x.json"}, {"not": {"type": "string"}},
    {"type": "array", "minItems": 10**8}, "{bad", "[1]", 7, {"enum": [float("nan")]},
    {"type": "string", "pattern": "(a"}, {"enum": ["a" * 2**16]}, {"a": {1, 2}},
])  # fmt: skip
def test_a_schema_that_cannot_be_kept_to_is_refused(schema: Any) -> None:
    with pytest.raises(UserError, match="JSON schema"):
        Grammar(from_schema(schema), TOKENIZER)


@pytest.mark.parametrize("pattern", [
    "(a", "a(?=b)", r"(a)\1", r"[^\s\S]", r"a[^\s\S]", "\ud800", "a" * (2**13 + 1),
    "((((a{100}){100}){100}){100}){100}", "(" * 20000 + "a" + ")" * 20000,
])  # fmt: skip
def test_an_expression_that_cannot_be_kept_to_is_refused(pattern: str) -> None:
    with pytest.raises(UserError, match="regular expression"):
        regex(pattern)


@pytest.mark.parametrize("text", [
    "start: foo", 'foo: "a"', 'start: "a" start', 'start: "a" (b | c)\nb: c "x"\nc: b', "start: " + "(" * 20000,
    'start: %json {"type": "array", "minItems": 100000000}', "start: %json {bad", "start: <|none|>",
    'start: %json {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}',
])  # fmt: skip
def test_a_lark_grammar_that_cannot_be_kept_to_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="Lark grammar"):
        lark(text)


@pytest.mark.parametrize(("text", "ends"), [
    ('start: "a" start | "b"', True), ('start: "a" start?', True), ('start: ("a" start)*', True),
    ('start: "a" start', False), ('start: "a" start+', False), ('start: [start] "a"', True),
    ('start: a\na: "x" a | b\nb: "y" b', False), ('start: a\na: "x" a | b\nb: "y" // b', True),
    ('start: a{2,5}\na: "x" a', False), ('start: a{0,5}\na: "x" a', True), ('start: a ~ 3\na: "x" a', False),
    ('start: A\nA: "x"+\nb: b', True), ('start: x -> y\nx: "(" x ")" | /a|b/', True),
    ('start[capture]: x\nx: x', False), ('start: (("a" | start) start)', False),
])  # fmt: skip
def test_whether_a_grammar_has_an_end_is_told_by_its_rules(text: str, ends: bool) -> None:
    assert lark_ends(text) is ends


@pytest.mark.parametrize(("schema", "ends"), [
    (ITSELF, False), (ITSELF | {"required": []}, True), (ITSELF | {"type": ["object", "null"]}, True),
    ({"anyOf": [{"type": "null"}, ITSELF]}, True), ({"$defs": {"x/y": ITSELF}, "$ref": "#/$defs/x~1y"}, False),
    ({"$defs": {"x": {"$ref": "#/$defs/y"}, "y": {"$ref": "#/$defs/x"}}, "$ref": "#/$defs/x"}, False),
    ({"type": "array", "prefixItems": [{}, {"$ref": "#"}], "minItems": 1}, True),
    ({"type": "array", "prefixItems": [{}, {"$ref": "#"}], "minItems": 2}, False),
    ({"allOf": [{"type": "object"}, {"$ref": "#"}]}, False), (True, True), ({"$ref": "other"}, True),
    ({"oneOf": [{"$ref": "#"}, {"$ref": "#"}]}, False),
])  # fmt: skip
def test_whether_a_schema_has_an_end_is_told_by_what_it_needs(schema: Any, ends: bool) -> None:
    assert schema_ends(schema) is ends


def test_the_search_for_an_end_has_an_end() -> None:
    fan = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    assert schema_ends({"$defs": fan | {"d60": {"$ref": "#/$defs/d60"}}, "$ref": "#/$defs/d0"})
    deep = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(3000)}
    assert schema_ends({"$defs": deep, "$ref": "#/$defs/d0"})
    rules = [f"r{n}: r{(n * 7919 + 1) % 3000}" for n in range(3000)]
    lark_ends("start: r0\n" + "\n".join(rules))


def test_a_grammar_that_grows_too_complex_on_the_way_says_why() -> None:
    text = "start: WORD A\nWORD: /[b-z]{5}!/\nA: /((((a{100}){100}){100}){100}){100}/"
    rule = lark(text)
    said = [TOKENIZER.pieces.table.index(letter.encode()) for letter in "bcdef"]
    assert allowed(rule, said, V)
    assert not rule.trouble()
    more = [*said, *TOKENIZER.encode("!a")]
    while allowed(rule, more, V):
        more += TOKENIZER.encode("a")
        assert len(more) < 60
    assert "too many" in rule.trouble()
    assert allowed(rule, said[:2], V), "it begins again"
    assert allowed(lark(text), said[:2], V), "and another answer does not suffer by it"


# --- what is made once ------------------------------------------------------------------------------------------------


def test_a_grammar_is_compiled_once_per_tokenizer() -> None:
    written = Written("regex", "once")
    assert compiled(written, TOKENIZER) is compiled(Written("regex", "once"), TOKENIZER)
    assert compiled(written, TOKENIZER) is not compiled(written, speaker(400))


def test_answers_do_not_disturb_each_other() -> None:
    one, two, three = regex("ab*c"), regex("ab*c"), regex("xyz")
    assert texts(one, "abbb") == {"b", "c"} | ({"bb"} & texts(one, "abbb"))
    assert texts(three, "x") == {"y"} | ({"yz"} & texts(three, "x"))
    assert texts(two) <= {"a", "ab"}
    assert texts(one, "abbbc") == {END}
    assert texts(two, "a") >= {"b", "c"}


def test_the_library_is_imported_by_a_grammar_alone() -> None:
    code = "import seekling.engine.terms, seekling.engine.engine, sys; print('llguidance' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_a_schema_may_be_a_value_or_a_text() -> None:
    schema: Mapping[str, Any] = {"type": "integer"}
    assert from_schema(schema) == from_schema(json.dumps(schema))
