"""R1's last stage at the size of a toy: a reward model from sampled answers, and two scenarios, one rated by it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from seekling.runlog.files import read_lines
from seekling.runlog.ledger import read_ledger
from tests.conftest import fresh_toy
from tests.e2e.forks import Forks, Misfortune
from tests.e2e.runs import assert_same_result, copied, metrics, stage

COMMAND = ["run", "scenes.toml"]
RUN = Path("runs/scenes")
STEPS, BEGIN = 12, 4


@pytest.fixture(scope="module")
def based(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base alone, killed before its first answer is sampled for the reward model."""
    folder = fresh_toy(tmp_path_factory.mktemp("based") / "toy")
    assert forks.run(COMMAND, folder, Misfortune("journal", 1)).code == -signal.SIGKILL
    return folder


@pytest.fixture(scope="module")
def finished(forks: Forks, based: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, gone on with to the end."""
    folder = copied(based, tmp_path_factory.mktemp("finished") / "toy")
    ended = forks.run(COMMAND, folder)
    assert ended.code == 0, ended.said
    return folder


def curve(folder: Path, name: str) -> dict[int, float]:
    return {n: told[name] for n, (*_, told) in enumerate(metrics(stage(folder / RUN, "all").folder)) if name in told}


def test_both_scenarios_learn_and_the_second_is_asked_from_its_share_of_the_steps_on(finished: Path) -> None:
    agreed, liked = curve(finished, "agree/reward"), curve(finished, "greet/rated")
    assert list(agreed) == list(range(STEPS)) and list(liked) == list(range(BEGIN, STEPS))
    assert agreed == curve(finished, "reward")
    assert fmean(list(agreed.values())[-4:]) > fmean(list(agreed.values())[:3]) + 0.2
    assert fmean(list(liked.values())[-3:]) > fmean(list(liked.values())[:2])
    passed = [curve(finished, name) for name in ("held_out_pass", "greet/held_out_pass")]
    assert list(passed[0]) == list(passed[1]) == [3, 7, 11], "asked before it begins, too"


def test_a_step_asks_both_and_a_reward_model_judges_one(finished: Path) -> None:
    lines = list(read_lines(stage(finished / RUN, "all").folder / "rollouts.jsonl"))
    assert [set(line["asked"]) for line in lines] == [{"agree"}] * BEGIN + [{"agree", "greet"}] * (STEPS - BEGIN)
    assert {line["asked"]["agree"] for line in lines} == {4, 8}, "groups without spread were asked for again"
    for line in lines[BEGIN:]:
        own, other = (line["groups"][part] for part in (0, -1))
        assert own["prompt"].startswith("agree") and other["prompt"].startswith("greet")
        parts = [rollout["parts"] for rollout in other["rollouts"]]
        assert all(0 < p["rated"] < 1 and "helpfulness" not in p for p in parts)
        assert [r["reward"] for r in other["rollouts"]] == [p["rated"] for p in parts]
        assert not any("rated" in rollout["parts"] for rollout in own["rollouts"])


def test_ratings_and_sampled_answers_are_metered(finished: Path) -> None:
    entries = read_ledger(finished / RUN)
    rated = [e for e in entries if (e.stage, e.kind) == ("all", "reward")]
    assert [e.step for e in rated] == list(range(BEGIN, STEPS))
    assert all(e.tokens > 0 and e.flops > 0 and e.seconds > 0 for e in rated)
    asked = {e.step for e in entries if (e.stage, e.kind) == ("rater", "generate")}
    assert asked == {0, 1, 2}, "32 training problems and 8 held-out ones, 16 at once"


def test_a_reward_model_is_held_against_its_labels_and_against_the_rule(finished: Path) -> None:
    facts = stage(finished / RUN, "rater").facts()
    told: dict[str, Any] = facts["figures"]
    assert told["held_out_exact_accuracy"] > 0.8 and told["held_out_exact_accuracy_before"] == 0.5
    assert 0 <= told["held_out_accuracy"] <= 1 and facts["rating"]["std"] > 0
    assert facts["pairs"]["trained on"] > 12 and facts["pairs"]["alike"] > 0


def test_the_report_draws_the_proxy_beside_the_rule_and_the_scenarios_side_by_side(finished: Path) -> None:
    page = (finished / RUN / "report.html").read_text()
    for shown in ("Proxy and rule: greet", "Reward by scenario", "Held-out pass@1 by scenario"):
        assert shown in page
    assert {parent["name"] for parent in stage(finished / RUN, "all").facts()["parents"]} == {"base", "rater"}


def test_killed_in_sampled_answers_and_again_among_scenarios_it_ends_equal_to_the_bit(
    forks: Forks, based: Path, finished: Path, tmp_path: Path
) -> None:
    folder = copied(based, tmp_path / "toy")
    assert forks.run(COMMAND, folder, Misfortune("journal", 2, "torn")).code == -signal.SIGKILL
    assert forks.run(COMMAND, folder, Misfortune("journal", 2 + BEGIN + 4, "after")).code == -signal.SIGKILL
    again = forks.run(COMMAND, folder)
    assert again.code == 0, again.said
    assert_same_result(folder / RUN, finished / RUN)
    whole = stage(finished / RUN, "rater").folder / "rollouts.jsonl"
    assert whole.read_bytes() == (stage(folder / RUN, "rater").folder / "rollouts.jsonl").read_bytes()
    assert json.loads(whole.read_text().splitlines()[0])["answers"]
