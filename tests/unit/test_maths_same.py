"""When two answers are one, exactly; and when an answer leaves its work to the reader."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest

from seekling.verify.maths.answers import Value
from seekling.verify.maths.grammar import read
from seekling.verify.maths.limits import Budget, TooLarge, Unreadable
from seekling.verify.maths.same import accepts, is_plain, is_worked_out, same
from seekling.verify.maths.values import PI, Calculator, E, Quotient, atom, letter, number

ONE_VALUE = [
    [r"2\sqrt{3}", r"\sqrt{12}", r"\frac{6}{\sqrt{3}}", r"12^{1/2}", r"\frac{6\sqrt{3}-6}{3-\sqrt{3}}"],
    [r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", r"\sqrt{0.5}", r"2^{-1/2}"],
    ["1+i", r"\frac{2}{1-i}", "i+1", r"\frac{2i}{1+i}"],
    [r"\sqrt{-4}", "2i", r"i\sqrt{4}"],
    ["(x+1)^3", "x^3+3x^2+3x+1", "(1+x)(x^2+2x+1)"],
    [r"\frac{x^2-1}{x-1}", "x+1", r"\frac{(x+1)^2}{x+1}"],
    ["4^n", "2^{2n}", r"2^n \cdot 2^n", "(2^n)^2"],
    [r"e^{x+1}", r"e \cdot e^x", r"\exp(1+x)"],
    [r"\ln 12", r"2\ln 2 + \ln 3", r"\ln 24 - \ln 2"],
    [r"\log_8 4", r"\frac{2}{3}"],
    [r"\sqrt{xy}", r"\sqrt{x}\sqrt{y}", "x^{1/2}y^{1/2}"],
    ["a_1 + a_2", "a_2 + a_{1}"],
    [r"\sqrt[3]{54}", r"3\sqrt[3]{2}", r"3 \cdot 2^{1/3}"],
    [r"\sin 30^\circ", r"\sin \frac{\pi}{6}", r"\sin(\pi/6)"],
    [r"\arcsin x", r"\sin^{-1} x"],
]  # fmt: skip


@pytest.mark.parametrize("texts", ONE_VALUE, ids=lambda texts: texts[0])
def test_one_value_has_many_spellings(texts: list[str]) -> None:
    for one, other in combinations(texts, 2):
        assert same(read(one), read(other)) is True, (one, other)


def test_values_of_different_lines_differ() -> None:
    for one, other in combinations([texts[0] for texts in ONE_VALUE], 2):
        assert same(read(one), read(other)) is False, (one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"), (r"\cos 2x", r"1-2\sin^2 x"), (r"\sqrt{x^2}", "x"),
        (r"\sin^2 x + \cos^2 x", "1"),
        (r"\frac{1}{\sqrt{x+1}}", r"\frac{\sqrt{x+1}}{x+1}"), ("e^{i\\pi}", "-1"),
    ],
)  # fmt: skip
def test_what_numbers_show_and_no_proof_does_is_left_open(one: str, other: str) -> None:
    assert same(read(one), read(other)) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sin x", r"\cos x"), (r"\sqrt{x+1}", r"\sqrt{x}+1"), ("2^n", "3^n"), (r"\ln x", r"\log x"),
        (r"\pi", "3.14159"), (r"\pi", r"\frac{22}{7}"),
        ("e", "2.718281828"), (r"\sqrt{2}", "1.41421356237"), ("x", "y"), ("x_1", "x_2"), ("|x|", "x^2"),
        ("n!", "n^2"), (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5}"),
        ("1", "1 + 10^{-30}"), ("x^2", "x^{2.1}"),
    ],
)  # fmt: skip
def test_what_differs_is_known_to_differ(one: str, other: str) -> None:
    assert same(read(one), read(other)) is not True
    assert same(read(one), read(other)) is False or "!" in one


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("1, 2", "2, 1", True), ("1, 2", r"\{2, 1\}", True), ("(1, 2)", "(2, 1)", False),
        ("(1, 2)", "[1, 2]", False), ("(1, 2)", "1, 2", False),
        (r"\{1, 1, 2\}", r"\{1, 2\}", True), ("1, 1, 2", "1, 2", False), (r"\{\}", r"\emptyset", True),
        ("2", r"\{2\}", False),
        (r"\frac12, \sqrt{8}", r"2\sqrt{2}, 0.5", True), ("x = 1, x = 2", "2, 1", True),
        ("x = 1, y = 2", "x = 2, y = 1", False),
        ("x = 1, y = 2", "y = 2, x = 1", True), ("(1, 3]", r"1 < x \le 3", True),
        ("(1, 3)", r"1 < x \le 3", False), (r"(-\infty, 2)", "x < 2", True),
        (r"[2, \infty)", r"2 \le x", True),
        (r"x < 1 \text{ or } x > 2", r"(2, \infty) \cup (-\infty, 1)", True),
        ("x < 1, x > 2", r"(2, \infty) \cup (-\infty, 1)", False),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "[[1,2],[3,4]]", True),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}", False),
        ("3:2", "3:2", True), ("3:2", "2:3", False), ("3:2", "1.5", False), ("Tuesday", "tuesday", True),
        ("Tuesday", "Monday", False), ("yes", "1", False),
        ("B", "(B)", True), ("(B) 42", "42", True), ("(B) 42", "(B)", True), ("(B)", "(C)", False),
        ("(B) 42", "41", False), ("1010_2", "1010_2", True),
        ("1010_2", "1010_3", False), ("1010_2", "10", False), ("x = 5", "5", True), ("x = 5", "y = 5", False),
        ("y = 2x+1", "2x - y = -1", True),
        ("y = 2x+1", "2x+1", True), ("x^2+y^2=4", "2x^2+2y^2=8", True), ("x^2+y^2=4", "x^2+y^2=5", False),
        ("x > 5", "x < 5", False), ("x > 5", "2x > 10", False),
        ("x+y > 5", "2x+2y > 10", True), ("x+y > 5", "-x-y > -5", False), (r"x \ne 3", r"x \ne 4", False),
        ("x = 5", "2x = 10", False), ("x + y = 1", "x - y = 1", False),
        ("x = y", "x = y + 0", True),
    ],
)  # fmt: skip
def test_forms_compare_by_what_they_mean(one: str, other: str, equal: bool) -> None:
    assert same(read(one), read(other)) is equal
    assert same(read(other), read(one)) is equal


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("5 cm", "5", True), ("5 cm", r"0.05 \text{ m}", True), ("5 cm", r"5 \text{ m}", False),
        (r"5 \text{ m}^2", r"5 \text{ m}", False), ("2 hours", "120 minutes", True),
        ("12 inches", "1 foot", True), ("5 apples", "5", True), ("5 apples", "5 apple", True),
        ("5 apples", "5 pears", False), (r"\$5", "5 dollars", True),
        (r"\$5", "500 cents", True), (r"\$5", "€5", False), (r"45^\circ", "45", True),
        (r"45^\circ", "45 degrees", True), (r"50\%", "0.5", True), (r"50\%", "50", True),
        (r"0.5\%", "0.5", False), (r"0.5\%", "0.005", True), (r"50\%", "50 cm", False), (r"1\%", "1", True),
        ("0.5", "50", False), ("3 thousand", "3000", True),
    ],
)  # fmt: skip
def test_units_agree_convert_or_are_left_out(one: str, other: str, equal: bool) -> None:
    assert same(read(one), read(other)) is equal
    assert same(read(other), read(one)) is equal


@pytest.mark.parametrize(
    ("key", "said", "done"),
    [
        ("60", r"12 \cdot 5", False), ("60", "60", True), ("1024", "2^{10}", False), ("2^{10}", "4^5", True),
        ("2^{10}", "1024", True), ("4", r"\sqrt{16}", False),
        (r"\frac12", "2/4", True), ("42", r"\frac{84}{2}", False), ("3", r"\log_2 8", False),
        (r"\frac12", r"\sin 30^\circ", False), (r"\sin 20^\circ", r"\cos 70^\circ", False),
        (r"\ln 2", r"\frac12 \ln 4", True), ("x^2+2x+1", "(x+1)^2", True), ("300000", r"3 \times 10^5", True),
        ("42", "x - x + 42", False), ("(60, 1)", r"(12 \cdot 5, 1)", False),
        ("-3", "-(3)", True), ("5", "40 + 2 = 42", True),
    ],
)  # fmt: skip
def test_numbers_are_worked_out_as_far_as_the_key_is(key: str, said: str, done: bool) -> None:
    assert is_worked_out(read(key), read(said)) is done
    if not done:
        assert accepts(read(key), read(said)) is False


def test_digits_alone_answer_in_the_base_of_the_key() -> None:
    assert accepts(read("1010_2"), read("1010")) is True
    assert accepts(read("1010"), read("1010_2")) is False
    assert accepts(read("1010_2"), read("10")) is False


def test_plain_answers_are_those_that_anybody_can_write() -> None:
    assert all(is_plain(read(text)) for text in ("42", "(1, 2)", "Tuesday", r"5 \text{ cm}", "x = 5", "(B)"))
    assert not any(is_plain(read(text)) for text in (r"\sqrt{2}", "x+1", r"[0, \infty)", "x > 5"))


def value(text: str) -> Quotient:
    """What a text is worth."""
    answer = read(text)
    assert isinstance(answer, Value)
    return answer.value


def test_terms_meet_in_one_form() -> None:
    assert value(r"\frac{x^2 y}{x}").top == value("xy").top
    assert value(r"\sqrt{2} \cdot \sqrt{6}").top == value(r"2\sqrt{3}").top
    assert value("x - x").top == {} and value("(x+y)(x-y)").key == value("x^2-y^2").key
    assert value(r"\frac{2x+2}{2x-2}").key == value(r"\frac{x+1}{x-1}").key


def test_arithmetic_has_a_price_and_an_end() -> None:
    calculator = Calculator(Budget(50))
    with pytest.raises(TooLarge):
        for _ in range(100):
            calculator.multiply(letter("x"), letter("y"))
    with pytest.raises(TooLarge):
        Calculator(Budget()).power(number(7), number(100_000))
    with pytest.raises(Unreadable):
        Calculator(Budget()).divide(number(1), number(0))


def test_constants_are_no_letters() -> None:
    calculator = Calculator(Budget())
    assert calculator.equal(atom(PI), atom(E)) is False
    assert calculator.equal(atom(PI), number(Fraction(355, 113))) is False
    assert calculator.equal(letter("x"), letter("x")) is True


def test_a_number_that_hides_two_large_primes_is_not_taken_for_one() -> None:
    """1009 times 1013 has no factor below 1,000: the root of it is that of both, and numbers decide."""
    assert same(read(r"\sqrt{1022117}"), read(r"\sqrt{1009}\sqrt{1013}")) is None
    assert same(read(r"\sqrt{1022117}"), read(r"\sqrt{1009}\sqrt{1019}")) is False
