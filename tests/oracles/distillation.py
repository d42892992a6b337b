"""Distances between a teacher and a student as loops over the vocabulary (float64), from the papers."""

from __future__ import annotations

import math
from collections.abc import Sequence

Numbers = Sequence[float]


def softmax(logits: Numbers, temperature: float) -> list[float]:
    """q_i = exp(z_i/T) / sum_j exp(z_j/T) (arXiv 1503.02531, eq. 1)."""
    raised = [math.exp(z / temperature) for z in logits]
    return [one / sum(raised) for one in raised]


def kl(p: Numbers, q: Numbers) -> float:
    """sum_v p_v log(p_v / q_v)."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def divergence(teacher: Numbers, student: Numbers, beta: float) -> float:
    """arXiv 2306.13649, eq. 1, and at its ends the two KLs."""
    if beta == 0:
        return kl(teacher, student)
    if beta == 1:
        return kl(student, teacher)
    mixed = [beta * p + (1 - beta) * q for p, q in zip(teacher, student, strict=True)]
    return beta * kl(teacher, mixed) + (1 - beta) * kl(student, mixed)


def in_buckets(p: Numbers, ids: Sequence[int]) -> list[float]:
    """The probabilities of ``ids``, and of all others together."""
    return [p[i] for i in ids] + [sum(one for i, one in enumerate(p) if i not in ids)]


def reverse_kl_gradient(teacher: Numbers, student: Numbers) -> list[float]:
    """Of KL(q || p) to the student's logits: q_v (log q_v/p_v - KL)."""
    whole = kl(student, teacher)
    return [q * (math.log(q / p) - whole) for p, q in zip(teacher, student, strict=True)]
