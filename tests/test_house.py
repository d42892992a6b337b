"""The house keeps its own rules: exports, floors' blind spots, lengths, documents generated from results, the seed."""

from __future__ import annotations

import ast
import importlib
import io
import re
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import seekling
from bench import readme
from seekling.cli.main import app
from seekling.engine.rules import Rule
from seekling.model.ops import Ops
from seekling.recipes.manifest import load_manifest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/seekling"
FILES = sorted(SOURCE.rglob("*.py"))
NUM_CLAIMS = 32
"""Bullets of the source document. docs/seed.md must hold each of them."""
MEDIAN_LINES, MOST_LINES = 12, 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def place(file: Path, node: ast.stmt | ast.expr) -> str:
    return f"{file.relative_to(ROOT)}:{node.lineno}"


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


# --- the public face --------------------------------------------------------------------------------------------------


def test_exports_are_sorted_and_importable() -> None:
    assert seekling.__all__ == sorted(set(seekling.__all__))
    for name in seekling.__all__:
        assert getattr(seekling, name).__name__ == name if isinstance(getattr(seekling, name), type) else True


def test_an_export_is_told_as_public_by_its_home() -> None:
    for name, home in seekling._HOMES.items():
        assert hasattr(importlib.import_module(home), name), f"{home} has no {name}"


def test_importing_seekling_imports_neither_torch_nor_numpy() -> None:
    done = run_python("import seekling, sys; print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_settings_and_manifests_are_read_without_torch() -> None:
    modules = [".".join(f.relative_to(SOURCE.parent).with_suffix("").parts) for f in FILES if f.name == "config.py"]
    assert len(modules) >= 5
    code = f"""
import sys
sys.modules["torch"] = None
import importlib
for name in {modules!r}:
    importlib.import_module(name)
from seekling.recipes.manifest import built_in, load_manifest
assert built_in()
for name in built_in():
    load_manifest(name)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["run", "--help"], ["stages"], ["stages", "grpo"], ["runs"]]
)
def test_the_door_answers_without_torch(words: list[str]) -> None:
    code = f"import sys; sys.modules['torch'] = None; from seekling.cli.main import app; app({words!r})"
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_command_has_help() -> None:
    group: Any = typer.main.get_command(app)
    assert group.help
    assert not [name for name, command in group.commands.items() if not (command.help or "").strip()]


# --- what the code may not hold ---------------------------------------------------------------------------------------


def calls(name: str) -> list[str]:
    nodes = ((file, node) for file in FILES for node in ast.walk(tree(file)))
    return [
        place(file, node)
        for file, node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def test_only_the_door_prints() -> None:
    assert not [where for where in calls("print") if not where.startswith("src/seekling/cli/")]


BOUND = "src/seekling/verify/sandbox/zygote.py:"
"""The one place where a program's text is run: in a fork that the kernel holds by then."""


@pytest.mark.parametrize("name", ["eval", "exec", "compile", "__import__"])
def test_no_text_is_run_as_code(name: str) -> None:
    may = BOUND if name in ("exec", "compile") else "nowhere"
    assert not [where for where in calls(name) if not where.startswith(may)]


def test_no_function_writes_a_global() -> None:
    nodes = ((file, node) for file in FILES for node in ast.walk(tree(file)))
    assert not [place(file, node) for file, node in nodes if isinstance(node, ast.Global)]


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_nothing_is_pickled() -> None:
    unsafe = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "multiprocessing"}
    nodes = [(file, node) for file in FILES for node in ast.walk(tree(file))]
    assert not [place(f, n) for f, n in nodes for name in imported(n) if name.split(".")[0] in unsafe]  # type: ignore[arg-type]
    loads = {"torch.load", "torch.save", "np.load"}
    found = [place(f, n) for f, n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) in loads]
    assert not found


def test_no_global_generator_is_used() -> None:
    """Every draw is a function of its name: no module-level ``random``, ``np.random`` or ``torch.manual_seed``."""
    shared = re.compile(
        r"^(random|np\.random|numpy\.random)\.(?!Random$|default_rng$|Generator$)\w+$|^torch\.(manual_seed|seed)$"
    )
    nodes = ((file, node) for file in FILES for node in ast.walk(tree(file)))
    assert not [place(f, n) for f, n in nodes if isinstance(n, ast.Call) and shared.match(ast.unparse(n.func))]


def comments(file: Path) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_nothing_is_left_to_do() -> None:
    later = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")
    assert not [
        f"{file.relative_to(ROOT)}:{line}" for file in FILES for line, text in comments(file) if later.search(text)
    ]


def test_rooms_have_no_lobby() -> None:
    """Package ``__init__`` files are empty; the top one names the public API."""
    inits = [file for file in FILES if file.name == "__init__.py" and file.parent != SOURCE]
    assert inits
    assert not [str(file.relative_to(ROOT)) for file in inits if file.read_text().strip()]


# --- functions --------------------------------------------------------------------------------------------------------


def functions() -> list[tuple[int, str]]:
    """Length in lines and place of every function."""
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{place(file, node)} {node.name}")
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, Function)
    ]


