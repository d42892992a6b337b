"""Distillation's losses: against loops from the papers and TRL's formula; chunks against the whole."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seekling.learn import taught
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.distillation import distance, entropy, normalised, preferred, rest, told, told_kl
from seekling.learn.lanes import ONE
from seekling.learn.objective import Objective, Said, policy_loss
from seekling.learn.taught import States, TopK, compared, numbered, states_of, told_by
from seekling.model.decoder import Decoder
from tests.oracles import distillation as oracle
from tests.oracles.tiny import SHAPES, V, build, text

BETAS = (0.0, 0.3, 0.5, 1.0)
K = 5


def logits(seed: int, count: int = 6) -> Tensor:
    return 2 * torch.randn(count, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logps(seed: int, temperature: float = 1.0) -> Tensor:
    return (logits(seed) / temperature).log_softmax(-1)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("beta", BETAS)
def test_a_distance_is_the_papers_sum(beta: float, temperature: float) -> None:
    ours = distance(logps(0, temperature), logps(1, temperature), beta)
    rows = zip(logits(0).tolist(), logits(1).tolist(), strict=True)
    loops = [oracle.divergence(*(oracle.softmax(z, temperature) for z in row), beta) for row in rows]
    assert ours.tolist() == pytest.approx(loops, rel=1e-12) and min(loops) > 0.05
    assert distance(logps(0), logps(0), beta).abs().max() < 1e-14


def trl_loss(student: Tensor, teacher: Tensor, labels: Tensor, beta: float, temperature: float) -> Tensor:
    """What TRL's GKD trainer computes, in torch's words: a mean over labelled tokens, without T^2."""
    q, p = F.log_softmax(student / temperature, -1), F.log_softmax(teacher / temperature, -1)
    if beta in (0, 1):
        each = (
            F.kl_div(p, q, log_target=True, reduction="none")
            if beta
            else F.kl_div(q, p, log_target=True, reduction="none")
        )
    else:
        mixed = torch.logsumexp(torch.stack([q + math.log(1 - beta), p + math.log(beta)]), 0)
        parts = (F.kl_div(mixed, one, log_target=True, reduction="none") for one in (p, q))
        each = sum(share * part for share, part in zip((beta, 1 - beta), parts, strict=True))
    return each[labels != -100].sum() / (labels != -100).sum()


# --- whole models -----------------------------------------------------------------------------------------------------


def lesson(wide: int = 14) -> Batch:
    """Texts of which the ends were said, each said token weighing alike."""
    lengths = (9, 5, 12, 4)
    texts = [Text(text(n, n), np.r_[np.zeros(2), np.ones(n - 2)].astype(np.float32)) for n in lengths]
    batch = pack(texts, wide)
    return numbered(replace(batch, weight_BT=batch.weight_BT.double() / batch.weight_BT.sum().double()))


def taught_by(teacher: Decoder, batch: Batch, **how: Any) -> States:
    states_MD, first = states_of(teacher, batch, 2, ONE, torch.float32)
    return States(states_MD, teacher.head_VD, V, first=first, **how)


TEACHER, STUDENT = build(SHAPES["v3"], 1, torch.float64), build(SHAPES["llama"], 2, torch.float64)


def learned(student: Decoder, batch: Batch, told: Any, temperature: float) -> tuple[Tensor, list[Tensor]]:
    value, _ = compared(student, student(batch.rows).states_BTD, batch, told, temperature)
    return value.detach(), [
        g for g in torch.autograd.grad(value, list(student.parameters()), allow_unused=True) if g is not None
    ]


@pytest.mark.parametrize("beta, temperature", [(0.0, 1.0), (0.3, 1.0), (1.0, 1.0), (0.5, 2.0)])
def test_the_loss_and_its_gradient_are_trls_times_t_squared(beta: float, temperature: float) -> None:
    batch = lesson()
    told = taught_by(TEACHER, batch, beta=beta, temperature=temperature)
    value, grads = learned(STUDENT, batch, told, temperature)
    labels = batch.targets_BT.masked_fill(batch.weight_BT == 0, -100)
    with torch.no_grad():
        theirs = TEACHER.logits(TEACHER(batch.rows).states_BTD)
    loss = trl_loss(STUDENT.logits(STUDENT(batch.rows).states_BTD), theirs, labels, beta, temperature)
    wanted = [g for g in torch.autograd.grad(loss, list(STUDENT.parameters()), allow_unused=True) if g is not None]
    assert float(value) == pytest.approx(temperature**2 * float(loss.detach()), rel=1e-10)
    for ours, trls in zip(grads, wanted, strict=True):
        torch.testing.assert_close(ours, temperature**2 * trls, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", ["states", "top k"])
def test_chunks_and_slices_change_neither_loss_nor_gradient(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = lesson()
    told: Any = taught_by(TEACHER, batch, temperature=1.5) if kind == "states" else stored(batch, 1.5)
    value, grads = learned(STUDENT, batch, told, 1.5)
    monkeypatch.setattr(taught, "rows_per_chunk", lambda *_: 3)
    chunked, in_chunks = learned(STUDENT, batch, told, 1.5)
    slices = [learned(STUDENT, part, told, 1.5) for part in batch.passes(9)]
    assert len(slices) > 2
    assert [float(chunked), sum(float(v) for v, _ in slices)] == pytest.approx([float(value)] * 2, rel=1e-12)
    for place, grad in enumerate(grads):
        torch.testing.assert_close(in_chunks[place], grad, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(sum(found[place] for _, found in slices), grad, rtol=1e-10, atol=1e-13)


def stored(batch: Batch, temperature: float = 1.0) -> TopK:
    """What a store would keep of the teacher, unrounded."""
    with torch.no_grad():
        rows = told_by(TEACHER, batch, K, V, temperature)[batch.weight_BT > 0]
    return TopK(rows[:, :K].int(), rows[:, K:-1], rows[:, -1], V)


def test_sums_tell_distance_entropy_and_how_much_was_said() -> None:
    batch = lesson()
    with torch.no_grad():
        _, sums = compared(
            STUDENT, STUDENT(batch.rows).states_BTD, batch, taught_by(TEACHER, batch, temperature=2.0), 2.0
        )
        said = batch.weight_BT > 0
        p, q = ((m.logits(m(batch.rows).states_BTD)[said] / 2).log_softmax(-1) for m in (TEACHER, STUDENT))
    assert int(sums["said"]) == int(said.sum())
    assert float(sums["teacher_kl"]) == pytest.approx(float(distance(p, q, 1.0).sum()))
    assert float(sums["entropy"]) == pytest.approx(float(entropy(q).sum()))


def test_a_frozen_head_lets_the_states_gradient_through() -> None:
    batch, told = lesson(), taught_by(TEACHER, lesson())
    states_BTD = STUDENT(batch.rows).states_BTD.detach().requires_grad_()
    whole = torch.autograd.grad(compared(STUDENT, states_BTD, batch, told)[0], states_BTD)[0]
    STUDENT.head_VD.requires_grad_(False)
    try:
        assert torch.equal(torch.autograd.grad(compared(STUDENT, states_BTD, batch, told)[0], states_BTD)[0], whole)
    finally:
        STUDENT.head_VD.requires_grad_(True)


def test_ids_that_one_model_is_padded_with_count_for_nothing() -> None:
    """A student's spare ids are neither compared nor moved."""
    wider = build(
        SHAPES["llama"].model_copy(update={"vocab_size": V + 7, "tie_word_embeddings": False}), 2, torch.float64
    )
    batch = lesson()
    value, _ = compared(wider, wider(batch.rows).states_BTD, batch, taught_by(TEACHER, batch))
    grad_VD = torch.autograd.grad(value, wider.head_VD)[0]
    assert value > 0 and grad_VD[:V].any() and not grad_VD[V:].any()


