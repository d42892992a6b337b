"""Byte-level BPE on `tokenizers`, saved in the Hugging Face layout: total, deterministic, numbers kept whole.

Text given by a person is never parsed for control tokens. The tokenizer therefore exists as three twins
that share one vocabulary: ``plain`` parses no added token, ``tagged`` only the four reasoning tags,
``whole`` all of them. (The library's own switch, ``encode_special_tokens``, spares only tokens marked
special; the tags are not, so that servers which skip special tokens still show them, as with DeepSeek-R1.)
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Rust

from seekling.errors import UserError

CONTROL = {
    "bos": "<｜begin▁of▁sentence｜>",
    "eos": "<｜end▁of▁sentence｜>",
    "pad": "<｜▁pad▁｜>",
    "user": "<｜User｜>",
    "assistant": "<｜Assistant｜>",
}
TAGS = {
    "think_open": "<think>",
    "think_close": "</think>",
    "answer_open": "<answer>",
    "answer_close": "</answer>",
}
SPECIAL = (*CONTROL.values(), *TAGS.values())
"""Names of the added tokens as DeepSeek-V3 and R1 spell them; in a trained tokenizer their ids are 0 to 8."""

TEMPLATE = files("seekling.text").joinpath("chat_template.jinja").read_text(encoding="utf-8")

SMALLEST = len(SPECIAL) + 256
"""The smallest vocabulary: the special tokens and every byte."""

_PIECES = (
    r"\n"  # a line break stands alone
    r"|[+-]?\p{N}{1,3}"  # numbers in runs of three digits, as DeepSeek-V3 cuts them; a sign before one belongs to it
    r"| ?[\p{L}\p{M}]+"  # a word, with the space before it
    r"|[^\s\p{L}\p{M}\p{N}]"  # other punctuation, one by one: no merge can cross it
    r"|[^\S\n]+(?=\s|$)|[^\S\n]"  # blanks; the last one before something stands alone
)
_NUMBER = re.compile(r"[+-]?[0-9]{1,3}")
_NAMES = re.compile("|".join(map(re.escape, SPECIAL)))


@dataclass(frozen=True, slots=True, eq=False)
class Tokenizer:
    """Text to ids and back. ``pieces[i]`` are the bytes of id ``i``, ``template`` the jinja chat template."""

    whole: Rust
    tagged: Rust
    plain: Rust
    pieces: tuple[bytes, ...]
    template: str
    bos: int
    eos: int
    pad: int
    user: int
    assistant: int
    think_open: int
    think_close: int
    answer_open: int
    answer_close: int

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included: ids are 0 .. vocab_size - 1."""
        return len(self.pieces)

    def encode(self, text: str, *, special: bool = False, tags: bool = False) -> list[int]:
        """Ids of ``text``, no control token added.

        ``special`` parses every added token in ``text``, ``tags`` only the four reasoning tags; without
        either, text that merely looks like one is ordinary text. Lone surrogates, which are not text,
        become U+FFFD.
        """
        return self.encode_batch([text], special=special, tags=tags)[0]

    def encode_batch(self, texts: Sequence[str], *, special: bool = False, tags: bool = False) -> list[list[int]]:
        """``encode`` of many texts at once, in parallel."""
        twin = self.whole if special else self.tagged if tags else self.plain
        clean = [_valid(text) for text in texts]
        return [encoding.ids for encoding in twin.encode_batch_fast(clean, add_special_tokens=False)]

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of ``ids``; bytes that form no character become U+FFFD.

        ``skip_special`` leaves out the five control tokens and keeps the reasoning tags. Raises UserError for
        an id outside the vocabulary.
        """
        return b"".join(self._bytes(ids, skip_special)).decode("utf-8", "replace")

    def decode_stream(self, ids: Iterable[int], *, skip_special: bool = False) -> Iterator[str]:
        """``decode`` while the ids arrive: a character is emitted whole, when its last byte is there."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for piece in self._bytes(ids, skip_special):
            if text := decoder.decode(piece):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    def _bytes(self, ids: Iterable[int], skip_special: bool) -> Iterator[bytes]:
        silent = {getattr(self, name) for name in CONTROL} if skip_special else set()
        for token in ids:
            if not 0 <= token < len(self.pieces):
                raise UserError(
                    f"token id {token} is outside the vocabulary of {len(self.pieces)}",
                    next_step="Use the tokenizer saved beside the model; this one belongs to another.",
                )
            if token not in silent:
                yield self.pieces[token]

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``chat_template.jinja`` into ``folder``.

        transformers' ``AutoTokenizer`` and vLLM load it. Raises UserError when the folder cannot be written.
        """
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.whole.id_to_token(self.bos),
            "eos_token": self.whole.id_to_token(self.eos),
            "pad_token": self.whole.id_to_token(self.pad),
            "clean_up_tokenization_spaces": False,
            "add_prefix_space": False,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / "tokenizer.json", self.whole.to_str(pretty=True))
            _write(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False))
            _write(folder / "chat_template.jinja", self.template)
        except OSError as error:
            raise UserError(f"cannot save the tokenizer: {error}", where=str(folder)) from None

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The tokenizer saved in ``folder``. Raises UserError if it is missing, damaged or not ours."""
        file = folder / "tokenizer.json"
        text = _read(file)
        try:
            whole = Rust.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise UserError(
                f"the tokenizer is damaged: {error}"[:400],
                where=str(file),
                next_step="Copy the file again, or run the stage that wrote it again.",
            ) from None
        return _with_twins(whole, _template(folder), where=str(file))


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn byte-level BPE from ``texts`` (tags in them count as such): equal texts give an equal tokenizer.

    Every number of up to two digits the texts hold, with the sign before it, gets its token first, whatever its
    frequency, because sums are easy when terms are single tokens; then come the merges BPE finds. ``vocab_size``
    counts everything; texts with fewer merges to offer give a smaller vocabulary. Raises UserError below 265.
    """
    if vocab_size < SMALLEST:
        raise UserError(
            f"a vocabulary of {vocab_size} is too small",
            where="vocab_size",
            next_step=f"Take at least {SMALLEST}: {len(SPECIAL)} special tokens and 256 bytes.",
        )
    numbers: set[str] = set()
    learner = _rust(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(_watched(texts, numbers), trainer)
    learned = json.loads(learner.to_str())["model"]
    in_order = sorted(numbers, key=lambda number: (number[0] in "+-", number))
    vocab, merges = _numbers_first(learned["vocab"], learned["merges"], in_order, vocab_size)
    whole = _rust(models.BPE(vocab=vocab, merges=merges))
    whole.add_tokens([AddedToken(name, special=name not in TAGS.values(), normalized=False) for name in SPECIAL])
    return _with_twins(whole, TEMPLATE, where="a tokenizer just trained")


def _numbers_first(
    learned: dict[str, int], merges: list[tuple[str, str]], numbers: list[str], vocab_size: int
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges with special tokens, bytes and ``numbers`` in front, the learned rest behind.

    ``numbers`` are pairs of digits, then signed numbers: 12 forms before +12 does. A three-digit token is given both
    its merges (12+3 and 1+23), so that moving the pairs cannot cut it off.
    """
    front = dict.fromkeys([*SPECIAL, *_BYTE_CHARS, *numbers])
    rest = (token for token in sorted(learned, key=learned.__getitem__) if token not in front)
    vocab = {token: place for place, token in enumerate(islice((*front, *rest), vocab_size))}
    pairs = dict.fromkeys([(number[0], number[1:]) for number in numbers])
    for left, right in merges:
        pairs[left, right] = None
        if len(whole := left + right) == 3 and whole.isdigit() and whole.isascii():
            pairs |= {(whole[0], whole[1:]): None, (whole[:2], whole[2]): None}
    return vocab, [(a, b) for a, b in pairs if a in vocab and b in vocab and a + b in vocab]


