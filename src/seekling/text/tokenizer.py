"""Text to ids and back: any published byte-pair tokenizer, and those trained here, in the Hugging Face layout.

Text given by a person is never parsed for control tokens. A tokenizer therefore exists as twins that share one
vocabulary (``twins``): ``plain`` parses no token that controls anything, ``tagged`` only the four reasoning tags,
``whole`` all of them. Those tags are not marked special, so that servers which skip special tokens still show
them, as with DeepSeek-R1.

Tokenizers trained here are byte-level BPE: total, deterministic, numbers kept whole.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Rust

from seekling.errors import UserError
from seekling.text.folder import TURN_ENDS, Folder, read_folder, templates
from seekling.text.guard import valid_text
from seekling.text.pieces import BYTE_CHARS, Pieces, make_pieces
from seekling.text.twins import Twins, described, id_of, is_control, make_twins

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
_TRAINED = Folder(
    where="a tokenizer just trained", files={}, state={}, config={}, added=(), extra=(), template=TEMPLATE,
    tool_template=None, stops=(), model_type="", names={f"{key}_token": CONTROL[key] for key in ("bos", "eos", "pad")},
)  # fmt: skip
OTHER_TYPES = frozenset({"mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"})
"""Types of models whose tokenizers transformers reads as they are, whatever class they name."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,3}")
_NAMES = re.compile("|".join(map(re.escape, SPECIAL)))


