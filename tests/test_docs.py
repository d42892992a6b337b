"""The documents tell the truth: their code runs and prints what they say, their names, links and commands exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import seekling
from seekling.cli.main import app
from seekling.config import parse
from seekling.recipes.manifest import load_manifest
from seekling.rewards.rubric import Rubric
from seekling.tasks.corpus import Mixture
from seekling.tasks.new import STARTS
from seekling.tasks.registry import FAMILIES
from seekling.verify.verifiers import VERIFIERS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/seekling"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return [found[2] for found in FENCED.finditer(page) if found[1] == language]


def name_of(block: str) -> str | None:
    """``my_task.py`` when a block's first line is ``# my_task.py``: it is a file, not a part of the talk."""
    named = re.match(r"# ([\w-]+\.(?:py|toml))\n", block)
    return named[1] if named else None


def code_of(page: str) -> str:
    """Code spans and indented or fenced blocks of a page: where commands stand."""
    plain = FENCED.sub("", page)
    indented = re.findall(r"^    .*$", plain, re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", plain)
    return "\n".join([*indented, *spans, *(found[2] for found in FENCED.finditer(page))])


def write_files(page: str, folder: Path) -> None:
    """The page's files: named blocks, and its JSON lines as problems.jsonl."""
    for block in (block for language in ("python", "toml") for block in blocks(page, language)):
        if name := name_of(block):
            (folder / name).write_text(block)
    for block in blocks(page, "jsonl"):
        (folder / "problems.jsonl").write_text(block)


# --- pages that run ---------------------------------------------------------------------------------------------------


def script_of(page: str) -> str:
    """The unnamed Python blocks as one program whose line numbers are the page's."""
    lines = [""] * (page.count("\n") + 1)
    for found in FENCED.finditer(page):
        if found[1] == "python" and not name_of(found[2]):
            start = page.count("\n", 0, found.start(2))
            body = found[2].splitlines()
            lines[start : start + len(body)] = body
    return "\n".join(lines)


def promised(script: str) -> list[str]:
    """What the comments behind the prints promise."""
    return re.findall(r"^\s*print\(.*\)  # (.*)$", script, re.MULTILINE)


@pytest.mark.parametrize("name", ["docs/api.md", "docs/own-task.md"])
def test_a_page_of_code_runs_and_prints_what_it_says(name: str, tmp_path: Path) -> None:
    page = text_of(name)
    write_files(page, tmp_path)
    script = script_of(page)
    (tmp_path / "page.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"line numbers are those of {name}\n{done.stderr}"
    assert done.stdout.splitlines() == promised(script)


def test_the_api_page_names_all_that_is_public() -> None:
    page = "\n".join(blocks(text_of("docs/api.md"), "python"))
    missing = [name for name in seekling.__all__ if not re.search(rf"\b{name}\b", page)]
    assert not missing


def test_a_task_of_ten_lines_has_ten_lines() -> None:
    file = next(b for b in blocks(text_of("docs/api.md"), "python") if name_of(b) == "my_task.py")
    assert len([line for line in file.splitlines()[1:] if line.strip()]) <= 10


# --- docs/papers.md ---------------------------------------------------------------------------------------------------


def defined(file: Path) -> set[str]:
    """``function``, ``Class`` and ``Class.method`` of a file."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_every_function_that_the_papers_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py):([\w.]+)`", text_of("docs/papers.md"))
    assert len(named) > 20
    missing = [f"{file}:{name}" for file, name in named if name not in defined(SOURCE / file)]
    assert not missing


def test_every_row_of_the_papers_page_leads_to_a_function() -> None:
    rows = [line for line in text_of("docs/papers.md").splitlines() if line.startswith("| ") and "---" not in line]
    assert not [row for row in rows if not re.search(r"\.py:\w", row) and not row.startswith("| paper ")]


def test_every_paper_that_the_code_cites_stands_on_the_papers_page() -> None:
    cited = {n for file in SOURCE.rglob("*.py") for n in re.findall(r"arXiv[: ]+(\d{4}\.\d{5})", file.read_text())}
    assert cited
    assert not [number for number in sorted(cited) if number not in text_of("docs/papers.md")]


# --- the other pages --------------------------------------------------------------------------------------------------


def test_every_letter_that_a_shape_wears_is_in_the_glossary() -> None:
    worn = {
        letter
        for room in ("model", "learn", "engine")
        for file in (SOURCE / room).rglob("*.py")
        for shape in re.findall(r"\b[a-z][a-z0-9_]*_([A-Z][A-Z0-9]*)\b", file.read_text())
        for letter in shape
    }
    known = set(re.findall(r"^\| `(\w)` \|", text_of("docs/glossary.md"), re.MULTILINE))
    assert worn <= known


def test_the_tasks_page_names_every_quality() -> None:
    page = text_of("docs/tasks.md")
    for name, family in FAMILIES.items():
        assert f"`{name}`" in page, f"no word of {name}"
        qualities = getattr(family, "qualities", ())
        paragraphs = (page.split(f"\n`{name}`:")[1:] or ["\n\n"])[0].split("\n\n")
        told = re.findall(r"^\| (\w+) \|", paragraphs[1], re.MULTILINE)[1:]
        named = [quality for quality in qualities if f"*{quality}*" in page]
        assert sorted(told or named) == sorted(qualities), name


def test_manifests_in_the_documents_are_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("seekling.recipes.manifest.identity", lambda model, revision: {"commit": "0" * 40})
    monkeypatch.setattr("seekling.recipes.manifest.digest_of", lambda data, revision: None)
    names = []
    for page in DOCS:
        write_files(page.read_text(), tmp_path)
        names += [name for block in blocks(page.read_text(), "toml") if (name := name_of(block))]
    assert len(set(names)) == len(names) >= 2
    for name in names:
        assert load_manifest(name).stages


def test_the_mixture_on_the_tasks_page_is_one() -> None:
    import tomllib

    for block in blocks(text_of("docs/tasks.md"), "toml"):
        assert parse(Mixture, tomllib.loads(block)["text"]).qualities.keys() <= set(FAMILIES["arithmetic"].qualities)  # type: ignore[attr-defined]


def anchors(page: str) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


def test_the_readme_leads_to_every_document() -> None:
    assert not [page.name for page in DOCS if f"(docs/{page.name})" not in text_of("README.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_exists(page: Path) -> None:
    code = code_of(page.read_text())
    for name, rest in re.findall(r"(?:^\s*|bin/|^)seekling ([a-z]+)\b(.*)$", code, re.MULTILINE):
        assert name in COMMANDS, f"seekling {name}"
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        asked = set(re.findall(r"(?<=\s)--[a-z-]+", rest.partition("#")[0]))
        assert asked <= options, f"seekling {name} {rest}"
    for target in re.findall(r"^\s*make ([a-z-]+)\b", code, re.MULTILINE):
        assert target in TARGETS, f"make {target}"


def test_every_command_is_told_on_some_page() -> None:
    code = "\n".join(code_of(page.read_text()) for page in PAGES)
    assert not [name for name in COMMANDS if not re.search(rf"\bseekling {name}\b", code)]


def test_every_setting_that_a_page_changes_is_one(tmp_path: Path) -> None:
    """``seekling run zero-tiny key=value ...`` as the pages write it is accepted by the manifest."""
    found = [
        command.split()
        for page in PAGES
        for command in re.findall(r"seekling run zero-tiny((?: [\w.-]+=[^\s`]+)+)", code_of(page.read_text()))
    ]
    assert found
    for settings in found:
        assert load_manifest("zero-tiny", settings) != load_manifest("zero-tiny"), settings


def test_the_page_on_own_tasks_tells_every_verifier_criterion_and_start() -> None:
    page = text_of("docs/own-task.md")
    told = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", page, re.MULTILINE))
    assert {name: told[name] for name in VERIFIERS} == {name: one.about for name, one in VERIFIERS.items()}
    criteria = re.findall(r"^\| `(\w+)` \|", page.split("## What a rollout earns")[1], re.MULTILINE)
    assert set(criteria) == Rubric.model_fields.keys() - {"functions"}
    assert set(re.findall(r"seekling tasks new mine ?(\w*)", page)) - {""} == STARTS.keys() - {"task"}


def test_the_log_begins_with_its_newest_day() -> None:
    days = re.findall(r"^## (\d{4}-\d{2}-\d{2})$", text_of("docs/log.md"), re.MULTILINE)
    assert days
    assert days == sorted(days, reverse=True)
