"""The hub: what is fetched and what never is, one name for one commit, breaks that are gone on from, and letters."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seekling.errors import UserError
from seekling.remote import hub
from seekling.remote.choice import Listed
from seekling.remote.hub import digests, identity, is_hub_name, locate, locate_data
from tests.oracles.hub import TOKEN, FakeHub, git_hash, sha256

ROOT = Path(__file__).parents[2]
NAME = "org/tiny"
LARGE = bytes(range(256)) * 4096
"""1 MiB: large enough to be worth going on with."""
INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}})
SHARDED: dict[str, bytes | str] = {
    "config.json": '{"model_type": "qwen2"}',
    "generation_config.json": "{}",
    "tokenizer.json": "{}",
    "tokenizer_config.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    "model.safetensors.index.json": INDEX,
    "model-1.safetensors": b"one" + LARGE,
    "model-2.safetensors": b"two",
}
NEVER: dict[str, bytes | str] = {
    "README.md": "# a card", "pytorch_model.bin": b"\x80", "consolidated.safetensors": b"x", "modeling_tiny.py": "1/0",
    "original/config.json": "{}", "original/params.json": "{}", "onnx/model.safetensors": b"x", "tiny.gguf": b"x",
    "additional_chat_templates/rag.jinja": "", ".gitattributes": "",
}  # fmt: skip


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub to ask, and an empty cache."""
    from huggingface_hub import close_session, constants

    for name in [*os.environ]:
        if name.lower().endswith("_proxy") or name.startswith("HF_"):
            monkeypatch.delenv(name)
    with FakeHub() as server:
        template = "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": server.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + template,
            "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_OFFLINE": False, "HF_HUB_ETAG_TIMEOUT": 1, "HF_HUB_DOWNLOAD_TIMEOUT": 1,
            "DOWNLOAD_CHUNK_SIZE": 2**16,
        }.items():  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda seconds: None))
        yield server
        close_session()


