"""Every policy objective from one shared base, seed after seed, on zero-tiny's task. One command, about half an hour:

    .venv/bin/python -m bench.objectives [--only grpo dapo] [--seeds 0 1 2] [--steps 40]

Grows zero-tiny's base once, then reinforces it with each named objective and evaluates the result, all in one run
directory, and writes bench/results/objectives.json anew after every one: steps until the pass rate has risen by 25
points, held-out pass@1 with its interval, the curve. Two updates share a batch of rollouts, so that ratios and clips
have something to do. A stage that is finished is read, not repeated.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from bench.zero_tiny import head, scored, seekling
from seekling.learn.presets import OBJECTIVES
from seekling.recipes.manifest import load_manifest
from seekling.runlog.files import read_json, write_json
from seekling.runlog.run import Run

RESULT = Path("bench/results/objectives.json")
RUN = Path("runs/bench/objectives")
RISE = 0.25
WINDOW = 3
"""Steps that a point of the curve is a mean of, where it is asked whether it has risen."""


def main() -> None:
    """Reinforce with what is asked, and write the result file after each."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="+", default=list(OBJECTIVES), choices=list(OBJECTIVES))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--steps", type=int, default=40)
    asked = arguments.parse_args()
    pairs = [(objective, seed) for seed in asked.seeds for objective in asked.only]
    for count in range(len(pairs) + 1):
        run_manifest(pairs[:count], asked.steps)
        write_json(RESULT, head() | told(pairs[:count], asked.steps))


def run_manifest(pairs: list[tuple[str, int]], steps: int) -> None:
    """Write the manifest of these objectives and seeds, and run what of it is not finished."""
    stages = load_manifest("zero-tiny").to_toml().split("[[stage]]\n")
    base = next(stage for stage in stages if stage.startswith('name = "base"'))
    text = "\n".join(["format = 1", 'name = "objectives"', "seed = 0", "[[stage]]", base, evaluation("base")])
    text += "".join(reinforced(objective, seed, steps) for objective, seed in pairs)
    file = RUN.with_suffix(".toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    seekling("run", str(file), "--name", RUN.name)


def reinforced(objective: str, seed: int, steps: int) -> str:
    """A stage and its evaluation. Its name is its seed: every draw of a stage derives from it."""
    name = stage_name(objective, seed)
    return f"""
[[stage]]
name = "{name}"
kind = "grpo"
from = "base"
task = {{ name = "arithmetic", sizes = [3, 4, 5] }}
steps = {steps}
minibatches = 2
objective = "{objective}"
sampling = {{ max_tokens = 48 }}
optim = {{ matrices = "adamw", lr = 3e-4, warmup_steps = 5 }}
packing = {{ row_tokens = 64 }}
held_out_every = 0
{evaluation(name)}"""


def evaluation(name: str) -> str:
    """128 held-out problems, eight rollouts each."""
    return f"""
[[stage]]
name = "{name}-eval"
kind = "eval"
from = "{name}"
task = {{ name = "arithmetic", sizes = [3, 4, 5] }}
problems = 128
samples = 8
sampling = {{ max_tokens = 48 }}
"""


def stage_name(objective: str, seed: int) -> str:
    """``reinforce++`` with seed 1 -> ``reinforcepp-1``."""
    return re.sub(r"[^a-z0-9]", "-", objective.replace("+", "p")) + f"-{seed}"


def told(pairs: list[tuple[str, int]], steps: int) -> dict[str, Any]:
    """What the finished stages say."""
    run = Run(RUN)
    base = scored(read_json(run.stage("base-eval").folder / "eval.json"))
    rows: dict[str, list[dict[str, Any]]] = {}
    for objective, seed in pairs:
        rows.setdefault(objective, []).append(row(run, objective, seed, base["pass_1"]))
    about = {"command": "python -m bench.objectives", "steps": steps, "updates_per_step": 2, "rise": RISE}
    return about | {"base": base, "objectives": rows}


def row(run: Run, objective: str, seed: int, base: float) -> dict[str, Any]:
    """One objective, one seed: where it came to, how soon, and how far the policy moved on the way."""
    name = stage_name(objective, seed)
    records = run.stage(name).metrics()
    rates = [record.metrics["pass_rate"] for record in records]
    means = [sum(rates[at - WINDOW : at]) / WINDOW for at in range(WINDOW, len(rates) + 1)]
    risen = next((at + WINDOW for at, mean in enumerate(means) if mean >= base + RISE), None)
    return {
        "seed": seed,
        "steps_to_rise": risen,
        "trained": scored(read_json(run.stage(f"{name}-eval").folder / "eval.json")),
        "pass_rates": [round(rate, 4) for rate in rates],
        "entropy": [round(record.metrics["entropy"], 4) for record in records],
        "clip_ratio": round(sum(record.metrics["clip_ratio"] for record in records) / len(records), 5),
        "seconds": round(sum(record.seconds for record in records), 1),
    }


if __name__ == "__main__":
    main()
