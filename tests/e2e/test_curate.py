"""Curation, curricula, regression sets and probes end to end, as a person runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from seekling.curate.listing import LIST, read_list
from seekling.runlog.files import read_json, read_lines
from seekling.runlog.ledger import kept, read_ledger
from seekling.runlog.run import Run
from seekling.tasks.protocol import split_of
from tests.conftest import fresh_toy
from tests.e2e.forks import Ended, Forks, Misfortune
from tests.e2e.runs import assert_ledger_adds_up, copied, metrics, stage, work

RUN = Path("runs/toy")
COMMAND = ["run", "toy.toml", "base.steps=40"]
STAGES = """
[[stage]]
name = "picked"
kind = "curate"
from = "base"
task = { name = "./sums.py:Sums", high = 20 }
problems = 40
samples = 4
against = ["held.jsonl"]
overlap = { least = 1 }
passing = { low = 0.0, high = 1.0 }
sampling = { max_tokens = 12 }

[[stage]]
name = "zero"
kind = "grpo"
from = ["base", "picked"]
task = { name = "./sums.py:Sums", high = 20 }
steps = 3
problems_per_step = 4
rollouts_per_problem = 4
curriculum = { order = "easy_first" }
regression = ["./sums.py:Sums"]
regression_problems = 4
regression_samples = 2
sampling = { max_tokens = 12 }
packing = { row_tokens = 64 }
held_out_every = 0
checkpoint_every = 1
"""


def curated(folder: Path, stages: str = STAGES) -> Path:
    """A toy whose reinforcement reads a curated list."""
    toy = fresh_toy(folder)
    head, base, *_ = (toy / "toy.toml").read_text().split("[[stage]]")
    (toy / "toy.toml").write_text(f"{head}[[stage]]{base}{stages}")
    (toy / "held.jsonl").write_text(json.dumps({"prompt": "1+2", "answer": "3"}) + "\n")
    return toy


@pytest.fixture(scope="module")
def finished(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = curated(tmp_path_factory.mktemp("curated") / "toy")
    ended = forks.run(COMMAND, folder)
    assert ended.code == 0, ended.said
    return folder


def list_of(folder: Path) -> Path:
    return stage(folder / RUN, "picked").folder / LIST


def asked(folder: Path) -> list[str]:
    """Ids of the problems that reinforcement asked, in order."""
    return [g["problem"] for line in read_lines(stage(folder / RUN, "zero").folder / "rollouts.jsonl")
            for g in line["groups"]]  # fmt: skip


def test_a_list_holds_training_problems_with_their_pass_rates(finished: Path) -> None:
    listed = read_list(list_of(finished))
    assert len({one.problem.id for one in listed}) == len(listed) > 10
    assert all(split_of(one.problem.id) == "train" for one in listed)
    assert all(one.pass_rate is not None and 4 * one.pass_rate in range(5) for one in listed)
    told = read_json(list_of(finished).with_name("curate.json"))
    assert told["drawn"] - sum(step["removed"] for step in told["steps"]) == told["kept"] == len(listed)
    assert sum(told["pass_rates"].values()) == told["steps"][-1]["before"]
    assert [step["name"] for step in told["steps"]] == ["copies", "evaluation sets", "answer keys", "pass rates"]


def test_reinforcement_asks_the_list_easiest_first(finished: Path) -> None:
    rates = {one.problem.id: one.pass_rate for one in read_list(list_of(finished))}
    got = [rates[name] for name in asked(finished)]
    assert got == sorted(rates.values(), reverse=True)[: len(got)], "twelve of them, and in this order"


def test_what_was_forgotten_is_a_figure_for_a_gate_and_a_part_of_the_report(finished: Path) -> None:
    figures = stage(finished / RUN, "zero").facts()["figures"]
    told = read_json(stage(finished / RUN, "zero").folder / "regression.json")["./sums.py:Sums"]
    change = told["after"]["pass_at_k"]["1"]["value"] - told["before"]["pass_at_k"]["1"]["value"]
    assert figures["forgotten:sums"] == pytest.approx(-change)
    assert figures["forgotten"] == pytest.approx(max(0.0, -change))
    assert told["change"]["low"] <= told["change"]["value"] <= told["change"]["high"]
    page = (finished / RUN / "report.html").read_text()
    for shown in ("Which problems were trained on", "What was forgotten", "zero: pass@1 before and after"):
        assert shown in page


def test_a_problem_that_an_evaluation_asks_is_left_out_and_named(forks: Forks, tmp_path: Path) -> None:
    toy = curated(tmp_path / "toy", STAGES.replace('"base"\ntask', "[]\ntask").split('[[stage]]\nname = "zero"')[0])
    drawn = forks.run([*COMMAND[:2], "base.steps=1"], toy)
    assert drawn.code == 0, drawn.said
    first = read_list(list_of(toy))[0]
    assert first.pass_rate is None, "without a model nothing is measured"
    before = list_of(toy)
    (toy / "held.jsonl").write_text(json.dumps({"problem": first.problem.prompt, "answer": "unread"}))
    again = forks.run([*COMMAND[:2], "base.steps=1"], toy)
    assert again.code == 0 and list_of(toy) != before, "the set's content is part of the stage's fingerprint"
    assert first.problem.id not in [one.problem.id for one in read_list(list_of(toy))]
    [gone] = read_lines(list_of(toy).with_name("removed.jsonl"))
    assert gone["id"] == first.problem.id and "meets held, problem 1" in gone["why"]


def begun(finished: Path, target: Path) -> Path:
    """The same folder before its curation: only the base is there."""
    folder = copied(finished, target)
    for name in Run(folder / RUN).folders()[1:]:
        shutil.rmtree(folder / RUN / name)
    return folder


@pytest.mark.parametrize(
    ("at", "number", "how"),
    [("eval", 3, "after"), ("line", 4, "torn"),
     *(pytest.param(*point, marks=pytest.mark.soak) for point in (
         ("eval", 2, "before"), ("line", 1, "after"), ("file", 8, "before"), ("journal", 5, "before"),
         ("checkpoint", 3, "after")))],
)  # fmt: skip
def test_wherever_it_is_killed_the_result_is_the_same(
    forks: Forks, finished: Path, tmp_path: Path, at: str, number: int, how: str
) -> None:
    toy = begun(finished, tmp_path / "toy")
    assert forks.run(COMMAND, toy, Misfortune(at, number, how)).code == -9
    resumed = forks.run(COMMAND, toy)
    assert resumed.code == 0, resumed.said
    assert_same_lists(toy, finished)


def assert_same_lists(folder: Path, whole: Path) -> None:
    """List, report, training and cost of an interrupted run are those of one that was not."""
    for name in Run(whole / RUN).folders():
        ours, theirs = folder / RUN / name, whole / RUN / name
        for file in (LIST, "removed.jsonl", "curate.json", "rollouts.jsonl", "regression.json"):
            assert not (theirs / file).exists() or (ours / file).read_bytes() == (theirs / file).read_bytes(), file
        assert metrics(ours) == metrics(theirs)
    assert_ledger_adds_up(folder / RUN)
    names = Run(whole / RUN).folders()
    assert work(kept(read_ledger(folder / RUN), names)) == work(kept(read_ledger(whole / RUN), names))


def test_an_edited_journal_of_other_problems_is_refused(forks: Forks, finished: Path, tmp_path: Path) -> None:
    toy = begun(finished, tmp_path / "toy")
    assert forks.run(COMMAND, toy, Misfortune("eval", 3, "before")).code == -9
    journal = stage(toy / RUN, "picked").folder / "rollouts.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[0]["problems"][0] = "0" * 16
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ended = forks.run(COMMAND, toy)
    assert ended.code == 2 and "speaks of other problems" in ended.err and "Traceback" not in ended.said


def test_a_filter_that_leaves_nothing_says_what_to_widen(forks: Forks, finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "toy")
    ended = forks.run([*COMMAND, "picked.passing.low=0.99", "picked.passing.high=0.995"], folder)
    assert ended.code == 2 and "no problem is left after pass rates" in ended.err and "Widen passing" in ended.err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'from = ["base", "picked"]',
            'from = ["picked", "base"]',
            'reads "picked", a list of problems; "base", a model; it needs',
        ),
        ('from = ["base", "picked"]', 'from = "picked"', 'reads "picked", a list of problems; it needs a model'),
        ('from = ["base", "picked"]', 'from = ["base", "base"]', 'reads "base", a model; "base", a model; it needs'),
        ('against = ["held.jsonl"]', 'against = ["gsm9k"]', 'no suite "gsm9k"'),
        ('against = ["held.jsonl"]', 'against = ["none.jsonl"]', "there is no file none.jsonl"),
        ('regression = ["./sums.py:Sums"]', 'regression = ["countdwon"]', 'no suite "countdwon"'),
        ('regression = ["./sums.py:Sums"]', 'regression = ["./none.py:Sums"]', "there is no file none.py"),
        ("passing = { low = 0.0", "passing = { low = 2.0", "less than or equal to 1"),
        ("passing = { low = 0.0, high = 1.0 }", "passing = { low = 0.5, high = 0.4 }", "low must not be above high"),
    ],
)
def test_a_mistake_is_found_before_anything_runs(forks: Forks, tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in STAGES
    ended = forks.run(COMMAND, curated(tmp_path / "toy", STAGES.replace(old, new)))
    assert ended.code == 2 and said in ended.err and "Traceback" not in ended.said
    assert not (tmp_path / "toy/runs").exists() or not list((tmp_path / "toy/runs/toy").glob("*/metrics.jsonl"))


def test_an_order_by_pass_rates_needs_a_list_that_has_them(forks: Forks, finished: Path, tmp_path: Path) -> None:
    folder = begun(finished, tmp_path / "toy")
    without = (folder / "toy.toml").read_text().replace('from = ["base", "picked"]', 'from = "base"')
    (folder / "toy.toml").write_text(without)
    ended = forks.run(COMMAND, folder)
    assert ended.code == 2 and "reads no curated list" in ended.err


# --- probe ------------------------------------------------------------------------------------------------------------


def probed(forks: Forks, folder: Path, *options: str) -> Ended:
    common = ["--problems", "6", "--samples", "8", "--max-tokens", "12"]
    return forks.run(["probe", "toy/base", "./sums.py:Sums", "high=20", *common, *options], folder)


def test_a_probe_says_in_words_whether_there_is_something_to_find(forks: Forks, finished: Path) -> None:
    ended = probed(forks, finished, "--out", "probe.json")
    told = read_json(finished / "probe.json")
    codes = {"ready": 0, "easy": 5, "thin": 6, "distil": 7}
    assert ended.code == codes[told["outcome"]], ended.said
    for shown in ("pass@1", "pass@8", "groups of 16 with spread", "mean tokens", "verdict: ", "why: ", "next: "):
        assert shown in ended.out
    assert told["problems"] == 6 and told["samples"] == 8 and told["why"] in ended.out


def test_a_task_whose_keys_fail_is_broken_and_so_is_one_whose_check_raises(forks: Forks, finished: Path) -> None:
    source = (finished / "sums.py").read_text()
    (finished / "wrong.py").write_text(
        source.replace("value == int(problem.answer)", "value == 1 + int(problem.answer)")
    )
    (finished / "raises.py").write_text(source.replace("value = integer(answer)", "value = {}[answer]"))
    for name, said in (("wrong", "of its own answer keys"), ("raises", "KeyError")):
        ended = forks.run(
            ["probe", "toy/base", f"./{name}.py:Sums", "--problems", "4", "--samples", "4", "--max-tokens", "12"],
            finished,
        )
        assert ended.code == 8, ended.said
        assert "the task is broken" in ended.out and said in ended.out and "Traceback" not in ended.said


# --- a list of one's own ----------------------------------------------------------------------------------------------

OWN = """
[[stage]]
name = "unlike"
kind = "curate"
task = { name = "file", data = "mine.jsonl", verifier = "exact" }
against = ["held.jsonl"]
near = { threshold = 0.7, same_numbers = false }
overlap = { run = 6 }
"""


def test_a_file_of_ones_own_is_curated_whole(forks: Forks, tmp_path: Path) -> None:
    """Near copies go, and so does what an evaluation asks; all others stay, in the order of the file or another."""
    long = "Tom has {} apples and gives all of them to his sister who already has a basket full of ripe green pears"
    rows = [{"prompt": long.format(number), "answer": str(number)} for number in (3, 4)]
    rows += [{"prompt": f"What is the {word} letter of the word {word}?", "answer": "x"} for word in ("first", "last")]
    rows += [
        {"prompt": f"Name a {word}.", "answer": word} for word in ("river", "city", "tree", "bird", "fish", "stone")
    ]
    toy = curated(tmp_path / "toy", OWN)
    (toy / "toy.toml").write_text("\n".join(["format = 1", 'name = "toy"', OWN]))
    (toy / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (toy / "held.jsonl").write_text(json.dumps({"question": "Say it: what is the last letter of the word last?"}))
    ended = forks.run(["run", "toy.toml"], toy)
    assert ended.code == 0, ended.said
    folder = stage(toy / RUN, "unlike").folder
    gone = {row["prompt"]: row["why"] for row in read_lines(folder / "removed.jsonl")}
    kept_prompts = {one.problem.prompt for one in read_list(folder / LIST)}
    train = {row["prompt"] for row in rows if row["prompt"] in kept_prompts | gone.keys()}
    assert len(train) >= len(rows) - 3, "a tenth is held out, by content"
    assert all("near copy" in why or "meets held, problem 1" in why for why in gone.values()) and gone
    assert kept_prompts == train - gone.keys()
