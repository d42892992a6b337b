"""The pages for those who come from elsewhere: their manifests load, and all they name on our side is there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from seekling.config import parse, parse_override
from seekling.learn.config import Objective
from seekling.recipes.config import KINDS, Grpo, Import
from seekling.recipes.manifest import Head, load_manifest
from seekling.records import Problem, StepRecord, Verdict
from seekling.report.track import NAMES, metrics_of
from seekling.rewards.functions import serve
from seekling.selftests.tasks import of_key
from seekling.tasks.own import FileTask
from seekling.tasks.registry import build_task
from tests.parity.test_trl_objectives import OURS, VECTORS
from tests.test_docs import FENCED, SOURCE, blocks, text_of

PAGES = ("docs/from-trl.md", "docs/from-verl.md")
TRL, VERL = PAGES
SPAN = re.compile(r"`([^`]+)`")


def file_of(block: str) -> str:
    """``trl.toml`` of a block that begins ``# trl.toml: the script above``."""
    named = re.match(r"# ([\w-]+\.(?:py|toml))(?::.*)?\n", block)
    assert named, f"its first line should name its file: {block.splitlines()[0]}"
    return named[1]


@dataclass(frozen=True)
class Map:
    """A table of a page: its heading, what its second column holds, and its rows' first two cells."""

    heading: str
    holds: str
    rows: tuple[tuple[str, str], ...]

    @property
    def kind(self) -> str:
        """The stage kind that its heading names."""
        return next(kind for kind in KINDS if f"`{kind}`" in self.heading)


def maps(name: str) -> Iterator[Map]:
    heading, table = "", list[str]()
    for line in [*FENCED.sub("", text_of(name)).splitlines(), ""]:
        if line.startswith("| "):
            table.append(line)
        elif table:
            cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
            assert {len(row) for row in cells} == {3}, heading
            yield Map(heading, cells[0][1], tuple((row[0], row[1]) for row in cells[2:]))
            table = []
        heading = line if line.startswith("#") else heading


ROWS = [(name, one, *row) for name in PAGES for one in maps(name) if one.holds == "here" for row in one.rows]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, and a hub where every name has one commit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("seekling.recipes.manifest.identity", lambda model, revision: {"commit": "0" * 40})
    monkeypatch.setattr("seekling.remote.rows.identity", lambda *name, **kind: {"commit": "0" * 40})
    return tmp_path


def lay_out(name: str) -> list[str]:
    """The page's files in the folder it speaks of; returns its manifests."""
    page = text_of(name)
    for block in [*blocks(page, "python"), *blocks(page, "toml")]:
        if block.startswith("# "):
            Path(file_of(block)).write_text(block)
    lines = "".join(blocks(page, "jsonl"))
    Path("problems.jsonl").write_text(lines)
    for data in ("chats.jsonl", "pairs.jsonl"):
        Path(data).write_text('{"prompt": "1+1", "chosen": "2", "rejected": "3"}\n')
    rows = [json.loads(line) for line in lines.splitlines()]
    for split in ("train", "test") if "extra_info" in rows[0] else ():
        write_table(f"{split}.parquet", [row for row in rows if row["extra_info"]["split"] == split])
    return [file_of(block) for block in blocks(page, "toml")]


def write_table(file: str, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), file)


# --- manifests and commands -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_every_manifest_of_a_page_loads(name: str, folder: Path) -> None:
    files = lay_out(name)
    assert files
    assert [load_manifest(file).head.name for file in files] == [file.removesuffix(".toml") for file in files]


@pytest.mark.parametrize("name", PAGES)
def test_every_command_that_changes_a_manifest_of_the_page_changes_it(name: str, folder: Path) -> None:
    files = lay_out(name)
    page = re.sub(r"\\\n\s*", "", text_of(name))
    commands = [shlex.split(c, comments=True) for c in re.findall(r"^    \S*seekling run (\S+\.toml.*)$", page, re.M)]
    assert {words[0] for words in commands} == set(files)
    for file, *words in commands:
        changes = [word for word in words if "=" in word]
        assert (load_manifest(file, changes) != load_manifest(file)) == bool(changes)


# --- maps of settings -------------------------------------------------------------------------------------------------


