"""What a teacher says once, and a student learns for many steps: its answers, and where told its distributions.

Answers are sampled and judged problem by problem, and journaled, so that a resumed stage asks nothing twice.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from seekling.curate.listing import read_list
from seekling.errors import UserError
from seekling.evals.judging import Judge
from seekling.learn.batch import Batch, Text, in_world, layout, pack, text_of
from seekling.learn.taught import TopK, told_by
from seekling.model.count import flops_per_token
from seekling.recipes.config import Distill
from seekling.recipes.curating import drawn, inputs_of
from seekling.recipes.evaluate import PROBLEMS_PER_CALL
from seekling.recipes.journal import Drawn, recall, remember
from seekling.recipes.policy import Policy, generation_cost, sample_groups
from seekling.recipes.sft import Shelf, permuted
from seekling.recipes.stage import Clock, Interrupted, Stage
from seekling.recipes.together import scores_of
from seekling.recipes.told import Store
from seekling.records import Group, Problem, Rollout, Score, Stop, Verdict
from seekling.rewards.criteria import language_share
from seekling.text.reasoning import split

FOLDER = "teacher"
"""Where the teacher's distributions lie in the stage's folder."""


@dataclass
class Sayings:
    """The teacher's texts that are learned from, and what became of the others.

    ``starts``: the piece of the store in which a text's tokens lie, and the first of them.
    """

    shelf: Shelf
    starts: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("rollouts", "passed", "kept", "tokens"), 0))

    def note(
        self, piece: int, texts: Sequence[Text], groups: Sequence[Group], scores: Sequence[Sequence[Score]]
    ) -> None:
        """Put the texts of a piece behind the others."""
        first = 0
        for text in texts:
            said = int((text.weight > 0).sum())
            self.shelf.add(text.tokens, (text.weight > 0).tolist())
            self.starts.extend((piece, first))
            self.lengths.append(said)
            first += said
        flat = [score for row in scores for score in row]
        more = (len(flat), sum(score.verdict is Verdict.PASS for score in flat), len(texts), first)
        self.counts = {name: old + new for (name, old), new in zip(self.counts.items(), more, strict=True)}

    def places(self, seed: str, tokens_per_step: int) -> list[int]:
        """Numbers of the texts of a step: shuffled, until they hold so many tokens."""
        rng, taken, count = Random(seed), list[int](), 0
        for place in chain.from_iterable(permuted(rng, len(self.shelf)) for _ in iter(int, 1)):
            taken.append(place)
            count += len(self.shelf[place].tokens)
            if count >= tokens_per_step:
                break
        return taken

    def stretch(self, place: int) -> tuple[int, int, int]:
        """Where the store has a text's tokens: (piece, first, end)."""
        piece, first = self.starts[2 * place], self.starts[2 * place + 1]
        return piece, first, first + self.lengths[place]


def hear(stage: Stage, config: Distill, judge: Judge, teacher: Policy, room: int, store: Store | None) -> Sayings:
    """Have the teacher answer, and where there is a store have it tell its distributions.

    ``room`` is how long a text may be. Raises UserError for longer ones, and when nothing is left to learn from.
    """
    sayings = Sayings(stage.closing.enter_context(Shelf(stage.folder.folder)))
    asked = problems_of(stage, config, judge)
    for piece, (groups, scores) in enumerate(answers(stage, config, judge, teacher, asked)):
        texts = [text_of(rollout, replay=False) for rollout in chosen(groups, scores, config)]
        refuse_long(stage, texts, room)
        if store is not None and texts:
            tell(stage, config, teacher, store, texts, piece)
        sayings.note(piece, texts, groups, scores)
    if not len(sayings.shelf):
        raise UserError(
            f'stage "{stage.name}" has nothing to learn: of the teacher\'s {sayings.counts["rollouts"]} rollouts'
            f" {sayings.counts['passed']} pass, and none of them is finished and in the language asked for",
            next_step='Ask more of it (problems, samples, sampling.max_tokens), or set learn_from = "all".',
        )
    stage.folder.write(teacher=sayings.counts)
    teacher.engine.rest()
    return sayings


def problems_of(stage: Stage, config: Distill, judge: Judge) -> list[Problem]:
    """The training problems that the teacher answers: the first of a curated list, or distinct ones drawn."""
    _, listed = inputs_of(stage)
    picked = read_list(listed)[: config.problems] if listed else drawn(judge.task, config, stage)
    return [one.problem for one in picked]


def answers(stage: Stage, config: Distill, judge: Judge, teacher: Policy, asked: Sequence[Problem]) -> Iterator[Drawn]:
    """The teacher's rollouts and their scores, a few problems at a time."""
    journal, clock, passed = stage.journal(), Clock(), list[bool]()
    for piece, start in enumerate(range(0, len(asked), PROBLEMS_PER_CALL)):
        some = asked[start : start + PROBLEMS_PER_CALL]
        known = recall(journal, piece, partial(_these, some))
        if known is None:
            if stage.world.told(stage.stop_requested()):
                raise Interrupted
            clock.lap()
            groups = sample_groups(teacher, some, config.samples, config.sampling, f"{stage.seed}/teacher")
            stage.charge(piece, "teacher", *generation_cost(teacher, groups), clock.lap())
            known = groups, scores_of(stage.world, judge, groups)
            remember(journal, piece, *known)
        passed += [score.verdict is Verdict.PASS for row in known[1] for score in row]
        stage.tell(stage.name, start + len(some) - 1, len(asked), {"teacher_pass_rate": float(np.mean(passed))})
        yield known
    journal.close()


