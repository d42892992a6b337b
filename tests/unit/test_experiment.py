"""Comparisons registered before they run: what the rule says, what is refused, what an arm costs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.experiment import PLACE, Registered, committed, cost, read, ruled, told, verdict
from seekling.errors import UserError
from seekling.recipes.manifest import load_manifest
from seekling.runlog.ledger import Entry, Ledger

ASKED = """
question = "Does more help?"
hypothesis = "It does."
manifest = "zero-tiny"
seeds = [0, 1, 2]
figures = ["zero-eval:pass@1"]
smallest = 0.05
budget = "steps"
upto = ["zero"]
arm = [{ name = "more" }, { name = "less", overrides = ["zero.steps=10"] }]
compare = [{ better = "more", than = "less" }]
"""


def asked(tmp_path: Path, text: str = ASKED) -> Registered:
    file = tmp_path / "asked.toml"
    file.write_text(text)
    return read(file)


def rows(more: list[float], less: list[float]) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "seed": seed, "figures": {"zero-eval:pass@1": value}}
        for arm, values in (("more", more), ("less", less))
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("more", "less", "said"),
    [
        ([0.80, 0.81, 0.82], [0.60, 0.60, 0.61], "yes"),
        ([0.60, 0.61, 0.60], [0.60, 0.60, 0.60], "no"),
        ([0.80, 0.60, 0.70], [0.60, 0.60, 0.60], "cannot tell at this scale"),
        ([0.80], [0.60], "not run"),
    ],
)
def test_the_verdict_is_what_the_rule_says(tmp_path: Path, more: list[float], less: list[float], said: str) -> None:
    found = asked(tmp_path)
    assert verdict(found, found.compare[0], rows(more, less))["verdict"] == said
    assert told(found, rows(more, less))["verdicts"][0]["verdict"] == said


def test_the_interval_is_students_of_the_paired_differences(tmp_path: Path) -> None:
    found = asked(tmp_path)
    said = verdict(found, found.compare[0], rows([0.5, 0.7, 0.6], [0.4, 0.4, 0.4]))
    assert said["difference"] == pytest.approx(0.2)
    assert said["detectable"] == pytest.approx(4.303 * 0.1 / 3**0.5)


def test_an_interval_that_touches_what_matters_tells_nothing() -> None:
    assert ruled(0.05, 0.2, 0.05) == ruled(-0.2, 0.05, 0.05) == "cannot tell at this scale"


def test_an_arm_that_is_not_there_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="arms that it does not have: most"):
        asked(tmp_path, ASKED.replace('better = "more"', 'better = "most"'))


def test_what_is_not_committed_as_it_stands_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("asked.toml")
    file.write_text(ASKED)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    with pytest.raises(UserError, match="not committed"):
        committed(file)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "asked"], check=True)
    assert len(committed(file)) >= 7
    file.write_text(ASKED + "# changed")
    with pytest.raises(UserError, match="not committed"):
        committed(file)


def test_an_arm_costs_what_its_stages_and_theirs_cost_without_evaluations(tmp_path: Path) -> None:
    manifest = load_manifest("zero-tiny")
    ledger = Ledger(tmp_path)
    for stage, kind, flops in (
        ("base", "train", 1.0),
        ("zero", "generate", 2.0),
        ("zero", "eval", 4.0),
        ("shuffled", "train", 8.0),
    ):
        ledger.append(Entry(stage, 0, 0, kind, 1, flops, 0.5, manifest.folder_name(stage)))
    ledger.append(Entry("zero", 0, 0, "generate", 1, 16.0, 0.5, "zero-of-other-settings"))
    ledger.close()
    assert cost(manifest, tmp_path, ("zero",)) == {"flops": 3.0, "seconds": 1.0}


@pytest.mark.parametrize("file", sorted(PLACE.glob("*.toml")), ids=lambda file: file.stem)
def test_what_is_registered_can_be_read_and_run(file: Path) -> None:
    found = read(file)
    for arm in found.arm:
        manifest = load_manifest(found.manifest, [*found.overrides, *arm.overrides])
        for figure in (*(name.partition(":")[0] for name in found.figures), *found.upto):
            assert manifest.stage(figure)
