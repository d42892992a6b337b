"""Who holds which pages: none is lost, none has two texts, and what is found is what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seekling.engine.paging import NoPages, Paging
from seekling.model.pages import SLOTS


def words(*numbers: int) -> list[int]:
    """Whole pages, each of one token over and over."""
    return [number for number in numbers for _ in range(SLOTS)]


def test_pages_are_taken_once_and_come_back() -> None:
    paging = Paging(4)
    first, second = paging.take(3), paging.take(1)
    assert sorted(first + second) == [0, 1, 2, 3]
    with pytest.raises(NoPages):
        paging.take(1)
    paging.release(second)
    assert paging.take(1) == second


def test_too_few_pages_are_not_taken_in_part() -> None:
    paging = Paging(2)
    with pytest.raises(NoPages):
        paging.take(3)
    assert paging.available == 2


def test_who_begins_alike_shares_what_is_full_and_no_more() -> None:
    paging = Paging(8)
    held = paging.take(3)
    text = [*words(1, 2), 9]
    paging.note(text, held)
    assert paging.find(text) == held[:2]
    assert paging.find(words(1, 3)) == held[:1]
    assert paging.find(words(2, 1)) == []
    assert paging.find(words(1)[:-1]) == []
    assert paging.holders[held[0]] == 3 and paging.holders[held[2]] == 1


def test_a_known_page_is_kept_until_nothing_else_is_left() -> None:
    paging = Paging(3)
    held = paging.take(2)
    paging.note(words(1, 2), held)
    paging.release(held)
    assert paging.available == 3
    assert paging.find(words(1, 2)) == held
    paging.release(held)
    paging.take(2)
    assert paging.find(words(1, 2)) == held[:1], "the end of a text goes before its beginning"


def test_a_page_that_was_taken_for_another_text_leads_nowhere() -> None:
    """A page's number returns; what followed its old text must not follow the new one."""
    paging = Paging(2)
    first, second = paging.take(2)
    paging.note(words(1, 2), [first, second])
    paging.release([first])
    paging.release([second])
    assert paging.take(1) == [first], "the longest unused"
    paging.note(words(7), [first])
    assert paging.find(words(7, 2)) == [first]
    assert paging.find(words(1, 2)) == []


def test_two_who_read_the_same_at_once_leave_one_known_text() -> None:
    paging = Paging(4)
    one, other = paging.take(1), paging.take(1)
    paging.note(words(1), one)
    paging.note(words(1), other)
    assert paging.find(words(1)) == one
    paging.release(other)
    assert paging.holders[other[0]] == 0 and other[0] in paging.free


def test_a_pool_that_grows_gives_its_old_pages_first() -> None:
    paging = Paging(1)
    paging.add(3)
    assert paging.take(1) == [0] and sorted(paging.take(2)) == [1, 2]


TEXT = st.lists(st.integers(1, 2), min_size=1, max_size=4).map(lambda numbers: words(*numbers))


@given(st.lists(st.tuples(TEXT, st.booleans()), max_size=40), st.integers(3, 9))
def test_whatever_is_asked_pages_hold_what_is_known_of_them(asked: list[tuple[list[int], bool]], count: int) -> None:
    """A model of the cache beside it: each page's content; what is found is what was written, and nothing is lost."""
    paging, content = Paging(count), dict[int, tuple[int, ...]]()
    running: list[list[int]] = []
    for text, leaves in asked:
        found = paging.find(text)
        for place, page in enumerate(found):
            assert content[page] == tuple(text[: (place + 1) * SLOTS])
        try:
            own = paging.take(len(text) // SLOTS - len(found))
        except NoPages:
            paging.release(found)
        else:
            held = found + own
            assert not set(own) & {page for other in running for page in other}, "a page has two owners"
            for place, page in enumerate(held):
                content[page] = tuple(text[: (place + 1) * SLOTS])
            paging.note(text, held)
            running.append(held)
        if leaves and running:
            paging.release(running.pop(0))
        held_now = {page for other in running for page in other}
        assert paging.available == count - len(held_now)
        assert all(paging.holders[page] == sum(page in other for other in running) for page in range(count))
