"""What the tests ask of a process that works with others: each function runs in all of them and returns plain JSON."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seekling.learn.batch import Text, pack
from seekling.learn.config import Optim
from seekling.learn.lanes import ONE, Lanes
from seekling.learn.optim import Optimizers, orthogonalise
from seekling.learn.parallel.experts import travel
from seekling.learn.parallel.ranks import Ranks, join
from seekling.learn.parallel.shards import Cut, Parts, Shards
from seekling.learn.parallel.world import WHOLE
from seekling.learn.update import step, text_loss
from seekling.model.decoder import Decoder
from seekling.model.moe import local
from seekling.model.presets import PRESETS
from seekling.workers.crew import member

SHAPE = {
    "vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "kv_lora_rank": 8,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "intermediate_size": 24, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 8, "max_position_embeddings": 32,
}  # fmt: skip


def here(*, spread_experts: bool = False) -> Ranks:
    who = member()
    assert who is not None
    torch.set_num_threads(1)
    return join(torch.device("cpu"), who, spread_experts=spread_experts)


def talk() -> dict[str, Any]:
    """Everything that processes tell each other."""
    world = here()
    told = {
        "told": world.told({"a": [1, 2.5, None]} if world.leads else {}),
        "nothing": world.told(None),
        "gathered": [said.decode() for said in world.gathered(b"x" * world.rank)],
        "sums": world.sums({"b": 1.0, "a": float(world.rank)}),
        "norm": float(world.norm(torch.tensor(3.0 + world.rank))),
        "stacked": world.stacked(torch.full((1, 2), world.rank)).tolist(),
    }
    world.wait()
    world.close()
    return told


def exchange(empty: str) -> float:
    """How far experts elsewhere are from experts here: answers, and gradients of rows and weights."""
    world = here()
    generator = torch.Generator().manual_seed(world.rank)
    count = 0 if empty == "yes" and world.rank else 13
    rows = torch.randn(count, 6, generator=generator)
    weight = torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(9))
    experts = torch.randint(4, (count,), generator=generator).sort().values
    ends = torch.searchsorted(experts, torch.arange(1, 5)).int()
    own = weight[2 * world.rank : 2 * world.rank + 2]
    found = [_answered(rows, ends, weight, local), _answered(rows, ends, own, partial(travel, group=dist.group.WORLD))]
    total = found[0][2]
    dist.all_reduce(total)  # of all rows, wherever they are
    pairs = zip((*found[0][:2], total[2 * world.rank : 2 * world.rank + 2]), found[1], strict=True)
    worst = max((float((a - b).abs().max()) for a, b in pairs if a.numel()), default=0.0)
    world.close()
    return worst


def _answered(rows: Tensor, ends: Tensor, weight: Tensor, way: Callable[..., Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    rows, weight = rows.clone().requires_grad_(), weight.clone().requires_grad_()

    def feed(x: Tensor, ends: Tensor) -> Tensor:
        parts = x.tensor_split(ends[:-1].tolist())
        return torch.cat([part @ own for part, own in zip(parts, weight, strict=True)])

    answer = way(rows, ends, feed)
    of_rows, of_weight = torch.autograd.grad(answer.square().sum(), (rows, weight))
    return answer.detach(), of_rows, of_weight


def matrices() -> float:
    """How far matrices of which each process has some rows are from whole ones, once they are made orthogonal."""
    world = here()
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    for rows, columns, stacked in ((5, 3, 1), (1, 4, 0), (4, 4, 3), (2, 7, 0)):
        shapes = [(rows, columns)] * 3 + [(stacked, rows, columns)] * bool(stacked)
        whole = {str(n): nn.Parameter(torch.randn(shape, generator=generator)) for n, shape in enumerate(shapes)}
        cuts = {name: Cut(len(weight), world.size) for name, weight in whole.items()}
        mine = {name: weight.detach()[cuts[name].rows(world.rank)] for name, weight in whole.items()}
        own = Parts({part: name for name, part in mine.items()}, whole, cuts, world.rank, world.size)
        found = own.each(orthogonalise, list(mine.values()), list(mine.values()))
        wanted = WHOLE.each(orthogonalise, [w.detach() for w in whole.values()], list(whole.values()))
        for name, ours, theirs in zip(whole, found, wanted, strict=True):
            apart = (ours - theirs[cuts[name].rows(world.rank)]).abs()
            worst = max(worst, float(apart.max()) if apart.numel() else 0.0)
    world.close()
    return worst


def update(spread: str) -> dict[str, Any]:
    """One update by several: gradients, what is let go of meanwhile, and what is left afterwards."""
    world = here(spread_experts=spread == "yes")
    ours, theirs = (Decoder(PRESETS["tiny-v3"].model_copy(update=SHAPE)).init_weights(3) for _ in range(2))
    lanes = Lanes(1, world)
    optimizers, alone = (
        Optimizers(model, Optim(warmup_steps=0), 1, way) for model, way in ((ours, lanes), (theirs, ONE))
    )
    texts = [Text([(7 * n + t) % 61 for t in range(5 + n)], torch.ones(5 + n).numpy()) for n in range(5)]
    batch = pack(texts, 20)
    seen: dict[str, Any] = {}

    def loss(model: Decoder, part: Any) -> Any:
        seen["held"] = sum(weight.untyped_storage().size() for weight in ours.parameters())
        return text_loss(model, part, balance_weight=1e-3, num_rows=len(batch.targets_BT))

    figures = [
        step(model, own, batch, way, step_index=0, passes=2, lanes=lane)
        for model, own, way, lane in (
            (ours, optimizers, loss, lanes),
            (theirs, alone, partial(text_loss, balance_weight=1e-3, num_rows=len(batch.targets_BT)), ONE),
        )
    ]
    state = optimizers.tensors()
    told = {
        "figures": max(abs(figures[0][name] - value) for name, value in figures[1].items()),
        "weights": max(float((a - b).abs().max()) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)),
        "state": max((float((state[key] - value).abs().max()) for key, value in alone.tensors().items()), default=0.0)
        if world.leads
        else len(state),
        "held": seen["held"],
        "share": sum(p.numel() for p in optimizers.names) / sum(p.numel() for p in alone.names),
    }
    world.close()
    return told


def refusal() -> str:
    """What a model that is not ours is told."""
    world = here()
    try:
        Shards(nn.Linear(2, 2), world.rank, world.size, world.device, spread_experts=False)  # type: ignore[arg-type]
    except Exception as error:
        return str(error)
    return ""
