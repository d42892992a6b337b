"""Where a stage comes from: what it reads, to the bit, and what to do when something that is read is gone."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from seekling.errors import UserError, nearest
from seekling.recipes.config import StageSettings
from seekling.recipes.manifest import Manifest
from seekling.runlog.run import Run, StageFolder

Warn = Callable[[str], None]


def about(manifest: Manifest, settings: StageSettings) -> dict[str, Any]:
    """What a stage's facts say before it begins: who it is, of which manifest, what it reads that no stage leaves."""
    plain = settings.model_dump(mode="json", by_alias=True)
    names = settings.sources
    return {
        "name": settings.name, "kind": settings.kind, "index": manifest.stages.index(settings),
        "fingerprint": manifest.fingerprints[settings.name], "state": "running", "manifest": manifest.head.name,
        "inputs": {"from": names[0] if len(names) == 1 else list(names)} if names else {}, "settings": plain,
        "gate": plain.get("gate", {}), "data": manifest.data[settings.name],
    }  # fmt: skip


def code_of(folder: StageFolder, now: Mapping[str, str], warn: Warn) -> list[Mapping[str, str]]:
    """The versions of this code that worked on a stage, in order. One that is new to it is told of."""
    known: list[Mapping[str, str]] = folder.facts().get("code", [])
    if known and known[-1] != now:
        was, is_ = (" at ".join(part for part in code.values() if part) for code in (known[-1], now))
        warn(f'stage "{folder.facts()["name"]}" began with Seekling {was} and goes on with {is_}')
    return known if known and known[-1] == now else [*known, now]


def parents(inputs: Sequence[StageFolder], warn: Warn) -> list[dict[str, Any]]:
    """What a stage begins from: each input's name, fingerprint and folder, and checksums of what was read there.

    What its stage did not leave so is told of.
    """
    found = []
    for source in inputs:
        facts, left = source.facts(), source.left()
        for what in left:
            if facts.get("left", left).get(what) != left[what]:
                place = source.model if what == "weights" else source.folder / what
                warn(f'the {what} of stage "{facts["name"]}" are not those it left: {place} was changed since')
        found.append(
            {**{key: facts[key] for key in ("name", "fingerprint")}, "folder": source.folder.name, "left": left}
        )
    return found


def begin_again(manifest: Manifest, run: Run, names: Sequence[str]) -> None:
    """Have stages made anew that are finished, or gone; those that read them stay. Raises UserError for one unknown.

    Where checkpoints are left a stage goes on from the newest.
    """
    for name in names:
        if name not in manifest.fingerprints:
            raise UserError(f'there is no stage "{name}" to make again', next_step=nearest(name, manifest.fingerprints))
        folder = _folder(manifest, run, name)
        anew = {} if folder.facts() else about(manifest, manifest.stage(name)) | {"started": time.time()}
        folder.write(**(anew | {"state": "again"}))


def refuse_lost(manifest: Manifest, run: Run) -> None:
    """Raises UserError where a stage that is still to be worked on reads what another left, and it is gone."""
    for stage in manifest.stages:
        if _folder(manifest, run, stage.name).is_done():
            continue
        lost = {name: gone for name in stage.sources if (gone := list(_lost(manifest, run, name)))}
        if lost:
            again = " ".join(f"--again {name}" for name in lost)
            raise UserError(
                f'stage "{stage.name}" reads what stage "{next(iter(lost))}" left, and it is gone',
                where=", ".join(place for gone in lost.values() for place in gone),
                next_step="Restore it from a copy, or make it again (from its last checkpoint, where there is one): "
                f"seekling run {shlex.quote(str(run.folder))} {again}",
            )


def is_lost(manifest: Manifest, run: Run, name: str) -> bool:
    """Whether something of what a stage left is gone, its folder perhaps."""
    return any(_lost(manifest, run, name))


def tell_readers(manifest: Manifest, run: Run, name: str, left: Mapping[str, str], warn: Warn) -> None:
    """Say which stages have read something else of a stage than what it left now."""
    for stage in manifest.stages:
        read = _folder(manifest, run, stage.name).facts().get("parents", [])
        if any(parent["name"] == name and parent["left"] != left for parent in read):
            warn(f'stage "{stage.name}" was made from what "{name}" left before, which was not the same')


def _lost(manifest: Manifest, run: Run, name: str) -> Iterator[str]:
    """What is missing of a stage. One whose folder is not there was begun once if a stage that reads it was."""
    folder = _folder(manifest, run, name)
    if folder.is_done():
        missing = folder.facts().get("left", {}).keys() - folder.leavings()
        places = {"weights": folder.model / "model.safetensors"}
        yield from (str(places.get(what, folder.folder / what)) for what in sorted(missing))
    elif not folder.facts():
        readers = [stage.name for stage in manifest.stages if name in stage.sources]
        yield from [str(folder.folder)] if any(_folder(manifest, run, reader).facts() for reader in readers) else []


def _folder(manifest: Manifest, run: Run, name: str) -> StageFolder:
    return StageFolder(run.folder / manifest.folder_name(name))
