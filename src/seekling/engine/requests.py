"""What is asked of an engine and what it answers; and a row, which is a request on its way from one to the other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seekling.engine.config import Sampling
from seekling.engine.rules import Rule
from seekling.errors import UserError
from seekling.model.config import ModelConfig
from seekling.records import Kept, Stop


@dataclass(frozen=True, slots=True, eq=False)
class Inserted:
    """Vectors that stand in a prompt for the embeddings of its tokens: ``vectors_MD`` at ``places`` [M]."""

    places: tuple[int, ...]
    vectors_MD: Tensor

    def names(self) -> list[int]:
        """A number below 0 for each vector, equal for equal ones: texts that hold the same share their beginning."""
        said = [bytes(v.contiguous().view(torch.uint8).cpu().numpy()) for v in self.vectors_MD.detach()]
        return [-1 - (int.from_bytes(hashlib.sha256(one).digest()[:8], "little") >> 2) for one in said]


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to be sampled. Requests with equal prompts share its computation.

    ``sampling``: how its own tokens are drawn, where not as the others'. ``rules``: what else it asks of them.
    ``tell_kept``: its completion says which tokens each of its own was drawn from, where that was not all of them.
    ``likeliest``: its completion says what the model itself makes of each token and of so many likeliest ones (None:
    nothing); with ``tell_prompt`` of the prompt's, too. ``inserted`` takes the place of some of the prompt's tokens.
    """

    prompt: tuple[int, ...]
    seed: int
    sampling: Sampling | None = None
    rules: tuple[Rule, ...] = ()
    tell_kept: bool = False
    likeliest: int | None = None
    tell_prompt: bool = False
    inserted: Inserted | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Likeliest:
    """The model's own log-probabilities, at temperature 1 and before all rules: ``logps`` [T] of the tokens that came,
    ``ids`` and ``top`` [T, K] of the K likeliest in their places."""

    logps: NDArray[np.float32]
    ids: NDArray[np.int32]
    top: NDArray[np.float32]

    @classmethod
    def of(cls, logits_TV: Tensor, tokens_T: Sequence[int], count: int) -> Likeliest:
        """What scores make of the tokens that came, and of ``count`` others."""
        logp_TV = logits_TV.float().log_softmax(-1)
        top_TK, ids_TK = logp_TV.topk(min(count, logp_TV.shape[1]), -1)
        logps_T1 = logp_TV.gather(1, torch.tensor(tokens_T, device=logp_TV.device).unsqueeze(1))
        return cls(logps_T1.squeeze(1).cpu().numpy(), ids_TK.int().cpu().numpy(), top_TK.cpu().numpy())

    @classmethod
    def joined(cls, parts: Sequence[Likeliest]) -> Likeliest:
        """One after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("logps", "ids", "top")))


@dataclass(frozen=True, slots=True)
class Completion:
    """What was sampled: ``tokens`` [T], ``logps`` [T] behaviour log-probabilities, ``routes`` [P+T-1, L, A].

    ``told`` and ``of_prompt`` (from its second token on) are what the request asked to be told. Of ``drafted`` tokens
    ``accepted`` were said.
    """

    tokens: tuple[int, ...]
    logps: NDArray[np.float32]
    stop: Stop
    routes: NDArray[np.int16] | None
    kept: Kept | None = None
    told: Likeliest | None = None
    of_prompt: Likeliest | None = None
    drafted: int = 0
    accepted: int = 0


Finished = tuple[int, Completion | UserError]
"""A request's number, and what it said or why it could not."""


@dataclass(slots=True, eq=False)
class Row:
    """A request on its way. ``text`` is its prompt as caches know it; ``said`` its tokens, where rules ask for them."""

    request: Request
    sampling: Sampling
    limit: int  # tokens it may say
    text: tuple[int, ...]
    vectors: dict[int, Tensor] = field(default_factory=dict)  # of names in its text
    said: list[int] = field(default_factory=list)
    is_ended: bool = False  # by a rule
    kept: list[NDArray[np.int64]] | None = None
    told: list[Likeliest] | None = None
    of_prompt: Likeliest | None = None
    drafted: int = 0
    accepted: int = 0

    @classmethod
    def of(cls, request: Request, sampling: Sampling, config: ModelConfig) -> Row:
        """As it begins. Raises UserError for a prompt that no answer fits behind, or whose vectors fit nowhere, and for
        numbers that nothing has."""
        context, text = config.max_position_embeddings, list(request.prompt)
        refuse_long([request], context)
        _refuse_unknown(request, config.vocab_size)
        inserted, vectors = request.inserted, {}
        if inserted is not None:
            _refuse_unfit(inserted, len(text), config.hidden_size)
            own_MD = inserted.vectors_MD.detach().clone()  # caches know them by what they hold now
            for place, name, vector_D in zip(inserted.places, inserted.names(), own_MD, strict=True):
                text[place], vectors[name] = name, vector_D
        sampling = request.sampling or sampling
        tells = request.tell_kept and (sampling.truncates or bool(request.rules))
        return cls(
            request, sampling, min(sampling.max_tokens, context - len(text)), tuple(text), vectors,
            kept=[] if tells else None, told=None if request.likeliest is None else [],
        )  # fmt: skip

    def completion(
        self, tokens: tuple[int, ...], logps: NDArray[np.float32], stop: Stop, routes: NDArray[np.int16] | None
    ) -> Completion:
        """What it has become."""
        return Completion(
            tokens, logps, stop, routes,
            kept=None if self.kept is None else _joined(self.kept),
            told=None if self.told is None else Likeliest.joined(self.told),
            of_prompt=self.of_prompt, drafted=self.drafted, accepted=self.accepted,
        )  # fmt: skip


def refuse_long(requests: Sequence[Request], limit: int) -> None:
    """Raises UserError when a prompt leaves no room for an answer within ``limit`` tokens."""
    for request in requests:
        if not 0 < len(request.prompt) < limit:
            raise UserError(
                f"a prompt of {len(request.prompt)} tokens does not fit the model's context of {limit}",
                next_step="Shorten the problem, or use a model with a longer context.",
            )


def _refuse_unknown(request: Request, vocab_size: int) -> None:
    if wrong := [token for token in request.prompt if not 0 <= token < vocab_size]:
        raise UserError(f"token id {wrong[0]} of a prompt is outside the vocabulary of {vocab_size}")
    if not 0 <= request.seed < 2**64 or (request.likeliest or 0) < 0:
        raise UserError(
            f"seed {request.seed}, {request.likeliest or 0} likeliest tokens",
            next_step="Let the seed be from 0 to 2**64 - 1, and ask for 0 likeliest tokens or more.",
        )


def _refuse_unfit(inserted: Inserted, length: int, width: int) -> None:
    places, shape = inserted.places, tuple(inserted.vectors_MD.shape)
    if shape != (len(places), width) or not all(0 <= place < length for place in places):
        raise UserError(
            f"vectors {list(shape)} at {len(places)} places do not fit a prompt of {length} tokens of width {width}",
            next_step="Give one vector of the model's hidden size for each place, and places inside the prompt.",
        )
    if len(set(places)) != len(places) or not inserted.vectors_MD.isfinite().all():
        raise UserError(
            "two vectors stand at one place of a prompt, or one holds a value that is no number",
            next_step="Give each place once, and finite numbers.",
        )


def _joined(sets: Sequence[NDArray[np.int64]]) -> Kept:
    """Sets of ids as one ragged array."""
    return Kept(np.concatenate(sets).astype(np.int32), np.cumsum([len(ids) for ids in sets], dtype=np.int64))
