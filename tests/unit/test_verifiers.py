"""Verifiers by name: strict readers, keys that are refused before any training, and a user's own function."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.verify.maths.library import Library
from seekling.verify.verifiers import VERIFIERS, verifier

PASS, WRONG, UNPARSED = Verdict.PASS, Verdict.WRONG, Verdict.UNPARSED


@pytest.mark.parametrize(
    ("name", "key", "said", "verdict"),
    [
        ("exact", "Paris", " Paris\n", PASS),
        ("exact", "Paris", "paris", WRONG),
        ("exact", "Paris", "  ", UNPARSED),
        ("text", "New York", "new\n york", PASS),
        ("text", "café", "cafe\u0301", PASS),
        ("text", "Paris", "Paris or Rome", WRONG),
        ("integer", "42", "42", PASS),
        ("integer", "42", "41 = 42", UNPARSED),
        ("integer", "1000", "1,000", UNPARSED),
        ("integers", "1, 2, 3", "1 2 3", PASS),
        ("integers", "1, 2, 3", "3 2 1", WRONG),
        ("number", "0.5", "1/2", PASS),
        ("number", "-3.50", "−3.5", PASS),
        ("number", "0.3", "0.30000000000000004", WRONG),
        ("number", "1000", "1,000", UNPARSED),
        ("number", "1", "1e0", UNPARSED),
        ("number", "1", "1/0", UNPARSED),
        ("number", "7", "about 7", UNPARSED),
        ("choice", "B", "(b)", PASS),
        ("choice", "B", "B.", PASS),
        ("choice", "B", "A", WRONG),
        ("choice", "B", "A or B", UNPARSED),
        ("choice", "B", "A B C D", UNPARSED),
        ("json", '{"a": [1, true]}', '{ "a" : [1.0, true] }', PASS),
        ("json", '{"a": [1, true]}', '{"a": [1, 1]}', WRONG),
        ("json", '{"a": 1, "b": 2}', '{"b": 2, "a": 1}', PASS),
        ("json", "[1, 2]", "[2, 1]", WRONG),
        ("json", "1", "NaN", UNPARSED),
        ("json", '{"a": 1}', '{"a": 2, "a": 1}', UNPARSED),
        ("json", "null", "", UNPARSED),
        ("json", "null", "null", PASS),
        ("json", "0", "[" * 50_000, UNPARSED),
        ("maths", "1/2", "0.5", PASS),
        ("maths", r"\sqrt{8}", r"2\sqrt{2}", PASS),
        ("maths", "42", "41 = 42", UNPARSED),
        ("maths", "42", "", UNPARSED),
        ("reply", "", "Bread rises because of yeast.", PASS),
        ("reply", "", "Thought process:", UNPARSED),
    ],
)
def test_an_answer_is_read_strictly(name: str, key: str, said: str, verdict: Verdict) -> None:
    judge = verifier(name)
    judge.check_key(key)
    assert judge.judge(said, key) is verdict


@pytest.mark.parametrize(
    ("name", "key"),
    [("exact", " "), ("integer", "4 2"), ("integer", "42.0"), ("number", "x"), ("choice", "AB"), ("json", "{"),
     ("integers", "1 and 2"), ("maths", "1 +"), ("maths", r"\frac{1"), ("text", "\u00a0")],
)  # fmt: skip
def test_a_key_that_nothing_could_meet_is_an_error_and_never_a_reward(name: str, key: str) -> None:
    with pytest.raises(UserError):
        verifier(name).check_key(key)


@pytest.mark.parametrize("name", sorted(VERIFIERS.keys() - {"math-verify"}))
@given(said=st.text(max_size=40), key=st.text(max_size=20))
def test_any_text_ends_in_a_verdict_and_a_sound_key_meets_itself(name: str, said: str, key: str) -> None:
    judge = verifier(name)
    try:
        judge.check_key(key)
    except UserError:
        return
    assert judge.judge(said, key) in (PASS, WRONG, UNPARSED)
    assert judge.judge(judge.standard or key, key) is PASS


def test_a_whole_reply_is_judged_by_its_last_answer_where_there_is_a_rule_for_it() -> None:
    judge = verifier("maths")
    assert judge.judge_reply is not None
    assert judge.judge_reply("First 41.\nSo \\boxed{42}.", "42") is PASS
    assert judge.judge("First 41.\n42", "42") is not PASS  # an answer is taken whole, not by its last line


def test_math_verify_decides_what_the_own_reader_leaves_open() -> None:
    assert Library.is_installed()
    judge = verifier("math-verify")
    key, said = r"\sin(x)^2+\cos(x)^2", "1"
    judge.check_key(key)
    assert judge.judge(key, key) is PASS
    assert judge.judge("41 = 42", "42") is not PASS
    assert judge.judge(said, key) in (PASS, WRONG)


def test_without_math_verify_its_name_is_a_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seekling.verify.maths.library.find_spec", lambda name: None)
    from seekling.verify import verifiers

    verifiers._library.cache_clear()
    with pytest.raises(UserError, match="math-verify is not installed"):
        verifier("math-verify").check_key("42")


def test_a_function_of_one_s_own_says_true_or_false_or_a_verdict(tmp_path: Path) -> None:
    file = tmp_path / "check.py"
    file.write_text(
        "from seekling import Verdict\n"
        "def ends(answer, key): return answer.endswith(key)\n"
        "def told(answer, key): return Verdict.TIMEOUT\n"
        "def odd(answer, key): return 0.5\n"
        "number = 3\n"
    )
    assert [verifier(f"{file}:ends").judge(said, "x") for said in ("ax", "a")] == [PASS, WRONG]
    assert verifier(f"{file}:told").judge("a", "x") is Verdict.TIMEOUT
    assert verifier(f"{file}:odd").judge("a", "x") == 0.5  # no verdict: the pool of checks leaves that reward open
    assert not verifier(f"{file}:ends").quick
    with pytest.raises(UserError, match="is no function"):
        verifier(f"{file}:number")


def test_an_unknown_verifier_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match='no verifier "math"\nDid you mean "maths"'):
        verifier("math")
