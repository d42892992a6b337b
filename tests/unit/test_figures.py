"""What a step of reinforcement says of itself: figures of its updates and of what they left out."""

from __future__ import annotations

import pytest
import torch

from seekling.config import parse
from seekling.learn.config import Objective
from seekling.learn.objective import Said
from seekling.learn.update import counted
from seekling.recipes.config import Pretrain
from seekling.recipes.grpo import of_updates

NAN = float("nan")
SOUND = {
    "loss": 2.0, "grad_norm": 1.0, "skipped": 0.0, "said": 4.0, "entropy": 8.0, "kl": 0.4, "mismatch_kl": 0.04,
    "clipped_low": 1.0, "clipped_high": 2.0,
}  # fmt: skip
LOST = dict.fromkeys(SOUND, NAN) | {"skipped": 1.0}


def test_figures_are_means_over_what_was_said() -> None:
    told = of_updates([SOUND], measured=True)
    assert told == {
        "entropy": 2.0, "mismatch_kl": 0.01, "clip_ratio": 0.75, "loss": 2.0, "grad_norm": 1.0, "skipped": 0.0,
        "kl": 0.1,
    }  # fmt: skip
    assert "kl" not in of_updates([SOUND], measured=False)


def test_later_updates_drift_and_the_first_tells_the_mismatch() -> None:
    moved = SOUND | {"mismatch_kl": 0.4, "said": 2.0, "clipped_low": 0.0}
    told = of_updates([SOUND, moved], measured=False)
    assert told["mismatch_kl"] == 0.01 and told["drift_kl"] == pytest.approx(0.44 / 6)
    assert (told["clip_ratio_low"], told["clip_ratio_high"]) == pytest.approx((1 / 6, 4 / 6))
    assert told["clip_ratio"] == pytest.approx(5 / 6)


@pytest.mark.parametrize("totals", [[LOST, SOUND], [SOUND, LOST]])
def test_an_update_that_was_not_made_spoils_no_mean(totals: list[dict[str, float]]) -> None:
    assert of_updates(totals, measured=True) == of_updates([SOUND], measured=True) | {"skipped": 1.0}


def test_acceptance_is_counted_over_all_updates_of_a_step() -> None:
    first = SOUND | {"mtp_loss": 1.0, "mtp_right": 1.0, "mtp_told": 2.0}
    told = of_updates([first, LOST, SOUND | {"mtp_loss": 3.0, "mtp_right": 6.0, "mtp_told": 6.0}], measured=False)
    assert (told["mtp_loss"], told["mtp_acceptance"]) == (2.5, 7 / 8)
    assert "mtp_acceptance" not in of_updates([SOUND], measured=False)


def test_of_no_update_nothing_is_said_but_how_many_were_skipped() -> None:
    assert of_updates([LOST, LOST], measured=True) == {"skipped": 2.0} and of_updates([], measured=True) == {}


def test_the_correction_is_told_where_there_is_one() -> None:
    logp_BT = torch.tensor([[-1.0, -2.0]])
    said = Said(
        logp_BT, logp_BT, logp_BT - 0.5, logp_BT, torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2).long(), logp_BT
    )
    assert "correction" not in counted(said, Objective(correction="none"))
    sums = counted(said, Objective(correction="token", correction_max=10.0))
    told = of_updates([SOUND | {name: float(value) for name, value in sums.items()}], measured=False)
    assert told["correction"] == pytest.approx(2.718281828**0.5)


def test_what_a_preset_leaves_open_is_the_familys_own() -> None:
    shape = {"preset": "tiny-dense", "model_type": "qwen3_moe", "n_routed_experts": 4}
    config = parse(Pretrain, {"name": "base", "steps": 1, "model": shape}).model
    assert config.moe_layers == [0, 1, 2] and config.n_shared_experts == 0 and config.hidden_size == 96
