"""Which charts a run gets, and what each means in one sentence for a newcomer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from seekling.report import charts, story, words
from seekling.report.charts import Axes, Bar, Dot, Points, Series
from seekling.report.view import (
    Comparison,
    EvalView,
    LedgerRow,
    Load,
    Proxy,
    RunView,
    StageView,
    proxies_of,
    scenarios_of,
)

TRAINED, BASE, CONTROL = 1, 2, 4
"""Inks: the same model wears the same colour on the whole page."""
INKS = 4
"""How many there are."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, what it means, and what was left out of it."""

    title: str
    svg: Markup
    meaning: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Training:
    """The figures of one training stage, and how their lines were drawn."""

    stage: StageView
    figures: Sequence[Figure]
    drawn: str


@dataclass(frozen=True, slots=True)
class _Curve:
    """A chart of logged metrics: ``lines`` maps each metric to its line's name; a sole line needs none."""

    title: str
    y: str
    lines: Mapping[str, str]
    meaning: str
    y_range: tuple[float | None, float | None] = field(default=(0, None))
    percent: bool = False


REWARD = _Curve(
    "Reward",
    "mean reward per rollout",
    {"reward": ""},
    "What the checker paid per answer, on average. Rising means that more answers are right.",
    y_range=(0, 1),
)
PASS_1 = _Curve(
    "pass@1",
    "share solved at the first try",
    {"pass_rate": "training", "held_out_pass": "held-out"},
    "The share of answers that are right. Held-out problems never occur in training: they show what carries over.",
    y_range=(0, 1),
    percent=True,
)
FORM = _Curve(
    "Form, and groups without a lesson",
    "share",
    {"format_rate": "in form", "frac_zero_spread": "no lesson"},
    "In form: answers that can be read at all. No lesson: problems whose rollouts all earned the same, "
    "so that there is nothing to prefer.",
    y_range=(0, 1),
    percent=True,
)
PARTS_OF_LENGTH = _Curve(
    "Response length",
    "tokens per rollout",
    {"tokens_new": "new", "tokens_repeat": "repeats", "tokens_other": "other"},
    "How long an answer is and what fills it: attempts made for the first time, attempts repeated, the rest.",
)
LENGTH = _Curve(
    "Response length",
    "tokens per rollout",
    {"response_length": ""},
    "How many tokens an answer takes, thinking included.",
)
ENTROPY = _Curve(
    "Entropy",
    "nats per token",
    {"entropy": ""},
    "How undecided the model is at each token. Near zero it has stopped exploring.",
)
KL = _Curve(
    "Distance from the start",
    "KL to the starting policy, nats per token",
    {"kl": ""},
    "How far its choices have moved from the model it started as.",
)
LOSS = _Curve(
    "Loss",
    "nats per token",
    {"loss": "next token", "mtp_loss": "one further"},
    "How surprised the model is by the next token of the text, and by the one after it. Lower is better.",
    y_range=(None, None),
)
TEACHER = _Curve(
    "Distance from the teacher",
    "divergence, nats per token",
    {"teacher_kl": ""},
    "How far its choices are from those that its teacher would make at the same places. Falling means it learns.",
)
AHEAD = _Curve(
    "Two tokens ahead",
    "share of tokens foreseen",
    {"mtp_acceptance": ""},
    "How often the prediction layer's first choice is the token after the next: drafts that would be kept.",
    y_range=(0, 1),
    percent=True,
)


def _of_scenarios(names: Sequence[str]) -> list[_Curve]:
    """The curves in which several scenarios stand side by side; the first is the stage's own."""
    held_out = {"held_out_pass" if at == 0 else f"{name}/held_out_pass": name for at, name in enumerate(names)}
    return [
        _Curve(
            "Reward by scenario",
            "mean reward per rollout",
            {f"{name}/reward": name for name in names},
            "Each scenario has its own rubric, and begins at its own step: compare a line with itself.",
            y_range=(0, 1),
        ),
        _Curve(
            "Held-out pass@1 by scenario",
            "share that passes at the first try",
            held_out,
            "Problems that never occur in training, asked from the start whether or not their scenario has begun.",
            y_range=(0, 1),
            percent=True,
        ),
    ]


def trainings(run: RunView) -> list[Training]:
    """Reinforcement first, since the page is about it; then what came before it."""
    stages = [*run.of_kind("grpo"), *run.of_kind("distill"), *run.of_kind("pretrain", "sft")]
    return [Training(s, figures, _drawn(s)) for s in stages if (figures := list(_training_figures(s)))]


