"""What a request asks of its own tokens beyond temperature and truncation: scores to change, tokens to leave out.

every rule changes the scores in turn -> temperature, truncation, a token -> any rule may end the answer with it
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seekling.errors import UserError
from seekling.text.pieces import Pieces
from seekling.text.tokenizer import Tokenizer

Ban = Callable[[Sequence[int]], Collection[int]]
"""From the tokens said so far to the tokens that must not come next."""

NEVER = float("-inf")
MOST_BIASES, MOST_STRINGS, MOST_BYTES, MOST_MARK = 300, 16, 256, 16
"""Biased ids; strings that end an answer, and bytes of one; tokens that open or close a thought."""

_NEAR = 16
"""So many tokens are compared where an answer has grown by one; all of them where it has not."""


class Rule(Protocol):
    """What a request asks of its own tokens. ``said`` is all it has said, the last token included; rows may begin
    again, so a rule decides from ``said`` alone (it may remember how far it has read, and must notice when ``said``
    is not a continuation of that)."""

    def limit(self, said: Sequence[int], logits_V: Tensor) -> None:
        """Change in place the scores that the next token is drawn from, float32 [V]: -inf where it must not be."""

    def ends(self, said: Sequence[int]) -> bool:
        """Whether the answer ends with the token said last."""

    def trouble(self) -> str:
        """Why it leaves nothing to say; empty where it does not know of that."""


class Limits:
    """A rule that ends nothing, and knows of no trouble."""

    def ends(self, said: Sequence[int]) -> bool:
        """Never."""
        return False

    def trouble(self) -> str:
        """None."""
        return ""


class Follower(Limits):
    """A rule that reads each token once: ``seen`` are those it has read. An answer that begins again is read again."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.begin()

    def begin(self) -> None:
        """Forget everything that was read."""
        raise NotImplementedError

    def read(self, token: int) -> None:
        """Take in one more token, which stands last in ``seen`` by now."""
        raise NotImplementedError

    def follow(self, said: Sequence[int]) -> None:
        """Read what is new in ``said``; where it is no continuation of what was read, all of it."""
        if not self._continues(said):
            self.seen.clear()
            self.begin()
        for token in said[len(self.seen) :]:
            self.seen.append(int(token))
            self.read(int(token))

    def _continues(self, said: Sequence[int]) -> bool:
        have = len(self.seen)
        start = max(0, have - _NEAR) if 0 <= len(said) - have <= 1 else 0
        return len(said) >= have and list(said[start:have]) == self.seen[start:]


def forbid(logits_V: Tensor, ids: Sequence[int]) -> None:
    """-inf at ``ids``, unless nothing would be left to say: what else allows only these outweighs this."""
    kept_N = logits_V[list(ids)]
    logits_V[list(ids)] = NEVER
    if logits_V.max() == NEVER:
        logits_V[list(ids)] = kept_N


def force(logits_V: Tensor, token: int) -> None:
    """-inf everywhere but at ``token``. Its score is 0: certain, whatever it was."""
    logits_V.fill_(NEVER)
    logits_V[token] = 0.0


class Banned(Limits):
    """A function says, from what was said, what must not come next."""

    def __init__(self, ban: Ban) -> None:
        self.ban = ban

    def limit(self, said: Sequence[int], logits_V: Tensor) -> None:
        """-inf at what is banned now."""
        logits_V[list(self.ban(said))] = NEVER


class Bias(Limits):
    """Numbers that are added to the scores of some tokens. Raises UserError for more than 300, or not finite."""

    def __init__(self, scores: Mapping[int, float]) -> None:
        if len(scores) > MOST_BIASES:
            raise UserError(f"{len(scores)} tokens are biased, and {MOST_BIASES} may be", where="bias")
        if wrong := [token for token, score in scores.items() if token < 0 or not math.isfinite(score)]:
            raise UserError(f"the bias of token {wrong[0]} is no finite number at an id", where="bias")
        self.ids_N = torch.tensor(list(scores), dtype=torch.int64)
        self.scores_N = torch.tensor(list(scores.values()), dtype=torch.float32)

    def limit(self, said: Sequence[int], logits_V: Tensor) -> None:
        """Add each to its token's score."""
        logits_V[self.ids_N.to(logits_V.device)] += self.scores_N.to(logits_V)


class AtLeast(Limits):
    """No stop before ``min_tokens`` tokens, where anything else may be said."""

    def __init__(self, min_tokens: int, stops: Sequence[int]) -> None:
        self.min_tokens, self.stops = min_tokens, tuple(stops)

    def limit(self, said: Sequence[int], logits_V: Tensor) -> None:
        """Forbid the stops while the answer is short."""
        if len(said) < self.min_tokens:
            forbid(logits_V, self.stops)


