"""The text a base model reads: deterministic, of the stated mixture, and never about a held-out problem."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random
from typing import Any

import pytest

from seekling.errors import UserError
from seekling.tasks.arithmetic import Arithmetic
from seekling.tasks.corpus import Document, Mixture, documents, training_problem
from seekling.tasks.countdown import Countdown
from seekling.tasks.protocol import split_of
from tests.e2e.manifests.sums import Sums

TASKS: dict[str, Any] = {
    "sums": Sums(high=20), "arithmetic": Arithmetic(sizes=(3, 4), high=20), "countdown": Countdown(sizes=(3,)),
}  # fmt: skip


def some(task: Any, mixture: Mixture, seed: str = "a", count: int = 300) -> list[Document]:
    return list(islice(documents(task, mixture, seed), count))


@pytest.mark.parametrize("name", TASKS)
def test_the_text_is_a_function_of_its_seed(name: str) -> None:
    task = TASKS[name]
    assert some(task, Mixture()) == some(task, Mixture()) != some(task, Mixture(), "b")


@pytest.mark.parametrize("name", TASKS)
def test_a_held_out_problem_never_occurs(name: str) -> None:
    told = [d.problem for d in some(TASKS[name], Mixture(), count=1500) if d.problem is not None]
    assert len(told) > 500
    assert all(split_of(problem.id) == "train" for problem in told)


@pytest.mark.parametrize("name", TASKS)
def test_without_verdicts_their_qualities_are_gone_and_the_others_are_as_they_were(name: str) -> None:
    asked = Recorder(TASKS[name])
    some(asked, Mixture(verdicts=False, facts=0.0), count=400)
    assert not set(asked.heard) & set(asked.verdict_qualities)
    assert set(asked.heard) == {q for q in asked.qualities if asked.mixture[q]} - set(asked.verdict_qualities)
    with_them = Recorder(TASKS[name])
    some(with_them, Mixture(facts=0.0), count=400)
    assert set(with_them.heard) & set(with_them.verdict_qualities), "with them they do occur"


class Recorder:
    """A task that notes which qualities were asked of it."""

    def __init__(self, task: Any) -> None:
        self.task, self.heard = task, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def trace(self, problem: Any, rng: Random, quality: str) -> str:
        self.heard[quality] += 1
        return str(self.task.trace(problem, rng, quality))


def test_shares_are_relative_and_a_quality_that_is_not_named_does_not_occur() -> None:
    asked = Recorder(Sums())
    some(asked, Mixture(qualities={"right": 3, "wrong": 1}), count=2000)
    assert asked.heard.keys() == {"right", "wrong"}
    assert asked.heard["right"] / 2000 == pytest.approx(0.75, abs=0.03)


def test_the_order_in_which_qualities_are_named_changes_nothing() -> None:
    one, other = Mixture(qualities={"right": 0.5, "wrong": 0.5}), Mixture(qualities={"wrong": 0.5, "right": 0.5})
    assert some(Sums(), one) == some(Sums(), other)


def test_facts_have_their_share_where_the_task_has_them_and_none_where_it_has_not() -> None:
    told = some(TASKS["arithmetic"], Mixture(facts=0.4), count=1500)
    assert sum(d.problem is None for d in told) / 1500 == pytest.approx(0.4, abs=0.04)
    assert all(d.problem is not None for d in some(Sums(), Mixture(facts=0.4)))


def test_an_unknown_quality_is_a_letter_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no traces of quality") as raised:
        some(Sums(), Mixture(qualities={"rihgt": 1.0}))
    assert '"right"' in raised.value.next_step


@pytest.mark.parametrize(
    "mixture", [Mixture(qualities={"right": 0.0}), Mixture(qualities={"checked": 1}, verdicts=False)]
)
def test_a_mixture_that_leaves_no_attempts_is_a_letter(mixture: Mixture) -> None:
    with pytest.raises(UserError, match="no worked attempts are left"):
        some(Sums(), mixture)


class Bare:
    """A task that can only be asked and checked."""

    name = "bare"

    def draw(self, rng: Random, size: int | None = None) -> Any:
        return Sums().draw(rng, size)

    def check(self, problem: Any, answer: str) -> Any:
        return Sums().check(problem, answer)


def test_a_task_without_traces_is_a_letter_and_can_still_be_trained_on() -> None:
    with pytest.raises(UserError, match="no worked attempts to learn from"):
        some(Bare(), Mixture())
    assert split_of(training_problem(Bare(), Random(0)).id) == "train"


def test_a_task_with_no_training_problem_is_told_and_does_not_hang() -> None:
    class Same(Bare):
        def draw(self, rng: Random, size: int | None = None) -> Any:
            from dataclasses import replace

            return replace(super().draw(rng, size), id="0" * 16)

    with pytest.raises(UserError, match="none for training"):
        training_problem(Same(), Random(0))
