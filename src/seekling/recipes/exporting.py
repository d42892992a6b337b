"""A finished model as a repository of its own: weights, config, tokenizer, generation settings, lineage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from seekling.errors import UserError
from seekling.model.foreign import load_any, save_any
from seekling.model.weights import SHARD_BYTES
from seekling.recipes.importing import refuse_foreign_tokenizer
from seekling.runlog.files import disk_error, read_json, sync_folder, write_json
from seekling.runlog.ledger import Cost, kept, read_ledger, spent
from seekling.runlog.run import Run
from seekling.text.tokenizer import Tokenizer

TOLD = ("name", "kind", "fingerprint", "manifest", "inputs", "parents", "data", "code", "source", "figures")
"""What a lineage tells of each stage."""
DTYPES = ("float32", "bfloat16", "float16")


def export_model(source: Path, folder: Path, *, dtype: str = "", shard_bytes: int = SHARD_BYTES) -> None:
    """Write the model in ``source`` as a complete repository without its card. ``dtype`` "" keeps the stored one.

    Raises UserError for a dtype that is none, and whatever is wrong with the source.
    """
    told = read_json(source / "config.json")
    stored = str(told.get("dtype") or told.get("torch_dtype") or "float32")
    wanted = dtype or (stored if stored in DTYPES else "bfloat16")
    if wanted not in DTYPES:
        raise UserError(f'there is no dtype "{wanted}" to export in', next_step=f"Take one of {', '.join(DTYPES)}.")
    kind: torch.dtype = getattr(torch, wanted)
    model, tokenizer = load_any(source, dtype=kind), Tokenizer.load(source)
    refuse_foreign_tokenizer(tokenizer, model.config.vocab_size, source)
    tokenizer.save(folder)
    save_any(folder, model, shard_bytes=shard_bytes)
    ids = token_ids(tokenizer)
    write_json(folder / "config.json", read_json(folder / "config.json") | ids)
    write_json(folder / "generation_config.json", ids | {"do_sample": True, "temperature": 0.6, "top_p": 0.95})


def token_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ids that engines look up in config.json and generation_config.json; several stops are a list."""
    stops = list(tokenizer.stops)
    ids = {"bos_token_id": tokenizer.bos, "eos_token_id": stops[0] if len(stops) == 1 else stops,
           "pad_token_id": tokenizer.eos if tokenizer.pad is None else tokenizer.pad}  # fmt: skip
    return {name: value for name, value in ids.items() if value is not None}


def lineage(run: Path, stage: str) -> dict[str, Any]:
    """What a model came from: version, seed, its stages with fingerprints and inputs, and what each cost."""
    opened, entries = Run(run), read_ledger(run)
    all_spent, all_kept = spent(entries), kept(entries, opened.folders())
    facts = {s.facts()["name"]: s.facts() for s in opened.current()}
    behind = _ancestors(stage, facts)
    head = {name: opened.facts().get(name) for name in ("name", "created", "version", "commit", "seed")}
    stages = [
        {name: facts[own].get(name) for name in TOLD}
        | {"spent": _cost(all_spent.get(own)), "kept": _cost(all_kept.get(own))}
        for own in behind
    ]
    return {"run": head, "model_of_stage": stage, "stages": stages, "sessions": opened.facts().get("sessions", [])}


def _ancestors(stage: str, facts: dict[str, dict[str, Any]]) -> list[str]:
    """The stage and all it was made from, in the order they ran."""
    wanted, behind = [stage], set()
    while wanted:
        name = wanted.pop()
        behind.add(name)
        told = (facts[name].get("inputs") or {}).get("from", [])
        wanted += [told] if isinstance(told, str) else list(told)
    return [name for name in facts if name in behind]


def _cost(cost: Cost | None) -> dict[str, float]:
    cost = cost or Cost()
    return {"tokens": cost.tokens, "flops": cost.flops, "seconds": round(cost.seconds, 3)}


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill beside ``folder``, which takes its name when all went well: nothing half-written is ever seen.

    Raises UserError when ``folder`` exists and is not empty.
    """
    beside = folder.with_name(f".{folder.name}.tmp")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} exists and is not empty", next_step="Name a folder that does not exist yet.")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise disk_error(folder, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
