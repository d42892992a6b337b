"""The resume law: stop a run anywhere, give the same command, and it ends as if never stopped, to the bit."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from seekling.runlog.ledger import kept, read_ledger, spent
from seekling.runlog.run import Run
from tests.conftest import fresh_toy
from tests.e2e.forks import Ended, Forks, Misfortune
from tests.e2e.runs import (
    assert_ledger_adds_up,
    assert_same_result,
    assert_whole_lines,
    copied,
    only,
    seconds_of,
    stage,
    work,
)

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
    """Where a run is killed: at a moment of the disk or the loop, or (``after_s``) whenever a clock says."""

    at: str
    number: int
    how: str
    after_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.after_s:.2f}s" if self.after_s else f"{self.how}-{self.at}-{self.number}"


def points(name: str, moments: dict[str, int], seconds: float, count: int = 40) -> list[object]:
    """``count`` seeded points, each kind of moment in turn; by default a tenth, one of each kind."""
    rng, kinds = Random(f"kill/{name}"), [*moments, "clock"]
    made = []
    for index in range(count):
        kind = kinds[index % len(kinds)]
        how = rng.choice(("before", "torn", "after"))
        clock = rng.uniform(0.05, seconds) if kind == "clock" else 0.0
        made.append(Point(kind, rng.randint(1, moments.get(kind, 1)), how, clock))
    tenth = {kinds.index(kind) + len(kinds) * rng.randrange(count // len(kinds)) for kind in kinds}
    return [
        pytest.param(point, id=f"{index:02d}-{point}", marks=[] if index in tenth else [pytest.mark.soak])
        for index, point in enumerate(made)
    ]


def killed(forks: Forks, argv: list[str], folder: Path, point: Point) -> Ended:
    """Run until the point, or the end where the clock came too late."""
    if not point.after_s:
        return forks.run(argv, folder, Misfortune(point.at, point.number, point.how))
    child = forks.start(argv, folder)
    time.sleep(point.after_s)
    child.send(signal.SIGKILL)
    return child.wait()


PRETRAIN_POINTS = points("pretrain", {"step": 8, "checkpoint": 16, "line": 16}, 0.8)
GRPO_POINTS = points("grpo", {"step": 6, "checkpoint": 12, "journal": 6}, 0.8)


@pytest.mark.parametrize("point", PRETRAIN_POINTS)
def test_pretraining_killed_anywhere_ends_equal_to_the_bit(
    forks: Forks, pretrained: Path, tmp_path: Path, point: Point
) -> None:
    folder = only(fresh_toy(tmp_path / "toy"), "base")
    first = killed(forks, SHORT, folder, point)
    assert first.code == -signal.SIGKILL or point.after_s
    again = forks.run(SHORT, folder)
    assert again.code == 0, again.said
    assert_same_result(folder / RUN, pretrained / RUN)


@pytest.mark.parametrize("point", GRPO_POINTS)
def test_reinforcement_killed_anywhere_ends_equal_to_the_bit(
    forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path, point: Point
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    first = killed(forks, LONG, folder, point)
    assert first.code == -signal.SIGKILL or point.after_s
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


def test_a_torn_last_line_of_every_log_is_dropped_and_healed(
    forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    assert forks.run(LONG, folder, Misfortune("step", 4, "after")).code == -signal.SIGKILL
    logs = [folder / RUN / "ledger.jsonl", *(stage(folder / RUN, "zero").folder.glob("*.jsonl"))]
    assert {log.name for log in logs} == {"ledger.jsonl", "metrics.jsonl", "rollouts.jsonl"}
    for log in logs:
        whole = log.read_bytes()
        log.write_bytes(whole + whole[: len(whole.splitlines()[0]) // 2])
    assert forks.run(LONG, folder).code == 0
    for log in logs:
        assert_whole_lines(log)
    assert_same_result(folder / RUN, reinforced / RUN)


@pytest.mark.parametrize("log", ["ledger.jsonl", "metrics.jsonl", "rollouts.jsonl"])
@pytest.mark.parametrize("damage", ['{"step": 1, "ses', '{"step": 1}', "7"])
def test_a_damaged_middle_line_is_a_letter_with_file_and_line(
    forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path, log: str, damage: str
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    assert forks.run(LONG, folder, Misfortune("step", 4, "after")).code == -signal.SIGKILL
    file = next(file for file in (folder / RUN).rglob(log) if "base" not in file.parent.name)
    lines = file.read_text().splitlines()
    place = 3 if log == "rollouts.jsonl" else 2  # the journal is only read from the checkpoint on
    good = lines[place - 1]
    file.write_text("\n".join([*lines[: place - 1], damage, *lines[place:]]) + "\n")
    ended = forks.run(LONG, folder)
    if log == "rollouts.jsonl" and damage == '{"step": 1}':
        assert ended.code == 0, "a step before the checkpoint is not needed any more; the missing one is drawn again"
        return
    assert ended.code == 2, ended.said
    assert "Traceback" not in ended.said
    assert log in ended.err and f"line {place} " in ended.err
    file.write_text("\n".join([*lines[: place - 1], good, *lines[place:]]) + "\n")
    assert forks.run(LONG, folder).code == 0, "mended, it goes on"
    assert_same_result(folder / RUN, reinforced / RUN)


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
        ("state.json", Path.unlink),
        ("state.json", _cut),
        ("state.json", lambda file: file.write_text("[]")),
    ],
    ids=["flipped bit", "cut short", "file gone", "state gone", "state cut", "state of another shape"],
)  # fmt: skip
def test_a_damaged_newest_checkpoint_falls_back_and_still_ends_equal(
    forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path, file: str, damage: object
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    assert forks.run(LONG, folder, Misfortune("step", 5, "after")).code == -signal.SIGKILL
    checkpoints = stage(folder / RUN, "zero").folder / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["step-0000002", "step-0000004"]
    damage(checkpoints / "step-0000004" / file)  # type: ignore[operator]
    again = forks.run(LONG, folder)
    assert again.code == 0, again.said
    assert "warning" in again.said and "step-0000004" in again.said and "falling back" in again.said
    assert again.counts["step"] == 4, "from step 2 on"
    assert_same_result(folder / RUN, reinforced / RUN)


def test_with_every_checkpoint_damaged_the_stage_begins_anew_and_ends_equal(
    forks: Forks, reinforced: Path, before_zero: Path, tmp_path: Path
) -> None:
    folder = copied(before_zero, tmp_path / "toy")
    assert forks.run(LONG, folder, Misfortune("step", 5, "after")).code == -signal.SIGKILL
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
