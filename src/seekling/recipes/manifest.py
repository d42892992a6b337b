"""A manifest: TOML into a checked graph of stages, ``[[stage]]`` tables with name, kind, from and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from seekling.config import Settings, Source, fingerprint, parse, parse_override, weight_settings
from seekling.errors import UserError, nearest
from seekling.recipes.config import (
    FORMAT,
    KINDS,
    LEAVINGS,
    Curate,
    Distill,
    Eval,
    Gathered,
    General,
    Grpo,
    Import,
    Preferences,
    RewardModel,
    Sft,
    StageSettings,
    Trained,
    reads,
    told_reads,
)
from seekling.remote.hub import identity
from seekling.remote.rows import digest_of
from seekling.rewards.rubric import Rubric
from seekling.rewards.rubric import content_hash as rewards_hash
from seekling.tasks.protocol import Composed, Helpable
from seekling.tasks.registry import build_task, content_hash


class Head(Settings):
    """What a manifest says beside its stages."""

    format: int = Field(FORMAT, description="version of the manifest's language")
    name: str = Field("", description="name of the run directory")
    seed: int = Field(0, ge=0, description="every draw of the run derives from it")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="precision of the arithmetic in training")
    device: str = Field("auto", description="auto, cpu, cuda, ...", json_schema_extra={"runtime": True})
    threads: int = Field(0, ge=0, description="CPU threads; 0 takes all cores", json_schema_extra={"runtime": True})
    processes: int = Field(
        1, ge=1, description="processes on this machine, each with a device of its own; torchrun's number counts more",
        json_schema_extra={"runtime": True},
    )  # fmt: skip
    expert_parallel: bool = Field(
        False, description="of several processes each has experts of its own, to which tokens travel",
        json_schema_extra={"runtime": True},
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked chain: ``stages`` in the order they run, ``fingerprints`` by stage name.

    ``data`` tells by stage name what each reads that no stage leaves (``data_of``).
    """

    head: Head
    stages: tuple[StageSettings, ...]
    fingerprints: Mapping[str, str]
    data: Mapping[str, Mapping[str, Any]]

    def folder_name(self, stage: str) -> str:
        """``<name>-<fingerprint8>``: a changed stage writes beside the old one."""
        return f"{stage}-{self.fingerprints[stage][:8]}"

    def stage(self, name: str) -> StageSettings:
        """The stage called ``name``."""
        return next(stage for stage in self.stages if stage.name == name)

    def to_toml(self) -> str:
        """The resolved manifest: every setting with its value, itself a manifest."""
        parts = [_toml_table(self.head.model_dump(mode="json"))]
        for stage in self.stages:
            values = stage.model_dump(mode="json", by_alias=True)
            parts.append("[[stage]]\n" + _toml_table({k: v for k, v in values.items() if v not in ((), [], {}, None)}))
        return "\n".join(parts)


def built_in() -> dict[str, Path]:
    """The manifests that ship in the package, by name."""
    folder = resources.files("seekling").joinpath("manifests")
    return {Path(str(file)).stem: Path(str(file)) for file in folder.iterdir() if file.name.endswith(".toml")}


