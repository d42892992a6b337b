"""What docs/tasks.md shows of families learned from nothing: a row for every seed, and their curves as one picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from seekling.report.charts import smooth

Result = Mapping[str, Any]

HEADINGS = (
    "family, seed", "base pass@1", "after RL", "gain", "best control", "blind guesser, 8 tries",
    "a size never trained on", "tokens a reply",
)  # fmt: skip
CONTROLS = {"no_stop": "kept from stopping", "blind": "blind guesser", "base_pass_k": "several tries"}
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#b8860b")
COLUMNS, WIDE, TALL, LEFT, TOP = 3, 190, 130, 46, 30
SMOOTHED = 5
"""Steps whose mean a point of a curve is, fewer at its ends: one step asks sixteen problems, and jumps."""


def rows(found: Result) -> Iterator[list[str]]:
    """One row for each family and seed, in the order of the result file."""
    for family, seeds in found["families"].items():
        for row in seeds:
            base, after = row["base"], row["trained"]
            name, best = max(((n, c["pass_1"]) for n, c in row["controls"].items()), key=lambda item: item[1])
            larger = row["by_size"][str(row["larger_size"])]
            yield [
                f"`{family}`, {row['seed']}", _passed(base), _passed(after),
                f"{100 * (after['pass_1'] - base['pass_1']):+.1f} points",
                f"{_share(best)} ({CONTROLS.get(name, name)})", _share(row["blind_at_8"]),
                f"{_share(larger['base'])} → {_share(larger['trained'])}",
                f"{base['tokens']:.1f} → {after['tokens']:.1f}",
            ]  # fmt: skip


def about(found: Result) -> str:
    """Where the figures come from, in one paragraph."""
    measured = [row for seeds in found["families"].values() for row in seeds]
    commits, threads, machines = (sorted({str(row[key]) for row in measured}) for key in ("commit", "threads", "cpu"))
    return (
        f"{found['problems']} held-out problems, {found['samples']} rollouts each; brackets hold the 95 % interval, "
        f"arrows lead from the base to the trained model. {' or '.join(machines)}, threads: {' or '.join(threads)}, "
        f"{found['dtype']}; commit {', '.join(f'`{commit}`' for commit in commits)}, `{found['command']}`."
    )


def curves(found: Result) -> str:
    """The reward over steps, a panel for each family and a line for each seed, as one SVG that says its figures."""
    families = found["families"]
    panels = [_panel(place, name, seeds) for place, (name, seeds) in enumerate(families.items())]
    seeds = sorted({row["seed"] for seeds in families.values() for row in seeds})
    high = -(-len(families) // COLUMNS) * (TALL + 62) + 34
    key = [_key(place, seed, high) for place, seed in enumerate(seeds)]
    told = "; ".join(f"{name}: {_told(seeds)}" for name, seeds in families.items())
    size = f'width="{COLUMNS * (WIDE + 60)}" height="{high}" font-family="sans-serif" font-size="12" role="img"'
    head = f"<title>Reward over steps of reinforcement</title>\n<desc>{told}</desc>"
    white = '<rect width="100%" height="100%" fill="white"/>'
    body = "\n".join([head, white, *panels, *key])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{body}\n</svg>\n'


def _passed(side: Result) -> str:
    low, high = side["interval"]
    return f"{_share(side['pass_1'])} [{100 * low:.1f}, {100 * high:.1f}]"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _told(seeds: Sequence[Result]) -> str:
    ends = ((mean(row["rewards"][:SMOOTHED]), mean(row["rewards"][-SMOOTHED:])) for row in seeds)
    return ", ".join(f"{first:.2f} to {last:.2f}" for first, last in ends)


def _panel(place: int, name: str, seeds: Sequence[Result]) -> str:
    """Axes from 0 to 1, the family's name above, a line a seed in the colour of the seed's number."""
    x, y = LEFT + place % COLUMNS * (WIDE + 60), TOP + place // COLUMNS * (TALL + 62)
    steps = max(len(row["rewards"]) for row in seeds)
    parts = [f'<text x="{x}" y="{y - 10}" font-weight="bold">{name}</text>']
    for rate in (0, 0.5, 1):
        level = y + TALL * (1 - rate)
        parts.append(f'<path d="M{x},{level:.1f}h{WIDE}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 6}" y="{level + 4:.1f}" text-anchor="end">{rate:g}</text>')
    for row in seeds:
        points = smooth(list(enumerate(row["rewards"])), SMOOTHED)
        way = " ".join(f"{x + WIDE * at / max(1, steps - 1):.1f},{y + TALL * (1 - rate):.1f}" for at, rate in points)
        colour = COLOURS[row["seed"] % len(COLOURS)]
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
    parts.append(f'<text x="{x + WIDE}" y="{y + TALL + 18}" text-anchor="end">step {steps}</text>')
    return "\n".join(parts)


def _key(place: int, seed: int, high: int) -> str:
    x, y = LEFT + 110 * place, high - 14
    mark = f'<path d="M{x},{y - 4}h18" stroke="{COLOURS[seed % len(COLOURS)]}" stroke-width="3"/>'
    return f'{mark}<text x="{x + 24}" y="{y}">seed {seed}</text>'
