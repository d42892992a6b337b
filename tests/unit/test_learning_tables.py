"""What documents show of learning's cost: every table says what its result file says, measured yet or not."""

from __future__ import annotations

from typing import Any

import pytest

from bench import learning_tables, mutants, readme

ABOUT = {"hardware": {"cpu": "Invented CPU"}, "commit": "0123456789ab", "command": "bench", "dtype": "float32"}


def shown(name: str, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """The block of a result file that says ``result``."""
    monkeypatch.setattr(readme, "result_of", lambda asked: ABOUT | result if asked == name else None)
    page = readme.BLOCKS[name](None)
    assert page.endswith("Invented CPU; commit `0123456789ab`, `bench`.")
    return page


@pytest.mark.parametrize("name", ["memory", "fit", "grpo-step", "decode", "parallel", "mtp-alive", "mutants"])
def test_without_a_result_file_it_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme, "result_of", lambda asked: None)
    assert readme.BLOCKS[name](None) == readme.NONE_YET


def test_memory_is_told_against_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = {"chunks": {"bytes": 2**20, "seconds": 2.0}, "trl": {"bytes": 3 * 2**20, "seconds": 4.0, "trl": "1.0"}}
    shape = {"rollouts": 8, "prompt": 64, "said": 448, "vocab": 1000, "width": 64}
    page = shown("memory", {"forms": forms, "shape": shape}, monkeypatch)
    assert "| TRL | 3 MiB | 3.0 | 4.0 s |" in page and "4,096 tokens over a vocabulary of 1,000" in page


def test_sampling_is_told_beside_its_peer_the_bare_step_and_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = {"seekling": 6700.4, "transformers": 2981.9}
    row = {
        "model": "qwen3", "dtype": "bfloat16", "batch": 64, "tokens_per_s": speed,
        "times_transformers": 2.25, "share_of_bare": 1.013, "share_of_floor": 0.0934,
    }  # fmt: skip
    page = shown("decode", {"rows": [row]}, monkeypatch)
    assert "| qwen3 | bfloat16 | 64 | 6,700 | 2,982 | 2.25 | 101% | 9.3% |" in page


def test_a_step_is_compared_with_the_peer_of_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "seekling float32": {"seconds": 2.0, "completion_tokens": 64.0},
        "trl float32": {"seconds": 3.0, "completion_tokens": 63.0},
    }
    told = {"rows": rows, "times_faster_than_trl": {"float32": 1.5}, "floor_s": 0.5}
    page = shown("grpo-step", told, monkeypatch)
    assert "| seekling float32 | 2.000 s | 64 | 25.0% | 1.50 |" in page and "| trl float32 | 3.000 s | 63 |" in page


def test_processes_are_told_against_one(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "tokens_per_s": {"one": {"update": {"median": 100.0}}, "two": {"update": {"median": 150.0}}},
        "of_one": {"one": {"update": 1.0}, "two": {"update": 1.5}},
    }
    assert "| two processes | 150 (1.50) |" in shown("parallel", told, monkeypatch)


def test_a_layer_kept_alive_is_told_beside_one_that_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {
        "tuned": {"after": 0.9, "without": 0.655, "same_trunk": True},
        "zero": {"after": 0.86, "without": 0.8, "same_trunk": False},
    }
    page = shown("mtp-alive", {"seeds": [{"seed": 3, "before": 0.8613, **stages}]}, monkeypatch)
    assert "| 3 | fine-tuning | 86.1% | 90.0% | 65.5% | yes |" in page
    assert "| 3 | reinforcement | 86.1% | 86.0% | 80.0% | no |" in page


def test_mutants_that_raise_are_noticed_and_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    fates = dict.fromkeys(("killed", "raised", "hung", "survived"), 0)
    counted = {"suite": fates | {"killed": 3, "raised": 1}, "selftests": fates | {"killed": 1, "survived": 3}}
    page = shown("mutants", {"fates": dict.fromkeys(learning_tables.ROOMS, counted)}, monkeypatch)
    assert "| learn | the suite | 4 | 100.0% | 3 | 1 | 0 | 0 |" in page
    assert "| all | start-up self-tests alone | 4 | 25.0% | 1 | 0 | 0 | 3 |" in page
    assert set(mutants.ROOMS) < set(learning_tables.ROOMS)