def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models--org--tiny"


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def refusal(name: str = NAME, revision: str = "", **how: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        locate(name, revision, **how)
    return caught.value


# --- what is fetched --------------------------------------------------------------------------------------------------


def test_only_texts_and_the_indexed_weights_are_fetched(fake: FakeHub) -> None:
    commit = fake.put(NAME, SHARDED | NEVER)
    told: list[str] = []
    source = locate(NAME, tell=told.append)
    here = {str(path.relative_to(source.folder)): path.read_bytes() for path in source.folder.rglob("*")}
    assert here == {name: data.encode() if isinstance(data, str) else data for name, data in SHARDED.items()}
    assert source.commit == commit
    assert sorted(file.name for file in source.files) == sorted(SHARDED)
    assert [file.name for file in source.weights] == ["model-1.safetensors", "model-2.safetensors"]
    assert told == [f"{NAME} at main, commit {commit[:12]}: fetching 7 of 8 files, 1.0 MB"]
    assert not [path for path in fake.paths() if path.rpartition("/")[2] in NEVER]
    assert [path for path in fake.paths() if path.startswith("/api/models")] == [f"/api/models/{NAME}"]


def test_configs_come_before_any_weight(fake: FakeHub) -> None:
    fake.put(NAME, SHARDED)
    source = locate(NAME, weights=False)
    assert source.weights == (
        Listed("model-1.safetensors", len(LARGE) + 3, sha256(b"one" + LARGE)),
        Listed("model-2.safetensors", 3, sha256(b"two")),
    )
    assert not list(source.folder.glob("*.safetensors"))
    assert (source.folder / "config.json").exists()
    assert locate(NAME).folder == source.folder
    assert (source.folder / "model-2.safetensors").read_bytes() == b"two"


def test_one_file_of_weights_needs_no_index(fake: FakeHub) -> None:
    one = {"config.json": "{}", "model.safetensors": LARGE, "model.fp16.safetensors": b"half"}
    fake.put(NAME, one | {"model.safetensors.index.json": INDEX})
    assert [file.name for file in locate(NAME).files] == ["config.json", "model.safetensors"]


def test_a_branch_and_a_commit_lead_to_their_own_files(fake: FakeHub) -> None:
    old = fake.put(NAME, SHARDED)
    converted = fake.put(NAME, {"config.json": '{"new": 1}', "model.safetensors": b"new"}, ref="refs/pr/1")
    assert locate(NAME, "refs/pr/1").commit == converted
    assert (locate(NAME, converted).folder / "config.json").read_text() == '{"new": 1}'
    assert locate(NAME, old[:40]).commit == locate(NAME).commit == old


def test_what_is_here_is_not_asked_for_again(fake: FakeHub) -> None:
    fake.put(NAME, SHARDED)
    first, told = locate(NAME), []
    fake.asked.clear()
    assert locate(NAME, tell=told.append) == first
    assert fake.asked == []
    assert told == [f"{NAME} at main, commit {first.commit[:12]}: from the cache"]


def test_a_local_folder_wins(fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.put(NAME, SHARDED)
    monkeypatch.chdir(tmp_path)
    for name, data in (SHARDED | NEVER).items():
        (tmp_path / NAME / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / NAME / name).write_bytes(data.encode() if isinstance(data, str) else data)
    source = locate(NAME)
    assert (source.folder, source.commit) == (Path(NAME), "")
    assert sorted(file.name for file in source.files) == sorted(SHARDED)
    assert fake.asked == []


def test_the_token_goes_to_the_hub_and_nowhere_else(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.put(NAME, SHARDED, is_private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    locate(NAME)
    by_host = {(asked.path.startswith("/cdn/"), asked.has_token) for asked in fake.asked}
    assert by_host == {(True, False), (False, True)}


def test_the_environment_chooses_hub_and_cache(fake: FakeHub, tmp_path: Path) -> None:
    fake.put(NAME, SHARDED)
    code = f"from seekling.remote.hub import locate; print(locate({NAME!r}).folder)"
    done = child(fake, tmp_path / "elsewhere", code).communicate(timeout=30)
    assert done[0].strip().startswith(str(tmp_path / "elsewhere" / "hub")), done[1]


def test_a_slow_fetch_says_how_far_it_is(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.put(NAME, SHARDED)
    monkeypatch.setattr(hub, "SAYS_EVERY_S", 0.0)
    told: list[str] = []
    locate(NAME, tell=told.append)
    assert "org/tiny: 1.0 MB of 1.0 MB, " in told[-1] and told[-1].endswith("B/s")


def test_whoever_watches_draws_the_bytes_as_they_come(fake: FakeHub) -> None:
    fake.put(NAME, SHARDED)
    drawn: list[tuple[int, int]] = []
    source = locate(NAME, draw=lambda done, of: drawn.append((done, of)))
    index = next(file.num_bytes for file in source.files if file.name == "model.safetensors.index.json")
    total = sum(file.num_bytes for file in source.files) - index  # read beforehand: it says which files count
    assert drawn == sorted(drawn)
    assert drawn[-1] == (total, total)


# --- one name, one commit ---------------------------------------------------------------------------------------------


def test_a_name_means_the_commit_first_met(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fake.put(NAME, SHARDED)
    assert identity(NAME) == {"commit": first}
    moved = fake.put(NAME, SHARDED | {"config.json": '{"changed": 1}'})
    assert identity(NAME) == {"commit": first} == {"commit": locate(NAME).commit}
    assert identity(NAME, moved) == {"commit": moved}
    offline(monkeypatch)
    assert identity(NAME) == {"commit": first}
    assert identity(NAME, moved) == {"commit": moved}


def test_an_identity_fetches_no_file(fake: FakeHub) -> None:
    fake.put(NAME, SHARDED)
    identity(NAME)
    assert fake.paths() == [f"/api/models/{NAME}"]


def test_a_folder_is_known_by_all_that_would_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in {"config.json": b"{}", "model.safetensors": LARGE, "README.md": b"a card"}.items():
        (folder / name).write_bytes(data)
    before = identity(str(folder))
    assert before == {"files": {"config.json": sha256(b"{}"), "model.safetensors": sha256(LARGE)}}
    (folder / "README.md").write_text("another card")
    assert identity(str(folder)) == before
    (folder / "model.safetensors").write_bytes(LARGE[:-1] + b"\0")
    assert identity(str(folder)) != before


def test_digests_are_the_hubs_or_our_own(fake: FakeHub) -> None:
    fake.put(NAME, SHARDED)
    source = locate(NAME)
    read = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.folder.iterdir()}
    assert digests(source) == read


# --- without a network ------------------------------------------------------------------------------------------------


def test_offline_the_cache_is_enough(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.put(NAME, SHARDED)
    first = locate(NAME)
    fake.close()
    told: list[str] = []
    assert locate(NAME, tell=told.append) == first
    offline(monkeypatch)
    assert locate(NAME, tell=told.append) == first
    assert [line.rpartition(": ")[2] for line in told] == ["from the cache"] * 2


def test_what_another_program_cached_is_used_offline(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = fake.put(NAME, SHARDED)
    folder = locate(NAME).folder
    shutil.rmtree(cache(tmp_path) / "trees-seekling")
    fake.fail("/api/models", status=503)
    source = locate(NAME)
    assert (source.folder, source.commit) == (folder, commit)
    offline(monkeypatch)
    assert locate(NAME) == source
    (folder / "model-2.safetensors").unlink()
    assert "lacks 1 of 2 files of weights: model-2.safetensors" in refusal().what


def test_half_a_cache_is_no_model(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.put(NAME, SHARDED)
    locate(NAME, weights=False)
    offline(monkeypatch)
    assert locate(NAME, weights=False).commit
    assert "not whole in the cache" in refusal().what
    assert "Unset HF_HUB_OFFLINE" in refusal().next_step


def test_offline_and_never_seen(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    assert "HF_HUB_OFFLINE forbids" in refusal().what
    assert fake.asked == []


def test_a_hub_that_is_down(fake: FakeHub) -> None:
    fake.close()
    assert "did not answer" in refusal().what
    assert fake.endpoint in refusal().where


def test_a_hub_that_never_answers(fake: FakeHub) -> None:
    fake.put(NAME, SHARDED)
    fake.fail("/api/models", stall=3)
    assert "did not answer" in refusal().what


# --- breaks -----------------------------------------------------------------------------------------------------------


def ranges(fake: FakeHub) -> list[str]:
    return [asked.range for asked in fake.asked if asked.method == "GET" and asked.path.startswith("/cdn/")]


def test_a_broken_connection_is_gone_on_with_at_once(fake: FakeHub) -> None:
    fake.put(NAME, {"config.json": "{}", "model.safetensors": LARGE})
    fake.fail("GET /cdn", drop=2**19)
    assert (locate(NAME).folder / "model.safetensors").read_bytes() == LARGE
    assert ranges(fake) == ["", f"bytes={2**19}-"]


def test_the_next_command_goes_on_where_the_last_one_broke(fake: FakeHub, tmp_path: Path) -> None:
    fake.put(NAME, {"config.json": "{}", "model.safetensors": LARGE})
    fake.fail("GET /cdn", drop=2**19)
    fake.fail("GET /cdn", status=503)
    error = refusal()
    assert "in trouble (503)" in error.what
    assert "goes on where" in error.next_step
    fake.asked.clear()
    assert (locate(NAME).folder / "model.safetensors").read_bytes() == LARGE
    assert ranges(fake) == [f"bytes={2**19}-"]
    assert not list((cache(tmp_path) / "blobs").glob("*incomplete*"))


def test_a_killed_command_is_gone_on_with(fake: FakeHub, tmp_path: Path) -> None:
    content = LARGE * 24  # more than two pieces of the size in which the hub's client writes
    fake.put(NAME, {"config.json": "{}", "model.safetensors": content})
    fake.fail("GET /cdn", stall=len(content) - 10)
    home = tmp_path / "home"
    code = f"from seekling.remote.hub import locate; print(locate({NAME!r}).folder)"
    first = child(fake, home, code)
    blobs = home / "hub" / "models--org--tiny" / "blobs"
    wait_until(lambda: sum(file.stat().st_size for file in blobs.glob("*.seekling.incomplete")) >= 2 * 10 * 2**20)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    begun = sum(file.stat().st_size for file in blobs.glob("*.seekling.incomplete"))
    fake.asked.clear()
    said, errors = child(fake, home, code).communicate(timeout=30)
    assert (Path(said.strip()) / "model.safetensors").read_bytes() == content, errors
    assert ranges(fake) == [f"bytes={begun}-"]


def test_what_a_wrong_partial_file_would_make_is_not_taken(fake: FakeHub, tmp_path: Path) -> None:
    fake.put(NAME, {"config.json": "{}", "model.safetensors": LARGE})
    blobs = cache(tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(LARGE)}.seekling.incomplete").write_bytes(b"wrong" * 100)
    assert "damaged on the way" in refusal().what
    assert (locate(NAME).folder / "model.safetensors").read_bytes() == LARGE


def test_someone_who_asks_to_stop_is_heard_in_the_middle_of_a_file(fake: FakeHub, tmp_path: Path) -> None:
    fake.put(NAME, {"config.json": "{}", "model.safetensors": LARGE})
    drawn: list[int] = []
    with pytest.raises(InterruptedError):
        locate(NAME, draw=lambda done, of: drawn.append(done), stop_requested=lambda: max(drawn, default=0) > 2**18)
    assert max(drawn) < len(LARGE)
    fake.asked.clear()
    assert (locate(NAME).folder / "model.safetensors").read_bytes() == LARGE
    assert ranges(fake)[0].startswith("bytes=")


def test_one_failure_stops_the_other_files(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 2**13)
    shards = {f"model-{number}.safetensors": bytes([number]) + LARGE for number in range(9)}
    index = json.dumps({"weight_map": {name: name for name in shards}})
    fake.put(NAME, {"config.json": "{}", "model.safetensors.index.json": index, **shards})
    fake.fail("GET /cdn", status=500)
    fake.fail("GET /cdn", drop=2**13, times=10_000)  # the others come in 128 pieces each
    assert "in trouble" in refusal().what
    assert len(ranges(fake)) < 2 * 128


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.put(NAME, SHARDED)
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert "org/tiny needs 1.0 MB of disk, and 1.0 kB are free" in refusal().what
    assert ranges(fake) == []


def test_a_disk_that_fills_up_in_the_middle(fake: FakeHub, tmp_path: Path) -> None:
    content = LARGE * 12
    fake.put(NAME, {"config.json": "{}", "model.safetensors": content})
    code = f"""
import resource, sys
from seekling.errors import UserError
from seekling.remote.hub import locate
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
try:
    locate({NAME!r})
except UserError as error:
    print(error.what)
"""
    said, errors = child(fake, tmp_path / "home", code).communicate(timeout=30)
    assert "the disk became full while fetching org/tiny" in said, errors


# --- letters ----------------------------------------------------------------------------------------------------------


def test_a_gated_model_says_where_its_terms_are(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.put(NAME, SHARDED, is_gated=True)
    assert identity(NAME)["commit"]
    error = refusal()
    assert "gated" in error.what
    assert f"{fake.endpoint}/{NAME}" in error.next_step and "HF_TOKEN" in error.next_step
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert locate(NAME).commit


@pytest.mark.parametrize("token", ["", TOKEN])
def test_a_missing_model_may_be_private_or_misspelt(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    fake.put(NAME, SHARDED)
    locate(NAME, weights=False)
    error = refusal("org/tinny")
    assert error.what == "the hub has no model org/tinny, and there is no folder of that name here"
    assert error.next_step.startswith("Did you mean org/tiny?")
    assert ("your token may not read" if token else "without HF_TOKEN") in error.next_step


def test_a_token_that_is_refused_is_never_shown(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.put(NAME, SHARDED)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    error = refusal()
    assert "does not accept your token" in error.what
    assert "hf_wrong" not in str(error)


def test_a_missing_revision_names_those_there_are(fake: FakeHub) -> None:
    fake.put(NAME, SHARDED)
    fake.put(NAME, SHARDED, ref="v1.0")
    error = refusal(revision="v1.1")
    assert error.what == f"{NAME} has no revision v1.1"
    assert "v1.0" in error.next_step


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "forbids access"), (404, "no longer has"), (429, "fewer requests"), (500, "in trouble (500)")],
)
def test_what_the_hub_answers_is_a_letter(fake: FakeHub, status: int, said: str) -> None:
    fake.put(NAME, SHARDED)
    fake.fail("GET /api", status=status)
    assert said in refusal().what


def test_pickled_weights_are_refused_with_the_way_out(fake: FakeHub, tmp_path: Path) -> None:
    for file in ("pytorch_model.bin", "model.pt", "consolidated.00.pth"):
        fake.put(NAME, {"config.json": "{}", file: b"\x80"}, ref=file)
        error = refusal(revision=file)
        assert file in error.what and "unpickling runs whatever code" in error.what
        assert "refs/pr/N" in error.next_step and "save_pretrained" in error.next_step
        (tmp_path / file).mkdir()
        (tmp_path / file / "config.json").write_text("{}")
        (tmp_path / file / file).write_bytes(b"\x80")
        assert "unpickling" in refusal(str(tmp_path / file)).what
        assert locate(str(tmp_path / file), weights=False).weights == ()
    assert not [path for path in fake.paths() if "/resolve/" in path]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"README.md": "x"}, "has no config.json"),
        ({"adapter_config.json": "{}", "adapter_model.safetensors": b"x"}, "is an adapter"),
        ({"config.json": "{}", "tiny.gguf": b"x"}, "no safetensors weights (only tiny.gguf)"),
        ({"config.json": "{}"}, "holds no safetensors weights"),
        ({"config.json": "{}", "a.safetensors": b"x", "b.safetensors": b"x"}, "2 files of weights and no index"),
        ({k: v for k, v in SHARDED.items() if k != "model-2.safetensors"}, "lacks 1 of 2 files of weights"),
        (
            SHARDED | {"model.safetensors.index.json": '{"weight_map": {"a": "../x.safetensors"}}'},
            "no safetensors file",
        ),
        (
            SHARDED | {"model.safetensors.index.json": '{"weight_map": {"a": "sub/x.safetensors"}}'},
            "in the same folder",
        ),
        (SHARDED | {"model.safetensors.index.json": '{"weight_map": {"a": "model.bin"}}'}, "no safetensors file"),
        (SHARDED | {"model.safetensors.index.json": '{"weight_map": {"a": 7}}'}, "damaged"),
        (SHARDED | {"model.safetensors.index.json": '{"weight_map": {}}'}, "no safetensors file in the same folder"),
        (SHARDED | {"model.safetensors.index.json": '{"weight_map": '}, "damaged"),
        (SHARDED | {"model.safetensors.index.json": "[" * 100_000}, "damaged"),
    ],
)
def test_a_folder_that_is_no_model(fake: FakeHub, files: dict[str, bytes | str], said: str) -> None:
    fake.put(NAME, files)
    error = refusal()
    assert said in error.what


@pytest.mark.parametrize(
    ("name", "said", "step"),
    [
        ("gpt2", "neither a folder nor a model of the hub", "org/name"),
        ("./modle", "there is no folder ./modle", "Did you mean model?"),
        ("/no/such/folder", "there is no folder", "path"),
        ("a/b/c", "there is no folder", "path"),
        ("org/--x", "neither", "org/name"),
        ("model/config.json", "is a file", "Name its folder: model"),
    ],
)
def test_a_name_that_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str, step: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    error = refusal(name)
    assert said in error.what
    assert step in error.next_step


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    assert "has no revision v1" in refusal(str(tmp_path), "v1").what


@pytest.mark.parametrize("revision", ["../../secrets", "a b", "-x", "a..b"])
def test_a_revision_is_a_plain_word(fake: FakeHub, revision: str) -> None:
    assert "is no revision" in refusal(revision=revision).what
    assert fake.asked == []


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("Qwen/Qwen2.5-0.5B", True), ("deepseek-ai/DeepSeek-V2-Lite", True), ("a/b", True), ("a", False), ("a/b/c", False),
     ("./a", False), ("/a/b", False), ("a/b.git", False), ("a/..", False), ("a/b-", False), ("a b/c", False)],
)  # fmt: skip
def test_the_form_of_a_hub_name(name: str, is_one: bool) -> None:
    assert is_hub_name(name) is is_one


# --- data sets --------------------------------------------------------------------------------------------------------


def dataset(fake: FakeHub, *paths: str) -> None:
    fake.put("datasets/org/data", {path: path for path in paths})


def files_of(data: str = "org/data", **how: Any) -> list[str]:
    return [file.name for file in locate_data(data, **how).files]


TRAIN = [f"data/train-0000{number}-of-00002.parquet" for number in range(2)]


def test_one_split_of_a_data_set_is_fetched(fake: FakeHub) -> None:
    dataset(fake, *TRAIN, "data/test-00000-of-00001.parquet", "README.md", "dataset_infos.json")
    source = locate_data("org/data")
    assert [path.read_text() for path in source.paths] == TRAIN
    assert files_of(split="test") == ["data/test-00000-of-00001.parquet"]
    assert not [path for path in fake.paths() if path.endswith("README.md")]
    assert identity("org/data", kind="dataset") == {"commit": source.commit}


def test_rows_without_a_split_in_their_name_are_train(fake: FakeHub) -> None:
    dataset(fake, "chats-1.jsonl", "chats-2.jsonl", "state.json")
    assert files_of() == ["chats-1.jsonl", "chats-2.jsonl"]
    with pytest.raises(UserError, match='no split "test"'):
        files_of(split="test")


def test_a_part_of_a_data_set_can_be_named(fake: FakeHub) -> None:
    dataset(fake, "en/train.jsonl", "en/test.jsonl", "fr/train.jsonl", *TRAIN)
    with pytest.raises(UserError, match='3 parts of split "train"') as caught:
        files_of()
    ways = caught.value.next_step.removeprefix("Name one as data: ").split(", ")
    assert [files_of(way) for way in ways] == [TRAIN, ["en/train.jsonl"], ["fr/train.jsonl"]]
    assert files_of("org/data:en") == ["en/train.jsonl"]
    assert files_of("org/data:en/test.jsonl") == ["en/test.jsonl"]


def test_splits_of_like_names_are_not_mixed(fake: FakeHub) -> None:
    ways = [f"data/train_{kind}-00000-of-00001.parquet" for kind in ("gen", "sft")]
    dataset(fake, *ways, "data/test_sft-00000-of-00001.parquet")
    with pytest.raises(UserError, match="2 parts"):
        files_of()
    assert files_of(split="train_sft") == ways[1:]
    dataset(fake, "more.jsonl", "test.jsonl")
    with pytest.raises(UserError, match='no split "train"'):
        files_of(revision=fake.repos["datasets/org/data"].refs["main"])


def test_a_listed_name_that_leads_out_of_the_folder_is_not_read(fake: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "train-mine.jsonl").write_text("mine")
    dataset(fake, "train.jsonl", "../../../train-mine.jsonl", f"{tmp_path}/cache/train-mine.jsonl")
    assert files_of() == ["train.jsonl"]


def test_a_data_set_without_rows_or_without_that_split(fake: FakeHub) -> None:
    dataset(fake, "images.zip", "rows/train.jsonl")
    with pytest.raises(UserError, match='no split "validation"') as caught:
        files_of(split="validation")
    assert "Splits found: train" in caught.value.next_step
    with pytest.raises(UserError, match="no parquet, JSONL or JSON files at row") as caught:
        files_of("org/data:row")
    assert caught.value.next_step == "Did you mean org/data:rows?"
    with pytest.raises(UserError, match="the hub has no dataset org/other"):
        files_of("org/other")
    with pytest.raises(UserError, match="is no data set of the hub"):
        files_of("chats")


def test_a_data_set_is_used_offline_once_it_is_whole(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(fake, *TRAIN)
    commit = identity("org/data", kind="dataset")["commit"]
    fake.fail(f"HEAD /datasets/org/data/resolve/{commit}/{TRAIN[1]}", status=403)
    with pytest.raises(UserError, match="forbids access"):
        files_of()
    offline(monkeypatch)
    with pytest.raises(UserError, match="not whole in the cache"):
        files_of()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert files_of() == TRAIN
    fake.close()
    offline(monkeypatch)
    assert files_of() == TRAIN


# --- the house --------------------------------------------------------------------------------------------------------


def test_only_this_room_knows_the_hubs_library_and_only_when_asked() -> None:
    users = [file for file in (ROOT / "src").rglob("*.py") if "huggingface_hub" in file.read_text()]
    assert [file.name for file in users if "import huggingface_hub" in (text := file.read_text()) or
            "from huggingface_hub" in text] == ["hub.py"]  # fmt: skip
    code = "import seekling.remote.hub, sys; print([m for m in ('huggingface_hub', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_fake_names_contents_as_git_does() -> None:
    assert git_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def child(fake: FakeHub, home: Path, code: str) -> subprocess.Popen[str]:
    """Python in a process of its own that knows hub and cache from its environment."""
    environment = {**os.environ, "HF_ENDPOINT": fake.endpoint, "HF_HOME": str(home), "HF_HUB_DOWNLOAD_TIMEOUT": "20"}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(is_so: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)
