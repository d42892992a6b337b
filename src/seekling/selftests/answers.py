"""Known answers: small sums whose results are written down, done again before anything is learned.

What a room of mathematics computes is a function of its inputs alone, so a figure that is not what it was when the
project was tested means another program: a file that was changed or half installed, a library that counts otherwise.
Each figure is a sum of all of an answer's numbers times numbers that have nothing to do with each other, so that none
can hide another. ``python -m seekling.selftests.answers`` writes them down anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from itertools import product
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seekling.engine.config import Sampling
from seekling.engine.engine import Engine, Request
from seekling.engine.sampler import distribution, draw, uniforms
from seekling.learn.advantage import ADVANTAGES, summed
from seekling.learn.ahead import num_ahead
from seekling.learn.batch import Batch, Text, first_fit, layout, narrowest, pack, spread, unpack
from seekling.learn.config import Gaps, Objective, Optim
from seekling.learn.guard import Guard
from seekling.learn.objective import Said, policy_loss, token_weights
from seekling.learn.optim import Optimizers, schedule_share
from seekling.learn.preference import averaged, bradley_terry, dpo_loss, in_pairs, ipo_loss, off_centre, preferred
from seekling.learn.presets import OBJECTIVES
from seekling.learn.update import counted, rollout_loss, step, text_loss
from seekling.learn.value import gae, returns_of, token_rewards, value_loss, whitened
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.heads import add_head
from seekling.records import Group, Kept, Problem, Rollout, Stop, Verdict
from seekling.rewards.criteria import language_share
from seekling.rewards.rubric import Rubric, score_groups
from seekling.selftests.outcome import SelfTest

FILE = Path(__file__).with_name("answers.json")
LIMIT = 1e-3
"""How far a figure may be off, of itself or of 1: twenty times what it differs by between sets of instructions."""
GOLDEN = 0.6180339887498949


def of_answers() -> list[SelfTest]:
    """Learning, sampling and rewards count as they did: figure = the largest relative difference of a known answer."""
    known: Mapping[str, float] = json.loads(FILE.read_text())
    told = figures()
    off = {name: abs(told[name] - value) / max(1.0, abs(value)) for name, value in known.items()}
    off = {name: float("inf") if isnan(gap) else gap for name, gap in off.items()}
    return [_of_room(room, {name: gap for name, gap in off.items() if name.startswith(room)}) for room in ROOMS]


def _of_room(room: str, off: Mapping[str, float]) -> SelfTest:
    worst = max(off, key=lambda name: off[name])
    advice = f'"{worst}" is not what it was when this version was tested: install it anew, and torch as pinned.'
    return SelfTest(f"known answers of {room}", off[worst], LIMIT, advice)


@cache
def figures() -> dict[str, float]:
    """Every answer by its name, ``room: what``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {f"{room}: {name}": figure for room, of in ROOMS.items() for name, figure in of()}
    finally:
        torch.set_num_threads(threads)


Figures = Iterable[tuple[str, float]]


def wave(*shape: int, phase: float = 0.0) -> Tensor:
    """Numbers within (-1, 1) that repeat nowhere: float64."""
    count = torch.arange(1, int(np.prod(shape)) + 1, dtype=torch.float64)
    return ((count * GOLDEN + phase) % 1 * 2 - 1).view(shape)


def digest(*values: Any) -> float:
    """One number that any change of any of these would change."""
    flat = torch.cat([torch.as_tensor(value, dtype=torch.float64).flatten() for value in values])
    return float((flat.nan_to_num(0.5, 9.0, -9.0) * (1.5 + wave(len(flat), phase=0.25))).sum())


def pulled(loss: Tensor, *learned: Tensor) -> float:
    """A loss and its gradients as one number."""
    return digest(loss.detach(), *torch.autograd.grad(loss, learned, allow_unused=True, materialize_grads=True))


# --- learning ---------------------------------------------------------------------------------------------------------


def _learning() -> Figures:
    yield from _advantages()
    yield from _objectives()
    yield from _pairs()
    yield from _critics()
    yield from _layouts()
    yield from _optimizers()
    yield from _updates()


