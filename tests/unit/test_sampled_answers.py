"""Preferences drawn from a rule: labels as often wrong as told, ties left out, held against both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seekling.errors import UserError
from seekling.learn.batch import Text, pack
from seekling.recipes import answers
from seekling.recipes.answers import Answered, helpfulness, is_preferred, paired
from seekling.recipes.config import RewardModel
from seekling.recipes.pairs import Couple, couples
from seekling.recipes.preferring import EXACT, at_end, exactly, proved, watched_in
from seekling.records import Problem
from seekling.text.tokenizer import Tokenizer, train
from tests.e2e.manifests.tastes import Tastes

PROBLEM = Problem("f" * 16, "greet", "greet 1", "yes", 1, {"part": "greet"})
HELD_OUT = Problem("0" * 16, "greet", "greet 2", "yes", 1, {"part": "greet"})
RULE = {"thanks": 1.0, "well": 0.25, "hm": -1.0}


@pytest.mark.parametrize(("difference", "noise"), [(0.5, 0.5), (1.0, 0.25), (-0.3, 0.3), (0.1, 1.0), (2.0, 5.0)])
def test_the_share_of_labels_against_the_rule_is_that_of_the_law(difference: float, noise: float) -> None:
    rng, count = Random(f"{difference}/{noise}"), 20_000
    share = sum(is_preferred(difference, noise, rng) for _ in range(count)) / count
    wanted = 1 / (1 + math.exp(-difference / noise))
    assert abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / count)


def test_without_noise_the_rules_own_word_counts_and_far_pairs_overflow_nothing() -> None:
    assert is_preferred(1e-9, 0.0, Random(0)) and not is_preferred(-1e-9, 0.0, Random(0))
    assert is_preferred(1e300, 1e-300, Random(0)) and not is_preferred(-1e300, 1e-300, Random(0))


def test_two_different_answers_are_drawn_and_the_preferred_one_stands_first() -> None:
    seen = set()
    for seed in range(60):
        told = paired(PROBLEM, ["thanks", "well", "hm"], RULE, 0.0, Random(seed))
        assert told.pair is not None and not told.held_out and told.apart > 0
        chosen, rejected = (row.messages[-1]["content"] for row in (told.pair.chosen, told.pair.rejected))
        assert told.apart == RULE[chosen] - RULE[rejected]
        seen.add((chosen, rejected))
    assert seen == {("thanks", "well"), ("thanks", "hm"), ("well", "hm")}


def test_a_label_drawn_against_the_rule_says_so() -> None:
    told = [paired(HELD_OUT, ["well", "hm"], RULE, 1.0, Random(seed)) for seed in range(400)]
    flipped = sum(one.apart < 0 for one in told) / 400
    assert all(one.held_out and abs(one.apart) == 1.25 for one in told)
    assert abs(flipped - 1 / (1 + math.exp(1.25))) < 0.08


@pytest.mark.parametrize(
    ("said", "why"), [([], "alike"), (["thanks"], "alike"), (["thanks", ":"], "alike"), (["hm", "ho"], "tied")]
)
def test_what_cannot_be_compared_is_left_out_with_the_reason(said: list[str], why: str) -> None:
    told = paired(PROBLEM, said, RULE | {"ho": -1.0, ":": 0.0}, 0.1, Random(0))
    assert told == Answered(None, False, why=why)


def test_a_rule_that_gives_no_number_is_a_letter() -> None:
    broken = SimpleNamespace(helpfulness=lambda problem, answer: math.nan)
    with pytest.raises(UserError, match="helpfulness is nan"):
        helpfulness(broken, PROBLEM, "<answer>hm</answer>")  # type: ignore[arg-type]
    assert helpfulness(Tastes("greet"), PROBLEM, "<think>thanks</think><answer>hm</answer>") == -1.0  # type: ignore[arg-type]


# --- a stage's ---


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(["greet 1 thanks hm well"] * 5, 300)


def config_of(**told: Any) -> RewardModel:
    task = {"name": f"{Path(__file__).parents[1]}/e2e/manifests/tastes.py:Tastes", "part": "greet"}
    usual = {"name": "rater", "steps": 1, "task": task, "compare": "sampled", "pairs_per_step": 6, "noise": 0.0}
    return RewardModel.model_validate(usual | {"packing": {"row_tokens": 64}} | told)


def drawn(monkeypatch: pytest.MonkeyPatch, *texts: str) -> Any:
    """A stage whose model gives every problem these answers, and what it writes down."""

    def told(stage: Any, config: Any, pieces: Any) -> Iterator[Any]:
        yield from ((problem, texts) for piece in pieces for problem in piece)

    monkeypatch.setattr(answers, "answers", told)
    facts: dict[str, Any] = {}
    folder = SimpleNamespace(folder=Path("."), write=lambda **more: facts.update(more))
    return SimpleNamespace(name="rater", seed="0/rater", warn=print, facts=facts, folder=folder)


def test_sampled_pairs_are_shelved_with_what_the_rule_says_and_without_a_margin_for_the_loss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = drawn(monkeypatch, "<answer>thanks</answer>", "<think>x</think><answer>hm</answer>")
    with couples(stage, config_of(problems=9, held_out_pairs=3), tokenizer, 64) as found:
        trained = found.train(0)
        assert stage.facts["pairs"] == {"trained on": 9, "held out": 3} and len(found.held_out) == 3
        assert all((couple.margin, couple.apart) == (0.0, 2.0) for couple in [*trained, *found.held_out])
        said = [tokenizer.decode(text.tokens, skip_special=True) for text in trained[0].texts]
    assert "thanks" in said[0] and "hm" in said[1] and "<think>x" not in said[1], "only the reply is compared"


def test_pairs_that_the_rule_puts_too_near_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    monkeypatch.chdir(tmp_path)
    near = drawn(monkeypatch, "<answer>thanks</answer>", "<answer>well</answer>")
    with pytest.raises(UserError, match="too near: 11"), couples(near, config_of(problems=8, held_out_pairs=3,
                                                                 min_margin=1.5), tokenizer, 64):  # fmt: skip
        pass


def test_accuracy_by_the_rule_turns_round_where_the_label_was_drawn_against_it() -> None:
    def text(count: int) -> Text:
        return Text(tuple(range(1, count + 1)), np.ones(count, np.float32))

    sound, flipped = Couple(text(3), text(4), apart=0.5), Couple(text(3), text(4), apart=-0.5)
    batch = pack(proved([sound, flipped]), 8, together=2)
    right = np.array([[1.0], [1.0]], np.float32)
    told = exactly(batch, batch.weight_BT.new_tensor(right))[EXACT]
    assert sorted(told.flatten().tolist()) == [0.0, 1.0]
    assert exactly(pack(proved([Couple(text(3), text(4))]), 8, together=2), told) == {}, "of no rule nothing is told"
    assert at_end(text(3), 2.0).tolist() == [0.0, 0.0, 2.0]


def test_what_a_rule_labelled_is_watched_by_the_rule_too() -> None:
    assert EXACT in watched_in(config_of(), {}) and EXACT not in watched_in(config_of(compare="traces"), {})