@dataclass(frozen=True, slots=True, eq=False)
class Tokenizer:
    """Text to ids and back.

    ``eos`` is the token that ends a text, ``stops`` all at which a model stops, ``eos`` first. ``user``,
    ``assistant`` and the four tags are ids where such a token exists, and None elsewhere; so are ``bos`` and
    ``pad``. ``template`` is the jinja chat template, ``tool_template`` the one for conversations with tools where
    there are two. ``names`` are the special tokens by the names that templates use (``bos_token`` ...).
    ``control`` are the tokens that no plain text makes. ``before`` and ``after`` are what stands around a framed text.
    """

    twins: Twins
    pieces: Pieces
    template: str | None
    tool_template: str | None
    names: Mapping[str, str]
    control: tuple[str, ...]
    silent: frozenset[int]
    before: tuple[int, ...]
    after: tuple[int, ...]
    stops: tuple[int, ...]
    bos: int | None
    eos: int
    pad: int | None
    user: int | None
    assistant: int | None
    think_open: int | None
    think_close: int | None
    answer_open: int | None
    answer_close: int | None
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included: ids are 0 .. vocab_size - 1. A model's embedding may have more rows."""
        return len(self.pieces.table)

    def padded(self, num_ids: int) -> Tokenizer:
        """The same for a model of ``num_ids`` embeddings: ids beyond the tokenizer's, which many models have, are
        silent rather than an error."""
        spare = (b"",) * (num_ids - self.vocab_size)
        return replace(self, pieces=replace(self.pieces, table=self.pieces.table + spare))

    @property
    def whole(self) -> Rust:
        """The library's own tokenizer, which parses every added token."""
        return self.twins.whole

    @property
    def is_shipped(self) -> bool:
        """Whether it speaks the template shipped here, in its tokens."""
        spelled = all(CONTROL[name] == self.names.get(f"{name}_token") for name in ("bos", "eos"))
        return self.template == TEMPLATE and spelled and None not in (self.user, self.assistant)

    def encode(self, text: str, *, special: bool = False, tags: bool = False, framed: bool = False) -> list[int]:
        """Ids of ``text``, no control token added unless ``framed``.

        ``special`` parses every added token in ``text``, ``tags`` only the four reasoning tags; without
        either, text that merely looks like one is ordinary text. ``framed`` adds what the tokenizer puts around
        a text by itself, often a beginning of sentence: with ``special``, that is transformers' ``tokenizer(text)``.
        Lone surrogates, which are not text, become U+FFFD.
        """
        ids = self.encode_batch([text], special=special, tags=tags)[0]
        return [*self.before, *ids, *self.after] if framed else ids

    def encode_batch(self, texts: Sequence[str], *, special: bool = False, tags: bool = False) -> list[list[int]]:
        """``encode`` of many texts at once, in parallel."""
        clean = [valid_text(text) for text in texts]
        if special:
            return [encoding.ids for encoding in self.whole.encode_batch_fast(clean, add_special_tokens=False)]
        return (self.twins.tagged if tags else self.twins.plain).encode_batch(clean)

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of ``ids``; bytes that form no character become U+FFFD.

        ``skip_special`` leaves out the tokens marked special (of those trained here, the five control tokens) and
        keeps the reasoning tags. Raises UserError for an id outside the vocabulary.
        """
        return self.pieces.text(self._shown(ids, skip_special))

    def decode_stream(self, ids: Iterable[int], *, skip_special: bool = False) -> Iterator[str]:
        """``decode`` while the ids arrive: a character is emitted whole, when its last byte is there."""
        return self.pieces.stream(self._shown(ids, skip_special))

    def _shown(self, ids: Iterable[int], skip_special: bool) -> Iterator[int]:
        silent: frozenset[int] = self.silent if skip_special else frozenset()
        size = self.vocab_size
        for token in ids:
            if not 0 <= token < size:
                raise UserError(
                    f"token id {token} is outside the vocabulary of {size}",
                    next_step="Use the tokenizer saved beside the model; this one belongs to another.",
                )
            if token not in silent:
                yield token

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into ``folder``: of a loaded one its own, byte for byte.

        transformers' ``AutoTokenizer`` and vLLM load it. Raises UserError when the folder cannot be written.
        """
        try:
            for name, data in (self._own_files() if self.files else self._new_files()).items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _write(folder / name, data)
        except OSError as error:
            raise UserError(f"cannot save the tokenizer: {error}", where=str(folder)) from None

    def _own_files(self) -> dict[str, bytes]:
        """The files it came from; and a template, if it was given another since."""
        is_changed = self.template is not None and templates(self.files, "")[0] != self.template
        return {
            **self.files,
            **({"chat_template.jinja": self.template.encode()} if is_changed and self.template else {}),
        }

    def _new_files(self) -> dict[str, bytes]:
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **self.names,
            "clean_up_tokenization_spaces": False,
            "add_prefix_space": False,
        }
        return {
            "tokenizer.json": self.whole.to_str(pretty=True).encode(),
            "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False).encode(),
            "chat_template.jinja": (self.template or "").encode(),
        }

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The tokenizer in ``folder``, trained here or published (see ``folder.read_folder``).

        Raises UserError if it is missing, damaged, or of a kind that is not known here.
        """
        read = read_folder(folder)
        state = _as_transformers_reads(read)
        try:
            whole = Rust.from_str(read.files["tokenizer.json"].decode())
            parts = described(
                normalizer=state["normalizer"], pre_tokenizer=state["pre_tokenizer"], decoder=state["decoder"]
            )
        except Exception as error:  # the library raises bare Exception
            raise _damaged(str(error), read.where) from None
        whole.normalizer, whole.pre_tokenizer, whole.decoder = parts.normalizer, parts.pre_tokenizer, parts.decoder
        whole.no_truncation()
        whole.no_padding()
        whole.model.dropout = None
        _add_tokens(whole, read)
        return _tokenizer(whole, state, read)


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
    return _tokenizer(whole, json.loads(whole.to_str()), _TRAINED)


def _numbers_first(
    learned: dict[str, int], merges: list[tuple[str, str]], numbers: list[str], vocab_size: int
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges with special tokens, bytes and ``numbers`` in front, the learned rest behind.

    ``numbers`` are pairs of digits, then signed numbers: 12 forms before +12 does. A three-digit token is given both
    its merges (12+3 and 1+23), so that moving the pairs cannot cut it off.
    """
    front = dict.fromkeys([*SPECIAL, *BYTE_CHARS, *numbers])
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
        yield _NAMES.sub("\n", valid_text(text))


def _rust(model: models.BPE) -> Rust:
    rust = Rust(model)
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rust.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    rust.decoder = decoders.ByteLevel()
    return rust


def _tokenizer(whole: Rust, state: Mapping[str, Any], read: Folder) -> Tokenizer:
    """Put a tokenizer together. Raises UserError when it is not of a kind that is known here."""
    added = {token.content: token for token in whole.get_added_tokens_decoder().values()}
    source = (read.template or "") + (read.tool_template or "")
    control = tuple(content for content, token in added.items() if is_control(token, source))
    ids = {key: whole.token_to_id(content) if content in added else None for key, content in (CONTROL | TAGS).items()}
    named = {key: whole.token_to_id(content) for key, content in read.names.items()}
    pieces = make_pieces(whole.get_vocab(with_added_tokens=True), state["decoder"], read.where)
    stops = _stops(whole, read, named.get("eos_token"), len(pieces.table))
    before, after = _frame(whole)
    whole.post_processor = None  # it would blur where tokens begin; what it adds is known now
    return Tokenizer(
        twins=make_twins(whole, state, control, tuple(TAGS.values())),
        pieces=pieces,
        template=read.template,
        tool_template=read.tool_template,
        names=read.names,
        control=control,
        silent=frozenset(id_of(whole, content) for content, token in added.items() if token.special),
        before=before,
        after=after,
        stops=stops,
        files=read.files,
        bos=named.get("bos_token"),
        eos=stops[0],
        pad=named.get("pad_token"),
        **{key: ids[key] for key in ("user", "assistant", *TAGS)},
    )


