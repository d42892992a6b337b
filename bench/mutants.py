"""Plant small faults in the rooms that learning depends on, and see who notices. One command, about an hour:

    .venv/bin/python -m bench.mutants [--count 200] [--seed 0] [--workers 2]   (needs pip install coverage)

A mutant is a copy of the package with one expression changed: a comparison turned, an operation exchanged, a constant
moved, a condition negated, a default dropped. Each is asked twice: whether the self-tests that run before every stage
refuse it, and whether the suite's tests of its room fail. Of these only the files are asked, cheapest first, that reach
the function it stands in: the others cannot tell. Writes bench/results/mutants.json after each; a run that was ended
goes on from there. What raises is noticed too, but counted apart; some mutants change nothing that anyone could see.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/mutants.json"
ROOMS = ("learn", "engine", "rewards")
LEFT_OUT = {"config.py", "presets.py", "__init__.py", "parallel"}
"""Settings are told by tests of manifests, and processes by tests that start some."""
TESTS = {
    "learn": (
        "parity/test_trl_objectives.py", "unit/test_figures.py", "unit/test_lessons.py", "unit/test_logps.py",
        "unit/test_guard.py", "unit/test_optim.py", "laws/test_packing.py", "parity/test_learning.py",
        "laws/test_preference.py", "laws/test_learning.py", "unit/test_selftests.py", "laws/test_faults.py",
        "parity/test_preference.py", "e2e/test_stages.py",
    ),
    "engine": (
        "laws/test_sampler.py", "unit/test_sampler.py", "parity/test_engine.py", "unit/test_selftests.py",
        "parity/test_foreign.py",
    ),
    "rewards": (
        "unit/test_rubric.py", "unit/test_criteria.py", "unit/test_reward_functions.py", "unit/test_judge.py",
        "unit/test_judging.py",
    ),
}  # fmt: skip
LONGEST_CPU_S, LONGEST_S = 240, 900
"""What loops for ever burns the first; what waits for ever has the second, which a busy machine may stretch."""
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
NAMED = ("file", "line", "column", "before", "after")
"""What tells one mutant from another."""


@dataclass(frozen=True)
class Mutant:
    """One change: where, what it was, what it is, the lines of which one runs if it does, and the changed file."""

    file: str
    line: int
    column: int
    before: str
    after: str
    first: int
    last: int
    source: str

    @property
    def room(self) -> str:
        """The room it stands in."""
        return Path(self.file).parts[0]


def main() -> None:
    """Plant, ask, count, write."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--workers", type=int, default=2)
    told = arguments.parse_args()
    rows, spent = known(told.seed)
    began, done = time.perf_counter(), {place_of(row) for row in rows}
    chosen = Random(told.seed).sample(list(every_mutant()), told.count)
    left = [mutant for mutant in chosen if place_of(asdict(mutant)) not in done]
    with copies(told.workers) as places:
        reach = each(places, sorted({test for tests in TESTS.values() for test in tests}), reached)
        judges = Judges(list(reach))
        refuse_false_alarms(places, judges)
        for row in each(places, left, judges.fate):
            rows.append(row)
            print(
                f"{len(rows)}/{len(chosen)} {row['file']}:{row['line']} {row['selftests']} {row['suite']}", flush=True
            )
            write(rows, told.seed, spent + time.perf_counter() - began)


# --- planting ---------------------------------------------------------------------------------------------------------


def every_mutant() -> Iterator[Mutant]:
    """All changes this knows, in the order of files and lines."""
    package = ROOT / "src/seekling"
    for room in ROOMS:
        for file in sorted((package / room).rglob("*.py")):
            if not LEFT_OUT & {file.name, file.parent.name}:
                yield from mutants_of(file.relative_to(package), file.read_text())


def mutants_of(file: Path, source: str) -> Iterator[Mutant]:
    """All changes of one file. Annotations, docstrings and messages are left alone."""
    tree = ast.parse(source)
    bodies = [(node.body[0].lineno, node.end_lineno or 0) for node in ast.walk(tree) if isinstance(node, FUNCTION)]
    skipped = {id(inner) for node in ast.walk(tree) for part in _words(node) for inner in ast.walk(part)}
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for change in _changes(node):
            mutated = copy.deepcopy(tree)
            target = next(other for place, other in enumerate(ast.walk(mutated)) if place == index)
            before = ast.unparse(node)
            change(target)
            line, column = node.lineno, node.col_offset  # type: ignore[attr-defined]
            first, last = max(((start, end) for start, end in bodies if start <= line <= end), default=(0, 0))
            told = ast.unparse(target), first, last, ast.unparse(ast.fix_missing_locations(mutated))
            yield Mutant(str(file), line, column, before, *told)


