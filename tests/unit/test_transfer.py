"""Weights sent GPU to GPU, against fakes of both of vLLM's sides: they truly arrive, and each fault is a letter."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from seekling.config import fingerprint, weight_settings
from seekling.engine.config import Sampling, Vllm
from seekling.errors import UserError
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.weights import save_model
from seekling.recipes import courier, serving, transfer
from seekling.recipes.config import Grpo
from seekling.recipes.served import FOLDER, Served
from seekling.recipes.transfer import Transfer, Unsent, python_beside, sizes_in
from seekling.remote.vllm import Server
from seekling.remote.wire import Patience
from seekling.text.tokenizer import Tokenizer, train
from tests.fixtures import fake_trainer
from tests.fixtures.fake_vllm import Fake, program
from tests.fixtures.fake_vllm import serving as serving_fake
from tests.unit.test_served import SAMPLING, Bench, asked, assert_same, starts
from tests.unit.test_tied import gone

SHAPE = ModelConfig(
    model_type="qwen3", vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=16, intermediate_size=48, max_position_embeddings=64, initializer_range=0.4,
)  # fmt: skip
KINDS = ["nccl", "ipc"]


class Threads:
    """In the place of programs on a leash: vLLM and its courier as threads here. ``made`` are the servers, in order."""

    faults: tuple[str, ...] = ()
    made: list[Fake]
    environments: list[dict[str, str]]

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str], *_: Any) -> None:
        self.command, self.stack, self.thread = list(command), ExitStack(), threading.Thread(target=self.carry)
        log.touch()
        if "serve" in command:
            type(self).made.append(self.serve(environment))
            type(self).environments.append(environment)
        else:
            self.thread.daemon = True
            self.thread.start()

    def serve(self, environment: dict[str, str]) -> Fake:
        told = dict(pairwise(self.command))
        how = {
            "backend": "",
            **json.loads(told.get("--weight-transfer-config", "{}")),
            "key": environment["VLLM_API_KEY"],
        }
        how["may_unpickle"] = environment.get("VLLM_ALLOW_INSECURE_SERIALIZATION") == "1"
        model = Path(told["serve"])
        return self.stack.enter_context(serving_fake(model, *self.faults, port=int(told["--port"]), **how))

    def carry(self) -> None:
        with suppress(OSError):  # nobody listens any more
            courier.main(self.command[-1])

    def is_alive(self, after_s: float = 0.0) -> bool:
        return "serve" in self.command or self.thread.is_alive()

    def last_words(self, lines: int = 1) -> str:
        return "Killed"

    def end(self) -> None:
        self.stack.close()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> type[Threads]:
    made = type("Made", (Threads,), {"made": [], "environments": []})
    monkeypatch.setattr(transfer, "Tied", made)
    monkeypatch.setattr(serving, "Tied", made)
    return made


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train([f"{a}+{b}={a + b}" for a in range(30) for b in range(30)], 300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small random model, and programs that could be vLLM's."""
    save_model(tmp_path / "model", Decoder(SHAPE).init_weights(0))
    for name in ("vllm", "python"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def bench(tmp_path: Path, tokenizer: Tokenizer, threads: type[Threads]) -> Iterator[Bench]:
    """A stage on what counts as a GPU; vLLM and its courier run as threads."""
    made = Bench(tmp_path, tokenizer)
    made.stage.device = torch.device("meta")  # any but a CPU: the model itself stays where it is
    for name in ("vllm", "python"):
        (tmp_path / name).touch(mode=0o755)
    yield made
    made.close()


def served(bench: Bench, kind: str, **how: Any) -> Served:
    return bench.served(command=str(bench.folder / "vllm"), dtype="float32", transfer=kind, **how)


def handed(folder: Path, seed: int) -> tuple[Path, Decoder]:
    """A hand-over's folder, and the model in it."""
    place, model = folder / f"{seed:06d}", Decoder(SHAPE).init_weights(seed)
    save_model(place, model, shard_bytes=8000)
    return place, model


class Pair:
    """A server and a courier that have met, if they would."""

    def __init__(self, folder: Path, fake: Fake, kind: str, timeout_s: float = 20.0) -> None:
        told = Vllm(transfer=kind, start_s=60.0, timeout_s=timeout_s)  # type: ignore[arg-type]
        self.server = Server(fake.url, patience=Patience(20.0, 1))
        self.transfer = Transfer(told, str(folder / "vllm"), folder)

    def join(self, fake: Fake, folder: Path) -> None:
        self.transfer.join(self.server, fake.url, folder / "model")

    def close(self) -> None:
        self.transfer.end()
        self.server.close()


# --- a courier and a server -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_weights_arrive_however_often_they_are_sent(folder: Path, threads: type[Threads], kind: str) -> None:
    with serving_fake(folder / "model", backend=kind) as fake, fake_trainer.installed():
        pair = Pair(folder, fake, kind)
        pair.join(fake, folder)
        for seed in (1, 2):
            place, model = handed(folder, seed)
            assert len(list(place.glob("*.safetensors"))) > 1
            pair.server.pause()
            pair.transfer.bring(pair.server, place)
            pair.server.resume()
            states = zip(fake.model.state_dict().values(), model.state_dict().values(), strict=True)
            assert all(torch.equal(there, here) for there, here in states)
        pair.close()
    updates = ["/update_weights"] * (1 if kind == "nccl" else 2)
    once = ["/pause?mode=abort", "/start_weight_update", *updates, "/finish_weight_update", "/reset_prefix_cache"]
    assert fake.places() == ["/get_world_size", "/init_weight_transfer_engine", *2 * [*once, "/resume"]]


@pytest.mark.parametrize(
    ("kind", "server", "trainer", "said"),
    [
        ("nccl", "not configured", "", "HTTPError: 500 Server Error .*Weight transfer not configured"),
        ("ipc", "not configured", "", "Weight transfer not configured"),
        ("nccl", "", "no vllm", "ModuleNotFoundError: No module named 'vllm'"),
        ("nccl", "", "older", "ModuleNotFoundError: No module named 'vllm.distributed.weight_transfer'"),
        ("nccl", "", "one gpu", "a GPU is needed beside the 1 that vLLM samples on, and 1 can be seen"),
        ("ipc", "miscounts", "", "it reaches the one GPU that it shares, and vLLM samples on 2"),
        ("nccl", "miscounts", "", "nothing within 0.7 s"),  # who is waited for never comes
    ],
)
def test_who_cannot_meet_says_why(
    folder: Path, threads: type[Threads], kind: str, server: str, trainer: str, said: str
) -> None:
    faults = [server] if server else []
    with (
        serving_fake(folder / "model", *faults, backend=kind) as fake,
        fake_trainer.installed(*[trainer] if trainer else []),
    ):
        pair = Pair(folder, fake, kind, timeout_s=0.7 if "within" in said else 20.0)
        with pytest.raises(Unsent, match=rf"^a transfer by (NCCL|CUDA IPC) failed: .*{said}") as caught:
            pair.join(fake, folder)
        pair.close()
    assert caught.value.where.endswith("courier.log") and "docs/vllm.md" in caught.value.next_step
    assert 'vllm.transfer = "folder"' in caught.value.next_step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("trainer", "said"),
    [("hangs", "nothing within 0.3 s"), ("forgets one", r"(\d+) tensors were sent, and (?!\1)\d+ were handed over")],
)
def test_a_send_that_fails_says_why(folder: Path, threads: type[Threads], kind: str, trainer: str, said: str) -> None:
    with serving_fake(folder / "model", backend=kind) as fake, fake_trainer.installed(trainer):
        pair = Pair(folder, fake, kind)
        pair.join(fake, folder)
        if trainer == "hangs":
            pair.transfer._config = pair.transfer._config.model_copy(update={"timeout_s": 0.3})
        pair.server.pause()
        with pytest.raises(Unsent, match=said):
            pair.transfer.send(handed(folder, 1)[0])
        pair.close()


