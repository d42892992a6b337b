"""Answers that keep to a JSON schema, a regular expression or a Lark grammar, whatever the model would rather say.

written -> compiled once for a tokenizer -> per answer a matcher, which reads each token and says what may come next

llguidance matches. It gets the bytes of every id; what is control, and when a stop may come, is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.engine.endings import lark_ends, schema_ends, schemas_within
from seekling.engine.rules import NEVER, Follower, Thought, begun, forbid
from seekling.errors import UserError
from seekling.text.tokenizer import Tokenizer
from seekling.text.twins import id_of

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

LARGEST = {"json": 2**16, "regex": 2**13, "lark": 2**14}
"""Bytes that a schema, an expression or a grammar may have: what the library is slow with takes a second then."""
MOST_OF = 10_000
"""The largest count (of items, properties, characters) that a schema may set."""

_ADDED = torch.tensor([[0.0 if byte >> bit & 1 else NEVER for bit in range(8)] for byte in range(256)])
"""For every byte of a mask what its eight bits add to eight scores."""

_BLANKS = r"[\x20\x0A\x0D\x09]{1,40}"
"""What may stand between the parts of a JSON text: never so much that a model loses itself there."""


@dataclass(frozen=True, slots=True)
class Written:
    """A grammar as it was given."""

    kind: Literal["json", "regex", "lark"]
    text: str


def from_schema(schema: Any) -> Written:
    """A JSON schema, as a value or as text. Raises UserError for what is none, or is too large."""
    try:
        value = json.loads(schema) if isinstance(schema, str) else schema
        written = Written("json", json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad("json", str(error)) from None
    if not isinstance(value, dict | bool):
        raise _bad("json", "a schema is an object, true or false")
    return written


class Grammar(Follower):
    """The answer's text keeps to a grammar; a stop may come exactly where that may end, and then nothing else.

    With a thought the text begins after its close, before which no stop may come; an answer that does not begin with
    the thought's opening, and stands in none, begins at once. Raises UserError for a grammar that does not compile, is
    too large or takes too long, can say nothing, or cannot end.
    """

    def __init__(
        self, written: Written, tokenizer: Tokenizer, thought: Thought | None = None, stops: Sequence[int] | None = None
    ) -> None:
        self.compiled = compiled(written, tokenizer)
        self.thought, self.stops = thought, tokenizer.stops if stops is None else tuple(stops)
        super().__init__()

    def begin(self) -> None:
        """Where the answer begins: in a thought, perhaps before one, or in the text. ``since`` is where that began."""
        self.place: Literal["opening", "thought", "text"] = "text"
        if self.thought is not None:
            self.place = "thought" if self.thought.started else "opening"
        self._wait()

    def _wait(self) -> None:
        """A matcher that has read nothing."""
        self.matcher, self.alone, self.since = self.compiled.matcher.deep_copy(), False, len(self.seen)

    def read(self, token: int) -> None:
        """Hand the matcher what is text, and notice where that begins."""
        if self.place == "opening":
            self._open(token)
        elif self.place == "text":
            self._match(token)
        elif self.thought and begun(self.seen, self.thought.close, self.since) == len(self.thought.close):
            self.place, self.since = "text", len(self.seen)

    def _open(self, token: int) -> None:
        """One more token of an answer that so far is what an opening begins with: it may be text as well."""
        assert self.thought is not None
        mark, length = self.thought.open, len(self.seen)
        if tuple(self.seen) != mark[:length]:
            self.place = "text"
        elif length == len(mark):
            self.place = "thought"
            self._wait()
            return
        self._match(token)

    def _match(self, token: int) -> None:
        if token not in self.stops:
            self.matcher.consume_token(token)

    def limit(self, said: Sequence[int], logits_V: Tensor) -> None:
        """-inf at what the grammar does not allow next."""
        self.follow(said)
        if self.place == "thought":
            forbid(logits_V, self.stops)
            return
        mask_M = self._allowed()
        if self.place == "opening" and self.thought is not None:
            _set(mask_M, self.thought.open[len(self.seen)])
        added_V = _ADDED.to(logits_V.device)[torch.from_numpy(mask_M).to(logits_V.device).long()].flatten()
        logits_V[: len(added_V)] += added_V[: len(logits_V)]
        logits_V[len(added_V) :] = NEVER

    def _allowed(self) -> NDArray[np.uint8]:
        """The mask of what the text may go on with, eight ids a byte, the lowest id in the lowest bit."""
        mask = self.matcher.compute_bitmask()
        if self.matcher.is_error() and not self.alone:
            self._stand_alone()
            mask = self.matcher.compute_bitmask()
        if self.matcher.is_error():
            return np.zeros_like(self.compiled.speakable_M)
        mask_M = _speakable(mask, self.compiled.speakable_M)
        if self.matcher.is_accepting():
            for stop in self.stops:
                _set(mask_M, stop)
        return mask_M

    def _stand_alone(self) -> None:
        """Read the text again with a lexer of its own. Copies of a matcher share theirs, with what it has come to know:
        an answer that is too much for its limits would be too much for all."""
        self.alone = True
        self.compiled.matcher = self.compiled.anew()
        self.matcher = self.compiled.anew()
        for token in self.seen[self.since :]:
            self._match(token)

    def trouble(self) -> str:
        """Why nothing more can be said; empty where something can, or where a stop can."""
        return self.matcher.get_error()


def _set(mask_M: NDArray[np.uint8], token: int) -> None:
    mask_M[token >> 3] |= 1 << (token & 7)


def _speakable(mask: bytes, speakable_M: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The library's mask, whose last word may be one more than needed, less what is no text."""
    return np.frombuffer(mask, np.uint8)[: len(speakable_M)] & speakable_M