def result_figures(run: RunView, pair: Comparison) -> Iterator[Figure]:
    """Who solves how much, and pass@k before and after."""
    if dots := list(_dots(run, pair)):
        title, x = "Share of held-out problems solved", "held-out problems solved, %"
        yield Figure(
            "Who solves how much",
            charts.dot_chart("solvers", title, dots, x),
            "Each dot is the share of problems solved; the bar shows where the true share plausibly lies.",
        )
    sides = (("after", pair.after, TRAINED), ("before", pair.before, BASE))
    if lines := [_k_series(name, e, ink) for name, e, ink in sides if e and len(e.pass_at_k) > 1]:
        y = "solved in at least one of k tries"
        axes = Axes("tries per problem (k)", y, (0, 1), log2=True, percent=True)
        yield Figure(
            "pass@k before and after",
            charts.line_chart("pass-at-k", "pass@k before and after reinforcement", lines, axes),
            "Where the lines meet, reinforcement made likely what the base could already do in many tries; "
            "a gap that stays is new ability. Tinted: the interval.",
        )


def cost_figure(rows: Sequence[LedgerRow]) -> Figure | None:
    """Where the time went, or None without a ledger. There are four inks: of more kinds the last are one."""
    kinds = list(dict.fromkeys(row.kind for row in rows))
    named = {kind: kind if len(kinds) <= 4 or place < 3 else "other" for place, kind in enumerate(kinds)}
    kinds, seconds = list(dict.fromkeys(named.values())), dict[tuple[str, str], float]()
    for row in rows:
        key = row.stage, named[row.kind]
        seconds[key] = seconds.get(key, 0.0) + row.spent.seconds
    stages = dict.fromkeys(row.stage for row in rows)
    bars = [Bar(stage, [seconds.get((stage, kind), 0.0) for kind in kinds]) for stage in stages]
    if not bars:
        return None
    svg = charts.bar_chart("time", "Seconds per stage", kinds, bars, words.duration)
    meaning = "Wall-clock time of each stage, by kind of work, repeated steps included."
    return Figure("Where the time went", svg, meaning)


def _dots(run: RunView, pair: Comparison) -> Iterator[Dot]:
    before, after = story.pass_1(pair.before), story.pass_1(pair.after)
    if before:
        yield Dot("before reinforcement", before, BASE)
    for control in story.controls_of(run):
        if control.pass_rate:
            yield Dot(story.control_name(control), control.pass_rate, CONTROL)
    if after:
        yield Dot("after reinforcement", after, TRAINED, strong=True)


def _k_series(name: str, evaluation: EvalView, ink: int) -> Series:
    curve = sorted(evaluation.pass_at_k.items())
    band = [(float(k), e.low, e.high) for k, e in curve if e.low is not None and e.high is not None]
    return Series(name, [(float(k), e.value) for k, e in curve], ink, band=band, dots=True)


def _training_figures(stage: StageView) -> Iterator[Figure]:
    """The curves of a stage, most telling first; a metric nobody logged has no figure."""
    if stage.kind == "grpo":
        names = scenarios_of(stage)
        several = _of_scenarios(names) if names else []
        yield from (f for curve in (REWARD, PASS_1, *several, FORM) for f in _lines(stage, curve))
        yield from (_over_optimised(stage, number, one) for number, one in enumerate(proxies_of(stage)) if one.rule)
        yield from list(_stacked(stage, PARTS_OF_LENGTH)) or _lines(stage, LENGTH)
        yield from (f for curve in (ENTROPY, KL, AHEAD) for f in _lines(stage, curve))
    elif stage.kind == "distill":
        curves = (PASS_1, TEACHER, LOSS, LENGTH, ENTROPY, AHEAD)
        yield from (f for curve in curves for f in _lines(stage, curve))
    else:
        yield from (f for curve in (LOSS, AHEAD) for f in _lines(stage, curve))
    layers = {name: load for name, load in stage.expert_load.items() if load[0][1]}
    if layers:
        yield _load_strip(stage, layers)
        yield _violation(stage, layers)


def _lines(stage: StageView, curve: _Curve) -> Iterator[Figure]:
    found = [(name, stage.curve(metric), 1 + n % INKS) for n, (metric, name) in enumerate(curve.lines.items())]
    if lines := [_series(name, points, ink) for name, points, ink in found if points]:
        key = f"{stage.folder.name}-{next(iter(curve.lines))}"
        svg = charts.line_chart(key, f"{curve.title}, stage {stage.name}", lines, _axes(stage, curve))
        yield Figure(curve.title, svg, curve.meaning)


