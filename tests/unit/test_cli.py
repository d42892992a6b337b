"""The door: every command has help and an answer, in plain text where there is no terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from seekling.cli.main import app, exit_code
from seekling.errors import GateMissed, SelfTestFailed, UserError
from seekling.recipes.config import KINDS
from seekling.runlog.run import Run
from tests.conftest import fresh_toy
from tests.e2e.forks import Ended, Forks
from tests.e2e.runs import copied

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
RUN = Path("runs/toy")


@pytest.fixture(scope="module")
def finished(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run; its first line on the way is in ``first.txt``."""
    folder = fresh_toy(tmp_path_factory.mktemp("finished") / "toy")
    ended = forks.run(["run", "toy.toml"], folder)
    assert ended.code == 0, ended.said
    (folder / "said.txt").write_text(ended.said)
    return folder


def answered(ended: Ended) -> str:
    """What a command said on success: plain, and to standard output."""
    assert ended.code == 0, ended.said
    assert ended.err == "" and "\x1b" not in ended.out
    return ended.out


def test_there_are_the_commands_the_readme_teaches() -> None:
    assert set(COMMANDS) >= {"run", "runs", "show", "ask", "eval", "report", "stages", "doctor"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_itself_and_all_it_takes(forks: Forks, tmp_path: Path, command: str) -> None:
    said = answered(forks.run([command, "--help"], tmp_path))
    declared = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    assert declared.help and declared.help.split("\n")[0][:40] in said
    for parameter in declared.params:
        assert getattr(parameter, "help", None), f"{command} {parameter.name}"


def test_help_teaches_where_to_begin(forks: Forks, tmp_path: Path) -> None:
    said = answered(forks.run(["--help"], tmp_path))
    assert "seekling run zero-tiny" in said
    assert all(command in said for command in COMMANDS)


def test_version_is_one_line(forks: Forks, tmp_path: Path) -> None:
    assert re.fullmatch(r"seekling \d+\.\d+\.\d+\S*\n", answered(forks.run(["--version"], tmp_path)))


def test_a_run_ends_with_its_report_and_the_command_to_talk_to_it(forks: Forks, finished: Path) -> None:
    said = (finished / "said.txt").read_text()
    assert "report:   runs/toy/report.html" in said and (finished / "runs/toy/report.html").is_file()
    command = re.search(r'seekling ask (\S+) "(.+)"', said)
    assert command is not None
    assert answered(forks.run(["ask", command[1], command[2]], finished))
    assert "\x1b" not in said, "no terminal, no colours"
    assert {"base", "tuned", "zero", "zero-eval", "controls"} <= set(said.split())


def test_show_tells_stages_figures_gates_and_costs(forks: Forks, finished: Path) -> None:
    for name in ("toy", "runs/toy"):
        said = answered(forks.run(["show", name], finished))
        for word in ("base", "pretrain", "zero", "grpo", "controls", "done", "spent", "kept", "FLOPs", "report.html"):
            assert word in said


def test_runs_lists_state_and_cost_of_each(forks: Forks, finished: Path, tmp_path: Path) -> None:
    said = answered(forks.run(["runs"], finished))
    assert "toy" in said and "done" in said and "5/5" in said and "MB" in said
    assert "no runs in runs" in answered(forks.run(["runs"], tmp_path))
    assert "toy" in answered(forks.run(["runs", "--runs", str(finished / "runs")], tmp_path))


def test_prune_lists_what_it_would_delete_and_deletes_it_only_when_told(
    forks: Forks, finished: Path, tmp_path: Path
) -> None:
    folder = copied(finished, tmp_path / "toy")
    assert "nothing to prune" in answered(forks.run(["runs", "prune", "toy"], folder))
    old = Run(folder / RUN).folders()
    assert forks.run(["run", "toy.toml", "zero.steps=2"], folder).code == 0
    (folder / "sums.py").write_text("# the task is gone, and what the run made with it stays\n")
    asked = forks.run(["runs", "prune", "toy"], folder)
    assert asked.code == 2 and all(name in asked.out for name in old[2:]) and (folder / RUN / old[2]).exists()
    said = answered(forks.run(["runs", "prune", "toy", "--yes"], folder))
    assert "deleted" in said and not any((folder / RUN / name).exists() for name in old[2:])
    assert all((folder / RUN / name).exists() for name in Run(folder / RUN).folders()), "the present stages stay"
    assert answered(forks.run(["show", "toy"], folder))


def test_the_stages_of_the_manifest_last_run_are_those_that_speak(forks: Forks, finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "toy")
    before = answered(forks.run(["ask", "toy", "3+4", "--temperature", "0"], folder))
    assert forks.run(["run", "toy.toml", "zero.steps=1"], folder).code == 0
    assert forks.run(["run", "toy.toml"], folder).said.count("finished before") == 5
    assert answered(forks.run(["ask", "toy", "3+4", "--temperature", "0"], folder)) == before


def test_weights_changed_behind_a_run_are_told(forks: Forks, finished: Path, tmp_path: Path) -> None:
    """Each stage says what it read and what it left: as long as nobody meddles, they are the same."""
    folder = copied(finished, tmp_path / "toy")
    base, zero = (Run(folder / RUN).stage(name) for name in ("base", "zero"))
    read = zero.facts()["parents"][0]["left"]
    assert base.facts()["left"] == base.left() == read == {"weights": base.weights()} != zero.facts()["left"]
    file = next(base.model.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    told = forks.run(["run", "toy.toml", "zero.steps=1"], folder)
    assert told.code == 0 and 'weights of stage "base" are not those it left' in told.said


def test_ask_is_greedy_at_temperature_0_and_a_function_of_its_seed_above(forks: Forks, finished: Path) -> None:
    def said(*options: str) -> str:
        return answered(forks.run(["ask", "toy/zero", "3+4", *options], finished))

    assert said("--temperature", "0") == said("--temperature", "0", "--seed", "5")
    assert said("--temperature", "1", "--seed", "1") == said("--temperature", "1", "--seed", "1")
    assert len({said("--temperature", "1", "--seed", str(seed)) for seed in range(6)}) > 1


def test_ask_bounds_an_answer_and_guesses_ahead(forks: Forks, finished: Path, tmp_path: Path) -> None:
    def said(*options: str) -> str:
        return answered(forks.run(["ask", "toy/zero", "3+4", "--seed", "3", *options], finished))

    assert said("--drafts", "3") == said()
    assert re.search(r"-?[0-9]{2}$", said("--regex", "-?[0-9]{2}", "--most-thought", "4").strip())
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": ["seven", "eight"]}')
    assert '"seven"' in (text := said("--schema", str(schema), "--most-thought", "0")) or '"eight"' in text
    schema.write_text("{")
    for options, word in (
        (["--schema", str(schema)], "schema"), (["--schema", "nowhere.json"], "nowhere.json"),
        (["--regex", "("], "expression"), (["--regex", "a", "--schema", str(schema)], "both"),
    ):  # fmt: skip
        ended = forks.run(["ask", "toy/zero", "3+4", *options], finished)
        assert ended.code == 2 and word in ended.err and "Traceback" not in ended.said


def test_ask_takes_a_run_a_stage_or_a_folder(forks: Forks, finished: Path) -> None:
    stage = Run(finished / RUN).stage("zero").model
    ways = [["toy"], ["toy/zero"], ["runs/toy"], [str(stage)]]
    answers = {answered(forks.run(["ask", *way, "3+4", "--temperature", "0"], finished)) for way in ways}
    assert len(answers) == 1
    for way, word in ((["toy/zeroo"], '"zero"'), (["toy/zero-eval"], "no model")):
        ended = forks.run(["ask", *way, "3+4"], finished)
        assert ended.code == 2 and word in ended.err and "Traceback" not in ended.said


def test_ask_streams_token_by_token(monkeypatch: pytest.MonkeyPatch, finished: Path) -> None:
    import io
    import sys

    from seekling.cli.asking import ask_command
    from seekling.engine.config import Sampling

    class Watched(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += bool(text.strip())
            return super().write(text)

    out = Watched()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.chdir(finished)
    ask_command(Path("runs"), "toy", "3+4", Sampling(max_tokens=12), seed=1)
    assert out.writes > 1, "the answer came in pieces"


def test_eval_prints_a_table_with_intervals(forks: Forks, finished: Path) -> None:
    argv = ["eval", "toy/zero", "--task", "./sums.py:Sums", "--problems", "5", "--samples", "2"]
    said = answered(forks.run(argv, finished))
    for word in ("pass@1", "pass@2", "maj@2", "mean_tokens", "95 % interval", "5 problems x 2"):
        assert word in said
    again = answered(forks.run(argv, finished))
    tables = [told[told.index("toy/zero on") :] for told in (said, again)]  # before them stand signs of life
    assert tables[0] == tables[1], "the same problems, the same draws"


def test_report_writes_the_page_anew(forks: Forks, finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path / "toy")
    page = folder / RUN / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert answered(forks.run(["report", "toy"], folder)) == "runs/toy/report.html\n"
    assert page.read_bytes() == before, "same files, same bytes"


@pytest.mark.parametrize("kind", KINDS)
def test_stages_tells_every_setting_of_a_kind(forks: Forks, tmp_path: Path, kind: str) -> None:
    assert kind in answered(forks.run(["stages"], tmp_path))
    said = answered(forks.run(["stages", kind], tmp_path))
    for name, field in KINDS[kind].settings.model_fields.items():
        assert (field.alias or name) in said


def test_doctor_says_what_is_here_and_its_exit_code_tells(forks: Forks, tmp_path: Path) -> None:
    ended = forks.run(["doctor"], tmp_path)
    assert ended.code in (0, 1) and "Traceback" not in ended.said and "\x1b" not in ended.out
    for word in ("python", "torch", "memory", "disk"):
        assert word in ended.out


def test_exit_codes_tell_input_from_gates_from_self_tests() -> None:
    assert [exit_code(error("x")) for error in (UserError, GateMissed, SelfTestFailed)] == [2, 3, 4]
