"""Loading a 0.5B-shaped checkpoint: seconds against the disk cache, peak memory against the model. A minute:

    .venv/bin/python -m bench.loading

Writes bench/results/loading.json. The folder is made with random weights; the file is in the disk cache for both sides.
Each measurement is a process of its own; the floor reads the same file's bytes into memory already allocated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.zero_tiny import head
from seekling.model.presets import PRESETS
from seekling.runlog.files import write_json

RESULT = Path("bench/results/loading.json")
SHAPE = "qwen2.5-0.5b"


def main() -> None:
    """Measure and write the result file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        made = child("make", folder)
        pairs = [(child("floor", folder), child("load", folder)) for _ in range(asked.repeats)]
        theirs = [child("transformers", folder) for _ in range(2)]
    rows = {name: [pair[place] for pair in pairs] for place, name in enumerate(("floor", "load"))} | {
        "transformers": theirs
    }
    seconds = {name: statistics.median(row["seconds"] for row in found) for name, found in rows.items()}
    peak = {name: max(row["peak_bytes"] - row["before_bytes"] for row in found) for name, found in rows.items()}
    figures = {
        "shape": SHAPE, "dtype": "bfloat16", "model_bytes": made["model_bytes"],
        "largest_tensor_bytes": made["largest"],
        "repeats": asked.repeats, "seconds": seconds, "peak_bytes": peak,
        "share_of_disk_cache": round(statistics.median(a["seconds"] / b["seconds"] for a, b in pairs), 3),
        "peak_over_model": round(peak["load"] / made["model_bytes"], 3),
        "peak_over_model_and_one_tensor": round((peak["load"] - made["largest"]) / made["model_bytes"], 3),
    }  # fmt: skip
    write_json(RESULT, head() | {"command": "python -m bench.loading", "threads": 1} | figures)
    print(json.dumps(figures, indent=1))


def child(what: str, folder: str) -> dict[str, Any]:
    """Run one of the measurements below in a fresh process."""
    code = f"from bench.loading import {what}_; import json; print(json.dumps({what}_({folder!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def make_(folder: str) -> dict[str, Any]:
    """Write a checkpoint of the shape in bfloat16."""
    import torch

    from seekling.model.decoder import Decoder
    from seekling.model.weights import save_model

    model = Decoder(PRESETS[SHAPE]).init_weights(0).to(torch.bfloat16)
    save_model(Path(folder), model)
    sizes = [weight.nbytes for weight in model.parameters()]
    return {"model_bytes": sum(sizes), "largest": max(sizes)}


def floor_(folder: str) -> dict[str, Any]:
    """Seconds to read the file's bytes into memory that is there."""
    import time

    import torch

    file = Path(folder) / "model.safetensors"
    before = memory("VmRSS")
    room = torch.empty(file.stat().st_size, dtype=torch.uint8)
    began = time.perf_counter()
    with file.open("rb", buffering=0) as handle:
        handle.readinto(memoryview(room.numpy()))  # type: ignore[attr-defined]
    return {"seconds": time.perf_counter() - began, "before_bytes": before, "peak_bytes": memory("VmHWM")}


def load_(folder: str) -> dict[str, Any]:
    """Seconds and peak memory of ``load_model``."""
    import time

    import torch

    from seekling.model.weights import load_model

    torch.set_num_threads(1)
    before, began = memory("VmRSS"), time.perf_counter()
    model = load_model(Path(folder), dtype=torch.bfloat16)
    seconds = time.perf_counter() - began
    del model
    return {"seconds": seconds, "before_bytes": before, "peak_bytes": memory("VmHWM")}


def transformers_(folder: str) -> dict[str, Any]:
    """The same by transformers."""
    import time

    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    before, began = memory("VmRSS"), time.perf_counter()
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "before_bytes": before, "peak_bytes": memory("VmHWM")}


def memory(name: str) -> int:
    """VmRSS (now) or VmHWM (the most so far) of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
