"""The report's laws. Every figure here is invented (tests/fixtures/make_demo_run.py)."""

from __future__ import annotations

import ast
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.report import charts, rollouts, story
from seekling.report.page import render_report, write_report
from seekling.report.read import read_run
from seekling.report.story import summary
from seekling.report.view import Estimate, compare, proxies_of, total
from tests.fixtures.make_demo_run import make_demo_run, with_curation, with_gathering

REPORT = Path(charts.__file__).parent
SMALL = {"pretrain_steps": 40, "rl_steps": 30}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_run(tmp_path_factory.mktemp("runs") / "demo", **SMALL)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run of one's own to break."""
    return Path(shutil.copytree(finished, tmp_path / "demo"))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def of(run: Path, stage: str, name: str) -> Path:
    return next(run.glob(f"{stage}-*")) / name


# --- the sentence ----------------------------------------


def test_the_first_sentence_says_what_the_files_say(run: Path) -> None:
    told = plain(story.tell(read_run(run)).headline)
    assert told == (
        "A model that started from random weights solved 14.2 % of held-out arithmetic problems "
        "after pretraining; "
        "reinforcement raised it to 86.1 % [80.1, 92.1]; "
        "the best control at equal mean tokens, base kept from stopping, reached 19.8 %."
    )


def test_equal_tokens_are_claimed_only_where_the_files_bear_it_out(run: Path) -> None:
    file = of(run, "controls", "control.json")
    text = file.read_text().replace("25.1", "58.0")
    file.write_text(text)
    assert "(58 tokens per problem against 24)" in story.tell(read_run(run)).headline


def test_a_loss_is_told_as_a_loss(run: Path) -> None:
    lower = {"1": {"value": 0.05, "low": 0.02, "high": 0.08}}
    edit(of(run, "eval-zero", "eval.json"), pass_at_k=lower)
    told = story.tell(read_run(run))
    assert "lowered it to 5.0" in plain(told.headline)
    assert any("not clearly beaten" in warning for warning in told.warnings)


def test_overlapping_intervals_are_said_aloud(run: Path) -> None:
    edit(of(run, "eval-zero", "eval.json"), pass_at_k={"1": {"value": 0.19, "low": 0.1, "high": 0.28}})
    assert any("overlap" in warning for warning in story.tell(read_run(run)).warnings)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("eval-base", "was not measured"),
        ("eval-zero", "not measured yet"),
        ("controls", "no control was run"),
    ],
)
def test_a_missing_part_is_named_in_the_sentence(run: Path, missing: str, said: str) -> None:
    shutil.rmtree(next(run.glob(f"{missing}-*")))
    assert said in story.tell(read_run(run)).headline


def test_random_weights_are_claimed_only_for_a_run_that_pretrained_from_nothing(run: Path) -> None:
    edit(of(run, "base", "stage.json"), inputs={"from": "some/checkpoint"})
    assert "random weights" not in story.tell(read_run(run)).headline


def test_a_missed_gate_stands_above_everything(run: Path) -> None:
    edit(of(run, "base", "stage.json"), figures={"pass@1": 0.02}, state="gate_missed")
    warnings = story.tell(read_run(run)).warnings
    assert any("missed its gate: pass@1 reached 0.02, asked was at least 0.1" in w for w in warnings)
    assert "missed its gate" in render_report(run)


def test_a_size_is_called_unseen_only_when_the_settings_name_the_sizes_that_were_seen(run: Path) -> None:
    assert "never trained on" in render_report(run)
    edit(of(run, "base", "stage.json"), settings={})
    assert "never trained on" not in render_report(run)


def test_before_is_the_model_that_reinforcement_started_from(run: Path) -> None:
    other = Path(shutil.copytree(next(run.glob("eval-base-*")), run / "eval-other-00000000"))
    edit(other / "stage.json", name="eval-other", inputs={"from": "other"}, index=9)
    base = Path(shutil.copytree(next(run.glob("base-*")), run / "other-00000000"))
    edit(base / "stage.json", name="other", index=8)
    edit(other / "eval.json", model="other")
    before = compare(read_run(run)).before
    assert before is not None and before.model == "base"


