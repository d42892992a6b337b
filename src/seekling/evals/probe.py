"""Is there something for reinforcement to find? A policy tried on a task before any training, and a verdict in words.

Reinforcement makes more of what a policy sometimes does. R1's own trials (arXiv 2501.12948) and TinyZero's saw small
bases learn nothing: all siblings failed alike, and equal rewards move nothing. So what counts is whether groups divide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from seekling.curate.passing import spread_share
from seekling.evals.evaluate import Judged
from seekling.evals.measure import Interval, bootstrap, pass_at_k
from seekling.records import Stop, Verdict
from seekling.rewards.rubric import answer_of

GROUP = 16
"""Siblings of a group, as R1 and the grpo stage have them."""

NOTHING_FOUND = 0.05
"""Least pass@k over all samples: below it 19 problems of 20 never once show what would be rewarded."""
THIN_SPREAD = 1 / 16
"""Least share of groups with spread: below it a step of 16 problems holds less than one that teaches anything."""
TOO_EASY = 0.9
"""pass@1 above which less than a tenth of the reward is left to win."""
UNREADABLE = 0.95
"""Share of given answers that no check could read: check and policy do not speak of the same form."""
SILENT = 0.95
"""Share of rollouts without any answer above which the form, not the task, is what the policy lacks."""


class Outcome(StrEnum):
    """What a probe comes to; the command's exit code is its place: 0, then 5 to 8."""

    READY = "reinforcement has something to find"
    EASY = "too easy"
    THIN = "something to find, seldom"
    DISTIL = "distil or pretrain first"
    BROKEN = "the task is broken"


EXIT_CODES = {Outcome.READY: 0, Outcome.EASY: 5, Outcome.THIN: 6, Outcome.DISTIL: 7, Outcome.BROKEN: 8}


@dataclass(frozen=True, slots=True)
class Probe:
    """What was seen, over ``problems`` with ``samples`` rollouts each; shares are of rollouts unless said.

    ``spread`` is of groups of ``GROUP``; ``unreadable`` of the answers that were given; ``bad_keys`` of answer keys
    that their own check refuses.
    """

    problems: int
    samples: int
    pass_1: Interval
    pass_k: Interval
    spread: Interval
    format_rate: Interval
    mean_tokens: Interval
    answered: float
    unreadable: float
    cut: float
    bad_keys: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A probe's outcome, why, and what to do."""

    outcome: Outcome
    why: str
    advice: str


def probe(judged: Sequence[Judged], keys: Sequence[Verdict], reads: str) -> Probe:
    """Figures of a probe. ``keys`` are the verdicts on the problems' own keys; ``reads`` as the task says."""
    samples = len(judged[0].scores)
    given = [
        score.verdict
        for one in judged
        for rollout, score in zip(one.group.rollouts, one.scores, strict=True)
        if answer_of(rollout.text, reads) is not None
    ]
    stops = [rollout.stop is Stop.LENGTH for one in judged for rollout in one.group.rollouts]
    return Probe(
        problems=len(judged),
        samples=samples,
        pass_1=bootstrap([one.num_passed / samples for one in judged]),
        pass_k=bootstrap([pass_at_k(samples, one.num_passed, samples) for one in judged]),
        spread=bootstrap([spread_share(one.num_passed, samples, GROUP) for one in judged]),
        format_rate=bootstrap([_share(s.parts.get("format", 0.0) for s in one.scores) for one in judged]),
        mean_tokens=bootstrap([_share(len(r.tokens) for r in one.group.rollouts) for one in judged]),
        answered=len(given) / len(stops),
        unreadable=_share(verdict is Verdict.UNPARSED for verdict in given),
        cut=_share(stops),
        bad_keys=_share(verdict is not Verdict.PASS for verdict in keys),
    )


def diagnose(seen: Probe) -> Diagnosis:
    """The plain verdict. A broken task is said first: nothing else means anything then."""
    if seen.bad_keys:
        why = f"{seen.bad_keys:.0%} of its own answer keys do not pass its own check"
        return Diagnosis(Outcome.BROKEN, why, "Mend the check or the keys; `seekling tasks audit` shows which.")
    if seen.answered and seen.unreadable >= UNREADABLE and seen.answered > 1 - SILENT:
        why = f"its check cannot read {seen.unreadable:.0%} of the answers that were given"
        return Diagnosis(
            Outcome.BROKEN, why, f"Let the prompt say which form is read, or the check read what is said. {CUT}"
        )
    if seen.pass_k.value < NOTHING_FOUND:
        return _nothing(seen)
    if seen.pass_1.value > TOO_EASY:
        why = f"pass@1 is {seen.pass_1.value:.0%}: little is left to win"
        return Diagnosis(Outcome.EASY, why, "Take larger sizes, or a curate stage with passing.high below 1.")
    if seen.spread.value < THIN_SPREAD:
        why = f"only {seen.spread.value:.1%} of groups of {GROUP} divide into right and wrong, and only these teach"
        return Diagnosis(
            Outcome.THIN, why, "Pick the problems that do (a curate stage with this model), or distil first."
        )
    why = f"{seen.spread.value:.0%} of groups of {GROUP} divide into right and wrong; pass@{seen.samples} is "
    return Diagnosis(Outcome.READY, f"{why}{seen.pass_k.value:.0%}", "Train: a grpo stage on this task.")


CUT = "Answers that are cut off cannot be read either: raise max_tokens where many are."


def _nothing(seen: Probe) -> Diagnosis:
    """The policy does not solve it, not once: it lacks the form, the room, or the skill."""
    why = f"pass@{seen.samples} is {seen.pass_k.value:.1%}: nothing to make more of"
    if seen.answered <= 1 - SILENT and seen.cut > 0.5:
        return Diagnosis(Outcome.DISTIL, f"{why}; {seen.cut:.0%} of rollouts were cut off before an answer", CUT)
    if seen.answered <= 1 - SILENT:
        why = f"{why}; {1 - seen.answered:.0%} of rollouts give no answer in the form that is read"
        return Diagnosis(Outcome.DISTIL, why, "An sft stage on some hundred worked examples teaches the form first.")
    return Diagnosis(Outcome.DISTIL, why, "Fine-tune on worked traces, take a stronger base, or an easier task.")


def _share(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
