"""A run as its files tell it: typed, frozen, tolerant of what is missing, strict about what is broken.

Everything shown anywhere (report, ``seekling show``, the terminal's last lines) is read here. A missing file
is an absent part; the torn last line of an append-only log is a crash and is left out; a broken line before
it, or a broken document, is a UserError that names the file and the line.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seekling.config import fingerprint
from seekling.errors import UserError
from seekling.records import StepRecord
from seekling.report.view import (
    Control,
    CurationView,
    Estimate,
    EvalView,
    Gate,
    GatheringView,
    LedgerRow,
    Load,
    Origin,
    Parent,
    ProblemView,
    Regression,
    RolloutView,
    RunView,
    SelfTest,
    SessionView,
    Sieved,
    StageView,
)
from seekling.runlog.files import read_json, read_lines
from seekling.runlog.ledger import Cost

_LOAD = re.compile(r"load/([^/]+)/(\d+)")


def read_run(run: Path) -> RunView:
    """Read a run directory. Raises UserError when it is none, or when a file in it is broken."""
    if not run.is_dir():
        raise UserError(f"there is no run at {run}", next_step="`seekling runs` lists the runs that there are.")
    info = _document(run / "run.json")
    manifest = _read_text(run / "manifest.toml")
    found = [stage for stage in map(_stage, _stage_folders(run)) if stage is not None]
    stages, older = _current(found, {_text(folder) for folder in _list(info.get("stages"))})
    return RunView(
        folder=run,
        name=_text(info.get("name")) or run.resolve().name,
        version=_text(info.get("version")),
        commit=_text(info.get("commit")),
        created=_text(info.get("created")),
        seed=_seed(info, manifest),
        manifest=manifest,
        sessions=tuple(_session(_mapping(s)) for s in _list(info.get("sessions"))),
        stages=stages,
        ledger=_ledger(_entries(run / "ledger.jsonl"), stages),
        older=older,
    )


def _document(file: Path) -> Mapping[str, Any]:
    """A JSON object; nothing when the file is missing."""
    return _mapping(read_json(file)) if file.exists() else {}


def _entries(file: Path) -> list[Mapping[str, Any]]:
    return [_mapping(line) for line in read_lines(file)]


def _read_text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _stage_folders(run: Path) -> list[Path]:
    return sorted(file.parent for file in run.glob("*/stage.json"))


def _stage(folder: Path) -> StageView | None:
    info = _document(folder / "stage.json")
    if not info:
        return None
    lines = _entries(folder / "metrics.jsonl")
    figures = _numbers(info.get("figures"))
    name, _, digest = folder.name.rpartition("-")
    return StageView(
        folder=folder,
        name=_text(info.get("name")) or name,
        kind=_text(info.get("kind")),
        fingerprint=_text(info.get("fingerprint")) or digest,
        state=_text(info.get("state")) or "unknown",
        index=int(_number(info.get("index")) or 0),
        start=next(_names(_mapping(info.get("inputs")).get("from")), ""),
        inputs=tuple(_names(info.get("inputs"))),
        settings=_mapping(info.get("settings")),
        figures=figures,
        gates=tuple(_gates(_mapping(info.get("gate")), figures)),
        selftests=tuple(_selftest(_mapping(t)) for t in _list(info.get("selftests"))),
        selftest_seconds=_number(info.get("selftest_seconds")),
        seconds=_number(info.get("seconds")),
        steps=_steps(lines),
        expert_load=_expert_load(lines),
        evaluations=tuple(_evaluations(_document(folder / "eval.json"))),
        controls=tuple(_controls(_mapping(_document(folder / "control.json").get("controls")))),
        curation=_curation(_document(folder / "curate.json")),
        gathering=_gathering(_document(folder / "gathered.json")),
        regressions=tuple(_regression(_mapping(r)) for r in _document(folder / "regression.json").values()),
        origin=_origin(info),
        ended=_ended(_mapping(info.get("ended"))),
    )


def _origin(info: Mapping[str, Any]) -> Origin:
    parents = [
        Parent(_text(p.get("name")), _text(p.get("fingerprint")), _texts(p.get("left")))
        for p in map(_mapping, _list(info.get("parents")))
    ]
    data = {str(name): _digest(value) for name, value in _mapping(info.get("data")).items()}
    code = [(_text(c.get("version")), _text(c.get("commit"))) for c in map(_mapping, _list(info.get("code")))]
    return Origin(tuple(parents), data, tuple(code))


def _digest(value: Any) -> str:
    """One digest for what a stage read, which may be many files: theirs, or one of all."""
    if isinstance(value, dict) and len(value) == 1:
        return _digest(next(iter(value.values())))
    return value if isinstance(value, str) else fingerprint(value)


def _ended(data: Mapping[str, Any]) -> tuple[int, int] | None:
    steps, of = _whole(data.get("steps")), _whole(data.get("of"))
    return None if steps is None or of is None else (steps, of)


def _current(stages: list[StageView], listed: set[str]) -> tuple[tuple[StageView, ...], tuple[str, ...]]:
    """Of a stage's folders the one ``run.json`` lists, else the last begun; and the others' names."""
    newest = {s.name: s for s in sorted(stages, key=lambda s: (s.folder.name in listed, _begun(s)))}
    current = sorted(newest.values(), key=lambda s: (s.index, s.name))
    return tuple(current), tuple(sorted({s.folder.name for s in stages} - {s.folder.name for s in current}))


def _begun(stage: StageView) -> tuple[str, float]:
    file = stage.folder / "stage.json"
    return _text(_document(file).get("started")), file.stat().st_mtime


def _steps(lines: Iterable[Mapping[str, Any]]) -> tuple[StepRecord, ...]:
    last: dict[int, StepRecord] = {}
    for line in lines:
        step = int(_number(line.get("step")) or 0)
        last[step] = StepRecord(
            step=step,
            session=int(_number(line.get("session")) or 0),
            seconds=_number(line.get("seconds")) or 0.0,
            tokens=int(_number(line.get("tokens")) or 0),
            flops=_number(line.get("flops")) or 0.0,
            metrics=_numbers(line.get("metrics")),
        )
    return tuple(last[step] for step in sorted(last))


def _expert_load(lines: Iterable[Mapping[str, Any]]) -> dict[str, Load]:
    layers: dict[str, dict[int, tuple[float, ...]]] = {}
    for line in lines:
        step = int(_number(line.get("step")) or 0)
        for layer, values in _load_of(_mapping(line.get("metrics"))).items():
            layers.setdefault(layer, {})[step] = values
    order = sorted(layers, key=lambda layer: (len(layer), layer))
    return {layer: tuple(sorted(layers[layer].items())) for layer in order}


def _load_of(metrics: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Load per layer: from ``expert_load = {layer: [...]}``, or flat ``load/<layer>/<expert>`` figures."""
    nested = {str(k): [_number(v) or 0.0 for v in _list(vs)] for k, vs in _mapping(metrics.get("expert_load")).items()}
    for name, value in metrics.items():
        if key := _LOAD.fullmatch(name):
            experts = nested.setdefault(key[1], [])
            experts += [0.0] * (int(key[2]) + 1 - len(experts))
            experts[int(key[2])] = _number(value) or 0.0
    return {layer: tuple(values) for layer, values in nested.items()}


