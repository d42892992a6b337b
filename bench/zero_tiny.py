"""Measure zero-tiny: three seeds from nothing, held-out evaluation at full size, controls, cost. One command:

    .venv/bin/python -m bench.zero_tiny            (about half an hour on two cores; `make bench`)

Writes bench/results/zero-tiny.json. Each seed runs the shipped manifest as a person would (timed), then the same run
again with larger evaluations: its trained stages are finished and are not repeated.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from seekling.model.count import flops_per_token
from seekling.model.weights import read_config
from seekling.plan.machine import machine
from seekling.recipes.manifest import load_manifest
from seekling.recipes.pipeline import commit
from seekling.runlog.files import read_json, write_json
from seekling.runlog.ledger import read_ledger
from seekling.runlog.run import Run

RESULT = Path("bench/results/zero-tiny.json")
RUNS = Path("runs/bench")
FULL = ("base-eval", "zero-eval", "controls")
RISE = 0.15


def main() -> None:
    """Measure every seed and write the result file after each."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--problems", type=int, default=400)
    arguments.add_argument("--samples", type=int, default=8)
    arguments.add_argument("--without-verdicts", type=int, nargs="*", default=[0], help="seeds to repeat without them")
    asked = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in asked.seeds:
        row = measure(seed, asked.problems, asked.samples)
        if seed in asked.without_verdicts:
            row["without_verdicts"] = without_verdicts(seed, asked.problems, asked.samples)
        rows.append(row)
        write_json(RESULT, head() | {"problems": asked.problems, "samples": asked.samples, "seeds": rows})
        print(json.dumps(rows[-1], indent=1))


def head() -> dict[str, Any]:
    """What the figures stand on."""
    facts = machine()
    hardware = {"cpu": facts.cpu, "cores": facts.cores, "memory_bytes": facts.memory_bytes}
    settings = load_manifest("zero-tiny").head
    return {
        "hardware": hardware, "commit": commit(), "threads": settings.threads or facts.cores, "dtype": settings.dtype,
        "torch": torch.__version__, "command": "python -m bench.zero_tiny",
        "gflops_per_core": round(gflops_per_core(), 1),
    }  # fmt: skip


def measure(seed: int, problems: int, samples: int) -> dict[str, Any]:
    """One seed: the run as shipped, then its evaluations at full size."""
    began = time.perf_counter()
    seekling("run", "zero-tiny", f"seed={seed}", "--name", f"seed-{seed}")
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    folder = RUNS / f"seed-{seed}"
    rise = seconds_to_rise(folder)
    sizes = [
        f"{stage}.{key}={value}" for stage in FULL for key, value in (("problems", problems), ("samples", samples))
    ]
    steps = len(Run(folder).stage("zero").metrics())
    seekling("run", "zero-tiny", f"seed={seed}", *sizes, f"shuffled.steps={steps}", "--name", f"seed-{seed}")
    row = {"seed": seed, "seconds": round(seconds, 1), "seconds_to_rise": rise, "peak_memory_bytes": peak}
    return row | figures(folder)


def figures(folder: Path) -> dict[str, Any]:
    """What one seed's full-size evaluation says."""
    run = Run(folder)
    before, after = (read_json(run.stage(name).folder / "eval.json") for name in ("base-eval", "zero-eval"))
    controls = read_json(run.stage("controls").folder / "control.json")
    size = str(after["larger_size"])
    return {
        "blind_at_8": controls["blind_at_8"]["value"],
        "base": scored(before),
        "trained": scored(after),
        "controls": {n: {"pass_1": c["pass_1"]["value"], "interval": ends(c["pass_1"]), "tokens": c["tokens"]}
                     for n, c in controls["controls"].items()},
        "distinct_attempts": both(before, after, "distinct_attempts"),
        "attempts": both(before, after, "attempts"),
        "larger_size": {"size": int(size)} | both(before["by_size"], after["by_size"], size),
        "by_size": {size: both(before["by_size"], after["by_size"], size) for size in after["by_size"]},
        "tokens_per_core_s": token_costs(folder),
    }  # fmt: skip


def both(before: dict[str, Any], after: dict[str, Any], name: str) -> dict[str, float]:
    """One figure of the base and of the trained model."""
    return {"base": before[name]["value"], "trained": after[name]["value"]}


def scored(evaluation: dict[str, Any]) -> dict[str, Any]:
    """pass@1 with its interval, and mean tokens."""
    first = evaluation["pass_at_k"]["1"]
    return {"pass_1": first["value"], "interval": ends(first), "tokens": evaluation["mean_tokens"]["value"]}


def ends(interval: dict[str, float]) -> list[float]:
    """The two ends of an interval."""
    return [interval["low"], interval["high"]]


def without_verdicts(seed: int, problems: int, samples: int) -> dict[str, float]:
    """The same chain with the verdict traces left out of the text: pass@1 before and after."""
    name = f"no-verdicts-{seed}"
    sizes = [f"{s}.{k}={v}" for s in FULL[:2] for k, v in (("problems", problems), ("samples", samples))]
    small = ["shuffled.steps=1", "controls.problems=16", "controls.samples=2"]
    seekling("run", "zero-tiny", f"seed={seed}", "base.text.verdicts=false", *sizes, *small, "--name", name)
    run = Run(RUNS / name)
    before, after = (read_json(run.stage(stage).folder / "eval.json") for stage in ("base-eval", "zero-eval"))
    return {"base": before["pass_at_k"]["1"]["value"], "trained": after["pass_at_k"]["1"]["value"]}


def seconds_to_rise(folder: Path) -> float | None:
    """Metered seconds from the start until the mean reward of five steps exceeds that of the first five by RISE."""
    run = Run(folder)
    records = run.stage("zero").metrics()
    rewards = [record.metrics["reward"] for record in records]
    first = sum(rewards[:5]) / 5
    for step in range(9, len(rewards)):
        if sum(rewards[step - 4 : step + 1]) / 5 >= first + RISE:
            before = sum(entry.seconds for entry in read_ledger(folder) if entry.stage == "base")
            upto = sum(e.seconds for e in read_ledger(folder) if e.stage == "zero" and e.step <= step)
            return round(before + upto, 1)
    return None


def token_costs(folder: Path) -> dict[str, float]:
    """Tokens per core-second, trained (base) and generated (zero), beside the floor of the arithmetic alone."""
    run = Run(folder)
    threads = int(run.facts()["sessions"][0]["threads"])
    config = read_config(run.stage("base").model)
    rate = gflops_per_core() * 1e9
    entries = read_ledger(folder)
    spent = {"trained": ("base", "train"), "generated": ("zero", "generate")}
    costs = {}
    for name, (stage, kind) in spent.items():
        own = [e for e in entries if e.stage == stage and e.kind == kind]
        costs[name] = round(sum(e.tokens for e in own) / sum(e.seconds for e in own) / threads, 1)
    costs["floor_trained"] = round(rate / flops_per_token(config, 16, training=True, mtp=True), 1)
    costs["floor_generated"] = round(rate / flops_per_token(config, 16, training=False), 1)
    return costs


def gflops_per_core(size: int = 1024, repeats: int = 20, dtype: torch.dtype = torch.float32) -> float:
    """A matrix product on one thread, the best of several: what the arithmetic could reach."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return 2 * size**3 / min(times) / 1e9


def seekling(*words: str) -> None:
    """Run the command line in a process of its own, as a person would."""
    subprocess.run([sys.executable, "-m", "seekling.cli.main", *words, "--runs", str(RUNS)], check=True)


if __name__ == "__main__":
    main()
