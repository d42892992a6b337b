"""Metrics sent on to a tracker: all of them, once, under names that are known; and nothing that it does harms a run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seekling.errors import UserError
from seekling.records import StepRecord
from seekling.report import track
from seekling.report.track import metrics_of, send
from seekling.runlog.files import locked, write_json
from seekling.runlog.run import MetricLog, Run


class Tracker:
    """A library of the shape that trackio and wandb share."""

    def __init__(self) -> None:
        self.begun: dict[str, Any] = {}
        self.told: list[tuple[int, dict[str, float]]] = []
        self.has_finished = False

    def init(self, **about: Any) -> None:
        self.begun = about

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.told.append((step, metrics))

    def finish(self) -> None:
        self.has_finished = True


def record(step: int, **metrics: Any) -> StepRecord:
    return StepRecord(step, 0, 1.5, 100, 1e9, metrics)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of two stages of two and three steps."""
    folders = ["base-11111111", "zero-22222222"]
    for folder, count in zip(folders, (2, 3), strict=True):
        (tmp_path / "demo" / folder).mkdir(parents=True)
        write_json(tmp_path / "demo" / folder / "stage.json", {"name": folder[:4], "state": "done"})
        log = MetricLog(tmp_path / "demo" / folder)
        for step in range(count):
            log.write(record(step, reward=0.25 * step, frac_zero_spread=0.5))
        log.close()
    write_json(tmp_path / "demo/run.json", {"created": 0, "stages": folders, "sessions": []})
    return Run(tmp_path / "demo")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Tracker:
    fake = Tracker()
    monkeypatch.setitem(sys.modules, "trackio", fake)  # type: ignore[arg-type]
    return fake


def test_every_step_of_every_stage_is_sent_once_under_a_step_that_only_rises(run: Run, library: Tracker) -> None:
    assert send(run, "trackio", "mine", follow=False) == 5
    assert [step for step, _ in library.told] == [0, 1, 2, 3, 4]
    assert library.told[0][1]["base/reward"] == 0.0 and library.told[4][1]["zero/reward"] == 0.5
    assert library.begun["project"] == "mine" and library.begun["name"] == "demo" and library.has_finished


def test_figures_bear_the_names_that_trls_users_know() -> None:
    told = metrics_of(record(0, frac_zero_spread=0.5, response_length=7.0, clip_ratio=0.1, entropy=2.0), "zero")
    assert told["zero/frac_reward_zero_std"] == 0.5 and told["zero/completions/mean_length"] == 7.0
    assert told["zero/clip_ratio/region_mean"] == 0.1 and told["zero/entropy"] == 2.0
    assert told["zero/num_tokens"] == 100 and told["zero/step_time"] == 1.5


def test_what_is_no_number_is_left_out() -> None:
    told = metrics_of(record(0, reward=1.0, expert_load={"0": [0.5]}, is_any=True), "zero")
    assert set(told) == {"zero/reward", "zero/num_tokens", "zero/step_time"}


def test_a_run_at_work_is_followed_until_it_ends(run: Run, library: Tracker) -> None:
    """What it writes before it ends is sent too, and nothing twice."""
    working = locked(run.folder)
    working.__enter__()
    log = MetricLog(run.folder / "zero-22222222")

    def meanwhile(_: float) -> None:
        log.write(record(3, reward=0.75))
        log.close()
        working.__exit__(None, None, None)

    assert send(run, "trackio", "mine", follow=True, wait=meanwhile) == 6
    assert [metrics.get("zero/reward") for _, metrics in library.told[2:]] == [0.0, 0.25, 0.5, 0.75]


def test_a_tracker_that_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="wandb is not installed") as told:
        send(run, "wandb", "mine", follow=False)
    assert told.value.next_step == "pip install wandb"


def test_a_tracker_that_nobody_knows_is_refused(run: Run) -> None:
    with pytest.raises(UserError, match='no tracker "mlflow"'):
        send(run, "mlflow", "mine", follow=False)


def test_a_tracker_that_fails_says_why_and_harms_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for file in run.folder.rglob("*") if file.is_file()}

    def broken(**_: Any) -> None:
        raise ConnectionError("no route to it")

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=broken))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="trackio failed after 0 steps: ConnectionError: no route to it"):
        send(run, "trackio", "mine", follow=False)
    assert before == {file: file.read_bytes() for file in run.folder.rglob("*") if file.is_file()}


def test_only_libraries_that_are_asked_for_are_imported() -> None:
    assert track.TRACKERS == ("trackio", "wandb") and "trackio" not in sys.modules
