"""The stage graph: the finished is never repeated, a change runs its dependents and nothing else, gates hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from seekling.config import Source
from seekling.recipes.manifest import load_manifest
from seekling.runlog.files import read_json, read_lines
from seekling.runlog.ledger import kept, read_ledger, spent, total
from seekling.runlog.run import Run
from tests.conftest import fresh_toy
from tests.e2e.forks import Forks
from tests.e2e.runs import assert_ledger_adds_up, assert_same_result, copied, stage, work

RUN = Path("runs/toy")
COMMAND = ["run", "toy.toml", "base.steps=10"]


@pytest.fixture(scope="module")
def finished(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of every stage kind."""
    folder = fresh_toy(tmp_path_factory.mktemp("finished") / "toy")
    ended = forks.run(COMMAND, folder)
    assert ended.code == 0, ended.said
    return folder


def test_a_stage_that_tests_itself_says_how_long_that_took(finished: Path) -> None:
    told = [stage.facts() for stage in Run(finished / RUN).current()]
    timed = {facts["kind"]: facts["selftest_seconds"] / facts["seconds"] for facts in told if "selftests" in facts}
    assert timed.keys() == {"pretrain", "grpo"} and all(0 < share < 1 for share in timed.values())
    assert not [facts["kind"] for facts in told if ("selftests" in facts) != ("selftest_seconds" in facts)]


def test_a_finished_stage_is_never_repeated(forks: Forks, finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "toy")
    before = {f: f.read_bytes() for f in (folder / RUN).rglob("*") if f.suffix in (".jsonl", ".safetensors")}
    again = forks.run(COMMAND, folder)
    assert again.code == 0
    assert again.counts.get("step", 0) == again.counts.get("sample", 0) == again.counts.get("eval", 0) == 0
    assert again.said.count("finished before") == 5
    assert {f: f.read_bytes() for f in before} == before


def test_a_change_runs_its_stage_and_its_dependents_beside_the_old_ones(
    forks: Forks, finished: Path, tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path / "toy")
    first = Run(folder / RUN).folders()
    once = kept(read_ledger(folder / RUN), first)
    again = forks.run([*COMMAND, "zero.steps=3"], folder)
    assert again.code == 0
    assert again.said.count("finished before") == 2 and again.counts["step"] == 3
    second = Run(folder / RUN).folders()
    assert first[:2] == second[:2], "base and tuned do not depend on zero"
    assert not set(first[2:]) & set(second[2:]), "zero, its evaluation and the controls do"
    assert all((folder / RUN / name / "stage.json").exists() for name in (*first, *second)), "nothing is overwritten"

    entries = read_ledger(folder / RUN)
    assert_ledger_adds_up(folder / RUN)
    assert work(kept(entries, first)) == work(once), "the old figures are still there to be read"
    ours = kept(entries, second)["zero"]
    own = [e for e in entries if e.folder == second[2]]
    assert ours.tokens == sum(e.tokens for e in own), "kept counts the changed stage alone"
    assert total(spent(entries)).tokens == total(once).tokens + sum(e.tokens for e in entries if e.session == 1)

    back = forks.run(COMMAND, folder)
    assert back.code == 0 and back.said.count("finished before") == 5, "changed back, everything is there already"
    assert work(kept(read_ledger(folder / RUN), Run(folder / RUN).folders())) == work(once)


def test_run_json_lists_the_folders_of_the_manifest_in_order(finished: Path) -> None:
    manifest = read_json(finished / RUN / "run.json")["stages"]
    assert [name.rpartition("-")[0] for name in manifest] == ["base", "tuned", "zero", "zero-eval", "controls"]
    assert all((finished / RUN / name).is_dir() for name in manifest)


