"""The sandbox: what gets out, what passes that should not, and how fast it is. One command, about a minute:

    .venv/bin/python -m bench.sandbox

Writes bench/results/sandbox.json, once as the user who runs it and, for root, once more as an ordinary user. A run is
one fork of the zygote: a program is loaded and asked. Throughput has a box a core, and the caller's own work in it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from seekling.tasks.code import Code
from seekling.verify.sandbox.box import Sandbox, chosen
from seekling.verify.sandbox.canaries import baited
from seekling.verify.sandbox.cell import Cell, Place
from seekling.verify.sandbox.compare import same
from seekling.verify.sandbox.doctor import examined
from seekling.verify.sandbox.laws import landlock_version
from seekling.verify.sandbox.limits import Layer, Limits
from seekling.verify.sandbox.reach import reach
from tests.fixtures.hostile import CHEATS, ENDINGS, ESCAPES, HONEST, RIGHT

RESULT = Path("bench/results/sandbox.json")
INPUTS = [1, 2, 0, -7, 10**20, 3, 12]
HASTY = Limits(wall_s=0.6, cpu_s=2, output_bytes=2**16, answer_bytes=2**18)


def main() -> None:
    """Measure and write the result file; with ``--child``, measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=1000)
    arguments.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.child:
        become_ordinary()
        print(json.dumps(measured(asked.runs)))
        return
    from bench.zero_tiny import head
    from seekling.runlog.files import write_json

    users = [measured(asked.runs), *([child(asked.runs)] if os.geteuid() == 0 else [])]
    write_json(RESULT, head() | {"command": "python -m bench.sandbox", "runs": asked.runs, "users": users})
    print(json.dumps(users, indent=1))


def child(runs: int) -> dict[str, Any]:
    """The same as somebody who is not root."""
    command = [sys.executable, "-B", "-m", "bench.sandbox", "--child", "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def become_ordinary() -> None:
    """Give up being root, with a way kept open to a Python in root's home."""
    if os.geteuid() == 0:
        reach([sys.base_prefix, sys.prefix, os.getcwd()])
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


def measured(runs: int) -> dict[str, Any]:
    """All figures of one user."""
    place = chosen(Limits())
    return {
        "uid": os.geteuid(),
        "landlock": landlock_version(),
        "jail": bool(place.bwrap),
        **started(place),
        **held(place),
        "layers": {layer.value: out_without(layer) for layer in Layer},
        **speed(place, runs),
        **code_speed(),
    }


def started(place: Place) -> dict[str, Any]:
    """Seconds until a zygote is ready, and until all canaries have tried."""
    cell, began = Cell(Limits(), place), time.perf_counter()
    cell.begin()
    ready = time.perf_counter()
    findings = examined(cell)
    cell.close()
    return {
        "start_s": round(ready - began, 3),
        "proof_s": round(time.perf_counter() - ready, 2),
        "canaries": len(findings),
        "canaries_out": [finding.canary.name for finding in findings if not finding.held],
    }


def held(place: Place) -> dict[str, Any]:
    """Hostile programs that got out, endings without a verdict, undeserved passes, honest programs refused."""
    cell = Cell(Limits(wall_s=10), place)
    with baited(cell.limits, cell.threads()) as bait:
        out = [n for n, p in ESCAPES.items() if cell.call(p, "f", [[bait]], HASTY)[0].value is True]
    hung = [n for n, (p, ends) in ENDINGS.items() if cell.call(p, "f", [[1]], HASTY)[0].verdict not in ends]
    passed = [n for n, p in CHEATS.items() if values(cell, p) == right() and same(values(cell, p), right())]
    refused = [n for n, (p, x, y) in HONEST.items() if not same(cell.call(p, "f", [[x]])[0].value, y)]
    cell.close()
    return {
        "hostile": len(ESCAPES), "out": out, "endings": len(ENDINGS), "wrong_endings": hung,
        "undeserving": len(CHEATS), "passed": passed, "honest": len(HONEST), "refused": refused,
    }  # fmt: skip


def values(cell: Cell, program: str) -> list[Any]:
    """What a program answers to INPUTS."""
    return [outcome.value for outcome in cell.call(program, "f", [[x] for x in INPUTS], HASTY)]


def right() -> list[int]:
    """What would pass."""
    return [2 * x + 1 for x in INPUTS]


def out_without(layer: Layer) -> int:
    """How many canaries get out when one layer is left out."""
    cell = Cell(Limits(), Place(without=frozenset({layer})))
    out = [finding for finding in examined(cell) if not finding.held]
    cell.close()
    return len(out)


def speed(place: Place, runs: int) -> dict[str, Any]:
    """Milliseconds of a run, one after another, and runs a second with a box a core."""
    cell, times = Cell(Limits(), place), []
    for _ in range(runs):
        began = time.perf_counter()
        cell.call(RIGHT, "f", [[1]])
        times.append(1000 * (time.perf_counter() - began))
    cell.close()
    box = Sandbox(size=os.cpu_count() or 1)
    box.begin()
    with ThreadPoolExecutor(box.size) as threads:
        began = time.perf_counter()
        list(threads.map(lambda _: box.call(RIGHT, "f", [[1]]), range(runs)))
        seconds = time.perf_counter() - began
    box.close()
    ordered = sorted(times)
    return {
        "ms_min": round(ordered[0], 2), "ms_median": round(statistics.median(ordered), 2),
        "ms_p95": round(ordered[int(0.95 * len(ordered))], 2), "boxes": box.size,
        "runs_per_s": round(runs / seconds, 1),
    }  # fmt: skip


def code_speed(problems: int = 50) -> dict[str, Any]:
    """Checks a second of the task ``code``: every one a fork, twelve inputs and as many comparisons."""
    task, rng = Code(), Random(0)
    asked = [(problem, said) for problem in (task.draw(rng) for _ in range(problems)) for said in [problem.answer] * 8]
    task.check_all(asked[:8])
    began = time.perf_counter()
    task.check_all(asked)
    return {"checks_per_s": round(len(asked) / (time.perf_counter() - began), 1)}


if __name__ == "__main__":
    main()
