"""The proof of a hand-over: after it, who samples and who learns are asked the same, and must say the same.

That a server reports success proves nothing: weights of experts may be laid out wrongly, earlier ones may be kept, and
log-probabilities may be of another distribution than was drawn from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from seekling.engine.config import Sampling
from seekling.engine.engine import Completion, Request
from seekling.engine.sampler import seed_of
from seekling.learn.batch import Text, text_of
from seekling.learn.reading import read
from seekling.learn.update import logps_said
from seekling.model.decoder import Decoder
from seekling.records import Rollout

TOKENS = 16
"""How many tokens of each text, and of each answer, are compared."""
STILL = 1e-5
"""A move of the learner's log-probabilities, in nats, below which none is asked of the server."""

Values = Sequence[NDArray[np.float32]]
Score = Callable[[Sequence[Sequence[int]]], Sequence[Sequence[float]]]
"""From texts to the log-probabilities of each one's tokens after its first, at temperature 1."""
Generate = Callable[[Sequence[Request], Sampling], Sequence[Completion]]


@dataclass(frozen=True, slots=True)
class Probed:
    """Root mean squares in nats: how far the two sides are apart over texts and over the server's answers (``drawn``).

    ``moved`` and ``moved_there`` are what the texts' log-probabilities have moved since the last proof, on either side.
    """

    apart: float
    drawn: float
    moved: float = 0.0
    moved_there: float = 0.0

    @property
    def is_stale(self) -> bool:
        """Whether the server missed most of what the hand-over moved."""
        return self.moved > STILL and self.moved_there < self.moved / 2

    def fault(self, limit: float) -> tuple[str, str]:
        """What is wrong and what may help, or two empty strings."""
        if self.is_stale:
            return (
                "the server still speaks with earlier weights: this hand-over moved the learner's log-probabilities by"
                f" {self.moved:.3g} nats and the server's by {self.moved_there:.3g}",
                "Look in its log at what /collective_rpc reload_weights did, and whether it sees the same folder.",
            )
        if self.apart > limit:
            return (
                f"the server's weights differ from the learner's by {self.apart:.3g} nats, limit {limit:g}",
                "This build of vLLM may load such weights wrongly when it is told to reload, as it does with experts on"
                ' a CPU. With sampler = "vllm" it is started here, and restarted where reloading fails.',
            )
        if self.drawn > limit:
            return (
                f"the server's log-probabilities of its own answers are {self.drawn:.3g} nats off, limit {limit:g},"
                " though its weights agree: they leave out temperature, top-p or top-k",
                "Start it with --logprobs-mode processed_logprobs.",
            )
        return "", ""


class Probe:
    """Texts to be scored and prompts to be answered, the same ones after every hand-over.

    ``sampling`` is the stage's, so that its temperature and truncation are proved too; ``dtype`` what it computes in.
    """

    def __init__(self, prompts: Sequence[tuple[int, ...]], sampling: Sampling, dtype: torch.dtype) -> None:
        self.requests = [Request(prompt, seed_of("probe", n), tell_kept=True) for n, prompt in enumerate(prompts)]
        self.sampling = sampling.model_copy(update={"max_tokens": min(TOKENS, sampling.max_tokens)})
        self.dtype = dtype
        self._proved: tuple[Values, Values] | None = None
        self._last: tuple[Values, Values] | None = None

    def forget(self) -> None:
        """Another server answers from now on: what was said before is not its."""
        self._proved = None

    def keep(self) -> None:
        """What was last said is proved: the next hand-over must move it."""
        self._proved = self._last

    def ask(self, model: Decoder, score: Score, generate: Generate) -> Probed:
        """Ask both sides. Until something is proved (``keep``), nothing has moved."""
        texts = self._texts(model.config.vocab_size)
        here = [values[1:] for values in self._read(model, texts, 1.0)]
        there = [np.array(values, np.float32) for values in score([text.tokens for text in texts])]
        self._last, proved = (here, there), self._proved
        moved = [_rms(now, then) for now, then in zip(self._last, proved, strict=True)] if proved else [0.0, 0.0]
        return Probed(_rms(here, there), self._drawn(model, generate), *moved)

    def _drawn(self, model: Decoder, generate: Generate) -> float:
        """How far the server's log-probabilities of its own answers are from the learner's."""
        texts = [
            text_of(Rollout(request.prompt, one.tokens, one.logps, "", one.stop, request.seed, kept=one.kept))
            for request, one in zip(self.requests, generate(self.requests, self.sampling), strict=True)
        ]
        own = self._read(model, texts, self.sampling.temperature)
        return _rms(*([v[t.weight > 0] for v, t in zip(values, texts, strict=True)] for values in (
            own, [text.values["behaviour"] for text in texts]
        )))  # fmt: skip

    def _texts(self, vocab_size: int) -> list[Text]:
        """Each prompt and some tokens at random, the vocabulary's last among them: another vocabulary refuses it."""
        rng = Random("probe")
        rows = [
            (*request.prompt, *(rng.randrange(vocab_size) for _ in range(TOKENS - 1)), vocab_size - 1)
            for request in self.requests
        ]
        return [Text(row, np.r_[np.zeros(1), np.ones(len(row) - 1)].astype(np.float32)) for row in rows]

    def _read(self, model: Decoder, texts: Sequence[Text], temperature: float) -> list[NDArray[np.float32]]:
        """What the learner says of each text's tokens, computed as an update would."""
        said = partial(logps_said, temperature=temperature, replay=False)
        return read(model, texts, said, row_tokens=2 * max(len(text.tokens) for text in texts), dtype=self.dtype)


def _rms(ours: Values, theirs: Values) -> float:
    """Root mean square of the differences; infinite where one is no number."""
    differences = np.concatenate(ours).astype(np.float64) - np.concatenate(theirs)
    size = float(np.sqrt(np.mean(np.square(differences))))
    return size if np.isfinite(size) else float("inf")