def test_a_server_that_may_not_unpickle_is_told_of(folder: Path, threads: type[Threads]) -> None:
    with serving_fake(folder / "model", backend="ipc", may_unpickle=False) as fake, fake_trainer.installed():
        pair = Pair(folder, fake, "ipc")
        pair.join(fake, folder)
        pair.server.pause()
        with pytest.raises(Unsent, match="without VLLM_ALLOW_INSECURE_SERIALIZATION=1"):
            pair.transfer.send(handed(folder, 1)[0])
        pair.close()


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        (["start", "start"], "already active"),
        (["update"], "start_weight_update must be called before update_weights"),
        (["finish"], "without a matching start_weight_update"),
        (["start", "update"], "NCCL weight transfer not initialized"),
    ],
)
def test_the_fake_refuses_what_is_out_of_order(folder: Path, calls: list[str], said: str) -> None:
    receiver = Fake(folder / "model").receiver
    told = [{"names": ["x"], "dtype_names": ["float32"], "shapes": [[1]]}]
    with pytest.raises(RuntimeError, match=said):
        for call in calls:
            getattr(receiver, call)(*told if call == "update" else ())


def test_an_update_left_open_is_refused_by_name(folder: Path, threads: type[Threads]) -> None:
    with serving_fake(folder / "model") as fake, fake_trainer.installed():
        pair = Pair(folder, fake, "nccl")
        pair.join(fake, folder)
        pair.server.pause()
        fake.receiver.start()
        with pytest.raises(Unsent, match="start_weight_update called while a weight update is already active"):
            pair.transfer.send(handed(folder, 1)[0])
        pair.close()


