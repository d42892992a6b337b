"""The judge of mathematics: deceived how often, unjust how often, how fast, and who decided. About a minute:

    .venv/bin/python -m bench.maths

Writes bench/results/maths.json. The answers are those of bench/maths_answers.py. Speed is measured on replies with
their work, to keys like those of GSM8K, MATH and AIME, in as many processes as there are cores, each with a math-verify
worker of its own that has been started before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.maths_answers import Case, adversarial, realistic, true_forms
from bench.zero_tiny import head
from seekling.records import Verdict
from seekling.runlog.files import write_json
from seekling.verify.maths.judge import judge
from seekling.verify.maths.library import Library

RESULT = Path("bench/results/maths.json")
HANG_S = 5.0


def main() -> None:
    """Measure and write the result file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--replies", type=int, default=10_000, help="how many each process judges")
    asked = arguments.parse_args()
    about = head()
    library = Library()
    bad, good = tried(adversarial(), library), tried(true_forms(), library)
    library.close()
    figures = {
        "adversarial": total(bad), "true": total(good), "kinds": {"adversarial": bad, "true": good},
        "with_math_verify": speed(about["hardware"]["cores"], asked.replies, "with"),
        "without": speed(about["hardware"]["cores"], asked.replies, "without"),
    }  # fmt: skip
    write_json(RESULT, about | {"command": "python -m bench.maths", "replies": asked.replies} | figures)
    print(json.dumps({key: value for key, value in figures.items() if key != "kinds"}, indent=1))


def tried(cases: Iterable[Case], library: Library) -> dict[str, dict[str, int]]:
    """Per kind: how many answers, how many judged wrongly, how many took too long or failed."""
    rows: dict[str, Counter[str]] = {}
    for case in cases:
        began = time.perf_counter()
        judged = judge(case.reply, case.gold, library=library)
        slow = time.perf_counter() - began > HANG_S
        wrong = (judged.verdict is Verdict.PASS) != case.deserves
        failed = judged.verdict in (Verdict.INFRA_ERROR, Verdict.OOM)
        rows.setdefault(case.kind, Counter()).update(answers=1, wrong=wrong, hangs=slow, crashes=failed)
    return {kind: dict(row) for kind, row in rows.items()}


def total(rows: dict[str, dict[str, int]]) -> dict[str, int]:
    """The rows of all kinds, added up."""
    return {key: sum(row[key] for row in rows.values()) for key in ("answers", "wrong", "hangs", "crashes")}


def speed(cores: int, replies: int, how: str) -> dict[str, Any]:
    """Verifications per second in ``cores`` processes side by side, who decided, and the slowest verdict of each."""
    code = "from bench.maths import timed_; import json; print(json.dumps(timed_({}, {}, {!r})))"
    commands = [[sys.executable, "-c", code.format(replies, seed, how)] for seed in range(cores)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    rows = [json.loads(process.communicate()[0]) for process in running]
    paths = sum((Counter(row["paths"]) for row in rows), Counter[str]())
    return {
        "per_s": round(sum(row["replies"] / row["seconds"] for row in rows)),
        "share": {path: round(count / paths.total(), 4) for path, count in paths.items()},
        "worst_s": {path: max(row["worst_s"].get(path, 0.0) for row in rows) for path in paths},
        "misjudged": sum(row["misjudged"] for row in rows),
    }  # fmt: skip


def timed_(replies: int, seed: int, how: str) -> dict[str, Any]:
    """One process's part."""
    library = Library() if how == "with" else None
    if library is not None:
        library.reads(r"\lfloor x \rfloor")
    cases = list(realistic(replies, f"bench/{seed}"))
    paths, worst, misjudged = Counter[str](), Counter[str](), 0
    began = time.perf_counter()
    for case in cases:
        start = time.perf_counter()
        judged = judge(case.reply, case.gold, library=library)
        worst[judged.path] = max(worst[judged.path], round(time.perf_counter() - start, 4))  # type: ignore[assignment]
        paths[judged.path] += 1
        misjudged += (judged.verdict is Verdict.PASS) != case.deserves
    seconds = time.perf_counter() - began
    return {"replies": replies, "seconds": seconds, "paths": paths, "worst_s": worst, "misjudged": misjudged}


if __name__ == "__main__":
    main()
