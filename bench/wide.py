"""How near to the speed of memory a model of half a billion weights is sampled, in bfloat16 and int8. Minutes, idle:

    .venv/bin/python -m bench.wide [--steps 24]

The shape is Qwen2.5-0.5B's, with random weights. A step reads one token of each row behind 64, its logits included.
In every round both forms take their steps in turn, and beside them the same threads read through all of the weights:
bytes of weights over a step's seconds, by the bandwidth of that reading, is the share of the roofline. The divergence
is KL(bfloat16 || int8) of the next token, a mean over positions. Writes bench/results/wide.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from bench.zero_tiny import head
from seekling.engine.engine import Engine
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.ops import Ops, ops_for
from seekling.model.pages import Chunk, Pages, pages_for
from seekling.plan.machine import machine
from seekling.runlog.files import write_json

RESULT = Path("bench/results/wide.json")
SHAPE = ModelConfig(
    model_type="qwen2", vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
    num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
)  # fmt: skip
BEFORE, BATCHES, ROUNDS = 64, (1, 16), 5
CPU = torch.device("cpu")


def main() -> None:
    """Every batch, both forms, side by side."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=24)
    steps = arguments.parse_args().steps
    torch.set_num_threads(machine().cores)
    policy = Decoder(SHAPE).init_weights(0)
    for weight in policy.parameters():
        weight.data = weight.data.bfloat16()
    models = {"bfloat16": policy, "int8": Engine(policy, (), weights="int8").model}
    with torch.inference_mode():
        rows = [measured(models, batch, steps) for batch in BATCHES]
        about = head() | {"command": "python -m bench.wide", "threads": machine().cores, "dtype": "bfloat16, int8"}
        write_json(RESULT, about | {"steps": steps, "rounds": ROUNDS, "kl_int8": divergence(models), "rows": rows})
    print(json.dumps(rows, indent=1))


def measured(models: dict[str, Decoder], batch: int, steps: int) -> dict[str, Any]:
    """Medians over rounds of one batch: tokens/s and the share of the roofline of each form."""
    read = {name: weights_read(model) for name, model in models.items()}
    runs = {name: stepping(model, batch) for name, model in models.items()}
    parts = policy_bytes(models["bfloat16"])
    rounds = []
    for _ in range(ROUNDS):
        bandwidth = sum(part.nbytes for part in parts) / best_of(3, lambda: [part.sum() for part in parts])
        seconds = {name: seconds_of(run, steps) for name, run in runs.items()}
        rounds.append(
            {"gb_per_s": bandwidth / 1e9} | {name: read[name] / s / bandwidth for name, s in seconds.items()}
            | {f"{name}_s": s for name, s in seconds.items()}
        )  # fmt: skip
    middle = {key: median(one[key] for one in rounds) for key in rounds[0]}
    return {
        "batch": batch, "weight_bytes": read, "memory_gb_per_s": round(middle["gb_per_s"], 2),
        "tokens_per_s": {name: round(batch / middle[f"{name}_s"], 2) for name in models},
        "share_of_roofline": {name: round(middle[name], 3) for name in models},
        "int8_over_bfloat16": round(median(one["bfloat16_s"] / one["int8_s"] for one in rounds), 3),
    }  # fmt: skip


def weights_read(model: Decoder) -> int:
    """Bytes of weights that a step reads: all, less an embedding table that is not the output matrix too."""
    total = sum(weight.nbytes for weight in model.parameters())
    return total if model.lm_head is None else total - model.embed_tokens.weight.nbytes


def policy_bytes(model: Decoder) -> list[torch.Tensor]:
    """The weights, seen as what is summed as fast as it is read."""
    return [weight.flatten().view(torch.float32) for weight in model.parameters() if weight.numel() > 2**16]


def best_of(times: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest."""
    return min(seconds_of(lambda _: work(), 1) for _ in range(times))


def seconds_of(step: Callable[[int], object], steps: int) -> float:
    """Median seconds of a step."""
    taken = []
    for place in range(steps):
        began = time.perf_counter()
        step(place)
        taken.append(time.perf_counter() - began)
    return median(taken)


def stepping(model: Decoder, batch: int) -> Callable[[int], torch.Tensor]:
    """A function that reads one more token of each row, behind BEFORE others, and tells the logits."""
    ops, width = ops_for(torch.bfloat16, CPU), pages_for(BEFORE + 256)
    pages = Pages(SHAPE, batch * width, dtype=torch.bfloat16, device=CPU)
    tables, rows = torch.arange(batch * width).view(batch, width), torch.arange(batch)
    texts_BT = (torch.arange(BEFORE) * 37 + 1009 * rows.unsqueeze(1)) % SHAPE.vocab_size
    positions = torch.arange(BEFORE).repeat(batch)
    model.extend(Chunk.of(texts_BT.flatten(), positions, rows.repeat_interleave(BEFORE), tables, CPU), pages, ops)

    def step(place: int) -> torch.Tensor:
        chunk = Chunk.of(texts_BT[:, place % BEFORE], torch.full((batch,), BEFORE + place), rows, tables, CPU)
        return ops.logits(model, model.extend(chunk, pages, ops).states_BTD)

    step(0)
    return step


def divergence(models: dict[str, Decoder]) -> float:
    """KL(bfloat16 || int8) of the next token in nats, a mean over 128 positions of two texts."""
    ops: Ops = ops_for(torch.bfloat16, CPU)
    tokens, rows = torch.arange(128) * 7919 % SHAPE.vocab_size, torch.arange(2).repeat_interleave(64)
    chunk = Chunk.of(tokens, torch.arange(64).repeat(2), rows, torch.arange(8).view(2, 4), CPU)
    true, other = (
        ops.logits(model, model.extend(chunk, Pages(SHAPE, 8, dtype=torch.bfloat16, device=CPU), ops).states_BTD)
        .float().log_softmax(-1)
        for model in models.values()
    )  # fmt: skip
    return round(float(F.kl_div(other, true, log_target=True, reduction="sum")) / len(tokens), 6)


if __name__ == "__main__":
    main()