def test_the_summary_is_short_and_says_the_same_figures(finished: Path) -> None:
    told = {label: plain(value) for label, value in summary(finished)}
    assert told["held-out pass@1"] == "14.2 % \u2192 86.1 % [80.1, 92.1]"
    assert told["size 6, never trained"].startswith("3.0 % \u2192 44.0 %")
    assert told["gates"] == "2 of 2 met" and len(told) <= 8
    assert told["self-tests"] == "4 of 4 passed in 1.2 s"
    assert "They took 1.2 s in all." in plain(render_report(finished))


def test_a_run_that_did_not_time_its_self_tests_does_not_say_how_long_they_took(run: Path) -> None:
    for name in ("base", "zero"):
        edit(of(run, name, "stage.json"), selftest_seconds=None)
    assert dict(summary(run))["self-tests"] == "4 of 4 passed" and "They took" not in render_report(run)


# --- reading ----------------------------------------


def test_a_repeated_step_counts_once_in_a_curve_and_the_last_one_wins(run: Path) -> None:
    file = of(run, "zero", "metrics.jsonl")
    line = {"step": 0, "session": 1, "seconds": 1, "tokens": 1, "flops": 1, "metrics": {"reward": 0.777}}
    file.write_text(file.read_text() + json.dumps(line) + "\n")
    zero = read_run(run).stage("zero")
    assert zero is not None and zero.curve("reward")[0] == (0.0, 0.777)
    assert len(zero.steps) == SMALL["rl_steps"]


