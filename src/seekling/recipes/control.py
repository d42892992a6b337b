"""The control stage: what cheaper things reach on the same held-out problems at the trained model's mean tokens."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from seekling.errors import UserError
from seekling.evals.controls import (
    base_pass,
    blind_pass,
    cut_tokens,
    hold_thought_open,
    limit_for,
    passes_within,
)
from seekling.evals.evaluate import interval
from seekling.evals.judging import Judge
from seekling.recipes.config import Control
from seekling.recipes.evaluate import held_out, sample_judged
from seekling.recipes.policy import Policy
from seekling.recipes.stage import Stage
from seekling.runlog.files import write_json
from seekling.tasks.protocol import Guessable, Traceable


def control(stage: Stage, config: Control) -> dict[str, float]:
    """from = [before, after] or [before, after, shuffled]; writes control.json. Returns each control's pass rate."""
    judge = Judge(config.task, config.rubric)
    task = judge.task
    if not (isinstance(task, Traceable) and isinstance(task, Guessable)):
        raise UserError(f'task "{task.name}" can make no controls', next_step="Give it attempts, hits and guess.")
    asked = held_out(task, config.problems)
    of = len(asked) * (1 + len(stage.inputs))
    base = Policy.load(stage.inputs[0].model, stage.device, stage.lanes)
    trained = Policy.load(stage.inputs[1].model, stage.device, stage.lanes)
    draw = partial(sample_judged, stage, asked=asked, samples=config.samples, config=config, judge=judge, of=of)
    after = draw(trained)
    tokens = cut_tokens(after, config.sampling.max_tokens)
    before = draw(base, done=len(asked))
    held = draw(base, done=2 * len(asked), ban=_held_open(task, base))
    limit = limit_for(held, tokens)
    per_guess = len(base.tokenizer.encode(task.guess(asked[0], Random(0)))) + 1
    tries = max(1, int(tokens / per_guess))
    k = tokens / cut_tokens(before, config.sampling.max_tokens)
    found = {
        "no_stop": _row(
            passes_within(held, limit), cut_tokens(held, limit),
            f"the same base, its end of thought banned until an attempt is right, cut at {limit} tokens",
        ),
        "blind": _row(blind_pass(task, asked, tries), tries * per_guess, f"no model: {tries} random answers"),
        "base_pass_k": _row(base_pass(before, k), tokens, f"the same base, the best of {k:.2f} samples"),
    }  # fmt: skip
    found["base_pass_k"]["k"] = k
    if len(stage.inputs) == 3:
        policy = Policy.load(stage.inputs[2].model, stage.device, stage.lanes)
        dealt = draw(policy, done=3 * len(asked))
        found["shuffled"] = _row(
            passes_within(dealt, config.sampling.max_tokens), cut_tokens(dealt, config.sampling.max_tokens),
            "reinforcement with each step's rewards dealt out at random",
        )  # fmt: skip
    trained_row = _row(passes_within(after, config.sampling.max_tokens), tokens, "the trained model")
    blind_at_8 = interval(blind_pass(task, asked, 8))
    write_json(
        stage.folder.folder / "control.json",
        {"controls": found, "trained": trained_row, "blind_at_8": blind_at_8},
    )
    best = max(row["pass_1"]["value"] for row in found.values())
    gain = trained_row["pass_1"]["value"] - best
    rates = {name: row["pass_1"]["value"] for name, row in found.items()}
    return rates | {"best_control": best, "gain_over_best_control": gain, "blind_at_8": blind_at_8["value"]}


def _row(passes: list[float], tokens: float, what: str) -> dict[str, Any]:
    return {"pass_1": interval(passes), "tokens": tokens, "what": what}


def _held_open(task: Any, policy: Policy) -> Any:
    tokenizer, close = policy.tokenizer, policy.tokenizer.think_close
    if close is None:
        raise UserError(
            "the control that keeps a model from stopping bans one token, </think>, and this tokenizer has none such",
            next_step="Leave the control stage out, or begin from a model whose tokenizer holds </think> as a token.",
        )

    def thinking(said: Any) -> str:
        return tokenizer.decode(said, skip_special=True).removeprefix("<think>")

    return lambda problem: hold_thought_open(task, problem, close, thinking)
