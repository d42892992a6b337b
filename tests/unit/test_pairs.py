"""Pairs of replies: every shape of row, each fault with its line, what is held out or left out, a task's traces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seekling.errors import UserError
from seekling.recipes.chats import Pair, Row, read, read_pairs
from seekling.recipes.config import Dpo
from seekling.recipes.pairs import Couple, Couples, closed, compare, couples, encode_pairs, is_held_out, together
from seekling.recipes.stage import Interrupted
from seekling.records import Problem, Verdict
from seekling.tasks.checking import Checker
from seekling.tasks.corpus import Mixture
from seekling.text.tokenizer import Tokenizer, train
from tests.e2e.manifests.sums import Sums

ASK, GOOD, BAD = ({"role": r, "content": c} for r, c in (("user", "1+2"), ("assistant", "3"), ("assistant", "four")))
EARLIER = [{"role": "user", "content": "0+1"}, {"role": "assistant", "content": "1"}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(["1+2 is 3 and 4+5 is four"] * 5, 300)


def written(folder: Path, *rows: Any, name: str = "pairs.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def refusal(*files: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        list(read_pairs(files))
    return caught.value


# --- rows -------------------------------------------------------------------------------------------------------------

SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    "strings": ({"prompt": "1+2", "chosen": "3", "rejected": "four"}, 1),
    "messages": ({"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]}, 1),
    "a prompt in words": ({"prompt": "1+2", "chosen": [GOOD], "rejected": "four"}, 1),
    "whole conversations": ({"chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, 1),
    "whole conversations beside their prompt": ({"prompt": "1+2", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, 1),
    "several turns": ({"chosen": [*EARLIER, ASK, GOOD], "rejected": [*EARLIER, ASK, BAD]}, 3),
    "further columns": ({"prompt": "1+2", "chosen": "3", "rejected": "four", "score_chosen": 9, "source": None}, 1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_two_replies_to_one_prompt(tmp_path: Path, shape: str) -> None:
    row, given = SHAPES[shape]
    (pair,) = read_pairs([written(tmp_path, row)])
    before = [*EARLIER, ASK][-given:]
    assert pair.chosen.messages == [*before, GOOD] and pair.rejected.messages == [*before, BAD]
    assert pair.chosen.given == pair.rejected.given == given
    assert pair.margin == 0.0


def test_a_margin_is_read_and_a_row_without_one_asks_for_none(tmp_path: Path) -> None:
    rows = [{"prompt": "1+2", "chosen": "3", "rejected": "four", "margin": m} for m in (2, 0.5, None)]
    assert [pair.margin for pair in read_pairs([written(tmp_path, *rows)])] == [2.0, 0.5, 0.0]


def test_a_table_is_read_like_lines(tmp_path: Path) -> None:
    rows = [{"prompt": "1+2", "chosen": "3", "rejected": "four", "margin": 0.25, "id": n} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    assert [pair.margin for pair in read_pairs([tmp_path / "pairs.parquet"])] == [0.25] * 3


FAULTS: dict[str, tuple[Any, str]] = {
    "no rejected": ({"prompt": "1+2", "chosen": "3"}, "found the keys prompt, chosen; expected prompt, chosen"),
    "no chosen": ({"prompt": "1+2", "rejected": "3"}, "found the keys prompt, rejected; expected"),
    "rejected is null": ({"prompt": "1+2", "chosen": "3", "rejected": None}, "found the keys prompt, chosen; expected"),
    "no prompt": ({"chosen": "3", "rejected": "4"}, "begins with the assistant; expected a prompt"),
    "equal": ({"prompt": "1+2", "chosen": "3", "rejected": "3"}, "chosen and rejected are the same"),
    "equal conversations": ({"chosen": [ASK, GOOD], "rejected": [ASK, GOOD]}, "chosen and rejected are the same"),
    "empty chosen": ({"prompt": "1+2", "chosen": " ", "rejected": "3"}, "chosen: message 2: the assistant's text"),
    "empty rejected": ({"prompt": "1+2", "chosen": "3", "rejected": ""}, "rejected: message 2: the assistant's text"),
    "no reply left": ({"chosen": [ASK, GOOD], "rejected": [ASK]}, "rejected: nothing to learn: the assistant"),
    "other prompts": ({"chosen": [ASK, GOOD], "rejected": [EARLIER[0], GOOD]}, "begin differently; expected one"),
    "one with its prompt": ({"prompt": "1+2", "chosen": [ASK, GOOD], "rejected": "4"}, "expected both or neither"),
    "a strange role": (
        {"prompt": "1", "chosen": [{"role": "assistant", "content": "a"}, {"role": "bot"}], "rejected": "b"},
        "chosen: message 3 has the role 'bot'",
    ),
    "a margin in words": ({"prompt": "1", "chosen": "3", "rejected": "4", "margin": "much"}, '"margin" is a string'),
    "no object": ([1], "a list where an object belongs"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_its_line_and_what_was_expected(tmp_path: Path, fault: str) -> None:
    row, said = FAULTS[fault]
    letter = refusal(written(tmp_path, SHAPES["strings"][0], row))
    assert letter.what == "1 row is no pair, of 2" and "docs/preference.md" in letter.next_step
    assert letter.where.startswith(f"{tmp_path / 'pairs.jsonl'}, line 2: ")
    if fault != "no object":
        assert said in letter.where


def test_a_table_of_something_else_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"messages": "x"}]), tmp_path / "chats.parquet")
    assert "is no table of pairs: found the keys messages" in refusal(tmp_path / "chats.parquet").what
    assert "holds no pairs" in refusal(written(tmp_path)).what


def test_fine_tuning_reads_the_same_rows_and_learns_what_was_chosen(tmp_path: Path) -> None:
    file = written(tmp_path, *(row for row, _ in SHAPES.values()))
    chats, pairs = list(read([file])), list(read_pairs([file]))
    assert [chat.messages for chat in chats] == [pair.chosen.messages for pair in pairs]


# --- couples ----------------------------------------------------------------------------------------------------------


def pair_of(asked: str, good: str, bad: str, where: str = "here") -> Pair:
    rows = [Row([{"role": "user", "content": asked}, {"role": "assistant", "content": said}], where, 1)
            for said in (good, bad)]  # fmt: skip
    return Pair(*rows)


def test_both_texts_share_their_prompt_and_end_with_the_stop_that_is_learned(tokenizer: Tokenizer) -> None:
    (couple,) = encode_pairs(tokenizer, [pair_of("1+2", "3", "four and 5")])
    for text, said in zip(couple.texts, ("3", "four and 5"), strict=True):
        own = np.flatnonzero(text.weight)
        assert text.tokens[-1] == tokenizer.eos and text.weight[-1] == 1
        assert tokenizer.decode([text.tokens[t] for t in own], skip_special=True) == said
    first = int(np.flatnonzero(couple.chosen.weight)[0])
    assert list(couple.chosen.tokens[:first]) == list(couple.rejected.tokens[:first])
    assert couple.num_tokens == sum(len(text.tokens) for text in couple.texts)


def test_what_a_template_writes_after_the_stop_is_cut() -> None:
    row = pair_of("a", "b", "c").chosen
    assert closed(row, [([1, 2, 3, 9], [False, True, True, False])]) == ([1, 2, 3], [False, True, True])


def test_a_reply_that_a_template_parts_is_refused_with_its_line() -> None:
    with pytest.raises(UserError, match="makes 2 texts of one reply") as caught:
        closed(pair_of("a", "b", "c", "pairs.jsonl, line 7").chosen, [([1], [True]), ([2], [True])])
    assert caught.value.where == "pairs.jsonl, line 7"


def test_replies_that_a_template_makes_equal_are_refused_with_their_line(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seekling.recipes.pairs.encode", lambda t, rows: [[([1, 2], [False, True])] for _ in rows])
    with pytest.raises(UserError, match="the same once the chat template") as caught:
        encode_pairs(tokenizer, [pair_of("a", "b", "c", "pairs.jsonl, line 3")])
    assert caught.value.where == "pairs.jsonl, line 3"


def test_what_is_held_out_is_decided_by_the_prompt_alone() -> None:
    prompts = [f"{n}+1" for n in range(400)]
    held = {p for p in prompts if is_held_out(pair_of(p, "x", "y").chosen, 0.2)}
    assert 50 < len(held) < 110
    assert held == {p for p in prompts if is_held_out(pair_of(p, "other", "z").rejected, 0.2)}
    assert not any(is_held_out(pair_of(p, "x", "y").chosen, 0.0) for p in prompts)


# --- a stage's pairs --------------------------------------------------------------------------------------------------


class Folder:
    """A stage's folder that remembers what was written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.facts = folder, dict[str, Any]()

    def write(self, **facts: Any) -> None:
        self.facts |= facts


