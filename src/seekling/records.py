"""The nouns of the sentence: frozen, torch-free, serialisable.

problems -> rollouts -> rewards -> advantages -> loss -> update -> eval -> report
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Verdict(StrEnum):
    """How a check ended. Only ``INFRA_ERROR`` leaves the reward open (``None``); all others earn what they earn."""

    PASS = "pass"
    WRONG = "wrong"
    UNPARSED = "unparsed"
    TIMEOUT = "timeout"
    OOM = "oom"
    OUTPUT_LIMIT = "output_limit"
    POLICY = "policy"
    INFRA_ERROR = "infra_error"


class Stop(StrEnum):
    """Why a rollout ended: it said its stop token, or it met its token limit."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is asked. ``answer`` is the key and never reaches the policy.

    ``id`` is the digest of what makes it the same problem (Countdown: sorted numbers and target), so two
    problems are the same exactly when their ids are equal, however they are worded.
    """

    id: str
    task: str
    prompt: str
    answer: str
    size: int
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kept:
    """Which tokens a truncated sampler (top-p, top-k, min-p) chose among: ``ids[ends[t-1]:ends[t]]`` for token t.

    An empty range stands for the whole vocabulary. ``ids`` int32 [M], ``ends`` int64 [T].
    """

    ids: NDArray[np.int32]
    ends: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rollout:
    """What was said to one problem, and with what probability.

    ``prompt`` [P] and ``tokens`` [T] are ids; ``tokens`` ends with the stop token when there is one. ``logps`` [T]
    are the sampler's own (behaviour) log-probabilities in nats, float32. ``routes`` [P+T-1, L, A] are the experts
    that every input position was sent to in each expert layer, so that a learner can replay them; the position
    that chose the stop token is included. None for a model without experts. ``kept``: what each token was drawn from,
    None where that was the whole vocabulary.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logps: NDArray[np.float32] = field(compare=False)
    text: str
    stop: Stop
    seed: int
    routes: NDArray[np.int16] | None = field(default=None, compare=False)
    kept: Kept | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Group:
    """Rollouts of one problem: siblings share a problem, so they share a baseline."""

    problem: Problem
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """One scalar and its breakdown by criterion. ``reward`` is None only when the check itself failed."""

    reward: float | None
    verdict: Verdict
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One executed step of a stage: all that report, bench and README ever read about it.

    ``session`` counts the processes that worked on the run, so a step repeated after a crash shows twice.
    """

    step: int
    session: int
    seconds: float
    tokens: int
    flops: float
    metrics: Mapping[str, float] = field(default_factory=dict)
