"""Following instructions: constraints that go together, keys that keep them, and one broken at a time."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seekling.config import parse
from seekling.errors import UserError
from seekling.records import Verdict
from seekling.rewards.rubric import answer_of
from seekling.selftests.outcome import require
from seekling.selftests.tasks import of_key
from seekling.tasks.instruction_kinds import KINDS
from seekling.tasks.instructions import MOST, Instructions
from seekling.tasks.protocol import reads
from seekling.tasks.topics import ABOUT, HOW, SENTENCES, TOPICS, WHEN
from seekling.verify.constraints import CHECKERS, IFEVAL
from seekling.verify.languages import is_in
from seekling.verify.schema import check_schema

TASK = Instructions()
SEEDS = st.integers(0, 2**32)
QUOTING = ("detectable_format:constrained_response", "detectable_format:json_schema")
"""Kinds whose words quote English, or none."""


def test_its_own_keys_pass() -> None:
    require(*of_key(TASK), *of_key(Instructions(sizes=(1, MOST), policy="loose")))


def test_nearly_all_that_ifeval_asks_can_be_asked_here() -> None:
    assert set(KINDS) <= set(CHECKERS)
    assert set(IFEVAL) - set(KINDS) == {"combination:repeat_prompt"}
    assert len(KINDS) >= 30


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"keywords:existence"}))
def test_every_kind_can_be_asked_alone_kept_and_said_in_its_languages(kind: str) -> None:
    for language in KINDS[kind].languages:
        task = Instructions(kinds=(kind,), sizes=(2,), languages=(language,))  # type: ignore[arg-type]
        for seed in range(8):
            problem = task.draw(Random(seed))
            name, arguments = problem.info["constraints"][1]
            assert name == kind and CHECKERS[kind](problem.answer, arguments)
            assert kind in QUOTING or is_in(problem.prompt, language)
            assert problem.prompt.count("。" if language == "zh" else ".") >= 3 or kind in QUOTING


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_breaking_any_one_constraint_is_noticed_by_its_own_checker(seed: int) -> None:
    problem = TASK.draw(Random(seed))
    for name, arguments in problem.info["constraints"]:
        broken = KINDS[name].broken(problem.answer, arguments)
        assert broken is None or not CHECKERS[name](broken, arguments), (name, broken)


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_no_two_constraints_are_about_the_same_thing(seed: int) -> None:
    names = [name for name, _ in TASK.draw(Random(seed)).info["constraints"]]
    assert names[0] == "keywords:existence" and len(set(names)) == len(names)
    for one in names:
        assert all(one == other or not KINDS[one].concerns & KINDS[other].concerns for other in names)


def test_schemas_that_are_asked_for_are_known() -> None:
    for seed in range(30):
        check_schema(KINDS["detectable_format:json_schema"].draw(Random(seed), ("a",), "en")["schema"])


def test_all_that_is_said_outside_the_thinking_is_held_to_the_constraints() -> None:
    problem = Instructions(kinds=("punctuation:no_comma",), sizes=(2,), languages=("en",)).draw(Random(0))
    assert reads(TASK) == "reply"
    said = answer_of(f"<think>first, second</think>{problem.answer}", "reply")
    assert said is not None and TASK.check(problem, said) is Verdict.PASS
    said = answer_of(f"Well, <answer>{problem.answer}</answer>", "reply")
    assert said is not None and TASK.check(problem, said) is Verdict.WRONG


def test_a_reply_about_nothing_never_passes() -> None:
    for seed in range(100):
        problem = TASK.draw(Random(seed))
        for reply in (".", "ok", "x" * 1000, "{}", '""', "- a\n- b", "My answer is yes."):
            assert TASK.check(problem, reply) is Verdict.WRONG


def test_the_policy_decides_what_a_first_line_does() -> None:
    task = Instructions(kinds=("startend:start_checker",), sizes=(2,), languages=("en",))
    problem = task.draw(Random(0))
    chatty = f"Sure!\n{problem.answer}"
    assert task.check(problem, chatty) is Verdict.WRONG
    assert task.model_copy(update={"policy": "loose"}).check(problem, chatty) is Verdict.PASS


def test_the_words_of_topics_are_many_and_no_sentence_holds_what_constraints_are_about() -> None:
    for language, topics in TOPICS.items():
        assert len(topics) >= 12 and all(len(set(topic.words)) == 8 for topic in topics)
        plain = "".join((*SENTENCES[language], *ABOUT[language], *HOW[language], *WHEN[language]))
        assert not set(plain) & set(',，、.。!！*[<"-0123456789')


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"sizes": []}, "sizes"), ({"sizes": [0]}, "between 1"), ({"sizes": [7]}, "between 1"),
        ({"languages": ["de"]}, "languages"),
        ({"kinds": ["punctuation:no_coma"]}, "no kind of constraint"), ({"polcy": "loose"}, '"policy"'),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(values: dict, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        parse(Instructions, values)


def test_more_than_go_together_are_refused_aloud() -> None:
    with pytest.raises(UserError, match="no 7 constraints"):
        TASK.draw(Random(0), 7)
    with pytest.raises(UserError, match="no 3 constraints"):
        Instructions(kinds=("punctuation:no_comma",), sizes=(3,)).draw(Random(0))
