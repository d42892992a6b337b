"""A chain's report and a comparison in a real browser: the graph is legible, in both schemes, and goes by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seekling.cli.comparing import plan_of
from seekling.report.compare import contest
from seekling.report.compare_page import write_page
from seekling.report.page import write_report
from tests.browser.test_report_page import CHROMIUM, CONTRAST, FLAGS, OUTSIDE, pytestmark, sync_api
from tests.fixtures.make_chain_run import STAGES, make_chain_run

__all__ = ["pytestmark"]

SPILT = """() => [...document.querySelectorAll("svg.graph text")].filter((text) => {
  const box = text.parentElement.querySelector("rect").getBoundingClientRect(), own = text.getBoundingClientRect();
  return own.left < box.left || own.right > box.right || own.top < box.top || own.bottom > box.bottom;
}).map((text) => text.textContent)"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of a chain of which the last stages have not begun, one of a finished chain, and a comparison."""
    root = tmp_path_factory.mktemp("runs")
    half, one, other = (make_chain_run(root / name, **told) for name, told in (
        ("half", {"begun": 9}), ("one", {}), ("other", {"lr": 1e-3, "gain": 0.03})))  # fmt: skip
    found = contest([(folder, plan_of(folder)) for folder in (one, other)])
    return {"half": write_report(half), "one": write_report(one), "compare": write_page(found, root / "compare.html")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with (
        sync_api.sync_playwright() as driver,
        driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as running,
    ):
        yield running


@pytest.mark.parametrize(("name", "scheme"), [("half", "light"), ("compare", "dark")])
def test_every_word_has_contrast_and_room_in_both_schemes(
    browser: Any, pages: dict[str, Path], name: str, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.goto(pages[name].as_uri())
    ratios = page.evaluate(CONTRAST)
    assert ratios[0][0] >= 4.5, ratios[:3]
    assert not page.evaluate(SPILT) and not page.evaluate(OUTSIDE) and not heard
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "the graph is moved, not the page"
    page.close()


def test_the_keyboard_goes_from_box_to_box_and_from_a_box_to_its_row(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 844}, reduced_motion="reduce")
    page.goto(pages["one"].as_uri())
    assert page.locator("svg.graph a").count() == len(STAGES)
    page.locator("svg.graph a").first.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("base-eval, eval, done")
    page.keyboard.press("Enter")
    assert "#from-base-eval-" in page.url
    row = page.locator("tr:target")
    assert row.inner_text().startswith("base-eval") and row.bounding_box()["y"] < 844
    page.close()
