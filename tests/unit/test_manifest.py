"""Manifests: what counts as a change and what does not, overrides that keep the rest, and checks without torch."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from seekling.errors import UserError
from seekling.recipes.config import KINDS
from seekling.recipes.manifest import Manifest, built_in, load_manifest
from tests.conftest import fresh_toy

STAGES = ["base", "tuned", "zero", "zero-eval", "controls"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inside a folder with the toy manifest."""
    monkeypatch.chdir(fresh_toy(tmp_path / "toy"))
    return tmp_path / "toy"


def changed(*overrides: str) -> set[str]:
    """Stages whose fingerprints differ from the toy's."""
    before, after = load_manifest("toy.toml").fingerprints, load_manifest("toy.toml", overrides).fingerprints
    return {name for name in STAGES if before[name] != after[name]}


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("base.steps=41", {*STAGES}),
        ("base.model.hidden_size=48", {*STAGES}),
        ("base.text.verdicts=false", {*STAGES}),
        ("base.task.high=21", {*STAGES}),
        ("seed=1", {*STAGES}),
        ("dtype=bfloat16", {*STAGES}),
        ("tuned.steps=3", {"tuned"}),
        ("zero.objective.beta=0.1", {"zero", "zero-eval", "controls"}),
        ("zero.rubric.format=0.1", {"zero", "zero-eval", "controls"}),
        ("zero-eval.samples=8", {"zero-eval"}),
        ("controls.samples=8", {"controls"}),
        ("controls.from=['zero', 'base']", {"controls"}),
        ("base.checkpoint_every=1", set()),
        ("base.packing.passes=1", set()),
        ("base.gate.loss.max=1", set()),
        ("zero.held_out_every=1", set()),
        ("zero.kl_every=1", set()),
        ("zero.sampling.max_rows=2", set()),
        ("threads=7", set()),
        ("device=cuda", set()),
    ],
)
def test_a_setting_that_can_change_weights_changes_its_stage_and_dependents_and_no_other_does(
    here: Path, override: str, stages: set[str]
) -> None:
    assert changed(override) == stages


def test_the_content_of_a_users_task_and_data_counts_their_names_elsewhere_do_not(here: Path) -> None:
    before = load_manifest("toy.toml").fingerprints
    with (here / "sums.py").open("a") as handle:
        handle.write("\n# changed\n")
    after = load_manifest("toy.toml").fingerprints
    assert {name for name in STAGES if before[name] != after[name]} == {*STAGES}
    with (here / "chats.jsonl").open("a") as handle:
        handle.write('{"prompt": "1+1", "completion": "2"}\n')
    last = load_manifest("toy.toml").fingerprints
    assert {name for name in STAGES if after[name] != last[name]} == {"tuned"}
    (here / "other.toml").write_text((here / "toy.toml").read_text().replace('name = "toy"', 'name = "other"'))
    assert load_manifest("other.toml").fingerprints == last, "the run's name is no setting"


def test_a_built_in_task_counts_with_all_its_settings_however_they_are_written(here: Path) -> None:
    def of(task: str) -> str:
        return load_manifest("toy.toml", ["zero-eval.task=" + task]).fingerprints["zero-eval"]

    assert of('"countdown"') == of('{ name = "countdown" }')
    assert of('"countdown"') != of('"arithmetic"')


