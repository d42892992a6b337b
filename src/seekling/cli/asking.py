"""Talking to a model and evaluating one from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from seekling.cli.models import locate_any
from seekling.cli.progress import Progress
from seekling.config import Source
from seekling.engine.config import Sampling
from seekling.engine.engine import Request
from seekling.engine.rules import Rule, thought_of
from seekling.evals.evaluate import Judged, figures
from seekling.evals.judging import Judge
from seekling.recipes.evaluate import HEADLINE, PROBLEMS_PER_CALL, held_out
from seekling.recipes.pipeline import pick_device
from seekling.recipes.policy import Policy, sample_groups
from seekling.records import Problem
from seekling.rewards.rubric import Rubric
from seekling.text.chat import prompt_ids


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an answer must keep to: tokens of a thought, a file with a JSON schema, a regular expression."""

    most_thought: int | None = None
    schema: Path | None = None
    regex: str | None = None

    def rules(self, policy: Policy, prompt: tuple[int, ...]) -> tuple[Rule, ...]:
        """For one answer. Raises UserError when they cannot be kept."""
        if self == Bounds():
            return ()
        from seekling.engine.terms import Terms, rules_for

        terms = Terms(
            thought=thought_of(policy.tokenizer, prompt), most_thought=self.most_thought, regex=self.regex,
            json=None if self.schema is None else Source.read(self.schema).text,
        )  # fmt: skip
        return rules_for(terms, policy.tokenizer, prompt)


def ask_command(
    runs: Path, model: str, problem: str, sampling: Sampling, bounds: Bounds | None = None, *, seed: int = 0
) -> None:
    """Print the thinking and the answer as they come."""
    policy = Policy.load(locate_any(runs, model).folder, pick_device("auto"))
    prompt = tuple(prompt_ids(policy.tokenizer, problem))
    rules = bounds.rules(policy, prompt) if bounds else ()
    said = policy.engine.tokens(Request(prompt, seed, rules=rules), sampling)
    console = Console(highlight=False)
    style = ""
    for piece in policy.tokenizer.decode_stream(said, skip_special=True):
        style = {"<think>": "dim", "</think>": "", "<answer>": "bold"}.get(piece, style)
        tag = piece in ("<think>", "</think>", "<answer>", "</answer>")
        console.print(
            "\n" if piece == "</think>" else "" if tag else piece,
            end="",
            style=style,
            markup=False,
            soft_wrap=True,
        )
    console.print()


def sampled(
    policy: Policy, judge: Judge, problems: Sequence[Problem], samples: int, sampling: Sampling, *, seed: str, name: str
) -> list[Judged]:
    """Sample and score a piece at a time, with a sign of life called ``name`` after each."""
    judged: list[Judged] = []
    with Progress() as progress:
        for start in range(0, len(problems), PROBLEMS_PER_CALL):
            piece = problems[start : start + PROBLEMS_PER_CALL]
            judged += judge.judged(sample_groups(policy, piece, samples, sampling, seed))
            passed = sum(one.num_passed for one in judged) / (len(judged) * samples)
            progress.tell(name, len(judged) - 1, len(problems), {"pass@1": passed})
    return judged


def eval_command(runs: Path, model: str, task: str, *, problems: int, samples: int, temperature: float) -> None:
    """Print the table of an evaluation."""
    judge = Judge(task, Rubric())
    family = judge.task
    policy = Policy.load(locate_any(runs, model).folder, pick_device("auto"))
    asked = held_out(family, problems)
    sampling = Sampling(temperature=temperature, max_tokens=128)
    found = figures(family, sampled(policy, judge, asked, samples, sampling, seed="eval", name="eval"))
    table = Table(
        "figure", "value", "95 % interval", title=f"{model} on {family.name}: {problems} problems x {samples}"
    )
    rows = {f"pass@{k}": v for k, v in found["pass_at_k"].items()} | {
        f"maj@{k}": v for k, v in found["maj_at_k"].items()
    }
    rows |= {name: found[name] for name in (*HEADLINE, "distinct_answers") if name in found}
    rows |= {f"size {size}": value for size, value in found["by_size"].items()}
    for name, row in rows.items():
        table.add_row(name, f"{row['value']:.3f}", f"{row['low']:.3f} .. {row['high']:.3f}")
    Console(highlight=False).print(table)