def _advantages() -> Figures:
    rewards_PG = torch.tensor([[1.0, 0.0, 0.25, 1.0], [0.0, torch.nan, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    for name, advantage in ADVANTAGES.items():
        yield f"advantage {name}", digest(advantage(rewards_PG))
    parts_KPG = torch.stack((rewards_PG, wave(3, 4)))
    weights_K, known_PG = torch.tensor([1.0, 0.3]), ~rewards_PG.isnan()
    yield "advantage apart", digest(summed(parts_KPG, weights_K, known_PG, ADVANTAGES["group_mean_std"]))
    for kind in ("per_rollout", "per_token", "constant", "whole"):
        yield f"weights {kind}", digest(token_weights(torch.tensor([3, 1, 7]), kind, 9))


def said() -> Said:
    """Two rows of two rollouts, with tokens nobody said between them."""
    behaviour, weight = -1.5 - wave(2, 9), (wave(2, 9, phase=0.3) > -0.6) * 0.05
    segments = torch.tensor([[1] * 4 + [2] * 4 + [0], [1] * 6 + [2] * 3])
    logp = (behaviour + 0.9 * wave(2, 9, phase=0.7)).requires_grad_()
    advantage = torch.where(segments == 1, 1.3, -0.7).double()
    old, reference, entropy = behaviour + 0.2 * wave(2, 9, phase=0.5), behaviour + 0.4 * wave(2, 9), 1 + wave(2, 9)
    return Said(logp, old, behaviour, reference, advantage, weight * (segments > 0), segments, entropy)


OTHERS = {
    **{f"clip {clip}": Objective(clip=clip, clip_low=0.3) for clip in ("ppo", "cispo", "soft", "gamma", "none")},
    **{f"kl {kl}": Objective(kl=kl, beta=0.2) for kl in ("k1", "k2", "k3", "k3_weighted")},
    **{
        f"correction {kind}": Objective(correction=kind, correction_max=1.1)
        for kind in ("token", "sequence", "token_mask", "sequence_mask")
    },
    "ratio_max": Objective(ratio_max=1.2), "entropy": Objective(entropy=0.1), "stale": Objective(stale_max=0.05),
}  # fmt: skip


def _objectives() -> Figures:
    for name, objective in (OBJECTIVES | OTHERS).items():
        tokens = said()
        yield f"objective {name}", pulled(policy_loss(tokens, objective), tokens.logp)
        yield f"figures of {name}", digest(*counted(tokens, objective).values())


def _pairs() -> Figures:
    segments = torch.tensor([[1, 1, 2, 2, 2, 3, 4, 0], [1, 2, 2, 0, 0, 0, 0, 0]])
    two = in_pairs(wave(2, 8), segments)
    yield "pairs", digest(*two, *averaged(two, in_pairs(torch.ones(2, 8, dtype=torch.float64), segments)))
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "dpo": partial(dpo_loss, beta=0.3), "smoothed dpo": partial(dpo_loss, beta=0.3, smoothing=0.1),
        "ipo": partial(ipo_loss, beta=0.3), "bradley_terry": partial(bradley_terry, margin=0.2),
        "off_centre": off_centre,
    }  # fmt: skip
    for name, loss in losses.items():
        chosen, rejected = wave(5).requires_grad_(), wave(5, phase=0.4).requires_grad_()
        yield f"preference {name}", pulled(loss(chosen, rejected).sum(), chosen, rejected)
    yield "preferred", digest(preferred(wave(5), wave(5, phase=0.4)))


def _critics() -> Figures:
    mask_RT = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1]]).bool()
    rewards_RT = token_rewards(torch.tensor([1.0, torch.nan]), wave(2, 5), mask_RT)
    ahead_RT = gae(rewards_RT, wave(2, 5, phase=0.2), mask_RT, gamma=0.9, lam=0.8)
    yield "token rewards", digest(rewards_RT)
    yield "gae", digest(ahead_RT, returns_of(ahead_RT, wave(2, 5), mask_RT), whitened(ahead_RT, mask_RT))
    for clip in (0.0, 0.2):
        value = wave(2, 5).requires_grad_()
        loss = value_loss(value, wave(2, 5, phase=0.1), wave(2, 5, phase=0.6), mask_RT * 0.1, clip)
        yield f"critic clip {clip}", pulled(loss, value)


# --- what is learned from, and how ------------------------------------------------------------------------------------


