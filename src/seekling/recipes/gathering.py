"""The stages that gather examples to learn from: sample or ask a teacher, judge, sieve, choose, and write chats.

What a cold start and rejection sampling do is one thing (DeepSeek-R1, sections 2.3.1 and 2.3.3); they differ in how
much they want and in what joins it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from seekling.curate.listing import read_list
from seekling.errors import UserError
from seekling.evals.evaluate import Judged, examples
from seekling.evals.judging import Judge
from seekling.recipes import chats
from seekling.recipes.chats import DATA
from seekling.recipes.config import Chats, Gathered, General
from seekling.recipes.curating import distinct, inputs_of
from seekling.recipes.evaluate import PROBLEMS_PER_CALL
from seekling.recipes.journal import score_line, score_of
from seekling.recipes.policy import Policy, generation_cost, sample_groups
from seekling.recipes.sft import find
from seekling.recipes.sieves import Example, Sieve, sieved
from seekling.recipes.stage import Clock, Interrupted, Stage
from seekling.recipes.teaching import Teaching, spoken
from seekling.records import Group, Problem, Stop
from seekling.runlog.files import Lines, write_json
from seekling.runlog.run import Journal
from seekling.tasks.corpus import documents
from seekling.tasks.protocol import problems
from seekling.tasks.registry import build_task

SHOWN = 2
"""Examples that a report shows."""

Voice = Callable[[int, Sequence[Problem]], list[Group]]
"""From the place of the first problem and the problems to what was said to each."""


@dataclass
class Harvest:
    """What was gathered so far: ``wanted`` examples, or 0 for all there are."""

    data: Lines
    wanted: int
    sieve: Sieve[Example] = field(default_factory=lambda: Sieve([]))
    shown: list[Judged] = field(default_factory=list)
    asked: int = 0
    came: int = 0
    found: int = 0

    @property
    def is_full(self) -> bool:
        """Whether there are as many as wanted."""
        return 0 < self.wanted <= self.found

    def take(self, judged: Sequence[Judged], config: Gathered) -> None:
        """Sieve what was said, choose of each problem, and write what is chosen."""
        self.asked += len(judged)
        for one in judged:
            pairs = zip(one.group.rollouts, one.scores, strict=True)
            self.sieve.left = [Example(one.group.problem, rollout, score) for rollout, score in pairs]
            self.came += len(self.sieve.left)
            sieved(self.sieve, config.sieves)
            for example in chosen(self.sieve.left, config):
                if not self.is_full:
                    self._write(example)

    def _write(self, example: Example) -> None:
        self.data.append(row_of(example))
        self.found += 1
        if len(self.shown) < SHOWN:
            self.shown.append(Judged(Group(example.problem, (example.rollout,)), (example.score,)))


def gather(stage: Stage, config: Gathered) -> dict[str, float]:
    """Ask training problems until there are as many examples as wanted; writes data.jsonl and gathered.json.

    Returns the counts. Raises UserError when the sieves left nothing.
    """
    (stage.folder.folder / DATA).unlink(missing_ok=True)  # of a session that did not end: it is written anew
    judge = Judge(config.task, config.rubric)
    data, journal = Lines(stage.folder.folder / DATA), Journal(stage.folder.folder)
    with ExitStack() as closing:
        for opened in (judge, data, journal):
            closing.callback(opened.close)
        num_merged = _merge(stage, config.merged, data)  # first: what is wrong with a file is told before it costs
        harvest, voice = Harvest(data, config.examples), _voice(stage, config, judge.task, closing)
        for index, asked in enumerate(_pieces(asked_of(stage, config, judge.task))):
            judged = recalled(journal, index, asked)
            if judged is None:
                if stage.stop_requested():
                    raise Interrupted
                judged = judge.judged(voice(harvest.asked, asked))
                _remember(journal, index, judged)
            harvest.take(judged, config)
            stage.tell(stage.name, harvest.asked - 1, config.most_problems, {"found": float(harvest.found)})
            if harvest.is_full:
                break
    return _written(stage, config, harvest, num_merged)


def asked_of(stage: Stage, config: Gathered, task: Any) -> Iterator[Problem]:
    """Distinct training problems: of the curated list that is read, else drawn from the stage's seed."""
    _, listed = inputs_of(stage)
    drawing = (one.problem for one in read_list(listed)) if listed else problems(task, "train", stage.seed)
    return distinct(iter(drawing), config.most_problems)


def _pieces(asked: Iterator[Problem]) -> Iterator[list[Problem]]:
    while piece := list(islice(asked, PROBLEMS_PER_CALL)):
        yield piece


def _voice(stage: Stage, config: Gathered, task: Any, closing: ExitStack) -> Voice:
    """Who answers: the model that is read, or the teacher."""
    model, _ = inputs_of(stage)
    if model is None:
        teaching = Teaching(stage, config, task)
        closing.callback(teaching.close)
        return teaching.groups
    policy = Policy.load(model, stage.device, stage.lanes)

    def sampled(start: int, asked: Sequence[Problem]) -> list[Group]:
        clock = Clock()
        groups = sample_groups(policy, asked, config.samples, config.sampling, stage.seed)
        stage.charge(start, "generate", *generation_cost(policy, groups), clock.lap())
        return groups

    return sampled


# --- what was said, kept ----------------------------------------------------------------------------------------------


def _remember(journal: Journal, index: int, judged: Sequence[Judged]) -> None:
    """Journal a piece; one in which nobody said a word is asked again by the next session."""
    said = [
        [
            {"text": rollout.text, "tokens": len(rollout.tokens), "stop": rollout.stop.value} | score_line(score)
            for rollout, score in zip(one.group.rollouts, one.scores, strict=True)
        ]
        for one in judged
    ]
    if any(line["text"] for row in said for line in row):
        journal.write(index, {"problems": [one.group.problem.id for one in judged], "said": said})


