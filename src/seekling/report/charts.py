"""Charts as pure functions: data in, one accessible inline SVG out. Colour lives in the stylesheet.

Every chart carries a title, a description that states its figures in words, axes with units, and names its
lines where they end instead of in a legend. Classes ``s1`` to ``s4`` are the four inks (told apart by
colour-blind eyes, and by dashes besides); no chart sets a style of its own, so a strict content policy and
both colour schemes hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from seekling.report.view import Estimate, Load
from seekling.report.words import number

Points = Sequence[tuple[float, float]]

MAX_POINTS = 400
"""A longer line is thinned to bucket means: a screen would show no more, the file would only weigh more."""

MAX_COLUMNS = 72
MAX_DOUBLINGS = 8
INKS = 4
"""Colours that can be told apart."""
MAX_STRIPS = 6
LEVELS = (0.25, 0.5, 0.75, 0.9, 1.1, 1.35, 1.7, 2.2)
"""Bounds between the nine tints of the load strip, in fair shares; the middle tint is fair."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line. ``faint`` is the same before smoothing, ``band`` the ends of its intervals, ``ink`` 1-4."""

    name: str
    points: Points
    ink: int = 1
    faint: Points = ()
    band: Sequence[tuple[float, float, float]] = ()
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Axes:
    """What the axes say. The y axis covers ``y_range`` and all the data; ``marks`` are restarts."""

    x: str
    y: str
    y_range: tuple[float | None, float | None] = (None, None)
    log2: bool = False
    percent: bool = False
    marks: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a bar chart: a name, and the parts it is made of in the order of the chart's kinds."""

    name: str
    parts: Sequence[float]


@dataclass(frozen=True, slots=True)
class Dot:
    """A row of a dot chart: a figure with its interval; ``strong`` is what the chart is about."""

    name: str
    estimate: Estimate
    ink: int = 1
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Track:
    """A line down the rows of a track chart: a share for each row, None where there is none."""

    name: str
    ink: int
    shares: Sequence[Estimate | None]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where data lands on the page: plot edges in SVG units and the ends of both scales."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float
    right: float
    top: float = 30.0
    bottom: float = 192.0
    log2: bool = False
    percent: bool = False

    def px(self, value: float) -> float:
        to = math.log2 if self.log2 else float
        low, high = to(self.x[0]), to(self.x[1])
        return self.left + (to(value) - low) / ((high - low) or 1.0) * (self.right - self.left)

    def py(self, value: float) -> float:
        low, high = self.y
        return self.bottom - (value - low) / ((high - low) or 1.0) * (self.bottom - self.top)


def thin(points: Points, limit: int = MAX_POINTS) -> Points:
    """At most ``limit`` points: means (of both coordinates) of buckets of equal count, in order."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(len(points) / limit)
    buckets = (points[i : i + size] for i in range(0, len(points), size))
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in buckets]


def smooth(points: Points, window: int) -> Points:
    """The mean of ``window`` (odd) values around each point; fewer, evenly, at the ends."""
    half, means = window // 2, []
    for i, (x, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)
        around = points[i - reach : i + reach + 1]
        means.append((x, sum(y for _, y in around) / len(around)))
    return means


def smoothing_window(num_points: int) -> int:
    """About a sixteenth of the curve, odd; 1 (no smoothing) for a curve of fewer than 24 points."""
    return 1 if num_points < 24 else max(3, num_points // 16 | 1)


def line_chart(key: str, title: str, lines: Sequence[Series], axes: Axes) -> Markup:
    """Lines over a common x. ``key`` makes the SVG's ids unique on the page."""
    lines = [line for line in lines if line.points]
    frame = _frame(lines, axes)
    body = [
        _grid(frame, axes),
        _marks(frame, axes),
        *(_band(frame, s) for s in lines),
        *(_line(frame, s) for s in lines),
    ]
    ends = [(s.name, frame.py(s.points[-1][1]), s.ink) for s in lines]
    return _svg(key, title, _describe(lines, axes), [*body, _labels(frame, ends)], height=232, frame=frame)


