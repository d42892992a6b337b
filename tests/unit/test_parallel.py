"""What processes that learn together tell each other, share and send, against the same done by one."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.learn.batch import KeptIds, Text, in_world, pack
from seekling.learn.lanes import Lanes
from seekling.learn.parallel.world import ALONE, World
from seekling.recipes.config import KINDS
from seekling.recipes.pipeline import is_shared, pick_device
from seekling.recipes.together import joined, scores_of, share
from seekling.records import Kept
from seekling.workers.crew import Member
from tests.e2e.forks import Forks

SOURCE = Path(__file__).parents[2] / "src/seekling"


def of_all(forks: Forks, tmp_path: Path, name: str, *argv: str, size: int = 2) -> list[Any]:
    """What a function of ``tests.oracles.ranks`` returned in each of so many processes."""
    ended = forks.run_crew(argv, tmp_path, size, call=f"tests.oracles.ranks:{name}")
    assert [one.code for one in ended] == [0] * size, "\n".join(one.said for one in ended)
    return [one.counts for one in ended]


def test_torch_distributed_is_known_to_one_room_only() -> None:
    found = []
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [file.relative_to(SOURCE).parts[:2] for name in names if name.startswith("torch.distributed")]
    assert set(found) == {("learn", "parallel")}


def test_a_process_that_is_alone_is_asked_nothing_of_others() -> None:
    told = {"a": 1.5}
    assert ALONE.leads and ALONE.told(told) is told and ALONE.sums(told) == told and ALONE.gathered(b"x") == [b"x"]
    norm, rows = torch.tensor(2.0), torch.ones(2, 3)
    assert ALONE.norm(norm) is norm and ALONE.stacked(rows) is rows
    ALONE.wait()
    ALONE.close()


@pytest.mark.parametrize("size", [2, 3])
def test_all_hear_the_first_and_know_what_each_gave(forks: Forks, tmp_path: Path, size: int) -> None:
    ranks = range(size)
    wanted = {
        "told": {"a": [1, 2.5, None]},
        "nothing": None,
        "gathered": ["x" * rank for rank in ranks],
        "sums": {"b": float(size), "a": float(sum(ranks))},
        "norm": pytest.approx(sum((3 + rank) ** 2 for rank in ranks) ** 0.5),
        "stacked": [[rank, rank] for rank in ranks],
    }
    assert of_all(forks, tmp_path, "talk", size=size) == [wanted] * size


@pytest.mark.parametrize("empty", ["no", "yes"])
def test_tokens_that_travel_are_answered_as_at_home(forks: Forks, tmp_path: Path, empty: str) -> None:
    """A process without a token takes part all the same, or the others would wait for ever."""
    assert max(of_all(forks, tmp_path, "exchange", empty)) < 1e-4


@pytest.mark.parametrize("size", [2, 3])
def test_a_matrix_in_parts_is_made_orthogonal_as_a_whole(forks: Forks, tmp_path: Path, size: int) -> None:
    assert max(of_all(forks, tmp_path, "matrices", size=size)) < 1e-5


@pytest.mark.parametrize(("spread", "size"), [("no", 2), ("yes", 2), ("no", 3)])
def test_an_update_by_several_is_that_of_one_and_each_holds_its_part(
    forks: Forks, tmp_path: Path, spread: str, size: int
) -> None:
    """Of three processes one has no row to learn from, and takes part all the same."""
    found = of_all(forks, tmp_path, "update", spread, size=size)
    for told in found:
        assert told["figures"] < 1e-5 and told["weights"] < 1e-6 and told["state"] < 1e-7
        assert told["held"] == 0, "meanwhile the whole weights are let go of"
        assert told["share"] < 1 / size + 0.1
    assert sum(told["share"] for told in found) == pytest.approx(1)


def test_a_model_of_others_is_left_to_one_process(forks: Forks, tmp_path: Path) -> None:
    for letter in of_all(forks, tmp_path, "refusal"):
        assert "is trained by one process" in letter


# --- shares of a batch ------------------------------------------------------------------------------------------------


class Several(World):
    """One of several, which knows what the others would give: all, one after the other."""

    def __init__(self, rank: int, size: int, parts: list[torch.Tensor]) -> None:
        self.rank, self.size, self.parts = rank, size, parts

    def stacked(self, own: torch.Tensor) -> torch.Tensor:
        self.parts.append(own)
        return torch.cat(self.parts[-self.size :])


def batch_of(lengths: list[int], *, kept: bool) -> Any:
    rng = np.random.default_rng(len(lengths))
    texts = []
    for length in lengths:
        said = Kept(np.arange(2 * (length - 1), dtype=np.int32) % 9, np.arange(2, 2 * length, 2)) if kept else None
        values = {"advantage": rng.random(length, dtype=np.float32)}
        weight = rng.random(length, dtype=np.float32)
        routes = rng.integers(0, 4, (length, 2, 2)).astype(np.int16)
        texts.append(Text(rng.integers(0, 9, length).tolist(), weight, values, routes, said))
    return pack(texts, 16)


lengths = st.lists(st.integers(3, 16), min_size=1, max_size=9)


@given(lengths=lengths, size=st.integers(2, 5), kept=st.booleans())
def test_shares_have_one_shape_and_together_every_row_once(lengths: list[int], size: int, kept: bool) -> None:
    batch = batch_of(lengths, kept=kept)
    shares = [batch.share(rank, size) for rank in range(size)]
    assert len({tuple(own.targets_BT.shape) for own in shares}) == 1, "each makes as many passes as the others"
    for name in ("weight_BT", "targets_BT"):
        rows = torch.cat([getattr(own, name) for own in shares])
        real = torch.cat([own.rows.segments_BT.any(1) for own in shares])
        assert torch.equal(rows[real], getattr(batch, name)) and not rows[~real].any()
    assert sum(float(own.values["advantage"].sum()) for own in shares) == pytest.approx(
        float(batch.values["advantage"].sum()), rel=1e-4
    )
    for own in shares:
        assert all(len(route) == own.targets_BT.numel() for route in own.routes)
        assert own.kept is None or len(own.kept.ends) == own.targets_BT.numel()
    if kept:
        assert torch.equal(torch.cat([own.kept.ids for own in shares]), batch.kept.ids)


def test_an_empty_cut_of_kept_sets_is_empty() -> None:
    kept = KeptIds(torch.tensor([1, 2, 3]), torch.tensor([1, 3]))
    assert kept.cut(0, 0).ids.tolist() == [] and kept.cut(2, 2).ids.tolist() == []
    assert kept.cut(1, 2).ids.tolist() == [2, 3]


@given(lengths=lengths, size=st.integers(1, 4))
def test_what_is_read_by_several_is_in_the_order_of_one(lengths: list[int], size: int) -> None:
    batch, parts = batch_of(lengths, kept=False), list[torch.Tensor]()
    for rank in range(size):
        whole = None
        if rank < size - 1:
            parts.append(batch.share(rank, size).weight_BT)
            continue
        whole = in_world(lambda part: part.weight_BT, batch, 2, Lanes(1, Several(rank, size, parts)))
    assert whole is not None and torch.equal(whole, batch.weight_BT)


@given(count=st.integers(0, 20), size=st.integers(1, 6))
def test_every_problem_is_sampled_by_one_process(count: int, size: int) -> None:
    shares = [share(Several(rank, size, []), range(count)) for rank in range(size)]  # type: ignore[arg-type]
    assert [problem for own in shares for problem in own] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_spelled_out_and_read_back() -> None:
    groups: list[Any] = [object()]
    assert joined(ALONE, [], groups) is groups

    class Judge:
        def scores(self, given: list[Any]) -> list[Any]:
            return [json.dumps(len(given))]

    assert scores_of(ALONE, Judge(), groups) == ["1"]  # type: ignore[arg-type]


# --- who does what ----------------------------------------------------------------------------------------------------


def test_each_process_has_a_device_and_a_machine_with_fewer_says_so() -> None:
    assert pick_device("cpu", Member(1, 2, 1, "")) == torch.device("cpu"), "processors are shared"
    with pytest.raises(UserError, match="0 devices of type meta, and process 9 would need another"):
        pick_device("meta", Member(9, 16, 1, ""))


def test_all_work_on_what_learns_or_samples_and_one_does_the_rest() -> None:
    shared = {name for name, kind in KINDS.items() if is_shared(kind.settings.model_construct())}
    assert KINDS.keys() - shared == {"import", "curate", "cold_start", "reject"}
