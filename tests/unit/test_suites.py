"""Published sets from small files in their own layouts: how they are asked, who judges, what a result says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seekling.errors import UserError
from seekling.evals import suite_verifiers, suites
from seekling.evals.suite_verifiers import Maths, Verified, version_of
from seekling.evals.suites import SUITES, load, origin_of, parsed, suite_figures, texts
from seekling.records import Group, Problem, Rollout, Stop, Verdict

GSM8K = [
    {"question": "Tom has 3 apples and buys 4. How many?", "answer": "3+4=7 apples.\n#### 7"},
    {"question": "A shop sells 1,080 eggs. How many?", "answer": "It sells them.\n#### 1080"},
]
MATH500 = [{"problem": "Find $x$ if $x^2=4$, $x>0$.", "solution": "...", "answer": "2", "level": 1, "unique_id": "a"}]
AIME = [{"id": 60, "problem": "Find the remainder.", "solution": "...", "answer": "073", "url": "", "year": "2024"}]
IFEVAL = [
    {"key": 1000, "prompt": "Write about tea. Use no commas and at least 3 words.",
     "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
     "kwargs": [{"num_words": None}, {"relation": "at least", "num_words": 3, "language": None}]},
]  # fmt: skip


def jsonl(file: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def rollout(text: str, stop: Stop = Stop.STOP) -> Rollout:
    return Rollout((1,), (2, 3), np.zeros(2, np.float32), text, stop, 0)


# --- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "key", "asked"),
    [("gsm8k", GSM8K, "7", "Tom has 3"), ("math500", MATH500, "2", "Find $x$"), ("aime", AIME, "073", "Find the")],
)  # fmt: skip
def test_each_set_is_read_in_its_published_layout(
    tmp_path: Path, name: str, rows: list[dict[str, Any]], key: str, asked: str
) -> None:
    found = load(f"{name}={jsonl(tmp_path / 'rows.jsonl', rows)}")
    assert found.name == name and len(found.problems) == len(rows)
    assert found.problems[0].answer == key and found.problems[0].prompt.startswith(asked)
    assert "reason step by step" in found.problems[0].prompt and "\\boxed{}" in found.problems[0].prompt


def test_braces_in_a_problem_are_no_template(tmp_path: Path) -> None:
    rows = [{"problem": "Let $S=\\{1,2\\}$ and {n}.", "answer": "2"}]
    assert "$S=\\{1,2\\}$ and {n}." in load(f"math500={jsonl(tmp_path / 'a.jsonl', rows)}").problems[0].prompt


def test_parquet_json_and_a_folder_of_files_hold_the_same(tmp_path: Path) -> None:
    from pyarrow import Table, parquet

    jsonl(tmp_path / "rows.jsonl", GSM8K)
    (tmp_path / "rows.json").write_text(json.dumps(GSM8K))
    (tmp_path / "folder").mkdir()
    parquet.write_table(Table.from_pylist(GSM8K), tmp_path / "folder/test-00000-of-00001.parquet")
    read = [load(f"gsm8k={tmp_path / name}").problems for name in ("rows.jsonl", "rows.json", "folder")]
    assert read[0] == read[1] == read[2]


def test_a_file_of_ones_own_needs_a_prompt_and_an_answer(tmp_path: Path) -> None:
    found = load(jsonl(tmp_path / "mine.jsonl", [{"prompt": "1+2?", "answer": 3}, {"question": "2?", "gold": "2"}]))
    assert found.name == "mine" and [problem.answer for problem in found.problems] == ["3", "2"]


def test_the_first_few_are_the_first_few(tmp_path: Path) -> None:
    spec = f"gsm8k={jsonl(tmp_path / 'a.jsonl', GSM8K)}"
    assert load(spec, 1).problems == load(spec).problems[:1]


def test_texts_for_decontamination_are_bare_and_need_no_verifier(tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "answer": "???"}]
    assert texts(jsonl(tmp_path / "mine.jsonl", rows)) == [("mine, problem 1", "Why?")]


@pytest.mark.parametrize(
    ("row", "said"),
    [({"question": "x"}, "no answer"), ({"answer": "x"}, "no question"), ({"question": "", "answer": "1"}, "no q"),
     ({"question": "x", "answer": True}, "no answer"), ({"question": "x", "answer": "so ####"}, "nothing behind ####"),
     ({"question": "x", "answer": "#### so what?!"}, "cannot be judged")],
)  # fmt: skip
def test_a_row_that_cannot_be_judged_is_an_error_that_names_its_line(
    tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as error:
        load(f"gsm8k={jsonl(tmp_path / 'a.jsonl', [*GSM8K, row])}")
    assert "a.jsonl, line 3" in error.value.where


@pytest.mark.parametrize("text", ["{", "[1]", "17", '"x"', '{"question": "x", "answer": "1"}\n{'])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(UserError) as error:
        load(f"gsm8k={tmp_path / 'a.jsonl'}")
    assert "a.jsonl" in error.value.where


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", b"\xff\xfe"), ("a.parquet", b"PAR1"), ("a.jsonl", b"\n\n")])
def test_a_file_that_holds_no_rows_is_a_letter(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read|no whole parquet|holds no problems|is UTF-16"):
        load(str(tmp_path / name))


@pytest.mark.parametrize(("spec", "said"), [("gsm9k", "gsm8k"), ("gsm9k=x.jsonl", "gsm8k"), ("mine.csv", "set.jsonl")])
def test_an_unknown_set_is_told_the_nearest(spec: str, said: str) -> None:
    with pytest.raises(UserError, match="no suite") as error:
        parsed(spec)
    assert said in error.value.next_step


def test_a_missing_file_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        load(f"gsm8k={tmp_path / 'none.jsonl'}")
    with pytest.raises(UserError, match=r"holds no \.jsonl"):
        load(f"gsm8k={tmp_path}")


def test_without_the_hub_the_letter_says_which_file_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*asked: Any, **watch: Any) -> None:
        raise UserError("the hub did not answer", next_step="Check the network.")

    monkeypatch.setattr(suites, "locate_data", away)
    with pytest.raises(UserError, match='"gsm8k" cannot be fetched: the hub did not answer') as error:
        load("gsm8k")
    assert "fields question, answer: gsm8k=gsm8k.jsonl" in error.value.next_step


def test_from_the_hub_the_commit_is_part_of_the_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @dataclass
    class Source:
        paths: tuple[Path, ...]
        commit: str

    asked: list[tuple[str, str]] = []

    def locate(data: str, *, split: str, **watch: Any) -> Source:
        asked.append((data, split))
        return Source((Path(jsonl(tmp_path / "a.jsonl", GSM8K)),), "c" * 40)

    monkeypatch.setattr(suites, "locate_data", locate)
    assert load("gsm8k").about()["data"] == {"name": "openai/gsm8k:main", "split": "test", "commit": "c" * 40}
    assert asked == [("openai/gsm8k:main", "test")]


# --- who judges -------------------------------------------------------------------------------------------------------


def verdicts(spec: str, *said: str) -> list[Verdict]:
    found = load(spec)
    group = Group(found.problems[0], tuple(rollout(text) for text in said))
    return [score.verdict for score in found.judge().scores([group])[0]]


def test_the_reply_outside_the_thinking_is_judged(tmp_path: Path) -> None:
    spec = f"gsm8k={jsonl(tmp_path / 'a.jsonl', GSM8K)}"
    said = ["<think>8</think>So \\boxed{7}", "<think>\\boxed{7}</think>So \\boxed{8}", "<think>\\boxed{7}</think>", ""]
    assert verdicts(spec, *said) == [Verdict.PASS, Verdict.WRONG, Verdict.UNPARSED, Verdict.UNPARSED]
    assert verdicts(spec, "<think>so</think><answer>7</answer>") == [Verdict.PASS]


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [("gsm8k", [{"question": "?", "answer": "so\n#### 1,080"}], "1080"), ("aime", AIME, "73"),
     ("math500", [{"problem": "p", "answer": "\\frac{1}{2}"}], "0.5")],
)  # fmt: skip
def test_keys_as_the_sets_write_them_are_values(
    tmp_path: Path, name: str, rows: list[dict[str, Any]], said: str
) -> None:
    spec = f"{name}={jsonl(tmp_path / 'a.jsonl', rows)}"
    assert verdicts(spec, f"so \\boxed{{{said}}}", f"so \\boxed{{{said}1}}") == [Verdict.PASS, Verdict.WRONG]


def test_every_instruction_must_be_followed(tmp_path: Path) -> None:
    spec = f"ifeval={jsonl(tmp_path / 'a.jsonl', IFEVAL)}"
    assert load(spec).problems[0].prompt == IFEVAL[0]["prompt"], "asked as it stands"
    said = ["<think>a, b</think>Tea is hot.", "Tea, hot, good.", "Tea."]
    assert verdicts(spec, *said) == [Verdict.PASS, Verdict.WRONG, Verdict.WRONG]


@pytest.mark.parametrize(
    "change",
    [
        {"instruction_id_list": ["new:kind", "new:kind"]},
        {"instruction_id_list": []},
        {"kwargs": [{}]},
        {"kwargs": [{}, {}]},
        {"kwargs": [{}, {"relation": "at least", "num_words": None}]},
    ],
)
def test_an_instruction_that_nobody_checks_is_an_error(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="cannot be judged"):
        load(f"ifeval={jsonl(tmp_path / 'a.jsonl', [IFEVAL[0] | change])}")


def test_a_list_draws_nothing(tmp_path: Path) -> None:
    from random import Random

    with pytest.raises(UserError, match="nothing can be drawn"):
        Verified("gsm8k", "maths").draw(Random(0))


def test_the_version_of_a_verifier_changes_with_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "judging_of_tests"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(Maths, "sources", ("judging_of_tests",))
    before = version_of(Maths())
    assert before == version_of(Maths())
    (package / "inner.py").write_text("A = 2\n")
    assert version_of(Maths()) != before


def test_a_result_names_what_was_asked_and_who_judged(tmp_path: Path) -> None:
    one = load(f"gsm8k={jsonl(tmp_path / 'a.jsonl', GSM8K)}").about()
    other = load(f"gsm8k={jsonl(tmp_path / 'b.jsonl', [GSM8K[0], {**GSM8K[1], 'question': 'Other?'}])}").about()
    assert one["prompt_hash"] != other["prompt_hash"] and len(one["prompt_hash"]) == 16
    assert one["verifier"].startswith("maths ") and one["data"]["files"] != other["data"]["files"]
    assert one == load(f"gsm8k={tmp_path / 'a.jsonl'}").about()


def test_a_fingerprint_knows_a_files_content(tmp_path: Path) -> None:
    spec = f"gsm8k={jsonl(tmp_path / 'a.jsonl', GSM8K)}"
    before = origin_of(spec)
    jsonl(tmp_path / "a.jsonl", GSM8K[:1])
    assert origin_of(spec) != before


def test_every_known_set_has_a_verifier_and_asks_what_it_is_given() -> None:
    for suite in SUITES.values():
        assert suite.verifier in suite_verifiers.VERIFIERS and suite.what and suite.samples >= 4
        assert suite.template.format(problem="P{x}").count("P{x}") == 1


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_are_means_over_problems_with_intervals(tmp_path: Path) -> None:
    found = load(f"gsm8k={jsonl(tmp_path / 'a.jsonl', GSM8K)}")
    right, wrong = "so \\boxed{7}", "so \\boxed{8}"
    groups = [
        Group(found.problems[0], tuple(map(rollout, (right, right, wrong, "")))),
        Group(found.problems[1], (*map(rollout, (wrong, wrong, right)), rollout("on and", Stop.LENGTH))),
    ]
    told = suite_figures(found.judge().judged(groups), Maths().vote)
    assert told["pass_at_k"]["1"]["value"] == pytest.approx((2 / 4 + 0) / 2)
    assert told["pass_at_k"]["4"]["value"] == 0.5
    assert told["maj_at_k"] == {"4": {"value": 0.5, "low": 0.0, "high": 1.0}}
    assert told["cut"]["value"] == 1 / 8 and told["unparsed"]["value"] == 2 / 8
    assert told["per_problem"] == [0.5, 0.0] and told["mean_tokens"]["value"] == 2.0
    json.dumps(told, allow_nan=False)


def test_a_vote_counts_answers_as_they_are_written(tmp_path: Path) -> None:
    vote = Maths().vote
    assert vote("<think>\\boxed{1}</think>so \\boxed{\\frac{1} {2}}") == vote("\\boxed{\\frac{1}{2}}")
    assert vote("<think>\\boxed{1}</think>") is None and vote("<answer> 4 </answer>") == "4"


def test_without_anything_to_vote_on_there_is_no_majority(tmp_path: Path) -> None:
    found = load(f"ifeval={jsonl(tmp_path / 'a.jsonl', IFEVAL)}")
    judged = found.judge().judged([Group(found.problems[0], (rollout("Tea is hot."), rollout("Tea.")))])
    told = suite_figures(judged, suite_verifiers.IfEval().vote)
    assert "maj_at_k" not in told and told["pass_at_k"]["1"]["value"] == 0.5


def test_a_problem_is_the_same_wherever_it_is_read(tmp_path: Path) -> None:
    rows = [{"prompt": "1+2?", "answer": "3"}]
    one, other = (load(jsonl(tmp_path / name, rows)).problems[0] for name in ("a.jsonl", "b.jsonl"))
    assert isinstance(one, Problem) and one.id == other.id


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random model that has room for a problem."""
    from seekling.model.decoder import Decoder
    from seekling.model.presets import preset
    from seekling.model.weights import save_model
    from seekling.text.tokenizer import train

    folder = tmp_path_factory.mktemp("model")
    tokenizer = train([row["question"] for row in GSM8K], vocab_size=320)
    changes = {"hidden_size": 32, "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 512}
    save_model(folder, Decoder(preset("tiny-v3").model_copy(update=changes)).init_weights(0))
    tokenizer.save(folder)
    return folder


def told_by(model: Path, folder: Path, capsys: pytest.CaptureFixture[str], suite: str, **asking: int) -> str:
    from seekling.cli.suites import Asking, suites_command
    from seekling.engine.config import Sampling

    sampling = Sampling(temperature=0.6, top_p=0.95, max_tokens=6, max_rows=8)
    suites_command(folder, str(model), suite, Asking(sampling, **asking), folder / "out")
    return capsys.readouterr().out


def test_the_command_tells_what_was_asked_who_judged_and_keeps_a_file_a_suite(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = [
        f"gsm8k={jsonl(tmp_path / 'a.jsonl', GSM8K)}",
        jsonl(tmp_path / "mine.jsonl", [{"prompt": "1?", "answer": 1}]),
    ]
    said = told_by(model, tmp_path, capsys, ",".join(specs), samples=3)
    for name, problems in (("gsm8k", 2), ("mine", 1)):
        found = json.loads((tmp_path / f"out/{name}.json").read_text())
        assert (found["problems"], found["samples"]) == (problems, 3)
        assert found["protocol"] == {
            "temperature": 0.6, "top_p": 0.95, "top_k": 0, "min_p": 0.0, "max_tokens": 6,
            "deterministic": False, "seed": 0,
        }  # fmt: skip
        assert found["pass_at_k"]["1"].keys() == {"value", "low", "high"} and found["rollouts"][0]["prompt"]
        assert f"{name}: prompts {found['prompt_hash']}, {found['verifier']}" in said
    assert "temperature 0.6, top-p 0.95" in said


def test_equal_seeds_say_the_same_and_others_do_not(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = f"gsm8k={jsonl(tmp_path / 'a.jsonl', GSM8K)}"
    texts = []
    for seed in (0, 0, 1):
        told_by(model, tmp_path, capsys, spec, samples=1, problems=1, seed=seed)
        texts.append(json.loads((tmp_path / "out/gsm8k.json").read_text())["rollouts"])
    assert texts[0] == texts[1] != texts[2] and len(texts[0]) == 1


def test_a_mistake_in_the_last_suite_is_found_before_the_first_is_asked(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="no suite"):
        told_by(model, tmp_path, capsys, f"gsm8k={jsonl(tmp_path / 'a.jsonl', GSM8K)},maths500")
    assert not (tmp_path / "out").exists()
