"""Shared by all tests: one helper process to fork command lines from, and a folder with the toy manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.forks import Forks

SOAKED = Path(__file__).parent.parent / "bench" / "results" / "soak.json"
MANIFESTS = Path(__file__).parent / "e2e" / "manifests"


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Children forked from one process that has imported torch."""
    helper = Forks(tmp_path_factory.mktemp("forks"))
    yield helper
    helper.close()


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder with toy.toml, its task and its chats, to run in."""
    return fresh_toy(tmp_path / "toy")


def fresh_toy(folder: Path) -> Path:
    """Copy the toy's files into ``folder``."""
    shutil.copytree(MANIFESTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """After `make soak`: what ran, how it ended and how long each test took, in bench/results/soak.json."""
    if config.option.markexpr != "soak":
        return
    from seekling.plan.machine import machine
    from seekling.recipes.pipeline import commit  # torch: not for a run of tests that needs none

    ended = {how: terminalreporter.stats.get(how, []) for how in ("passed", "failed")}
    facts = machine()
    result = {
        "hardware": {"cpu": facts.cpu, "cores": facts.cores, "memory_bytes": facts.memory_bytes},
        "commit": commit(),
        "command": "make soak",
        **{how: len(reports) for how, reports in ended.items()},
        "seconds": {r.nodeid: round(r.duration, 1) for reports in ended.values() for r in reports},
    }
    SOAKED.write_text(json.dumps(result, indent=1) + "\n")
