"""Settings: frozen pydantic models read from TOML, with nearest-key errors, line numbers and fingerprints.

Nothing here knows torch. A field marked ``runtime()`` cannot change weights: it is left out of fingerprints,
recorded, and warned about when it differs.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seekling.errors import UserError, nearest

S = TypeVar("S", bound="Settings")

_UNION_MEMBER = re.compile(r"^(str|int|float|bool|none|(dict|tuple|list|function|constrained)[\[-].*)$")


class Settings(BaseModel):
    """Base of everything a manifest can say. Unknown keys are errors; values never change after reading."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, validate_default=True, allow_inf_nan=False
    )  # fmt: skip


def runtime(default: Any, **kwargs: Any) -> Any:
    """A field that cannot change weights (threads, device, logging): excluded from fingerprints."""
    return Field(default, json_schema_extra={"runtime": True}, **kwargs)


def runtime_fields(model: type[BaseModel]) -> set[str]:
    """Names of the fields of ``model`` marked ``runtime``."""
    extras = {name: field.json_schema_extra for name, field in model.model_fields.items()}
    return {name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("runtime")}


def weight_settings(settings: BaseModel) -> dict[str, Any]:
    """The settings that can change weights, nested, as plain JSON values."""
    skip = runtime_fields(type(settings))
    plain: dict[str, Any] = settings.model_dump(mode="json", exclude=skip)
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name not in skip and isinstance(value, BaseModel):
            plain[name] = weight_settings(value)
        elif name not in skip and isinstance(value, tuple) and all(isinstance(one, BaseModel) for one in value):
            plain[name] = [weight_settings(one) for one in value]
    return plain


def weight_values(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """``weight_settings`` of settings that were written, not parsed: what ``values`` say without the runtime fields."""
    skip, found = runtime_fields(model), dict[str, Any]()
    for name, value in values.items():
        field = model.model_fields.get(name)
        is_nested = field is not None and _is_settings(field.annotation) and isinstance(value, Mapping)
        if name not in skip:
            found[name] = weight_values(field.annotation, value) if is_nested else value  # type: ignore[union-attr, arg-type]
    return found


def fingerprint(*parts: Any) -> str:
    """SHA-256 of canonical JSON: equal parts, equal fingerprint, on every machine."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def parse(model: type[S], values: Mapping[str, Any], *, source: Source | None = None, path: str = "") -> S:
    """Validate ``values`` as ``model``. Raises UserError naming the setting, its line and the nearest known key."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise _letter(model, error, source or Source(), path) from None


class Source:
    """A TOML text that can say on which line a setting stands. ``name`` is what a person calls the file."""

    def __init__(self, text: str = "", name: str = "") -> None:
        self.text, self.name = text, name

    @classmethod
    def read(cls, file: Path) -> Source:
        """Read a file as UTF-8. Raises UserError when it is missing, a folder, unreadable or not text."""
        try:
            return cls(file.read_text(encoding="utf-8"), str(file))
        except FileNotFoundError:
            raise UserError(f"there is no file {file}", next_step="Check the path.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {file}: {error}") from None

    def values(self) -> dict[str, Any]:
        """The parsed TOML. Raises UserError with the line of the syntax error."""
        try:
            return tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{self.name} is not valid TOML: {error}", where=self.name) from None

    def where(self, path: Sequence[str | int]) -> str:
        """``file, line 12 (stage 2, steps)`` for a path such as ``("stage", 1, "steps")``."""
        line = self._line(path)
        place = ".".join(str(p) for p in path)
        return ", ".join(part for part in (self.name, f"line {line}" if line else "") if part) + f" ({place})"

    def _line(self, path: Sequence[str | int]) -> int | None:
        """Line of the longest prefix of ``path`` that stands in the text, counted from 1."""
        prefix: tuple[str | int, ...] = ()
        seen: dict[tuple[str | int, ...], int] = {}
        counts: dict[tuple[str | int, ...], int] = {}
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line):
                prefix = _table_path(header[2], counts, is_array=header[1] == "[[")
                seen.setdefault(prefix, number)
            elif key := re.match(r"""\s*("[^"]+"|'[^']+'|[\w.\-]+)\s*=""", line):
                own = (*prefix, *(part.strip("\"'") for part in key[1].split(".")))
                seen.setdefault(own, number)
        tail = tuple(path)
        while tail and tail not in seen:
            tail = tail[:-1]
        return seen.get(tail)


def _table_path(dotted: str, counts: dict[tuple[str | int, ...], int], *, is_array: bool) -> tuple[str | int, ...]:
    """``stage.loss`` inside the second ``[[stage]]`` becomes ``("stage", 1, "loss")``."""
    path: tuple[str | int, ...] = ()
    parts = [part.strip().strip("\"'") for part in dotted.split(".")]
    for depth, part in enumerate(parts):
        path = (*path, part)
        if is_array and depth == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _letter(model: type[BaseModel], error: ValidationError, source: Source, path: str) -> UserError:
    """The first validation error, in words a person can act on."""
    first = error.errors()[0]
    inside = _named(first["loc"])
    where = source.where([*(int(p) if p.isdigit() else p for p in path.split(".") if p), *inside])
    key = str(inside[-1]) if inside else path
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, inside[:-1])
        return UserError(f'unknown setting "{key}"', where=where, next_step=_sentence(nearest(key, known)))
    said = [e["msg"].removeprefix("Value error, ") for e in error.errors() if _named(e["loc"]) == inside]
    given = f" (given: {first['input']!r})" if first["type"] != "missing" else ""
    return UserError(f'setting "{key}": {", or: ".join(dict.fromkeys(said))}{given}'[:600], where=where)


def _named(location: Sequence[str | int]) -> list[str | int]:
    """The parts a person wrote: pydantic also names which member of a union it tried."""
    return [part for part in location if isinstance(part, int) or not _UNION_MEMBER.match(part)]


def _sentence(text: str) -> str:
    """With a capital first letter; the names in it stay as they are spelled."""
    return text[:1].upper() + text[1:]


def _known_keys(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Field names at ``path`` below ``model``, walking nested settings."""
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [a for a in (annotation, *getattr(annotation, "__args__", ())) if _is_settings(a)]
        if not inner:
            break
        model = inner[0]
    return list(model.model_fields)


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def parse_override(text: str) -> tuple[list[str], Any]:
    """``zero.steps=50`` -> ``(["zero", "steps"], 50)``; values are TOML, bare words are strings."""
    name, equals, raw = text.partition("=")
    if not equals or not name.strip():
        raise UserError(
            f'cannot read the setting "{text}"', next_step="Write it as stage.key=value, e.g. zero.steps=50"
        )
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return name.strip().split("."), value
