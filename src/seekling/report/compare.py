"""Several runs side by side: what each stage's model scored at which compute, seeds pooled, and where else they differ.

Compute is what the result needed: the work kept of the model's stage and of all behind it, without evaluations. Read
from the runs' files alone; which settings count is told by who asks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seekling.config import fingerprint
from seekling.errors import UserError, nearest
from seekling.report.card import ancestors
from seekling.report.read import read_run
from seekling.report.view import Estimate, RunView
from seekling.runlog.files import read_json
from seekling.runlog.ledger import Cost, kept, read_ledger

APART = ("eval", "regression")
"""Work of a stage that learns which its model did not need."""
SHARES = ("pass@", "maj@", "format_rate", "held_out_pass", "size ")
"""How the names of figures begin that are shares, so that there is an error to speak of."""
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % points of Student's t with 1, 2, ... degrees of freedom."""
NORMAL = 1.96

Plan = Mapping[str, Any]
"""What of a manifest can change a result, seed and name left out: ``{"dtype": ..., "stage": {name: settings}}``."""


@dataclass(frozen=True, slots=True)
class Point:
    """One model's score on one task, and what it took: tokens, FLOPs, and seconds of all devices together."""

    stage: str
    task: str
    score: Estimate
    cost: Cost


@dataclass(frozen=True, slots=True)
class Contender:
    """One manifest, run with one seed or several. ``views`` are its runs, in the order given."""

    name: str
    views: tuple[RunView, ...]
    plan: Plan
    points: tuple[Point, ...]

    @property
    def seeds(self) -> int:
        """How many were pooled."""
        return len(self.views)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A contender's model against the first contender's of the same stage and task; below 1 errors are fewer."""

    name: str
    stage: str
    task: str
    error: Estimate | None
    accuracy: Estimate | None
    flops: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that is not the same everywhere: its place, and what each contender has there."""

    where: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contest:
    """All that a comparison says. ``minds`` temper it."""

    figure: str
    contenders: tuple[Contender, ...]
    ratios: tuple[Ratio, ...]
    differences: tuple[Difference, ...]
    minds: tuple[str, ...]

    @property
    def told(self) -> str:
        """What a ratio of the figure itself is called: of shares, accuracy."""
        return "accuracy" if is_share(self.figure) else self.figure


def contest(runs: Sequence[tuple[Path, Plan]], figure: str = "pass@1", stage: str = "") -> Contest:
    """Compare runs by one figure. Raises UserError for fewer than two, and where nobody has the figure or the stage."""
    if len({folder.resolve() for folder, _ in runs}) < 2:
        raise UserError("a comparison needs two runs", next_step="Write: seekling compare RUN RUN")
    views = [(read_run(folder), plan) for folder, plan in runs]
    known = {s.name for view, _ in views for s in view.stages}
    if stage and stage not in known:
        raise UserError(f'none of these runs has a stage "{stage}"', next_step=nearest(stage, known))
    contenders, repeats = _pooled(views, figure, stage)
    if not any(contender.points for contender in contenders):
        raise UserError(
            f'none of these runs has measured "{figure}"' + (f' of stage "{stage}"' if stage else ""),
            next_step=f"Known figures: {', '.join(sorted(_figures([view for view, _ in views])))}.",
        )
    differences = tuple(_differences(contenders))
    minds = (*repeats, *_minds(contenders, differences))
    return Contest(figure, tuple(contenders), tuple(_ratios(contenders, figure)), differences, minds)


def points(view: RunView, figure: str, stage: str = "") -> list[Point]:
    """Every model of a run that was evaluated, by the figure; where none was, stages that tell it of themselves."""
    costs = _costs(view)

    def cost(model: str) -> Cost:
        return sum((costs.get(behind.name, Cost()) for behind in ancestors(view, model)), Cost())

    scored = {
        (e.model, e.label): estimate for s in view.stages for e in s.evaluations if (estimate := e.estimate(figure))
    }
    scored = scored or {(s.name, ""): Estimate(s.figures[figure]) for s in view.stages if figure in s.figures}
    found = [Point(model, task, score, cost(model)) for (model, task), score in scored.items()]
    return [point for point in found if stage in ("", point.stage)]


def pooled(scores: Sequence[Estimate], *, is_share: bool) -> Estimate:
    """The mean over seeds. Its interval holds both doubts: about the problems asked, and about the seeds drawn.

    All seeds are asked the same problems, so that the first does not shrink with their number; the second is Student's,
    of as many seeds. Both are taken as independent: their half widths add as squares do.
    """
    if len(scores) == 1:
        return scores[0]
    value = math.fsum(score.value for score in scores) / len(scores)
    halves = [(s.high - s.low) / 2 for s in scores if s.low is not None and s.high is not None]
    spread = math.sqrt(math.fsum((score.value - value) ** 2 for score in scores) / (len(scores) - 1))
    student = STUDENT[len(scores) - 2] if len(scores) - 2 < len(STUDENT) else NORMAL
    half = math.hypot(sum(halves) / len(halves) if halves else 0.0, student * spread / math.sqrt(len(scores)))
    low, high = value - half, value + half
    return Estimate(value, max(0.0, low) if is_share else low, min(1.0, high) if is_share else high)


def ratio(one: Estimate, other: Estimate) -> Estimate | None:
    """``one / other`` with its interval from both, as if they were independent; None where the other is 0.

    On the scale of logarithms, where a ratio's error is a difference's (the delta method).
    """
    if other.value <= 0:
        return None
    value = one.value / other.value
    ends = (one.low, one.high, other.low, other.high)
    if value <= 0 or None in ends:
        return Estimate(value)
    reach = math.hypot(*((e.high - e.low) / 2 / e.value for e in (one, other)))  # type: ignore[operator]
    return Estimate(value, value * math.exp(-reach), value * math.exp(reach))


