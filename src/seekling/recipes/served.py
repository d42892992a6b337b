"""vLLM samples what we learn from: weights are handed over through a folder, and every hand-over is proved.

A server of our own may be sent what stands in the folder GPU to GPU (``transfer``). Where its build takes weights
wrongly it is restarted with them instead; somebody else's is refused.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from seekling.config import fingerprint
from seekling.engine.config import Sampling, Vllm
from seekling.engine.engine import Completion, Engine, Request, refuse_long
from seekling.errors import UserError
from seekling.model.decoder import Decoder
from seekling.model.foreign import UNLIMITED, Foreign, save_any
from seekling.model.lora import merged
from seekling.model.weights import save_model
from seekling.recipes.config import Grpo
from seekling.recipes.handover import TOKENS, Probe, Probed
from seekling.recipes.policy import Policy
from seekling.recipes.serving import Place, Started, dtype_of, program_of, start
from seekling.recipes.stage import Stage
from seekling.recipes.transfer import KINDS, Unsent, refuse_unfit
from seekling.records import Kept, Stop
from seekling.remote.vllm import MOST_KEPT, About, Asked, How, Server, Spoken
from seekling.remote.wire import Patience, Unavailable, key_in

FOLDER = "handed-over"
KEEP = 2
"""Hand-overs on disk: a server may still read the one before."""
LIMIT, ROUGH_LIMIT = 0.02, 0.1
"""Nats (root mean square) where both sides hold and compute float32, and where one does not."""

DOUBT, GROWTH = 1e-3, 4.0
"""A reload is doubted beyond so many nats, and so many times what was measured when the server had started."""
DYING_S = 5.0
"""How long a program may still seem to run whose connections are gone."""


class Served(Engine):
    """``Engine`` over vLLM's HTTP API: completions without routes. Weights are handed over when next it must speak.

    ``prompts`` begin the texts by which a hand-over is proved. Only one server at a time, and one thread hands over.
    """

    def __init__(self, stage: Stage, config: Grpo, policy: Policy, prompts: Sequence[tuple[int, ...]]) -> None:
        """Raises UserError when there is no such program or server; the server itself starts with the first rollout."""
        super().__init__(policy.model, policy.engine.stop_tokens)
        self._stage, self._config, self._tokenizer = stage, config, policy.tokenizer
        self._lock, self._stale, self._reloads = threading.RLock(), True, True
        self._started: Started | None = None
        self._server: Server | None = None
        self._about = About("", 0, "", dtype_of(config.vllm, cpu=stage.device.type == "cpu"))
        self._folder, self._number, self._restarts, self._worst = place_of(stage, config.vllm), 0, 0, 0.0
        self._probe = Probe([p[-max(1, self._limit - TOKENS - 1) :] for p in prompts], config.sampling, stage.dtype)
        self._asleep, self._unsent, self._fresh = False, False, 0.0
        shutil.rmtree(self._folder, ignore_errors=True)
        if config.replay_routes and self.model.config.moe_layers:
            stage.warn("vLLM does not say which experts it used: updates route for themselves (replay_routes is idle)")
        if config.vllm.url:
            self._connect()
        else:
            refuse_unfit(config.vllm, program_of(config.vllm), cpu=stage.device.type == "cpu")

    # --- an engine ---

    def load(self, model: Decoder) -> None:
        """Sample from ``model`` from now on, as it is when next something is sampled."""
        super().load(model)
        self._stale = True

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """As ``Engine.generate``. A server of ours that died is started again, and asked once more."""
        self._refuse(requests, sampling)
        server = self._current()
        try:
            return self._said(server, requests, sampling)
        except Unavailable as error:
            self._bury(server, error)
            return self._said(self._current(), requests, sampling)

    def stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """All of them, when all are done."""
        yield from enumerate(self.generate(requests, sampling))

    def tokens(self, request: Request, sampling: Sampling) -> Iterator[int]:
        """All of them, when the last is there."""
        yield from self.generate([request], sampling)[0].tokens

    def rest(self) -> None:
        """Nothing is sampled for a while: a server that can sleep gives its memory back, and its weights with it."""
        if self._started and self._started.sleeps and not self._asleep:
            self._ready().sleep()
            self._asleep = self._stale = True

    def close(self) -> None:
        """End a server of ours, and take away what was handed over."""
        self._end()
        if self._server:
            self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _current(self) -> Server:
        """The server, with the weights it should have."""
        with self._lock:
            if self._stale:
                try:
                    self._hand_over()
                except Unavailable as error:
                    self._bury(self._server, error)
                    self._hand_over()
            return self._ready()

    def _ready(self) -> Server:
        assert self._server is not None
        return self._server

    @property
    def _limit(self) -> int:
        limit: int = self.model.config.max_position_embeddings
        return limit

    def _refuse(self, requests: Sequence[Request], sampling: Sampling) -> None:
        refuse_long(requests, self._limit)
        if any(request.rules for request in requests):
            raise UserError("vLLM cannot be told here which tokens must not come", next_step='Set sampler = "engine".')
        if sampling.truncates and not 0 < sampling.top_k <= MOST_KEPT and any(r.tell_kept for r in requests):
            raise UserError(
                "a learner must know what a truncated sampler chose among, and vLLM tells that of the likeliest only",
                where="sampling",
                next_step=f"Set sampling.top_k, at most {MOST_KEPT}, beside top_p or min_p.",
            )

    def _said(self, server: Server, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        tell = sampling.top_k if sampling.truncates and any(request.tell_kept for request in requests) else 0
        how = How(
            tuple(self.stop_tokens), sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p, tell
        )  # fmt: skip
        asked = [
            Asked(one.prompt, one.seed, min(sampling.max_tokens, self._limit - len(one.prompt))) for one in requests
        ]
        longest = max((len(one.tokens) + one.most for one in asked), default=0)
        if longest > self._about.context:
            raise UserError(
                f"{server.called} holds {self._about.context} tokens, and {longest} may be needed",
                next_step="Start it with a larger --max-model-len, or lower sampling.max_tokens.",
            )
        return [_completion(one, self.model.config.vocab_size) for one in server.generate(asked, how)]

    # --- a server ---

    def _connect(self) -> None:
        """To a server that runs already. Raises UserError when it does not, or cannot be handed weights."""
        told = self._config.vllm
        patience = Patience(timeout_s=told.timeout_s)
        self._server = Server(told.url, key=key_in(told.key_env, told.url), at_once=told.at_once, patience=patience)
        self._about = self._server.about()

    def _begin(self, folder: Path) -> None:
        """A server of our own, with the weights in ``folder``."""
        device = self._stage.device
        context = self._limit if self._limit < UNLIMITED else 0
        place = Place(self._stage.folder.folder, device.type == "cpu", context, self._stage.warn)
        told = self._config.vllm if self._reloads else self._config.vllm.model_copy(update={"transfer": "folder"})
        self._started = start(told, folder, place)
        self._server, self._asleep = self._started.server, False
        self._probe.forget()
        self._about = self._server.about()

    def _end(self) -> None:
        if self._started:
            self._started.end()
            self._started = self._server = None
            self._restarts += 1

    def _bury(self, server: Server | None, error: Unavailable) -> None:
        """Make room for a new server where ours died. Raises ``error`` for one that lives, or is somebody else's."""
        with self._lock:
            if server is not self._server:
                return  # another thread has buried it
            if not self._started or self._started.program.is_alive(DYING_S):
                raise error
            self._stage.warn(f"vLLM died and is started again; it said: {self._started.program.last_words()[:200]}")
            self._end()
            self._stale = True

    # --- a hand-over ---

    def _hand_over(self) -> None:
        """Give the server the model's weights, and prove that it has them. Raises UserError when it has not."""
        began, folder = time.monotonic(), self._written()
        is_fresh = self._given(folder)
        probed = self._proof()
        if self._started and not is_fresh and (doubt := probed.fault(self._doubt)[0]):
            is_fresh, probed = True, self._afresh(folder, probed, doubt)
        if is_fresh:
            self._fresh = probed.apart
        self._note(probed, time.monotonic() - began)
        what, advice = probed.fault(self._bound)
        if what:
            after = "loaded afresh" if self._started else f"after hand-over {self._number}"
            raise UserError(f'stage "{self._stage.name}" stops: {what} ({after})', next_step=advice)
        self._probe.keep()
        self._stale = False

    def _afresh(self, folder: Path, before: Probed, doubt: str) -> Probed:
        """The proof of the same weights, read by our own server as it starts. Notes whether reloading was at fault."""
        kind = KINDS[self._config.vllm.transfer]
        self._stage.warn(f"after {kind.after} {doubt}; vLLM is restarted with them")
        self._end()
        self._begin(folder)
        probed = self._proof()
        self._reloads = not before.is_stale and probed.apart > before.apart / 2
        if not self._reloads:
            self._stage.warn(f"this build of vLLM {kind.errs}: it is restarted for every hand-over")
        return probed

    def _proof(self) -> Probed:
        server = self._ready()
        return self._probe.ask(self.model, server.score, lambda asked, how: self._said(server, asked, how))

    @property
    def _bound(self) -> float:
        """The largest difference that is no fault."""
        exact = self._about.dtype == "float32" and self._stage.dtype == torch.float32
        return self._config.vllm.limit or (LIMIT if exact else ROUGH_LIMIT)

    @property
    def _doubt(self) -> float:
        """The same after a reload of our own server: not much more than when it had read weights as it started."""
        told = self._config.vllm.limit
        return told or min(self._bound, max(DOUBT, GROWTH * self._fresh))

    def _written(self) -> Path:
        """The weights as a model folder of their own, named by the hand-over's number; older ones go."""
        self._number += 1
        folder = (self._folder / f"{self._number:06d}").absolute()
        self._tokenizer.save(folder)
        if isinstance(self.model, Foreign):
            save_any(folder, self.model)
        else:
            whole, kind = merged(self.model, place="cpu"), self._about.dtype  # what speaks: no adapters, no critic
            save_model(folder, whole, dtype=getattr(torch, kind) if kind in ("bfloat16", "float16") else torch.float32)
        for old in sorted(self._folder.iterdir())[:-KEEP]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def _given(self, folder: Path) -> bool:
        """Bring the weights to the server. Returns whether it read them as it started, which is known to be right."""
        if self._started and not (self._reloads and self._started.program.is_alive()):
            self._end()
        if self._server is not None and self._taken(self._server, folder):
            return False
        self._begin(folder)
        return True

    def _taken(self, server: Server, folder: Path) -> bool:
        """Whether the running server took the weights: else it was ended. Raises Unsent the second time in a row."""
        try:
            self._bring(server, folder)
        except Unsent as error:
            if self._unsent:
                raise
            self._stage.warn(f"{error.what}; vLLM is restarted with the weights")
            self._end()
            self._unsent = True
            return False
        self._unsent = False
        return True

    def _bring(self, server: Server, folder: Path) -> None:
        if self._asleep:
            server.wake("weights")
        else:
            server.pause()
        self._way(server, folder)
        if self._asleep:
            server.wake("kv_cache")
        else:
            server.resume()
        self._asleep = False

    @property
    def _way(self) -> Callable[[Server, Path], None]:
        """How weights are brought to the running server."""
        return self._started.transfer.bring if self._started and self._started.transfer else _reload

    def _note(self, probed: Probed, seconds: float) -> None:
        """What stands of it in the stage's facts. Says so when another version of vLLM goes on with a stage."""
        before = self._stage.folder.facts().get("sampler", {}).get("version")
        if before not in (None, self._about.version):
            self._stage.warn(f"this stage began with vLLM {before} and goes on with {self._about.version}")
        self._worst = max(self._worst, probed.apart)
        facts = {
            "version": self._about.version, "dtype": self._about.dtype, "transfer": self._config.vllm.transfer,
            "hand_overs": self._number, "restarts": self._restarts, "limit": self._bound, "worst": self._worst,
            "apart": probed.apart, "drawn": probed.drawn, "seconds": round(seconds, 3),
        }  # fmt: skip
        self._stage.folder.write(sampler=facts)


