"""Where the boxes of a graph stand: rows by depth, few crossings, boxes near what they read; pure geometry.

A reader stands below all that it reads. A line that passes a row has a place of its own there, so that no line runs
behind a box (Sugiyama's way: layers, order, places).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

BOX, LANE, GAP = 196.0, 20.0, 18.0
"""Widths of a box and of the place of a line that passes by, and the room between neighbours."""
TALL, BETWEEN = 88.0, 40.0
"""Height of a box, and the room between rows."""
SWEEPS, STRAIGHT = 8, 8

Point = tuple[float, float]
Edge = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """The middle of each box's upper edge, and for every (read, reader) the line's places: where it enters each row."""

    boxes: Mapping[str, Point]
    edges: Mapping[Edge, Sequence[Point]]
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class _Grid:
    """Rows of places; a place is a box or, of a line that passes, (read, reader, row). ``above`` joins it upwards."""

    rows: list[list[object]]
    above: dict[object, list[object]]
    boxes: frozenset[str]

    def wide(self, place: object) -> float:
        return BOX if place in self.boxes else LANE


def laid_out(reads: Mapping[str, Sequence[str]]) -> Layout:
    """Places for a graph given as what each node reads; every node comes after those."""
    if not reads:
        return Layout({}, {}, 0.0, 0.0)
    depth: dict[str, int] = {}
    for name, read in reads.items():
        depth[name] = max((depth[other] + 1 for other in read), default=0)
    grid = _with_lanes(reads, depth)
    _order(grid)
    x = _places(grid)
    left = min(x[place] - grid.wide(place) / 2 for row in grid.rows for place in row)
    right = max(x[place] + grid.wide(place) / 2 for row in grid.rows for place in row)

    def point(place: object, row: int) -> Point:
        return x[place] - left, row * (TALL + BETWEEN)

    boxes = {name: point(name, row) for name, row in depth.items()}
    edges = {
        (read, name): [
            point(read, depth[read]),
            *(point((read, name, row), row) for row in range(depth[read] + 1, depth[name])),
            point(name, depth[name]),
        ]
        for name, all_read in reads.items()
        for read in all_read
    }
    return Layout(boxes, edges, right - left, len(grid.rows) * (TALL + BETWEEN) - BETWEEN)


def _with_lanes(reads: Mapping[str, Sequence[str]], depth: Mapping[str, int]) -> _Grid:
    rows: list[list[object]] = [[] for _ in range(max(depth.values()) + 1)]
    above: dict[object, list[object]] = {}
    for name, all_read in reads.items():
        rows[depth[name]].append(name)
        above[name] = []
        for read in all_read:
            at: object = read
            for row in range(depth[read] + 1, depth[name]):
                place = (read, name, row)
                rows[row].append(place)
                above[place] = [at]
                at = place
            above[name].append(at)
    return _Grid(rows, above, frozenset(reads))


def _order(grid: _Grid) -> None:
    """Sort each row by the mean place of its neighbours, down and up in turn; the order with fewest crossings stays."""
    below: dict[object, list[object]] = {place: [] for row in grid.rows for place in row}
    for place, ups in grid.above.items():
        for up in ups:
            below[up].append(place)
    best, fewest = [list(row) for row in grid.rows], _crossings(grid)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for number in range(len(grid.rows)) if down else reversed(range(len(grid.rows))):
            place_of = {place: float(at) for row in grid.rows for at, place in enumerate(row)}
            beside = grid.above if down else below
            grid.rows[number].sort(key=lambda place: _mean([place_of[p] for p in beside[place]], place_of[place]))
        if (crossings := _crossings(grid)) < fewest:
            best, fewest = [list(row) for row in grid.rows], crossings
    grid.rows[:] = best


def _crossings(grid: _Grid) -> int:
    at = {place: number for row in grid.rows for number, place in enumerate(row)}
    count = 0
    for row in grid.rows:
        ends = [(at[up], at[place]) for place in row for up in grid.above[place]]
        count += sum((a - c) * (b - d) < 0 for n, (a, b) in enumerate(ends) for c, d in ends[:n])
    return count


def _places(grid: _Grid) -> dict[object, float]:
    """The x of every place: as near to the mean of its neighbours as its own neighbours in the row allow."""
    x: dict[object, float] = {}
    for row in grid.rows:
        x |= dict(zip(row, _apart([0.0] * len(row), [grid.wide(place) for place in row]), strict=True))
    beside: dict[object, list[object]] = {place: list(ups) for place, ups in grid.above.items()}
    for place, ups in grid.above.items():
        for up in ups:
            beside[up].append(place)
    for sweep in range(4 * SWEEPS):
        for row in grid.rows if sweep % 2 == 0 else reversed(grid.rows):
            wanted = [_mean([x[p] for p in _pulling(grid, place, beside[place])], x[place]) for place in row]
            x |= dict(zip(row, _apart(wanted, [grid.wide(place) for place in row]), strict=True))
    return x


def _pulling(grid: _Grid, place: object, beside: Sequence[object]) -> list[object]:
    """Neighbours as often as they count: a line that passes goes straight on rather than after boxes at its ends."""
    is_lane = place not in grid.boxes
    return [other for other in beside for _ in range(STRAIGHT if is_lane and other not in grid.boxes else 1)]


def _apart(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """Places in order, none nearer to its neighbour than both are wide, least squares away from what is wanted.

    Without the widths it is isotonic regression: neighbours that would change sides share their mean.
    """
    steps = [(a + b) / 2 + GAP for a, b in pairwise(widths)]
    offsets = [sum(steps[:number]) for number in range(len(widths))]
    pools: list[tuple[float, int]] = []
    for value in (want - offset for want, offset in zip(wanted, offsets, strict=True)):
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean, count = (mean * count + other * more) / (count + more), count + more
        pools.append((mean, count))
    level = [mean for mean, count in pools for _ in range(count)]
    return [value + offset for value, offset in zip(level, offsets, strict=True)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
