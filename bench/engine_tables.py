"""What the documents show of sampling: what guesses gain, and who else samples on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Result = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]

WAYS = {"model 1": "the layer, 1 token", "model 2": "the layer, 2 tokens", "text 3": "the text, 3 tokens"}


def drafting(found: Result) -> Table:
    """How many guesses were said, what they cost and gained."""
    rows = [
        [str(row["rows"]), f"{row['temperature']:g}", WAYS[row["guessed"]], f"{row['accepted']:.0%}",
         f"{row['possible']:.0%}" if "possible" in row else "", f"{row['cost']:.2f}", f"{row['gain']:.2f}",
         f"{row['of_theory']:.0%}", "yes" if row["same_tokens"] else "no"]
        for row in found["rows"]
    ]  # fmt: skip
    return [
        "rows", "temperature", "guessed by", "said", "best coupling", "cost of a guess, in steps", "times as fast",
        "of theory", "the same tokens",
    ], rows  # fmt: skip


def rivals(found: Result) -> Table:
    """Tokens a second beside vLLM's CPU build and llama.cpp, and against the faster of them."""
    rows = []
    for row in found["rows"]:
        speed = dict(row["tokens_per_s"])
        ours, int8, vllm = speed.pop("seekling"), speed.pop("seekling int8", None), speed.pop("vllm", None)
        llama = ", ".join(f"{value:,.0f} ({name.removeprefix('llama.cpp ')})" for name, value in speed.items())
        rows.append([
            row["model"], row["dtype"], str(row["batch"]), f"{ours:,.1f}", f"{int8:,.1f}" if int8 else "",
            f"{vllm:,.1f}" if vllm else "", llama, f"{row['times_best']:.2f}" if row["times_best"] else "",
            f"{row['share_of_memory']:.0%}" if "share_of_memory" in row else "",
        ])  # fmt: skip
    return [
        "shape", "precision", "rows", "tokens/s", "int8", "vLLM", "llama.cpp", "times the fastest of them",
        "of the speed of memory",
    ], rows  # fmt: skip


def wide(found: Result) -> Table:
    """A model of half a billion weights: tokens a second, and how near to the speed of memory that is."""
    rows = [
        [str(row["batch"]), form, f"{row['tokens_per_s'][form]:,.1f}", f"{row['weight_bytes'][form] / 1e6:,.0f} MB",
         f"{row['share_of_roofline'][form]:.0%}", f"{row['int8_over_bfloat16']:.2f}" if form == "int8" else ""]
        for row in found["rows"] for form in row["tokens_per_s"]
    ]  # fmt: skip
    return ["rows", "weights", "tokens/s", "read in a step", "of the speed of memory", "times bfloat16"], rows
