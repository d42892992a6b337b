"""Expressions and integers read from text that nobody trusts."""

from __future__ import annotations

import time
from contextlib import suppress
from fractions import Fraction

import pytest

from seekling.verify.answers import integer
from seekling.verify.expression import MAX_DEPTH, Unparsed, evaluate, normal_form, numbers_used, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7), ("0", 0), ("7+12-3", 16), ("2+3*4", 14), ("(2+3)*4", 20), ("20-5-5", 10), ("20/5/2", 2),
        ("7/2", Fraction(7, 2)), ("2-(3-4)", 3), ("-3+5", 2), ("2*-3", -6), ("-(2+3)*4", -20), ("2--3", 5),
        (" 3 × 4 ÷ 6 − 2 \n", 0), ("((((7))))", 7), ("-3*-(2-4)", -6),
    ],
)  # fmt: skip
def test_values_are_exact(text: str, value: Fraction) -> None:
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "()", "(", ")", "1)", "(1", "1 2", "2(3)", "(2)3", "1+", "+1", "*1", "1+*2", "--1",
        "- -1", "2---3",
        "2**3", "2^3", "2//3", "2%3", "1.5", "1e3", "1_000", "1,000", "007", "00", "0x10", "41=42", "x",
        "3!", "1/0",
        "1/(2-2)", "∞", "nan", "１２", "٣", "²", "½", "1\u200b2", "\u202e1", "1\u00a0+\u00a02", "\ufeff1",
        "\ud800", "1\x00", "\x00", "__import__('os').system('true')", "().__class__", "1 if 1 else 2",
        "9" * 19,
        "$3$", "\\boxed{3}", "3 or 4", "[3]", "{3}", "3;4", "3\x0b", "3\u2028",
    ],
)  # fmt: skip
def test_what_has_no_value_as_an_expression_is_unparsed(text: str) -> None:
    with pytest.raises(Unparsed):
        evaluate(text)


HOSTILE = {
    "a million digits": "1" * 10**6,
    "a million spaces": " " * 10**6,
    "many parentheses": "(" * 20_000 + "1" + ")" * 20_000,
    "parentheses at the limit of length": "(" * 2000 + "1" + ")" * 2000,
    "many open parentheses": "(" * 4096,
    "many minus signs": "-" * 20_000 + "1",
    "many products": "*".join(["9" * 18] * 215),
    "a power tower": "9**9**9**9",
    "division by zero at the end": "1+" * 2000 + "1/0",
    "a million NULs": "\x00" * 10**6,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("reader", [read, normal_form])
def test_hostile_texts_are_unparsed_at_once(text: str, reader: object) -> None:
    start = time.process_time()
    if reader is read:
        with pytest.raises(Unparsed):
            read(text)
    else:
        with suppress(Unparsed):
            normal_form(text)
    assert time.process_time() - start < 0.5


def test_the_worst_text_within_all_limits_is_quick() -> None:
    fractions = "+".join(f"1/{divisor}" for divisor in range(10_007, 10_007 + 500, 2))
    start = time.process_time()
    read(fractions)
    assert time.process_time() - start < 0.5


def test_text_beyond_the_limit_of_length_is_unparsed() -> None:
    assert evaluate("1" + "+1" * 2047) == 2048
    with pytest.raises(Unparsed, match="longer"):
        evaluate("1" + "+1" * 2048)


def test_brackets_may_nest_to_the_limit_and_no_further() -> None:
    assert evaluate("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH) == 1
    with pytest.raises(Unparsed, match="brackets"):
        evaluate("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1))


def test_numbers_and_operations_are_those_written() -> None:
    assert numbers_used("3+(3-12)*0") == [3, 3, 12, 0]
    assert read("3+3*12").operations == {"+", "*"}
    assert read("-3÷2").operations == {"-", "/"}
    assert read("7").operations == set()


@pytest.mark.parametrize(
    ("one", "other"),
    [("7+12-3", "12-3+7"), ("7-(3-12)", "12+7-3"), ("(3+4)*5", "5*(4+3)"), ("2*(3*4)", "4*2*3"),
     ("8/2/2", "8/(2*2)"), ("((7))", "7"), ("2*3+1", "1+3*2")],
)  # fmt: skip
def test_one_attempt_in_two_spellings_has_one_normal_form(one: str, other: str) -> None:
    assert normal_form(one) == normal_form(other)


@pytest.mark.parametrize(
    ("one", "other"), [("7-3", "3-7"), ("8/2", "2/8"), ("(3+4)*5", "3+4*5"), ("2*3", "2+3"), ("12+3", "1+23")]
)
def test_two_attempts_have_two_normal_forms(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


@pytest.mark.parametrize(
    ("text", "value"),
    [("42", 42), (" 42\n", 42), ("-7", -7), ("−7", -7), ("0", 0), ("9" * 4000, 10**4000 - 1)],
)
def test_an_integer_is_read(text: str, value: int) -> None:
    assert integer(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "-", "+7", "--7", "- 7", "-0", "007", "42.0", "4.2", "1e3", "1,000", "1 000", "1_000",
        "１２", "٣", "²",
        "½", "x=5", "5 or 6", "41 = 42", "1,2,3", "\\boxed{42}", "$42$", "42.", "42%", "four", "答案是42。",
        "42\x00",
        "\x0042", "\ud800", "42\u200b", "\u00a042", "\ufeff42", "\u202e42", "9" * 4001, "1" * 10**6,
        " " * 10**6,
        "__import__('os')", "0x2a", "1/1", "6*7", "nan", "inf", "42\u2028", "42\x0b",
    ],
)  # fmt: skip
def test_what_is_not_one_integer_is_none(text: str) -> None:
    assert integer(text) is None
