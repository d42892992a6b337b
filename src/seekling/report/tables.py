"""The tables of a report: who solves how much, every measure before and after, and the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from seekling.report import story, words
from seekling.report.figures import BASE, CONTROL, TRAINED
from seekling.report.view import Comparison, Estimate, EvalView, LedgerRow, Regression, RunView, StageView, total

MEASURES = {
    "mean_tokens": ("Mean tokens per rollout", False),
    "format_rate": ("In the asked form", True),
    "readable_rate": ("In the asked form and in the prompt's language", True),
    "distinct_answers": ("Distinct answers per problem", False),
    "distinct_attempts": ("Distinct attempts per rollout", False),
    "entropy": ("Entropy (nats per token)", False),
    "distinct_1": ("Distinct words", True),
    "distinct_2": ("Distinct pairs of words", True),
    "distinct_3": ("Distinct triples of words", True),
    "self_bleu": ("Likeness of siblings (self-BLEU)", False),
}
"""Figures of an eval that the table can name, and whether they are shares. Others follow as written."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure in a table and, apart from it, its interval or unit."""

    value: str
    ends: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of the before/after table."""

    name: str
    before: Cell
    after: Cell
    change: Cell
    note: str = ""


@dataclass(frozen=True, slots=True)
class Solver:
    """A row of the table of who solves how much."""

    name: str
    rate: Cell
    tokens: str
    what: str
    ink: int


@dataclass(frozen=True, slots=True)
class CostTable:
    """The ledger as cells: one FLOP unit for the column, one group of rows per stage, and the total."""

    unit: str
    groups: Sequence[tuple[str, Sequence[Sequence[str]]]]
    total: Sequence[str]


@dataclass(frozen=True, slots=True)
class Descent:
    """Where one stage comes from: each parent with its fingerprint, digests of what else it read, the code."""

    stage: StageView
    parents: Sequence[tuple[str, str]]
    data: Sequence[tuple[str, str]]
    code: Sequence[str]


def descents(stages: Iterable[StageView]) -> list[Descent]:
    """A row for each stage, fingerprints and digests by their first letters."""
    return [
        Descent(
            stage,
            [(parent.name, parent.fingerprint[:8]) for parent in stage.origin.parents]
            or [(n, "") for n in stage.inputs],
            [(name, digest[:12]) for name, digest in stage.origin.data.items()],
            [" ".join(part for part in (version, commit[:12]) if part) for version, commit in stage.origin.code],
        )
        for stage in stages
    ]


def solvers(run: RunView, pair: Comparison) -> Iterator[Solver]:
    """The base, every control, the trained model."""
    yield from _model_row("before reinforcement", pair.before, "The model that reinforcement started from.", BASE)
    for control in story.controls_of(run):
        if control.pass_rate:
            tokens = f"{control.tokens.value:.1f}" if control.tokens else ""
            yield Solver(story.control_name(control), cell_of(control.pass_rate), tokens, control.what, CONTROL)
    yield from _model_row("after reinforcement", pair.after, "The model this run made.", TRAINED)


def measures(run: RunView, pair: Comparison) -> Iterator[Measure]:
    """The figures that say most: some k, every size, and the named figures; shares change in points."""
    sides = [e for e in (pair.before, pair.after) if e]
    by_k = _by_k("pass", [e.pass_at_k if e else {} for e in (pair.before, pair.after)])
    yield from (by_k[k] for k in sorted({1, 8, max(by_k, default=1)}) if k in by_k)
    by_k = _by_k("maj", [e.maj_at_k if e else {} for e in (pair.before, pair.after)])
    yield from (by_k[k] for k in sorted(by_k)[-1:] if k > 1)
    unseen = {size for e in sides for size in story.unseen_sizes(run, e)}
    for size in dict.fromkeys(size for e in sides for size in e.by_size):
        both = [e.by_size.get(size) if e else None for e in (pair.before, pair.after)]
        yield _measure(f"pass@1, size {size}", *both, note="never trained on" if size in unseen else "")
    known = dict.fromkeys(name for e in sides for name in e.figures)
    for name in [
        *(name for name in MEASURES if name in known),
        *(name for name in known if name not in MEASURES),
    ]:
        label, shares = MEASURES.get(name, (name.replace("_", " "), False))
        both = [e.figures.get(name) if e else None for e in (pair.before, pair.after)]
        yield _measure(label, *both, shares=shares)


def every_k(pair: Comparison) -> list[Measure]:
    """pass@k and maj@k at every k that was measured."""
    passes = _by_k("pass", [e.pass_at_k if e else {} for e in (pair.before, pair.after)])
    majorities = _by_k("maj", [e.maj_at_k if e else {} for e in (pair.before, pair.after)])
    return [*passes.values(), *(row for k, row in majorities.items() if k > 1)]


def forgetting(stage: StageView) -> list[Measure]:
    """A row for each set that was asked before and after; the change's interval is that of paired differences."""
    return [_forgotten(one) for one in stage.regressions]