def test_a_courier_killed_in_the_middle_is_told_of_and_nothing_stays(folder: Path) -> None:
    """A process this time: the wire breaks as it would."""
    fake_trainer.python(folder, "dies")
    with serving_fake(folder / "model") as fake:
        pair = Pair(folder, fake, "nccl", timeout_s=60.0)
        pair.join(fake, folder)
        home = Path(pair.transfer._home.name)
        pair.server.pause()
        with pytest.raises(Unsent, match="a transfer by NCCL failed: its courier ended: it said nothing"):
            pair.transfer.send(handed(folder, 1)[0])
        assert not home.exists() and not pair.transfer._program.is_alive(20.0)
        pair.close()


def test_a_python_that_is_none_is_told_in_its_last_words(folder: Path) -> None:
    (folder / "python").write_text("#!/bin/sh\necho 'no such option: -P' >&2\nexit 2\n")
    (folder / "python").chmod(0o755)
    with serving_fake(folder / "model") as fake:
        pair = Pair(folder, fake, "nccl")
        with pytest.raises(Unsent, match="its courier ended: no such option: -P"):
            pair.join(fake, folder)
        pair.close()


def test_what_a_folder_holds_is_counted_in_its_heads(folder: Path) -> None:
    place, model = handed(folder, 1)
    assert sum(sizes_in(place)) == sum(weight.nbytes for weight in model.parameters())


# --- a stage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_samples_with_what_was_sent_awake_or_asleep(bench: Bench, threads: type[Threads], kind: str) -> None:
    with fake_trainer.installed():
        engine = served(bench, kind)
        for seed in range(4):
            bench.move(0.02, seed)
            engine.load(bench.policy.model)
            said = engine.generate(asked(bench, 1), Sampling(**SAMPLING))
            assert_same(said, bench.policy.engine.generate(asked(bench, 1), Sampling(**SAMPLING)))
            if seed == 1:
                engine.rest()
        engine.close()
    (fake,) = threads.made
    places = fake.places()
    assert places.count("/start_weight_update") == 3 and "/collective_rpc" not in places
    assert places.count("/init_weight_transfer_engine") == 1 and not fake.paused
    asleep = places[places.index("/wake_up?tags=weights") :]
    assert asleep[1] == "/start_weight_update" and asleep.index("/wake_up?tags=kv_cache") > asleep.index(
        "/reset_prefix_cache"
    )
    assert bench.facts["transfer"] == kind and bench.facts["worst"] < 1e-5 and bench.facts["restarts"] == 0
    assert ("VLLM_ALLOW_INSECURE_SERIALIZATION" in threads.environments[0]) == (kind == "ipc")
    assert [line for line in bench.warned if "unpickles" in line] == bench.warned and len(bench.warned) == (
        kind == "ipc"
    )


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("stale", "after a transfer by NCCL the server still speaks with earlier weights"),
        ("loses one", "after a transfer by NCCL the server's weights differ"),
    ],
)
def test_what_a_transfer_garbles_is_found_and_cured_by_restarts(
    bench: Bench, threads: type[Threads], fault: str, said: str
) -> None:
    threads.faults = (fault,)
    with fake_trainer.installed():
        engine = served(bench, "nccl")
        for seed in range(3):
            bench.move(0.05, seed)
            engine.load(bench.policy.model)
            answers = engine.generate(asked(bench, 1), Sampling(**SAMPLING))
            assert_same(answers, bench.policy.engine.generate(asked(bench, 1), Sampling(**SAMPLING)))
    first, second = bench.warned
    assert first.startswith(said) and first.endswith("; vLLM is restarted with them")
    assert second == ("this build of vLLM takes these weights wrongly by NCCL: it is restarted for every hand-over")
    assert [fake.places().count("/init_weight_transfer_engine") for fake in threads.made] == [1, 1, 0]


