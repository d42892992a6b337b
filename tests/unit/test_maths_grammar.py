"""What is read as an answer, as which, and what is not."""

from __future__ import annotations

import contextlib
import time
from fractions import Fraction

import pytest

from seekling.verify.maths.answers import Based, Choice, Group, Named, Relation, Value, Words
from seekling.verify.maths.grammar import read
from seekling.verify.maths.limits import Beyond, TooLarge, Unreadable
from seekling.verify.maths.numerals import chinese
from seekling.verify.maths.units import PERCENT, read_unit


def rational(text: str) -> Fraction | None:
    """The rational number that a text is read as."""
    answer = read(text)
    return answer.value.rational if isinstance(answer, Value) else None


def kind(text: str) -> str:
    """The kind of group that a text is read as."""
    answer = read(text)
    assert isinstance(answer, Group), answer
    return f"{answer.kind} of {len(answer.items)}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42), ("007", 7), ("+5", 5), ("-0", 0), (".5", Fraction(1, 2)), ("1.2e3", 1200),
        ("2.50", Fraction(5, 2)),
        ("1,000", 1000), ("1{,}234{,}567", 1234567), (r"1\,000", 1000), (r"10,\!000", 10_000),
        ("1,000.5", Fraction(2001, 2)),
        ("3/4", Fraction(3, 4)), (r"\frac{3}{4}", Fraction(3, 4)), (r"\frac12", Fraction(1, 2)),
        (r"\frac{-1}{2}", Fraction(-1, 2)),
        (r"1\frac{1}{2}", Fraction(3, 2)), ("1 1/2", Fraction(3, 2)), (r"-1\frac{1}{2}", Fraction(-3, 2)),
        ("11/2", Fraction(11, 2)),
        (r"0.\overline{3}", Fraction(1, 3)), (r"0.1\overline{6}", Fraction(1, 6)),
        (r".\overline{09}", Fraction(1, 11)),
        ("2+3*4", 14), ("(2+3)(4)", 20), ("2^3", 8), ("-2^2", -4), ("2^{-1}", Fraction(1, 2)), ("8^{1/3}", 2),
        ("4!", 24), ("12/2/3", 2),
        (r"\sqrt{16}", 4), (r"\sqrt[3]{-27}", -3), (r"\binom{5}{2}", 10), ("|-3|", 3), (r"\log_2 8", 3),
        (r"\ln e", 1), ("i^2", -1),
        (r"\sqrt{2}\sqrt{8}", 4), (r"\frac{\pi}{2\pi}", Fraction(1, 2)), ("x - x", 0), (r"\frac{2x}{x}", 2),
        ("４２", 42), ("−3", -3),
        ("½", Fraction(1, 2)), ("2½", Fraction(5, 2)), (r"3 \times 10^{-2}", Fraction(3, 100)), ("√9", 3),
        ("3²", 9), ("2 million", 2_000_000),
    ],
)  # fmt: skip
def test_numbers_are_read_exactly(text: str, value: Fraction) -> None:
    assert rational(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "1 2", "1 2 3 42", "--1", "+-1", "1+", "*1", "1+*2", "()", "(1", "1)", "(1,2", "[1", "{1", r"\{1",
        r"\frac{1}", r"\frac123", r"\sqrt23", r"\sqrt{}", "2^3^2", "2^", "1/2x", "1/0", "0/0", "0^0",
        r"\infty - \infty", r"2\infty",
        "41 = 42", "= 42", "42 =", "x == 5", r"\approx 42", r"\int_0^1 x dx", r"\sum_{k=1}^{9} k",
        r"\lim_{x \to 0} x", r"\prod k",
        r"\input{x}", "__import__('os')", "42 squared", "42 or", "or 42", "42?", "42…", "42 ...", r"42 \ldots",
        "٤٢", "4\u202e2", "4\x002",
        "4\ud8002", "4\u00ad2", "{{42}}", "1010_1", "1012_2", "(1 or 2)",
        r"\begin{pmatrix}1&2\\3\end{pmatrix}", r"\begin{align}1\end{align}",
        "42 (roughly)", "42 maybe", "42 less", "not 42", "(-8)^{1/2.5}", "x_", "5 m/s/s/",
        "a long sentence that says far too many words for one", "3 . 5",
        r"\sin^{-2} x", r"\log_{2} ", r"\sqrt[x]{2}", "(-1)!", "1.5!", r"\binom{5}{-1}", "$42 euros", "\u2028;",
    ],
)  # fmt: skip
def test_what_is_no_answer_of_a_known_form_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "9" * 1_001, "1" * 3_000, "9^{9^{9}}", "9**9**9", "10^{10^{10}}", "2^{100000}", "(10^7)!", "((99!)!)!",
        r"\binom{10000}{5000}", "1e99999", "1e999999999999",
        "(" * 300 + "1" + ")" * 300, r"\frac{1}{" * 100 + "2" + "}" * 100,
        r"\{" + ",".join(["1"] * 700) + r"\}", "+".join(["1"] * 400),
        "(a+b+c+d+f+g)^{40}", "(x+1)^{1000}", "x^{1/1000}", "-" * 1_500 + "(" * 500,
    ],
)  # fmt: skip
def test_what_would_take_too_much_is_refused_at_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(Unreadable) as refused:
        read(text)
    assert time.process_time() - began < 0.3
    assert isinstance(refused.value, TooLarge) or text[0] in "-9"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("(1, 2)", "() of 2"), ("[1, 2)", "[) of 2"), ("(1,000,2)", "() of 3"), (r"\{1, 2, 3\}", "{} of 3"),
        ("1, 2", ", of 2"),
        (r"1 \text{ or } 2", "or of 2"), ("1 and 2", ", of 2"), ("1、2", ", of 2"), (r"\pm 2", ", of 2"),
        ("3:2:1", ": of 3"),
        (r"(0,1) \cup (2,3)", "u of 2"), ("1 < x < 3", "& of 2"),
        (r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", "m of 2"), ("[[1,2],[3,4]]", "[] of 2"),
        (r"\emptyset", "{} of 0"), (r"\{\}", "{} of 0"), ("(1,2), (3,4)", ", of 2"),
        (r"\langle 1, 2 \rangle", "() of 2"), ("A, B, C", ", of 3"),
        ("1, 2, and 3", ", of 3"), (r"\text{A,C}", ", of 2"), ("x = 1, y = 2", ", of 2"),
    ],
)  # fmt: skip
def test_several_things_are_groups_of_their_kind(text: str, what: str) -> None:
    assert kind(text) == what


