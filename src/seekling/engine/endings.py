"""Whether any text under a JSON schema or a Lark grammar can end, as far as that is plain to see.

A schema that requires itself, or a rule all of whose ways lead back to it, would be said until the room runs out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MOST_STEPS, MOST_ROUNDS = 100_000, 20
"""How long is looked for an end, in schemas and in passes over a grammar's rules: what takes longer is in doubt."""


def schema_ends(schema: Any) -> bool:
    """Whether an instance of a JSON schema can be finite; in doubt it can."""
    try:
        return _ends(schema, schema, frozenset(), iter(range(MOST_STEPS)))
    except RecursionError:
        return True


def _ends(schema: Any, root: Any, open_: frozenset[str], steps: Iterator[int]) -> bool:
    """``open_`` are the references on the way here: what leads back to one has no end this way."""
    if not isinstance(schema, Mapping) or next(steps, None) is None:
        return True
    ref = schema.get("$ref")
    if isinstance(ref, str) and (ref in open_ or not _ends(_at(root, ref), root, open_ | {ref}, steps)):
        return False

    def ends(inner: Any) -> bool:
        return _ends(inner, root, open_, steps)

    if any(ways and not any(map(ends, ways)) for key in ("anyOf", "oneOf") if (ways := _listed(schema, key))):
        return False
    return all(map(ends, [*_listed(schema, "allOf"), *_needed(schema)]))


def _needed(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas of what must stand in a value that can be nothing but an object, or nothing but an array."""
    kind, properties, least = schema.get("type"), schema.get("properties"), schema.get("minItems")
    if kind in ("object", ["object"]) and isinstance(properties, Mapping):
        return [
            properties[name] for name in _listed(schema, "required") if isinstance(name, str) and name in properties
        ]
    if kind in ("array", ["array"]) and isinstance(least, int | float):
        first = _listed(schema, "prefixItems")
        return [*first[: int(least)], *([schema.get("items")] if least > len(first) else [])]
    return []


def _listed(schema: Mapping[str, Any], key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _at(root: Any, ref: str) -> Any:
    """What a reference within a schema leads to; true, which allows all, where that is not plain."""
    if not ref.startswith("#"):
        return True
    here = root
    for part in ref[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        here = here.get(key, True) if isinstance(here, Mapping) else True
    return here


_HEAD = re.compile(r"^[ \t]*[?!]?(_?[a-z]\w*)(?:\[[^\]\n]*\])?(?:\.-?\d+)?[ \t]*:", re.MULTILINE)
_WORD = re.compile(
    r"""(?P<gap>\s+|//[^\n]*|\#[^\n]*|->\s*\w+)
    |(?P<text>"(?:[^"\\\n]|\\.)*"i?(?:\s*\.\.\s*"(?:[^"\\\n]|\\.)*")?|/(?:[^/\\\n]|\\.)+/[a-z]*|<[^>\n]*>|_?[A-Z]\w*)
    |(?P<rule>_?[a-z]\w*)|(?P<some>[{]\s*[1-9][^}\n]*[}]|~\s*[1-9]\d*(?:\s*\.\.\s*\d+)?)|(?P<any>[{][^}\n]*[}]|~\s*0[\s.\d]*)
    |(?P<sign>[()\[\]|?*+])""",
    re.VERBOSE,
)  # fmt: skip


_SIGNS = frozenset("()[]|?*+")


def schemas_within(lark: str) -> list[Any]:
    """The JSON schemas that a Lark grammar holds. Raises ValueError for one that is none."""
    read = json.JSONDecoder().raw_decode
    return [read(lark, found.end())[0] for found in re.finditer(r"%json\s*", lark)]


def lark_ends(lark: str) -> bool:
    """Whether a text from ``start`` can be finite; in doubt it can.

    A rule can end when one of its ways holds only what can: texts, terminals, and rules already found to end.
    """
    heads = list(_HEAD.finditer(lark))
    stops = [*(head.start() for head in heads[1:]), len(lark)]
    rules = {head[1]: _letters(lark[head.end() : stop]) for head, stop in zip(heads, stops, strict=True)}
    if None in rules.values() or "start" not in rules:
        return True
    good: set[str] = set()
    for _ in range(MOST_ROUNDS):
        before = len(good)
        for name, words in reversed(rules.items()):
            if name not in good and _fits(words or [], good, rules):
                good.add(name)
        if len(good) == before:
            return "start" in good
    return True


def _letters(body: str) -> list[str] | None:
    """A rule's words: ``.`` for a text, ``?`` or ``+`` for how often, signs and names; None where it is not plain."""
    words, place = [], 0
    body = re.split(r"^[ \t]*(?:%|[A-Z_][A-Z0-9_]*(?:\[[^\]\n]*\])?\s*:)", body, maxsplit=1, flags=re.MULTILINE)[0]
    while place < len(body):
        if not (found := _WORD.match(body, place)):
            return None
        kind, place = found.lastgroup or "", found.end()
        if kind != "gap":
            words.append({"text": ".", "some": "+", "any": "?"}.get(kind, found[0]))
    return words


def _fits(words: list[str], good: set[str], rules: Mapping[str, Any]) -> bool:
    """Whether a rule can end, by folding its groups from within: ``a`` can, ``b`` cannot."""
    flat = "".join(word if word in _SIGNS else "b" if word in rules and word not in good else "a" for word in words)
    while (folded := _folded(flat)) != flat:
        flat = folded
    return any("b" not in way for way in flat.split("|"))


def _folded(flat: str) -> str:
    flat = re.sub(r"\[[ab|]*\]|[ab][?*]", "a", flat)
    flat = re.sub(r"([ab])\+", r"\1", flat)
    return re.sub(r"\(([ab|]*)\)", lambda group: "b" if all("b" in way for way in group[1].split("|")) else "a", flat)
