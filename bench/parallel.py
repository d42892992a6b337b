"""Tokens a second of updates and of rollouts by one process and by two, on this machine's CPU. Minutes:

    .venv/bin/python -m bench.parallel

Writes bench/results/parallel.json. Every arm is the same work: a model of DeepSeek-V3's kind, the same texts, the same
prompts, in float32 with one thread for each process or lane. Arms are measured in turn, ``--rounds`` times, and the
median is told; start-up is left out. ``lanes`` is what a CPU has without processes: two slices side by side in one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.zero_tiny import head
from seekling.runlog.files import read_json, write_json
from seekling.workers import crew

RESULT = Path("bench/results/parallel.json")
ARMS: dict[str, dict[str, Any]] = {
    "one": {"processes": 1, "lanes": 1, "spread": False},
    "lanes": {"processes": 1, "lanes": 2, "spread": False},
    "two": {"processes": 2, "lanes": 1, "spread": False},
    "two_experts": {"processes": 2, "lanes": 1, "spread": True},
}
WORK: dict[str, Any] = {"hidden": 256, "layers": 4, "experts": 16, "vocab": 2048, "rows": 16, "row_tokens": 256,
                        "passes": 2, "steps": 4, "prompts": 64, "said": 64}  # fmt: skip


def main() -> None:
    """Measure every arm in turn and write the result file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--set", nargs="*", default=[], help="e.g. hidden=64 steps=1, to try the script")
    arguments.add_argument("--member", nargs=2, help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.member:
        return work(json.loads(asked.member[0]), Path(asked.member[1]))
    setting = WORK | {name: json.loads(value) for name, value in (text.split("=") for text in asked.set)}
    rounds = [{name: measured(arm | setting) for name, arm in ARMS.items()} for _ in range(asked.rounds)]
    rows = {name: {kind: middle([told[name][kind] for told in rounds]) for kind in rounds[0][name]} for name in ARMS}
    ratios = {
        name: {kind: round(row[kind]["median"] / rows["one"][kind]["median"], 3) for kind in row}
        for name, row in rows.items()
    }
    about = head() | {"command": "python -m bench.parallel", "threads": 1, "backend": "gloo", "work": setting}
    if not asked.set:
        write_json(RESULT, about | {"tokens_per_s": rows, "of_one": ratios})
    print(json.dumps({"tokens_per_s": rows, "of_one": ratios}, indent=1))


def middle(values: list[float]) -> dict[str, float]:
    """The median, and the extremes beside it."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def measured(arm: dict[str, Any]) -> dict[str, float]:
    """One arm in fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "told.json"
        command = [sys.executable, "-m", "bench.parallel", "--member", json.dumps(arm), str(file)]
        if arm["processes"] == 1:
            subprocess.run(command, check=True)
        elif (ended := crew.run(command, arm["processes"], ())).status:
            raise SystemExit(f"process {ended.rank} ended with status {ended.status}:\n{ended.said}")
        told: dict[str, float] = read_json(file)
        return told


def work(arm: dict[str, Any], file: Path) -> None:
    """What one process of an arm does; the first writes the figures."""
    import torch

    from seekling.learn.lanes import Lanes
    from seekling.learn.parallel.ranks import join
    from seekling.learn.parallel.world import ALONE

    torch.set_num_threads(1)
    crew.tie()
    who = crew.member()
    world = join(torch.device("cpu"), who, spread_experts=arm["spread"]) if who else ALONE
    lanes = Lanes(arm["lanes"], world)
    figures = {"update": updates(arm, lanes), "rollouts": rollouts(arm, lanes)}
    if world.leads:
        write_json(file, figures)
    world.close()


def model_of(arm: dict[str, Any]) -> Any:
    """A model of DeepSeek-V3's kind, drawn."""
    from seekling.model.decoder import Decoder
    from seekling.model.presets import PRESETS

    width = arm["hidden"]
    shape = {
        "hidden_size": width, "num_hidden_layers": arm["layers"], "vocab_size": arm["vocab"],
        "num_attention_heads": 4, "kv_lora_rank": width // 4, "qk_nope_head_dim": width // 8,
        "qk_rope_head_dim": width // 16, "v_head_dim": width // 8, "intermediate_size": 3 * width,
        "n_routed_experts": arm["experts"], "num_experts_per_tok": 4, "moe_intermediate_size": width // 2,
        "max_position_embeddings": 2 * arm["row_tokens"],
    }  # fmt: skip
    return Decoder(PRESETS["tiny-v3"].model_copy(update=shape)).init_weights(0)


def updates(arm: dict[str, Any], lanes: Any) -> float:
    """Tokens a second of an update with Muon and AdamW, all processes together; the first step is not counted."""
    from functools import partial

    import numpy as np

    from seekling.learn.batch import Text, pack
    from seekling.learn.config import Optim
    from seekling.learn.optim import Optimizers
    from seekling.learn.update import step, text_loss

    model, rng = model_of(arm), np.random.default_rng(0)
    optimizers = Optimizers(model, Optim(), arm["steps"] + 1, lanes)
    own = np.full(arm["row_tokens"], 1 / (arm["rows"] * arm["row_tokens"]), np.float32)
    texts = [Text(rng.integers(0, arm["vocab"], len(own)).tolist(), own) for _ in range(arm["rows"])]
    batch = pack(texts, arm["row_tokens"])
    began = 0.0
    for index in range(arm["steps"] + 1):
        began = time.perf_counter() if index == 1 else began
        loss = partial(text_loss, balance_weight=1e-4, num_rows=arm["rows"])
        step(model, optimizers, batch, loss, step_index=index, passes=arm["passes"], lanes=lanes)
    return batch.num_tokens * arm["steps"] / (time.perf_counter() - began)


def rollouts(arm: dict[str, Any], lanes: Any) -> float:
    """Tokens a second of sampling, all processes together, each a share of the prompts."""
    from seekling.engine.config import Sampling
    from seekling.engine.engine import Engine, Request

    model, world = model_of(arm), lanes.world
    asked = [Request((1 + n % 7, 2, 3 + n % 11), n) for n in range(arm["prompts"])]
    own = asked[len(asked) * world.rank // world.size : len(asked) * (world.rank + 1) // world.size]
    batches = [part for part in (own[: len(own) // 2], own[len(own) // 2 :]) if part] if lanes.count > 1 else [own]
    engine, sampling = Engine(model, ()), Sampling(max_tokens=arm["said"])
    world.wait()
    began = time.perf_counter()
    said = lanes.map(lambda part: engine.generate(part, sampling), batches)
    total = world.sums({"tokens": float(sum(len(one.tokens) for part in said for one in part))})["tokens"]
    return total / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
