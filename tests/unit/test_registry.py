"""Tasks by name, built in or a user's own, and what is wrong with one as a letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from seekling.errors import UserError
from seekling.tasks.arithmetic import Arithmetic
from seekling.tasks.registry import FAMILIES, build_task, content_hash
from tests.conftest import MANIFESTS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.py").write_bytes((MANIFESTS / "sums.py").read_bytes())
    return tmp_path


def test_a_name_or_a_table_gives_the_same_task() -> None:
    assert build_task("arithmetic") == build_task({"name": "arithmetic"}) == Arithmetic()
    assert build_task({"name": "arithmetic", "high": 7}).high == 7


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_called_what_it_is_registered_as(name: str) -> None:
    assert build_task(name).name == name
    assert content_hash(name) is None


def test_a_users_own_class_gets_its_settings() -> None:
    task = build_task({"name": "./sums.py:Sums", "high": 9})
    assert (task.name, task.high) == ("sums", 9)
    assert build_task("sums.py:Sums").high == 40


def test_a_users_class_may_be_a_dataclass_or_settings_of_its_own(here: Path) -> None:
    (here / "own.py").write_text(
        "from __future__ import annotations\n"
        "from typing import Literal\n"
        "from pydantic import Field\n"
        "from seekling.config import Settings\n"
        "class Own(Settings):\n"
        "    name: str = 'own'\n"
        "    mode: Literal['a', 'b'] = Field('a')\n"
        "    def draw(self, rng, size=None): ...\n"
        "    def check(self, problem, answer): ...\n"
    )
    assert build_task({"name": "./own.py:Own", "mode": "b"}).mode == "b"


def test_a_users_file_never_takes_the_place_of_a_library(here: Path) -> None:
    import random

    (here / "random.py").write_bytes((here / "sums.py").read_bytes())
    assert build_task("./random.py:Sums").name == "sums"
    import sys

    assert sys.modules["random"] is random


def test_a_task_in_a_package_is_found_by_its_dotted_name() -> None:
    assert build_task("tests.e2e.manifests.sums:Sums").name == "sums"
    assert content_hash("tests.e2e.manifests.sums:Sums") == content_hash("./sums.py:Sums")


def test_the_hash_follows_the_files_content(here: Path) -> None:
    before = content_hash({"name": "./sums.py:Sums", "high": 3})
    assert before == content_hash("./sums.py:Sums")
    with (here / "sums.py").open("a") as handle:
        handle.write("# more\n")
    assert content_hash("./sums.py:Sums") != before


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("arithmetics", ("no task", '"arithmetic"', "./file.py:Name")),
        ("", ("no task",)),
        ({"high": 3}, ("no task",)),
        ({"name": "arithmetic", "hihg": 3}, ('"hihg"', '"high"')),
        ("./none.py:Sums", ("no file none.py", "folder you run in")),
        ("./sums.py:Suns", ("Suns", "after the colon")),
        ("./sums.py:identity", ("is not a task",)),
        ("./sums.py:re", ("cannot make the task", "not callable")),
        ({"name": "./sums.py:Sums", "hihg": 3}, ("hihg",)),
        ("no.such.module:Sums", ("ModuleNotFoundError",)),
        ("./sums.py:Random", ("is not a task", "lacks name, draw, check")),
        ("./broken.py:Sums", ("SyntaxError",)),
        ("./raising.py:Sums", ("RuntimeError: not today",)),
    ],
)
def test_what_is_wrong_with_a_task_is_said(here: Path, spec: object, words: tuple[str, ...]) -> None:
    (here / "broken.py").write_text("class Sums(:\n")
    (here / "raising.py").write_text("raise RuntimeError('not today')\n")
    with pytest.raises(UserError) as raised:
        build_task(spec)  # type: ignore[arg-type]
    for word in words:
        assert word in str(raised.value)
