"""Verdicts on replies, the path that decided each, and keys that nobody can read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.maths_answers import Case, adversarial, boxed, realistic, true_forms
from seekling.errors import UserError
from seekling.records import Verdict
from seekling.verify.maths import library as library_file
from seekling.verify.maths.judge import check_gold, judge
from seekling.verify.maths.library import Library, is_fit
from seekling.workers import worker as worker_file


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    """One worker for all tests here."""
    made = Library()
    yield made
    made.close()


def told(case: Case) -> str:
    """A case in a line."""
    return f"{case.kind}: {case.reply[-60:]!r} for {case.gold[:40]!r}"


def test_no_answer_made_to_deceive_is_paid_for() -> None:
    cases = list(adversarial())
    assert len(cases) >= 400 and len({case.kind for case in cases}) >= 60
    assert not [told(case) for case in cases if judge(case.reply, case.gold).verdict is Verdict.PASS]


def test_no_answer_made_to_deceive_takes_long_or_fails() -> None:
    for case in adversarial():
        began = time.process_time()
        judged = judge(case.reply, case.gold)
        assert time.process_time() - began < 0.5, told(case)
        assert judged.verdict in (Verdict.WRONG, Verdict.UNPARSED), told(case)


def test_true_answers_pass_in_whatever_form() -> None:
    cases = list(true_forms())
    assert len(cases) >= 400
    assert not [told(case) for case in cases if judge(case.reply, case.gold).verdict is not Verdict.PASS]


def test_the_kinds_of_deceit_are_all_tried() -> None:
    """By the numbers of docs/maths.md; those not here are ways of giving a true answer, tried among the true ones."""
    numbers = {int(case.kind.split()[0]) for case in adversarial()}
    assert set(range(1, 61)) - numbers <= {1, 13, 14, 19, 25, 26, 27, 28, 31, 34, 35, 38}


def test_the_own_reader_decides_nearly_all_of_what_models_say() -> None:
    cases = list(realistic(1_000))
    judged = [judge(case.reply, case.gold) for case in cases]
    own = [(case, found) for case, found in zip(cases, judged, strict=True) if found.path == "own"]
    assert len(own) >= 950
    assert not [told(case) for case, found in own if (found.verdict is Verdict.PASS) != case.deserves]


@pytest.mark.parametrize(
    "gold", ["", " ", "1 2 3", "0/0", "41 = 42", r"\frac{1}", "?", "9^{9^{9}}", "5 or", "9" * 5_000, "x" * 3_000]
)
def test_a_key_that_cannot_be_read_is_a_letter_and_never_a_reward(gold: str) -> None:
    with pytest.raises(UserError) as letter:
        check_gold(gold)
    assert letter.value.next_step and len(letter.value.what) < 300
    judged = judge(boxed(gold), gold)
    assert (judged.verdict, judged.path) == (Verdict.INFRA_ERROR, "none")


@pytest.mark.parametrize(
    "gold", ["42", r"\boxed{42}", "$42$", r"\frac{1}{2}", "(B)", "Tuesday", r"\{1, 2\}", r"[0, \infty)"]
)
def test_a_key_that_can_be_read_answers_itself(gold: str) -> None:
    check_gold(gold)
    assert judge(boxed(gold), gold).verdict is Verdict.PASS


def test_an_answer_that_repeats_the_question_is_none() -> None:
    asked = r"Simplify $\sqrt{48} + 1$ and factor."
    assert judge(boxed(r"\sqrt{48} + 1"), r"4\sqrt{3} + 1").verdict is Verdict.PASS
    assert judge(boxed(r"\sqrt{48} + 1"), r"4\sqrt{3} + 1", asked=asked).verdict is Verdict.WRONG
    assert judge(boxed(r"4\sqrt{3} + 1"), r"4\sqrt{3} + 1", asked=asked).verdict is Verdict.PASS
    assert judge(boxed(r"\frac{1}{2}"), "0.5", asked=r"Half is $\frac{1}{2}$.").verdict is Verdict.PASS
    assert judge(boxed("x+1"), "x+1", asked="Which is larger, x or x+1?").verdict is Verdict.PASS


def test_a_judgement_says_why() -> None:
    assert judge("", "42").said == "no answer is given"
    assert "not true" in judge(boxed("41 = 42"), "42").said
    assert judge(r"\boxed{42", "42").path == "none"


def test_without_the_library_what_is_not_proven_is_not_paid_for() -> None:
    judged = judge(boxed(r"2\cos^2 x - 1"), r"\cos 2x")
    assert (judged.verdict, judged.path) == (Verdict.UNPARSED, "none")
    assert "math-verify" in judged.said


def serve_hanging(setup: object) -> Callable[[object], object]:
    """A target that never answers."""

    def answer(request: object) -> object:
        while True:
            time.sleep(0.01)

    return answer


def serve_dying(setup: object) -> Callable[[object], object]:
    """A target that ends its process."""
    return lambda request: os._exit(1)


@pytest.fixture
def tests_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child import this file, which a real target does not need."""
    monkeypatch.setattr(worker_file, "ROOT", f"{worker_file.ROOT}{os.pathsep}{Path(__file__).parents[2]}")


