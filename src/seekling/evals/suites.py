"""Published evaluation sets as data: where the problems lie, how they are asked, and which verifier judges.

The protocol is R1's (arXiv 2501.12948): temperature 0.6, top-p 0.95, several samples of each problem, pass@1
their mean, no system prompt. What was asked and who judged is part of a figure: every result carries digests of both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from seekling.errors import UserError, nearest
from seekling.evals.evaluate import Judged, interval
from seekling.evals.judging import Judge
from seekling.evals.measure import maj_at_k, pass_at_k, powers_of_two
from seekling.evals.suite_verifiers import VERIFIERS, Row, Verifier, version_of
from seekling.records import Problem, Stop, Verdict
from seekling.remote.hub import identity as hub_identity
from seekling.remote.hub import locate_data
from seekling.remote.rows import Unread, digest_of, files_of, read_rows
from seekling.rewards.rubric import Rubric
from seekling.tasks.protocol import identity

TEMPERATURE, TOP_P = 0.6, 0.95
"""R1's protocol for reasoning models."""

BOXED = "{problem}\nPlease reason step by step, and put your final answer within \\boxed{{}}."


@dataclass(frozen=True, slots=True)
class Suite:
    """One set. ``prompt`` and ``answer`` name the fields of a row, the first that is there; ``samples`` is R1's k.

    ``data`` is a hub data set as ``locate_data`` takes it, "" for one that is always a file. ``mark`` stands before the
    answer where the field holds a whole solution.
    """

    name: str
    data: str
    split: str
    prompt: tuple[str, ...]
    answer: tuple[str, ...]
    verifier: str = "maths"
    template: str = BOXED
    mark: str = ""
    samples: int = 4
    what: str = ""


SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("gsm8k", "openai/gsm8k:main", "test", ("question",), ("answer",), mark="####",
              what="1,319 word problems of grade school"),
        Suite("math500", "HuggingFaceH4/MATH-500", "test", ("problem",), ("answer",),
              what="500 competition problems of MATH"),
        Suite("aime", "HuggingFaceH4/aime_2024", "train", ("problem",), ("answer",), samples=64,
              what="the 30 problems of AIME 2024"),
        Suite("aime2025", "opencompass/AIME2025:*.jsonl", "test", ("question",), ("answer",), samples=64,
              what="the 30 problems of AIME 2025"),
        Suite("ifeval", "google/IFEval", "train", ("prompt",), (), verifier="ifeval", template="{problem}",
              what="541 prompts with instructions that can be checked; strict, by prompt"),
    )
}  # fmt: skip
"""What `seekling eval --suite` knows by name."""

OWN = Suite("file", "", "", ("prompt", "question", "problem"), ("answer", "solution", "gold"), what="a file of yours")
"""The layout of a file that belongs to no published set."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A suite with its problems. ``origin`` says where they came from, to the bit: files' SHA-256, or a commit."""

    name: str
    suite: Suite
    problems: tuple[Problem, ...]
    origin: Mapping[str, Any]

    def judge(self) -> Judge:
        """Who judges the replies."""
        table = {"name": "seekling.evals.suite_verifiers:Verified", "label": self.name, "verifier": self.suite.verifier}
        return Judge(table, Rubric())

    def about(self) -> dict[str, Any]:
        """What a result must say beside its figures."""
        prompts = json.dumps([problem.prompt for problem in self.problems], ensure_ascii=False)
        return {
            "suite": self.name,
            "template": self.suite.template,
            "prompt_hash": hashlib.sha256(prompts.encode("utf-8", "surrogatepass")).hexdigest()[:16],
            "verifier": f"{self.suite.verifier} {version_of(VERIFIERS[self.suite.verifier]())}",
            "data": dict(self.origin),
        }


# --- loading ----------------------------------------------------------------------------------------------------------


def parsed(spec: str) -> tuple[Suite, str]:
    """``gsm8k``, ``gsm8k=file`` or ``file`` as the suite and the file ("" for the hub). Raises UserError otherwise."""
    name, _, place = spec.strip().partition("=")
    if name in SUITES:
        return SUITES[name], place
    if not place and Path(name).suffix in (".jsonl", ".json", ".parquet"):
        return OWN, name
    raise UserError(
        f'there is no suite "{name}"', next_step=f"{nearest(name, SUITES).capitalize()} Or give a file: set.jsonl"
    )


def origin_of(spec: str) -> dict[str, Any]:
    """What a fingerprint must know of a suite's problems. Asks the hub for a commit where they lie there."""
    suite, place = parsed(spec)
    if place:
        return _local(place)[1]
    return hub_identity(suite.data, kind="dataset")


def load(spec: str, count: int = 0, **watch: Any) -> Loaded:
    """A suite with its problems, the first ``count`` of them (0: all). ``watch`` is as in ``locate_data``.

    Raises UserError naming the row that lacks a field or whose answer the verifier cannot read, and, where the hub
    cannot be reached, saying which file to give instead.
    """
    suite, name, files, origin = _found(spec, watch)
    rows = islice(_rows(files), count or None)
    verifier = VERIFIERS[suite.verifier]()
    problems = tuple(_problem(suite, verifier, where, row) for where, row in rows)
    if not problems:
        raise UserError(f"{spec} holds no problems", next_step="Check the file.")
    return Loaded(name, suite, problems, origin)


