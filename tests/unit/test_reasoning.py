"""The reasoning split, case by case: missing, repeated, nested and truncated tags."""

from __future__ import annotations

import time

import pytest

from seekling.text.reasoning import split

CASES = {
    "as asked": ("<think>a</think><answer>7</answer>", "a", "7", True),
    "blanks between": (" <think>a</think>\n\n<answer> 7 </answer>\n", "a", "7", True),
    "empty parts": ("<think></think><answer></answer>", "", "", True),
    "nothing": ("", "", None, False),
    "no tags": ("7", "", None, False),
    "no thinking": ("<answer>7</answer>", "", "7", False),
    "no answer": ("<think>a</think>7", "a", None, False),
    "words around": ("<think>a</think>so <answer>7</answer>", "a", "7", False),
    "answer only thought": ("<think>a<answer>7</answer></think>", "a\n7", None, False),
    "thought and given": ("<think><answer>6</answer></think><answer>7</answer>", "6", "7", False),
    "thinking never closed": ("<think>a<answer>7</answer>", "a\n7", None, False),
    "answer never closed": ("<think>a</think><answer>7", "a", None, False),
    "two answers": ("<think>a</think><answer>6</answer><answer>7</answer>", "a", "7", False),
    "a second one cut off": ("<think>a</think><answer>6</answer><answer>7", "a", "6", False),
    "answer in an answer": ("<answer>6<answer>7</answer>8</answer>", "", "7", False),
    "thinking in an answer": ("<answer>6<think>a</think>7</answer>", "a", None, False),
    "answer opened in thinking": ("<think>a<answer></think>6</answer>", "a", None, False),
    "surplus close in an answer": ("<think>a</think><answer>6</think>7</answer>", "a", None, False),
    "nested thinking": ("<think>a<think>b</think>c</think><answer>7</answer>", "a\nb\nc", "7", False),
    "nested, closed once": ("<think>a<think>b</think><answer>7</answer>", "a\nb\n7", None, False),
    "closed twice": ("<think>a</think></think><answer>7</answer>", "a", "7", False),
    "opened by the prompt": ("a</think><answer>7</answer>", "a", "7", False),
    "opened by the prompt, answer thought": ("a<answer>6</answer></think>b", "a\n6", None, False),
    "thinking twice": ("<think>a</think><think>b</think><answer>7</answer>", "a\nb", "7", False),
    "thinking after": ("<think>a</think><answer>7</answer><think>b", "a\nb", "7", False),
    "tags broken": ("<think >a</ think><answer>7</answer", "", None, False),
    "order reversed": ("<answer>7</answer><think>a</think>", "a", "7", False),
}


@pytest.mark.parametrize(("text", "thinking", "answer", "well_formed"), CASES.values(), ids=CASES)
def test_the_split_survives(text: str, thinking: str, answer: str | None, well_formed: bool) -> None:
    found = split(text)
    assert (found.thinking, found.answer, found.well_formed) == (thinking, answer, well_formed)


def test_the_reply_is_what_stands_outside_thinking() -> None:
    assert split("<think>a</think>It is <answer>7</answer>.").reply == "It is \n7\n."
    assert split("plain").reply == "plain"


@pytest.mark.parametrize("tag", ["<think>", "</think>", "<answer>", "</answer>", "<think><answer>", "<", "</"])
def test_megabytes_of_tags_take_linear_time(tag: str) -> None:
    def seconds(count: int) -> float:
        text = (tag + "7") * count
        start = time.process_time()
        split(text)
        return time.process_time() - start

    seconds(1000)
    assert seconds(200_000) < 3.0
