"""The nouns of a report: a run as its files tell it, frozen, and the few questions its readers ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seekling.records import StepRecord
from seekling.runlog.ledger import Cost

TRAINING_KINDS = ("pretrain", "sft", "dpo", "grpo", "distill")
MODEL_KINDS = ("import", *TRAINING_KINDS)
"""Kinds of stage that leave a model."""

Load = tuple[tuple[int, tuple[float, ...]], ...]
"""Tokens (or shares) each expert of one layer received, step by step: ``((step, per expert), ...)``."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the ends of its interval; the ends are None when only the figure was written."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class RolloutView:
    """One answer as it was said, how its check ended, and its length in tokens."""

    text: str
    verdict: str
    tokens: int | None


@dataclass(frozen=True, slots=True)
class ProblemView:
    """A held-out problem, its answer key and some of the rollouts it got."""

    id: str
    prompt: str
    answer: str
    size: str
    rollouts: tuple[RolloutView, ...]


@dataclass(frozen=True, slots=True)
class EvalView:
    """One model on one task: what ``eval.json`` holds, or one of those it lists.

    ``label`` names the task where a stage asks several. ``figures`` are the named estimates (mean_tokens, format_rate,
    ...), ``criteria`` what the rubric weighs beside accuracy and form.
    """

    model: str
    task: str
    label: str
    problems: int
    samples: int
    seed: int | None
    pass_at_k: Mapping[int, Estimate]
    maj_at_k: Mapping[int, Estimate]
    figures: Mapping[str, Estimate]
    by_size: Mapping[str, Estimate]
    criteria: Mapping[str, Estimate]
    rollouts: tuple[ProblemView, ...]

    def estimate(self, figure: str) -> Estimate | None:
        """A figure by its name: ``pass@8``, ``maj@4``, ``mean_tokens``, a criterion, ``size 6``; None for others."""
        kind, at, k = figure.partition("@")
        if at:
            curve = {"pass": self.pass_at_k, "maj": self.maj_at_k}.get(kind, {})
            return curve.get(int(k)) if k.isdigit() else None
        size = self.by_size.get(figure.removeprefix("size ")) if figure.startswith("size ") else None
        return size or self.figures.get(figure) or self.criteria.get(figure)


@dataclass(frozen=True, slots=True)
class Control:
    """Something cheaper than reinforcement that could also have raised the score.

    ``pass_rate`` is pass@1, or pass@``tries`` for a control that is given several tries; ``tokens`` is the
    mean it spent per problem.
    """

    name: str
    what: str
    pass_rate: Estimate | None
    tokens: Estimate | None
    tries: float | None


@dataclass(frozen=True, slots=True)
class SelfTest:
    """A start-up self-test: the figure it found and the limit it was held to."""

    name: str
    figure: str
    limit: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Gate:
    """One bound a stage had to reach. ``met`` is None while the figure is not there yet."""

    figure: str
    bound: str
    reached: float | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class Sieved:
    """One sieve of problems or rollouts: how many it saw, how many it left out, and some of these with the reason."""

    name: str
    before: int
    removed: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CurationView:
    """What ``curate.json`` holds. ``pass_rates`` counts problems by the share of rollouts that solved them."""

    drawn: int
    kept: int
    steps: tuple[Sieved, ...]
    pass_rates: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GatheringView:
    """What ``gathered.json`` holds. ``wanted`` is 0 for all there are; ``examples`` are the first that were chosen."""

    task: str
    wanted: int
    asked: int
    came: int
    found: int
    merged: int
    steps: tuple[Sieved, ...]
    examples: tuple[ProblemView, ...]


@dataclass(frozen=True, slots=True)
class Regression:
    """One set asked before and after training: pass@1 of both, and the change, problem by problem."""

    name: str
    before: Estimate | None
    after: Estimate | None
    change: Estimate | None


@dataclass(frozen=True, slots=True)
class Parent:
    """A stage that another read: its fingerprint, and checksums of what was read, by what it is."""

    name: str
    fingerprint: str
    left: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stage comes from: parents, digests of what else it read, the code that worked on it (version, commit)."""

    parents: tuple[Parent, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    code: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage folder: what it was asked, what became of it, and every step it logged (a repeat's last).

    ``start`` is the stage or model whose weights it began with, ``""`` for none; ``inputs`` all that it used.
    ``ended`` tells after how many steps of how many a budget ended it.
    """

    folder: Path
    name: str
    kind: str
    fingerprint: str
    state: str
    index: int
    start: str
    inputs: tuple[str, ...]
    settings: Mapping[str, Any]
    figures: Mapping[str, float]
    gates: tuple[Gate, ...]
    selftests: tuple[SelfTest, ...]
    selftest_seconds: float | None
    seconds: float | None
    steps: tuple[StepRecord, ...]
    expert_load: Mapping[str, Load]
    evaluations: tuple[EvalView, ...]
    controls: tuple[Control, ...]
    curation: CurationView | None = None
    gathering: GatheringView | None = None
    regressions: tuple[Regression, ...] = ()
    origin: Origin = Origin()
    ended: tuple[int, int] | None = None

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """``(step, value)`` wherever ``metric`` was logged and finite."""
        return [(float(s.step), s.metrics[metric]) for s in self.steps if metric in s.metrics]

    def restarts(self) -> list[int]:
        """The first step of every session after the first: where a stopped run went on."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return [later.step for earlier, later in pairs if later.session != earlier.session]


@dataclass(frozen=True, slots=True)
class Proxy:
    """What a reward model said of one scenario's replies, and the rule it was learned from, where one is known.

    Points are (step, change since it was first asked, in standard deviations of the replies of that step), as
    over-optimisation is usually drawn (Gao et al. 2022, arXiv 2210.10760): the two then share a scale.
    """

    scenario: str
    rated: tuple[tuple[float, float], ...]
    rule: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What one kind of work in one stage cost: ``spent`` with repeated steps, ``kept`` the last of each."""

    stage: str
    kind: str
    spent: Cost
    kept: Cost


