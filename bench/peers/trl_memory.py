"""One GRPO update of TRL's own trainer on given rollouts, run by the environment that holds TRL: its memory and time.

``bench/memory.py`` starts it: ``.venv-trl/bin/python bench/peers/trl_memory.py '{"width": 64, ...}'``. It knows
nothing of Seekling. The trainer's own loss is called, its optimizer steps; settings are its defaults but the precision.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Print one line of JSON: bytes before the model was made, at most, and seconds of the update."""
    shape: dict[str, Any] = json.loads(sys.argv[1])
    import torch
    import trl
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({"a": 0, "<eos>": 1}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>")
    before = memory("RssAnon")
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=shape["vocab"], hidden_size=shape["width"], num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"], num_key_value_heads=shape["heads"],
            intermediate_size=4 * shape["width"], max_position_embeddings=shape["prompt"] + shape["said"],
            tie_word_embeddings=shape["tied"],
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder, use_cpu=True, bf16=False, report_to=[], beta=0.0, temperature=shape["temperature"],
            per_device_train_batch_size=shape["rollouts"], num_generations=shape["rollouts"],
            max_completion_length=shape["said"],
        )  # fmt: skip
        trainer = GRPOTrainer(
            model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=settings,
            train_dataset=Dataset.from_list([{"prompt": "a"}] * shape["rollouts"]), processing_class=tokenizer,
        )  # fmt: skip
        print("FOUND" + json.dumps({"before_bytes": before, **update(trainer, shape), "trl": trl.__version__}))


def update(trainer: Any, shape: dict[str, Any]) -> dict[str, Any]:
    """Loss, gradients and one step of the optimizer, on random rollouts."""
    import torch

    trainer.current_gradient_accumulation_steps = 1
    trainer.create_optimizer_and_scheduler(1)
    trainer.model.train()
    sizes = {"prompt": shape["prompt"], "completion": shape["said"]}
    ids = {f"{n}_ids": torch.randint(2, shape["vocab"], (shape["rollouts"], size)) for n, size in sizes.items()}
    masks = {f"{n}_mask": torch.ones(shape["rollouts"], size, dtype=torch.long) for n, size in sizes.items()}
    inputs = {**ids, **masks, "advantages": torch.linspace(-1, 1, shape["rollouts"]),
              "num_items_in_batch": torch.tensor(shape["rollouts"] * shape["said"])}  # fmt: skip
    began = time.perf_counter()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    trainer.optimizer.step()
    seconds = time.perf_counter() - began
    return {"peak_bytes": memory("VmHWM") - memory("RssFile"), "seconds": seconds}


def memory(name: str) -> int:
    """VmHWM (the most so far), RssFile (of which code and files), RssAnon (all else now) of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
