"""The graph of a run: which nodes it has, as lines of text, as boxes that stand clear of each other and of lines."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seekling.report import graph as drawing
from seekling.report.card import render_card
from seekling.report.layout import BETWEEN, BOX, TALL, Layout, laid_out
from seekling.report.lineage import Node, drawn, graph, headline, lanes
from seekling.report.page import render_report
from seekling.report.read import read_run
from seekling.report.words import short
from tests.fixtures.make_chain_run import STAGES, make_chain_run


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chain_run(tmp_path_factory.mktemp("runs") / "chain")


def nodes(*reads: tuple[str, str]) -> list[Node]:
    """``("b", "a")``: b, which reads a; names of several letters are read one by one."""
    return [Node(name, "sft", "done", tuple(read)) for name, read in reads]


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_every_stage_of_the_manifest_is_a_node_begun_or_not(tmp_path: Path) -> None:
    run = make_chain_run(tmp_path / "half", begun=6)
    found = {node.name: node for node in graph(read_run(run))}
    assert list(found) == list(STAGES) and {n: node.reads for n, node in found.items()} == {
        name: tuple(reads) for name, (_, reads) in STAGES.items()
    }
    assert [found[name].state for name in ("base", "reason", "tax")] == ["done", "running", "not begun"]
    assert found["base"].figures == (("loss", 0.83),) and found["zero"].spent.tokens == 1_500_000
    assert found["reason"].gate == "open" and found["base"].gate == ""


def test_a_stage_whose_folder_is_not_there_and_was_read_is_gone(chain: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(chain, tmp_path / "chain"))
    shutil.rmtree(next(run.glob("cold-start-*")))
    found = {node.name: node.state for node in graph(read_run(run))}
    assert found["cold-start"] == "gone" and found["picked"] == "done"


def test_a_manifest_that_cannot_be_read_leaves_what_has_begun(chain: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(chain, tmp_path / "chain"))
    for text in ("[[", "stage = 3", ""):
        (run / "manifest.toml").write_text(text)
        assert [node.name for node in graph(read_run(run))] == list(STAGES)


def test_stages_that_read_each_other_in_a_ring_are_drawn_all_the_same(chain: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(chain, tmp_path / "chain"))
    file = next(run.glob("base-*/stage.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"inputs": {"from": ["tax", "nowhere"]}}))
    assert {node.name for node in graph(read_run(run))} == set(STAGES)
    assert render_report(run)


def test_a_kind_that_has_no_headline_of_its_own_shows_what_it_has() -> None:
    assert headline("grpo", {"loss": 1.0, "reward": 0.5}) == (("reward", 0.5),)
    assert headline("new", {"b": 1.0, "a": 2.0}) == (("b", 1.0), ("a", 2.0))


# --- as text ----------------------------------------------------------------------------------------------------------


def test_a_lane_begins_below_what_is_read_and_ends_at_its_last_reader() -> None:
    assert lanes(nodes(("a", ""), ("b", "a"), ("c", "b"))) == ["o", "o", "o"]
    assert [rail.rstrip() for rail in lanes(nodes(("a", ""), ("b", "a"), ("c", "a"), ("d", "bc"), ("e", "d")))] == [
        "o", "+-o", "o |", "o-'", "o",
    ]  # fmt: skip
    assert [rail.rstrip() for rail in lanes(nodes(("a", ""), ("b", ""), ("c", "a"), ("d", "ab")))] == [
        "o", "| o", "+-|-o", "o-'",
    ]  # fmt: skip
    states = [Node(state, "", state, ()) for state in ("done", "gate missed", "running", "not begun", "odd")]
    assert lanes(states) == ["o", "x", "*", ".", "."] and lanes([]) == []


@pytest.mark.parametrize("width", [160, 100, 80, 60, 40, 20])
def test_the_graph_fits_every_width_and_says_what_it_can(chain: Path, width: int) -> None:
    lines = drawn(graph(read_run(chain)), width)
    assert len(lines) == 13 and max(map(len, lines)) <= width
    assert all(line.isascii() for line in lines)
    if width >= 40:
        assert all(name in line for name, line in zip(STAGES, lines[1:], strict=True))
    if width >= 100:
        assert "met" in lines[6] and "3.6T" in lines[6] and "1.8M" in lines[6] and "reward 0.91" in lines[6]
        assert lines[0].split() == ["stage", "kind", "state", "gate", "FLOPs", "tokens", *(
            ["time"] if width > 100 else []), "figures"]  # fmt: skip


def test_columns_stand_below_each_other(chain: Path) -> None:
    lines = drawn(graph(read_run(chain)), 100)
    place = lines[0].index("kind")
    assert [line[place:].split()[0] for line in lines[1:]] == [kind for kind, _ in STAGES.values()]


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, ""), (7, "7"), (999, "999"), (999.6, "1k"), (1234567, "1.23M"), (2.4e13, "24T"), (1e21, "1e+03E")],
)  # fmt: skip
def test_large_numbers_are_told_in_few_letters(value: float, said: str) -> None:
    assert short(value) == said


# --- as boxes ---------------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Up to 16 nodes, each reading some earlier ones."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 16)))]
    return {
        name: draw(st.lists(st.sampled_from(names[:at]), max_size=4, unique=True)) if at else []
        for at, name in enumerate(names)
    }


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_boxes_do_not_touch_readers_stand_below_and_lines_pass_beside(reads: dict[str, list[str]]) -> None:
    layout = laid_out(reads)
    for row in {y for _, y in layout.boxes.values()}:
        xs = sorted(x for x, y in layout.boxes.values() if y == row)
        assert all(right - left > BOX for left, right in pairwise(xs))
    assert all(layout.boxes[read][1] < layout.boxes[name][1] for name in reads for read in reads[name])
    assert_inside(layout)
    for (read, name), way in layout.edges.items():
        assert way[0] == layout.boxes[read] and way[-1] == layout.boxes[name]
        assert [round((y - way[0][1]) / (TALL + BETWEEN)) for _, y in way] == list(range(len(way))), (
            "a place in each row"
        )
        for x, y in way[1:-1]:
            assert all(abs(x - box) > BOX / 2 for box, row in layout.boxes.values() if row == y), "never behind a box"


def assert_inside(layout: Layout) -> None:
    points = [*layout.boxes.values()]
    assert all(BOX / 2 - 1e-6 <= x <= layout.width - BOX / 2 + 1e-6 for x, _ in points)
    assert all(0 <= y <= layout.height - TALL for _, y in points)


def test_a_chain_stands_in_one_column_and_a_fork_on_both_sides() -> None:
    chain = laid_out({"a": [], "b": ["a"], "c": ["b"]}).boxes
    assert len({round(x, 3) for x, _ in chain.values()}) == 1
    fork = laid_out({"a": [], "b": ["a"], "c": ["a"]}).boxes
    assert fork["a"][0] == pytest.approx((fork["b"][0] + fork["c"][0]) / 2)
    assert laid_out({}) == Layout({}, {}, 0.0, 0.0)


def test_lines_do_not_cross_where_they_need_not() -> None:
    """Two chains side by side, written alternately and crosswise."""
    boxes = laid_out({"a": [], "b": [], "bb": ["b"], "aa": ["a"], "aaa": ["aa"], "bbb": ["bb"]}).boxes
    sides = [boxes[one][0] < boxes[other][0] for one, other in (("a", "b"), ("aa", "bb"), ("aaa", "bbb"))]
    assert len(set(sides)) == 1


# --- on the page and on the card --------------------------------------------------------------------------------------


def test_every_box_leads_to_its_row_and_says_itself_in_words(chain: Path) -> None:
    page = render_report(chain)
    for name, (kind, _) in STAGES.items():
        assert f'aria-label="{name}, {kind}, done; ' in page
    assert page.count('<path class="edge"') == sum(len(reads) for _, reads in STAGES.values())
    assert "budget used up after 37 of 100 steps" in page


@pytest.mark.parametrize("name", ["a" * 80, "<script>", 'x" y'])
def test_names_neither_leave_their_box_nor_become_markup(name: str) -> None:
    svg = drawing.draw([Node(name, "sft", "done", ())], {name: "place"})
    assert "<script>" not in svg and 'x" y' not in svg and ("a" * 80 not in svg.partition("<rect")[2])


def test_a_card_tells_where_the_model_comes_from_stage_by_stage(chain: Path) -> None:
    card = render_card("demo", shape(), {}, run=chain, stage="reason")
    told = [line for line in card.splitlines() if line.startswith("- **")]
    assert [line.split("**")[1] for line in told] == ["base", "cold-start", "picked", "reason"]
    facts = {name: json.loads(next(chain.glob(f"{name}-*/stage.json")).read_text()) for name in ("base", "cold-start")}
    assert "from no stage; Seekling 0.0.0 f00dfeedf00d" in told[0]
    assert told[1] == (
        f"- **cold-start** `{facts['cold-start']['fingerprint'][:8]}`: from base `{facts['base']['fingerprint'][:8]}`"
        f"; data `{facts['cold-start']['data']['data'][:12]}`; Seekling 0.0.0 f00dfeedf00d"
    )
    assert "from cold-start `" in told[3] and ", picked `" in told[3]


def shape() -> dict[str, Any]:
    """What a card says of a model beside its run."""
    return {"family": "deepseek_v3", "parameters": "1"}