def texts(vocabulary: int) -> list[Text]:
    """Five texts of many lengths; some of their tokens were chosen among few."""
    made = []
    for place, length in enumerate((7, 3, 11, 5, 2)):
        tokens = tuple(int((place * 7 + t * 5 + 3) % vocabulary) for t in range(length))
        weight = np.array([0.0] + [0.1 + 0.01 * t for t in range(1, length)], np.float32)
        told = {name: np.linspace(-2 + shift, -1, length).astype(np.float32) for name, shift in VALUES.items()}
        sets = [sorted({token, (token + 1) % vocabulary, 1}) if place % 2 else [] for token in tokens[1:]]
        ids = np.array([one for ids in sets for one in ids], np.int32)
        made.append(Text(tokens, weight, told, kept=Kept(ids, np.cumsum([len(one) for one in sets]))))
    return made


VALUES = {"behaviour": 0.0, "reference": 0.1, "advantage": 1.7, "value": 0.3, "return": 0.9}


def laid(batch: Batch) -> list[Tensor]:
    """All that a batch holds."""
    rows, kept = batch.rows, batch.kept
    own = [rows.tokens_BT, rows.positions_BT, rows.segments_BT, batch.targets_BT, batch.weight_BT]
    return [*own, *batch.values.values(), *batch.routes, *((kept.ids, kept.ends) if kept else ())]


def _layouts() -> Figures:
    own = texts(31)
    batch = pack(own, 16)
    yield "packed", digest(*laid(batch))
    yield "packed in twos", digest(*laid(pack(own[:4], 16, together=2)))
    for count, (rank, size) in product((1, 2), ((0, 1), (1, 2))):
        parts = list(batch.share(rank, size).passes(count))
        yield f"part {rank} of {size} in {count}", digest(len(parts), *(x for part in parts for x in laid(part)))
    yield "spread", digest(*laid(spread(batch, Gaps(share=0.5, longest=3), 64, 5)))
    lengths = [len(text.tokens) for text in own]
    rows = (place for row in first_fit(lengths, 16) for place in row)
    yield "rows", digest(narrowest(own, 16), *layout(lengths, 16), *rows)
    yield "unpacked", digest(*unpack(batch.values["value"], lengths))


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix_proj = nn.Linear(5, 7)
        self.table = nn.Embedding(4, 5)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(0.2 * wave(*weight.shape))


def _optimizers() -> Figures:
    for matrices, warmup in product(("adamw", "muon"), (0, 2)):
        model = _Small()
        config = Optim(matrices=matrices, lr=0.1, warmup_steps=warmup, weight_decay=0.1, clip_norm=0.5)
        optimizers = Optimizers(model, config, 6)
        norms = []
        for place in range(3):
            for shift, weight in enumerate(model.parameters()):
                weight.grad = wave(*weight.shape, phase=0.1 * shift + 0.3 * place).float()
            norms += list(optimizers.step(place, 1.0).values())
        yield f"{matrices} after {warmup}", digest(*norms, *(w.detach() for w in model.parameters()))
        yield f"schedule {matrices} {warmup}", digest([schedule_share(config, place, 6) for place in range(7)])
    guard = Guard(spike=3.0)
    skipped = [guard.skips(place, norm) for place, norm in enumerate([1.0] * 25 + [2.9, 3.1, float("nan"), 1.0])]
    yield "guard", digest(skipped)


SHAPE = ModelConfig(
    vocab_size=31, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
    max_position_embeddings=64, kv_lora_rank=8, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=6,
    n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, num_nextn_predict_layers=1,
    initializer_range=0.3,
)  # fmt: skip


def _updates() -> Figures:
    model = Decoder(SHAPE).init_weights(0).double()
    add_head(model, 1).double()
    batch = pack(texts(SHAPE.vocab_size), 16)
    learned = [weight for name, weight in model.named_parameters() if not name.startswith("mtp.")]
    for name in ("grpo", "gspo", "ppo"):
        objective = OBJECTIVES[name]
        loss = rollout_loss(model, batch, objective=objective, temperature=0.7)
        yield f"update {name}", pulled(loss.value, *learned)
        yield f"sums of {name}", digest(*loss.sums.values())
    foretold = rollout_loss(
        model, batch, objective=OBJECTIVES["grpo"], temperature=0.7, mtp_weight=0.3, num_ahead=num_ahead(batch)
    )
    yield "update with a look ahead", pulled(foretold.value, *model.parameters())
    yield "sums with a look ahead", digest(*foretold.sums.values())
    apart = text_loss(model, batch, mtp_weight=0.3, mtp_apart=True)
    yield "text with a look ahead apart", pulled(apart.value, *model.parameters())
    of_text = text_loss(model, batch, mtp_weight=0.3, balance_weight=0.1, num_rows=4)
    yield "text", pulled(of_text.value, *model.parameters())
    yield "sums of text", digest(*of_text.sums.values())
    model = Decoder(SHAPE).init_weights(0)
    optimizers = Optimizers(model, Optim(lr=0.01, warmup_steps=0), 4)
    told = [step(model, optimizers, batch, partial(text_loss, num_rows=2), step_index=n, passes=2) for n in range(2)]
    yield "two steps", digest(*(told_[name] for told_ in told for name in ("loss", "grad_norm")))