@dataclass(frozen=True, slots=True)
class SessionView:
    """One process that worked on the run."""

    session: int
    started: str
    hardware: str
    threads: int | None
    device: str
    dtype: str
    torch: str


@dataclass(frozen=True, slots=True)
class RunView:
    """A run directory, read once. ``older`` names stage folders that a changed setting has replaced."""

    folder: Path
    name: str
    version: str
    commit: str
    created: str
    seed: int | None
    manifest: str
    sessions: tuple[SessionView, ...]
    stages: tuple[StageView, ...]
    ledger: tuple[LedgerRow, ...]
    older: tuple[str, ...] = ()

    def stage(self, name: str) -> StageView | None:
        """The stage called ``name`` (its name, or its folder's), if there is one."""
        return next((s for s in self.stages if name in (s.name, s.folder.name)), None)

    @property
    def selftest_seconds(self) -> float:
        """How long the start-up self-tests of all stages took, where it was written."""
        return sum(stage.selftest_seconds or 0.0 for stage in self.stages)

    def of_kind(self, *kinds: str) -> list[StageView]:
        """Stages of these kinds, in the order of the manifest."""
        return [stage for stage in self.stages if stage.kind in kinds]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The eval before reinforcement and the eval after it; either may not exist (yet)."""

    before: EvalView | None
    after: EvalView | None


def total(rows: Iterable[LedgerRow]) -> LedgerRow:
    """The sum of ``rows``: parts add up to their total by construction."""
    spent, kept = Cost(), Cost()
    for row in rows:
        spent, kept = spent + row.spent, kept + row.kept
    return LedgerRow("total", "", spent, kept)


def compare(run: RunView) -> Comparison:
    """The evals on both sides of the last reinforcement that was evaluated.

    Before is the eval of the model that reinforcement started from, else the last eval of an imported, pretrained
    or supervised model; both on the same task where that is possible.
    """
    tried = [(e, s) for stage in run.stages for e in stage.evaluations if (s := source_of(run, stage, e))]
    befores = [(e, s) for e, s in tried if s.kind not in ("grpo", "distill")]
    after = next((pair for pair in reversed(tried) if pair[1].kind == "grpo"), None)
    if after is None:
        return Comparison(befores[-1][0] if befores else None, None)
    fits = [(e.task == after[0].task, s.name == after[1].start) for e, s in befores]
    best = max(range(len(befores)), key=lambda n: (*fits[n], n), default=None)
    return Comparison(None if best is None else befores[best][0], after[0])


def scenarios_of(stage: StageView) -> list[str]:
    """Names of the scenarios that a stage's figures tell apart, its own first; none where there is one alone."""
    names = (name for step in stage.steps for name in step.metrics if name.endswith("/reward"))
    return [name.removesuffix("/reward") for name in dict.fromkeys(names)]


def proxies_of(stage: StageView) -> list[Proxy]:
    """Every scenario that a reward model judged."""
    names = (name for step in stage.steps for name in step.metrics if name.endswith("/rated"))
    found = [name.removesuffix("/rated") for name in dict.fromkeys(names)]
    return [Proxy(name, *(_moved(stage, f"{name}/{what}") for what in ("rated", "helpfulness"))) for name in found]


def _moved(stage: StageView, metric: str) -> tuple[tuple[float, float], ...]:
    """A curve as change since its first point, in the spread of that step."""
    curve, spread = stage.curve(metric), stage.curve(f"{metric}_std")
    unit = (spread[0][1] if spread else 0.0) or 1.0
    return tuple((x, (y - curve[0][1]) / unit) for x, y in curve)


def source_of(run: RunView, stage: StageView, evaluation: EvalView) -> StageView | None:
    """The stage whose model was evaluated: that which the evaluation names, else what its stage read."""
    names = (evaluation.model, *stage.inputs)
    found = (run.stage(name) for name in names)
    return next((s for s in found if s is not None and s.kind in MODEL_KINDS), None)


def starts_from_nothing(run: RunView) -> bool:
    """Whether the first trained model of the run is a pretraining stage with no input: random weights."""
    trained = run.of_kind(*TRAINING_KINDS)
    return bool(trained) and trained[0].kind == "pretrain" and not trained[0].start


def trained_sizes(run: RunView) -> set[str]:
    """Every problem size that the settings of the training stages name; empty when they name none."""
    return {size for stage in run.of_kind(*TRAINING_KINDS) for size in _sizes(stage.settings)}


def trained_task(run: RunView) -> str:
    """The task of the last reinforcement stage, as its settings name it."""
    names = [_task_name(s.settings.get("task")) for s in run.of_kind("grpo")]
    return next((name for name in reversed(names) if name), "")


def _sizes(value: Any) -> Iterator[str]:
    """Every entry of a list called ``sizes``, however deep it stands in the settings."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from map(str, inner) if key == "sizes" and isinstance(inner, list) else _sizes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _sizes(inner)


def _task_name(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else value
    return name if isinstance(name, str) else ""
