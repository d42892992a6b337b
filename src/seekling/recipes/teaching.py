"""A teacher behind an endpoint solves problems for a stage: every reply is written down before the next is thought of.

What was paid is never paid again: a reply is charged and journaled as it comes, and the same command goes on with those
that are not there yet.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from seekling.errors import UserError
from seekling.recipes.config import Gathered
from seekling.recipes.stage import Clock, Interrupted, Stage
from seekling.records import Group, Problem, Rollout, Stop
from seekling.remote.chat import Chat, Said, chat_with
from seekling.remote.wire import Unavailable
from seekling.rewards.judge import MOST_SILENT
from seekling.runlog.files import Lines, line_at, placed_lines
from seekling.tasks.protocol import reads
from seekling.text.reasoning import split

REPLIES = "replies.jsonl"
"""What the teacher said, in its stage's folder: a line a reply."""


class Teaching:
    """The teacher of one stage at work. Raises UserError when its key is missing."""

    def __init__(self, stage: Stage, config: Gathered, task: Any, chat: Chat | None = None) -> None:
        self.stage, self.teacher, self.samples, self.reads = stage, config.teacher, config.samples, reads(task)
        self.file = stage.folder.folder / REPLIES
        self._chat = chat or chat_with(self.teacher)
        self._places = {(row.get("problem"), row.get("number")): place for place, row in placed_lines(self.file)}
        self._lines, self._lock, self._clock = Lines(self.file), threading.Lock(), Clock()
        self._silent = 0
        self._letter: UserError | None = None

    def groups(self, start: int, asked: Sequence[Problem]) -> list[Group]:
        """``samples`` rollouts of each problem, of which the first is the stage's number ``start``.

        A question that gets no answer after all tries gives a rollout that says nothing. Raises UserError for what a
        person must mend, and when several questions in a row got none; Interrupted when asked to stop.
        """
        self._clock.lap()
        with ThreadPoolExecutor(self.teacher.concurrency) as threads:
            jobs = [
                threads.submit(self._rollout, (start + place) * self.samples + number, problem, number)
                for place, problem in enumerate(asked)
                for number in range(self.samples)
            ]
            finished, waiting = wait(jobs, return_when=FIRST_EXCEPTION)
            for job in waiting:
                job.cancel()
            for job in finished:
                job.result()
        rows = [jobs[first : first + self.samples] for first in range(0, len(jobs), self.samples)]
        return [Group(problem, tuple(job.result() for job in row)) for problem, row in zip(asked, rows, strict=True)]

    def close(self) -> None:
        """Close the connections and the file."""
        self._chat.close()
        self._lines.close()

    def _rollout(self, step: int, problem: Problem, number: int) -> Rollout:
        place = self._places.get((problem.id, number))
        said = self._paid(step, problem, number) if place is None else _said(line_at(self.file, place))
        return spoken(in_form(said, self.reads), said.completion_tokens, Stop.LENGTH if said.is_cut else Stop.STOP)

    def _paid(self, step: int, problem: Problem, number: int) -> Said:
        """A new reply, charged and journaled."""
        if self.stage.stop_requested():
            raise Interrupted
        if self._letter:
            raise self._letter
        below = f"\n\n{self.teacher.instruction}" if self.reads == "answer" and self.teacher.instruction else ""
        try:
            said = self._chat.say([{"role": "user", "content": problem.prompt + below}], **self.teacher.how())
        except UserError as error:
            return self._unanswered(error)
        with self._lock:
            self._silent = 0
            num_tokens = said.prompt_tokens + said.completion_tokens
            flops = 2 * self.teacher.active_parameters * num_tokens
            # First the ledger: whoever is killed in between pays this reply again, and then it has cost twice.
            self.stage.charge(step, "teacher", said.completion_tokens, flops, self._clock.lap())
            self._lines.append({"problem": problem.id, "number": number, **_line(said)}, sync=True)
        return said

    def _unanswered(self, error: UserError) -> Said:
        """Silence, as long as it may pass. Raises UserError when a person is needed."""
        with self._lock:
            self._silent += 1
            if isinstance(error, Unavailable) and self._silent < MOST_SILENT:
                return Said("")
            self._letter = UserError(
                error.what,
                where=error.where,
                next_step=f"{error.next_step} Every reply that came is kept in {self.file}: the same command goes on, "
                "and pays for none of them twice.",
            )
            raise self._letter


def in_form(said: Said, reads: str) -> str:
    """A teacher's reply as ``<think>...</think><answer>...</answer>``; "" for one that says nothing.

    Its thinking is what the endpoint tells apart, else what stands between tags of thinking, else all that stands
    before a tagged answer. Its answer is what is tagged so or, without tags and where a task ``reads`` "reply", all
    that is outside the thinking.
    """
    told = split(said.text)
    tagged = told.answer if reads == "answer" else None
    before = said.text.rpartition("<answer>")[0].strip() if tagged is not None and not told.thinking else ""
    thinking, answer = said.thinking or told.thinking or before, told.reply if tagged is None else tagged
    return f"<think>{thinking}</think><answer>{answer.strip()}</answer>" if (thinking + answer).strip() else ""


def spoken(text: str, num_tokens: int, stop: Stop) -> Rollout:
    """A rollout of which only the words are known and how many tokens they took: its ids are zeros."""
    return Rollout((), (0,) * num_tokens, np.zeros(0, np.float32), text, stop, 0)


def _line(said: Said) -> dict[str, Any]:
    return {
        "text": said.text, "thinking": said.thinking, "cut": said.is_cut,
        "prompt_tokens": said.prompt_tokens, "completion_tokens": said.completion_tokens,
    }  # fmt: skip


def _said(line: Mapping[str, Any]) -> Said:
    return Said(line["text"], line["prompt_tokens"], line["completion_tokens"], line["thinking"], line["cut"])
