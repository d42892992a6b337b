"""TRL's side of bench/grpo_step.py, run by it in TRL's own environment: a model folder, steps, precision."""

from __future__ import annotations

import json
import random
import sys
import tempfile
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def odd(completions: list[str], **_: Any) -> list[float]:
    """Half of what is said earns: whichever its length decides."""
    return [float(len(text) % 2) for text in completions]


class Steps(TrainerCallback):
    """What TRL logs of every step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Keep the lines that speak of a step."""
        if logs and "step_time" in logs:
            self.rows.append(dict(logs))


def main() -> None:
    """Train as GRPO's defaults say, with the batch, lengths and update of the other side; print one line of JSON."""
    folder, steps, precision = sys.argv[1], int(sys.argv[2]), {"float32": {"bf16": False}, "default": {}}[sys.argv[3]]
    torch.manual_seed(0)
    rng = random.Random(0)
    prompts = ["+".join(str(rng.randint(1, 30)) for _ in range(3)) + "=" for _ in range(8 * steps)]
    with tempfile.TemporaryDirectory() as scratch:
        told = Steps()
        config = GRPOConfig(
            output_dir=scratch, per_device_train_batch_size=64, num_generations=8, max_completion_length=64,
            max_steps=steps, learning_rate=1e-6, beta=0.04, loss_type="grpo", logging_steps=1, report_to=[],
            save_strategy="no", use_cpu=True, gradient_checkpointing=False, disable_tqdm=True, **precision,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), reward_funcs=odd, args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts}), callbacks=[told],
            processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
        )  # fmt: skip
        trainer.train()
    rows = told.rows[2:]
    lengths = [64 * row["completions/mean_length"] for row in rows]
    print(json.dumps({
        "bf16": bool(config.bf16),
        "seconds": round(median(row["step_time"] for row in rows), 4),
        "completion_tokens": round(median(lengths), 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
