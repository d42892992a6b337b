"""The law of the chain: what changes runs again, and what depends on it, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seekling.recipes.manifest import Manifest, load_manifest

SPARE = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CHANGES = {"pretrain": "steps", "grpo": "steps", "curate": "problems", "eval": "samples"}
"""A setting of each kind that can change what it leaves."""


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Stages as tables, each reading earlier ones: a model and a list, lists and models, evaluations of many."""
    stages = [{"name": "s0", "kind": "pretrain", "steps": 2}]
    for number in range(1, draw(st.integers(2, 12))):
        models, lists = (
            [s["name"] for s in stages if s["kind"] in kinds] for kinds in (("pretrain", "grpo"), "curate")
        )
        kind = draw(st.sampled_from(sorted(CHANGES)))
        model, listed = draw(st.sampled_from(models)), [draw(st.sampled_from(lists))] if lists else []
        reads = {
            "pretrain": [], "grpo": [model, *(listed if draw(st.booleans()) else [])],
            "curate": [model] if draw(st.booleans()) else listed,
            "eval": draw(st.lists(st.sampled_from(models), min_size=1, unique=True)),
        }[kind]  # fmt: skip
        own = {"steps": 2} if kind in ("pretrain", "grpo") else {}
        stages.append({"name": f"s{number}", "kind": kind, **({"from": reads} if reads else {}), **own})
    return stages


def loaded(folder: Path, stages: list[dict[str, Any]], *overrides: str) -> Manifest:
    """The stages as a manifest."""
    tables = ["\n".join(f"{key} = {value!r}" for key, value in stage.items()) for stage in stages]
    (folder / "chain.toml").write_text("\n".join(["format = 1", *(f"[[stage]]\n{table}" for table in tables)]))
    return load_manifest(str(folder / "chain.toml"), overrides)


def dependants(stages: list[dict[str, Any]], name: str) -> set[str]:
    """The stage, and what reads it, and what reads that."""
    found = {name}
    for stage in stages:
        found |= {stage["name"]} if found & set(stage.get("from", [])) else set()
    return found


@SPARE
@given(graphs(), st.data())
def test_a_change_is_one_of_its_stage_and_of_what_depends_on_it_alone(
    tmp_path: Path, stages: list[dict[str, Any]], data: st.DataObject
) -> None:
    changed = data.draw(st.sampled_from(stages))
    before = loaded(tmp_path, stages).fingerprints
    after = loaded(tmp_path, stages, f"{changed['name']}.{CHANGES[changed['kind']]}=3").fingerprints
    assert {name for name in before if before[name] != after[name]} == dependants(stages, changed["name"])


@SPARE
@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_in_which_stages_are_written_changes_nothing(
    tmp_path: Path, stages: list[dict[str, Any]], random: Any
) -> None:
    written = loaded(tmp_path, stages)
    moved = loaded(tmp_path, random.sample(stages, len(stages)))
    assert moved.fingerprints == written.fingerprints
    for manifest in (written, moved):
        names = [stage.name for stage in manifest.stages]
        assert all(names.index(read) < names.index(s.name) for s in manifest.stages for read in s.sources)


@pytest.mark.parametrize(
    ("setting", "is_other"),
    [("budget.tokens=9", True), ("budget.flops=1e9", True), ("budget.seconds=60", True), ("budget.tokens=0", False)],
)
def test_a_budget_is_a_setting_that_can_change_weights(tmp_path: Path, setting: str, is_other: bool) -> None:
    stages = [{"name": "s0", "kind": "pretrain", "steps": 2}]
    fingerprints = loaded(tmp_path, stages).fingerprints, loaded(tmp_path, stages, f"s0.{setting}").fingerprints
    assert (fingerprints[0] != fingerprints[1]) is is_other