def test_a_mix_counts_with_all_settings_of_its_parts_and_their_files(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seekling.tasks import registry
    from seekling.tasks.countdown import Countdown

    class Wider(Countdown):
        sizes: tuple[int, ...] = (3, 4)

    def of(*parts: str, stage: str = "zero-eval") -> str:
        task = f'{stage}.task={{ name = "mix", tasks = [{", ".join(parts)}] }}'
        return load_manifest("toy.toml", [task]).fingerprints[stage]

    assert of('"countdown"', '"table"') == of('{ name = "countdown" }', '{ name = "table" }')
    assert of('"countdown"', '"table"') != of('"countdown"', '{ name = "table", rows = 6 }')
    before = of('"countdown"', '"./sums.py:Sums"')
    with (here / "sums.py").open("a") as handle:
        handle.write("\n# changed\n")
    after = of('"countdown"', '"./sums.py:Sums"')
    assert before != after
    monkeypatch.setitem(registry.FAMILIES, "countdown", Wider)
    assert of('"countdown"', '"./sums.py:Sums"') != after


def test_the_mixture_of_a_mix_counts_where_the_text_names_none(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seekling.tasks.requests import Requests

    def of(text: str) -> str:
        overrides = ['base.task={ name = "mix", tasks = ["bilingual", "requests"] }', f"base.text={text}"]
        return load_manifest("toy.toml", overrides).fingerprints["base"]

    before, named = of("{}"), of("{ qualities = { expert = 1.0 } }")
    monkeypatch.setattr(Requests, "mixture", {"expert": 1.0})
    assert of("{}") != before and of("{ qualities = { expert = 1.0 } }") == named


def test_a_default_that_changes_is_a_change(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seekling.tasks import registry
    from seekling.tasks.countdown import Countdown

    class Wider(Countdown):
        sizes: tuple[int, ...] = (3, 4)

    def of() -> str:
        return load_manifest("toy.toml", ['zero-eval.task="countdown"']).fingerprints["zero-eval"]

    before = of()
    monkeypatch.setitem(registry.FAMILIES, "countdown", Wider)
    assert of() != before


def again(manifest: Manifest, folder: Path) -> Manifest:
    """The resolved manifest, read back."""
    (folder / "resolved.toml").write_text(manifest.to_toml())
    return load_manifest(str(folder / "resolved.toml"))


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("base.model=tiny-dense", "zero.objective=dr_grpo", "seed=3", "zero-eval.larger_size=4"),
        ("base.gate.loss.max=3", 'base.task.name="./sums.py:Sums"', "base.text.qualities={}"),
    ],
)
def test_the_resolved_manifest_means_the_same(here: Path, overrides: tuple[str, ...]) -> None:
    manifest = load_manifest("toy.toml", overrides)
    resolved = again(manifest, here)
    assert resolved.fingerprints == manifest.fingerprints
    assert resolved.stages == manifest.stages and resolved.head == manifest.head
    assert resolved.to_toml() == manifest.to_toml()


@pytest.mark.parametrize("name", sorted(built_in()))
def test_every_built_in_manifest_resolves_to_itself(name: str, tmp_path: Path) -> None:
    manifest = load_manifest(name)
    assert again(manifest, tmp_path).fingerprints == manifest.fingerprints
    assert manifest.head.name == name


WITHOUT_TORCH = """
import sys
from importlib.abc import MetaPathFinder

class NoTorch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is blocked")

sys.meta_path.insert(0, NoTorch())
"""


def without_torch(code: str) -> str:
    """Run Python with torch blocked; returns what it printed."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_built_in_manifest_is_checked_without_torch() -> None:
    said = without_torch(
        "from seekling.recipes.manifest import built_in, load_manifest\n"
        "for name in built_in(): print(load_manifest(name).head.name)\n"
    )
    assert "zero-tiny" in said.split()


def test_help_stages_and_runs_never_import_torch(tmp_path: Path) -> None:
    said = without_torch(
        "from seekling.cli.main import main\n"
        "for argv in (['--help'], ['--version'], ['stages'], ['stages', 'grpo'],\n"
        f"             ['runs', '--runs', {str(tmp_path)!r}], ['run', '--help'], ['ask', '--help'],\n"
        "             ['show', '--help'], ['doctor', '--help']):\n"
        "    sys.argv = ['seekling', *argv]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, argv\n"
        "assert 'torch' not in sys.modules\n"
    )
    assert "problems_per_step" in said and "no runs in" in said


def test_an_override_of_one_key_keeps_the_rest_of_what_it_opens(here: Path) -> None:
    def stage(name: str, *overrides: str) -> dict[str, object]:
        return load_manifest("toy.toml", overrides).stage(name).model_dump()

    plain, opened = stage("zero"), stage("zero", "zero.objective.beta=0.1")
    assert opened["objective"] == {**plain["objective"], "beta": 0.1}, "grpo, and not the plain default"
    (here / "bare.toml").write_text('[[stage]]\nname = "base"\nkind = "pretrain"\nsteps = 1\n')
    bare = load_manifest("bare.toml").stage("base").model_dump()
    for override, key, inner, value in (
        ("base.model.hidden_size=48", "model", "hidden_size", 48),
        ("base.task.high=21", "task", "high", 21),
        ("base.optim.lr=0.5", "optim", "lr", 0.5),
        ("base.text.facts=0.5", "text", "facts", 0.5),
    ):
        whole = bare[key] if isinstance(bare[key], dict) else {"name": bare[key]}
        assert load_manifest("bare.toml", [override]).stage("base").model_dump()[key] == {**whole, inner: value}


def test_one_override_never_reaches_another_stage_or_manifest(here: Path) -> None:
    loaded = load_manifest("toy.toml", ["base.gate.loss.max=1", "zero.optim.beta1=0.5"])
    assert [s.name for s in loaded.stages if s.gate] == ["base"]
    assert not any(s.gate for s in load_manifest("toy.toml").stages)


def test_a_shorter_table_in_a_manifest_means_the_preset_and_what_differs(here: Path) -> None:
    text = (here / "toy.toml").read_text().replace('objective = "grpo"', 'objective = { preset = "grpo", beta = 0.5 }')
    (here / "toy.toml").write_text(text)
    objective = load_manifest("toy.toml").stage("zero").model_dump()["objective"]
    assert objective["beta"] == 0.5 and objective["advantage"] == "group_mean_std"


def test_stages_run_after_what_they_read_in_whatever_order_they_stand(here: Path) -> None:
    head, *stages = (here / "toy.toml").read_text().split("[[stage]]")
    (here / "toy.toml").write_text("[[stage]]".join([head, *reversed([s + "\n" for s in stages])]))
    manifest = load_manifest("toy.toml")
    names = [stage.name for stage in manifest.stages]
    for stage in manifest.stages:
        assert all(names.index(source) < names.index(stage.name) for source in stage.sources)


def test_a_circle_of_stages_is_told(here: Path) -> None:
    text = (here / "toy.toml").read_text()
    text = text.replace('name = "tuned"\nkind = "sft"\nfrom = "base"', 'name = "tuned"\nkind = "sft"\nfrom = "zero"')
    text = text.replace('name = "zero"\nkind = "grpo"\nfrom = "base"', 'name = "zero"\nkind = "grpo"\nfrom = "tuned"')
    (here / "toy.toml").write_text(text)
    with pytest.raises(UserError, match="in a circle: tuned -> zero -> zero-eval -> controls"):
        load_manifest("toy.toml")


def test_a_manifest_without_a_name_is_called_after_its_file(here: Path) -> None:
    (here / "nameless.toml").write_text((here / "toy.toml").read_text().replace('name = "toy"\n', ""))
    assert load_manifest("nameless.toml").head.name == "nameless"


def test_folder_names_begin_with_the_stages_name(here: Path) -> None:
    manifest = load_manifest("toy.toml")
    assert manifest.folder_name("zero-eval") == f"zero-eval-{manifest.fingerprints['zero-eval'][:8]}"


def test_every_kind_has_a_loop_and_words_for_it() -> None:
    for kind in KINDS.values():
        module, _, function = kind.loop.partition(":")
        file = Path(__file__).parents[2] / "src" / f"{module.replace('.', '/')}.py"
        assert f"def {function}(" in file.read_text()
        assert kind.settings.__doc__


def test_a_resolved_manifest_is_toml_that_says_every_setting(here: Path) -> None:
    values = tomllib.loads(load_manifest("toy.toml").to_toml())
    assert values["stage"][0]["optim"]["beta2"] == 0.95
    assert values["stage"][0]["model"]["kv_lora_rank"] == 8
    assert values["stage"][1]["from"] == "base"
