"""Rewards by a user's own function, in TRL's signature or ours, run where it can be killed.

    f(prompts, completions, **columns) -> list[float | None]      as written for TRL, taken unchanged; may be async
    f(problem, text) -> float | None                              ours

TRL's is called once per problem, with all of its rollouts: a list for every argument, one entry a rollout. Columns are
what the problem holds: ``answer``, ``id``, ``task``, ``size``, and everything in ``info`` under its own name. None says
"does not apply". What raises, returns anything but numbers, or does not end, fails for the rollout it failed on, and
never counts as a number.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field

from seekling.errors import UserError
from seekling.records import Group, Problem
from seekling.rewards.criteria import Criterion
from seekling.rewards.given import Failed, Given, Tally
from seekling.workers.pool import Pool, Reply
from seekling.workers.strangers import found

AS_TRL = ("completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""What TRL passes beside prompts, completions and columns. Of these only the ids mean something here."""


class Function(Criterion):
    """A function of the user's own, named by its key: ``"./rewards.py:brief" = 0.3``."""

    reads: Literal["text", "messages"] = Field(
        "text", description="what TRL's signature gets: strings, or a conversation's lists of messages"
    )
    wall_s: float = Field(10.0, gt=0, description="seconds that one call may take")
    memory_bytes: int = Field(2**31, ge=2**27, description="memory that it may take")


class Functions:
    """Calls of one user's function in up to ``size`` workers (0: one a core), which start when first needed."""

    def __init__(self, name: str, function: Function, *, size: int = 0) -> None:
        self.name, self.function = name, function
        setup = {"name": name, "reads": function.reads, "path": sys.path}
        self._pool = Pool(
            "seekling.rewards.functions:serve", setup,
            size=size, memory_bytes=function.memory_bytes, cpu_s=function.wall_s,
        )  # fmt: skip
        self._tally = Tally(f'the reward "{name}"', "Mend the function: it must return a number, or None, for each.")

    def given(self, groups: Sequence[Group]) -> list[list[Given]]:
        """A part for every rollout. Raises UserError when more than 1 % failed, or when it cannot be loaded at all.

        Where a call for a whole group breaks, each of its rollouts is asked alone, so that one costs no other.
        """
        told = self._ask(groups)
        broken = [at for at, row in enumerate(told) if isinstance(row, Failed)]
        alone = self._ask([Group(groups[at].problem, (rollout,)) for at in broken for rollout in groups[at].rollouts])
        again = iter(alone)
        singles = {at: [_only(next(again)) for _ in groups[at].rollouts] for at in broken}
        given = [singles[at] if isinstance(row, Failed) else row for at, row in enumerate(told)]
        self._tally.check(groups, given)
        return given

    def close(self) -> None:
        """Kill the workers."""
        self._pool.close()

    def _ask(self, groups: Sequence[Group]) -> list[list[Given] | Failed]:
        """One call a group: its parts, or how the call broke."""
        requests = [
            {
                "problem": asdict(group.problem),
                "texts": [rollout.text for rollout in group.rollouts],
                "ids": [list(rollout.tokens) for rollout in group.rollouts],
            }
            for group in groups
        ]
        replies = self._pool.ask_all(requests, self.function.wall_s)
        return [_read(reply, len(group.rollouts)) for reply, group in zip(replies, groups, strict=True)]


def _read(reply: Reply, count: int) -> list[Given] | Failed:
    """A group's parts, or how its call broke. An answer of the wrong form fails for all: asked alone it might fit."""
    if reply.failure is not None:
        return Failed(reply.said)
    if "broke" in reply.value:
        return Failed(reply.value["broke"])
    values = reply.value["values"]
    if not isinstance(values, list) or len(values) != count:
        said = f"{len(values)} values" if isinstance(values, list) else values
        return [Failed(f"it returned {said} for {count} completions")] * count
    return [Failed(value) if isinstance(value, str) else value for value in values]


