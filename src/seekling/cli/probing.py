"""The probe command: is there something for reinforcement to find, before a night is spent on it?"""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.table import Table

from seekling.cli.asking import sampled
from seekling.cli.models import locate_any
from seekling.cli.tasks import spec_of
from seekling.engine.config import Sampling
from seekling.errors import TooManyFailed
from seekling.evals.judging import Judge
from seekling.evals.probe import EXIT_CODES, GROUP, Diagnosis, Outcome, Probe, diagnose, probe
from seekling.recipes.pipeline import pick_device
from seekling.recipes.policy import Policy
from seekling.rewards.rubric import Rubric
from seekling.runlog.files import write_json
from seekling.tasks.protocol import problems, reads


def probe_command(
    runs: Path, model: str, task: str, settings: list[str],
    *, count: int, sampling: Sampling, samples: int, out: Path | None,
) -> int:  # fmt: skip
    """Print what was seen and the verdict. Returns the outcome's exit code."""
    judge = Judge(spec_of(task, settings), Rubric())
    asked = list(islice(problems(judge.task, "train", "probe", distinct=True), count))
    keys = [one.verdict for one in judge.checker.verdicts([(problem, problem.answer) for problem in asked])]
    policy = Policy.load(locate_any(runs, model).folder, pick_device("auto"))
    console = Console(highlight=False)
    try:
        judged = sampled(policy, judge, asked, samples, sampling, seed="probe", name="probe")
    except TooManyFailed as broken:
        return _tell(console, Diagnosis(Outcome.BROKEN, broken.what, broken.next_step))
    finally:
        judge.close()
    seen = probe(judged, keys, reads(judge.task))
    console.print(_table(seen, f"{model} on {judge.task.name}"))
    said = diagnose(seen)
    if out is not None:
        told = {"outcome": said.outcome.name.lower(), "why": said.why, "advice": said.advice}
        write_json(out, {"model": model, "task": judge.task.name} | told | asdict(seen))
    return _tell(console, said)


def _table(seen: Probe, title: str) -> Table:
    table = Table("figure", "value", "95 % interval", title=f"{title}: {seen.problems} problems x {seen.samples}")
    shares = {
        "pass@1": seen.pass_1,
        f"pass@{seen.samples}": seen.pass_k,
        f"groups of {GROUP} with spread": seen.spread,
        "in the asked form": seen.format_rate,
    }
    for name, row in shares.items():
        table.add_row(name, f"{row.value:.1%}", f"{row.low:.1%} .. {row.high:.1%}")
    tokens = seen.mean_tokens
    table.add_row("mean tokens", f"{tokens.value:.1f}", f"{tokens.low:.1f} .. {tokens.high:.1f}")
    for name, value in {
        "rollouts with an answer": seen.answered,
        "of these, unreadable": seen.unreadable,
        "rollouts cut off": seen.cut,
        "answer keys refused": seen.bad_keys,
    }.items():
        table.add_row(name, f"{value:.1%}", "")
    return table


def _tell(console: Console, said: Diagnosis) -> int:
    console.print(f"verdict: {said.outcome.value}", style="bold", markup=False, soft_wrap=True)
    console.print(f"why:     {said.why}", markup=False, soft_wrap=True)
    console.print(f"next:    {said.advice}", markup=False, soft_wrap=True)
    return EXIT_CODES[said.outcome]
