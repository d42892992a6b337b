"""Runs side by side: seeds pooled with both doubts, ratios, what else differs, and the page that says so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from seekling.cli.comparing import plan_of
from seekling.config import weight_settings, weight_values
from seekling.errors import UserError
from seekling.recipes.config import Grpo
from seekling.report import compare_page
from seekling.report.compare import Contest, contest, pooled, ratio
from seekling.report.page import render_report
from seekling.report.read import read_run
from seekling.report.tax import tax, tax_figure
from seekling.report.view import Estimate
from tests.fixtures.make_chain_run import make_chain_run
from tests.fixtures.make_demo_run import make_demo_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three seeds of one manifest, and a fourth run with another learning rate."""
    root = tmp_path_factory.mktemp("runs")
    told: dict[str, dict[str, Any]] = {"a1": {}, "a2": {"seed": 2, "gain": -0.02}, "a3": {"seed": 3, "gain": 0.02},
                                       "b": {"lr": 1e-3, "gain": 0.05}}  # fmt: skip
    return {name: make_chain_run(root / name, **settings) for name, settings in told.items()}


def compared(runs: dict[str, Path], *names: str, **options: str) -> Contest:
    return contest([(runs[name], plan_of(runs[name])) for name in names], **options)


# --- scores and compute -----------------------------------------------------------------------------------------------


def test_seeds_of_one_manifest_are_one_contender_and_other_settings_another(runs: dict[str, Path]) -> None:
    found = compared(runs, "a1", "b", "a2", "a3", stage="reason")
    assert [(c.name, c.seeds) for c in found.contenders] == [("a1 (and 2 more)", 3), ("b", 1)]
    point = next(p for p in found.contenders[0].points if p.task == "arithmetic")
    assert point.score.value == pytest.approx(0.893) and point.score.low is not None and point.score.low < 0.863
    assert [d.where for d in found.differences] == ["reason.optim.lr"]
    assert found.differences[0].values == ("0.003", "0.001")


def test_compute_is_what_a_model_and_all_behind_it_needed_without_evaluations(runs: dict[str, Path]) -> None:
    """base 1, cold-start 3, picked 4, and of reason (6) twice: what it generated and trained, not its evaluation."""
    point = compared(runs, "a1", "b", stage="reason").contenders[0].points[0]
    units = 1 + 3 + 4 + 2 * 6
    assert (point.cost.tokens, point.cost.flops) == (100_000 * units, pytest.approx(2e11 * units))
    assert point.cost.seconds == pytest.approx(20 * units * 2), "of two processes"


def test_a_repeat_of_a_seed_is_left_out_aloud(runs: dict[str, Path], tmp_path: Path) -> None:
    twin = make_chain_run(tmp_path / "twin", gain=0.5)
    found = contest([(folder, plan_of(folder)) for folder in (runs["a1"], twin)])
    assert [c.seeds for c in found.contenders] == [1] and "twin repeats a1" in found.minds[0]


def test_a_pooled_interval_holds_the_doubt_about_problems_and_about_seeds() -> None:
    one = Estimate(0.5, 0.4, 0.6)
    assert pooled([one], is_share=True) == one
    same = pooled([one, one, one], is_share=True)
    assert same.low == pytest.approx(0.4), "the same problems: more seeds do not tell more of them"
    apart = pooled([Estimate(0.4, 0.3, 0.5), Estimate(0.6, 0.5, 0.7)], is_share=True)
    half = math.hypot(0.1, 12.706 * math.sqrt(0.02) / math.sqrt(2))
    assert apart == Estimate(0.5, max(0.0, 0.5 - half), min(1.0, 0.5 + half))
    bare = pooled([Estimate(1.0), Estimate(2.0), Estimate(3.0)], is_share=False)
    assert bare.value == 2 and bare.low == pytest.approx(2 - 4.303 / math.sqrt(3))
    assert pooled([one] * 40, is_share=True).value == pytest.approx(0.5)


def test_a_ratio_is_of_errors_first_and_knows_both_intervals(runs: dict[str, Path]) -> None:
    found = compared(runs, "a1", "b", stage="reason")
    row = next(r for r in found.ratios if r.task == "arithmetic")
    assert row.error is not None and row.error.value == pytest.approx(0.057 / 0.107)
    assert row.accuracy is not None and row.accuracy.value == pytest.approx(0.943 / 0.893) and row.flops == 1
    assert row.error.low < row.error.value < row.error.high  # type: ignore[operator]
    assert row.error.low * row.error.high == pytest.approx(row.error.value**2)  # type: ignore[operator]


def test_a_ratio_to_nothing_is_none_and_of_nothing_has_no_interval() -> None:
    assert ratio(Estimate(0.5, 0.4, 0.6), Estimate(0.0, 0.0, 0.1)) is None
    assert ratio(Estimate(0.0, 0.0, 0.1), Estimate(0.5, 0.4, 0.6)) == Estimate(0.0)
    assert ratio(Estimate(1.0), Estimate(2.0, 1.0, 3.0)) == Estimate(0.5)


