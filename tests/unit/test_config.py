"""Settings: strict keys, letters with lines, fingerprints that only weights can change, overrides in TOML."""

from __future__ import annotations

import pytest
from pydantic import Field

from seekling.config import (
    Settings,
    Source,
    fingerprint,
    parse,
    parse_override,
    runtime,
    runtime_fields,
    weight_settings,
)
from seekling.errors import UserError, nearest


class Inner(Settings):
    rate: float = Field(0.1, gt=0)
    rows: int = runtime(4)


class Outer(Settings):
    steps: int = 5
    inner: Inner = Inner()
    names: str | tuple[str, ...] = ()
    shares: dict[str, float] = Field({})
    threads: int = runtime(1)


TEXT = """\
steps = 3
threads = 2

# [[part]] is a comment
[[part]]
name = "a"
[[part]]
name = "b"
shares = { x = 1, y = 2 }
[part.inner]
"rate" = 0.5
inner.deep = 1
"""


def test_a_value_never_changes_after_reading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().steps = 6  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stops": 3}, ('unknown setting "stops"', 'Did you mean "steps"?')),
        ({"inner": {"rat": 3}}, ('unknown setting "rat"', '"rate"', "inner.rat")),
        ({"qqq": 3}, ("Known here: inner, names, shares, steps, threads",)),
        ({"steps": "many"}, ('"steps"', "integer", "'many'")),
        ({"inner": {"rate": 0}}, ('"rate"', "greater than 0")),
        ({"inner": {"rate": float("inf")}}, ('"rate"', "finite")),
        ({"inner": {"rate": float("nan")}}, ('"rate"', "finite")),
        ({"names": 7}, ('setting "names"', "string", "tuple", "given: 7")),
        ({"shares": {"x": "lots"}}, ('"x"', "number", "shares.x")),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_known(values: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as raised:
        parse(Outer, values)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (["steps"], 1), (["threads"], 2), (["part", 0, "name"], 6), (["part", 1, "name"], 8),
        (["part", 1, "shares", "y"], 9), (["part", 1, "inner", "rate"], 11),
        (["part", 1, "inner", "inner", "deep"], 12),
        (["part", 1, "missing"], 7),
    ],
)  # fmt: skip
def test_a_setting_is_found_on_its_line(path: list[str | int], line: int) -> None:
    assert f"file.toml, line {line} (" in Source(TEXT, "file.toml").where(path)


def test_a_setting_that_stands_nowhere_has_no_line() -> None:
    assert Source(TEXT, "file.toml").where(["nowhere"]) == "file.toml (nowhere)"


def test_a_file_that_cannot_be_read_is_a_letter(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "latin.toml").write_bytes(b"name = '\xff'")
    for place, words in (
        (folder / "none.toml", "there is no file"),
        (folder, "cannot read"),
        (folder / "latin.toml", "cannot read"),
    ):
        with pytest.raises(UserError, match=words):
            Source.read(place)
    with pytest.raises(UserError, match="line 2"):
        Source("a = 1\nb = = 2", "x.toml").values()


def test_runtime_settings_are_left_out_at_every_depth() -> None:
    assert runtime_fields(Outer) == {"threads"}
    plain = weight_settings(Outer())
    assert "threads" not in plain and plain["inner"] == {"rate": 0.1}
    one = fingerprint(weight_settings(Outer(threads=1, inner=Inner(rows=1))))
    assert one == fingerprint(weight_settings(Outer(threads=9, inner=Inner(rows=9))))
    assert one != fingerprint(weight_settings(Outer(steps=6)))
    assert one != fingerprint(weight_settings(Outer(inner=Inner(rate=0.2))))


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("zero.steps=50", ["zero", "steps"], 50),
        ("seed=1", ["seed"], 1),
        ("base.optim.lr=3e-4", ["base", "optim", "lr"], 3e-4),
        ('base.model="tiny"', ["base", "model"], "tiny"),
        ("base.model=tiny-v3", ["base", "model"], "tiny-v3"),
        ("base.verdicts=false", ["base", "verdicts"], False),
        ("c.from=['a', 'b']", ["c", "from"], ["a", "b"]),
        ("c.gate={ loss = { max = 1 } }", ["c", "gate"], {"loss": {"max": 1}}),
        ("c.data=a=b.jsonl", ["c", "data"], "a=b.jsonl"),
        ("c.data=", ["c", "data"], ""),
        (" c.data = x ", ["c", "data"], "x"),
    ],
)
def test_an_override_is_a_dotted_path_and_a_toml_value(text: str, path: list[str], value: object) -> None:
    assert parse_override(text) == (path, value)


@pytest.mark.parametrize("text", ["steps", "=5", " =5", ""])
def test_an_override_without_name_or_value_shows_how_to_write_it(text: str) -> None:
    with pytest.raises(UserError, match=r"stage\.key=value"):
        parse_override(text)


def test_the_nearest_name_is_offered_or_all_are_listed() -> None:
    assert nearest("stops", ["steps", "name"]) == 'did you mean "steps"?'
    assert nearest("qqq", ["b", "a"]) == "known here: a, b"