def test_a_letter_with_its_value_is_named() -> None:
    for text, name in (
        ("x = 5", "x"),
        ("5 = x", "x"),
        ("x_1 = 5", "x_1"),
        ("f(x) = x^2", "f(x)"),
        (r"\text{Area} = 5", "area"),
    ):
        answer = read(text)
        assert isinstance(answer, Named) and answer.name == name


def test_a_chain_of_true_equations_says_its_last_side() -> None:
    assert rational("40 + 2 = 42") == 42
    answer = read("x = 10/2 = 5")
    assert isinstance(answer, Named) and isinstance(answer.item, Value) and answer.item.value.rational == 5
    assert isinstance(read("x^2 + y^2 = 4"), Relation)


@pytest.mark.parametrize("text", ["(B)", "B.", "B)", "(b)", r"\textbf{(B)}", "(B) 42", r"\text{(B)}\ 42", "B) Tuesday"])
def test_a_lettered_option_is_a_choice(text: str) -> None:
    answer = read(text + " ")
    assert (
        answer == Value(answer.value)
        if isinstance(answer, Value)
        else isinstance(answer, Choice) and answer.letter == "B"
    )


@pytest.mark.parametrize("text", ["(B) C", "(B)(C)", "(A+B)", "(A, B)", "B) and C)", "(B)x"])
def test_more_than_one_option_is_none(text: str) -> None:
    with contextlib.suppress(Unreadable):
        assert not isinstance(read(text), Choice)


def test_words_are_words_and_short_runs_of_letters_are_products() -> None:
    assert read("Tuesday") == read(r"\text{tuesday}") == Words("tuesday")
    assert read("No") == Words("no")
    assert isinstance(read("xy"), Value)
    assert read("1010_2") == Based("1010", 2)


@pytest.mark.parametrize(
    ("text", "times", "name"),
    [
        ("cm", 1, "length"), ("meters", 1, "length"), ("apples", 1, "apple"), ("red apples", 1, "red apple"),
        ("thousand dollars", 1000, "dollar"),
        ("million", 10**6, ""), ("dozen eggs", 12, "egg"), ("个", 1, ""), ("元", 1, "yuan"),
        ("mph", 1, "length"), ("percent", 1, "percent"),
    ],
)  # fmt: skip
def test_what_stands_behind_a_number_is_a_multiplier_and_a_unit(text: str, times: int, name: str) -> None:
    found, unit = read_unit(text)
    assert (found, unit.dimension[0][0] if unit else "") == (times, name)


def test_units_are_products_of_powers() -> None:
    speed, area, volume = (read_unit(text)[1] for text in ("km/h", "square feet", "cm^3"))
    assert speed and area and volume
    assert (dict(speed.dimension), speed.factor) == ({"length": 1, "time": -1}, Fraction(1000, 3600))
    assert (dict(area.dimension), area.factor) == ({"length": 2}, Fraction(381, 1250) ** 2)
    assert (dict(volume.dimension), volume.factor) == ({"length": 3}, Fraction(1, 10**6))
    percent = read(r"50\%")
    assert isinstance(percent, Value) and percent.unit == PERCENT


@pytest.mark.parametrize(
    "text", ["squared", "or so", "maybe", "of", "m/s/s", "/", "per", "square", "x", "one", "a b c d e"]
)
def test_what_changes_or_doubts_a_number_names_no_unit(text: str) -> None:
    with pytest.raises(Unreadable):
        assert read_unit(text)[1] is not None or pytest.fail("no unit and no refusal")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("四十二", 42), ("十", 10), ("十二", 12), ("二十", 20), ("一百零五", 105), ("一百一十", 110),
        ("三千零四", 3004), ("两万", 20_000),
        ("一亿零三百万", 103_000_000), ("二〇二五", 2025), ("零", 0), ("负三", -3), ("一点五", Fraction(3, 2)),
        ("三分之二", Fraction(2, 3)),
        ("负二分之一", Fraction(-1, 2)), ("一万二千", 12_000),
    ],
)  # fmt: skip
def test_chinese_numerals_are_read(text: str, value: Fraction) -> None:
    assert chinese(text) == (value, False)
    assert rational(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "二百五",
        "三万五",
        "百",
        "一十十",
        "二两",
        "点五",
        "分之一",
        "零分之一",
        "一点",
        "四十二个",
        "二三十",
        "万",
        "一千千",
        "42",
    ],
)
def test_what_is_no_one_chinese_number_is_none(text: str) -> None:
    assert chinese(text) is None


def test_percent_is_said_in_chinese_too() -> None:
    assert chinese("百分之五十") == (50, True)


@pytest.mark.parametrize(
    "text", [r"\mathbb{R} \setminus \{0\}", r"\lfloor x \rfloor", r"\begin{cases} x & x > 0 \end{cases}"]
)
def test_a_form_that_another_reader_may_know_is_said_to_be_one(text: str) -> None:
    with pytest.raises(Beyond):
        read(text)
