"""The curate stage: problems chosen before training, and every one that was left out with the reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from seekling.curate.curriculum import asker
from seekling.curate.listing import LIST, Picked, plain, read_list, write_list
from seekling.curate.near import copies
from seekling.curate.overlap import Index
from seekling.curate.passing import histogram
from seekling.errors import UserError
from seekling.evals.judging import Judge
from seekling.evals.suites import texts
from seekling.recipes.config import Curate, Distill, Grpo
from seekling.recipes.evaluate import PROBLEMS_PER_CALL, sample_judged
from seekling.recipes.policy import Policy
from seekling.recipes.sieves import Sieve
from seekling.recipes.stage import Interrupted, Stage
from seekling.records import Problem, Verdict
from seekling.runlog.files import write_atomic, write_json
from seekling.runlog.run import Journal
from seekling.tasks.protocol import problems

PATIENCE = 20
"""Draws per wanted problem after which a task counts as having no more distinct ones."""


def curate(stage: Stage, config: Curate) -> dict[str, float]:
    """Draw or read problems, and sieve them; writes problems.jsonl, removed.jsonl, curate.json. Returns the counts."""
    judge = Judge(config.task, config.rubric)
    model, listed = inputs_of(stage)
    sieve, rates = Sieve(read_list(listed) if listed else drawn(judge.task, config, stage)), dict[str, int]()
    _keep(sieve, "copies", _copied(sieve.left, config))
    if config.against:
        _keep(sieve, "evaluation sets", _met(sieve.left, config, stage))
    _keep(sieve, "answer keys", _bad_keys(sieve.left, judge))
    if model:
        sieve.left = measured(stage, config, judge, Policy.load(model, stage.device, stage.lanes), sieve.left)
        rates = histogram([one.pass_rate for one in sieve.left])
        _keep(sieve, "pass rates", [config.passing.fault(one.pass_rate) for one in sieve.left])
    judge.close()
    return _written(stage, config, sieve, rates)


def _keep(sieve: Sieve[Picked], name: str, faults: Sequence[str]) -> None:
    """Leave out those with a fault. Raises UserError where that is all of them."""
    sieve.keep(name, faults)
    if not sieve.left:
        commonest, count = Counter(faults).most_common(1)[0]
        raise UserError(
            f"no problem is left after {name}: {count} of {len(faults)} were left out as {commonest}",
            next_step="Widen passing, or take easier problems or a stronger model; `seekling probe` tells which.",
        )


def inputs_of(stage: Stage) -> tuple[Path | None, Path | None]:
    """The model and the list that a stage reads; None for what it does not."""
    models, lists = stage.reading("model"), stage.reading("list")
    return models[0].model if models else None, lists[0].folder / LIST if lists else None


Ask = Callable[[int], list[Problem]]
"""From a slot to its problems: a step has one, and ``refill`` more."""


def askers(
    stage: Stage, config: Grpo | Distill, tasks: Sequence[Any], seeds: Sequence[str], counts: Sequence[int]
) -> list[Ask]:
    """What each scenario of a stage asks, so many in a step: of the curated list where it was made for its task, else
    freshly drawn.


    Raises UserError for a list of another task than any, and for a curriculum without a list to order.
    """
    _, file = inputs_of(stage)
    listed = read_list(file) if file else []
    own = [[one for one in listed if one.problem.task == task.name] for task in tasks]
    if listed and not any(own):
        raise UserError(
            f'stage "{stage.name}" asks {", ".join(task.name for task in tasks)}, and its list is of problems of'
            f' "{listed[0].problem.task}"',
            next_step="Curate problems of a task that it asks.",
        )
    if config.curriculum.order != "shuffled" and not listed:
        raise UserError(
            f'stage "{stage.name}" orders problems by pass rate, and reads no curated list',
            next_step='Add a stage of kind "curate", and name it: from = ["base", "picked"].',
        )
    told = zip(own, counts, tasks, seeds, strict=True)
    return [_asker(found, config, count, task, seed) for found, count, task, seed in told]


def _asker(listed: Sequence[Picked], config: Grpo | Distill, count: int, task: Any, seed: str) -> Ask:
    if listed:
        return asker(listed, config.curriculum, seed=seed, per_step=count, group=config.rollouts_per_problem)
    return lambda slot: list(islice(problems(task, "train", f"{seed}/{slot}"), count))


def drawn(task: Any, config: Curate | Distill, stage: Stage) -> list[Picked]:
    """Training problems, as many as there are up to ``config.problems``, as their list will hold them.

    Of a task that is a list itself (``listed``), all, equal ones too, or a part drawn from the stage's seed; of any
    other, distinct draws.
    """
    if hasattr(task, "listed"):
        found = list(task.listed("train"))
        if len(found) > config.problems:
            found = Random(stage.seed).sample(found, config.problems)
    else:
        found = list(distinct(problems(task, "train", stage.seed), config.problems))
    if len(found) < config.problems:
        stage.warn(f'task "{task.name}" has {len(found)} training problems, and {config.problems} were asked for')
    return [Picked(plain(problem)) for problem in found]


def distinct(drawing: Iterator[Problem], count: int) -> Iterator[Problem]:
    """Problems not drawn before, until there are ``count`` or patience ends: a small task has no more."""
    seen: set[str] = set()
    for problem in islice(drawing, PATIENCE * count):
        if problem.id not in seen:
            seen.add(problem.id)
            yield problem
        if len(seen) == count:
            return


def measured(stage: Stage, config: Curate, judge: Judge, policy: Policy, listed: Sequence[Picked]) -> list[Picked]:
    """The problems with the share of rollouts that solve each. What is measured is journaled, and not sampled again."""
    journal, found = Journal(stage.folder.folder), list[Picked]()
    for index, start in enumerate(range(0, len(listed), PROBLEMS_PER_CALL)):
        asked = [one.problem for one in listed[start : start + PROBLEMS_PER_CALL]]
        rates = _recalled(journal, index, asked)
        if rates is None:
            if stage.stop_requested():
                raise Interrupted
            judged = sample_judged(stage, policy, asked, config.samples, config, judge, done=start, of=len(listed))
            rates = [_rate([score.verdict for score in one.scores]) for one in judged]
            journal.write(index, {"problems": [problem.id for problem in asked], "pass_rates": rates})
        found += [Picked(problem, rate) for problem, rate in zip(asked, rates, strict=True)]
    journal.close()
    return found


def _recalled(journal: Journal, index: int, asked: Sequence[Problem]) -> list[float | None] | None:
    line = journal.recall(index)
    if line is None:
        return None
    if line.get("problems") != [problem.id for problem in asked] or len(line.get("pass_rates", [])) != len(asked):
        raise UserError(
            f"step {index} in {journal.file} speaks of other problems than this run asks",
            next_step="The task's code has changed since; delete the stage's folder to start it anew.",
        )
    rates: list[float | None] = line["pass_rates"]
    return rates


def _rate(verdicts: Sequence[Verdict]) -> float | None:
    """The share that passed, of the checks that could be made; None where none could."""
    told = [verdict for verdict in verdicts if verdict is not Verdict.INFRA_ERROR]
    return sum(verdict is Verdict.PASS for verdict in told) / len(told) if told else None


def _copied(left: Sequence[Picked], config: Curate) -> list[str]:
    faults = [""] * len(left)
    for copy in copies([one.problem.prompt for one in left], config.near):
        kind = "copy" if copy.similarity == 1 else f"near copy ({copy.similarity:.2f})"
        faults[copy.place] = f"{kind} of {left[copy.of].problem.id}"
    return faults


def _met(left: Sequence[Picked], config: Curate, stage: Stage) -> list[str]:
    """Why a problem may not be trained on: which evaluation problem it meets, and in which words."""
    watch = {"tell": stage.warn, "stop_requested": stage.stop_requested}
    index = Index([text for name in config.against for text in texts(name, **watch)], config.overlap)
    found = [index.meets(one.problem.prompt) for one in left]
    return [f'meets {met.where}: "{met.words}"' if met else "" for met in found]


def _bad_keys(left: Sequence[Picked], judge: Judge) -> list[str]:
    """A key that fails its own check: wrong in the source, or its problem did not survive being written to a file."""
    checked = judge.checker.verdicts([(one.problem, one.problem.answer) for one in left])
    return ["" if one.verdict is Verdict.PASS else f"its key is judged {one.verdict.value}" for one in checked]


def _written(stage: Stage, config: Curate, sieve: Sieve[Picked], rates: Mapping[str, int]) -> dict[str, float]:
    folder, steps = stage.folder.folder, list(sieve.steps.values())
    num_drawn = steps[0].before
    write_list(folder / LIST, sieve.left)
    rows = [(step.name, problem, why) for step in steps for problem, why in step.gone]
    write_atomic(folder / "removed.jsonl", "".join(f"{_removed(*row)}\n" for row in rows))
    about = {"task": sieve.left[0].problem.task, "against": list(config.against), "samples": config.samples}
    told = {"drawn": num_drawn, "kept": len(sieve.left), "steps": [step.line() for step in steps], "pass_rates": rates}
    write_json(folder / "curate.json", about | told)
    counts = {step.name: float(len(step.gone)) for step in steps}
    kept_share = len(sieve.left) / num_drawn
    return {"drawn": float(num_drawn), "kept": float(len(sieve.left)), "kept_share": kept_share} | counts


def _removed(name: str, problem: Problem, why: str) -> str:
    row = {"step": name, "id": problem.id, "prompt": problem.prompt, "answer": problem.answer, "why": why}
    return json.dumps(row, ensure_ascii=False)
