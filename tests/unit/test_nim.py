"""Nim: winning moves against a search of the whole game, traces, and games against both opponents."""

from __future__ import annotations

import time
from functools import cache
from itertools import product
from random import Random

import pytest

from seekling.config import parse
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.selftests.outcome import require
from seekling.selftests.tasks import of_key
from seekling.tasks.nim import Nim, NimGame, winning
from seekling.tasks.protocol import identity
from seekling.text.reasoning import split

TASK = Nim()


def asked(*piles: int) -> Problem:
    key = " ".join(f"{pile}>{rest}" for pile, rest in winning(piles))
    prompt = f"nim {' '.join(map(str, piles))}"
    return Problem(identity("nim", sorted(piles)), "nim", prompt, key, len(piles), {"piles": piles})


@cache
def loses(piles: tuple[int, ...]) -> bool:
    """Whether who is to move loses, by trying every move: an oracle that knows no nim-sum."""
    after = ((*piles[:place], rest, *piles[place + 1 :]) for place, pile in enumerate(piles) for rest in range(pile))
    return not any(loses(tuple(sorted(rests))) for rests in after)


def test_its_own_keys_pass() -> None:
    require(*of_key(TASK), *of_key(Nim(asks="one")))


def test_the_moves_that_win_are_those_after_which_the_other_loses() -> None:
    for piles in product(range(1, 6), repeat=3):
        found = {
            (pile, rest)
            for place, pile in enumerate(piles)
            for rest in range(pile)
            if loses(tuple(sorted((*piles[:place], rest, *piles[place + 1 :]))))
        }
        assert set(winning(piles)) == found


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("12>6", Verdict.PASS), (" 12>6\n", Verdict.PASS),
        ("12>5", Verdict.WRONG), ("5>3", Verdict.WRONG), ("12>6 5>3", Verdict.WRONG), ("12>6 12>6", Verdict.WRONG),
        ("6>12", Verdict.WRONG), ("12>12", Verdict.WRONG), ("13>6", Verdict.WRONG),
        ("6", Verdict.UNPARSED), ("", Verdict.UNPARSED), ("12 > 6", Verdict.UNPARSED), ("12>06", Verdict.UNPARSED),
        ("0>0", Verdict.UNPARSED), ("12>6 or 5>3", Verdict.UNPARSED), ("12>6?", Verdict.UNPARSED),
        ("１２>6", Verdict.UNPARSED), ("12>6 " * 10_000, Verdict.UNPARSED), ("9" * 100_000, Verdict.UNPARSED),
    ],
)  # fmt: skip
def test_the_verdict_is_exact_and_never_slow(answer: str, verdict: Verdict) -> None:
    start = time.process_time()
    assert TASK.check(asked(3, 5, 12), answer) is verdict
    assert time.process_time() - start < 0.2


def test_all_winning_moves_are_asked_for_or_any_of_them() -> None:
    problem = asked(7, 6, 4, 4)
    assert len(winning((7, 6, 4, 4))) == 1
    three = asked(4, 5, 6)
    assert three.answer == "4>3 5>2 6>1"
    assert TASK.check(three, "6>1, 4>3, 5>2") is Verdict.PASS
    assert TASK.check(three, "6>1") is Verdict.WRONG
    one = Nim(asks="one")
    assert one.check(three, "6>1") is one.check(three, "4>3") is Verdict.PASS
    assert one.check(three, "6>2") is Verdict.WRONG
    assert one.check(three, "6>1 4>3") is Verdict.UNPARSED
    assert one.check(problem, problem.answer) is Verdict.PASS


def test_the_order_of_piles_makes_no_other_problem() -> None:
    assert asked(3, 5, 12).id == asked(12, 3, 5).id != asked(3, 5, 11).id


def test_an_expert_works_out_the_nim_sum_and_tries_it_on_every_pile() -> None:
    trace = TASK.trace(asked(3, 5, 12), Random(0), "expert")
    assert trace == "<think>3^5=6^12=10\n3^10=9\n5^10=15\n12^10=6\n12>6</think><answer>12>6</answer>"


