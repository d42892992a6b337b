"""What the documents show of learning's cost and guards: memory, a step beside TRL, processes, planted mutants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Result = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]
ROOMS = ("all", "learn", "engine", "rewards")


def memory(found: Result) -> Table:
    """Peak and seconds of one update, form by form, as shares of the chunked one."""
    names = {"chunks": "Seekling", "plain": "logits made whole", "trl": "TRL"}
    own = found["forms"]["chunks"]["bytes"]
    rows = [
        [names[form], f"{row['bytes'] / 2**20:,.0f} MiB", f"{row['bytes'] / own:.1f}", f"{row['seconds']:.1f} s"]
        for form, row in found["forms"].items()
    ]
    return ["", "peak of the update", "times Seekling's", "takes"], rows


def about_memory(found: Result) -> str:
    """What was measured, and where it stands."""
    shape = found["shape"]
    tokens = shape["rollouts"] * (shape["prompt"] + shape["said"])
    return (
        f"{tokens:,} tokens over a vocabulary of {shape['vocab']:,}, a model {shape['width']} wide; {found['dtype']},"
        f" one thread; TRL {found['forms']['trl']['trl']}. {source(found)}"
    )


def fit(found: Result) -> Table:
    """Predicted and measured peak of every case."""
    rows = [
        [name, f"{row['predicted_bytes'] / 2**20:,.0f} MiB", f"{row['measured_bytes'] / 2**20:,.0f} MiB",
         f"{100 * row['share']:.1f} %"]
        for name, row in found["cases"].items()
    ]  # fmt: skip
    return ["stage", "predicted", "measured", "predicted of measured"], rows


def about_fit(found: Result) -> str:
    """The extremes, and where it stands."""
    return (
        f"Between {100 * found['lowest']:.1f} and {100 * found['highest']:.1f} %, median {100 * found['median']:.1f} %;"
        f" what Python and torch hold is left out on both sides. {source(found)}"
    )


def grpo_step(found: Result) -> Table:
    """Seconds of a step, side by side."""
    ratios, floor = found["times_faster_than_trl"], found["floor_s"]
    rows = [
        [name, f"{row['seconds']:.3f} s", f"{row['completion_tokens']:,.0f}", f"{floor / row['seconds']:.1%}",
         f"{ratios[name.split()[1]]:.2f}" if name.startswith("seekling") else ""]
        for name, row in found["rows"].items()
    ]  # fmt: skip
    return ["", "a step", "tokens said", "of the floor's speed", "times as fast as TRL"], rows


def decode(found: Result) -> Table:
    """Tokens a second of sampling, beside the peer and beside the same arithmetic without an engine."""
    rows = []
    for row in found["rows"]:
        speed = row["tokens_per_s"]
        rows.append([
            row["model"], row["dtype"], str(row["batch"]), f"{speed['seekling']:,.0f}", f"{speed['transformers']:,.0f}",
            f"{row['times_transformers']:.2f}", f"{row['share_of_bare']:.0%}", f"{row['share_of_floor']:.1%}",
        ])  # fmt: skip
    return [
        "shape",
        "precision",
        "rows",
        "tokens/s",
        "transformers",
        "times as fast",
        "of the bare step",
        "of the floor",
    ], rows


def parallel(found: Result) -> Table:
    """Tokens a second of every arm, and against one process."""
    names = {"one": "one process", "lanes": "one process, two lanes", "two": "two processes",
             "two_experts": "two processes, experts spread"}  # fmt: skip
    kinds = list(found["of_one"]["one"])
    rows = [
        [names[arm], *(f"{found['tokens_per_s'][arm][kind]['median']:,.0f} ({of[kind]:.2f})" for kind in kinds)]
        for arm, of in found["of_one"].items()
    ]
    return ["", *(f"{kind}, tokens/s (of one)" for kind in kinds)], rows


def mutants(found: Result) -> Table:
    """Who noticed, room by room."""
    rows = []
    for room in ROOMS:
        told = found["fates"][room]
        count = sum(told["suite"].values())
        for judge, name in (("suite", "the suite"), ("selftests", "start-up self-tests alone")):
            noticed = count - told[judge]["survived"]
            rows.append([room, name, str(count), f"{noticed / max(1, count):.1%}",
                         *(str(told[judge][fate]) for fate in ("killed", "raised", "hung", "survived"))])  # fmt: skip
    return ["room", "asked", "mutants", "noticed", "refused by name", "raised", "hung", "survived"], rows


def mtp_alive(found: Result) -> Table:
    """Acceptance of the prediction layer before a stage, after it, and after it without the layer's own loss."""
    names = {"tuned": "fine-tuning", "zero": "reinforcement"}
    rows = [
        [str(seed["seed"]), names[stage], f"{seed['before']:.1%}", f"{seed[stage]['after']:.1%}",
         f"{seed[stage]['without']:.1%}", "yes" if seed[stage]["same_trunk"] else "no"]
        for seed in found["seeds"] for stage in names
    ]  # fmt: skip
    return ["seed", "stage", "before", "after", "after, mtp_weight = 0", "all else the same to the bit"], rows


def source(found: Result) -> str:
    """Machine, commit and command of a result."""
    hardware = found["hardware"]
    return f"{hardware['cpu']}; commit `{found['commit']}`, `{found['command']}`."