def _reload(server: Server, folder: Path) -> None:
    try:
        server.reload(str(folder))
    except Unavailable as error:
        raise UserError(
            f"{server.called} could not load the weights handed over: {error.what}",
            where=str(folder),
            next_step="It must see that folder, and have been started with a model of the same shape.",
        ) from None


def place_of(stage: Stage, config: Vllm) -> Path:
    """Where weights are handed over: a folder of this stage's own, since it is emptied."""
    if not config.folder:
        return stage.folder.folder / FOLDER
    return Path(config.folder) / f"seekling-{fingerprint(str(stage.folder.folder.resolve()))[:16]}"


def _completion(spoken: Spoken, vocab_size: int) -> Completion:
    """Raises UserError for a token that the model does not have."""
    if max(spoken.tokens) >= vocab_size:
        raise UserError(f"the server said token {max(spoken.tokens)}, and the model has {vocab_size}")
    logps = np.array(spoken.logps, np.float32)
    stop = Stop.STOP if spoken.stopped else Stop.LENGTH
    return Completion(spoken.tokens, logps, stop, None, _kept(spoken.kept) if spoken.kept else None)


def _kept(sets: Sequence[Sequence[int]]) -> Kept:
    ids = np.array([token for one in sets for token in one], np.int32)
    return Kept(ids, np.cumsum([len(one) for one in sets], dtype=np.int64))
