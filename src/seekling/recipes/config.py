"""What a manifest can say: stage kinds and their settings. Torch-free, so that a manifest is checked in a moment.

A kind names its loop by string; the loop is imported when the stage runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from seekling.config import Settings, runtime
from seekling.curate.curriculum import Curriculum
from seekling.curate.near import Near
from seekling.curate.overlap import Overlap
from seekling.curate.passing import Passing
from seekling.engine.config import Sampling, Vllm
from seekling.errors import UserError
from seekling.learn.config import Adapter, Budget, Gaps, Objective, Optim, Packing
from seekling.learn.presets import OBJECTIVES
from seekling.model.config import ModelConfig
from seekling.model.presets import PRESETS
from seekling.remote.config import Asked
from seekling.rewards.rated import Reads
from seekling.rewards.rubric import Rubric
from seekling.tasks.corpus import Mixture
from seekling.tasks.registry import FAMILIES, build_task

AHEAD = "how much the prediction layer, where there is one, learns of what is learned, itself alone; 0 leaves it"
"""What ``mtp_weight`` says in stages whose teaching it must not change."""
FORMAT = 1
"""Version of the manifest's language."""


def _preset(value: Any, known: Mapping[str, Settings], what: str) -> Any:
    """A name, or a table of ``preset`` and what differs from it, as a whole table; anything else as it is."""
    table = {"preset": value} if isinstance(value, str) else value
    if not isinstance(table, dict) or "preset" not in table:
        return value
    name = table["preset"]
    if name not in known:
        raise ValueError(f'there is no {what} "{name}"; known: {", ".join(known)}')
    return known[name].model_dump(exclude_unset=True) | {key: v for key, v in table.items() if key != "preset"}


def names_task(spec: str) -> bool:
    """Whether what is to be evaluated is a task, rather than a suite or a file of problems."""
    return spec in FAMILIES or ":" in spec.partition("=")[0]


def _known(names: tuple[str, ...], *, tasks: bool) -> tuple[str, ...]:
    """The names of evaluation sets as they are. Raises ValueError for one that is neither known nor a file's."""
    from seekling.evals.suites import parsed  # with all that judges: only a manifest that names a suite needs it

    for name in names:
        try:
            _ = build_task(name) if tasks and names_task(name) else parsed(name)
        except UserError as error:
            raise ValueError(f"{error.what}. {error.next_step}") from None
    return names


def _refuse_unmeasured(stage: Trained, every: int) -> None:
    """Raises ValueError for a stage that leaves its best checkpoint, of which none meets a held-out evaluation."""
    shared = math.lcm(stage.checkpoint_every, every)
    is_measured = shared and (shared <= stage.steps or stage.steps % every == 0)
    if stage.export == "best" and not is_measured:
        raise ValueError("no checkpoint would be measured: let checkpoint_every be a multiple of held_out_every")


class Gate(Settings):
    """What a figure must reach for the run to go on."""

    min: float | None = None
    max: float | None = None


class StageSettings(Settings):
    """What every stage can say."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="what the stage is called; other stages name it")
    kind: str
    source: str | tuple[str, ...] = Field((), alias="from", description="the stage or stages whose results it reads")
    gate: dict[str, Gate] = runtime({}, description='figures it must reach, e.g. {"pass@1" = {min = 0.6}}')

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the stages it reads, in order."""
        return (self.source,) if isinstance(self.source, str) else self.source


class Trained(StageSettings):
    """What every stage that learns can say."""

    steps: int = Field(ge=1, description="optimizer steps; with a budget, at most")
    budget: Budget = Budget()
    optim: Optim = Optim()
    packing: Packing = Packing()
    adapter: Adapter = Adapter()
    train: tuple[str, ...] = Field(
        (), description='train only parameters of these names, e.g. ["self_attn"]; none: all'
    )
    freeze: tuple[str, ...] = Field((), description='and not those, e.g. ["embed_tokens", "mlp.gate", "layers.[0-3]"]')
    checkpoint_every: int = runtime(100, ge=1, description="steps between checkpoints")
    keep: int = runtime(2, ge=1, description="newest checkpoints that stay, beside the best")
    export: Literal["last", "best"] = Field(
        "last", description="the weights it leaves: of its last step, or of its best checkpoint"
    )

    best_by: ClassVar[str] = "loss"
    """The figure that tells the best checkpoint: a mean since the one before, a held-out figure its own."""
    decisive: ClassVar[tuple[str, ...]] = ("checkpoint_every",)
    """Runtime settings that decide which checkpoint is the best: where that one is exported, they change weights."""

    @field_validator("adapter")
    @classmethod
    def _beside_what_has_learned(cls, value: Adapter, told: ValidationInfo) -> Adapter:
        if value.rank and not told.data.get("source"):
            raise ValueError("adapters stand beside a model that has learned; this stage begins with random weights")
        return value

    @field_validator("train", "freeze")
    @classmethod
    def _one_way_to_train_less(cls, value: tuple[str, ...], told: ValidationInfo) -> tuple[str, ...]:
        if value and told.data.get("adapter", Adapter()).rank:
            raise ValueError("with an adapter all else is frozen: leave this out")
        return value


