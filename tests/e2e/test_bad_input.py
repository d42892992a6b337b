"""Bad input: one screen, no traceback, an exit code that tells, and nothing lost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from seekling.runlog.run import Run
from tests.conftest import fresh_toy
from tests.e2e.forks import Ended, Forks, Misfortune
from tests.e2e.runs import copied, only, stage

RUN = Path("runs/toy")


def assert_letter(ended: Ended, *words: str, code: int = 2) -> None:
    """One screen with these words, and no traceback."""
    assert ended.code == code, ended.said
    assert "Traceback" not in ended.said
    assert ended.err.startswith(("error: ", "\n", "warning")) or "\nerror: " in f"\n{ended.err}"
    assert len(ended.err.splitlines()) <= 24 and len(ended.err) < 2000
    for word in words:
        assert word in ended.err, f"{word!r} is not in:\n{ended.err}"


def edited(folder: Path, old: str, new: str, count: int = 1) -> Path:
    """toy.toml with a piece replaced."""
    text = (folder / "toy.toml").read_text()
    assert old in text
    (folder / "toy.toml").write_text(text.replace(old, new, count))
    return folder


@pytest.fixture(scope="module")
def pretrained(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished base of a few steps."""
    folder = only(fresh_toy(tmp_path_factory.mktemp("pretrained") / "toy"), "base", "zero")
    edited(folder, "steps = 40", "steps = 4")
    assert forks.run(["run", "toy.toml"], folder, Misfortune("sample", 1)).code < 0
    return folder


MANIFESTS = {
    "unknown key": (
        "tokens_per_step = 512", "tokens_per_stop = 512", ('"tokens_per_stop"', '"tokens_per_step"', "line 13")),
    "unknown nested key": ("warmup_steps = 2", "warmup_stops = 2", ('"warmup_stops"', '"warmup_steps"', "line 16")),
    "unknown model key": ("hidden_size = 32", "hiden_size = 32", ('"hiden_size"', '"hidden_size"', "line 21")),
    "unknown head key": ("threads = 1", "thread = 1", ('"thread"', '"threads"', "line 4")),
    "wrong type": ("steps = 40", 'steps = "many"', ('"steps"', "integer", "'many'", "line 12")),
    "wrong type of a choice": ("from = \"base\"", "from = 7", ('"from"', "line 37")),
    "wrong type of a task": ('task = { name = "./sums.py:Sums", high = 20 }', "task = 7", ('"task"', "line 10")),
    "out of range": ("steps = 40", "steps = 0", ('"steps"', "greater than or equal to 1")),
    "not a number": ("lr = 0.01", "lr = inf", ('"lr"', "finite")),
    "a model that does not fit": (
        "num_experts_per_tok = 2", "num_experts_per_tok = 9", ("num_experts_per_tok exceeds",)),
    "unknown stage kind": ('kind = "grpo"', 'kind = "grop"', ('"grop"', '"grpo"', "line 46")),
    "no kind": ('kind = "grpo"', "", ("stage kind", "line 44")),
    "a circle": (
        'name = "base"\nkind = "pretrain"', 'name = "base"\nfrom = "zero"\nkind = "sft"\ndata = "chats.jsonl"', ()),
    "a stage that reads itself": ('from = "base"\ndata', 'from = "tuned"\ndata', ("circle", "tuned")),
    "unknown input": ('from = "zero"', 'from = "zeros"', ('"zeros"', '"zero"', "line 65")),
    "too few inputs": (
        'from = ["base", "zero"]', 'from = "base"', ("controls", '"base", a model; it needs', "line 76")),
    "doubled names": ('name = "tuned"', 'name = "base"', ('two stages are called "base"',)),
    "newer format": ("format = 1", "format = 99", ("format 99", "up to 1", "line 2", "Update Seekling")),
    "not TOML": ("[[stage]]", "[[stage", ("not valid TOML", "line")),
    "no list of stages": ("[[stage]]", "[[stages]]", ()),
    "unknown preset": ('preset = "tiny-v3"', 'preset = "tiny-v4"', ("tiny-v4", "tiny-v3")),
    "unknown objective": ('objective = "grpo"', 'objective = "gripo"', ("gripo", "dr_grpo")),
    "unknown quality": ("right = 0.9", "wrote = 0.9", ('"wrote"', '"wrong"')),
    "no quality left": (
        "{ right = 0.9, checked = 0.1 }", "{ checked = 0.1 }, verdicts = false", ("no worked attempts",)),
    "missing data file": ('"chats.jsonl"', '"chat.jsonl"', ("chat.jsonl",)),
    "data and task": ('data = "chats.jsonl"', 'data = "chats.jsonl"\ntask = "arithmetic"', ("either data or task",)),
    "missing task file": ("./sums.py:Sums", "./suns.py:Sums", ("suns.py",)),
    "missing task class": ("./sums.py:Sums", "./sums.py:Suns", ("Suns",)),
    "wrong task setting": ("high = 20", "hihg = 20", ("hihg",)),
    "unknown task": ('"./sums.py:Sums"', '"arithmetics"', ('"arithmetics"', '"arithmetic"', "line 10")),
    "a name with a slash": ('name = "base"', 'name = "../base"', ('"name"', "line 8")),
    "rows too short": ("row_tokens = 32", "row_tokens = 8", ("does not fit a row of 8", "packing.row_tokens")),
}  # fmt: skip


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_wrong_manifest_is_a_letter(forks: Forks, toy: Path, case: str) -> None:
    old, new, words = MANIFESTS[case]
    everywhere = len(MANIFESTS) if case in ("no list of stages",) else 1
    ended = forks.run(["run", "toy.toml"], edited(toy, old, new, everywhere))
    assert_letter(ended, *words)
    if case not in ("unknown quality", "no quality left", "data and task", "rows too short"):
        assert not (toy / "runs").exists(), "refused before anything was written"


