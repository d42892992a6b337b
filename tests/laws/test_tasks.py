"""What every built-in family keeps to, whatever it is about: its draws, its check, its splits, its traces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seekling.evals.controls import blind_pass
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import Auditable, Guessable, Traceable, problems, split_of
from seekling.tasks.registry import FAMILIES, build_task
from seekling.text.reasoning import split

SEEDS = st.integers(0, 2**32)
QUICK = [name for name in sorted(FAMILIES) if getattr(build_task(name), "quick", False)]
"""Families whose check runs in the trainer's own process; the others have laws of their own."""
TRACEABLE = [name for name in QUICK if isinstance(build_task(name), Traceable)]
GUESSABLE = [name for name in QUICK if isinstance(build_task(name), Guessable)]
AUDITABLE = [name for name in QUICK if isinstance(build_task(name), Auditable)]

few = settings(max_examples=20, deadline=None)
many = settings(max_examples=100, deadline=None)
of_all = pytest.mark.parametrize("name", QUICK)
of_traceable = pytest.mark.parametrize("name", TRACEABLE)


def sizes(task: Any) -> list[int]:
    """The usual sizes, and one beyond."""
    usual = sorted(set(getattr(task, "sizes", ()))) or [task.draw(Random(0)).size]
    return [*usual, usual[-1] + 1]


def drawn(name: str, seed: int) -> Iterator[tuple[Any, Problem, Random]]:
    """A problem of each size."""
    task = build_task(name)
    for size in sizes(task):
        rng = Random(f"{seed}/{size}")
        yield task, task.draw(rng, size), rng


def read_back(problem: Problem) -> Problem:
    """The problem after it has been in a file."""
    return Problem(**json.loads(json.dumps(asdict(problem))))


@of_all
@given(seed=SEEDS)
@few
def test_a_key_passes_its_own_check_and_the_size_is_the_one_asked_for(name: str, seed: int) -> None:
    for task, problem, _ in drawn(name, seed):
        assert task.check(problem, problem.answer) is Verdict.PASS
        assert problem.task == name and problem.prompt.strip() and problem.answer.strip()
    assert [problem.size for _, problem, _ in drawn(name, seed)] == sizes(build_task(name))


@of_all
@given(seed=SEEDS)
@few
def test_a_problem_is_a_function_of_the_random_state_alone(name: str, seed: int) -> None:
    one, other = build_task(name), build_task(name)
    assert one.draw(Random(seed)) == other.draw(Random(seed))


@of_all
def test_problems_of_one_identity_are_in_one_split_and_take_one_answer(name: str) -> None:
    """Verdicts are remembered by identity, so the right answers of two such problems must not differ."""
    task = build_task(name)
    known: dict[str, Problem] = {}
    for seed in range(400):
        problem = task.draw(Random(seed), min(sizes(task)))
        same = known.setdefault(problem.id, problem)
        assert task.check(same, problem.answer) is Verdict.PASS
        assert task.check(problem, same.answer) is Verdict.PASS
    assert len(known) >= 100


@of_all
def test_a_tenth_is_held_out(name: str) -> None:
    task = build_task(name)
    held_out = list(islice(problems(task, "held_out", "0", distinct=True), 10))
    assert {split_of(problem.id) for problem in held_out} == {"held_out"}
    share = sum(split_of(task.draw(Random(seed)).id) == "held_out" for seed in range(500)) / 500
    assert 0.03 < share < 0.2


@of_all
@given(seed=SEEDS)
@few
def test_a_problem_can_go_through_a_file(name: str, seed: int) -> None:
    for task, problem, _ in drawn(name, seed):
        again = read_back(problem)
        assert task.check(again, problem.answer) is Verdict.PASS
        if name in TRACEABLE:
            for quality in task.qualities:
                assert task.trace(again, Random(seed), quality) == task.trace(problem, Random(seed), quality)


