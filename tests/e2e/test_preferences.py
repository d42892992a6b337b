"""Stages that learn from pairs: base -> fine-tuned -> a reward model and a preferring policy, killed and resumed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
import transformers

from seekling.cli.show import find_model
from seekling.errors import UserError
from seekling.model.weights import load_model
from seekling.recipes.reward_model import Rater, load_reward_model
from seekling.runlog.ledger import read_ledger
from tests.conftest import fresh_toy
from tests.e2e.forks import Forks, Misfortune
from tests.e2e.runs import assert_same_result, copied, metrics, stage

COMMAND = ["run", "preferences.toml"]
RUN = Path("runs/preferences")
KINDS = ("rater", "liked")
ACCURACY = {"rater": "accuracy", "liked": "rewards/accuracies"}
MARGIN = {"rater": "margin", "liked": "rewards/margins"}


def cut(folder: Path, *names: str) -> Path:
    """Keep only the stages called ``names``."""
    head, *stages = (folder / "preferences.toml").read_text().split("[[stage]]")
    kept = [one for one in stages if any(f'name = "{name}"' in one for name in names)]
    (folder / "preferences.toml").write_text("[[stage]]".join([head, *kept]))
    return folder


@pytest.fixture(scope="module")
def tuned(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fine-tuned model, and the whole manifest."""
    folder = fresh_toy(tmp_path_factory.mktemp("tuned") / "toy")
    whole = (folder / "preferences.toml").read_text()
    ended = forks.run(COMMAND, cut(folder, "base", "tuned"))
    assert ended.code == 0, ended.said
    (folder / "preferences.toml").write_text(whole)
    return folder


