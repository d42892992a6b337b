"""Scenarios of a stage: what each asks and from when on, what is journaled of a step, whose rewards are compared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seekling.config import weight_settings
from seekling.curate.listing import LIST, Picked, write_list
from seekling.errors import UserError
from seekling.evals.judging import Judge
from seekling.recipes.config import Grpo, Scenario
from seekling.recipes.curating import askers
from seekling.recipes.grpo import lively
from seekling.recipes.manifest import load_manifest
from seekling.recipes.rating import Spent
from seekling.recipes.scenes import Drawn, Scene, asked_in, keep, of_scenes, of_step, replayed
from seekling.recipes.stage import Stage
from seekling.records import Group, Problem, Rollout, Score, Stop, Verdict
from seekling.rewards.rubric import Rubric
from seekling.runlog.run import Journal, StageFolder
from seekling.tasks.protocol import split_of
from tests.conftest import fresh_toy

LIKED = Rubric.model_validate({"accuracy": 0.0, "rated": 1.0})
NAMES = ("agree", "greet")


def config(**more: Any) -> Grpo:
    return Grpo.model_validate({"name": "z", "from": "b", "steps": 9, "problems_per_step": 2} | more)


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Scene]:
    """Two scenarios, of two and of three problems a slot; the second is rated."""
    monkeypatch.chdir(fresh_toy(tmp_path / "toy"))
    made = []
    for at, name in enumerate(NAMES):
        spec = {"name": "./tastes.py:Tastes", "part": name}
        scenario = Scenario(task=spec, rubric=LIKED if at else Rubric(), problems_per_step=2 + at)
        judge = Judge(spec, scenario.rubric, rate=lambda prompts, replies: [0.0] * len(replies))
        made.append(Scene(name, at == 0, False, name, 0, scenario, judge, asker(name, 2 + at), lambda slot, found: []))
    return made


def asker(name: str, count: int) -> Any:
    return lambda slot: [problem_of(name, f"{slot}/{place}") for place in range(count)]


def problem_of(part: str, id_: str) -> Problem:
    return Problem(id_, part, f"{part} 1", "yes", 1, {"part": part})


def drawn(scene: Scene, index: int, rewards: Sequence[Sequence[float]], text: str = "<answer>thanks</answer>") -> Drawn:
    """A step of a scene in which siblings earned ``rewards``."""
    asked = asked_in(scene, config(refill=3), index, len(rewards))
    said = Rollout((1,), (2,), np.zeros(1, np.float32), text, Stop.STOP, 0)
    groups = [Group(problem, (said,) * len(row)) for problem, row in zip(asked, rewards, strict=True)]
    parts = "rated" if "rated" in scene.weights else "accuracy"
    return Drawn(scene, groups, [[Score(r, Verdict.PASS, {parts: r}) for r in row] for row in rewards])


@pytest.mark.parametrize(("count", "slots"), [(2, [6]), (4, [6, 7]), (3, [6, 7]), (0, [])])
def test_a_journaled_step_is_compared_with_the_slots_it_took(scenes: list[Scene], count: int, slots: list[int]) -> None:
    found = asked_in(scenes[0], config(refill=2), 2, count)
    assert [p.id for p in found] == [f"{slot}/{place}" for slot in slots for place in range(2)]


@pytest.mark.parametrize(
    ("begin", "steps", "first"), [(0.0, 9, 0), (0.5, 9, 4), (1300 / 1700, 1700, 1300), (0.29, 100, 29), (0.99, 5, 4)]
)
def test_a_scenario_begins_after_its_share_of_the_steps(begin: float, steps: int, first: int) -> None:
    assert Scenario(begin=begin).first_step(steps) == first < steps


def test_a_step_comes_back_scenario_by_scenario_though_each_took_slots_of_its_own(
    scenes: list[Scene], tmp_path: Path
) -> None:
    told = [drawn(scenes[0], 4, [[0.0, 1.0]] * 4), drawn(scenes[1], 4, [[0.5, 0.25]] * 3)]
    with closing(Journal(tmp_path)) as journal:
        keep(journal, 4, told, Spent(70, 2.5, 9.0))
    with closing(Journal(tmp_path)) as journal:
        again = replayed(journal, scenes, config(refill=3), 4)
        assert again is not None and replayed(journal, scenes, config(refill=3), 5) is None
    for ours, theirs in zip(again[0], told, strict=True):
        assert (ours.scene, list(ours.groups), list(ours.scores)) == (theirs.scene, theirs.groups, theirs.scores)
    assert again[1] == Spent(70, 2.5, 0.0), "what was read is known, and that no second was spent on it this time"


def test_a_step_of_other_scenarios_is_a_letter(scenes: list[Scene], tmp_path: Path) -> None:
    with closing(Journal(tmp_path)) as journal:
        keep(journal, 0, [drawn(scenes[0], 0, [[0.0, 1.0]] * 2)], Spent(0, 0.0, 0.0))
    with closing(Journal(tmp_path)) as journal, pytest.raises(UserError, match="damaged"):
        replayed(journal, scenes, config(refill=3), 0)


def test_of_what_was_drawn_as_many_groups_with_spread_are_learned_from_as_the_scenario_asks(
    scenes: list[Scene],
) -> None:
    told = lively(drawn(scenes[1], 0, [[1.0, 1.0], [0.0, 1.0], [0.5, 1.0], [0.0, 0.0], [0.0, 0.5], [0.25, 0.5]]))
    assert [[s.reward for s in row] for row in told.scores] == [[0.0, 1.0], [0.5, 1.0], [0.0, 0.5]]
    assert told.num_rollouts == 6


def test_figures_stand_under_plain_names_for_the_stages_own_task_and_under_each_ones_name_for_all(
    scenes: list[Scene],
) -> None:
    figures = of_step([drawn(scenes[0], 0, [[0.0, 1.0]] * 2), drawn(scenes[1], 0, [[0.5, 1.0]] * 3)])
    assert figures["reward"] == figures["agree/reward"] == 0.5 and figures["greet/reward"] == 0.75
    alone = of_step([drawn(replace(scenes[0], is_alone=True), 0, [[0.0, 1.0]] * 2)])
    assert alone["reward"] == 0.5 and not [name for name in alone if "/" in name]


def test_the_rule_stands_beside_the_proxy_and_only_where_a_reward_model_judges(scenes: list[Scene]) -> None:
    told = of_step(
        [drawn(scenes[0], 0, [[0.0, 1.0]] * 2), drawn(scenes[1], 0, [[0.5, 1.0]] * 3, "<answer>hm</answer>")]
    )
    assert (told["greet/rated"], told["greet/rated_std"]) == (0.75, 0.25)
    assert (told["greet/helpfulness"], told["greet/helpfulness_std"]) == (-1.0, 0.0)
    assert "agree/rated" not in told and "agree/helpfulness" not in told


def test_every_scenarios_key_and_split_are_tested_and_named(scenes: list[Scene]) -> None:
    names = [test.name for test in of_scenes(scenes, leads=True)]
    assert len(names) == 8 == len(set(names)) and {name.partition("/")[0] for name in names[4:]} == {"greet"}
    assert [test.name for test in of_scenes(scenes, leads=False)] == [names[3], names[7]]


def stage_reading(folder: Path, *parts: str) -> Any:
    """A stage that reads a model and a list of problems, one of each part."""
    inputs = []
    for name, kind in (("base", "pretrain"), ("picked", "curate")):
        inputs.append(StageFolder(folder / name))
        (folder / name).mkdir()
        inputs[-1].write(kind=kind)
    write_list(folder / "picked" / LIST, [Picked(problem_of(part, f"{part}/{n}")) for part in parts for n in range(6)])
    return standing(*inputs)


def standing(*inputs: StageFolder) -> Any:
    """What of a stage tells what it reads."""
    stage = SimpleNamespace(name="z", inputs=inputs)
    stage.reading = partial(Stage.reading, stage)
    return stage


def test_a_curated_list_is_asked_by_the_scenario_of_its_task_and_others_draw(
    scenes: list[Scene], tmp_path: Path
) -> None:
    tasks, also = [scene.judge.task for scene in scenes], [{"task": "letters", "problems_per_step": 3}]
    first, second = askers(stage_reading(tmp_path, "greet"), config(also=also), tasks, ["a", "b"], [2, 3])
    assert {p.id for slot in (0, 1) for p in second(slot)} == {f"greet/{n}" for n in range(6)}, "whole passes"
    assert [len(first(0)), len(second(0))] == [2, 3] and first(0) == first(0) != first(1)
    assert all(split_of(p.id) == "train" and p.task == "agree" for p in first(0))


def test_a_list_of_another_task_and_an_order_without_a_list_are_letters(scenes: list[Scene], tmp_path: Path) -> None:
    tasks = [scenes[0].judge.task]
    with pytest.raises(UserError, match='asks agree, and its list is of problems of "greet"'):
        askers(stage_reading(tmp_path, "greet"), config(), tasks, ["a"], [2])
    with pytest.raises(UserError, match="reads no curated list"):
        askers(standing(), config(curriculum={"order": "easy_first"}), tasks, ["a"], [2])


# --- a manifest -------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inside a folder with the manifest of scenarios."""
    monkeypatch.chdir(fresh_toy(tmp_path / "toy"))
    return tmp_path / "toy"


