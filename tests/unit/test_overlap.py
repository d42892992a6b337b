"""Evaluation sets kept out of training: which problem meets which text."""

from __future__ import annotations

import pytest

from seekling.curate.overlap import Index, Met, Overlap

LONG = "a train leaves the station at noon and travels west at sixty miles per hour until it reaches the sea"
SHORT = "what is the square root of two"


def index(*texts: str, **settings: int) -> Index:
    return Index([(f"set, problem {n}", text) for n, text in enumerate(texts, 1)], Overlap(**settings))


def test_thirteen_words_in_common_meet_and_twelve_do_not() -> None:
    said = LONG.split()
    assert index(LONG).meets(f"Long ago {' '.join(said[3:16])} it stopped.") == Met(
        "set, problem 1", " ".join(said[3:16])
    )
    assert index(LONG).meets(f"Long ago {' '.join(said[3:15])} it stopped.") is None


def test_the_words_must_stand_in_one_run() -> None:
    said = LONG.split()
    assert index(LONG).meets(" ".join([*said[:10], "suddenly", *said[10:]])) is None


def test_a_short_evaluation_text_is_met_whole() -> None:
    assert index(LONG, SHORT).meets(f"Tell me, {SHORT.upper()}, please?") == Met("set, problem 2", SHORT)
    assert index(LONG, SHORT).meets("what is the square root of three") is None


def test_a_short_problem_is_met_inside_a_long_text() -> None:
    assert index(LONG).meets("travels west at sixty miles per hour") is not None


@pytest.mark.parametrize(("text", "meets"), [("12+7=", True), ("12 + 7 =", True), ("12+7=19", False), ("7=", False)])
def test_of_very_few_words_only_equal_texts_meet(text: str, meets: bool) -> None:
    assert bool(index("12+7=").meets(text)) == meets


def test_a_smaller_run_finds_more() -> None:
    text = "the car travels west at sixty miles an hour"
    assert index(LONG).meets(text) is None
    assert index(LONG, run=5).meets(text) == Met("set, problem 1", "travels west at sixty miles")


def test_the_first_text_that_has_the_words_is_named() -> None:
    assert index(LONG, f"{LONG} and ends").meets(LONG) == Met("set, problem 1", " ".join(LONG.split()[:13]))


def test_chinese_is_met_by_characters() -> None:
    asked = "小明有三个苹果,他给了妹妹一个苹果,请问小明现在还剩下几个苹果呢"
    found = index(asked).meets(f"题目:{asked}")
    assert found is not None and found.words.count(" ") == 12


def test_nothing_meets_nothing() -> None:
    assert index().meets(LONG) is None and index(LONG).meets("") is None
    assert len(index(LONG, SHORT)) == 2