def test_functions_are_short() -> None:
    lengths = functions()
    print(*(f"{lines:4d}  {where}" for lines, where in sorted(lengths, reverse=True)[:12]), sep="\n")
    assert statistics.median(lines for lines, _ in lengths) < MEDIAN_LINES
    assert not [where for lines, where in lengths if lines > MOST_LINES]


def public(body: list[ast.stmt]) -> Iterator[tuple[ast.ClassDef | None, Function | ast.ClassDef]]:
    """Public functions and classes, with the class a method belongs to."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield None, node
            if isinstance(node, ast.ClassDef):
                yield from ((node, inner) for _, inner in public(node.body))


def test_everything_public_has_a_docstring() -> None:
    """A layer's ``forward`` and ``extend`` are what the layer's class says, and operations what their protocol says."""
    told_by_class = {"forward", "extend"} | {
        name for kind in (Ops, Rule) for name in vars(kind) if not name.startswith("_")
    }
    missing = [
        f"{place(file, node)} {node.name}"
        for file in FILES
        for owner, node in public(tree(file).body)
        if not ast.get_docstring(node) and not (owner and ast.get_docstring(owner) and node.name in told_by_class)
    ]
    assert not missing


def test_every_module_says_what_it_is() -> None:
    assert not [
        str(file.relative_to(ROOT)) for file in FILES if file.read_text().strip() and not ast.get_docstring(tree(file))
    ]


# --- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", readme.DOCUMENTS)
def test_generated_parts_equal_the_result_file_and_the_code(name: str) -> None:
    before = (ROOT / name).read_text(encoding="utf-8")
    assert readme.MARKED.search(before), f"{name} has no generated part"
    assert readme.render(before, readme.read_result()) == before, "run: .venv/bin/python -m bench.readme"


def test_every_marked_block_is_known_and_closed() -> None:
    for name in readme.DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        begun, ended = (re.findall(rf"<!-- {word} ([\w-]+)", text) for word in ("begin", "end"))
        assert begun == ended
        assert set(begun) <= readme.BLOCKS.keys()


SEED = {
    "seed": 3, "seconds": 301.2, "seconds_to_rise": 95.0, "blind_at_8": 0.071,
    "base": {"pass_1": 0.2125, "interval": [0.19, 0.235], "tokens": 18.25},
    "trained": {"pass_1": 0.8771, "interval": [0.86, 0.894], "tokens": 24.5},
    "controls": {
        "no_stop": {"pass_1": 0.31, "tokens": 24.0}, "blind": {"pass_1": 0.05, "tokens": 24.0},
        "shuffled": {"pass_1": 0.22, "tokens": 18.0}, "base_pass_k": {"pass_1": 0.27, "tokens": 24.5},
    },
    "distinct_attempts": {"base": 0.97, "trained": 0.98},
    "larger_size": {"size": 6, "base": 0.06, "trained": 0.44},
    "peak_memory_bytes": 734003200,
    "tokens_per_core_s": {"trained": 9000, "generated": 4500, "floor_trained": 12000, "floor_generated": 9000},
    "without_verdicts": {"base": 0.2, "trained": 0.83},
}  # fmt: skip
RESULT = {
    "hardware": {"cpu": "Invented CPU", "cores": 2, "memory_bytes": 8 * 2**30},
    "commit": "0123456789ab", "threads": 2, "dtype": "float32", "command": "make bench", "seeds": [SEED],
}  # fmt: skip


def test_figures_come_from_the_result_file() -> None:
    page = readme.render("\n".join((ROOT / name).read_text() for name in readme.DOCUMENTS), RESULT)
    for shown in (
        "21.2 % [19.0, 23.5]", "87.7 % [86.0, 89.4]", "31.0 % (base kept from stopping)", "6.0 % → 44.0 %",
        "5 min 01 s", "+66.5 points", "+56.7 points", "7.1 %", "0.970 → 0.980", "20.0 % → 83.0 %", "700 MiB",
        "9,000, 75 % of the floor", "4,500, 50 % of the floor",
        "Invented CPU, 2 cores, 8 GiB; 2 threads, float32, commit `0123456789ab`",
    ):  # fmt: skip
        assert shown in page, shown


def test_what_was_not_measured_is_said() -> None:
    page = readme.render("<!-- begin gain: x -->\n<!-- end gain -->", RESULT | {"seeds": [{"seed": 5}]})
    assert "| 5 | not measured |" in page


def test_without_a_result_file_a_table_says_so() -> None:
    for block in ("headline", "gain", "controls", "beyond", "cost"):
        assert readme.NONE_YET in readme.BLOCKS[block](None)


@pytest.mark.parametrize("name", ["README.md", "docs/figures.md"])
def test_no_measured_figure_is_typed_by_hand(name: str) -> None:
    prose = readme.MARKED.sub("", (ROOT / name).read_text(encoding="utf-8"))
    units = r"%|s|ms|min|minutes|seconds|hours|points|[KMG]i?B|tokens?|FLOPs|times|x"
    assert not [found[0] for found in re.finditer(rf"(?<![\w.+=-])\d[\d.,]*\s?(?:{units})(?!\w)", prose)]


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").read_text().count("\n") < 150


def sketch(opening: str) -> list[str]:
    """First words of the indented block that follows ``opening`` in the README."""
    block = (ROOT / "README.md").read_text().split(opening)[1].split("\n\n")[1]
    return [line.split()[0] for line in block.splitlines()]


def test_the_readme_tells_the_stages_of_zero_tiny_in_order() -> None:
    assert sketch("step by step:") == [stage.name for stage in load_manifest("zero-tiny").stages]


def test_the_readme_shows_every_room() -> None:
    rooms = {f"{file.parent.name}/" for file in SOURCE.glob("*/__init__.py")}
    files = {file.name for file in SOURCE.glob("*.py")} - {"__init__.py"}
    tree = (ROOT / "README.md").read_text().split("src/seekling/\n")[1].split("\n\n")[0]
    assert {line.split()[0] for line in tree.splitlines()} <= rooms | files
    assert not [name for name in rooms if not re.search(rf"^ +{name} +\w", tree, re.MULTILINE)]
    assert not [name for name in files if name not in tree]


# --- the seed ---------------------------------------------------------------------------------------------------------


def claims(page: str) -> dict[int, str]:
    """Number -> text of each claim, its lines below included."""
    listed = page.partition("\n## ")[2].partition("\n## Beside the bullets")[0]
    parts = re.split(r"^(\d+)\. ", listed, flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def unserved(text: str) -> str:
    """Why a claim is not answered, or ``""``: each answer is a command with its result, a plan, or a reason."""
    answers = re.findall(r"^ +\* (.*(?:\n +(?![ *]).*)*)", text, re.MULTILINE)
    if not answers:
        return "no answer"
    good = re.compile(r"served by `[^`]+`: \S|planned: \S|outside, because \S")
    return next((f"cannot read: {answer[:60]}" for answer in answers if not good.match(answer)), "")


def test_every_claim_of_the_seed_stands_and_is_answered() -> None:
    found = claims((ROOT / "docs/seed.md").read_text(encoding="utf-8"))
    assert list(found) == list(range(1, NUM_CLAIMS + 1))
    assert not {number: why for number, text in found.items() if (why := unserved(text))}


@pytest.mark.parametrize(
    "text",
    [
        "**A claim.** Told.\n",
        "**A claim.** Told.\n   * served by wishing\n",
        "**A claim.** Told.\n   * served by `make quickstart`:\n",
        "**A claim.** Told.\n   * planned: a thing\n   * perhaps\n",
    ],
)
def test_a_claim_without_an_answer_is_found(text: str) -> None:
    assert unserved(text)


# --- nothing of where it was made -------------------------------------------------------------------------------------


def tracked() -> list[Path]:
    """Files that a commit holds or would hold."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:  # an unpacked archive: everything outside the ignored folders
        return [
            f for room in ("src", "tests", "docs", "bench", "scripts") for f in (ROOT / room).rglob("*") if f.is_file()
        ]
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