def test_a_student_that_steps_down_the_gradient_comes_nearer_to_its_teacher() -> None:
    student, batch = build(SHAPES["llama"], 3), lesson()
    batch = replace(batch, weight_BT=batch.weight_BT.float())
    teacher = build(SHAPES["v3"], 1)
    told, found = taught_by(teacher, batch), []
    for _ in range(12):
        value, sums = compared(student, student(batch.rows).states_BTD, batch, told)
        weights = list(student.parameters())
        for weight, grad in zip(weights, torch.autograd.grad(value, weights), strict=True):
            weight.data -= 0.05 * grad
        found.append(float(sums["teacher_kl"] / sums["said"]))
    assert found[-1] < 0.8 * found[0]


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_a_stored_distance_is_that_of_buckets_and_never_more_than_the_whole() -> None:
    ids, known, others = told(logps(0), K)
    ours = told_kl(ids, known, others, logps(1))
    for place, (p, q) in enumerate(zip(logps(0).exp().tolist(), logps(1).exp().tolist(), strict=True)):
        buckets = [oracle.in_buckets(one, ids[place].tolist()) for one in (p, q)]
        assert float(ours[place]) == pytest.approx(oracle.kl(*buckets), rel=1e-10)
        assert 0 < float(ours[place]) <= oracle.kl(p, q)


