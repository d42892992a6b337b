"""Knights and knaves: every assignment tried by brute force leaves one, and the expert's order can be reasoned out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from random import Random

import pytest

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.tasks.knights import Knights, holds
from seekling.tasks.registry import build_task

TASK = Knights()


def is_true(sentence: str, kinds: Mapping[str, bool]) -> bool:
    """What a sentence of the prompt says, read from its words alone."""
    one = re.fullmatch(r"([A-Z]) is a (knight|knave)", sentence)
    if one:
        return kinds[one[1]] == (one[2] == "knight")
    two = re.fullmatch(r"([A-Z]) (and|or) ([A-Z]) (are alike|are not alike|are knaves|is a knave)", sentence)
    assert two, sentence
    a, b = kinds[two[1]], kinds[two[3]]
    both, none = a and b, not a and not b
    return {"are alike": a == b, "are not alike": a != b, "are knaves": none, "is a knave": not both}[two[4]]


def solved(prompt: str) -> list[list[str]]:
    """The knights of every assignment under which knights speak the truth and knaves lie."""
    said = re.findall(r"([A-Z]) says (.*?)\.", prompt)
    people = sorted(speaker for speaker, _ in said)
    found = []
    for row in product((False, True), repeat=len(people)):
        kinds = dict(zip(people, row, strict=True))
        if all(is_true(sentence, kinds) == kinds[speaker] for speaker, sentence in said):
            found.append([person for person in people if kinds[person]])
    return found


@pytest.mark.parametrize("size", [2, 3, 5, 6, 8])
def test_there_is_exactly_one_solution_and_it_is_the_key(size: int) -> None:
    for seed in range(30):
        problem = TASK.draw(Random(seed), size)
        assert solved(problem.prompt) == [problem.answer.split()], problem.prompt
        assert len(re.findall("says", problem.prompt)) == size


@pytest.mark.parametrize("pairs", [0.0, 1.0])
def test_uniqueness_does_not_hang_on_the_kinds_of_statements(pairs: float) -> None:
    task = Knights(pairs=pairs)
    for seed in range(30):
        assert len(solved(task.draw(Random(seed)).prompt)) == 1


def test_from_what_is_known_the_next_in_the_experts_order_always_follows() -> None:
    for seed in range(60):
        problem = TASK.draw(Random(seed))
        told = TASK.trace(problem, Random(seed), "expert").split("<think>")[1].split("</think>")[0].split("\n")
        kinds = {line[0]: line.endswith("knight") for line in told}
        order = list(kinds)
        for place in range(2, len(order)):
            known, person = order[:place], order[place]
            heard = [s for s in problem.info["statements"] if set(s[1:]) <= {*known, person} and person in s[1:]]
            fits = {
                kind for kind in (False, True)
                if all(holds(s, {**kinds, person: kind}) == {**kinds, person: kind}[s[1]] for s in heard)
            }  # fmt: skip
            assert heard and fits == {kinds[person]}


def test_facts_follow_from_their_statement() -> None:
    for seed in range(30):
        blocks = re.findall(r"([A-Z]) says (.*?)\.\n((?:[A-Z] kn\w+\n?)+)", TASK.facts(Random(seed), 9))
        assert len(blocks) == 3
        for speaker, sentence, known in blocks:
            kinds = {line[0]: line.endswith("knight") for line in known.strip().split("\n")}
            assert is_true(sentence, kinds) == kinds[speaker]


def test_facts_need_three_people_however_few_a_problem_has() -> None:
    assert "says" in Knights(sizes=(2,)).facts(Random(0), 3)


def test_those_who_trust_everybody_are_seldom_right_and_say_so_of_everybody() -> None:
    problem = TASK.draw(Random(2), 6)
    trace = TASK.trace(problem, Random(0), "trusting")
    assert trace.count("kn") == 6
    passed = 0
    for seed in range(100):
        one = TASK.draw(Random(seed))
        passed += (
            TASK.check(one, TASK.trace(one, Random(0), "trusting").split("<answer>")[1].split("<")[0]) is Verdict.PASS
        )
    assert passed < 25


def test_knights_are_named_in_any_order_but_each_once() -> None:
    problem = next(one for seed in range(99) if (one := TASK.draw(Random(seed))).answer.count(" ") == 2)
    key = problem.answer.split()
    assert TASK.check(problem, ", ".join(reversed(key))) is Verdict.PASS
    assert TASK.check(problem, " ".join([*key, key[0]])) is Verdict.WRONG
    assert TASK.check(problem, "nobody.") is Verdict.UNPARSED


def test_a_thought_that_leaves_somebody_out_is_no_attempt() -> None:
    problem = TASK.draw(Random(3), 5)
    lines = TASK.trace(problem, Random(0), "expert").split("<think>")[1].split("</think>")[0].split("\n")
    assert TASK.attempts(problem, "\n".join(lines)) and not TASK.attempts(problem, "\n".join(lines[:-1]))
    assert not TASK.attempts(problem, "\n".join([*lines[:-1], lines[0]]))


@pytest.mark.parametrize("size", [1, 27])
def test_too_few_or_too_many_people_is_a_letter(size: int) -> None:
    with pytest.raises(UserError, match=f"no {size} people"):
        TASK.draw(Random(0), size)
    with pytest.raises(UserError, match="between 2 and 26"):
        build_task({"name": "knights", "sizes": [size]})