@of_all
@given(said=st.text() | st.text(alphabet="0123456789 ,.<>=+-*/()[]{}\n\tabpqr'\"|", max_size=60), seed=SEEDS)
@many
def test_no_text_makes_a_check_raise(name: str, said: str, seed: int) -> None:
    task = build_task(name)
    problem = task.draw(Random(seed))
    assert task.check(problem, said) in (Verdict.PASS, Verdict.WRONG, Verdict.UNPARSED)
    if name in TRACEABLE:
        assert all(isinstance(attempt, str) for attempt in task.attempts(problem, said))
        assert not task.hits(problem, said) or task.attempts(problem, said)


@pytest.mark.parametrize("name", AUDITABLE)
@given(seed=SEEDS)
@few
def test_true_answers_in_other_forms_pass_and_traps_do_not(name: str, seed: int) -> None:
    for task, problem, rng in drawn(name, seed):
        others, traps = task.others(problem, rng), task.traps(problem, rng)
        assert traps
        assert [said for said in others if task.check(problem, said) is not Verdict.PASS] == []
        assert [said for said in traps if task.check(problem, said) is Verdict.PASS] == []


@pytest.mark.parametrize("name", GUESSABLE)
@given(seed=SEEDS)
@few
def test_a_guess_is_well_formed_and_needs_no_key(name: str, seed: int) -> None:
    for task, problem, _ in drawn(name, seed):
        guess = task.guess(problem, Random(seed))
        assert task.check(problem, guess) in (Verdict.PASS, Verdict.WRONG)
        assert guess == task.guess(problem, Random(seed))


@pytest.mark.parametrize("name", GUESSABLE)
def test_a_blind_guesser_with_eight_tries_stays_below_a_quarter(name: str) -> None:
    task = build_task(name)
    asked = [task.draw(Random(seed)) for seed in range(100)]
    found = blind_pass(task, asked, 8, draws=6)
    assert sum(found) / len(found) <= 0.27, "a quarter, and what chance may add in so few draws"


@of_traceable
@given(seed=SEEDS)
@few
def test_a_trace_of_any_quality_is_well_formed_and_read_back(name: str, seed: int) -> None:
    for task, problem, rng in drawn(name, seed):
        for quality in task.qualities:
            said = split(task.trace(problem, rng, quality))
            assert said.well_formed and said.answer is not None
            passed = task.check(problem, said.answer)
            assert passed is not Verdict.UNPARSED
            if task.attempts(problem, said.thinking):
                assert task.hits(problem, said.thinking) == (passed is Verdict.PASS)
            else:
                assert not task.hits(problem, said.thinking)


@of_traceable
@given(seed=SEEDS)
@few
def test_the_expert_is_right_and_leaves_one_attempt_at_least(name: str, seed: int) -> None:
    for task, problem, rng in drawn(name, seed):
        said = split(task.trace(problem, rng, "expert"))
        assert task.check(problem, said.answer or "") is Verdict.PASS
        assert task.hits(problem, said.thinking) and task.attempts(problem, said.thinking)


@of_traceable
def test_the_mixture_is_known_and_leaves_something_to_find(name: str) -> None:
    task = build_task(name)
    assert set(task.mixture) <= set(task.qualities) and set(task.verdict_qualities) <= set(task.qualities)
    assert sum(task.mixture.values()) == pytest.approx(1)
    right = dict.fromkeys(task.mixture, 0.0)
    for seed in range(200):
        rng = Random(seed)
        problem = task.draw(rng)
        for quality in right:
            said = split(task.trace(problem, rng, quality)).answer or ""
            right[quality] += task.check(problem, said) is Verdict.PASS
    passes = sum(share * right[quality] / 200 for quality, share in task.mixture.items())
    assert 0.1 < passes < 0.5, "what the text itself would earn"


@of_traceable
@given(seed=SEEDS)
@few
def test_facts_are_a_function_of_the_random_state_and_no_worked_attempt(name: str, seed: int) -> None:
    task = build_task(name)
    if hasattr(task, "facts"):
        assert task.facts(Random(seed), 8) == task.facts(Random(seed), 8)
        assert task.facts(Random(seed), 8).strip() and "<answer>" not in task.facts(Random(seed), 8)
