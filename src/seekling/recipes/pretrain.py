"""A base model from random weights: train a tokenizer on the generated text, then next-token prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from seekling.engine.sampler import seed_of
from seekling.learn.batch import Text
from seekling.model.decoder import Decoder
from seekling.recipes.config import Pretrain
from seekling.recipes.stage import Stage
from seekling.recipes.text import fill, learn_text, learned
from seekling.selftests.outcome import require
from seekling.selftests.tasks import of_key, of_split
from seekling.tasks.checking import Checker
from seekling.tasks.corpus import Document, Mixture, documents
from seekling.tasks.registry import build_task
from seekling.text.chat import encode_chats
from seekling.text.tokenizer import Tokenizer, train

TOKENIZER_DOCUMENTS = 4000


def pretrain(stage: Stage, config: Pretrain) -> dict[str, float]:
    """Grow a base model. Returns the last step's figures."""
    task = build_task(config.task)
    with stage.self_testing():
        of_the_key = of_key(task, Checker(task, config.task)) if stage.world.leads else ()
        stage.folder.write(selftests=require(*of_the_key, of_split(task, config.text)))
    tokenizer = grow_tokenizer(task, config.text, config.model.vocab_size, stage.seed)
    shape = config.model.model_copy(update={"vocab_size": tokenizer.vocab_size})
    model = Decoder(shape).init_weights(seed_number(stage.seed)).to(stage.device)

    def texts(step: int) -> Sequence[Text]:
        stream = documents(task, config.text, f"{stage.seed}/{step}")
        return fill(encoded(tokenizer, stream), config.tokens_per_step)

    return learn_text(stage, config, model, tokenizer, texts)


def grow_tokenizer(task: Any, mixture: Mixture, vocab_size: int, seed: str) -> Tokenizer:
    """A tokenizer trained on a sample of the same text, prompts included."""
    sample = list(islice(documents(task, mixture, f"{seed}/tokenizer"), TOKENIZER_DOCUMENTS))
    prompts = [document.problem.prompt for document in sample if document.problem is not None]
    return train([*prompts, *(document.text for document in sample)], vocab_size)


def encoded(tokenizer: Tokenizer, stream: Iterator[Document]) -> Iterator[Text]:
    """Texts of an endless stream of documents, tokenised a few at a time."""
    while True:
        yield from encode(tokenizer, list(islice(stream, 32)))


def encode(tokenizer: Tokenizer, batch: Sequence[Document]) -> list[Text]:
    """Attempts become chats, learned where the assistant speaks; facts become plain text, learned throughout."""
    chats = iter(encode_chats(tokenizer, [_messages(d) for d in batch if d.problem is not None]))
    plain = iter(tokenizer.encode_batch([d.text for d in batch if d.problem is None]))
    return [_fact(tokenizer, next(plain)) if d.problem is None else learned(*next(chats)) for d in batch]


def _messages(document: Document) -> list[dict[str, str]]:
    assert document.problem is not None
    return [
        {"role": "user", "content": document.problem.prompt},
        {"role": "assistant", "content": document.text},
    ]


def _fact(tokenizer: Tokenizer, ids: Sequence[int]) -> Text:
    assert tokenizer.bos is not None  # one that was grown here
    whole = [tokenizer.bos, *ids, tokenizer.eos]
    return learned(whole, [1] * len(whole))


def seed_number(seed: str) -> int:
    """A number for weight initialisation, from the stage's seed."""
    return seed_of(seed, "weights")
