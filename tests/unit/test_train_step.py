"""The bench of a training step: both sides get the same texts, and the page says what the file says."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from bench import readme, train_step

TEXTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13, 14]]


def learned(ids: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """(token, the next one) wherever a row's label is learned, as transformers shifts them."""
    pairs = zip(ids[:, :-1].ravel().tolist(), labels[:, 1:].ravel().tolist(), strict=True)
    return sorted((token, label) for token, label in pairs if label >= 0)


def test_padded_and_packed_batches_learn_the_same_predictions() -> None:
    wanted = sorted((a, b) for text in TEXTS for a, b in pairwise(text))
    for batch in (train_step.padded(TEXTS), train_step.packed(8, TEXTS)):
        assert learned(batch["input_ids"], batch["labels"]) == wanted


def test_packed_rows_begin_their_positions_anew_with_each_text() -> None:
    batch = train_step.packed(8, TEXTS)
    assert (batch["position_ids"] == 0).sum() == len(TEXTS) + (batch["input_ids"] == 0).sum()


def test_blocks_hold_every_token_and_no_padding() -> None:
    batch = train_step.blocks(5, TEXTS)
    assert batch["input_ids"].ravel().tolist() == [token for text in TEXTS for token in text]
    assert (batch["labels"] == batch["input_ids"]).all()


def test_a_step_holds_as_many_tokens_as_asked() -> None:
    assert train_step.cut([[1, 2, 3], [4, 5, 6]], 5) == [[1, 2, 3], [4, 5]]


def looks(first: float) -> list[dict[str, Any]]:
    """Every way tried, blocks with a loss of their own and the fastest, their first steps slow."""
    found = []
    for place, way in enumerate(train_step.ways(2)):
        loss, seconds = (9.0, 0.1) if way["form"] == "blocks" else (first, 0.2 + place / 1000)
        found.append(way | {"losses": [loss], "seconds": [9.0] * train_step.WARM_UP + [seconds] * 3})
    return found


def test_no_ratio_where_the_first_losses_differ() -> None:
    own = {dtype: {"losses": [6.0]} for dtype in train_step.DTYPES}
    found = train_step.first_losses(own, looks(6.0003))
    assert found["float32"]["relative_difference"] == pytest.approx(5e-5)
    for other in (6.0007, float("nan")):
        with pytest.raises(SystemExit, match="no ratio means anything"):
            train_step.first_losses(own, looks(other))


def test_their_fastest_way_is_chosen_with_padding_and_without() -> None:
    found = train_step.fastest(looks(6.0))
    assert {name: way["form"] for name, way in found.items()} == {
        "float32": "blocks", "float32 padded": "padded", "bfloat16": "blocks", "bfloat16 padded": "padded",
    }  # fmt: skip


def rounds() -> list[dict[str, Any]]:
    """Two rounds: ours 3,000 and 3,200 tokens/s, bfloat16 twice that; theirs 2,000, bfloat16 slower."""
    found = []
    for rate in (3000.0, 3200.0):
        rates = {"seekling float32 adamw": rate, "seekling float32 muon": rate, "seekling bfloat16 adamw": 2 * rate,
                 "seekling bfloat16 muon": 2 * rate, "transformers float32": 2000.0, "transformers bfloat16": 1000.0,
                 "transformers float32 padded": 1500.0, "transformers bfloat16 padded": 800.0}  # fmt: skip
        losses = {"first_loss": 6.0, "last_loss": 3.0}
        found.append({name: {"tokens_per_s": rate, **losses} for name, rate in rates.items()})
    return found


def test_ratios_compare_neighbours_of_one_dtype_and_with_their_faster_one() -> None:
    found = train_step.ratios(rounds())
    assert found["float32"] == {"median": 1.55, "lowest": 1.5, "highest": 1.6}
    assert found["float32 against padded"]["lowest"] == 2.0
    assert found["bfloat16"]["median"] == 6.2 and found["bfloat16 against their faster dtype"]["median"] == 3.1


def test_the_page_says_what_the_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    result = {
        "arms": train_step.summed_up(rounds(), {"float32": 31_000.0, "bfloat16": 62_000.0}),
        "ratios": train_step.ratios(rounds()), "theirs": train_step.fastest(looks(6.0)), "rounds": 2, "steps": 60,
        "tokens_per_step": 2048, "parity": {"float32": {"relative_difference": 2e-7}}, "transformers": "5.0.0",
        "hardware": {"cpu": "Invented CPU", "cores": 2}, "commit": "0123456789ab", "command": "bench",
    }  # fmt: skip
    monkeypatch.setattr(readme, "result_of", lambda name: result)
    page = readme.train_step(None)
    assert "| seekling float32 adamw | 3,100 [3,000, 3,200] | 10.0 % | 6.00000 | 3.00000 |" in page
    for shown in ("float32: 1.55 [1.50, 1.60] times", "differ by 2.0e-07", "float32: blocks, 1, eager, sdpa"):
        assert shown in page, shown
    monkeypatch.setattr(readme, "result_of", lambda name: None)
    assert readme.NONE_YET in readme.train_step(None)
