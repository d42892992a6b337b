"""What happened, in plain words, said only as far as the files say it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seekling.report import words
from seekling.report.read import read_run
from seekling.report.view import (
    Comparison,
    Control,
    Estimate,
    EvalView,
    Proxy,
    RunView,
    StageView,
    compare,
    proxies_of,
    starts_from_nothing,
    total,
    trained_sizes,
    trained_task,
)

CONTROL_NAMES = {
    "no_stop": "base kept from stopping",
    "blind": "blind guessing",
    "shuffled": "shuffled rewards",
    "base_pass_k": "base, several tries",
}

EQUAL_TOKENS = 0.15
"""Two mean lengths within this share of each other count as equal."""


MOVED = 0.2
"""Standard deviations by which a proxy, or a rule, must move before the report speaks of it."""


@dataclass(frozen=True, slots=True)
class Story:
    """The sentence that opens the report, and the notes below it. ``warnings`` temper or end the story."""

    headline: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def summary(run: Path) -> list[tuple[str, str]]:
    """Label and value, a handful, for the terminal when a run ends. Raises UserError on a broken file."""
    return summarise(read_run(run))


def summarise(run: RunView) -> list[tuple[str, str]]:
    """``summary`` of a run that has been read."""
    return [*_summary_of_evals(run, compare(run)), *_summary_of_run(run)]


def tell(run: RunView) -> Story:
    """The story of ``run``: one sentence, then what must be known to judge it."""
    pair = compare(run)
    control = best_control(run)
    headline = _headline(run, pair, control)
    return Story(headline, tuple(_notes(run, pair)), tuple(_warnings(run, pair, control)))


def pass_1(evaluation: EvalView | None) -> Estimate | None:
    """pass@1 of an eval, if it was made."""
    return evaluation.pass_at_k.get(1) if evaluation else None


def controls_of(run: RunView) -> list[Control]:
    """Every control of the run."""
    return [control for stage in run.stages for control in stage.controls]


def best_control(run: RunView) -> Control | None:
    """The control that solved most."""
    rated = [c for c in controls_of(run) if c.pass_rate]
    return max(rated, key=lambda c: c.pass_rate.value if c.pass_rate else 0.0, default=None)


def control_name(control: Control) -> str:
    """What a person calls the control: ``base, 1.15 tries`` (mean tokens rarely come out whole)."""
    if control.name == "base_pass_k" and control.tries:
        return f"base, {control.tries:.3g} tries"
    return CONTROL_NAMES.get(control.name, control.name.replace("_", " "))


def unseen_sizes(run: RunView, evaluation: EvalView) -> list[str]:
    """Sizes of the eval that no training stage names; none when the settings name no sizes at all."""
    known = trained_sizes(run)
    return [size for size in evaluation.by_size if known and size not in known]


def overlap(a: Estimate, b: Estimate) -> bool:
    """Whether two intervals share a value. Without intervals nothing can be said, so False."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high


def _headline(run: RunView, pair: Comparison, control: Control | None) -> str:
    before, after = pass_1(pair.before), pass_1(pair.after)
    if before is None and after is None:
        return _unmeasured(run)
    parts = [_before(run, pair.before, before), _after(before, after), _control(control, pair.after)]
    sentence = "; ".join(part for part in parts if part)
    return sentence[0].upper() + sentence[1:] + "."


def _unmeasured(run: RunView) -> str:
    for stage in reversed(run.of_kind("grpo")):
        if reward := [value for _, value in stage.curve("reward")]:
            first, last = (sum(part) / len(part) for part in (reward[:5], reward[-5:]))
            steps = f"{len(reward)} steps" if len(reward) > 1 else "one step"
            moved = f"the mean reward went from {first:.2f} to {last:.2f}"
            return f"Over {steps} of reinforcement {moved}; no held-out eval is there yet."
    if run.stages:
        return "Nothing has been measured on held-out problems yet."
    return "This run has no stages yet."


def _before(run: RunView, evaluation: EvalView | None, estimate: Estimate | None) -> str:
    model = "a model that started from random weights" if starts_from_nothing(run) else "the starting model"
    if evaluation is None or estimate is None:
        return f"what {model} solved before reinforcement was not measured"
    stage = run.stage(evaluation.model)
    after = {"pretrain": " after pretraining", "sft": " after supervised training"}.get(stage.kind if stage else "", "")
    task = f"held-out {evaluation.task} problems" if evaluation.task else "held-out problems"
    return f"{model} solved {words.percent(estimate.value)} of {task}{after}"


def _after(before: Estimate | None, after: Estimate | None) -> str:
    if after is None:
        return "what reinforcement made of it is not measured yet"
    value = " ".join([words.percent(after.value), words.interval(after)]).strip()
    if before is None:
        return f"after reinforcement it solved {value}"
    verb = (
        "raised it to"
        if after.value > before.value
        else "lowered it to"
        if after.value < before.value
        else "left it at"
    )
    return f"reinforcement {verb} {value}"