def _only(told: list[Given] | Failed) -> Given:
    return told if isinstance(told, Failed) else told[0]


# --- the worker's side ------------------------------------------------------------------------------------------------


def serve(setup: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The function, ready to be asked. Raises UserError when it is none, or of no signature known here."""
    sys.path += [place for place in setup["path"] if place not in sys.path]
    call = _caller(setup["name"], found(setup["name"]), setup["reads"])

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            said = call(Problem(**request["problem"]), request["texts"], request["ids"])
        except MemoryError:
            raise
        except Exception as error:  # a stranger's function: its own words are what its author needs
            return {"broke": f"{type(error).__name__}: {error}"[:500]}
        is_list = hasattr(said, "__iter__") and not isinstance(said, str | bytes)
        return {"values": [_number(value) for value in said] if is_list else repr(said)[:300]}

    return answer


Call = Callable[[Problem, Sequence[str], Sequence[Sequence[int]]], Any]


def _caller(name: str, function: Any, reads: str) -> Call:
    """How to call ``function``: by TRL's keywords when it takes completions, else rollout by rollout."""
    if not callable(function):
        raise UserError(f'"{name}" is no function', next_step="Name a function after the colon.")
    parameters = inspect.signature(function).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if "completions" in parameters or inspect.Parameter.VAR_KEYWORD in kinds:
        return _as_trl(function, parameters, reads)
    needed = [p for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    if len(needed) > 2 or (len(parameters) < 2 and inspect.Parameter.VAR_POSITIONAL not in kinds):
        raise UserError(
            f'the reward "{name}" takes ({", ".join(parameters)}), which is no signature known here',
            next_step="Write f(problem, text), or f(prompts, completions, **columns) as for TRL.",
        )
    return lambda problem, texts, ids: [_settled(function(problem, text)) for text in texts]


def _as_trl(function: Any, parameters: Mapping[str, inspect.Parameter], reads: str) -> Call:
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())

    def call(problem: Problem, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> Any:
        columns = _columns(problem, texts, ids, reads)
        given = {key: value for key, value in columns.items() if takes_all or key in parameters}
        return _settled(function(**given))

    return call


def _columns(
    problem: Problem, texts: Sequence[str], ids: Sequence[Sequence[int]], reads: str
) -> dict[str, Any]:  # fmt: skip
    """TRL's keyword arguments: lists with an entry for each rollout, and what it passes once."""
    fields = {"answer": problem.answer, "id": problem.id, "task": problem.task, "size": problem.size}
    fields |= {str(key): value for key, value in problem.info.items()}
    columns: dict[str, Any] = {key: [value for _ in texts] for key, value in fields.items()}
    columns["prompts"] = [_told("user", problem.prompt, reads) for _ in texts]
    columns["completions"] = [_told("assistant", text, reads) for text in texts]
    once = {"trainer_state": None, "environments": None, "log_extra": _pass_over, "log_metric": _pass_over}
    return columns | {"completion_ids": [list(row) for row in ids]} | once


def _told(role: str, content: str, reads: str) -> Any:
    return [{"role": role, "content": content}] if reads == "messages" else content


def _pass_over(*_: object, **__: object) -> None:
    """What TRL would log beside; the parts of a score are logged here."""


def _settled(value: Any) -> Any:
    """What an async function comes to; anything else as it is."""

    async def wait() -> Any:
        return await value

    return asyncio.run(wait()) if inspect.isawaitable(value) else value


def _number(value: Any) -> float | str | None:
    """A finite number or None as it is; for anything else, words saying what it was."""
    if value is None:
        return None
    try:
        number = float(value) if hasattr(value, "__float__") else None
    except Exception as error:  # such as a tensor of several numbers
        return f"it returned {type(value).__name__}, no number: {error}"[:300]
    if number is None or not math.isfinite(number):
        return f"it returned {value!r}"[:200] + ", which is no finite number"
    return number
