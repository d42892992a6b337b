"""Copies among problems: what is one, what is none, and how many are missed."""

from __future__ import annotations

from itertools import combinations
from random import Random

import numpy as np
import pytest

from seekling.curate.near import HASHES, RECALL, Near, bands_for, copies, jaccard, shingled, signature
from seekling.curate.words import grams, numbers, words

WORDS = [f"word{letter}{other}" for letter in "abcdefghij" for other in "abcdefghij"]


def edited(text: list[str], rng: Random, changes: int) -> list[str]:
    """The text with some words exchanged for others."""
    copy = list(text)
    for place in rng.sample(range(len(copy)), changes):
        copy[place] = rng.choice(WORDS)
    return copy


def pairs_of(texts: list[str]) -> list[tuple[int, int]]:
    return [(copy.of, copy.place) for copy in copies(texts, Near())]


def test_case_blanks_width_and_punctuation_make_no_other_problem() -> None:
    asked = "How many apples, does Tom have left in the basket?"
    assert pairs_of([asked, " how many APPLES does Tom\nhave left in the basket ", asked.replace("H", "Ｈ")]) == [
        (0, 1),
        (0, 2),
    ]


@pytest.mark.parametrize("other", ["12+7-5-20=", "12+7-5+21=", "1 2+7-5+20="])
def test_signs_and_numbers_make_another_problem(other: str) -> None:
    assert pairs_of(["12+7-5+20=", other]) == []


def test_a_template_filled_twice_is_two_problems_unless_asked_otherwise() -> None:
    long = "Tom has {} apples and gives some of them to his sister Anna who already has a basket full of ripe pears"
    one, other = long.format(3), long.format(4)
    assert copies([one, other], Near(threshold=0.5)) == []
    [copy] = copies([one, other], Near(threshold=0.5, same_numbers=False))
    assert (copy.place, copy.of) == (1, 0) and 0.5 <= copy.similarity < 1


def test_chinese_is_compared_by_characters() -> None:
    one = "小明有三个苹果,他给了妹妹一个苹果,请问小明现在还剩下几个苹果呢"
    other = one.replace("请问", "那么请问")
    assert words("三个苹果") == ("三", "个", "苹", "果")
    [copy] = copies([one, other], Near(threshold=0.6))
    assert copy.similarity == jaccard(shingled(words(one), 5), shingled(words(other), 5))
    assert copies([one, "小红有两本书,她买了一本新书,请问小红现在一共有几本书呢"], Near(threshold=0.6)) == []


def test_mixed_scripts_and_bare_signs_have_words() -> None:
    assert words("解方程 x+2=5") == ("解", "方", "程", "x", "+", "2", "=", "5")
    assert words("?? !!") and words("") == ()
    assert numbers(words("3 red, 5 blue")) == ("3", "5")
    assert grams(("a", "b", "c"), 2) == [("a", "b"), ("b", "c")] and grams(("a",), 2) == [("a",)]


def test_what_copies_a_copy_names_the_one_that_stays() -> None:
    text = " ".join(WORDS[:40])
    near = f"{text} once"
    assert pairs_of([text, near, near]) == [(0, 1), (0, 2)]


def test_the_estimate_of_a_signature_is_the_similarity() -> None:
    rng = Random(0)
    gaps = []
    for _ in range(60):
        base = rng.choices(WORDS, k=60)
        one, other = (shingled(tuple(text), 5) for text in (base, edited(base, rng, rng.randint(0, 6))))
        gaps.append(float(np.mean(signature(one) == signature(other))) - jaccard(one, other))
    deviation = 0.5 / np.sqrt(HASHES)
    assert abs(np.mean(gaps)) < deviation / 2 and np.std(gaps) < 1.5 * deviation


def test_at_the_threshold_nearly_all_copies_are_found_and_nothing_else_is() -> None:
    """Measured against every pair compared: recall is at least what the bands promise, precision is one."""
    rng, near = Random(1), Near(threshold=0.7)
    right, found = 0, 0
    for _ in range(300):
        base = rng.choices(WORDS, k=50)
        texts = [" ".join(base), " ".join(edited(base, rng, rng.randint(0, 5)))]
        share = jaccard(*(shingled(words(text), near.run) for text in texts))
        is_found = bool(copies(texts, near))
        assert not is_found or share >= near.threshold
        right, found = right + (share >= near.threshold), found + is_found
    assert right > 50 and found >= 0.99 * right


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.7, 0.8, 0.95, 1.0])
def test_bands_promise_the_recall_that_is_stated(threshold: float) -> None:
    bands, rows = bands_for(threshold)
    assert bands * rows <= HASHES
    assert 1 - (1 - threshold**rows) ** bands >= RECALL
    assert threshold < 1 or (bands, rows) == (1, HASHES)


def test_many_texts_take_a_moment() -> None:
    rng = Random(2)
    texts = [" ".join(rng.choices(WORDS, k=30)) for _ in range(1500)]
    assert copies(texts, Near()) == []
    assert len(copies(texts + texts[:100], Near())) == 100


def test_similar_pairs_of_a_brute_force_are_all_removed() -> None:
    rng, near = Random(3), Near(threshold=0.6)
    bases = [rng.choices(WORDS, k=40) for _ in range(8)]
    texts = [" ".join(edited(rng.choice(bases), rng, rng.randint(0, 4))) for _ in range(60)]
    gone = {copy.place for copy in copies(texts, near)}
    sets = {place: shingled(words(text), near.run) for place, text in enumerate(texts) if place not in gone}
    assert gone and all(jaccard(sets[a], sets[b]) < near.threshold for a, b in combinations(sets, 2))
