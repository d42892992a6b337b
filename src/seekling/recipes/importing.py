"""The import stage: somebody's checkpoint becomes a stage's model, checked before anything is built on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seekling.errors import UserError
from seekling.model.count import count_parameters
from seekling.model.exchange import passed_over
from seekling.model.foreign import load_foreign, mark_foreign
from seekling.model.weights import check_model, read_config
from seekling.recipes.config import Import
from seekling.recipes.stage import Interrupted, Stage
from seekling.remote.hub import Source, locate
from seekling.runlog.files import disk_error, read_json, sync_folder
from seekling.text.tokenizer import Tokenizer

TELL_EVERY = 50
"""Tensors checked between two signs of life."""


def import_model(stage: Stage, config: Import) -> dict[str, float]:
    """Fetch, place and check a checkpoint. Returns its parameters, in all and met by one token.

    Raises UserError for whatever cannot be fetched, does not fit its config.json, or has no finite values.
    """
    source = _located(stage, config)
    stage.folder.write(source={"model": config.model, "revision": config.revision, "commit": source.commit})
    gather(source.paths, stage.folder.model)
    if config.through == "transformers":
        return _check_foreign(stage, stage.folder.model)
    return _check(stage, stage.folder.model)


def _located(stage: Stage, config: Import) -> Source:
    def draw(done: int, of: int) -> None:
        stage.tell(stage.name, done >> 20, max(1, of >> 20), {})

    try:
        return locate(config.model, config.revision, tell=stage.warn, draw=draw, stop_requested=stage.stop_requested)
    except InterruptedError:
        raise Interrupted from None


def _check_foreign(stage: Stage, folder: Path) -> dict[str, float]:
    """Marked, so that every later stage runs it through transformers too; of its parameters all count as active."""
    mark_foreign(folder)
    shape, tokenizer = load_foreign(folder, warn=stage.warn).config, Tokenizer.load(folder)
    refuse_foreign_tokenizer(tokenizer, shape.vocab_size, folder)
    count = float(shape.num_parameters)
    return {"parameters": count, "active_parameters": count, "vocabulary": tokenizer.vocab_size}


def _check(stage: Stage, folder: Path) -> dict[str, float]:
    shape, tokenizer = read_config(folder), Tokenizer.load(folder)
    refuse_foreign_tokenizer(tokenizer, shape.vocab_size, folder)
    if strange := passed_over(read_json(folder / "config.json")):
        stage.warn(f"keys of config.json that nothing here knows: {', '.join(strange)}")
    for count, of in check_model(folder):
        if stage.stop_requested():
            raise Interrupted
        if count % TELL_EVERY == 0 or count == of:
            stage.tell(stage.name, count - 1, of, {})
    sizes = count_parameters(shape)
    return {
        "parameters": float(sizes.total),
        "active_parameters": float(sizes.active),
        "vocabulary": tokenizer.vocab_size,
    }


def refuse_foreign_tokenizer(tokenizer: Any, num_embeddings: int, folder: Path) -> None:
    """Raises UserError when the tokenizer has ids without an embedding; more embeddings than ids are usual padding."""
    if tokenizer.vocab_size > num_embeddings:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model {num_embeddings} embeddings",
            where=str(folder),
            next_step="Take both from one checkpoint: this tokenizer belongs to another model.",
        )


def gather(files: Sequence[Path], folder: Path) -> None:
    """Put files into a folder, whole or not at all: as hard links where the file system can, else as copies."""
    beside = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for file in files:
            _link_or_copy(file.resolve(), beside / file.name)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise disk_error(folder, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _link_or_copy(file: Path, target: Path) -> None:
    """Weights are shared with the cache or folder they lie in; small files are copied, since people edit those."""
    if file.suffix == ".safetensors":
        try:
            os.link(file, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(file, target)
