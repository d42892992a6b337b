"""Rollouts and scores survive the journal exactly, and what does not fit is a letter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.recipes.journal import recall, remember
from seekling.records import Group, Problem, Rollout, Score, Stop, Verdict
from seekling.runlog.run import Journal

PROBLEM = Problem(id="1+2", task="sums", prompt="1+2", answer="3", size=2)

logps = st.lists(st.floats(width=32), min_size=1, max_size=5)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
scores = st.builds(
    Score,
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(Verdict),
    st.dictionaries(texts, st.floats(0, 1), max_size=2),
)


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    said, prompt = draw(logps), draw(st.lists(st.integers(0, 2**31), min_size=1, max_size=3))
    shape = (len(prompt) + len(said) - 1, 2, 2)
    routes = np.array(draw(st.lists(st.integers(0, 255), min_size=1, max_size=9)), np.int16)
    return Rollout(
        prompt=tuple(prompt),
        tokens=tuple(range(len(said))),
        logps=np.array(said, np.float32),
        text=draw(texts),
        stop=draw(st.sampled_from(Stop)),
        seed=draw(st.integers(0, 2**63 - 1)),
        routes=draw(st.none() | st.just(np.resize(routes, shape))),
    )


@given(st.lists(st.tuples(rollouts(), scores), min_size=1, max_size=3))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_journaled_step_comes_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[Rollout, Score]]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    group, row = Group(PROBLEM, tuple(r for r, _ in drawn)), [s for _, s in drawn]
    journal = Journal(folder)
    remember(journal, 7, [group], [row])
    journal.close()
    again = Journal(folder)
    found = recall(again, 7, lambda _: [PROBLEM])
    again.close()
    assert found is not None
    groups, told = found
    assert groups == [group] and told == [row]
    for ours, theirs in zip(groups[0].rollouts, group.rollouts, strict=True):
        assert ours.logps.tobytes() == theirs.logps.tobytes() and ours.logps.dtype == np.float32
        assert (ours.routes is None) == (theirs.routes is None)
        if ours.routes is not None and theirs.routes is not None:
            assert ours.routes.dtype == np.int16 and np.array_equal(ours.routes, theirs.routes)


def written(folder: Path) -> Path:
    """A journal with one step in it."""
    rollout = Rollout((1,), (2,), np.zeros(1, np.float32), "x", Stop.STOP, 0)
    journal = Journal(folder)
    remember(journal, 0, [Group(PROBLEM, (rollout,))], [[Score(1.0, Verdict.PASS)]])
    journal.close()
    return folder / "rollouts.jsonl"


def test_a_step_that_was_not_journaled_is_not_recalled(tmp_path: Path) -> None:
    written(tmp_path)
    journal = Journal(tmp_path)
    assert recall(journal, 1, lambda _: [PROBLEM]) is None
    journal.close()


def test_a_step_about_other_problems_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    journal = Journal(tmp_path)
    with pytest.raises(UserError, match="speaks of other problems"):
        recall(journal, 0, lambda _: [Problem(id="2+2", task="sums", prompt="2+2", answer="4", size=2)])
    journal.close()


@pytest.mark.parametrize("harm", [{"groups": 7}, {"groups": None}, {"groups": [{}]}, {}])
def test_a_line_of_another_shape_is_a_letter(tmp_path: Path, harm: dict[str, object]) -> None:
    (tmp_path / "rollouts.jsonl").write_text(json.dumps({"step": 0, **harm}) + "\n")
    journal = Journal(tmp_path)
    with pytest.raises(UserError, match="says of step 0 is damaged"):
        recall(journal, 0, lambda _: [PROBLEM])
    journal.close()


def test_a_rollout_of_another_shape_is_a_letter(tmp_path: Path) -> None:
    file = written(tmp_path)
    for key, value in (("logps", "***"), ("verdict", "fine"), ("stop", 3), ("routes", [[9, 9, 9], ""])):
        line = json.loads(file.read_text())
        line["groups"][0]["rollouts"][0][key] = value
        (tmp_path / key).mkdir()
        (tmp_path / key / "rollouts.jsonl").write_text(json.dumps(line) + "\n")
        journal = Journal(tmp_path / key)
        with pytest.raises(UserError, match="damaged"):
            recall(journal, 0, lambda _: [PROBLEM])
        journal.close()
