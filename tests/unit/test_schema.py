"""JSON held to a schema: types apart, bounds, names; and texts and schemas that are refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

from seekling.errors import UserError
from seekling.verify.schema import Unreadable, check_schema, follows, read

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        "kind": {"enum": ["a", 1]},
        "on": {"const": True},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"name": "x"}, True), ({"name": "x", "count": 9, "tags": ["a"], "kind": 1, "on": True}, True),
        ({}, False), ({"name": ""}, False), ({"name": "abcdef"}, False), ({"name": 1}, False), ([], False),
        ({"name": "x", "count": 0}, False), ({"name": "x", "count": 10}, False), ({"name": "x", "count": 1.0}, False),
        ({"name": "x", "count": True}, False), ({"name": "x", "tags": []}, False), ({"name": "x", "tags": [1]}, False),
        ({"name": "x", "tags": ["a", "b", "c"]}, False), ({"name": "x", "kind": "b"}, False),
        ({"name": "x", "kind": True}, False), ({"name": "x", "on": 1}, False), ({"name": "x", "more": 1}, False),
    ],
)  # fmt: skip
def test_a_value_follows_or_not(value: Any, fits: bool) -> None:
    assert follows(value, SCHEMA) is fits


def test_a_number_is_an_integer_or_a_fraction_but_never_true() -> None:
    assert follows(1, {"type": "number"}) and follows(0.5, {"type": "number"})
    assert not follows(True, {"type": "number"}) and not follows("1", {"type": "number"})


@pytest.mark.parametrize(
    "text",
    ["", "{", "{} {}", '{"a": 1, "a": 2}', "NaN", "[Infinity]", "[" * 50_000, "9" * 60_000, "x" * 200_000, "{'a': 1}"],
)
def test_what_is_no_json_is_unreadable_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(Unreadable):
        read(text)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ([], "is an object"), ({"pattern": "a+"}, '"pattern"'), ({"type": "integre"}, "integre"),
        ({"properties": {"a": {"$ref": "#"}}}, "ref"), ({"items": {"anyOf": []}}, "anyOf"),
    ],
)  # fmt: skip
def test_a_schema_that_says_more_than_is_checked_is_refused(schema: Any, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        check_schema(schema)


def test_a_schema_of_known_words_is_taken() -> None:
    check_schema(SCHEMA)
