"""What documents show of sampling: every table says what its result file says, measured yet or not."""

from __future__ import annotations

from typing import Any

import pytest

from bench import readme
from tests.unit.test_learning_tables import shown


@pytest.mark.parametrize("name", ["drafting", "rivals", "wide"])
def test_without_a_result_file_it_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme, "result_of", lambda asked: None)
    assert readme.BLOCKS[name](None) == readme.NONE_YET


def test_guesses_are_told_with_what_was_possible_and_what_theory_says(monkeypatch: pytest.MonkeyPatch) -> None:
    row: dict[str, Any] = {
        "rows": 4, "temperature": 1.0, "guessed": "model 1", "accepted": 0.806, "possible": 0.915, "cost": 0.31,
        "gain": 1.21, "of_theory": 0.93, "same_tokens": True,
    }  # fmt: skip
    other = {k: v for k, v in row.items() if k != "possible"} | {"guessed": "text 3", "same_tokens": False}
    page = shown("drafting", {"rows": [row, other]}, monkeypatch)
    assert "| 4 | 1 | the layer, 1 token | 81% | 92% | 0.31 | 1.21 | 93% | yes |" in page
    assert "| 4 | 1 | the text, 3 tokens | 81% |  | 0.31 | 1.21 | 93% | no |" in page


def test_rivals_that_were_not_there_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = {"seekling": 5000.0, "vllm": 4000.0, "llama.cpp bf16": 2500.0}
    row = {"model": "qwen3", "dtype": "bfloat16", "batch": 64, "tokens_per_s": speed, "times_best": 1.25}
    lone = row | {"batch": 1, "tokens_per_s": {"seekling": 30.0, "seekling int8": 44.0}, "times_best": None,
                  "share_of_memory": 0.83}  # fmt: skip
    page = shown("rivals", {"rows": [row, lone]}, monkeypatch)
    assert "| qwen3 | bfloat16 | 64 | 5,000.0 |  | 4,000.0 | 2,500 (bf16) | 1.25 |  |" in page
    assert "| qwen3 | bfloat16 | 1 | 30.0 | 44.0 |  |  |  | 83% |" in page


def test_wide_models_are_told_form_by_form(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "batch": 1, "tokens_per_s": {"bfloat16": 28.0, "int8": 45.5},
        "weight_bytes": {"bfloat16": 988e6, "int8": 630e6}, "share_of_roofline": {"bfloat16": 0.8, "int8": 0.75},
        "int8_over_bfloat16": 1.62,
    }  # fmt: skip
    page = shown("wide", {"rows": [row]}, monkeypatch)
    assert "| 1 | bfloat16 | 28.0 | 988 MB | 80% |  |" in page and "| 1 | int8 | 45.5 | 630 MB | 75% | 1.62 |" in page