class Pretrain(Trained):
    """From random weights: next-token prediction on generated text (multi-token prediction and balance included)."""

    kind: Literal["pretrain"] = "pretrain"
    task: str | dict[str, Any] = Field("arithmetic", description="the task whose attempts are the text")
    text: Mixture = Mixture()
    model: ModelConfig = Field(PRESETS["tiny-v3"], description="a preset's name, or a table: preset and what differs")
    tokens_per_step: int = Field(2048, ge=64, description="texts are taken until they hold this many tokens")
    gaps: Gaps = Gaps()
    mtp_weight: float = Field(0.1, ge=0, description="lambda of DeepSeek-V3 eq. 25")
    balance_weight: float = Field(1e-4, ge=0, description="alpha of DeepSeek-V3 eq. 17")
    bias_speed: float = Field(1e-3, ge=0, description="gamma, how fast router biases move")

    @field_validator("model", mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        return _preset(value, PRESETS, "model preset")


class Import(StageSettings):
    """Somebody's checkpoint, by its hub name or from a folder, every tensor checked: where a follower starts."""

    kind: Literal["import"] = "import"
    model: str = Field(min_length=1, description="a hub name such as Qwen/Qwen2.5-0.5B, or a folder")
    revision: str = Field("", description="a branch, tag or commit of the hub's repository")
    through: Literal["seekling", "transformers"] = Field(
        "seekling", description="whose code runs it; transformers knows every causal model, and is slower"
    )


class Sft(Trained):
    """Supervised fine-tuning on chats: a JSONL file of ``messages``, what other stages gathered, or a task's traces.

    Stages with chats stand in ``from``, behind the model; then neither ``data`` nor ``task`` is said.
    """

    kind: Literal["sft"] = "sft"
    steps: int = Field(0, ge=0, description="optimizer steps; 0: as many as epochs make")
    epochs: int = Field(0, ge=0, description="whole passes through the chats, in place of steps (R1: 2)")
    data: str = Field(
        "", description="a .jsonl, .json or .parquet file, a folder of them, or a hub data set (org/name)"
    )
    revision: str = Field("", description="branch, tag or commit of a hub data set")
    split: str = Field("train", description="which split of a hub data set")
    too_long: Literal["refuse", "drop"] = Field("refuse", description="texts longer than packing.row_tokens")
    task: str | dict[str, Any] = Field("", description="or: the task whose traces are the text")
    text: Mixture = Mixture(facts=0.0, qualities={"expert": 1.0})
    tokens_per_step: int = Field(2048, ge=64, description="texts are taken until they hold this many tokens")
    mtp_weight: float = Field(0.1, ge=0, description=AHEAD)

    @model_validator(mode="after")
    def _has_an_end(self) -> Sft:
        if bool(self.steps) == bool(self.epochs):
            raise ValueError("it needs either steps or epochs")
        if self.epochs and self.task:
            raise ValueError("a task's traces have no end to pass through: set steps in place of epochs")
        return self


class Curate(StageSettings):
    """Problems chosen before training: copies and what evaluations ask removed, then those a policy sometimes solves.

    ``from`` may name a stage with a model, whose pass rates decide, and another curate stage, whose list is taken.
    """

    kind: Literal["curate"] = "curate"
    task: str | dict[str, Any] = Field("arithmetic", description="a task's name, or a table: name and what differs")
    problems: int = Field(512, ge=1, description="distinct training problems to draw, where no list is read")
    near: Near = Near()
    against: tuple[str, ...] = Field(
        (), description='evaluation sets to keep out: suites ("gsm8k"), suites with files ("gsm8k=test.jsonl"), files'
    )
    overlap: Overlap = Overlap()
    samples: int = Field(8, ge=1, description="rollouts per problem, where a model is read")
    passing: Passing = Passing()
    sampling: Sampling = Sampling()
    rubric: Rubric = Rubric()

    @field_validator("against")
    @classmethod
    def _known_sets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _known(value, tasks=False)


class Sieves(Settings):
    """What a rollout must be to become an example: the sieves are those of DeepSeek-R1, the figures are ours."""

    correct: bool = Field(True, description="the task's check passes its answer")
    well_formed: bool = Field(True, description="exactly one <think>...</think><answer>...</answer>")
    most_tokens: int = Field(
        0, ge=0, description="the longest example in tokens; 0: as long as was sampled. What was cut off goes anyhow"
    )
    language: float = Field(
        0.9, ge=0, le=1,
        description="least share of its thinking's words in one language, the problem's where it tells one; 0: any",
    )  # fmt: skip
    paragraph: int = Field(2000, ge=0, description="the longest paragraph of its thinking in characters; 0: any")
    code_blocks: bool = Field(False, description="whether its thinking may hold code blocks")
    repetition: float = Field(
        0.2, ge=0, le=1, description="most share of its runs of six words that stood there before; 1: any"
    )


class Teacher(Asked):
    """A model behind an OpenAI-compatible endpoint that solves the problems in place of one of the chain."""

    instruction: str = Field(
        "Think first. Then write the final answer, and nothing else, between <answer> and </answer>.",
        description="what is said to it below a problem, where the task reads tagged answers; no example holds it",
    )
    timeout_s: float = runtime(600.0, gt=0, description="longest wait for one answer")
    active_parameters: float = runtime(
        0.0, ge=0, description="parameters that work on a token (37e9 for DeepSeek-V3), for the ledger; 0: not known"
    )


class Chats(Settings):
    """Chats from elsewhere, merged with what is gathered. A bare text names the file."""

    data: str = Field(
        "", description="a .jsonl, .json or .parquet file, a folder of them, or a hub data set (org/name)"
    )
    revision: str = Field("", description="branch, tag or commit of a hub data set")
    split: str = Field("train", description="which split of a hub data set")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"data": value} if isinstance(value, str) else value


