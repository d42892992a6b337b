"""Pairs of replies as texts to compare: a user's own rows, a task's traces of which one passes and one fails, or
answers that were sampled (``answers``)."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain, islice
from random import Random
from typing import Any

import numpy as np

from seekling.errors import UserError
from seekling.learn.batch import Text
from seekling.recipes import chats
from seekling.recipes.chats import Pair, Row
from seekling.recipes.config import Preferences
from seekling.recipes.sft import Encoded, Shelf, encode, find, permuted
from seekling.recipes.stage import Interrupted, Stage
from seekling.recipes.text import learned
from seekling.records import Problem, Verdict
from seekling.remote.rows import ROWS_AT_ONCE
from seekling.rewards.rubric import answer_of
from seekling.tasks.checking import Checker
from seekling.tasks.corpus import Mixture, qualities_of
from seekling.tasks.protocol import Split, own_part, problems, reads
from seekling.tasks.registry import build_task
from seekling.text.tokenizer import Tokenizer

TRACES = 8
"""Attempts drawn at a problem to find one that passes and one that fails."""
MOST_MISSES = 1000
"""Problems in a row without such two after which a task is taken to have none."""


@dataclass(frozen=True, slots=True)
class Couple:
    """A pair, encoded: each text ends with the last token of its reply, the stop, and is learned where it replies.

    ``apart`` is by how much an exact rule prefers the chosen one, below 0 where the label was drawn against it; 0 where
    no rule is known.
    """

    chosen: Text
    rejected: Text
    margin: float = 0.0
    apart: float = 0.0

    @property
    def texts(self) -> tuple[Text, Text]:
        """The two in the order in which they stand in a row."""
        return self.chosen, self.rejected

    @property
    def num_tokens(self) -> int:
        """Of both texts: what a row must have room for."""
        return len(self.chosen.tokens) + len(self.rejected.tokens)


@dataclass(frozen=True, slots=True)
class Couples:
    """``train`` leads from a step to its couples, purely, so that a resumed stage reads what it would have read."""

    train: Callable[[int], list[Couple]]
    held_out: list[Couple]


@contextmanager
def couples(stage: Stage, config: Preferences, tokenizer: Tokenizer, context: int) -> Iterator[Couples]:
    """The stage's pairs. ``context`` is how long a text may be at all.

    Raises UserError for a row that is no pair, a template that parts a reply, pairs that are too long, and for none.
    """
    if config.task and config.compare == "traces":
        yield _from_task(stage, config, tokenizer, context)
        return
    found = _read(stage, config, tokenizer) if config.data else _sampled(stage, config, tokenizer)
    with Shelf(stage.folder.folder) as shelf:
        yield _shelved(stage, config, context, shelf, found)


def together(found: Sequence[Couple]) -> list[Text]:
    """The texts of couples, side by side."""
    return list(chain.from_iterable(couple.texts for couple in found))


def encode_pairs(tokenizer: Tokenizer, group: Sequence[Pair]) -> list[Couple]:
    """Couples of pairs. Raises UserError naming file and line of the first that the template makes no couple of."""
    made = laid_out(tokenizer, group)
    for pair, couple in zip(group, made, strict=True):
        if is_one(couple):
            raise UserError(
                "chosen and rejected are the same once the chat template has laid them out", where=pair.chosen.where
            )
    return made


def laid_out(tokenizer: Tokenizer, group: Sequence[Pair]) -> list[Couple]:
    """Couples of pairs, also of those that the template makes equal."""
    rows = [row for pair in group for row in (pair.chosen, pair.rejected)]
    ended = [learned(*closed(row, texts)) for row, texts in zip(rows, encode(tokenizer, rows), strict=True)]
    pairs = zip(group, ended[::2], ended[1::2], strict=True)
    return [Couple(chosen, rejected, pair.margin) for pair, chosen, rejected in pairs]


def is_one(couple: Couple) -> bool:
    """Whether both texts are the same."""
    return list(couple.chosen.tokens) == list(couple.rejected.tokens)


def closed(row: Row, texts: Sequence[Encoded]) -> Encoded:
    """A row's one text, cut behind the last token that is learned: what a template writes after a stop is no reply.

    Raises UserError for a row that is several texts.
    """
    if len(texts) != 1:
        raise UserError(
            f"the chat template makes {len(texts)} texts of one reply",
            where=row.where,
            next_step="Let a reply be one message; what stood before it belongs to the prompt.",
        )
    ids, mask = texts[0]
    end = int(np.flatnonzero(mask)[-1]) + 1
    return ids[:end], mask[:end]


# --- rows, and answers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A couple, where it comes from in words, and whether it is never trained on; or why there is none."""

    couple: Couple | None
    where: str = ""
    held_out: bool = False
    why: str = ""


