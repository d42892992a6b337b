"""Scores keep their parts; a check, a function or a judge that fails is never a reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seekling.config import Source, parse
from seekling.errors import UserError
from seekling.records import Group, Problem, Rollout, Score, Stop, Verdict
from seekling.rewards.criteria import Language
from seekling.rewards.given import Failed, Given, Tally
from seekling.rewards.rubric import Outside, Rubric, answer_of, content_hash, score_groups

PROBLEM = Problem(id="0", task="t", prompt="1+1", answer="2", size=2)
WELL, PLAIN, NOTHING = "<think>so</think><answer>2</answer>", "so <answer>2</answer>", "so 2"


def group_of(*texts: str, tokens: Sequence[int] = ()) -> Group:
    lengths = tokens or [3] * len(texts)
    said = zip(texts, lengths, strict=True)
    return Group(
        PROBLEM, tuple(Rollout((1,), (2,) * num, np.zeros(num, np.float32), text, Stop.STOP, 0) for text, num in said)
    )


def scored(text: str, verdict: Verdict, rubric: Rubric) -> Score:
    return score_groups([group_of(text)], [[verdict]], rubric)[0][0]


class Told(Outside):
    """What somebody outside gives, by part, for one group."""

    def __init__(self, **rows: Sequence[Given]) -> None:
        self.rows = rows

    def given(self, groups: Sequence[Group]) -> list[list[dict[str, Given]]]:
        return [[{name: row[at] for name, row in self.rows.items()} for at in range(len(groups[0].rollouts))]]


@pytest.mark.parametrize(
    ("text", "verdict", "accuracy", "form"),
    [
        (WELL, Verdict.PASS, 1.0, 1.0),
        (PLAIN, Verdict.PASS, 1.0, 0.0),
        (WELL, Verdict.WRONG, 0.0, 1.0),
        (NOTHING, Verdict.UNPARSED, 0.0, 0.0),
        (WELL, Verdict.TIMEOUT, 0.0, 1.0),
    ],
)
def test_a_reward_is_the_weighted_sum_of_its_parts(text: str, verdict: Verdict, accuracy: float, form: float) -> None:
    found = scored(text, verdict, Rubric(accuracy=1.0, format=0.25))
    assert found.verdict is verdict
    assert found.parts == {"accuracy": accuracy, "format": form, "fresh": 1.0}
    assert found.reward == accuracy + 0.25 * form


@pytest.mark.parametrize(
    ("thinking", "fresh"),
    [("", 1.0), ("1+1=2", 1.0), ("1+1=2\nagain\n1+1=2", 0.0), ("a\n\nb\n \nc", 1.0), ("a\nb\nb", 0.0)],
)
def test_a_line_worked_twice_alike_is_not_fresh(thinking: str, fresh: float) -> None:
    found = scored(f"<think>{thinking}</think><answer>2</answer>", Verdict.PASS, Rubric(accuracy=0.5, fresh=0.5))
    assert found.parts["fresh"] == pytest.approx(fresh)
    assert found.reward == pytest.approx(0.5 + 0.5 * fresh)


def test_a_check_that_could_not_judge_leaves_the_reward_open() -> None:
    found = scored(WELL, Verdict.INFRA_ERROR, Rubric(format=1.0))
    assert found.reward is None and found.verdict is Verdict.INFRA_ERROR


def test_every_criterion_that_is_weighed_shows_as_a_part() -> None:
    rubric = parse(
        Rubric,
        {"language": 0.1, "length": 0.2, "overlong": {"weight": 0.5, "max_tokens": 10}, "repetition": 1},
    )
    short, long = score_groups(
        [group_of(WELL, WELL, tokens=[2, 10])], [[Verdict.PASS, Verdict.PASS]], rubric
    )[0]  # fmt: skip
    assert short.parts == {
        "accuracy": 1, "format": 1, "fresh": 1, "language": 1, "length": 0.5, "overlong": 0, "repetition": 0
    }  # fmt: skip
    assert long.parts["length"] == -0.5 and long.parts["overlong"] == -1
    assert short.reward == pytest.approx(1 + 0.1 + 0.1) and long.reward == pytest.approx(1 + 0.1 - 0.1 - 0.5)


def test_a_language_that_no_problem_tells_is_left_out_of_the_sum() -> None:
    rubric = Rubric(language=Language(weight=0.5, target="prompt"))
    group = group_of(WELL)
    silent = score_groups([group], [[Verdict.PASS]], rubric)[0][0]
    assert "language" not in silent.parts and silent.reward == 1.0
    told = replace(group, problem=replace(group.problem, info={"language": "zh"}))
    assert score_groups([told], [[Verdict.PASS]], rubric)[0][0].parts["language"] == 0.0


def test_what_is_outside_joins_the_sum_and_what_does_not_apply_is_left_out_of_it() -> None:
    rubric = parse(Rubric, {"accuracy": 1.0, "./r.py:f": 0.5})
    row = score_groups(
        [group_of(WELL, WELL)], [[Verdict.PASS, Verdict.PASS]], rubric, outside=Told(**{"./r.py:f": [0.5, None]})
    )[0]
    assert [score.reward for score in row] == [1.25, 1.0]
    assert "./r.py:f" not in row[1].parts


def test_what_fails_outside_leaves_that_reward_open_and_no_other() -> None:
    rubric = parse(Rubric, {"accuracy": 1.0, "./r.py:f": 0.5})
    row = score_groups(
        [group_of(WELL, WELL)], [[Verdict.PASS] * 2], rubric, outside=Told(**{"./r.py:f": [Failed("it broke"), 1.0]})
    )[0]
    assert [score.reward for score in row] == [None, 1.5]
    assert row[0].verdict is Verdict.INFRA_ERROR and row[0].parts["accuracy"] == 1.0


def test_a_rollout_to_which_nothing_applies_has_no_reward_rather_than_zero() -> None:
    rubric = parse(Rubric, {"accuracy": 0.0, "./r.py:f": 1.0})
    row = score_groups([group_of(WELL)], [[Verdict.PASS]], rubric, outside=Told(**{"./r.py:f": [None]}))[0]
    assert row[0].reward is None


def test_a_key_with_a_colon_is_a_function_and_any_other_unknown_key_is_not() -> None:
    rubric = parse(Rubric, {"./rewards.py:brief": 0.3, "mine.rewards:kind": {"weight": 0.1, "reads": "messages"}})
    weights = rubric.weights()
    assert (weights["./rewards.py:brief"], weights["mine.rewards:kind"]) == (0.3, 0.1)
    assert rubric == parse(Rubric, rubric.model_dump(mode="json"))
    with pytest.raises(UserError, match=r'unknown setting "acuracy"\n.*\nDid you mean "accuracy"'):
        parse(Rubric, {"acuracy": 1.0}, source=Source())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"accuracy": -1}, "greater than or equal to 0"),
        ({"accuracy": 0}, "nothing is weighed"),
        ({"judge": 0.5}, 'a judge needs a table: { weight = 0.5, model = "...", url = "..." }'),
        ({"overlong": 0.5}, "needs max_tokens"),
        ({"overlong": {"weight": 1, "max_tokens": 8, "buffer": 9}}, "buffer cannot be longer"),
        ({"length": {"weight": 1, "shape": "cosine"}}, "needs max_tokens"),
        ({"functions": {"brief": 1}}, 'write "./file.py:brief"'),
        ({"language": {"weight": 1, "target": "fr"}}, "'en', 'zh' or 'prompt'"),
        ({"judge": {"weight": 1, "model": "m", "most_usd": 1}}, "needs usd_per_million"),
        ({"format": "much"}, "valid number"),
    ],
)
def test_a_rubric_that_cannot_be_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse(Rubric, values)


def test_a_changed_function_file_changes_the_fingerprint(tmp_path: Path) -> None:
    file = tmp_path / "rewards.py"
    rubric = parse(Rubric, {f"{file}:brief": 0.3})
    with pytest.raises(UserError, match="there is no file"):
        content_hash(rubric)
    file.write_text("def brief(problem, text): return 1.0")
    before = content_hash(rubric)
    file.write_text("def brief(problem, text): return 0.0")
    assert before and before != content_hash(rubric)
    assert content_hash(Rubric()) is None


def test_what_a_check_is_asked_about_is_the_answer_or_the_reply() -> None:
    assert answer_of(WELL) == "2" and answer_of(NOTHING) is None
    assert answer_of("<think>so</think> it is 2 ", "reply") == "it is 2" and answer_of("<think>2", "reply") is None


def test_a_tally_lets_one_failure_pass_and_stops_above_one_in_a_hundred() -> None:
    tally, group = Tally("the judge", "Look."), group_of("a", "b")
    tally.check([group], [[Failed("away"), 1.0]])
    tally.check([group_of(*"x" * 298)], [[1.0] * 298])
    tally.check([group], [[Failed("away"), Failed("gone")]])
    with pytest.raises(UserError, match="the judge fails on 4 of 304 rollouts: gone") as caught:
        tally.check([group], [[None, Failed("gone")]])
    assert "text 'b'" in caught.value.where and "the same command goes on" in caught.value.next_step
