"""What each training stage of a manifest asks of memory, told to ``plan.fit``; and what to change where it is too much.

Nothing is run and no weight is read: a stage's model is known from its manifest, or from a config.json.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from seekling.errors import UserError
from seekling.learn.config import Adapter
from seekling.model import kernels
from seekling.model.config import ModelConfig
from seekling.model.exchange import config_from
from seekling.model.parameters import Shape, adapter_shapes, matching, shapes, told
from seekling.plan.fit import FLOAT, Prediction, Sampled, Teacher, Work, predict
from seekling.recipes.config import Distill, Grpo, Import, Preferences, Pretrain, Sft, StageSettings, Trained
from seekling.recipes.manifest import Manifest
from seekling.remote.hub import locate
from seekling.runlog.files import read_json
from seekling.tasks.corpus import documents
from seekling.tasks.registry import build_task
from seekling.text.tokenizer import Tokenizer

S = TypeVar("S", bound=StageSettings)

DRAWS = 4
"""Steps whose texts are drawn to see how well they fill rows."""
KEPT = 256
"""Ids a sampler keeps on average where only top-p or min-p bound them: many more than one that has learned does."""
RANK = 16
"""Of the adapters that are advised where training the whole model does not fit."""
ANSWERED = 16
"""Problems that a teacher answers at once (``seekling.recipes.evaluate``)."""
COMPARED = {"logits": 7, "on_policy": 10}
"""Chunks of logits that stand at once where distributions are compared, autograd's own among them."""
NOT_MUON = ("embed_tokens", "lm_head", "gate.weight")


@dataclass(frozen=True, slots=True)
class Place:
    """What a run stands on: ``cpu`` or ``accelerator``, its bytes, and how many slices of a step are worked on at once.

    ``fill`` is the share of packed rows that holds text; 0: drawn from the stage's task, and a half, the least there
    can be, where it learns from data. ``prompt`` is the longest prompt in tokens; 0: what a row has left.
    ``returns``: freed tensors go back to the system at once, whatever a stage says. ``rater`` is the reward model that
    a stage reads, ``teacher`` the shape of the model that a stage of distillation learns from.
    """

    kind: str
    memory_bytes: float
    lanes: int
    fill: float = 0.0
    prompt: int = 0
    returns: bool = False
    rater: ModelConfig | None = None
    teacher: ModelConfig | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """One stage: what it needs, and, where that is too much, changes and what each leaves, with those before it."""

    stage: StageSettings
    prediction: Prediction
    fits: bool
    changes: dict[str, Prediction] = field(default_factory=dict)


def fits(manifest: Manifest, place: Place) -> Iterator[Fit]:
    """Every training stage, in order. Raises UserError for a model that runs through transformers, or is not found."""
    known: dict[str, Begun] = {}
    for stage in manifest.stages:
        begun = _begun(stage, manifest.head.seed, known)
        if begun is not None:
            known[stage.name] = begun
        if isinstance(stage, Trained) and begun is not None:
            fill = place.fill or fill_of(stage, begun.tokenizer)
            raters = [known[name].config for name in stage.sources if manifest.stage(name).kind == "reward_model"]
            here = replace(place, fill=fill, rater=raters[0] if raters else None, teacher=taught_by(stage, known))
            yield _fit(stage, begun.config, manifest.head.dtype, here)


@dataclass(frozen=True, slots=True)
class Begun:
    """What a stage begins with: a shape, and how to come by the tokenizer."""

    config: ModelConfig
    tokenizer: Callable[[], Tokenizer]


