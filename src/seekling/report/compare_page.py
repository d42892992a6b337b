"""A comparison as one HTML page, of the same make as a run's report: no network, keyboard, both colour schemes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from seekling.report import charts, words
from seekling.report.charts import Axes, Series
from seekling.report.compare import Contest, Point, is_share
from seekling.report.figures import Figure
from seekling.report.page import CONTROL_PICTURES, environment, inline
from seekling.report.tables import Cell, cell_of
from seekling.report.view import Estimate
from seekling.runlog.files import write_atomic

LETTERS = 20
"""So much of a run's name has room beside its line."""
WIDE = 8
"""A range of compute beyond this factor is drawn on a scale of doublings."""


def write_page(found: Contest, file: Path) -> Path:
    """Write the page, whole or not at all, and name it. Raises UserError where it cannot be written."""
    write_atomic(file, render(found).encode("utf-8", errors="replace"))
    return file


def render(found: Contest) -> str:
    """The page as text."""
    page = environment().get_template("compare.html.jinja")
    shares = is_share(found.figure)
    rows = [
        (contender, point, cell_of(point.score, shares) if shares else _plain(point.score))
        for contender in found.contenders
        for point in contender.points
    ]
    ratios = [(ratio, _plain(ratio.error), _plain(ratio.accuracy)) for ratio in found.ratios]
    text = page.render(found=found, rows=rows, ratios=ratios, figures=list(figures_of(found)), **inline())
    return text.translate(CONTROL_PICTURES)


def figures_of(found: Contest) -> Iterator[Figure]:
    """Score over compute, task by task: a line for each contender, its stages in the order of what they took."""
    tasks = dict.fromkeys(point.task for contender in found.contenders for point in contender.points)
    for number, task in enumerate(tasks):
        lines = [(c.name, [point for point in c.points if point.task == task]) for c in found.contenders]
        title = f"{found.figure} over compute" + (f", {task}" if task else "")
        svg = _chart(f"scores-{number}", title, found.figure, [(name, part) for name, part in lines if part])
        meaning = "Each point is a stage's model: what it scored, and the work kept of its stage and of all behind it."
        yield Figure(title, svg, meaning, "Tinted: the interval.")


def _chart(key: str, title: str, figure: str, lines: Sequence[tuple[str, Sequence[Point]]]) -> Markup:
    flops = [point.cost.flops for _, part in lines for point in part]
    scale, unit = words.flop_unit(flops)
    series = [_series(name, part, scale, 1 + n % charts.INKS) for n, (name, part) in enumerate(lines)]
    shares, is_wide = is_share(figure), min(flops) > 0 and max(flops) > WIDE * min(flops)
    axes = Axes(f"{unit} behind the model", figure, (0, 1) if shares else (None, None), log2=is_wide, percent=shares)
    return charts.line_chart(key, title, series, axes)


def _series(name: str, part: Sequence[Point], scale: float, ink: int) -> Series:
    found = [(point.cost.flops / scale, point.score) for point in part]
    band = [(x, e.low, e.high) for x, e in found if e.low is not None and e.high is not None]
    name = name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}\u2026"
    return Series(name, [(x, e.value) for x, e in found], ink, band=band, dots=True)


def _plain(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell("\u2013")
    return Cell(words.number(estimate.value), words.interval(estimate, shares=False, digits=2))
