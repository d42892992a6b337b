"""A task of one's own, as a person makes it: started, audited, trained on, rewarded by own functions and a judge."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seekling.runlog.files import read_lines
from tests.conftest import fresh_toy
from tests.e2e.forks import Forks
from tests.e2e.runs import metrics, only, stage
from tests.fixtures.endpoint import Heard, endpoint

TOY = Path("runs/toy")
SMALL = ["base.steps=20", "base.tokens_per_step=512", "zero.steps=2", "zero.problems_per_step=2",
         "zero.rollouts_per_problem=4", "zero.held_out_every=0", "base-eval.problems=2", "base-eval.samples=2",
         "zero-eval.problems=2", "zero-eval.samples=2"]  # fmt: skip


@pytest.fixture(scope="module")
def started(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the start of a task, trained for a moment."""
    folder = tmp_path_factory.mktemp("started")
    begun = forks.run(["tasks", "new", "mine"], folder)
    assert begun.code == 0 and "seekling run train.toml" in begun.out, begun.said
    ended = forks.run(["run", "train.toml", *SMALL], folder / "mine")
    assert ended.code == 0, ended.said
    return folder / "mine"


def rewarded(folder: Path, rubric: str) -> Path:
    """The toy's base and reinforcement, with another rubric."""
    toy = only(fresh_toy(folder), "base", "zero")
    text = (toy / "toy.toml").read_text()
    (toy / "toy.toml").write_text(text.replace("rubric = { accuracy = 1.0, format = 0.5 }", f"rubric = {rubric}"))
    return toy


def scores_of(folder: Path) -> Iterator[dict[str, Any]]:
    for line in read_lines(stage(folder / TOY, "zero").folder / "rollouts.jsonl"):
        for group in line["groups"]:
            yield from group["rollouts"]


def test_a_start_passes_its_audit_and_trains(forks: Forks, started: Path) -> None:
    audited = forks.run(["tasks", "audit", "./my_task.py:MyTask", "--problems", "5"], started)
    assert audited.code == 0 and "false accepts 0" in audited.out, audited.said
    assert (started / "runs/my-task/report.html").exists()


def test_a_start_is_never_written_over_what_is_there(forks: Forks, started: Path) -> None:
    before = (started / "my_task.py").read_text()
    ended = forks.run(["tasks", "new", "."], started)
    assert ended.code == 2 and "my_task.py is there already" in ended.err
    assert (started / "my_task.py").read_text() == before
    assert forks.run(["tasks", "new", ".", "reward"], started).code == 0


def test_a_start_that_is_none_is_told_with_those_there_are(forks: Forks, tmp_path: Path) -> None:
    ended = forks.run(["tasks", "new", "x", "tasks"], tmp_path)
    assert ended.code == 2 and 'did you mean "task"' in ended.err.lower() and not (tmp_path / "x").exists()


def test_the_start_of_a_list_trains_an_imported_model(forks: Forks, started: Path, tmp_path: Path) -> None:
    assert forks.run(["tasks", "new", "mine", "file"], tmp_path).code == 0
    model = stage(started / "runs/my-task", "base").folder / "model"
    small = [f"base.model={model}", "zero.steps=2", "zero.problems_per_step=2", "zero.rollouts_per_problem=4"]
    small += [f"{name}.sampling.max_tokens=6" for name in ("zero", "base-eval", "zero-eval")]
    small += ["zero.held_out_every=0", "base-eval.problems=2", "zero-eval.problems=2"]
    ended = forks.run(["run", "train.toml", *small], tmp_path / "mine")
    assert ended.code == 0, ended.said
    audited = forks.run(
        ["tasks", "audit", "file", "data=problems.jsonl", "verifier=integer", "--problems", "5"], tmp_path / "mine"
    )
    assert audited.code == 0, audited.said


def test_a_broken_line_stops_before_anything_runs(forks: Forks, tmp_path: Path) -> None:
    assert forks.run(["tasks", "new", "mine", "file"], tmp_path).code == 0
    file = tmp_path / "mine/problems.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], '{"prompt": "What is', '{"prompt": "a", "answer": "many"}', *lines[3:]]))
    ended = forks.run(["run", "train.toml"], tmp_path / "mine")
    assert ended.code == 2 and "Traceback" not in ended.said
    assert "2 rows are no problem, of 50" in ended.err and "problems.jsonl, line 4: not JSON" in ended.err
    assert "line 5: \"answer\": the answer 'many' is no whole number" in ended.err
    assert not (tmp_path / "mine/runs").exists()


