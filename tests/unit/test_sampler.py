"""The sampler's corners: exact numbers at exact points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seekling.engine.config import Sampling
from seekling.engine.sampler import distribution, draw, seed_of, uniforms

INF = float("inf")


def kept(logits: list[float], **sampling: float) -> list[int]:
    logp = distribution(torch.tensor([logits]), Sampling(**sampling))[0]
    return torch.isfinite(logp).nonzero().flatten().tolist()


def test_uniforms_are_the_published_splitmix64() -> None:
    """Reference outputs of SplitMix64 from seed 1234567, their top 24 bits."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    mine = uniforms(np.full(4, 1234567, np.uint64), np.arange(4, dtype=np.uint64))
    assert mine.tolist() == [(x >> 40) * 2**-24 for x in published]


def test_a_seed_is_a_stable_63_bit_number() -> None:
    assert 0 <= seed_of(0, "zero", 3) < 2**63
    assert seed_of(0, "zero", 3) == seed_of(0, "zero", 3) != seed_of(0, "zero", 4)
    assert seed_of(1, 23) != seed_of(12, 3)


def test_zero_temperature_takes_the_likeliest_with_certainty() -> None:
    logp = distribution(torch.tensor([[0.0, 3.0, 1.0]]), Sampling(temperature=0))
    assert logp.tolist() == [[-INF, 0.0, -INF]]


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.5]])
    torch.testing.assert_close(distribution(logits, Sampling(temperature=0.5)), (logits * 2).log_softmax(-1))


def test_top_k_keeps_k() -> None:
    assert kept([1.0, 5.0, 3.0, 4.0], top_k=2) == [1, 3]
    assert kept([1.0, 5.0, 3.0, 4.0], top_k=99) == [0, 1, 2, 3]


def test_top_p_keeps_the_fewest_that_hold_the_share() -> None:
    logits = np.log([0.5, 0.3, 0.15, 0.05]).tolist()
    assert kept(logits, top_p=0.49) == [0]
    assert kept(logits, top_p=0.51) == [0, 1]
    assert kept(logits, top_p=0.79) == [0, 1]
    assert kept(logits, top_p=0.81) == [0, 1, 2]
    assert kept(logits, top_p=1e-9) == [0]


def test_min_p_is_relative_to_the_likeliest() -> None:
    logits = np.log([0.5, 0.3, 0.15, 0.05]).tolist()
    assert kept(logits, min_p=0.2) == [0, 1, 2]
    assert kept(logits, min_p=0.7) == [0]
    assert kept(logits, min_p=1.0) == [0]


def test_top_p_counts_within_what_top_k_left_and_after_temperature() -> None:
    logits = np.log([0.4, 0.3, 0.2, 0.1]).tolist()
    assert kept(logits, top_k=2, top_p=0.56) == [0]  # 0.4 of 0.7 is 0.571
    assert kept(logits, top_k=2, top_p=0.58) == [0, 1]
    assert kept(logits, top_p=0.56, temperature=1.0) == [0, 1]
    assert kept(logits, top_p=0.56, temperature=0.25) == [0]


def test_what_is_kept_is_renormalised() -> None:
    logp = distribution(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), Sampling(top_k=2))
    assert logp.exp().sum().item() == pytest.approx(1.0)


LAST = 1 - 2**-24
"""The largest number ``uniforms`` can give."""


@pytest.mark.parametrize("u, token", [(0.0, 1), (0.2, 1), (0.25, 3), (0.5, 3), (LAST, 3), (1.0, 3)])
def test_a_draw_is_where_the_cumulative_probability_passes_u(u: float, token: int) -> None:
    """Zero-probability tokens stand first, between and last; none is drawn, not even at 0 or 1."""
    logp = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).log()
    assert draw(logp, torch.tensor([u])).item() == token


@pytest.mark.parametrize("u", [0.0, LAST])
def test_a_certain_token_is_drawn_whatever_u(u: float) -> None:
    for token in range(3):
        logp = torch.full((1, 3), -INF)
        logp[0, token] = 0.0
        assert draw(logp, torch.tensor([u])).item() == token


def test_a_total_that_falls_short_of_one_never_runs_past_the_last_token() -> None:
    """Ten thousand rounded probabilities do not sum to one."""
    logp = torch.full((1, 10_000), -9.3)
    logp[0, -5:] = -INF
    assert draw(logp, torch.tensor([LAST])).item() == 10_000 - 6