class General(Chats):
    """Data of other kinds, merged so that they are not unlearned: a file of chats, or a task's traces."""

    task: str | dict[str, Any] = Field("", description="or: the task whose traces are the chats")
    text: Mixture = Mixture(facts=0.0, qualities={"expert": 1.0})
    count: int = Field(0, ge=0, description="how many; 0: all of a file's")

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> General:
        if self.data and self.task:
            raise ValueError("it takes either data or task")
        if self.task and not self.count:
            raise ValueError("a task's traces have no end: set count")
        return self


class Gathered(StageSettings):
    """What both stages say that gather examples to learn from."""

    task: str | dict[str, Any] = Field("arithmetic", description="a task's name, or a table: name and what differs")
    teacher: Teacher = Teacher()
    examples: int = Field(0, ge=0, description="how many are wanted; 0: as many as the problems give")
    most_problems: int = Field(10_000, ge=1, description="training problems asked at most")
    samples: int = Field(4, ge=1, description="rollouts per problem")
    keep: int = Field(1, ge=1, description="examples per problem, at most")
    choose: Literal["best", "shortest"] = Field(
        "best",
        description="which of a problem's rollouts: best rewarded first (of equal ones the shortest), or shortest",
    )
    sieves: Sieves = Sieves()
    sampling: Sampling = Sampling()
    rubric: Rubric = Rubric()

    @property
    def merged(self) -> Chats:
        """The data from elsewhere that its own joins."""
        raise NotImplementedError


class ColdStart(Gathered):
    """A few readable examples to begin with (DeepSeek-R1, section 2.3.1): what a model or a teacher solved, sieved.

    ``from`` names a stage with a model, or none where there is a teacher; a curate stage behind it gives the problems.
    """

    kind: Literal["cold_start"] = "cold_start"
    examples: int = Field(1000, ge=0, description="how many are wanted; 0: as many as the problems give")
    choose: Literal["best", "shortest"] = Field(
        "shortest",
        description="which of a problem's rollouts: best rewarded first (of equal ones the shortest), or shortest",
    )
    human: Chats = Chats()

    @property
    def merged(self) -> Chats:
        """Chats that people wrote."""
        return self.human


