"""Regenerate the generated parts of the documents: figures from the result file, settings from the code.

    .venv/bin/python -m bench.readme            rewrite README.md and docs/*.md
    .venv/bin/python -m bench.readme --check    change nothing; exit 1 when a document differs

Every number a document shows stands between markers, and is written here from ``bench/results/zero-tiny.json``
alone. Without that file a table has one row that says so. Nothing is typed by hand, so nothing can go stale.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from bench import engine_tables, learning_tables, nothing_tables, objective_tables
from seekling.model.config import ModelConfig
from seekling.recipes.config import KINDS, told_reads
from seekling.recipes.manifest import Head

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/zero-tiny.json"
DOCUMENTS = (
    "README.md",
    "docs/figures.md",
    "docs/engine.md",
    "docs/manifest.md",
    "docs/models.md",
    "docs/sandbox.md",
    "docs/maths.md",
    "docs/tasks.md",
    "docs/objectives.md",
    "docs/vllm.md",
    "docs/memory.md",
    "docs/parallel.md",
    "docs/design.md",
)
NONE_YET = "no result file yet"
MARKED = re.compile(r"(<!-- begin (?P<name>[\w-]+): .*? -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)

Result = Mapping[str, Any]


def read_result(file: Path = RESULT) -> Result | None:
    """The result file, or None when it has not been measured yet."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def render(text: str, result: Result | None) -> str:
    """``text`` with every marked block written anew. Raises KeyError for a block nobody knows."""
    return MARKED.sub(lambda found: found[1] + BLOCKS[found["name"]](result) + "\n" + found[3], text)


# --- how numbers look -------------------------------------------------------------------------------------------------


def share(value: Any, interval: Sequence[float] | None = None) -> str:
    """``0.8612`` -> ``86.1 %``; with an interval ``86.1 % [84.0, 88.2]``."""
    if value is None:
        return "not measured"
    ends = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    return f"{100 * value:.1f} %{ends}"


def points(value: float | None) -> str:
    """A difference of shares, with its sign: ``+61.2 points``."""
    return "not measured" if value is None else f"{100 * value:+.1f} points"


def duration(seconds: float | None) -> str:
    """``212`` -> ``3 min 32 s``."""
    if seconds is None:
        return "not measured"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def number(value: float | None, unit: str = "", digits: int = 0) -> str:
    """``10712.4`` -> ``10,712``."""
    return "not measured" if value is None else f"{value:,.{digits}f}{unit}"


def passed(row: Mapping[str, Any] | None) -> str:
    """pass@1 of a row, with its interval when it has one."""
    return share(row.get("pass_1"), row.get("interval")) if row else "not measured"


def look(row: Any, *path: str) -> Any:
    """The value at ``path`` below ``row``, or None where something is missing."""
    for key in path:
        row = row.get(key) if isinstance(row, Mapping) else None
    return row