def _read(stage: Stage, config: Preferences, tokenizer: Tokenizer) -> Iterator[Found]:
    """The rows of a user's own."""
    rows = chats.read_pairs(find(stage, config))
    while group := list(islice(rows, ROWS_AT_ONCE)):
        if stage.stop_requested():
            raise Interrupted
        for pair, couple in zip(group, encode_pairs(tokenizer, group), strict=True):
            yield Found(couple, pair.chosen.where, is_held_out(pair.chosen, config.held_out))


def _sampled(stage: Stage, config: Preferences, tokenizer: Tokenizer) -> Iterator[Found]:
    """What the input's model answers, two by two, labelled by its task's rule."""
    from seekling.recipes.answers import drawn_pairs  # with all that samples: most stages of pairs need none of it

    for drawn in drawn_pairs(stage, config):
        if drawn.pair is None:
            yield Found(None, why=drawn.why)
            continue
        (couple,) = laid_out(tokenizer, [drawn.pair])
        if is_one(couple):
            yield Found(None, why="alike")
        else:
            yield Found(replace(couple, apart=drawn.apart), drawn.pair.chosen.where, drawn.held_out)


def _shelved(stage: Stage, config: Preferences, context: int, shelf: Shelf, found: Iterable[Found]) -> Couples:
    """Those that nothing leaves out: on the shelf what is trained on, in memory what is held out."""
    margins, aparts, held_out, counts = array("d"), array("d"), list[Couple](), Counter[str]()
    longest = _Longest()
    for one in found:
        couple = one.couple
        fate = _left_out(couple, config, context) if couple else one.why
        fate = fate or ("held out" if one.held_out else "trained on")
        counts[fate] += 1
        if couple is None:
            continue
        longest.see(couple, one.where, fate == "too long")
        if fate == "held out" and len(held_out) < config.held_out_pairs:
            held_out.append(couple)
        if fate == "trained on":
            margins.append(couple.margin)
            aparts.append(couple.apart)
            for text in couple.texts:
                shelf.add(text.tokens, (text.weight > 0).tolist())
    _refuse_long(stage, config, context, longest, counts)
    stage.folder.write(pairs=dict(counts))
    if not margins:
        raise _none_left(stage, counts)

    def train(step: int) -> list[Couple]:
        rng = Random(f"{stage.seed}/{step}")
        endless = chain.from_iterable(permuted(rng, len(margins)) for _ in iter(int, 1))
        chosen = islice(endless, config.pairs_per_step)
        return [Couple(shelf[2 * n], shelf[2 * n + 1], margins[n], aparts[n]) for n in chosen]

    return Couples(train, held_out)


def is_held_out(row: Row, share: float) -> bool:
    """Whether a row's prompt is never trained on: a function of the prompt alone, so pairs of one stay together."""
    told = json.dumps(row.messages[: row.given], sort_keys=True, ensure_ascii=True)
    return int(sha256(told.encode()).hexdigest()[:8], 16) / 2**32 < share


def _left_out(couple: Couple, config: Preferences, context: int) -> str:
    """Why a couple is not used, in words; "" for one that is."""
    if couple.num_tokens > config.packing.row_tokens or max(len(text.tokens) for text in couple.texts) > context:
        return "too long"
    if (abs(couple.apart) or couple.margin) < config.min_margin:
        return "too near"
    short, long = sorted(int((text.weight > 0).sum()) for text in couple.texts)
    return "lengths differ" if config.length_ratio and long > config.length_ratio * short else ""