def texts(spec: str, **watch: Any) -> list[tuple[str, str]]:
    """What a suite asks, as (suite and place, problem without its template): what training must not have met."""
    suite, name, files, _ = _found(spec, watch)
    rows = enumerate(_rows(files), 1)
    return [(f"{name}, problem {number}", _field(row, suite.prompt, where)) for number, (where, row) in rows]


def _found(spec: str, watch: Mapping[str, Any]) -> tuple[Suite, str, Sequence[Path], dict[str, Any]]:
    suite, place = parsed(spec)
    files, origin = _local(place) if place else _fetched(suite, watch)
    return suite, suite.name if suite is not OWN else Path(place).stem, files, origin


def _local(place: str) -> tuple[Sequence[Path], dict[str, Any]]:
    if not Path(place).expanduser().exists():
        raise UserError(f"there is no file {place}", next_step="Check the path; a known suite is NAME=FILE.")
    return files_of(place), {"files": digest_of(place)}


def _rows(files: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """Every row with where it stands. Raises UserError for one that cannot be read."""
    for where, row in read_rows(files):
        if isinstance(row, Unread):
            raise UserError(f"a row cannot be read: {row.said}", where=where, next_step="Mend or delete it.")
        yield where, row


def _fetched(suite: Suite, watch: Mapping[str, Any]) -> tuple[Sequence[Path], dict[str, Any]]:
    try:
        source = locate_data(suite.data, split=suite.split, **watch)
    except UserError as error:
        fields = ", ".join((*suite.prompt, *suite.answer))
        raise UserError(
            f'the suite "{suite.name}" cannot be fetched: {error.what}',
            where=error.where,
            next_step=f"Give its problems as a file with the fields {fields}: {suite.name}={suite.name}.jsonl. "
            + error.next_step,
        ) from None
    return source.paths, {"name": suite.data, "split": suite.split, "commit": source.commit}


def _problem(suite: Suite, verifier: Verifier, where: str, row: Row) -> Problem:
    said = _field(row, suite.prompt, where)
    key = _key(suite, row, where) if suite.answer else ""
    told = verifier.told(row)
    try:
        verifier.check_key(key, told)
    except UserError as error:
        raise UserError(f"the answer {key!r} cannot be judged: {error.what}", where=where) from None
    prompt = suite.template.format(problem=said)
    return Problem(identity(suite.name, said, key), suite.name, prompt, key, 0, told)


def _key(suite: Suite, row: Row, where: str) -> str:
    """A row's answer: what stands behind the mark, where there is one."""
    whole = _field(row, suite.answer, where)
    key = whole.rpartition(suite.mark)[2].strip() if suite.mark else whole
    if not key:
        raise UserError(f"a row has nothing behind {suite.mark}", where=where, next_step="Write its answer there.")
    return key


def _field(row: Row, names: Sequence[str], where: str) -> str:
    found = next((row[name] for name in names if row.get(name) is not None), None)
    text = str(found).strip() if isinstance(found, str | int | float) and not isinstance(found, bool) else ""
    if not text:
        has = ", ".join(map(str, list(row)[:8]))
        raise UserError(f"a row has no {' or '.join(names)}", where=where, next_step=f"It has: {has or 'nothing'}.")
    return text


# --- figures ----------------------------------------------------------------------------------------------------------


def suite_figures(judged: Sequence[Judged], vote: Callable[[str], str | None]) -> dict[str, Any]:
    """Every figure of a suite as plain JSON. ``per_problem`` are the shares that passed, in the suite's order.

    maj@k is left out where no rollout gives anything to count.
    """
    num = len(judged[0].scores)
    return {
        "problems": len(judged),
        "samples": num,
        "pass_at_k": {str(k): interval([pass_at_k(num, j.num_passed, k) for j in judged]) for k in powers_of_two(num)},
        **_majority(judged, powers_of_two(num)[-1], vote),
        "mean_tokens": interval([_mean(len(r.tokens) for r in j.group.rollouts) for j in judged]),
        "cut": interval([_mean(r.stop is Stop.LENGTH for r in j.group.rollouts) for j in judged]),
        "unparsed": interval([_mean(s.verdict is Verdict.UNPARSED for s in j.scores) for j in judged]),
        "per_problem": [j.num_passed / num for j in judged],
    }


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _majority(judged: Sequence[Judged], k: int, vote: Callable[[str], str | None]) -> dict[str, Any]:
    """maj@k over answers as they are written: forms of one value are not counted together."""
    votes = [[vote(rollout.text) for rollout in j.group.rollouts] for j in judged]
    if not any(said is not None for row in votes for said in row):
        return {}
    passed = [[score.verdict is Verdict.PASS for score in j.scores] for j in judged]
    draws = 1 if k == len(votes[0]) else 64
    rates = [maj_at_k(row, right, k, draws=draws) for row, right in zip(votes, passed, strict=True)]
    return {"maj_at_k": {str(k): interval(rates)}}
