"""Word problems: a reader who knows only the words, English or Chinese, comes to the key."""

from __future__ import annotations

import re
from random import Random

import pytest

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.tasks.registry import build_task
from seekling.tasks.word_problems import LANGUAGES, WordProblems
from seekling.verify.expression import read

TASK = WordProblems()

SIGNS = {
    r"boxes of|bags with|盒，每盒|袋，每袋": lambda v, a, b: v + a * b,
    r"finds|more\.|又找到|又买了\d+(?!盒)|又给了": lambda v, a, _: v + a,
    r"gives away|loses|sells|送出|丢了|卖掉": lambda v, a, _: v - a,
    r"equal shares|equal piles|平均分成": lambda v, a, _: v / a,
    r"times as many|times its size|倍": lambda v, a, _: v * a,
}


def reckoned(prompt: str) -> float:
    """The number a reader comes to, sentence by sentence; the last one is the question."""
    first, *events = re.findall(r"[^.。?？]+[.。?？]", prompt)[:-1]
    value = float(re.findall(r"\d+", first)[0])
    for sentence in events:
        numbers = [int(n) for n in re.findall(r"\d+", sentence)]
        work = next(work for signs, work in SIGNS.items() if re.search(signs, sentence))
        value = work(value, numbers[0], numbers[-1])
    return value


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_a_reader_of_the_words_alone_comes_to_the_key(language: str, size: int) -> None:
    task = build_task({"name": "word_problems", "languages": [language]})
    for seed in range(60):
        problem = task.draw(Random(seed), size)
        assert reckoned(problem.prompt) == int(problem.answer), problem.prompt


def test_a_chinese_problem_is_chinese_and_an_english_one_english() -> None:
    prompts = {language: WordProblems(languages=(language,)).draw(Random(1)).prompt for language in ("en", "zh")}
    assert prompts["en"].isascii() and prompts["en"].endswith("now?")
    assert not re.search("[A-Za-z]", prompts["zh"]) and prompts["zh"].endswith("？")


def test_one_story_is_one_problem_in_whatever_words() -> None:
    task = WordProblems(sizes=(1,), events=("gain",), high=4)
    by_id: dict[str, set[str]] = {}
    for seed in range(300):
        problem = task.draw(Random(seed))
        by_id.setdefault(problem.id, set()).add(problem.prompt)
    assert len(by_id) == 9
    assert all(len(prompts) > 10 for prompts in by_id.values())
    assert any(not prompt.isascii() for prompt in by_id.popitem()[1])


@pytest.mark.parametrize("seed", range(30))
def test_the_expert_does_one_operation_a_line_and_each_is_right(seed: int) -> None:
    problem = TASK.draw(Random(seed))
    lines = TASK.trace(problem, Random(seed), "expert").split("<think>")[1].split("</think>")[0].split("\n")
    for line in lines:
        work, result = line.split("=")
        assert read(work).value == int(result) and len(read(work).numbers) == 2
    assert lines[-1].endswith(f"={problem.answer}")


def test_facts_are_right() -> None:
    for seed in range(20):
        for line in TASK.facts(Random(seed), 8).split("\n"):
            work, result = line.split("=")
            assert read(work).value == int(result)


def test_a_careless_line_is_wrong_as_often_as_slip_says() -> None:
    problem = TASK.draw(Random(1))
    traces = [TASK.trace(problem, Random(seed), "careless") for seed in range(300)]
    wrong = sum(f"<answer>{problem.answer}<" not in trace for trace in traces) / 300
    assert 0.6 < wrong < 0.8


def test_asides_tell_of_others_and_change_nothing() -> None:
    plain, busy = WordProblems(languages=("en",)), WordProblems(languages=("en",), asides=3)
    for seed in range(20):
        one, other = plain.draw(Random(seed)), busy.draw(Random(seed))
        assert (one.id, one.answer) == (other.id, other.answer)
        assert other.prompt.count(".") == one.prompt.count(".") + 3
        asked = other.prompt.rsplit(" does ", 1)[1].split()[0]
        assert other.prompt.startswith((asked, f"At first {asked}"))


def test_every_language_tells_every_event() -> None:
    fields = WordProblems.model_fields["events"].default
    for words in LANGUAGES.values():
        assert set(words.events) == set(fields) and words.people and words.things


def test_what_it_counts_does_not_belong_to_the_answer() -> None:
    problem = TASK.draw(Random(0))
    assert TASK.check(problem, f" {problem.answer} ") is Verdict.PASS
    assert TASK.check(problem, f"{problem.answer} apples") is Verdict.UNPARSED


@pytest.mark.parametrize("wrong", [{"sizes": [0]}, {"languages": ["fr"]}, {"high": 200}, {"asides": 9}, {"events": []}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        build_task({"name": "word_problems"} | wrong)


def test_a_story_that_cannot_be_told_is_a_letter() -> None:
    with pytest.raises(UserError, match="no story of 40 events"):
        WordProblems(events=("times",)).draw(Random(0), 40)
