"""How much rollouts of one problem differ, in words: what is lost first when a policy narrows.

Words are those of ``rewards.criteria.pieces``, not tokens, so that models with different tokenizers can be compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from operator import or_

from seekling.rewards.criteria import ngrams, pieces

Grams = Counter[tuple[str, ...]]

LONGEST = 4
"""BLEU's longest n-grams."""


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of all texts over all they hold (distinct-n, Li et al. 2016, arXiv 1510.03055); 1 for none."""
    grams = [gram for text in texts for gram in ngrams(pieces(text), n)]
    return len(set(grams)) / len(grams) if grams else 1.0


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU of each text against all others (Texygen, arXiv 1802.01886): 1 when all are alike; 0 for one alone."""
    words = [pieces(text) for text in texts]
    grams = [[Counter(ngrams(row, n)) for n in range(1, LONGEST + 1)] for row in words]
    lengths = list(map(len, words))
    if len(texts) < 2:
        return 0.0
    return sum(_bleu(grams, lengths, place) for place in range(len(texts))) / len(texts)


def _bleu(grams: Sequence[Sequence[Grams]], lengths: Sequence[int], place: int) -> float:
    """BLEU (Papineni et al. 2002) of one text, the others its references.

    Precisions of n-grams longer than 1 count one more match among one more (Lin and Och 2004): texts are short, and
    one precision of 0 would hide all others.
    """
    others = [number for number in range(len(lengths)) if number != place]
    length, logs = lengths[place], 0.0
    for n in range(LONGEST):
        known = reduce(or_, (grams[number][n] for number in others))
        matched, extra = (grams[place][n] & known).total(), int(n > 0)
        if not matched + extra:
            return 0.0
        logs += math.log((matched + extra) / (grams[place][n].total() + extra)) / LONGEST
    nearest = min((lengths[number] for number in others), key=lambda other: (abs(other - length), other))
    return math.exp(logs + min(0.0, 1 - nearest / length))
