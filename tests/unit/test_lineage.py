"""A chain of stages as its folders tell it: what each read, what is gone, what is made again. Loops are pretended."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from seekling.errors import UserError
from seekling.learn.lanes import Lanes
from seekling.recipes import pipeline
from seekling.recipes.config import KINDS, reads, told_reads
from seekling.recipes.manifest import load_manifest
from seekling.recipes.pipeline import Watcher, run_manifest
from seekling.runlog.files import sha256
from seekling.runlog.run import Run, StageFolder

CHAIN = """
name = "chain"
[[stage]]
name = "base"
kind = "pretrain"
steps = 2
[[stage]]
name = "tuned"
kind = "sft"
from = "base"
data = "chats.jsonl"
steps = 2
[[stage]]
name = "picked"
kind = "curate"
from = "tuned"
[[stage]]
name = "zero"
kind = "grpo"
from = ["tuned", "picked"]
steps = 2
[[stage]]
name = "tax"
kind = "eval"
from = ["base", "tuned", "zero"]
"""
NAMES = ["base", "tuned", "picked", "zero", "tax"]


class Chain:
    """The chain in a folder. ``ran`` names the stages a run worked on, ``said`` what it warned of and passed over."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run, self.salt = folder, Run(folder / "runs/chain"), ""
        self.ran: list[str] = []
        self.said: list[str] = []
        self.stop_before = ""
        (folder / "chats.jsonl").write_text('{"prompt": "1", "completion": "1"}\n')
        (folder / "chain.toml").write_text(CHAIN)

    def go(self, *overrides: str, again: Sequence[str] = ()) -> list[str]:
        """Run what is not finished; returns which stages that were."""
        self.ran, self.said = [], []
        watcher = Watcher(
            lambda *_: None, self.said.append, begin=lambda name, state: self.said.append(f"{name} {state}")
        )
        run_manifest(load_manifest("chain.toml", overrides), self.run.folder, watcher, again)
        return self.ran

    def loop(self, kind: str) -> Any:
        """What stands in for a kind's loop: it leaves what the kind does, and says so."""

        def work(stage: Any, settings: Any) -> dict[str, float]:
            if stage.name == self.stop_before:
                raise KeyboardInterrupt
            self.ran.append(stage.name)
            if KINDS[kind].leaves == "model":
                stage.folder.model.mkdir(exist_ok=True)
                (stage.folder.model / "model.safetensors").write_text(f"{stage.name} {self.salt}")
            if KINDS[kind].leaves == "list":
                (stage.folder.folder / "problems.jsonl").write_text("{}\n")
            return {"loss": 1.0}

        return work

    def at(self, name: str) -> StageFolder:
        """A stage's folder."""
        return next(StageFolder(place) for place in self.run.folder.iterdir() if place.name.startswith(f"{name}-"))

    def stopped_before(self, name: str) -> None:
        """Run as far as a stage, whose folder is begun."""
        self.stop_before = name
        with pytest.raises(KeyboardInterrupt):
            self.go()
        self.stop_before = ""


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """A chain that has not begun."""
    monkeypatch.chdir(tmp_path)
    made = Chain(tmp_path)
    monkeypatch.setattr(pipeline, "set_up", lambda *_: (torch.device("cpu"), Lanes(1)))
    monkeypatch.setattr(pipeline, "_loop", made.loop)
    return made


# --- what a stage's facts say -----------------------------------------------------------------------------------------


def test_a_stage_tells_its_manifest_its_parents_its_data_and_the_code_that_made_it(chain: Chain) -> None:
    chain.go()
    facts = {name: chain.at(name).facts() for name in NAMES}
    assert {told["manifest"] for told in facts.values()} == {"chain"}
    assert facts["tuned"]["data"] == {"data": sha256(chain.folder / "chats.jsonl")} and facts["base"]["data"] == {}
    assert facts["base"]["parents"] == [] and [p["name"] for p in facts["tax"]["parents"]] == ["base", "tuned", "zero"]
    model, listed = facts["zero"]["parents"]
    assert model == {
        "name": "tuned", "fingerprint": facts["tuned"]["fingerprint"], "folder": chain.at("tuned").folder.name,
        "left": {"weights": chain.at("tuned").weights()},
    }  # fmt: skip
    assert listed["left"] == {"problems.jsonl": sha256(chain.at("picked").folder / "problems.jsonl")}
    assert facts["zero"]["code"] == [pipeline.code()] and pipeline.code().keys() == {"version", "commit"}


