"""Problems of a user's own, from a file: what is read, what is held out, and every fault with its line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from seekling.errors import UserError
from seekling.evals.audit import audit
from seekling.evals.judging import Judge
from seekling.records import Problem, Verdict
from seekling.rewards.rubric import Rubric
from seekling.selftests.tasks import of_key, of_split
from seekling.tasks.checking import Checker
from seekling.tasks.own import FileTask
from seekling.tasks.protocol import Guessable, Listed, problems, reads, split_of
from seekling.tasks.registry import build_task, content_hash


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(count: int = 60, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {n} + {n}?", "answer": str(2 * n), **more} for n in range(count)]


def write(name: str, lines: Sequence[Any]) -> str:
    text = "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n" for line in lines)
    Path(name).write_text(text, encoding="utf-8")
    return name


def task_of(lines: Sequence[Any], **how: Any) -> FileTask:
    built: FileTask = build_task({"name": "file", "data": write("problems.jsonl", lines), "verifier": "integer"} | how)
    return built


def test_a_list_is_a_task_like_any_other() -> None:
    task = task_of(rows())
    assert isinstance(task, Listed) and isinstance(task, Guessable) and task.quick and reads(task) == "answer"
    problem = next(problem for problem in task.problems if problem.prompt == "What is 7 + 7?")
    assert (problem.task, problem.answer, problem.size, problem.info) == ("file", "14", 1, {"answer": "14"})
    assert [task.check(problem, said) for said in ("14", "15", "fourteen")] == [
        Verdict.PASS,
        Verdict.WRONG,
        Verdict.UNPARSED,
    ]
    assert all(test.passed for test in of_key(task, Checker(task))) and of_split(task).passed
    assert task.guess(problem, Random(0)).isdigit()


def test_a_tenth_is_held_out_by_what_is_asked_whatever_the_order_and_spacing_of_the_list() -> None:
    before = task_of(rows(400))
    held_out = {problem.id for problem in before.listed("held_out")}
    assert 20 < len(held_out) < 60
    assert {
        p.id for p in task_of([r | {"prompt": r["prompt"].upper() + " "} for r in rows(400)][::-1]).listed("held_out")
    } == held_out
    assert {p.prompt for p in before.listed("train")} & {p.prompt for p in before.listed("held_out")} == set()


def test_each_problem_is_asked_once_before_any_comes_again() -> None:
    task = task_of(rows())
    train = task.listed("train")
    asked = list(islice(problems(task, "train", "1"), 2 * len(train)))
    first, second = asked[: len(train)], asked[len(train) :]
    assert sorted(p.id for p in first) == sorted(p.id for p in second) == sorted(p.id for p in train)
    assert first != second and first != list(train)
    assert asked == list(islice(problems(task, "train", "1"), 2 * len(train)))


def test_distinct_problems_of_a_list_end_with_the_list() -> None:
    task = task_of(rows())
    assert len(list(problems(task, "held_out", "eval", distinct=True))) == len(task.listed("held_out"))


def test_a_second_list_is_held_out_and_the_first_is_not() -> None:
    write("test.jsonl", [{"prompt": "What is 1000 + 1?", "answer": 1001}])
    task = task_of(rows(3), held_out="test.jsonl")
    assert [p.answer for p in task.listed("held_out")] == ["1001"] and len(task.listed("train")) == 3
    assert all(split_of(problem.id) == "train" for problem in task.listed("train"))


def test_a_row_may_say_its_split() -> None:
    task = task_of([row | {"split": "test" if n == 1 else "train"} for n, row in enumerate(rows(3))])
    assert [p.answer for p in task.listed("held_out")] == ["2"]


def test_a_problem_in_both_lists_is_named_with_both_places() -> None:
    write("test.jsonl", [{"prompt": "what is  2 + 2?", "answer": "4"}])
    with pytest.raises(UserError, match=r"test.jsonl, line 1: the problem is there already: problems.jsonl, line 3"):
        task_of(rows(9), held_out="test.jsonl")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a", "answer"', "line 2: not JSON: Expecting ':' delimiter at character"),
        ("[1, 2]", "line 2: a list where an object belongs"),
        ('"text"', "line 2: a str where an object belongs"),
        ({"question": "a"}, "line 2: it lacks answer, solution, gold, ...; it has question"),
        ({"answer": "1"}, "line 2: it lacks prompt, question, problem, ...; it has answer"),
        ({}, "it has nothing"),
        ({"prompt": "a", "answer": ""}, 'line 2: "answer" is empty'),
        ({"prompt": "a", "answer": None}, "line 2: it lacks answer"),
        ({"prompt": " ", "answer": "1"}, 'line 2: "prompt" is empty'),
        ({"prompt": 7, "answer": "1"}, 'line 2: "prompt" is no text, nor one message by the user'),
        ({"prompt": [{"role": "system", "content": "a"}], "answer": "1"}, "nor one message by the user"),
        ({"prompt": "a", "answer": "around 7"}, "line 2: \"answer\": the answer 'around 7' is no whole number"),
        ({"prompt": "What is 0 + 0?", "answer": "0"}, "line 2: the problem is there already: problems.jsonl, line 1"),
        ({"prompt": "WHAT is 0  + 0?", "answer": "1"}, "line 2: the problem is there already"),
        ({"prompt": "a", "answer": "1", "id": "r1"}, 'line 2: the id "r1" is there already: problems.jsonl, line 1'),
        ({"prompt": "a", "answer": "1", "level": "hard"}, "line 2: \"level\" is 'hard', no whole number"),
        ({"prompt": "a", "answer": "1", "split": "algebra"}, "line 2: \"split\" is 'algebra', which is none of train"),
        ('{"prompt": "a", "prompt": "b", "answer": "1"}', 'line 2: the key "prompt" is there twice'),
        ('{"prompt": "a", "answer": NaN}', "line 2: not JSON: NaN is no number"),
        ("[" * 100_000, "line 2: not JSON: nested too deep"),
    ],
)
def test_a_faulty_row_is_named_with_its_line_and_what_is_wrong(line: Any, said: str) -> None:
    first, *rest = rows()
    with pytest.raises(UserError) as caught:
        task_of([first | {"id": "r1"}, line, *rest])
    assert said in caught.value.where and caught.value.what == "1 row is no problem, of 61"
    assert "docs/own-task.md" in caught.value.next_step


def test_many_faults_are_counted_and_the_first_are_shown() -> None:
    with pytest.raises(UserError) as caught:
        task_of([*rows(9), *({"prompt": f"p{n}"} for n in range(8))])
    assert caught.value.what == "8 rows are no problem, of 17"
    assert caught.value.where.count("lacks") == 5 and caught.value.where.endswith("and 3 more")


def test_text_that_is_not_utf_8_is_named_with_its_line(here: Path) -> None:
    (here / "problems.jsonl").write_bytes(b'{"prompt": "a", "answer": "1"}\n{"prompt": "\xe9", "answer": "1"}\n')
    with pytest.raises(UserError, match="line 2: not UTF-8: byte 0xe9 at 12"):
        build_task({"name": "file", "data": "problems.jsonl"})


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_problems_are_a_letter_with_the_ways_out(count: int) -> None:
    with pytest.raises(UserError, match=rf"holds too few problems: {count} to train on, 0 held out") as caught:
        task_of(rows(count))
    assert "held_out =" in caught.value.next_step


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"data": "none.jsonl"}, "there is no data file none.jsonl"),
        ({"data": "problems.txt"}, "is no data file"),
        ({"data": "empty"}, "holds no .jsonl"),
        ({"verifier": "integr"}, 'no verifier "integr"\nDid you mean "integer"'),
        ({"template": "Solve."}, "must say {prompt} once"),
        ({"verifer": "exact"}, 'unknown setting "verifer"'),
        ({"held_out": "none.jsonl"}, "there is no data file none.jsonl"),
        ({"verifier": "./none.py:f"}, "there is no file none.py"),
        ({"data": "broken.parquet"}, "is no whole parquet file"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said(here: Path, how: dict[str, Any], said: str) -> None:
    (here / "problems.txt").write_text("a")
    (here / "empty").mkdir()
    (here / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError) as caught:
        task_of(rows(), **how)
    assert said in str(caught.value)


def test_fields_are_found_by_the_usual_names_or_by_the_ones_told() -> None:
    gsm = [{"question": f"{n} and {n}?", "answer": f"Well, {n}.\n#### {2 * n}"} for n in range(60)]
    assert task_of(gsm, answer_after="####").problems[7].answer == "14"
    odd = [{"frage": f"{n} und {n}?", "lösung": 2 * n, "stufe": f"Level {n % 3 + 1}"} for n in range(60)]
    problem = task_of(odd, prompt="frage", answer="lösung", size="stufe").problems[7]
    assert (problem.prompt, problem.answer, problem.size) == ("7 und 7?", "14", 2)
    with pytest.raises(UserError, match='"answer" does not say "####"'):
        task_of(rows(), answer_after="####")
    with pytest.raises(UserError, match='it lacks "question"; it has prompt, answer'):
        task_of(rows(), prompt="question")


def test_a_conversation_of_one_message_and_a_template_make_the_prompt() -> None:
    asked = [{"prompt": [{"role": "user", "content": f"{n}?"}], "solution": n} for n in range(60)]
    task = task_of(asked, template="{prompt}\nAnswer with {one} number.")
    assert task.problems[7].prompt == "7?\nAnswer with {one} number."
    assert task.problems[7].info == {"solution": 7}


def test_sizes_are_honoured_and_one_that_no_row_has_is_a_letter() -> None:
    task = task_of([row | {"level": n % 3} for n, row in enumerate(rows())])
    assert task.draw(Random(0), 2).size == 2 and {p.size for p in task.listed("train", 1)} == {1}
    with pytest.raises(UserError, match="no problem of size 9\nIts sizes: 0, 1, 2"):
        task.draw(Random(0), 9)


def test_json_lists_and_parquet_are_read_as_lines_are(here: Path) -> None:
    (here / "p.json").write_text(json.dumps(rows(), indent=1))
    (here / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + (here / write("p.jsonl", rows())).read_bytes())
    parquet.write_table(pyarrow.Table.from_pylist(rows()), here / "p.parquet")
    (here / "many").mkdir()
    for part in (0, 1):
        write(f"many/{part}.jsonl", rows()[part * 30 : part * 30 + 30])
    read = [task_of([], data=data).problems for data in ("p.json", "p.jsonl", "bom.jsonl", "p.parquet", "many")]
    assert all(one == read[0] for one in read) and len(read[0]) == 60


def test_what_a_table_holds_beside_survives_a_journey_through_json(here: Path) -> None:
    from datetime import date

    parquet.write_table(pyarrow.Table.from_pylist(rows(when=date(2025, 1, 2), blob=b"\x00")), here / "p.parquet")
    problem = task_of([], data="p.parquet").problems[0]
    assert json.loads(json.dumps(problem.info)) == {"answer": "0", "when": "2025-01-02", "blob": "b'\\x00'"}


def test_a_changed_list_or_verifier_file_is_another_task(here: Path) -> None:
    (here / "check.py").write_text("def same(answer, key): return answer == key")
    spec = {"name": "file", "data": write("problems.jsonl", rows()), "verifier": "./check.py:same"}
    before = content_hash(spec)
    assert before == content_hash(spec)
    write("problems.jsonl", rows(61))
    assert len({before, content_hash(spec)}) == 2 and len(build_task(spec).problems) == 61
    write("problems.jsonl", rows())
    (here / "check.py").write_text("def same(answer, key): return answer.strip() == key")
    assert content_hash(spec) != before


def test_a_verifier_of_one_s_own_runs_where_it_can_be_killed(here: Path) -> None:
    (here / "check.py").write_text(
        "def same(answer, key):\n    while answer == 'hang': pass\n    return {'1': True, '2': False}[answer]\n"
    )
    spec = {"name": "file", "data": write("problems.jsonl", rows()), "verifier": "./check.py:same"}
    task = build_task(spec)
    checker = Checker(task, spec, size=1)
    checker.limits = type(checker.limits)(wall_s=1.0)
    problem: Problem = task.problems[0]
    told = checker.verdicts([(problem, said) for said in ("1", "2", "3", "hang")])
    checker.close()
    assert [one.verdict for one in told] == [Verdict.PASS, Verdict.WRONG, Verdict.INFRA_ERROR, Verdict.TIMEOUT]
    assert told[2].said == "KeyError: '3'"


KEYS = {
    "exact": "name{n}", "text": "New Name {n}", "integer": "{n}", "integers": "{n}, 4", "number": "{n}.25",
    "choice": "B", "json": '[{n}, true]', "maths": "{n}/97", "math-verify": "{n}\\sqrt{{3}}",
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
def test_no_verifier_is_deceived_by_what_an_audit_tries(name: str) -> None:
    write("audited.jsonl", [{"prompt": f"{n}?", "answer": KEYS[name].format(n=n)} for n in range(1, 60)])
    judge = Judge({"name": "file", "data": "audited.jsonl", "verifier": name}, Rubric())
    done = audit(judge, 4)
    judge.close()
    assert not done.wrong() and done.figures()["hangs"] == done.figures()["crashes"] == 0


def test_whole_replies_are_judged_where_the_task_reads_them() -> None:
    task = task_of(rows(), verifier="maths", reads="reply")
    problem = task.problems[7]
    assert reads(task) == "reply"
    assert task.check(problem, "Twice seven.\nThe answer is 14") is Verdict.PASS
    assert task.check(problem, "14 is not it, so \\boxed{15}") is Verdict.WRONG


def test_requests_without_keys_are_for_a_judge_and_get_a_common_standard() -> None:
    task = task_of([{"prompt": f"Tell me about {n}."} for n in range(60)], verifier="reply", reads="reply")
    problem = task.problems[0]
    assert problem.answer and task.check(problem, problem.answer) is Verdict.PASS
    assert task.check(problem, ":") is Verdict.UNPARSED


def test_lists_of_the_hub_are_fetched_when_they_are_first_asked(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    asked: list[tuple[str, str]] = []

    def files(data: str, revision: str, split: str) -> list[Path]:
        asked.append((data, split))
        return [here / write(f"{split}.jsonl", rows() if split == "train" else [{"prompt": "q", "answer": 1}])]

    monkeypatch.setattr("seekling.tasks.own.files_of", files)
    monkeypatch.setattr("seekling.tasks.own.digest_of", lambda data, revision: {"commit": revision})
    task = build_task({"name": "file", "data": "org/sums", "held_out": "org/sums", "verifier": "integer"})
    assert not asked
    assert len(task.listed("train")) == 60 and len(task.listed("held_out")) == 1
    assert asked == [("org/sums", "train"), ("org/sums", "test")]
