"""JSON held to a schema: the part of JSON Schema that a prompt can ask for, read strictly.

Known: ``type``, ``enum``, ``const``, ``properties``, ``required``, ``additionalProperties`` (true or false),
``items``, ``minItems``, ``maxItems``, ``minimum``, ``maximum``, ``minLength``, ``maxLength``. A schema that says more
is refused when it is read, so that nothing in it goes unchecked. True is no number, ``1.0`` is no integer, a name said
twice makes the whole text unreadable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from seekling.errors import UserError, nearest

MAX_CHARS = 100_000
_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
_SIZES: Mapping[str, tuple[type | tuple[type, ...], Callable[[Any], Any], int]] = {
    "minItems": (list, len, 1), "maxItems": (list, len, -1),
    "minLength": (str, len, 1), "maxLength": (str, len, -1),
    "minimum": ((int, float), lambda value: value, 1), "maximum": ((int, float), lambda value: value, -1),
}  # fmt: skip
"""What each bounds, how it is measured, and whether the bound is a least (1) or a most (-1)."""
_KNOWN = {
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", "description", "title", *_SIZES
}  # fmt: skip


class Unreadable(ValueError):
    """A text that is no JSON, or that says a name twice."""


def read(text: str, number: Callable[[str], Any] | None = None) -> Any:
    """The JSON that ``text`` is, and nothing but it. Raises Unreadable.

    ``number`` reads a number's text; without it there are ints and floats.
    """
    if len(text) > MAX_CHARS:
        raise Unreadable("far too long")
    try:
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_constant, parse_int=number, parse_float=number
        )
    except (ValueError, RecursionError) as error:
        raise Unreadable(str(error)[:200]) from None


def check_schema(schema: Any) -> None:
    """Raises UserError for a schema that says what is not known here."""
    if not isinstance(schema, Mapping):
        raise UserError(f"a schema is an object, not {schema!r}"[:200])
    for word, value in schema.items():
        if word not in _KNOWN:
            raise UserError(f'a schema says "{word}", which nothing here checks', next_step=nearest(word, _KNOWN))
        if word == "type" and value not in _TYPES:
            raise UserError(f"a schema names the type {value!r}", next_step=nearest(str(value), _TYPES))
    for part in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
        check_schema(part)


def follows(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether ``value``, as read, is what ``schema`` asks for."""
    if "type" in schema and not _TYPES[schema["type"]](value):
        return False
    if "enum" in schema and not any(_equal(value, one) for one in schema["enum"]):
        return False
    if "const" in schema and not _equal(value, schema["const"]):
        return False
    return _in_bounds(value, schema) and _parts_follow(value, schema)


def _in_bounds(value: Any, schema: Mapping[str, Any]) -> bool:
    for word, (kind, measure, side) in _SIZES.items():
        is_bound = word in schema and isinstance(value, kind) and not isinstance(value, bool)
        if is_bound and side * measure(value) < side * schema[word]:
            return False
    return True


def _parts_follow(value: Any, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, list) and "items" in schema:
        return all(follows(part, schema["items"]) for part in value)
    if not isinstance(value, dict):
        return True
    known = schema.get("properties", {})
    if any(name not in value for name in schema.get("required", ())):
        return False
    if schema.get("additionalProperties") is False and any(name not in known for name in value):
        return False
    return all(follows(value[name], part) for name, part in known.items() if name in value)


def _equal(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unreadable("a name is said twice")
    return found


def _no_constant(name: str) -> Any:
    raise Unreadable(f"{name} is no JSON")
