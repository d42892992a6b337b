"""Sieves: what stays, what goes and why. Of problems before training, and of rollouts that may become examples.

A sieve of rollouts is a pure function ``(problem, rollout, score, settings)`` to the reason why it goes, "" for none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from seekling.recipes.config import Sieves
from seekling.records import Problem, Rollout, Score, Stop, Verdict
from seekling.rewards.criteria import Repetition, prose, repeated_share
from seekling.rewards.rubric import answer_of
from seekling.text.reasoning import split
from seekling.verify.languages import SCRIPT_OF, is_in, words_by_script

SHOWN = 12
"""Cases left out that a report shows of each sieve."""


class About(Protocol):
    """Whatever speaks of a problem."""

    @property
    def problem(self) -> Problem:
        """The problem."""
        ...


T = TypeVar("T", bound=About)
Gone = list[tuple[Problem, str]]


@dataclass
class Step:
    """One sieve: how many it was shown, and which it took, each with the reason."""

    name: str
    before: int = 0
    gone: Gone = field(default_factory=list)

    def line(self) -> dict[str, Any]:
        """What a report is told of it."""
        shown = [{"id": p.id, "prompt": p.prompt, "why": why} for p, why in self.gone[:SHOWN]]
        return {"name": self.name, "before": self.before, "removed": len(self.gone), "examples": shown}


@dataclass
class Sieve(Generic[T]):
    """What is left, and what each step took away; steps of one name are one."""

    left: list[T]
    steps: dict[str, Step] = field(default_factory=dict)

    def keep(self, name: str, faults: Sequence[str]) -> None:
        """Leave out those with a fault. ``faults`` stand beside ``left``; "" for none."""
        pairs = list(zip(self.left, faults, strict=True))
        step = self.steps.setdefault(name, Step(name))
        step.before += len(pairs)
        step.gone += [(one.problem, fault) for one, fault in pairs if fault]
        self.left = [one for one, fault in pairs if not fault]


@dataclass(frozen=True, slots=True)
class Example:
    """A rollout that may become one to learn from."""

    problem: Problem
    rollout: Rollout
    score: Score


# --- of rollouts ------------------------------------------------------------------------------------------------------

Fault = Callable[[Problem, Rollout, Score, Sieves], str]


def silence(problem: Problem, rollout: Rollout, score: Score, sieves: Sieves) -> str:
    """It says nothing: nobody answered, or the first token was the last."""
    return "" if rollout.text.strip() else "it says nothing"


def wrong(problem: Problem, rollout: Rollout, score: Score, sieves: Sieves) -> str:
    """Its answer does not pass the task's check, or the check failed by itself."""
    if not sieves.correct or (score.verdict is Verdict.PASS and score.reward is not None):
        return ""
    if score.verdict is Verdict.INFRA_ERROR:
        return "its check failed by itself"
    answer = answer_of(rollout.text)
    return f"judged {score.verdict.value}" + (f": {answer[:80]}" if answer else "")


def form(problem: Problem, rollout: Rollout, score: Score, sieves: Sieves) -> str:
    """It is not one thought and one answer, each in its tags."""
    return "" if split(rollout.text).well_formed or not sieves.well_formed else "it is not in the asked form"


def length(problem: Problem, rollout: Rollout, score: Score, sieves: Sieves) -> str:
    """It was cut off, or has more tokens than an example may."""
    count = len(rollout.tokens)
    if rollout.stop is Stop.LENGTH:
        return f"cut off after {count} tokens"
    return f"{count} tokens, at most {sieves.most_tokens}" if 0 < sieves.most_tokens < count else ""


def language(problem: Problem, rollout: Rollout, score: Score, sieves: Sieves) -> str:
    """Its thinking mixes languages, or is in another than its problem's.

    Mixing is seen by script; of languages that share one, only a problem that tells its language can tell. Thinking
    without words (sums, formulas) is in none and stays.
    """
    words = prose(split(rollout.text).thinking)
    counts = words_by_script(words)
    if not sieves.language or not counts:
        return ""
    told = str(problem.info.get("language", ""))
    script = SCRIPT_OF.get(told) or max(counts, key=lambda one: counts[one])
    share = counts[script] / sum(counts.values())
    if share < sieves.language:
        return f"{100 * share:.0f} % of its words are {told or script}, at least {100 * sieves.language:.0f} %"
    return f"its thinking is not in {told}" if told in SCRIPT_OF and not is_in(words, told) else ""


def paragraphs(problem: Problem, rollout: Rollout, score: Score, sieves: Sieves) -> str:
    """A paragraph of its thinking is too long to read."""
    longest = max(map(len, re.split(r"\n\s*\n", split(rollout.text).thinking)))
    return f"a paragraph of {longest} characters, at most {sieves.paragraph}" if 0 < sieves.paragraph < longest else ""


def code_blocks(problem: Problem, rollout: Rollout, score: Score, sieves: Sieves) -> str:
    """Its thinking holds a block of code."""
    return "" if sieves.code_blocks or "```" not in split(rollout.text).thinking else "a block of code in its thinking"


def repetition(problem: Problem, rollout: Rollout, score: Score, sieves: Sieves) -> str:
    """It says too much of what it said before."""
    share = repeated_share(rollout.text, Repetition().n)
    if share <= sieves.repetition:
        return ""
    return f"{100 * share:.0f} % was there before, at most {100 * sieves.repetition:.0f} %"


SIEVES: dict[str, Fault] = {
    "silence": silence,
    "wrong answers": wrong,
    "form": form,
    "length": length,
    "language": language,
    "long paragraphs": paragraphs,
    "code blocks": code_blocks,
    "repetition": repetition,
}
"""The sieves of rollouts, in the order in which they work: each sees what those before it left."""


def sieved(sieve: Sieve[Example], settings: Sieves) -> None:
    """Put what is left through every sieve of rollouts."""
    for name, fault in SIEVES.items():
        sieve.keep(name, [fault(one.problem, one.rollout, one.score, settings) for one in sieve.left])