def holds(model: type[BaseModel], path: list[str]) -> bool:
    """Whether settings of this class have a setting at ``path``, whose names are those of a manifest."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    if path[0] not in fields:
        return False
    inner = FileTask if path[0] == "task" else fields[path[0]].annotation
    return len(path) == 1 or (isinstance(inner, type) and issubclass(inner, BaseModel) and holds(inner, path[1:]))


@pytest.mark.parametrize("name", PAGES)
def test_every_setting_on_our_side_of_a_map_exists_and_takes_the_value_told(name: str, folder: Path) -> None:
    manifests = [load_manifest(file) for file in lay_out(name)]
    stages = {stage.kind: (m.head.name, stage.name) for m in manifests for stage in m.stages}
    rows = [(one, theirs, here) for page_name, one, theirs, here in ROWS if page_name == name]
    assert len(rows) > 50
    for one, theirs, here in rows:
        assert here, f"{theirs} leads nowhere"
        file, stage = stages[one.kind]
        changes = []
        for path, _, value in (span.partition(" = ") for span in SPAN.findall(here)):
            models = {"": Head, f"{stage}.": KINDS[one.kind].settings, "start.": Import}
            found = [prefix for prefix, model in models.items() if holds(model, path.split("."))]
            assert found, f"{theirs}: there is no {path} in a stage of kind {one.kind}"
            changes += [f"{found[0]}{path}={value}"] if value else []
        load_manifest(f"{file}.toml", changes)


def told(here: str) -> Mapping[str, Any]:
    """The parts of an objective that a cell of a map tells."""
    spans = [parse_override(span) for span in SPAN.findall(here) if span.startswith("objective.")]
    return {path[1]: value for path, value in spans}


def test_trls_loss_types_lead_to_the_parts_that_are_compared_with_its_losses() -> None:
    rows = {found[1]: told(here) for _, _, theirs, here in ROWS if (found := re.match(r'`loss_type="(\w+)"', theirs))}
    assert rows.keys() == {name for name in OURS if name.isidentifier()} - {"gspo", "corrected"}
    for name, parts in rows.items():
        asked = {key: value for key, value in parts.items() if not key.startswith("clip_")}
        assert asked == {key: getattr(OURS[name], key) for key in asked}
        assert parse(Objective, parts).ratio == OURS[name].ratio


def test_the_page_speaks_of_the_trl_that_was_compared() -> None:
    assert f"version {VECTORS['trl']}" in " ".join(text_of(TRL).split())


# --- figures ----------------------------------------------------------------------------------------------------------


def figures(name: str) -> dict[str, str]:
    """Their names -> ours, of a page's table of figures."""
    (table,) = (one for one in maps(name) if one.holds == "figure")
    return {SPAN.findall(theirs)[0]: SPAN.findall(here)[0] for theirs, here in table.rows}


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_of_a_page_is_written(name: str) -> None:
    source = "".join((SOURCE / f"{file}.py").read_text() for file in ("recipes/grpo", "recipes/scenes", "learn/update"))
    for ours in figures(name).values():
        assert f'"{ours}"' in source or ours in StepRecord.__dataclass_fields__, ours


def test_figures_are_sent_under_the_names_that_trls_users_are_told() -> None:
    rows = {theirs: ours for theirs, ours in figures(TRL).items() if ours != "mismatch_kl"}
    record = StepRecord(0, 0, 1.0, 1, 0.0, {ours: 1.0 for ours in rows.values() if ours not in ("tokens", "seconds")})
    assert metrics_of(record, "zero").keys() == {f"zero/{theirs}" for theirs in rows}
    assert set(NAMES) <= set(figures(TRL).values())


# --- tasks and rewards ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_the_answer_keys_of_a_pages_task_pass_its_own_check(name: str, folder: Path) -> None:
    """Else the run would refuse to begin."""
    assert not [test.name for test in of_key(task_of(name)) if not test.passed]


def task_of(name: str) -> Any:
    """The task of the page's stage of grpo."""
    manifest = load_manifest(lay_out(name)[0])
    return build_task(next(stage for stage in manifest.stages if isinstance(stage, Grpo)).task)


def scored(name: str, problem: Problem, *texts: str) -> Any:
    """What a function of the page gives these texts."""
    answer = serve({"name": name, "reads": "text", "path": []})
    said: dict[str, Any] = answer({"problem": asdict(problem), "texts": texts, "ids": [[1] * 128 for _ in texts]})
    return said["values"]


def test_trls_rewards_earn_what_they_would_there(folder: Path) -> None:
    task = task_of(TRL)
    problem = task.listed("train")[0]
    assert scored("./rewards.py:correct", problem, "12 times 7: 84", "No idea") == [1.0, 0.0]
    assert scored("./rewards.py:brief", problem, "84") == [0.5]
    assert task.check(problem, "The answer is \\boxed{84}.") is Verdict.PASS


def test_verls_score_is_asked_with_the_columns_of_its_row(folder: Path) -> None:
    task = task_of(VERL)
    (problem,), (held_out,) = task.listed("train"), task.listed("held_out")
    assert scored("./reward.py:score", problem, "<think>7</think>#### 84", "#### 83") == [1.0, 0.0]
    assert [task.check(one, "#### 13") for one in (held_out, problem)] == [Verdict.PASS, Verdict.WRONG]
