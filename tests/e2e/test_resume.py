"""The resume law: stop a run anywhere, give the same command, and it ends as if never stopped, to the bit."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from seekling.runlog.ledger import kept, read_ledger, spent
from seekling.runlog.run import Run
from tests.conftest import fresh_toy
from tests.e2e.forks import Ended, Forks, Misfortune
from tests.e2e.runs import (
    assert_ledger_adds_up,
    assert_same_result,
    assert_whole_lines,
    copied,
    metrics,
    only,
    seconds_of,
    stage,
    work,
)
from tests.fixtures.endpoint import endpoint

SHORT = ["run", "toy.toml", "base.steps=8", "base.checkpoint_every=2"]
"""Pretraining alone: short enough to be killed forty times."""
LONG = ["run", "toy.toml"]
RUN = Path("runs/toy")


@pytest.fixture(scope="module")
def pretrained(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an uninterrupted run of pretraining alone."""
    folder = only(fresh_toy(tmp_path_factory.mktemp("pretrained") / "toy"), "base")
    assert forks.run(SHORT, folder).code == 0
    return folder


@pytest.fixture(scope="module")
def reinforced(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an uninterrupted run of pretraining and reinforcement."""
    folder = only(fresh_toy(tmp_path_factory.mktemp("reinforced") / "toy"), "base", "zero")
    assert forks.run(LONG, folder).code == 0
    return folder


@pytest.fixture(scope="module")
def before_zero(forks: Forks, reinforced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, killed before its first rollout."""
    folder = only(fresh_toy(tmp_path_factory.mktemp("before") / "toy"), "base", "zero")
    assert forks.run(LONG, folder, Misfortune("sample", 1)).code == -signal.SIGKILL
    return folder


@dataclass(frozen=True)
class Point:
    """What befalls a run, and where: at a moment of the disk or the loop, or (``after_s``) whenever a clock says.

    ``what``: kill (SIGKILL), term (SIGTERM), full (the disk, from there on), cut (SIGKILL, and the newest file loses
    its end).
    """

    at: str
    number: int
    how: str = "before"
    after_s: float = 0.0
    what: str = "kill"
    room: int = 0

    def __str__(self) -> str:
        where = f"{self.after_s:.2f}s" if self.after_s else f"{self.how}-{self.at}-{self.number}"
        return f"{self.what}-{where}{f'-{self.room}' if self.room else ''}"

    @property
    def misfortune(self) -> Misfortune:
        if self.what == "full":
            fails = "" if self.room else "ENOSPC"
            return Misfortune(self.at, self.number, room=self.room, fails=fails)
        return Misfortune(self.at, self.number, self.how, signal.SIGTERM if self.what == "term" else signal.SIGKILL)


WHATS = ("kill", "term", "full", "cut")


def points(name: str, moments: dict[str, int], seconds: float, count: int = 40) -> list[object]:
    """``count`` seeded points, what befalls in turn; by default a tenth, one of each."""
    rng = Random(f"kill/{name}")
    made = [_point(WHATS[index % len(WHATS)], rng, moments, seconds) for index in range(count)]
    tenth = {place + len(WHATS) * rng.randrange(count // len(WHATS)) for place in range(len(WHATS))}
    return [
        pytest.param(point, id=f"{index:02d}-{point}", marks=[] if index in tenth else [pytest.mark.soak])
        for index, point in enumerate(made)
    ]


def _point(what: str, rng: Random, moments: dict[str, int], seconds: float) -> Point:
    if what == "full":
        at = rng.choice(("sync", *moments))
        number = rng.randint(1, moments.get(at, 2 * moments["checkpoint"]) * 2 // 3)  # something is yet to be written
        return Point(at, number, what=what, room=0 if at == "sync" else rng.randint(4_000, 150_000))
    at = rng.choice(("clock", *moments))
    if at == "clock" and what != "cut":
        return Point(at, 1, after_s=rng.uniform(0.05, seconds), what=what)
    at = rng.choice(("checkpoint", *moments)) if at == "clock" else at
    how = rng.choice(("before", "after") if what == "term" else ("before", "torn", "after"))  # torn is of the dead
    return Point(at, rng.randint(1, moments[at]), how, what=what)


def befallen(forks: Forks, argv: list[str], folder: Path, point: Point) -> None:
    """Run until the point, or the end where the clock came too late, and look how it ended."""
    began = time.time_ns()
    if not point.after_s:
        ended = forks.run(argv, folder, point.misfortune)
    else:
        child = forks.start(argv, folder)
        time.sleep(point.after_s)
        child.send(signal.SIGTERM if point.what == "term" else signal.SIGKILL)
        ended = child.wait()
    in_time = {"kill": [-signal.SIGKILL], "cut": [-signal.SIGKILL], "term": [130, 0], "full": [2]}[point.what]
    # A clock may come before the command listens, or when all is done; the last stage's end is no stop.
    assert ended.code in [*in_time, *([0, -signal.SIGTERM] if point.after_s else [])], ended.said
    if point.what == "full":
        assert "the disk is full" in ended.said and "run the same command again" in ended.said
        assert not list((folder / RUN).rglob("*.tmp")), "what could not be written takes no room"
    if point.what == "cut":
        cut_newest(folder / RUN, Random(str(point)), began)


def cut_newest(run: Path, rng: Random, since_ns: int) -> None:
    """The newest file written since then loses its end: a log in its last line, a checkpoint's file anywhere."""
    logs, parts = list(run.rglob("*.jsonl")), list(run.rglob("checkpoints/step-*/*"))
    written = {file.stat().st_mtime_ns: file for file in [*logs, *parts] if file.stat().st_size}
    written = {when: file for when, file in written.items() if when > since_ns}
    for file in [written[max(written)]] if written else []:
        data = file.read_bytes()
        begins = data.rstrip(b"\n").rfind(b"\n") + 1 if file in logs else 0
        file.write_bytes(data[: rng.randrange(begins, len(data))])


def killed(forks: Forks, argv: list[str], folder: Path, point: Point) -> Ended:
    """Run until the point."""
    return forks.run(argv, folder, point.misfortune)


PRETRAIN_POINTS = points("pretrain", {"step": 8, "checkpoint": 16, "line": 16}, 0.8)
GRPO_POINTS = points("grpo", {"step": 6, "checkpoint": 12, "line": 25, "journal": 6, "sample": 6}, 1.5)


@pytest.mark.parametrize("point", PRETRAIN_POINTS)
def test_pretraining_killed_anywhere_ends_equal_to_the_bit(
    forks: Forks, pretrained: Path, tmp_path: Path, point: Point
) -> None:
    folder = only(fresh_toy(tmp_path / "toy"), "base")
    befallen(forks, SHORT, folder, point)
    again = forks.run(SHORT, folder)
    assert again.code == 0, again.said
    assert_same_result(folder / RUN, pretrained / RUN)


@pytest.mark.parametrize("point", GRPO_POINTS)
def test_reinforcement_killed_anywhere_ends_equal_to_the_bit(
    forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path, point: Point
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    befallen(forks, LONG, folder, point)
    again = forks.run(LONG, folder)
    assert again.code == 0, again.said
    assert_same_result(folder / RUN, reinforced / RUN)


def test_a_run_that_goes_on_with_more_threads_ends_equal(
    forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    assert killed(forks, LONG, folder, Point("step", 3, "after")).code == -signal.SIGKILL
    assert forks.run([*LONG, "threads=2"], folder).code == 0
    assert_same_result(folder / RUN, reinforced / RUN)


def test_a_stage_that_goes_on_with_other_runtime_settings_says_which(
    forks: Forks, before_zero: Path, tmp_path: Path
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    assert killed(forks, LONG, folder, Point("step", 3, "after")).code == -signal.SIGKILL
    again = forks.run([*LONG, "zero.packing.passes=1"], folder)
    assert again.code == 0 and again.counts["step"] == 4
    assert again.said.count("warning") == 1 and "packing.passes was 2, is 1" in again.said


@pytest.mark.soak
def test_a_run_killed_at_every_other_step_still_ends_equal(
    forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    for point in (Point("journal", 1, "after"), Point("step", 2, "after"), Point("checkpoint", 4, "torn")):
        assert killed(forks, LONG, folder, point).code == -signal.SIGKILL
    assert forks.run(LONG, folder).code == 0
    assert_same_result(folder / RUN, reinforced / RUN)


@pytest.mark.parametrize("number", [1, 3, 4, 5])
def test_a_run_killed_while_it_exports_its_model_ends_equal(
    forks: Forks, pretrained: Path, tmp_path: Path, number: int
) -> None:
    folder = only(fresh_toy(tmp_path / "toy"), "base")
    assert forks.run(SHORT, folder, Misfortune("export", number, "after")).code == -signal.SIGKILL
    assert forks.run(SHORT, folder).code == 0
    assert_same_result(folder / RUN, pretrained / RUN)


def test_every_stage_kind_resumes_to_the_same_figures(forks: Forks, tmp_path: Path) -> None:
    whole, broken = fresh_toy(tmp_path / "whole"), fresh_toy(tmp_path / "broken")
    assert forks.run(LONG, whole).code == 0
    for moment, number in (("step", 41), ("eval", 2), ("eval", 4)):
        ended = forks.run(LONG, broken, Misfortune(moment, number))
        assert ended.code == -signal.SIGKILL, ended.said
    assert forks.run(LONG, broken).code == 0
    assert_same_result(broken / RUN, whole / RUN)
    assert [s.facts()["kind"] for s in Run(whole / RUN).current()] == ["pretrain", "sft", "grpo", "eval", "control"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_saves_and_exits_130_and_the_same_command_goes_on(
    forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path, number: int
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    ended = forks.run(LONG, folder, Misfortune("step", 3, "before", send=number))
    assert ended.code == 130
    assert "seekling run toy.toml" in ended.said and "Traceback" not in ended.said
    assert [p.name for p in sorted((stage(folder / RUN, "zero").folder / "checkpoints").iterdir())][
        -1
    ] == "step-0000003"
    assert forks.run(LONG, folder).code == 0
    assert_same_result(folder / RUN, reinforced / RUN)
    assert spent(read_ledger(folder / RUN)).keys() == {"base", "zero"}
    whole = work(kept(read_ledger(folder / RUN), Run(folder / RUN).folders()))
    assert work(spent(read_ledger(folder / RUN))) == whole, "a saved stop repeats nothing"


def test_a_signal_in_an_evaluation_stops_there_and_begins_no_other_stage(forks: Forks, toy: Path) -> None:
    ended = forks.run(LONG, toy, Misfortune("eval", 1, send=signal.SIGTERM))
    assert ended.code == 130, ended.said
    assert stage(toy / RUN, "zero-eval").facts()["state"] == "running"
    assert "controls" not in {s.facts()["name"] for s in Run(toy / RUN).current()}


def test_a_signal_in_the_last_step_finishes_the_stage_and_begins_no_other(forks: Forks, toy: Path) -> None:
    ended = forks.run([*LONG, "base.steps=4"], toy, Misfortune("step", 4, send=signal.SIGINT))
    assert ended.code == 130
    assert [s.facts()["state"] for s in Run(toy / RUN).current()] == ["done"]


def test_a_second_ctrl_c_stops_at_once(forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    ended = forks.run(LONG, folder, Misfortune("step", 3, "before", send=signal.SIGINT, again=True))
    assert ended.code == 130
    assert "Traceback" not in ended.said
    checkpoints = sorted(p.name for p in (stage(folder / RUN, "zero").folder / "checkpoints").iterdir())
    assert checkpoints == ["step-0000002"], "nothing more was saved"
    assert forks.run(LONG, folder).code == 0
    assert_same_result(folder / RUN, reinforced / RUN)


def test_journaled_steps_are_replayed_and_not_drawn_again(
    forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    assert forks.run(LONG, folder, Misfortune("journal", 6, "after")).code == -signal.SIGKILL
    again = forks.run(LONG, folder)
    assert again.code == 0
    assert again.counts.get("sample", 0) == 0, "steps 4 and 5 stand in the journal"
    assert again.counts.get("journal", 0) == 0
    assert again.counts["step"] == 2
    assert_same_result(folder / RUN, reinforced / RUN)
    generated = [e for e in read_ledger(folder / RUN) if e.kind == "generate"]
    assert sorted(e.step for e in generated) == [0, 1, 2, 3, 4, 5], "what is replayed is not paid twice"


@pytest.fixture(scope="module")
def killed_at(forks: Forks, before_zero: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, Path], Path]:
    """A copy of the run as it was killed after a step; each step is run to once."""

    @cache
    def killed(step: int) -> Path:
        folder = copied(before_zero, tmp_path_factory.mktemp(f"killed-{step}") / "toy")
        assert forks.run(LONG, folder, Misfortune("step", step, "after")).code == -signal.SIGKILL
        return folder

    return lambda step, target: copied(killed(step), target)


def test_a_torn_last_line_of_every_log_is_dropped_and_healed(
    forks: Forks, reinforced: Path, killed_at: Callable[[int, Path], Path], tmp_path: Path
) -> None:
    folder = killed_at(4, tmp_path / "toy")
    logs = [folder / RUN / "ledger.jsonl", *(stage(folder / RUN, "zero").folder.glob("*.jsonl"))]
    assert {log.name for log in logs} == {"ledger.jsonl", "metrics.jsonl", "rollouts.jsonl"}
    for log in logs:
        whole = log.read_bytes()
        log.write_bytes(whole + whole[: len(whole.splitlines()[0]) // 2])
    assert forks.run(LONG, folder).code == 0
    for log in logs:
        assert_whole_lines(log)
    assert_same_result(folder / RUN, reinforced / RUN)


DAMAGED = ('{"step": 1, "ses', '{"step": 1}', "7")


@pytest.mark.parametrize("log", ["ledger.jsonl", "metrics.jsonl", "rollouts.jsonl"])
def test_a_damaged_middle_line_is_a_letter_with_file_and_line(
    forks: Forks, reinforced: Path, killed_at: Callable[[int, Path], Path], tmp_path: Path, log: str
) -> None:
    folder = killed_at(4, tmp_path / "toy")
    file = next(file for file in (folder / RUN).rglob(log) if "base" not in file.parent.name)
    sound = file.read_text()
    lines = sound.splitlines()
    place = 3 if log == "rollouts.jsonl" else 2  # the journal is only read from the checkpoint on
    for damage in DAMAGED:
        if (log, damage) == ("rollouts.jsonl", DAMAGED[1]):
            continue  # a whole line of another step: the next test
        file.write_text("\n".join([*lines[: place - 1], damage, *lines[place:]]) + "\n")
        ended = forks.run(LONG, folder)
        assert ended.code == 2, ended.said
        assert "Traceback" not in ended.said
        assert log in ended.err and f"line {place} " in ended.err
    file.write_text(sound)
    assert forks.run(LONG, folder).code == 0, "mended, it goes on"
    assert_same_result(folder / RUN, reinforced / RUN)


def test_a_journaled_step_that_is_missing_is_drawn_again(
    forks: Forks, reinforced: Path, killed_at: Callable[[int, Path], Path], tmp_path: Path
) -> None:
    folder = killed_at(4, tmp_path / "toy")
    file = next(file for file in (folder / RUN).rglob("rollouts.jsonl") if "base" not in file.parent.name)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], DAMAGED[1], *lines[3:]]) + "\n")
    assert forks.run(LONG, folder).code == 0, "a step before the checkpoint is not needed any more"
    ours, theirs = (stage(place / RUN, "zero").folder / "model/model.safetensors" for place in (folder, reinforced))
    assert ours.read_bytes() == theirs.read_bytes()


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("weights.safetensors", _flip),
        ("optimizer.safetensors", _cut),
        ("weights.safetensors", Path.unlink),
        ("weights.safetensors", lambda file: file.write_bytes(b"")),
        ("state.json", Path.unlink),
        ("state.json", _cut),
        ("state.json", lambda file: file.write_text(file.read_text().replace('"next_step": 4', '"next_step": 5'))),
        ("state.json", lambda file: file.write_text("[]")),
    ],
    ids=["flipped bit", "cut short", "gone", "empty", "no state", "state cut", "another step", "another shape"],
)  # fmt: skip
def test_a_damaged_newest_checkpoint_falls_back_and_still_ends_equal(
    forks: Forks,
    reinforced: Path,
    killed_at: Callable[[int, Path], Path],
    tmp_path: Path,
    file: str,
    damage: Callable[[Path], object],
) -> None:
    folder = killed_at(5, tmp_path / "toy")
    checkpoints = stage(folder / RUN, "zero").folder / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["step-0000002", "step-0000004"]
    damage(checkpoints / "step-0000004" / file)
    again = forks.run(LONG, folder)
    assert again.code == 0, again.said
    assert "warning" in again.said and "step-0000004" in again.said and "falling back" in again.said
    assert again.counts["step"] == 4, "from step 2 on"
    assert_same_result(folder / RUN, reinforced / RUN)


def test_with_every_checkpoint_damaged_the_stage_begins_anew_and_ends_equal(
    forks: Forks, reinforced: Path, killed_at: Callable[[int, Path], Path], tmp_path: Path
) -> None:
    folder = killed_at(5, tmp_path / "toy")
    for place in (stage(folder / RUN, "zero").folder / "checkpoints").iterdir():
        _flip(place / "optimizer.safetensors")
    again = forks.run(LONG, folder)
    assert again.code == 0
    assert again.said.count("falling back") == 2
    assert again.counts["step"] == 6
    assert_same_result(folder / RUN, reinforced / RUN)


def test_seconds_of_a_stage_cover_its_sessions_and_no_more_than_the_clock(
    forks: Forks, before_zero: Path, tmp_path: Path
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    began = time.perf_counter()
    assert forks.run(LONG, folder, Misfortune("step", 5, "after")).code == -signal.SIGKILL
    first = stage(folder / RUN, "zero").facts()["seconds"]
    assert first > 0, "a killed session's time is known from its last checkpoint"
    assert forks.run(LONG, folder).code == 0
    elapsed = time.perf_counter() - began
    seconds = stage(folder / RUN, "zero").facts()["seconds"]
    assert first < seconds < elapsed + first
    again = forks.run(LONG, folder)
    assert again.code == 0 and stage(folder / RUN, "zero").facts()["seconds"] == seconds, "passing over costs nothing"
    entries = read_ledger(folder / RUN)
    steps = [r for r in stage(folder / RUN, "zero").metrics() if r.session == entries[-1].session]
    charged = [
        e for e in entries if e.kind in ("generate", "train") and e.folder == stage(folder / RUN, "zero").folder.name
    ]
    last = steps[-1]
    own = sum(e.seconds for e in charged if (e.step, e.session) == (last.step, last.session))
    assert last.seconds == pytest.approx(own, rel=0.2), "a step's seconds are those of drawing and learning together"
    assert seconds_of(entries, stage(folder / RUN, "zero").folder.name) < elapsed + first
    assert_ledger_adds_up(folder / RUN)


# --- skipped, broken, best --------------------------------------------------------------------------------------------


def test_spikes_are_skipped_alike_whenever_the_run_is_killed(forks: Forks, tmp_path: Path) -> None:
    """What is usual is a median of the steps before: killed, it is the same one."""
    command = ["run", "toy.toml", "base.checkpoint_every=12", "base.optim.spike=0.7", "base.optim.max_skipped=40"]
    whole, broken = (only(fresh_toy(tmp_path / name), "base") for name in ("whole", "broken"))
    ended = forks.run(command, whole)
    assert ended.code == 0
    skipped = [figures["skipped"] for *_, figures in metrics(stage(whole / RUN, "base").folder)]
    assert 2 < sum(skipped) < 20 and not any(skipped[:20])
    assert ended.said.count("an update is skipped: its gradient norm") == sum(skipped)
    assert stage(whole / RUN, "base").facts()["figures"]["skipped"] == sum(skipped)
    for point in (Point("step", 30, "after"), Point("checkpoint", 4, "torn"), Point("step", 3, "before")):
        assert killed(forks, command, broken, point).code == -signal.SIGKILL
    assert forks.run(command, broken).code == 0
    assert_same_result(broken / RUN, whole / RUN)


def test_skipped_updates_leave_weights_biases_and_optimizer_as_they_were(forks: Forks, tmp_path: Path) -> None:
    """From step 20 on every update is called a spike."""
    few = ["base.steps=25", "base.checkpoint_every=5", "base.optim.spike=1e-9", "base.optim.max_skipped=9"]
    folder = only(fresh_toy(tmp_path / "toy"), "base")
    ended = forks.run([*LONG, *few], folder)
    assert ended.code == 0, ended.said
    before, after = (stage(folder / RUN, "base").folder / f"checkpoints/step-{step:07d}" for step in (20, 25))
    for file in ("weights.safetensors", "optimizer.safetensors"):
        assert (before / file).read_bytes() == (after / file).read_bytes(), file
    biases = [name for name in load_file(after / "weights.safetensors") if name.endswith("e_score_correction_bias")]
    assert biases, "they move by a rule of their own, and must not here"


def test_too_many_skipped_in_a_row_end_the_run_with_a_letter_each_time(forks: Forks, tmp_path: Path) -> None:
    folder = only(fresh_toy(tmp_path / "toy"), "base")
    for _ in range(2):
        ended = forks.run([*LONG, "base.optim.spike=0.01", "base.optim.max_skipped=3"], folder)
        assert ended.code == 2 and "Traceback" not in ended.said
        assert "4 updates in a row were skipped, the last at step 23" in ended.err and "learning rate" in ended.err


def test_weights_that_broke_are_left_behind_and_the_update_with_them(forks: Forks, tmp_path: Path) -> None:
    """Broken in step 2, by two ways: the second run was killed before, and broke when it did that step again."""
    one, other = (only(fresh_toy(tmp_path / name), "base") for name in ("one", "other"))
    ended = forks.run(SHORT, one, Misfortune("update", 3, breaks=True))
    assert ended.code == 0, ended.said
    assert "update 2 left weights that are not finite numbers; back to the last checkpoint" in ended.said
    skipped = [figures["skipped"] for *_, figures in metrics(stage(one / RUN, "base").folder)]
    assert skipped == [0, 0, 1, 0, 0, 0, 0, 0]
    assert killed(forks, SHORT, other, Point("step", 4, "after")).code == -signal.SIGKILL
    assert forks.run(SHORT, other, Misfortune("update", 1, breaks=True)).counts["step"] == 6
    assert_same_result(other / RUN, one / RUN)


@pytest.mark.soak
def test_a_run_killed_after_its_weights_broke_still_leaves_that_update_out(
    forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path
) -> None:
    one, other = (copied(before_zero, tmp_path / name) for name in ("one", "other"))
    for folder in (one, other):
        (stage(folder / RUN, "zero").folder / "checkpoints").mkdir()
        (stage(folder / RUN, "zero").folder / "checkpoints/barred.json").write_text("[3]")
    assert forks.run(LONG, one).code == 0
    for point in (Point("step", 4, "after"), Point("journal", 1, "after")):
        assert killed(forks, LONG, other, point).code == -signal.SIGKILL
    assert forks.run(LONG, other).code == 0
    assert_same_result(other / RUN, one / RUN)
    skipped = [figures["skipped"] for *_, figures in metrics(stage(other / RUN, "zero").folder)]
    assert skipped == [0, 0, 0, 1, 0, 0]
    rollouts = [(stage(folder / RUN, "zero").folder / "rollouts.jsonl").read_bytes() for folder in (one, reinforced)]
    assert rollouts[0] != rollouts[1], "the policy is another one from there on"


def test_the_best_is_exported_to_the_bit_whenever_the_run_is_killed(
    forks: Forks, before_zero: Path, tmp_path: Path
) -> None:
    command = [*LONG, "zero.export=best", "zero.held_out_every=2", "zero.keep=1", "zero.optim.lr=0.003"]
    whole, broken = (copied(before_zero, tmp_path / name) for name in ("whole", "broken"))
    assert forks.run(command, whole).code == 0
    for point in (Point("step", 3, "after"), Point("checkpoint", 2, "after"), Point("export", 2, "before")):
        assert killed(forks, command, broken, point).code == -signal.SIGKILL
    assert forks.run(command, broken).code == 0
    assert_same_result(broken / RUN, whole / RUN)
    folder = stage(whole / RUN, "zero").folder
    passes = {step + 1: figures["held_out_pass"] for step, *_, figures in metrics(folder)[1::2]}
    best = max(passes, key=lambda step: (passes[step], step))
    assert (folder / f"checkpoints/step-{best:07d}").is_dir()
    saved = load_file(folder / f"checkpoints/step-{best:07d}/weights.safetensors")
    exported = load_file(folder / "model/model.safetensors")
    assert torch.equal(exported["model.embed_tokens.weight"], saved["embed_tokens.weight"])
    assert best < 6, "else nothing is shown"


# --- a judge ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["before", "after"])
def test_what_a_judge_said_is_kept_whenever_the_run_is_killed(
    forks: Forks, before_zero: Path, tmp_path: Path, how: str
) -> None:
    """It would answer otherwise each time: so it must be asked each question once, and its answers replayed."""

    def whimsical(body: dict[str, Any]) -> str:
        found = re.search(r"<<question ([0-9a-f]+)>>", body["messages"][1]["content"])
        assert found
        return json.dumps({"number": found[1], "points": len(heard.bodies) % 11})

    with endpoint(whimsical) as heard:
        folder = copied(before_zero, tmp_path / "toy")
        judge = f'{{ weight = 1.0, model = "j", url = "{heard.url}", cache = "{tmp_path / "cache"}" }}'
        manifest = (folder / "toy.toml").read_text()
        rubric = "rubric = { accuracy = 1.0, format = 0.5 }"
        assert rubric in manifest
        (folder / "toy.toml").write_text(manifest.replace(rubric, f"rubric = {{ accuracy = 1.0, judge = {judge} }}"))
        assert forks.run(LONG, folder, Misfortune("journal", 4, how)).code == -signal.SIGKILL
        journal = stage(folder / RUN, "zero").folder / "rollouts.jsonl"
        before = journal.read_bytes()
        assert forks.run(LONG, folder).code == 0
    assert before and journal.read_bytes().startswith(before)
    assert len(journal.read_text().splitlines()) == 6
    asked = [json.dumps(body["messages"]) for body in heard.bodies]
    assert asked and len(set(asked)) == len(asked), "a question is asked once, killed or not"
