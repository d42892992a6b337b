"""How a text is, in numbers: its language, its length among siblings, its repetitions, whether it says anything."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seekling.records import Problem, Verdict
from seekling.rewards.criteria import (
    Language,
    cosine_length,
    is_readable,
    language_part,
    language_share,
    linear_lengths,
    overlong_punishment,
    repeated_share,
    told_language,
)
from seekling.text.reasoning import split
from seekling.verify.replies import emptiness

PASS, WRONG = Verdict.PASS, Verdict.WRONG


@pytest.mark.parametrize(
    ("thinking", "english", "chinese"),
    [
        ("First add the two numbers", 1.0, 0.0),
        ("先把两个数相加", 0.0, 1.0),
        ("先把 two 数相加", 1 / 6, 5 / 6),
        ("先 then", 0.5, 0.5),
        ("", 0.0, 0.0),
        ("12+7=19, 19-5=14", 0.0, 0.0),
        ("设 x = 3, y = 4", 0.0, 1.0),
        ("so `print(总和)` works", 1.0, 0.0),
        ("```\n计算\n``` done it", 1.0, 0.0),
        ("so $\\text{总和} = 3$ and \\(总\\) it is", 1.0, 0.0),
        ("所以 \\frac{1}{2} 是", 0.0, 1.0),
        ("don't re-do it", 1.0, 0.0),
        ("просто add", 0.5, 0.0),
        ("カタカナ and words", 2 / 3, 0.0),
        ("see https://example.test/路径 now", 1.0, 0.0),
        ("step1 第2步", 0.0, 1.0),
    ],
)
def test_language_is_the_share_of_its_words(thinking: str, english: float, chinese: float) -> None:
    assert language_share(thinking, "en") == pytest.approx(english)
    assert language_share(thinking, "zh") == pytest.approx(chinese)


@pytest.mark.parametrize(
    ("thinking", "english", "chinese"),
    [
        ("first 12+7=19 then 19-5=14", 1.0, 0.0),
        ("先 12+7=19 再 19-5=14", 0.0, 1.0),
        ("first 12+7=19 再 19-5=14", 0.5, 0.5),
        ("again\n约 14\n重来", 1 / 4, 3 / 4),
        ("12+7=19 19-5=14", 0.0, 0.0),
    ],
)
def test_words_between_operations_tell_the_language_of_a_short_thought(
    thinking: str, english: float, chinese: float
) -> None:
    assert language_share(thinking, "en") == pytest.approx(english)
    assert language_share(thinking, "zh") == pytest.approx(chinese)


def asked(**info: object) -> Problem:
    return Problem("1", "any", "?", "1", 1, info)


def test_the_target_follows_the_problem_where_it_tells_its_language() -> None:
    follows, english = Language(target="prompt"), Language(target="en")
    assert language_part("先 then then", follows, asked(language="zh")) == pytest.approx(1 / 3)
    assert language_part("先 then then", follows, asked(language="en")) == pytest.approx(2 / 3)
    assert language_part("先 then then", english, asked(language="zh")) == pytest.approx(2 / 3)
    for silent in (asked(), asked(language="fr"), asked(language=3)):
        assert told_language(silent) is None and language_part("then", follows, silent) is None
        assert language_part("then", english, silent) == 1.0


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("<think>first 1+2=3</think><answer>3</answer>", True),
        ("<think>first 1+2=3 再 3+1=4</think><answer>4</answer>", False),
        ("<think>先 1+2=3</think><answer>3</answer>", False),
        ("<think>1+2=3</think><answer>3</answer>", False),
        ("<think>first 1+2=3</think>3", False),
    ],
)
def test_readable_is_what_keeps_the_form_and_says_its_words_in_one_language(text: str, english: bool) -> None:
    assert is_readable(split(text), "en") is english


@given(st.text(max_size=80))
def test_shares_of_both_languages_never_sum_to_more_than_one(text: str) -> None:
    shares = language_share(text, "en"), language_share(text, "zh")
    assert min(shares) >= 0 and sum(shares) <= 1 + 1e-9


def test_the_shortest_of_those_that_pass_earns_a_half_and_a_wrong_one_earns_nothing_by_being_short() -> None:
    assert linear_lengths([10, 20, 30, 10, 30], [PASS, PASS, PASS, WRONG, WRONG]) == [0.5, 0.0, -0.5, 0.0, -0.5]
    assert linear_lengths([7, 7], [PASS, WRONG]) == [0.0, 0.0]


@given(st.lists(st.tuples(st.integers(1, 999), st.sampled_from([PASS, WRONG])), min_size=1, max_size=12))
def test_among_siblings_that_pass_longer_never_earns_more(row: list[tuple[int, Verdict]]) -> None:
    parts = linear_lengths([length for length, _ in row], [verdict for _, verdict in row])
    passing = sorted((length, part) for (length, verdict), part in zip(row, parts, strict=True) if verdict is PASS)
    assert all(a[1] >= b[1] for a, b in pairwise(passing))
    assert all(-0.5 <= part <= 0.5 for part in parts)


def test_the_cosine_runs_from_its_beginning_to_its_end_and_falls_off_past_it() -> None:
    assert [cosine_length(n, PASS, 100) for n in (0, 50, 100, 101)] == pytest.approx([1.0, 0.75, 0.5, -1.0])
    assert [cosine_length(n, WRONG, 100) for n in (0, 50, 100, 101)] == pytest.approx([-1.0, -0.5, 0.0, -1.0])
    assert cosine_length(25, PASS, 100) == pytest.approx(0.5 + 0.25 * (1 + math.cos(math.pi / 4)))


@pytest.mark.parametrize(("length", "part"), [(0, 0), (16384, 0), (18432, -0.5), (20480, -1), (20481, -1), (90000, -1)])
def test_overlong_punishment_has_the_shape_of_the_paper(length: int, part: float) -> None:
    assert overlong_punishment(length, 20480, 4096) == part
    assert overlong_punishment(length, 20480, 0) == (-1 if length >= 20480 else 0)


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("", 2, 0.0),
        ("a b", 3, 0.0),
        ("a b a b a b", 2, 3 / 5),
        ("a b c d", 2, 0.0),
        ("Wait. wait. WAIT.", 2, 3 / 5),
        ("等一下等一下", 3, 1 / 4),
        ("no no no no no no no no no no no", 1, 10 / 11),
    ],
)
def test_repetition_is_the_share_of_pieces_that_were_there_before(text: str, n: int, share: float) -> None:
    assert repeated_share(text, n) == pytest.approx(share)


@pytest.mark.parametrize(
    "reply",
    ["", " \n ", ":", ".", ",", "***", "：", "Thought process:", "thought process", "Solution", "**Solution:**", "解",
     "かいせつ", "Respuesta", "Let's solve this problem step by step.", "Let’s think step by step", "The answer is:",
     "Sure, here is the answer:", "Final Answer:", "As asked, I will now write the following:", "让我们一步一步思考"],
)  # fmt: skip
def test_a_reply_that_says_nothing_is_known_by_rule(reply: str) -> None:
    assert emptiness(reply)


@pytest.mark.parametrize(
    "reply",
    ["42", "Paris", "是", "Solution: 42", "Let's solve this step by step. 3 apples and 4 make 7.", "Sure, it is blue.",
     "Thought process: I add.\nSo 7.", "Options:\n- one\n- two", "x", "Step 1: boil water"],
)  # fmt: skip
def test_a_reply_that_says_something_however_short_is_left_to_whoever_judges(reply: str) -> None:
    assert emptiness(reply) == ""


@given(st.text(max_size=200))
def test_any_text_is_told_empty_or_not(text: str) -> None:
    assert isinstance(emptiness(text), str) and 0 <= repeated_share(text, 3) <= 1
