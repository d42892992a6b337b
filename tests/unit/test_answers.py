"""Readers of lists of answers take what is plainly one, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from seekling.verify.answers import bits, integers, names


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("7", (7,)),
        ("7 8 15", (7, 8, 15)),
        (" 7,8, 15\n", (7, 8, 15)),
        ("7\n8\t15", (7, 8, 15)),
        ("-3 −4 0", (-3, -4, 0)),
    ],
)
def test_integers_are_read_between_blanks_and_commas(text: str, numbers: tuple[int, ...]) -> None:
    assert integers(text) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "7,,8",
        ",7",
        "7,",
        "7;8",
        "7 and 8",
        "[7, 8]",
        "7 8.0",
        "07 8",
        "7 x",
        "7 = 8",
        "7<8",
        "٤ 2",
        "1,000.5",
    ],
)
def test_what_is_no_plain_list_of_integers_is_none(text: str) -> None:
    assert integers(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A", ("a",)),
        ("A b C", ("a", "b", "c")),
        ("A, B and C", ("a", "b", "c")),
        ("A, B, and C", ("a", "b", "c")),
        ("A and B", ("a", "b")),
        ("Ana cat,\nBen dog", ("ana", "cat", "ben", "dog")),
        ("and", ("and",)),
    ],
)
def test_names_are_read_between_blanks_commas_and_and(text: str, words: tuple[str, ...]) -> None:
    assert names(text) == words


@pytest.mark.parametrize("text", ["", "A, ,B", "A;B", "A.", "A or B?", "1 2", "A > B", "é", "a" * 40, "A,,B", "(A B)"])
def test_what_is_no_plain_list_of_names_is_none(text: str) -> None:
    assert names(text) is None


def test_doubt_between_names_is_read_as_a_name_of_its_own() -> None:
    assert names("A or B") == ("a", "or", "b")
    assert names("not A") == ("not", "a")


@pytest.mark.parametrize(("text", "digits"), [("0110", "0110"), (" 01 10\n", "0110"), ("0 1 1 0", "0110"), ("1", "1")])
def test_bits_may_stand_in_groups(text: str, digits: str) -> None:
    assert bits(text) == digits


@pytest.mark.parametrize("text", ["", "0b01", "012", "01,10", "01  10", "O1", "-01", "01.", "٠١"])
def test_what_is_not_made_of_bits_is_none(text: str) -> None:
    assert bits(text) is None


@pytest.mark.parametrize("read", [integers, names, bits])
@pytest.mark.parametrize("text", ["1 " * 50_000, " " * 9_990 + "x", "," * 9_000, "a and " * 1_600, "01 " * 3_000 + "x"])
def test_long_texts_are_read_or_refused_at_once(read: Callable[[str], object], text: str) -> None:
    begun = time.process_time()
    read(text)
    assert time.process_time() - begun < 0.2


def test_what_is_longer_than_any_list_asked_for_is_none() -> None:
    assert integers("1 " * 4_000) and names("a " * 4_000) and bits("1 " * 4_000 + "1")
    assert integers("1 " * 6_000) is names("a " * 6_000) is bits("1 " * 6_000 + "1") is None
