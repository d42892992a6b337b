"""Laws of sieves and of choosing, over rollouts that nobody picked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seekling.recipes.config import Reject, Sieves
from seekling.recipes.gathering import chosen
from seekling.recipes.sieves import SIEVES, Example, Sieve, sieved
from seekling.recipes.teaching import in_form, spoken
from seekling.records import Problem, Score, Stop, Verdict
from seekling.remote.chat import Said
from seekling.rewards.rubric import answer_of
from seekling.text.reasoning import split

PIECES = ["<think>", "</think>", "<answer>", "</answer>", "one ", "two ", "三", "```", "\n\n", "7", " "]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
SCORES = st.sampled_from([
    Score(1.0, Verdict.PASS), Score(0.5, Verdict.WRONG), Score(0.0, Verdict.UNPARSED), Score(None, Verdict.INFRA_ERROR),
])  # fmt: skip
EXAMPLES = st.builds(
    lambda text, tokens, stop, score, language: Example(
        Problem("p", "sums", "3+4", "7", 2, {"language": language} if language else {}), spoken(text, tokens, stop),
        score,
    ),
    TEXTS, st.integers(0, 9), st.sampled_from(Stop), SCORES, st.sampled_from(["", "en", "zh", "eo"]),
)  # fmt: skip
LISTS = st.lists(EXAMPLES, max_size=6)
OPEN = Sieves(correct=False, well_formed=False, most_tokens=0, language=0, paragraph=0, code_blocks=True, repetition=1)


@given(LISTS)
def test_what_goes_and_what_stays_is_what_came(examples: list[Example]) -> None:
    sieve = Sieve(list(examples))
    sieved(sieve, Sieves())
    assert len(sieve.left) + sum(len(step.gone) for step in sieve.steps.values()) == len(examples)
    assert all(why for step in sieve.steps.values() for _, why in step.gone)
    left = list(sieve.left)
    sieved(sieve, Sieves())
    assert sieve.left == left, "what stayed once stays"


@given(LISTS)
def test_sieves_that_are_off_take_only_silence_and_what_was_cut(examples: list[Example]) -> None:
    sieve = Sieve(list(examples))
    sieved(sieve, OPEN)
    assert {name for name, step in sieve.steps.items() if step.gone} <= {"silence", "length"}
    assert all(one.rollout.text.strip() and one.rollout.stop is Stop.STOP for one in sieve.left)


@given(EXAMPLES)
def test_what_stays_is_right_and_in_form(example: Example) -> None:
    faults = {name: fault(example.problem, example.rollout, example.score, Sieves()) for name, fault in SIEVES.items()}
    assert (not faults["wrong answers"]) == (example.score.reward is not None and example.score.verdict is Verdict.PASS)
    assert (not faults["form"]) == split(example.rollout.text).well_formed


@given(LISTS, st.integers(1, 3), st.sampled_from(["best", "shortest"]))
def test_no_rollout_left_out_is_better_than_one_that_is_chosen(examples: list[Example], keep: int, choose: str) -> None:
    config = Reject(name="r", keep=keep, choose=choose)  # type: ignore[arg-type]
    taken = chosen(examples, config)
    texts = {example.rollout.text for example in examples}
    assert len({example.rollout.text for example in taken}) == len(taken) == min(keep, len(texts))
    rest = [one for one in examples if one.rollout.text not in {other.rollout.text for other in taken}]
    for one in rest:
        for other in taken:
            if choose == "best":
                assert (other.score.reward or 0.0) >= (one.score.reward or 0.0)
            else:
                assert len(other.rollout.tokens) <= len(one.rollout.tokens)


@given(TEXTS.filter(lambda text: "<" not in text), TEXTS, st.sampled_from(["answer", "reply"]))
def test_whatever_a_teacher_says_is_nothing_or_one_thought_and_one_answer(thinking: str, text: str, reads: str) -> None:
    made = in_form(Said(text, thinking=thinking), reads)
    assert not made or (made.startswith("<think>") and made.endswith("</answer>"))
    assert made or not (thinking.strip() or split(text).reply.strip() or split(text).answer)
    if made and "<" not in text:
        assert split(made).well_formed and (answer_of(made, reads) or "") == text.strip()
