"""How far a student is from its teacher, place by place: numbers of two distributions over the vocabulary, in nats.

p is the teacher's distribution, q the student's, both at one temperature T: softmax(logits / T). All take
log-probabilities, answer one number for each place, and have their gradient by autograd. Gradients of softened
distributions shrink with 1/T^2, so a loss is a distance times T^2 (Hinton et al. 2015, arXiv 1503.02531, section 2);
the distances themselves know no T.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kl(logp_CV: Tensor, logq_CV: Tensor) -> Tensor:
    """KL(p || q) = sum_v p_v (log p_v - log q_v) of each place: [C]."""
    return (logp_CV.exp() * (logp_CV - logq_CV)).sum(-1)


def distance(logp_CV: Tensor, logq_CV: Tensor, beta: float) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q, of each place: [C].

    The generalised Jensen-Shannon divergence (GKD, arXiv 2306.13649, eq. 1). At its ends it would be 0: there, as in
    TRL, stand what it is like near them, KL(p || q) for beta 0 and KL(q || p) for beta 1.
    """
    if beta in (0.0, 1.0):
        return kl(logq_CV, logp_CV) if beta else kl(logp_CV, logq_CV)
    logm_CV = torch.logaddexp(logp_CV + math.log(beta), logq_CV + math.log1p(-beta))
    return beta * kl(logp_CV, logm_CV) + (1 - beta) * kl(logq_CV, logm_CV)


def told(logp_CV: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """What is stored of a distribution: its ``top_k`` likeliest ids [C, K], their log-probabilities [C, K], likeliest
    first, and the logarithm of what all others hold together [C]. There must be others: ``top_k`` < V."""
    best = logp_CV.topk(top_k, -1)
    return best.indices, best.values, rest(logp_CV, best.indices)


def rest(logp_CV: Tensor, ids_CK: Tensor) -> Tensor:
    """log of the probability of all but ``ids_CK``: [C]. A sum of what is small, never a difference from 1."""
    return logp_CV.scatter(-1, ids_CK, float("-inf")).logsumexp(-1)


def normalised(logp_CK: Tensor, rest_C: Tensor) -> tuple[Tensor, Tensor]:
    """What was stored, in float32, summing to 1 again: rounded to 16 bits it does so to a thousandth."""
    whole_CK = torch.cat([logp_CK.float(), rest_C.float().unsqueeze(-1)], -1).log_softmax(-1)
    return whole_CK[:, :-1], whole_CK[:, -1]


def told_kl(ids_CK: Tensor, logp_CK: Tensor, rest_C: Tensor, logq_CV: Tensor) -> Tensor:
    """KL(p || q) of two distributions over K ids and one bucket for the rest, of each place: [C].

    sum_k p_k (log p_k - log q_k) + r (log r - log s), r and s what p and q leave to all other ids. Buckets can only
    hide a difference, so it is at most KL(p || q), and equal where student and teacher share the rest alike. The
    gradient of a logit is q - p for the ids, and q (1 - r/s) for each of the others: they are moved together.
    """
    known_C = (logp_CK.exp() * (logp_CK - logq_CV.gather(-1, ids_CK))).sum(-1)
    return known_C + rest_C.exp() * (rest_C - rest(logq_CV, ids_CK))


def entropy(logq_CV: Tensor) -> Tensor:
    """-sum_v q_v log q_v of each place: [C]."""
    return -(logq_CV.exp() * logq_CV).sum(-1)


def preferred(teacher: Tensor, student: Tensor) -> Tensor:
    """log p(v) - log q(v) of what the student said: the advantage whose policy gradient is that of -KL(q || p).

    With E_q[(log p(v) - log q(v)) grad log q(v)] = -grad KL(q || p), a token is rewarded by as much as the teacher
    finds it likelier, whatever came after it (Thinking Machines 2025, "On-policy distillation"; the reverse KL is
    MiniLLM's, arXiv 2306.08543). Never a path of the gradient.
    """
    return (teacher - student).detach()
