"""Verdicts on answers: at once where a check is known to be quick, else in killable workers with limits.

A check of somebody's own may hang, fill memory, crash or raise, and none of that may cost a run or earn a reward:
TIMEOUT, OOM and OUTPUT_LIMIT are worth nothing, so that a policy cannot gain by being unscorable, and INFRA_ERROR (the
check raised, or gave no verdict, or its worker died twice) leaves the reward open. Equal answers to one problem are
checked once.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from seekling.records import Problem, Verdict
from seekling.tasks.protocol import Composed, Task, own_part
from seekling.tasks.registry import build_task
from seekling.workers.pool import Pool, Reply

KEPT = 100_000
"""Verdicts remembered: several steps' worth, a few megabytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one check may use: wall and processor seconds, and its worker's address space in bytes."""

    wall_s: float = 5.0
    cpu_s: float = 4.0
    memory_bytes: int = 2**30


@dataclass(frozen=True, slots=True)
class Checked:
    """A verdict, and in words why there is no better one."""

    verdict: Verdict
    said: str = ""


class Checker:
    """``verdicts`` for a task, which ``spec`` names as a manifest does, with up to ``size`` workers (0: one a core).

    Without a spec no worker could make the task, and its check runs here. Workers start when the first answer needs
    them. Raises UserError when the task cannot be made in one.
    """

    def __init__(
        self, task: Task, spec: str | Mapping[str, Any] = "", *, size: int = 0, limits: Limits | None = None
    ) -> None:
        self.task, self.limits = task, limits or Limits(**getattr(task, "limits", {}))
        self._known: OrderedDict[tuple[str, str], Checked] = OrderedDict()
        self._pool: Pool | None = None
        self._parts: dict[str, Checker] = {}
        if isinstance(task, Composed):
            self._parts = {p.name: Checker(p, own, size=size) for p, own in zip(task.parts, task.tasks, strict=True)}
        elif spec and not getattr(task, "quick", False) and not hasattr(task, "check_all"):
            target, setup = "seekling.tasks.checking:serve", {"spec": spec, "path": sys.path}
            bounds = {"memory_bytes": self.limits.memory_bytes, "cpu_s": self.limits.cpu_s}
            self._pool = Pool(target, setup, size=size, **bounds)

    def verdicts(self, asked: Sequence[tuple[Problem, str | None]]) -> list[Checked]:
        """One verdict each; UNPARSED where nothing was said to check (None)."""
        wanted = {(problem.id, said): (problem, said) for problem, said in asked if said is not None}
        found = {key: self._known[key] for key in wanted if key in self._known}
        new = {key: pair for key, pair in wanted.items() if key not in found}
        found |= dict(zip(new, self._check(list(new.values())), strict=True))
        self._remember(found)
        silent = Checked(Verdict.UNPARSED, "no answer was given")
        return [silent if said is None else found[problem.id, said] for problem, said in asked]

    def close(self) -> None:
        """Kill the workers, if there are any."""
        for checker in self._parts.values():
            checker.close()
        if self._pool is not None:
            self._pool.close()

    def _check(self, asked: Sequence[tuple[Problem, str]]) -> list[Checked]:
        if self._parts:
            return self._check_by_part(asked)
        if hasattr(self.task, "check_all"):
            return [_read(verdict) for verdict in self.task.check_all(asked)]
        if self._pool is None:
            return [_checked(self.task, problem, said) for problem, said in asked]
        requests = [{"problem": asdict(problem), "answer": said} for problem, said in asked]
        return [_told(reply) for reply in self._pool.ask_all(requests, self.limits.wall_s)]

    def _check_by_part(self, asked: Sequence[tuple[Problem, str]]) -> list[Checked]:
        """Each problem by its own task, whose check has a place and limits of its own."""
        names = [own_part(self.task, problem).name for problem, _ in asked]
        told = {
            name: iter(checker.verdicts([pair for pair, of in zip(asked, names, strict=True) if of == name]))
            for name, checker in self._parts.items()
        }
        return [next(told[name]) for name in names]

    def _remember(self, found: Mapping[tuple[str, str], Checked]) -> None:
        """All but what failed by itself: that may pass another time."""
        self._known |= {key: checked for key, checked in found.items() if checked.verdict is not Verdict.INFRA_ERROR}
        while len(self._known) > KEPT:
            self._known.popitem(last=False)


def serve(setup: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The worker's side: the same task, made from its spec where the parent would find it."""
    sys.path += [place for place in setup["path"] if place not in sys.path]
    task = build_task(setup["spec"])

    def answer(request: Mapping[str, Any]) -> list[str]:
        checked = _checked(task, Problem(**request["problem"]), request["answer"])
        return [checked.verdict.value, checked.said]

    return answer


def _checked(task: Task, problem: Problem, said: str) -> Checked:
    try:
        return _read(task.check(problem, said))
    except MemoryError:
        raise
    except Exception as error:  # a stranger's check: its own words are what its author needs
        return Checked(Verdict.INFRA_ERROR, f"{type(error).__name__}: {error}"[:500])


def _read(value: object) -> Checked:
    """What a check returned as a verdict; whatever is none leaves the reward open."""
    if isinstance(value, str) and value in Verdict.__members__.values():
        return Checked(Verdict(value))
    return Checked(Verdict.INFRA_ERROR, f"it returned {value!r}"[:500])


def _told(reply: Reply) -> Checked:
    """A worker's account, or what became of the worker."""
    if reply.failure is not None:
        return Checked(reply.failure, reply.said)
    verdict, said = reply.value
    return Checked(Verdict(verdict), said)