def test_own_rewards_are_parts_of_every_score(forks: Forks, tmp_path: Path) -> None:
    toy = rewarded(tmp_path / "toy", '{ accuracy = 1.0, "./rewards.py:brief" = 0.5, "./rewards.py:seldom" = 1.0 }')
    (toy / "rewards.py").write_text(
        "def brief(problem, text): return 1 / (1 + len(text))\n"
        "async def seldom(prompts, completions, answer, **columns):\n"
        "    return [1.0 if '+' in text and int(key) else None for text, key in zip(completions, answer)]\n"
    )
    ended = forks.run(["run", "toy.toml"], toy)
    assert ended.code == 0, ended.said
    parts = [score["parts"] for score in scores_of(toy)]
    assert parts and all(0 < part["./rewards.py:brief"] <= 1 for part in parts)
    assert {part.get("./rewards.py:seldom") for part in parts} <= {None, 1.0}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None[text]", "TypeError: 'NoneType' object is not subscriptable"),
        ("return float('nan')", "it returned nan, which is no finite number"),
    ],
)
def test_a_reward_that_gives_no_number_stops_with_a_letter_and_mended_goes_on(
    forks: Forks, tmp_path: Path, body: str, said: str
) -> None:
    toy = rewarded(tmp_path / "toy", '{ accuracy = 1.0, "./rewards.py:odd" = 0.5 }')
    (toy / "rewards.py").write_text(f"def odd(problem, text): {body}\n")
    ended = forks.run(["run", "toy.toml", "base.steps=2"], toy)
    assert ended.code == 2 and "Traceback" not in ended.said
    assert 'the reward "./rewards.py:odd" fails on 16 of 16 rollouts' in ended.err and said in ended.err
    assert "first on problem" in ended.err and "Nothing is lost" in ended.err
    (toy / "rewards.py").write_text("def odd(problem, text): return 0.5\n")
    mended = forks.run(["run", "toy.toml", "base.steps=2", "zero.steps=1"], toy)
    assert mended.code == 0, mended.said
    assert len(metrics(stage(toy / TOY, "base").folder)) == 2, "the base is not trained again"


def test_a_reward_that_is_not_there_stops_before_anything_runs(forks: Forks, tmp_path: Path) -> None:
    ended = forks.run(["run", "toy.toml"], rewarded(tmp_path / "toy", '{ "./rewards.py:odd" = 0.5 }'))
    assert ended.code == 2 and "there is no file rewards.py" in ended.err
    assert not (tmp_path / "toy/runs").exists()


# --- a judge ----------------------------------------------------------------------------------------------------------


def judged(folder: Path, heard: Heard) -> Path:
    cache = folder.parent / "cache"
    judge = f'{{ weight = 0.5, model = "j", url = "{heard.url}", cache = "{cache}", tries = 1, concurrency = 1 }}'
    return rewarded(folder, f"{{ accuracy = 1.0, judge = {judge} }}")


def points(body: dict[str, Any]) -> str:
    found = re.search(r"<<reply ([0-9a-f]+)>>\n(.*)\n<<end", body["messages"][1]["content"], re.DOTALL)
    assert found
    return json.dumps({"number": found[1], "points": min(10, len(found[2]))})


def test_a_judge_that_goes_down_stops_the_run_and_back_again_it_goes_on_where_it_stood(
    forks: Forks, tmp_path: Path
) -> None:
    command = ["run", "toy.toml", "base.steps=20", "zero.steps=3", "zero.held_out_every=0"]
    good = 2

    def fails(body: dict[str, Any]) -> Any:
        return points(body) if len(heard.bodies) <= good else (503, b"away", {})

    with endpoint(fails) as heard:
        toy = judged(tmp_path / "toy", heard)
        ended = forks.run(command, toy)
        assert ended.code == 2 and "Traceback" not in ended.said, ended.said
        assert 'the judge "j" at' in ended.err and "503 away" in ended.err and "Nothing is lost" in ended.err
        answered, asked = [body["messages"] for body in heard.bodies[:2]], len(heard.bodies)
        good = 10**9
        again = forks.run(command, toy)
        assert again.code == 0, again.said
    told = [score["parts"]["judge"] for score in scores_of(toy)]
    assert len(told) == 3 * 16 and all(0 <= part <= 1 for part in told)
    later = [body["messages"] for body in heard.bodies[asked:]]
    assert later and not [messages for messages in answered if messages in later], "no answer is asked for again"
