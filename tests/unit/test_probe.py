"""The probe: figures from rollouts made by hand, and the verdict they come to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seekling.evals.evaluate import Judged
from seekling.evals.measure import Interval
from seekling.evals.probe import EXIT_CODES, Outcome, Probe, diagnose, probe
from seekling.records import Group, Problem, Rollout, Score, Stop, Verdict

P, W, U = Verdict.PASS, Verdict.WRONG, Verdict.UNPARSED


def sure(value: float) -> Interval:
    return Interval(value, value, value)


GOOD = Probe(
    problems=64, samples=64, pass_1=sure(0.2), pass_k=sure(0.7), spread=sure(0.5), format_rate=sure(0.9),
    mean_tokens=sure(40), answered=0.95, unreadable=0.1, cut=0.02, bad_keys=0.0,
)  # fmt: skip


def seen(*verdicts: Verdict, text: str = "<think>so</think><answer>1</answer>", stop: Stop = Stop.STOP) -> Judged:
    rollout = Rollout((1,), (2, 3, 4), np.zeros(3, np.float32), text, stop, 0)
    group = Group(Problem("p", "t", "p?", "1", 1), (rollout,) * len(verdicts))
    return Judged(group, tuple(Score(None, verdict, {"format": 1.0}) for verdict in verdicts))


def test_figures_are_those_of_the_rollouts() -> None:
    told = probe([seen(P, W, W, W), seen(W, W, U, W)], [P, W], "answer")
    assert (told.problems, told.samples) == (2, 4)
    assert told.pass_1.value == 1 / 8 and told.pass_k.value == 0.5
    assert told.spread.value == 0.5, "fewer rollouts than a group: they are the group"
    assert told.mean_tokens.value == 3 and told.format_rate.value == 1.0
    assert told.answered == 1.0 and told.unreadable == 1 / 8 and told.bad_keys == 0.5 and told.cut == 0.0


def test_what_gives_no_answer_is_not_held_against_the_check() -> None:
    told = probe([seen(U, U, text="<think>and on", stop=Stop.LENGTH), seen(W, P)], [P], "answer")
    assert told.answered == 0.5 and told.unreadable == 0.0 and told.cut == 0.5


def test_a_task_that_reads_replies_is_answered_by_any_reply() -> None:
    assert probe([seen(U, U, text="plainly so")], [P], "answer").answered == 0.0
    assert probe([seen(U, U, text="plainly so")], [P], "reply").answered == 1.0


def test_spread_is_that_of_groups_as_training_has_them() -> None:
    """One pass in 64: a group of 16 meets it one time in four."""
    told = probe([seen(P, *[W] * 63)], [P], "answer")
    assert told.spread.value == pytest.approx(16 / 64)


@pytest.mark.parametrize(
    ("change", "outcome", "says"),
    [
        ({}, Outcome.READY, "50% of groups of 16 divide"),
        ({"bad_keys": 0.02}, Outcome.BROKEN, "2% of its own answer keys"),
        ({"unreadable": 0.97, "pass_k": sure(0.0)}, Outcome.BROKEN, "cannot read 97%"),
        ({"unreadable": 0.97, "pass_k": sure(0.3)}, Outcome.BROKEN, "cannot read 97%"),
        ({"pass_k": sure(0.03), "pass_1": sure(0.001)}, Outcome.DISTIL, "pass@64 is 3.0%"),
        ({"pass_k": sure(0.0), "answered": 0.02, "unreadable": 1.0}, Outcome.DISTIL, "98% of rollouts give no answer"),
        ({"pass_k": sure(0.0), "answered": 0.0, "cut": 0.8}, Outcome.DISTIL, "80% of rollouts were cut off"),
        ({"pass_1": sure(0.95), "spread": sure(0.2)}, Outcome.EASY, "pass@1 is 95%"),
        ({"pass_1": sure(1.0), "spread": sure(0.0)}, Outcome.EASY, "pass@1 is 100%"),
        ({"pass_1": sure(0.004), "pass_k": sure(0.1), "spread": sure(0.05)}, Outcome.THIN, "only 5.0%"),
        ({"pass_1": sure(0.5), "pass_k": sure(0.5), "spread": sure(0.0)}, Outcome.THIN, "only 0.0%"),
    ],
)
def test_the_verdict_follows_from_what_was_seen(change: dict[str, object], outcome: Outcome, says: str) -> None:
    said = diagnose(replace(GOOD, **change))  # type: ignore[arg-type]
    assert said.outcome is outcome and says in said.why and said.advice


def test_every_outcome_has_an_exit_code_of_its_own_and_none_that_means_an_error() -> None:
    assert EXIT_CODES.keys() == set(Outcome) and len(set(EXIT_CODES.values())) == len(Outcome)
    assert EXIT_CODES[Outcome.READY] == 0 and not {1, 2, 3, 4, 130} & set(EXIT_CODES.values())
