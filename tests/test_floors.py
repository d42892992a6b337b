"""The floors of the house hold, and the contracts that say so can be broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package and its contracts, to plant violations in."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def broken_contracts(house: Path) -> str:
    """The linter's report on ``house``; empty when every contract is kept."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    # The copy must win over the installed package.
    environment = {**os.environ, "PYTHONPATH": str(house / "src"), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=house, env=environment, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def plant(house: Path, room: str, line: str) -> None:
    file = house / "src/seekling" / room
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{line}\n")


def test_every_room_imports_only_rooms_below(house: Path) -> None:
    assert broken_contracts(house) == ""


@pytest.mark.parametrize(
    ("room", "line", "contract"),
    [
        ("tasks/planted.py", "import seekling.recipes", "floors"),
        ("rewards/planted.py", "import seekling.tasks", "floors"),
        ("plan/planted.py", "import torch", "no torch"),
        ("text/planted.py", "def lazily():\n    import torch", "no torch"),
        ("learn/objective.py", "import seekling.model", "learning takes tensors"),
        ("utils/__init__.py", "", "floors"),
    ],
)
def test_a_planted_violation_is_found(house: Path, room: str, line: str, contract: str) -> None:
    plant(house, room, line)
    report = broken_contracts(house)
    assert contract in report
    assert "BROKEN" in report or "utils" in report, report