def test_a_layer_that_looks_ahead_has_a_curve_where_it_learned(run: Path) -> None:
    assert "Two tokens ahead" not in render_report(run)
    file = of(run, "zero", "metrics.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["metrics"] |= {"mtp_loss": 0.4, "mtp_acceptance": 0.8}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "Two tokens ahead" in render_report(run)


def with_proxy(run: Path, rule: float) -> None:
    """Give the reinforcement two scenarios, of which the second's reward model is pleased more and more."""
    file = of(run, "zero", "metrics.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        step, told = line["step"], line["metrics"]
        told |= {"arithmetic/reward": told["reward"], "notes/reward": 0.5 + step / 100}
        told |= {"notes/rated": 0.5 + step / 100, "notes/rated_std": 0.1 + step}
        told |= {"notes/helpfulness": 3.0 + rule * step, "notes/helpfulness_std": 2.0}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(("rule", "fooled"), [(-0.2, True), (0.2, False), (0.0, False)])
def test_a_proxy_and_its_rule_stand_in_one_picture_and_their_parting_is_said(
    run: Path, rule: float, fooled: bool
) -> None:
    assert "Proxy and rule" not in render_report(run)
    with_proxy(run, rule)
    page, view = render_report(run), read_run(run)
    for shown in ("Proxy and rule: notes", "Reward by scenario", "Held-out pass@1 by scenario"):
        assert shown in page
    assert any("pleased its reward model on notes" in said for said in story.tell(view).warnings) == fooled
    [proxy] = proxies_of(view.of_kind("grpo")[0])
    assert (proxy.rated[0], proxy.rule[0]) == ((0.0, 0.0), (0.0, 0.0)), "both begin at nothing"
    last = SMALL["rl_steps"] - 1
    assert proxy.rated[-1][1] == pytest.approx(last / 10) and proxy.rule[-1][1] == pytest.approx(rule * last / 2)


def test_a_torn_last_line_is_left_out(run: Path) -> None:
    whole = render_report(run)
    for name in ("metrics.jsonl", "../ledger.jsonl"):
        with (of(run, "zero", name)).open("a") as file:
            file.write('{"step": 31, "session": 1, "met')
    assert render_report(run) == whole


@pytest.mark.parametrize("name", ["zero/metrics.jsonl", "ledger.jsonl"])
def test_a_broken_middle_line_names_its_file_and_number(run: Path, name: str) -> None:
    file = run / name if "/" not in name else of(run, *name.split("/"))
    lines = file.read_text().split("\n")
    file.write_text("\n".join([*lines[:2], lines[2][:20], *lines[3:]]))
    with pytest.raises(UserError, match=r"line 3.*" + file.name.replace(".", r"\.")):
        render_report(run)


@pytest.mark.parametrize("name", ["stage.json", "eval.json"])
def test_a_broken_document_names_its_file(run: Path, name: str) -> None:
    file = of(run, "eval-base", name)
    file.write_text(file.read_text()[:30])
    with pytest.raises(UserError, match=name):
        render_report(run)


def test_any_file_may_be_missing(finished: Path, tmp_path: Path) -> None:
    for number, file in enumerate(sorted(f for f in finished.rglob("*") if f.is_file())):
        copy = Path(shutil.copytree(finished, tmp_path / str(number)))
        (copy / file.relative_to(finished)).unlink()
        assert "<h1>" in render_report(copy), f"without {file.name}"


def test_an_empty_run_has_a_report_that_says_so(tmp_path: Path) -> None:
    assert "This run has no stages yet." in render_report(tmp_path)


def test_a_run_that_is_not_there_is_a_letter(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run"):
        render_report(tmp_path / "nowhere")


@pytest.mark.parametrize("junk", [None, [], 3, "text", {"1": None}, {"1": {"value": "x"}}, {"a": {"value": 1}}])
def test_values_of_the_wrong_shape_are_absent_parts(run: Path, junk: Any) -> None:
    for stage, keys in (("eval-zero", ("pass_at_k", "maj_at_k", "by_size", "rollouts", "mean_tokens")),):
        edit(of(run, stage, "eval.json"), **dict.fromkeys(keys, junk))
    edit(of(run, "base", "stage.json"), inputs=junk, settings=junk, figures=junk, gate=junk, selftests=junk)
    edit(run / "run.json", sessions=junk, name=junk)
    assert "<h1>" in render_report(run)


def test_a_figure_that_is_no_number_is_a_gap_in_its_curve(run: Path) -> None:
    file = of(run, "zero", "metrics.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[3]["metrics"] |= {"reward": float("nan"), "entropy": None, "kl": float("inf")}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = render_report(run)
    assert "nan" not in svgs(page) and "inf" not in re.sub(r"reinforcement|inform", "", svgs(page))


def test_a_changed_stage_is_shown_in_its_newest_form_and_the_older_is_named(run: Path) -> None:
    old = Path(shutil.copytree(next(run.glob("zero-*")), run / "zero-0ld00000"))
    edit(old / "stage.json", started="2000-01-01T00:00:00", fingerprint="0ld00000")
    current = next(folder for folder in run.glob("zero-*") if folder != old)
    edit(current / "stage.json", started="2031-05-01T00:00:00")
    view = read_run(run)
    assert [s.name for s in view.stages].count("zero") == 1 and view.older == ("zero-0ld00000",)


def test_flat_and_nested_expert_loads_read_alike(run: Path) -> None:
    nested = read_run(run).stage("zero")
    file = of(run, "zero", "metrics.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        for layer, values in line["metrics"].pop("expert_load").items():
            line["metrics"] |= {f"load/{layer}/{expert}": value for expert, value in enumerate(values)}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flat = read_run(run).stage("zero")
    assert nested is not None and flat is not None and flat.expert_load == nested.expert_load


# --- the ledger ----------------------------------------


def test_the_ledger_parts_add_up_to_its_total(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "ledger.jsonl").read_text().splitlines()]
    whole = total(read_run(finished).ledger)
    assert whole.spent.tokens == sum(line["tokens"] for line in lines)
    assert whole.spent.seconds == pytest.approx(sum(line["seconds"] for line in lines))


def test_kept_leaves_out_exactly_the_repeated_steps(finished: Path) -> None:
    whole = total(read_run(finished).ledger)
    repeated = 3 * (5200 + 6100)
    assert whole.spent.tokens - whole.kept.tokens == repeated


def test_token_columns_of_the_page_add_up_as_printed(finished: Path) -> None:
    table = re.search(r"<caption><span>The ledger.*?</table>", render_report(finished), re.S)
    assert table is not None
    rows = [re.findall(r'<td class="n">([^<]*)</td>', row) for row in table[0].split("<tr>")]
    spent = [int(row[0].replace("\u202f", "")) for row in rows if len(row) == 6]
    assert sum(spent[:-1]) == spent[-1]


# --- the page ----------------------------------------

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects ids, tags and everything that could load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = {key: value or "" for key, value in attrs}
        assert not any(key.startswith("on") or key == "style" for key in named), f"inline code on <{tag}>"
        self.ids += [named["id"]] if "id" in named else []
        self.loads += [v for k, v in named.items() if k in ("src", "srcset", "data", "poster", "action")]
        self.loads += [v for k, v in named.items() if k in ("href", "xlink:href") and v[:1] != "#" and v != "data:,"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"


def test_the_page_is_well_formed_and_loads_nothing(finished: Path) -> None:
    page = Page(render_report(finished))
    assert not page.loads
    assert len(page.ids) == len(set(page.ids)), "an id stands twice"
    assert page.tags.count("table") == page.tags.count("caption") > 4
    assert page.tags.count("svg") == page.tags.count("desc") == page.tags.count("figcaption") > 8


def test_nothing_a_model_or_manifest_says_becomes_markup(run: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&</pre></style></title>\x00\ud800\u202e"
    file = of(run, "eval-zero", "eval.json")
    data = json.loads(file.read_text())
    for problem in data["rollouts"]:
        problem |= {"prompt": evil, "answer": evil, "size": evil}
        problem["rollouts"] = [{"text": evil, "verdict": evil, "tokens": 3}]
    data["by_size"] = {evil: {"value": 0.5}}
    file.write_text(json.dumps({**data, "task": evil}))
    (run / "manifest.toml").write_text('x = "<script>alert(2)</script></code></pre>"')
    edit(run / "run.json", name=evil, commit=evil, version=evil)
    edit(of(run, "zero", "stage.json"), name=evil, selftests=[{"name": evil, "figure": evil, "passed": True}])
    page = write_report(run).read_text(encoding="utf-8")
    assert Page(page).tags.count("script") == 1 and "<img" not in page and "\x00" not in page


def test_the_content_policy_admits_the_two_inline_texts_and_nothing_else(finished: Path) -> None:
    page = render_report(finished)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy[1]


def test_the_same_files_give_the_same_bytes(finished: Path) -> None:
    assert render_report(finished) == render_report(finished)


def test_a_report_is_written_whole_or_not_at_all(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_report(run).read_text(encoding="utf-8").endswith("</html>")
    before = (run / "report.html").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert {file.name for file in run.iterdir() if file.is_file()} == {
        "manifest.toml", "run.json", "ledger.jsonl", "report.html"
    }  # fmt: skip


def test_a_long_run_stays_light(tmp_path: Path) -> None:
    run = make_demo_run(tmp_path / "long", pretrain_steps=1500, rl_steps=1500)
    page = render_report(run)
    assert len(page.encode()) < 1_500_000
    assert "thinned to at most 400 points" in page


def test_every_name_on_the_page_is_a_section_and_the_glossary_speaks(finished: Path) -> None:
    page = render_report(finished)
    for anchor in re.findall(r'<a href="#([^"]+)"', page):
        assert f'id="{anchor}"' in page
    assert all(caption.strip() for caption in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.S))


def test_the_report_reads_files_only() -> None:
    """It imports nothing of the rooms that compute."""
    for file in REPORT.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not re.match(r"torch|seekling\.(engine|learn|recipes|model|evals)", name), f"{file}: {name}"


# --- charts ----------------------------------------


def test_thinning_keeps_order_ends_and_the_mean() -> None:
    points = [(float(n), float(n % 7)) for n in range(2800)]
    thinned = charts.thin(points)
    assert len(thinned) == 400 and [x for x, _ in thinned] == sorted(x for x, _ in thinned)
    assert sum(y for _, y in thinned) / 400 == pytest.approx(sum(y for _, y in points) / 2800)
    assert charts.thin(points[:400]) == points[:400]


def test_smoothing_leaves_a_straight_line_as_it_is() -> None:
    line = [(float(n), 2.0 * n + 1) for n in range(50)]
    assert charts.smooth(line, 9) == line


@pytest.mark.parametrize("low,high", [(0, 1), (0.2, 0.2001), (-3, 1e6), (1e-9, 2e-9), (0, 147)])
def test_ticks_cover_the_data_in_a_few_round_steps(low: float, high: float) -> None:
    ticks = charts._ticks(low, high)
    assert ticks[0] <= low + 1e-9 * abs(high) and ticks[-1] >= high - 1e-9 * abs(high) and 3 <= len(ticks) <= 8


@pytest.mark.parametrize("points", [[(0.0, 0.5)], [(0.0, 0.0), (1.0, 0.0)], [(5.0, -2.0), (6.0, 4.0), (7.0, 1e9)]])
def test_a_line_stays_inside_its_plot_whatever_the_data(points: list[tuple[float, float]]) -> None:
    svg = charts.line_chart("k", "t", [charts.Series("x", points)], charts.Axes("step", "unit"))
    path = re.search(r'class="line s1" d="M([^"]*)"', svg)
    assert path is not None
    for x, y in (map(float, point.split()) for point in path[1].split("L")):
        assert 0 <= x <= 400 and 29.9 <= y <= 192.1


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_every_tick_stands_inside_the_plot(low: float, size: float) -> None:
    wide = charts._widened(low, low + size)
    ticks = charts._ticks(*wide)
    assert (min(wide[0], ticks[0]), max(wide[1], ticks[-1])) == wide and wide[0] <= low < low + size <= wide[1]


def test_a_chart_says_its_figures_in_words() -> None:
    line = charts.Series("training", [(0.0, 0.25), (9.0, 0.75)])
    svg = charts.line_chart("k", "pass", [line], charts.Axes("RL step", "share", percent=True))
    words = "share over RL step. training: from 25 % at 0 to 75 % at 9, between 25 % and 75 %."
    assert words in plain(svg)


def test_labels_of_lines_that_end_together_do_not_touch() -> None:
    lines = [charts.Series(name, [(0.0, 0.0), (1.0, 1.0)], ink) for ink, name in enumerate("abc", 1)]
    svg = charts.line_chart("k", "t", lines, charts.Axes("x", "y"))
    ys = sorted(float(y) for y in re.findall(r'class="label s\d" x="[\d.]+" y="([\d.]+)"', svg))
    assert all(later - earlier >= 13.9 for earlier, later in pairwise(ys))


def test_stacked_parts_end_at_their_sum() -> None:
    parts = [charts.Series(name, [(0.0, 1.0), (1.0, 2.0)], ink) for ink, name in enumerate("ab", 1)]
    svg = charts.stacked_chart("k", "t", parts, charts.Axes("x", "y", (0, 4)))
    tops = re.findall(r'class="line thin s\d" d="M[^"]*L[\d.]+ ([\d.]+)"', svg)
    assert [float(y) for y in tops] == [111.0, 30.0]


def test_balanced_experts_are_all_of_the_middle_tint() -> None:
    load = tuple((step, (5.0,) * 8) for step in range(200))
    svg = charts.load_strip("k", "t", {"1": load}, "step")
    assert set(re.findall(r'<path class="(h\d)"', svg)) == {"h4"}


def test_fair_shares_of_nothing_are_nothing() -> None:
    assert charts.fair_shares([0.0, 0.0]) == (0.0, 0.0) and charts.fair_shares([]) == ()


def test_intervals_that_share_a_value_overlap() -> None:
    assert story.overlap(Estimate(0.5, 0.4, 0.6), Estimate(0.7, 0.6, 0.8))
    assert not story.overlap(Estimate(0.5, 0.4, 0.6), Estimate(0.7, 0.61, 0.8))
    assert not story.overlap(Estimate(0.5), Estimate(0.5, 0.4, 0.6))


# --- rollouts ----------------------------------------


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("<think>a</think><answer>b</answer>", ["tag", "think", "tag", "tag", "answer", "tag"]),
        ("a</think><answer>b</answer>", ["think", "tag", "tag", "answer", "tag"]),
        ("<think>a", ["tag", "think"]),
        ("<think><answer>a</answer></think>b", ["tag", "tag", "think", "tag", "tag", "plain"]),
        ("a<answer>b", ["plain", "tag", "answer"]),
        ("", []),
        ("plain", ["plain"]),
    ],
)
def test_a_rollout_is_taken_apart_and_nothing_is_lost(text: str, roles: list[str]) -> None:
    found = rollouts.parts(text)
    assert [part.role for part in found] == roles
    assert "".join(part.text for part in found) == text


def test_a_long_rollout_is_cut_aloud() -> None:
    found = rollouts.parts("x" * 5000)
    assert "2000 more characters" in found[-1].text


def test_problems_stand_in_the_order_of_the_file_and_only_where_both_sides_tried(run: Path) -> None:
    file = of(run, "eval-base", "eval.json")
    data = json.loads(file.read_text())
    data["rollouts"] = data["rollouts"][2:][::-1]
    file.write_text(json.dumps(data))
    found = rollouts.pairs(compare(read_run(run)), 4)
    assert [pair.problem.id for pair in found] == [f"{n:016x}" for n in (2, 3, 4, 5)]
    assert all(p.before and p.after and p.before.id == p.after.id for p in found)


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u00a0", " ")


def svgs(page: str) -> str:
    return "".join(re.findall(r"<svg.*?</svg>", page, re.S))


# --- problems and what was forgotten -------------------------------------------------------------------------------


def test_the_page_tells_what_was_left_out_and_why(run: Path) -> None:
    assert "Which problems were trained on" not in render_report(run)
    with_curation(run)
    page = render_report(run)
    assert "kept 38 of 40 problems" in page
    assert "&lt;1+2&gt;" in page and "copy of &#34;a&#34;" in page, "what a problem says is text, never markup"
    assert 'href="#problems"' in page and '>0-0.5</th><td class="n">35</td>' in page


def test_a_long_step_shows_a_few_of_its_cases_and_an_empty_one_its_count(run: Path) -> None:
    with_curation(run)
    file = of(run, "zero", "curate.json")
    told = json.loads(file.read_text())
    cases = [{"prompt": f"case {n}.", "why": "twice"} for n in range(9)]
    told["steps"] = [
        {"name": "copies", "before": 40, "removed": 9, "examples": cases},
        {"name": "answer keys", "before": 31, "removed": 0, "examples": []},
    ]
    file.write_text(json.dumps(told))
    page = render_report(run)
    assert [n for n in range(9) if f"case {n}." in page] == [0, 1, 2, 3] and 'rowspan="4">copies<' in page
    assert 'rowspan="1">answer keys</th><td class="n" rowspan="1">31</td>' in page


def test_the_page_tells_what_was_gathered_and_shows_examples(run: Path) -> None:
    assert "Which examples were gathered" not in render_report(run)
    with_gathering(run)
    page = render_report(run)
    assert 'href="#gathered"' in page and "zero asked 10 problems and heard 40 rollouts" in page
    assert "8 became examples of 30 wanted, and 5 chats from elsewhere joined them" in page
    assert "&lt;1+2&gt;" in page and "judged wrong" in page and '<span class="think">3+4=7</span>' in page
    assert ("examples (zero)", "8 of 40 rollouts of 10 problems") in summary(run)


def test_a_set_is_forgotten_when_the_whole_interval_lies_below_zero(run: Path) -> None:
    file = with_curation(run)
    page = plain(render_report(run))
    assert "−25.0 points [−40.0, −10.0]" in re.sub(r"<[^>]+>", "", page) and "forgotten</em>" in page
    edit_change = json.loads(file.read_text())
    edit_change["gsm8k=a.jsonl"]["change"]["high"] = 0.01
    file.write_text(json.dumps(edit_change))
    assert "forgotten</em>" not in render_report(run)


def test_a_set_that_was_asked_only_before_says_so(run: Path) -> None:
    file = with_curation(run)
    told = json.loads(file.read_text())
    for missing in ("after", "change"):
        del told["gsm8k=a.jsonl"][missing]
    file.write_text(json.dumps(told))
    assert "not asked afterwards yet" in render_report(run)