# --- with math-verify -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "gold", "verdict"),
    [
        (r"2\cos^2 x - 1", r"\cos 2x", Verdict.PASS), (r"\sqrt{3 + 2\sqrt{2}}", r"1 + \sqrt{2}", Verdict.PASS),
        (r"(-\infty, 0) \cup (0, \infty)", r"\mathbb{R} \setminus \{0\}", Verdict.PASS),
        (r"(-\infty, 1) \cup (1, \infty)", r"\mathbb{R} \setminus \{0\}", Verdict.WRONG),
    ],
)  # fmt: skip
def test_what_the_own_reader_leaves_open_the_library_decides(
    library: Library, said: str, gold: str, verdict: Verdict
) -> None:
    judged = judge(boxed(said), gold, library=library)
    assert (judged.verdict, judged.path) == (verdict, "math-verify")


@pytest.mark.parametrize(
    ("reply", "gold"),
    [
        (boxed("41 = 42"), "42"), (r"<think>\boxed{42}</think>", "42"), (r"<think>\boxed{42}", "42"),
        (boxed(r"\sqrt{2} = \sqrt{3}"), r"\sqrt{3}"),
        (boxed(r"x + 1 \setminus 2"), "x + 1"), (boxed("1.4142135"), r"\sqrt{2}"),
        (boxed(r"\int_0^x 1 dx"), "x"), (boxed(r"\sqrt{2}, 5"), r"\sqrt{2}"),
    ],
)  # fmt: skip
def test_its_known_wrong_verdicts_cannot_pass(library: Library, reply: str, gold: str) -> None:
    assert judge(reply, gold, library=library).verdict is not Verdict.PASS


def test_no_deceit_passes_with_the_library_either(library: Library) -> None:
    passed = [case for case in adversarial() if judge(case.reply, case.gold, library=library).verdict is Verdict.PASS]
    assert not [told(case) for case in passed]


def test_it_reads_keys_that_the_own_reader_does_not(library: Library) -> None:
    check_gold(r"\mathbb{R} \setminus \{0\}", library)
    with pytest.raises(UserError):
        check_gold(r"\mathbb{R} \setminus \{0\}")
    with pytest.raises(UserError):
        check_gold(r"1 \setminus", library)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 500, "9" * 25, r"\int_0^1 x dx", r"\sum k", "x = 1", "x!", "x or y", "9^{9^{9}}",
        "((((((((((((((x))))))))))))))", "(x", "x?", "x\n", "ü",
        r"\input{x}", "__import__",
    ],
)  # fmt: skip
def test_the_library_is_not_asked_what_could_deceive_it(text: str) -> None:
    assert not is_fit(text)


def test_a_worker_that_hangs_costs_one_verdict_and_not_the_run(
    tests_found: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Library()
    monkeypatch.setattr(hanging._worker, "target", "tests.unit.test_maths_judge:serve_hanging")
    monkeypatch.setattr(library_file, "WALL_S", 0.3)
    began = time.perf_counter()
    assert hanging.compare("x", "y")[0] is Verdict.TIMEOUT
    assert time.perf_counter() - began < 15.0
    hanging.close()


def test_a_worker_that_dies_is_asked_once_more_and_then_said_to_have_failed(
    tests_found: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = Library()
    monkeypatch.setattr(dying._worker, "target", "tests.unit.test_maths_judge:serve_dying")
    verdict, why = dying.compare("x", "y")
    assert verdict is Verdict.INFRA_ERROR and why
    dying.close()


def test_judging_imports_neither_sympy_nor_the_library() -> None:
    code = (
        "import sys; from seekling.verify.maths.judge import judge; judge(r'\\boxed{\\cos x}', r'\\sin x');"
        "print([name for name in ('sympy', 'mpmath', 'math_verify', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
