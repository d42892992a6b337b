"""Somebody's checkpoint through the whole chain: imported, tuned, reinforced, exported, read back by transformers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from seekling.model.decoder import Rows
from seekling.model.weights import load_model
from seekling.runlog.run import Run
from tests.e2e.forks import Forks
from tests.oracles.checkpoints import publish

CHATS = [
    {"prompt": f"{n} + {n}?", "completion": f"<think>twice {n}</think><answer>{2 * n}</answer>"} for n in range(12)
]
TASK = """
from seekling import Problem, Verdict
from seekling.tasks.protocol import identity


class Small:
    name = "small"

    def draw(self, rng, size=None):
        n, m = rng.randint(0, 99), rng.randint(0, 99)
        return Problem(identity(self.name, n, m), self.name, f"{n} + {m}?", "2", 1)

    def check(self, problem, answer):
        return Verdict.PASS if answer.isdigit() and int(answer) < 12 else Verdict.WRONG
"""
MANIFEST = """
name = "mine"
[[stage]]
name = "start"
kind = "import"
model = "./published"

[[stage]]
name = "tuned"
kind = "sft"
from = "start"
data = "chats.jsonl"
steps = 60
tokens_per_step = 256
packing = { row_tokens = 256 }
optim = { matrices = "adamw", lr = 1e-2, warmup_steps = 5 }

[[stage]]
name = "zero"
kind = "grpo"
from = "tuned"
task = "./small.py:Small"
steps = 2
problems_per_step = 4
rollouts_per_problem = 4
sampling = { max_tokens = 40 }
packing = { row_tokens = 128 }
optim = { matrices = "adamw", lr = 1e-4, warmup_steps = 1 }
held_out_problems = 4
held_out_every = 2

[[stage]]
name = "proof"
kind = "eval"
from = "zero"
task = "./small.py:Small"
problems = 4
samples = 2
sampling = { max_tokens = 40 }
"""


@pytest.fixture(scope="module", params=["deepseek_v3", "qwen2"])
def finished(request: pytest.FixtureRequest, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a published checkpoint and a finished run on it."""
    return finish(request.param, tmp_path_factory.mktemp(request.param), forks, MANIFEST)


def finish(name: str, folder: Path, forks: Forks, manifest: str) -> Path:
    """Publish a checkpoint in ``folder`` and run the manifest on it."""
    publish(name, folder / "published")
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, CHATS)))
    (folder / "mine.toml").write_text(manifest)
    (folder / "small.py").write_text(TASK)
    ended = forks.run(["run", "mine.toml"], folder)
    assert ended.code == 0, ended.said
    return folder


def logits_of_ours(folder: Path, ids: list[int]) -> torch.Tensor:
    model, tokens = load_model(folder), torch.tensor([ids])
    with torch.no_grad():
        rows = Rows(tokens, torch.arange(len(ids)).unsqueeze(0), torch.ones_like(tokens))
        return model.logits(model(rows).states_BTD)[0]


def logits_of_theirs(folder: Path, ids: list[int]) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]  # type: ignore[no-any-return]


def test_an_imported_model_is_the_published_one(finished: Path) -> None:
    ids = list(range(20, 50))
    placed = Run(finished / "runs/mine").stage("start").model
    torch.testing.assert_close(
        logits_of_ours(placed, ids), logits_of_theirs(finished / "published", ids), rtol=1e-4, atol=1e-4
    )


def test_weights_are_shared_with_the_folder_they_came_from(finished: Path) -> None:
    placed = Run(finished / "runs/mine").stage("start").model
    assert (placed / "model.safetensors").samefile(finished / "published/model.safetensors")


def test_training_moves_an_imported_model(finished: Path) -> None:
    run = Run(finished / "runs/mine")
    weights = [load_model(run.stage(name).model).state_dict() for name in ("start", "tuned", "zero")]
    for before, after in itertools.pairwise(weights):
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[name], after[name]) for name in before)


