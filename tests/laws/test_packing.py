"""Laws of packing: no text is lost, torn or shifted, and no loss can notice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.learn.batch import Batch, Text, first_fit, narrowest, pack, spread
from seekling.learn.config import Gaps
from tests.oracles.tiny import V

settings.register_profile("laws", deadline=None)  # a busy machine is no broken law
settings.load_profile("laws")

ROOM = 16
LENGTHS = st.lists(st.integers(1, ROOM), min_size=1, max_size=12)


def texts_of(lengths: list[int], seed: int) -> list[Text]:
    """Random texts with weights, one further value and routes [T-1, 2 layers, 2 active]."""
    rng = np.random.default_rng(seed)
    return [
        Text(
            rng.integers(0, V, n).tolist(),
            rng.random(n).astype(np.float32),
            {"advantage": rng.random(n).astype(np.float32)},
            rng.integers(0, 6, (n - 1, 2, 2)).astype(np.int16),
        )
        for n in lengths
    ]


def unpacked(batch: Batch) -> list[dict[str, Any]]:
    """Every text that lies in the batch, with all that stands at its positions."""
    found, length = [], batch.targets_BT.shape[1]
    for b, segments in enumerate(batch.rows.segments_BT.tolist()):
        for number in sorted(set(segments) - {0}):
            start, count = segments.index(number), segments.count(number)
            assert segments[start : start + count] == [number] * count, "a text is torn"
            here, flat = slice(start, start + count), slice(b * length + start, b * length + start + count - 1)
            found.append(
                {
                    "tokens": batch.rows.tokens_BT[b, here].tolist(),
                    "positions": batch.rows.positions_BT[b, here].tolist(),
                    "targets": batch.targets_BT[b, here].tolist(),
                    "weight": batch.weight_BT[b, here].tolist(),
                    "advantage": batch.values["advantage"][b, here].tolist(),
                    "routes": torch.stack([route[flat] for route in batch.routes], 1).tolist(),
                }
            )
    return found


def expected(text: Text) -> dict[str, Any]:
    """At t stands all that concerns predicting t+1; the last position predicts nothing."""
    assert text.routes is not None
    return {
        "tokens": list(text.tokens),
        "positions": list(range(len(text.tokens))),
        "targets": [*text.tokens[1:], 0],
        "weight": [*text.weight[1:].tolist(), 0.0],
        "advantage": [*text.values["advantage"][1:].tolist(), 0.0],
        "routes": text.routes.tolist(),
    }


@given(LENGTHS, st.integers(1, 40))
def test_rows_are_as_told_or_narrower_and_waste_no_more(lengths: list[int], told: int) -> None:
    texts = texts_of(lengths, 0)
    width = narrowest(texts, told)
    assert width == told or (max(lengths) <= width < told and 32 * (width - max(lengths)) < max(lengths))
    if max(lengths) <= told:
        area, before = (room * len(first_fit(lengths, room)) for room in (width, told))
        assert area <= before


def test_texts_that_cannot_share_a_row_get_rows_of_their_own_length() -> None:
    texts = texts_of([75] * 8, 0)
    assert narrowest(texts, 128) == 76 and pack(texts, 76).targets_BT.shape == (8, 76)
    assert narrowest(texts_of([64] * 8, 0), 128) == 128, "two of them share one"


def test_widths_are_few() -> None:
    widths = {narrowest(texts_of([length] * 8, 0), 10_000) for length in range(2049, 4097, 8)}
    assert len(widths) <= 32 + 1  # and the whole row


def by_text(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=repr)


@given(LENGTHS, st.integers(0, 99))
def test_every_text_lies_whole_in_one_row(lengths: list[int], seed: int) -> None:
    texts = texts_of(lengths, seed)
    assert by_text(unpacked(pack(texts, ROOM))) == by_text([expected(text) for text in texts])


@given(LENGTHS, st.integers(0, 99))
def test_padding_weighs_nothing(lengths: list[int], seed: int) -> None:
    batch = pack(texts_of(lengths, seed), ROOM)
    padding = batch.rows.segments_BT == 0
    for values in (batch.weight_BT, batch.values["advantage"], batch.rows.tokens_BT, batch.rows.positions_BT):
        assert not values[padding].any()
    assert batch.num_tokens == sum(lengths)


@given(LENGTHS, st.integers(ROOM, 40))
def test_first_fit_gives_each_text_one_place_and_overfills_no_row(lengths: list[int], room: int) -> None:
    rows = first_fit(lengths, room)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in row) <= room for row in rows)
    assert len(rows) <= 2 * -(-sum(lengths) // room), "never more than twice the rows that perfect packing needs"


@given(LENGTHS, st.integers(1, 20))
@settings(max_examples=40)
def test_slices_are_the_batch(lengths: list[int], count: int) -> None:
    batch = pack(texts_of(lengths, 0), ROOM)
    parts = list(batch.passes(count))
    assert 1 <= len(parts) <= len(batch.targets_BT)
    assert all(len(part.targets_BT) for part in parts)
    assert [text for part in parts for text in unpacked(part)] == unpacked(batch)


def test_a_text_longer_than_a_row_is_refused_with_the_setting_to_change() -> None:
    with pytest.raises(UserError, match=r"17 tokens does not fit a row of 16[\s\S]*packing.row_tokens"):
        pack(texts_of([3, ROOM + 1], 0), ROOM)


def test_texts_without_routes_make_a_batch_without_routes() -> None:
    assert pack([Text([1, 2, 3], np.ones(3, np.float32))], 8).routes == ()


@given(LENGTHS, st.floats(0, 1), st.integers(1, 6), st.integers(0, 99))
def test_gaps_keep_each_text_in_order_from_its_start(lengths: list[int], share: float, longest: int, seed: int) -> None:
    batch = pack(texts_of(lengths, seed), ROOM)
    wide = spread(batch, Gaps(share=share, longest=longest), 10_000, seed)
    before, after = batch.rows.positions_BT, wide.rows.positions_BT
    same = batch.rows.segments_BT[:, 1:] == batch.rows.segments_BT[:, :-1]
    said = same & (batch.rows.segments_BT[:, 1:] > 0)
    steps = (after[:, 1:] - after[:, :-1])[said]
    assert ((steps >= 1) & (steps <= 1 + longest)).all()
    assert (after[before == 0] == 0).all(), "every text begins at position 0"
    again = spread(batch, Gaps(share=share, longest=longest), 10_000, seed)
    assert torch.equal(after, again.rows.positions_BT)


def test_gaps_come_as_often_as_asked_and_never_reach_the_limit() -> None:
    batch = pack(texts_of([ROOM] * 200, 0), ROOM)
    wide = spread(batch, Gaps(share=0.25, longest=3), 20, 0).rows.positions_BT
    steps = wide[:, 1:] - wide[:, :-1]
    assert wide.max() == 19
    assert 0.2 < (spread(batch, Gaps(share=0.25), 10_000, 0).rows.positions_BT.diff(dim=1) > 1).float().mean() < 0.3
    assert (steps >= 0).all()
    assert spread(batch, Gaps(), 20, 0) is batch
