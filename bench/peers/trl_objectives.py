"""TRL's own policy losses and their gradients on fixed random numbers, written down for tests that run without it:

    python -m venv .venv-trl && .venv-trl/bin/pip install trl==1.16.0 torch transformers
    .venv-trl/bin/python -P bench/peers/trl_objectives.py      writes tests/parity/vectors/trl-objectives.json

What runs is ``GRPOTrainer._compute_loss`` as it is, with stand-ins for trainer and model that hand it
log-probabilities, once for every loss type it has and for the options that change the objective.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import trl
from torch import Tensor
from trl import GRPOTrainer

VECTORS = Path("tests/parity/vectors/trl-objectives.json")
LENGTHS = (5, 1, 7, 3, 6, 2)
MAX_TOKENS = 9
ASKED: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo", "beta": 0.04},
    "grpo two-sided": {"loss_type": "grpo", "delta": 1.5},
    "grpo weighted kl": {"loss_type": "grpo", "beta": 0.1, "use_bias_correction_kl": True},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "dapo entropy": {"loss_type": "dapo", "epsilon_high": 0.28, "entropy_coef": 0.02},
    "gspo": {
        "loss_type": "grpo", "epsilon_low": 3e-4, "epsilon_high": 4e-4, "importance_sampling_level": "sequence",
    },
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.2},
    "sapo": {"loss_type": "sapo"},
    "vespo": {"loss_type": "vespo"},
    "corrected": {"loss_type": "grpo", "beta": 0.04, "correct": True},
    "off-policy mask": {"loss_type": "grpo", "off_policy_mask_threshold": 0.05},
}  # fmt: skip


def main() -> None:
    """Ask TRL and write what it said."""
    g = torch.Generator().manual_seed(0)
    shape = (len(LENGTHS), max(LENGTHS))
    mask = (torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None]).double()
    logps = {}
    for name in ("new", "old", "behaviour", "reference"):
        near = logps["new"] if logps else torch.full(shape, -2.0).double()
        logps[name] = round_to(near + torch.randn(shape, generator=g, dtype=torch.float64) * 0.3, 4) * mask
    advantages = round_to(torch.randn(len(LENGTHS), generator=g, dtype=torch.float64), 3)
    entropies = round_to(torch.rand(shape, generator=g, dtype=torch.float64), 3) * mask
    lines: dict[str, Any] = {"trl": trl.__version__, "lengths": list(LENGTHS), "max_tokens": MAX_TOKENS}
    lines |= {name: value.tolist() for name, value in logps.items()}
    lines |= {"advantages": advantages.tolist(), "entropies": entropies.tolist()}
    lines["losses"] = {name: asked(logps, advantages, entropies, mask, how) for name, how in ASKED.items()}
    VECTORS.parent.mkdir(parents=True, exist_ok=True)
    VECTORS.write_text(json.dumps(lines, indent=1) + "\n")


def asked(logps: dict[str, Tensor], advantages: Tensor, entropies: Tensor, mask: Tensor, how: dict[str, Any]) -> Any:
    """One loss and its gradient with respect to the log-probabilities."""
    how = dict(how)
    new, correct = logps["new"].clone().requires_grad_(), how.pop("correct", False)
    ids = torch.zeros(mask.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1] + 1, "completion_ids": ids, "completion_mask": mask,
        "advantages": advantages, "old_per_token_logps": logps["old"], "ref_per_token_logps": logps["reference"],
        "num_items_in_batch": mask.sum(), "sampling_per_token_logps": logps["behaviour"],
        "importance_sampling_ratio": ((logps["old"] - logps["behaviour"]) * mask).exp().clamp(max=1.1),
    }  # fmt: skip
    if not correct:
        inputs.pop("importance_sampling_ratio")
    loss = GRPOTrainer._compute_loss(trainer(new, entropies, correct, how), SimpleNamespace(training=True), inputs)
    return {"loss": loss.item(), "grad": torch.autograd.grad(loss, new)[0].tolist()}


def trainer(new: Tensor, entropies: Tensor, correct: bool, how: dict[str, Any]) -> Any:
    """A stand-in with TRL's defaults for everything that the loss reads."""
    args = SimpleNamespace(
        delta=how.pop("delta", None), use_bias_correction_kl=how.pop("use_bias_correction_kl", False),
        sapo_temperature_pos=1.0, sapo_temperature_neg=1.05, vespo_k_pos=2.0, vespo_lambda_pos=3.0, vespo_k_neg=3.0,
        vespo_lambda_neg=2.0, steps_per_generation=1,
    )  # fmt: skip
    plain = {
        "beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2, "importance_sampling_level": "token",
        "entropy_coef": 0.0, "off_policy_mask_threshold": None,
    } | how  # fmt: skip
    return SimpleNamespace(
        **plain, args=args, aux_loss_enabled=False, top_entropy_quantile=1.0, use_vllm=correct,
        vllm_importance_sampling_correction=correct, max_completion_length=MAX_TOKENS, use_adaptive_entropy=False,
        model=SimpleNamespace(training=True), current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=plain["entropy_coef"] > 0, _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, entropies, None),
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask, get_gamma_weights=GRPOTrainer.get_gamma_weights,
        accelerator=SimpleNamespace(
            num_processes=1, sync_gradients=True, gather=lambda x: x, gather_for_metrics=lambda x: x,
            reduce=lambda x, reduction: x,
        ),
    )  # fmt: skip


def round_to(values: Tensor, digits: int) -> Tensor:
    """Few enough digits to be read."""
    return values.mul(10**digits).round().div(10**digits)


if __name__ == "__main__":
    main()