COMMANDS = {
    "missing file": (["run", "nothing.toml"], ("nothing.toml",)),
    "a folder that is no run": (["run", "runs2"], ("runs2",)),
    "unknown manifest": (["run", "zero-tony"], ('"zero-tony"', '"zero-tiny"')),
    "override without value": (["run", "toy.toml", "base.steps"], ("stage.key=value",)),
    "override of no stage": (["run", "toy.toml", "bose.steps=5"], ('"bose"', '"base"')),
    "override of no key": (["run", "toy.toml", "base.stops=5"], ('"stops"', '"steps"')),
    "override below a value": (["run", "toy.toml", "base.steps.x=5"], ('"steps"', "not a table")),
    "override of a wrong type": (["run", "toy.toml", "base.steps=many"], ('"steps"', "'many'")),
    "unknown device": (["run", "toy.toml", "device=abacus"], ("abacus", "cpu")),
    "unknown run": (["show", "nothing"], ('no run "nothing"',)),
    "unknown run to talk to": (["ask", "nothing", "1+1"], ('no run "nothing"',)),
    "unknown run to report": (["report", "nothing"], ('no run "nothing"',)),
    "unknown run to evaluate": (["eval", "nothing"], ('no run "nothing"',)),
    "unknown kind": (["stages", "grop"], ('"grop"', '"grpo"')),
    "unknown action": (["runs", "prone"], ('"prone"',)),
    "prune what?": (["runs", "prune"], ("seekling runs prune RUN",)),
    "unknown run to prune": (["runs", "prune", "nothing"], ('no run "nothing"',)),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_wrong_command_is_a_letter(forks: Forks, toy: Path, case: str) -> None:
    argv, words = COMMANDS[case]
    (toy / "runs2").mkdir()
    assert_letter(forks.run(argv, toy), *words)


def test_an_unknown_command_or_option_is_told_without_a_traceback(forks: Forks, toy: Path) -> None:
    for argv in (["rum"], ["run"], ["ask", "x"], ["eval", "x", "--samples", "0"], ["run", "toy.toml", "--what"]):
        ended = forks.run(argv, toy)
        assert ended.code == 2 and "Traceback" not in ended.said and ended.err, argv


def test_a_run_directory_in_use_names_who_holds_it(forks: Forks, toy: Path) -> None:
    child = forks.start(["run", "toy.toml", "base.steps=5000"], toy)
    end = time.monotonic() + 20
    while not list((toy / RUN).glob("base-*/metrics.jsonl")):
        assert time.monotonic() < end
        time.sleep(0.01)
    second = forks.run(["run", "toy.toml", "base.steps=5000"], toy)
    listed = forks.run(["runs"], toy)
    assert_letter(second, "in use by another process", f"pid {child.pid}", "--name")
    assert "running" in listed.out
    child.send(15)
    assert child.wait().code == 130, "the first one was not disturbed"
    assert "stopped" in forks.run(["runs"], toy).out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_unwritable_directory_is_a_letter(forks: Forks, tmp_path: Path) -> None:
    open_to_all = tmp_path
    for place in (tmp_path, *tmp_path.parents):
        if place.owner() == Path(tmp_path).owner() and str(place).startswith("/tmp/"):
            place.chmod(place.stat().st_mode | 0o055)
    toy = only(fresh_toy(open_to_all / "toy"), "base")
    ended = forks.run(["run", "toy.toml"], toy, Misfortune(user=65534))
    assert_letter(ended, "no permission to write", "--runs")


def test_runs_below_a_file_is_a_letter(forks: Forks, toy: Path) -> None:
    (toy / "runs").write_text("not a folder")
    assert_letter(forks.run(["run", "toy.toml"], toy), "runs/toy", "--runs")


@pytest.mark.parametrize("moment", ["line", "checkpoint", "journal"])
def test_a_full_disk_is_a_letter_and_the_same_command_goes_on(
    forks: Forks, pretrained: Path, tmp_path: Path, moment: str
) -> None:
    folder = copied(pretrained, tmp_path / "toy")
    hurt = Misfortune(moment, 3, fails="ENOSPC")
    if moment != "checkpoint":
        limit = 3000 if moment == "line" else 9000
        hurt = Misfortune(file_bytes=limit)  # the system itself refuses what is longer
        (stage(folder / RUN, "zero").folder / "metrics.jsonl").unlink(missing_ok=True)
    ended = forks.run(["run", "toy.toml"], folder, hurt)
    assert_letter(ended, "the disk is full", "run the same command again")
    again = forks.run(["run", "toy.toml"], folder)
    assert again.code == 0, again.said
    assert [s.facts()["state"] for s in Run(folder / RUN).current()] == ["done", "done"]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_model_of_an_earlier_stage_is_a_letter(
    forks: Forks, pretrained: Path, tmp_path: Path, file: str
) -> None:
    folder = copied(pretrained, tmp_path / "toy")
    place = stage(folder / RUN, "base").model / file
    place.write_bytes(place.read_bytes()[: place.stat().st_size // 2])
    assert_letter(forks.run(["run", "toy.toml"], folder), file)
    place.unlink()
    assert_letter(forks.run(["run", "toy.toml"], folder), file)


@pytest.mark.parametrize("file", ["run.json", "stage.json"])
def test_a_damaged_document_is_a_letter(forks: Forks, pretrained: Path, tmp_path: Path, file: str) -> None:
    folder = copied(pretrained, tmp_path / "toy")
    place = next((folder / RUN).rglob(file))
    place.write_text(place.read_text()[:40])
    for argv in (["run", "toy.toml"], ["show", "toy"], ["runs"]):
        assert_letter(forks.run(argv, folder), file, "damaged")


def own_task(folder: Path, body: str) -> Path:
    """The toy with a task of its own: Sums with something changed."""
    text = (folder / "sums.py").read_text()
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    (folder / "sums.py").write_text(f"{text}\n\n@dataclass(frozen=True)\nclass Mine(Sums):\n{indented}")
    return edited(only(folder, "base", "zero"), "./sums.py:Sums", "./sums.py:Mine", 9)


TASKS = {
    "its own answer key fails": (
        "def check(self, problem, answer):\n    return Verdict.WRONG",
        ("answer key passes",), 4,
    ),
    "its check raises on its own key": (
        "def check(self, problem, answer):\n    raise ValueError('no such unit: furlong')",
        ("ValueError: no such unit: furlong", "check"), 4,
    ),
    "its check answers with no verdict": (
        "def check(self, problem, answer):\n    return True",
        ("its own answer key: it returned True",), 4,
    ),
    "its ids leak held-out problems": (
        "def draw(self, rng, size=None):\n"
        "    problem = Sums.draw(self, rng, size)\n"
        "    return Problem(identity('leak', rng.random()), 'mine', problem.prompt, problem.answer, 2)",
        ("no held-out problem in training",), 4,
    ),
    "its ids never differ": (
        "def draw(self, rng, size=None):\n"
        "    problem = Sums.draw(self, rng, size)\n"
        "    return Problem('00000000same', 'mine', problem.prompt, problem.answer, 2)",
        ("ids must differ",), 2,
    ),
    "its module raises": ("1 / 0", ("ZeroDivisionError",), 2),
    "it is no task": ("check = None\ndef __post_init__(self):\n    raise RuntimeError('not ready')", ("not ready",), 2),
}  # fmt: skip


@pytest.mark.parametrize("case", TASKS)
def test_a_broken_task_refuses_to_train(forks: Forks, toy: Path, case: str) -> None:
    body, words, code = TASKS[case]
    ended = forks.run(["run", "toy.toml"], own_task(toy, body))
    assert_letter(ended, *words, code=code)
    assert not list((toy / "runs").rglob("checkpoints")), "nothing was trained"


RAISES_LATER = "def check(self, problem, answer):\n    if answer != problem.answer:\n        raise KeyError('furlong')\n    return Verdict.PASS"  # noqa: E501


def test_a_check_that_raises_on_a_rollout_stops_the_run_with_its_own_words(forks: Forks, toy: Path) -> None:
    ended = forks.run(["run", "toy.toml"], own_task(toy, RAISES_LATER))
    assert_letter(ended, "KeyError: 'furlong'", "fails on", "rollouts", "first on problem")
    folder = own_task(fresh_toy(toy.parent / "mended"), RAISES_LATER.replace("raise KeyError('furlong')", "pass"))
    assert not (folder / "runs").exists()


def test_a_check_that_raises_in_an_evaluation_is_no_wrong_answer(forks: Forks, toy: Path) -> None:
    text = (toy / "toy.toml").read_text()
    own_task(toy, RAISES_LATER)
    (toy / "toy.toml").write_text(text.replace("Sums", "Mine").replace('from = "zero"', 'from = "base"'))
    only(toy, "base", "zero-eval")
    assert_letter(forks.run(["run", "toy.toml"], toy), "KeyError: 'furlong'")


def test_a_diverging_learning_rate_is_told_and_never_saved(forks: Forks, toy: Path) -> None:
    folder = only(toy, "base")
    wild = ["base.optim.lr=1e38", "base.optim.muon_lr=1e38", "base.checkpoint_every=1", "base.optim.warmup_steps=0"]
    ended = forks.run(["run", "toy.toml", *wild], folder)
    assert_letter(ended, "diverged", "optim.lr")
    assert not stage(folder / RUN, "base").model.exists()
    from seekling.model.weights import load_tensors

    for file in (folder / RUN).rglob("model.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_tensors(file).values())


def test_a_prompt_that_is_too_long_is_a_letter(forks: Forks, pretrained: Path, tmp_path: Path) -> None:
    body = (
        "def draw(self, rng, size=None):\n"
        "    problem = Sums.draw(self, rng, size)\n"
        "    long = ' '.join([problem.prompt] * 60)\n"
        "    return Problem(problem.id, 'mine', long, problem.answer, 2)"
    )
    folder = copied(pretrained, tmp_path / "toy")
    (folder / "toy.toml").write_text((folder / "toy.toml").read_text())
    text = (folder / "sums.py").read_text()
    (folder / "long.py").write_text(
        text + "\n\nclass Mine(Sums):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    )
    zero = (folder / "toy.toml").read_text().rpartition("[[stage]]")
    (folder / "toy.toml").write_text(zero[0] + zero[1] + zero[2].replace("./sums.py:Sums", "./long.py:Mine"))
    assert_letter(forks.run(["run", "toy.toml"], folder), "does not fit the model's context of 96")
    asked = forks.run(["ask", "toy/base", "1+1 " * 200], folder)
    assert_letter(asked, "does not fit the model's context of 96")
    assert_letter(
        forks.run(["eval", "toy/base", "--task", "./long.py:Mine", "--problems", "2"], folder), "context of 96"
    )


CHATS = {
    "no JSON": ("{", ("chats.jsonl, line 2", "not JSON")),
    "no chat": ('{"text": "hello"}', ("chats.jsonl, line 2", "no chat")),
    "nothing said": ('{"messages": []}', ("chats.jsonl, line 2",)),
    "no assistant": ('{"messages": [{"role": "user", "content": "1+1"}]}', ("line 2", "nothing to learn")),
    "an unknown role": ('{"messages": [{"role": "parrot", "content": "1+1"}]}', ("parrot",)),
}


@pytest.mark.parametrize("case", CHATS)
def test_a_wrong_chat_names_its_line(forks: Forks, pretrained: Path, tmp_path: Path, case: str) -> None:
    line, words = CHATS[case]
    folder = copied(pretrained, tmp_path / "toy")
    tuned = '\n[[stage]]\nname = "tuned"\nkind = "sft"\nfrom = "base"\ndata = "chats.jsonl"\nsteps = 1\n'
    (folder / "toy.toml").write_text((folder / "toy.toml").read_text().rpartition("[[stage]]")[0] + tuned)
    chats = (folder / "chats.jsonl").read_text().splitlines()
    (folder / "chats.jsonl").write_text("\n".join([chats[0], line, *chats[1:]]) + "\n")
    assert_letter(forks.run(["run", "toy.toml"], folder), *words)


def test_without_a_terminal_nothing_is_asked_and_nothing_deleted(
    forks: Forks, pretrained: Path, tmp_path: Path
) -> None:
    folder = copied(pretrained, tmp_path / "toy")
    ended = forks.run(["run", "toy.toml", "base.steps=2", "zero.steps=1"], folder)
    assert ended.code == 0 and "\x1b" not in ended.said
    before = sorted((folder / RUN).iterdir())
    assert_letter(forks.run(["runs", "prune", "toy"], folder), "--yes")
    assert sorted((folder / RUN).iterdir()) == before
