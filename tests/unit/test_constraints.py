"""Instruction constraints: each kept and each broken by hand-written replies, both policies, and hostile text."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seekling.verify.constraints import CHECKERS, IFEVAL, MAX_CHARS, loose, sentences, strict, words

AT_LEAST, LESS = "at least", "less than"

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["tide", "salt"]}, "Salt and TIDES.", "Only salt."),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": AT_LEAST}, "Sea, sea.", "Sea."),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": LESS}, "Sea.", "Sea, sea."),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "猫"]}, "The catalogue.", "The cat."),
    ("keywords:forbidden_words", {"forbidden_words": ["猫"]}, "一只狗。", "一只猫。"),
    ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 2, "let_relation": AT_LEAST}, "Quick q", "Quick"),
    ("language:response_language", {"language": "de"}, "Das ist nicht gut.", "That is not good."),
    ("language:response_language", {"language": "zh"}, "今天天气很好。", "今日は天気がいい。"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": AT_LEAST}, "One. Two!", "One by Dr. Two."),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": LESS}, "一。二。", "一。二。三。"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\nTwo", "One\n\nTwo"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\nOne\n***\nTwo\n***", "One *** *** Two"),
    ("length_constraints:number_words", {"num_words": 3, "relation": AT_LEAST}, "one two three", "one two"),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, "one two", "don't do"),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "tide"},
     "One.\n\n\"Tide\" it is.", "Tide.\n\nOne."),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] in [place]", "[name in place]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Text.\nP. S. more", "Text.\nPS more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two", "* one\n- two\n- three"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "- one\n---", "**one**"),
    ("detectable_format:constrained_response", {}, "Well. My answer is no.", "My answer is perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and * *"),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2},
     "SECTION 1\na\nSECTION 2\nb", "SECTION one\nSECTION 1"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', 'Here: {"a": 1}'),
    ("detectable_format:title", {}, "<<The sea>>\nText", "<< >>\n<<>>"),
    ("combination:two_responses", {}, "One\n******\nTwo", "One\n******\nOne"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Write it."}, " write it. So.", "So. Write it."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'Text. the END." ', "The end. Text."),
    ("startend:quotation", {}, ' "Text." ', "Text."),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": AT_LEAST}, "ALL OF", "ALL of"),
    ("change_case:english_capital", {}, "ALL OF IT IS THERE.", "ALL OF It IS THERE."),
    ("change_case:english_lowercase", {}, "all of it is there.", "all of It is there."),
    ("punctuation:no_comma", {}, "One and two.", "One, two."),
    ("punctuation:no_comma", {}, "一和二。", "一、二。"),
    ("startend:start_checker", {"start_phrase": "To begin"}, "to begin with", "Well to begin"),
    ("length_constraints:number_characters", {"num_characters": 3, "relation": "exactly"}, "天 气好", "天气很好"),
    ("length_constraints:number_lines", {"num_lines": 2, "relation": "exactly"}, "one\n\ntwo\n", "one\ntwo\nthree"),
    ("length_constraints:sentence_words", {"num_words": 3, "relation": "at most"}, "One two. Three.", "One two 3 4."),
    ("length_constraints:different_words", {"num_words": 3, "relation": AT_LEAST}, "a b c", "a b A B"),
    ("detectable_format:json_schema", {"schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', '{"b": 1}'),
    ("detectable_format:number_numbered_items", {"num_items": 2}, "1. one\n2) two", "1. one"),
    ("keywords:line_starts", {"word": "and"}, "And one\n\nand two", "And one\ntwo"),
    ("keywords:in_order", {"keywords": ["one", "two", "one"]}, "One, two, one.", "One, one, two."),
    ("punctuation:no_full_stop", {}, "Well!", "Well."),
    ("punctuation:exclamation_marks", {"num_marks": 2, "relation": "exactly"}, "So！ Well!", "So!! Well!"),
    ("change_case:alternating", {}, "aB c", "ab"),
]  # fmt: skip
ARGUMENTS = {name: arguments for name, arguments, _, _ in CASES}


def test_every_constraint_stands_in_the_cases() -> None:
    assert ARGUMENTS.keys() == CHECKERS.keys()
    assert len(IFEVAL) == 25 and set(IFEVAL) <= CHECKERS.keys() and len(CHECKERS) >= 35


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES)
def test_a_constraint_is_kept_or_broken(name: str, arguments: dict[str, Any], good: str, bad: str) -> None:
    assert CHECKERS[name](good, arguments)
    assert not CHECKERS[name](bad, arguments)


@pytest.mark.parametrize("name", sorted(CHECKERS))
def test_nothing_and_far_too_much_keep_no_constraint(name: str) -> None:
    for reply in ("", " \n", "good and bad " * (MAX_CHARS // 12)):
        assert not CHECKERS[name](reply, ARGUMENTS[name])


PIECES = [
    " ", "*", "[", "<<", "\n", "a ", ". ", "A. ", "```json\n", '{"a":', "- \n", "'", "a'", ".", '."', "1", "1. ",
    "P.", "。",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(CHECKERS))
def test_hostile_text_takes_no_time(name: str) -> None:
    start = time.process_time()
    for piece in PIECES:
        CHECKERS[name]("x" + piece * (49_000 // len(piece)) + "x", ARGUMENTS[name])
    assert time.process_time() - start < 2.0


@given(st.text() | st.text(alphabet="aA.,!?*[]<>\"'-\n 1{}:"))
def test_no_text_makes_a_checker_raise(reply: str) -> None:
    for name, checker in CHECKERS.items():
        assert checker(reply, ARGUMENTS[name]) in (True, False)


@given(st.text(alphabet="aA.,!?*[]<>\"'-\n 1"))
def test_what_is_kept_strictly_is_kept_loosely(reply: str) -> None:
    for name in CHECKERS:
        asked = [(name, ARGUMENTS[name])]
        assert loose(reply, asked) or not strict(reply, asked)


def test_the_loose_policy_forgives_a_first_line_a_last_line_and_asterisks() -> None:
    asked = [
        ("startend:start_checker", {"start_phrase": "the sea"}),
        ("startend:end_checker", {"end_phrase": "the end"}),
    ]
    reply = "Sure, here it is:\nThe sea was there.\n**The end**"
    assert not strict(reply, asked) and loose(reply, asked)
    assert not loose("Sure,\nhere it is:\nThe sea was there.\nThe end", asked)


def test_all_constraints_must_be_kept() -> None:
    asked = [("keywords:existence", {"keywords": ["sea"]}), ("punctuation:no_comma", {})]
    assert strict("The sea", asked) and not strict("The sea, yes", asked) and not strict("The lake", asked)


def test_an_argument_that_is_missing_is_an_error_and_no_verdict() -> None:
    with pytest.raises(KeyError):
        CHECKERS["keywords:existence"]("text", {})
    with pytest.raises(KeyError):
        CHECKERS["length_constraints:number_words"]("text", {"num_words": 3, "relation": "about"})


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two. Three.", 3), ("Mr. A. Smith left. He was sad.", 2), ("Well... so? Yes!", 3), ("3.5 is it.", 1),
        ('He said "Go." Then he went.', 2), ("no end", 1), ("", 0), ("...", 0), ("一。二！三？", 3), ("One.\nTwo", 2),
    ],
)  # fmt: skip
def test_sentences_are_counted_as_a_reader_counts_them(text: str, count: int) -> None:
    assert len(sentences(text)) == count


def test_words_are_runs_of_letters_and_digits() -> None:
    assert words("It's 3.5 café-owners") == ["It", "s", "3", "5", "café", "owners"]