def recalled(journal: Journal, index: int, asked: Sequence[Problem]) -> list[Judged] | None:
    """A journaled piece, or None. Raises UserError when it speaks of other problems than this run asks."""
    line = journal.recall(index)
    if line is None:
        return None
    if line.get("problems") != [problem.id for problem in asked]:
        raise UserError(
            f"step {index} in {journal.file} speaks of other problems than this run asks",
            next_step="The task's code has changed since; delete the stage's folder to start it anew.",
        )
    return [_judged(problem, row) for problem, row in zip(asked, line["said"], strict=True)]


def _judged(problem: Problem, row: Sequence[Mapping[str, Any]]) -> Judged:
    rollouts = [spoken(told["text"], told["tokens"], Stop(told["stop"])) for told in row]
    return Judged(Group(problem, tuple(rollouts)), tuple(score_of(dict(told)) for told in row))


# --- what is chosen ---------------------------------------------------------------------------------------------------


def chosen(left: Sequence[Example], config: Gathered) -> list[Example]:
    """The best or the shortest of one problem's rollouts, ``keep`` of them at most, no text twice.

    Equally good ones go by length, equally long ones by reward, and then the first said comes first.
    """

    def order(example: Example) -> tuple[float, ...]:
        reward = -(example.score.reward or 0.0)
        size = (len(example.rollout.tokens), len(example.rollout.text))
        return (reward, *size) if config.choose == "best" else (*size, reward)

    by_text: dict[str, Example] = {}
    for example in sorted(left, key=order):
        by_text.setdefault(example.rollout.text, example)
    return list(by_text.values())[: config.keep]


def row_of(example: Example) -> dict[str, Any]:
    """An example as a chat, and beside it what it is of."""
    problem, rollout = example.problem, example.rollout
    said = [{"role": "user", "content": problem.prompt}, {"role": "assistant", "content": rollout.text}]
    return {
        "messages": said, "problem": problem.id, "task": problem.task, "reward": example.score.reward,
        "tokens": len(rollout.tokens),
    }  # fmt: skip


# --- what joins it ----------------------------------------------------------------------------------------------------


def _merge(stage: Stage, merged: Chats, data: Lines) -> int:
    """Write the data from elsewhere. Returns how many chats. Raises UserError for a row that is none."""
    num_rows = 0
    for row in _rows(stage, merged):
        data.append(row)
        num_rows += 1
    if isinstance(merged, General) and num_rows < merged.count:
        stage.warn(f"{merged.data} holds {num_rows} chats, and {merged.count} were asked for")
    return num_rows


def _rows(stage: Stage, merged: Chats) -> Iterator[dict[str, Any]]:
    most = merged.count or None if isinstance(merged, General) else None
    if merged.data:
        yield from islice((_copied(row) for row in chats.read(find(stage, merged))), most)
    elif isinstance(merged, General) and merged.task:
        task, text = build_task(merged.task), merged.text.model_copy(update={"facts": 0.0})
        for document in islice(documents(task, text, stage.seed), most):
            if document.problem:
                said = {"role": "assistant", "content": document.text}
                asked = {"role": "user", "content": document.problem.prompt}
                yield {"messages": [asked, said], "problem": document.problem.id, "task": document.problem.task}


def _copied(row: chats.Row) -> dict[str, Any]:
    """A chat as it was read; what an assistant says in its prompt stays there, where it is not learned."""
    given, said = row.messages[: row.given], row.messages[row.given :]
    is_given = any(message["role"] == "assistant" for message in given)
    told = {"prompt": given, "completion": said} if is_given else {"messages": row.messages}
    return told | ({"tools": row.tools} if row.tools else {}) | {"where": row.where}


# --- what is left -----------------------------------------------------------------------------------------------------


def _written(stage: Stage, config: Gathered, harvest: Harvest, num_merged: int) -> dict[str, float]:
    steps = list(harvest.sieve.steps.values())
    if not harvest.found:
        raise _nothing(stage, harvest)
    if harvest.found < config.examples:
        stage.warn(
            f"{harvest.found} of {config.examples} examples were found in {harvest.asked} problems; more problems "
            "(most_problems), more samples, looser sieves or a stronger model give more"
        )
    counts = {"asked": harvest.asked, "came": harvest.came, "found": harvest.found, "merged": num_merged}
    about = {"task": harvest.shown[0].group.problem.task, "wanted": config.examples, **counts}
    told = {"steps": [step.line() for step in steps], "examples": examples(harvest.shown, SHOWN, 1)}
    write_json(stage.folder.folder / "gathered.json", about | told)
    share = {"found_share": harvest.found / config.examples} if config.examples else {}
    return {name: float(count) for name, count in counts.items()} | share | {s.name: float(len(s.gone)) for s in steps}


def _nothing(stage: Stage, harvest: Harvest) -> UserError:
    took = [f"{step.name} took {len(step.gone)}" for step in harvest.sieve.steps.values() if step.gone]
    worst = max(harvest.sieve.steps.values(), key=lambda step: len(step.gone), default=None)
    case = f"; the first that {worst.name} took: {worst.gone[0][1]}" if worst and worst.gone else ""
    return UserError(
        f"nothing is left of {harvest.came} rollouts of {harvest.asked} problems: {', '.join(took) or 'none came'}",
        where=f'stage "{stage.name}"{case}',
        next_step="Loosen that sieve, ask more problems (most_problems), or take easier ones or a stronger model.",
    )
