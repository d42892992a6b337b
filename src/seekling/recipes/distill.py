"""Distillation: a student learns from a teacher of the chain.

The teacher's texts by next-token loss (``sequence``, R1's way), its distributions at them, from a store (``logits``),
or what it says of the student's own texts, step by step (``on_policy``):

problems -> rollouts of either -> what the teacher tells of them -> loss -> update -> eval
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seekling.engine.config import Sampling
from seekling.engine.foreign import engine_for
from seekling.engine.sampler import seed_of
from seekling.evals.judging import Judge
from seekling.learn.ahead import LAYER, look_ahead, num_ahead, of_layer, weight_of
from seekling.learn.batch import Batch, Text, narrowest, pack, text_of
from seekling.learn.config import Objective
from seekling.learn.distillation import preferred
from seekling.learn.lanes import ONE
from seekling.learn.logps import token_logps
from seekling.learn.optim import Optimizers
from seekling.learn.reading import read
from seekling.learn.taught import States, compared, numbered, states_of
from seekling.learn.update import Loss, balanced, logps_said, move_biases, rollout_loss, step
from seekling.model.count import flops_per_token
from seekling.model.decoder import Decoder, Hidden
from seekling.recipes.config import Distill
from seekling.recipes.curating import askers
from seekling.recipes.journal import recall, remember
from seekling.recipes.lessons import valued
from seekling.recipes.policy import Policy, generation_cost, held_in, prepare, sample_groups, spoken_in
from seekling.recipes.sayings import FOLDER, hear, read_cost, stored, texts_of
from seekling.recipes.scenes import held_out_pass, of_rollouts
from seekling.recipes.stage import Clock, Stage
from seekling.recipes.text import expert_shares
from seekling.recipes.together import scores_of
from seekling.recipes.told import Store
from seekling.records import Group, Problem
from seekling.selftests.outcome import SelfTest, require
from seekling.selftests.policies import (
    AGREEMENT_LIMIT,
    INVARIANCE_LIMIT,
    ROUGH_AGREEMENT_LIMIT,
    ROUGH_INVARIANCE_LIMIT,
    of_delivery,
    of_vocabulary,
    of_width,
    of_wording,
)
from seekling.selftests.tasks import of_key, of_split
from seekling.tasks.protocol import problems
from seekling.text.tokenizer import Tokenizer

BY_TOKEN = Objective(clip="none", weighting="per_token")
"""The plain policy gradient, every token by its own advantage."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A step's texts and their loss. ``work``: tokens and FLOPs of making them; ``figures``: what is told of them."""

    batch: Batch
    loss: Callable[[Decoder, Batch], Loss]
    figures: Mapping[str, float] = field(default_factory=dict)
    work: tuple[int, float] = (0, 0.0)


@dataclass(frozen=True, slots=True)
class Course:
    """From a step to its lesson; a ``probe`` whose loss, asked of the teacher itself, must be ``expected``.

    ``figures``: what is told of all lessons together.
    """

    lesson: Callable[[int], Lesson]
    probe: Lesson
    expected: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)


def distill(stage: Stage, config: Distill) -> dict[str, float]:
    """Teach the student of the stage's input, or one of random weights. Returns the mean figures of the last steps."""
    judge = Judge(config.task, config.rubric)
    teacher, student = both(stage, config)
    prepare(student.model, config, stage.seed)
    student.engine.load(student.model)
    with stage.self_testing():
        tests = before_hearing(stage, judge, teacher, student)
    course = COURSES[config.method](stage, config, judge, teacher, student)
    with stage.self_testing():
        tests += require(*before_learning(stage, teacher, student, course))
        stage.folder.write(selftests=tests)
    del teacher  # whom only a student that is asked again and again needs
    optimizers = Optimizers(student.model, config.optim, config.steps, stage.lanes, apart=(LAYER,))
    start = stage.restore(config, student.model, optimizers)
    student.engine.load(student.model)
    for index in stage.steps(start, config, optimizers):
        clock = Clock()
        lesson = course.lesson(index)
        listening = clock.lap()
        figures, tokens, flops = learn(stage, config, student, optimizers, lesson, index)
        student.engine.load(student.model)
        seconds = clock.lap()
        stage.charge(index, "train", tokens, flops, seconds)
        if config.held_out_every and (index + 1) % config.held_out_every == 0:
            figures["held_out_pass"], watched = held_out_pass(student, judge, config)
            student.engine.rest()
            stage.charge(index, "eval", *watched, clock.lap())
        work = lesson.work[0] + tokens, lesson.work[1] + flops, listening + seconds
        stage.log(index, config.steps, *work, figures)
        stage.save(index + 1, config, student.model, optimizers)
    stage.export(student.model, student.tokenizer)
    return stage.last_figures(10) | dict(course.figures)


