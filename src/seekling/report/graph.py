"""The graph of stages as inline SVG: a box for each, lines from what it reads, links to where the page tells more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from seekling.report import words
from seekling.report.layout import BOX, TALL, Layout, Point, laid_out
from seekling.report.lineage import Node

LETTERS = 28
"""So many letters of a line have room in a box."""
SIGNS = {"done": "\u2713", "gate missed": "\u2717", "running": "\u2026", "stopped": "\u2026"}
UNSIGNED = "\u25cb"
EDGE = 1.0
"""Room around the drawing, so that no outline is cut."""


def draw(nodes: Sequence[Node], places: Mapping[str, str]) -> Markup:
    """The graph; ``places`` tells by stage name which part of the page its box leads to."""
    layout = laid_out({node.name: node.reads for node in nodes})
    size = layout.width + 2 * EDGE, layout.height + 2 * EDGE
    head = Markup(
        '<svg class="graph" role="group" aria-labelledby="graph-t graph-d" width="{:.0f}" height="{:.0f}" '
        'viewBox="{:g} {:g} {:.0f} {:.0f}"><title id="graph-t">{}</title><desc id="graph-d">{}</desc>'
    ).format(*size, -EDGE, -EDGE, *size, "Stages, and what each reads", _describe(nodes))
    lines = [_line(layout, edge) for edge in layout.edges]
    boxes = [_box(node, layout.boxes[node.name], places.get(node.name, "")) for node in nodes]
    return Markup("").join([head, *lines, *boxes, Markup("</svg>")])


def _line(layout: Layout, edge: tuple[str, str]) -> Markup:
    """From the lower edge of what is read to the upper edge of its reader, straight through the rows between."""
    (x, y), *way = layout.edges[edge]
    path, foot = [f"M{x:.1f} {y + TALL:.1f}"], y + TALL
    for number, (next_x, next_y) in enumerate(way, 1):
        middle = (foot + next_y) / 2
        path.append(f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}")
        x, foot = next_x, next_y
        if number < len(way):
            foot = next_y + TALL
            path.append(f"V{foot:.1f}")
    return Markup('<path class="edge" d="{}"/>').format("".join(path))


def _box(node: Node, at: Point, place: str) -> Markup:
    left, top = at[0] - BOX / 2, at[1]
    state = f"{SIGNS.get(node.state, UNSIGNED)} {node.state}" + (f", gate {node.gate}" if node.gate == "met" else "")
    figure = "{} {}".format(*_figure(node)) if node.figures else ""
    lines = [("name", node.name), ("", f"{node.kind} \u00b7 {state}"), ("", figure), ("", _cost(node))]
    text = [
        Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(
            kind, left + 11, top + 20 + 19 * n, _cut(said)
        )
        for n, (kind, said) in enumerate(line for line in lines if line[1])
    ]
    outline = Markup('<rect class="box {}" x="{:.1f}" y="{:.1f}" width="{:g}" height="{:g}" rx="7"/>').format(
        node.state.replace(" ", "-"), left, top, BOX, TALL
    )
    whole = Markup("").join([outline, *text])
    if not place:
        return Markup("<g>{}</g>").format(whole)
    return Markup('<a href="#{}" aria-label="{}">{}</a>').format(place, _said(node), whole)


def _figure(node: Node) -> tuple[str, str]:
    name, value = node.figures[0]
    return name, words.number(value)


def _cost(node: Node) -> str:
    """FLOPs and tokens, or where neither was counted seconds."""
    cost = node.spent
    if cost.flops or cost.tokens:
        return f"{words.flops(cost.flops)} \u00b7 {words.short(cost.tokens)} tokens"
    return words.duration(cost.seconds) if cost.seconds else ""


def _cut(said: str) -> str:
    return said if len(said) <= LETTERS else f"{said[: LETTERS - 1]}\u2026"


def _said(node: Node) -> str:
    """A node in words, for who does not see the drawing."""
    reads = f"reads {', '.join(node.reads)}" if node.reads else "reads no stage"
    figure = " ".join(_figure(node)) if node.figures else ""
    return "; ".join(part for part in (f"{node.name}, {node.kind}, {node.state}", reads, figure, _cost(node)) if part)


def _describe(nodes: Sequence[Node]) -> str:
    return ". ".join(map(_said, nodes)) or "No stage has begun."
