"""One vocabulary, read with different rights: which added tokens are parsed, and how a text may begin.

``whole`` parses every added token. ``plain`` parses none that controls anything, so that text which looks like a
control token is text; ``tagged`` parses the four reasoning tags besides; ``inner`` is ``plain`` for a text that
continues another, without the blank that some tokenizers put before a beginning. All share one model in memory.

Added tokens that are ordinary words (letters, blanks) control nothing and are parsed by all. (The library's own
switch, ``encode_special_tokens``, spares only tokens marked special, and many control tokens are not.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Rust

from seekling.errors import UserError

_MARKUP = re.compile(r"[<>\[\]|｜]")


@dataclass(frozen=True, slots=True, eq=False)
class Twin:
    """A reader of text. ``moved`` corrects ids that the library gave to added tokens on its own account."""

    rust: Rust
    moved: Mapping[int, int]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts at once, in parallel."""
        ids: list[list[int]] = [e.ids for e in self.rust.encode_batch_fast(texts, add_special_tokens=False)]
        if not self.moved:
            return ids
        return [[self.moved.get(token, token) for token in one] for one in ids]


@dataclass(frozen=True, slots=True, eq=False)
class Twins:
    """The readers of one vocabulary.

    ``after`` reads what follows a control token. ``splitter`` finds control tokens in a text, and ``found[i]`` is
    the id of the one it calls ``i``. ``exact`` says that control tokens are matched in a text as it stands, before
    it is normalised.
    """

    whole: Rust
    plain: Twin
    tagged: Twin
    inner: Twin
    after: Twin
    splitter: Rust
    found: tuple[int, ...]
    exact: bool


def id_of(rust: Rust, content: str) -> int:
    """The id of a token that is known to be there."""
    place: int | None = rust.token_to_id(content)
    assert place is not None, content
    return place


def is_control(token: AddedToken, template: str) -> bool:
    """Whether an added token is more than a word: marked special, written like markup, or in the template.

    A single character is always a word: it cannot be told from text.
    """
    content = token.content
    if len(content) < 2:
        return False
    return token.special or bool(_MARKUP.search(content)) or (content in template and not content.isspace())


def make_twins(whole: Rust, state: Mapping[str, Any], control: Sequence[str], tags: Collection[str]) -> Twins:
    """The twins of ``whole``, whose parts ``state`` describes, for the ``control`` tokens among its added ones."""
    added = {token.content: token for _, token in sorted(whole.get_added_tokens_decoder().items())}
    words = [token for content, token in added.items() if content not in set(control)]
    model = _without_leaks(whole, state["model"], control)
    parts = state["normalizer"], state["pre_tokenizer"]
    plain = _twin(whole, model, parts, words)
    continued = _continued(parts[0]), _continued(parts[1])
    inner = plain if continued == parts else _twin(whole, model, continued, words)
    splitter = Rust(models.WordLevel({"?": 0}, unk_token="?"))
    splitter.add_tokens([_raw(added[content]) for content in control])
    return Twins(
        whole=whole,
        plain=plain,
        tagged=_twin(whole, model, parts, [*words, *(added[tag] for tag in tags if tag in added)]),
        inner=inner,
        after=inner if '"first"' in json.dumps(parts[1]) else plain,
        splitter=splitter,
        found=(-1, *(id_of(whole, content) for content in control)),
        exact=_is_idle(parts[0]) or not any(added[content].normalized for content in control),
    )


def described(model: Mapping[str, Any] | None = None, **parts: Any) -> Rust:
    """A tokenizer of the library from descriptions in the manner of tokenizer.json; what is not given is absent."""
    absent = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    return Rust.from_str(json.dumps({"version": "1.0", "added_tokens": [], **absent, **parts, "model": model or empty}))


def _twin(whole: Rust, model: Any, parts: tuple[Any, Any], added: Iterable[AddedToken]) -> Twin:
    rust = described(normalizer=parts[0], pre_tokenizer=parts[1])
    rust.model = model
    tokens = list(added)
    rust.add_tokens(tokens)
    ids = {id_of(rust, token.content): id_of(whole, token.content) for token in tokens}
    moved = {theirs: ours for theirs, ours in ids.items() if theirs != ours}
    if any(model.id_to_token(theirs) is not None for theirs in moved):
        raise UserError("the tokenizer's vocabulary has gaps, so that its added tokens cannot be told apart")
    return Twin(rust, moved)


def _without_leaks(whole: Rust, model: Mapping[str, Any], control: Sequence[str]) -> Any:
    """``whole``'s model; or, where plain text could spell a control token, one that cannot.

    A model spells what its merges make, and, if it ignores them for words it knows, what it knows.
    """
    listed = {content for content in control if content in model["vocab"]}
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    kept = [pair for pair in pairs if "".join(pair) not in listed]
    knows = bool(listed) and model.get("ignore_merges")
    if len(kept) == len(pairs) and not knows:
        return whole.model
    vocab = model["vocab"]
    if knows:  # a NUL stands in no word of such a model
        kept = [pair for pair in kept if not listed & set(pair)]
        vocab = {f"\0{token}" if token in listed else token: place for token, place in vocab.items()}
    return described({**model, "vocab": vocab, "merges": kept}).model


def _continued(part: Any) -> Any:
    """A normalizer or pre-tokenizer, described, for a text that continues another."""
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "Prepend":
        return None
    if kind == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if kind == "ByteLevel":
        return {**part, "add_prefix_space": False}
    if kind == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        return {**part, key: [kept for each in part[key] if (kept := _continued(each)) is not None]}
    return part


def _is_idle(normalizer: Any) -> bool:
    """Whether a normalizer, described, changes nothing."""
    return not normalizer or (normalizer["type"] == "Sequence" and all(map(_is_idle, normalizer["normalizers"])))


def _raw(token: AddedToken) -> AddedToken:
    return AddedToken(
        token.content, lstrip=token.lstrip, rstrip=token.rstrip, single_word=token.single_word, normalized=False
    )
