"""Does it fit: the most memory a stage will hold, from its settings alone, before anything is allocated. Torch-free.

A stage passes through moments, each of which holds other things beside the weights: it loads, samples, updates, lets
the optimizer step, exports. Its peak is that of the largest. What a block keeps for the way back is counted tensor by
tensor as autograd keeps it (``kept_by_block``); where a figure depends on what only a run can know, the larger one is
taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from seekling.model.config import ModelConfig
from seekling.model.parameters import Shape

FLOAT, ID = 4, 8
"""Bytes of a float32 and of an id."""
WHOLE_LOGITS = 2**25
"""Logits up to so many bytes are made whole; of more, chunks (``seekling.learn.logps``)."""
READ_AT_ONCE, PAGE = 2048, 16
"""Tokens of prompts that are read at once, and those of a page of the cache (``seekling.engine.paged``)."""
KEPT = 20
"""Bytes of an id that a truncated sampler might have said, in all its forms."""
RUNTIME = {"cpu": 400 * 2**20, "accelerator": 700 * 2**20}
"""Python, torch and its libraries; on an accelerator its context and the workspace of its libraries."""
KERNELS = 2**26
"""What the CPU's library keeps of kernels it makes for bfloat16."""
SLACK = {"cpu": 1.5, "returning": 0.03, "accelerator": 0.06}
"""Share of what comes and goes that an allocator holds unused: pieces too small for the next tensor.

glibc, left alone, was seen to keep 0.2 to 1.1 of it; ``returning`` is one that gives freed tensors back at once
(``seekling.plan.machine.give_back``), as it is told to where activations are checkpointed.
"""

