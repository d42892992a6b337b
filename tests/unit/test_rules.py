"""What a request asks of its own tokens: exact scores and exact places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from seekling.engine.rules import (
    AtLeast,
    Banned,
    Bias,
    Penalties,
    StopText,
    Thinking,
    Thought,
    thought_of,
)
from seekling.errors import UserError
from tests.oracles.saying import allowed, limits, scores, speaker

INF = float("inf")
V = 12
STOP = 11
ALL = set(range(V))


def after(rule: Penalties | Bias, said: list[int], logits: list[float]) -> list[float]:
    logits_V = torch.tensor(logits)
    rule.limit(said, logits_V)
    return logits_V.tolist()


# --- scores -----------------------------------------------------------------------------------------------------------


def test_presence_counts_once_and_frequency_every_time() -> None:
    assert after(Penalties([], presence=0.5), [1, 1, 1, 2], [0.0, 3.0, -1.0]) == [0.0, 2.5, -1.5]
    assert after(Penalties([], frequency=0.5), [1, 1, 1, 2], [0.0, 3.0, -1.0]) == [0.0, 1.5, -1.5]
    assert after(Penalties([], presence=-1, frequency=0.25), [1, 1], [0.0, 3.0, -1.0]) == [0.0, 3.5, -1.0]


def test_presence_and_frequency_do_not_count_the_prompt() -> None:
    assert after(Penalties([0, 1, 1], presence=1, frequency=1), [2], [1.0, 1.0, 1.0]) == [1.0, 1.0, -1.0]


def test_repetition_divides_what_is_likely_and_multiplies_what_is_not() -> None:
    assert after(Penalties([0], repetition=2), [1, 1], [4.0, -3.0, 5.0]) == [2.0, -6.0, 5.0]
    assert after(Penalties([0], repetition=0.5), [], [4.0, -3.0, 5.0]) == [8.0, -3.0, 5.0]


def test_repetition_comes_before_what_is_subtracted() -> None:
    assert after(Penalties([], 2, 0.5, 0.25), [0, 0], [4.0, 1.0]) == [4.0 / 2 - 0.5 - 0.5, 1.0]


def test_a_token_that_may_not_come_stays_so_under_penalties_and_biases() -> None:
    assert after(Penalties([0], 2, 1, 1), [0], [-INF, 1.0]) == [-INF, 1.0]
    assert after(Bias({0: 100.0}), [], [-INF, 1.0]) == [-INF, 1.0]


def test_a_bias_is_added_to_its_tokens_and_no_other() -> None:
    assert after(Bias({2: -1.5, 0: 7.0}), [], [1.0, 1.0, 1.0]) == [8.0, 1.0, -0.5]


@pytest.mark.parametrize("make", [
    lambda: Penalties([], repetition=0), lambda: Penalties([], repetition=-1), lambda: Penalties([], repetition=INF),
    lambda: Penalties([], repetition=float("nan")), lambda: Penalties([], presence=2.1),
    lambda: Penalties([], frequency=-2.1), lambda: Penalties([], presence=float("nan")),
    lambda: Bias({0: INF}), lambda: Bias({-1: 1.0}), lambda: Bias(dict.fromkeys(range(301), 1.0)),
    lambda: Bias({0: float("nan")}),
])  # fmt: skip
def test_a_value_outside_its_range_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UserError):
        make()


# --- what may not come ------------------------------------------------------------------------------------------------


def test_what_a_ban_names_may_not_come() -> None:
    rule = Banned(lambda said: {0, 3} if len(said) < 2 else ())
    assert allowed(rule, [], V) == ALL - {0, 3}
    assert allowed(rule, [5, 5], V) == ALL


def test_no_stop_comes_before_so_many_tokens() -> None:
    rule = AtLeast(3, [STOP, 4])
    assert [STOP in allowed(rule, [1] * n, V) for n in range(5)] == [False, False, False, True, True]
    assert 4 not in allowed(rule, [1, 1], V)


def test_a_minimum_of_tokens_gives_way_where_only_a_stop_is_left() -> None:
    logits_V = torch.full((V,), -INF)
    logits_V[STOP] = 0.5
    AtLeast(3, [STOP]).limit([], logits_V)
    assert logits_V[STOP] == 0.5


def test_scores_are_changed_in_place_in_a_row_of_a_batch() -> None:
    logits_BV = torch.ones(3, V)
    for rule in (AtLeast(9, [STOP]), Bias({0: 1.0}), Penalties([1], 2.0), Thinking(Thought((), (2,), True), [STOP], 0)):
        before = logits_BV.clone()
        rule.limit([], logits_BV[1])
        assert not torch.equal(logits_BV[1], before[1])
    assert torch.equal(logits_BV[[0, 2]], torch.ones(2, V))


# --- strings that end an answer ---------------------------------------------------------------------------------------

TABLE = [bytes([byte]) for byte in range(256)]


def ending(strings: list[str], pieces: list[bytes]) -> int | None:
    """After how many pieces an answer ends."""
    rule = StopText(pieces, strings)
    return next((n for n in range(len(pieces) + 1) if rule.ends(range(n))), None)


def test_an_answer_ends_where_a_string_is_complete() -> None:
    assert ending(["END"], [b"the ", b"END", b" of it"]) == 2
    assert ending(["END"], [b"the E", b"N", b"D of", b" it"]) == 3
    assert ending(["b"], [b"aabaa", b"c"]) == 1
    assert ending(["END", "it"], [b"E", b"N", b"it", b"D"]) == 3
    assert ending(["END"], [b"EN", b"EN", b"E"]) is None


def test_a_string_is_found_across_the_bytes_of_a_character() -> None:
    whale = "🐳".encode()
    assert ending(["a🐳b"], [b"xa" + whale[:1], whale[1:3], whale[3:] + b"b"]) == 3
    assert ending(["🐳"], [whale[:3], b"x", whale[3:]]) is None


def test_the_longest_string_is_found_byte_by_byte() -> None:
    text = "ab" * 128
    assert ending([text, "zz"], [bytes([byte]) for byte in (b"x" + text.encode())]) == 257


def test_tokens_that_are_not_shown_are_no_text() -> None:
    tokenizer = speaker()
    shown, silent = tokenizer.think_open, tokenizer.bos
    assert shown is not None and silent is not None
    a, b = tokenizer.encode("a"), tokenizer.encode("b")
    assert StopText(tokenizer, ["ab"]).ends([*a, silent, *b])
    assert not StopText(tokenizer, ["ab"]).ends([*a, shown, *b])
    assert StopText(tokenizer, ["<think>"]).ends([*a, shown])
    assert not StopText(tokenizer, [tokenizer.names["bos_token"]]).ends([silent])


def test_leading_blanks_that_a_decoder_leaves_out_are_no_text() -> None:
    tokenizer = speaker()
    stripped = replace(tokenizer, pieces=replace(tokenizer.pieces, stripped=1))
    said = [tokenizer.encode(" ")[0], tokenizer.encode("x")[0]]
    assert StopText(tokenizer, [" x"]).ends(said)
    assert not StopText(stripped, [" x"]).ends(said)
    assert StopText(stripped, [" x"]).ends([said[0], *said])
    assert StopText(stripped, [" x"]).ends([said[1], *said]), "a blank behind something is text"


def test_the_cut_is_before_the_first_of_the_strings() -> None:
    rule = StopText(TABLE, ["END", "it"])
    assert rule.cut("say it, END") == "say "
    assert rule.cut("say nothing") == "say nothing"
    assert rule.cut("ENDEND") == ""


@pytest.mark.parametrize("strings", [[], [""], ["a", ""], ["a"] * 17, ["a" * 257], ["ü" * 129]])
def test_strings_that_cannot_end_an_answer_are_refused(strings: list[str]) -> None:
    with pytest.raises(UserError):
        StopText(TABLE, strings)
    StopText(TABLE, ["a" * 256] * 16)


# --- thoughts ---------------------------------------------------------------------------------------------------------

ONE = Thought((1,), (2,))
TWO = Thought((1, 3), (2, 4, 5))


def test_a_thought_of_most_tokens_is_closed() -> None:
    rule = Thinking(ONE, [STOP], most=2)
    assert allowed(rule, [7, 1, 7], V) == ALL
    assert allowed(rule, [7, 1, 7, 7], V) == {2}
    assert allowed(rule, [7, 1, 7, 7, 2], V) == ALL
    assert limits(rule, [7, 1, 7, 7], V)[2] == 0, "certain, whatever its score was"


def test_a_thought_that_the_prompt_has_opened_is_closed_and_none_is_where_none_was_opened() -> None:
    started = Thought((1,), (2,), started=True)
    assert allowed(Thinking(started, [STOP], most=0), [], V) == {2}
    assert allowed(Thinking(started, [STOP], most=2), [7, 7], V) == {2}
    assert allowed(Thinking(ONE, [STOP], most=0), [7, 7, 2, 7], V) == ALL


def test_a_close_of_several_tokens_is_forced_one_by_one() -> None:
    rule = Thinking(TWO, [STOP], most=2)
    said = [1, 3, 7, 7]
    for token in (2, 4, 5):
        assert allowed(rule, said, V) == {token}
        said.append(token)
    assert allowed(rule, said, V) == ALL


def test_what_stands_of_a_close_is_not_said_again() -> None:
    assert allowed(Thinking(TWO, [STOP], most=2), [1, 3, 7, 2], V) == {4}
    assert allowed(Thinking(TWO, [STOP], most=2, least=2), [1, 3, 7, 2], V) == {2}, "it would be too short"


def test_a_forced_token_may_come_whatever_forbade_it() -> None:
    logits_V = torch.full((V,), -INF)
    Thinking(ONE, [STOP], most=0).limit([1], logits_V)
    assert logits_V.isfinite().nonzero().tolist() == [[2]]


def test_a_thought_goes_on_before_its_least_tokens() -> None:
    rule = Thinking(TWO, [STOP], least=2)
    assert allowed(rule, [], V) == ALL
    assert allowed(rule, [1, 3], V) == ALL - {STOP}
    assert allowed(rule, [1, 3, 7, 2], V) == ALL, "two closing tokens are still to come"
    assert allowed(rule, [1, 3, 7, 2, 4], V) == ALL - {5}, "one token of thought, and it would be closed"
    assert allowed(rule, [1, 3, 7, 7, 2, 4], V) == ALL


def test_an_answer_may_hold_several_thoughts() -> None:
    rule = Thinking(ONE, [STOP], most=1)
    assert allowed(rule, [1, 7], V) == {2}
    assert allowed(rule, [1, 7, 2, 7, 7, 7], V) == ALL
    assert allowed(rule, [1, 7, 2, 7, 1, 8], V) == {2}


def test_whether_a_prompt_has_opened_a_thought_is_read_from_it() -> None:
    tokenizer = speaker()
    opened, closed = tokenizer.think_open, tokenizer.think_close
    assert opened is not None and closed is not None
    assert thought_of(tokenizer, [9, opened, 9]) == Thought((opened,), (closed,), started=True)
    assert not thought_of(tokenizer, [9, opened, 9, closed]).started
    assert not thought_of(tokenizer, []).started
    assert thought_of(tokenizer, [opened, closed, opened]).started


@pytest.mark.parametrize("make", [
    lambda: Thought((), (2,)), lambda: Thought((1,), ()), lambda: Thought((1,) * 17, (2,)),
    lambda: Thought((1,), (2,) * 17), lambda: Thinking(ONE, [STOP], most=1, least=2),
    lambda: Thinking(ONE, [STOP], least=-1), lambda: Thinking(ONE, [STOP], most=-1),
])  # fmt: skip
def test_a_thought_that_cannot_be_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UserError):
        make()


# --- cost -------------------------------------------------------------------------------------------------------------


class Counted(list[int]):
    """A list that counts how many of its elements are handed out."""

    handed = 0

    def __getitem__(self, index: object) -> object:  # type: ignore[override]
        found = super().__getitem__(index)  # type: ignore[index]
        self.handed += len(found) if isinstance(found, list) else 1
        return found


def test_a_step_of_a_long_answer_reads_no_more_of_it_than_a_step_of_a_short_one() -> None:
    rules = [Penalties([1], 1.5, 1, 1), Thinking(ONE, [STOP], most=9, least=1), StopText([b"x"] * V, ["y"])]
    said = Counted([7, 8] * 2000)
    logits_V = scores(V, 0, 0)
    for rule in rules:
        rule.limit(said, logits_V)
        rule.ends(said)
    said.handed = 0
    for _ in range(10):
        said.append(7)
        for rule in rules:
            rule.limit(said, logits_V)
            rule.ends(said)
    assert said.handed < 10 * len(rules) * 60