def _watched(texts: Iterable[str], numbers: set[str]) -> Iterator[str]:
    """Pass ``texts`` through without names of special tokens, and note the short numbers they hold."""
    for text in texts:
        for run in _NUMBER.findall(text):
            digits = run.lstrip("+-")
            if len(digits) <= 2:
                numbers.update(piece for piece in (digits, run) if len(piece) > 1)
        yield _NAMES.sub("\n", _valid(text))


def _rust(model: models.BPE) -> Rust:
    rust = Rust(model)
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rust.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    rust.decoder = decoders.ByteLevel()
    return rust


def _with_twins(whole: Rust, template: str, *, where: str) -> Tokenizer:
    """Wrap ``whole`` with its twins and byte table. Raises UserError when it is not of our kind."""
    state: dict[str, Any] = json.loads(whole.to_str())
    ids = {key: whole.token_to_id(name) for key, name in (CONTROL | TAGS).items()}
    lacking = [(CONTROL | TAGS)[key] for key, place in ids.items() if place is None]
    if lacking or (state["decoder"] or {}).get("type") != "ByteLevel":
        fault = f"lacks {lacking[0]}" if lacking else "is not byte-level"
        raise UserError(f"the tokenizer {fault}", where=where, next_step="Use one that Seekling trained.")
    tags = [token for token in state["added_tokens"] if token["content"] in TAGS.values()]
    return Tokenizer(
        whole=whole,
        tagged=Rust.from_str(json.dumps(state | {"added_tokens": tags})),
        plain=Rust.from_str(json.dumps(state | {"added_tokens": []})),
        pieces=_byte_table(whole, {token["content"] for token in state["added_tokens"]}),
        template=template,
        **{key: place for key, place in ids.items() if place is not None},
    )