def test_students_that_share_the_rest_as_their_teacher_does_are_as_far_as_the_whole_tells() -> None:
    """Only the ids that are stored differ, and how much they hold together."""
    ids, known, others = told(logps(0), K)
    student = logits(0).scatter(1, ids, logits(1)[:, :K]).log_softmax(-1)
    torch.testing.assert_close(
        told_kl(ids, known, others, student), distance(logps(0), student, 0.0), rtol=1e-9, atol=0
    )


def test_the_stored_gradient_is_the_closed_one() -> None:
    ids, known, others = told(logps(0), K)
    z = logits(1).requires_grad_()
    grad = torch.autograd.grad(told_kl(ids, known, others, z.log_softmax(-1)).sum(), z)[0]
    q = logps(1).exp()
    apart = (others - rest(logps(1), ids)).exp().unsqueeze(1)
    closed = (q * (1 - apart)).scatter(1, ids, q.gather(1, ids) - known.exp())
    torch.testing.assert_close(grad, closed, rtol=1e-9, atol=1e-12)


def test_what_was_rounded_sums_to_one_again() -> None:
    ids, known, others = told(logps(0), K)
    near, far = normalised(known.half(), others.half())
    torch.testing.assert_close(near.exp().sum(-1) + far.exp(), torch.ones(len(ids)))
    torch.testing.assert_close(near.double(), known, rtol=2e-3, atol=2e-3)


def test_a_rest_that_is_next_to_nothing_is_no_difference_from_one() -> None:
    sure = torch.zeros(1, V, dtype=torch.float64)
    sure[0, 3] = 60.0
    _, known, others = told(sure.log_softmax(-1), 1)
    assert float(others) == pytest.approx(math.log(V - 1) - 60, abs=1e-9) and float(known) == pytest.approx(
        0, abs=1e-20
    )


# --- the sampled form -------------------------------------------------------------------------------------------------


def test_single_tokens_pull_on_average_as_the_reverse_kl_does() -> None:
    """E_q[(log p - log q) grad log q] = -grad KL(q || p): summed over all tokens that could have been said."""
    p, q = logps(0)[0], logps(1)[0]
    z = logits(1)[0].clone().requires_grad_()
    pulled = torch.zeros(V, dtype=torch.float64)
    for token in range(V):
        logp = z.log_softmax(-1)[token].view(1, 1)
        advantage = preferred(p[token], q[token]).view(1, 1)
        one = torch.ones(1, 1, dtype=torch.float64)
        said = Said(logp, logp.detach(), logp.detach(), logp.detach(), advantage, one, one.long(), one)
        loss = policy_loss(said, Objective(clip="none", weighting="per_token"))
        pulled += q[token].exp() * torch.autograd.grad(loss, z)[0]
    closed = oracle.reverse_kl_gradient(p.exp().tolist(), q.exp().tolist())
    assert pulled.tolist() == pytest.approx(closed, rel=1e-9, abs=1e-12)
