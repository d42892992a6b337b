"""A chain as processes: budgets and evaluations of many models survive a kill to the bit; what is gone is a letter."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from seekling.runlog.files import read_json
from seekling.runlog.run import Run
from tests.conftest import fresh_toy
from tests.e2e.forks import Forks, Misfortune
from tests.e2e.runs import assert_same_result, copied, only, stage

COMMAND = ["run", "toy.toml", "base.budget.tokens=2500", "base.checkpoint_every=2"]
RUN = Path("runs/toy")
TAX = """
[[stage]]
name = "tax"
kind = "eval"
from = ["base", "tuned"]
task = "arithmetic"
also = ["letters"]
problems = 4
samples = 2
sampling = { max_tokens = 8 }
rubric = { accuracy = 1.0, fresh = 0.1 }
gate = { "tuned/letters/pass@1" = { max = 1.0 } }
"""


def chain(folder: Path) -> Path:
    """The toy's base and tuned model, and one stage that evaluates both on two tasks."""
    only(fresh_toy(folder), "base", "tuned")
    with (folder / "toy.toml").open("a") as handle:
        handle.write(TAX)
    return folder


@pytest.fixture(scope="module")
def finished(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an uninterrupted run."""
    folder = chain(tmp_path_factory.mktemp("finished") / "toy")
    ended = forks.run(COMMAND, folder)
    assert ended.code == 0 and "its budget is used up after" in ended.said, ended.said
    return folder


def test_a_budget_ends_a_stage_that_leaves_its_model_all_the_same(finished: Path) -> None:
    base = stage(finished / RUN, "base")
    records, ended = base.metrics(), base.facts()["ended"]
    assert sum(r.tokens for r in records) >= 2500 > sum(r.tokens for r in records[:-1])
    assert ended["steps"] == len(records) < ended["of"] == 40 and (base.model / "model.safetensors").exists()


def test_every_model_is_asked_every_task_and_figures_say_of_whom_and_what(finished: Path) -> None:
    tax = stage(finished / RUN, "tax")
    told = read_json(tax.folder / "eval.json")["evaluations"]
    pairs = [(one["model"], one["label"]) for one in told]
    assert pairs == [(model, task) for model in ("base", "tuned") for task in ("arithmetic", "letters")]
    assert all(one["problems"] == 4 and one["criteria"].keys() == {"fresh"} for one in told)
    names = {"/".join((*pair, "pass@1")) for pair in pairs}
    assert names < tax.facts()["figures"].keys() and tax.facts()["state"] == "done", "a gate may name one of them"
    assert 'id="tax"' in (finished / RUN / "report.html").read_text()


def test_an_evaluation_killed_between_two_tasks_goes_on_with_the_second_and_samples_nothing_twice(
    forks: Forks, finished: Path, tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path / "toy")
    shutil.rmtree(stage(folder / RUN, "tax").folder)
    assert forks.run(COMMAND, folder, Misfortune("eval", 4)).code == -signal.SIGKILL
    again = forks.run(COMMAND, folder)
    assert again.code == 0 and again.counts["eval"] == 1, again.said
    assert_same_result(folder / RUN, finished / RUN)


def test_a_stage_that_goes_on_from_a_checkpoint_ends_its_budget_at_the_same_step_with_the_same_weights(
    forks: Forks, finished: Path, tmp_path: Path
) -> None:
    """As if killed in its last step and its newest checkpoint damaged: its log knows steps that it does again."""
    folder = copied(finished, tmp_path / "toy")
    ours, theirs = (stage(root / RUN, "base") for root in (folder, finished))
    assert [place.name for place in sorted((ours.folder / "checkpoints").glob("step-*"))] == [
        "step-0000002",
        "step-0000004",
    ]
    shutil.rmtree(ours.folder / "checkpoints/step-0000004")
    shutil.rmtree(ours.model)
    ours.write(state="running", ended={})
    again = forks.run(COMMAND, folder)
    assert again.code == 0 and again.counts["step"] == 3, again.said
    assert_same_result(folder / RUN, finished / RUN)
    assert ours.left() == theirs.left() and [s.facts()["ended"]["steps"] for s in (ours, theirs)] == [5, 5]


def test_a_model_that_is_gone_is_made_again_by_the_command_that_the_letter_names(
    forks: Forks, finished: Path, tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path / "toy")
    shutil.rmtree(stage(folder / RUN, "tuned").model)
    asked = [*COMMAND, "tax.samples=3"]
    refused = forks.run(asked, folder)
    assert refused.code == 2 and 'stage "tax" reads what stage "tuned" left, and it is gone' in refused.err
    command = refused.err.split("seekling ")[-1].split()
    assert command == ["run", "runs/toy", "--again", "tuned"]
    made = forks.run([*asked, "--again", "tuned"], folder)
    assert made.code == 0 and made.counts.get("step", 0) == 0, "from its last checkpoint, where all steps are done"
    for name in Run(finished / RUN).folders()[:2]:
        ours, theirs = (root / RUN / name / "model/model.safetensors" for root in (folder, finished))
        assert ours.read_bytes() == theirs.read_bytes()
