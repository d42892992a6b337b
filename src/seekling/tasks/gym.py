"""reasoning-gym's families as tasks: ``rg/chain_sum``, ``rg/sokoban`` and a hundred more (extra ``tasks``).

The library runs in worker processes, never in the trainer's: some of its families draw from Python's shared generator
or in the order of a set, which differs from process to process unless all hash alike; some take very long or for
ever at their highest levels; and its scorers may be given anything. What they are asked about, and what they are not
trusted with, stands in ``gym_answers``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from random import Random
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from seekling.config import Settings, runtime
from seekling.errors import UserError, nearest
from seekling.records import Problem, Verdict
from seekling.tasks.gym_answers import ASKS_MORE, FORMS, MAX_CHARS, key_of, same
from seekling.tasks.protocol import identity
from seekling.workers.pool import Pool

LIMIT_S = 20.0
"""For one draw or one check. The slowest families take seconds at their highest levels."""
MEMORY_BYTES = 3 * 2**30
_FEW_DRAWS = 20
_SEEDS = 2**31
_LEFT_OUT = ("composite",)
"""A mixture of others, not a family."""


class Gym(Settings):
    """A family of reasoning-gym, checked more strictly than by itself.

    Sizes are levels of the family's curriculum, from 1; those above its last are as hard as the last. Without sizes
    problems are as the library draws them, and their size is 0. A problem passes when its own scorer gives at least
    ``threshold``, and before that only what has the form of an answer is scored at all.
    """

    quick: ClassVar[bool] = False

    name: str = Field(pattern=r"^rg/[a-z0-9_]+$")
    sizes: tuple[int, ...] = Field((), description="levels of its curriculum, from 1; none: as the library draws it")
    knobs: dict[str, Any] = Field({}, description="the family's own settings, e.g. { max_terms = 5 }")
    threshold: float = Field(1.0, gt=0, le=1, description="least score of the library's own that passes")
    processes: int = runtime(1, ge=1, le=64, description="how many check side by side")

    _pool: Pool | None = PrivateAttr(None)

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A problem at a level of the curriculum. Raises UserError when the library can draw none there."""
        size = size or (rng.choice(self.sizes) if self.sizes else 0)
        seed = rng.randrange(_SEEDS)
        reply = self._workers().ask_all([{"draw": [seed, size]}], LIMIT_S)[0]
        if reply.failure is not None:
            raise UserError(
                f"{self.name} draws no problem" + (f" of level {size}" if size else ""),
                where=reply.said,
                next_step="Choose other sizes or knobs.",
            )
        prompt, key, seed = reply.value
        asked = identity(self.name, " ".join(prompt.split()))
        return Problem(asked, self.name, prompt, key, size, {"seed": seed})

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for the one right answer, or for one that the library's scorer takes; UNPARSED for another form."""
        return self.check_all([(problem, answer)])[0]

    def check_all(self, asked: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """As ``check``, in killable workers with limits of their own."""
        requests = [{"check": [p.info["seed"], p.size, p.answer, said[: MAX_CHARS + 1]]} for p, said in asked]
        replies = self._workers().ask_all(requests, LIMIT_S)
        return [reply.failure or Verdict(reply.value) for reply in replies]

    def guess(self, problem: Problem, rng: Random) -> str:
        """The right answer to another problem: well formed, and blind to this one."""
        return self.draw(rng, problem.size).answer

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """The key with other blanks around it."""
        return [f"  {problem.answer}\n"]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """The key among other words, and, where only the key is right, with its digits off by one."""
        off = re.sub("[0-9]", lambda digit: str((int(digit[0]) + 1) % 10), problem.answer)
        among = [f"either {problem.answer} or {off}0", f"{problem.answer} or else"]
        return [*among, off] if off != problem.answer and self._family() not in FORMS else among

    def _family(self) -> str:
        return self.name.removeprefix("rg/")

    def _workers(self) -> Pool:
        if self._pool is None:
            setup = {"family": self._family(), "knobs": self.knobs, "threshold": self.threshold}
            limits = {"memory_bytes": MEMORY_BYTES, "cpu_s": LIMIT_S}
            self._pool = Pool("seekling.tasks.gym:serve", setup, size=self.processes, **limits)
        return self._pool


def families() -> list[str]:
    """The names of all families of the library that is installed, as tasks. Raises UserError when none is."""
    pool = Pool("seekling.tasks.gym:serve_names", size=1, memory_bytes=MEMORY_BYTES)
    try:
        return [f"rg/{name}" for name in pool.ask_all([None], LIMIT_S)[0].value]
    finally:
        pool.close()


def serve_names(setup: object) -> Callable[[Any], list[str]]:
    """The worker's side of ``families``."""
    known = _names(_library())
    return lambda request: known


def serve(setup: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The worker's side of ``Gym``: draws and checks of one family. Raises UserError for one that is not known."""
    served = _Served(_library(), setup["family"], setup["knobs"], setup["threshold"])

    def answer(request: Mapping[str, Any]) -> Any:
        return served.drawn(*request["draw"]) if "draw" in request else served.checked(*request["check"])

    return answer


class _Served:
    """One family in its worker: every problem is a function of a seed and a level."""

    def __init__(self, library: Any, family: str, knobs: Mapping[str, Any], threshold: float) -> None:
        self.family, self.threshold = family, threshold
        self._shared = importlib.import_module("random")
        known = _names(library)
        if family not in known:
            fault = f'reasoning-gym has no family "{family}"'
            raise UserError(fault, next_step=nearest(family, known).capitalize())
        self._settings = lru_cache(maxsize=64)(lambda size: _settings(library, family, knobs, size))
        self._settings(0)  # what is wrong with the knobs is said at once
        self._create = library.create_dataset
        self._made = lru_cache(maxsize=256)(self._make)

    def drawn(self, seed: int, size: int) -> list[Any]:
        """Question, key, and the seed that they are of: the first from ``seed`` on that has an answer."""
        for place in range(seed, seed + _FEW_DRAWS):
            _, entry = self._made(place, size)
            if entry is not None and (key := key_of(self.family, entry)).strip():
                return [entry["question"], key, place]
        raise UserError(f"{self.family} drew {_FEW_DRAWS} times and made no problem with an answer")

    def checked(self, seed: int, size: int, key: str, said: str) -> str:
        """The verdict on an answer: the key is right, and what has an answer's form may be, as the scorer says."""
        if same(said, key):
            return Verdict.PASS
        form = FORMS.get(self.family)
        if form is None and self.threshold == 1.0:
            return Verdict.WRONG
        if len(said) > MAX_CHARS or (form is not None and not form.fullmatch(said.strip())):
            return Verdict.UNPARSED
        return self._scored(seed, size, said.strip())

    def _scored(self, seed: int, size: int, said: str) -> Verdict:
        """What the library's scorer says. It raises on some texts that it cannot read."""
        dataset, entry = self._made(seed, size)
        try:
            score = float(dataset.score_answer(said, entry))
        except MemoryError:
            raise
        except Exception:
            return Verdict.UNPARSED
        asks_more = ASKS_MORE.get(self.family)
        is_right = score >= self.threshold and (asks_more is None or asks_more(said, entry["metadata"]))
        return Verdict.PASS if is_right else Verdict.WRONG

    def _make(self, seed: int, size: int) -> tuple[Any, Any]:
        dataset = self._create(self.family, **self._settings(size), seed=seed, size=1)
        self._shared.seed(seed)  # some families draw from Python's own generator; this process is theirs alone
        try:
            return dataset, dataset[0]
        except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError):
            return dataset, None  # one problem in hundreds, in some families


def _library() -> Any:
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError:
        raise UserError(
            "reasoning-gym is not installed", next_step="Run: .venv/bin/pip install -e '.[tasks]'"
        ) from None


def _names(library: Any) -> list[str]:
    return sorted(name for name in library.factory.DATASETS if name not in _LEFT_OUT)


def _settings(library: Any, family: str, knobs: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The family's settings at a level, then the knobs. Raises UserError for what it has or takes no such."""
    config = library.factory.DATASETS[family][1]
    known = {field.name for field in fields(config)} - {"seed", "size"}
    for knob in knobs:
        if knob not in known:
            raise UserError(f'rg/{family} has no knob "{knob}"', next_step=nearest(knob, known).capitalize())
    level = _of_level(library, family, size)
    chosen = {name: value for name, value in level.items() if name in known} | dict(knobs)
    try:
        getattr(config(**chosen, seed=0, size=1), "validate", lambda: None)()
    except (AssertionError, ValueError, TypeError) as error:
        place = f" at level {size}" if size else ""
        raise UserError(f"rg/{family} refuses its settings{place}: {error}") from None
    return chosen


def _of_level(library: Any, family: str, size: int) -> dict[str, Any]:
    """What its curriculum sets at a level. Raises UserError for a family without one."""
    if not size:
        return {}
    if not library.factory.has_curriculum(family):
        raise UserError(f"rg/{family} has no levels", next_step="Leave sizes out; its knobs make it harder.")
    curriculum = library.factory.create_curriculum(family)
    curriculum.set_global_level(size - 1)
    found = curriculum.generate_configuration()
    return {field.name: getattr(found, field.name) for field in fields(found)}
