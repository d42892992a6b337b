"""Laws of curation, over texts and lists that nobody picked."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from seekling.curate.curriculum import Curriculum, asker
from seekling.curate.listing import Picked
from seekling.curate.near import Near, copies, jaccard, shingled
from seekling.curate.overlap import Index, Overlap
from seekling.curate.passing import Passing, histogram, spread_share
from seekling.curate.words import grams, words
from seekling.records import Problem

SAID = st.lists(st.sampled_from(["ab", "cd", "ef", "gh", "1", "2", "+", "三", "四"]), max_size=18).map(" ".join)
TEXTS = st.lists(SAID, max_size=12)
RATES = st.one_of(st.none(), st.floats(0, 1))


@given(TEXTS, st.sampled_from([0.4, 0.6, 0.8, 1.0]), st.booleans())
def test_what_is_removed_copies_what_stays(texts: list[str], threshold: float, same_numbers: bool) -> None:
    near = Near(threshold=threshold, same_numbers=same_numbers)
    found = copies(texts, near)
    gone = {copy.place for copy in found}
    assert len(gone) == len(found)
    for copy in found:
        assert copy.of < copy.place and copy.of not in gone
        alike = jaccard(*(shingled(words(texts[place]), near.run) for place in (copy.place, copy.of)))
        assert alike >= threshold or words(texts[copy.place]) in {
            words(texts[other.place]) for other in found if other.place < copy.place and other.of == copy.of
        }


@given(TEXTS)
def test_no_two_that_stay_say_the_same(texts: list[str]) -> None:
    gone = {copy.place for copy in copies(texts, Near())}
    kept = [words(text) for place, text in enumerate(texts) if place not in gone]
    assert len(set(kept)) == len(kept)


@given(TEXTS)
def test_removing_copies_twice_removes_nothing_more(texts: list[str]) -> None:
    gone = {copy.place for copy in copies(texts, Near())}
    assert copies([text for place, text in enumerate(texts) if place not in gone], Near()) == []


@given(st.text(), st.integers(1, 6))
def test_any_text_has_words_and_words_of_words_are_the_same(text: str, size: int) -> None:
    said = words(text)
    assert words(" ".join(said)) == said or not all(word.isalnum() for word in said)
    assert all(len(gram) == min(size, len(said)) for gram in grams(said, size))


def meet(one: tuple[str, ...], other: tuple[str, ...], overlap: Overlap) -> bool:
    """The rule, by comparing every run with every other."""
    size = min(len(one), len(other), overlap.run)
    if size < overlap.least:
        return bool(one) and one == other
    return bool(set(grams(one, size)) & set(grams(other, size)))


@given(SAID, TEXTS, st.integers(1, 8), st.integers(1, 6))
def test_an_index_finds_what_comparing_every_run_finds(asked: str, texts: list[str], run: int, least: int) -> None:
    overlap = Overlap(run=run, least=least)
    index = Index([(str(place), text) for place, text in enumerate(texts)], overlap)
    met = index.meets(asked)
    right = [str(place) for place, text in enumerate(texts) if meet(words(asked), words(text), overlap)]
    assert (met is None) == (not right)
    assert met is None or met.where in right


@given(st.lists(RATES, max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_problem_is_kept_exactly_when_its_rate_lies_between(rates: list[float | None], a: float, b: float) -> None:
    passing = Passing(low=min(a, b), high=max(a, b))
    for rate in rates:
        assert (passing.fault(rate) == "") == (rate is not None and passing.low <= rate <= passing.high)
    assert sum(histogram(rates).values()) == sum(rate is not None for rate in rates)


@given(st.integers(2, 12), st.integers(2, 14), st.data())
def test_the_chance_of_a_spread_is_that_of_every_group_counted(judged: int, group: int, data: st.DataObject) -> None:
    passed = data.draw(st.integers(0, judged))
    rollouts = [place < passed for place in range(judged)]
    groups = list(combinations(rollouts, min(group, judged)))
    assert abs(spread_share(passed, judged, group) - sum(len(set(g)) > 1 for g in groups) / len(groups)) < 1e-9


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(0, 30), st.sampled_from(["shuffled", "easy_first", "hard_first", "spread"]))
def test_every_pass_through_a_list_is_whole(per_step: int, more: int, order: str) -> None:
    listed = [Picked(Problem(str(n), "t", str(n), "1", 1), (n % 7) / 7) for n in range(per_step + more)]
    curriculum = Curriculum(order=order)  # type: ignore[arg-type]
    ask = asker(listed, curriculum, seed="s", per_step=per_step, group=4)
    steps = -(-len(listed) // per_step)
    asked = [[one.id for one in ask(step)] for step in range(steps)]
    assert all(len(set(step)) == per_step for step in asked)
    assert order == "spread" or {name for step in asked for name in step} == {one.problem.id for one in listed}