def _evaluations(data: Mapping[str, Any]) -> Iterator[EvalView]:
    """The evaluation that the file holds, or those it lists."""
    listed = _list(data.get("evaluations")) if "evaluations" in data else [data]
    yield from (_evaluation(one) for one in map(_mapping, listed) if one)


def _evaluation(data: Mapping[str, Any]) -> EvalView:
    curves = ("pass_at_k", "maj_at_k", "by_size", "criteria")
    named = {k: e for k, v in data.items() if k not in curves and isinstance(v, dict) and (e := _estimate(v))}
    return EvalView(
        model=_text(data.get("model")),
        task=_text(data.get("task")),
        label=_text(data.get("label")) or _text(data.get("task")),
        problems=int(_number(data.get("problems")) or 0),
        samples=int(_number(data.get("samples")) or 0),
        seed=_whole(data.get("seed")),
        pass_at_k=_by_k(data.get("pass_at_k")),
        maj_at_k=_by_k(data.get("maj_at_k")),
        figures=named,
        by_size=dict(sorted(_estimates(data.get("by_size")).items(), key=lambda item: (len(item[0]), item[0]))),
        criteria=_estimates(data.get("criteria")),
        rollouts=tuple(_problem(_mapping(p)) for p in _list(data.get("rollouts"))),
    )


