"""One HTML page per run, from its files alone: no network, no framework; same files, same bytes."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from seekling.report import figures, graph, lineage, rollouts, story, tables, tax, words
from seekling.report.read import read_run
from seekling.report.view import RunView, compare
from seekling.runlog.files import write_atomic

NUM_PROBLEMS_OPEN, NUM_PROBLEMS = 4, 12
_PERCENTAGE = re.compile(rf"[\d.]+{words.THIN}%")
CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}
"""A control character shows as its picture: HTML has no place for it, and a model may say any."""
_HERE = Path(__file__).parent


def write_report(run: Path) -> Path:
    """Write ``report.html`` into the run directory, whole or not at all, and name it. Raises UserError."""
    target = run / "report.html"
    write_atomic(target, render_report(run).encode("utf-8", errors="replace"))
    return target


def render_report(run: Path) -> str:
    """The page as text. Raises UserError when ``run`` is no run or one of its files is broken."""
    view = read_run(run)
    pair = compare(view)
    page = environment().get_template("page.html.jinja")
    text = page.render(
        run=view,
        pair=pair,
        story=story.tell(view),
        summary=story.summarise(view),
        result=list(figures.result_figures(view, pair)),
        solvers=list(tables.solvers(view, pair)),
        measures=list(tables.measures(view, pair)),
        every_k=tables.every_k(pair),
        trainings=figures.trainings(view),
        problems=rollouts.pairs(pair, NUM_PROBLEMS),
        num_open=NUM_PROBLEMS_OPEN,
        curations=[(stage, stage.curation) for stage in view.stages if stage.curation],
        gatherings=[(stage, stage.gathering) for stage in view.stages if stage.gathering],
        forgotten=[(stage, tables.forgetting(stage)) for stage in view.stages if stage.regressions],
        cost=tables.cost(view.ledger),
        cost_figure=figures.cost_figure(view.ledger),
        tests=[(stage, test) for stage in view.stages for test in stage.selftests],
        gates=[(stage, gate) for stage in view.stages for gate in stage.gates],
        tax=(taxed := tax.tax(view)),
        tax_figure=tax.tax_figure(taxed) if taxed else None,
        graph=_drawn_graph(view),
        descents=tables.descents(view.stages),
        **inline(),
    )
    return text.translate(CONTROL_PICTURES)


def _drawn_graph(view: RunView) -> Markup | None:
    """The graph of the run's stages; each box leads to where the page tells of that stage."""
    nodes = lineage.graph(view)
    places = {node.name: f"from-{node.stage.folder.name}" for node in nodes if node.stage}
    return graph.draw(nodes, places) if nodes else None


@cache
def environment() -> Environment:
    """Everything is escaped unless a chart says it is markup; a name the page misses is an error of ours."""
    made = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"parts": rollouts.parts, "tally": rollouts.tally, "emphasise": _emphasise}
    made.filters |= {"number": words.number, "duration": words.duration, "flops": words.flops}
    return made


def inline() -> dict[str, Any]:
    """Stylesheet and script, and the content policy that admits exactly these two and nothing else."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "readout.js.jinja"))
    policy = f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:; "
    return {
        "style": Markup(style),
        "script": Markup(script),
        "policy": Markup(policy + "base-uri 'none'; form-action 'none'"),
    }


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _emphasise(sentence: str) -> Markup:
    """Percentages of the headline in bold; the sentence itself stays escaped."""
    return Markup(_PERCENTAGE.sub(r"<b>\g<0></b>", str(escape(sentence))))
