"""How fast chats become ids and masks under published templates: ours against transformers, in one run.

    .venv/bin/python -m bench.texts [CHATS]

Prints one JSON row per family. Ours gives ids and loss masks, transformers (``apply_chat_template`` of the whole list)
ids alone: it has masks only for templates that mark what is said.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import transformers

from seekling.plan.machine import machine
from seekling.text.chat import encode_all_turns, encode_chats
from seekling.text.tokenizer import Tokenizer
from tests.oracles.tokenizers import FAMILIES, TEXTS

NAMES = ("llama3", "mistral", "qwen2.5", "qwen3", "deepseek_r1")
NUM_CHATS, REPEATS = 10_000, 3
Talk = list[dict[str, Any]]


def main(num_chats: int) -> None:
    """Measure every family in turn and print a row for each."""
    transformers.logging.set_verbosity_error()
    facts = machine()
    hardware = {"cpu": facts.cpu, "cores": facts.cores, "memory_bytes": facts.memory_bytes}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            row = measured(name, Path(folder), talks(num_chats))
        print(json.dumps({"family": name, **row, "hardware": hardware}))


def talks(count: int) -> list[Talk]:
    """Conversations of one question and one answer, a few hundred characters each."""
    rng = Random(0)
    words = " ".join(TEXTS[:4]).split(" ")

    def text(length: int) -> str:
        return " ".join(rng.choices(words, k=length)).strip()

    return [
        [
            {"role": "user", "content": text(20)},
            {"role": "assistant", "content": f"<think>\n{text(20)}\n</think>\n\n{text(20)}"},
        ]
        for _ in range(count)
    ]


def measured(name: str, folder: Path, chats: list[Talk]) -> dict[str, Any]:
    """Both in turn, the medians of some repeats."""
    FAMILIES[name].write(folder)
    ours = Tokenizer.load(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    encode: Callable[[list[Talk]], Any] = encode_all_turns if FAMILIES[name].edits else encode_chats
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: encode(ours, chats),
        "transformers": lambda: theirs.apply_chat_template(chats, tokenize=True),
    }
    encode(ours, chats[:100])  # starts the worker, compiles the template on both sides
    theirs.apply_chat_template(chats[:100], tokenize=True)
    seconds: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(REPEATS):
        for who, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[who].append(time.perf_counter() - start)
    num_tokens = sum(len(ids) for ids in theirs.apply_chat_template(chats, tokenize=True)["input_ids"])
    medians = {who: statistics.median(taken) for who, taken in seconds.items()}
    rates = {
        f"{who}_{unit}_per_s": round(count / medians[who])
        for who in runs
        for unit, count in (("chats", len(chats)), ("tokens", num_tokens))
    }
    return {"chats": len(chats), **rates, "ratio": round(medians["transformers"] / medians["ours"], 2)}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else NUM_CHATS)