def load_manifest(name_or_file: str, overrides: Sequence[str] = ()) -> Manifest:
    """Read, override and check a manifest: a built-in name, a file, or a run directory (its own manifest).

    Raises UserError for anything that is wrong, with file, line and the nearest known word.
    """
    source = Source.read(_locate(name_or_file))
    values = source.values()
    _check_format(values, source)
    tables = values.pop("stage", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UserError(
            f"{source.name} has no list of stages", next_step="Add at least one [[stage]] table; see docs/manifest.md."
        )
    for text in overrides:
        _override(values, tables, text)
    head = parse(Head, values, source=source)
    stages = [_stage(table, index, source) for index, table in enumerate(tables)]
    ordered = _in_order(stages, source)
    _check_precision(head, ordered)
    if not head.name:
        head = head.model_copy(update={"name": Path(source.name).stem})
    data = {stage.name: data_of(stage) for stage in ordered}
    return Manifest(head, tuple(ordered), _fingerprints(head, ordered, data), data)


def _locate(name: str) -> Path:
    path = Path(name)
    if path.is_dir() and (path / "manifest.toml").exists():
        return path / "manifest.toml"
    if path.suffix == ".toml" or path.exists():
        return path
    shipped = built_in()
    if name not in shipped:
        raise UserError(
            f'there is no manifest "{name}"',
            next_step=f"Give a .toml file, or a built-in name: {nearest(name, shipped)}",
        )
    return shipped[name]


def _check_format(values: Mapping[str, Any], source: Source) -> None:
    version = values.get("format", FORMAT)
    if isinstance(version, int) and version > FORMAT:
        raise UserError(
            f"this manifest speaks format {version}; this Seekling knows formats up to {FORMAT}",
            where=source.where(["format"]),
            next_step="Update Seekling, or write the manifest in the older format.",
        )


def _override(values: dict[str, Any], tables: list[dict[str, Any]], text: str) -> None:
    """Set ``stage.key.key=value`` or, for the head, ``key=value``."""
    path, value = parse_override(text)
    if len(path) == 1:
        values[path[0]] = value
        return
    names = [str(table.get("name")) for table in tables]
    if path[0] not in names:
        raise UserError(f'there is no stage "{path[0]}" to set {text} on', next_step=nearest(path[0], names))
    table = tables[names.index(path[0])]
    target: Any = table
    for depth, key in enumerate(path[1:-1]):
        target[key] = target = _opened(target.get(key, _default(table, key) if depth == 0 else {}), key, text)
    target[path[-1]] = value


def _default(table: Mapping[str, Any], key: str) -> Any:
    """What a stage that does not mention ``key`` starts from, so that one override keeps the rest of it."""
    kind = KINDS.get(str(table.get("kind")))
    field = kind.settings.model_fields.get(key) if kind else None
    default = field.default if field else {}
    return default.model_dump(mode="json") if isinstance(default, Settings) else deepcopy(default)


def _opened(value: Any, key: str, text: str) -> dict[str, Any]:
    """A table to set a key in: a name becomes the table it stands for."""
    if isinstance(value, str):
        return {"name" if key == "task" else "preset": value}
    if not isinstance(value, dict):
        raise UserError(f'cannot set {text}: "{key}" is a value, not a table of settings')
    return value


def _stage(table: Any, index: int, source: Source) -> StageSettings:
    where: list[str | int] = ["stage", index]
    kind = str(table.get("kind", ""))
    if kind not in KINDS:
        raise UserError(
            f'unknown stage kind "{kind}"',
            where=source.where([*where, "kind"]),
            next_step=nearest(kind, KINDS),
        )
    settings = parse(KINDS[kind].settings, table, source=source, path=f"stage.{index}")
    if _task_of(settings) or (hasattr(settings, "task") and not hasattr(settings, "data")):
        task = build_task(_task_of(settings), source, f"stage.{index}.task")
        _check_rule(settings, task, source.where([*where, "task"]))
    if isinstance(settings, Grpo) and settings.also:
        _check_scenarios(settings, source, index)
    elif isinstance(settings, Gathered) and isinstance(settings.merged, General) and settings.merged.task:
        build_task(settings.merged.task, source, f"stage.{index}.general.task")
    elif isinstance(settings, Eval):
        for place, one in enumerate(settings.also):
            build_task(one.task, source, f"stage.{index}.also.{place}")
    return settings


def _check_rule(settings: StageSettings, task: Any, where: str) -> None:
    """Raises UserError for sampled answers of a task that cannot say which is more helpful."""
    if getattr(settings, "compare", "") == "sampled" and not isinstance(task, Helpable):
        raise UserError(
            f'stage "{settings.name}" compares sampled answers, and task "{task.name}" has no rule to label them by',
            where=where,
            next_step="Give it helpfulness(problem, answer), or take a task that has one.",
        )


def _check_scenarios(settings: Grpo, source: Source, index: int) -> None:
    """Raises UserError for a scenario whose task is none, and for two of one name."""
    places = [f"stage.{index}.task", *(f"stage.{index}.also.{at}.task" for at in range(len(settings.also)))]
    names: list[str] = []
    for scenario, place in zip(settings.scenarios, places, strict=True):
        name = scenario.name or build_task(scenario.task, source, place).name
        if name in names:
            raise UserError(
                f'two scenarios of stage "{settings.name}" are called "{name}"',
                where=source.where([int(part) if part.isdigit() else part for part in place.split(".")]),
                next_step='Give one a name of its own: { name = "harder", task = ... }',
            )
        names.append(name)


def _check_precision(head: Head, stages: Sequence[StageSettings]) -> None:
    """Raises UserError for a base or a teacher held in bfloat16 in a run that computes in float32."""
    for stage in stages:
        if isinstance(stage, Trained) and stage.adapter.base == "bfloat16" and head.dtype != "bfloat16":
            raise UserError(
                f'stage "{stage.name}" holds its base in bfloat16 and computes in float32',
                next_step='Set dtype = "bfloat16" at the head of the manifest, or adapter.base = "float32".',
            )
        if isinstance(stage, Distill) and stage.teacher_dtype == "bfloat16" and head.dtype != "bfloat16":
            raise UserError(
                f'stage "{stage.name}" holds its teacher in bfloat16 and computes in float32',
                next_step='Set dtype = "bfloat16" at the head of the manifest, or teacher_dtype = "float32".',
            )


def _task_of(settings: StageSettings) -> str | dict[str, Any]:
    """What names a stage's task; nothing for a stage without one."""
    task: str | dict[str, Any] = getattr(settings, "task", "")
    return task


def _in_order(stages: Sequence[StageSettings], source: Source) -> list[StageSettings]:
    """Stages after what they read. Raises UserError for doubled names, unknown inputs, wrong counts and cycles."""
    names = [stage.name for stage in stages]
    for index, stage in enumerate(stages):
        where = source.where(["stage", index, "from"])
        if names.count(stage.name) > 1:
            raise UserError(f'two stages are called "{stage.name}"', where=where, next_step="Rename one of them.")
        for wanted in stage.sources:
            if wanted not in names:
                raise UserError(
                    f'stage "{stage.name}" reads "{wanted}", which is not here',
                    where=where,
                    next_step=nearest(wanted, names),
                )
        inputs = [stages[names.index(name)] for name in stage.sources]
        found = [KINDS[one.kind].leaves for one in inputs]
        _check_reads(stage, found, where)
        _check_student(stage, found, where)
        _check_origin(stage, found, where)
        _check_rated(stage, [one for one in inputs if KINDS[one.kind].leaves == "rater"], where)
    ordered: list[StageSettings] = []
    while len(ordered) < len(stages):
        done = {stage.name for stage in ordered}
        ready = [s for s in stages if s.name not in done and all(w in done for w in s.sources)]
        if not ready:
            circle = " -> ".join(s.name for s in stages if s.name not in done)
            raise UserError(f"stages read each other in a circle: {circle}", where=source.name)
        ordered.append(ready[0])
    return ordered


def _check_reads(stage: StageSettings, found: Sequence[str], where: str) -> None:
    """Raises UserError where what the named stages leave is not what a stage of this kind reads."""
    if reads(stage.kind, found):
        return
    pairs = zip(stage.sources, found, strict=True)
    told = "; ".join(f'"{name}", {LEAVINGS[leaves]}' for name, leaves in pairs) or "nothing"
    raise UserError(
        f'stage "{stage.name}" of kind {stage.kind} reads {told}; it needs {told_reads(stage.kind)}',
        where=where,
        next_step='Set from = "name", or from = ["first", "second"], to stages that leave these, in this order.',
    )


def _check_student(stage: StageSettings, found: Sequence[str], where: str) -> None:
    """Raises UserError for a student that is named twice, as a stage and as a model of random weights, or never."""
    if isinstance(stage, Distill) and found.count("model") != (1 if stage.model else 2):
        told = "a student and its own model" if stage.model else "no student"
        raise UserError(
            f'stage "{stage.name}" of kind distill names {told}',
            where=where,
            next_step='Set from = ["student", "teacher"]; or from = "teacher", and model = "tiny-dense" for a student'
            " from random weights.",
        )


def _check_origin(stage: StageSettings, found: Sequence[str], where: str) -> None:
    """Raises UserError where what a stage learns or gathers comes from nowhere, or from two places."""
    if isinstance(stage, Gathered) and ("model" in found) == bool(stage.teacher.model):
        wrong = "reads a model and names a teacher too" if stage.teacher.model else "has nobody to ask"
        raise UserError(
            f'stage "{stage.name}" {wrong}; it needs either a model or a teacher',
            where=where,
            next_step='Set from = "name" of a stage with a model, or teacher = { url = "...", model = "..." }.',
        )
    if isinstance(stage, Sft) and ("data" in found) + bool(stage.data) + bool(stage.task) != 1:
        raise UserError(
            f'stage "{stage.name}" needs either data or task, or a stage with chats to read',
            where=where,
            next_step='Set data = "chats.jsonl", or task, or name a second stage in from that leaves chats.',
        )


def _check_rated(stage: StageSettings, raters: Sequence[StageSettings], where: str) -> None:
    """Raises UserError where a rubric weighs a reward model's word and there is none to give it, or the other way."""
    weighed = [rubric.rated for rubric in _rubrics_of(stage) if rubric.rated.weight]
    readers = [kind for kind, told in KINDS.items() if any("rater" in way for way in told.reads)]
    if weighed and not raters:
        is_reader = stage.kind in readers
        raise UserError(
            f'the rubric of stage "{stage.name}" weighs "rated", and the stage reads no reward model',
            where=where,
            next_step='Name one behind the model: from = ["model", "rater"].' if is_reader
            else f"A stage of kind {stage.kind} reads none; of kind {' or '.join(readers)} it could.",
        )  # fmt: skip
    if raters and not weighed:
        raise UserError(
            f'stage "{stage.name}" reads "{raters[0].name}", a reward model, and none of its rubrics weighs "rated"',
            where=where,
            next_step="Weigh what it says: rubric = { rated = 1.0 }. Or leave it out of from.",
        )
    for rater in raters:
        if not isinstance(rater, RewardModel) or rater.compare != "sampled":
            continue  # what a user's own pairs are, the user knows
        if wrong := [one.reads for one in weighed if one.reads != rater.reads]:
            raise UserError(
                f'stage "{stage.name}" lets "{rater.name}" rate "{wrong[0]}", and it learned to rate "{rater.reads}"',
                where=where,
                next_step="Let reads of the reward model and of the rubric's rated be the same.",
            )


def _rubrics_of(stage: StageSettings) -> list[Rubric]:
    if isinstance(stage, Grpo):
        return [scenario.rubric for scenario in stage.scenarios]
    own = getattr(stage, "rubric", None)
    return [own] if own else []


def _fingerprints(
    head: Head, ordered: Sequence[StageSettings], data: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Hash of kind, schema, settings that can change weights, inputs' fingerprints, and content of user files."""
    known: dict[str, str] = {}
    for stage in ordered:
        settings = weight_settings(stage) | {"task": _task_settings(stage)}
        if isinstance(stage, Eval):
            settings["also"] = [[_settings_of(one.task), one.problems, one.samples] for one in stage.asked[1:]]
        if isinstance(stage, Grpo) and stage.also:
            settings["also"] = [weight_settings(one) | {"task": _settings_of(one.task)} for one in stage.also]
        if isinstance(stage, Trained) and stage.export == "best":
            settings |= {name: getattr(stage, name) for name in stage.decisive}
        settings.pop("source")
        inputs = [known[name] for name in stage.sources]
        schema = KINDS[stage.kind].schema
        known[stage.name] = fingerprint(stage.kind, schema, settings, inputs, data[stage.name], head.seed, head.dtype)
    return known


def data_of(stage: StageSettings) -> dict[str, Any]:
    """What a stage reads that no stage leaves, to the bit: SHA-256 of files, commits of what lies on the hub.

    ``task`` and ``also``: the files of a user's own tasks; ``rewards``: those of own functions; ``merged``: what joins
    gathered examples; ``data``, ``model`` and ``against`` are called as the settings are. What it does not read is left
    out.
    """
    found: dict[str, Any] = {
        "task": content_hash(_task_of(stage)),
        "also": [digest for spec in _also(stage) if (digest := content_hash(spec))],
        "rewards": [digest for rubric in _rubrics_of(stage) if (digest := rewards_hash(rubric))],
    }
    if isinstance(stage, Sft | Preferences) and stage.data:
        found["data"] = digest_of(stage.data, stage.revision)
    if isinstance(stage, Import):
        found["model"] = identity(stage.model, stage.revision)
    if isinstance(stage, Curate):
        found["against"] = _origins(stage.against)
    if isinstance(stage, Gathered):
        found["merged"] = _merged(stage)
    return {name: value for name, value in found.items() if value}


def _origins(suites: Sequence[str]) -> list[Any]:
    """Where the problems of evaluation sets stand. Suites are imported when a stage names one."""
    if not suites:
        return []
    from seekling.evals.suites import origin_of

    return [origin_of(name) for name in suites]


def _merged(stage: Gathered) -> list[Any]:
    """What stands in the data that a gathering stage merges: a file's content, or a task's."""
    chats = stage.merged
    if chats.data:
        return [digest_of(chats.data, chats.revision)]
    if not isinstance(chats, General) or not chats.task:
        return []
    return [content_hash(chats.task), _settings_of(chats.task)]


def _also(stage: StageSettings) -> list[str | dict[str, Any]]:
    """Further tasks that a stage asks."""
    return [one.task for one in stage.also] if isinstance(stage, Eval | Grpo) else []


def _task_settings(stage: StageSettings) -> Any:
    """A stage's task as ``_settings_of`` tells it, with the mixture it trains on where the stage names none."""
    text = getattr(stage, "text", None)
    return _settings_of(_task_of(stage), tells_mixture=text is not None and not text.qualities)


def _settings_of(spec: str | Mapping[str, Any], *, tells_mixture: bool = False) -> Any:
    """A built-in task with all its settings, so that a new default counts as the change it is; else as written.

    Of one that is made of others, those of its parts too.
    """
    task = build_task(spec) if spec else None
    if not isinstance(task, Settings):
        return spec
    if isinstance(task, Composed):
        parts = [_settings_of(part, tells_mixture=tells_mixture) for part in task.tasks]
        return weight_settings(task) | {"tasks": parts}
    return weight_settings(task) | ({"mixture": dict(getattr(task, "mixture", {}))} if tells_mixture else {})


def _toml_table(values: Mapping[str, Any]) -> str:
    return "".join(f"{_toml_key(key)} = {_toml_value(value)}\n" for key, value in values.items() if value is not None)


def _toml_key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