def test_the_resolved_manifest_gives_the_same_fingerprints(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    resolved = load_manifest(str(RUN))
    assert [resolved.folder_name(s.name) for s in resolved.stages] == Run(RUN).folders()
    assert Source.read(RUN / "manifest.toml").values()["stage"][0]["steps"] == 10


def test_a_run_directory_goes_on_in_itself_whatever_its_name(forks: Forks, toy: Path) -> None:
    assert forks.run(["run", "toy.toml", "base.steps=2", "zero.steps=1", "--name", "mine"], toy).code == 0
    again = forks.run(["run", "runs/mine"], toy)
    assert again.code == 0 and again.said.count("finished before") == 5
    assert [p.name for p in (toy / "runs").iterdir()] == ["mine"]


def test_runtime_settings_are_free_to_change(forks: Forks, finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "toy")
    changes = [
        "base.checkpoint_every=3",
        "zero.packing.passes=1",
        "zero.held_out_every=2",
        "zero-eval.sampling.max_rows=4",
    ]
    again = forks.run([*COMMAND, *changes], folder)
    assert again.code == 0 and again.said.count("finished before") == 5
    threads = forks.run([*COMMAND, "threads=2"], folder)
    assert threads.code == 0 and threads.said.count("finished before") == 5


def test_the_lanes_a_machine_has_change_no_bit(forks: Forks, finished: Path, toy: Path) -> None:
    other = 1 if Run(finished / RUN).facts()["sessions"][0]["threads"] > 1 else 3
    assert forks.run([*COMMAND, f"threads={other}"], toy).code == 0
    assert Run(toy / RUN).facts()["sessions"][0]["threads"] == other
    assert_same_result(toy / RUN, finished / RUN)


def test_bfloat16_runs_every_kind(forks: Forks, toy: Path) -> None:
    ended = forks.run([*COMMAND, "dtype=bfloat16"], toy)
    assert ended.code == 0, ended.said
    assert Run(toy / RUN).facts()["sessions"][0]["dtype"] == "bfloat16"


def test_a_missed_gate_exits_3_with_its_figure_and_a_relaxed_one_goes_on(forks: Forks, toy: Path) -> None:
    gated = [*COMMAND, "base.gate.loss.max=0.01"]
    ended = forks.run(gated, toy)
    assert ended.code == 3
    assert "loss is" in ended.err and "at most 0.01" in ended.err and "Traceback" not in ended.said
    assert stage(toy / RUN, "base").facts()["state"] == "gate_missed"
    assert (toy / RUN / "report.html").exists()
    again = forks.run(gated, toy)
    assert again.code == 3 and again.counts.get("step", 0) == 0, "a gate is judged, not trained, again"
    relaxed = forks.run([*COMMAND, "base.gate.loss.max=100"], toy)
    assert relaxed.code == 0 and relaxed.said.count("finished before") == 1
    assert stage(toy / RUN, "base").facts()["state"] == "done"


def test_a_gate_on_a_figure_that_does_not_exist_names_those_that_do(forks: Forks, toy: Path) -> None:
    ended = forks.run([*COMMAND, "base.gate.los.max=1"], toy)
    assert ended.code == 3 and 'no figure "los"' in ended.err and "loss" in ended.err


def test_the_report_counts_as_kept_what_the_ledger_does(forks: Forks, finished: Path, tmp_path: Path) -> None:
    from seekling.report.read import read_run

    folder = copied(finished, tmp_path / "toy")
    assert forks.run([*COMMAND, "zero.steps=3"], folder).code == 0
    rows = read_run(folder / RUN).ledger
    entries = read_ledger(folder / RUN)
    in_result = kept(entries, Run(folder / RUN).folders())
    for name, cost in in_result.items():
        assert sum(row.kept.tokens for row in rows if row.stage == name) == cost.tokens, name
    assert sum(row.spent.tokens for row in rows) == total(spent(entries)).tokens


def test_the_control_stage_reports_each_control_at_equal_tokens(forks: Forks, toy: Path) -> None:
    shuffled = (
        (toy / "toy.toml")
        .read_text()
        .split("[[stage]]")[3]
        .replace('name = "zero"', 'name = "shuffled"\nrewards = "shuffled"')
    )
    text = (toy / "toy.toml").read_text().replace('from = ["base", "zero"]', 'from = ["base", "zero", "shuffled"]')
    (toy / "toy.toml").write_text(f"{text}\n[[stage]]{shuffled}")
    ended = forks.run(["run", "toy.toml", "base.steps=30"], toy)
    assert ended.code == 0, ended.said
    found = read_json(stage(toy / RUN, "controls").folder / "control.json")
    assert found["controls"].keys() == {"no_stop", "blind", "base_pass_k", "shuffled"}
    tokens = found["trained"]["tokens"]
    assert found["controls"]["no_stop"]["tokens"] <= tokens and found["controls"]["blind"]["tokens"] <= tokens + 4
    figures = stage(toy / RUN, "controls").facts()["figures"]
    best = max(row["pass_1"]["value"] for row in found["controls"].values())
    assert figures["best_control"] == best
    assert figures["gain_over_best_control"] == pytest.approx(found["trained"]["pass_1"]["value"] - best)
    rewards = [sorted(r["reward"] for g in line["groups"] for r in g["rollouts"])
               for line in read_lines(stage(toy / RUN, "shuffled").folder / "rollouts.jsonl")]  # fmt: skip
    assert len(rewards) == 6 and any(len(set(row)) > 1 for row in rewards), "the same rewards, dealt to others"
