"""Tiny requests: what their check minds, and what only their rule of helpfulness minds."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import Helpable
from seekling.tasks.registry import build_task
from seekling.tasks.requests import LANGUAGES, Answer, Requests, _kept, read
from seekling.tasks.topics import TOPICS
from seekling.text.reasoning import split

TASK = Requests()
SEA = Problem(
    "0", "requests", "name 3 of the sea with salt not tide end !", "", 4,
    {"language": "en", "topic": "the sea", "count": 3, "wanted": "salt", "unwanted": ["tide"], "mark": "!"},
)  # fmt: skip
SEEDS = range(60)


def test_the_prompt_says_every_constraint() -> None:
    for seed in SEEDS:
        problem = TASK.draw(Random(seed), 4)
        words, asked = problem.prompt.split(" "), problem.info
        told = [str(asked["count"]), asked["wanted"], *asked["unwanted"], *([asked["mark"]] if asked["mark"] else [])]
        assert set(told) <= set(words) and asked["topic"] in problem.prompt
        assert 1 + 1 + len(asked["unwanted"]) + bool(asked["mark"]) == problem.size == 4


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("wave salt sail!", "pass"),
        ("wave salt sail thanks!", "pass"),
        ("Salt\nSALT salt !", "pass"),
        ("salt train 海浪!", "pass"),
        ("wave salt!", "wrong"),
        ("wave salt sail fish!", "wrong"),
        ("wave sail fish!", "wrong"),
        ("wave salt tide!", "wrong"),
        ("wave salt sail", "wrong"),
        ("wave salt sail.", "wrong"),
        ("wave salt sail！", "wrong"),
        ("wave salt sail thanks bye!", "wrong"),
        ("thanks wave salt!", "pass"),
        ("wave, salt, sail!", "unparsed"),
        ("wave salt sail!!", "unparsed"),
        ("3 words!", "unparsed"),
        ("", "unparsed"),
        ("!", "unparsed"),
    ],
)
def test_the_check_minds_the_constraints_and_nothing_else(answer: str, verdict: str) -> None:
    assert TASK.check(SEA, answer) is Verdict(verdict)


def test_helpfulness_prefers_what_the_check_does_not_ask_for() -> None:
    ordered = [
        "wave salt sail thanks!",  # keeps all, of the topic, courteous
        "wave salt sail!",  # without courtesy
        "salt salt salt!",  # of the topic once
        "salt train rail!",  # as little of the topic
        "salt 海浪 沙滩!",  # in two languages
        "train rail desk!",  # breaks a constraint
        "",
    ]
    rated = [TASK.helpfulness(SEA, answer) for answer in ordered]
    assert rated == sorted(rated, reverse=True) and rated[0] == 1.0 and rated[-1] == 0.0
    assert len(set(rated)) == len(rated) - 1 and rated[2] == rated[3]
    assert isinstance(TASK, Helpable)


def test_courtesy_counts_in_the_language_that_was_asked_in() -> None:
    assert TASK.helpfulness(SEA, "wave salt sail thanks!") > TASK.helpfulness(SEA, "wave salt sail 谢谢!")


@given(said=st.text(max_size=40) | st.text(alphabet="wave salt!.海 \n", max_size=40), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_text_has_a_helpfulness_and_what_keeps_all_constraints_half_of_it_at_least(said: str, seed: int) -> None:
    problem = TASK.draw(Random(seed))
    rated = TASK.helpfulness(problem, said)
    assert 0 <= rated <= 1
    assert (rated >= 0.5) or TASK.check(problem, said) is not Verdict.PASS
    assert (rated > 0) or TASK.check(problem, said) is not Verdict.PASS


@given(words=st.lists(st.sampled_from(["wave", "salt", "海浪"]), min_size=1, max_size=4),
       courtesy=st.sampled_from(["", "thanks", "谢谢"]), mark=st.sampled_from(["", ".", "！"]))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_an_answer_is_read_as_it_was_said(words: list[str], courtesy: str, mark: str) -> None:
    answer = Answer(tuple(words), courtesy, mark)
    assert read(answer.text()) == answer


def told(quality: str, count: int = 150) -> list[tuple[Problem, str, Verdict, float]]:
    found = []
    for seed in range(count):
        problem = TASK.draw(Random(seed))
        answer = split(TASK.trace(problem, Random(seed), quality)).answer or ""
        found.append((problem, answer, TASK.check(problem, answer), TASK.helpfulness(problem, answer)))
    return found


def test_qualities_differ_in_what_they_keep_and_in_how_they_help() -> None:
    found = {quality: told(quality) for quality in TASK.qualities}
    passes = {name: sum(v is Verdict.PASS for _, _, v, _ in rows) / len(rows) for name, rows in found.items()}
    helps = {name: sum(h for *_, h in rows) / len(rows) for name, rows in found.items()}
    assert passes["expert"] == passes["plain"] == passes["rude"] == 1 and passes["sloppy"] == 0
    assert passes["guess"] < 0.1
    assert all(h == 1 for *_, h in found["expert"]) and all(h == 0.8 for *_, h in found["plain"])
    assert helps["expert"] > helps["plain"] > helps["rude"] > helps["sloppy"] > helps["guess"]
    assert max(h for *_, h in found["rude"]) <= 0.7


def test_the_sloppy_break_one_constraint_and_any_of_them() -> None:
    broken = set()
    for problem, answer, _, _ in told("sloppy", 300):
        said = read(answer)
        assert said is not None
        kept = _kept(problem, said)
        assert kept.count(False) == 1
        names = [
            "count",
            "wanted",
            *["unwanted"] * len(problem.info["unwanted"]),
            *["mark"] * bool(problem.info["mark"]),
        ]
        broken.add(names[kept.index(False)])
    assert broken == {"count", "wanted", "unwanted", "mark"}


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_there_is_always_a_word_left_to_break_a_constraint_with(size: int) -> None:
    task = Requests(counts=(4,), sizes=(size,))
    for seed in range(40):
        problem = task.draw(Random(seed))
        assert task.check(problem, problem.answer) is Verdict.PASS
        assert all(task.check(problem, trap) is not Verdict.PASS for trap in task.traps(problem, Random(seed)))


def test_who_keeps_to_the_constraints_noted_them_first() -> None:
    for quality in TASK.qualities:
        problem = TASK.draw(Random(7))
        lines = split(TASK.trace(problem, Random(7), quality)).thinking.split("\n")
        assert len(lines) == (2 if quality in ("expert", "plain", "rude") else 1)
        assert lines[-1].startswith(LANGUAGES[problem.info["language"]].tries)


def test_facts_are_of_one_topic() -> None:
    words = {topic.name: set(topic.words) for topics in TOPICS.values() for topic in topics}
    for seed in SEEDS:
        fact = TASK.facts(Random(seed), 5)
        name = max((name for name in words if fact.startswith(f"{name} ")), key=len)
        assert set(fact.removeprefix(name).split()) <= words[name]


Has = Callable[[Problem], bool]


@pytest.mark.parametrize(("knob", "holds"), [
    ({"topics": 1}, lambda p: p.info["topic"] in ("the sea", "大海")),
    ({"languages": ["zh"]}, lambda p: p.info["language"] == "zh"),
    ({"counts": [2]}, lambda p: p.info["count"] == 2),
])  # fmt: skip
def test_a_knob_holds_for_every_problem(knob: dict[str, object], holds: Has) -> None:
    task = build_task({"name": "requests"} | knob)
    assert all(holds(task.draw(Random(seed))) for seed in SEEDS)


@pytest.mark.parametrize("wrong", [{"sizes": [1]}, {"sizes": [6]}, {"counts": [1]}, {"counts": [5]}, {"topics": 0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        build_task({"name": "requests"} | wrong)
