"""What the end-to-end tests read from run directories, and the laws two of them must obey together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seekling.runlog.files import read_lines
from seekling.runlog.ledger import Cost, kept, read_ledger, spent, total
from seekling.runlog.run import Run, StageFolder


def only(folder: Path, *names: str) -> Path:
    """Cut toy.toml in ``folder`` down to the stages called ``names``. Returns the folder."""
    head, *stages = (folder / "toy.toml").read_text().split("[[stage]]")
    wanted = [stage for stage in stages if any(f'name = "{name}"' in stage for name in names)]
    (folder / "toy.toml").write_text("[[stage]]".join([head, *wanted]))
    return folder


def stage(run: Path, name: str) -> StageFolder:
    """A stage of the run's manifest."""
    return Run(run).stage(name)


def copied(run: Path, target: Path) -> Path:
    """A copy of a folder with runs in it."""
    shutil.copytree(run, target)
    return target


def metrics(stage_folder: Path) -> list[tuple[int, int, float, dict[str, Any]]]:
    """(step, tokens, FLOPs, figures) of every step, without what a clock says."""
    timeless = [(r.step, r.tokens, r.flops, dict(r.metrics)) for r in StageFolder(stage_folder).metrics()]
    for *_, figures in timeless:
        figures.pop("tokens_per_s", None)
    return timeless


def newest_checkpoint(stage_folder: Path) -> dict[str, bytes]:
    """Every byte from which a stage would go on: weights, biases, optimizer, what its guard remembers, its best."""
    found = sorted((stage_folder / "checkpoints").glob("step-*"))
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for place in found[-1:] for file in place.iterdir()}


def work(costs: dict[str, Cost]) -> dict[str, tuple[int, float]]:
    """Tokens and FLOPs per stage."""
    return {name: (cost.tokens, cost.flops) for name, cost in costs.items()}


def assert_same_result(run: Path, uninterrupted: Path) -> None:
    """Weights, tokenizer, journal and evaluations to the byte, metrics and kept work exactly."""
    names = Run(uninterrupted).folders()
    assert Run(run).folders() == names
    for name in names:
        ours, theirs = run / name, uninterrupted / name
        for file in ("model/model.safetensors", "model/config.json", "model/tokenizer.json", "rollouts.jsonl"):
            assert (ours / file).exists() == (theirs / file).exists(), f"{name}/{file}"
            assert not (theirs / file).exists() or (ours / file).read_bytes() == (theirs / file).read_bytes(), file
        for file in ("eval.json", "control.json"):
            assert not (theirs / file).exists() or (ours / file).read_bytes() == (theirs / file).read_bytes(), file
        assert newest_checkpoint(ours) == newest_checkpoint(theirs), name
        assert metrics(ours) == metrics(theirs), name
        assert StageFolder(ours).facts()["figures"] == StageFolder(theirs).facts()["figures"], name
        assert StageFolder(ours).facts()["state"] == "done"
    assert_ledger_adds_up(run)
    whole = read_ledger(uninterrupted)
    assert work(kept(read_ledger(run), names)) == work(kept(whole, names)), "kept differs from the uninterrupted run"


def assert_ledger_adds_up(run: Path) -> None:
    """spent >= kept per stage, and parts sum to totals, counted here from the bare lines."""
    entries, folders = read_ledger(run), Run(run).folders()
    paid, in_result = spent(entries), kept(entries, folders)
    for name, cost in in_result.items():
        assert paid[name].tokens >= cost.tokens and paid[name].flops >= cost.flops
    lines = list(read_lines(run / "ledger.jsonl"))
    assert total(paid).tokens == sum(line["tokens"] for line in lines)
    last = {(line["folder"], line["step"], line["kind"]): line for line in lines if line["folder"] in folders}
    assert total(in_result).tokens == sum(line["tokens"] for line in last.values())


def assert_whole_lines(file: Path) -> None:
    """Every line of a JSONL file is JSON, the last one too."""
    text = file.read_text()
    assert text.endswith("\n")
    for line in text.splitlines():
        json.loads(line)


def seconds_of(entries: Sequence[Any], folder: str) -> float:
    """What the ledger says a stage's folder took."""
    return sum(entry.seconds for entry in entries if entry.folder == folder)
