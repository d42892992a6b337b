"""From ids to text: the bytes of every id, and the rules by which a tokenizer's decoder joins them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from seekling.errors import UserError

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ORDER = ["Replace", "ByteFallback", "Fuse", "Strip"]


SPARE_IDS = 2**16
"""So many ids beyond twice the number of tokens are taken for a gap, and further ones for damage."""


def _byte_chars() -> list[str]:
    """The printable character that stands for each byte 0..255 in a byte-level vocabulary (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


BYTE_CHARS = _byte_chars()
_BYTE_OF = {char: byte for byte, char in enumerate(BYTE_CHARS)}


@dataclass(frozen=True, slots=True)
class Pieces:
    """``table[i]`` are the bytes of id ``i``; an id that no token has is empty.

    ``lone`` are the ids that stand for one byte each beside ids that stand for text: a run of them is text when
    the whole run is, and else one U+FFFD per byte. None says that all ids stand for bytes: then bytes that form
    no character become U+FFFD wherever they came from. ``stripped`` leading blanks of a text are left out.
    """

    table: tuple[bytes, ...]
    lone: frozenset[int] | None = None
    stripped: int = 0

    def text(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, which must be in the table."""
        if self.lone is None:
            return b"".join(map(self.table.__getitem__, ids)).decode("utf-8", "replace")
        return "".join(self.stream(ids))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """``text`` while the ids arrive, in parts that are never empty and never end inside a character."""
        blanks = self.stripped
        for part in _bytewise(self.table, ids) if self.lone is None else _runwise(self.table, self.lone, ids):
            kept = part
            while blanks and kept.startswith(" "):
                kept, blanks = kept[1:], blanks - 1
            if kept:
                blanks = 0
                yield kept


def make_pieces(vocab: Mapping[str, int], decoder: Any, where: str) -> Pieces:
    """The pieces of a vocabulary under a decoder as tokenizer.json describes it. Raises UserError for unknown kinds."""
    if max(vocab.values(), default=0) > 2 * len(vocab) + SPARE_IDS:
        raise UserError("the tokenizer's ids have gaps that no vocabulary has", where=where)
    steps = decoder["decoders"] if isinstance(decoder, dict) and decoder.get("type") == "Sequence" else [decoder]
    try:
        kinds = [step["type"] for step in steps]
        if kinds == ["ByteLevel"]:
            return Pieces(_table(vocab, _from_byte_level))
        if kinds and kinds == sorted(kinds, key=_ORDER.index) and "Fuse" in kinds:
            return _from_text(vocab, steps, kinds)
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(
        f"the tokenizer's decoder is of a kind that is not known here: {decoder!r}"[:300],
        where=where,
        next_step="Known are ByteLevel, and Replace, ByteFallback, Fuse and Strip in this order.",
    )


def _from_text(vocab: Mapping[str, int], steps: list[dict[str, Any]], kinds: list[str]) -> Pieces:
    swaps = [(step["pattern"]["String"], step["content"]) for step in steps if step["type"] == "Replace"]
    strip = [step for step in steps if step["type"] == "Strip"]
    if any(step["content"] != " " or step["stop"] for step in strip) or len(strip) > 1:
        raise ValueError

    def data(token: str) -> bytes:
        for old, new in swaps:
            token = token.replace(old, new)
        return token.encode()

    has_bytes = "ByteFallback" in kinds
    hexes = {place: found[1] for token, place in vocab.items() if (found := _BYTE.fullmatch(token)) and has_bytes}
    table = list(_table(vocab, data))
    for place, digits in hexes.items():
        table[place] = bytes.fromhex(digits)
    return Pieces(tuple(table), frozenset(hexes), strip[0]["start"] if strip else 0)


def _table(vocab: Mapping[str, int], data: Any) -> tuple[bytes, ...]:
    table = [b""] * (max(vocab.values(), default=-1) + 1)
    for token, place in vocab.items():
        table[place] = data(token)
    return tuple(table)


def _from_byte_level(token: str) -> bytes:
    """A token's bytes; one with a character that stands for no byte is taken as it is written."""
    try:
        return bytes([_BYTE_OF[char] for char in token])
    except KeyError:
        return token.encode()


def _bytewise(table: tuple[bytes, ...], ids: Iterable[int]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in ids:
        yield decoder.decode(table[token])
    yield decoder.decode(b"", final=True)


def _runwise(table: tuple[bytes, ...], lone: frozenset[int], ids: Iterable[int]) -> Iterator[str]:
    run = b""
    for token in ids:
        if token in lone:
            run += table[token]
            continue
        yield _run(run)
        run = b""
        yield table[token].decode()
    yield _run(run)


def _run(run: bytes) -> str:
    try:
        return run.decode()
    except UnicodeDecodeError:
        return "�" * len(run)
