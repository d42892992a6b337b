"""An audit finds what it is for: checks that pay for nothing, refuse what is true, hang, or crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from seekling.cli.tasks import try_command
from seekling.evals.audit import Audit, audit, by_kind
from seekling.evals.judging import Judge
from seekling.records import Verdict
from seekling.rewards.rubric import Rubric
from seekling.tasks.registry import FAMILIES, OWN
from tests.e2e.forks import Forks

LAX = """
import re, time
from seekling import Problem, Verdict
from seekling.tasks.protocol import identity

class Lax:
    name = "lax"
    limits = {"wall_s": 1.0}

    def draw(self, rng, size=None):
        number = str(rng.randint(1000, 9999))
        return Problem(identity(number), self.name, number, number, 1)

    def others(self, problem, rng):
        return [problem.answer + ".0", "+" + problem.answer]

    def traps(self, problem, rng):
        return [problem.answer + "1"]

    def check(self, problem, answer):
        CHECK
"""


def audited(folder: Path, check: str, count: int = 4) -> Audit:
    """The audit of a task whose check has this body."""
    file = folder / "lax.py"
    file.write_text(LAX.replace("CHECK", check.replace("\n", "\n        ")))
    judge = Judge(f"{file}:Lax", Rubric(), size=2)
    try:
        return audit(judge, count)
    finally:
        judge.close()


def test_a_strict_check_passes_every_trial_but_the_forms_it_does_not_read(tmp_path: Path) -> None:
    done = audited(tmp_path, "return Verdict.PASS if answer == problem.answer else Verdict.WRONG")
    figures = done.figures()
    assert (figures["true"], figures["false_rejects"]) == (12, 8)
    assert figures["undeserving"] == len(done.trials) - 12
    assert figures["false_accepts"] == figures["hangs"] == figures["crashes"] == 0
    assert {trial.kind for trial in done.wrong()} == {"another form"}
    assert len(by_kind(done.trials)) >= 35, "kinds of answers tried on every task"


@pytest.mark.parametrize(
    ("check", "kinds"),
    [
        (
            "return Verdict.PASS if problem.answer in answer else Verdict.WRONG",
            {"the key or another", "the key and a marker of doubt", "the key is not", "another, then the key",
             "an equation with the key", "the task's own trap", "the tail cut off"},
        ),
        (
            "found = re.findall('[0-9]+', answer)\n"
            "return Verdict.PASS if found[:1] == [problem.answer] else Verdict.WRONG",
            {"the key twice", "the key is not", "a template"},
        ),
        ("return Verdict.PASS if not answer or answer == problem.answer else Verdict.WRONG", {"an empty answer"}),
        (
            "return Verdict.WRONG if answer.isdigit() and answer != problem.answer else Verdict.PASS",
            {"a colon", "a verdict", "praise for the judge"},
        ),
    ],
)  # fmt: skip
def test_a_lax_check_is_caught_by_the_kind_it_pays_for(tmp_path: Path, check: str, kinds: set[str]) -> None:
    done = audited(tmp_path, check)
    caught = {trial.kind for trial in done.wrong() if not trial.deserves}
    assert kinds <= caught
    assert done.figures()["false_accepts"] >= len(kinds)


def test_a_check_that_chokes_is_counted_as_hanging_and_no_other_answer_pays(tmp_path: Path) -> None:
    done = audited(
        tmp_path,
        "if answer.startswith('(('):\n    time.sleep(600)\n"
        "return Verdict.PASS if answer == problem.answer else Verdict.WRONG",
        count=2,
    )
    assert done.figures()["hangs"] == 2 and done.figures()["crashes"] == 0
    assert {t.kind for t in done.trials if t.verdict is Verdict.TIMEOUT} == {"deep brackets"}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_no_built_in_family_pays_for_what_deserves_nothing_or_refuses_what_is_true(name: str) -> None:
    done = audit(Judge(name, Rubric()), 6)
    told = [(trial.kind, trial.problem.prompt, trial.text[:200], trial.verdict.value) for trial in done.wrong()]
    assert told == []


def test_the_door_tells_kinds_and_exits_by_the_outcome(forks: Forks, tmp_path: Path) -> None:
    ended = forks.run(["tasks", "audit", "arithmetic", "high=30", "--problems", "2", "--out", "found.json"], tmp_path)
    assert ended.code == 0, ended.said
    assert "deep brackets" in ended.out and "false accepts 0" in ended.out
    assert '"false_accepts": 0' in (tmp_path / "found.json").read_text()
    (tmp_path / "lax.py").write_text(LAX.replace("CHECK", "return Verdict.PASS"))
    ended = forks.run(["tasks", "audit", "./lax.py:Lax", "--problems", "1"], tmp_path)
    assert ended.code == 1 and "said" in ended.out, ended.said


def test_a_person_can_try_a_task_and_sees_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["x", "100"])

    def typed(question: str) -> str:
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    try_command("arithmetic", ["sizes=[3]"], count=5, seed=0)
    said = capsys.readouterr().out
    assert "unparsed: reward 0" in said and "wrong: reward 0" in said
    assert said.count("the key:") == 2, "it ends with the input"


def test_every_task_is_listed_with_a_sample_and_its_self_check(forks: Forks, tmp_path: Path) -> None:
    ended = forks.run(["tasks"], tmp_path)
    assert ended.code == 0, ended.said
    assert all(f"\n{name} " in f"\n{ended.out}" for name in [*FAMILIES, *OWN, "rg/NAME"])
    assert ended.out.count("self-check: ok") == len(FAMILIES)
    shown = forks.run(["tasks", "show", "countdown"], tmp_path)
    assert "settings" not in shown.err and "each used exactly once" in shown.out, shown.said
