"""Peak memory of a GRPO update of 4,096 tokens over a vocabulary of 151,936, against the plain form and TRL. Minutes:

    .venv/bin/python -m bench.memory

Writes bench/results/memory.json. Each measurement is a process of its own: the most it ever held, less what it held
when all was imported and nothing made, pages of libraries left out. One thread, one pass, float32, AdamW, the same
shape and number of tokens on all sides; the model is small, so that what is compared is how logits are held. TRL runs
from ``.venv-trl``, an environment of its own (``--without-trl`` leaves it out); on a CPU it folds tiles of its logits
in torch, on a GPU in Triton.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.loading import memory
from bench.zero_tiny import head
from seekling.runlog.files import write_json

RESULT = Path("bench/results/memory.json")
TRL = Path(".venv-trl/bin/python")
SHAPE = {"vocab": 151_936, "width": 64, "layers": 2, "heads": 4, "tied": True, "rollouts": 8, "prompt": 64,
         "said": 448, "temperature": 0.9}  # fmt: skip
"""8 rollouts of 64 + 448 tokens: 4,096."""


def main() -> None:
    """Measure every form and write the result file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--without-trl", action="store_true")
    arguments.add_argument("--set", nargs="*", default=[], help="e.g. vocab=20000 said=100, to try the script")
    asked = arguments.parse_args()
    shape = SHAPE | {name: json.loads(value) for name, value in (text.split("=") for text in asked.set)}
    forms = {"chunks": ours, "plain": plain} | ({} if asked.without_trl else {"trl": theirs})
    rows = {}
    for name, form in forms.items():
        found = form(shape)
        rows[name] = found | {"bytes": found["peak_bytes"] - found["before_bytes"]}
        print(name, f"{rows[name]['bytes'] / 2**20:,.0f} MiB, {found['seconds']:.1f} s")
    shares = {f"of_{name}": round(rows["chunks"]["bytes"] / row["bytes"], 3) for name, row in rows.items()}
    about = head() | {"command": "python -m bench.memory", "threads": 1, "dtype": "float32", "shape": shape}
    if not asked.set:
        write_json(RESULT, about | {"forms": rows, "chunks": shares})
    print(json.dumps(shares))


def ours(shape: dict[str, Any], bound: str = "") -> dict[str, Any]:
    """Our update in a fresh process."""
    code = f"from bench.memory import update_; import json; print('FOUND' + json.dumps(update_({shape!r}{bound})))"
    return asked_of([sys.executable, "-c", code])


def plain(shape: dict[str, Any]) -> dict[str, Any]:
    """The same without a bound on the logits that are held at a time."""
    return ours(shape, ", 2**50")


def theirs(shape: dict[str, Any]) -> dict[str, Any]:
    """TRL's update."""
    return asked_of([str(TRL), "-P", "bench/peers/trl_memory.py", json.dumps(shape)])


def asked_of(command: list[str], threads: int = 1) -> dict[str, Any]:
    """What a child prints after FOUND."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    if not lines:
        raise SystemExit(f"no figures:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return dict(json.loads(lines[-1].removeprefix("FOUND")))


def update_(shape: dict[str, Any], bound: int = 0) -> dict[str, Any]:
    """One update on random rollouts: what was held before and at most, and seconds."""
    import numpy as np
    import torch

    from seekling.learn import logps
    from seekling.learn.batch import Text, pack
    from seekling.learn.config import Optim
    from seekling.learn.optim import Optimizers
    from seekling.learn.presets import OBJECTIVES
    from seekling.learn.update import rollout_loss, step
    from seekling.model.config import ModelConfig
    from seekling.model.decoder import Decoder

    torch.set_num_threads(1)
    logps.CHUNK_BYTES = bound or logps.CHUNK_BYTES
    before = memory("RssAnon")
    length, width = shape["prompt"] + shape["said"], shape["width"]
    model = Decoder(
        ModelConfig(
            model_type="qwen2", vocab_size=shape["vocab"], hidden_size=width, num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"], intermediate_size=4 * width, max_position_embeddings=length,
            tie_word_embeddings=shape["tied"],
        )
    ).init_weights(0)  # fmt: skip
    rng = np.random.default_rng(0)
    own = np.r_[np.zeros(shape["prompt"]), np.ones(shape["said"])].astype(np.float32)
    texts = [
        Text(rng.integers(2, shape["vocab"], length).tolist(), own / (own.sum() * shape["rollouts"]),
             {"behaviour": -12 * own, "reference": -12 * own, "advantage": np.float32(sign) * own})
        for sign in np.linspace(-1, 1, shape["rollouts"])
    ]  # fmt: skip
    optimizers = Optimizers(model, Optim(matrices="adamw"), 1)
    batch, began = pack(texts, length), time.perf_counter()
    step(
        model, optimizers, batch,
        lambda model, part: rollout_loss(
            model, part, objective=OBJECTIVES["dr_grpo"], temperature=shape["temperature"]
        ),
        step_index=0, passes=1,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    return {"before_bytes": before, "peak_bytes": memory("VmHWM") - memory("RssFile"), "seconds": seconds}


if __name__ == "__main__":
    main()
