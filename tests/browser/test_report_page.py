"""The report in a real browser: quiet, offline, legible in both schemes, no wider than a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seekling.report.page import write_report
from tests.fixtures.make_demo_run import make_demo_run, with_curation

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium to run these tests"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim() || ["SCRIPT", "STYLE", "title", "desc"].includes(node.tagName)) continue;
    const style = getComputedStyle(node);
    const ink = rgb(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), text.data.trim().slice(0, 40), node.tagName]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""

LINE_CONTRAST = """() => {
  const probe = document.querySelector("svg.chart");
  const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .reduce((sum, v, i) => sum + channel(v) * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll("svg .line, svg .dot, svg .fill")].map((node) => {
    const style = getComputedStyle(node);
    const ink = light(node.classList.contains("line") ? style.stroke : style.fill);
    const [a, b] = [ink, paper].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
}"""


OUTSIDE = """() => [...document.querySelectorAll("svg.chart text")].filter((text) => {
  const [a, b] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
  return a.left < b.left - 2 || a.right > b.right + 2 || a.bottom > b.bottom + 2 || a.top < b.top - 2;
}).map((text) => text.textContent)"""

SMALLEST = """() => Math.min(...[...document.querySelectorAll("svg.chart text")].map((text) =>
  parseFloat(getComputedStyle(text).fontSize) * text.closest("svg").getBoundingClientRect().width / 400))"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_demo_run(tmp_path_factory.mktemp("runs") / "demo", pretrain_steps=60, rl_steps=40)
    with_curation(run)
    return write_report(run)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with (
        sync_api.sync_playwright() as driver,
        driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as running,
    ):
        yield running


@pytest.fixture
def visit(browser: Any, report: Path) -> Iterator[Any]:
    """``visit(width, scheme)`` opens the report; no visit may have complained or asked for anything."""
    heard: list[str] = []
    contexts = []

    def open_page(width: int = 1280, scheme: str = "light", **options: Any) -> Any:
        options = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme, **options}
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("request", lambda request: heard.append(request.url) if request.url != report.as_uri() else None)
        page.goto(report.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [line for line in heard if line != "data:,"], heard


def test_the_page_is_quiet_and_asks_the_network_for_nothing(visit: Any) -> None:
    page = visit()
    assert "14.2" in page.locator("h1").inner_text()
    page.mouse.wheel(0, 9000)
    page.wait_for_timeout(200)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_has_the_contrast_of_aa_in_both_schemes(visit: Any, scheme: str) -> None:
    page = visit(scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) > 300 and ratios[0][0] >= 4.5, ratios[:5]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_line_and_dot_stands_out_from_the_paper(visit: Any, scheme: str) -> None:
    ratios = visit(scheme=scheme).evaluate(LINE_CONTRAST)
    assert len(ratios) > 20 and min(ratios) >= 3


def test_the_two_schemes_differ(visit: Any) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    assert visit(scheme="light").evaluate(paper) != visit(scheme="dark").evaluate(paper)


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_the_page_is_never_wider_than_its_window(visit: Any, width: int) -> None:
    page = visit(width)
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1280])
def test_the_words_of_a_chart_stay_inside_it_and_can_be_read(visit: Any, width: int) -> None:
    page = visit(width)
    outside = page.evaluate(OUTSIDE)
    small = page.evaluate(SMALLEST)
    assert not outside and small >= 9.5


@pytest.mark.parametrize("width", [390, 1280])
def test_why_a_problem_was_left_out_and_what_was_forgotten_stand_in_view(visit: Any, width: int) -> None:
    page = visit(width)
    for words in ('copy of "a"', "forgotten"):
        box = page.locator("#problems .what, #forgotten em").filter(has_text=words).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_everything_is_there_without_scripts(visit: Any) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator("svg.chart").count() > 8 and page.locator("table").count() > 4


def test_arrow_keys_read_a_chart_out(visit: Any) -> None:
    page = visit()
    chart = page.locator("svg[data-plot]").first
    chart.focus()
    page.keyboard.press("Home")
    out = page.locator("figure", has=chart).locator("output").first
    assert out.inner_text() == "at 1: after 86.1\u202f% · before 14.2\u202f%"
    page.keyboard.press("ArrowRight")
    assert out.inner_text().startswith("at 2: ")


def test_the_pointer_reads_the_same_values_as_the_keys(visit: Any) -> None:
    page = visit()
    chart = page.locator("svg[data-plot]").first
    box = chart.bounding_box()
    chart.hover(position={"x": 0.13 * box["width"], "y": 0.5 * box["height"]})
    out = page.locator("figure", has=chart).locator("output").first
    assert out.inner_text().startswith("at 1: after 86.1")


def test_tab_reaches_the_result_and_every_wide_table(visit: Any) -> None:
    page = visit(390)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every((d) => d.tabIndex === 0)")


def test_paper_shows_what_the_screen_folds_away(visit: Any) -> None:
    page = visit(800, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#manifest pre").evaluate("(pre) => pre.getBoundingClientRect().height") > 100