class Compiled:
    """A matcher that has read nothing, to be copied, and the mask of what may stand in a text."""

    def __init__(self, written: Written, vocabulary: Vocabulary) -> None:
        self.written, self.tokens, self.speakable_M = written, vocabulary.tokens, vocabulary.speakable_M
        self.matcher = self.anew()

    def anew(self) -> LLMatcher:
        """A matcher that shares nothing."""
        return _matcher(self.written, self.tokens)


@lru_cache(maxsize=64)
def compiled(written: Written, tokenizer: Tokenizer) -> Compiled:
    """A grammar made ready; equal ones once per tokenizer. Raises UserError as ``Grammar`` says."""
    schemas = _schemas(written)
    known = _vocabulary(tokenizer)
    try:
        made = Compiled(written, known)
        trouble = _trouble(made.matcher.deep_copy(), known.speakable_M)
    except BaseException as error:  # a panic in the library is no Exception
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise _bad(written.kind, str(error)) from None
        raise
    if trouble:
        raise _bad(written.kind, trouble)
    if not (all(map(schema_ends, schemas)) and (written.kind != "lark" or lark_ends(written.text))):
        raise _bad(written.kind, "no text under it can end: it asks for itself again and again")
    return made


def _trouble(matcher: LLMatcher, speakable_M: NDArray[np.uint8]) -> str:
    """Why nothing can be said, or nothing after a first token, where most of what is too complex comes to light."""
    mask_M = _speakable(matcher.compute_bitmask(), speakable_M)
    first = np.flatnonzero(np.unpackbits(mask_M, bitorder="little"))
    if len(first):
        matcher.consume_token(int(first[0]))
        matcher.compute_bitmask()
    elif not matcher.is_error() and not matcher.is_accepting():
        return "nothing can be said under it"
    return matcher.get_error()


def _matcher(written: Written, tokens: LLTokenizer) -> LLMatcher:
    from llguidance import LLMatcher, LLParserLimits

    if written.kind == "json":
        grammar = LLMatcher.grammar_from_json_schema(written.text, overrides={"whitespace_pattern": _BLANKS})
    elif written.kind == "regex":
        grammar = LLMatcher.grammar_from_regex(written.text)
    else:
        grammar = LLMatcher.grammar_from_lark(written.text)
    limits = LLParserLimits(verbose_errors=False, initial_lexer_fuel=200_000, max_lexer_states=50_000)
    return LLMatcher(tokens, grammar, log_level=0, limits=limits)


def _schemas(written: Written) -> list[Any]:
    """The JSON schemas in it. Raises UserError for what the library does not look at: size, and counts that it would
    lay out one by one."""
    try:
        size = len(written.text.encode())
        schemas = {"json": lambda: [json.loads(written.text)], "lark": lambda: schemas_within(written.text)}
        held = schemas.get(written.kind, list)() if size <= LARGEST[written.kind] else []
        most = max((count for schema in held for count in _counts(schema)), default=0)
    except (ValueError, RecursionError) as error:  # a lone surrogate, too
        raise _bad(written.kind, str(error)) from None
    if size > LARGEST[written.kind]:
        raise _bad(written.kind, f"it has {size} bytes, and {LARGEST[written.kind]} are allowed")
    if most > MOST_OF:
        raise _bad(written.kind, f"it counts to {most}, and {MOST_OF} is the most")
    return held


def _counts(schema: Any) -> Iterator[float]:
    """Every number that a schema counts up to."""
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key.startswith(("min", "max")) and key.endswith(("Items", "Properties", "Length", "Contains")):
            yield value if isinstance(value, int | float) else 0
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _counts(inner)


def _bad(kind: str, why: str) -> UserError:
    return UserError(
        f"the {_NAMES[kind]} cannot be kept to: {why.strip()}"[:400], where=kind,
        next_step="Mend or simplify it; what the library llguidance does not know, it refuses.",
    )  # fmt: skip


_NAMES = {"json": "JSON schema", "regex": "regular expression", "lark": "Lark grammar"}


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """A tokenizer as the library wants it, and the mask of what may stand in a text."""

    tokens: LLTokenizer
    speakable_M: NDArray[np.uint8]


class _Bytes:
    """What the library asks of a tokenizer, by the library's names."""

    def __init__(self, tokenizer: Tokenizer, special: Sequence[int]) -> None:
        self.eos_token_id, self.bos_token_id = tokenizer.eos, None
        self.tokens, self.special_token_ids = list(tokenizer.pieces.table), list(special)
        self.twin = tokenizer.twins.inner
        self.id_of = {piece: place for place, piece in enumerate(self.tokens) if len(piece) == 1}

    def __call__(self, text: str) -> list[int]:
        """Ids of a text in the middle of another: what a grammar leaves no choice about is said in these.

        Where the tokenizer would change the text first (NFC), they are its bytes, one by one.
        """
        ids = self.twin.encode_batch([text])[0]
        if b"".join(self.tokens[token] for token in ids) == text.encode():
            return ids
        return [self.id_of[bytes([byte])] for byte in text.encode()]


@lru_cache(maxsize=4)
def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    from llguidance import LLTokenizer, TokenizerWrapper

    control = [id_of(tokenizer.whole, token) for token in tokenizer.control]
    special = sorted({*control, *tokenizer.silent, *tokenizer.stops})
    tokens = LLTokenizer(TokenizerWrapper(_Bytes(tokenizer, special)), eos_token=list(tokenizer.stops))
    speakable_V = np.array([bool(piece) for piece in tokenizer.pieces.table])
    speakable_V[special] = False
    return Vocabulary(tokens, np.packbits(speakable_V, bitorder="little"))