def less(first: float | None, second: float | None) -> float | None:
    """``first - second``, or None."""
    return None if first is None or second is None else first - second


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    body = list(rows) or [[NONE_YET, *("" for _ in headings[1:])]]
    lines = [headings, ["---", *("---:" for _ in headings[1:])], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- blocks of figures ------------------------------------------------------------------------------------------------


def seeds(result: Result | None) -> Sequence[Mapping[str, Any]]:
    """The measured seeds; none without a result file."""
    return result["seeds"] if result else ()


def best_control(seed: Mapping[str, Any]) -> tuple[str, float] | None:
    """Name and pass@1 of the strongest control."""
    rates = {name: look(row, "pass_1") for name, row in (look(seed, "controls") or {}).items()}
    known = {name: rate for name, rate in rates.items() if rate is not None}
    return max(known.items(), key=lambda item: item[1]) if known else None


CONTROLS = {
    "no_stop": "base kept from stopping",
    "blind": "blind guesser",
    "shuffled": "shuffled rewards",
    "base_pass_k": "base, several tries",
}


def headline(result: Result | None) -> str:
    """The README's table: before, after, the best control, a size never trained on, the time."""
    headings = ("seed", "base pass@1", "after RL", "best control", "one more number than trained on", "whole run")
    rows = []
    for seed in seeds(result):
        best = best_control(seed)
        larger = [share(look(seed, "larger_size", who)) for who in ("base", "trained")]
        rows.append([
            str(seed["seed"]), passed(look(seed, "base")), passed(look(seed, "trained")),
            f"{share(best[1])} ({CONTROLS.get(best[0], best[0])})" if best else "not measured",
            " → ".join(larger), duration(look(seed, "seconds")),
        ])  # fmt: skip
    return table(headings, rows) + "\n\n" + provenance(result)


def provenance(result: Result | None) -> str:
    """Where the figures come from, in one line."""
    if not result:
        return "`make bench` measures this table and writes it here."
    hardware = result["hardware"]
    machine = f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_bytes'] / 2**30:.0f} GiB"
    how = f"{result['threads']} threads, {result['dtype']}, commit `{result['commit']}`, `{result['command']}`"
    size = (
        f"{result['problems']} held-out problems, {result['samples']} rollouts each"
        if "samples" in result
        else "Held-out problems"
    )
    return f"{size}; brackets hold the 95 % interval. {machine}; {how}."


def gain(result: Result | None) -> str:
    """Base against trained, per seed, with tokens."""
    headings = ("seed", "base pass@1", "tokens", "after RL pass@1", "tokens", "gain")
    return table(headings, [
        [
            str(seed["seed"]), passed(look(seed, "base")), number(look(seed, "base", "tokens"), digits=1),
            passed(look(seed, "trained")), number(look(seed, "trained", "tokens"), digits=1),
            points(less(look(seed, "trained", "pass_1"), look(seed, "base", "pass_1"))),
        ]
        for seed in seeds(result)
    ])  # fmt: skip


def controls(result: Result | None) -> str:
    """The cheaper things that could also have raised the score, and what RL adds to the best of them."""
    headings = ("seed", *CONTROLS.values(), "after RL less the best", "blind guesser, 8 tries")
    rows = []
    for seed in seeds(result):
        cells = [control_cell(look(seed, "controls", name)) for name in CONTROLS]
        best = best_control(seed)
        above = less(look(seed, "trained", "pass_1"), best[1] if best else None)
        rows.append([str(seed["seed"]), *cells, points(above), share(look(seed, "blind_at_8"))])
    return table(headings, rows)


def control_cell(row: Mapping[str, Any] | None) -> str:
    """``31.0 % at 22.4 tokens``."""
    tokens = look(row, "tokens")
    return passed(row) + (f" at {tokens:.1f} tokens" if tokens is not None else "")


def beyond(result: Result | None) -> str:
    """What else changed: diversity within a rollout, a size never trained on, the run without verdicts."""
    headings = ("seed", "distinct attempts", "size never trained on", "base", "after RL", "without verdict traces")
    rows = []
    for seed in seeds(result):
        distinct = [number(look(seed, "distinct_attempts", who), digits=3) for who in ("base", "trained")]
        bare = [share(of_row(look(seed, "without_verdicts", who))) for who in ("base", "trained")]
        rows.append([
            str(seed["seed"]), " → ".join(distinct), f"{look(seed, 'larger_size', 'size') or 'not measured'}",
            share(look(seed, "larger_size", "base")), share(look(seed, "larger_size", "trained")), " → ".join(bare),
        ])  # fmt: skip
    return table(headings, rows)


def of_row(row: Any) -> Any:
    """pass@1 of a row, or the row itself where it is the bare number."""
    return row.get("pass_1") if isinstance(row, Mapping) else row


def cost(result: Result | None) -> str:
    """Time, memory, and tokens per core-second against what the arithmetic alone would allow."""
    headings = ("seed", "whole run", "until the curve has risen", "peak memory", "trained", "generated")
    rows = []
    for seed in seeds(result):
        memory = look(seed, "peak_memory_bytes")
        rows.append([
            str(seed["seed"]), duration(look(seed, "seconds")), duration(look(seed, "seconds_to_rise")),
            number(memory and memory / 2**20, " MiB"), speed(seed, "trained"), speed(seed, "generated"),
        ])  # fmt: skip
    return table(headings, rows)


def speed(seed: Mapping[str, Any], kind: str) -> str:
    """``5,210 tokens per core-second, 48 % of the floor``."""
    rate, floor = (look(seed, "tokens_per_core_s", name) for name in (kind, f"floor_{kind}"))
    of_floor = f", {100 * rate / floor:.0f} % of the floor" if rate and floor else ""
    return number(rate) + of_floor


def train_step(_: Result | None) -> str:
    """Training tokens/s beside transformers', dtype by dtype, and how many times faster."""
    found = result_of("train-step")
    headings = ("", "tokens/s", "of the floor", "first loss", "last loss")
    if found is None:
        return table(headings, [])
    rows = [
        [name, measured(row["tokens_per_s"], 0), share(row["share_of_floor"]), f"{row['first_loss']:.5f}",
         f"{row['last_loss']:.5f}"]
        for name, row in found["arms"].items()
    ]  # fmt: skip
    told = [f"{name}: {measured(ratio, 2)} times" for name, ratio in found["ratios"].items()]
    ways = [f"{name}: {', '.join(map(str, list(way.values())[1:]))}" for name, way in found["theirs"].items()]
    apart = look(found, "parity", "float32", "relative_difference")
    about = (
        f"AdamW against AdamW: {'; '.join(told)}. Median of {found['rounds']} rounds, brackets hold the extremes; "
        f"{found['steps']} steps of {found['tokens_per_step']:,} tokens. Theirs (form, threads, experts, attention): "
        f"{'; '.join(ways)}. First losses in float32 differ by {apart:.1e}. "
        f"transformers {found['transformers']}; {found['hardware']['cpu']}, {found['hardware']['cores']} cores; commit "
        f"`{found['commit']}`, `{found['command']}`."
    )
    return f"{table(headings, rows)}\n\n{about}"


def measured(spread: Mapping[str, float], digits: int) -> str:
    """``10,712 [10,500, 10,900]``: a median with its extremes."""
    middle, low, high = (f"{spread[name]:,.{digits}f}" for name in ("median", "lowest", "highest"))
    return f"{middle} [{low}, {high}]"


# --- blocks about checkpoints -----------------------------------------------------------------------------------------

SOURCES = {
    "llama": "models/llama, modeling_rope_utils.py",
    "mistral": "models/mistral, masking_utils.py",
    "qwen2": "models/qwen2, masking_utils.py",
    "qwen3": "models/qwen3, masking_utils.py",
    "qwen3_moe": "models/qwen3_moe",
    "deepseek_v2": "models/deepseek_v2; arXiv 2405.04434",
    "deepseek_v3": "models/deepseek_v3; arXiv 2412.19437",
}
"""Where the facts about a family come from: files of transformers, papers."""


def result_of(name: str) -> Result | None:
    """A result file beside the main one, or None when it has not been measured yet."""
    return read_result(ROOT / f"bench/results/{name}.json")


def families(_: Result | None) -> str:
    """Family by family, the largest difference against transformers."""
    found = result_of("families")
    headings = ("family", "logits", "in a padded batch", "exported and loaded there", "greedy tokens that differ",
                "round trips to the bit", "facts from")  # fmt: skip
    rows = []
    for name, row in (look(found, "families") or {}).items():
        gaps = [f"{row[key]:.1e}" for key in ("logits", "padded", "exported")]
        rows.append([f"`{name}`", *gaps, str(row["greedy_differs"]),
                     f"{row['round_trips_exact']} of {look(found, 'draws')}", SOURCES[name]])  # fmt: skip
    about = (
        f"\n\n{look(found, 'draws')} configurations each, drawn at random with random weights; largest difference "
        f"relative to the largest logit, float32, transformers {look(found, 'transformers')}; commit "
        f"`{look(found, 'commit')}`, `{look(found, 'command')}`."
        if found
        else ""
    )
    return table(headings, rows) + about


def loading(_: Result | None) -> str:
    """Seconds and memory of loading, beside the disk cache and transformers."""
    found = result_of("loading")
    headings = ("loading", "seconds", "peak memory over the start")
    names = {"floor": "reading the bytes alone", "load": "seekling", "transformers": "transformers (maps, reads later)"}
    seconds, peak = (look(found, key) or {} for key in ("seconds", "peak_bytes"))
    rows = [
        [label, number(seconds.get(key), digits=2), number(peak.get(key, 0) / 2**20, " MiB")]
        for key, label in names.items()
        if key in seconds
    ]
    if not found:
        return table(headings, rows)
    shape = f"{found['shape']}, {found['dtype']}, {found['model_bytes'] / 2**20:,.0f} MiB of weights"
    return table(headings, rows) + (
        f"\n\n{shape}, 1 thread, file in the disk cache. Share of what the disk cache allows: "
        f"{100 * found['share_of_disk_cache']:.0f} %; peak over the model's own size: {found['peak_over_model']:.2f}. "
        f"Commit `{found['commit']}`, `{found['command']}`."
    )


def vllm(_: Result | None) -> str:
    """What we export against vLLM's CPU build, family by family."""
    found = result_of("vllm")
    headings = ("family", "largest difference of a log-probability, nats", "limit", "prompts")
    rows = [
        [f"`{name}`", f"{row['largest_difference']:.1e}", f"{row['limit']:g}", str(row["prompts"])]
        for name, row in (look(found, "families") or {}).items()
    ]
    about = f"vLLM {look(found, 'vllm')}, float32; commit `{look(found, 'commit')}`, `{look(found, 'command')}`."
    return table(headings, rows) + (f"\n\n{about}" if found else "")


def vllm_sampler(_: Result | None) -> str:
    """Runs that vLLM's CPU build sampled for, and what was refused."""
    found = result_of("vllm-sampler") or {}
    headings = ("model", "steps", "hand-overs", "largest difference, nats", "limit", "mismatch KL", "restarts")
    rows = [
        [name, str(row["steps"]), str(row["hand_overs"]), f"{row['worst_difference']:.1e}", f"{row['limit']:g}",
         f"{row['mismatch_kl']:.1e}", str(row["restarts"])]
        for name in ("dense", "experts") if (row := found.get(name))
    ]  # fmt: skip
    if not rows:
        return NONE_YET
    refused = look(found, "experts", "refused")
    said = f"\n\nWith experts, to a server that could only be told to reload: *{refused}*" if refused else ""
    about = f"vLLM {found['vllm']}, CPU build, float32; commit `{found['commit']}`, `{found['command']}`."
    return table(headings, rows) + said + f"\n\n{about}"


# --- blocks of settings -----------------------------------------------------------------------------------------------


def settings_of(model: type[BaseModel]) -> list[list[str]]:
    """Name, default and meaning of every setting of ``model``; a group of settings is one row that points to it."""
    rows = []
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        label, default, extra = field.alias or name, field.default, field.json_schema_extra
        about = field.description or ""
        if is_group(name, default):
            about = f"[{type(default).__name__}](#{type(default).__name__.lower()})"
        about += "".join(f": [{item.__name__}](#{item.__name__.lower()})" for item in items_of(field.annotation))
        free = " *(cannot change weights)*" if isinstance(extra, dict) and extra.get("runtime") else ""
        rows.append([f"`{label}`", default_of(default), escaped(about + free)])
    return rows


def is_group(name: str, default: Any) -> bool:
    """Whether a setting is a table of settings that has a section of its own."""
    return isinstance(default, BaseModel) and name != "model"


def items_of(annotation: Any) -> list[type[BaseModel]]:
    """The tables that a list of tables is made of."""
    parts = get_args(annotation) if get_origin(annotation) is tuple else ()
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]