def _problem(data: Mapping[str, Any]) -> ProblemView:
    rollouts = tuple(
        RolloutView(_text(r.get("text")), _text(r.get("verdict")) or "unknown", _whole(r.get("tokens")))
        for r in map(_mapping, _list(data.get("rollouts")))
    )
    return ProblemView(
        id=_text(data.get("problem_id")),
        prompt=_text(data.get("prompt")),
        answer=_text(data.get("answer")),
        size=_text(data.get("size")),
        rollouts=rollouts,
    )


def _controls(data: Mapping[str, Any]) -> Iterator[Control]:
    for name, raw in data.items():
        values = _mapping(raw)
        tries = _number(values.get("k"))
        rate = next((e for key in ("pass_1", "pass_k", "value") if (e := _estimate(values.get(key)))), None)
        rate = rate or _estimate(values)
        tokens = _estimate(values.get("tokens"))
        yield Control(name, _text(values.get("what")), rate, tokens, tries)


def _curation(data: Mapping[str, Any]) -> CurationView | None:
    if not data:
        return None
    return CurationView(
        drawn=int(_number(data.get("drawn")) or 0),
        kept=int(_number(data.get("kept")) or 0),
        steps=tuple(_sieved(_mapping(step)) for step in _list(data.get("steps"))),
        pass_rates={name: int(count) for name, count in _numbers(data.get("pass_rates")).items()},
    )


def _gathering(data: Mapping[str, Any]) -> GatheringView | None:
    if not data:
        return None
    wanted, asked, came, found, merged = (
        int(_number(data.get(name)) or 0) for name in ("wanted", "asked", "came", "found", "merged")
    )
    steps = tuple(_sieved(_mapping(step)) for step in _list(data.get("steps")))
    examples = tuple(_problem(_mapping(problem)) for problem in _list(data.get("examples")))
    return GatheringView(_text(data.get("task")), wanted, asked, came, found, merged, steps, examples)


def _sieved(data: Mapping[str, Any]) -> Sieved:
    examples = tuple((_text(e.get("prompt")), _text(e.get("why"))) for e in map(_mapping, _list(data.get("examples"))))
    before, removed = (int(_number(data.get(name)) or 0) for name in ("before", "removed"))
    return Sieved(_text(data.get("name")), before, removed, examples)


def _regression(data: Mapping[str, Any]) -> Regression:
    before, after = (_by_k(_mapping(data.get(when)).get("pass_at_k")).get(1) for when in ("before", "after"))
    return Regression(_text(data.get("name")), before, after, _estimate(data.get("change")))


def _gates(data: Mapping[str, Any], figures: Mapping[str, float]) -> Iterator[Gate]:
    """``{"pass@1": {"min": 0.6}}`` -> one gate per bound."""
    for figure, bounds in data.items():
        reached = figures.get(figure)
        for side, bound in _numbers(bounds).items():
            if side in ("min", "max"):
                words = f"{'at least' if side == 'min' else 'at most'} {bound:g}"
                yield Gate(figure, words, reached, _meets(side, bound, reached))


def _meets(side: str, bound: float, reached: float | None) -> bool | None:
    if reached is None:
        return None
    return reached >= bound if side == "min" else reached <= bound


