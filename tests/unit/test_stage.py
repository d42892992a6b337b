"""A stage at work: which checkpoint is the best, what a stop may change (nothing), skipped updates, and going back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from seekling.errors import UserError
from seekling.learn.config import Optim
from seekling.learn.guard import Broken
from seekling.learn.optim import Optimizers
from seekling.model.decoder import Decoder
from seekling.recipes.config import Grpo, Sft, Trained
from seekling.recipes.manifest import load_manifest
from seekling.recipes.stage import Interrupted, Stage
from seekling.runlog.ledger import Ledger
from seekling.runlog.run import StageFolder
from tests.oracles.tiny import SHAPES, build


def sft(**settings: object) -> Sft:
    return Sft.model_validate(
        {"name": "tuned", "from": "base", "data": "chats.jsonl", "steps": 10, "checkpoint_every": 2} | settings
    )


def grpo(**settings: object) -> Grpo:
    told = {"name": "zero", "from": "base", "steps": 12, "checkpoint_every": 4, "held_out_every": 2}
    return Grpo.model_validate(told | settings)


class Desk:
    """A stage in a folder, as one process sees it; what it says is in ``said``."""

    def __init__(self, folder: Path, config: Trained, stop_at: int = -1) -> None:
        self.config, self.said, self.step, self.used = config, list[str](), 0, list[float]()
        self.ledger = Ledger(folder)
        self.stage = Stage(
            config.name, StageFolder(folder), (), "0/tuned", 0, torch.device("cpu"), torch.float32, self.ledger,
            lambda *_: None, self.said.append, lambda: self.step == stop_at,
        )  # fmt: skip
        self.model = build(SHAPES["qwen3"])
        self.optimizers = Optimizers(self.model, config.optim, config.steps)

    def restore(self) -> int:
        return self.stage.restore(self.config, self.model, self.optimizers)

    def run(self, figures: list[dict[str, float]]) -> None:
        """Go through the steps from where they stand; a model's first number is how many it has done."""
        try:
            for index in self.stage.steps(self.restore(), self.config, self.optimizers):
                self.step = index + 1
                self.used.append(self.optimizers.used)
                mark(self.model, index + 1)
                self.stage.charge(index, "eval", 100, 100.0, 100.0)
                self.stage.log(index, self.config.steps, 3, 10.0, 0.5, figures[index])
                self.stage.save(index + 1, self.config, self.model, self.optimizers)
        finally:
            self.close()

    def close(self) -> None:
        self.stage.metrics.close()
        self.ledger.close()

    @property
    def kept(self) -> list[int]:
        return sorted(int(place.name.removeprefix("step-")) for place in self.stage.checkpoints.glob("step-*"))

    @property
    def best(self) -> dict[str, float]:
        newest = max(self.stage.checkpoints.glob("step-*"))
        told: dict[str, float] = json.loads((newest / "state.json").read_text())["best"]
        return told


def mark(model: Decoder, value: float) -> None:
    next(model.parameters()).data.view(-1)[0] = value


def marked(model: Decoder) -> float:
    return float(next(model.parameters()).data.view(-1)[0])


LOSSES = [{"loss": loss} for loss in (9.0, 8.0, 5.0, 1.0, 2.0, 3.0, 6.0, 6.0, 4.0, 4.0)]
"""Means of two: 8.5, 3, 2.5 (the best, at step 6), 6, 4; the least of one step is at 4."""


# --- the best ---------------------------------------------------------------------------------------------------------


def test_the_best_by_loss_is_by_the_mean_since_the_checkpoint_before(tmp_path: Path) -> None:
    desk = Desk(tmp_path, sft())
    desk.run(LOSSES)
    assert desk.kept == [6, 8, 10] and desk.best == {"next_step": 6, "figure": "loss", "value": 2.5}
    assert marked(desk.model) == 10, "what is exported is the last, unless told"


@pytest.mark.parametrize("stop_at", range(1, 10))
def test_a_stop_anywhere_changes_neither_the_best_nor_what_is_exported(tmp_path: Path, stop_at: int) -> None:
    first = Desk(tmp_path, sft(export="best"), stop_at)
    with pytest.raises(Interrupted):
        first.run(LOSSES)
    assert first.kept[-1] == stop_at
    second = Desk(tmp_path, sft(export="best"))
    second.run(LOSSES)
    assert second.best == {"next_step": 6, "figure": "loss", "value": 2.5} and marked(second.model) == 6


