"""Tokens/s of sampling beside vLLM's CPU build and llama.cpp, the fastest there are. Idle, half an hour:

    .venv/bin/python -m bench.peers.vllm --setup ; .venv/bin/python -m bench.peers.llama_cpp --setup
    .venv/bin/python -m bench.rivals [--rounds 3] [--only qwen3]

Same random weights, prompts of 64 tokens, 128 new ones (fewer of the wide shapes), prompt included, on as many threads
as there are cores; sides take turns, each a process of its own. llama.cpp decodes without sampling. The wide shapes are
Qwen2.5's of 0.5B and 1.5B; beside them stands the memory that its weights are, over the speed at which memory is read
here: no engine reads a token's weights faster. A side that is not there, or fails, is left out. Writes
bench/results/rivals.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.decode import SHAPES, asked_of, ours
from bench.peers import llama_cpp
from bench.peers.vllm import PLACE, VERSION
from bench.zero_tiny import head
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.weights import save_model
from seekling.plan.machine import machine
from seekling.runlog.files import read_json, write_json

RESULT = Path("bench/results/rivals.json")
PROMPT = 64
WIDE: dict[str, Any] = {
    "model_type": "qwen2", "vocab_size": 151936, "num_key_value_heads": 2, "tie_word_embeddings": True,
    "max_position_embeddings": 512, "rope_theta": 1e6,
}  # fmt: skip
ALL = SHAPES | {
    "deepseek_v3": SHAPES["deepseek_v3"].model_copy(update={"q_lora_rank": 128}),  # llama.cpp asks for one
    "qwen2_05b": ModelConfig(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, **WIDE
    ),
    "qwen2_15b": ModelConfig(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, **WIDE
    ),
}  # fmt: skip
GGUF = {"float32": "f32", "bfloat16": "bf16"}


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked of every side."""

    shape: str
    dtype: str
    batch: int
    new: int
    vllm: bool
    extra: tuple[str, ...] = ()  # further kinds of llama.cpp's weights


CASES = (
    Case("qwen3", "float32", 64, 128, vllm=True), Case("qwen3", "bfloat16", 64, 128, vllm=True),
    Case("qwen3", "bfloat16", 16, 128, vllm=True), Case("deepseek_v3", "bfloat16", 16, 128, vllm=False),
    Case("deepseek_v3", "bfloat16", 64, 128, vllm=False),
    Case("qwen2_05b", "bfloat16", 1, 32, vllm=False, extra=("f16", "q8_0")),
    Case("qwen2_05b", "bfloat16", 16, 32, vllm=True, extra=("f16",)),
    Case("qwen2_15b", "bfloat16", 1, 16, vllm=False, extra=("f16",)),
    Case("qwen2_15b", "bfloat16", 16, 16, vllm=True, extra=("f16",)),
)  # fmt: skip


def main() -> None:
    """Every case, side by side."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", help="one shape")
    arguments.add_argument("--ours", nargs=6, metavar=("FOLDER", "DTYPE", "BATCH", "NEW", "ROUNDS", "WEIGHTS"))
    told = arguments.parse_args()
    if told.ours:
        folder, dtype, batch, new, rounds, weights = told.ours
        held = "int8" if weights == "int8" else None
        print("FOUND" + json.dumps(ours(Path(folder), dtype, int(batch), int(rounds), new=int(new), weights=held)))
        return
    kept = read_json(RESULT)["rows"] if told.only and RESULT.exists() else []
    rows = [row for row in kept if row["model"] != told.only]
    with tempfile.TemporaryDirectory() as scratch:
        for case in CASES:
            if told.only in (None, case.shape):
                rows.append(compared(made(case, Path(scratch)), case, told.rounds))
                print(json.dumps(rows[-1]), flush=True)
                write(rows, told.rounds)


def write(rows: list[dict[str, Any]], rounds: int) -> None:
    """The result file, so far."""
    about = head() | {"command": "python -m bench.rivals", "threads": machine().cores, "prompt": PROMPT}
    peers = {"vllm": VERSION, "llama_cpp_python": llama_cpp.VERSION}
    write_json(RESULT, about | peers | {"rounds": rounds, "rows": rows})


def made(case: Case, scratch: Path) -> Path:
    """The folder of a case's model, written when first asked for, in its precision."""
    folder = scratch / f"{case.shape}-{case.dtype}"
    if not folder.exists():
        model = Decoder(ALL[case.shape]).init_weights(0)
        save_model(folder, model, dtype=getattr(torch, case.dtype))
    return folder


def compared(folder: Path, case: Case, rounds: int) -> dict[str, Any]:
    """One row: tokens/s of each side, and how many times theirs ours are."""
    speed = {}
    for name, ask in sides(folder, case, rounds):
        try:
            speed[name] = round(case.batch * case.new / median(ask()), 1)
        except (SystemExit, subprocess.CalledProcessError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr, flush=True)
    best = max((value for name, value in speed.items() if not name.startswith("seekling")), default=None)
    size = sum(weight.numel() for weight in Decoder(ALL[case.shape]).parameters()) * (
        2 if case.dtype == "bfloat16" else 4
    )
    row = {"model": case.shape, "dtype": case.dtype, "batch": case.batch, "new": case.new, "tokens_per_s": speed}
    row |= {"times_best": round(speed["seekling"] / best, 3) if best else None, "weight_bytes": size}
    if case.batch == 1:
        row["share_of_memory"] = round(speed["seekling"] * size / read_speed(), 3)
    return row


def sides(folder: Path, case: Case, rounds: int) -> Iterator[tuple[str, Callable[[], list[float]]]]:
    """Whoever can be asked, and how."""
    counts = [str(case.batch), str(case.new), str(rounds)]
    mine = [sys.executable, "-m", "bench.rivals", "--ours", str(folder), case.dtype, *counts]
    yield "seekling", lambda: asked_of([*mine, "kept"])
    if case.shape.startswith("qwen2"):
        yield "seekling int8", lambda: asked_of([*mine, "int8"])
    python = PLACE / "bin/python"
    if case.vllm and python.exists():
        script = str(Path("bench/peers/vllm_generate.py"))
        yield "vllm", lambda: vllm([str(python), "-P", script, str(folder), case.dtype, *counts, "compiled"])
    if llama_cpp.PROGRAM.exists():
        for kind in (GGUF[case.dtype], *case.extra):
            yield f"llama.cpp {kind}", lambda kind=kind: llama(folder, kind, case, rounds)  # type: ignore[misc]


def vllm(command: list[str]) -> list[float]:
    """vLLM's seconds: compiled, or eager where it does not get ready."""
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_MLA_DISABLE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    try:
        return asked_of(command)
    except subprocess.CalledProcessError:
        return asked_of([*command[:-1], "eager"])


def llama(folder: Path, kind: str, case: Case, rounds: int) -> list[float]:
    """llama.cpp's seconds, prompt included."""
    file = folder.parent / f"{folder.name}.{kind}.gguf"
    if not file.exists():
        llama_cpp.converted(folder, file, kind)
    shape = dict(batch=case.batch, prompt=PROMPT, new=case.new, threads=machine().cores)
    return [float(llama_cpp.measured(file, **shape)["t"]) for _ in range(rounds)]


def read_speed() -> float:
    """Bytes/s at which all cores read memory that no cache holds: the best of several sums."""
    torch.set_num_threads(machine().cores)
    x, best = torch.ones(2**28), 0.0
    for _ in range(5):
        began = time.perf_counter()
        x.sum()
        best = max(best, x.numel() * 4 / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    main()