def test_no_line_of_an_expert_repeats_another() -> None:
    lines = split(TASK.trace(asked(7, 7, 5), Random(0), "expert")).thinking.split("\n")
    assert len(set(lines)) == len(lines)


def test_a_slip_is_one_result_that_is_off() -> None:
    def wrong(line: str) -> int:
        terms = line.replace("^", " ").replace("=", " = ").split()
        value, count = int(terms[0]), 0
        for place, term in enumerate(terms[1:], 1):
            if term == "=":
                count += int(terms[place + 1]) != value
                value = int(terms[place + 1])
            elif terms[place - 1] != "=":
                value ^= int(term)
        return count

    for seed in range(50):
        rng = Random(seed)
        lines = split(TASK.trace(TASK.draw(rng), rng, "slips")).thinking.split("\n")[:-1]
        assert sum(wrong(line) for line in lines) <= 1
        assert (
            sum(wrong(line) for line in split(TASK.trace(TASK.draw(rng), rng, "expert")).thinking.split("\n")[:-1]) == 0
        )


def test_facts_are_right() -> None:
    for line in TASK.facts(Random(0), 50).split("\n"):
        left, right = line.split("=")
        a, b = left.split("^")
        assert int(a) ^ int(b) == int(right)


def test_the_last_moves_named_are_the_attempt() -> None:
    problem = asked(3, 5, 12)
    assert TASK.attempts(problem, "3^5=6\n5>3\n12>6") == ["5>3", "12>6"]
    assert TASK.hits(problem, "5>3\n12>6") and not TASK.hits(problem, "12>6\n5>3") and not TASK.hits(problem, "12>")


def played(game: NimGame, problem: Problem, slips: int) -> Verdict | None:
    """A game of winning moves, but for the first ``slips`` turns, which take one where that does not win."""
    seen, turns = game.reset(problem), 0
    while True:
        piles = tuple(int(pile) for pile in seen.split("nim ")[1].split())
        wrong = [(pile, pile - 1) for pile in piles if (pile, pile - 1) not in winning(piles)]
        good = winning(piles) or [(piles[0], 0)]
        pile, rest = wrong[0] if turns < slips and wrong else good[0]
        turn = game.step(f"{pile}>{rest}")
        if turn.done:
            return turn.verdict
        seen, turns = turn.observation, turns + 1


def test_perfect_play_beats_both_opponents_and_one_slip_loses_to_the_perfect_one() -> None:
    for seed in range(30):
        problem = TASK.draw(Random(seed))
        assert played(NimGame(), problem, 0) is played(NimGame("random"), problem, 0) is Verdict.PASS
        assert played(NimGame(), problem, 1) is Verdict.WRONG


def test_equal_actions_give_equal_turns_also_of_one_object_played_again() -> None:
    problem, game = asked(7, 9, 5), NimGame("random")
    first = [game.reset(problem), game.step("9>1"), game.step("5>4")]
    assert first == [game.reset(problem), game.step("9>1"), game.step("5>4")]
    assert first[0] == "nim 7 9 5"


@pytest.mark.parametrize(
    ("action", "verdict"),
    [("9>10", Verdict.WRONG), ("4>1", Verdict.WRONG), ("7>1 9>2", Verdict.WRONG), ("take", Verdict.UNPARSED)],
)
def test_what_is_no_legal_move_ends_the_game(action: str, verdict: Verdict) -> None:
    game = NimGame()
    game.reset(asked(7, 9, 5))
    turn = game.step(action)
    assert turn.done and turn.verdict is verdict


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"sizes": []}, "sizes"),
        ({"sizes": [1]}, "between 2 and 30"),
        ({"high": 2}, "high"),
        ({"hihg": 9}, 'mean "high"'),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        parse(Nim, settings)


def test_an_unknown_quality_names_the_nearest() -> None:
    with pytest.raises(UserError, match='did you mean "expert"'):
        TASK.trace(asked(3, 5, 12), Random(0), "expret")
