"""Training tokens/s of a tiny DeepSeek-V3 against transformers: one folder, the same texts, AdamW. Ten minutes, idle:

    .venv/bin/python -m bench.train_step

The shape, text and rows are those of zero-tiny's base, without its prediction layer, which transformers does not train;
every token is learned, 2,048 a step. Ours packs its rows within the clock, in as many lanes as there are cores; theirs
finds its batches laid out, and is given the fastest of threads, experts and attention that a first look finds for each
way to lay them out: texts padded to one length, rows packed by positions as ours, blocks cut from one long text. Each
measurement is a process of its own, ours and theirs in turn. bfloat16 is autocast above float32 weights on both sides.
Writes bench/results/train-step.json: medians and extremes of the rounds, the ratio of neighbours, and the floor: what
the FLOPs of a token take at the speed of a matrix product on these cores. Refuses to where the first losses differ.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.memory import asked_of
from bench.zero_tiny import gflops_per_core, head
from seekling.learn.batch import Text, pack
from seekling.learn.config import Optim
from seekling.learn.optim import Optimizers
from seekling.learn.update import step, text_loss
from seekling.model.count import flops_per_token
from seekling.model.decoder import Decoder
from seekling.model.weights import load_model, read_config, save_model
from seekling.plan.machine import machine
from seekling.recipes.config import Pretrain
from seekling.recipes.manifest import load_manifest
from seekling.recipes.pipeline import set_up
from seekling.recipes.pretrain import encoded, grow_tokenizer
from seekling.recipes.text import fill
from seekling.runlog.files import read_json, write_json
from seekling.runlog.run import Run
from seekling.tasks.corpus import documents
from seekling.tasks.registry import build_task

RESULT = Path("bench/results/train-step.json")
PEER = "bench/peers/transformers_step.py"
DTYPES = ("float32", "bfloat16")
FORMS = ("padded", "packed", "blocks")
WARM_UP = 5
"""Steps at the beginning of each process that are not counted."""
LOOK = 10
"""Steps of the first look, these among them."""
PARITY = 1e-4
"""How far the first losses may be apart, relative, in float32."""
EXPERTS = ("eager", "grouped_mm")
"""Their ways to run experts; a third, ``batched_mm``, copies weights for every token and is many times slower."""
SAME_WORK = ("padded", "packed")
"""Where each token sees what it sees here; in blocks it sees earlier texts too."""
UPDATE = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "clip_norm": 1.0}

Row = dict[str, Any]
Measure = Callable[[], Row]


class Shipped(NamedTuple):
    """What zero-tiny's base is told."""

    settings: Pretrain
    tokens: int
    row_tokens: int


def main() -> None:
    """Look, compare the first losses, measure in rounds, write the result file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=65, help="a process, its warm-up among them")
    arguments.add_argument("--rounds", type=int, default=5)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, max(asked.steps, LOOK))
        looks, peer = theirs(folder, [how | {"steps": min(asked.steps, LOOK)} for how in ways(machine().cores)])
        parity = first_losses({dtype: ours(folder, dtype, "adamw", 1) for dtype in DTYPES}, looks)
        chosen = fastest(looks)
        rounds = [measured(arms(folder, asked.steps, chosen)) for _ in range(asked.rounds)]
        floors = {dtype: floor(folder, dtype) for dtype in DTYPES}
    about = head() | {"command": "python -m bench.train_step", "dtype": ", ".join(DTYPES), "transformers": peer}
    about |= {"steps": asked.steps - WARM_UP, "rounds": asked.rounds, "tokens_per_step": shipped().tokens,
              "row_tokens": shipped().row_tokens, "parity": parity, "floor_tokens_per_s": floors}  # fmt: skip
    found = {"arms": summed_up(rounds, floors), "ratios": ratios(rounds), "theirs": chosen, "looks": compact(looks)}
    write_json(RESULT, about | found)
    print(json.dumps({"parity": parity, "arms": found["arms"], "ratios": found["ratios"]}, indent=1))


def shipped() -> Shipped:
    """The settings of the shipped base."""
    settings = load_manifest("zero-tiny").stages[0]
    assert isinstance(settings, Pretrain)
    return Shipped(settings, settings.tokens_per_step, settings.packing.row_tokens)


# --- what both sides are given ----------------------------------------------------------------------------------------


def prepare(folder: Path, steps: int) -> None:
    """A model's folder, the texts of every step, and the batches that the other side reads."""
    base, tokens, row_tokens = shipped()
    task = build_task(base.task)
    tokenizer = grow_tokenizer(task, base.text, base.model.vocab_size, "train-step")
    shape = base.model.model_copy(update={"vocab_size": tokenizer.vocab_size, "num_nextn_predict_layers": 0})
    save_model(folder, Decoder(shape).init_weights(0))
    stream = encoded(tokenizer, documents(task, base.text, "train-step"))
    texts = [cut([list(text.tokens) for text in fill(stream, tokens)], tokens) for _ in range(steps)]
    write_json(folder / "texts.json", texts)
    for form, laid in {
        "padded": padded,
        "packed": partial(packed, row_tokens),
        "blocks": partial(blocks, row_tokens),
    }.items():
        every = {f"{place}.{name}": ids for place, own in enumerate(texts) for name, ids in laid(own).items()}
        np.savez(folder / f"{form}.npz", **every)


