"""Several processes are one: same losses, same weights, same rollouts, the same files; and they end together."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seekling.runlog.files import read_lines
from seekling.runlog.run import Run
from tests.conftest import fresh_toy
from tests.e2e.forks import Ended, Forks, Misfortune
from tests.e2e.runs import assert_ledger_adds_up, metrics, only, stage

TOLERANCE = 1e-5
"""Of float32 sums taken in another order, over the few steps of these runs."""
RUN = Path("runs/toy")
DENSE = """
[stage.model]
preset = "tiny-dense"
vocab_size = 300
hidden_size = 36
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
intermediate_size = 50
max_position_embeddings = 96

"""
"""Few of whose first dimensions two processes share alike."""
SHORT = [
    "run", "toy.toml", "base.steps=4", "base.checkpoint_every=2", "base.export=best", "tuned.steps=2", "zero.steps=3",
    "zero.checkpoint_every=1", "zero.held_out_every=2", "zero.optim.matrices=muon", "zero.objective.beta=0.1",
]  # fmt: skip
"""Three stages that learn, with Muon and AdamW, a reference, and rewards that tell answers apart."""
LONG = ["run", "toy.toml", "base.steps=5000", "base.checkpoint_every=2", "processes=2"]

Alone = Callable[[str], Path]


def toy_in(folder: Path, kind: str) -> Path:
    """The stages that learn, of a dense model or one with experts."""
    toy = only(fresh_toy(folder), "base", "tuned", "zero")
    text = (toy / "toy.toml").read_text().replace("{ accuracy = 1.0, format = 0.5 }", '{ "./rewards.py:odd" = 1.0 }')
    if kind == "dense":
        head, _, tail = text.partition("[stage.model]")
        _, mark, rest = tail.partition("[[stage]]")
        text = head + DENSE + mark + rest
    (toy / "toy.toml").write_text(text)
    (toy / "rewards.py").write_text("def odd(problem, text): return len(text) % 5 / 4\n")
    return toy


@pytest.fixture(scope="module")
def alone(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """From a kind of model to a folder with a run of one process."""
    known: dict[str, Path] = {}

    def run_of(kind: str) -> Path:
        if kind not in known:
            known[kind] = toy_in(tmp_path_factory.mktemp(kind) / "toy", kind)
            done = forks.run(SHORT, known[kind])
            assert done.code == 0, done.said
        return known[kind]

    return run_of


def assert_near(run: Path, other: Path) -> None:
    """Weights and figures within the tolerance, and the same rollouts."""
    assert Run(run).folders() == Run(other).folders()
    for name in Run(other).folders():
        ours, theirs = (load_file(folder / name / "model/model.safetensors") for folder in (run, other))
        assert ours.keys() == theirs.keys()
        for weight, value in theirs.items():
            torch.testing.assert_close(ours[weight], value, atol=TOLERANCE, rtol=0, msg=f"{name}: {weight}")
        for (*_, mine), (*_, its) in zip(metrics(run / name), metrics(other / name), strict=True):
            mine.pop("expert_load", None), its.pop("expert_load", None)
            assert mine == pytest.approx(its, abs=TOLERANCE, rel=TOLERANCE), name
        assert said(run / name) == said(other / name)


def said(folder: Path) -> list[list[str]]:
    """The texts of every step that were journaled."""
    lines = read_lines(folder / "rollouts.jsonl")
    return [[rollout["text"] for group in line["groups"] for rollout in group["rollouts"]] for line in lines]


def assert_codes(ended: list[Ended], code: int) -> None:
    assert [one.code for one in ended] == [code] * len(ended), "\n".join(one.said for one in ended)


@pytest.mark.parametrize(
    ("kind", "spread"),
    [("dense", "false"), ("experts", "false"), pytest.param("experts", "true", marks=pytest.mark.soak)],
)
def test_two_processes_learn_what_one_does(forks: Forks, alone: Alone, tmp_path: Path, kind: str, spread: str) -> None:
    folder = toy_in(tmp_path / "toy", kind)
    first, second = ended = forks.run_crew([*SHORT, f"expert_parallel={spread}"], folder, 2)
    assert_codes(ended, 0)
    assert_near(folder / RUN, alone(kind) / RUN)
    assert first.out.count("report:") == 1 and not second.said, "only the first process speaks"
    assert_ledger_adds_up(folder / RUN)
    norms = [figures["grad_norm"] for *_, figures in metrics(stage(folder / RUN, "zero").folder)]
    assert all(norms), "where nothing is learned nothing is proved"


def test_a_run_goes_on_with_another_number_of_processes(forks: Forks, alone: Alone, tmp_path: Path) -> None:
    folder = toy_in(tmp_path / "toy", "experts")
    first, second = forks.crew(SHORT, folder, 2, {0: Misfortune("step", 3)})
    assert first.wait().code == -signal.SIGKILL
    second.send(signal.SIGKILL)
    second.wait()
    one = forks.run(SHORT, folder, Misfortune("step", 6))
    assert one.code == -signal.SIGKILL, one.said
    assert "began with processes 2 and goes on with 1: equal within tolerance" in one.said
    assert said(stage(folder / RUN, "zero").folder), "the last of them finds a step that was journaled and not learned"
    assert_codes(forks.run_crew(SHORT, folder, 2), 0)
    assert_near(folder / RUN, alone("experts") / RUN)
    assert [facts["processes"] for facts in Run(folder / RUN).facts()["sessions"]] == [2, 1, 2]


PARTS = {
    # With all before it frozen FSDP would see no way back, and give the head no gradient without a word.
    "a head": ("dense", ["toy.toml", 'tuned.train=["lm_head"]']),
    "adapters": (
        "experts",
        ["toy.toml", "expert_parallel=true", "tuned.adapter.rank=4", "tuned.packing.checkpoint_activations=true"],
    ),
    "pairs": (
        "experts",
        ["preferences.toml", "rater.steps=3", "rater.optim.eps=1e-3", "liked.steps=3", "liked.optim.eps=1e-3"],
    ),
}
"""What else is trained: the kind of model, and what is said on the command line.