def test_code_that_changes_on_the_way_is_told_and_recorded(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.stopped_before("zero")
    monkeypatch.setattr(pipeline, "code", lambda: {"version": "9.9", "commit": "abc"})
    chain.go()
    assert [code["version"] for code in chain.at("zero").facts()["code"]][1:] == ["9.9"]
    assert [line for line in chain.said if 'stage "zero" began with Seekling' in line and "on with 9.9 at abc" in line]
    assert chain.at("tax").facts()["code"] == [{"version": "9.9", "commit": "abc"}]


def test_a_list_that_was_changed_behind_the_run_is_told(chain: Chain) -> None:
    chain.stopped_before("zero")
    (chain.at("picked").folder / "problems.jsonl").write_text("{}\n{}\n")
    chain.go()
    assert [line for line in chain.said if 'the problems.jsonl of stage "picked" are not those it left' in line]


# --- what runs again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "again"),
    [("base.steps=3", NAMES), ("picked.problems=9", ["picked", "zero", "tax"]),
     ("tax.samples=9", ["tax"]), ("tax.also=['countdown']", ["tax"]), ("base.keep=9", []),
     ("zero.budget.flops=1e9", NAMES[3:])],
)  # fmt: skip
def test_a_changed_stage_and_its_dependants_run_again_and_no_other(chain: Chain, change: str, again: list[str]) -> None:
    assert chain.go() == NAMES and chain.go() == []
    assert chain.go(change) == again and chain.go() == [], "changed back, everything is there already"


def test_a_stage_can_be_made_again_alone(chain: Chain) -> None:
    chain.go()
    assert chain.go(again=["tuned", "tax"]) == ["tuned", "tax"]
    assert not [line for line in chain.said if "was made from" in line], "it left the same"
    chain.salt = "other"
    assert chain.go(again=["tuned"]) == ["tuned"]
    told = [line for line in chain.said if "was made from" in line]
    assert [name for name in NAMES if any(f'stage "{name}"' in line for line in told)] == ["picked", "zero", "tax"]
    with pytest.raises(UserError, match='no stage "tunde"') as letter:
        chain.go(again=["tunde"])
    assert "tuned" in letter.value.next_step


# --- what is gone -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["model", "", "problems.jsonl"])
def test_what_a_stage_would_read_and_is_gone_is_told_with_the_command_that_makes_it(chain: Chain, gone: str) -> None:
    chain.stopped_before("zero")
    name = "picked" if gone == "problems.jsonl" else "tuned"
    place = chain.at(name).folder / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(UserError, match=f'stage "zero" reads what stage "{name}" left, and it is gone') as letter:
        chain.go()
    assert chain.ran == [] and str(place) in letter.value.where, "told before any work"
    assert letter.value.next_step.endswith(f"seekling run {chain.run.folder} --again {name}")
    assert chain.go(again=[name]) == [name, "zero", "tax"] and chain.go() == []


def test_what_is_gone_and_nobody_needs_any_more_is_not_made_again(chain: Chain) -> None:
    chain.go()
    shutil.rmtree(chain.at("picked").folder)
    assert chain.go() == [] and [line for line in chain.said if line.startswith("picked gone")]
    assert chain.go("tax.samples=9") == ["tax"], "which does not read it"
    assert chain.go(again=["picked"]) == ["picked"]


def test_a_folder_that_nothing_read_is_one_that_has_not_begun(chain: Chain) -> None:
    chain.go()
    shutil.rmtree(chain.at("tax").folder)
    assert chain.go() == ["tax"]


# --- what a kind may read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "found", "fits"),
    [("eval", ["model"], True), ("eval", ["model"] * 7, True), ("eval", [], False), ("eval", ["model", "list"], False),
     ("grpo", ["model", "list"], True), ("grpo", ["model"] * 2, False), ("pretrain", [], True), ("sft", [], False)],
)  # fmt: skip
def test_a_way_that_ends_in_dots_takes_one_or_more(kind: str, found: list[str], fits: bool) -> None:
    assert reads(kind, found) is fits


def test_what_an_evaluation_reads_is_told_in_words() -> None:
    assert (
        told_reads("eval") == "a model or several"
        and told_reads("sft") == "a model, or a model and chats, or a model and chats and chats"
    )
