"""The bench of families learned from nothing: rows are merged, tables and pictures say what the file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import from_nothing, nothing_tables
from bench.readme import NONE_YET
from bench.readme import from_nothing as block
from seekling.recipes.manifest import load_manifest
from seekling.runlog.files import read_json

HEAD = {
    "hardware": {"cpu": "CPU of the reader"}, "threads": 2, "dtype": "float32", "commit": "of-the-reader",
}  # fmt: skip


def row(seed: int, rise: float = 0.5) -> dict[str, Any]:
    """A row as ``measure`` makes it."""
    return {
        "seed": seed, "commit": f"0123456789a{seed}", "threads": 1, "cpu": "Invented CPU",
        "problems": 150, "samples": 8, "larger_size": 6, "blind_at_8": 0.04,
        "base": {"pass_1": 0.2, "interval": [0.17, 0.23], "tokens": 21.25},
        "trained": {"pass_1": 0.2 + rise, "interval": [0.66, 0.74], "tokens": 40.5},
        "controls": {"no_stop": {"pass_1": 0.21}, "blind": {"pass_1": 0.05}, "base_pass_k": {"pass_1": 0.31}},
        "by_size": {"4": {"base": 0.2, "trained": 0.7}, "6": {"base": 0.01, "trained": 0.125}},
        "rewards": [0.2 + rise * step / 59 for step in range(60)],
    }  # fmt: skip


@pytest.fixture
def merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A result file that grew row by row: nim before letters, and one seed measured twice."""
    monkeypatch.setattr(from_nothing, "RESULT", tmp_path / "from-nothing.json")
    monkeypatch.setattr(from_nothing, "head", lambda: dict(HEAD))
    for family, seed, rise in (("nim", 1, 0.3), ("nim", 0, 0.4), ("letters", 0, 0.5), ("nim", 1, 0.35)):
        from_nothing.merge(family, row(seed, rise))
    found: dict[str, Any] = read_json(tmp_path / "from-nothing.json")
    return found


def test_a_row_takes_the_place_of_an_earlier_one_and_families_keep_their_order(merged: dict[str, Any]) -> None:
    assert list(merged["families"]) == ["letters", "nim"]
    assert [(r["seed"], round(r["trained"]["pass_1"], 2)) for r in merged["families"]["nim"]] == [(0, 0.6), (1, 0.55)]
    assert merged["problems"] == 150


def test_a_run_that_is_only_read_keeps_its_own_commit_machine_and_threads(merged: dict[str, Any]) -> None:
    told = nothing_tables.about(merged)
    assert (
        "Invented CPU, threads: 1, float32; commit `0123456789a0`, `0123456789a1`" in told
        and "of-the-reader" not in str(merged)
    )
    assert "CPU of the reader" not in str(merged)


def test_the_table_has_a_row_for_every_seed_with_its_gain_and_its_best_control(merged: dict[str, Any]) -> None:
    rows = list(nothing_tables.rows(merged))
    assert [cells[0] for cells in rows] == ["`letters`, 0", "`nim`, 0", "`nim`, 1"]
    assert rows[0][1:] == [
        "20.0 % [17.0, 23.0]", "70.0 % [66.0, 74.0]", "+50.0 points", "31.0 % (several tries)", "4.0 %",
        "1.0 % → 12.5 %", "21.2 → 40.5",
    ]  # fmt: skip
    assert {len(cells) for cells in rows} == {len(nothing_tables.HEADINGS)}


def test_the_picture_is_well_formed_has_a_line_a_seed_and_says_its_figures(merged: dict[str, Any]) -> None:
    picture = ElementTree.fromstring(nothing_tables.curves(merged))
    name = "{http://www.w3.org/2000/svg}"
    lines = picture.findall(f"{name}polyline")
    assert len(lines) == 3
    points = [
        (float(x), float(y)) for line in lines for x, y in re.findall(r"([\d.]+),([\d.]+)", line.get("points", ""))
    ]
    assert all(0 < x < float(picture.get("width", 0)) and 0 < y < float(picture.get("height", 0)) for x, y in points)
    first = lines[0].get("points", "").split()
    assert float(first[0].split(",")[1]) > float(first[-1].split(",")[1]), "what rises ends higher up"
    assert picture.findtext(f"{name}desc") == "letters: 0.22 to 0.68; nim: 0.21 to 0.59, 0.21 to 0.54"


def test_without_a_result_file_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.readme.result_of", lambda name: None)
    assert NONE_YET in block(None)


@pytest.mark.parametrize("family", from_nothing.FAMILIES)
def test_a_family_has_a_manifest_of_two_trainings_two_evaluations_and_controls(family: str) -> None:
    stages = load_manifest(f"zero-{family}").stages
    assert [stage.name for stage in stages] == ["base", "zero", "base-eval", "zero-eval", "controls"]
    assert {stage.model_dump()["task"] for stage in stages} == {family}
