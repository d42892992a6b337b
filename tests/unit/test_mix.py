"""A task made of others: each problem is one of theirs, whoever asks, and what does not go together is a letter."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from seekling.errors import UserError
from seekling.evals.judging import Judge
from seekling.recipes.pairs import compare
from seekling.records import Problem, Verdict
from seekling.rewards.rubric import Rubric
from seekling.selftests.tasks import of_key, of_split
from seekling.tasks.checking import Checker
from seekling.tasks.corpus import Mixture, documents, qualities_of
from seekling.tasks.protocol import Composed, Guessable, Helpable, Traceable, own_part, parts_of, problems, reads
from seekling.tasks.registry import build_task, content_hash
from seekling.text.reasoning import split
from tests.conftest import MANIFESTS
from tests.unit.test_checking import OWN

SPEC: dict[str, Any] = {"name": "mix", "tasks": ["bilingual", {"name": "requests", "topics": 3}], "shares": [0.7, 0.3]}
MIX = build_task(SPEC)


def test_a_mix_is_a_task_like_any_other() -> None:
    assert isinstance(MIX, Composed) and isinstance(MIX, Traceable)
    assert isinstance(MIX, Guessable) and isinstance(MIX, Helpable)
    assert reads(MIX) == "answer" and build_task(SPEC) == MIX
    assert [part.name for part in parts_of(MIX)] == ["bilingual", "requests"] and MIX.parts[1].topics == 3
    assert all(test.passed for test in of_key(MIX, Checker(MIX, SPEC))) and of_split(MIX).passed
    assert parts_of(MIX.parts[0]) == (MIX.parts[0],), "any other task is its own only part"


def test_problems_are_drawn_as_often_as_their_shares_say() -> None:
    asked = Counter(MIX.draw(Random(seed)).task for seed in range(1000))
    assert asked.keys() == {"bilingual", "requests"} and asked["bilingual"] / 1000 == pytest.approx(0.7, abs=0.05)
    even = build_task({"name": "mix", "tasks": ["bilingual", "requests"]})
    assert Counter(even.draw(Random(seed)).task for seed in range(600))["requests"] == pytest.approx(300, abs=50)


@pytest.mark.parametrize("seed", range(12))
def test_all_that_is_asked_about_a_problem_is_asked_of_its_own_task(seed: int) -> None:
    problem = MIX.draw(Random(seed), 4)
    part = own_part(MIX, problem)
    assert part.name == problem.task and problem.size == 4
    for quality in part.qualities:
        text = MIX.trace(problem, Random(seed), quality)
        said = split(text)
        assert text == part.trace(problem, Random(seed), quality)
        assert MIX.check(problem, said.answer) == part.check(problem, said.answer)
        assert MIX.attempts(problem, said.thinking) == part.attempts(problem, said.thinking) != []
        assert MIX.hits(problem, said.thinking) == part.hits(problem, said.thinking)
    assert MIX.guess(problem, Random(1)) == part.guess(problem, Random(1))


def test_helpfulness_is_the_parts_own_or_a_letter() -> None:
    drawn = {problem.task: problem for problem in (MIX.draw(Random(seed)) for seed in range(40))}
    assert MIX.helpfulness(drawn["requests"], drawn["requests"].answer) == 1.0
    with pytest.raises(UserError, match='"bilingual", which is part of a mix, has no rule of helpfulness'):
        MIX.helpfulness(drawn["bilingual"], "3")
    with pytest.raises(UserError, match='"arithmetic" is none of the mix: bilingual, requests'):
        MIX.check(build_task("arithmetic").draw(Random(0)), "3")


def test_a_part_that_can_only_be_checked_has_no_attempts() -> None:
    mix = build_task({"name": "mix", "tasks": ["arithmetic", "zebra"]})
    puzzle = next(p for p in (mix.draw(Random(seed)) for seed in range(20)) if p.task == "zebra")
    assert mix.attempts(puzzle, "12+7=19") == [] and not mix.hits(puzzle, "12+7=19")
    assert mix.check(puzzle, puzzle.answer) is Verdict.PASS
    with pytest.raises(UserError, match="writes no worked attempts"):
        mix.trace(puzzle, Random(0), "expert")
    with pytest.raises(UserError, match='"zebra" writes no worked attempts'):
        next(documents(mix, Mixture(), "a"))


# --- the text ---------------------------------------------------------------------------------------------------------


def test_the_text_is_of_all_parts_and_a_function_of_its_seed() -> None:
    told = list(islice(documents(MIX, Mixture(facts=0.0), "a"), 1000))
    assert told == list(islice(documents(MIX, Mixture(facts=0.0), "a"), 1000))
    asked = Counter(document.problem.task for document in told if document.problem)
    assert asked["bilingual"] / 1000 == pytest.approx(0.7, abs=0.05) and asked["requests"] + asked["bilingual"] == 1000


def test_each_part_takes_its_own_mixture_or_those_of_the_named_that_it_knows() -> None:
    assert qualities_of(MIX, Mixture())["requests"][0] == list(MIX.parts[1].mixture)
    named = qualities_of(MIX, Mixture(qualities={"sloppy": 1, "expert": 2, "careless": 1}))
    assert named == {"bilingual": (["expert", "careless"], [2, 1]), "requests": (["expert", "sloppy"], [2, 1])}
    assert sum(MIX.mixture.values()) == pytest.approx(1)
    assert MIX.mixture["expert"] == pytest.approx(0.7 * MIX.parts[0].mixture["expert"] + 0.3 * 0.12)


@pytest.mark.parametrize(
    ("qualities", "words"),
    [({"careless": 1.0}, 'left in the text for task "requests"'), ({"expret": 1.0}, 'no traces of quality "expret"')],
)
def test_a_text_that_leaves_a_part_without_attempts_is_a_letter(qualities: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        qualities_of(MIX, Mixture(qualities=qualities))


def test_traces_of_one_problem_are_compared_by_the_qualities_of_its_task() -> None:
    judge = Judge(SPEC, Rubric())
    pairs = list(islice(compare(MIX, judge.checker, Mixture(), "train", "0"), 6))
    assert len(pairs) == 6


# --- checks and fingerprints ------------------------------------------------------------------------------------------


def test_a_part_of_ones_own_is_checked_in_its_worker_within_its_limits(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    spec = {"name": "mix", "tasks": ["arithmetic", f"{tmp_path}/own.py:Own"]}
    mix = build_task(spec)
    checker = Checker(mix, spec, size=1)
    drawn: dict[str, Problem] = {}
    for problem in islice(problems(mix, "train", "a"), 20):
        drawn.setdefault(problem.task, problem)
    asked = [(drawn["own"], "hang"), (drawn["arithmetic"], drawn["arithmetic"].answer), (drawn["own"], "x")]
    told = [checked.verdict for checked in checker.verdicts([*asked, (drawn["arithmetic"], None)])]
    checker.close()
    assert told == [Verdict.TIMEOUT, Verdict.PASS, Verdict.WRONG, Verdict.UNPARSED]


def test_the_hash_follows_the_files_of_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.py").write_bytes((MANIFESTS / "sums.py").read_bytes())
    spec = {"name": "mix", "tasks": ["arithmetic", {"name": "./sums.py:Sums", "high": 9}]}
    before = content_hash(spec)
    assert before and content_hash(SPEC) is None
    with (tmp_path / "sums.py").open("a") as handle:
        handle.write("# more\n")
    assert content_hash(spec) != before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tasks": []}, "at least 1"),
        ({"tasks": ["bilingual", "requests"], "shares": [1.0]}, "one number above 0 for each task"),
        ({"tasks": ["bilingual", "requests"], "shares": [1.0, 0.0]}, "one number above 0 for each task"),
        ({"tasks": ["bilingual", "instructions"]}, '"bilingual" is checked by its <answer>, "instructions" by all'),
        ({"tasks": ["bilingual", SPEC]}, "a mix cannot hold a mix"),
        ({"tasks": ["bilingual", {"name": "bilingual", "sizes": [6]}]}, 'two tasks called "bilingual"'),
        ({"tasks": ["bilingaul"]}, 'no task "bilingaul"'),
        ({"tasks": [{"name": "requests", "topcis": 3}]}, '"topcis"'),
    ],
)
def test_what_does_not_go_together_is_a_letter(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as raised:
        build_task({"name": "mix"} | wrong)
    assert words in str(raised.value)
