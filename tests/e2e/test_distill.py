"""Students of a teacher: by its texts, by its distributions, by what it says of theirs; killed, damaged, resumed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from seekling.report import words
from seekling.report.figures import cost_figure, trainings
from seekling.report.read import read_run
from seekling.runlog.files import read_lines
from seekling.runlog.ledger import read_ledger
from tests.conftest import fresh_toy
from tests.e2e.forks import Forks, Misfortune
from tests.e2e.runs import assert_same_result, copied, metrics, stage

COMMAND = ["run", "distill.toml"]
RUN = Path("runs/distill")
STUDENTS = ("reader", "listener", "speaker")


@pytest.fixture(scope="module")
def taught(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the teacher alone."""
    folder = fresh_toy(tmp_path_factory.mktemp("taught") / "toy")
    whole = (folder / "distill.toml").read_text()
    (folder / "distill.toml").write_text("[[stage]]".join(whole.split("[[stage]]")[:2]))
    ended = forks.run(COMMAND, folder)
    assert ended.code == 0, ended.said
    (folder / "distill.toml").write_text(whole)
    return folder


@pytest.fixture(scope="module")
def finished(forks: Forks, taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with every student, never interrupted."""
    folder = copied(taught, tmp_path_factory.mktemp("finished") / "toy")
    ended = forks.run(COMMAND, folder)
    assert ended.code == 0, ended.said
    assert "the teacher's store: " in ended.said and "tokens of 34 bytes, 8 ids each" in ended.said
    return folder


def test_students_come_nearer_to_their_teacher_and_tell_it_by_the_usual_names(finished: Path) -> None:
    for name in STUDENTS:
        told = [m for *_, m in metrics(stage(finished / RUN, name).folder)]
        figure = "loss" if name == "reader" else "teacher_kl"
        if name != "speaker":  # whose own texts change from step to step, which eight steps cannot be judged by
            assert told[-1][figure] < 0.95 * told[0][figure], name
        assert all(step[figure] > 0 for step in told)
        assert all(step["entropy"] > 0 and step["response_length"] > 0 for step in told)
        assert [n for n, step in enumerate(told) if "held_out_pass" in step] == [3, 7]
        figures = stage(finished / RUN, name).facts()["figures"]
        assert ("pass_rate" in figures) is (name == "speaker") and ("teacher_texts" in figures) is (name != "speaker")
    assert stage(finished / RUN, "listener").facts()["figures"]["store_bytes_per_token"] == 34
    last = metrics(stage(finished / RUN, "reader").folder)[-1][-1]  # the one with experts, balanced from the first
    assert last["balance_loss"] > 0 and len(last["expert_load"]["0"]) == 4


def test_the_start_is_tested_and_every_token_of_either_is_metered(finished: Path) -> None:
    for name in STUDENTS:
        folder = stage(finished / RUN, name)
        named = {test["name"] for test in folder.facts()["selftests"]}
        assert named >= {
            "vocabularies are one", "teacher and student are asked alike", "a teacher learns nothing from itself",
            "loss ignores slicing", "engine samples from what is trained",
        }  # fmt: skip
        own = [entry for entry in read_ledger(finished / RUN) if entry.stage == name]
        kinds = {"reader": {"teacher"}, "listener": {"teacher", "teacher_scoring"},
                 "speaker": {"generate", "teacher_scoring"}}[name]  # fmt: skip
        assert {entry.kind for entry in own} == kinds | {"train", "eval"}
        assert all(entry.tokens > 0 and entry.flops > 0 for entry in own)
        assert [entry.step for entry in own if entry.kind == "train"] == list(range(8))
        said = sum(e.tokens for e in own if e.kind in ("teacher", "generate"))
        journal = list(read_lines(folder.folder / "rollouts.jsonl"))
        assert said == sum(len(r["tokens"]) for line in journal for g in line["groups"] for r in g["rollouts"])


def test_the_report_shows_what_a_student_is_known_by(finished: Path) -> None:
    run = read_run(finished / RUN)
    shown = {one.stage.name: [figure.title for figure in one.figures] for one in trainings(run)}
    assert {"pass@1", "Distance from the teacher", "Loss", "Response length", "Entropy"} <= set(shown["speaker"])
    assert "Distance from the teacher" in shown["listener"] and "Loss" in shown["reader"]
    spent = cost_figure(run.ledger)
    assert spent is not None and all(kind in spent.svg for kind in ("train", "teacher", "other"))
    bars = [words.duration(sum(row.spent.seconds for row in run.ledger if row.stage == name)) for name in STUDENTS]
    assert all(f"{name} {bar}" in spent.svg for name, bar in zip(STUDENTS, bars, strict=True))


def test_students_killed_at_every_turn_end_equal_to_the_bit(
    forks: Forks, taught: Path, finished: Path, tmp_path: Path
) -> None:
    """Killed as the teacher's answers are noted, and in the steps of who learns from itself."""
    folder = copied(taught, tmp_path / "toy")
    turns = [("journal", 2, "torn"), ("step", 13, "before")]
    for moment, number, how in turns:
        ended = forks.run(COMMAND, folder, Misfortune(moment, number, how))
        assert ended.code == -signal.SIGKILL, ended.said
    ended = forks.run(COMMAND, folder)
    assert ended.code == 0, ended.said
    assert_same_result(folder / RUN, finished / RUN)


def test_a_damaged_store_is_told_and_made_again(forks: Forks, taught: Path, finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "toy")
    listener = stage(folder / RUN, "listener").folder
    piece = listener / "teacher" / "piece-00000.bin"
    sound = piece.read_bytes()
    piece.write_bytes(sound[:-3] + b"\0\0\1")
    stage(folder / RUN, "listener").write(state="running")
    ended = forks.run(COMMAND, folder)
    assert ended.code == 0 and "piece-00000.bin is damaged: the teacher is asked about these texts again" in ended.said
    assert piece.read_bytes() == sound


def test_single_words_and_a_mixture_teach_too(forks: Forks, finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "toy")
    for told in (["speaker.by=sampled"], ["speaker.own_share=0.5", "speaker.beta=0.5", "speaker.temperature=2.0"]):
        ended = forks.run([*COMMAND, "speaker.steps=1", "speaker.held_out_every=0", *told], folder)
        assert ended.code == 0, ended.said
    kinds = {e.kind for e in read_ledger(folder / RUN) if e.folder == stage(folder / RUN, "speaker").folder.name}
    assert kinds == {"generate", "teacher", "teacher_scoring", "train"}