@pytest.mark.parametrize("figure", ["pass@8", "maj@4", "mean_tokens", "format_rate", "language", "loss"])
def test_any_figure_that_was_measured_can_be_compared(runs: dict[str, Path], figure: str) -> None:
    found = compared(runs, "a1", "b", figure=figure)
    assert found.contenders[0].points and figure in compare_page.render(found)
    is_error = figure in ("pass@8", "maj@4", "format_rate")
    assert all((row.error is not None) == is_error for row in found.ratios) and (found.told == "accuracy") == is_error


def test_what_cannot_be_compared_is_a_letter(runs: dict[str, Path]) -> None:
    for names, options, said in (
        (("a1",), {}, "needs two runs"), (("a1", "a1"), {}, "needs two runs"),
        (("a1", "b"), {"stage": "raeson"}, 'has a stage "raeson"'), (("a1", "b"), {"figure": "pass@3"}, '"pass@3"'),
        (("a1", "b"), {"stage": "picked"}, 'of stage "picked"'),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said) as letter:
            compared(runs, *names, **options)
        assert letter.value.next_step


# --- what else differs ------------------------------------------------------------------------------------------------


def test_whatever_else_differs_is_told(runs: dict[str, Path], tmp_path: Path) -> None:
    other = make_chain_run(tmp_path / "other", lr=1e-3)
    text = (other / "manifest.toml").read_text()
    text = text.replace('name = "zero"\n', 'name = "zero"\nsteps = 9\n').replace(
        'name = "tax"\n', 'name = "tax"\nproblems = 9\n'
    )
    (other / "manifest.toml").write_text(text.replace("threads = 2", "threads = 9"))
    run = (other / "run.json").read_text().replace("f00dfeed", "0ddba11").replace("Synthetic CPU", "Other CPU")
    (other / "run.json").write_text(run)
    minds = " ".join(contest([(folder, plan_of(folder)) for folder in (runs["a1"], other)]).minds)
    for said in ("not evaluated alike (tax.problems)", "2 settings (reason.optim.lr, zero.steps)", "differ in code",
                 "seconds cannot be compared: Other CPU", "Of one seed"):  # fmt: skip
        assert said in minds
    assert "threads" not in minds


def test_what_counts_of_a_written_manifest_is_what_counts_of_a_parsed_one() -> None:
    grpo = Grpo.model_validate({"name": "zero", "from": "base", "steps": 3})
    written = weight_values(Grpo, grpo.model_dump(mode="json"))
    assert written == weight_settings(grpo)
    assert "checkpoint_every" not in written and "passes" not in written["packing"] and "unknown" in weight_values(
        Grpo, {"unknown": 1}
    )  # fmt: skip


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_the_figure_both_tables_and_what_tempers_them(runs: dict[str, Path], tmp_path: Path) -> None:
    found = compared(runs, "a1", "a2", "b")
    page = compare_page.write_page(found, tmp_path / "compare.html").read_text()
    for said in ("error ratio", "accuracy ratio", "FLOPs ratio", "device-seconds", "reason.optim.lr", "Of one seed",
                 "TFLOP behind the model", "second-sft", "instructions"):  # fmt: skip
        assert said in page
    assert page.count('class="line s') >= 4 and page.lstrip().startswith("<!doctype html>")
    assert page == compare_page.render(found), "the same files give the same bytes"


def test_nothing_that_a_run_is_called_becomes_markup(tmp_path: Path) -> None:
    folders = [make_chain_run(tmp_path / name, lr=lr) for name, lr in (("<b>one", 1.0), ("two", 2.0))]
    page = compare_page.render(contest([(folder, plan_of(folder)) for folder in folders]))
    assert "<b>one" not in page and "&lt;b&gt;one" in page


def test_a_run_that_costs_nothing_is_drawn_on_a_plain_scale(runs: dict[str, Path], tmp_path: Path) -> None:
    free = make_chain_run(tmp_path / "free", lr=1e-3)
    (free / "ledger.jsonl").write_text("")
    found = contest([(folder, plan_of(folder)) for folder in (free, runs["a1"])])
    assert "<svg" in compare_page.render(found) and all(row.flops is None for row in found.ratios)


# --- many models, many tasks ------------------------------------------------------------------------------------------


def test_what_each_stage_taught_and_cost_is_one_table(runs: dict[str, Path]) -> None:
    told = tax(read_run(runs["a1"]))
    assert told is not None
    assert told.columns == ["arithmetic pass@1", "in the asked form", "language", "instructions pass@1"]
    assert [s.model for s in told.standings] == [
        "base",
        "cold-start",
        "reason",
        "second-sft",
        "preferred",
        "all-scenarios",
    ]
    fell = {s.model: {told.columns[place] for place in s.fell} for s in told.standings if s.fell}
    assert fell == {"reason": {"in the asked form", "language"}, "second-sft": {"arithmetic pass@1"}}
    assert [s.parent for s in told.standings] == ["", "base", "cold-start", "reason", "second-sft", "preferred"]
    page = render_report(runs["a1"])
    assert "less than reason" in page and "64 problems x 8 rollouts" in page
    figure = tax_figure(told)
    assert figure.svg.count('class="line thin s') == 4 and not figure.note
    assert "instructions pass@1: base 5.0" in figure.svg


def test_a_run_with_one_model_at_a_time_has_no_such_table(tmp_path: Path) -> None:
    run = make_demo_run(tmp_path / "demo", pretrain_steps=3, rl_steps=3)
    assert tax(read_run(run)) is None and 'id="tax"' not in render_report(run)