def test_the_best_is_exported_by_who_comes_back_when_all_steps_are_done(tmp_path: Path) -> None:
    for _ in range(2):
        desk = Desk(tmp_path, sft(export="best"))
        desk.run(LOSSES)
        assert marked(desk.model) == 6


def test_the_last_step_is_compared_too_where_the_best_is_exported(tmp_path: Path) -> None:
    losses = [{"loss": 10.0 - index} for index in range(7)]
    desk = Desk(tmp_path, sft(steps=7, export="best"))
    desk.run(losses)
    assert desk.best["next_step"] == 7 and marked(desk.model) == 7


def test_the_best_by_held_out_passes_is_one_whose_own_weights_were_measured(tmp_path: Path) -> None:
    figures = [{"loss": 0.0} for _ in range(12)]
    for step, passed in ((2, 0.9), (4, 0.3), (6, 0.9), (8, 0.7), (10, 0.9), (12, 0.5)):
        figures[step - 1]["held_out_pass"] = passed
    desk = Desk(tmp_path, grpo(keep=1, export="best"))
    desk.run(figures)
    assert desk.best == {"next_step": 8, "figure": "held_out_pass", "value": 0.7}, "of 4, 8 and 12"
    assert desk.kept == [8, 12] and marked(desk.model) == 8


def test_a_lost_best_is_told_before_the_work_where_it_is_to_be_exported(tmp_path: Path) -> None:
    config = sft(export="best")
    with pytest.raises(Interrupted):
        Desk(tmp_path, config, 9).run(LOSSES)
    (tmp_path / "checkpoints/step-0000006/weights.safetensors").write_bytes(b"")
    desk = Desk(tmp_path, config)
    with pytest.raises(UserError, match="the best checkpoint"):
        desk.restore()
    desk.close()


def test_what_decides_the_best_is_in_the_fingerprint_only_where_the_best_is_exported(tmp_path: Path) -> None:
    def fingerprint(**settings: object) -> str:
        table = {"name": "base", "kind": "pretrain", "steps": 2, "export": "last"} | settings
        lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
        (tmp_path / "m.toml").write_text("\n".join(['name = "m"', "[[stage]]", *lines]))
        return load_manifest(str(tmp_path / "m.toml")).fingerprints["base"]

    assert fingerprint() == fingerprint(checkpoint_every=7) == fingerprint(keep=5)
    best = fingerprint(export="best")
    assert len({fingerprint(), best, fingerprint(export="best", checkpoint_every=7)}) == 3
    assert best == fingerprint(export="best", keep=5)
    assert grpo().decisive == ("checkpoint_every", "held_out_every", "held_out_problems")


@pytest.mark.parametrize("settings", [{"held_out_every": 0}, {"checkpoint_every": 7, "steps": 11}])
def test_a_best_that_nothing_would_measure_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no checkpoint would be measured"):
        grpo(export="best", **settings)
    assert grpo(**settings).export == "last"


# --- skipped updates --------------------------------------------------------------------------------------------------


def test_a_skipped_update_is_logged_counted_and_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path, sft(optim=Optim(max_skipped=3)))
    desk.restore()
    for index, norm in enumerate((1.0, math.nan, math.inf, 1.0)):
        skipped = float(desk.optimizers.guard.skips(index, norm, 0.5))
        desk.stage.log(index, 4, 1, 1.0, 0.0, {"loss": 0.5, "grad_norm": norm, "skipped": skipped})
        desk.stage.save(index + 1, desk.config, desk.model, desk.optimizers)
    records = desk.stage.folder.metrics()
    assert [record.metrics["skipped"] for record in records] == [0, 1, 1, 0]
    assert ["grad_norm" in record.metrics for record in records] == [True, False, False, True]
    assert desk.stage.last_figures(1)["skipped"] == 2, "over the whole stage, not its last step"
    assert [text.split(":")[0] for text in desk.said] == ["step 1", "step 2"]
    assert "gradient is not finite (2 in a row, at most 3)" in desk.said[1]
    desk.close()


def test_more_skipped_in_a_row_than_may_be_stop_the_stage(tmp_path: Path) -> None:
    desk = Desk(tmp_path, sft(optim=Optim(max_skipped=2)))
    for index in range(2):
        desk.optimizers.guard.skips(index, math.nan)
        desk.stage.save(index + 1, desk.config, desk.model, desk.optimizers)
    desk.optimizers.guard.skips(2, math.nan)
    with pytest.raises(UserError, match="3 updates in a row were skipped, the last at step 2") as raised:
        desk.stage.save(3, desk.config, desk.model, desk.optimizers)
    assert raised.value.next_step
    assert desk.kept == [2], "nothing of it was saved"
    desk.close()


