"""Laws of the rooms text and verify, for any text."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seekling.text.chat import encode_chat, parse_chat, render
from seekling.text.reasoning import split
from seekling.text.tokenizer import CONTROL, SPECIAL, TAGS, Tokenizer, train
from seekling.verify.expression import Unparsed, evaluate, normal_form, numbers_used, read

BITS = st.sampled_from(
    [
        *SPECIAL,
        "<think",
        "｜",
        "\ue0000\ue001",
        "42",
        "+",
        " ",
        "\n",
        "深度求索",
        "🐳",
        "👩‍🔬",
        "e\u0301",
        "\x00",
    ]
)
TEXT = st.text() | st.lists(BITS | st.text(max_size=3)).map("".join)
TOKENIZER = train([f"use {n} to make {n + 1} 深度🐳 {n}+1={n + 1} no yes" for n in range(100)], 450)


@given(TEXT)
def test_any_text_survives_the_round_trip(text: str) -> None:
    for special, tags in ((False, False), (True, False), (False, True)):
        assert TOKENIZER.decode(TOKENIZER.encode(text, special=special, tags=tags)) == text


@given(TEXT)
def test_text_never_becomes_a_control_token(text: str) -> None:
    assert not set(TOKENIZER.encode(text)) & set(range(len(SPECIAL)))
    tags = {TOKENIZER.think_open, TOKENIZER.think_close, TOKENIZER.answer_open, TOKENIZER.answer_close}
    assert set(TOKENIZER.encode(text, tags=True)) & set(range(len(SPECIAL))) <= tags


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1)), st.booleans())
def test_a_stream_adds_up_to_the_decoded_text(ids: list[int], skip_special: bool) -> None:
    streamed = list(TOKENIZER.decode_stream(ids, skip_special=skip_special))
    assert "".join(streamed) == TOKENIZER.decode(ids, skip_special=skip_special)
    assert all(streamed)


@given(st.lists(TEXT))
def test_a_batch_is_encoded_as_each_alone(texts: list[str]) -> None:
    assert TOKENIZER.encode_batch(texts) == [TOKENIZER.encode(text) for text in texts]


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1)))
def test_our_decoding_is_the_librarys(ids: list[int]) -> None:
    assert TOKENIZER.decode(ids) == TOKENIZER.whole.decode(ids, skip_special_tokens=False)


TURNS = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}), max_size=4)
SYSTEM = st.lists(st.fixed_dictionaries({"role": st.just("system"), "content": TEXT.filter(bool)}), max_size=1)
CHATS = st.tuples(SYSTEM, TURNS).map(lambda parts: [*parts[0], *parts[1]])


@given(CHATS)
def test_parsing_undoes_encoding(messages: list[dict[str, str]]) -> None:
    ids, _ = encode_chat(TOKENIZER, messages)
    assert parse_chat(TOKENIZER, ids) == messages


@given(CHATS, st.booleans())
def test_the_mask_covers_exactly_the_assistants_tokens_and_the_stop(
    messages: list[dict[str, str]], prompt: bool
) -> None:
    """Against an oracle that encodes turn by turn."""
    ids, mask = [TOKENIZER.bos], [False]
    for message in messages:
        said = message["role"] == "assistant"
        opening = {"system": [], "user": [TOKENIZER.user], "assistant": [TOKENIZER.assistant]}[message["role"]]
        content = TOKENIZER.encode(message["content"], tags=said) + [TOKENIZER.eos] * said
        ids += opening + content
        mask += [False] * len(opening) + [said] * len(content)
    ids += [TOKENIZER.assistant] * prompt
    mask += [False] * prompt
    assert encode_chat(TOKENIZER, messages, add_generation_prompt=prompt) == (ids, mask)


@given(CHATS)
def test_segments_hold_each_content_untouched(messages: list[dict[str, str]]) -> None:
    said = [segment.text for segment in render(messages) if segment.speaker != "template"]
    assert said == [message["content"] for message in messages]


TAGGED = st.lists(st.sampled_from([*TAGS.values()]) | st.sampled_from(["7", " ", "\n", "a<", ">"])).map("".join)


@given(TAGGED)
def test_an_answer_is_never_taken_from_unfinished_thinking(text: str) -> None:
    assert split(f"<think>{text.replace('</think>', '')}").answer is None


@given(TAGGED)
def test_the_final_answer_stands_complete_in_the_text(text: str) -> None:
    found = split(text)
    if found.answer is not None:
        assert f"<answer>{found.answer}</answer>" in re.sub(r"\s*(</?answer>)\s*", r"\1", text)
        assert not any(tag in found.answer for tag in TAGS.values())
    assert not any(tag in found.thinking + "\x00" + found.reply for tag in TAGS.values())


@given(TAGGED)
def test_an_answer_said_last_is_final_however_the_thinking_went(text: str) -> None:
    closed = text + "</think>" * (text.count("<think>") + 1)
    assert split(f"{closed}<answer>42</answer>").answer == "42"


@given(TAGGED)
def test_well_formed_is_the_form_and_nothing_else(text: str) -> None:
    """Against an oracle that takes the form apart by its four tags."""
    rest, is_formed = text, all(text.count(tag) == 1 for tag in TAGS.values())
    for tag, may_hold_text in zip(TAGS.values(), (False, True, False, True), strict=True):
        before, found, rest = rest.partition(tag)
        is_formed = is_formed and bool(found) and (may_hold_text or not before.strip())
    assert split(text).well_formed == (is_formed and not rest.strip())


Tree = int | tuple[str, "Tree", "Tree"] | tuple[str, "Tree"]


def deeper(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.tuples(st.sampled_from("+-*/"), inner, inner) | st.tuples(st.just("negate"), inner)


TREES = st.recursive(st.integers(0, 120), deeper, max_leaves=12)


def slow_value(tree: Tree) -> Fraction | None:
    """The oracle: walks the tree. None where something is divided by zero."""
    if isinstance(tree, int):
        return Fraction(tree)
    parts = [slow_value(part) for part in tree[1:]]
    if None in parts or (tree[0] == "/" and parts[1] == 0):
        return None
    if tree[0] == "negate":
        return -parts[0]
    left, right = parts
    return {
        "+": lambda: left + right,
        "-": lambda: left - right,
        "*": lambda: left * right,
        "/": lambda: left / right,
    }[tree[0]]()


def sparing(tree: Tree, floor: int = 0) -> str:
    """The tree with only the brackets it needs: ``floor`` is the rank its surroundings ask for."""
    if isinstance(tree, int):
        return str(tree)
    if tree[0] == "negate":
        text, rank = f"-{sparing(tree[1], 4)}", 3
    else:
        rank = 1 if tree[0] in "+-" else 2
        text = f"{sparing(tree[1], rank)} {tree[0]} {sparing(tree[2], rank + 1)}"
    return f"({text})" if rank < floor else text


def leaves(tree: Tree) -> list[int]:
    return [tree] if isinstance(tree, int) else [leaf for part in tree[1:] for leaf in leaves(part)]


@given(TREES)
def test_an_expression_is_worth_what_a_walk_over_its_tree_says(tree: Tree) -> None:
    value, text = slow_value(tree), sparing(tree)
    if value is None:
        with pytest.raises(Unparsed):
            evaluate(text)
    else:
        assert evaluate(text) == value
        assert numbers_used(text) == leaves(tree)


@given(TREES)
def test_a_normal_form_is_worth_the_same_and_is_its_own_normal_form(tree: Tree) -> None:
    if slow_value(tree) is not None:
        form = normal_form(sparing(tree))
        assert evaluate(form) == slow_value(tree)
        assert sorted(numbers_used(form)) == sorted(leaves(tree))


def mirrored(tree: Tree) -> Tree:
    if isinstance(tree, int):
        return tree
    parts = [mirrored(part) for part in tree[1:]]
    return (tree[0], *(reversed(parts) if tree[0] in "+*" else parts))


@given(TREES)
def test_commuting_never_changes_the_normal_form(tree: Tree) -> None:
    assert normal_form(sparing(tree)) == normal_form(sparing(mirrored(tree)))


@given(st.text() | st.text(alphabet="0123456789+-*/()= .−×"))
def test_any_text_is_an_expression_or_unparsed(text: str) -> None:
    try:
        assert isinstance(read(text).value, Fraction)
    except Unparsed as error:
        assert str(error)


def test_the_shipped_template_names_no_token_we_lack() -> None:
    assert isinstance(TOKENIZER, Tokenizer)
    assert set(CONTROL.values()) <= set(SPECIAL)