def _these(asked: Sequence[Problem], _: object) -> Sequence[Problem]:
    return asked


def chosen(groups: Sequence[Group], scores: Sequence[Sequence[Score]], config: Distill) -> list[Rollout]:
    """The rollouts to learn from: finished, passed unless all are kept, and in one language where told."""
    pairs = [
        (r, s) for group, row in zip(groups, scores, strict=True) for r, s in zip(group.rollouts, row, strict=True)
    ]
    return [
        rollout
        for rollout, score in pairs
        if rollout.stop is Stop.STOP
        and (config.learn_from == "all" or score.verdict is Verdict.PASS)
        and is_in_language(rollout.text, config)
    ]


def is_in_language(text: str, config: Distill) -> bool:
    """Whether enough words of a text are in the language asked for; where none is, every text is."""
    if config.language == "any":
        return True
    told = split(text)
    return language_share(f"{told.thinking} {told.reply}", config.language) >= config.language_share


def refuse_long(stage: Stage, texts: Sequence[Text], room: int) -> None:
    """Raises UserError for a text that neither a row nor the student has room for."""
    longest = max((len(text.tokens) for text in texts), default=0)
    if longest > room:
        raise UserError(
            f'stage "{stage.name}": a text of the teacher has {longest} tokens, and there is room for {room}',
            next_step="Set packing.row_tokens to at least that (the student's context must hold it too), or lower"
            " sampling.max_tokens.",
        )


# --- distributions ----------------------------------------------------------------------------------------------------


def tell(stage: Stage, config: Distill, teacher: Policy, store: Store, texts: Sequence[Text], piece: int) -> None:
    """Have the store hold the teacher's distributions at ``texts``, unless it does."""
    count = sum(int((text.weight > 0).sum()) for text in texts)
    if not stage.world.told(store.holds(piece, count) if stage.world.leads else False):
        clock = Clock()
        rows, work = asked_about(stage, config, teacher, texts, store)
        stage.charge(piece, "teacher_scoring", *work, clock.lap())  # first, so that no piece goes unpaid
        if stage.world.leads:
            store.write(piece, rows)
    stage.world.wait()


def asked_about(
    stage: Stage, config: Distill, teacher: Policy, texts: Sequence[Text], store: Store
) -> tuple[NDArray[np.float32], tuple[int, float]]:
    """What the teacher tells of every token of ``texts`` [N, 2 K + 1], and the tokens and FLOPs that this took."""
    batch = pack(texts, config.packing.row_tokens).to(stage.device)
    of = partial(told_by, teacher.model, top_k=store.top_k, width=store.width, temperature=config.temperature)

    def told(part: Batch) -> torch.Tensor:
        is_cast = stage.dtype != torch.float32
        with torch.no_grad(), torch.autocast(stage.device.type, stage.dtype, enabled=is_cast, cache_enabled=False):
            return of(part)

    found = in_world(told, batch, config.packing.passes, stage.lanes).cpu().numpy()
    rows = []
    places = layout([len(text.tokens) for text in texts], config.packing.row_tokens)
    for text, (row, start, _) in zip(texts, places, strict=True):
        given = int((text.weight > 0).argmax())
        rows.append(found[row, start + given - 1 : start + len(text.tokens) - 1])
    return np.concatenate(rows), read_cost(teacher, batch)


def read_cost(policy: Policy, batch: Batch) -> tuple[int, float]:
    """Tokens and FLOPs of reading a batch once, without a gradient."""
    context = float(batch.rows.positions_BT.float().mean())
    return batch.num_tokens, batch.num_tokens * flops_per_token(policy.model.config, context, training=False)


def texts_of(sayings: Sayings, places: Sequence[int]) -> list[Text]:
    """Texts of a step, their learned tokens numbered one after the other, each weighing as much as any other."""
    texts = [sayings.shelf[place] for place in places]
    total, first, found = sum(sayings.lengths[place] for place in places), 0, []
    for text in texts:
        said = text.weight > 0
        number = np.where(said, first + said.cumsum() - 1, 0).astype(np.float32)
        weight = said.astype(np.float32) / np.float32(total)
        found.append(Text(text.tokens, weight, {"told": number}))
        first += int(said.sum())
    return found


def stored(sayings: Sayings, store: Store, places: Sequence[int], device: torch.device) -> TopK:
    """What the teacher told of these texts' tokens, in their order."""
    found = store.read([sayings.stretch(place) for place in places])
    return TopK(found.ids_MK.to(device), found.logp_MK.to(device), found.rest_M.to(device), found.width)
