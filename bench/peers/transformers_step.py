"""transformers' side of bench/train_step.py, run by it: a folder with a model and batches, and ways to train on them.

It knows nothing of Seekling. Batches are laid out and read before the clock begins; a step is forward, backward, the
gradients' norm clipped as transformers' Trainer does, and one fused step of AdamW.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import DeepseekV3ForCausalLM


def main() -> None:
    """Print one line of JSON: seconds and losses of every step, for each way asked for."""
    folder, asked = Path(sys.argv[1]), json.loads(sys.argv[2])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows = [trained(folder, how) for how in asked]
    print("FOUND" + json.dumps({"rows": rows, "transformers": transformers.__version__}))


def trained(folder: Path, how: dict[str, Any]) -> dict[str, list[float]]:
    """Train a fresh copy of the model for as many steps as asked."""
    torch.set_num_threads(how["threads"])
    model = DeepseekV3ForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=how["attention"], experts_implementation=how["experts"]
    ).train()
    update = how["update"]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=update["lr"], betas=(update["beta1"], update["beta2"]), eps=update["eps"],
        weight_decay=0.0, fused=True,
    )  # fmt: skip
    seconds, losses = [], []
    for batch in batches(folder / f"{how['form']}.npz", how["steps"]):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=how["dtype"] == "bfloat16"):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), update["clip_norm"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss))
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "losses": losses}


def batches(file: Path, steps: int) -> list[dict[str, torch.Tensor]]:
    """What the model is called with, step by step."""
    found: list[dict[str, torch.Tensor]] = [{} for _ in range(steps)]
    with np.load(file) as arrays:
        for key in arrays.files:
            place, name = key.split(".")
            if int(place) < steps:
                found[int(place)][name] = torch.from_numpy(arrays[key])
    return found


if __name__ == "__main__":
    main()
