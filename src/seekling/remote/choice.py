"""Which files of a repository or folder count: a model's weights and texts, the rows of a data set. Nothing is fetched.

A model's files all lie in the top folder; what lies deeper (original/, onnx/) is some other form of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from seekling.errors import UserError

TEXTS = (
    "config.json", "generation_config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "*.jinja",
)  # fmt: skip
"""What is read of a model besides its weights and their index."""
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
ROWS = (".jsonl", ".json", ".parquet")
ABOUT_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""JSON beside a data set that holds no rows."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as a folder or the hub lists it. ``digest`` is its SHA-256 where the hub states one, else ""."""

    name: str
    num_bytes: int
    digest: str = ""


def model_files(
    name: str, listing: Mapping[str, Listed], read: Callable[[str], Path], *, weights: bool
) -> tuple[list[Listed], list[Listed]]:
    """The texts and the weights of a model, from the names in its top folder; ``read`` brings its index here.

    Raises UserError when there is no config.json or, with ``weights``, no whole set of safetensors.
    """
    if "config.json" not in listing:
        raise _no_config(name, listing)
    texts = [file for key, file in sorted(listing.items()) if any(fnmatchcase(key, pattern) for pattern in TEXTS)]
    if SINGLE not in listing and INDEX in listing:
        shards = _shards(name, read(INDEX), listing, weights=weights)
        return [*texts, listing[INDEX]], [listing[shard] for shard in shards if shard in listing]
    # As transformers does: one whole file counts, whatever an index says beside it.
    whole = [SINGLE] if SINGLE in listing else sorted(key for key in listing if key.endswith(".safetensors"))
    if weights and len(whole) != 1:
        raise _no_index(name, whole) if whole else _no_safetensors(name, listing)
    return texts, [listing[key] for key in whole]


def _shards(name: str, index: Path, listing: Mapping[str, Listed], *, weights: bool) -> list[str]:
    """The files an index names: plain names in the same folder, all of them there."""
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [shard for shard in shards or [""] if not re.fullmatch(r"[\w.+-]+\.safetensors", shard)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{index.name} of {name} is damaged: it has no map of weights to files") from None
    if outside:
        raise UserError(
            f"{index.name} of {name} names {outside[0]!r}, which is no safetensors file in the same folder",
            next_step="Such an index is wrong or means harm: do not use this model.",
        )
    if weights and (missing := [shard for shard in shards if shard not in listing]):
        raise UserError(
            f"{name} lacks {len(missing)} of {len(shards)} files of weights: {', '.join(missing[:3])}",
            next_step="Fetch them again, or copy the folder whole.",
        )
    return shards


def _no_index(name: str, shards: Sequence[str]) -> UserError:
    return UserError(
        f"{name} has {len(shards)} files of weights and no index that says which belong together",
        where=", ".join(shards[:3]),
        next_step=f"Bring {INDEX} beside them, or keep the one file that is meant.",
    )


def _no_config(name: str, listing: Mapping[str, Listed]) -> UserError:
    if "adapter_config.json" in listing:
        return UserError(
            f"{name} is an adapter, not a model: it has no config.json",
            next_step="Merge it into its base model with peft (merge_and_unload, save_pretrained); name that folder.",
        )
    shown = ", ".join(sorted(listing)[:5]) or "nothing"
    return UserError(f"{name} has no config.json, so it is no model (it holds {shown})", next_step="Check the name.")


def _no_safetensors(name: str, listing: Mapping[str, Listed]) -> UserError:
    pickled = [key for key in sorted(listing) if any(fnmatchcase(key, pattern) for pattern in PICKLED)]
    if not pickled:
        shown = ", ".join(key for key in sorted(listing) if key.endswith((".gguf", ".h5", ".msgpack", ".onnx")))
        return UserError(
            f"{name} holds no safetensors weights" + (f" (only {shown})" if shown else ""),
            next_step="Name a repository or folder with *.safetensors files in its top folder.",
        )
    return UserError(
        f"{name} has pickled weights only ({pickled[0]}), and unpickling runs whatever code such a file holds",
        next_step="On the hub, look for a safetensors conversion among the repository's pull requests and name it with "
        "revision refs/pr/N (the space safetensors/convert makes one). Or, if you trust the file, load it once with "
        "transformers and save_pretrained a folder.",
    )


def data_files(name: str, listing: Mapping[str, Listed], path: str, split: str) -> list[Listed]:
    """One split's files of one part of a data set: numbered siblings of one format, or what ``path`` names.

    Raises UserError listing what is there when there is none, or when several could be meant.
    """
    rows = sorted(key for key in listing if key.endswith(ROWS) and key.rpartition("/")[2] not in ABOUT_ROWS)
    if named := [key for key in rows if fnmatchcase(key, path)]:  # a file, or a pattern such as data/*.jsonl
        return [listing[key] for key in named]
    below = [key for key in rows if not path or key.startswith(f"{path}/")]
    if not below:
        what = f"no parquet, JSONL or JSON files at {path}" if path else "no parquet, JSONL or JSON files"
        near = get_close_matches(path, [*rows, *{key.rpartition("/")[0] for key in rows}], n=1) if path else []
        raise UserError(f"data set {name} has {what}", next_step=f"Did you mean {name}:{near[0]}?" if near else "")
    parts: dict[str, list[str]] = {}
    for key in _of_split(name, below, split):
        parts.setdefault(_part(key), []).append(key)
    if len(parts) > 1:
        ways = ", ".join(f"{name}:{keys[0] if len(keys) == 1 else part}" for part, keys in list(parts.items())[:8])
        raise UserError(
            f'data set {name} has {len(parts)} parts of split "{split}" that could be meant',
            next_step=f"Name one as data: {ways}",
        )
    return [listing[key] for keys in parts.values() for key in keys]


def _part(key: str) -> str:
    """The pattern of a file among its numbered siblings: ``data/train-*-of-*.parquet``."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + re.sub(r"\d+", "*", re.sub(r"-[0-9a-f]{16}(?=\.)", "-*", name))


SPLITS = {
    "train": "train|training", "validation": "validation|valid|val|dev", "test": "test|testing|eval|evaluation"
}  # fmt: skip
"""The words by which files of a split are known."""


def _of_split(name: str, keys: Sequence[str], split: str) -> list[str]:
    """The files whose path holds the split's word. Where no path holds any split's word, all are ``train``."""
    found = {known: [key for key in keys if _holds(key, words)] for known, words in SPLITS.items()}
    wanted = found.get(split) or [key for key in keys if _holds(key, re.escape(split))]
    if not wanted and split == "train" and not any(found.values()):
        return list(keys)
    if not wanted:
        there = ", ".join(known for known, have in found.items() if have) or "none by name"
        raise UserError(f'data set {name} has no split "{split}"', next_step=f"Splits found: {there}.")
    return wanted


def _holds(key: str, words: str) -> bool:
    return bool(re.search(rf"(?:^|[/._-])(?:{words})(?:[/._-])", key))