def _begun(stage: StageSettings, seed: int, known: Mapping[str, Begun]) -> Begun | None:
    """A stage's own model, the one it imports, or that of the first stage it reads which has one."""
    if isinstance(stage, Pretrain):
        return Begun(stage.model, partial(_grown, stage, f"{seed}/{stage.name}"))
    if isinstance(stage, Import):
        if stage.through == "transformers":
            raise UserError(
                f'stage "{stage.name}" runs its model through transformers, whose memory is not known here',
                next_step='Import it with through = "seekling", where its family allows.',
            )
        folder = locate(stage.model, stage.revision, weights=False).folder
        config = config_from(read_json(folder / "config.json"), str(folder / "config.json"))
        return Begun(config, partial(Tokenizer.load, folder))
    first = next((known[name] for name in stage.sources if name in known), None)
    if isinstance(stage, Distill) and stage.model and first:  # random weights, with the teacher's words
        return replace(first, config=stage.model.model_copy(update={"vocab_size": first.config.vocab_size}))
    return first


def taught_by(stage: StageSettings, known: Mapping[str, Begun]) -> ModelConfig | None:
    """The shape of a stage's teacher, if it has one."""
    return known[stage.sources[0 if stage.model else 1]].config if isinstance(stage, Distill) else None


def _grown(stage: Pretrain, seed: str) -> Tokenizer:
    from seekling.recipes.pretrain import grow_tokenizer  # with torch, which reading a manifest can do without

    return grow_tokenizer(build_task(stage.task), stage.text, stage.model.vocab_size, seed)


def fill_of(stage: Trained, tokenizer: Callable[[], Tokenizer]) -> float:
    """A step's tokens over the room of its rows, the least of a few steps drawn; a half for texts that are not drawn.

    No two rows that are half full stay apart (``learn.batch.first_fit``), so half is the least.
    """
    if not isinstance(stage, Pretrain | Sft) or not stage.task:
        return 0.5
    from seekling.learn.batch import first_fit
    from seekling.recipes.pretrain import encoded
    from seekling.recipes.text import fill

    words, task, room = tokenizer(), build_task(stage.task), stage.packing.row_tokens
    found = [1.0]
    for draw in range(DRAWS):
        drawn = fill(encoded(words, documents(task, stage.text, f"fit/{draw}")), stage.tokens_per_step)
        lengths = [min(room, len(text.tokens)) for text in drawn]
        found.append(stage.tokens_per_step / (room * len(first_fit(lengths, room))))
    return min(found)


def _fit(stage: Trained, config: ModelConfig, dtype: str, place: Place) -> Fit:
    prediction = predict(work_of(stage, config, dtype, place))
    if prediction.peak <= place.memory_bytes:
        return Fit(stage, prediction, True)
    changes: dict[str, Prediction] = {}
    for words, changed in remedies(stage, config, place):
        changes[words] = predict(work_of(changed, config, dtype, place))
        if changes[words].peak <= place.memory_bytes:
            break
    return Fit(stage, prediction, False, changes)


def work_of(stage: Trained, config: ModelConfig, dtype: str, place: Place) -> Work:
    """A stage's settings as what they ask of memory."""
    parameters, trained = shapes(config), trained_by(stage, config)
    muon = frozenset(n for n, s in trained.items() if stage.optim.matrices == "muon" and is_matrix(n, s))
    adapter = stage.adapter
    return Work(
        config, parameters, trained, muon,
        rows=rows_of(stage, config, place), row_tokens=stage.packing.row_tokens, passes=stage.packing.passes,
        lanes=place.lanes, held=FLOAT // 2 if adapter.base == "bfloat16" else FLOAT,
        computed=FLOAT // 2 if dtype == "bfloat16" else FLOAT, adapted=bool(adapter.rank),
        recomputes=stage.packing.checkpoint_activations,
        ahead=looks_ahead(stage, config, trained),
        beside=silent(place.rater) if place.rater else {},
        referenced=isinstance(stage, Grpo) or stage.kind == "dpo",
        draws_weights=isinstance(stage, Pretrain) or (isinstance(stage, Distill) and stage.model is not None),
        sampled=sampled_by(stage, config, place) if isinstance(stage, Grpo | Distill) and speaks(stage) else None,
        compiled=place.kind == "cpu" and kernels.told() == "compiled",
        place=place.kind, returns=place.returns or stage.packing.checkpoint_activations,
        teacher=teacher_of(stage, place.teacher, place) if isinstance(stage, Distill) and place.teacher else None,
        compared=COMPARED.get(stage.method, 0) if isinstance(stage, Distill) and stage.by == "exact" else 0,
    )  # fmt: skip


