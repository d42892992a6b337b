"""A run that vLLM samples for: the same rollouts as our own engine's, resumed to the bit, and no server left behind."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from seekling.model.weights import load_model
from tests.conftest import fresh_toy
from tests.e2e.forks import Forks, Misfortune
from tests.e2e.runs import assert_same_result, copied, stage
from tests.fixtures.fake_vllm import program, serving
from tests.unit.test_tied import gone, until

RUN = Path("runs/preferences")
ARGV = ["run", "preferences.toml"]
ZERO = """
[[stage]]
name = "zero"
kind = "grpo"
from = "base"
task = { name = "./sums.py:Sums", high = 20 }
steps = 4
problems_per_step = 2
rollouts_per_problem = 4
sampling = { max_tokens = 8, temperature = 0.9, top_k = 30, top_p = 0.95 }
rubric = { accuracy = 1.0, format = 0.5 }
optim = { matrices = "adamw", lr = 1e-3, warmup_steps = 1 }
packing = { row_tokens = 64 }
checkpoint_every = 2
held_out_every = 3
held_out_problems = 2
"""


@pytest.fixture(scope="module")
def based(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dense base model, and a manifest that goes on to reinforcement."""
    folder = fresh_toy(tmp_path_factory.mktemp("based") / "toy")
    file = folder / "preferences.toml"
    head, base = file.read_text().split("[[stage]]")[:2]
    file.write_text(f"{head}[[stage]]{base}")
    assert forks.run(ARGV, folder).code == 0
    file.write_text(f"{head}[[stage]]{base}{ZERO}")
    return folder


def served(folder: Path) -> list[str]:
    """The command that runs ``folder`` with a program of its own."""
    return [*ARGV, "zero.sampler=vllm", f"zero.vllm.command='{program(folder)}'"]


@pytest.fixture(scope="module")
def whole(forks: Forks, based: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with a server of its own, never interrupted."""
    folder = copied(based, tmp_path_factory.mktemp("whole") / "toy")
    ended = forks.run(served(folder), folder)
    assert ended.code == 0, ended.said
    return folder


def said(folder: Path) -> list[Any]:
    """Every rollout's tokens, in order."""
    lines = (stage(folder / RUN, "zero").folder / "rollouts.jsonl").read_text().splitlines()
    return [r["tokens"] for line in lines for group in json.loads(line)["groups"] for r in group["rollouts"]]


def pids(folder: Path) -> list[int]:
    return [json.loads(line)["pid"] for line in (folder / "starts.jsonl").read_text().splitlines()]


def test_a_served_run_learns_what_our_own_engine_would_have_taught_it(
    forks: Forks, based: Path, whole: Path, tmp_path: Path
) -> None:
    own = copied(based, tmp_path / "toy")
    assert forks.run(ARGV, own).code == 0
    assert said(own) == said(whole) and len(said(own)) == 32
    ours, theirs = (load_model(stage(folder / RUN, "zero").model).state_dict() for folder in (own, whole))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)
    facts, figures = (stage(whole / RUN, "zero").facts()[name] for name in ("sampler", "figures"))
    assert facts["hand_overs"] == 4 and facts["worst"] < 1e-5 and figures["mismatch_kl"] < 1e-9


def test_its_server_is_gone_and_so_is_what_was_handed_over(whole: Path) -> None:
    assert len(pids(whole)) == 1 and all(map(gone, pids(whole)))
    assert not (stage(whole / RUN, "zero").folder / "handed-over").exists()


@pytest.mark.parametrize("misfortune", [
    Misfortune("journal", 3, "after"),
    pytest.param(Misfortune("step", 2, "before"), marks=pytest.mark.soak),
    pytest.param(Misfortune("step", 3, "after", signal.SIGTERM), marks=pytest.mark.soak),
    pytest.param(Misfortune("journal", 2, "torn"), marks=pytest.mark.soak),
], ids=lambda m: f"{m.at}-{m.number}-{m.how}")  # fmt: skip
def test_a_killed_run_takes_its_server_along_and_goes_on_to_the_same_end(
    forks: Forks, based: Path, whole: Path, tmp_path: Path, misfortune: Misfortune
) -> None:
    folder = copied(based, tmp_path / "toy")
    argv = served(folder)
    forks.run(argv, folder, misfortune)
    until(lambda: all(map(gone, pids(folder))))
    ended = forks.run(argv, folder)
    assert ended.code == 0, ended.said
    assert_same_result(folder / RUN, whole / RUN)
    assert len(pids(folder)) == 2


def test_a_server_of_somebody_else_serves_the_same_run_at_any_address(
    forks: Forks, based: Path, whole: Path, tmp_path: Path
) -> None:
    folder = copied(based, tmp_path / "toy")
    with serving(stage(based / RUN, "base").model) as fake:
        ended = forks.run([*ARGV, f"zero.sampler='{fake.url}'"], folder)
    assert ended.code == 0, ended.said
    assert_same_result(folder / RUN, whole / RUN)


def test_stale_weights_stop_the_run_with_a_letter(forks: Forks, based: Path, tmp_path: Path) -> None:
    folder = copied(based, tmp_path / "toy")
    with serving(stage(based / RUN, "base").model, "stale") as fake:
        ended = forks.run([*ARGV, f"zero.sampler='{fake.url}'"], folder)
    assert ended.code == 2 and "Traceback" not in ended.said
    assert 'stage "zero" stops: the server still speaks with earlier weights' in ended.said
