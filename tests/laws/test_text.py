"""Laws of the rooms text and verify, for any text."""

from __future__ import annotations

import re
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seekling.text.chat import Chat, encode_chat, encode_prompts, encode_turns, parse_chat, render, render_text
from seekling.text.reasoning import split
from seekling.text.tokenizer import CONTROL, SPECIAL, TAGS, Tokenizer, train
from seekling.text.turns import CLOSE
from seekling.verify.expression import Unparsed, evaluate, normal_form, numbers_used, read
from tests.oracles.tokenizers import FAMILIES, WORDS_V2

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


# --- any family -------------------------------------------------------------------------------------------------------


@cache
def family(name: str) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        return Tokenizer.load(FAMILIES[name].write(Path(folder)))


@cache
def bits(name: str) -> st.SearchStrategy[str]:
    """Texts full of a family's control tokens, their halves, marks of ours, and what the library normalises."""
    control = list(family(name).control)
    pieces = [token[:cut] for token in control for cut in (1, len(token) // 2, -1)]
    pieces += [token[cut:] for token in control for cut in (1, len(token) // 2, -1)]
    odd = [
        "\ue000",
        "\ue001",
        "\U000f0000",
        "e\u0301",
        "\u212a",
        "▁",
        "Ġ",
        "深",
        "🐳",
        " ",
        "\n",
        "ø",
        "\\ue000",
        "\x00",
        "12",
    ]
    return st.lists(st.sampled_from([*control, *pieces, *odd]) | st.text(max_size=2), max_size=8).map("".join)


def control_in(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    names = [tokenizer.whole.id_to_token(token) for token in ids]
    return [name for name in names if name in set(tokenizer.control)]


EVERY = pytest.mark.parametrize("name", FAMILIES)


@EVERY
@settings(deadline=None)  # the first example may start a worker
@given(st.data())
def test_no_plain_text_makes_a_control_token_in_any_family(name: str, data: st.DataObject) -> None:
    text = data.draw(bits(name))
    assert control_in(family(name), family(name).encode(text)) == []


@EVERY
@settings(deadline=None)  # the first example may start a worker
@given(st.data())
def test_no_content_makes_a_control_token_in_any_family(name: str, data: st.DataObject) -> None:
    """What system, user and tool say, in what is rendered as in what is not, changes no control token at all."""
    tokenizer, text = family(name), data.draw(bits(name))

    def chat(text: str) -> Chat:
        tool = {"type": "function", "function": {"name": "f", "description": text, "parameters": {"type": text}}}
        roles = ["user"] if name in ("llama2", "deepseek_v2") else ["system", "user"]
        return Chat([{"role": role, "content": f"x{text}y"} for role in roles], [tool])

    plain, attacked = encode_prompts(tokenizer, [chat("z"), chat(text)])
    assert control_in(tokenizer, attacked) == control_in(tokenizer, plain)


@EVERY
@settings(deadline=None)  # the first example may start a worker
@given(st.data())
def test_a_bare_content_makes_no_control_token_in_any_family(name: str, data: st.DataObject) -> None:
    """Without letters at its edges: so what a template writes beside it could complete it."""
    tokenizer, text = family(name), data.draw(bits(name))
    plain, attacked = encode_prompts(tokenizer, [[{"role": "user", "content": content}] for content in ("z", text)])
    assert control_in(tokenizer, attacked) == control_in(tokenizer, plain)


@EVERY
@settings(deadline=None)  # the first example may start a worker
@given(st.data())
def test_what_is_encoded_is_what_is_rendered_in_any_family(name: str, data: st.DataObject) -> None:
    """Marks come out again, whatever they guarded. (The library normalises; so the texts are such as it leaves.)"""
    tokenizer, text = family(name), re.sub(f"[e\u0301\u212a▁\ufffd\r{WORDS_V2}]", "", data.draw(bits(name)))
    chat = Chat([{"role": "user", "content": f"x{text}"}], variables={"date_string": ""})
    (ids,) = encode_prompts(tokenizer, [chat])
    rendered = render_text(tokenizer, chat, add_generation_prompt=True)
    if tokenizer.whole.normalizer is None or rendered == tokenizer.whole.normalizer.normalize_str(rendered):
        assert tokenizer.decode(ids) == rendered


@EVERY
@settings(deadline=None)  # the first example may start a worker
@given(st.data())
def test_what_the_assistant_says_is_masked_whole_in_any_family(name: str, data: st.DataObject) -> None:
    """Every token before it is its prompt's, and every learned one is it, its thought or its end."""
    tokenizer = family(name)
    said = data.draw(bits(name)).replace(CLOSE, "").replace("<think>", "").strip() or "so"
    talk: list[dict[str, Any]] = [
        {"role": "user", "content": data.draw(bits(name))},
        {"role": "assistant", "content": said},
    ]
    ((ids, mask),) = encode_turns(tokenizer, talk)
    start = mask.index(True)
    end = len(mask) - mask[::-1].index(True)
    assert all(mask[start:end])
    assert ids[:start] == encode_prompts(tokenizer, [talk[:1]])[0]
    assert ids[end - 1] in tokenizer.stops
    allowed = {"<think>", CLOSE, "<answer>", "</answer>"}
    assert set(control_in(tokenizer, ids[start : end - 1])) <= allowed


@EVERY
@settings(deadline=None)  # the first example may start a worker
@given(st.data())
def test_any_ids_decode_as_the_library_decodes_them_in_any_family(name: str, data: st.DataObject) -> None:
    tokenizer = family(name)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    for skip in (False, True):
        whole = tokenizer.whole.decode(ids, skip_special_tokens=skip)
        assert tokenizer.decode(ids, skip_special=skip) == whole
        parts = list(tokenizer.decode_stream(ids, skip_special=skip))
        assert "".join(parts) == whole
        assert all(parts)


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
