"""Problems by split and seed; a task's own answer key must pass its own check."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from seekling.errors import SelfTestFailed, UserError
from seekling.records import Problem, Verdict
from seekling.selftests.outcome import require
from seekling.selftests.tasks import of_key
from seekling.tasks.protocol import HELD_OUT_SHARE, Guessable, Task, Traceable, identity, problems, split_of
from tests.e2e.manifests.sums import Sums

TASK = Sums(high=30)


def test_the_example_task_keeps_every_protocol() -> None:
    task: Task = TASK
    require(*of_key(task))
    assert isinstance(task, Traceable) and isinstance(task, Guessable)


def test_a_problem_is_never_in_two_splits() -> None:
    train = {p.id for p in islice(problems(TASK, "train", "a"), 2000)}
    held_out = {p.id for p in islice(problems(TASK, "held_out", "b"), 500)}
    assert train and held_out and not train & held_out
    assert all(split_of(i) == "train" for i in train) and all(split_of(i) == "held_out" for i in held_out)


def test_about_a_tenth_is_held_out() -> None:
    shares = [split_of(identity("x", n)) == "held_out" for n in range(20_000)]
    assert sum(shares) / len(shares) == pytest.approx(HELD_OUT_SHARE, abs=0.01)


def test_problems_are_a_function_of_task_split_seed_and_size() -> None:
    def drawn(seed: str, size: int | None = None) -> list[Problem]:
        return list(islice(problems(TASK, "train", seed, size=size), 20))

    assert drawn("a") == drawn("a") != drawn("b")
    assert {p.size for p in drawn("a", 5)} == {5}


def test_distinct_problems_end_with_a_letter_that_counts_them() -> None:
    few = problems(Sums(high=4), "train", "a", distinct=True, max_misses=2000)
    seen: list[str] = []
    with pytest.raises(UserError, match="run out of distinct train problems after") as raised:
        seen.extend(p.id for p in few)
    assert len(set(seen)) == len(seen) and str(len(seen)) in raised.value.what


def test_an_identity_is_the_same_on_every_machine_and_depends_on_every_part() -> None:
    assert identity("a", 1) == "391d545b6971354e", "a changed digest would move problems between splits"
    assert len({identity("a", 1), identity("a", 2), identity("b", 1), identity("a", "1")}) == 4
    assert len(identity("a")) == 16


class WrongKey(Sums):
    """Its key is one too large."""

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        right = super().draw(rng, size)
        return Problem(right.id, right.task, right.prompt, str(int(right.answer) + 1), right.size)

    def check(self, problem: Problem, answer: str) -> Verdict:
        return Verdict.PASS if int(answer) == sum(map(int, problem.prompt.split("+"))) else Verdict.WRONG


def test_a_wrong_answer_key_is_found_before_training() -> None:
    with pytest.raises(SelfTestFailed, match="answer key passes"):
        require(*of_key(WrongKey()))
