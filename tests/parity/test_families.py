"""Every family against transformers, on small odd configurations drawn by hypothesis: what one saves the other loads.

Each drawn model is written by transformers' ``save_pretrained``, loaded here, compared (alone, padded, greedily with
and without their cache), written again, compared to the bit, and loaded back there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.families import MAKERS, compare

LIMIT = 1e-4
"""Largest difference of logits, relative to the largest logit, in float32."""


@pytest.mark.parametrize("family", MAKERS)
def test_a_checkpoint_of_theirs_says_the_same_here_and_comes_back(
    family: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=6, deadline=None, database=None)
    @given(st.integers(0, 10_000))
    def holds(seed: int) -> None:
        found = compare(family, seed, tmp_path_factory.mktemp("model"))
        assert max(found.logits, found.padded, found.exported) < LIMIT
        assert found.greedy_differs == 0
        assert found.round_trip_bits
        assert found.stray_keys == ()

    holds()


@pytest.mark.soak
@pytest.mark.parametrize("family", MAKERS)
def test_sixty_drawn_configurations_agree(family: str, tmp_path: Path) -> None:
    for seed in range(60):
        found = compare(family, seed, tmp_path / str(seed))
        assert max(found.logits, found.padded, found.exported) < LIMIT, seed
        assert not found.greedy_differs and found.round_trip_bits and not found.stray_keys, seed