def _words(node: ast.AST) -> list[ast.AST]:
    """Parts of a node that no arithmetic depends on."""
    parts: list[ast.AST | None] = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    if isinstance(node, ast.Raise | ast.Assert):
        parts.append(node)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        parts.append(node)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("UserError", "Field", "runtime"):
        parts.append(node)
    return [part for part in parts if part is not None]


def _changes(node: ast.AST) -> list[Callable[[Any], None]]:
    """What can be done to a node."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        return [_swapped]
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        return [_turned]
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return [_moved]
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        return [_negated]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return [_unsigned]
    if isinstance(node, ast.Call) and len(node.args) >= 2 and not any(isinstance(a, ast.Starred) for a in node.args):
        return [_exchanged]
    return []


def _swapped(node: Any) -> None:
    node.op = SWAPS[type(node.op)]()


def _turned(node: Any) -> None:
    node.ops[0] = SWAPS[type(node.ops[0])]()


def _moved(node: Any) -> None:
    node.value = node.value + 1 if isinstance(node.value, int) else (node.value * 2 or 0.5)


def _negated(node: Any) -> None:
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _unsigned(node: Any) -> None:
    node.op = ast.UAdd()


def _exchanged(node: Any) -> None:
    node.args[0], node.args[1] = node.args[1], node.args[0]


# --- asking -----------------------------------------------------------------------------------------------------------


@contextmanager
def copies(count: int) -> Iterator[Queue[Path]]:
    """Folders with the package in each: one mutant at a time stands in one."""
    import torch  # noqa: F401  # here, so that no child has to

    with TemporaryDirectory() as scratch:
        places: Queue[Path] = Queue()
        for number in range(count):
            place = Path(scratch) / str(number)
            shutil.copytree(ROOT / "src/seekling", place / "seekling", ignore=shutil.ignore_patterns("__pycache__"))
            places.put(place)
        yield places


def each(places: Queue[Path], what: list[Any], ask: Callable[[Path, Any], Any]) -> Iterator[Any]:
    """``ask(place, one)`` of each, side by side, as they are known, in order."""

    def answer(one: Any) -> Any:
        place = places.get()
        try:
            return ask(place, one)
        finally:
            places.put(place)

    with ThreadPoolExecutor(places.qsize()) as pool:
        yield from pool.map(answer, what)


@dataclass(frozen=True)
class Reach:
    """A file of tests: its seconds, and the lines of the package it runs."""

    test: str
    seconds: float
    lines: dict[str, set[int]]

    def sees(self, mutant: Mutant) -> bool:
        """Whether a line of the function runs that the mutant stands in; outside of functions, of its file."""
        lines = self.lines.get(mutant.file, set())
        return any(mutant.first <= line <= mutant.last for line in lines) if mutant.last else bool(lines)


def reached(place: Path, test: str) -> Reach:
    """What a file of tests runs of the sound package. Exits when the tests fail: nothing would mean anything."""
    began, told = time.perf_counter(), place / "reach.json"
    if (fate := asked(place, lambda: _traced(place, test, told))) != "survived":
        raise SystemExit(f"{test} {fate} the code as it stands")
    lines = {file: set(lines) for file, lines in json.loads(told.read_text()).items()}
    return Reach(test, time.perf_counter() - began, lines)


def _traced(place: Path, test: str, told: Path) -> int:
    from coverage import Coverage

    package = place / "seekling"
    coverage = Coverage(data_file=None, source=[str(package)])
    coverage.start()
    code = _suite([str(ROOT / "tests" / test)])
    coverage.stop()
    data = coverage.get_data()
    lines = {str(Path(file).relative_to(package)): data.lines(file) or [] for file in data.measured_files()}
    told.write_text(json.dumps(lines))
    return code


class Judges:
    """Who is asked about a mutant: the self-tests, and of the suite what reaches it."""

    def __init__(self, reach: list[Reach]) -> None:
        self.reach = sorted(reach, key=lambda one: one.seconds)

    def fate(self, place: Path, mutant: Mutant) -> dict[str, Any]:
        """What becomes of it."""
        file = place / "seekling" / mutant.file
        sound = file.read_bytes()
        tests = [r.test for r in self.reach if r.test in TESTS[mutant.room] and r.sees(mutant)]
        file.write_text(mutant.source)
        try:
            told = {
                "selftests": asked(place, _start_up),
                "suite": asked(place, lambda: _suite([str(ROOT / "tests" / test) for test in tests])),
            }
        finally:
            file.write_bytes(sound)
        return {name: getattr(mutant, name) for name in (*NAMED, "room")} | told


def refuse_false_alarms(places: Queue[Path], judges: Judges) -> None:
    """Ask the self-tests about the code as it is."""
    sound = Mutant("learn/__init__.py", 0, 0, "", "", 1, 0, "")
    if [row["selftests"] for row in each(places, [sound], judges.fate)] != ["survived"]:
        raise SystemExit("the self-tests refuse the code as it stands")


def asked(place: Path, question: Callable[[], int]) -> str:
    """``killed``, ``raised``, ``hung`` or ``survived``: a child that imports the mutant answers by its exit code."""
    child = os.fork()
    if not child:
        _become(place)
        os._exit(_answer(question))
    ends = time.monotonic() + LONGEST_S
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return {0: "survived", 1: "killed", -signal.SIGXCPU: "hung"}.get(code, "raised")
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


def _become(place: Path) -> None:
    """A process group of its own, silent, on one thread, in which ``seekling`` is the mutant."""
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_CPU, (LONGEST_CPU_S, LONGEST_CPU_S + 10))
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("seekling", "tests", "bench")]:
        del sys.modules[name]
    sys.path[:0] = [str(place), str(ROOT)]
    os.environ |= {"PYTHONPATH": f"{place}:{ROOT}", "OMP_NUM_THREADS": "1"}
    import torch

    torch.set_num_threads(1)


def _answer(question: Callable[[], int]) -> int:
    try:
        return question()
    except BaseException as error:
        return 1 if type(error).__name__ == "SelfTestFailed" else 2


def _start_up() -> int:
    """The self-tests of a grpo stage, on a small sparse model from nothing and a task of sums; 1 if one refuses."""
    from seekling.engine.engine import Engine
    from seekling.learn.presets import OBJECTIVES
    from seekling.model.config import ModelConfig
    from seekling.model.decoder import Decoder
    from seekling.model.lora import reference_of
    from seekling.selftests import policies, tasks
    from seekling.selftests.outcome import require
    from seekling.tasks.registry import build_task

    shape = ModelConfig(vocab_size=64, n_routed_experts=8, initializer_range=0.05)
    model, task = Decoder(shape).init_weights(0), build_task("arithmetic")
    prompts = [tuple(3 + (7 * row + 3 * place) % 60 for place in range(4 + row % 3)) for row in range(8)]
    require(
        *tasks.of_key(task),
        tasks.of_split(task),
        *policies.before_learning(Engine(model, 2), model, reference_of(model), prompts, OBJECTIVES["dr_grpo"]),
    )
    return 0


def _suite(tests: list[str]) -> int:
    """pytest's answer, in the order given: 1 as soon as one test fails."""
    if not tests:
        return 0
    import pytest

    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-o", "pythonpath=", *tests])
    return 1 if code in (1, 2, 3) else int(code)


def known(seed: int) -> tuple[list[dict[str, Any]], float]:
    """What an earlier run at the same commit has told, and how long it took: it was ended before its end."""
    from bench.zero_tiny import head
    from seekling.runlog.files import read_json

    told = read_json(RESULT) if RESULT.exists() else {}
    if (told.get("commit"), told.get("seed")) != (head()["commit"], seed):
        return [], 0.0
    return told["mutants"], told["seconds"]


def place_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one mutant from another."""
    return tuple(row[name] for name in NAMED)


def write(rows: list[dict[str, Any]], seed: int, seconds: float) -> None:
    """Counts by room and by judge, and who survived."""
    from bench.zero_tiny import head
    from seekling.runlog.files import write_json

    def counted(kept: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            judge: {fate: sum(row[judge] == fate for row in kept) for fate in ("killed", "raised", "hung", "survived")}
            for judge in ("selftests", "suite")
        }

    told = {"all": counted(rows)} | {room: counted([r for r in rows if r["room"] == room]) for room in ROOMS}
    about = {"command": "python -m bench.mutants", "count": len(rows), "seed": seed, "seconds": round(seconds, 1)}
    write_json(RESULT, head() | about | {"fates": told, "mutants": rows})


if __name__ == "__main__":
    main()