def groups() -> list[type[BaseModel]]:
    """Every group of settings that some kind uses, once, and those inside them."""
    found = [kind.settings for kind in KINDS.values()]
    for model in found:  # which grows as it is read
        inner = [type(field.default) for name, field in model.model_fields.items() if is_group(name, field.default)]
        inner += [item for field in model.model_fields.values() for item in items_of(field.annotation)]
        found += [group for group in dict.fromkeys(inner) if group not in found]
    return found[len(KINDS) :]


def default_of(value: Any) -> str:
    """A default as a manifest writes it; of a group, what differs from the group's own defaults."""
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, ModelConfig):
        return "`tiny-v3`"
    if isinstance(value, BaseModel):
        own = type(value)().model_dump(mode="json")
        differs = {k: v for k, v in value.model_dump(mode="json").items() if v != own[k]}
        return "; ".join(f"`{name} = {json.dumps(v)}`" for name, v in differs.items())
    return "none" if value in (None, "", (), {}) else f"`{json.dumps(value)}`"


def escaped(text: str) -> str:
    """Text that may stand in a table's cell."""
    return text.replace("|", "\\|").replace("<", "&lt;").strip()


def settings_table(model: type[BaseModel]) -> str:
    """A table of settings."""
    lines = [["setting", "default", "meaning"], ["---", "---", "---"], *settings_of(model)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def about(model: type[BaseModel]) -> str:
    """A model's own documentation as one line."""
    return " ".join((model.__doc__ or "").split())


def kinds(_: Result | None) -> str:
    """Every stage kind: what it is, how many stages it reads, its settings."""
    parts = []
    for name, kind in KINDS.items():
        reads = told_reads(name)
        text = f"{about(kind.settings)} It reads {reads}."
        parts.append(f"### `{name}`\n\n{text}\n\n{settings_table(kind.settings)}")
    return "\n" + "\n\n".join(parts) + "\n"


def group_tables(_: Result | None) -> str:
    """The groups of settings that several kinds share."""
    parts = [f"### {model.__name__}\n\n{about(model)}\n\n{settings_table(model)}" for model in groups()]
    return "\n" + "\n\n".join(parts) + "\n"


def head(_: Result | None) -> str:
    """The settings beside the stages."""
    return settings_table(Head)


def audits(_: Result | None) -> str:
    """Every built-in task against answers made to deceive its check."""
    found = result_of("audit")
    headings = ["task", "deserving nothing", "paid for", "true", "refused", "hung", "crashed"]
    keys = ("undeserving", "false_accepts", "true", "false_rejects", "hangs", "crashes")
    rows = [[f"`{name}`", *(f"{row[key]:,}" for key in keys)] for name, row in (look(found, "tasks") or {}).items()]
    if not rows:
        return table(headings, [[NONE_YET, *[""] * len(keys)]])
    total = [f"{sum(row[key] for row in look(found, 'tasks').values()):,}" for key in keys]
    about = f"{look(found, 'problems')} problems each; commit `{look(found, 'commit')}`, `{look(found, 'command')}`."
    return table(headings, [*rows, ["all", *total]]) + f"\n\n{about}"


def sandbox(_: Result | None) -> str:
    """What got out of the sandbox, what passed undeserved, and how fast it is, as root and as an ordinary user."""
    found = result_of("sandbox")
    users = look(found, "users") or []
    names = ["root" if user["uid"] == 0 else "ordinary user" for user in users]
    rows: list[tuple[str, Callable[[Any], str]]] = [
        ("canaries that got out", lambda u: f"{len(u['canaries_out'])} of {u['canaries']}"),
        ("other hostile programs that got out", lambda u: f"{len(u['out'])} of {u['hostile']}"),
        ("programs that end badly, with a wrong verdict", lambda u: f"{len(u['wrong_endings'])} of {u['endings']}"),
        ("answers that deserve no pass and got one", lambda u: f"{len(u['passed'])} of {u['undeserving']}"),
        ("honest programs that did not run", lambda u: f"{len(u['refused'])} of {u['honest']}"),
        ("a zygote starts in", lambda u: number(1000 * u["start_s"], " ms")),
        ("all canaries try in", lambda u: number(u["proof_s"], " s", 1)),
        ("a run: least, median, 95 % within", lambda u: f"{u['ms_min']}, {u['ms_median']}, {u['ms_p95']} ms"),
        ("runs a second, with a box a core", lambda u: number(u["runs_per_s"])),
        ("checks a second of the task `code`", lambda u: number(u["checks_per_s"])),
    ]
    if not users:
        return table(("", NONE_YET), [])
    about = (
        f"{found['hardware']['cpu']}, {found['hardware']['cores']} cores, Landlock {users[0]['landlock']}, "  # type: ignore[index]
        f"{'with' if users[0]['jail'] else 'without'} bubblewrap; {look(found, 'runs'):,} runs; commit "
        f"`{look(found, 'commit')}`, `{look(found, 'command')}`."
    )
    return table(("", *names), [[name, *(shown(user) for user in users)] for name, shown in rows]) + f"\n\n{about}"


def maths(_: Result | None) -> str:
    """The judge of mathematical answers, with math-verify behind it and without."""
    found = result_of("maths")
    if found is None:
        return table(("", NONE_YET), [])
    tried = [
        ("adversarial", "answers made to deceive, and passed"),
        ("true", "true answers in other forms, and refused"),
    ]
    about = [f"{what}: {found[kind]['wrong']} of {found[kind]['answers']:,}" for kind, what in tried]
    paths = [found["with_math_verify"], found["without"]]
    rows = [
        ("verdicts a second, both cores", *(number(path["per_s"]) for path in paths)),
        ("decided by the own reader", *(share(path["share"]["own"]) for path in paths)),
        ("left to math-verify, or to nobody", *(share(1 - path["share"]["own"]) for path in paths)),
        ("longest verdict", *(number(max(path["worst_s"].values()), " s", 3) for path in paths)),
        ("replies judged otherwise than they deserve", *(number(path["misjudged"]) for path in paths)),
    ]
    source = (
        f"{found['replies']:,} replies for each process, from a mix of our own making; commit `{found['commit']}`, "
    )
    told = f"{'; '.join(about)}.\n{source}`{found['command']}`."
    return table(("", "with math-verify", "without"), rows) + f"\n\n{told}"


def objective_parts(_: Result | None) -> str:
    """Every named objective, part by part."""
    return table(*objective_tables.parts())


def objective_results(_: Result | None) -> str:
    """How the objectives compare, and their curves in a file beside the page."""
    found = result_of("objectives")
    if found is None:
        return NONE_YET
    about = (
        f"{found['steps']} steps of {found['updates_per_step']} updates; base {passed(found['base'])}; seeds in a row."
    )
    source = (
        f"Commit `{look(found, 'commit')}`, `{look(found, 'command')}`; {found['threads']} threads, {found['dtype']}."
    )
    picture = "![pass rate over steps](objectives.svg)"
    return "\n\n".join((about, table(*objective_tables.compared(found)), picture, source))


def learning(
    name: str, rows: Callable[[Result], learning_tables.Table], about: Callable[[Result], str] = learning_tables.source
) -> Callable[[Result | None], str]:
    """The block of one result about learning: its table, and what stands about it."""

    def block(_: Result | None) -> str:
        found = result_of(name)
        return NONE_YET if found is None else f"{table(*rows(found))}\n\n{about(found)}"

    return block


def from_nothing(_: Result | None) -> str:
    """Families outside arithmetic, learned from nothing seed by seed, and their curves in a file beside the page."""
    found = result_of("from-nothing")
    if found is None:
        return table(nothing_tables.HEADINGS, [])
    picture = "![reward over steps of reinforcement, a panel for each family](from-nothing.svg)"
    return "\n\n".join(
        (table(nothing_tables.HEADINGS, nothing_tables.rows(found)), picture, nothing_tables.about(found))
    )


BLOCKS: dict[str, Callable[[Result | None], str]] = {
    "headline": headline,
    "provenance": provenance,
    "gain": gain,
    "controls": controls,
    "beyond": beyond,
    "cost": cost,
    "train-step": train_step,
    "memory": learning("memory", learning_tables.memory, learning_tables.about_memory),
    "fit": learning("fit", learning_tables.fit, learning_tables.about_fit),
    "grpo-step": learning("grpo-step", learning_tables.grpo_step),
    "decode": learning("decode", learning_tables.decode),
    "drafting": learning("drafting", engine_tables.drafting),
    "rivals": learning("rivals", engine_tables.rivals),
    "wide": learning("wide", engine_tables.wide),
    "parallel": learning("parallel", learning_tables.parallel),
    "mtp-alive": learning("mtp-alive", learning_tables.mtp_alive),
    "mutants": learning("mutants", learning_tables.mutants),
    "families": families,
    "loading": loading,
    "vllm": vllm,
    "vllm-sampler": vllm_sampler,
    "audits": audits,
    "sandbox": sandbox,
    "maths": maths,
    "objective-parts": objective_parts,
    "objective-results": objective_results,
    "from-nothing": from_nothing,
    "head": head,
    "kinds": kinds,
    "groups": group_tables,
}


def contents(result: Result | None) -> dict[str, str]:
    """Every generated file as it ought to be: documents, and the pictures they show."""
    texts = {name: render((ROOT / name).read_text(encoding="utf-8"), result) for name in DOCUMENTS}
    pictures = {"objectives": objective_tables.curves, "from-nothing": nothing_tables.curves}
    return texts | {f"docs/{name}.svg": drawn(found) for name, drawn in pictures.items() if (found := result_of(name))}


def main(arguments: Sequence[str]) -> int:
    """Rewrite the documents, or with ``--check`` say which differ. Returns the exit code."""
    result, stale = read_result(), []
    for name, after in contents(result).items():
        file = ROOT / name
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        if after != before:
            stale.append(name)
            if "--check" not in arguments:
                file.write_text(after, encoding="utf-8")
    print("\n".join(stale) or "every document is up to date")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
