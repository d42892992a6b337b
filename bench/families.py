"""Every family against transformers, measured: logits, greedy continuations, round trips. One command, two minutes:

    .venv/bin/python -m bench.families

Writes bench/results/families.json: per family the largest difference over the drawn configurations. docs/families.md
shows it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from bench.zero_tiny import head
from seekling.runlog.files import write_json
from tests.oracles.families import MAKERS, Agreement, compare

RESULT = Path("bench/results/families.json")


def main() -> None:
    """Measure every family and write the result file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draws", type=int, default=40, help="configurations drawn per family")
    asked = arguments.parse_args()
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    about = head() | {"command": "python -m bench.families", "threads": 1, "transformers": transformers.__version__}
    rows = {}
    for family in MAKERS:
        rows[family] = row(family, asked.draws)
        print(family, rows[family])
    write_json(RESULT, about | {"draws": asked.draws, "families": rows})


def row(family: str, draws: int) -> dict[str, Any]:
    """The worst of ``draws`` configurations."""
    found: list[Agreement] = []
    for seed in range(draws):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(compare(family, seed, Path(folder)))
    worst = {name: max(asdict(f)[name] for f in found) for name in ("logits", "padded", "exported", "greedy_differs")}
    exact = sum(f.round_trip_bits and not f.stray_keys for f in found)
    return worst | {"round_trips_exact": exact}


if __name__ == "__main__":
    main()
