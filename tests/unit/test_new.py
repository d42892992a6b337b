"""Starts for a task of one's own: each is sound as it is written, and nothing is ever written over."""

from __future__ import annotations

from pathlib import Path
from random import Random
from statistics import mean

import pytest

from seekling.errors import UserError
from seekling.evals.controls import blind_pass
from seekling.recipes.manifest import load_manifest
from seekling.records import Problem, Verdict
from seekling.selftests.tasks import of_key, of_split
from seekling.tasks.checking import Checker
from seekling.tasks.new import STARTS, write_start
from seekling.tasks.protocol import Auditable, Guessable, Traceable
from seekling.tasks.registry import build_task
from seekling.text.reasoning import split
from seekling.workers.strangers import found


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_start_of_a_class_is_a_task_with_everything_a_task_can_have() -> None:
    write_start(Path(), "task")
    task = build_task("./my_task.py:MyTask")
    assert isinstance(task, Traceable) and isinstance(task, Guessable) and isinstance(task, Auditable)
    assert all(test.passed for test in of_key(task, Checker(task))) and of_split(task).passed
    assert [stage.kind for stage in load_manifest("train.toml").stages] == ["pretrain", "grpo", "eval", "eval"]


def test_its_traces_are_as_good_as_their_quality_says_and_guessing_does_not_solve_it() -> None:
    write_start(Path(), "task")
    task = build_task("./my_task.py:MyTask")
    passed = dict.fromkeys(task.qualities, 0)
    for seed in range(200):
        problem = task.draw(Random(seed), 3 + seed % 4)
        for quality in task.qualities:
            told = split(task.trace(problem, Random(seed), quality))
            assert told.well_formed and told.answer is not None
            is_right = task.check(problem, told.answer) is Verdict.PASS
            passed[quality] += is_right
            assert quality != "expert" or (is_right and task.hits(problem, told.thinking))
        assert all(task.check(problem, said) is Verdict.PASS for said in task.others(problem, Random(seed)))
        assert not [said for said in task.traps(problem, Random(seed)) if task.check(problem, said) is Verdict.PASS]
    assert passed["expert"] == 200 and passed["guess"] < 30
    asked = [task.draw(Random(f"{seed}")) for seed in range(64)]
    assert mean(blind_pass(task, asked, 8)) < 0.35


def test_the_start_of_a_list_is_a_list_and_its_manifest_names_it_alike_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_start(Path(), "file")
    monkeypatch.setattr("seekling.recipes.manifest.identity", lambda model, revision: {"commit": "0" * 40})
    stages = load_manifest("train.toml").stages
    tables = [stage.task for stage in stages if hasattr(stage, "task")]
    assert len(tables) == 3 and all(table == tables[0] for table in tables)
    task = build_task(tables[0])
    assert len(task.listed("train")) > 30 and len(task.listed("held_out")) >= 3
    assert all(test.passed for test in of_key(task, Checker(task)))


def test_the_start_of_a_reward_has_both_signatures() -> None:
    write_start(Path(), "reward")
    problem = Problem("1", "t", "q", "a", 1)
    assert found("./rewards.py:brief")(problem, "x" * 200) == 0.5
    assert found("./rewards.py:polite")(completions=["Please.", "No.", " "], answer=["a"] * 3, size=[1] * 3) == [
        1,
        0,
        None,
    ]


def test_nothing_is_written_over_and_nothing_is_written_by_half(here: Path) -> None:
    (here / "train.toml").write_text("mine")
    with pytest.raises(UserError, match=r"train.toml is there already"):
        write_start(Path(), "task")
    assert [file.name for file in here.iterdir()] == ["train.toml"] and (here / "train.toml").read_text() == "mine"
    with pytest.raises(UserError, match="is no folder"):
        write_start(Path("train.toml"), "reward")
    with pytest.raises(UserError, match='no start called "class"'):
        write_start(Path("new"), "class")
    assert write_start(Path("new/deep"), "reward") == [Path("new/deep/rewards.py")]


def test_every_file_of_a_start_is_used_and_there() -> None:
    starts = Path(__file__).parents[2] / "src/seekling/tasks/starts"
    kept = {file.name for file in starts.iterdir() if file.is_file()} - {"__init__.py"}
    assert kept == {source for files in STARTS.values() for source in files.values()}


def test_a_changed_reward_changes_the_stages_it_pays_and_no_other(here: Path) -> None:
    write_start(Path(), "task")
    write_start(Path(), "reward")
    text = Path("train.toml").read_text()
    Path("train.toml").write_text(text.replace("format = 0.1 }", 'format = 0.1, "./rewards.py:brief" = 0.1 }'))
    before = load_manifest("train.toml").fingerprints
    with Path("rewards.py").open("a") as handle:
        handle.write("# changed\n")
    after = load_manifest("train.toml").fingerprints
    assert {name for name in before if before[name] != after[name]} == {"zero", "zero-eval"}
