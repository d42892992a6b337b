"""Laws of the judge of mathematics: what it never does, and what no way of writing can change."""

from __future__ import annotations

from fractions import Fraction
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from bench.maths_answers import FORMS, boxed, written
from seekling.records import Verdict
from seekling.text.reasoning import split
from seekling.verify.maths.answers import Answer, Value
from seekling.verify.maths.grammar import read
from seekling.verify.maths.judge import judge
from seekling.verify.maths.limits import Unreadable
from seekling.verify.maths.reading import final_answer, outside_thinking
from seekling.verify.maths.same import accepts, same

_SIGNS = r"""
1 2 42 0.5 , ; ( ) [ ] { } \{ \} + - * / ^ _ = < > \le \in \cup \pm \frac \sqrt \pi \infty \sin \ln \log x y n e
i ! % \% \$ $ \circ | \text{cm} \text{or} or and apples \begin{pmatrix} \end{pmatrix} & \\ : A (B) . \boxed
\overline ' \binom \mid
"""
PIECES = st.sampled_from(_SIGNS.split())
SOUP = st.lists(PIECES, max_size=25).map(" ".join) | st.lists(PIECES, max_size=25).map("".join)
TAGS = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "a", "42", r"\boxed{7}", "\n", " "]), max_size=14
).map("".join)
FRACTIONS = st.fractions(min_value=-1000, max_value=1000, max_denominator=200)
WRITERS = st.integers(0, 10**6).map(Random)
METRES = {
    "cm": Fraction(1, 100),
    "m": Fraction(1),
    "km": Fraction(1000),
    "in": Fraction(127, 5000),
    "ft": Fraction(381, 1250),
}
KNOWN = st.sampled_from([text for key, forms in FORMS for text in (key, *forms)])


def answer_of(text: str) -> Answer | None:
    """What a text is read as, or None."""
    try:
        return read(text)
    except Unreadable:
        return None


def polynomial(coefficients: list[int], order: list[int]) -> str:
    """A sum of powers of x, its terms in the given order."""
    return " + ".join(f"({coefficients[power]})x^{{{power}}}" for power in order)


@given(
    st.text(max_size=300) | SOUP | TAGS,
    st.sampled_from(["42", r"\sqrt{2}", "x+1", r"[0, \infty)", "Tuesday", "(1, 2)"]),
)
def test_no_text_makes_it_raise_or_fail(text: str, gold: str) -> None:
    for reply in (text, boxed(text), f"<answer>{text}</answer>"):
        assert judge(reply, gold).verdict is not Verdict.INFRA_ERROR


@given(st.text(alphabet=st.characters(), max_size=60) | SOUP, st.text(max_size=40) | SOUP)
def test_no_key_makes_it_raise(gold: str, reply: str) -> None:
    judge(boxed(reply), gold)


@given(SOUP)
def test_whatever_can_be_read_is_the_same_as_itself(text: str) -> None:
    if (answer := answer_of(text)) is not None:
        assert same(answer, answer) is True
        assert accepts(answer, answer) is True


@given(SOUP | KNOWN, SOUP | KNOWN)
def test_sameness_has_no_direction(one: str, other: str) -> None:
    left, right = answer_of(one), answer_of(other)
    if left is not None and right is not None:
        assert same(left, right) is same(right, left)


@given(TAGS)
def test_what_is_outside_thinking_is_what_all_replies_are_read_by(reply: str) -> None:
    """The same rules as text/reasoning.py: a room that may not be imported there, so held equal here."""
    said = outside_thinking(reply).replace("<answer>", "").replace("</answer>", "")
    kept = split(reply).reply
    assert "".join(said.replace("\0", "").split()) == "".join(kept.split())


@given(TAGS)
def test_the_tagged_answer_is_the_one_that_all_replies_are_read_by(reply: str) -> None:
    tagged = split(reply).answer
    if tagged and "\\boxed" not in tagged and "\n" not in tagged:
        assert final_answer(reply) == tagged


@given(FRACTIONS, WRITERS, WRITERS)
def test_a_number_is_the_same_however_it_is_written(value: Fraction, one: Random, other: Random) -> None:
    assert judge(boxed(written(value, one)), written(value, other)).verdict is Verdict.PASS


@given(FRACTIONS, FRACTIONS, WRITERS)
def test_another_number_is_another_however_it_is_written(value: Fraction, other: Fraction, writer: Random) -> None:
    if value != other:
        assert judge(boxed(written(other, writer)), written(value, writer)).verdict is Verdict.WRONG


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=6), st.randoms(use_true_random=False), st.integers(1, 5))
def test_a_sum_is_the_same_in_any_order_and_differs_when_one_term_does(
    coefficients: list[int], rng: Random, change: int
) -> None:
    order = list(range(len(coefficients)))
    shuffled = rng.sample(order, len(order))
    key = read(polynomial(coefficients, order))
    assert same(key, read(polynomial(coefficients, shuffled))) is True
    place = rng.choice(order)
    changed = [*coefficients[:place], coefficients[place] + change, *coefficients[place + 1 :]]
    assert same(key, read(polynomial(changed, shuffled))) is False


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(2, 40), st.integers(2, 40))
def test_products_expand_and_roots_meet(a: int, b: int, m: int, n: int) -> None:
    assert same(read(f"(x + ({a}))(x + ({b}))"), read(f"x^2 + ({a + b})x + ({a * b})")) is True
    assert same(read(f"(x + ({a}))(x + ({b}))"), read(f"x^2 + ({a + b})x + ({a * b + 1})")) is False
    assert same(read(rf"\sqrt{{{m}}}\sqrt{{{n}}}"), read(rf"\sqrt{{{m * n}}}")) is True
    assert same(read(rf"\sqrt{{{m}}} + \sqrt{{{n}}}"), read(rf"\sqrt{{{m + n}}}")) is False
    assert same(read(rf"\ln {m} + \ln {n}"), read(rf"\ln {m * n}")) is True


@given(st.lists(FRACTIONS, min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_lists_and_sets_have_no_order_and_tuples_have(values: list[Fraction], rng: Random) -> None:
    shuffled = rng.sample(values, len(values))
    plain, mixed = (
        ", ".join(written(value, Random(0)) for value in row).replace("x = ", "") for row in (values, shuffled)
    )
    assert same(read(plain), read(mixed)) is True
    assert same(read(rf"\{{{plain}\}}"), read(mixed)) is True
    assert same(read(f"({plain})"), read(f"({mixed})")) is (values == shuffled)


@given(
    st.integers(-(10**6), 10**6),
    st.sampled_from(sorted(METRES)),
    st.sampled_from(sorted(METRES)),
)
def test_lengths_convert_there_and_back(size: int, one: str, other: str) -> None:
    """A length is the same in another unit when, and only when, the number is converted."""
    metres = {
        "cm": Fraction(1, 100),
        "m": Fraction(1),
        "km": Fraction(1000),
        "in": Fraction(127, 5000),
        "ft": Fraction(381, 1250),
    }
    converted = size * metres[one] / metres[other]
    length, same_length = rf"{size} \text{{ {one}}}", rf"{converted} \text{{ {other}}}"
    assert same(read(length), read(same_length)) is True
    assert same(read(length), read(rf"{converted + 1} \text{{ {other}}}")) is False


@given(st.integers(2, 10**6), st.integers(2, 10**6))
def test_a_number_left_as_a_product_is_no_answer_to_its_value(a: int, b: int) -> None:
    key = read(str(a * b))
    said = read(rf"{a} \cdot {b}")
    assert isinstance(said, Value) and same(key, said) is True
    assert accepts(key, said) is False
