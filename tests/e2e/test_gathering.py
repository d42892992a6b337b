"""Cold starts and rejection sampling end to end: what a model or a teacher says, sieved into chats that sft reads."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from seekling.curate.listing import LIST, read_list
from seekling.recipes.chats import DATA
from seekling.recipes.sieves import SIEVES
from seekling.recipes.teaching import REPLIES
from seekling.runlog.files import read_json, read_lines
from seekling.runlog.ledger import kept, read_ledger
from seekling.runlog.run import Run
from seekling.tasks.protocol import split_of
from seekling.text.reasoning import split
from tests.conftest import fresh_toy
from tests.e2e.forks import Forks, Misfortune
from tests.e2e.runs import assert_ledger_adds_up, copied, stage, work
from tests.fixtures.endpoint import Heard, endpoint

RUN = Path("runs/toy")
COMMAND = ["run", "toy.toml"]
TASK = 'task = { name = "./sums.py:Sums", high = 20 }'
STAGES = f"""
[[stage]]
name = "cold"
kind = "cold_start"
from = "base"
{TASK}
examples = 200
most_problems = 40
samples = 6
human = "chats.jsonl"
sampling = {{ max_tokens = 12 }}

[[stage]]
name = "many"
kind = "reject"
from = "base"
{TASK}
most_problems = 16
samples = 8
keep = 2
sieves = {{ correct = false }}
sampling = {{ max_tokens = 12 }}
general = {{ {TASK}, text = {{ qualities = {{ right = 1.0 }} }}, count = 5 }}