GREET = 'task={ name = "./tastes.py:Tastes", part = "greet" }'
AGREE = 'task={ name = "./tastes.py:Tastes", part = "agree" }'
LETTERS: dict[str, tuple[list[str], str]] = {
    "no rater": (["all.from=base"], 'weighs "rated", and the stage reads no reward model'),
    "nobody weighs it": ([f"all.also=[{{ {GREET} }}]"], "none of its rubrics weighs"),
    "two of one name": ([f"all.also=[{{ {AGREE}, rubric={{ rated=1.0 }} }}]"], 'are called "agree"'),
    "no such task": (['all.also=[{ task="sums9", rubric={ rated=1.0 } }]'], "sums9"),
    "begin at the end": ([f"all.also=[{{ {GREET}, begin=1.0 }}]"], "less than 1"),
    "read otherwise": (["rater.reads=whole"], 'rate "reply", and it learned to rate "whole"'),
    "rows are not sampled": (["rater.task=''", "rater.data=pairs.jsonl"], "asks a task"),
    "cold": (["rater.sampling.temperature=0"], "answers are all alike"),
    "no rule": (['rater.task={ name = "./sums.py:Sums" }'], "has no rule to label them by"),
}


@pytest.mark.parametrize("fault", LETTERS)
def test_what_cannot_work_is_a_letter_before_anything_runs(here: Path, fault: str) -> None:
    overrides, said = LETTERS[fault]
    with pytest.raises(UserError) as caught:
        load_manifest("scenes.toml", overrides)
    assert said in f"{caught.value.what} {caught.value.next_step}"