def test_what_was_trained_and_exported_is_read_back_by_transformers(
    finished: Path, forks: Forks, tmp_path: Path
) -> None:
    ended = forks.run(["export", "mine", str(tmp_path / "out")], finished)
    assert ended.code == 0, ended.said
    ids = list(range(20, 50))
    torch.testing.assert_close(
        logits_of_theirs(tmp_path / "out", ids), logits_of_ours(Run(finished / "runs/mine").stage("zero").model, ids),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    theirs, published = (AutoTokenizer.from_pretrained(place) for place in (tmp_path / "out", finished / "published"))
    text = "深度求索 🐳 12+7=19 <think>x</think>"
    assert theirs(text).input_ids == published(text).input_ids
    card = (tmp_path / "out/README.md").read_text()
    assert "base_model:" in card and "pass@1" in card and "fine-tuned, then reinforced" in card
    lineage = json.loads((tmp_path / "out/seekling/lineage.json").read_text())
    assert [stage["name"] for stage in lineage["stages"]] == ["start", "tuned", "zero"]
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["eos_token_id"]


def test_a_second_run_repeats_nothing_and_a_changed_checkpoint_repeats_all(
    finished: Path, forks: Forks, tmp_path: Path
) -> None:
    again = forks.run(["run", "mine.toml"], finished)
    assert again.code == 0 and again.said.count("finished before") == 4
    before = Run(finished / "runs/mine").folders()
    config = json.loads((finished / "published/config.json").read_text())
    (finished / "published/config.json").write_text(json.dumps(config | {"use_cache": False}))
    try:
        third = forks.run(["run", "mine.toml", "zero.steps=1", "tuned.steps=2"], finished)
        assert third.code == 0, third.said
        assert not set(before) & set(Run(finished / "runs/mine").folders())
    finally:
        (finished / "published/config.json").write_text(json.dumps(config))
        forks.run(["run", "mine.toml"], finished)


def test_ask_eval_inspect_verify_and_diff_take_a_folder(finished: Path, forks: Forks) -> None:
    for words, said in (
        (["inspect", "./published"], "parameters"),
        (["ask", "./published", "2 + 2?", "--max-tokens", "4"], ""),
        (["verify", "./published"], "nothing failed"),
        (["diff", "./published", "mine/start"], "no layer"),
        (["diff", "./published", "mine/zero"], "parted first"),
        (["eval", "./published", "--problems", "2", "--samples", "1"], "pass@1"),
    ):
        ended = forks.run(words, finished)
        assert ended.code == 0, (words, ended.said)
        assert said in ended.said, (words, ended.said)


def test_a_folder_that_is_not_empty_is_left_alone(finished: Path, forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    ended = forks.run(["export", "mine", str(tmp_path / "out")], finished)
    assert ended.code == 2 and "not empty" in ended.said
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert [file.name for file in tmp_path.iterdir()] == ["out"], "nothing half-written beside it"


def test_a_family_not_built_here_goes_the_same_way_through_transformers(forks: Forks, tmp_path: Path) -> None:
    manifest = MANIFEST.replace('model = "./published"', 'model = "./published"\nthrough = "transformers"')
    folder = finish("gpt2", tmp_path, forks, manifest)
    ended = forks.run(["export", "mine", "out"], folder)
    assert ended.code == 0, ended.said
    ids = list(range(20, 50))
    trained, out = (
        logits_of_theirs(place, ids) for place in (Run(folder / "runs/mine").stage("zero").model, folder / "out")
    )
    assert torch.equal(trained, out)
    assert not torch.equal(out, logits_of_theirs(folder / "published", ids))
    assert "- gpt2" in (folder / "out/README.md").read_text()
    asked = forks.run(["ask", "./out", "2 + 2?", "--max-tokens", "4"], folder)
    assert asked.code == 0, asked.said