def stage_in(folder: Path, **more: Any) -> Any:
    """As much of a stage as reading pairs looks at."""
    heard: list[str] = []
    usual = dict(name="liked", seed="0/liked", folder=Folder(folder), warn=heard.append, heard=heard,
                 stop_requested=lambda: False, tell=lambda *_: None)  # fmt: skip
    return SimpleNamespace(**usual | more)


def rows(count: int = 40, **more: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": f"{n}+2", "chosen": f"{n} 3", "rejected": f"four {n}", "margin": n % 3} | more for n in range(count)
    ]


def config_of(data: Path | str, **told: Any) -> Dpo:
    packing = {"row_tokens": told.pop("row_tokens", 64)}
    return Dpo(name="liked", data=str(data), steps=1, packing=packing, **{"pairs_per_step": 6} | told)


def opened(stage: Any, config: Dpo, tokenizer: Tokenizer, context: int = 64) -> tuple[list[list[Couple]], Couples]:
    with couples(stage, config, tokenizer, context) as found:
        return [found.train(step) for step in range(3)], found


def told(couple: Couple) -> tuple[Any, ...]:
    return (*map(tuple, (couple.chosen.tokens, couple.rejected.tokens)), couple.margin)


def test_a_step_draws_its_pairs_from_its_number_alone(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = config_of(written(tmp_path, *rows()))
    steps, again = (opened(stage_in(tmp_path), config, tokenizer)[0] for _ in range(2))
    assert [[told(c) for c in step] for step in steps] == [[told(c) for c in step] for step in again]
    for step in steps:
        assert len({told(c) for c in step}) == 6, "no pair twice while others wait"
    assert [told(c) for c in steps[0]] != [told(c) for c in steps[1]]


def test_held_out_pairs_are_never_trained_on(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = config_of(written(tmp_path, *rows()), held_out=0.3, pairs_per_step=200)
    stage = stage_in(tmp_path)
    steps, found = opened(stage, config, tokenizer)
    trained, held = {told(c) for c in steps[0]}, {told(c) for c in found.held_out}
    assert trained and held and not trained & held and len(trained | held) == 40
    assert stage.folder.facts["pairs"] == {"trained on": len(trained), "held out": len(held)}


def test_pairs_are_left_out_by_margin_and_by_length(tmp_path: Path, tokenizer: Tokenizer) -> None:
    long = {"prompt": "1+2", "chosen": "3", "rejected": "4 " * 12, "margin": 2}
    stage = stage_in(tmp_path)
    config = config_of(written(tmp_path, *rows(30), long), min_margin=1.0, length_ratio=5.0, held_out=0.0)
    steps, _ = opened(stage, config, tokenizer)
    assert stage.folder.facts["pairs"] == {"trained on": 20, "too near": 10, "lengths differ": 1}
    assert all(couple.margin >= 1 for step in steps for couple in step)


@pytest.mark.parametrize("room, said", [({"row_tokens": 40}, "row_tokens to at least"), ({}, "the model reads 30")])
def test_a_pair_that_is_too_long_is_refused_with_its_line(
    tmp_path: Path, tokenizer: Tokenizer, room: dict[str, int], said: str
) -> None:
    long = {"prompt": "1+2", "chosen": "3", "rejected": "4 " * 20}
    file = written(tmp_path, *rows(3), long)
    with pytest.raises(UserError, match="1 of 4 pairs are too long") as caught:
        opened(stage_in(tmp_path), config_of(file, **room), tokenizer, context=64 if room else 30)
    assert caught.value.where == f"{file}, line 4" and said in f"{caught.value.what} {caught.value.next_step}"
    stage = stage_in(tmp_path)
    opened(stage, config_of(file, too_long="drop", held_out=0.0, **room), tokenizer, context=64 if room else 30)
    assert stage.folder.facts["pairs"] == {"trained on": 3, "too long": 1} and "left out" in stage.heard[0]


def test_without_a_pair_left_the_letter_counts_why(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = config_of(written(tmp_path, *rows(9)), min_margin=7.0)
    with pytest.raises(UserError, match=r"no pair to learn from \(too near: 9\)"):
        opened(stage_in(tmp_path), config, tokenizer)


def test_someone_who_asks_to_stop_is_heard_while_a_file_is_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    stage = stage_in(tmp_path, stop_requested=lambda: True)
    with pytest.raises(Interrupted):
        opened(stage, config_of(written(tmp_path, *rows(3))), tokenizer)


# --- a task's traces --------------------------------------------------------------------------------------------------


def problem_of(row: Row) -> Problem:
    terms = row.messages[0]["content"]
    return Problem("", "sums", terms, str(sum(map(int, terms.split("+")))), 2)


def answer(row: Row) -> str:
    return row.messages[1]["content"].rpartition("<answer>")[2].removesuffix("</answer>")


@pytest.fixture
def sums() -> Iterator[tuple[Sums, Checker]]:
    task = Sums(high=20)
    yield task, Checker(task)


def test_of_two_traces_the_chosen_passes_and_the_rejected_fails(sums: tuple[Sums, Checker]) -> None:
    task, checker = sums
    mixture = Mixture(qualities={"right": 0.5, "wrong": 0.5})
    found = list(islice(compare(task, checker, mixture, "train", "0"), 12))
    for pair in found:
        assert task.check(problem_of(pair.chosen), answer(pair.chosen)) is Verdict.PASS
        assert task.check(problem_of(pair.rejected), answer(pair.rejected)) is Verdict.WRONG
        assert pair.chosen.messages[0] == pair.rejected.messages[0] and pair.chosen.given == 1
    assert found == list(islice(compare(task, checker, mixture, "train", "0"), 12))
    held = list(islice(compare(task, checker, mixture, "held_out", "0"), 6))
    assert not {p.chosen.messages[0]["content"] for p in held} & {p.chosen.messages[0]["content"] for p in found}


def test_a_mixture_without_failures_leaves_nothing_to_compare(
    sums: tuple[Sums, Checker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seekling.recipes.pairs.MOST_MISSES", 20)
    with pytest.raises(UserError, match="no two to compare"):
        next(compare(*sums, Mixture(qualities={"right": 1.0}), "train", "0"))


def test_texts_of_couples_stand_side_by_side(tokenizer: Tokenizer) -> None:
    found = encode_pairs(tokenizer, [pair_of("1+2", "3", "four"), pair_of("4+5", "9", "8")])
    texts = together(found)
    assert [t.tokens for t in texts] == [t.tokens for c in found for t in (c.chosen, c.rejected)]
