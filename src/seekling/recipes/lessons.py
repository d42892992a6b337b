"""Rewards become lessons: rollouts -> advantages -> texts -> the texts of each update.

All that an update needs stands in a ``Text``'s values: ``behaviour``, ``reference``, ``advantage``, and ``old`` where
the policy moves between updates. So an update is packing and a weighted sum, whatever the objective.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.learn.advantage import ADVANTAGES, summed
from seekling.learn.batch import Text
from seekling.learn.config import Objective
from seekling.learn.objective import KL, token_weights
from seekling.learn.value import gae, padded, returns_of, token_rewards, whitened
from seekling.recipes.config import Grpo
from seekling.records import Group, Rollout, Score, Stop

Values = Sequence[NDArray[np.float32]]
"""A number for every token of each text."""


def with_spread(
    groups: Sequence[Group], scores: Sequence[Sequence[Score]], wanted: int
) -> tuple[list[Group], list[Sequence[Score]]]:
    """The first ``wanted`` groups whose rewards differ, and their scores (DAPO's dynamic sampling, section 3.2)."""
    found = [(group, row) for group, row in zip(groups, scores, strict=True) if is_spread(row)][:wanted]
    return [group for group, _ in found], [row for _, row in found]


def is_spread(scores: Sequence[Score]) -> bool:
    """Whether siblings earned different rewards: else there is nothing to compare."""
    return len({score.reward for score in scores if score.reward is not None}) > 1


def valued(texts: Sequence[Text], **values: Values) -> list[Text]:
    """The same texts with more values, or others: ``valued(texts, reference=logps)``."""
    own = [{name: of_all[place] for name, of_all in values.items()} for place in range(len(texts))]
    return [replace(text, values={**text.values, **row}) for text, row in zip(texts, own, strict=True)]


def rewards(scores: Sequence[Sequence[Score]]) -> Tensor:
    """Rewards of every group, float64 [P, G]; NaN where a check failed to judge."""
    return torch.tensor([[np.nan if s.reward is None else s.reward for s in row] for row in scores]).double()


def advantages(
    scores: Sequence[Sequence[Score]], weights: Mapping[str, float], objective: Objective, texts: Sequence[Text]
) -> Tensor:
    """What every rollout is judged by, float64 [R], the KL to the reference taken from its reward where told."""
    judged, reward_PG = ADVANTAGES[objective.advantage], rewards(scores)
    if objective.apart:
        parts_KPG = torch.tensor(
            [[[s.parts.get(name, np.nan) for s in row] for row in scores] for name in weights], dtype=torch.float64
        )
        return summed(parts_KPG, torch.tensor(list(weights.values())), ~reward_PG.isnan(), judged).flatten()
    if objective.needs_reference and objective.kl_in == "reward":
        reward_PG = reward_PG - objective.beta * drift(texts, objective.kl).view_as(reward_PG)
    return judged(reward_PG).flatten()


def drift(texts: Sequence[Text], kind: str) -> Tensor:
    """How far the sampler has moved from the reference over each whole rollout, in nats: float64 [R]."""
    apart = [torch.from_numpy(t.values["behaviour"] - t.values["reference"]).double() for t in texts]
    said = [torch.from_numpy(text.weight) > 0 for text in texts]
    return torch.stack([KL[kind](a[s]).sum() for a, s in zip(apart, said, strict=True)])


def judged(texts: Sequence[Text], advantage_R: Tensor) -> list[Text]:
    """Texts with their advantage at every token that was said."""
    pairs = zip(texts, advantage_R.tolist(), strict=True)
    return valued(texts, advantage=[(text.weight > 0) * np.float32(advantage) for text, advantage in pairs])


def criticised(texts: Sequence[Text], scores: Sequence[Sequence[Score]], objective: Objective) -> list[Text]:
    """Texts with the advantage of each token over what the critic expected, whitened, and what it should have said.

    The KL to the reference is a reward of every token (arXiv 2203.02155); the score comes with the last.
    """
    critic, said = objective.critic, [torch.from_numpy(text.weight) > 0 for text in texts]

    def of(name: str) -> Tensor:
        return padded([torch.from_numpy(text.values[name])[s] for text, s in zip(texts, said, strict=True)])

    mask_RT, values_RT = padded([s[s] for s in said]), of("value").double()
    penalty_RT = objective.beta * KL[objective.kl](of("behaviour").double() - of("reference").double())
    rewards_RT = token_rewards(rewards(scores).flatten(), penalty_RT, mask_RT)
    advantages_RT = gae(rewards_RT, values_RT, mask_RT, critic.gamma, critic.lam)
    told = {"advantage": whitened(advantages_RT, mask_RT), "return": returns_of(advantages_RT, values_RT, mask_RT)}
    return valued(texts, **{name: _laid_out(texts, value_RT) for name, value_RT in told.items()})


def _laid_out(texts: Sequence[Text], value_RT: Tensor) -> list[NDArray[np.float32]]:
    """Numbers of what was said, at its places in whole texts."""
    found = []
    for text, value_T in zip(texts, value_RT.float().numpy(), strict=True):
        row = np.zeros(len(text.tokens), np.float32)
        said = text.weight > 0
        row[said] = value_T[: said.sum()]
        found.append(row)
    return found


def heard(
    lessons: Sequence[Text], rollouts: Sequence[Rollout], scores: Sequence[Sequence[Score]], config: Grpo
) -> list[Text]:
    """The lessons an update is made of: none that nobody judged; where told, none that was cut off (DAPO's filter)."""
    flat = [score for row in scores for score in row]
    return [
        text
        for text, rollout, score in zip(lessons, rollouts, flat, strict=True)
        if score.reward is not None and (config.cut_off == "judged" or rollout.stop is not Stop.LENGTH)
    ]


def updates(lessons: Sequence[Text], config: Grpo, seed: str) -> Iterator[list[Text]]:
    """The texts of each update of a step: in every epoch all lessons once, shuffled into minibatches.

    With one update a step there is nothing to shuffle.
    """
    rng, count = Random(f"{seed}/updates"), min(config.minibatches, len(lessons))
    for _ in range(config.epochs):
        order = list(lessons) if config.updates == 1 else rng.sample(list(lessons), len(lessons))
        for part in range(count):
            yield weighed(order[len(order) * part // count : len(order) * (part + 1) // count], config)


def weighed(lessons: Sequence[Text], config: Grpo) -> list[Text]:
    """Lessons with the weight of each token in one update, fixed before it is sliced.

    A rollout whose advantage is zero has no gradient and is left out, unless the objective pulls everywhere.
    """
    objective = config.objective
    lengths_R = torch.tensor([int((text.weight > 0).sum()) for text in lessons])
    weight_R = token_weights(lengths_R, objective.weighting, config.sampling.max_tokens).tolist()
    texts = [replace(t, weight=t.weight * np.float32(w)) for t, w in zip(lessons, weight_R, strict=True)]
    pulled = texts if objective.pulls_everywhere else [t for t in texts if t.values["advantage"].any()]
    return pulled or texts[:1]