def stacked_chart(key: str, title: str, parts: Sequence[Series], axes: Axes) -> Markup:
    """Parts stacked to their whole over a common x; a step at which a part is missing is left out."""
    shared = set.intersection(*({x for x, _ in part.points} for part in parts))
    levels = [{x: y for x, y in part.points if x in shared} for part in parts]
    steps = sorted(shared)
    tops = [thin([(x, sum(level[x] for level in levels[: n + 1])) for x in steps]) for n in range(len(parts))]
    whole = [Series(part.name, top, part.ink) for part, top in zip(parts, tops, strict=True)]
    frame = _frame(whole, axes)
    floors = [[(x, 0.0) for x, _ in tops[0]], *tops[:-1]]
    areas = [_area(frame, floor, s) for floor, s in zip(floors, whole, strict=True)]
    middles = [(top[-1][1] + floor[-1][1]) / 2 for top, floor in zip(tops, floors, strict=True)]
    ends = [(s.name, frame.py(middle), s.ink) for s, middle in zip(whole, middles, strict=True)]
    readouts = [_readout(s.name, thin([(x, lev[x]) for x in steps])) for s, lev in zip(whole, levels, strict=True)]
    content = [_grid(frame, axes), *areas, _marks(frame, axes), _labels(frame, ends), *readouts]
    return _svg(key, title, _describe(parts, axes), content, height=232, frame=frame)


def load_strip(key: str, title: str, layers: Mapping[str, Load], x_label: str) -> Markup:
    """Experts x steps for each layer, tinted by load against the fair share; of many layers, some."""
    shown = _pick(list(layers), MAX_STRIPS)
    columns = {name: _columns(layers[name]) for name in shown}
    height, body = 26.0, []
    for name in shown:
        tall = min(72.0, max(40.0, 7.0 * len(columns[name][0])))
        body += [_strip(name, columns[name], height, tall)]
        height += tall + 10
    body.append(_text(64, height + 6, number(layers[shown[0]][0][0]), "tick"))
    body.append(_text(392, height + 6, number(layers[shown[0]][-1][0]), "tick end"))
    body.append(_text(228, height + 6, x_label, "tick mid"))
    body.append(_text(0, 14, f"layer, one row per expert ({len(columns[shown[0]][0])})", "axis"))
    body.append(_key(height + 20))
    return _svg(key, title, _describe_load(layers), body, height=height + 58)


def dot_chart(key: str, title: str, dots: Sequence[Dot], x_label: str) -> Markup:
    """Shares with their intervals on one axis from 0 to 100 %, one row each, the name above its line."""
    frame = _Frame((0, 1), (0, 1), 8, 340, top=8, bottom=16 + 36.0 * len(dots))
    body = [_share_axis(frame, x_label)]
    for n, dot in enumerate(dots):
        body.append(_dot(frame, dot, 28 + 36.0 * n))
    words = "; ".join(f"{d.name} {_share(d.estimate.value)}{_ends(d.estimate)}" for d in dots)
    return _svg(key, title, words, body, height=frame.bottom + 42)


def track_chart(key: str, title: str, rows: Sequence[str], tracks: Sequence[Track], x_label: str) -> Markup:
    """Shares of several things down rows of names, from 0 to 100 %: what moves which way, and by how much."""
    frame = _Frame(
        (0, 1), (0, 1), 118, 386, top=18.0 + 16 * len(tracks), bottom=30.0 + 16 * len(tracks) + 34 * len(rows)
    )
    names = [_text(frame.left, 12 + 16.0 * n, track.name, f"label s{track.ink}") for n, track in enumerate(tracks)]
    height = {row: frame.top + 22 + 34.0 * n for n, row in enumerate(rows)}
    sides = [_text(frame.left - 10, y + 4, _cut(row), "axis end") for row, y in height.items()]
    body = [
        _share_axis(frame, x_label),
        *names,
        *sides,
        *(_track(frame, track, list(height.values())) for track in tracks),
    ]
    words = "; ".join(f"{track.name}: {_told(rows, track)}" for track in tracks)
    return _svg(key, title, words, body, height=frame.bottom + 42)


def bar_chart(key: str, title: str, kinds: Sequence[str], bars: Sequence[Bar], unit: Callable[[float], str]) -> Markup:
    """Horizontal bars made of parts; what a part is stands above the first bar in the part's ink."""
    largest = max((sum(bar.parts) for bar in bars), default=0.0) or 1.0
    body, x = [], 8.0
    for n, kind in enumerate(kinds):
        body.append(Markup('<rect class="fill s{}" x="{:.0f}" y="4" width="10" height="10" rx="2"/>').format(n + 1, x))
        body.append(_text(x + 15, 13, kind, f"label s{n + 1}"))
        x += 34 + 6.8 * len(kind)
    for n, bar in enumerate(bars):
        body.append(_bar(bar, 44 + 40.0 * n, 330 / largest, unit(sum(bar.parts))))
    words = "; ".join(f"{bar.name} {unit(sum(bar.parts))}" for bar in bars)
    return _svg(key, title, words, body, height=36 + 40.0 * len(bars))


