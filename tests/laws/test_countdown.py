"""Laws of Countdown, for any settings and any seed."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.countdown import Countdown
from seekling.tasks.protocol import identity, problems, split_of
from seekling.text.reasoning import split
from seekling.verify.expression import normal_form, numbers_used

TASKS = st.builds(
    Countdown,
    sizes=st.lists(st.integers(2, 5), min_size=1, max_size=3).map(tuple),
    low=st.integers(0, 5),
    high=st.integers(6, 30),
    operations=st.sampled_from(["+-", "+-*", "+-*/", "*-", "+"]),
    tries=st.integers(1, 5),
)
SEEDS = st.integers(0, 2**32)
QUALITIES = st.sampled_from(Countdown.qualities)


def drawn(task: Countdown, seed: int) -> Problem:
    try:
        return task.draw(Random(seed))
    except UserError:  # five numbers and only products, for one, may leave nothing in range
        assume(False)
        raise


@given(TASKS, SEEDS)
def test_the_answer_key_always_passes(task: Countdown, seed: int) -> None:
    problem = drawn(task, seed)
    assert task.check(problem, problem.answer) is Verdict.PASS


@given(TASKS, SEEDS, st.integers(-200, 200).filter(bool))
def test_a_wrong_target_never_passes(task: Countdown, seed: int, off: int) -> None:
    problem = drawn(task, seed)
    missed = replace(problem, info={**problem.info, "target": problem.info["target"] + off})
    assert task.check(missed, problem.answer) is Verdict.WRONG


@given(TASKS, SEEDS, SEEDS)
def test_an_answer_with_a_number_left_out_or_used_twice_never_passes(task: Countdown, seed: int, pick: int) -> None:
    problem = drawn(task, seed)
    numbers = [*problem.info["numbers"]]
    changed = [*numbers, Random(pick).choice(numbers)] if pick % 2 else numbers[1:]
    for shown in (changed, [*numbers[:-1], numbers[-1] + 1]):
        other = replace(problem, info={**problem.info, "numbers": tuple(shown)})
        assert task.check(other, problem.answer) is Verdict.WRONG


@given(TASKS, SEEDS)
def test_a_problem_is_a_pure_function_of_its_seed_and_keeps_its_settings(task: Countdown, seed: int) -> None:
    problem = drawn(task, seed)
    assert problem == task.draw(Random(seed))
    numbers, target = problem.info["numbers"], problem.info["target"]
    assert problem.prompt == f"use {' '.join(map(str, numbers))} to make {target}"
    assert problem.size == len(numbers)
    assert problem.size in task.sizes
    assert all(task.low <= number <= task.high for number in numbers)
    assert task.target_low <= target <= min(task.target_high, task.chain_max)


@given(TASKS, SEEDS, st.randoms(use_true_random=False))
def test_identity_does_not_depend_on_the_order_of_numbers(task: Countdown, seed: int, shuffler: Random) -> None:
    problem = drawn(task, seed)
    shuffled = [*problem.info["numbers"]]
    shuffler.shuffle(shuffled)
    assert problem.id == identity("countdown", sorted(shuffled), problem.info["target"])
    assert problem.id != identity("countdown", sorted(shuffled), problem.info["target"] + 1)


@given(TASKS, SEEDS, st.integers(2, 8))
def test_a_size_asked_for_is_the_size_drawn(task: Countdown, seed: int, size: int) -> None:
    task = task.model_copy(update={"operations": "+-", "high": 12})
    assert task.draw(Random(seed), size).size == size


@given(SEEDS)
def test_no_problem_is_in_two_splits(seed: int) -> None:
    task = Countdown(sizes=(3,))
    train = {problem.id for problem in islice(problems(task, "train", str(seed)), 40)}
    held_out = {problem.id for problem in islice(problems(task, "held_out", str(seed)), 10)}
    assert not train & held_out
    assert {split_of(key) for key in held_out} == {"held_out"}


@given(TASKS, SEEDS, QUALITIES)
def test_every_trace_is_well_formed_and_answers_with_its_last_attempt(task: Countdown, seed: int, quality: str) -> None:
    problem = drawn(task, seed)
    reply = split(task.trace(problem, Random(seed), quality))
    assert reply.well_formed
    assert reply.answer is not None
    attempts = task.attempts(problem, reply.thinking)
    if attempts:  # a wrong quality leaves a number out where every chain hits; that is no attempt
        assert attempts[-1] == normal_form(reply.answer)
        assert task.hits(problem, reply.thinking) == (task.check(problem, reply.answer) is Verdict.PASS)


@given(TASKS, SEEDS)
def test_an_expert_makes_one_attempt_and_it_is_a_hit(task: Countdown, seed: int) -> None:
    problem = drawn(task, seed)
    reply = split(task.trace(problem, Random(seed), "expert"))
    assert len(task.attempts(problem, reply.thinking)) == 1
    assert task.hits(problem, reply.thinking)
    assert task.check(problem, str(reply.answer)) is Verdict.PASS


@given(TASKS, SEEDS, st.sampled_from(["careless", "gives_up"]))
def test_careless_and_giving_up_are_wrong(task: Countdown, seed: int, quality: str) -> None:
    problem = drawn(task, seed)
    assert task.check(problem, str(split(task.trace(problem, Random(seed), quality)).answer)) is Verdict.WRONG


@given(TASKS, SEEDS)
def test_a_search_stops_at_its_first_hit_or_when_its_tries_are_spent(task: Countdown, seed: int) -> None:
    problem = drawn(task, seed)
    lines = split(task.trace(problem, Random(seed), "search")).thinking.split("\n")
    assert all(line.endswith(" no") for line in lines[:-1])
    assert len(lines) <= task.tries
    assert len(lines) == task.tries or lines[-1].endswith(" yes")
    assert len(task.attempts(problem, "\n".join(lines))) == len(lines)


@given(TASKS, SEEDS)
def test_careless_traces_slip_once_and_others_never(task: Countdown, seed: int) -> None:
    problem = drawn(task, seed)
    for quality in task.qualities:
        thinking = split(task.trace(problem, Random(seed), quality)).thinking
        if task.attempts(problem, thinking):
            assert _wrong_links(thinking) == (quality == "careless"), thinking


@given(TASKS, SEEDS)
def test_facts_are_right(task: Countdown, seed: int) -> None:
    facts = task.facts(Random(seed), 6)
    assert len(facts.split("\n")) == 6
    assert not _wrong_links(facts)


@given(TASKS, SEEDS, SEEDS)
def test_a_guess_is_a_legal_expression_of_the_numbers(task: Countdown, seed: int, luck: int) -> None:
    problem = drawn(task, seed)
    guess = task.guess(problem, Random(luck))
    assert sorted(numbers_used(guess)) == sorted(problem.info["numbers"])
    assert task.check(problem, guess) in (Verdict.PASS, Verdict.WRONG)


def _wrong_links(text: str) -> int:
    """How many equalities in ``text`` are false, by an oracle that is not the one under test."""
    chains = [[_slow(link) for link in word.split("=")] for word in text.split() if "=" in word]
    return sum(left != right for chain in chains for left, right in pairwise(chain))


def _slow(text: str) -> float:
    """A sum of products of brackets, by recursion over characters."""
    depth = 0
    for signs in ("+-", "*/"):
        for place in range(len(text) - 1, 0, -1):
            depth += {")": 1, "(": -1}.get(text[place], 0)
            if not depth and text[place] in signs:
                left, right = _slow(text[:place]), _slow(text[place + 1 :])
                return {"+": left + right, "-": left - right, "*": left * right}.get(text[place]) or (
                    left / right if text[place] == "/" else 0.0
                )
        depth = 0
    return _slow(text[1:-1]) if text[0] == "(" else float(text)