def both(stage: Stage, config: Distill) -> tuple[Policy, Policy]:
    """Teacher and student. One from random weights is as wide as the teacher, whose tokenizer it has."""
    folder = stage.inputs[0 if config.model else 1].model
    kind: torch.dtype = getattr(torch, config.teacher_dtype)
    teacher = Policy.load(folder, stage.device, stage.lanes, kind, spoken=stage.dtype)
    teacher.model.requires_grad_(False)
    if config.model is None:
        spoken = spoken_in(config, stage.dtype)
        student = Policy.load(stage.inputs[0].model, stage.device, stage.lanes, held_in(config), spoken=spoken)
        return teacher, student
    shape = config.model.model_copy(update={"vocab_size": teacher.model.config.vocab_size})
    model = Decoder(shape).init_weights(seed_of(stage.seed, "weights")).to(stage.device)
    tokenizer = Tokenizer.load(folder).padded(shape.vocab_size)
    return teacher, Policy(model, tokenizer, engine_for(model, tokenizer.stops, stage.dtype), stage.lanes)


def learn(
    stage: Stage, config: Distill, student: Policy, optimizers: Optimizers, lesson: Lesson, index: int
) -> tuple[dict[str, Any], int, float]:
    """One update. Returns its figures, tokens and FLOPs."""
    model, batch = student.model, lesson.batch
    totals = step(
        model, optimizers, batch, lesson.loss,
        step_index=index, passes=config.packing.passes, lanes=stage.lanes, dtype=stage.dtype,
    )  # fmt: skip
    if config.model and config.bias_speed and not totals["skipped"]:
        move_biases(model, totals, config.bias_speed)
    context, mtp = float(batch.rows.positions_BT.float().mean()), bool(weight_of(model, config.mtp_weight))
    flops = batch.num_tokens * flops_per_token(model.config, context, training=True, mtp=mtp)
    figures = {**lesson.figures, **of_update(totals), "expert_load": expert_shares(totals)}
    return figures, batch.num_tokens, flops


def of_update(totals: Mapping[str, float]) -> dict[str, float]:
    """A step's figures by the names the report knows: per token where they speak of tokens."""
    said = max(1.0, totals["said"])
    per_token = {name: totals[name] / said for name in ("entropy", "teacher_kl", "mismatch_kl") if name in totals}
    whole = {name: totals[name] for name in ("loss", "balance_loss", "grad_norm", "skipped") if name in totals}
    return whole | per_token | of_layer(totals)


# --- the loss ---------------------------------------------------------------------------------------------------------

Main = Callable[[Decoder, Tensor, Batch], tuple[Tensor, dict[str, Tensor]]]
"""From a student, its states [B, T, D] and a slice to what the method makes of them: a scalar, and sums to report."""