def silent(config: ModelConfig) -> dict[str, Shape]:
    """What a model keeps that only rates: all but what speaks."""
    return {name: shape for name, shape in shapes(config).items() if not name.startswith(("lm_head.", "mtp."))}


def speaks(stage: Grpo | Distill) -> bool:
    """Whether what a stage trains is sampled in this process, to learn or to be watched."""
    if isinstance(stage, Distill):
        return stage.method == "on_policy" or bool(stage.held_out_every)
    return stage.sampler == "engine"


def teacher_of(stage: Distill, config: ModelConfig, place: Place) -> Teacher:
    """What a stage's teacher asks of memory: it answers all problems before the first step, or some in each."""
    is_beside, given = stage.method == "on_policy", round(stage.own_share * stage.problems_per_step)
    asked = (stage.problems_per_step - given, stage.rollouts_per_problem) if is_beside else (ANSWERED, stage.samples)
    told = {"sequence": 0, "logits": 2 * stage.top_k, "on_policy": config.hidden_size if stage.by == "exact" else 1}
    held = FLOAT // 2 if stage.teacher_dtype == "bfloat16" else FLOAT
    sampled = widest(stage, config, place, [asked]) if asked[0] else None
    return Teacher(config, shapes(config), held, sampled, is_beside, told[stage.method])


def trained_by(stage: Trained, config: ModelConfig) -> dict[str, Shape]:
    """The parameters whose gradients a stage makes. Raises UserError for a pattern that speaks of none."""
    if stage.adapter.rank:
        return adapter_shapes(config, stage.adapter.rank, stage.adapter.targets)
    named = {told(name): (name, shape) for name, shape in shapes(config).items()}
    kept = (matching(stage.train, named) or named.keys()) - matching(stage.freeze, named)
    reached = dict(named[name] for name in named if name in kept)
    ahead = getattr(stage, "mtp_weight", 0.0)
    return {name: shape for name, shape in reached.items() if ahead or not name.startswith("mtp.")}


def looks_ahead(stage: Trained, config: ModelConfig, trained: Mapping[str, Shape]) -> bool:
    """Whether a stage's loss asks the prediction layer: in pretraining for the trunk's sake too, later for its own."""
    if isinstance(stage, Pretrain):
        return bool(stage.mtp_weight and config.num_nextn_predict_layers)
    return any(name.startswith("mtp.") for name in trained)


def is_matrix(name: str, shape: Shape) -> bool:
    """Whether Muon may have it, as ``learn.optim`` decides (which knows torch, as this does not)."""
    is_half = name.endswith(("/A", "/B"))
    return len(shape) >= 2 and not is_half and not any(part in name for part in NOT_MUON)


