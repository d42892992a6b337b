"""Supervised fine-tuning: on the user's own chats, on what other stages gathered, or on a task's own traces."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np

from seekling.errors import UserError
from seekling.learn.batch import Text
from seekling.recipes import chats
from seekling.recipes.chats import DATA, Row
from seekling.recipes.config import Chats, Preferences, Sft
from seekling.recipes.policy import Policy, held_in
from seekling.recipes.pretrain import encoded
from seekling.recipes.stage import Interrupted, Stage
from seekling.recipes.text import fill, learn_text, learned
from seekling.remote.rows import ROWS_AT_ONCE, files_of
from seekling.runlog.files import disk_error
from seekling.tasks.corpus import documents
from seekling.tasks.registry import build_task
from seekling.text.chat import encode_all_turns
from seekling.text.published import Chat
from seekling.text.tokenizer import Tokenizer

Encoded = tuple[Sequence[int], Sequence[bool]]
"""Ids [T], and which of them are learned [T]."""


def sft(stage: Stage, config: Sft) -> dict[str, float]:
    """Fine-tune the input stage's model. Returns the last step's figures."""
    policy = Policy.load(stage.inputs[0].model, stage.device, stage.lanes, held_in(config))
    with Shelf(stage.folder.folder) as shelf:
        task = build_task(config.task) if config.task else None
        if task is None:
            shelve(shelf, gathered(stage) or find(stage, config), policy.tokenizer, config, stage)
        passes = shelf.passes(stage.seed, config.epochs, config.tokens_per_step)
        config = config.model_copy(update={"steps": len(passes)}) if passes else config

        def texts(step: int) -> Sequence[Text]:
            seed = f"{stage.seed}/{step}"
            if passes:
                return [shelf[place] for place in passes[step]]
            if task is None:
                return fill(shelf.shuffled(seed), config.tokens_per_step)
            return fill(encoded(policy.tokenizer, documents(task, config.text, seed)), config.tokens_per_step)

        return learn_text(stage, config, policy.model, policy.tokenizer, texts)


def gathered(stage: Stage) -> list[Path]:
    """The chats of the stages with chats that a stage reads."""
    return [folder.folder / DATA for folder in stage.reading("data")]


def find(stage: Stage, config: Sft | Preferences | Chats) -> list[Path]:
    """The files of the stage's data, fetched when they lie on the hub."""

    def draw(done: int, of: int) -> None:
        stage.tell(stage.name, done >> 20, max(1, of >> 20), {})

    try:
        return files_of(
            config.data, config.revision, config.split,
            tell=stage.warn, draw=draw, stop_requested=stage.stop_requested,
        )  # fmt: skip
    except InterruptedError:
        raise Interrupted from None


def shelve(shelf: Shelf, files: Sequence[Path], tokenizer: Tokenizer, config: Sft, stage: Stage) -> None:
    """Every chat of ``files`` onto the shelf, as texts.

    Raises UserError for a row that is no chat, one that the template refuses or learns nothing from, and, unless they
    are to be dropped, for texts longer than a row of the batch.
    """
    room = config.packing.row_tokens
    longest, where, num_long, num_texts = 0, "", 0, 0
    rows = chats.read(files)
    while group := list(islice(rows, ROWS_AT_ONCE)):
        if stage.stop_requested():
            raise Interrupted
        for row, texts in zip(group, encode(tokenizer, group), strict=True):
            for ids, mask in texts:
                num_texts += 1
                num_long += len(ids) > room
                if len(ids) > longest:
                    longest, where = len(ids), row.where
                if len(ids) <= room:
                    shelf.add(ids, mask)
    if num_long:
        said = f"{num_long} of {num_texts} texts are longer than packing.row_tokens = {room}"
        advice = f'Set packing.row_tokens to at least {longest}, or too_long = "drop" to leave them out.'
        if config.too_long == "refuse" or not len(shelf):
            raise UserError(f"{said}; the longest has {longest} tokens", where=where, next_step=advice)
        stage.warn(f"{said} and are left out; the longest has {longest} tokens ({where})")