def next_token(model: Decoder, states_BTD: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """-sum_t weight_t log q(what the teacher said)."""
    said_BT = batch.weight_BT > 0
    logp_BT, entropy_BT = token_logps(model, Hidden(states_BTD), batch.targets_BT, wanted_BT=said_BT)
    return -(logp_BT * batch.weight_BT).sum(), {"entropy": entropy_BT.sum(), "said": said_BT.sum()}


def taught_pass(model: Decoder, batch: Batch, *, main: Main, config: Distill, num_rows: int) -> Loss:
    """The method's loss of a slice; beside it the prediction layer's, apart, and a random student's balance."""
    hidden = model(batch.rows)
    value, told = main(model, hidden.states_BTD, batch)
    sums = {"loss": value.detach(), **told}
    if mtp_weight := weight_of(model, config.mtp_weight):
        ahead = look_ahead(model, batch, hidden.states_BTD, apart=True)
        value, sums = value + mtp_weight * ahead.loss, sums | ahead.sums
    if hidden.routings:
        balance, loads = balanced(hidden.routings, batch, num_rows)
        value = value + config.balance_weight * balance if config.model and config.balance_weight else value
        sums |= loads
    return Loss(value, sums)


def words_pass(model: Decoder, batch: Batch, *, config: Distill, num_ahead: int) -> Loss:
    """The policy gradient of a slice, each token by its own advantage."""
    return rollout_loss(
        model, batch, objective=BY_TOKEN, temperature=config.sampling.temperature,
        mtp_weight=weight_of(model, config.mtp_weight), num_ahead=num_ahead,
    )  # fmt: skip


def lesson_of(config: Distill, batch: Batch, main: Main, **told: Any) -> Lesson:
    """A lesson of whatever ``main`` makes of a batch."""
    return Lesson(batch, partial(taught_pass, main=main, config=config, num_rows=len(batch.targets_BT)), **told)


def batch_of(stage: Stage, config: Distill, texts: Sequence[Text]) -> Batch:
    """A step's texts in rows."""
    return pack(texts, narrowest(texts, config.packing.row_tokens)).to(stage.device)


# --- three ways of listening ------------------------------------------------------------------------------------------


def from_texts(stage: Stage, config: Distill, judge: Judge, teacher: Policy, student: Policy) -> Course:
    """The teacher's texts, by next-token loss. Of the teacher itself that is what its sampler said of them."""
    sayings = hear(stage, config, judge, teacher, room_of(config, student), None)

    def lesson(index: int) -> Lesson:
        texts = texts_of(sayings, sayings.places(f"{stage.seed}/{index}", config.tokens_per_step))
        return lesson_of(config, batch_of(stage, config, texts), next_token, figures=of_texts(texts))

    said = weighed(probed(teacher, judge))
    expected = -sum(float((text.values["behaviour"] * text.weight).sum()) for text in said)
    return Course(
        lesson, lesson_of(config, batch_of(stage, config, said), next_token), expected, kept_of(sayings.counts)
    )


def from_store(stage: Stage, config: Distill, judge: Judge, teacher: Policy, student: Policy) -> Course:
    """The teacher's distributions at its texts, from the store."""
    store = Store((stage.home or stage.folder.folder) / FOLDER, config.top_k, width_of(teacher, student), stage.warn)
    sayings = hear(stage, config, judge, teacher, room_of(config, student), store)
    size = store.bytes_per_token
    stage.warn(f"the teacher's store: {sayings.counts['tokens']:,} tokens of {size} bytes, {store.top_k} ids each")

    def lesson(index: int) -> Lesson:
        places = sayings.places(f"{stage.seed}/{index}", config.tokens_per_step)
        texts, told = texts_of(sayings, places), stored(sayings, store, places, stage.device)
        main = partial(compared, taught=told, temperature=config.temperature)
        return lesson_of(config, batch_of(stage, config, texts), main, figures=of_texts(texts))

    figures = kept_of(sayings.counts) | {"store_bytes_per_token": float(size)}
    return Course(lesson, lesson(0), figures=figures)


def from_itself(stage: Stage, config: Distill, judge: Judge, teacher: Policy, student: Policy) -> Course:
    """What the teacher says of texts that the student has just said."""
    (ask,) = askers(stage, config, [judge.task], [stage.seed], [config.problems_per_step])
    journal = stage.journal()
    stage.closing.callback(journal.close)
    tell = {"exact": told_wholly, "sampled": told_of_words}[config.by]

    def lesson(index: int) -> Lesson:
        drawn = recall(journal, index, lambda _: ask(index))
        groups, scores = drawn or ([], [])
        num_own = round(config.own_share * config.problems_per_step)
        if drawn is None:
            groups = say(stage, config, student, ask(index)[:num_own], "generate", index)
            groups += say(stage, config, teacher, ask(index)[num_own:], "teacher", index)
            scores = scores_of(stage.world, judge, groups)
            remember(journal, index, groups, scores)
        spoken = [
            generation_cost(who, part) for who, part in ((student, groups[:num_own]), (teacher, groups[num_own:]))
        ]
        clock = Clock()
        made = tell(stage, config, teacher, student, texts_said(groups))
        cost = read_cost(teacher, made.batch)
        stage.charge(index, "teacher_scoring", *cost, clock.lap())
        own = of_rollouts(judge.task, groups[:num_own], scores[:num_own]) if num_own else {}
        work = [sum(parts) for parts in zip(*spoken, cost, strict=True)]
        return replace(made, figures={**own, **made.figures}, work=(int(work[0]), work[1]))

    return Course(lesson, tell(stage, config, teacher, teacher, probed(teacher, judge), alone=True))


COURSES: Mapping[str, Callable[[Stage, Distill, Judge, Policy, Policy], Course]] = {
    "sequence": from_texts, "logits": from_store, "on_policy": from_itself,
}  # fmt: skip


def say(stage: Stage, config: Distill, who: Policy, asked: Sequence[Problem], kind: str, index: int) -> list[Group]:
    """Rollouts of a step by one of the two, charged to its account."""
    if not asked:
        return []
    clock = Clock()
    groups = sample_groups(who, asked, config.rollouts_per_problem, config.sampling, f"{stage.seed}/{index}/{kind}")
    stage.charge(index, kind, *generation_cost(who, groups), clock.lap())
    who.engine.rest()
    return groups


def texts_said(groups: Sequence[Group]) -> list[Text]:
    """All rollouts as texts; routes are the speaker's, who may be another model."""
    return [text_of(rollout, replay=False) for group in groups for rollout in group.rollouts]


def weighed(texts: Sequence[Text]) -> list[Text]:
    """Texts of which every token said weighs alike, fixed before a step is sliced."""
    total = np.float32(sum(float((text.weight > 0).sum()) for text in texts))
    return [replace(text, weight=(text.weight > 0).astype(np.float32) / total) for text in texts]


def told_wholly(
    stage: Stage, config: Distill, teacher: Policy, student: Policy, texts: Sequence[Text], *, alone: bool = False
) -> Lesson:
    """The divergence of whole distributions; with ``alone`` every process has all of the teacher's."""
    batch = numbered(batch_of(stage, config, [replace(text, values={}) for text in weighed(texts)]))
    lanes = ONE if alone else stage.lanes
    states_MD, first = states_of(teacher.model, batch, config.packing.passes, lanes, stage.dtype)
    width = width_of(teacher, student)
    told = States(states_MD, teacher.model.head_VD, width, config.temperature, config.beta, first)
    return lesson_of(config, batch, partial(compared, taught=told, temperature=config.temperature))


def told_of_words(
    stage: Stage, config: Distill, teacher: Policy, student: Policy, texts: Sequence[Text], *, alone: bool = False
) -> Lesson:
    """The policy gradient with log p - log q of each token that was said as its advantage."""
    ask = partial(logps_said, temperature=config.sampling.temperature, replay=False)
    how = {"row_tokens": narrowest(texts, config.packing.row_tokens), "passes": config.packing.passes}
    theirs = read(teacher.model, texts, ask, lanes=ONE if alone else stage.lanes, dtype=stage.dtype, **how)
    advantage = [
        preferred(torch.from_numpy(told), torch.from_numpy(text.values["behaviour"])).numpy() * (text.weight > 0)
        for told, text in zip(theirs, texts, strict=True)
    ]
    batch = batch_of(stage, config, valued(weighed(texts), advantage=advantage))
    loss = partial(words_pass, config=config, num_ahead=max(1, num_ahead(batch)))
    said = sum(float((text.weight > 0).sum()) for text in texts)
    return Lesson(batch, loss, {"teacher_kl": -sum(float(a.sum()) for a in advantage) / said})


def width_of(teacher: Policy, student: Policy) -> int:
    """How many ids both models have: some are padded with more than others."""
    return min(teacher.model.config.vocab_size, student.model.config.vocab_size)


def room_of(config: Distill, student: Policy) -> int:
    """How long a text may be."""
    return min(config.packing.row_tokens, student.model.config.max_position_embeddings)


def of_texts(texts: Sequence[Text]) -> dict[str, float]:
    """What is told of a step's texts."""
    return {"response_length": float(np.mean([(text.weight > 0).sum() for text in texts]))}


def kept_of(counts: Mapping[str, int]) -> dict[str, float]:
    """What became of the teacher's rollouts: the share that passed, and how many texts and tokens are learned from."""
    return {
        "teacher_pass_rate": counts["passed"] / counts["rollouts"],
        "teacher_texts": float(counts["kept"]),
        "teacher_tokens": float(counts["tokens"]),
    }


# --- self-tests -------------------------------------------------------------------------------------------------------


def probed(teacher: Policy, judge: Judge) -> list[Text]:
    """A few short texts of the teacher's, sampled plainly, with what its sampler said of them."""
    asked = list(islice(problems(judge.task, "train", "self-test"), 8))
    limit = teacher.model.config.max_position_embeddings
    room = min(24, limit - max(len(prompt) for prompt in teacher.prompts(asked)))
    groups = sample_groups(teacher, asked, 1, Sampling(max_tokens=max(1, room)), "self-test")
    teacher.engine.rest()
    return texts_said(groups)


def before_hearing(stage: Stage, judge: Judge, teacher: Policy, student: Policy) -> list[dict[str, Any]]:
    """What must hold before the teacher is asked anything: the two speak one language, and the task can be judged."""
    asked = list(islice(problems(judge.task, "train", "self-test"), 8))
    ours, theirs = ((who.prompts(asked), who.tokenizer) for who in (student, teacher))
    words, their_words = (one.whole.get_vocab(with_added_tokens=True) for one in (ours[1], theirs[1]))
    return require(
        *(of_key(judge.task, judge.checker) if stage.world.leads else ()),
        of_split(judge.task),
        of_width(words, student.model.config.vocab_size),
        of_vocabulary(words, their_words),
        of_wording(ours[0], theirs[0], ours[1].stops, theirs[1].stops),
        of_delivery(student.engine, student.model, ours[0]),
    )


def before_learning(stage: Stage, teacher: Policy, student: Policy, course: Course) -> list[SelfTest]:
    """What must hold before the first step: the teacher has nothing to learn from itself, and slicing changes nothing.

    A store of another model, texts shifted by a token, or a temperature forgotten on one side would show here.
    """
    agreement, invariance = (
        (AGREEMENT_LIMIT, INVARIANCE_LIMIT)
        if stage.dtype == torch.float32
        else (ROUGH_AGREEMENT_LIMIT, ROUGH_INVARIANCE_LIMIT)
    )
    own = abs(asked_once(stage, teacher.model, course.probe) - course.expected)
    whole, sliced = (asked_once(stage, student.model, course.probe, count) for count in (1, 1_000_000))
    gap = abs(whole - sliced) / max(1e-3, abs(whole))
    advice = "What the teacher told is not told of the tokens that are learned; report this with both models' configs."
    return [
        SelfTest("a teacher learns nothing from itself", own, agreement, advice),
        SelfTest("loss ignores slicing", gap, invariance, "The loss must be a plain weighted sum."),
    ]


def asked_once(stage: Stage, model: Decoder, lesson: Lesson, passes: int = 1) -> float:
    """The loss of a lesson, without a step, in so many passes."""
    kind, is_cast = stage.device.type, stage.dtype != torch.float32
    with torch.no_grad(), torch.autocast(kind, stage.dtype, enabled=is_cast, cache_enabled=False):
        return sum(float(lesson.loss(model, part).sums["loss"]) for part in lesson.batch.passes(passes))
