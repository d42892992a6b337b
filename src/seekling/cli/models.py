"""Commands about a model as such: what it is, is it sound, where it differs from another, and out of the house."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from seekling.cli.show import find_model
from seekling.errors import UserError
from seekling.model.exchange import config_from, passed_over
from seekling.plan.inspect import describe, loaders, size, unusual
from seekling.remote.hub import Source, is_hub_name, locate
from seekling.runlog.files import read_json


def inspect_command(runs: Path, model: str, revision: str) -> None:
    """Print what a model is, from its config and tokenizer alone."""
    source = locate_any(runs, model, revision, weights=False)
    values = read_json(source.folder / "config.json")
    config = config_from(values, str(source.folder / "config.json"))
    table = Table("", "", title=Text(model), show_header=False, title_justify="left")
    rows = describe(config) | _files(source) | _words(source.folder)
    rows |= {f"loads in {engine}": text for engine, text in loaders(config).items()}
    for label, text in rows.items():
        table.add_row(label, Text(text))
    for remark in unusual(config, values, passed_over(values)):
        table.add_row("unusual", Text(remark))
    Console(highlight=False).print(table)


def locate_any(runs: Path, model: str, revision: str = "", *, weights: bool = True) -> Source:
    """A model by folder, run, RUN/STAGE or hub name, in this order. Raises UserError naming what is near."""
    places = (runs / model, runs / model.partition("/")[0], Path(model))
    is_run = any((place / "run.json").exists() for place in places)
    if is_run or not (is_hub_name(model) or (Path(model) / "config.json").exists()):
        return locate(str(find_model(runs, model)), weights=weights)
    return locate(model, revision, weights=weights, tell=Console(stderr=True, highlight=False).print)


def _files(source: Source) -> dict[str, str]:
    shards = source.weights
    where = f"commit {source.commit}" if source.commit else str(source.folder)
    total = sum(file.num_bytes for file in shards)
    return {"weights on disk": f"{size(total)} in {len(shards)} files" if shards else "none here", "from": where}


def _words(folder: Path) -> dict[str, str]:
    """What the tokenizer and its template are."""
    from seekling.text.tokenizer import Tokenizer

    if not (folder / "tokenizer.json").exists():
        return {"tokenizer": "none here"}
    tokenizer = Tokenizer.load(folder)
    special = tokenizer.whole.get_added_tokens_decoder()
    shown = [token.content for token in special.values()]
    few = ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
    stops = [special[stop].content if stop in special else str(stop) for stop in tokenizer.stops]
    return {
        "tokenizer": f"{tokenizer.vocab_size:,} ids; stops at {', '.join(stops)}",
        "special tokens": few,
        "chat template": _template(folder),
    }


def _template(folder: Path) -> str:
    """Where a template stands and which constructs it uses."""
    file = folder / "chat_template.jinja"
    told = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    text = file.read_text(encoding="utf-8") if file.exists() else told.get("chat_template")
    if not isinstance(text, str):
        return "none: the shipped one is used"
    marks = {"tools": "tools", "system": "system", "think>": "thinking", "enable_thinking": "enable_thinking",
             "generation %}": "generation marks"}  # fmt: skip
    uses = [word for mark, word in marks.items() if mark in text]
    return f"{len(text):,} characters" + (f"; knows {', '.join(uses)}" if uses else "")


def export_command(runs: Path, model: str, folder: Path, dtype: str, shard_gb: float) -> None:
    """Write a complete model repository and say which engines load it."""
    from seekling.recipes.exporting import export_model, lineage, new_folder
    from seekling.report.card import render_card
    from seekling.runlog.files import write_atomic, write_json

    source = locate_any(runs, model).folder
    run, stage = run_of(source)
    with new_folder(folder) as beside:
        export_model(source, beside, dtype=dtype, shard_bytes=int(shard_gb * 2**30))
        shape, engines = told_of(beside)
        if run is not None:
            write_json(beside / "seekling/lineage.json", lineage(run, stage))
            write_atomic(beside / "seekling/manifest.toml", (run / "manifest.toml").read_text(encoding="utf-8"))
        card = render_card(folder.name, shape, engines, run=run, stage=stage)
        write_atomic(beside / "README.md", card)
    console = Console(highlight=False)
    console.print(f"exported {model} to {folder}", markup=False)
    for engine, text in engines.items():
        console.print(f"  {engine:<14} {text}", markup=False, soft_wrap=True)


def told_of(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What a model folder is, and which engines load it."""
    from seekling.model.foreign import is_foreign

    values = read_json(folder / "config.json")
    if is_foreign(folder):
        family = str(values.get("model_type"))
        return {"family": family}, {"transformers": "yes", "vLLM": f"if it serves models of type {family}"}
    config = config_from(values, "config.json")
    return describe(config), loaders(config)


def run_of(model: Path) -> tuple[Path | None, str]:
    """The run and stage a model folder belongs to, or nothing."""
    stage, run = model.parent, model.parent.parent
    if (stage / "stage.json").exists() and (run / "run.json").exists():
        return run, str(read_json(stage / "stage.json")["name"])
    return None, ""


def diff_command(runs: Path, one: str, other: str, text: str) -> None:
    """Print how far the logits of two models are apart on one text, and the first layer where they part."""
    import torch

    from seekling.evals.diff import difference
    from seekling.model.decoder import Rows
    from seekling.model.weights import load_model
    from seekling.text.tokenizer import Tokenizer

    folders = [locate_any(runs, model).folder for model in (one, other)]
    models = [load_model(folder) for folder in folders]
    sizes = {model.config.vocab_size for model in models}
    if len(sizes) > 1:
        raise UserError(f"the two have vocabularies of {' and '.join(map(str, sorted(sizes)))}: no logits to compare")
    ids = [Tokenizer.load(folder).encode(text) for folder in folders]
    if ids[0] != ids[1]:
        Console(stderr=True).print("the two tokenizers cut this text differently; both models read the first's tokens")
    tokens = torch.tensor(ids[0][: min(model.config.max_position_embeddings for model in models)]).unsqueeze(0)
    found = difference(
        models[0], models[1], Rows(tokens, torch.arange(tokens.shape[1]).unsqueeze(0), torch.ones_like(tokens))
    )
    _show_difference(found, tokens.shape[1])


def _show_difference(found: Any, num_tokens: int) -> None:
    first = found.first_parted
    where = "the embedding" if first == 0 else f"layer {first} of {len(found.layers) - 1}"
    parted = "no layer" if first is None else where
    if not found.layers:
        parted = "not told: the shapes differ"
    table = Table("", "", show_header=False)
    for label, value in {
        "tokens compared": str(num_tokens), "largest difference of logits": f"{found.logits:.3g}",
        "relative to the largest logit": f"{found.relative:.3g}", "mean KL, nats": f"{found.kl:.3g}",
        "same best token": f"{found.same_best:.1%}", "parted first behind": parted,
    }.items():  # fmt: skip
        table.add_row(label, value)
    Console(highlight=False).print(table)