def test_an_eval_that_would_need_a_reward_model_says_which_kinds_read_one(here: Path) -> None:
    told = (here / "scenes.toml").read_text()
    more = '\n[[stage]]\nname = "e"\nkind = "eval"\nfrom = "base"\ntask = "letters"\nrubric = { rated = 1.0 }\n'
    (here / "more.toml").write_text(told + more)
    with pytest.raises(UserError, match="reads no reward model") as caught:
        load_manifest("more.toml")
    assert caught.value.next_step == "A stage of kind eval reads none; of kind grpo it could."


def test_what_a_scenario_says_counts_and_where_its_judge_is_asked_does_not(here: Path) -> None:
    judge = "judge={{ weight=1.0, model='m', url='{}' }}"
    told = {
        key: load_manifest("scenes.toml", [f"all.also=[{{ {GREET}, {more}, rubric={{ rated=1.0, {asked} }} }}]"])
        for key, more, asked in (
            ("one", "begin=0.5", judge.format("http://127.0.0.1/v1")), ("elsewhere", "begin=0.5", judge.format("http://127.0.0.2/v1")),
            ("later", "begin=0.6", judge.format("http://127.0.0.1/v1")),
        )
    }  # fmt: skip
    prints = {key: manifest.fingerprints["all"] for key, manifest in told.items()}
    assert prints["one"] == prints["elsewhere"] != prints["later"]
    assert load_manifest("scenes.toml").fingerprints["rater"] == told["one"].fingerprints["rater"]


def test_a_scenarios_task_counts_with_its_file_and_its_own_settings(here: Path) -> None:
    also = 'all.also=[{ task="letters", begin=0.5 }, { task={ name = "./tastes.py:Tastes", part = "greet" }, '
    also += "rubric={ rated=1.0 } }]"
    before = load_manifest("scenes.toml", [also])
    assert weight_settings(before.stage("all"))["also"][0]["begin"] == 0.5
    (here / "tastes.py").write_text((here / "tastes.py").read_text() + "\n# changed\n")
    assert load_manifest("scenes.toml", [also]).fingerprints["all"] != before.fingerprints["all"]


def test_a_resolved_manifest_keeps_its_scenarios(here: Path) -> None:
    manifest = load_manifest("scenes.toml")
    (here / "again.toml").write_text(manifest.to_toml())
    assert load_manifest("again.toml").fingerprints == manifest.fingerprints
