"""A comparison as one HTML page, of the same make as a run's report: no network, keyboard, both colour schemes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seekling.report import charts, words
from seekling.report.charts import Axes, Series
from seekling.report.compare import Contender, Contest, Point, is_share
from seekling.report.figures import Figure
from seekling.report.page import CONTROL_PICTURES, environment, inline
from seekling.report.tables import Cell, cell_of
from seekling.report.view import Estimate
from seekling.runlog.files import write_atomic

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
    text = page.render(found=found, rows=rows, ratios=ratios, figure=figure_of(found), **inline())
    return text.translate(CONTROL_PICTURES)


def figure_of(found: Contest) -> Figure:
    """Score over compute: a line for each contender and task, its stages in the order of what they took."""
    lines = [line for contender in found.contenders for line in _lines(contender)]
    flops = [point.cost.flops for _, part in lines for point in part]
    scale, unit = words.flop_unit(flops)
    least, most = min(flops, default=0.0), max(flops, default=0.0)
    series = [_series(name, part, scale, 1 + n % charts.INKS) for n, (name, part) in enumerate(lines)]
    shares = is_share(found.figure)
    axes = Axes(
        f"{unit} behind the model", found.figure, (0, 1) if shares else (None, None),
        log2=least > 0 and most > WIDE * least, percent=shares,
    )  # fmt: skip
    svg = charts.line_chart("scores", f"{found.figure} over compute", series, axes)
    meaning = "Each point is a stage's model: what it scored, and the work kept of its stage and of all behind it."
    return Figure(f"{found.figure} over compute", svg, meaning, "Tinted: the interval.")


def _lines(contender: Contender) -> list[tuple[str, list[Point]]]:
    tasks = list(dict.fromkeys(point.task for point in contender.points))
    parts = [[point for point in contender.points if point.task == task] for task in tasks]
    names = [f"{contender.name}, {task}" if len(tasks) > 1 else contender.name for task in tasks]
    return [(name if len(name) <= 18 else f"{name[:17]}\u2026", part) for name, part in zip(names, parts, strict=True)]


def _series(name: str, part: Sequence[Point], scale: float, ink: int) -> Series:
    found = [(point.cost.flops / scale, point.score) for point in part]
    band = [(x, e.low, e.high) for x, e in found if e.low is not None and e.high is not None]
    return Series(name, [(x, e.value) for x, e in found], ink, band=band, dots=True)


def _plain(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell("\u2013")
    return Cell(words.number(estimate.value), words.interval(estimate, shares=False, digits=2))
