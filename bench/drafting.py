"""What guessing ahead gains, for a model that learned to predict two tokens at a time. Minutes on two cores, idle:

    .venv/bin/python -m bench.drafting [--rounds 5]

A tiny model with a prediction layer learns arithmetic from nothing. Then it answers held-out problems without guesses
and with them, by its prediction layer and by look-up in the text, greedily and at temperature 1, few rows and many. It
says the same tokens every time. ``accepted`` is the share of guesses that were said, ``possible`` what no way of
drawing could surpass (1 less the total variation between what model and layer would draw), ``cost`` a guess's time over
a plain step's. ``gain`` is tokens/s over those without guesses, ``of_theory`` its share of what as many tokens a step
would gain if a step cost a plain one and a guess. Writes bench/results/drafting.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.mtp_alive import BASE, TASK
from bench.zero_tiny import RUNS, head, seekling
from seekling.engine import drafting
from seekling.engine.config import Sampling
from seekling.engine.engine import Completion, Request
from seekling.engine.sampler import distribution, seed_of
from seekling.learn.batch import Text, pack
from seekling.plan.machine import machine
from seekling.recipes.policy import Policy
from seekling.runlog.files import write_json
from seekling.runlog.run import Run
from seekling.tasks.protocol import problems
from seekling.tasks.registry import build_task

RESULT = Path("bench/results/drafting.json")
NEW = 48
MANIFEST = f"""format = 1
name = "drafting"

{BASE}"""


def main() -> None:
    """Train, then measure every way."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    file = RUNS / "drafting.toml"
    RUNS.mkdir(parents=True, exist_ok=True)
    file.write_text(MANIFEST)
    seekling("run", str(file), "--name", "drafting")
    policy = Policy.load(Run(RUNS / "drafting").stage("base").model, torch.device("cpu"))
    torch.set_num_threads(machine().cores)
    rows = [
        row
        for batch in (1, 4, 16)
        for temperature in (0.0, 1.0)
        for row in measured(policy, batch, temperature, rounds)
    ]
    about = head() | {"command": "python -m bench.drafting", "threads": machine().cores, "dtype": "float32"}
    write_json(RESULT, about | {"new": NEW, "rounds": rounds, "rows": rows})


def measured(policy: Policy, batch: int, temperature: float, rounds: int) -> list[dict[str, Any]]:
    """Each way of guessing beside none, the ways taking turns."""
    plain = Sampling(temperature=temperature, max_tokens=NEW)
    ways = {"none": plain}
    for source, drafts in (("model", 1), ("model", 2), ("text", 3)):
        ways[f"{source} {drafts}"] = plain.model_copy(update={"drafts": drafts, "draft_from": source})
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    guessing: dict[str, list[float]] = {name: [] for name in ways}
    said: dict[str, list[Completion]] = {}
    requests = asked(policy, batch)
    for turn in range(rounds + 1):
        for name, sampling in ways.items():
            with timed() as spent:
                began = time.perf_counter()
                said[name] = policy.engine.generate(requests, sampling)
                took = time.perf_counter() - began
            if turn:
                seconds[name].append(took)
                guessing[name].append(sum(spent))
    count = sum(len(one.tokens) for one in said["none"])
    step = median(seconds["none"]) / max(len(one.tokens) for one in said["none"])
    rows = []
    for name in ways:
        if name == "none":
            continue
        drafted, accepted = (sum(getattr(one, what) for one in said[name]) for what in ("drafted", "accepted"))
        steps = max(len(one.tokens) - one.accepted for one in said[name])
        share, cost = accepted / max(drafted, 1), median(guessing[name]) / steps / step
        gain, theory = median(seconds["none"]) / median(seconds[name]), (count / (count - accepted)) / (1 + cost)
        rows.append(
            {"rows": batch, "temperature": temperature, "guessed": name, "tokens": count, "drafted": drafted,
             "accepted": round(share, 3), "cost": round(cost, 3), "gain": round(gain, 3),
             "of_theory": round(gain / theory, 3), "same_tokens": agree(said["none"], said[name]),
             "tokens_per_s": round(count / median(seconds[name]), 1),
             "plain_tokens_per_s": round(count / median(seconds["none"]), 1)}
        )  # fmt: skip
        if name == "model 1":
            rows[-1]["possible"] = round(possible(policy, requests, said["none"], plain), 3)
        print(json.dumps(rows[-1]), flush=True)
    return rows


def asked(policy: Policy, batch: int) -> list[Request]:
    """Held-out problems, to be answered to the end."""
    chosen = list(islice(problems(build_task(TASK), "held_out", "drafting", distinct=True), batch))
    return [Request(prompt, seed_of("drafting", n)) for n, prompt in enumerate(policy.prompts(chosen))]


def agree(ours: Sequence[Completion], theirs: Sequence[Completion]) -> bool:
    """Whether both said the same."""
    return [one.tokens for one in ours] == [one.tokens for one in theirs]


@contextmanager
def timed() -> Iterator[list[float]]:
    """While it stands, every guess's seconds are noted."""
    kinds, spent = (drafting.Ahead, drafting.LookUp), list[float]()
    before = [kind.draft for kind in kinds]

    def noted(draft: Any) -> Any:
        def wrapped(*given: Any) -> Any:
            began = time.perf_counter()
            found = draft(*given)
            spent.append(time.perf_counter() - began)
            return found

        return wrapped

    for kind in kinds:
        kind.draft = noted(kind.draft)  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        for kind, draft in zip(kinds, before, strict=True):
            kind.draft = draft  # type: ignore[method-assign]


def possible(policy: Policy, requests: Sequence[Request], said: Sequence[Completion], sampling: Sampling) -> float:
    """The mean over what was said of 1 - TV(p, q): how often the best coupled draws would agree."""
    shares: list[float] = []
    for request, one in zip(requests, said, strict=True):
        tokens = [*request.prompt, *one.tokens]
        rows = pack([Text(tokens, torch.ones(len(tokens)).numpy())], len(tokens)).rows
        with torch.no_grad():
            states = policy.model(rows).states_BTD
            ahead, _ = policy.model.predict_next(rows, states)
            p, q = (distribution(policy.model.logits(x)[0, :], sampling).exp() for x in (states, ahead))
        start = len(request.prompt) - 1  # the state here chose the first token said; the one before foresaw it
        overlap = torch.minimum(p[start + 1 : -1], q[start:-2]).sum(-1)
        shares += overlap.tolist()
    return sum(shares) / max(len(shares), 1)


if __name__ == "__main__":
    main()
