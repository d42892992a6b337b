"""How much siblings differ: both measures against their ends, their definitions, and what may not change them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seekling.evals.diversity import distinct, self_bleu

TEXTS = st.lists(st.text(alphabet="ab 海c", max_size=20), min_size=2, max_size=5)


def test_siblings_that_are_alike_are_as_alike_as_can_be() -> None:
    assert self_bleu(["a b c d e"] * 4) == pytest.approx(1.0)
    assert distinct(["a b c d e"] * 4, 1) == pytest.approx(1 / 4)
    assert distinct(["a a a"], 1) == pytest.approx(1 / 3)


def test_siblings_without_a_word_in_common_are_not_alike_at_all() -> None:
    assert self_bleu(["a b c d", "e f g h"]) == 0.0
    assert distinct(["a b c d", "e f g h"], 1) == distinct(["a b c d", "e f g h"], 2) == 1.0


def test_an_example_worked_by_hand() -> None:
    """``a b c`` against ``a b d e``: 2 of 3 words, 1 of 2 pairs, no triple of 1; one shorter than its reference."""
    first = (2 / 3 * (1 + 1) / (2 + 1) * 1 / (1 + 1) * 1 / 1) ** (1 / 4) * math.exp(1 - 4 / 3)
    second = (2 / 4 * (1 + 1) / (3 + 1) * 1 / (2 + 1) * 1 / (1 + 1)) ** (1 / 4)
    assert self_bleu(["a b c", "a b d e"]) == pytest.approx((first + second) / 2)
    assert distinct(["a b c", "a b d e"], 2) == pytest.approx(4 / 5)


def test_a_word_said_more_often_than_any_sibling_says_it_matches_only_so_often() -> None:
    assert self_bleu(["a a a a", "a b c d"]) < self_bleu(["a a a a", "a a c d"])


def test_a_chinese_character_is_a_word() -> None:
    assert distinct(["先加", "先减"], 1) == pytest.approx(3 / 4)


def test_one_alone_or_nothing_at_all_has_figures_too() -> None:
    assert self_bleu(["a b"]) == self_bleu([]) == 0.0 and self_bleu(["", ""]) == 0.0
    assert distinct([], 2) == distinct(["a"], 2) == 1.0


@given(TEXTS, st.randoms())
@settings(max_examples=60, deadline=None)
def test_both_are_shares_whatever_the_order(texts: list[str], rng: object) -> None:
    again = list(texts)
    rng.shuffle(again)  # type: ignore[attr-defined]
    assert 0 <= self_bleu(texts) <= 1 + 1e-9 and self_bleu(again) == pytest.approx(self_bleu(texts))
    for n in (1, 2, 3):
        assert 0 < distinct(texts, n) <= 1 and distinct(again, n) == distinct(texts, n)