class Reject(Gathered):
    """Rejection sampling (DeepSeek-R1, section 2.3.3): of many rollouts of each problem the best, and other data.

    ``from`` as of a cold start.
    """

    kind: Literal["reject"] = "reject"
    samples: int = Field(16, ge=1, description="rollouts per problem")
    general: General = General()

    @property
    def merged(self) -> Chats:
        """Data of other kinds."""
        return self.general


class Scenario(Settings):
    """A task that a step asks, who judges it, and how many of its problems; with ``also``, one beside the stage's own.

    R1's last stage asks of reasoning what rules can check and of everything else what people prefer (arXiv 2501.12948,
    section 2.3.4), and lets a reward model judge only near the end: 400 of 1,700 steps.
    """

    name: str = Field("", pattern="^[^/]*$", description="what its figures are called; empty: as its task")
    task: str | dict[str, Any] = Field("arithmetic", description="a task's name, or a table: name and what differs")
    rubric: Rubric = Rubric()
    problems_per_step: int = Field(16, ge=1, description="problems asked in a step")
    begin: float = Field(0.0, ge=0, lt=1, description="share of the stage's steps after which it is first asked")

    def first_step(self, steps: int) -> int:
        """The first of ``steps`` that asks it."""
        return math.floor(self.begin * steps + 1e-9)  # which 0.29 of 100 would else miss by a rounding


