"""Grow a model from nothing on families outside arithmetic, seed after seed. One command, hours on two cores:

    .venv/bin/python -m bench.from_nothing [--only maze nim] [--seeds 0 1 2]

Runs each ``zero-<family>`` manifest as it ships, a seed at a time, and writes bench/results/from-nothing.json anew
after every one: pass@1 of base and trained model with intervals, the controls, a size never trained on, and the curve
of the reward. A run that is finished is read, not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.zero_tiny import both, ends, head, scored, seekling
from seekling.runlog.files import read_json, write_json
from seekling.runlog.ledger import read_ledger
from seekling.runlog.run import Run

RESULT = Path("bench/results/from-nothing.json")
RUNS = Path("runs/bench")
FAMILIES = ("letters", "sorting", "maze", "nim", "table", "boolean")


def main() -> None:
    """Measure what is asked and merge it into the result file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = arguments.parse_args()
    for seed in asked.seeds:
        for family in asked.only:
            row = measure(family, seed)
            print(family, seed, row["base"]["pass_1"], "->", row["trained"]["pass_1"], flush=True)
            merge(family, row)


def merge(family: str, row: dict[str, Any]) -> None:
    """Put one seed's row into the result file, in the place of an earlier one; families stand as in ``FAMILIES``.

    A run that is only read may be older than the code that reads it: a row keeps its own commit, machine and threads.
    """
    told = read_json(RESULT) if RESULT.exists() else {"families": {}}
    rows = {kept["seed"]: kept for kept in told["families"].get(family, [])} | {row["seed"]: row}
    known = told["families"] | {family: [rows[seed] for seed in sorted(rows)]}
    families = {name: known[name] for name in FAMILIES if name in known}
    asked = {key: row.pop(key) for key in ("problems", "samples")}
    shared = {key: value for key, value in head().items() if key in ("dtype", "torch")}
    write_json(RESULT, shared | asked | {"command": "python -m bench.from_nothing", "families": families})


def measure(family: str, seed: int) -> dict[str, Any]:
    """One seed of one family: run it, or read it where it is done."""
    name = f"{family}-{seed}"
    seekling("run", f"zero-{family}", f"seed={seed}", "--name", name)
    run = Run(RUNS / name)
    before, after = (read_json(run.stage(stage).folder / "eval.json") for stage in ("base-eval", "zero-eval"))
    controls = read_json(run.stage("controls").folder / "control.json")
    size, session = str(after["larger_size"]), run.facts()["sessions"][0]
    records = run.stage("zero").metrics()
    return {
        "seed": seed,
        "commit": run.facts()["commit"][:12],
        "threads": session["threads"],
        "cpu": session["hardware"]["cpu"],
        "problems": after["problems"],
        "samples": after["samples"],
        "seconds": round(sum(stage.facts().get("seconds", 0.0) for stage in run.current()), 1),
        "tokens": sum(entry.tokens for entry in read_ledger(RUNS / name)),
        "base": scored(before),
        "trained": scored(after),
        "by_size": {known: both(before["by_size"], after["by_size"], known) for known in after["by_size"]},
        "larger_size": int(size),
        "controls": {
            control: {"pass_1": row["pass_1"]["value"], "interval": ends(row["pass_1"])}
            for control, row in controls["controls"].items()
        },
        "blind_at_8": controls["blind_at_8"]["value"],
        "rewards": [round(record.metrics["reward"], 4) for record in records],
        "held_out": {r.step: round(r.metrics["held_out_pass"], 4) for r in records if "held_out_pass" in r.metrics},
        "response_length": [round(record.metrics["response_length"], 2) for record in records],
    }


if __name__ == "__main__":
    main()