def rows_of(stage: Trained, config: ModelConfig, place: Place) -> int:
    """Packed rows of an update, at most: rollouts are taken to be as long as they may be."""
    room = stage.packing.row_tokens
    if isinstance(stage, Grpo) or (isinstance(stage, Distill) and stage.method == "on_policy"):
        parts = stage.minibatches if isinstance(stage, Grpo) else 1
        texts = -(-problems_at_most(stage) * stage.rollouts_per_problem // parts)
        longest = min(prompt_of(stage, config, place) + stage.sampling.max_tokens, config.max_position_embeddings, room)
        return -(-texts // max(1, room // longest))
    if isinstance(stage, Preferences):
        return stage.pairs_per_step
    tokens = stage.tokens_per_step if isinstance(stage, Pretrain | Sft | Distill) else 0
    return math.ceil(tokens / (place.fill * room)) + 1  # the last text ends beyond what is asked for


def prompt_of(stage: Grpo | Distill, config: ModelConfig, place: Place) -> int:
    """The longest prompt: as told, or what a row has beside the longest answer."""
    limit = min(stage.packing.row_tokens, config.max_position_embeddings)
    return min(place.prompt or max(1, limit - stage.sampling.max_tokens), limit)


def problems_at_most(stage: Grpo | Distill) -> int:
    """Problems that a step asks, all scenarios together."""
    return stage.problems_at_most if isinstance(stage, Grpo) else stage.problems_per_step


def sampled_by(stage: Grpo | Distill, config: ModelConfig, place: Place) -> Sampled:
    """A step's rollouts, or those of its held-out evaluation, whichever are more."""
    asked = (
        [(one.problems_per_step, stage.rollouts_per_problem) for one in stage.scenarios]
        if isinstance(stage, Grpo)
        else []
    )
    if isinstance(stage, Distill) and stage.method == "on_policy":
        asked = [(stage.problems_per_step, stage.rollouts_per_problem)]
    asked += [(stage.held_out_problems, 4)] if stage.held_out_every else []
    return widest(stage, config, place, asked)


def widest(stage: Grpo | Distill, config: ModelConfig, place: Place, asked: Sequence[tuple[int, int]]) -> Sampled:
    """The most of several samplings (problems, rollouts of each): in two batches, of which lanes take one each."""
    requests, problems = max((-(-count // 2) * each, -(-count // 2)) for count, each in asked)
    prompt = prompt_of(stage, config, place)
    room = min(config.max_position_embeddings, prompt + stage.sampling.max_tokens)
    slots, batches = min(stage.sampling.max_rows, requests), min(place.lanes, 2)
    said = asked[0][0] * asked[0][1] * stage.sampling.max_tokens
    if isinstance(stage, Grpo):
        said = stage.problems_at_most * stage.rollouts_per_problem * stage.sampling.max_tokens
    kept = min(stage.sampling.top_k or KEPT, config.vocab_size) if stage.sampling.truncates else 0
    ahead = bool(stage.sampling.drafts and config.num_nextn_predict_layers and stage.sampling.draft_from != "text")
    return Sampled(slots, room, batches, problems, prompt, said, kept, stage.sampling.drafts, ahead)


def remedies(stage: Trained, config: ModelConfig, place: Place) -> Iterator[tuple[str, Trained]]:
    """What would ask for less, as it is written on the command line: what costs least first, each with those before."""
    if not stage.packing.checkpoint_activations:
        stage = _with(stage, "packing", checkpoint_activations=True)
        yield f"{stage.name}.packing.checkpoint_activations=true", stage
    if stage.packing.passes < (rows := rows_of(stage, config, place)):
        stage = _with(stage, "packing", passes=rows)
        yield f"{stage.name}.packing.passes={rows}", stage
    is_whole = stage.kind == "reward_model" or (isinstance(stage, Distill) and stage.model is not None)
    if stage.sources and not (stage.adapter.rank or stage.train or stage.freeze or is_whole):
        stage = stage.model_copy(update={"adapter": Adapter(rank=RANK)})
        yield f"{stage.name}.adapter.rank={RANK}", stage
    if not isinstance(stage, Grpo):
        return
    if stage.sampling.max_rows > 16:
        fewer = max(16, min(stage.sampling.max_rows, sampled_by(stage, config, place).slots) // 4)
        stage = _with(stage, "sampling", max_rows=fewer)
        yield f"{stage.name}.sampling.max_rows={fewer}", stage
    shorter, room = stage.sampling.max_tokens // 2, stage.packing.row_tokens - stage.sampling.max_tokens // 2
    if shorter >= 16 and room > shorter:
        stage = _with(_with(stage, "sampling", max_tokens=shorter), "packing", row_tokens=room)
        yield f"{stage.name}.sampling.max_tokens={shorter} {stage.name}.packing.row_tokens={room}", stage


def _with(stage: S, part: str, **values: Any) -> S:
    return stage.model_copy(update={part: getattr(stage, part).model_copy(update=values)})