class Grpo(Trained):
    """Reinforcement with checkable rewards: sample groups, judge, compare siblings, update (R1-Zero's step).

    A step is a batch of rollouts and its ``minibatches`` x ``epochs`` updates. With ``also`` it asks further scenarios,
    and with a reward model in ``from`` a rubric can weigh what that says (``rated``).
    """

    best_by: ClassVar[str] = "held_out_pass"
    decisive: ClassVar[tuple[str, ...]] = ("checkpoint_every", "held_out_every", "held_out_problems")

    kind: Literal["grpo"] = "grpo"
    task: str | dict[str, Any] = Field("arithmetic", description="a task's name, or a table: name and what differs")
    problems_per_step: int = Field(16, ge=1, description="problems asked in a step")
    rollouts_per_problem: int = Field(16, ge=2, description="siblings that share a baseline: the group")
    sampling: Sampling = Sampling()
    objective: Objective = Field(OBJECTIVES["dr_grpo"], description="a name, or a table: preset and what differs")
    minibatches: int = Field(1, ge=1, description="updates that share a batch of rollouts, each with a part of it")
    epochs: int = Field(1, ge=1, description="how often a batch of rollouts is gone through")
    mtp_weight: float = Field(0.1, ge=0, description=AHEAD)
    refill: int = Field(
        0, ge=0, description="more batches of problems that may be asked to replace groups without spread (DAPO)"
    )
    cut_off: Literal["judged", "left_out"] = Field(
        "judged", description="rollouts that met max_tokens: judged like others, or left out of the loss (DAPO)"
    )
    sampler: Literal["engine", "vllm"] = Field(
        "engine",
        description='who samples: this process, or vLLM, started here or found at an address ("http://host:8000")',
    )
    vllm: Vllm = Vllm()
    replay_routes: bool = Field(True, description="updates send tokens to the experts that the sampler used")
    mismatch_limit: float = runtime(
        0.05, gt=0, description="largest KL between sampler and learner, nats per token; beyond, the run stops"
    )
    rubric: Rubric = Rubric()
    rewards: Literal["checked", "shuffled"] = Field(
        "checked",
        description="shuffled deals each step's rewards out at random: the control that should learn nothing",
    )
    held_out_every: int = runtime(20, ge=0, description="steps between small held-out evaluations; 0 for none")
    held_out_problems: int = runtime(64, ge=1, description="how many problems a small evaluation asks")
    kl_every: int = runtime(10, ge=0, description="steps between measurements of the KL to the start policy")
    curriculum: Curriculum = Curriculum()
    also: tuple[Scenario, ...] = Field((), description="further scenarios, each a table")
    regression: tuple[str, ...] = runtime(
        (), description='what must not be forgotten, tried before and after: suites ("gsm8k"), files, tasks'
    )
    regression_problems: int = runtime(64, ge=1, description="how many problems of each")
    regression_samples: int = runtime(4, ge=1, description="rollouts per problem, at temperature 0.6 and top-p 0.95")

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """Its own, and all that are asked beside it."""
        own = Scenario(task=self.task, rubric=self.rubric, problems_per_step=self.problems_per_step)
        return (own, *self.also)

    @property
    def problems_at_most(self) -> int:
        """Of a step that asks all scenarios."""
        return sum(one.problems_per_step for one in self.scenarios)

    @property
    def updates(self) -> int:
        """Optimizer steps per batch of rollouts."""
        return self.minibatches * self.epochs

    @model_validator(mode="before")
    @classmethod
    def _at_an_address(cls, values: Any) -> Any:
        """An address in the sampler's place stands where it changes no fingerprint."""
        sampler = str(values.get("sampler")) if isinstance(values, dict) else ""
        if not sampler.startswith(("http://", "https://")) or not isinstance(values.get("vllm", {}), dict):
            return values
        return {**values, "sampler": "vllm", "vllm": {**values.get("vllm", {}), "url": sampler}}

    @model_validator(mode="after")
    def _measures_what_it_compares(self) -> Grpo:
        _refuse_unmeasured(self, self.held_out_every)
        return self

    @field_validator("sampling")
    @classmethod
    def _draws(cls, value: Sampling) -> Sampling:
        if not value.temperature:
            raise ValueError("at temperature 0 siblings are all alike, and there is nothing to compare: set it above 0")
        return value

    @field_validator("regression")
    @classmethod
    def _known_sets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _known(value, tasks=True)

    @field_validator("objective", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return _preset(value, OBJECTIVES, "objective")


class AlsoAsked(Settings):
    """One more task that an evaluation asks. A task's name, or a task's own table, is one with the stage's numbers."""

    task: str | dict[str, Any] = Field(description="a task's name, or a table: name and what differs")
    problems: int = Field(0, ge=0, description="held-out problems; 0: as many as the stage")
    samples: int = Field(0, ge=0, description="rollouts per problem; 0: as many as the stage")

    @model_validator(mode="before")
    @classmethod
    def _a_task_alone(cls, value: Any) -> Any:
        return value if isinstance(value, dict) and "task" in value else {"task": value}


class Eval(StageSettings):
    """Held-out problems, many rollouts each: pass@k, maj@k, lengths, diversity, all with intervals.

    Of several models, or of several tasks, each model is asked each task.
    """

    kind: Literal["eval"] = "eval"
    task: str | dict[str, Any] = Field("arithmetic", description="a task's name, or a table: name and what differs")
    problems: int = Field(64, ge=1, description="held-out problems")
    samples: int = Field(64, ge=1, description="rollouts per problem: the largest k")
    larger_size: int | None = Field(None, description="a size never trained on, evaluated beside")
    larger_samples: int = Field(8, ge=1, description="rollouts per problem of that size")
    also: tuple[AlsoAsked, ...] = Field(
        (), description='further tasks, e.g. ["instructions", { task = "countdown", problems = 32 }]'
    )
    sampling: Sampling = Sampling()
    rubric: Rubric = Rubric()

    @property
    def asked(self) -> tuple[AlsoAsked, ...]:
        """Every task with its numbers, the stage's own first."""
        own = AlsoAsked(task=self.task, problems=self.problems, samples=self.samples)
        return own, *(
            AlsoAsked(task=one.task, problems=one.problems or self.problems, samples=one.samples or self.samples)
            for one in self.also
        )


class Control(StageSettings):
    """The cheapest things that could also have raised the score; from = [before, after] (two stages' models)."""

    kind: Literal["control"] = "control"
    task: str | dict[str, Any] = Field("arithmetic", description="a task's name, or a table: name and what differs")
    problems: int = Field(64, ge=1, description="held-out problems")
    samples: int = Field(16, ge=1, description="rollouts per problem and control")
    sampling: Sampling = Sampling()
    rubric: Rubric = Rubric()


class Preferences(Trained):
    """Pairs of replies to one prompt, one preferred: rows of a user's own, or a task's.

    A task's are its traces, right against wrong, or what the input's model answers, labelled by a rule of the task's
    that nobody else sees, with noise.
    """

    data: str = Field(
        "", description="a .jsonl, .json or .parquet file, a folder of them, or a hub data set (org/name)"
    )
    revision: str = Field("", description="branch, tag or commit of a hub data set")
    split: str = Field("train", description="which split of a hub data set")
    too_long: Literal["refuse", "drop"] = Field(
        "refuse", description="pairs whose two texts are together longer than packing.row_tokens"
    )
    length_ratio: float = Field(
        0.0, ge=0, description="leave out pairs whose replies differ in length by more than this factor; 0: none"
    )
    min_margin: float = Field(
        0.0, ge=0, description='leave out rows whose "margin" is less, and sampled answers that the rule puts nearer'
    )
    held_out: float = Field(0.1, ge=0, lt=1, description="share of a file's prompts whose pairs are never trained on")
    task: str | dict[str, Any] = Field("", description="or: the task whose traces are compared, right against wrong")
    text: Mixture = Mixture(facts=0.0)
    compare: Literal["traces", "sampled"] = Field(
        "traces", description="a task's pairs: its traces, or two answers that the input's model gives to a problem"
    )
    problems: int = Field(512, ge=1, description="sampled: training problems asked, a pair of each")
    samples: int = Field(4, ge=2, description="sampled: answers to each, of which two are drawn")
    sampling: Sampling = Sampling()
    noise: float = Field(
        0.1, ge=0, description="sampled: a label is drawn from sigmoid(difference / noise); 0: the rule's own word"
    )
    pairs_per_step: int = Field(16, ge=1, description="pairs in a step")
    held_out_every: int = runtime(20, ge=0, description="steps between measurements on held-out pairs; 0 for none")
    held_out_pairs: int = runtime(128, ge=1, description="how many held-out pairs are compared")

    best_by: ClassVar[str] = "held_out_accuracy"
    decisive: ClassVar[tuple[str, ...]] = ("checkpoint_every", "held_out_every", "held_out_pairs")

    @model_validator(mode="after")
    def _goes_together(self) -> Preferences:
        if bool(self.data) == bool(self.task):
            raise ValueError('it needs either data or task: set data = "pairs.jsonl", or task')
        if self.compare == "sampled" and not self.task:
            raise ValueError('compare = "sampled" asks a task: set task')
        if self.compare == "sampled" and not self.sampling.temperature:
            raise ValueError("at temperature 0 answers are all alike, and there is nothing to compare: set it above 0")
        is_measured = self.held_out_every and self.checkpoint_every % self.held_out_every == 0
        if self.export == "best" and not (is_measured and (self.held_out or self.task)):
            raise ValueError("no checkpoint would be measured: let checkpoint_every be a multiple of held_out_every")
        return self


class Dpo(Preferences):
    """Preference learning without a reward model: what was chosen becomes likelier than what was rejected.

    The reference is the model it begins with.
    """

    kind: Literal["dpo"] = "dpo"
    loss: Literal["dpo", "ipo"] = Field("dpo", description="log sigmoid of the margin (DPO), or its distance to a goal")
    beta: float = Field(0.1, gt=0, description="how close it stays to the reference; IPO's goal is 1/(2 beta)")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of pairs thought to be labelled the wrong way round (cDPO)"
    )
    average: bool = Field(False, description="compare means per token instead of whole replies (TRL's ipo does)")
    nll: float = Field(0.0, ge=0, description="weight of the chosen replies' own next-token loss (Llama 3: 0.2)")
    mtp_weight: float = Field(0.1, ge=0, description=f"{AHEAD} (of the chosen replies)")

    @model_validator(mode="after")
    def _smoothing_of_dpo(self) -> Dpo:
        if self.label_smoothing and self.loss == "ipo":
            raise ValueError('label_smoothing belongs to loss = "dpo"; the goal of "ipo" is finite as it is')
        return self