[[stage]]
name = "tuned"
kind = "sft"
from = ["base", "cold", "many"]
epochs = 1
tokens_per_step = 256
packing = {{ row_tokens = 64 }}
"""
LISTED = """
[[stage]]
name = "listed"
kind = "curate"
problems = 6
"""
TAUGHT = """
[[stage]]
name = "cold"
kind = "cold_start"
most_problems = 6
samples = 2
teacher = { model = "big", url = "URL", tries = 1, concurrency = 1, active_parameters = 5.0 }
"""
ASKED = 12
"""Replies that the taught stage needs: two to each of six problems."""


def gathering(folder: Path, stages: str = STAGES, *, base: bool = True) -> Path:
    """A toy that gathers."""
    toy = fresh_toy(folder)
    head, first, *_ = (toy / "toy.toml").read_text().split("[[stage]]")
    (toy / "toy.toml").write_text(f"{head}[[stage]]{first}{stages}" if base else head + stages)
    return toy


@pytest.fixture(scope="module")
def finished(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = gathering(tmp_path_factory.mktemp("gathered") / "toy")
    ended = forks.run(COMMAND, folder)
    assert ended.code == 0, ended.said
    assert "examples were found in 40 problems" in ended.said, "fewer than wanted is said aloud"
    return folder


def file_of(folder: Path, name: str, file: str) -> Path:
    return stage(folder / RUN, name).folder / file


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(read_lines(file_of(folder, name, DATA)))


def begun(finished: Path, target: Path, *names: str) -> Path:
    """The same run before the stages ``names``."""
    folder = copied(finished, target)
    for name in names:
        shutil.rmtree(stage(folder / RUN, name).folder)
    return folder


# --- a model's own ----------------------------------------------------------------------------------------------------


def test_a_cold_start_is_right_well_formed_short_and_asks_only_training_problems(finished: Path) -> None:
    human, *own = [row for row in rows_of(finished, "cold") if "where" not in row or row["where"].endswith("line 1")]
    assert human["messages"][0]["content"] == "1+2" and own
    assert len({row["problem"] for row in own}) == len(own), "one of each problem"
    for row in own:
        asked, said = (message["content"] for message in row["messages"])
        assert split(said).well_formed and split(said).answer == str(sum(map(int, asked.split("+"))))
        assert split_of(row["problem"]) == "train" and row["reward"] == 1.0 and 0 < row["tokens"] <= 12


def test_each_sieve_sees_what_those_before_it_left(finished: Path) -> None:
    for name, problems, samples in (("cold", 40, 6), ("many", 16, 8)):
        told, figures = read_json(file_of(finished, name, "gathered.json")), stage(finished / RUN, name).facts()
        assert [step["name"] for step in told["steps"]] == list(SIEVES)
        left = told["came"]
        for step in told["steps"]:
            assert step["before"] == left and len(step["examples"]) == min(12, step["removed"])
            assert figures["figures"][step["name"]] == step["removed"]
            left -= step["removed"]
        assert left >= told["found"] == figures["figures"]["found"]
        assert (told["asked"], told["came"]) == (problems, problems * samples)


def test_the_best_of_many_are_kept_and_other_data_join_them(finished: Path) -> None:
    rows = rows_of(finished, "many")
    general, own = [row for row in rows if "reward" not in row], [row for row in rows if "reward" in row]
    assert len(general) == 5 and max(Counter(row["problem"] for row in own).values()) == 2
    best: dict[str, list[float]] = {}
    for line in read_lines(file_of(finished, "many", "rollouts.jsonl")):
        for name, row in zip(line["problems"], line["said"], strict=True):
            fit = [one["reward"] for one in row if one["stop"] == "stop" and split(one["text"]).well_formed]
            best[name] = sorted(fit, reverse=True)
    first = {row["problem"]: row["reward"] for row in reversed(own)}
    assert all(best[name][0] == reward for name, reward in first.items())


def test_one_epoch_reads_every_chat_of_both_stages_once(finished: Path) -> None:
    num_chats = len(rows_of(finished, "cold")) + len(rows_of(finished, "many"))
    records = stage(finished / RUN, "tuned").metrics()
    said = [message["content"] for name in ("cold", "many") for row in read_lines(file_of(finished, name, DATA))
            for message in row.get("messages", ())]  # fmt: skip
    assert num_chats == len(said) // 2 and all(record.tokens >= 256 for record in records[:-1]) and len(records) > 1
    assert sum(map(len, said)) > sum(record.tokens for record in records) > num_chats


def test_what_is_sampled_is_charged_and_the_page_shows_it(finished: Path) -> None:
    entries = [entry for entry in read_ledger(finished / RUN) if entry.stage in ("cold", "many")]
    assert {entry.kind for entry in entries} == {"generate"} and all(entry.flops > 0 for entry in entries)
    page = (finished / RUN / "report.html").read_text()
    for shown in ("Which examples were gathered", "cold asked 40 problems", "wrong answers", "judged wrong"):
        assert shown in page


@pytest.mark.parametrize(
    ("at", "number", "how"),
    [("journal", 2, "torn"), *(pytest.param(*point, marks=pytest.mark.soak) for point in (
        ("journal", 3, "after"), ("line", 1, "before"), ("line", 6, "after"), ("file", 3, "before")))],
)  # fmt: skip
def test_wherever_it_is_killed_the_examples_are_the_same(
    forks: Forks, finished: Path, tmp_path: Path, at: str, number: int, how: str
) -> None:
    toy = begun(finished, tmp_path / "toy", "cold", "tuned")
    assert forks.run(COMMAND, toy, Misfortune(at, number, how)).code == -9
    resumed = forks.run(COMMAND, toy)
    assert resumed.code == 0, resumed.said
    for file in (DATA, "gathered.json", "rollouts.jsonl"):
        assert file_of(toy, "cold", file).read_bytes() == file_of(finished, "cold", file).read_bytes(), file
    names = Run(finished / RUN).folders()
    assert_ledger_adds_up(toy / RUN)
    assert work(kept(read_ledger(toy / RUN), names)) == work(kept(read_ledger(finished / RUN), names))


def test_nothing_left_is_a_letter_that_says_which_sieve_took_what(forks: Forks, finished: Path, tmp_path: Path) -> None:
    ended = forks.run([*COMMAND, "cold.sieves.most_tokens=1"], copied(finished, tmp_path / "toy"))
    assert ended.code == 2 and "nothing is left of 240 rollouts of 40 problems: wrong answers took" in ended.err
    assert "length took" in ended.err and "Loosen that sieve" in ended.err and "Traceback" not in ended.said


def test_chats_that_were_deleted_come_back_without_sampling_anew(forks: Forks, finished: Path, tmp_path: Path) -> None:
    toy = begun(finished, tmp_path / "toy", "tuned")
    before = len(read_ledger(toy / RUN))
    file_of(toy, "cold", DATA).unlink()
    ended = forks.run(COMMAND, toy)
    assert ended.code == 2 and f"seekling run {RUN} --again cold" in ended.err
    assert (again := forks.run(["run", str(RUN), "--again", "cold"], toy)).code == 0, again.said
    assert file_of(toy, "cold", DATA).read_bytes() == file_of(finished, "cold", DATA).read_bytes()
    assert {entry.kind for entry in read_ledger(toy / RUN)[before:]} == {"train"}


def test_a_faulty_file_of_chats_is_told_before_anything_is_sampled(
    forks: Forks, finished: Path, tmp_path: Path
) -> None:
    toy = copied(finished, tmp_path / "toy")
    (toy / "chats.jsonl").write_text('{"messages": []}\n')
    ended = forks.run(COMMAND, toy)
    assert ended.code == 2 and "chats.jsonl, line 1" in ended.err
    assert not ended.counts.get("journal") and not list(read_lines(file_of(toy, "cold", "rollouts.jsonl")))


# --- a teacher's ------------------------------------------------------------------------------------------------------


def taught(folder: Path, heard: Heard, listed: str = "") -> Path:
    return gathering(folder, listed + TAUGHT.replace("URL", heard.url), base=False)


def solved(body: dict[str, Any]) -> Any:
    """What a teacher that thinks apart says to a sum; it sees what is asked for below it."""
    asked, _, below = body["messages"][0]["content"].partition("\n\n")
    assert "between <answer> and </answer>" in below
    value = eval(asked.removesuffix("="))
    said = {"role": "assistant", "content": f"<answer>{value}</answer>", "reasoning_content": f"{asked}{value}"}
    usage = {"prompt_tokens": 10, "completion_tokens": 7}
    return 200, json.dumps({"choices": [{"message": said, "finish_reason": "stop"}], "usage": usage}).encode(), {}


def assert_each_was_paid_once(folder: Path, heard: Heard, *, more: int = 0) -> None:
    """All examples are there; nobody was asked more than needed, ``more`` times apart; the ledger has what was paid."""
    replies = [(row["problem"], row["number"]) for row in read_lines(file_of(folder, "cold", REPLIES))]
    assert len(replies) == len(set(replies)) == ASKED and len(heard.bodies) == ASKED + more
    assert len(rows_of(folder, "cold")) == 6
    in_result = kept(read_ledger(folder / RUN), Run(folder / RUN).folders())["cold"]
    assert (in_result.tokens, in_result.flops) == (7 * ASKED, 2 * 5.0 * 17 * ASKED)


def test_a_teacher_solves_a_list_and_its_thinking_is_kept(forks: Forks, tmp_path: Path) -> None:
    with endpoint(solved) as heard:
        folder = taught(tmp_path / "toy", heard, LISTED)
        (folder / "toy.toml").write_text((folder / "toy.toml").read_text() + 'from = "listed"\n')
        assert (ended := forks.run(COMMAND, folder)).code == 0, ended.said
    assert_each_was_paid_once(folder, heard)
    listed = [one.problem.id for one in read_list(file_of(folder, "listed", LIST))]
    assert [row["problem"] for row in rows_of(folder, "cold")] == listed
    asked, said = (message["content"] for message in rows_of(folder, "cold")[0]["messages"])
    assert said == f"<think>{asked}{split(said).answer}</think><answer>{split(said).answer}</answer>"


@pytest.mark.parametrize(("number", "how", "more"), [(10, "after", 0), (10, "torn", 1)])
def test_a_kill_costs_at_most_the_reply_under_way(
    forks: Forks, tmp_path: Path, number: int, how: str, more: int
) -> None:
    """Two lines a reply: the ledger's, then its own."""
    with endpoint(solved) as heard:
        folder = taught(tmp_path / "toy", heard)
        assert forks.run(COMMAND, folder, Misfortune("line", number, how)).code == -9
        assert len(heard.bodies) == 5
        assert (ended := forks.run(COMMAND, folder)).code == 0, ended.said
    assert_each_was_paid_once(folder, heard, more=more)


@pytest.mark.parametrize(
    ("status", "asked", "said"), [(503, 3, "gives no answer: status 503"), (402, 1, "(status 402) out of credit")]
)
def test_a_teacher_that_fails_in_the_middle_is_a_letter_and_what_was_paid_stays(
    forks: Forks, tmp_path: Path, status: int, asked: int, said: str
) -> None:
    """Three questions in a row without an answer, or one word of the account, and it ends; then the rest is asked."""
    is_down: list[bool] = []

    def answer(body: dict[str, Any]) -> Any:
        return (status, b"out of credit", {}) if len(heard.bodies) > 4 and is_down else solved(body)

    with endpoint(answer) as heard:
        is_down.append(True)
        folder = taught(tmp_path / "toy", heard)
        ended = forks.run(COMMAND, folder)
        assert ended.code == 2 and said in ended.err and "pays for none of them twice" in ended.err, ended.said
        assert len(list(read_lines(file_of(folder, "cold", REPLIES)))) == 4 and len(heard.bodies) == 4 + asked
        is_down.clear()
        assert (again := forks.run(COMMAND, folder)).code == 0, again.said
    assert_each_was_paid_once(folder, heard, more=asked)