class Penalties(Follower):
    """Scores lowered for what was said before.

    With c(v) how often v was said: l(v) - frequency c(v) - presence [c(v) > 0], as OpenAI has it. Before that, for
    whatever stands in prompt or answer: l(v) / repetition where l(v) > 0, l(v) repetition elsewhere (CTRL, Keskar et
    al. 2019, as transformers has it). Raises UserError outside repetition > 0, the others -2 to 2.
    """

    def __init__(
        self, prompt: Sequence[int], repetition: float = 1.0, presence: float = 0.0, frequency: float = 0.0
    ) -> None:
        if not (math.isfinite(repetition) and repetition > 0):
            raise UserError(f"a repetition penalty of {repetition}", where="repetition", next_step="Take one above 0.")
        for name, value in (("presence", presence), ("frequency", frequency)):
            if not -2 <= value <= 2:
                raise UserError(f"a {name} penalty of {value}", where=name, next_step="Take one from -2 to 2.")
        self.heard = tuple(dict.fromkeys(prompt)) if repetition != 1 else ()
        self.repetition, self.presence, self.frequency = repetition, presence, frequency
        super().__init__()

    def begin(self) -> None:
        """Nothing was said; the tables come with the first scores, whose size and device are theirs."""
        self.times: Counter[int] = Counter()
        self.unread: list[int] = []
        self.ids_V: Tensor | None = None

    def read(self, token: int) -> None:
        """Note it for the tables."""
        self.unread.append(token)

    def limit(self, said: Sequence[int], logits_V: Tensor) -> None:
        """Lower the scores of what was said or heard; the work grows with the number of different tokens."""
        self.follow(said)
        ids_N = self._known(logits_V)
        scores_N = logits_V[ids_N]
        scores_N = torch.where(scores_N > 0, scores_N / self.repetition, scores_N * self.repetition)
        logits_V[ids_N] = scores_N - self.minus_V[ids_N]

    def _known(self, logits_V: Tensor) -> Tensor:
        """The different tokens of prompt and answer, int64 [N], with ``minus_V`` up to date."""
        if self.ids_V is None:
            self.ids_V = torch.zeros(len(logits_V), dtype=torch.int64, device=logits_V.device)
            self.minus_V = torch.zeros_like(logits_V)
            self.known = set(self.heard)
            self.ids_V[: len(self.heard)] = torch.tensor(self.heard, dtype=torch.int64)
        for token in self.unread:
            self.times[token] += 1
            self.minus_V[token] = self.presence + self.frequency * self.times[token]
            if token not in self.known:
                self.ids_V[len(self.known)] = token
                self.known.add(token)
        self.unread.clear()
        return self.ids_V[: len(self.known)]


class StopText(Follower):
    """The answer ends when its text holds one of ``strings``: also across tokens, inside one, or inside a character.

    ``spoken`` is a tokenizer, or the bytes of every id. Raises UserError for no string, an empty one, more than 16, or
    one of more than 256 bytes.
    """

    def __init__(self, spoken: Tokenizer | Sequence[bytes], strings: Sequence[str]) -> None:
        pieces = spoken.pieces if isinstance(spoken, Tokenizer) else Pieces(tuple(spoken))
        self.table, self.stripped = pieces.table, pieces.stripped
        self.silent = spoken.silent if isinstance(spoken, Tokenizer) else frozenset()
        self.strings = tuple(strings)
        self.wanted = tuple(_checked(strings))
        super().__init__()

    def begin(self) -> None:
        """Nothing was said."""
        self.tail, self.found, self.blanks = b"", False, self.stripped

    def read(self, token: int) -> None:
        """Look where the new bytes stand, and as far before them as a string may reach."""
        piece = b"" if token in self.silent else self.table[token]
        while self.blanks and piece.startswith(b" "):  # leading blanks that the decoder leaves out
            piece, self.blanks = piece[1:], self.blanks - 1
        self.blanks = 0 if piece else self.blanks
        heard = self.tail + piece
        self.found = self.found or any(wanted in heard for wanted in self.wanted)
        self.tail = heard[max(0, len(heard) - max(map(len, self.wanted)) + 1) :]

    def limit(self, said: Sequence[int], logits_V: Tensor) -> None:
        """Nothing is forbidden."""

    def ends(self, said: Sequence[int]) -> bool:
        """Whether one of the strings has been said."""
        self.follow(said)
        return self.found

    def cut(self, text: str) -> str:
        """``text`` up to the first of the strings in it."""
        return text[: min((place for string in self.strings if (place := text.find(string)) >= 0), default=len(text))]