@pytest.fixture(scope="module")
def finished(forks: Forks, tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after both stages, never interrupted."""
    folder = copied(tuned, tmp_path_factory.mktemp("finished") / "toy")
    ended = forks.run(COMMAND, folder)
    assert ended.code == 0, ended.said
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_accuracy_rises_from_a_coins_and_margins_grow_also_on_pairs_never_trained_on(finished: Path, name: str) -> None:
    folder = stage(finished / RUN, name)
    steps, facts = [m for *_, m in metrics(folder.folder)], folder.facts()
    assert steps[0][ACCURACY[name]] == facts["figures"]["held_out_accuracy_before"] == 0.5
    assert steps[0][MARGIN[name]] == facts["figures"]["held_out_margin_before"] == 0
    assert [n for n, step in enumerate(steps) if "held_out_accuracy" in step] == [9, 19, 29]
    assert facts["figures"][ACCURACY[name]] > 0.8 and facts["figures"]["held_out_accuracy"] > 0.8
    assert facts["figures"][MARGIN[name]] > 1 and facts["figures"]["held_out_margin"] > 1
    assert facts["pairs"]["held out"] >= 8 and sum(facts["pairs"].values()) == 80


def test_figures_bear_the_names_that_users_of_trl_know(finished: Path) -> None:
    figures = {name: set(stage(finished / RUN, name).facts()["figures"]) for name in KINDS}
    pairs = {f"{kind}/{side}" for kind in ("rewards", "logps") for side in ("chosen", "rejected")}
    assert figures["liked"] >= pairs | {"rewards/accuracies", "rewards/margins", "loss", "grad_norm"}
    assert figures["rater"] >= {"accuracy", "margin", "mean_reward", "loss", "grad_norm"}


def test_the_start_is_tested_and_the_work_is_metered(finished: Path) -> None:
    tests = {name: {t["name"] for t in stage(finished / RUN, name).facts()["selftests"]} for name in KINDS}
    assert tests == {"rater": {"loss ignores slicing"},
                     "liked": {"loss ignores slicing", "policy begins as its reference"}}  # fmt: skip
    for name in KINDS:
        assert stage(finished / RUN, name).facts()["selftest_seconds"] > 0
        own = [entry for entry in read_ledger(finished / RUN) if entry.stage == name]
        assert [e.step for e in own if e.kind == "train"] == list(range(30))
        assert [e.step for e in own if e.kind == "eval"] == [0, 10, 20, 30]
        assert all(entry.tokens > 0 and entry.flops > 0 for entry in own)


def rows() -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) as the file has them."""
    told = map(json.loads, (Path(__file__).parent / "manifests/pairs.jsonl").read_text().splitlines())
    return [
        (row["prompt"], row["chosen"], row["rejected"])
        if "prompt" in row
        else (row["chosen"][0]["content"], row["chosen"][1]["content"], row["rejected"][1]["content"])
        for row in told
    ]


@pytest.fixture(scope="module")
def rater(finished: Path) -> Rater:
    return load_reward_model(stage(finished / RUN, "rater").model)


def test_a_reward_model_is_loaded_and_tells_replies_apart(rater: Rater) -> None:
    prompts, chosen, rejected = zip(*rows(), strict=True)
    good, bad = rater.score(prompts, chosen), rater.score(prompts, rejected)
    assert sum(g > b for g, b in zip(good, bad, strict=True)) > 0.9 * len(good)


def test_a_score_depends_neither_on_its_company_nor_on_how_the_prompt_is_written(rater: Rater) -> None:
    prompts, chosen, _ = zip(*rows()[:7], strict=True)
    together = rater.score(prompts, chosen)
    alone = [rater.score([p], [c])[0] for p, c in zip(prompts, chosen, strict=True)]
    asked = [[{"role": "user", "content": p}] for p in prompts]
    assert together == pytest.approx(alone, abs=1e-5) == rater.score(asked, chosen)
    assert rater.score([], []) == []


def test_transformers_scores_a_padded_batch_of_its_own_template_alike(finished: Path, rater: Rater) -> None:
    folder = stage(finished / RUN, "rater").model
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    assert tokenizer.pad_token_id == model.config.pad_token_id != tokenizer.eos_token_id
    prompts, chosen, _ = zip(*rows()[:6], strict=True)
    chosen = [c + " indeed" * n for n, c in enumerate(chosen)]
    chats = [[{"role": "user", "content": p}, {"role": "assistant", "content": c}]
             for p, c in zip(prompts, chosen, strict=True)]  # fmt: skip
    said = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
    read = tokenizer(said, padding=True, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        theirs = model(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).logits[:, 0]
    assert theirs.tolist() == pytest.approx(rater.score(prompts, chosen), abs=1e-4)


def test_one_talks_to_what_speaks_and_not_to_what_rates(finished: Path) -> None:
    load_model(stage(finished / RUN, "liked").model)
    runs = finished / "runs"
    assert find_model(runs, "preferences") == stage(finished / RUN, "liked").model
    with pytest.raises(UserError, match="says nothing"):
        load_model(find_model(runs, "preferences/rater"))


def test_a_reward_model_at_the_end_of_a_run_is_not_what_one_talks_to(forks: Forks, tuned: Path, tmp_path: Path) -> None:
    folder = cut(copied(tuned, tmp_path / "toy"), "base", "tuned", "rater")
    assert forks.run([*COMMAND, "rater.steps=1"], folder).code == 0
    assert find_model(folder / "runs", "preferences") == stage(folder / RUN, "tuned").model


@pytest.mark.parametrize(
    "moment, number, how",
    [("step", 43, "before"), ("checkpoint", 5, "torn")]
    + [pytest.param(*point, marks=pytest.mark.soak) for point in (("step", 13, "after"), ("line", 70, "torn"))],
)
def test_stages_of_pairs_killed_anywhere_end_equal_to_the_bit(
    forks: Forks, tuned: Path, finished: Path, tmp_path: Path, moment: str, number: int, how: str
) -> None:
    folder = copied(tuned, tmp_path / "toy")
    assert forks.run(COMMAND, folder, Misfortune(moment, number, how)).code == -signal.SIGKILL
    again = forks.run(COMMAND, folder)
    assert again.code == 0, again.said
    assert_same_result(folder / RUN, finished / RUN)


def test_a_run_that_goes_on_with_more_threads_ends_equal(
    forks: Forks, tuned: Path, finished: Path, tmp_path: Path
) -> None:
    folder = copied(tuned, tmp_path / "toy")
    assert forks.run(COMMAND, folder, Misfortune("step", 35, "after")).code == -signal.SIGKILL
    assert forks.run([*COMMAND, "threads=2"], folder).code == 0
    assert_same_result(folder / RUN, finished / RUN)


def test_adapters_learn_preferences_too(forks: Forks, tuned: Path, tmp_path: Path) -> None:
    folder = copied(tuned, tmp_path / "toy")
    how = [f"{name}.{what}" for name in KINDS for what in ("adapter.rank=4", "optim.lr=0.02", "steps=20")]
    ended = forks.run([*COMMAND, *how], folder)
    assert ended.code == 0, ended.said
    for name in KINDS:
        assert stage(folder / RUN, name).facts()["figures"]["held_out_accuracy"] > 0.8
    tests = {t["name"] for t in stage(folder / RUN, "liked").facts()["selftests"]}
    assert "engine samples from the adapters that are trained" in tests
    scored = load_reward_model(stage(folder / RUN, "rater").model).score(["1+2"] * 2, ["1+2 is easy", "1+2 is hard"])
    assert scored[0] > scored[1]


def test_pairs_of_a_tasks_traces_are_right_against_wrong(forks: Forks, tuned: Path, tmp_path: Path) -> None:
    """Sums are not learned in a few steps: what counts is that such a stage runs, and learns what it was shown."""
    folder = cut(copied(tuned, tmp_path / "toy"), "base", "tuned", "rater")
    task = [
        'rater.task={name="./sums.py:Sums", high=20}',
        "rater.data=''",
        "rater.steps=3",
        "rater.packing.row_tokens=160",
    ]
    ended = forks.run([*COMMAND, *task, "rater.text.qualities={right=0.5, wrong=0.5}"], folder)
    assert ended.code == 0, ended.said
    assert stage(folder / RUN, "rater").facts()["figures"].keys() >= {"accuracy", "held_out_accuracy"}


@pytest.mark.parametrize(
    "told, said",
    [
        (["rater.data=none.jsonl"], "there is no data file none.jsonl"),
        (["rater.data=''"], "needs either data or task"),
        (["rater.task=arithmetic"], "needs either data or task"),
        (["liked.loss=ipo", "liked.label_smoothing=0.1"], "label_smoothing belongs to"),
        (["liked.beta=0"], '"beta"'),
        (["liked.export=best", "liked.held_out_every=7"], "no checkpoint would be measured"),
        (["liked.from=rater"], 'reads "rater", a reward model, which rates what others say and says nothing'),
    ],
)
def test_a_manifest_that_cannot_work_is_refused_before_the_run(
    forks: Forks, toy: Path, told: list[str], said: str
) -> None:
    ended = forks.run([*COMMAND, *told], toy)
    assert ended.code == 2 and said in ended.said and "Traceback" not in ended.said
    assert not (toy / RUN).exists()


def test_a_faulty_row_is_a_letter_with_its_line(forks: Forks, tuned: Path, tmp_path: Path) -> None:
    folder = copied(tuned, tmp_path / "toy")
    (folder / "bad.jsonl").write_text(
        '{"prompt": "1", "chosen": "2", "rejected": "3"}\n{"prompt": "1", "chosen": "2"}\n'
    )
    ended = forks.run([*COMMAND, "rater.data=bad.jsonl"], folder)
    assert ended.code == 2 and "1 row is no pair, of 2" in ended.said
    assert "bad.jsonl, line 2: found the keys prompt, chosen" in ended.said and "Traceback" not in ended.said