def _frame(lines: Sequence[Series], axes: Axes) -> _Frame:
    """Scales that hold every point, band and fixed end, and room on the right for the longest name."""
    xs = [x for line in lines for x, _ in (*line.points, *line.faint)]
    ys = [y for line in lines for _, y in (*line.points, *line.faint)]
    ys += [y for line in lines for _, low, high in line.band for y in (low, high)]
    ys += [end for end in axes.y_range if end is not None]
    low, high = min(ys), max(ys)
    y = _widened(low, high if high > low else low + (abs(low) or 1.0))
    ticks = _ticks(*y)
    gutter = max(len(_tick(t, axes.percent)) for t in ticks) * 6.6 + 12
    name = max((len(line.name) for line in lines), default=0)
    return _Frame(
        (min(xs), max(xs)),
        y,
        left=gutter,
        right=392 - (name * 6.4 + 8 if name else 4),
        log2=axes.log2,
        percent=axes.percent,
    )


def _widened(low: float, high: float) -> tuple[float, float]:
    """The range out to its outermost ticks, which a wider range may set further out."""
    ticks = _ticks(low, high)
    wider = min(low, ticks[0]), max(high, ticks[-1])
    return wider if wider == (low, high) else _widened(*wider)


def _ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round values over ``low`` to ``high``: about ``wanted`` steps of 1, 2, 2.5 or 5 times 10^n."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [n * step for n in range(first, last + 1)]


