"""The user's own problems: a list in a file or on the hub, and a verifier by name. The task called ``file``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from seekling.config import Settings, fingerprint
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.remote.hub import is_data_name
from seekling.remote.rows import Unread, digest_of, files_of, read_rows
from seekling.tasks.protocol import Split, identity, split_of
from seekling.verify.verifiers import folded, verifier
from seekling.workers.strangers import digest

PROMPTS = ("prompt", "question", "problem", "input", "instruction")
ANSWERS = ("answer", "solution", "gold", "target", "ground_truth", "final_answer")
SIZES = ("size", "level", "difficulty")
"""Names of fields that are known without being told, the first that a row has."""

SPLITS: tuple[Split, ...] = ("train", "held_out")
HELD_OUT_NAMES = ("held_out", "test", "validation", "valid", "dev", "eval")
SHOWN_FAULTS = 5


class FileTask(Settings):
    """Problems from a list, answers judged by a verifier. What a row holds beside stays with its problem, as ``info``.

    Problems are held out by the digest of their text, a tenth of them, unless the rows say ``split``, or ``held_out``
    names a second list.
    """

    name: Literal["file"] = "file"
    data: str = Field(min_length=1, description="a .jsonl, .json or .parquet file, a folder of them, or org/name")
    held_out: str = Field("", description="a second list, never trained on; empty holds out a tenth of the first")
    verifier: str = Field("exact", description="who judges: a name, or ./file.py:function")
    reads: Literal["answer", "reply"] = Field("answer", description="what is judged: <answer>, or all but thinking")
    prompt: str = Field("", description="the field that holds the question; empty finds the usual names")
    answer: str = Field("", description="the field that holds the key; empty finds the usual names")
    answer_after: str = Field("", description='what stands before the key in its field, such as "####"')
    size: str = Field("", description="the field that holds a size or level; empty finds the usual names")
    template: str = Field("{prompt}", description="what is asked; {prompt} is the question")
    revision: str = Field("", description="branch, tag or commit of a hub data set")
    split: str = Field("train", description="which split of a hub data set is the list")
    held_out_split: str = Field("test", description="which split of a hub data set is held_out")

    @field_validator("template")
    @classmethod
    def _asks(cls, value: str) -> str:
        if value.count("{prompt}") != 1:
            raise ValueError("it must say {prompt} once")
        return value

    @model_validator(mode="after")
    def _here_and_sound(self) -> FileTask:
        """A list on this machine is read at once, so that what is wrong with it is said before anything runs."""
        verifier(self.verifier)
        if all(Path(data).expanduser().exists() or not is_data_name(data) for data, _ in self.lists()):
            _ = self.problems
        return self

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """All of the list, then all of ``held_out``. Raises UserError naming each faulty row."""
        return _read(self, self.content())

    @property
    def quick(self) -> bool:
        """Whether its check runs in the trainer's process: where the verifier is short and bounded."""
        return verifier(self.verifier).quick

    def listed(self, split: Split, size: int | None = None) -> Sequence[Problem]:
        """Every problem of one split, in order. Raises UserError when there is none, or none of that size."""
        return self._of_size([problem for problem in self.problems if split_of(problem.id) == split], size)

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """One problem of the lists."""
        return rng.choice(self._of_size(self.problems, size))

    def check(self, problem: Problem, answer: str) -> Verdict:
        """The verifier's word."""
        judge = verifier(self.verifier)
        if self.reads == "reply" and judge.judge_reply:
            return judge.judge_reply(answer, problem.answer)
        return judge.judge(answer, problem.answer)

    def guess(self, problem: Problem, rng: Random) -> str:
        """The key of some training problem: what one could say who knows what answers look like."""
        return rng.choice(self.listed("train")).answer

    def lists(self) -> list[tuple[str, str]]:
        """What names its one or two lists, the second held out, and which split of a hub data set each would be."""
        named = [(self.data, self.split), (self.held_out, self.held_out_split)]
        return [(data, split) for data, split in named if data]

    def content(self) -> str:
        """Digest of all files it stands in: its lists, and its verifier where that is the user's own."""
        own = digest(self.verifier) if ":" in self.verifier else ""
        return fingerprint([digest_of(data, self.revision) for data, _ in self.lists()], own)

    def _of_size(self, problems: Sequence[Problem], size: int | None) -> Sequence[Problem]:
        found = [problem for problem in problems if size in (None, problem.size)]
        if not found:
            sizes = ", ".join(str(known) for known in sorted({problem.size for problem in self.problems}))
            raise UserError(f"{self.data} holds no problem of size {size}", next_step=f"Its sizes: {sizes}.")
        return found


@lru_cache(maxsize=16)
def _read(task: FileTask, content: str) -> tuple[Problem, ...]:
    """The problems of a task's lists. Equal settings and equal ``content`` are read once in a process."""
    reader = _Reader(task)
    for number, (data, split) in enumerate(task.lists()):
        for where, row in read_rows(files_of(data, task.revision, split)):
            reader.take(where, row, held_out=number == 1)
    return reader.done()


class _Fault(Exception):
    """What is wrong with one row, in words."""


