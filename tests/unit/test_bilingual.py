"""Sums in two languages: the work is arithmetic's, its words tell the language, and neither depends on the other."""

from __future__ import annotations

from random import Random

import pytest

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.rewards.criteria import language_share
from seekling.tasks.arithmetic import Arithmetic
from seekling.tasks.bilingual import LANGUAGES, Bilingual, _steps
from seekling.tasks.registry import build_task
from seekling.text.reasoning import split

TASK = Bilingual()
SEEDS = range(60)


def thoughts(task: Bilingual, quality: str, count: int = 400) -> list[tuple[str, float]]:
    """Thoughts of a quality, each with the share of its words that are of the problem's language."""
    found = []
    for seed in range(count):
        problem = task.draw(Random(seed))
        thinking = split(task.trace(problem, Random(seed), quality)).thinking
        found.append((thinking, language_share(thinking, problem.info["language"])))
    return found


def test_no_word_belongs_to_both_languages_and_each_has_its_script() -> None:
    english, chinese = LANGUAGES["en"].all(), LANGUAGES["zh"].all()
    assert all(word.isascii() and len(word) > 1 for word in english), "single letters are no words to the criterion"
    assert all(language_share(word, "zh") == 1 for word in chinese)
    assert len({len(words.verdicts) for words in LANGUAGES.values()}) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_word_tells_the_language_and_the_rest_is_arithmetic(seed: int) -> None:
    problem = TASK.draw(Random(seed))
    asks, _, plain = problem.prompt.partition(" ")
    assert asks == LANGUAGES[problem.info["language"]].asks
    assert Arithmetic().draw(Random(seed)).prompt == plain


def test_the_same_sum_in_the_other_language_is_the_same_problem() -> None:
    asked: dict[str, set[str]] = {}
    for seed in range(3000):
        problem = Bilingual(sizes=(2,)).draw(Random(seed))
        asked.setdefault(problem.id, set()).add(problem.info["language"])
    assert {"en", "zh"} in asked.values()


def test_a_running_line_is_written_out_operation_by_operation() -> None:
    assert _steps("12+7=19-5=14") == ["12+7=19", "19-5=14"]
    assert _steps("12+7-5=14+20=34") == ["12+7-5=14", "14+20=34"]
    assert _steps("14") == ["14"] and _steps("again") == ["again"]


@pytest.mark.parametrize("quality", TASK.qualities)
def test_without_its_words_a_thought_is_what_arithmetic_writes(quality: str) -> None:
    for seed in SEEDS:
        problem = TASK.draw(Random(seed))
        plain, value = Arithmetic().worked(problem.prompt.partition(" ")[2], Random(seed), quality)
        said = split(TASK.trace(problem, Random(seed), quality))
        assert said.answer == str(value)
        worked = [" ".join(_steps(line)) for line in plain.split("\n") if line[0].isdigit()]
        assert TASK.attempts(problem, said.thinking) == worked


def test_the_words_are_no_part_of_an_attempt() -> None:
    problem = TASK.draw(Random(0))
    assert TASK.attempts(problem, "first 1+2=3 再 3+4=7") == TASK.attempts(problem, "取 1+2=3 next 3+4=7")
    assert TASK.attempts(problem, "first 1+2=3 and 3+4=7") == [], "a word that is not known"
    assert TASK.attempts(problem, "first 1+2=\nagain\n约 7") == ["7"]


@pytest.mark.parametrize("quality", TASK.qualities)
def test_how_a_thought_is_worded_does_not_depend_on_how_well_it_works(quality: str) -> None:
    shares = [share for _, share in thoughts(TASK, quality)]
    assert sum(share == 1 for share in shares) / len(shares) == pytest.approx(0.3, abs=0.08)
    assert sum(share == 0 for share in shares) / len(shares) >= 0.05


@pytest.mark.parametrize(("settings", "shares"), [
    ({"mixed": 0.0, "other": 0.0}, {1.0}), ({"mixed": 0.0, "other": 1.0}, {0.0}),
])  # fmt: skip
def test_a_task_can_keep_to_one_language(settings: dict[str, float], shares: set[float]) -> None:
    assert {share for _, share in thoughts(Bilingual(**settings), "rechecks", 60)} == shares  # type: ignore[arg-type]


def test_a_mixed_thought_of_several_words_holds_both_languages() -> None:
    found = thoughts(Bilingual(mixed=1.0, other=0.0), "rechecks", 80)
    assert all(0 < share < 1 for _, share in found)


def test_facts_are_operations_without_words() -> None:
    for seed in SEEDS:
        steps = TASK.facts(Random(seed), 8).split(" ")
        assert len(steps) == 8 and language_share(" ".join(steps), "en") == 0
        for step in steps:
            terms, _, result = step.partition("=")
            assert eval(terms) == int(result)


def test_the_answer_is_checked_as_in_arithmetic() -> None:
    problem = TASK.draw(Random(4))
    assert TASK.check(problem, problem.answer) is Verdict.PASS
    assert TASK.check(problem, f"then {problem.answer}") is Verdict.UNPARSED


@pytest.mark.parametrize("wrong", [{"mixed": 0.7, "other": 0.4}, {"languages": []}, {"languages": ["fr"]}, {"high": 0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        build_task({"name": "bilingual"} | wrong)