def test_a_transfer_that_fails_costs_a_restart_and_two_in_a_row_end_the_stage(
    bench: Bench, threads: type[Threads]
) -> None:
    with fake_trainer.installed("forgets one"):
        engine = served(bench, "nccl")
        for seed in range(2):
            bench.move(0.02, seed)
            engine.load(bench.policy.model)
            said = engine.generate(asked(bench, 1), Sampling(**SAMPLING))
            assert_same(said, bench.policy.engine.generate(asked(bench, 1), Sampling(**SAMPLING)))
        (warned,) = bench.warned
        assert "tensors were sent, and" in warned and warned.endswith("; vLLM is restarted with the weights")
        engine.load(bench.policy.model)
        with pytest.raises(Unsent, match="tensors were sent, and"):
            engine.generate(asked(bench, 1), Sampling(**SAMPLING))
    assert len(threads.made) == 2


def test_one_that_fails_now_and_then_goes_on(bench: Bench, threads: type[Threads]) -> None:
    with fake_trainer.installed():
        engine = served(bench, "nccl")
        for seed in range(4):
            bench.move(0.02, seed)
            engine.load(bench.policy.model)
            if seed in (1, 3):  # its courier is gone
                assert engine._started and engine._started.transfer
                engine._started.transfer._line.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
            engine.generate(asked(bench, 1), Sampling(**SAMPLING))
    assert len(bench.warned) == 2 and len(threads.made) == 3


def test_who_cannot_meet_ends_the_stage_before_anything_is_sampled(bench: Bench, threads: type[Threads]) -> None:
    threads.faults = ("not configured",)
    with fake_trainer.installed(), pytest.raises(Unsent, match="Weight transfer not configured"):
        served(bench, "nccl").generate(asked(bench), Sampling(**SAMPLING))
    assert not [place for place, _ in threads.made[0].heard if place.startswith("/v1/completions")]


def test_programs_of_their_own_do_as_the_threads_did(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """vLLM and its courier as processes: arguments, environment, order, and an end that leaves none."""
    bench = Bench(tmp_path, tokenizer)
    bench.stage.device = torch.device("meta")
    program(tmp_path)
    fake_trainer.python(tmp_path)
    engine = served(bench, "ipc")
    for seed in range(2):
        bench.move(0.02, seed)
        engine.load(bench.policy.model)
        said = engine.generate(asked(bench, 1), Sampling(**SAMPLING))
        assert_same(said, bench.policy.engine.generate(asked(bench, 1), Sampling(**SAMPLING)))
    assert engine._started and engine._started.transfer
    pid = engine._started.transfer._program._process.pid
    bench.close()
    (one,) = starts(bench)
    assert not [line for line in bench.warned if "restarted" in line] and gone(pid) and gone(one["pid"])
    assert dict(pairwise(one["argv"]))["--weight-transfer-config"] == '{"backend": "ipc"}'
    assert one["environment"]["VLLM_ALLOW_INSECURE_SERIALIZATION"] == "1"
    assert not (bench.stage.folder.folder / FOLDER).exists()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_a_stage_on_a_cpu_cannot_send(bench: Bench) -> None:
    bench.stage.device = torch.device("cpu")
    with pytest.raises(UserError, match=r'vllm.transfer = "nccl" sends weights from GPU to GPU') as caught:
        served(bench, "nccl")
    assert caught.value.where == "vllm.transfer" and '"folder"' in caught.value.next_step


def test_no_python_beside_the_program_is_said_before_anything_starts(bench: Bench) -> None:
    (bench.folder / "python").unlink()
    with pytest.raises(UserError, match=r'there is no Python beside ".*vllm"') as caught:
        served(bench, "ipc")
    assert caught.value.where == "vllm.command"


def test_the_python_is_that_of_the_environment_behind_a_link(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "venv/bin", tmp_path / "bin"
    home.mkdir(parents=True)
    elsewhere.mkdir()
    (home / "vllm").touch()
    (home / "python").symlink_to(sys.executable)
    (elsewhere / "vllm").symlink_to(home / "vllm")
    (elsewhere / "python3").touch()
    assert python_beside(str(elsewhere / "vllm")) == str(home / "python")


def test_a_server_by_its_address_is_sent_nothing() -> None:
    with pytest.raises(ValueError, match="needs a server that is started here, and url names another"):
        Grpo.model_validate({
            "name": "zero", "from": "base", "steps": 3, "sampler": "http://host:8000", "vllm": {"transfer": "nccl"}
        })  # fmt: skip


def test_how_weights_travel_changes_no_fingerprint() -> None:
    def told(**vllm: Any) -> str:
        given = {"name": "zero", "from": "base", "steps": 3, "sampler": "vllm", "vllm": vllm}
        return fingerprint(weight_settings(Grpo.model_validate(given)))

    assert told() == told(transfer="nccl") == told(transfer="ipc")


def test_the_courier_needs_nothing_of_ours() -> None:
    text = Path(courier.__file__).read_text()
    assert "import seekling" not in text and "from seekling" not in text
