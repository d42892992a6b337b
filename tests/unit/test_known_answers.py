"""Known answers: they are known, they hang on every room's every part, and a change of one is told by its name."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from seekling.engine import batch as engine_batch
from seekling.engine.config import Sampling
from seekling.learn import objective, optim, update, value
from seekling.learn.presets import OBJECTIVES
from seekling.rewards import criteria
from seekling.selftests import answers
from seekling.selftests.outcome import require


@pytest.fixture(autouse=True)
def _computed_anew() -> Any:
    answers.figures.cache_clear()
    yield
    answers.figures.cache_clear()


def told() -> dict[str, float]:
    return {test.name: test.figure for test in answers.of_answers()}


def test_the_answers_are_those_that_are_written_down() -> None:
    outcomes = answers.of_answers()
    assert [test.name for test in outcomes] == [f"known answers of {room}" for room in answers.ROOMS]
    assert all(test.figure < 1e-6 for test in outcomes), "of this machine's float32 sums"
    require(*outcomes)


def test_every_answer_is_written_down_and_no_other() -> None:
    assert answers.figures().keys() == json.loads(answers.FILE.read_text()).keys()
    assert set(OBJECTIVES) <= {name.removeprefix("learning: objective ") for name in answers.figures()}


def test_the_number_of_threads_changes_no_answer() -> None:
    before = answers.figures().copy()
    answers.figures.cache_clear()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert answers.figures() == before and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_they_are_asked_once_a_process() -> None:
    answers.of_answers()
    assert answers.figures() is answers.figures()


def test_no_two_numbers_of_an_answer_can_hide_each_other() -> None:
    numbers = answers.wave(40)
    swapped = numbers.clone()
    swapped[[3, 17]] = numbers[[17, 3]]
    assert abs(answers.digest(numbers) - answers.digest(swapped)) > 0.1
    assert answers.digest(torch.tensor([float("nan")])) != answers.digest(torch.tensor([0.0]))


PLANTED = {
    "a ratio that is summed": (objective.RATIOS, "sequence", lambda said: said.summed(said.logp - said.old).exp()),
    "a KL turned round": (objective.KL, "k3", lambda log_ratio: log_ratio.exp() - log_ratio - 1),
}


@pytest.mark.parametrize("name", PLANTED)
def test_another_equation_is_another_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(*PLANTED[name])
    assert told()["known answers of learning"] > answers.LIMIT


def test_the_answer_that_is_off_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = value.gae
    monkeypatch.setattr(answers, "gae", lambda *a, **k: 1.01 * sound(*a, **k))
    (test,) = [test for test in answers.of_answers() if not test.passed]
    assert test.name == "known answers of learning" and '"learning: gae"' in test.advice


def test_an_answer_that_is_no_number_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "digest", lambda *_: float("nan"))
    assert all(figure == float("inf") for figure in told().values())


def mirrored(patch: pytest.MonkeyPatch) -> None:
    draw = engine_batch.draw
    patch.setattr(engine_batch, "draw", lambda logp, uniform: draw(logp, 1 - uniform))


def cool(patch: pytest.MonkeyPatch) -> None:
    drawn = engine_batch.distribution
    patch.setattr(engine_batch, "distribution", lambda logits, s: drawn(logits, Sampling(temperature=0.9)))


@pytest.mark.parametrize("plant", [mirrored, cool])
def test_another_sampler_is_heard(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    figures = told()
    assert figures["known answers of sampling"] > answers.LIMIT
    assert figures["known answers of rewards"] < answers.LIMIT


def test_an_optimizer_that_forgets_its_schedule_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "schedule_share", lambda *_: 1.0)
    assert told()["known answers of learning"] > answers.LIMIT


def test_a_learner_that_forgets_the_temperature_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    read = update.token_logps
    monkeypatch.setattr(update, "token_logps", lambda model, hidden, at, _, **more: read(model, hidden, at, **more))
    assert told()["known answers of learning"] > answers.LIMIT


def test_a_reward_that_counts_otherwise_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    from seekling.rewards import rubric

    share = criteria.repeated_share
    monkeypatch.setattr(rubric, "repeated_share", lambda text, n: share(text, n + 1))
    assert told()["known answers of rewards"] > answers.LIMIT


def test_they_are_written_down_by_one_command(tmp_path: Any) -> None:
    before = answers.FILE.read_text()
    aside = f"answers.FILE = Path({str(tmp_path / 'answers.json')!r}); answers.write()"
    code = f"from pathlib import Path; from seekling.selftests import answers; {aside}"
    subprocess.run([sys.executable, "-c", code], check=True)
    known, again = json.loads(before), json.loads((tmp_path / "answers.json").read_text())
    assert again == pytest.approx(known, rel=1e-6)