def _selftest(data: Mapping[str, Any]) -> SelfTest:
    figure, limit = (_text(data.get(key)) for key in ("figure", "limit"))
    return SelfTest(_text(data.get("name")), figure, limit, data.get("passed") is True)


def _seed(info: Mapping[str, Any], manifest: str) -> int | None:
    """The seed, from ``run.json`` or the manifest; a manifest that is no TOML is only shown, not read."""
    if (seed := _whole(info.get("seed"))) is not None:
        return seed
    try:
        return _whole(tomllib.loads(manifest).get("seed"))
    except tomllib.TOMLDecodeError:
        return None


def _session(data: Mapping[str, Any]) -> SessionView:
    return SessionView(
        session=int(_number(data.get("session")) or 0),
        started=_text(data.get("started")),
        hardware=_hardware(_mapping(data.get("hardware"))),
        threads=_whole(data.get("threads")),
        device=_text(data.get("device")),
        dtype=_text(data.get("dtype")),
        torch=_text(data.get("torch")),
    )


def _hardware(data: Mapping[str, Any]) -> str:
    """``Some CPU, 2 cores, 16.8 GB`` from what there is."""
    cores, memory = _whole(data.get("cores")), _number(data.get("memory_bytes"))
    parts = [
        _text(data.get("cpu")),
        f"{cores} cores" if cores else "",
        f"{memory / 1e9:.1f} GB" if memory else "",
        _text(data.get("accelerator")),
    ]
    return ", ".join(part for part in parts if part)


def _ledger(lines: Iterable[Mapping[str, Any]], stages: Sequence[StageView]) -> tuple[LedgerRow, ...]:
    """Rows per (stage, kind of work), stages in the order of the run, then any the run has no folder for."""
    spent: dict[tuple[str, str], Cost] = {}
    last: dict[tuple[str, str], dict[str, Cost]] = {}
    current = {stage.folder.name for stage in stages} | {""}
    for line in lines:
        key = (_text(line.get("stage")), _text(line.get("kind")))
        cost, kept = _cost(line), last.setdefault(key, {})
        spent[key] = spent.get(key, Cost()) + cost
        if _text(line.get("folder")) in current:  # work of a stage that was changed since is spent, not kept
            kept[_text(line.get("step"))] = cost
    order = {name: n for n, stage in enumerate(stages) for name in (stage.name, stage.folder.name)}
    keys = sorted(spent, key=lambda key: order.get(key[0], len(order)))
    return tuple(LedgerRow(*key, spent[key], sum(last[key].values(), Cost())) for key in keys)


def _cost(line: Mapping[str, Any]) -> Cost:
    tokens, flops, seconds = (_number(line.get(key)) or 0.0 for key in ("tokens", "flops", "seconds"))
    return Cost(int(tokens), flops, seconds)


def _names(value: Any) -> Iterator[str]:
    """Names of stages in ``inputs``: strings, in dictionaries and lists of any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _names(inner)


def _by_k(value: Any) -> dict[int, Estimate]:
    return {int(k): e for k, e in sorted(_estimates(value).items(), key=lambda i: len(i[0])) if k.isdigit()}


def _estimates(value: Any) -> dict[str, Estimate]:
    return {str(key): e for key, v in _mapping(value).items() if (e := _estimate(v))}


def _estimate(value: Any) -> Estimate | None:
    """``{"value", "low", "high"}`` or a bare number."""
    if (number := _number(value)) is not None:
        return Estimate(number)
    data = _mapping(value)
    number = _number(data.get("value"))
    return None if number is None else Estimate(number, _number(data.get("low")), _number(data.get("high")))


def _numbers(value: Any) -> dict[str, float]:
    return {str(key): n for key, v in _mapping(value).items() if (n := _number(v)) is not None}


def _texts(value: Any) -> dict[str, str]:
    return {str(key): _text(v) for key, v in _mapping(value).items()}


def _number(value: Any) -> float | None:
    """A finite number, else None: a NaN that reached a log is a gap in a curve, not a crash of the report."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None or isinstance(value, dict | list) else str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