HOSTS = {
    "arxiv.org", "github.com", "pytorch.org", "download.pytorch.org", "pypi.org", "www.apache.org", "www.w3.org",
    "deb.debian.org", "huggingface.co", "json-schema.org", "example.com", "example.org",
}  # fmt: skip
"""Public hosts that an address in these files may name."""

# Put together from pieces, so that this file does not hold what it looks for.
ELSEWHERE = re.compile(
    "|".join([
        r"(?<![\w.])/wor" + r"k/\w", r"(?<![\w$}.])/tm" + r"p/\w", r"(?<![\w.])/ro" + r"ot/\w", r"\.\./sha" + r"red\b",
        r"sha" + r"red/(?:reference|seed|hooks)", r"\bissue[s]? (?:show|list)\b", r"\bissue [A-H]\b",
        r"MISSI" + r"ON\.md", r"DESI" + r"GN\.md", r"Co-Autho" + r"red-By", r"/opt/(?:whe" + r"els|py" + r"pi)",
    ])
)  # fmt: skip
ADDRESS = re.compile(r"https?://([\w.-]+)")


def texts() -> Iterator[tuple[Path, str]]:
    for file in tracked():
        try:
            yield file.relative_to(ROOT), file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_no_file_tells_where_it_was_made() -> None:
    found = [(str(file), match[0]) for file, text in texts() for match in ELSEWHERE.finditer(text)]
    assert not found


def test_every_address_is_of_a_known_public_host() -> None:
    local = re.compile(r"^(localhost|127\.|0\.0\.0\.0|.*\.(test|invalid|example)$|host$)")
    named = {(str(file), host) for file, text in texts() for host in ADDRESS.findall(text)}
    assert not {(file, host) for file, host in named if host not in HOSTS and not local.match(host)}


@pytest.mark.parametrize(
    "text", ["see /wor" + "k/main", "in ../sha" + "red", "at /tm" + "p/x", "as iss" + "ue B says", "per DESI" + "GN.md"]
)
def test_a_trace_of_where_it_was_made_is_found(text: str) -> None:
    assert ELSEWHERE.search(text)