def _checked(strings: Sequence[str]) -> list[bytes]:
    if not 0 < len(strings) <= MOST_STRINGS:
        raise UserError(f"{len(strings)} strings end the answer, and 1 to {MOST_STRINGS} may", where="stop")
    wanted = [string.encode("utf-8", "replace") for string in strings]
    if wrong := [data for data in wanted if not 0 < len(data) <= MOST_BYTES]:
        raise UserError(
            f"a string that ends the answer has {len(wrong[0])} bytes, and 1 to {MOST_BYTES} are allowed", where="stop"
        )
    return wanted


@dataclass(frozen=True, slots=True)
class Thought:
    """The tokens that open and that close a thought.

    ``started``: the prompt has opened one; then ``open`` may be empty. Raises UserError for marks of no or more than
    16 tokens.
    """

    open: tuple[int, ...]
    close: tuple[int, ...]
    started: bool = False

    def __post_init__(self) -> None:
        least = 0 if self.started else 1
        if not (least <= len(self.open) <= MOST_MARK and 1 <= len(self.close) <= MOST_MARK):
            raise UserError(f"a thought is opened and closed by 1 to {MOST_MARK} tokens each", where="thought")


def thought_of(tokenizer: Tokenizer, prompt: Sequence[int]) -> Thought:
    """A tokenizer's ``<think>`` and ``</think>``, as tokens or spelled; begun if the prompt ends inside of one."""
    opened, closed = tokenizer.think_open, tokenizer.think_close
    open_ = tuple(tokenizer.encode("<think>")) if opened is None else (opened,)
    close = tuple(tokenizer.encode("</think>")) if closed is None else (closed,)
    return Thought(open_, close, _last(prompt, open_) > _last(prompt, close))


def _last(tokens: Sequence[int], mark: tuple[int, ...]) -> int:
    """Where ``mark`` begins for the last time, -1 where it does not stand."""
    places = range(len(tokens) - len(mark), -1, -1)
    return next((place for place in places if tuple(tokens[place : place + len(mark)]) == mark), -1)


def begun(said: Sequence[int], mark: tuple[int, ...], since: int) -> int:
    """How many of the first tokens of ``mark`` stand at the end of ``said``, none of them before place ``since``."""
    most = max(0, min(len(mark), len(said) - since))
    return next(n for n in range(most, -1, -1) if tuple(said[len(said) - n :]) == mark[:n])


class Thinking(Follower):
    """How long each thought of an answer may be, and must be, in tokens between its marks.

    After ``most`` the closing tokens are forced one by one, so that a learner that knows what could be drawn sees no
    gradient there; what stands of them already is not said again. Before ``least`` the last closing token and the
    stops are forbidden. Raises UserError unless 0 <= least <= most.
    """

    def __init__(self, thought: Thought, stops: Sequence[int], most: int | None = None, least: int = 0) -> None:
        if least < 0 or (most is not None and most < least):
            raise UserError(
                f"a thought of at least {least} and at most {most} tokens", where="thought",
                next_step="Let the least be 0 or more, and the most not below it.",
            )  # fmt: skip
        self.thought, self.stops, self.most, self.least = thought, tuple(stops), most, least
        super().__init__()

    def begin(self) -> None:
        """Outside a thought, or in the one that the prompt has opened; ``since`` is where it, or what is not, began."""
        self.inside, self.since = self.thought.started, 0

    def read(self, token: int) -> None:
        """Enter a thought with the last token of its opening, leave with that of its close."""
        mark = self.thought.close if self.inside else self.thought.open
        if mark and begun(self.seen, mark, self.since) == len(mark):
            self.inside, self.since = not self.inside, len(self.seen)

    def limit(self, said: Sequence[int], logits_V: Tensor) -> None:
        """Force the close of a thought that is long enough, and keep open one that is too short."""
        self.follow(said)
        if not self.inside:
            return
        close, length = self.thought.close, len(self.seen) - self.since
        if self.most is not None and length >= self.most:
            force(logits_V, close[begun(self.seen, close, self.since + self.least)])
            return
        standing = begun(self.seen, close, self.since)
        forbidden = self.stops if length < self.least else ()
        if standing == len(close) - 1 and length - standing < self.least:
            forbidden = (*forbidden, close[-1])
        if forbidden:
            forbid(logits_V, forbidden)
