"""The ledger: spent counts what was done, kept what is in the result, and parts add up."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from seekling.runlog.ledger import Cost, Entry, Ledger, kept, read_ledger, spent, total

FOLDERS = ("base-1", "base-2", "zero-1")


def entry(folder: str, step: int, kind: str = "train", tokens: int = 10, session: int = 0) -> Entry:
    return Entry(folder.partition("-")[0], session, step, kind, tokens, 2.0 * tokens, 0.5, folder)


def test_a_repeated_step_is_spent_twice_and_kept_once() -> None:
    entries = [entry("base-1", 0), entry("base-1", 1), entry("base-1", 1, session=1, tokens=12)]
    assert spent(entries)["base"] == Cost(32, 64.0, 1.5)
    assert kept(entries, {"base-1"})["base"] == Cost(22, 44.0, 1.0), "the last execution is the one in the result"


def test_a_changed_stage_is_spent_but_not_kept() -> None:
    entries = [entry("base-1", 0), entry("base-1", 1), entry("base-2", 0)]
    assert spent(entries)["base"].tokens == 30
    assert kept(entries, {"base-2"})["base"].tokens == 10
    assert kept(entries, {"base-1"})["base"].tokens == 20, "changed back, the old work counts again"


def test_kinds_of_one_step_are_kept_apart() -> None:
    entries = [entry("zero-1", 0, "generate", 7), entry("zero-1", 0, "train", 5), entry("zero-1", 0, "eval", 3)]
    assert kept(entries, FOLDERS)["zero"].tokens == 15


entries = st.lists(
    st.builds(
        entry, st.sampled_from(FOLDERS), st.integers(0, 4), st.sampled_from(("train", "generate")), st.integers(0, 99)
    )
)


@given(entries, st.sets(st.sampled_from(FOLDERS)))
def test_parts_add_up_and_kept_never_exceeds_spent(made: list[Entry], folders: set[str]) -> None:
    paid, result = spent(made), kept(made, folders)
    assert total(paid) == sum(made, Cost())
    assert all(cost.tokens <= paid[stage].tokens and cost.flops <= paid[stage].flops for stage, cost in result.items())
    last = {(e.folder, e.step, e.kind): e for e in made if e.folder in folders}
    assert total(result).tokens == sum(e.tokens for e in last.values())


def test_entries_come_back_in_the_order_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    written = [entry("base-1", step) for step in range(3)]
    for one in written:
        ledger.append(one)
    ledger.close()
    assert read_ledger(tmp_path) == written


def test_a_ledger_from_before_folders_were_named_is_still_read(tmp_path: Path) -> None:
    line = asdict(entry("base-1", 0))
    del line["folder"]
    (tmp_path / "ledger.jsonl").write_text(json.dumps(line) + "\n")
    assert spent(read_ledger(tmp_path))["base"].tokens == 10