Parts = dict[str, float]
"""Bytes by what they are for."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """Sampling at its widest: ``slots`` rows of ``room`` tokens in each of ``batches`` at once.

    A step says ``said`` tokens at most, each of ``kept`` ids where a sampler truncates (0: it does not). ``drafts`` are
    guessed and read behind each row's last token; with ``ahead`` by the prediction layer, which has a cache too.
    """

    slots: int
    room: int
    batches: int
    prompts: int
    prompt: int
    said: int
    kept: int = 0
    drafts: int = 0
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Teacher:
    """A second model, which teaches: its shape, and the bytes of a number of its weights.

    ``sampled``: what it says at its widest, none where it only reads. ``stays``: it is there while the student learns;
    then of each token ``told`` numbers are kept for an update, as they are where it has told them before.
    """

    config: ModelConfig
    parameters: Mapping[str, Shape]
    held: int = FLOAT
    sampled: Sampled | None = None
    stays: bool = False
    told: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage asks of memory.

    ``held`` and ``computed``: bytes of a number of the weights and of the arithmetic. ``trained``: shapes of what
    learns; ``muon`` names those of Muon. A step has ``rows`` rows of ``row_tokens`` in ``passes`` slices, ``lanes``
    of them at once. ``ahead``: the prediction layer learns too. ``referenced``: a second copy of what is trained is
    kept. ``beside``: shapes of a frozen model that is asked, float32. ``returns``: freed tensors go back to the system
    at once. ``compiled``: what stands between products is done in C: attention reads the cache as it lies, and less is
    kept for the way back. ``compared``: how many chunks of logits stand at once where whole distributions are compared
    with a ``teacher``'s; 0: they are not.
    """

    config: ModelConfig
    parameters: Mapping[str, Shape]
    trained: Mapping[str, Shape]
    muon: frozenset[str]
    rows: int
    row_tokens: int
    passes: int
    lanes: int
    held: int = FLOAT
    computed: int = FLOAT
    adapted: bool = False
    recomputes: bool = False
    ahead: bool = False
    referenced: bool = False
    beside: Mapping[str, Shape] = field(default_factory=dict)
    draws_weights: bool = False
    sampled: Sampled | None = None
    place: str = "cpu"
    returns: bool = False
    compiled: bool = False
    teacher: Teacher | None = None
    compared: int = 0

    @property
    def inner(self) -> int:
        """Bytes of what attention computes in (``seekling.model.layers.inner_dtype``), and experts held in float32."""
        return FLOAT if self.place == "cpu" else self.computed

    @property
    def fused(self) -> bool:
        """Whether a training pass is ``seekling.model.fused``'s."""
        return self.compiled and self.held == FLOAT

    @property
    def joins(self) -> bool:
        """Whether maps that read the same are one product."""
        return self.fused and not self.adapted

    @property
    def spoken(self) -> int:
        """Bytes of a number of what is sampled from: in fewer bits a copy, but not beside adapters."""
        return self.held if self.adapted else min(self.held, self.computed)

    @property
    def slices(self) -> int:
        """How many slices a step really has."""
        return max(1, min(self.passes, self.rows))

    @property
    def tokens(self) -> int:
        """Tokens of the largest slice, padding included."""
        return -(-self.rows // self.slices) * self.row_tokens


@dataclass(frozen=True, slots=True)
class Prediction:
    """Each moment's bytes by part."""

    moments: Mapping[str, Parts]

    @property
    def largest(self) -> str:
        """The moment that holds most."""
        return max(self.moments, key=lambda name: sum(self.moments[name].values()))

    @property
    def parts(self) -> Parts:
        """What the largest moment holds, the largest first."""
        return dict(sorted(self.moments[self.largest].items(), key=lambda part: -part[1]))

    @property
    def peak(self) -> float:
        """Bytes."""
        return sum(self.moments[self.largest].values())


def predict(work: Work) -> Prediction:
    """The moments of a stage."""
    resting = _resting(work)
    moments = {"load": _loading(work), "update": resting | _updating(work), "optimizer": resting | _stepping(work)}
    moments |= {"sample": resting | _sampling(work, work.sampled)} if work.sampled else {}
    moments |= {"teach": resting | _teaching(work, work.teacher)} if work.teacher else {}
    moments |= {"export": resting | _exporting(work)} if work.adapted and work.place == "cpu" else {}
    runtime = {"runtime": float(RUNTIME[work.place])}
    if work.place == "cpu" and work.computed < FLOAT:
        runtime["kernels"] = float(KERNELS)
    return Prediction({name: runtime | parts | _slack(work, parts) for name, parts in moments.items()})


def _slack(work: Work, parts: Parts) -> Parts:
    lasting = ("weights", "optimizer states", "reference", "reward model", "teacher")
    kind = "returning" if work.place == "cpu" and work.returns else work.place
    return {"allocator": SLACK[kind] * sum(size for name, size in parts.items() if name not in lasting)}


def numbers(shapes: Mapping[str, Shape]) -> int:
    """How many numbers they hold."""
    return sum(map(math.prod, shapes.values()))


# --- moments ----------------------------------------------------------------------------------------------------------


def _weights(work: Work) -> float:
    own = FLOAT * numbers(work.trained) if work.adapted else 0
    return work.held * numbers(work.parameters) + own


def _resting(work: Work) -> Parts:
    """What stands all the time: a sampler in fewer bits has weights of its own."""
    of_muon = {name: shape for name, shape in work.trained.items() if name in work.muon}
    states = FLOAT * (2 * numbers(work.trained) - numbers(of_muon))
    spoken = work.spoken * numbers(work.parameters) if work.sampled and work.spoken < work.held else 0
    parts = {"weights": _weights(work) + spoken, "optimizer states": float(states)}
    parts |= {"reward model": float(FLOAT * numbers(work.beside))} if work.beside else {}
    parts |= {"teacher": _of_teacher(work, work.teacher)} if work.teacher and work.teacher.stays else {}
    return parts | ({"reference": float(FLOAT * numbers(work.trained))} if work.referenced and not work.adapted else {})


def _of_teacher(work: Work, teacher: Teacher) -> float:
    """Its weights, and those it speaks with where they have fewer bits."""
    spoken = min(teacher.held, work.computed) if teacher.sampled else teacher.held
    return float(numbers(teacher.parameters) * (teacher.held + (spoken if spoken < teacher.held else 0)))


def _teaching(work: Work, teacher: Teacher) -> Parts:
    """The teacher speaks, or reads what was said, never both at once; beside it the student, and what it rests on."""
    own = replace(work, config=teacher.config, held=teacher.held, adapted=False, teacher=None)
    at_once = min(work.lanes, work.slices)
    reading = at_once * (work.tokens * _inference(teacher.config) * FLOAT + _logits(own))
    said = _sampling(own, teacher.sampled) if teacher.sampled else {"sampling": 0.0}
    return said | {"teacher": _of_teacher(work, teacher), "sampling": max(said["sampling"], float(reading))}


def _loading(work: Work) -> Parts:
    """The model and its largest tensor beside it; drawn weights, twice, since they are scaled."""
    largest = max(map(math.prod, work.parameters.values()))
    return {"weights": _weights(work), "reading": float(FLOAT * largest * (2 if work.draws_weights else 1))}


def _updating(work: Work) -> Parts:
    """The largest instant of the way back. Slices side by side are taken to be at the same one."""
    at_once = min(work.lanes, work.slices)
    waits = work.slices > at_once
    # Of earlier slices there is a sum, and the gradients that are being added to it while others go on.
    summed = FLOAT * numbers(work.trained) * (waits + (waits and at_once > 1))
    own = max(_instants(work), key=lambda parts: sum(parts.values()))
    parts = {name: at_once * size for name, size in own.items()}
    return parts | {"gradients": parts["gradients"] + summed, "batch": _batch(work), "kept sets": _kept_sets(work)}


def _instants(work: Work) -> list[Parts]:
    """Of one slice: the head at work; the last block, all others still kept; the first, all others back; the table."""
    c, grads = work.config, float(FLOAT * numbers(work.trained))
    layers = range(c.num_hidden_layers)
    blocks = [_block(work, layer) for layer in layers]
    held = [FLOAT * work.tokens * c.hidden_size] * len(blocks) if work.recomputes else blocks
    ahead = _ahead(work) if work.ahead else 0.0
    of_table = FLOAT * math.prod(work.trained.get("embed_tokens.weight", (0,)))
    of_head = of_table if c.tie_word_embeddings else FLOAT * math.prod(work.trained.get("lm_head.weight", (0,)))
    at_last = max(blocks) if work.recomputes else 0.0
    before_table = grads - (0 if c.tie_word_embeddings else of_table)
    block = _lasting(work) + _working(work)
    return [
        {"activations": sum(held) + ahead + _lasting(work) + _states(work), **_head(work, of_head)},
        {"activations": sum(held) + at_last + block, "logits": 0.0, "gradients": of_head},
        {"activations": max(blocks) + block, "logits": 0.0, "gradients": before_table},
        {"activations": 0.0, "logits": 0.0, "gradients": grads + of_table * (2 if c.tie_word_embeddings else 1)},
    ]


def _head(work: Work, of_head: float) -> Parts:
    """Of whole logits only the gradient is left when the head's is made; in chunks both are there from the first."""
    logits = _logits(work)
    if work.compared or work.tokens * work.config.vocab_size * FLOAT > WHOLE_LOGITS:
        return {"logits": logits, "gradients": of_head}
    left = logits / _copies(work)
    return {"logits": logits, "gradients": 0.0} if logits > left + of_head else {"logits": left, "gradients": of_head}


def _stepping(work: Work) -> Parts:
    """Gradients, and what Muon makes of the matrices of one shape: six times as much, and their Gram matrices."""
    by_shape: dict[Shape, float] = {}
    for name in work.muon:
        *stack, rows, columns = work.trained[name]
        short = min(rows, columns)
        size = FLOAT * math.prod(stack) * (6 * rows * columns + short * short)
        by_shape[rows, columns] = by_shape.get((rows, columns), 0.0) + size
    at_work = sorted(by_shape.values(), reverse=True)[: work.lanes]
    return {"gradients": float(FLOAT * numbers(work.trained)), "Muon": sum(at_work), "batch": _batch(work)}


def _exporting(work: Work) -> Parts:
    """Adapters merged into new matrices, in float32, on the CPU wherever the model was."""
    beside = {name.removesuffix("/A") for name in work.trained if name.endswith("/A")}
    return {"merged": float(FLOAT * numbers({name: work.parameters[name] for name in beside}))}


def _batch(work: Work) -> float:
    """Ids, weights and values of every token, and the experts it was sent to."""
    routes = len(work.config.moe_layers) * work.config.num_experts_per_tok * 2 * ID if work.sampled else 0
    told = FLOAT * work.teacher.told if work.teacher else 0
    return float(work.rows * work.row_tokens * (4 * ID + 4 * FLOAT + routes + told))


def _kept_sets(work: Work) -> float:
    """As they are noted, recorded, journaled and laid out for an update."""
    return float(work.sampled.said * work.sampled.kept * KEPT) if work.sampled else 0.0


def _sampling(work: Work, sampled: Sampled) -> Parts:
    """The cache, one layer of it again where attention copies it together, and what the vocabulary asks for."""
    c, s = work.config, sampled
    room, prompt = (PAGE * math.ceil(tokens / PAGE) for tokens in (s.room, s.prompt))
    token = c.cache_width * work.spoken
    layer, read = 0 if work.compiled else s.slots * room * token, s.slots * (1 + s.drafts)
    cache = (s.slots * room + s.prompts * prompt) * token * (c.num_hidden_layers + s.ahead)
    reading = min(s.prompts * s.prompt, READ_AT_ONCE) * _inference(c) * FLOAT
    scores = 2 * read * c.num_attention_heads * s.room * FLOAT
    logits = read * c.vocab_size * (8 * FLOAT if s.kept else 4 * FLOAT)
    routes = 2 * s.slots * s.room * len(c.moe_layers) * c.num_experts_per_tok
    decoding = layer + scores + logits
    own = {"cache": cache + routes, "sampling": max(decoding, reading)}
    return {name: float(s.batches * size) for name, size in own.items()} | {"kept sets": _kept_sets(work)}


def _inference(c: ModelConfig) -> int:
    """Numbers per token that stand at once where nothing is kept: the widest of a block's parts, and the stream."""
    heads = 5 * c.num_attention_heads * c.qk_head_dim
    dense = 3 * c.intermediate_size
    routed = c.num_experts_per_tok * (4 * c.moe_intermediate_size + 2 * c.hidden_size) if c.moe_layers else 0
    return max(heads, dense, routed) + 4 * c.hidden_size


# --- the way back -----------------------------------------------------------------------------------------------------


def kept(work: Work) -> float:
    """What a slice's forward pass keeps for the way back, logits apart."""
    return _instants(work)[0]["activations"]


def _lasting(work: Work) -> float:
    """What all blocks share: ids, angles, and the mask as it is and as attention adds it; a number tells kernels."""
    c = work.config
    windows = len({c.window(layer) for layer in range(c.num_hidden_layers)})
    mask = windows * (FLOAT if work.fused else work.row_tokens * (work.inner + 1))
    return float(work.tokens * (mask + 2 * FLOAT * c.rotary_dim + 4 * ID))


def _states(work: Work) -> float:
    """What the head reads: the last norm and what it leaves."""
    return float(work.tokens * (_norm(work.config.hidden_size, work) + 2 * FLOAT * work.config.hidden_size))


def _ahead(work: Work) -> float:
    """The prediction layer: two norms, their joint map, a block, a norm; and its embeddings."""
    c = work.config
    own = 3 * _norm(c.hidden_size, work) + (2 * work.computed + 2 * FLOAT) * c.hidden_size
    return work.tokens * own + _block(work, c.num_hidden_layers)


def _block(work: Work, layer: int) -> float:
    """A block's share: what its tokens keep, and the casts of its weights."""
    cast = {n: s for n, s in _matrices(work, layer).items() if len(s) < 3 or work.inner < FLOAT}  # stacks of experts
    joined = {n: s for n, s in cast.items() if n.split(".")[-2] in _joined(work)}
    casts = 2 * numbers(cast) if work.computed < FLOAT else FLOAT * numbers(joined)
    return work.tokens * kept_by_block(work.config, layer, work) + casts


def _joined(work: Work) -> frozenset[str]:
    """Weights that are laid side by side for one product."""
    if not work.joins:
        return frozenset()
    latent = {"q_a_proj", "kv_a_proj_with_mqa"} if work.config.q_lora_rank else set()
    attention = latent if work.config.parts.attention == "mla" else {"q_proj", "k_proj", "v_proj"}
    return frozenset({"gate_proj", "up_proj"} | attention)


def _matrices(work: Work, layer: int) -> Mapping[str, Shape]:
    """What a block's products read; a router's is never rounded."""
    prefix = "mtp.block." if layer == work.config.num_hidden_layers else f"layers.{layer}."
    return {n: s for n, s in work.parameters.items() if n.startswith(prefix) and not n.endswith("gate.weight")}


def _trained_in(work: Work, layer: int) -> Mapping[str, Shape]:
    return {name: shape for name, shape in work.trained.items() if name.startswith(f"layers.{layer}.")}


def kept_by_block(c: ModelConfig, layer: int, work: Work) -> float:
    """Bytes per token that a block keeps, adapters beside it included."""
    attention = _of_latent(c, work) if c.parts.attention == "mla" else _of_grouped(c, work)
    feed = _of_experts(c, work) if c.is_moe(layer) else _of_map(c.hidden_size, c.intermediate_size, work)
    beside = 0.0
    if work.adapted:
        halves = [shape for name, shape in _trained_in(work, layer).items() if name.endswith("/A")]
        beside = sum(FLOAT * s[-2] * (c.num_experts_per_tok if len(s) == 3 else 1) for s in halves)
    return 2 * _norm(c.hidden_size, work) + attention + feed + beside


def _norm(width: int, work: Work) -> float:
    """Its input and, in torch, that divided by its size; a frozen one has no use for the second."""
    return FLOAT * ((1 if work.adapted or work.fused else 2) * width + 1)


def _casts(width: int, count: int, work: Work) -> float:
    """The input of ``count`` maps that read the same: once in float32, else rounded anew for each of them."""
    return FLOAT * width if work.computed == FLOAT else count * work.computed * width


def _of_map(width: int, hidden: int, work: Work) -> float:
    """SwiGLU: its input; gate, up, silu(gate) in torch, and their product."""
    return _casts(width, 1 if work.joins else 2, work) + (3 if work.fused else 4) * work.computed * hidden


def _of_grouped(c: ModelConfig, work: Work) -> float:
    """Queries; keys and values, repeated for every head; the answer; its normaliser. Head norms keep float32, in torch:
    else what the product left."""
    heads, wide = c.num_attention_heads, c.num_attention_heads * c.qk_head_dim
    norms = 0.0
    if c.parts.qk_norm and work.fused:
        norms = work.computed * (heads + 2 * c.kv_heads) * c.qk_head_dim
    elif c.parts.qk_norm:
        norms = sum(count * _norm(c.qk_head_dim, work) for count in (heads, c.kv_heads))
    read = _casts(c.hidden_size, 1 if work.joins else 3, work)
    return read + 3 * work.inner * wide + _answer(work, wide) + FLOAT * heads + norms


def _answer(work: Work, wide: int) -> float:
    """What attention says; in torch once more where it is rounded for the map behind it."""
    if work.fused:
        return work.computed * wide
    return work.inner * wide + (work.computed * wide if work.computed < work.inner else 0)


def _of_latent(c: ModelConfig, work: Work) -> float:
    """As wide for values as for keys in torch, padded, and the answer without its padding; latents, normalised and as
    read."""
    heads, wide = c.num_attention_heads, c.num_attention_heads * c.qk_head_dim
    if work.fused:
        said: float = 2 * work.inner * wide + (work.inner + work.computed) * heads * c.v_head_dim
    elif c.v_head_dim != c.qk_head_dim:
        said = 4 * work.inner * wide + work.computed * heads * c.v_head_dim
    else:
        said = 3 * work.inner * wide + _answer(work, wide)
    latents = sum(_latent(width, work) for width in (c.kv_lora_rank, c.q_lora_rank) if width)
    latents += work.computed * c.qk_rope_head_dim if work.computed == FLOAT or work.fused else 0
    is_plain = c.v_head_dim > c.qk_head_dim and not work.fused
    scores = 3 * FLOAT * heads * work.row_tokens if is_plain else 0
    maps = 1 if work.joins and c.q_lora_rank else 2
    return _casts(c.hidden_size, maps, work) + said + FLOAT * heads + latents + scores


def _latent(width: int, work: Work) -> float:
    """A normed one, as it is read, and what its norm keeps: in torch that in float32."""
    own = work.computed * width + FLOAT if work.fused else _norm(width, work)
    return own + work.computed * width


def _of_experts(c: ModelConfig, work: Work) -> float:
    """Tokens as they were sent, gate and up, silu(gate), their product, the answers; scores, weights and places."""
    assert c.n_routed_experts is not None
    active, width = c.num_experts_per_tok, c.hidden_size
    sent = work.inner * active * (2 * width + (3 if work.fused else 4) * c.moe_intermediate_size)
    routing = FLOAT * (2 * c.n_routed_experts + 2 * active + 1) + 3 * ID * active
    hidden = c.moe_intermediate_size * c.n_shared_experts
    both = FLOAT * width if work.computed < FLOAT else 0  # the router reads float32, whatever the rest does
    alone = _of_map(width, hidden, work) if hidden else _casts(width, 0, work)
    return sent + routing + both + alone


def _working(work: Work) -> float:
    """What stands beside a block while it is on its way back."""
    c = work.config
    widest = max(c.intermediate_size if len(c.moe_layers) < c.num_hidden_layers else 0,
                 c.num_experts_per_tok * c.moe_intermediate_size if c.moe_layers else 0)  # fmt: skip
    inside = work.inner * max(2 * widest, 3 * c.num_attention_heads * c.qk_head_dim)
    return work.tokens * (inside + 2 * FLOAT * c.hidden_size)


def _logits(work: Work) -> float:
    """Those of a slice made whole, or twice those of a chunk, beside the head's rounded copy where one is made."""
    c = work.config
    token, head = c.vocab_size * FLOAT, c.vocab_size * c.hidden_size
    if work.tokens * token <= WHOLE_LOGITS and not work.compared:
        return float(_copies(work) * work.tokens * token)
    most = max(1, min(4 * WHOLE_LOGITS, max(WHOLE_LOGITS, head * work.held // 4)) // token)
    chunk = -(-work.tokens // -(-work.tokens // most))
    return (work.compared or 2.05) * chunk * token + (work.computed * head if work.computed < FLOAT else 0)


def _copies(work: Work) -> int:
    """How often whole logits stand at the most: as log-probabilities, and twice on the way back."""
    return 3 + (1 if work.ahead else 0) + (2 if work.sampled and work.sampled.kept else 0)