def _stacked(stage: StageView, curve: _Curve) -> Iterator[Figure]:
    """One stacked chart of the parts that were logged, if any step has them all."""
    found = [(name, stage.curve(metric), ink) for ink, (metric, name) in enumerate(curve.lines.items(), 1)]
    parts = [Series(name, points, ink) for name, points, ink in found if points]
    if parts and set.intersection(*({x for x, _ in part.points} for part in parts)):
        key = f"{stage.folder.name}-{next(iter(curve.lines))}"
        svg = charts.stacked_chart(key, f"{curve.title}, stage {stage.name}", parts, _axes(stage, curve))
        yield Figure(curve.title, svg, curve.meaning)


def _over_optimised(stage: StageView, number: int, proxy: Proxy) -> Figure:
    """The proxy and the rule it stands for, over the same steps, in one unit."""
    title, y = f"Proxy and rule: {proxy.scenario}", "change, in standard deviations of the first step"
    lines = [_series("reward model", proxy.rated, 2), _series("rule", proxy.rule, 1)]
    axes = Axes(_step_axis(stage), y, (0, None), marks=stage.restarts())
    svg = charts.line_chart(f"{stage.folder.name}-proxy-{number}", f"{title}, stage {stage.name}", lines, axes)
    meaning = (
        "What the reward model says of the answers, which is paid, and what the rule it learned from would say, which "
        "is not. Where the lines part, the policy pleases the model and no longer the rule."
    )
    return Figure(title, svg, meaning)


def _load_strip(stage: StageView, layers: Mapping[str, Load]) -> Figure:
    key = f"{stage.folder.name}-load"
    svg = charts.load_strip(key, "Expert load over steps", layers, _step_axis(stage))
    is_cut = len(layers) > charts.MAX_STRIPS
    note = f"{charts.MAX_STRIPS} of {len(layers)} layers, evenly picked." if is_cut else ""
    meaning = "Which experts the tokens went to. Grey: a fair share. A strong tint: one has too much or nothing."
    return Figure("Expert load", svg, meaning, note)


def _violation(stage: StageView, layers: Mapping[str, Load]) -> Figure:
    """MaxVio of auxiliary-loss-free balancing (Wang et al. 2024): the largest load over the mean, less 1."""
    by_step: dict[int, list[float]] = {}
    for load in layers.values():
        for step, values in load:
            by_step.setdefault(step, []).append(max(charts.fair_shares(values), default=1.0) - 1)
    worst = [(float(step), max(values)) for step, values in sorted(by_step.items())]
    mean = [(float(step), sum(values) / len(values)) for step, values in sorted(by_step.items())]
    lines = [_series("worst layer", worst, 2), _series("mean", mean, 1)]
    y = "busiest expert, fair shares above one"
    axes = Axes(_step_axis(stage), y, (0, None), marks=stage.restarts())
    svg = charts.line_chart(f"{stage.folder.name}-violation", "Load violation over steps", lines, axes)
    meaning = "How much more than a fair share the busiest expert of a layer gets: 0 is balance, 1 is double."
    return Figure("Load violation", svg, meaning)


def _series(name: str, curve: Points, ink: int) -> Series:
    """A long curve is drawn twice: faint as it is, bold as its moving mean. A sparse one shows its points."""
    window = charts.smoothing_window(len(curve))
    if window == 1:
        return Series(name, curve, ink, dots=True)
    return Series(name, charts.thin(charts.smooth(curve, window)), ink, faint=charts.thin(curve))


def _drawn(stage: StageView) -> str:
    """What was done to the lines between file and page."""
    steps, window = len(stage.steps), charts.smoothing_window(len(stage.steps))
    said = []
    if window > 1:
        said.append(f"Bold lines are the mean of {window} steps around each point, faint ones the steps themselves.")
    if steps > charts.MAX_POINTS:
        said.append(f"Lines are thinned to at most {charts.MAX_POINTS} points, each the mean of its neighbours.")
    return " ".join(said)


def _axes(stage: StageView, curve: _Curve) -> Axes:
    return Axes(_step_axis(stage), curve.y, curve.y_range, percent=curve.percent, marks=stage.restarts())


def _step_axis(stage: StageView) -> str:
    return "RL step" if stage.kind == "grpo" else "training step"
