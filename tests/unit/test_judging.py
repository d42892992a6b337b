"""From rollouts to scores through the one place that judges, and when it refuses to go on."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from seekling.errors import UserError
from seekling.evals.judging import Judge
from seekling.records import Group, Problem, Rollout, Stop, Verdict
from seekling.rewards.rubric import Rubric

MOODY = """
from seekling import Problem, Verdict
from seekling.tasks.protocol import identity

class Moody:
    name = "moody"
    reads = "{reads}"

    def draw(self, rng, size=None):
        number = str(rng.randint(0, 10**6))
        return Problem(identity(number), self.name, number, number, 1)

    def check(self, problem, answer):
        if answer.startswith("bad"):
            raise KeyError("no such unit")
        return Verdict.PASS if problem.answer in answer else Verdict.WRONG
"""


def moody(folder: Path, reads: str = "answer") -> Judge:
    file = folder / "moody.py"
    file.write_text(MOODY.format(reads=reads))
    return Judge(f"{file}:Moody", Rubric(accuracy=1.0, format=0.5), size=2)


def group_of(problem: Problem, *texts: str) -> Group:
    return Group(problem, tuple(Rollout((1,), (2, 3), np.zeros(2, np.float32), text, Stop.STOP, 0) for text in texts))


def answered(*answers: str) -> list[str]:
    return [f"<think>so</think><answer>{answer}</answer>" for answer in answers]


def test_a_rollout_is_read_checked_and_weighed() -> None:
    judge = Judge("arithmetic", Rubric(accuracy=1.0, format=0.5))
    problem = judge.task.draw(Random(0))
    right, wrong, bare = f"<answer>{problem.answer}</answer>", *answered("1000"), "nothing"
    scores = judge.scores([group_of(problem, right, wrong), group_of(problem, bare)])
    assert [[s.reward for s in row] for row in scores] == [[1.0, 0.5], [0.0]]
    assert [s.verdict for row in scores for s in row] == [Verdict.PASS, Verdict.WRONG, Verdict.UNPARSED]
    assert [j.num_passed for j in judge.judged([group_of(problem, right, wrong)])] == [1]


def test_a_check_that_fails_once_leaves_one_reward_open_and_the_run_goes_on(tmp_path: Path) -> None:
    judge = moody(tmp_path)
    problem = judge.task.draw(Random(0))
    row = judge.scores([group_of(problem, *answered("bad", problem.answer, "7"))])[0]
    assert [score.reward for score in row] == [None, 1.5, 0.5]
    judge.close()


def test_above_one_check_in_a_hundred_the_run_stops_in_the_check_s_own_words(tmp_path: Path) -> None:
    judge = moody(tmp_path)
    problem = judge.task.draw(Random(0))
    judge.scores([group_of(problem, *answered("bad", *map(str, range(399))))])
    judge.scores([group_of(problem, *answered("bad1", "bad2", "bad3"))])
    with pytest.raises(UserError, match="fails on 5 of 404 rollouts: KeyError: 'no such unit'") as caught:
        judge.scores([group_of(problem, *answered("bad4"))])
    assert "bad4" in caught.value.where
    judge.close()


def test_a_task_that_reads_the_reply_is_given_all_that_is_outside_the_thinking(tmp_path: Path) -> None:
    judge = moody(tmp_path, reads="reply")
    problem = judge.task.draw(Random(0))
    texts = [f"it is {problem.answer}", f"<think>{problem.answer}</think>never", f"<think>{problem.answer}", ""]
    verdicts = [score.verdict for score in judge.scores([group_of(problem, *texts)])[0]]
    assert verdicts == [Verdict.PASS, Verdict.WRONG, Verdict.UNPARSED, Verdict.UNPARSED]
    judge.close()
