"""What each stage's model can do, task by task: what a later stage taught, and what that cost (the alignment tax)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from seekling.report import charts
from seekling.report.charts import Track
from seekling.report.figures import Figure
from seekling.report.tables import Cell, cell_of
from seekling.report.view import Estimate, EvalView, RunView
from seekling.report.words import count

FORM = "in the asked form"
INSTRUCTIONS = ("instructions", "ifeval")
"""Tasks whose column stands after those of reasoning and of readable answers."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One model's scores, in the order of the columns; ``fell``: those whose whole interval is below its parent's."""

    model: str
    parent: str
    scores: Sequence[Estimate | None]
    fell: frozenset[int]

    @property
    def cells(self) -> list[Cell]:
        """The scores as a table shows them."""
        return [cell_of(score) for score in self.scores]


@dataclass(frozen=True, slots=True)
class Tax:
    """Models in the order of their stages, by what they were asked; ``about`` says how many problems of each."""

    columns: Sequence[str]
    standings: Sequence[Standing]
    about: Sequence[str]


def tax(run: RunView) -> Tax | None:
    """The table of a run in which one stage has evaluated several models or tasks; None for others."""
    if not any(len(stage.evaluations) > 1 for stage in run.stages):
        return None
    found = {(e.model, e.label): e for stage in run.stages for e in stage.evaluations}
    order = {stage.name: number for number, stage in enumerate(run.stages)}
    models = sorted({model for model, _ in found}, key=lambda model: order.get(model, len(order)))
    columns = _columns(list(found.values()))
    scores = {model: [_score(found, model, column) for column in columns] for model in models}
    standings = [_standing(run, model, scores) for model in models]
    return Tax([name for _, name in columns], standings, list(_about(list(found.values()))))


def tax_figure(told: Tax) -> Figure:
    """The table as a chart: a row for each model, a line for each of the first columns."""
    tracks = [
        Track(name, ink, [standing.scores[place] for standing in told.standings])
        for place, (ink, name) in enumerate(zip(range(1, charts.INKS + 1), told.columns, strict=False))
    ]
    rows = [standing.model for standing in told.standings]
    svg = charts.track_chart("tax", "What each stage's model can do", rows, tracks, "share of rollouts, %")
    left = len(told.columns) - len(tracks)
    note = f"{left} more columns stand in the table alone." if left > 0 else ""
    meaning = "From the first model down to the last. A line that bends left was paid for what another gained."
    return Figure("What each stage taught, and what it cost", svg, meaning, note)


def _columns(found: Sequence[EvalView]) -> list[tuple[str, str]]:
    """(task, what of it): reasoning first, then what makes answers readable (of the first task), then instructions."""
    labels = list(dict.fromkeys(e.label for e in found))
    asked = [label for label in labels if label.partition("-")[0] in INSTRUCTIONS]
    reasoning = [label for label in labels if label not in asked]
    first = (reasoning or asked)[0]
    criteria = list(dict.fromkeys(name for e in found if e.label == first for name in e.criteria))
    passes = {label: (label, f"{label} pass@1") for label in labels}
    readable = [(first, name) for name in (FORM, *criteria)]
    return [*(passes[label] for label in reasoning), *readable, *(passes[label] for label in asked)]


def _score(found: Mapping[tuple[str, str], EvalView], model: str, column: tuple[str, str]) -> Estimate | None:
    label, what = column
    figure = {FORM: "format_rate"}.get(what, what.removeprefix(f"{label} "))
    return found[model, label].estimate(figure) if (model, label) in found else None


def _standing(run: RunView, model: str, scores: Mapping[str, Sequence[Estimate | None]]) -> Standing:
    parent = _nearest(run, model, scores)
    before = scores[parent] if parent else [None] * len(scores[model])
    fell = {place for place, pair in enumerate(zip(before, scores[model], strict=True)) if _fell(*pair)}
    return Standing(model, parent, scores[model], frozenset(fell))


def _nearest(run: RunView, model: str, known: Mapping[str, object]) -> str:
    """The nearest model behind this one that was evaluated too, along what each began with; "" for none."""
    seen: set[str] = set()
    stage = run.stage(model)
    while stage and stage.start and stage.start not in seen:
        if stage.start in known:
            return stage.start
        seen.add(stage.start)
        stage = run.stage(stage.start)
    return ""


def _fell(before: Estimate | None, after: Estimate | None) -> bool:
    if before is None or after is None or before.low is None or after.high is None:
        return False
    return after.high < before.low


def _about(found: Sequence[EvalView]) -> Iterator[str]:
    for label in dict.fromkeys(e.label for e in found):
        sizes = {(e.problems, e.samples) for e in found if e.label == label}
        yield f"{label}: " + " or ".join(f"{count(p)} problems x {count(s)} rollouts" for p, s in sorted(sizes))
