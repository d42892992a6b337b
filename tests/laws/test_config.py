"""Laws of settings: what is written is read back, and a fingerprint depends on values, not on their order."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from seekling.config import Source, fingerprint
from seekling.recipes.manifest import _toml_table

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
plain = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(text, plain, max_size=4))
def test_every_value_a_manifest_can_hold_survives_being_written(values: dict[str, Any]) -> None:
    assert tomllib.loads(_toml_table(values)) == values


@given(st.dictionaries(text, plain, max_size=4))
def test_a_fingerprint_ignores_the_order_of_keys(values: dict[str, Any]) -> None:
    backwards = dict(reversed(list(values.items())))
    assert fingerprint(values) == fingerprint(backwards)


@given(st.dictionaries(text, plain, min_size=1, max_size=4), st.data())
def test_a_fingerprint_notices_any_key_that_goes(values: dict[str, Any], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(values)))
    assert fingerprint(values) != fingerprint({key: value for key, value in values.items() if key != gone})


name = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)


@given(st.lists(st.dictionaries(name, st.integers(), min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_every_key_of_every_stage_is_found_on_its_line(stages: list[dict[str, int]], data: st.DataObject) -> None:
    lines = ["# a comment"]
    places = {}
    for index, stage in enumerate(stages):
        lines += ["", "[[stage]]"]
        for key, value in stage.items():
            lines.append(f"{key} = {value}")
            places[index, key] = len(lines)
    index, key = data.draw(st.sampled_from(sorted(places)))
    assert f"line {places[index, key]} " in Source("\n".join(lines), "x.toml").where(["stage", index, key])
