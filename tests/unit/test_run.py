"""The run directory: sessions, stages by the manifest last run, metrics once per step, the journal."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from seekling.errors import UserError
from seekling.records import StepRecord
from seekling.runlog import files
from seekling.runlog.files import Lines, write_json
from seekling.runlog.run import (
    Journal,
    MetricLog,
    Run,
    StageFolder,
    delete_folder,
    folder_bytes,
    list_runs,
    stale_stages,
)


def facts(*stages: str) -> dict[str, object]:
    return {"run": {"version": "1", "stages": list(stages)}, "session": {"threads": 1}}


def begun(run: Run, folder: str, index: int, started: float) -> StageFolder:
    stage = StageFolder(run.folder / folder)
    stage.folder.mkdir(parents=True, exist_ok=True)
    stage.write(name=folder.rpartition("-")[0], index=index, started=started, state="done")
    return stage


def test_every_process_is_a_session_and_the_first_day_stays(tmp_path: Path) -> None:
    run = Run(tmp_path / "toy")
    assert [run.open_session("a = 1", facts("base-1")) for _ in range(3)] == [0, 1, 2]
    written = run.facts()
    assert written["name"] == "toy" and written["created"] == written["sessions"][0]["started"]
    assert [s["session"] for s in written["sessions"]] == [0, 1, 2]
    run.open_session("a = 2", facts("base-2"))
    assert run.facts()["created"] == written["created"] and run.folders() == ["base-2"]
    assert (run.folder / "manifest.toml").read_text() == "a = 2"


def test_a_stage_is_that_of_the_manifest_last_run_even_when_a_newer_one_stands_beside(tmp_path: Path) -> None:
    run = Run(tmp_path / "toy")
    run.open_session("", facts("base-1", "zero-1"))
    begun(run, "base-1", 0, 1.0)
    begun(run, "base-2", 0, 9.0)
    begun(run, "old-9", 5, 2.0)
    assert [s.folder.name for s in run.current()] == ["base-1"], "zero-1 has not begun"
    assert run.stage("base").folder.name == "base-1"
    assert {p.name for p in stale_stages(run)} == {"base-2", "old-9"}
    with pytest.raises(UserError, match='did you mean "base"'):
        run.stage("bass")


def test_a_run_from_before_its_stages_were_listed_is_still_read(tmp_path: Path) -> None:
    run = Run(tmp_path / "toy")
    write_json(run.folder / "run.json", {"name": "toy", "created": "", "sessions": []})
    begun(run, "base-1", 0, 1.0)
    assert run.folders() == ["base-1"] and not stale_stages(run)


def test_a_checksum_speaks_of_all_weights_and_of_nothing_else(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "base-1")
    assert stage.weights() == ""
    stage.model.mkdir(parents=True)
    (stage.model / "a.safetensors").write_bytes(b"one")
    (stage.model / "b.safetensors").write_bytes(b"two")
    before = stage.weights()
    (stage.model / "config.json").write_text("{}")
    assert stage.weights() == before and len(before) == 64
    (stage.model / "b.safetensors").write_bytes(b"twO")
    assert stage.weights() != before


def test_facts_are_merged_and_a_stage_that_has_not_begun_has_none(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "base-1")
    assert stage.facts() == {} and not stage.is_done()
    stage.write(state="running", a=1)
    stage.write(state="gate_missed")
    assert stage.facts() == {"state": "gate_missed", "a": 1} and stage.is_done()


def test_metrics_hold_one_record_per_step_the_last_execution(tmp_path: Path) -> None:
    log = MetricLog(tmp_path)
    for step, session in ((0, 0), (1, 0), (2, 0), (1, 1), (2, 1)):
        log.write(StepRecord(step, session, 0.1, 5, 1.0, {"loss": float(session)}))
    log.close()
    records = StageFolder(tmp_path).metrics()
    assert [(r.step, r.session) for r in records] == [(0, 0), (1, 1), (2, 1)]


def test_the_journal_recalls_what_an_earlier_session_wrote(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(0, {"groups": [1]})
    journal.write(1, {"groups": [2]})
    assert journal.recall(1) is None, "this session's own lines are not replayed"
    journal.close()
    with (tmp_path / "rollouts.jsonl").open("a") as handle:
        handle.write('{"step": 2, "gro')
    again = Journal(tmp_path)
    assert again.recall(1) == {"step": 1, "groups": [2]} and again.recall(2) is None
    again.write(2, {"groups": [3]})
    again.close()
    last = Journal(tmp_path)
    assert last.recall(2) == {"step": 2, "groups": [3]}
    last.close()


def test_a_long_journal_stays_on_the_disk(tmp_path: Path) -> None:
    """A step's line may be megabytes; what is held of it is where it begins."""
    journal, blob = Journal(tmp_path), "x" * 2**20
    for step in range(32):
        journal.write(step, {"groups": [step, blob]})
    journal.close()
    tracemalloc.start()
    again = Journal(tmp_path)
    held, peak = tracemalloc.get_traced_memory()
    recalled = again.recall(17)
    tracemalloc.stop()
    again.close()
    assert held < 2**20 and peak < 8 * 2**20
    assert recalled is not None and recalled["groups"] == [17, blob]


def test_of_a_step_journaled_twice_the_last_counts_in_any_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step, said in ((3, "a"), (1, "b"), (3, "c"), (2, "ü")):
        journal.write(step, {"groups": [said]})
    journal.close()
    with (tmp_path / "rollouts.jsonl").open("a") as handle:
        handle.write('{"step":[1]}\n{"groups":[]}\n')
    again = Journal(tmp_path)
    found = [again.recall(step) for step in (1, 2, 3, 4)]
    again.close()
    assert [line and line["groups"] for line in found] == [["b"], ["ü"], ["c"], None]


def test_metrics_outlive_the_checkpoint_that_speaks_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, waited = MetricLog(tmp_path), list[int]()
    monkeypatch.setattr(files.os, "fsync", waited.append)
    log.write(StepRecord(0, 0, 0.1, 5, 1.0, {}))
    assert not waited, "a step does not wait for the disk"
    log.sync()
    assert len(waited) == 1
    log.close()


def test_runs_are_listed_oldest_first_and_measured(tmp_path: Path) -> None:
    for name, created in (("b", "2031-01-01"), ("a", "2031-01-02")):
        write_json(tmp_path / name / "run.json", {"name": name, "created": created, "sessions": []})
    assert [run.folder.name for run in list_runs(tmp_path)] == ["b", "a"]
    assert list(list_runs(tmp_path / "none")) == []
    lines = Lines(tmp_path / "b" / "x" / "y.jsonl")
    before = folder_bytes(tmp_path / "b")
    lines.append({"a": 1})
    assert folder_bytes(tmp_path / "b") == before + len('{"a":1}\n')
    lines.close()
    delete_folder(tmp_path / "b")
    assert not (tmp_path / "b").exists()