def is_share(figure: str) -> bool:
    """Whether a figure is a share of rollouts or problems, which errors complete to one."""
    return figure.startswith(SHARES)


def _figures(views: Iterable[RunView]) -> set[str]:
    stages = [stage for view in views for stage in view.stages]
    evaluated = [e for stage in stages for e in stage.evaluations]
    found = {f"pass@{k}" for e in evaluated for k in e.pass_at_k} | {f"maj@{k}" for e in evaluated for k in e.maj_at_k}
    found |= {name for e in evaluated for name in (*e.figures, *e.criteria)}
    return found | {name for stage in stages if not stage.evaluations for name in stage.figures}


def _costs(view: RunView) -> dict[str, Cost]:
    """What each stage's result took, seconds counted once for each process that worked."""
    told = read_json(view.folder / "run.json").get("sessions", []) if view.sessions else []
    processes = {number: session.get("processes", 1) for number, session in enumerate(told)}
    entries = [replace(e, seconds=e.seconds * processes.get(e.session, 1)) for e in read_ledger(view.folder)]
    learns = {entry.stage for entry in entries if entry.kind == "train"}
    counted = [entry for entry in entries if entry.stage not in learns or entry.kind not in APART]
    return kept(counted, {stage.folder.name for stage in view.stages})


def _pooled(views: Sequence[tuple[RunView, Plan]], figure: str, stage: str) -> tuple[list[Contender], list[str]]:
    """Runs of one manifest as one contender; a run that repeats a seed says nothing new and is left out aloud."""
    groups: dict[str, list[RunView]] = {}
    plans = {fingerprint(plan): plan for _, plan in views}
    repeats = []
    for view, plan in views:
        group = groups.setdefault(fingerprint(plan), [])
        if same := [other.name for other in group if other.seed == view.seed]:
            repeats.append(f"{view.name} repeats {same[0]}: the same manifest and seed. It is left out.")
        else:
            group.append(view)
    return [_contender(group, plans[key], figure, stage) for key, group in groups.items()], repeats


def _contender(views: Sequence[RunView], plan: Plan, figure: str, stage: str) -> Contender:
    found: dict[tuple[str, str], list[Point]] = {}
    for view in views:
        for point in points(view, figure, stage):
            found.setdefault((point.stage, point.task), []).append(point)
    told = [Point(*key, pooled([p.score for p in same], is_share=is_share(figure)), _mean(p.cost for p in same))
            for key, same in found.items()]  # fmt: skip
    name = views[0].name + (f" (and {len(views) - 1} more)" if len(views) > 1 else "")
    return Contender(name, tuple(views), plan, tuple(sorted(told, key=lambda point: (point.task, point.cost.flops))))


def _mean(costs: Iterable[Cost]) -> Cost:
    listed = list(costs)
    whole, count = sum(listed, Cost()), len(listed)
    return Cost(round(whole.tokens / count), whole.flops / count, whole.seconds / count)


def _ratios(contenders: Sequence[Contender], figure: str) -> Iterator[Ratio]:
    first, *others = contenders
    base = {(point.stage, point.task): point for point in first.points}
    for other in others:
        for point in other.points:
            if known := base.get((point.stage, point.task)):
                yield _ratio(other.name, point, known, figure)


def _ratio(name: str, point: Point, base: Point, figure: str) -> Ratio:
    flops = point.cost.flops / base.cost.flops if base.cost.flops else None
    error = ratio(_rest(point.score), _rest(base.score)) if is_share(figure) else None
    return Ratio(name, point.stage, point.task, error, ratio(point.score, base.score), flops)


def _rest(score: Estimate) -> Estimate:
    """What is missing to 1."""
    low, high = (None if end is None else 1 - end for end in (score.high, score.low))
    return Estimate(1 - score.value, low, high)


def _differences(contenders: Sequence[Contender]) -> Iterator[Difference]:
    """Every setting that is not the same everywhere, by its place."""
    flat = [dict(_flat(contender.plan)) for contender in contenders]
    for where in dict.fromkeys(place for one in flat for place in one):
        values = tuple(one.get(where, "\u2013") for one in flat)
        if len(set(values)) > 1:
            yield Difference(where.removeprefix("stage."), values)


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", str(value)


def _minds(contenders: Sequence[Contender], differences: Sequence[Difference]) -> Iterator[str]:
    """In what else the runs differ than in what is compared."""
    views = [view for contender in contenders for view in contender.views]
    judged = {s.name for view in views for s in view.stages if s.evaluations or s.kind in ("eval", "control")}
    asked = [d.where for d in differences if d.where.partition(".")[0] in judged]
    taught = [d.where for d in differences if d.where not in asked]
    if asked:
        yield f"They were not evaluated alike ({', '.join(asked)}): scores are answers to different questions."
    if len(taught) > 1:
        yield f"They differ in {len(taught)} settings ({', '.join(taught)}): no one of them explains a difference."
    for what, values in _circumstances(views).items():
        if len(values) > 1:
            yield f"They differ in {what}: {', '.join(sorted(values))}."
    if any(contender.seeds == 1 for contender in contenders):
        yield "Of one seed the interval knows only the problems, not what another seed would have done."


def _circumstances(views: Sequence[RunView]) -> dict[str, set[str]]:
    sessions = [session for view in views for session in view.sessions]
    return {
        "code": {f"{view.version} {view.commit[:12]}".strip() for view in views},
        "hardware, so that seconds cannot be compared": {f"{s.hardware} ({s.device})" for s in sessions},
    }
