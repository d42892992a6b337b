"""The run directory: ``runs/<name>/`` with one folder per stage. Everything shown anywhere is read from here.

manifest.toml  run.json  ledger.jsonl  report.html
<stage>-<fingerprint8>/  stage.json  metrics.jsonl  rollouts.jsonl  checkpoints/  model/  eval.json
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seekling.errors import UserError, nearest
from seekling.records import StepRecord
from seekling.runlog.files import (
    Lines,
    line_at,
    placed_lines,
    read_json,
    read_records,
    sha256,
    write_atomic,
    write_json,
)

READ = ("problems.jsonl", "data.jsonl")
"""Files by which a stage leaves something other than a model."""


class Run:
    """One run directory, open for writing by one process (hold ``files.locked`` around it)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open_session(self, manifest: str, facts: Mapping[str, Any]) -> int:
        """Record the resolved manifest and this process's hardware and versions. Returns the session's number."""
        known = self.facts() if (self.folder / "run.json").exists() else {"sessions": []}
        session = len(known["sessions"])
        started = {
            "session": session,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **facts["session"],
        }
        run = {
            "created": started["started"],
            **known,
            **facts["run"],
            "sessions": [*known["sessions"], started],
        }
        write_json(self.folder / "run.json", {"name": self.folder.name, **run})
        write_atomic(self.folder / "manifest.toml", manifest)
        return session

    def facts(self) -> dict[str, Any]:
        """The parsed run.json."""
        facts: dict[str, Any] = read_json(self.folder / "run.json")
        return facts

    def stages(self) -> list[StageFolder]:
        """The stages begun so far, in the manifest's order (the newest last where one was changed)."""
        found = [StageFolder(file.parent) for file in self.folder.glob("*/stage.json")]
        return sorted(found, key=lambda stage: (stage.facts()["index"], stage.facts()["started"]))

    def folders(self) -> list[str]:
        """Folder names of the stages of the manifest last run, in order, whether begun or not."""
        names: list[str] | None = self.facts().get("stages")
        return [stage.folder.name for stage in self.stages()] if names is None else names

    def current(self) -> list[StageFolder]:
        """The stages of the manifest last run that have begun, in order: those whose figures are the run's."""
        placed = [StageFolder(self.folder / name) for name in self.folders()]
        return [stage for stage in placed if stage.facts()]

    def stage(self, name: str) -> StageFolder:
        """A stage of the manifest last run. Raises UserError naming the nearest stage."""
        named = [stage for stage in self.current() if stage.facts()["name"] == name]
        if not named:
            names = {stage.facts()["name"] for stage in self.current()}
            raise UserError(f'run "{self.folder.name}" has no stage "{name}"', next_step=nearest(name, names))
        return named[-1]


class StageFolder:
    """One stage's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def model(self) -> Path:
        """Where the finished model stands."""
        return self.folder / "model"

    def weights(self) -> str:
        """The checksum (SHA-256) of the finished model's weights; empty where there are none."""
        files = sorted(self.model.glob("*.safetensors"))
        whole = hashlib.sha256()
        for file in files:
            whole.update(bytes.fromhex(sha256(file)))
        return whole.hexdigest() if files else ""

    def leavings(self) -> list[str]:
        """What other stages may read here: ``weights``, and by file name a list or chats."""
        has_weights = any(self.model.glob("*.safetensors"))
        return [*(["weights"] if has_weights else []), *(name for name in READ if (self.folder / name).exists())]

    def left(self) -> dict[str, str]:
        """Their checksums (SHA-256)."""
        return {name: self.weights() if name == "weights" else sha256(self.folder / name) for name in self.leavings()}

    def facts(self) -> dict[str, Any]:
        """The parsed stage.json, or nothing when the stage has not begun."""
        file = self.folder / "stage.json"
        facts: dict[str, Any] = read_json(file) if file.exists() else {}
        return facts

    def is_done(self) -> bool:
        """Whether the stage finished (its gate apart)."""
        return self.facts().get("state") in ("done", "gate_missed")

    def write(self, **facts: Any) -> None:
        """Merge facts into stage.json."""
        write_json(self.folder / "stage.json", self.facts() | facts)

    def metrics(self) -> list[StepRecord]:
        """One record per step, in order; of a step repeated after a crash the last execution."""
        last = {record.step: record for record in read_records(self.folder / "metrics.jsonl", StepRecord)}
        return [last[step] for step in sorted(last)]


class MetricLog:
    """Append-only metrics of a stage."""

    def __init__(self, folder: Path) -> None:
        self._lines = Lines(folder / "metrics.jsonl")

    def write(self, record: StepRecord) -> None:
        """Append one step."""
        self._lines.append(asdict(record))

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        self._lines.sync()

    def close(self) -> None:
        """Flush to the disk."""
        self._lines.close()


class Journal:
    """What was drawn and judged before each update, so that a resumed stage replays it instead of drawing again.

    It grows with every step and stays on the disk: in memory is only where each step's line begins.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "rollouts.jsonl"
        told = ((place, line.get("step")) for place, line in placed_lines(self.file))
        self._places = {step: place for place, step in told if isinstance(step, int)}
        self._lines = Lines(self.file)

    def recall(self, step: int) -> dict[str, Any] | None:
        """What was journaled for ``step`` by an earlier session, or None."""
        return line_at(self.file, self._places[step]) if step in self._places else None

    def write(self, step: int, entry: Mapping[str, Any]) -> None:
        """Append a step's entry and wait until it is on the disk."""
        self._lines.append({"step": step, **entry}, sync=True)

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def list_runs(root: Path) -> Iterator[Run]:
    """The runs below ``root``, newest last."""
    found = [Run(file.parent) for file in root.glob("*/run.json")]
    yield from sorted(found, key=lambda run: run.facts()["created"])


def stale_stages(run: Run) -> list[Path]:
    """Stage folders that the manifest last run does not name: what ``runs prune`` may delete."""
    return [stage.folder for stage in run.stages() if stage.folder.name not in run.folders()]


def folder_bytes(folder: Path) -> int:
    """Size of all files below ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def delete_folder(folder: Path) -> None:
    """Remove a folder and all below it."""
    shutil.rmtree(folder)