# --- sampling ---------------------------------------------------------------------------------------------------------

SAMPLINGS = {
    "plain": Sampling(), "cool": Sampling(temperature=0.6), "greedy": Sampling(temperature=0),
    "top-k": Sampling(top_k=3), "top-p": Sampling(top_p=0.7), "min-p": Sampling(min_p=0.3),
    "all": Sampling(temperature=0.8, top_k=6, top_p=0.8, min_p=0.1),
}  # fmt: skip


def _sampling() -> Figures:
    seeds, places = np.arange(5, dtype=np.uint64) * np.uint64(7919), np.arange(5, dtype=np.uint64)
    uniform_B = torch.from_numpy(uniforms(seeds, places))
    yield "uniforms", digest(uniform_B)
    for name, sampling in SAMPLINGS.items():
        logp_BV = distribution(3 * wave(5, 12), sampling)
        yield f"distribution {name}", digest(logp_BV, draw(logp_BV, uniform_B))
    engine = Engine(Decoder(SHAPE).init_weights(0).double(), 3)
    requests = [Request(tuple(range(4, 5 + n % 3 + 15 * (n % 2))), n, tell_kept=True) for n in range(6)]
    for name in ("plain", "all"):
        sampling = SAMPLINGS[name].model_copy(update={"max_tokens": 7, "max_rows": 4})
        for place, said_ in enumerate(engine.generate(requests, sampling)):
            kept = [] if said_.kept is None else [said_.kept.ids, said_.kept.ends]
            is_stop = said_.stop is Stop.STOP
            yield f"{name} answer {place}", digest(said_.tokens, said_.logps, said_.routes, is_stop, *kept)


# --- rewards ----------------------------------------------------------------------------------------------------------

SPOKEN = (
    ("<think>12+7=19\n19-5=14</think><answer>14</answer>", Verdict.PASS),
    ("<think>twelve and seven 十九 then\nthen</think><answer>14</answer>", Verdict.PASS),
    ("<think>a b c d a b c d a b c d\na b c d</think><answer>15</answer>", Verdict.WRONG),
    ("14", Verdict.UNPARSED),
)
RUBRICS = {
    "plain": Rubric(format=0.5), "fresh": Rubric(accuracy=0.6, fresh=0.4),
    "language": Rubric(language={"weight": 0.3, "target": "zh"}),
    "repetition": Rubric(repetition={"weight": 1, "n": 2}),
    "linear length": Rubric(length=0.4),
    "cosine length": Rubric(length={"weight": 0.4, "shape": "cosine", "max_tokens": 40}),
    "overlong": Rubric(overlong={"weight": 0.5, "max_tokens": 40, "buffer": 30}),
    "overlong by a fifth": Rubric(overlong={"weight": 0.5, "max_tokens": 30}),
}  # fmt: skip


def _rewards() -> Figures:
    rollouts = tuple(
        Rollout((1,), tuple(range(length)), np.zeros(length, np.float32), text, Stop.STOP, 0)
        for (text, _), length in zip(SPOKEN, (9, 14, 28, 39), strict=True)
    )
    group, verdicts = Group(Problem("1", "sums", "12+7-5", "14", 3), rollouts), [verdict for _, verdict in SPOKEN]
    for name, rubric in RUBRICS.items():
        scores = score_groups([group], [verdicts], rubric)[0]
        yield name, digest(*(score.reward for score in scores), *(p for score in scores for p in score.parts.values()))
    yield "languages", digest([language_share(text, target) for text, _ in SPOKEN for target in ("en", "zh")])


ROOMS = {"learning": _learning, "sampling": _sampling, "rewards": _rewards}


def write() -> None:
    """Write the answers of this version down."""
    FILE.write_text(json.dumps(figures(), indent=1) + "\n")


if __name__ == "__main__":
    write()