class _Reader:
    """Rows to problems; faults and places of what was seen are kept, so that all can be told at the end."""

    def __init__(self, task: FileTask) -> None:
        self.task, self.verifier = task, verifier(task.verifier)
        self.problems: list[Problem] = []
        self._faults: list[str] = []
        self._rows = 0
        self._places: dict[str, str] = {}

    def take(self, where: str, row: dict[str, Any] | Unread, *, held_out: bool) -> None:
        """Read one row, or note what is wrong with it."""
        self._rows += 1
        try:
            if isinstance(row, Unread):
                raise _Fault(row.said)
            problem = self._problem(row)
            self._once("problem", identity(folded(problem.prompt)), where)
            if row.get("id") is not None:
                self._once("id", str(row["id"]), where)
            self.problems.append(replace(problem, id=self._placed(problem.id, row, held_out=held_out)))
        except _Fault as fault:
            self._faults.append(f"{where}: {fault}")

    def done(self) -> tuple[Problem, ...]:
        """The problems. Raises UserError with the first faults and their lines, or where there are too few."""
        if self._faults:
            more = len(self._faults) - SHOWN_FAULTS
            rows = "1 row is" if len(self._faults) == 1 else f"{len(self._faults)} rows are"
            raise UserError(
                f"{rows} no problem, of {self._rows}",
                where="\n        ".join([*self._faults[:SHOWN_FAULTS], *([f"and {more} more"] if more > 0 else [])]),
                next_step='Write {"prompt": "...", "answer": "..."} on each line; docs/own-task.md tells more.',
            )
        counts = {split: sum(split_of(problem.id) == split for problem in self.problems) for split in SPLITS}
        if not all(counts.values()):
            told = f"{counts['train']} to train on, {counts['held_out']} held out"
            raise UserError(
                f"{self.task.data} holds too few problems: {told}",
                next_step='A tenth is held out by digest: write thirty or more, or a second list, held_out = "..."',
            )
        return tuple(self.problems)

    def _problem(self, row: Mapping[str, Any]) -> Problem:
        at = _field(row, self.task.prompt, PROMPTS)
        prompt, answer = _prompt(at, row[at]), self._answer(row)
        info = {name: value for name, value in row.items() if name != at}
        asked = self.task.template.replace("{prompt}", prompt)
        size = _size(row, self.task.size)
        return Problem(identity("file", folded(prompt)), "file", asked, answer, size, _plain(info))

    def _answer(self, row: Mapping[str, Any]) -> str:
        if self.verifier.standard and all(row.get(name) is None for name in (self.task.answer, *ANSWERS)):
            return self.verifier.standard
        at = _field(row, self.task.answer, ANSWERS)
        answer = _key(at, row[at], self.task.answer_after)
        try:
            self.verifier.check_key(answer)
        except UserError as error:
            raise _Fault(f'"{at}": {error.what}') from None
        return answer

    def _once(self, what: str, key: str, where: str) -> None:
        if before := self._places.get(f"{what} {key}"):
            shown = f' "{key}"' if what == "id" else ""
            raise _Fault(f"the {what}{shown} is there already: {before}")
        self._places[f"{what} {key}"] = where

    def _placed(self, problem_id: str, row: Mapping[str, Any], *, held_out: bool) -> str:
        """An identity of the split that the row, or its list, says; of its own where neither does."""
        said = row.get("split")
        if said is None and not self.task.held_out:
            return problem_id
        if said is not None and said != "train" and said not in HELD_OUT_NAMES:
            raise _Fault(f'"split" is {said!r}, which is none of train, {", ".join(HELD_OUT_NAMES)}')
        is_held_out = held_out if said is None else said != "train"
        return ("0" if is_held_out else "f") * 8 + problem_id[8:]


def _field(row: Mapping[str, Any], told: str, known: Sequence[str]) -> str:
    """The name of the field that holds something: the one told, else the first known one that the row has."""
    name = told or next((name for name in known if row.get(name) is not None), "")
    if not name or row.get(name) is None:
        wanted = f'"{told}"' if told else f"{', '.join(known[:3])}, ..."
        raise _Fault(f"it lacks {wanted}; it has {', '.join(map(str, row)) or 'nothing'}")
    return name


def _prompt(name: str, value: Any) -> str:
    """A question: text, or a conversation of one message by the user."""
    messages = value if isinstance(value, list) else []
    if len(messages) == 1 and isinstance(messages[0], dict) and messages[0].get("role") == "user":
        value = messages[0].get("content")
    if not isinstance(value, str):
        raise _Fault(f'"{name}" is no text, nor one message by the user')
    if not value.strip():
        raise _Fault(f'"{name}" is empty')
    return value


def _key(name: str, value: Any, after: str) -> str:
    """A key as text; numbers as they are written, lists and objects as JSON."""
    text = value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False)
    if after and after not in text:
        raise _Fault(f'"{name}" does not say "{after}"')
    text = text.rpartition(after)[2].strip() if after else text.strip()
    if not text:
        raise _Fault(f'"{name}" is empty')
    return text


def _size(row: Mapping[str, Any], told: str) -> int:
    """A whole number, or the one at the end of a text such as "Level 5"; 1 where the row has none."""
    name = told or next((name for name in SIZES if row.get(name) is not None), "")
    if not name:
        return 1
    read = re.fullmatch(r"\D{0,40}(\d{1,9})", str(row.get(name)))
    if read is None:
        raise _Fault(f'"{name}" is {row.get(name)!r}, no whole number')
    return int(read[1])


def _plain(value: Any) -> Any:
    """As JSON has it: what a table holds beside (dates, bytes) becomes text."""
    return json.loads(json.dumps(value, default=str))
