"""Try to deceive the check of every built-in task. One command, about a minute:

    .venv/bin/python -m bench.audit

Writes bench/results/audit.json: per task, how many answers were tried that deserve nothing and how many that are
true, and how often the check said otherwise, hung, or crashed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from bench.zero_tiny import head
from seekling.evals.audit import audit
from seekling.evals.judging import Judge
from seekling.rewards.rubric import Rubric
from seekling.runlog.files import write_json
from seekling.tasks.registry import FAMILIES

RESULT = Path("bench/results/audit.json")


def main() -> None:
    """Audit every family and write the result file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--problems", type=int, default=20)
    asked = arguments.parse_args()
    rows: dict[str, Any] = {}
    for name in FAMILIES:
        judge, began = Judge(name, Rubric()), time.perf_counter()
        rows[name] = audit(judge, asked.problems).figures() | {"seconds": round(time.perf_counter() - began, 2)}
        judge.close()
        print(name, rows[name])
    about = head() | {"command": "python -m bench.audit", "problems": asked.problems}
    write_json(RESULT, about | {"tasks": rows})


if __name__ == "__main__":
    main()