def test_a_figure_that_is_no_number_in_a_step_that_was_made_stops_the_stage(tmp_path: Path) -> None:
    desk = Desk(tmp_path, sft())
    with pytest.raises(UserError, match="at step 0 loss is not a finite number"):
        desk.stage.log(0, 4, 1, 1.0, 0.0, {"loss": math.nan, "skipped": 0.0})
    desk.close()


# --- going back -------------------------------------------------------------------------------------------------------


def test_an_update_that_broke_the_weights_is_left_out_on_the_way_back_and_ever_after(tmp_path: Path) -> None:
    barred: list[list[int]] = []

    def loop(stage: Stage, config: Sft) -> dict[str, float]:
        model = build(SHAPES["qwen3"])
        optimizers = Optimizers(model, config.optim, config.steps)
        stage.restore(config, model, optimizers)
        barred.append(sorted(optimizers.guard.barred))
        assert len(barred) < 9, "it goes back for ever"
        for step in (7, 9):
            if step not in optimizers.guard.barred:
                raise Broken(step)
        return {"loss": 1.0}

    for _ in range(2):
        desk = Desk(tmp_path, sft())
        assert desk.stage.work(loop, sft()) == {"loss": 1.0}
        desk.close()
    assert barred == [[], [7], [7, 9], [7, 9]]


def test_what_ends_with_a_stage_ends_before_it_goes_back(tmp_path: Path) -> None:
    desk, ended = Desk(tmp_path, sft()), list[str]()

    def loop(stage: Stage, config: Sft) -> dict[str, float]:
        stage.closing.callback(ended.append, "server")
        if not ended:
            raise Broken(1)
        return {}

    desk.stage.work(loop, sft())
    assert ended == ["server"], "and the second one when the stage does"
    assert "back to the last checkpoint" in desk.said[0]
    desk.stage.closing.close()
    desk.close()


# --- a budget ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "steps"),
    [({"tokens": 12}, 4), ({"tokens": 13}, 5), ({"flops": 35.0}, 4), ({"seconds": 2.0}, 4), ({"tokens": 1}, 1),
     ({"tokens": 12, "flops": 25.0}, 3), ({"tokens": 3000}, 10), ({}, 10)],
)  # fmt: skip
def test_a_stage_ends_at_the_first_step_after_which_its_budget_is_used_up(
    tmp_path: Path, budget: dict[str, float], steps: int
) -> None:
    """A step of the desk costs 3 tokens, 10 FLOPs and half a second; what its evaluations cost is not counted."""
    desk = Desk(tmp_path, sft(budget=budget))
    desk.run(LOSSES)
    assert marked(desk.model) == steps
    told = StageFolder(tmp_path).facts().get("ended", {})
    assert told == ({"by": "budget", "steps": steps, "of": 10, "tokens": 3 * steps, "flops": 10.0 * steps,
                     "seconds": 0.5 * steps} if steps < 10 else {})  # fmt: skip
    assert bool(told) == any(f"used up after {steps} of at most 10 steps" in line for line in desk.said)


@pytest.mark.parametrize("stop_at", range(1, 7))
def test_a_stop_anywhere_changes_neither_where_a_budget_ends_nor_what_each_step_knows_of_it(
    tmp_path: Path, stop_at: int
) -> None:
    config = sft(export="best", budget={"flops": 65.0})
    whole, first, second = (
        Desk(tmp_path / "a", config),
        Desk(tmp_path / "b", config, stop_at),
        Desk(tmp_path / "b", config),
    )
    whole.run(LOSSES)
    with pytest.raises(Interrupted):
        first.run(LOSSES)
    second.run(LOSSES)
    assert first.used + second.used == whole.used == [index / 6.5 for index in range(7)]
    assert second.best == whole.best == {"next_step": 6, "figure": "loss", "value": 2.5}
    assert marked(second.model) == marked(whole.model) == 6


def test_who_comes_back_when_the_budget_is_used_up_has_nothing_to_do(tmp_path: Path) -> None:
    config = sft(export="best", budget={"tokens": 18})
    for steps in (6, 0):
        desk = Desk(tmp_path, config)
        desk.run(LOSSES)
        assert len(desk.used) == steps and marked(desk.model) == 6 and "used up after 6" in desk.said[-1]
