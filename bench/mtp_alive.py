"""Does a prediction layer still draft after the model has been tuned and reinforced? Minutes on two cores:

    .venv/bin/python -m bench.mtp_alive [--seeds 0 1]

A tiny model learns two tokens at a time from nothing; then it is fine-tuned, and, from the same base, reinforced. Each
is done twice, with ``mtp_weight`` as it stands and with 0. ``acceptance``: the share of what a model says on held-out
problems, token by token its likeliest, that its own prediction layer foresaw two tokens before: drafts that are kept.
``same_trunk``: both ways leave the same weights to the bit, the layer's own apart. Writes bench/results/mtp-alive.json.
"""

from __future__ import annotations

import argparse
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from bench.zero_tiny import RUNS, head, seekling
from seekling.engine.config import Sampling
from seekling.learn.ahead import look_ahead, of_layer
from seekling.learn.batch import pack, text_of
from seekling.model.weights import load_model
from seekling.recipes.policy import Policy, sample_groups
from seekling.runlog.files import write_json
from seekling.runlog.run import Run
from seekling.tasks.protocol import problems
from seekling.tasks.registry import build_task

RESULT = Path("bench/results/mtp-alive.json")
TASK = {"name": "arithmetic", "sizes": [3, 4]}
WITHOUT = ("tuned.mtp_weight=0", "zero.mtp_weight=0")
BASE = """[[stage]]
name = "base"
kind = "pretrain"
task = { name = "arithmetic", sizes = [3, 4] }
model = { preset = "tiny-v3", vocab_size = 320 }
steps = 400
tokens_per_step = 2048
text = { facts = 0.35 }
packing = { row_tokens = 64 }
"""
"""A tiny model that learns two tokens at a time from nothing."""

MANIFEST = f"""format = 1
name = "mtp-alive"

{BASE}
[[stage]]
name = "tuned"
kind = "sft"
from = "base"
task = {{ name = "arithmetic", sizes = [3, 4] }}
steps = 100
tokens_per_step = 1024
optim = {{ lr = 1e-3 }}
packing = {{ row_tokens = 64 }}

[[stage]]
name = "zero"
kind = "grpo"
from = "base"
task = {{ name = "arithmetic", sizes = [3, 4] }}
steps = 60
rubric = {{ accuracy = 0.6, fresh = 0.4 }}
sampling = {{ max_tokens = 48 }}
optim = {{ matrices = "adamw", lr = 3e-4, warmup_steps = 5 }}
packing = {{ row_tokens = 64 }}
held_out_every = 0
kl_every = 0
"""


def main() -> None:
    """Measure every seed and write the result file after each."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    asked = arguments.parse_args()
    rows = []
    for seed in asked.seeds:
        rows.append(measure(seed))
        print(rows[-1], flush=True)
        write_json(RESULT, head() | {"command": "python -m bench.mtp_alive", "seeds": rows})


def measure(seed: int) -> dict[str, Any]:
    """One seed: acceptance before, after, and after without."""
    folder, file = RUNS / f"mtp-alive-{seed}", RUNS / "mtp-alive.toml"
    shutil.rmtree(folder, ignore_errors=True)  # a finished run would be read, however old its code
    RUNS.mkdir(parents=True, exist_ok=True)
    file.write_text(MANIFEST)
    found: dict[str, list[Path]] = {"tuned": [], "zero": []}
    for settings in ((), WITHOUT):  # the base is not repeated
        seekling("run", str(file), f"seed={seed}", *settings, "--name", folder.name)
        for name, models in found.items():
            models.append(Run(folder).stage(name).model)
    row: dict[str, Any] = {"seed": seed, "before": acceptance(Run(folder).stage("base").model)}
    for name, (alive, left) in found.items():
        row[name] = {"after": acceptance(alive), "without": acceptance(left), "same_trunk": same_trunk(alive, left)}
    return row


def acceptance(model: Path, num_problems: int = 256) -> float:
    """Of a folder's model, on what it says itself."""
    policy = Policy.load(model, torch.device("cpu"))
    asked = list(islice(problems(build_task(TASK), "held_out", "mtp-alive", distinct=True), num_problems))
    groups = sample_groups(policy, asked, 1, Sampling(max_tokens=48, temperature=0), "mtp-alive")
    batch = pack([text_of(rollout, replay=False) for group in groups for rollout in group.rollouts], 128)
    with torch.no_grad():
        sums = look_ahead(policy.model, batch, policy.model(batch.rows).states_BTD).sums
    return round(of_layer({name: float(value) for name, value in sums.items()})["mtp_acceptance"], 4)


def same_trunk(first: Path, second: Path) -> bool:
    """Whether two models differ in nothing but their prediction layers."""
    ours, theirs = (load_model(model).state_dict() for model in (first, second))
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items() if not name.startswith("mtp."))


if __name__ == "__main__":
    main()