class RewardModel(Preferences):
    """A reward model: a number for a whole reply, higher where people would prefer it (Bradley-Terry).

    What it leaves is transformers' ``*ForSequenceClassification`` of one label, and says nothing.
    """

    kind: Literal["reward_model"] = "reward_model"
    head: Literal["zero", "drawn"] = Field("zero", description="what the head begins as")
    margin: bool = Field(True, description='the difference must exceed the row\'s "margin", where it has one')
    centre: float = Field(0.0, ge=0, description="weight of (chosen + rejected)^2, which holds rewards around 0")
    reads: Reads = Field("reply", description="of sampled answers: what is said outside the thinking, or all of it")


class Distill(Trained):
    """A student learns from a teacher of the chain: its texts, its distributions, or what it says of the student's own.

    from = [student, teacher], or teacher alone where ``model`` says what a student from random weights is; a curated
    list may come last.
    """

    best_by: ClassVar[str] = "held_out_pass"
    decisive: ClassVar[tuple[str, ...]] = ("checkpoint_every", "held_out_every", "held_out_problems")
    only: ClassVar[dict[str, tuple[str, ...]]] = {
        **dict.fromkeys(
            ("problems", "samples", "learn_from", "language", "language_share", "tokens_per_step"),
            ("sequence", "logits"),
        ),
        "top_k": ("logits",),
        "temperature": ("logits", "on_policy"),
        **dict.fromkeys(
            ("problems_per_step", "rollouts_per_problem", "curriculum", "own_share", "beta", "by"), ("on_policy",)
        ),
    }
    """Settings that mean something to some methods alone."""

    kind: Literal["distill"] = "distill"
    method: Literal["sequence", "logits", "on_policy"] = Field(
        "sequence",
        description="the teacher's texts by next-token loss (sequence), its distributions at them (logits), or what it"
        " says of the student's own texts (on_policy)",
    )
    task: str | dict[str, Any] = Field("arithmetic", description="a task's name, or a table: name and what differs")
    model: ModelConfig | None = Field(
        None, description="a student from random weights, with the teacher's tokenizer: a preset, or a table"
    )
    balance_weight: float = Field(1e-4, ge=0, description="of a student from random weights: as in pretrain")
    bias_speed: float = Field(1e-3, ge=0, description="of a student from random weights: as in pretrain")
    teacher_dtype: Literal["float32", "bfloat16"] = Field("float32", description="what the teacher is held in")
    problems: int = Field(512, ge=1, description="sequence, logits: training problems that the teacher answers")
    samples: int = Field(4, ge=1, description="sequence, logits: its rollouts per problem")
    learn_from: Literal["passed", "all"] = Field(
        "passed", description="sequence, logits: its rollouts that pass, or all; unfinished ones never"
    )
    language: Literal["any", "en", "zh"] = Field(
        "any", description="sequence, logits: and of those only from what is in this language"
    )
    language_share: float = Field(0.95, gt=0, le=1, description="sequence, logits: least share of its words that are")
    tokens_per_step: int = Field(
        2048, ge=64, description="sequence, logits: texts are taken until they hold this many tokens"
    )
    top_k: int = Field(64, ge=1, description="logits: likeliest tokens stored at each place; the rest is one number")
    temperature: float = Field(
        1.0, gt=0, description="logits, on_policy: divides the logits of both; the loss is multiplied by its square"
    )
    problems_per_step: int = Field(16, ge=1, description="on_policy: problems asked in a step")
    rollouts_per_problem: int = Field(4, ge=1, description="on_policy: rollouts of each")
    own_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="on_policy: share of a step's problems that the student answers; the teacher, the rest",
    )
    beta: float = Field(
        1.0, ge=0, le=1, description="on_policy: reverse KL (1), forward KL (0), between them Jensen-Shannon's"
    )
    by: Literal["exact", "sampled"] = Field(
        "exact", description="on_policy: over the whole vocabulary, or by what was said alone, as a policy gradient"
    )
    curriculum: Curriculum = Curriculum()
    sampling: Sampling = Sampling()
    rubric: Rubric = Rubric()
    mtp_weight: float = Field(0.1, ge=0, description=AHEAD)
    held_out_every: int = runtime(20, ge=0, description="steps between small held-out evaluations; 0 for none")
    held_out_problems: int = runtime(64, ge=1, description="how many problems a small evaluation asks")

    @field_validator("model", mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        return _preset(value, PRESETS, "model preset")

    @model_validator(mode="after")
    def _goes_together(self) -> Distill:
        _refuse_unmeasured(self, self.held_out_every)
        if self.model and self.adapter.rank:
            raise ValueError("adapters stand beside a model that has learned; this student begins with random weights")
        told = [name for name in self.only if getattr(self, name) != type(self).model_fields[name].default]
        if strange := [name for name in told if self.method not in self.only[name]]:
            methods = " or ".join(f'method = "{method}"' for method in self.only[strange[0]])
            raise ValueError(f'{strange[0]} belongs to {methods}, and this is "{self.method}"')
        is_plain = (self.own_share, self.beta, self.temperature) == (1, 1, 1) and not self.sampling.truncates
        if self.by == "sampled" and not (is_plain and self.sampling.temperature):
            raise ValueError(
                'by = "sampled" is the reverse KL of what the student draws from its whole distribution: leave'
                " own_share, beta and temperature at 1, sample above temperature 0, and truncate nothing"
            )
        return self


@dataclass(frozen=True, slots=True)
class Kind:
    """A stage kind: its settings, its loop by name, what it may read (each way a tuple of leavings), what it leaves.

    A leaving is "model", which speaks; "rater", a reward model; "list", chosen problems; "data", chats; or "nothing". A
    way whose last ends with ``MANY`` takes one of that or more.
    """

    settings: type[StageSettings]
    loop: str
    reads: tuple[tuple[str, ...], ...]
    leaves: str = "model"
    schema: int = 1


SPEAKERS: tuple[tuple[str, ...], ...] = (("model",), ("model", "list"), (), ("list",))
"""What stages read that gather: a model, where no teacher speaks, and a list, where problems are not drawn."""
MANY = "..."
"""What follows a leaving of which a stage reads any number."""

KINDS: dict[str, Kind] = {
    "pretrain": Kind(Pretrain, "seekling.recipes.pretrain:pretrain", ((),)),
    "import": Kind(Import, "seekling.recipes.importing:import_model", ((),)),
    "sft": Kind(Sft, "seekling.recipes.sft:sft", (("model",), ("model", "data"), ("model", "data", "data"))),
    "cold_start": Kind(ColdStart, "seekling.recipes.gathering:gather", SPEAKERS, leaves="data"),
    "reject": Kind(Reject, "seekling.recipes.gathering:gather", SPEAKERS, leaves="data"),
    "curate": Kind(
        Curate,
        "seekling.recipes.curating:curate",
        ((), ("list",), ("model",), ("model", "list"), ("list", "model")),
        leaves="list",
    ),
    "grpo": Kind(
        Grpo,
        "seekling.recipes.grpo:grpo",
        (("model",), ("model", "list"), ("model", "rater"), ("model", "list", "rater")),
    ),
    "eval": Kind(Eval, "seekling.recipes.evaluate:evaluate", (("model...",),), leaves="nothing"),
    "control": Kind(Control, "seekling.recipes.control:control", (("model",) * 2, ("model",) * 3), leaves="nothing"),
    "dpo": Kind(Dpo, "seekling.recipes.dpo:dpo", (("model",),)),
    "distill": Kind(
        Distill,
        "seekling.recipes.distill:distill",
        (("model", "model"), ("model", "model", "list"), ("model",), ("model", "list")),
    ),
    "reward_model": Kind(RewardModel, "seekling.recipes.reward_model:reward_model", (("model",),), leaves="rater"),
}

LEAVINGS: dict[str, str] = {
    "model": "a model",
    "list": "a list of problems",
    "data": "chats, gathered to learn from",
    "rater": "a reward model, which rates what others say and says nothing",
    "nothing": "figures, which no stage reads",
}
"""What stages leave, in words."""


def reads(kind: str, found: Sequence[str]) -> bool:
    """Whether a stage of this kind reads such leavings, in this order."""
    return any(_fits(way, tuple(found)) for way in KINDS[kind].reads)


def _fits(way: tuple[str, ...], found: tuple[str, ...]) -> bool:
    if not way or not way[-1].endswith(MANY):
        return found == way
    first, last = way[:-1], way[-1].removesuffix(MANY)
    return len(found) >= len(way) and found == first + (last,) * (len(found) - len(first))


def told_reads(kind: str) -> str:
    """What a kind reads, in words: ``a model``, ``nothing, or a model``, ``a model or several``."""
    return ", or ".join(" and ".join(map(_told, way)) or "nothing" for way in KINDS[kind].reads)


def _told(leaving: str) -> str:
    one = LEAVINGS[leaving.removesuffix(MANY)].partition(",")[0]
    return f"{one} or several" if leaving.endswith(MANY) else one
