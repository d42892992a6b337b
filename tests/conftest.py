"""Shared by all tests: one helper process to fork command lines from, and a folder with the toy manifest."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.forks import Forks

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