def encode(tokenizer: Tokenizer, group: Sequence[Row]) -> list[list[Encoded]]:
    """The texts of each row. Raises UserError naming file and line of the first that the template refuses."""
    try:
        encoded = _encode(tokenizer, group)
    except UserError:
        for row in group:  # which one was it?
            try:
                _encode(tokenizer, [row])
            except UserError as error:
                why = error.where.removeprefix("conversation 1").removeprefix(": ")
                where = f"{row.where}: {why}" if why else row.where
                raise UserError(error.what, where=where, next_step=error.next_step) from None
        raise
    for row, texts in zip(group, encoded, strict=True):
        if not any(any(mask) for _, mask in texts):
            raise UserError(
                "a chat has nothing to learn: the chat template leaves out what the assistant says", where=row.where
            )
    return encoded


def _encode(tokenizer: Tokenizer, group: Sequence[Row]) -> list[list[Encoded]]:
    encoded = encode_all_turns(tokenizer, [Chat(row.messages, row.tools) for row in group])
    return [_without_given(row, list(texts)) for row, texts in zip(group, encoded, strict=True)]


def _without_given(row: Row, texts: list[Encoded]) -> list[Encoded]:
    """The texts of a row, with what the assistant says in its prompt masked: that is given, not to be learned."""
    speeches = [place for place, message in enumerate(row.messages) if message["role"] == "assistant"]
    num_given = sum(place < row.given for place in speeches)
    if not num_given:
        return texts
    starts = [(text, place) for text, (_, mask) in enumerate(texts) for place in _starts(mask)]
    if len(starts) != len(speeches):
        raise UserError("the chat template does not keep apart what the assistant says in the prompt and after it")
    first = starts[num_given]
    masked = [(ids, [(text, place) >= first and yes for place, yes in enumerate(mask)])
              for text, (ids, mask) in enumerate(texts)]  # fmt: skip
    return [(ids, mask) for ids, mask in masked if any(mask)]


def _starts(mask: Sequence[bool]) -> list[int]:
    return [place for place, yes in enumerate(mask) if yes and not (place and mask[place - 1])]


class Shelf:
    """Texts in a file that has no name: any number of them in a little memory, and nothing left behind by a crash.

    A token is four bytes; one that is learned stands there as its complement, which is negative.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._ends = folder, array("q", [0])
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # __exit__ closes it
        except OSError as error:
            raise disk_error(folder, error) from None

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, ids: Sequence[int], mask: Sequence[bool]) -> None:
        """Put one text behind the others. Raises UserError when the disk is full."""
        tokens_T = np.asarray(ids, dtype=np.int32)
        try:
            self._file.write(np.where(mask, ~tokens_T, tokens_T).tobytes())
            self._file.flush()
        except OSError as error:
            raise disk_error(self._folder, error) from None
        self._ends.append(self._ends[-1] + len(ids))

    def __getitem__(self, place: int) -> Text:
        start, end = self._ends[place], self._ends[place + 1]
        self._file.seek(4 * start)
        stored_T = np.frombuffer(self._file.read(4 * (end - start)), dtype=np.int32)
        is_learned_T = stored_T < 0
        return learned(np.where(is_learned_T, ~stored_T, stored_T).tolist(), is_learned_T.tolist())

    def shuffled(self, seed: str) -> Iterator[Text]:
        """All texts in an order drawn from ``seed``, then all in another, and so on."""
        rng = Random(seed)
        while True:
            yield from (self[place] for place in permuted(rng, len(self)))

    def passes(self, seed: str, count: int, tokens_per_step: int) -> list[list[int]]:
        """``count`` whole passes, each in an order of its own, as the places of the texts of each step.

        A step takes texts until their tokens reach ``tokens_per_step``, across the end of a pass too; the last what is
        left. None for no pass.
        """
        steps, room = list[list[int]](), 0
        for number in range(count):
            for place in permuted(Random(f"{seed}/pass/{number}"), len(self)):
                if room <= 0:
                    steps.append([])
                    room = tokens_per_step
                steps[-1].append(place)
                room -= self._ends[place + 1] - self._ends[place]
        return steps


def permuted(rng: Random, count: int) -> Iterator[int]:
    """``rng.sample(range(count), count)``, number by number: a step takes a few texts, and pays for those alone."""
    moved: dict[int, int] = {}
    for left in range(count, 0, -1):
        place = rng.randrange(left)
        yield moved.get(place, place)
        moved[place] = moved.get(left - 1, left - 1)