def _byte_chars() -> list[str]:
    """The printable character that stands for each byte 0..255 in a byte-level vocabulary (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


_BYTE_CHARS = _byte_chars()


def _byte_table(rust: Rust, added: set[str]) -> tuple[bytes, ...]:
    """The bytes of every id; an id between others that no token has is empty."""
    byte_of = {char: byte for byte, char in enumerate(_BYTE_CHARS)}
    vocab = rust.get_vocab(with_added_tokens=True)
    table = [b""] * (max(vocab.values()) + 1)
    for token, place in vocab.items():
        foreign = token in added or any(char not in byte_of for char in token)
        table[place] = token.encode() if foreign else bytes(byte_of[char] for char in token)
    return tuple(table)


def _valid(text: str) -> str:
    """``text`` itself, or with lone surrogates as U+FFFD when it could not be written as UTF-8."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _template(folder: Path) -> str:
    """The chat template: in a file of its own, or, as of old, in ``tokenizer_config.json``, or else ours."""
    if (folder / "chat_template.jinja").is_file():
        return _read(folder / "chat_template.jinja")
    if not (folder / "tokenizer_config.json").is_file():
        return TEMPLATE
    try:
        template = json.loads(_read(folder / "tokenizer_config.json")).get("chat_template")
    except (ValueError, AttributeError) as error:
        raise UserError(f"not valid JSON: {error}", where=str(folder / "tokenizer_config.json")) from None
    return template if isinstance(template, str) else TEMPLATE


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        is_missing = isinstance(error, FileNotFoundError)
        raise UserError(
            "there is no tokenizer here" if is_missing else f"cannot read the tokenizer: {error}",
            where=str(file),
            next_step="Name the folder that holds tokenizer.json.",
        ) from None


def _write(file: Path, text: str) -> None:
    """Write beside, flush to disk, then rename: a crash leaves the old file or the new one."""
    beside = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    with beside.open("w", encoding="utf-8", newline="\n") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    beside.replace(file)