def _x_ticks(frame: _Frame) -> list[float]:
    if frame.log2:
        powers = range(math.ceil(math.log2(frame.x[0])), math.floor(math.log2(frame.x[1])) + 1)
        return [2.0**n for n in powers[:: max(1, -(-len(powers) // MAX_DOUBLINGS))]]
    low, high = frame.x
    if high <= low:
        return [low]
    slack = 0.012 * (high - low)
    return [t for t in _ticks(low, high) if low - slack <= t <= high + slack]


def _grid(frame: _Frame, axes: Axes) -> Markup:
    """Hairlines, tick figures and the two axis names; the y name stands level, above its axis."""
    parts = [_text(0, 14, axes.y, "axis")]
    for tick in _ticks(*frame.y):
        y = frame.py(tick)
        parts.append(_rule(frame.left, frame.right, y))
        parts.append(_text(frame.left - 6, y + 4, _tick(tick, axes.percent), "tick end"))
    for tick in _x_ticks(frame):
        x = frame.px(tick)
        parts.append(_text(x, frame.bottom + 17, number(tick), "tick mid"))
    parts.append(_text((frame.left + frame.right) / 2, frame.bottom + 36, axes.x, "axis mid"))
    return Markup("").join(parts)


def _marks(frame: _Frame, axes: Axes) -> Markup:
    line = Markup('<path class="restart" d="M{:.1f} {:.1f}V{:.1f}"/>')
    inside = [mark for mark in axes.marks if frame.x[0] <= mark <= frame.x[1]]
    return Markup("").join(line.format(frame.px(mark), frame.top, frame.bottom) for mark in inside)


def _line(frame: _Frame, line: Series) -> Markup:
    parts = [_path(frame, line.faint, f"faint s{line.ink}")] if line.faint else []
    parts.append(_path(frame, line.points, f"line s{line.ink}"))
    if line.dots or len(line.points) < 3:
        dot = Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="3"/>')
        parts += [dot.format(line.ink, frame.px(x), frame.py(y)) for x, y in line.points]
    parts.append(_readout(line.name, line.points))
    return Markup("").join(parts)


def _path(frame: _Frame, points: Points, classes: str) -> Markup:
    return Markup('<path class="{}" d="M{}"/>').format(classes, _route(frame, points))


def _route(frame: _Frame, points: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{frame.px(x):.1f} {frame.py(y):.1f}" for x, y in points)


def _area(frame: _Frame, floor: Points, top: Series) -> Markup:
    there, back = _route(frame, top.points), _route(frame, list(floor)[::-1])
    edge = _path(frame, top.points, f"line thin s{top.ink}")
    return Markup('<path class="area s{}" d="M{}L{}Z"/>').format(top.ink, there, back) + edge


def _band(frame: _Frame, line: Series) -> Markup:
    if not line.band:
        return Markup("")
    up = _route(frame, [(x, high) for x, _, high in line.band])
    down = _route(frame, [(x, low) for x, low, _ in reversed(line.band)])
    return Markup('<path class="band s{}" d="M{}L{}Z"/>').format(line.ink, up, down)


def _labels(frame: _Frame, ends: Sequence[tuple[str, float, int]]) -> Markup:
    """Names beside the ends of their lines, pushed apart where they would touch."""
    placed: list[tuple[str, float, int]] = []
    for name, y, ink in sorted(ends, key=lambda end: end[1]):
        placed.append((name, max(y + 4, placed[-1][1] + 14) if placed else y + 4, ink))
    spill = max(0.0, placed[-1][1] - (frame.bottom + 4)) if placed else 0.0
    return Markup("").join(_text(frame.right + 6, y - spill, name, f"label s{ink}") for name, y, ink in placed)


def _readout(name: str, points: Points) -> Markup:
    """The values behind a line, for the pointer and the arrow keys."""
    xs, ys = (" ".join(f"{v:.5g}" for v in values) for values in zip(*points, strict=True))
    return Markup('<g class="data" data-name="{}" data-x="{}" data-y="{}"></g>').format(name, xs, ys)


def _columns(load: Load) -> list[tuple[float, ...]]:
    """At most ``MAX_COLUMNS`` columns of load in fair shares: 1.0 each if all experts get alike."""
    size = math.ceil(len(load) / MAX_COLUMNS)
    buckets = [load[i : i + size] for i in range(0, len(load), size)]
    sums = [[sum(expert) for expert in zip(*(values for _, values in bucket), strict=False)] for bucket in buckets]
    return [fair_shares(values) for values in sums]


def fair_shares(load: Sequence[float]) -> tuple[float, ...]:
    """Load per expert divided by the mean load, so that a balanced layer is all ones."""
    mean = sum(load) / len(load) if load else 0.0
    return tuple(value / mean if mean else 0.0 for value in load)


def _strip(name: str, columns: Sequence[tuple[float, ...]], top: float, tall: float) -> Markup:
    """One layer: cells of one tint are one path, so that the strip weighs little."""
    cell, row = 328 / len(columns), tall / len(columns[0])
    cells: dict[int, list[str]] = {}
    for n, shares in enumerate(columns):
        for expert, share in enumerate(shares):
            x, y = 64 + n * cell, top + expert * row
            square = f"M{x:.1f} {y:.1f}h{cell + 0.1:.1f}v{row - 0.6:.1f}h-{cell + 0.1:.1f}z"
            cells.setdefault(_level(share), []).append(square)
    path = Markup('<path class="h{}" d="{}"/>')
    label = _text(58, top + tall / 2 + 4, name, "tick end")
    return Markup("").join([label, *(path.format(level, "".join(d)) for level, d in sorted(cells.items()))])


def _level(share: float) -> int:
    return sum(share >= bound for bound in LEVELS)


def _key(y: float) -> Markup:
    """The tints and what they mean, in words at both ends and the middle."""
    box = Markup('<rect class="h{}" x="{}" y="{}" width="22" height="9"/>')
    boxes = [box.format(level, 129 + 22 * level, y) for level in range(9)]
    ends = [
        _text(123, y + 9, "idle", "tick end"),
        _text(228, y + 23, "fair share", "tick mid"),
        _text(333, y + 9, "over twice", "tick"),
    ]
    return Markup("").join([*boxes, *ends])


def _share_axis(frame: _Frame, x_label: str) -> Markup:
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = frame.px(share)
        parts.append(Markup('<path class="rule" d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, frame.top, frame.bottom))
        parts.append(_text(x, frame.bottom + 16, f"{100 * share:.0f}", "tick mid" if share else "tick"))
    return Markup("").join([*parts, _text((frame.left + frame.right) / 2, frame.bottom + 34, x_label, "axis mid")])


def _dot(frame: _Frame, dot: Dot, y: float) -> Markup:
    weight, e = (" strong" if dot.strong else ""), dot.estimate
    low, high = (e.value if end is None else end for end in (e.low, e.high))
    line = Markup('<path class="span s{}" d="M{:.1f} {:.1f}H{:.1f}"/>').format(
        dot.ink, frame.px(low), y + 5, frame.px(high)
    )
    mark = Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="4.5"/>').format(dot.ink, frame.px(e.value), y + 5)
    name = _text(frame.left + 4, y - 6, dot.name, f"label name s{dot.ink}{weight}")
    return Markup("").join([line, mark, name, _text(392, y + 9, _share(e.value), f"label end s{dot.ink}{weight}")])


def _track(frame: _Frame, track: Track, heights: Sequence[float]) -> Markup:
    """The line of a track, moved a little beside the others so that intervals do not lie on each other."""
    shift = 4.0 * (track.ink - 2.5)
    found = [(e, y + shift) for e, y in zip(track.shares, heights, strict=True) if e]
    parts = [Markup('<path class="line thin s{}" d="M{}"/>').format(
        track.ink, "L".join(f"{frame.px(e.value):.1f} {y:.1f}" for e, y in found))] if found else []  # fmt: skip
    for e, y in found:
        low, high = (e.value if end is None else end for end in (e.low, e.high))
        parts.append(Markup('<path class="span s{}" d="M{:.1f} {:.1f}H{:.1f}"/>').format(
            track.ink, frame.px(low), y, frame.px(high)))  # fmt: skip
        parts.append(Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="3.6"/>').format(
            track.ink, frame.px(e.value), y))  # fmt: skip
    return Markup("").join(parts)


def _told(rows: Sequence[str], track: Track) -> str:
    return ", ".join(f"{row} {_share(e.value)}{_ends(e)}" for row, e in zip(rows, track.shares, strict=True) if e)


def _cut(name: str) -> str:
    return name if len(name) <= 17 else f"{name[:16]}\u2026"


def _bar(bar: Bar, y: float, scale: float, label: str) -> Markup:
    body, x = [_text(8, y, bar.name, "axis")], 8.0
    for n, part in enumerate(bar.parts):
        rect = Markup('<rect class="fill s{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="12"/>')
        body.append(rect.format(n + 1, x, y + 6, part * scale))
        x += part * scale
    return Markup("").join([*body, _text(392, y, label, "tick end")])


def _rule(left: float, right: float, y: float) -> Markup:
    return Markup('<path class="rule" d="M{:.1f} {:.1f}H{:.1f}"/>').format(left, y, right)


def _text(x: float, y: float, words: str, classes: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(classes, x, y, words)


def _svg(
    key: str, title: str, words: str, body: Iterable[Markup], *, height: float, frame: _Frame | None = None
) -> Markup:
    """The frame of every chart. ``data-plot`` tells the read-out where values lie."""
    scale = [frame.left, frame.right, *frame.x, frame.log2, frame.top, frame.bottom, frame.percent] if frame else []
    plot = Markup(' data-plot="{}"').format(" ".join(f"{v:g}" for v in scale)) if frame else Markup("")
    head = Markup('<svg class="chart" role="img" aria-labelledby="{0}-t {0}-d" viewBox="0 0 400 {1:.0f}"{2}>')
    names = Markup('<title id="{0}-t">{1}</title><desc id="{0}-d">{2}</desc>').format(key, title, words)
    return Markup("").join([head.format(key, height, plot), names, *body, Markup("</svg>")])


def _describe(lines: Sequence[Series], axes: Axes) -> str:
    """The chart in words: where each line starts and ends, and between what it moves."""
    told = []
    for line in lines:
        ys = [y for _, y in line.points]
        start, end = (f"{_tick(y, axes.percent)} at {number(x)}" for x, y in (line.points[0], line.points[-1]))
        low, high = (_tick(v, axes.percent) for v in (min(ys), max(ys)))
        told.append(f"{line.name or axes.y}: from {start} to {end}, between {low} and {high}")
    return f"{axes.y} over {axes.x}. " + "; ".join(told) + "."


def _describe_load(layers: Mapping[str, Load]) -> str:
    ends = {name: max(fair_shares(load[-1][1]), default=0.0) for name, load in layers.items()}
    return "At the last step the busiest expert got " + "; ".join(
        f"{value:.2f} fair shares in layer {name}" for name, value in ends.items()
    )


def _pick(names: Sequence[str], limit: int) -> list[str]:
    """All names, or ``limit`` of them evenly spread with both ends."""
    if len(names) <= limit:
        return list(names)
    return [names[round(n * (len(names) - 1) / (limit - 1))] for n in range(limit)]


def _tick(value: float, percent: bool) -> str:
    return f"{100 * value:.3g}\u202f%".replace("-", "\u2212") if percent else number(round(value, 9))


def _share(value: float) -> str:
    return f"{100 * value:.1f}\u202f%"


def _ends(e: Estimate) -> str:
    return "" if e.low is None or e.high is None else f" (between {_share(e.low)} and {_share(e.high)})"
