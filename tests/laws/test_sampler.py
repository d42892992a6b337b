"""Laws of drawing a token, for any logits, seed and settings."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seekling.engine.config import Sampling
from seekling.engine.sampler import distribution, draw, uniforms

settings.register_profile("laws", deadline=None)  # a busy machine is no broken law
settings.load_profile("laws")

LOGITS = st.lists(st.floats(-30, 30, width=32) | st.just(float("-inf")), min_size=2, max_size=30).filter(
    lambda values: any(v > -40 for v in values)
)
SHARE = st.floats(0.001, 1, exclude_min=True)
SAMPLINGS = st.builds(
    Sampling, temperature=st.just(0.0) | st.floats(0.05, 5), top_p=st.just(1.0) | SHARE,
    top_k=st.integers(0, 12), min_p=st.just(0.0) | SHARE,
)  # fmt: skip
UNIFORM = st.sampled_from([0.0, 1 - 2**-24]) | st.integers(0, 2**24 - 1).map(lambda bits: bits * 2**-24)


def probabilities(logits: list[float], sampling: Sampling) -> Tensor:
    return distribution(torch.tensor([logits]), sampling)[0].exp()


@given(LOGITS, SAMPLINGS)
def test_the_distribution_sums_to_one_and_keeps_the_likeliest(logits: list[float], sampling: Sampling) -> None:
    p, full = probabilities(logits, sampling), probabilities(logits, Sampling())
    assert abs(float(p.sum()) - 1) < 1e-5
    assert full[p.argmax()] >= full.max() * (1 - 1e-5)


@given(LOGITS, SAMPLINGS)
def test_a_likelier_token_is_never_dropped_for_a_less_likely_one(logits: list[float], sampling: Sampling) -> None:
    full = probabilities(logits, Sampling())
    kept = torch.isfinite(distribution(torch.tensor([logits]), sampling)[0])
    assert not (full[~kept] > full[kept].min() * (1 + 1e-5)).any()


@given(LOGITS, st.integers(1, 12))
def test_top_k_keeps_k_unless_tokens_are_tied(logits: list[float], k: int) -> None:
    kept = int((distribution(torch.tensor([logits]), Sampling(top_k=k))[0] > float("-inf")).sum())
    possible = sum(v > float("-inf") for v in logits)
    assert kept >= min(k, possible)
    if len(set(logits)) == len(logits) and kept > min(k, possible):
        gaps = np.diff(sorted(v for v in logits if v > float("-inf")))
        assert gaps.min() < 1e-4, "more than k kept though no two are near"


@given(LOGITS, SHARE)
def test_top_p_keeps_the_share_and_not_a_token_more(logits: list[float], top_p: float) -> None:
    full = probabilities(logits, Sampling())
    kept = probabilities(logits, Sampling(top_p=top_p)) > 0
    held = float(full[kept].sum())
    assert held >= top_p - 1e-5
    least = float(full[kept].min())
    assert held - least < top_p + 1e-5


@given(LOGITS, SHARE)
def test_min_p_keeps_all_that_are_likely_enough_and_no_others(logits: list[float], min_p: float) -> None:
    full = probabilities(logits, Sampling())
    kept = probabilities(logits, Sampling(min_p=min_p)) > 0
    bound = float(full.max()) * min_p
    assert bool((full[kept] >= bound * (1 - 1e-4)).all()) and bool((full[~kept] <= bound * (1 + 1e-4)).all())


@given(LOGITS, SAMPLINGS)
def test_truncation_changes_no_odds_among_what_it_keeps(logits: list[float], sampling: Sampling) -> None:
    p = distribution(torch.tensor([logits]), sampling)[0]
    q = distribution(torch.tensor([logits]), Sampling(temperature=sampling.temperature))[0]
    kept = torch.isfinite(p)
    torch.testing.assert_close((p - p.max())[kept], (q - q.max())[kept], rtol=1e-4, atol=1e-4)


@given(LOGITS, SAMPLINGS, UNIFORM)
def test_a_token_of_probability_zero_is_never_drawn(logits: list[float], sampling: Sampling, u: float) -> None:
    logp = distribution(torch.tensor([logits]), sampling)
    token = int(draw(logp, torch.tensor([u])))
    assert 0 <= token < len(logits)
    assert logp[0, token] > float("-inf")


@given(LOGITS, st.tuples(UNIFORM, UNIFORM).map(sorted))
def test_a_larger_u_never_draws_an_earlier_token(logits: list[float], us: list[float]) -> None:
    logp = distribution(torch.tensor([logits, logits]), Sampling())
    first, second = draw(logp, torch.tensor(us)).tolist()
    assert first <= second


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 10**6)), min_size=1, max_size=20))
def test_a_uniform_is_a_function_of_its_own_seed_and_position(pairs: list[tuple[int, int]]) -> None:
    seeds, positions = (np.array(column, np.uint64) for column in zip(*pairs, strict=True))
    together = uniforms(seeds, positions)
    alone = [uniforms(seeds[i : i + 1], positions[i : i + 1])[0] for i in range(len(pairs))]
    assert together.tolist() == alone
    assert ((together >= 0) & (together < 1)).all()


def test_draws_follow_the_distribution() -> None:
    """Chi-square over 20,000 draws at neighbouring seeds, and at neighbouring positions: one alarm in a million."""
    p = torch.tensor([0.4, 0.3, 0.0, 0.2, 0.07, 0.03])
    count, limit = 20_000, 33.4  # chi-square with 4 degrees of freedom exceeds this once in a million
    numbers, zeros = np.arange(count, dtype=np.uint64), np.zeros(count, np.uint64)
    for seeds, positions in ((numbers, zeros), (zeros, numbers)):
        u = torch.from_numpy(uniforms(seeds, positions))
        drawn = torch.bincount(draw(p.log().expand(count, -1), u), minlength=6)
        assert drawn[2] == 0
        expected = p[p > 0] * count
        assert float(((drawn[p > 0] - expected) ** 2 / expected).sum()) < limit


def test_neighbouring_positions_and_seeds_are_not_correlated() -> None:
    grid = uniforms(np.arange(200, dtype=np.uint64).repeat(200), np.tile(np.arange(200, dtype=np.uint64), 200))
    table = grid.reshape(200, 200) - 0.5
    for shifted in (table[1:] * table[:-1], table[:, 1:] * table[:, :-1]):
        assert abs(float(shifted.mean())) < 6 / 12 / np.sqrt(shifted.size)
