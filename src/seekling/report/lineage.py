"""The graph of a run's stages: what each is, what it reads, how it stands, what it cost; and as lines of plain text."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from seekling.report import words
from seekling.report.view import RunView, StageView
from seekling.runlog.ledger import Cost

HEADLINES = {
    "pretrain": ("loss",),
    "sft": ("loss",),
    "dpo": ("held_out_accuracy", "rewards/margins", "loss"),
    "reward_model": ("held_out_accuracy", "margin", "loss"),
    "curate": ("drawn", "kept"),
    "cold_start": ("came", "found"),
    "reject": ("came", "found"),
    "grpo": ("reward", "held_out_pass", "response_length"),
    "distill": ("held_out_pass", "teacher_kl", "response_length", "loss"),
    "eval": ("pass@1", "mean_tokens"),
    "control": ("best_control", "gain_over_best_control"),
}
"""The figures by which a stage of each kind is known; the report has the rest."""

MARKS = {"done": "o", "running": "*", "gate missed": "x", "stopped": "*"}
"""How a stage is drawn by its state; "." where it has not begun, or is gone."""


@dataclass(frozen=True, slots=True)
class Node:
    """A stage of the graph, begun or not. ``reads`` names earlier nodes; ``gate`` is met, missed, open or nothing."""

    name: str
    kind: str
    state: str
    reads: tuple[str, ...]
    gate: str = ""
    figures: tuple[tuple[str, float], ...] = ()
    spent: Cost = field(default_factory=Cost)
    stage: StageView | None = None


def graph(run: RunView) -> list[Node]:
    """Every stage of the run's manifest, in the order they run: each after what it reads."""
    told = {name: replace(_begun(run, stage), reads=stage.inputs) for stage in run.stages if (name := stage.name)}
    planned = {node.name: node for node in _planned(run.manifest) if node.name not in told}
    for node in planned.values():
        is_read = any(node.name in other.reads for other in told.values())
        planned[node.name] = replace(node, state="gone" if is_read else "not begun")
    return _in_order(told | planned)


def _begun(run: RunView, stage: StageView) -> Node:
    gates = [gate.met for gate in stage.gates]
    gate = "missed" if False in gates else "open" if None in gates else "met" if gates else ""
    spent = sum((row.spent for row in run.ledger if row.stage == stage.name), Cost())
    state = stage.state.replace("_", " ")
    return Node(stage.name, stage.kind, state, stage.inputs, gate, headline(stage.kind, stage.figures), spent, stage)