def _as_transformers_reads(read: Folder) -> dict[str, Any]:
    """tokenizer.json with the changes that transformers 5 makes to it.

    It takes a tokenizer of class LlamaTokenizer that is not byte-level for one of Llama 2 and sets the parts
    beside the model itself: so text after a control token gets no blank in front, unless ``legacy`` asks for it.
    """
    state = read.state
    lacking = [key for key in ("model", "added_tokens", "decoder") if key not in state]
    model = state.get("model")
    if lacking or not isinstance(model, dict) or not isinstance(state["added_tokens"], list):
        raise _damaged(f"it lacks {lacking[0] if lacking else 'a model'}", read.where)
    is_pair_encoding = model.get("type", "BPE") == "BPE" and isinstance(model.get("vocab"), dict)
    if not is_pair_encoding or not isinstance(model.get("merges"), list):
        raise UserError(
            f"the tokenizer is of the kind {model.get('type')!r}, and only BPE is known here", where=read.where,
            next_step="Use a model of the families llama, mistral, qwen or deepseek.",
        )  # fmt: skip
    state = {"normalizer": None, "pre_tokenizer": None, **state, "model": {**model, "dropout": None}}
    kind = str(read.config.get("tokenizer_class", "")).removesuffix("Fast")
    parts = json.dumps([state["pre_tokenizer"], state["decoder"]])
    if kind != "LlamaTokenizer" or "ByteLevel" in parts or read.model_type in OTHER_TYPES:
        return state
    prefix = read.config.get("add_prefix_space", True) is not False
    scheme = ("always" if read.config.get("legacy") else "first") if prefix else "never"
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    blank = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    steps = [blank, {"type": "ByteFallback"}, {"type": "Fuse"}]
    steps += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    decoder = {"type": "Sequence", "decoders": steps}
    return state | {"normalizer": None, "pre_tokenizer": metaspace, "decoder": decoder}


def _add_tokens(whole: Rust, read: Folder) -> None:
    """Add what the configs add to tokenizer.json, in transformers' order, so that equal tokens get equal ids."""
    known = {repr(token) for token in whole.get_added_tokens_decoder().values()}
    tokens = [token for token in read.added if repr(token) not in known]
    seen = {token.content for token in (*whole.get_added_tokens_decoder().values(), *tokens)}
    for content in (*read.names.values(), *read.extra):
        if content not in seen:
            tokens.append(AddedToken(content, special=True))
            seen.add(content)
    named = set(read.names.values())
    whole.add_tokens([_as_special(token) if token.content in named else token for token in tokens])


def _as_special(token: AddedToken) -> AddedToken:
    return AddedToken(
        token.content, lstrip=token.lstrip, rstrip=token.rstrip, single_word=token.single_word,
        normalized=token.normalized, special=True,
    )  # fmt: skip


def _frame(whole: Rust) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the post-processor puts before and after a text."""
    framed, bare = whole.encode("a").ids, whole.encode("a", add_special_tokens=False).ids
    start = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
    return tuple(framed[:start]), tuple(framed[start + len(bare) :])


def _stops(whole: Rust, read: Folder, eos: int | None, size: int) -> tuple[int, ...]:
    """The ids at which a model stops: the tokenizer's own end first, then the configs', then the template's."""
    source = (read.template or "") + (read.tool_template or "")
    ends = (whole.token_to_id(token) for token in TURN_ENDS if token in source)
    stops = tuple(dict.fromkeys(token for token in (eos, *read.stops, *ends) if token is not None))
    if not stops:
        raise UserError(
            "the tokenizer names no token that ends a text", where=read.where,
            next_step="Name its eos_token in tokenizer_config.json.",
        )  # fmt: skip
    if wrong := [token for token in stops if not 0 <= token < size]:
        raise UserError(
            f"eos_token_id {wrong[0]} is outside the vocabulary of {size}", where=read.where,
            next_step="Use the generation_config.json and the tokenizer of one model.",
        )  # fmt: skip
    return stops


def _damaged(reason: str, where: str) -> UserError:
    return UserError(
        f"the tokenizer is damaged: {reason}"[:400],
        where=where,
        next_step="Copy the file again, or run the stage that wrote it again.",
    )


def _write(file: Path, data: bytes) -> None:
    """Write beside, flush to disk, then rename: a crash leaves the old file or the new one."""
    beside = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    with beside.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    beside.replace(file)
