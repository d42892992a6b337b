"""A comparison whose question, rule and budget were written down before it ran. One command:

    .venv/bin/python -m bench.experiment cold-start

bench/registered/NAME.toml says what is asked, which arms (overrides of one manifest) are run with which seeds, which
figure decides, and the smallest difference that would matter. It must be committed, as it stands, before anything runs:
the result carries its commit. Arms of a seed share a run, so that what they have in common is made once. Writes
bench/results/NAME.json anew after every arm; an arm that is finished is read, not repeated.

A comparison's difference is paired by seed, with Student's interval of 95 %. The verdict is "yes" where all of it lies
above the smallest difference that matters, "no" where all of it lies below, else "cannot tell at this scale".
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from bench.zero_tiny import RUNS, head, seekling
from seekling.config import Settings, Source, parse
from seekling.errors import UserError
from seekling.recipes.manifest import Manifest, load_manifest
from seekling.runlog.files import write_atomic, write_json
from seekling.runlog.ledger import kept, read_ledger
from seekling.runlog.run import StageFolder

PLACE, RESULTS = Path("bench/registered"), Path("bench/results")
WITHOUT = ("eval",)
"""What the ledger calls work that is not part of an arm's cost."""
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t, two-sided 95 %, of 1 to 9 degrees of freedom."""


class Arm(Settings):
    """One way to run the manifest."""

    name: str
    overrides: tuple[str, ...] = ()


class Comparison(Settings):
    """Which arm is thought to do better than which."""

    better: str
    than: str


class Registered(Settings):
    """What was written down before."""

    question: str
    hypothesis: str
    manifest: str
    overrides: tuple[str, ...] = Field((), description="of every arm")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=2)
    figures: tuple[str, ...] = Field(min_length=1, description='"stage:figure"; the first decides')
    smallest: float = Field(gt=0, description="the smallest difference of that figure that would matter")
    budget: str = Field(description="what is held equal, in words")
    upto: tuple[str, ...] = Field(min_length=1, description="stages whose cost, with all they read, is an arm's")
    arm: tuple[Arm, ...] = Field(min_length=2)
    compare: tuple[Comparison, ...] = Field(min_length=1)


def main() -> None:
    """Every seed and arm, in turn."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("name", choices=sorted(file.stem for file in PLACE.glob("*.toml")))
    name = arguments.parse_args().name
    file = PLACE / f"{name}.toml"
    asked, commit = read(file), committed(file)
    rows: list[dict[str, Any]] = []
    for seed in asked.seeds:
        for arm in asked.arm:
            rows.append(ran(asked, arm, seed, f"{name}-{seed}"))
            print(json.dumps(rows[-1]), flush=True)
            about = head() | {"command": f"python -m bench.experiment {name}", "registered": commit}
            write_json(RESULTS / f"{name}.json", about | told(asked, rows))


def read(file: Path) -> Registered:
    """What was registered. Raises UserError for what cannot be read or compared."""
    source = Source.read(file)
    asked = parse(Registered, source.values(), source=source)
    known = {arm.name for arm in asked.arm}
    for pair in asked.compare:
        if missing := {pair.better, pair.than} - known:
            raise UserError(f"{file} compares arms that it does not have: {', '.join(sorted(missing))}")
    return asked


def committed(file: Path) -> str:
    """The commit that wrote it down. Raises UserError where it is not committed as it stands."""
    changed, found = (
        subprocess.run(["git", *words, "--", str(file)], capture_output=True, text=True, check=False).stdout.strip()
        for words in (["status", "--porcelain"], ["log", "-1", "--format=%h"])
    )
    if changed or not found:
        raise UserError(f"{file} is not committed as it stands", next_step="Commit it first: its date is its worth.")
    return found


def ran(asked: Registered, arm: Arm, seed: int, run: str) -> dict[str, Any]:
    """Run one arm. Its figures, and what its stages cost without evaluations."""
    overrides = [*asked.overrides, *arm.overrides, f"seed={seed}"]
    manifest, folder = load_manifest(asked.manifest, overrides), RUNS / run
    wanted = behind(manifest, [*(figure.partition(":")[0] for figure in asked.figures), *asked.upto])
    file = folder.with_suffix(".toml")
    write_atomic(file, replace(manifest, stages=tuple(s for s in manifest.stages if s.name in wanted)).to_toml())
    seekling("run", str(file), "--name", run)
    values = {}
    for figure in asked.figures:
        stage, _, name = figure.partition(":")
        values[figure] = StageFolder(folder / manifest.folder_name(stage)).facts()["figures"][name]
    return {"arm": arm.name, "seed": seed, "figures": values, **cost(manifest, folder, asked.upto)}


def behind(manifest: Manifest, names: Sequence[str]) -> set[str]:
    """These stages and all that they read."""
    wanted, left = set[str](), list(names)
    while left:
        name = left.pop()
        wanted.add(name)
        left += [source for source in manifest.stage(name).sources if source not in wanted]
    return wanted


def cost(manifest: Manifest, folder: Path, upto: tuple[str, ...]) -> dict[str, float]:
    """FLOPs and metered seconds of the named stages and all that they read."""
    wanted = behind(manifest, upto)
    entries = [entry for entry in read_ledger(folder) if entry.kind not in WITHOUT]
    costs = kept(entries, {manifest.folder_name(name) for name in wanted}).values()
    return {"flops": sum(one.flops for one in costs), "seconds": round(sum(one.seconds for one in costs), 1)}


def told(asked: Registered, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What was asked, what was found, and the verdicts so far."""
    plain = asked.model_dump(mode="json", exclude={"arm", "compare"})
    return plain | {
        "arms": {arm.name: list(arm.overrides) for arm in asked.arm}, "rows": rows,
        "verdicts": [pair.model_dump() | verdict(asked, pair, rows) for pair in asked.compare],
    }  # fmt: skip


def verdict(asked: Registered, pair: Comparison, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The difference of the deciding figure, paired by seed, and what the rule makes of it."""
    found = {(row["arm"], row["seed"]): float(row["figures"][asked.figures[0]]) for row in rows}
    both = [seed for seed in asked.seeds if (pair.better, seed) in found and (pair.than, seed) in found]
    differences = np.array([found[pair.better, seed] - found[pair.than, seed] for seed in both])
    if len(differences) < 2:
        return {"seeds": len(differences), "verdict": "not run"}
    half = t_95(len(differences) - 1) * float(differences.std(ddof=1)) / math.sqrt(len(differences))
    mean = float(differences.mean())
    return {
        "seeds": len(differences), "difference": mean, "interval": [mean - half, mean + half],
        "detectable": half, "verdict": ruled(mean - half, mean + half, asked.smallest),
    }  # fmt: skip


def ruled(low: float, high: float, smallest: float) -> str:
    """The rule."""
    if low > smallest:
        return "yes"
    return "no" if high < smallest else "cannot tell at this scale"


def t_95(freedom: int) -> float:
    """Student's t of so many degrees of freedom; beyond nine that of nine, which is a little too wide."""
    return T_95[min(freedom, len(T_95)) - 1]


if __name__ == "__main__":
    main()
