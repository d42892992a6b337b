"""TRL's own preference losses on fixed random numbers, written down for tests that run without it:

    python -m venv .venv-trl && .venv-trl/bin/pip install trl==1.16.0 torch transformers
    .venv-trl/bin/python bench/peers/trl_preference.py      writes tests/parity/vectors/trl-preference.json

What runs are ``DPOTrainer._compute_loss`` and ``RewardTrainer.compute_loss`` as they are, with stand-ins for trainer
and model that hand them log-probabilities and rewards. Its ``sigmoid`` knows no label smoothing; its ``aot`` of a
single pair is DPO with it (there is nothing to sort), so that is how smoothing is asked for, pair by pair.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import trl
from torch import Tensor
from trl import DPOTrainer, RewardTrainer

VECTORS = Path("tests/parity/vectors/trl-preference.json")
LENGTHS = [((3, 4), (3, 6)), ((2, 5), (2, 1)), ((4, 2), (4, 2))]
"""(prompt, reply) tokens of the chosen and of the rejected text of each pair."""
BETA = 0.3
ASKED: dict[str, dict[str, Any]] = {
    "dpo": {"loss_types": ["sigmoid"]},
    "ipo per token": {"loss_types": ["ipo"]},
    "dpo per token": {"loss_types": ["sigmoid_norm"]},
    "dpo and nll": {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]},
    "cdpo": {"loss_types": ["aot"], "label_smoothing": 0.1},
}


def main() -> None:
    """Ask TRL and write what it said."""
    rng = random.Random(0)
    pairs = [pair_of(rng, *lengths) for lengths in LENGTHS]
    told = {name: asked(pairs, how) for name, how in ASKED.items()}
    rewards = [[round(rng.gauss(0, 1.5), 3) for _ in range(2)] for _ in range(5)]
    margins = [0.0, 0.5, 1.0, 0.25, 2.0]
    rated = {
        "plain": rate(rewards, None, None),
        "margin": rate(rewards, margins, None),
        "centred": rate(rewards, margins, 0.01),
    }
    lines = {"trl": trl.__version__, "beta": BETA, "pairs": pairs, "losses": told}
    lines |= {"rewards": rewards, "margins": margins, "rated": rated}
    VECTORS.parent.mkdir(parents=True, exist_ok=True)
    VECTORS.write_text(json.dumps(lines, indent=1) + "\n")


def pair_of(rng: random.Random, *lengths: tuple[int, int]) -> list[dict[str, Any]]:
    """A pair of texts: prompt length, and log-probabilities of the reply's tokens under policy and reference."""
    return [
        {"prompt": prompt, "policy": logps(rng, reply), "reference": logps(rng, reply)} for prompt, reply in lengths
    ]


def logps(rng: random.Random, count: int) -> list[float]:
    """As a model would give them."""
    return [round(-rng.expovariate(0.7), 4) for _ in range(count)]


def asked(pairs: list[list[dict[str, Any]]], how: dict[str, Any]) -> dict[str, Any]:
    """Loss, its gradient token by token, and figures; one pair at a time where pairs would be sorted."""
    if how["loss_types"] != ["aot"]:
        return ask(pairs, how)
    each = [ask([pair], how) for pair in pairs]
    grads = [[[g / len(pairs) for g in row] for row in one["grad"][0]] for one in each]
    return {"loss": sum(one["loss"] for one in each) / len(each), "grad": grads, "figures": {}}


def ask(pairs: list[list[dict[str, Any]]], how: dict[str, Any]) -> dict[str, Any]:
    """What ``_compute_loss`` makes of a batch: chosen texts first, then the rejected ones."""
    texts = [pair[side] for side in (0, 1) for pair in pairs]
    width = max(t["prompt"] + len(t["policy"]) for t in texts)
    policy, reference, mask = (torch.zeros(len(texts), width, dtype=torch.float64) for _ in range(3))
    for row, text in enumerate(texts):
        here = slice(text["prompt"], text["prompt"] + len(text["policy"]))
        policy[row, here], reference[row, here] = torch.tensor([text["policy"], text["reference"]], dtype=torch.float64)
        mask[row, here] = 1
    leaf = policy[:, 1:].clone().requires_grad_()
    chosen, rejected = reference.sum(1).chunk(2)
    inputs = {
        "input_ids": torch.zeros_like(mask).long(), "attention_mask": torch.ones_like(mask),
        "completion_mask": mask.long(), "ref_chosen_logps": chosen, "ref_rejected_logps": rejected,
    }  # fmt: skip
    trainer = dpo_trainer(how)
    loss = DPOTrainer._compute_loss(trainer, lambda **given: said(leaf, mask[:, 1:]), inputs, False)
    loss.backward()
    assert leaf.grad is not None
    grads = [own(leaf.grad[row], text) for row, text in enumerate(texts)]
    figures = {name: told[-1] for name, told in trainer._metrics["train"].items() if name.startswith(("rew", "logps"))}
    sides = [list(two) for two in zip(grads[: len(pairs)], grads[len(pairs) :], strict=True)]
    return {"loss": float(loss.detach()), "grad": sides, "figures": figures}


def own(grad: Tensor, text: dict[str, Any]) -> list[float]:
    """The gradient of a text's reply: entry t of what is shifted is about token t + 1."""
    start = text["prompt"] - 1
    return grad[start : start + len(text["policy"])].tolist()


def said(leaf: Tensor, mask: Tensor) -> SimpleNamespace:
    """What TRL's fused head leaves."""
    nothing = torch.zeros_like(leaf)
    return SimpleNamespace(log_probs=leaf * mask, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def dpo_trainer(how: dict[str, Any]) -> Any:
    """As much of a DPOTrainer as its loss looks at."""
    usual = {
        "label_smoothing": 0.0, "loss_weights": [1.0], "f_divergence_type": "reverse_kl", "ld_alpha": None,
        "use_weighting": False, "aux_loss_enabled": False, "precompute_ref_logps": True, "beta": BETA,
    }  # fmt: skip
    return SimpleNamespace(**(usual | how), **shared())


def shared() -> dict[str, Any]:
    """What both trainers look at: one process, training."""
    accelerator = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    metrics: dict[str, Any] = {"train": defaultdict(list)}
    model = SimpleNamespace(training=True)
    return {"accelerator": accelerator, "model": model, "_metrics": metrics, "_total_train_tokens": 0, "_tp_size": 1}


def rate(rewards: list[list[float]], margins: list[float] | None, centre: float | None) -> dict[str, Any]:
    """Loss, its gradient by pair, and figures of RewardTrainer."""
    leaf = torch.tensor([pair[side] for side in (0, 1) for pair in rewards], dtype=torch.float64, requires_grad=True)
    inputs: dict[str, Any] = {"attention_mask": torch.ones(len(leaf), 2)}
    inputs |= {} if margins is None else {"margin": torch.tensor(margins, dtype=torch.float64)}
    trainer = SimpleNamespace(args=SimpleNamespace(center_rewards_coefficient=centre), **shared())
    loss = RewardTrainer.compute_loss(trainer, lambda **given: SimpleNamespace(logits=leaf.unsqueeze(1)), inputs)
    loss.backward()
    assert leaf.grad is not None
    figures = {name: trainer._metrics["train"][name][-1] for name in ("accuracy", "margin", "mean_reward")}
    return {"loss": float(loss.detach()), "grad": leaf.grad.view(2, -1).T.tolist(), "figures": figures}


if __name__ == "__main__":
    main()
