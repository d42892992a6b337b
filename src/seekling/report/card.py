"""The model card of an exported model: what it is, how it was made, what was measured; read from the run's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from seekling.report.read import read_run
from seekling.report.tables import descents
from seekling.report.view import Estimate, EvalView, RunView, StageView
from seekling.runlog.ledger import Cost


def render_card(
    name: str, shape: Mapping[str, str], loaders: Mapping[str, str], *, run: Path | None = None, stage: str = ""
) -> str:
    """The card as Markdown with its metadata in front. Without a run it tells the shape alone.

    Raises UserError when the run's files cannot be read.
    """
    view = read_run(run) if run else None
    behind = [] if view is None else ancestors(view, stage)
    evaluations = [] if view is None else list(_evaluations(view, stage))
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    template = environment.from_string(files("seekling.report").joinpath("card.md.jinja").read_text(encoding="utf-8"))
    bases = [base for s in behind if s.kind == "import" and (base := str(s.settings.get("model", "")))]
    return template.render(
        name=name, shape=shape, loaders=loaders, family=shape["family"], version=view.version if view else "",
        sentence=_sentence(behind), base_models=bases, stages=_stages(view, behind), evaluations=evaluations,
        descents=descents(behind),
        example=_example(view),
    )  # fmt: skip


def ancestors(view: RunView, stage: str) -> list[StageView]:
    """The stage and all that it was made from, in the order they ran."""
    wanted, behind = [stage], set()
    while wanted:
        name = wanted.pop()
        behind.add(name)
        found = view.stage(name)
        wanted += found.inputs if found else ()
    return [s for s in view.stages if s.name in behind]


def _sentence(behind: list[StageView]) -> str:
    words = {
        "pretrain": "pretrained from random weights", "import": "imported", "sft": "fine-tuned",
        "grpo": "reinforced with checkable rewards", "dpo": "taught preferences",
        "cold_start": "asked for first examples", "reject": "asked for its best answers",
        "distill": "taught by a teacher",
    }  # fmt: skip
    told = [words.get(stage.kind, stage.kind) for stage in behind]
    return f"A language model, {', then '.join(told)}." if told else "A language model."


def _stages(view: RunView | None, behind: list[StageView]) -> list[dict[str, Any]]:
    if view is None:
        return []
    rows = []
    for stage in behind:
        cost = sum((row.spent for row in view.ledger if row.stage == stage.name), Cost())
        start = stage.start or (str(stage.settings.get("model")) if stage.kind == "import" else "")
        rows.append({"name": stage.name, "kind": stage.kind, "start": start, "tokens": cost.tokens,
                     "flops": cost.flops, "seconds": cost.seconds})  # fmt: skip
    return rows


def _evaluations(view: RunView, stage: str) -> Iterator[dict[str, Any]]:
    """One row per figure of every evaluation of this very stage's model."""
    for other in view.stages:
        for found in other.evaluations:
            if stage == found.model and stage in other.inputs:
                yield from (_row(found, f"pass@{k}", estimate) for k, estimate in found.pass_at_k.items())
                yield from (_row(found, f"maj@{k}", estimate) for k, estimate in list(found.maj_at_k.items())[-1:])


def _row(found: EvalView, metric: str, estimate: Estimate) -> dict[str, Any]:
    known = estimate.low is not None and estimate.high is not None
    return {
        "task": found.label, "metric": metric, "value": round(estimate.value, 5),
        "interval": f"{estimate.low:.3f} to {estimate.high:.3f}" if known else "not known",
        "conditions": f"{found.problems} problems x {found.samples} rollouts",
        "args": {"problems": found.problems, "samples": found.samples, "low": estimate.low, "high": estimate.high},
    }  # fmt: skip


def _example(view: RunView | None) -> str:
    """A held-out problem that the run asked, so that the snippet shows something the model knows."""
    evaluations = [found for s in view.stages for found in s.evaluations] if view else []
    prompts = [p.prompt for found in evaluations for p in found.rollouts]
    return prompts[0] if prompts else "What is 12 + 7?"