def cut(texts: list[list[int]], tokens: int) -> list[list[int]]:
    """The same with the last one cut, so that they hold ``tokens``."""
    *first, last = texts
    return [*first, last[: tokens - sum(map(len, first))]]


def padded(texts: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """A text a row, filled up behind to the longest: as a collator lays them."""
    shape = (len(texts), max(map(len, texts)))
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return {"input_ids": ids, "attention_mask": mask, "labels": np.where(mask, ids, -100)}


def packed(row_tokens: int, texts: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Our rows, told by positions that begin anew with each text; its first token is nobody's next."""
    rows = pack([whole(text) for text in texts], row_tokens).rows
    ids, places, segments = (t.numpy() for t in (rows.tokens_BT, rows.positions_BT, rows.segments_BT))
    return {"input_ids": ids, "position_ids": places, "labels": np.where((segments > 0) & (places > 0), ids, -100)}


def blocks(row_tokens: int, texts: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """All texts as one, cut into rows: nothing is padded, and a token sees the texts before its own."""
    ids = np.concatenate([np.asarray(text, np.int64) for text in texts])
    ids = ids[: len(ids) // row_tokens * row_tokens].reshape(-1, row_tokens)
    return {"input_ids": ids, "labels": ids}


def whole(ids: Sequence[int]) -> Text:
    """A text of which every token is learned."""
    return Text(ids, np.ones(len(ids), np.float32))


# --- measuring --------------------------------------------------------------------------------------------------------


def ours(folder: Path, dtype: str, matrices: str, steps: int) -> Row:
    """Seconds and losses of our steps, in a fresh process."""
    call = f"trained({str(folder)!r}, {dtype!r}, {matrices!r}, {steps})"
    code = f"from bench.train_step import trained; import json; print('FOUND' + json.dumps({call}))"
    return asked_of([sys.executable, "-c", code])


def trained(folder: str, dtype: str, matrices: str, steps: int) -> Row:
    """Train as a run sets itself up to."""
    _, lanes = set_up(load_manifest("zero-tiny"), Run(Path(folder)), print)
    model = load_model(Path(folder))
    config = Optim.model_validate(UPDATE | {"matrices": matrices, "warmup_steps": 0, "schedule": "constant"})
    optimizers, base = Optimizers(model, config, steps, lanes), shipped()
    seconds, losses = [], []
    for index, texts in enumerate(read_json(Path(folder) / "texts.json")[:steps]):
        began = time.perf_counter()
        batch = pack([whole(ids) for ids in texts], base.row_tokens)
        batch.weight_BT.div_(batch.weight_BT.sum())
        told = step(
            model, optimizers, batch, partial(text_loss, num_rows=len(batch.targets_BT)),
            step_index=index, passes=base.settings.packing.passes, lanes=lanes, dtype=getattr(torch, dtype),
        )  # fmt: skip
        seconds.append(time.perf_counter() - began)
        losses.append(told["loss"])
    return {"seconds": seconds, "losses": losses}


def theirs(folder: Path, settings: Sequence[Row]) -> tuple[list[Row], str]:
    """The same of transformers, way by way in one process, and its version."""
    asked = json.dumps([how | {"update": UPDATE} for how in settings])
    threads = max(how["threads"] for how in settings)
    told = asked_of([sys.executable, "-P", PEER, str(folder), asked], threads)
    return [how | found for how, found in zip(settings, told["rows"], strict=True)], told["transformers"]


def ways(cores: int) -> list[Row]:
    """Everything that may make the other side faster."""
    names = ("dtype", "form", "threads", "experts", "attention")
    threads = sorted({1, cores})
    choices = (DTYPES, FORMS, threads, EXPERTS, ("sdpa", "eager"))
    return [dict(zip(names, choice, strict=True)) for choice in itertools.product(*choices)]


def first_losses(own: dict[str, Row], looks: Sequence[Row]) -> Row:
    """The losses of step 0 and the largest relative difference. Exits where float32's is too large to compare more."""
    found = {}
    for dtype, row in own.items():
        others = [look["losses"][0] for look in looks if look["dtype"] == dtype and look["form"] in SAME_WORK]
        apart = max(abs(other / row["losses"][0] - 1) for other in others)
        found[dtype] = {"seekling": row["losses"][0], "transformers": median(others), "relative_difference": apart}
    if not found["float32"]["relative_difference"] <= PARITY:
        raise SystemExit(f"the first losses differ, so no ratio means anything: {found['float32']}")
    return found


def fastest(looks: Sequence[Row]) -> dict[str, Row]:
    """Of each dtype the fastest way of all, and the fastest with padding."""
    chosen = {}
    for dtype in DTYPES:
        for name, forms in ((dtype, FORMS), (f"{dtype} padded", ("padded",))):
            able = [look for look in looks if look["dtype"] == dtype and look["form"] in forms]
            best = min(able, key=lambda look: median(look["seconds"][WARM_UP:]))
            chosen[name] = {key: best[key] for key in ("dtype", "form", "threads", "experts", "attention")}
    return chosen


def arms(folder: Path, steps: int, chosen: dict[str, Row]) -> dict[str, Measure]:
    """What is measured in a round, ours and theirs in turn."""

    def other(name: str) -> Row:
        return theirs(folder, [chosen[name] | {"steps": steps}])[0][0]

    found: dict[str, Measure] = {}
    for dtype in DTYPES:
        for matrices, name in (("adamw", dtype), ("muon", f"{dtype} padded")):
            found[f"seekling {dtype} {matrices}"] = partial(ours, folder, dtype, matrices, steps)
            found[f"transformers {name}"] = partial(other, name)
    return found


def measured(todo: dict[str, Measure]) -> dict[str, Row]:
    """One round: tokens/s and losses of every arm."""
    found = {}
    for name, measure in todo.items():
        row = measure()
        seconds = row["seconds"][WARM_UP:]
        rate = shipped().tokens * len(seconds) / sum(seconds)
        found[name] = {"tokens_per_s": rate, "first_loss": row["losses"][0], "last_loss": row["losses"][-1]}
        print(f"{name:28} {rate:10,.0f} tokens/s, loss {row['losses'][0]:.5f} to {row['losses'][-1]:.5f}", flush=True)
    return found


# --- what it says -----------------------------------------------------------------------------------------------------


def floor(folder: Path, dtype: str) -> float:
    """Tokens/s that the arithmetic alone would allow on all cores, matrix products at their best."""
    lengths = np.array([len(text) for step_ in read_json(folder / "texts.json") for text in step_])
    context = float((lengths * (lengths - 1) / 2).sum() / lengths.sum())
    rate = gflops_per_core(dtype=getattr(torch, dtype)) * 1e9 * machine().cores
    return round(rate / flops_per_token(read_config(folder), context, training=True), 1)


def summed_up(rounds: Sequence[dict[str, Row]], floors: dict[str, float]) -> dict[str, Row]:
    """Of each arm median and extremes of tokens/s, the share of the floor, and the losses of its first round."""
    found = {}
    for name, row in rounds[0].items():
        rates = spread([round_[name]["tokens_per_s"] for round_ in rounds], 1)
        share = round(rates["median"] / floors[name.split()[1]], 3)
        found[name] = {"tokens_per_s": rates, "share_of_floor": share} | {
            k: row[k] for k in ("first_loss", "last_loss")
        }
    return found


def ratios(rounds: Sequence[dict[str, Row]]) -> dict[str, dict[str, float]]:
    """How many times faster we are, AdamW on both sides, round by round: of one dtype, and than their faster one."""

    def compared(ours_: str, *theirs_: str) -> dict[str, float]:
        peers = [max(round_[f"transformers {name}"]["tokens_per_s"] for name in theirs_) for round_ in rounds]
        own = [round_[f"seekling {ours_} adamw"]["tokens_per_s"] for round_ in rounds]
        return spread([a / b for a, b in zip(own, peers, strict=True)], 3)

    found = {dtype: compared(dtype, dtype) for dtype in DTYPES}
    found |= {f"{dtype} against padded": compared(dtype, f"{dtype} padded") for dtype in DTYPES}
    return found | {"bfloat16 against their faster dtype": compared("bfloat16", *DTYPES)}


def spread(values: Sequence[float], digits: int) -> dict[str, float]:
    """Median and extremes."""
    of = {"median": median(values), "lowest": min(values), "highest": max(values)}
    return {name: round(value, digits) for name, value in of.items()}


def compact(looks: Sequence[Row]) -> list[str]:
    """The first look in a line each."""
    keys = ("dtype", "form", "threads", "experts", "attention")
    return [
        f"{', '.join(str(look[key]) for key in keys)}: {median(look['seconds'][WARM_UP:]):.4f} s a step"
        for look in looks
    ]


if __name__ == "__main__":
    main()
