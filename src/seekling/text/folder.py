"""A published tokenizer's folder: which files belong to it, and what its JSON says.

The rules are those of transformers 5, which others load the same folder with. ``tokenizer.json`` is the tokenizer;
``tokenizer_config.json`` names tokens and may add some, ``special_tokens_map.json`` and ``added_tokens.json`` do so
where the former has no ``added_tokens_decoder``; a template in a file of its own comes before one in the config.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from seekling.errors import UserError
from seekling.text.guard import valid_text

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
"""The files of a tokenizer. The last three are carried along unread."""

OTHER_KINDS = ("tokenizer.model", "vocab.json", "tiktoken.model", "tekken.json", "spiece.model")
"""What a repository without tokenizer.json may hold instead."""

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<｜end▁of▁sentence｜>")
"""Tokens that end a turn where a template writes them, whatever the configs say: base models' often forget it."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A tokenizer's folder, read.

    ``state`` is tokenizer.json parsed, ``names`` the named special tokens (``eos_token`` ...), ``added`` what the
    configs add or flag otherwise, ``stops`` the ids under ``eos_token_id`` of the model's configs, ``model_type`` the
    model's. ``files`` are the tokenizer's own files as they are.
    """

    where: str
    files: Mapping[str, bytes]
    state: dict[str, Any]
    config: Mapping[str, Any]
    names: Mapping[str, str]
    added: tuple[AddedToken, ...]
    extra: tuple[str, ...]
    template: str | None
    tool_template: str | None
    stops: tuple[int, ...]
    model_type: str


def read_folder(folder: Path) -> Folder:
    """Read it. Raises UserError naming the file that is missing, damaged or not of the kind it should be."""
    files = dict(_tokenizer_files(folder))
    if "tokenizer.json" not in files:
        raise _missing(folder)
    config = _object(files, "tokenizer_config.json", folder)
    values = dict(config)
    legacy = "added_tokens_decoder" not in config
    special = _object(files, "special_tokens_map.json", folder)
    values = values | special if legacy else special | values
    where = str(folder / "tokenizer_config.json")
    named, extra = _names(values, where)
    template, tool_template = templates(files, str(folder))
    model = _optional(folder / "config.json")
    return Folder(
        where=str(folder / "tokenizer.json"),
        files=files,
        state=_object(files, "tokenizer.json", folder),
        config=config,
        names={key: _content(value, where) for key, value in named.items()},
        added=tuple(_added(config, _object(files, "added_tokens.json", folder) if legacy else {}, named, where)),
        extra=tuple(extra),
        template=template,
        tool_template=tool_template,
        stops=(*_stops(folder / "generation_config.json"), *_stops(folder / "config.json")),
        model_type=str(model.get("model_type", "")),
    )


def templates(files: Mapping[str, bytes], where: str) -> tuple[str | None, str | None]:
    """The chat template, and the one to use when tools are given, where there are two."""
    config = _parsed(files.get("tokenizer_config.json", b"{}"), f"{where}/tokenizer_config.json")
    found = config.get("chat_template")
    if isinstance(found, list):
        rows = (row for row in found if isinstance(row, dict))
        named = {str(row.get("name")): row.get("template") for row in rows}
    else:
        named = {"default": found}
    own = {name: data for name, data in files.items() if name.endswith(".jinja")}
    if own:
        named = {
            "default" if name == "chat_template.jinja" else Path(name).stem: _decoded(data, f"{where}/{name}")
            for name, data in own.items()
        }
    default, for_tools = named.get("default"), named.get("tool_use")
    return default if isinstance(default, str) else None, for_tools if isinstance(for_tools, str) else None


def read_bytes(file: Path) -> bytes:
    """A file's content. Raises UserError when it is not there or cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise _unreadable(error, str(file)) from None


def _tokenizer_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in FILES:
        if (folder / name).is_file():
            yield name, read_bytes(folder / name)
    for file in sorted((folder / "chat_templates").glob("*.jinja")):
        yield f"chat_templates/{file.name}", read_bytes(file)


def _missing(folder: Path) -> UserError:
    where = str(folder / "tokenizer.json")
    other = next((name for name in OTHER_KINDS if (folder / name).is_file()), None)
    if other is None:
        return UserError(
            "there is no tokenizer here", where=where, next_step="Name the folder that holds tokenizer.json."
        )
    return UserError(
        f"only {other} is here, and tokenizer.json is needed",
        where=where,
        next_step="Save it once with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER).",
    )


def _names(values: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """The named special tokens as they are given, and the further ones without a name."""
    named = {key: values[key] for key in NAMED if values.get(key) is not None}
    named |= {
        key: value
        for key, value in values.items()
        if key.endswith("_token") and isinstance(value, str) and key not in NAMED
    }
    extra = values.get("extra_special_tokens") or values.get("additional_special_tokens") or []
    if isinstance(extra, dict):
        return named | extra, []
    if not isinstance(extra, list):
        raise _wrong("extra_special_tokens is no list", where)
    return named, [_content(token, where) for token in extra]


def _added(
    config: Mapping[str, Any], loose: Mapping[str, Any], named: Mapping[str, Any], where: str
) -> Iterator[AddedToken]:
    """The tokens that the configs add, in the order of their ids."""
    listed = config.get("added_tokens_decoder", {})
    if not isinstance(listed, dict) or not all(isinstance(token, dict) for token in listed.values()):
        raise _wrong("added_tokens_decoder is no table of tokens", where)
    try:
        for _, token in sorted(listed.items(), key=lambda item: int(item[0])):
            yield _token(token)
        special = {_content(value, where) for value in named.values()}
        for content, _ in sorted(loose.items(), key=lambda item: int(item[1])):
            yield AddedToken(content, special=content in special, normalized=content not in special)
    except (KeyError, TypeError, ValueError) as error:
        raise _wrong(f"an added token is none: {error}", where) from None


def _token(token: Mapping[str, Any]) -> AddedToken:
    flags = {
        key: bool(token[key]) for key in ("lstrip", "rstrip", "normalized", "single_word", "special") if key in token
    }
    return AddedToken(token["content"], **flags)


def _content(token: Any, where: str) -> str:
    """A token's text, given as text or as a table."""
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str) or valid_text(content) is not content:
        raise _wrong("a special token is neither text nor a table with its content", where)
    return content


def _stops(file: Path) -> list[int]:
    value = _optional(file).get("eos_token_id")
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in listed):
        raise _wrong(f"eos_token_id is {value!r}, which is no token id", str(file))
    return listed


def _optional(file: Path) -> dict[str, Any]:
    return _parsed(read_bytes(file), str(file)) if file.is_file() else {}


def _object(files: Mapping[str, bytes], name: str, folder: Path) -> dict[str, Any]:
    return _parsed(files[name], str(folder / name)) if name in files else {}


def _parsed(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(_decoded(data, where))
    except (ValueError, RecursionError) as error:
        raise _wrong(f"not valid JSON: {error}", where) from None
    if not isinstance(value, dict):
        raise _wrong("not valid JSON: it is no object", where)
    return value


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unreadable(error, where) from None


def _unreadable(error: Exception, where: str) -> UserError:
    return UserError(f"cannot read the tokenizer: {error}", where=where, next_step="Copy the file again.")


def _wrong(what: str, where: str) -> UserError:
    return UserError(what[:300], where=where, next_step="Copy the file again, or mend it.")
