"""Counting letters: the key counts what stands in the word, and the expert counts along as it spells."""

from __future__ import annotations

from random import Random

import pytest

from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.letters import Letters, _spelled
from seekling.tasks.registry import build_task

TASK = Letters()


def test_a_spelled_word_carries_its_running_counts() -> None:
    assert _spelled("banana") == "b1 a1 n1 a2 n2 a3"


@pytest.mark.parametrize("seed", range(30))
def test_the_key_counts_the_letters_asked_for_in_their_order(seed: int) -> None:
    problem = TASK.draw(Random(seed))
    asked, _, word = problem.prompt.removeprefix("count ").partition(" in ")
    assert problem.answer.split() == [str(sum(other == letter for other in word)) for letter in asked.split()]
    assert len(word) == problem.size and set(word) <= set("abenrs") and len(set(asked.split())) == 3


@pytest.mark.parametrize("seed", range(20))
def test_the_expert_spells_the_whole_word(seed: int) -> None:
    problem = TASK.draw(Random(seed))
    items = TASK.trace(problem, Random(seed), "expert").split("<think>")[1].split("</think>")[0].split()
    assert "".join(item[0] for item in items) == problem.info["word"]
    for place, item in enumerate(items):
        assert int(item[1:]) == problem.info["word"][: place + 1].count(item[0])


def test_a_word_of_the_same_letters_is_another_problem() -> None:
    small = Letters(alphabet="ab", asked=2, sizes=(3,))
    drawn = [small.draw(Random(seed)) for seed in range(100)]
    assert len({problem.id for problem in drawn}) == len({problem.prompt for problem in drawn}) == 8


def test_facts_spell_a_word() -> None:
    lengths = set()
    for seed in range(40):
        word, spelled = TASK.facts(Random(seed), 8).split("\n")
        assert spelled == _spelled(word)
        lengths.add(len(word))
    assert lengths == set(range(1, 9))


def test_the_careless_do_not_spell_and_are_off_by_one_as_often_as_slip_says() -> None:
    problem = TASK.draw(Random(1))
    traces = [TASK.trace(problem, Random(seed), "careless") for seed in range(300)]
    said = [[int(n) for n in trace.split("<answer>")[1].split("<")[0].split()] for trace in traces]
    right = [int(n) for n in problem.answer.split()]
    off = [sum(abs(a - b) for a, b in zip(one, right, strict=True)) for one in said]
    assert set(off) == {0, 1} and 0.6 < sum(off) / 300 < 0.8
    assert all(n >= 0 for one in said for n in one)


def test_a_letter_that_no_attempt_names_counts_as_none() -> None:
    problem = Problem("0", "letters", "count a z in aab", "2 0", 3, {"word": "aab", "asked": ["a", "z"]})
    assert TASK.hits(problem, "a1 a2 b1") and not TASK.hits(problem, "a1") and not TASK.hits(problem, "")
    assert not TASK.hits(problem, "a1 a2 b1\na1"), "the last attempt counts"


def test_counts_in_another_order_are_wrong() -> None:
    problem = Problem("0", "letters", "count a b in aab", "2 1", 3, {"word": "aab", "asked": ["a", "b"]})
    assert TASK.check(problem, "2, 1") is Verdict.PASS
    assert TASK.check(problem, "1 2") is TASK.check(problem, "2") is Verdict.WRONG
    assert TASK.check(problem, "a2 b1") is Verdict.UNPARSED


@pytest.mark.parametrize("wrong", [{"sizes": [0]}, {"alphabet": "aab"}, {"alphabet": "A"}, {"asked": 9}, {"slip": -1}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        build_task({"name": "letters"} | wrong)
