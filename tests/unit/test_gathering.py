"""Gathering: each sieve by example, a teacher's words in form, and mistakes that are found before anything runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from seekling.errors import UserError
from seekling.recipes.config import Reject, Sieves
from seekling.recipes.gathering import recalled
from seekling.recipes.manifest import load_manifest
from seekling.recipes.sieves import SIEVES
from seekling.recipes.stage import Interrupted, Stage
from seekling.recipes.teaching import Teaching, in_form, spoken
from seekling.records import Group, Problem, Score, Stop, Verdict
from seekling.remote.chat import Chat, Endpoint, Said
from seekling.runlog.ledger import Ledger, read_ledger
from seekling.runlog.run import Journal, StageFolder
from tests.conftest import fresh_toy
from tests.fixtures.endpoint import Heard, endpoint

PASSED = Score(1.0, Verdict.PASS)
PROBLEMS = [Problem(f"p{number}", "sums", f"{number}+1", str(number + 1), 2) for number in range(3)]


def why(
    sieve: str, thinking: str, *, language: str = "", tokens: int = 5, stop: Stop = Stop.STOP, score: Score = PASSED,
    **how: Any,
) -> str:  # fmt: skip
    """Why a rollout with this thinking goes."""
    problem = Problem("p", "sums", "3+4", "7", 2, {"language": language} if language else {})
    text = f"<think>{thinking}</think><answer>7</answer>"
    return SIEVES[sieve](problem, spoken(text, tokens, stop), score, Sieves(**how))


# --- sieves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thinking", "language", "said"),
    [
        ("First I add three and four", "", ""),
        ("先把三和四相加", "", ""),
        ("足し算をします。三と四です", "", ""),
        ("сначала сложим три и четыре", "", ""),
        ("3+4=7", "", ""),
        ("First I 把三和四 add", "", "% of its words are han"),
        ("so `把三和四相加` is what I add here", "", ""),
        ("First I add three and four, и это будет семь", "", "56 % of its words are latin"),
        ("先把三和四相加", "en", "0 % of its words are en"),
        ("First I add three and four", "zh", "0 % of its words are zh"),
        ("D'abord il faut que je compte avec les doigts de la main", "fr", ""),
        ("First I have to add the one to the other with my hands", "fr", "its thinking is not in fr"),
        ("3+4=7", "zh", ""),
        ("Saluton al la mondo", "eo", ""),
    ],
)  # fmt: skip
def test_a_thought_keeps_to_one_language_and_to_its_problems(thinking: str, language: str, said: str) -> None:
    told = why("language", thinking, language=language)
    assert said in told if said else not told


@pytest.mark.parametrize(
    ("sieve", "thinking", "how", "said"),
    [
        ("wrong answers", "x", {"score": Score(0.0, Verdict.WRONG)}, "judged wrong: 7"),
        ("wrong answers", "x", {"score": Score(None, Verdict.INFRA_ERROR)}, "its check failed by itself"),
        ("wrong answers", "x", {"score": Score(0.0, Verdict.WRONG), "correct": False}, ""),
        ("form", "x</think>", {}, "not in the asked form"),
        ("form", "x</think>", {"well_formed": False}, ""),
        ("length", "x", {"tokens": 9, "most_tokens": 8}, "9 tokens, at most 8"),
        ("length", "x", {"tokens": 8, "most_tokens": 8}, ""),
        ("length", "x", {"stop": Stop.LENGTH}, "cut off after 5 tokens"),
        ("long paragraphs", "a" * 9 + "\n\n" + "b" * 12, {"paragraph": 10}, "12 characters, at most 10"),
        ("long paragraphs", "a" * 9 + "\n \n" + "b" * 9, {"paragraph": 10}, ""),
        ("code blocks", "```python\nx\n```", {}, "a block of code"),
        ("code blocks", "```python\nx\n```", {"code_blocks": True}, ""),
        ("repetition", "and so on, and so on, and so on, and so on", {}, "% was there before, at most 20 %"),
        ("repetition", "and so on, and so on, and so on, and so on", {"repetition": 1.0}, ""),
    ],
)  # fmt: skip
def test_a_sieve_says_why(sieve: str, thinking: str, how: dict[str, Any], said: str) -> None:
    told = why(sieve, thinking, **how)
    assert said in told if said else not told


# --- a teacher's words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "reads", "text"),
    [
        (Said("<answer>7</answer>", thinking="3+4"), "answer", "<think>3+4</think><answer>7</answer>"),
        (Said("It is <answer> 7 </answer>"), "answer", "<think>It is</think><answer>7</answer>"),
        (Said("<think>3+4</think>\nIt is 7"), "answer", "<think>3+4</think><answer>It is 7</answer>"),
        (Said("<think>3+4</think><answer>7</answer>"), "answer", "<think>3+4</think><answer>7</answer>"),
        (Said("Dear Ann, no.", thinking="hm"), "reply", "<think>hm</think><answer>Dear Ann, no.</answer>"),
        (Said("", thinking="still thinki", is_cut=True), "answer", "<think>still thinki</think><answer></answer>"),
        (Said("  "), "answer", ""),
    ],
)  # fmt: skip
def test_a_reply_is_put_in_form(said: Said, reads: str, text: str) -> None:
    assert in_form(said, reads) == text


class Task:
    """Whatever reads tagged answers."""

    name = "sums"


@contextmanager
def taught(folder: Path, heard: Heard, stop: threading.Event | None = None, **how: Any) -> Iterator[Teaching]:
    """A teacher of a stage in ``folder`` that does not wait between attempts."""
    config = Reject(name="r", samples=2, teacher={"model": "big", "url": heard.url, "tries": 1} | how)
    with ExitStack() as closing:
        ledger = Ledger(folder)
        stage = Stage(
            "r", StageFolder(folder), (), "0/r", 0, torch.device("cpu"), torch.float32, ledger, lambda *_: None,
            lambda _: None, stop.is_set if stop else lambda: False,
        )  # fmt: skip
        chat = Chat(Endpoint(heard.url, "big", tries=1), sleep=lambda _: None)
        teaching = Teaching(stage, config, Task(), chat)
        for opened in (ledger, stage.metrics, teaching):
            closing.callback(opened.close)
        yield teaching


def said_to(groups: Sequence[Group]) -> list[list[str]]:
    return [[rollout.text for rollout in group.rollouts] for group in groups]


def test_replies_come_side_by_side_and_in_order(tmp_path: Path) -> None:
    with (
        endpoint(lambda body: f"<answer>{body['messages'][0]['content'].split()[0]}</answer>") as heard,
        taught(tmp_path, heard, concurrency=4) as teaching,
    ):
        groups = teaching.groups(0, PROBLEMS)
    assert said_to(groups) == [[f"<think></think><answer>{one.prompt}</answer>"] * 2 for one in PROBLEMS]
    entries = read_ledger(tmp_path)
    assert sorted(entry.step for entry in entries) == list(range(6))
    assert {(entry.kind, entry.tokens, entry.flops) for entry in entries} == {("teacher", 5, 0.0)}


def test_one_question_without_an_answer_is_silence_and_is_not_kept(tmp_path: Path) -> None:
    with endpoint(lambda body: (503, b"busy", {}) if body["messages"][0]["content"][0] == "1" else "7") as heard:
        with taught(tmp_path, heard, concurrency=1) as teaching:
            first, silent, last = said_to(teaching.groups(0, PROBLEMS))
        assert silent == ["", ""] and first == last == ["<think></think><answer>7</answer>"] * 2
        with taught(tmp_path, heard, concurrency=1) as teaching:
            teaching.groups(0, PROBLEMS)
    assert len(heard.bodies) == 6 + 2, "what was silent is asked again, and nothing else"


def test_who_is_asked_to_stop_asks_nobody_any_more(tmp_path: Path) -> None:
    stop = threading.Event()

    def answer(body: dict[str, Any]) -> str:
        stop.set()
        return "7"

    with (
        endpoint(answer) as heard,
        taught(tmp_path, heard, stop, concurrency=1) as teaching,
        pytest.raises(Interrupted),
    ):
        teaching.groups(0, PROBLEMS)
    assert len(heard.bodies) == 1 and len(read_ledger(tmp_path)) == 1


def test_a_journal_of_other_problems_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(0, {"problems": ["q"], "said": [[]]})
    journal.close()
    journal = Journal(tmp_path)
    with pytest.raises(UserError, match="speaks of other problems"):
        recalled(journal, 0, PROBLEMS)
    assert recalled(journal, 1, PROBLEMS) is None
    journal.close()


# --- manifests --------------------------------------------------------------------------------------------------------

HEAD = """
format = 1
[[stage]]
name = "base"
kind = "pretrain"
task = { name = "./sums.py:Sums" }
steps = 1
[[stage]]
name = "listed"
kind = "curate"
task = { name = "./sums.py:Sums" }
[[stage]]
name = "cold"
kind = "cold_start"
from = "base"
task = { name = "./sums.py:Sums" }
[[stage]]
name = "more"
kind = "reject"
from = ["base", "listed"]
task = { name = "./sums.py:Sums" }
[[stage]]
name = "tuned"
kind = "sft"
from = ["base", "cold", "more"]
steps = 1
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    toy = fresh_toy(tmp_path / "toy")
    monkeypatch.chdir(toy)
    return toy


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (['cold.from=[]'], 'stage "cold" has nobody to ask; it needs either a model or a teacher'),
        (['cold.from="listed"'], 'stage "cold" has nobody to ask'),
        (["cold.teacher.model=big"], "reads a model and names a teacher too"),
        (['cold.from=["listed", "base"]'], "it needs a model, or a model and a list of problems, or nothing"),
        (['tuned.from=["cold", "base"]'], 'reads "cold", chats, gathered to learn from; "base", a model; it needs'),
        (['tuned.from="base"'], 'stage "tuned" needs either data or task, or a stage with chats'),
        (["tuned.data=chats.jsonl"], 'stage "tuned" needs either data or task, or a stage with chats'),
        (["tuned.task=arithmetic"], 'stage "tuned" needs either data or task, or a stage with chats'),
        (["tuned.steps=0"], "it needs either steps or epochs"),
        (["tuned.epochs=2"], "it needs either steps or epochs"),
        (["cold.human=none.jsonl"], "none.jsonl"),
        (["more.general.task=arithmetic"], "a task's traces have no end: set count"),
        (["more.general.task=arithmetik", "more.general.count=3"], "arithmetik"),
        (["more.general.task=arithmetic", "more.general.data=chats.jsonl"], "either data or task"),
        (["cold.sieves.languages=0.5"], 'unknown setting "languages"'),
    ],
)  # fmt: skip
def test_a_mistake_is_found_before_anything_runs(here: Path, changes: list[str], said: str) -> None:
    (here / "g.toml").write_text(HEAD)
    assert load_manifest("g.toml").stage("tuned").sources == ("base", "cold", "more")
    with pytest.raises(UserError) as error:
        load_manifest("g.toml", changes)
    assert said in str(error.value)


def test_what_is_merged_and_who_teaches_is_part_of_the_fingerprint_and_where_is_not(here: Path) -> None:
    (here / "g.toml").write_text(HEAD)

    def of(*changes: str) -> str:
        return load_manifest("g.toml", ["cold.from=[]", "cold.teacher.model=big", *changes]).fingerprints["cold"]

    plain, merged = of(), of("cold.human=chats.jsonl")
    same = of(
        "cold.teacher.url=http://127.0.0.1:9/v1", "cold.teacher.key_env=KEY", "cold.teacher.active_parameters=3.0"
    )
    assert plain == same and len({plain, merged, of("cold.teacher.model=small")}) == 3
    (here / "chats.jsonl").write_text('{"prompt": "1+1", "completion": "2"}\n')
    assert of("cold.human=chats.jsonl") not in (plain, merged)