def _forgotten(told: Regression) -> Measure:
    change, note = Cell("\u2013"), "not asked afterwards yet"
    if told.change:
        moved = f"{100 * told.change.value:+.1f}".replace("-", "\u2212")
        change = Cell(moved, f"points {words.interval(told.change)}".replace("-", "\u2212"))
        high = told.change.high
        note = "forgotten" if high is not None and high < 0 else ""
    return Measure(told.name, cell_of(told.before), cell_of(told.after), change, note)


def cost(rows: Sequence[LedgerRow]) -> CostTable | None:
    """The ledger's table, or None without a ledger."""
    if not rows:
        return None
    whole = total(rows)
    scale, unit = words.flop_unit([whole.spent.flops])
    stages = dict.fromkeys(row.stage for row in rows)
    groups = [(stage, [_cost_cells(row, scale) for row in rows if row.stage == stage]) for stage in stages]
    return CostTable(unit, groups, _cost_cells(whole, scale))


def _model_row(name: str, evaluation: EvalView | None, what: str, ink: int) -> Iterator[Solver]:
    rate = story.pass_1(evaluation)
    if evaluation and rate:
        tokens = evaluation.figures.get("mean_tokens")
        yield Solver(name, cell_of(rate), f"{tokens.value:.1f}" if tokens else "", what, ink)


def _by_k(name: str, sides: Sequence[Mapping[int, Estimate]]) -> dict[int, Measure]:
    ks = sorted({k for side in sides for k in side})
    return {k: _measure(f"{name}@{k}", *(side.get(k) for side in sides)) for k in ks}


def _measure(
    name: str, before: Estimate | None, after: Estimate | None, *, note: str = "", shares: bool = True
) -> Measure:
    change = Cell("\u2013")
    if before and after:
        difference = after.value - before.value
        moved = f"{100 * difference:+.1f}" if shares else f"{difference:+.2f}"
        notes = ["points"] * shares + ["intervals overlap"] * story.overlap(before, after)
        change = Cell(moved.replace("-", "\u2212"), ", ".join(notes))
    return Measure(name, cell_of(before, shares), cell_of(after, shares), change, note)


def cell_of(estimate: Estimate | None, shares: bool = True) -> Cell:
    """A figure with its interval; a dash where there is none."""
    if estimate is None:
        return Cell("\u2013")
    value = words.percent(estimate.value) if shares else f"{estimate.value:.2f}"
    return Cell(value, words.interval(estimate, shares=shares, digits=1 if shares else 2))


def _cost_cells(row: LedgerRow, scale: float) -> list[str]:
    both = (row.spent, row.kept)
    tokens = [words.count(cost.tokens) for cost in both]
    return [row.kind, *tokens, *(f"{c.flops / scale:.3f}" for c in both), *(f"{c.seconds:.1f}" for c in both)]
