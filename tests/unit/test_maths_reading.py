"""Where the final answer of a reply stands."""

from __future__ import annotations

import contextlib
import time

import pytest

from seekling.verify.maths.limits import Unreadable
from seekling.verify.maths.reading import bare, final_answer, outside_thinking


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"so \boxed{42}", "42"), (r"\boxed{\frac{1}{2}}.", r"\frac{1}{2}"), (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{42}", "42"), (r"\boxed 4", "4"), (r"$\boxed 42$", "42"), (r"\boxed{\boxed{42}}", "42"),
        (r"<answer>42</answer>", "42"), (r"<answer>so \boxed{42}</answer>", "42"),
        ("<answer> **42** </answer>", "42"),
        (r"\boxed{7} <answer>42</answer>", "42"), ("<answer>```\n42\n```</answer>", "42"),
        ("Work: 1, 2, 3.\n\nThe answer is 42.", "42"), ("**Final answer:** $42$.", "42"), ("18\n#### 42", "42"),
        ("答案是42。", "42"), ("答案：42", "42"), ("So there are $42$.", "42"), ("42", "42"), ("```\n42\n```", "42"),
        ("The answer is **42**.", "42"), ("**The answer is 42**", "42"), (r"The answer is \(42\)", "42"),
    ],
)  # fmt: skip
def test_one_place_gives_the_answer(reply: str, answer: str) -> None:
    assert final_answer(reply) == answer


def test_boxes_on_one_line_are_parts_of_one_answer() -> None:
    assert final_answer(r"x = \boxed{2} and y = \boxed{3}") == "2, 3"
    assert final_answer(r"\boxed{2}, that is \boxed{2}") == "2"


def test_a_later_line_takes_back_what_an_earlier_one_gave() -> None:
    assert final_answer("\\boxed{41}\nNo:\n\\boxed{42}") == "42"
    assert final_answer("<answer>41</answer><answer>42</answer>") == "42"


@pytest.mark.parametrize(
    "reply",
    [
        "", "  \n ", r"\boxed{42", r"\boxed{41} \boxed{42", r"\boxed{42} \boxed{ }", r"\boxed", r"\boxed{}",
        "<answer></answer>",
        r"<think>\boxed{42}</think>", r"<think>\boxed{42}", r"<think><answer>42</answer></think>", "****",
        r"\boxed{" * 100_000, "\\boxed{" + "x" * 20_000 + "}",
    ],
)  # fmt: skip
def test_what_gives_no_answer_is_refused(reply: str) -> None:
    with pytest.raises(Unreadable):
        final_answer(reply)


@pytest.mark.parametrize("reply", ["It is not $42$.", "Either way it is $42$.", "42 or 43, I think", "Answer: not 42"])
def test_doubt_is_left_in_the_answer_so_that_it_is_seen(reply: str) -> None:
    assert final_answer(reply) != "42"


def test_an_answer_that_a_thought_interrupts_is_none() -> None:
    assert "\0" in final_answer("<answer>4<think>so</think>2</answer>")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("$42$", "42"), ("$$42$$", "42"), (r"\(42\)", "42"), (r"\[ 42 \]", "42"), ("**42**", "42"),
        ("`42`", "42"), ("42.", "42"),
        (r"\boxed{42}", "42"), (r"$\boxed{42}$.", "42"), ("$2$, $3$", "2, 3"), ("$42", "$42"),
        (r"\$42", r"\$42"), ("0.5", "0.5"),
        ("a...", "a..."), (r"\boxed{1}, \boxed{2}", r"\boxed{1}, \boxed{2}"), ("**", "**"), ("", ""),
    ],
)  # fmt: skip
def test_only_what_sets_an_answer_off_is_taken_away(text: str, plain: str) -> None:
    assert bare(text) == plain


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("a<think>b</think>c", "a\0c"), ("b</think>c", "c"), ("a<think>b", "a"),
        ("a<think>b<think>c</think>d</think>e", "a\0e"),
        ("b</think>c</think>d", "cd"), ("a", "a"), ("</think>", ""),
    ],
)  # fmt: skip
def test_thinking_is_cut_off(reply: str, said: str) -> None:
    assert outside_thinking(reply).strip("\0").replace("c\0d", "cd") == said


@pytest.mark.parametrize(
    "reply",
    ["word " * 200_000, "$" * 1_000_000, r"\boxed{" * 150_000, "<think>" * 100_000, "<answer>" * 100_000,
     "answer " * 150_000, " " * 1_000_000, "#### " * 200_000, "*" * 1_000_000, r"\boxed{1}" * 100_000],
)  # fmt: skip
def test_a_reply_of_any_length_is_searched_at_once(reply: str) -> None:
    began = time.process_time()
    with contextlib.suppress(Unreadable):
        final_answer(reply)
    assert time.process_time() - began < 1.0
