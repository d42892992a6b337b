"""Measure the whole chain of r1-tiny, seed by seed: what every stage scored and cost, and what a tenth of it bought.

    .venv/bin/python -m bench.r1_tiny [--seeds 0 1 2] [--problems 200] [--samples 16]     (a quarter of an hour each)

Each seed runs the shipped manifest with larger evaluations. A student's cost is the FLOPs of its own stage, its
teacher's sampling shown in and out; the chain's is that of every stage up to the teacher, evaluations left out. Writes
bench/results/r1-tiny.json anew after every seed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from bench.experiment import cost
from bench.zero_tiny import RUNS, head, seekling
from seekling.recipes.manifest import Manifest, load_manifest
from seekling.runlog.files import write_json
from seekling.runlog.ledger import kept, read_ledger
from seekling.runlog.run import StageFolder

RESULT = Path("bench/results/r1-tiny.json")
TEACHER, STUDENTS, TASKS = "rl2", ("dense", "sparse"), ("bilingual", "requests")
FIGURES = ("pass@1", "readable_rate", "entropy", "self_bleu")
SAID = ("teacher", "teacher_scoring")
"""What the ledger calls a teacher's part of a student's stage."""


def main() -> None:
    """Every seed, and the result file after each."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--problems", type=int, default=200)
    arguments.add_argument("--samples", type=int, default=16)
    asked = arguments.parse_args()
    rows = []
    for seed in asked.seeds:
        rows.append(measured(seed, asked.problems, asked.samples))
        print(json.dumps(rows[-1], indent=1), flush=True)
        about = head() | {"command": "python -m bench.r1_tiny", "problems": asked.problems, "samples": asked.samples}
        write_json(RESULT, about | {"seeds": rows})


def measured(seed: int, problems: int, samples: int) -> dict[str, Any]:
    """One seed."""
    sizes = [f"{stage}.{key}={value}" for stage in ("stages", "students")
             for key, value in (("problems", problems), ("samples", samples))]  # fmt: skip
    began = time.perf_counter()
    seekling("run", "r1-tiny", f"seed={seed}", *sizes, "--name", f"r1-{seed}")
    seconds = time.perf_counter() - began
    manifest, folder = load_manifest("r1-tiny", [f"seed={seed}", *sizes]), RUNS / f"r1-{seed}"
    chain = cost(manifest, folder, (TEACHER,))
    scores = {**scored(manifest, folder, "stages"), **scored(manifest, folder, "students")}
    return {
        "seed": seed, "seconds": round(seconds, 1), "chain": chain, "scores": scores,
        "costs": {stage.name: cost_of(manifest, folder, stage.name) for stage in manifest.stages},
        "students": {name: followed(manifest, folder, name, scores, chain["flops"]) for name in STUDENTS},
    }  # fmt: skip


def scored(manifest: Manifest, folder: Path, name: str) -> dict[str, dict[str, float]]:
    """Figures of every model that a stage evaluated, by model and ``task/figure``."""
    told = StageFolder(folder / manifest.folder_name(name)).facts()["figures"]
    found: dict[str, dict[str, float]] = {}
    for figure, value in told.items():
        model, _, rest = figure.partition("/")
        if rest.rpartition("/")[2] in FIGURES:
            found.setdefault(model, {})[rest] = round(value, 4)
    return found


def cost_of(manifest: Manifest, folder: Path, name: str) -> dict[str, float]:
    """What one stage cost, all it did."""
    costs = kept(read_ledger(folder), {manifest.folder_name(name)}).values()
    return {"flops": sum(one.flops for one in costs), "seconds": round(sum(one.seconds for one in costs), 1)}


def followed(
    manifest: Manifest, folder: Path, name: str, scores: dict[str, dict[str, float]], chain: float
) -> dict[str, float]:
    """What a student reached of its teacher, and for how much of the chain."""
    own = [e for e in read_ledger(folder) if e.folder == manifest.folder_name(name) and e.kind != "eval"]
    all_of_it = sum(entry.flops for entry in own)
    alone = sum(entry.flops for entry in own if entry.kind not in SAID)
    told = {"flops_share": all_of_it / chain, "flops_share_without_teacher": alone / chain}
    for task in TASKS:
        taught, teaches = (scores[who][f"{task}/pass@1"] for who in (name, TEACHER))
        told[f"{task}/accuracy_share"] = taught / teaches
        told[f"{task}/error_ratio"] = (1 - taught) / (1 - teaches) if teaches < 1 else float("inf")
    return {figure: round(value, 4) for figure, value in told.items()}


if __name__ == "__main__":
    main()
