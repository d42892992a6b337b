"""Tokens/s of sampling against transformers' ``generate``: same weights, prompts, lengths, precision. Minutes, idle:

    .venv/bin/python -m bench.decode [--rounds 5]

Two tiny shapes (width 256, 6 layers: DeepSeek-V3's with 16 experts, Qwen3's dense one), prompts of 64 tokens, 128 new
ones at temperature 1, in batches of 1, 16 and 64, float32 and bfloat16, prompt included, on as many threads as there
are cores. Each side is a process of its own that generates once unmeasured and then ``rounds`` times; sides take turns.
Beside them stands the bare step: what our arithmetic takes for the same tokens with no engine around it (no sampling,
no bookkeeping), and what its products alone would take at the speed this machine multiplies matrices. Writes
bench/results/decode.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from bench.zero_tiny import gflops_per_core, head
from seekling.engine.config import Sampling
from seekling.engine.engine import Engine, Request
from seekling.model.config import ModelConfig
from seekling.model.count import flops_per_token
from seekling.model.decoder import Decoder
from seekling.model.ops import ops_for
from seekling.model.pages import Chunk, Pages, pages_for
from seekling.model.weights import load_model, save_model
from seekling.plan.machine import machine
from seekling.runlog.files import write_json

RESULT = Path("bench/results/decode.json")
PEER = "bench/peers/transformers_generate.py"
PROMPT, NEW, VOCABULARY = 64, 128, 512
BATCHES = (1, 16, 64)
DTYPES = ("float32", "bfloat16")
WIDTH = dict(
    vocab_size=VOCABULARY, hidden_size=256, intermediate_size=640, num_hidden_layers=6, num_attention_heads=8,
    max_position_embeddings=512,
)  # fmt: skip
SHAPES = {
    "deepseek_v3": ModelConfig(
        **WIDTH, model_type="deepseek_v3", q_lora_rank=None, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16,
        v_head_dim=32, n_routed_experts=16, num_experts_per_tok=4, n_shared_experts=1, moe_intermediate_size=128,
    ),
    "qwen3": ModelConfig(**WIDTH, model_type="qwen3", num_key_value_heads=8, head_dim=32),
}  # fmt: skip


def main() -> None:
    """Every shape, precision and batch, side by side."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--side", choices=("seekling", "bare"), help="one measurement, told as JSON")
    arguments.add_argument("--case", nargs=4, metavar=("FOLDER", "DTYPE", "BATCH", "ROUNDS"))
    told = arguments.parse_args()
    if told.side:
        folder, dtype, batch, rounds = told.case
        measured = {"seekling": ours, "bare": bare}[told.side](Path(folder), dtype, int(batch), int(rounds))
        print("FOUND" + json.dumps(measured))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, config in SHAPES.items():
            save_model(Path(scratch) / name, Decoder(config).init_weights(0))
        for name, config in SHAPES.items():
            for dtype in DTYPES:
                for batch in BATCHES:
                    rows.append(compared(Path(scratch) / name, config, dtype, batch, told.rounds))
                    print(json.dumps(rows[-1]), flush=True)
    about = head() | {"command": "python -m bench.decode", "threads": machine().cores, "dtype": ", ".join(DTYPES)}
    write_json(RESULT, about | {"prompt": PROMPT, "new": NEW, "rounds": told.rounds, "rows": rows})


def compared(folder: Path, config: ModelConfig, dtype: str, batch: int, rounds: int) -> dict[str, Any]:
    """One row: tokens/s of each, and our share of the bare step and of the floor."""
    case = [str(folder), dtype, str(batch), str(rounds)]
    mine = [sys.executable, "-m", "bench.decode", "--side"]
    sides = {
        "seekling": asked_of([*mine, "seekling", "--case", *case]),
        "transformers": asked_of([sys.executable, "-P", PEER, *case]),
        "bare": asked_of([*mine, "bare", "--case", *case]),
    }
    speed = {name: round(batch * NEW / median(seconds), 1) for name, seconds in sides.items()}
    flops = batch * (PROMPT + NEW) * flops_per_token(config, (PROMPT + NEW) / 2, training=False)
    peak = gflops_per_core(dtype=getattr(torch, dtype)) * 1e9 * machine().cores
    return {
        "model": folder.name, "dtype": dtype, "batch": batch, "tokens_per_s": speed,
        "seconds": {name: [round(s, 4) for s in seconds] for name, seconds in sides.items()},
        "times_transformers": round(speed["seekling"] / speed["transformers"], 2),
        "share_of_bare": round(speed["seekling"] / speed["bare"], 3),
        "share_of_floor": round(flops / peak / median(sides["seekling"]), 3),
    }  # fmt: skip


def asked_of(command: list[str]) -> list[float]:
    """The seconds that another process tells."""
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: list[float] = json.loads(told.rpartition("FOUND")[2])
    return found


def prompts(batch: int) -> list[list[int]]:
    """Distinct prompts, the same for all."""
    mixed = ((row, place) for row in range(batch) for place in range(PROMPT))
    flat = [3 + (7 * row + 13 * place + row * place) % (VOCABULARY - 3) for row, place in mixed]
    return [flat[start : start + PROMPT] for start in range(0, len(flat), PROMPT)]


def ours(
    folder: Path, dtype: str, batch: int, rounds: int, *, new: int = NEW, weights: Literal["int8"] | None = None
) -> list[float]:
    """Seconds of each round of our engine, after a first one."""
    torch.set_num_threads(machine().cores)
    engine = Engine(load_model(folder, dtype=getattr(torch, dtype)), (), weights=weights)
    sampling, seconds = Sampling(max_tokens=new), []
    for turn in range(rounds + 1):
        requests = [Request(tuple(prompt), turn * batch + row) for row, prompt in enumerate(prompts(batch))]
        began = time.perf_counter()
        said = engine.generate(requests, sampling)
        seconds.append(time.perf_counter() - began)
        assert sum(len(one.tokens) for one in said) == batch * new
    return seconds[1:]


def bare(folder: Path, dtype: str, batch: int, rounds: int) -> list[float]:
    """Seconds of the same tokens through the model alone: one pass of prompts, then a step a token, and logits."""
    torch.set_num_threads(machine().cores)
    model = load_model(folder, dtype=getattr(torch, dtype))
    ops, width = ops_for(getattr(torch, dtype), torch.device("cpu")), pages_for(PROMPT + NEW)
    tables, rows = torch.arange(batch * width).view(batch, width), torch.arange(batch)
    asked, seconds = torch.tensor(prompts(batch)), []

    def chunk(tokens_BT: torch.Tensor, start: int) -> Chunk:
        count = tokens_BT.shape[1]
        positions_N = torch.arange(start, start + count).repeat(batch)
        return Chunk.of(tokens_BT.flatten(), positions_N, rows.repeat_interleave(count), tables, torch.device("cpu"))

    with torch.inference_mode():
        for _ in range(rounds + 1):
            pages = Pages(model.config, batch * width, dtype=getattr(torch, dtype), device=torch.device("cpu"))
            began = time.perf_counter()
            model.extend(chunk(asked, 0), pages, ops)
            for step in range(NEW):
                following = chunk(asked[:, step % PROMPT].unsqueeze(1), PROMPT + step)
                ops.logits(model, model.extend(following, pages, ops).states_BTD)
            seconds.append(time.perf_counter() - began)
    return seconds[1:]


if __name__ == "__main__":
    main()
