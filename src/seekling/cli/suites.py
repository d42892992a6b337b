"""Published evaluation sets from the command line: asked by R1's protocol, told with what was asked and who judged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from seekling.cli.asking import sampled
from seekling.cli.models import locate_any
from seekling.config import runtime_fields
from seekling.engine.config import Sampling
from seekling.evals.evaluate import examples
from seekling.evals.suites import Loaded, load, suite_figures
from seekling.recipes.pipeline import pick_device
from seekling.recipes.policy import Policy
from seekling.runlog.files import write_json


@dataclass(frozen=True, slots=True)
class Asking:
    """How suites are asked. ``problems`` and ``samples`` of 0: all of them, and as many as the suite says."""

    sampling: Sampling
    problems: int = 0
    samples: int = 0
    seed: int = 0


def suites_command(runs: Path, model: str, suites: str, asking: Asking, out: Path | None) -> None:
    """Print a table of suites; write one JSON file for each into ``out``. All are loaded before the first is asked."""
    err = Console(stderr=True, highlight=False)
    specs = [spec.strip() for spec in suites.split(",") if spec.strip()]
    loaded = [load(spec, asking.problems, tell=err.print) for spec in specs]
    policy = Policy.load(locate_any(runs, model).folder, pick_device("auto"))
    folder = out or Path("evals") / re.sub(r"[^\w.-]+", "-", model).strip("-.")
    console = Console(highlight=False)
    table = Table("suite", "problems", "pass@1", "95 % interval", "maj@k", "tokens", "cut off", title=model)
    for suite in loaded:
        found = result(policy, suite, asking) | {"model": model}
        write_json(folder / f"{suite.name}.json", found)
        table.add_row(*_row(suite.name, found))
        console.print(
            f"{suite.name}: prompts {found['prompt_hash']}, {found['verifier']}", markup=False, soft_wrap=True
        )
    console.print(table)
    sampling = asking.sampling
    console.print(
        f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, at most {sampling.max_tokens} tokens, seed "
        f"{asking.seed}; results: {folder}", markup=False, soft_wrap=True,
    )  # fmt: skip


def result(policy: Policy, suite: Loaded, asking: Asking) -> dict[str, Any]:
    """One suite's result as plain JSON: figures, protocol, what was asked, who judged, and some replies to read."""
    samples = asking.samples or suite.suite.samples
    judge, seed = suite.judge(), f"suite/{asking.seed}"
    judged = sampled(policy, judge, suite.problems, samples, asking.sampling, seed=seed, name=suite.name)
    judge.close()
    sampling = asking.sampling.model_dump(exclude=runtime_fields(Sampling))
    return {
        **suite.about(),
        "protocol": sampling | {"seed": asking.seed},
        **suite_figures(judged, judge.task.verifier.vote),
        "rollouts": examples(judged, num_problems=8, num_rollouts=1),
    }


def _row(name: str, found: dict[str, Any]) -> list[str]:
    first = found["pass_at_k"]["1"]
    majorities = [f"@{k} {row['value']:.1%}" for k, row in found.get("maj_at_k", {}).items()]
    return [
        name, f"{found['problems']} x {found['samples']}", f"{first['value']:.1%}",
        f"{first['low']:.1%} .. {first['high']:.1%}", " ".join(majorities) or "-",
        f"{found['mean_tokens']['value']:.0f}", f"{found['cut']['value']:.1%}",
    ]  # fmt: skip