def headline(kind: str, figures: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """The few figures a stage is known by; all of them where its kind has none in particular."""
    chosen = [name for name in HEADLINES.get(kind, ()) if name in figures] or list(figures)
    return tuple((name, figures[name]) for name in chosen)


def _planned(manifest: str) -> Iterator[Node]:
    """Name, kind and inputs of what a manifest orders; nothing of one that cannot be read."""
    try:
        tables: Any = tomllib.loads(manifest).get("stage", [])
    except tomllib.TOMLDecodeError:
        return
    for table in tables if isinstance(tables, list) else []:
        reads = table.get("from", ())
        names = (reads,) if isinstance(reads, str) else tuple(map(str, reads))
        yield Node(str(table.get("name", "")), str(table.get("kind", "")), "not begun", names)


def _in_order(nodes: Mapping[str, Node]) -> list[Node]:
    """Nodes after what they read, else as they came. Left out: what is read and is no node, what closes a ring."""
    placed: dict[str, Node] = {}
    while waiting := [node for node in nodes.values() if node.name not in placed]:
        ready = (node for node in waiting if all(name in placed or name not in nodes for name in node.reads))
        node = next(ready, waiting[0])
        placed[node.name] = replace(node, reads=tuple(dict.fromkeys(n for n in node.reads if n in placed)))
    return list(placed.values())


# --- as text ----------------------------------------------------------------------------------------------------------


def drawn(nodes: Sequence[Node], width: int) -> list[str]:
    """The graph as lines of at most ``width`` plain characters: a lane for each result that is still to be read.

    Where there is little room columns are left out, those that say least first, and at last the lines are cut.
    """
    rails = lanes(nodes)
    columns = {
        "stage": [f"{rail} {node.name}" for rail, node in zip(rails, nodes, strict=True)],
        "kind": [node.kind for node in nodes], "state": [node.state for node in nodes],
        "gate": [node.gate for node in nodes], "FLOPs": [words.short(node.spent.flops) for node in nodes],
        "tokens": [words.short(node.spent.tokens) for node in nodes],
        "time": [words.duration(s).replace(words.THIN, " ") if (s := node.spent.seconds) else "" for node in nodes],
        "figures": [_figure(*node.figures[0]) if node.figures else "" for node in nodes],
    }  # fmt: skip
    columns = {name: column for name, column in columns.items() if any(column)}
    for name in ("time", "kind", "tokens", "FLOPs", "gate"):
        if _width(columns) > width:
            columns.pop(name, None)
    room = width - _width({name: column for name, column in columns.items() if name != "figures"}) - 2
    if "figures" in columns:
        columns["figures"] = [_as_many(node.figures, room) for node in nodes]
    return [line[:width].rstrip() for line in _table(columns)]


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    return sum(2 + max(len(name), *map(len, column)) for name, column in columns.items()) - 2


def _table(columns: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Lines with a heading; costs stand to the right of their columns, words to the left."""
    for row in zip(*([name, *column] for name, column in columns.items()), strict=True):
        cells = []
        for cell, (name, column) in zip(row, columns.items(), strict=True):
            wide = max(len(name), *map(len, column))
            cells.append(cell.rjust(wide) if name in ("FLOPs", "tokens", "time") else cell.ljust(wide))
        yield "  ".join(cells)


def _as_many(figures: Sequence[tuple[str, float]], room: int) -> str:
    """As many figures as there is room for, and always the first."""
    said = [_figure(name, value) for name, value in figures]
    while len(said) > 1 and len("  ".join(said)) > room:
        said.pop()
    return "  ".join(said)


def _figure(name: str, value: float) -> str:
    return f"{name} {value:.3g}"


def lanes(nodes: Sequence[Node]) -> list[str]:
    """What stands before each node: its mark, lanes that pass by, and what it reads joined to it.

    A lane begins below a stage that others read, and ends at the last of them; that one may stand in it.
    """
    left = {node.name: sum(node.name in other.reads for other in nodes) for node in nodes}
    open_: list[str] = []
    rows: list[dict[int, str]] = []
    for node in nodes:
        joined = {open_.index(name): name for name in node.reads}
        for name in node.reads:
            left[name] -= 1
        own = _column(open_, {column for column, name in joined.items() if not left[name]}, min(joined, default=-1))
        open_ += [""] * (own + 1 - len(open_))
        marks = {column: "|" for column, name in enumerate(open_) if name}
        marks |= {column: "+" if left[name] else "'" for column, name in joined.items()}
        rows.append(_row(marks | {own: MARKS.get(node.state, ".")}, {own, *joined}))
        open_ = [name if left.get(name) else "" for name in open_]
        open_[own] = node.name if left[node.name] else open_[own]
    wide = max((len(row) for row in map(_rail, rows)), default=0)
    return [_rail(row).ljust(wide) for row in rows]


def _column(open_: Sequence[str], ended: set[int], after: int) -> int:
    """Where a node stands: in the leftmost lane that ends with it, else in the first free one beyond what it reads."""
    free = [column for column, name in enumerate(open_) if not name and column > after]
    return min(ended) if ended else free[0] if free else len(open_)


def _row(marks: Mapping[int, str], ends: set[int]) -> dict[int, str]:
    """Characters by place: lanes two apart, and a line from the first of ``ends`` to the last."""
    first, last = 2 * min(ends), 2 * max(ends)
    return dict.fromkeys(range(first, last), "-") | {2 * column: mark for column, mark in marks.items()}


def _rail(row: Mapping[int, str]) -> str:
    return "".join(row.get(place, " ") for place in range(max(row) + 1))