def _control(control: Control | None, after: EvalView | None) -> str:
    if control is None or control.pass_rate is None:
        return "no control was run" if after else ""
    rate = words.percent(control.pass_rate.value)
    return f"the best control{_at_tokens(control, after)}, {control_name(control)}, reached {rate}"


def _at_tokens(control: Control, after: EvalView | None) -> str:
    """The claim of equal tokens is made only where the files bear it out."""
    own, ours = control.tokens, after.figures.get("mean_tokens") if after else None
    if own is None or ours is None:
        return ""
    if abs(own.value - ours.value) <= EQUAL_TOKENS * ours.value:
        return " at equal mean tokens"
    return f" ({own.value:.0f} tokens per problem against {ours.value:.0f})"


def _notes(run: RunView, pair: Comparison) -> Iterator[str]:
    before, after = pair.before, pair.after
    if before and after:
        for size in unseen_sizes(run, after):
            if size in before.by_size:
                was, now = (words.percent(e.by_size[size].value) for e in (before, after))
                yield f"On problems of size {size}, which no training ever saw, it went from {was} to {now}."


def _warnings(run: RunView, pair: Comparison, control: Control | None) -> Iterator[str]:
    for stage in run.stages:
        yield from _state(stage)
    yield from (said for stage in run.of_kind("grpo") for proxy in proxies_of(stage) if (said := _fooled(stage, proxy)))
    before, after = pass_1(pair.before), pass_1(pair.after)
    if before and after and overlap(before, after):
        yield "The intervals before and after overlap: this run alone does not show that the score changed."
    if after and control and control.pass_rate and _not_beaten(after, control.pass_rate):
        name = control_name(control)
        yield f"The best control ({name}) was not clearly beaten: the gain may have a cheaper cause."
    task = trained_task(run)
    if pair.after and task and pair.after.task and task != pair.after.task:
        yield f"Reinforcement trained on {task}, but the eval asks {pair.after.task}."


def _fooled(stage: StageView, proxy: Proxy) -> str:
    """That a reward model was pleased while the rule behind it was not; "" where that cannot be said."""
    rated, rule = (_end(points) for points in (proxy.rated, proxy.rule))
    if not proxy.rule or rated < MOVED or rule > -MOVED:
        return ""
    return (
        f'Stage "{stage.name}" pleased its reward model on {proxy.scenario} (up {rated:.1f} standard deviations) while '
        f"the rule behind it fell ({-rule:.1f}): preferences should be asked later, or for fewer steps."
    )


def _end(points: Sequence[tuple[float, float]]) -> float:
    """The mean of the last fifth."""
    last = [y for _, y in points[-max(1, len(points) // 5) :]]
    return sum(last) / len(last) if last else 0.0


def _not_beaten(after: Estimate, control: Estimate) -> bool:
    return control.value >= after.value or overlap(control, after)


def _state(stage: StageView) -> Iterator[str]:
    if stage.state == "running":
        yield f'Stage "{stage.name}" was not finished when this was written.'
    for gate in stage.gates:
        if gate.met is False:
            reached = "" if gate.reached is None else words.number(gate.reached)
            what = f"{gate.figure} reached {reached}, asked was {gate.bound}"
            yield f'Stage "{stage.name}" missed its gate: {what}.'


def _summary_of_evals(run: RunView, pair: Comparison) -> Iterator[tuple[str, str]]:
    before, after = pass_1(pair.before), pass_1(pair.after)
    if before or after:
        yield "held-out pass@1", _arrow(before, after)
    if (control := best_control(run)) and control.pass_rate:
        yield "best control", f"{words.percent(control.pass_rate.value)} ({control_name(control)})"
    if pair.before and pair.after:
        for size in unseen_sizes(run, pair.after):
            yield (
                f"size {size}, never trained",
                _arrow(pair.before.by_size.get(size), pair.after.by_size.get(size)),
            )
        lengths = [e.figures.get("mean_tokens") for e in (pair.before, pair.after)]
        if all(lengths):
            yield "tokens per rollout", " \u2192 ".join(f"{e.value:.1f}" for e in lengths if e)


def _arrow(before: Estimate | None, after: Estimate | None) -> str:
    values = [words.percent(e.value) if e else "not measured" for e in (before, after)]
    tail = f" {words.interval(after)}" if after else ""
    return " \u2192 ".join(values) + tail.rstrip()


def _summary_of_run(run: RunView) -> Iterator[tuple[str, str]]:
    for stage in run.stages:
        if told := stage.gathering:
            yield f"examples ({stage.name})", f"{told.found} of {told.came} rollouts of {told.asked} problems"
    if run.ledger:
        cost = total(run.ledger).spent
        yield (
            "cost",
            f"{words.count(cost.tokens)} tokens, {words.flops(cost.flops)}, {words.duration(cost.seconds)}",
        )
    if gates := [gate.met for stage in run.stages for gate in stage.gates]:
        yield "gates", f"{gates.count(True)} of {len(gates)} met"
    if tests := [test.passed for stage in run.stages for test in stage.selftests]:
        took = f" in {words.duration(run.selftest_seconds)}" if run.selftest_seconds else ""
        yield "self-tests", f"{sum(tests)} of {len(tests)} passed{took}"
