"""What docs/objectives.md shows: the named objectives part by part, and how they compare from one shared base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from seekling.learn.config import Objective
from seekling.learn.presets import OBJECTIVES

Result = Mapping[str, Any]

PARTS = ("advantage", "ratio", "clip", "clip_low", "clip_high", "weighting", "kl", "kl_in", "beta")
COLOURS = (
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22",
)  # fmt: skip
WIDTH, HEIGHT, LEFT, TOP = 640, 300, 44, 12


def parts() -> tuple[list[str], list[list[str]]]:
    """Headings and rows: one named objective a row, a part a column; what does not matter is left empty."""
    return ["name", *PARTS], [[f"`{name}`", *_cells(value)] for name, value in OBJECTIVES.items()]


def _cells(value: Objective) -> list[str]:
    told = {part: str(getattr(value, part)) for part in PARTS}
    if value.clip in ("none", "soft", "gamma"):
        told |= {"clip_low": "", "clip_high": ""}
    if not value.needs_reference:
        told |= {"kl_in": "", "beta": ""}
    return [told[part] for part in PARTS]


def compared(found: Result) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: steps to the rise, gain with the worst seed's interval, pass@1, seconds a step."""
    base = found["base"]["pass_1"]
    headings = [
        "objective",
        f"steps to +{100 * found['rise']:.0f} points",
        "pass@1 after",
        "gain, lowest end",
        "clipped",
        "s",
    ]
    rows = []
    for name, seeds in found["objectives"].items():
        steps = ["never" if row["steps_to_rise"] is None else str(row["steps_to_rise"]) for row in seeds]
        after = [row["trained"]["pass_1"] for row in seeds]
        lowest = min(row["trained"]["interval"][0] for row in seeds) - found["base"]["interval"][1]
        rows.append([
            f"`{name}`", ", ".join(steps), ", ".join(f"{100 * value:.1f} %" for value in after),
            f"{100 * (mean(after) - base):+.1f}, {100 * lowest:+.1f} points",
            f"{100 * mean(row['clip_ratio'] for row in seeds):.2g} %", f"{mean(row['seconds'] for row in seeds):.0f}",
        ])  # fmt: skip
    return headings, rows


def curves(found: Result) -> str:
    """The pass rate of every objective over steps, seeds averaged, as one SVG."""
    lines = {name: _averaged([row["pass_rates"] for row in seeds]) for name, seeds in found["objectives"].items()}
    steps = max(map(len, lines.values()), default=2)
    body = [_grid(), *(_line(values, steps, colour) for values, colour in zip(lines.values(), COLOURS, strict=False))]
    body += [_label(name, place, colour) for place, (name, colour) in enumerate(zip(lines, COLOURS, strict=False))]
    text = f'<text x="{WIDTH // 2}" y="{TOP + HEIGHT + 30}" text-anchor="middle">step (1 to {steps})</text>'
    size = f'width="{WIDTH + 150}" height="{TOP + HEIGHT + 40}" font-family="sans-serif" font-size="12"'
    white = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{white}\n' + "\n".join([*body, text, "</svg>"]) + "\n"


def _averaged(rows: Sequence[Sequence[float]]) -> list[float]:
    return [mean(column) for column in zip(*rows, strict=True)]


def _y(rate: float) -> float:
    return round(TOP + HEIGHT * (1 - rate), 1)


def _grid() -> str:
    lines = []
    for rate in (0.0, 0.25, 0.5, 0.75, 1.0):
        lines.append(f'<path d="M{LEFT},{_y(rate)}H{WIDTH}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{_y(rate) + 4}" text-anchor="end">{100 * rate:.0f} %</text>')
    return "\n".join(lines)


def _line(values: Sequence[float], steps: int, colour: str) -> str:
    spacing = (WIDTH - LEFT) / max(1, steps - 1)
    points = " ".join(f"{LEFT + spacing * step:.1f},{_y(value)}" for step, value in enumerate(values))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>'


def _label(name: str, place: int, colour: str) -> str:
    y = TOP + 12 + 20 * place
    mark = f'<path d="M{WIDTH + 14},{y - 4}h18" stroke="{colour}" stroke-width="3"/>'
    return f'{mark}<text x="{WIDTH + 38}" y="{y}">{name}</text>'