AdamW divides by what it adds ``eps`` to: where a gradient is all rounding, a small one would make it a whole step.
"""


@pytest.mark.parametrize("what", PARTS)
def test_what_else_is_trained_two_train_as_one_does(forks: Forks, tmp_path: Path, what: str) -> None:
    kind, (manifest, *settings) = PARTS[what]
    argv = ["run", manifest, "base.steps=2", "tuned.steps=2", "tuned.optim.eps=1e-3", *settings]
    runs = []
    for count in (1, 2):
        folder = only(toy_in(tmp_path / str(count), kind), "base", "tuned")
        assert_codes(forks.run_crew(argv, folder, 2) if count == 2 else [forks.run(argv, folder)], 0)
        runs.append(folder / "runs" / manifest.removesuffix(".toml"))
    assert_near(runs[1], runs[0])
    assert all(figures["grad_norm"] for *_, figures in metrics(stage(runs[1], "tuned").folder))


def test_a_stop_is_one_for_all_and_nothing_is_lost(forks: Forks, tmp_path: Path) -> None:
    folder = only(toy_in(tmp_path / "toy", "dense"), "base")
    crew = forks.crew(SHORT[:4], folder, 2, {0: Misfortune("step", 1, send=signal.SIGTERM)})
    first, second = ended = [child.wait() for child in crew]
    assert_codes(ended, 130)
    assert "stopped and saved" in first.out and not second.said
    assert (stage(folder / RUN, "base").folder / "checkpoints/step-0000001/state.json").exists()


@pytest.mark.parametrize(
    ("settings", "letter"),
    [
        (["expert_parallel=true"], "4 experts cannot be shared alike by 3 processes"),
        (["zero.sampler=http://127.0.0.1:9"], "3 processes would each hand it weights"),
    ],
)
def test_what_several_cannot_do_is_told_in_a_letter(
    forks: Forks, tmp_path: Path, settings: list[str], letter: str
) -> None:
    folder = toy_in(tmp_path / "toy", "experts")
    crew = forks.crew([*SHORT, *settings], folder, 3)
    first = crew[0].wait()
    for child in crew[1:]:
        child.send(signal.SIGKILL)
        child.wait()
    assert first.code == 2 and letter in first.err and "next:" in first.err
    assert "Traceback" not in first.said


# --- started by the command itself ------------------------------------------------------------------------------------


def members(parent: int) -> dict[int, int]:
    """The processes that a command has started, by rank."""
    found = {}
    for pid in map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()):
        with suppress(OSError):
            told = dict(item.partition("=")[::2] for item in Path(f"/proc/{pid}/environ").read_text().split("\0"))
            if "RANK" in told:  # else it is not yet what it will be
                found[int(told["RANK"])] = pid
    return found


def wait_until(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def checkpoints(folder: Path) -> set[str]:
    return {place.name for place in (folder / RUN).glob("base-*/checkpoints/step-*")}


def test_a_process_that_dies_ends_the_run_within_a_minute_and_says_so(forks: Forks, tmp_path: Path) -> None:
    folder = only(toy_in(tmp_path / "toy", "dense"), "base")
    child = forks.start(LONG, folder)
    wait_until(lambda: bool(checkpoints(folder)), "a checkpoint")
    started = members(child.pid)
    assert sorted(started) == [0, 1]
    os.kill(started[1], signal.SIGKILL)
    ended = child.wait(60)
    assert ended.code == 2 and "process 1 of 2 was killed by signal 9" in ended.err
    assert "The same command goes on from the last checkpoint" in ended.err
    assert all(is_gone(pid) for pid in started.values())


def test_a_command_that_is_stopped_stops_all_and_the_same_command_goes_on(forks: Forks, tmp_path: Path) -> None:
    folder = only(toy_in(tmp_path / "toy", "dense"), "base")
    child = forks.start(LONG, folder)
    wait_until(lambda: bool(checkpoints(folder)), "a checkpoint")
    started = members(child.pid)
    child.send(signal.SIGTERM)
    ended = child.wait(60)
    assert ended.code == 130 and "stopped and saved; this goes on: seekling run toy.toml" in ended.out
    assert all(is_gone(pid) for pid in started.values())
    kept = max(checkpoints(folder))
    crew = forks.crew(LONG[:-1], folder, 2)
    wait_until(lambda: max(checkpoints(folder)) > kept, "a later checkpoint")
    for one in crew:
        one.send(signal.SIGKILL)
        one.wait()
    steps = [step for step, *_ in metrics(stage(folder / RUN, "base").folder)]
    assert steps == list(range(len(steps))), "no step is left out"


def test_processes_do_not_outlive_the_command_that_started_them(forks: Forks, tmp_path: Path) -> None:
    folder = only(toy_in(tmp_path / "toy", "dense"), "base")
    child = forks.start(LONG, folder)
    wait_until(lambda: len(members(child.pid)) == 2, "two processes")
    started = members(child.pid)
    wait_until(lambda: bool(checkpoints(folder)), "a checkpoint")
    child.send(signal.SIGKILL)
    child.wait()
    wait_until(lambda: all(is_gone(pid) for pid in started.values()), "both end")
