"""Seconds of a GRPO step against TRL: same model, prompts, rewards, rollouts, updates. Minutes on two idle cores:

    .venv/bin/python -m bench.grpo_step            (needs .venv-trl: trl 1.16.0 with the same torch)

A tiny dense model (Qwen3's shape, 256 wide, 6 layers), 8 problems x 8 rollouts of at most 64 tokens, one update of
AdamW, loss and rewards alike; both sides load one folder. Rewards are a function that both call: TRL's signature.
Writes bench/results/grpo-step.json: medians of the steps after the first two, side by side, and the floor: what the
FLOPs of a step take at the speed of a matrix product on these cores. float32 is compared with float32, our bfloat16
with TRL as it comes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

from bench.zero_tiny import gflops_per_core, head, seekling
from seekling.runlog.files import write_json
from seekling.runlog.run import Run

RESULT = Path("bench/results/grpo-step.json")
RUNS = Path("runs/bench")
TRL = Path(".venv-trl/bin/python")
AGAINST = {"float32": "float32", "bfloat16": "default"}
"""Our precision, and TRL's: its default is bfloat16 autocast where the device can."""
REWARDS = '''"""Half of what is said earns: whichever its length decides."""


def odd(completions, **kwargs):
    return [float(len(text) % 2) for text in completions]
'''
MANIFEST = """format = 1
name = "grpo-step"
seed = 0
dtype = "{dtype}"

[[stage]]
name = "base"
kind = "pretrain"
task = "arithmetic"
steps = 1
packing = {{ row_tokens = 128 }}
[stage.model]
model_type = "qwen3"
vocab_size = 512
hidden_size = 256
intermediate_size = 640
num_hidden_layers = 6
num_attention_heads = 8
num_key_value_heads = 8
head_dim = 32
max_position_embeddings = 256

[[stage]]
name = "zero"
kind = "grpo"
from = "base"
task = "arithmetic"
steps = {steps}
problems_per_step = 8
rollouts_per_problem = 8
objective = "grpo"
rubric = {{ accuracy = 0, "{rewards}:odd" = 1.0 }}
sampling = {{ max_tokens = 64 }}
optim = {{ matrices = "adamw", lr = 1e-6, warmup_steps = 0 }}
packing = {{ row_tokens = 128 }}
held_out_every = 0
kl_every = 0
"""


def main() -> None:
    """Measure both sides in turn and write what they took."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=12)
    asked = arguments.parse_args()
    rows = {f"seekling {dtype}": ours(dtype, asked.steps) for dtype in AGAINST}
    rows |= {f"trl {how}": theirs(RUNS / "grpo-step-float32", asked.steps, how) for how in AGAINST.values()}
    floor = rows["seekling float32"]["flops"] / (gflops_per_core() * 1e9 * head()["threads"])
    ratios = {
        dtype: round(rows[f"trl {how}"]["seconds"] / rows[f"seekling {dtype}"]["seconds"], 3)
        for dtype, how in AGAINST.items()
    }
    about = head() | {"command": "python -m bench.grpo_step", "steps": asked.steps, "floor_s": round(floor, 4)}
    write_json(RESULT, about | {"rows": rows, "times_faster_than_trl": ratios})
    print(json.dumps({"rows": rows, "ratios": ratios, "floor_s": floor}, indent=1))


def ours(dtype: str, steps: int) -> dict[str, float]:
    """Seconds and tokens of a step, from the run's own log."""
    name = f"grpo-step-{dtype}"
    shutil.rmtree(RUNS / name, ignore_errors=True)  # a finished run would be read, however old its code
    (RUNS / name).parent.mkdir(parents=True, exist_ok=True)
    rewards, file = RUNS / "odd_rewards.py", RUNS / f"{name}.toml"
    rewards.write_text(REWARDS)
    file.write_text(MANIFEST.format(dtype=dtype, steps=steps, rewards=rewards.resolve()))
    seekling("run", str(file), "--name", name)
    records = Run(RUNS / name).stage("zero").metrics()[2:]
    return {
        "seconds": round(median(record.seconds for record in records), 4),
        "completion_tokens": round(median(64 * record.metrics["response_length"] for record in records), 1),
        "flops": median(record.flops for record in records),
    }


def theirs(run: Path, steps: int, precision: str) -> dict[str, Any]:
    """The same of TRL, in its own environment."""
    told = subprocess.run(
        [str(TRL), "-P", "bench/peers/trl_step.py", str(Run(run).stage("base").model), str(steps), precision],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