class _Longest:
    """The longest couple there was among those that are too long."""

    def __init__(self) -> None:
        self.num_tokens, self.text_tokens, self.where = 0, 0, ""

    def see(self, couple: Couple, where: str, is_too_long: bool) -> None:
        """Remember it, if it is."""
        if is_too_long and couple.num_tokens > self.num_tokens:
            self.num_tokens, self.where = couple.num_tokens, where
            self.text_tokens = max(len(text.tokens) for text in couple.texts)


def _refuse_long(stage: Stage, config: Preferences, context: int, longest: _Longest, counts: Mapping[str, int]) -> None:
    """Raises UserError for pairs that are too long, unless they are to be dropped; then says how many."""
    if not counts.get("too long"):
        return
    if longest.text_tokens > context:
        why, advice = f"a text has {longest.text_tokens} tokens, the model reads {context}", "Cut the longer texts"
    else:
        why = f"both texts stand in one row, of packing.row_tokens = {config.packing.row_tokens}"
        advice = f"Set packing.row_tokens to at least {longest.num_tokens}"
    num_long, num_pairs = counts["too long"], sum(counts.values())
    said = f"{num_long} of {num_pairs} pairs are too long; the longest has {longest.num_tokens} tokens: {why}"
    if config.too_long == "refuse":
        raise UserError(said, where=longest.where, next_step=f'{advice}, or too_long = "drop" to leave them out.')
    stage.warn(f"{said}; they are left out ({longest.where})")


def _none_left(stage: Stage, counts: Mapping[str, int]) -> UserError:
    told = ", ".join(f"{why}: {count}" for why, count in counts.items())
    return UserError(
        f'stage "{stage.name}" has no pair to learn from ({told})',
        next_step="Loosen what leaves pairs out (packing.row_tokens, min_margin, length_ratio, held_out), or add some.",
    )


# --- a task's traces --------------------------------------------------------------------------------------------------


def _from_task(stage: Stage, config: Preferences, tokenizer: Tokenizer, context: int) -> Couples:
    task = build_task(config.task)
    checker = Checker(task, config.task)

    def drawn(split: Split, seed: str, count: int) -> list[Couple]:
        compared = compare(task, checker, config.text, split, seed)
        found = encode_pairs(tokenizer, list(islice(compared, count)))
        if wrong := [couple for couple in found if _left_out(couple, config, context) == "too long"]:
            longest = max(couple.num_tokens for couple in wrong)
            raise UserError(
                f'a pair of task "{task.name}" has {longest} tokens; a row has {config.packing.row_tokens}',
                next_step=f"Set packing.row_tokens to at least {longest}; a text may have {context} tokens.",
            )
        return found

    def train(step: int) -> list[Couple]:
        return drawn("train", f"{stage.seed}/{step}", config.pairs_per_step)

    return Couples(train, drawn("held_out", "watch", config.held_out_pairs))


def compare(task: Any, checker: Checker, mixture: Mixture, split: Split, seed: str) -> Iterator[Pair]:
    """Endless pairs of a task's traces at one problem each: the first that passes its check against the first that
    fails. A pure function of (task, mixture, split, seed)."""
    taken = qualities_of(task, mixture)
    rng, misses = Random(f"pairs/{seed}"), 0
    for problem in problems(task, split, f"pairs/{seed}"):
        qualities = rng.choices(*taken[own_part(task, problem).name], k=TRACES)
        said = [task.trace(problem, rng, quality) for quality in qualities]
        told = checker.verdicts([(problem, answer_of(text, reads(task))) for text in said])
        right = [text for text, t in zip(said, told, strict=True) if t.verdict is Verdict.PASS]
        wrong = [text for text, t in zip(said, told, strict=True) if t.verdict in (Verdict.WRONG, Verdict.UNPARSED)]
        misses = 0 if right and wrong else misses + 1
        if misses > MOST_MISSES:
            raise UserError(
                f'task "{task.name}" wrote {MOST_MISSES * TRACES} attempts and no two to compare',
                next_step="text.qualities must hold some that pass and some that fail their check.",
            )
        if right and wrong:
            yield Pair(_reply(problem, right[0]), _reply(problem, wrong[0]))


def _reply(problem: Problem, text: str) -> Row:
    asked, said = {"role": "user", "content": problem.prompt}, {"role": "assistant", "content": text}
    return Row([asked, said], f"problem {problem.id}", given=1)
