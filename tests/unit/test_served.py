"""vLLM as the sampler, against a fake that really samples: the same rollouts, and no hand-over that is not proved."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from seekling.engine.config import Sampling
from seekling.engine.engine import Banned, Engine, Request
from seekling.errors import UserError
from seekling.learn.lanes import Lanes
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.heads import add_head
from seekling.model.lora import add_adapters, merged
from seekling.model.weights import load_model, save_model
from seekling.recipes import serving
from seekling.recipes.config import Grpo
from seekling.recipes.policy import Policy, sample_groups
from seekling.recipes.served import FOLDER, Served
from seekling.recipes.serving import LOG, Place, start
from seekling.recipes.stage import Stage
from seekling.records import Problem
from seekling.remote.wire import Patience
from seekling.runlog.ledger import Ledger
from seekling.runlog.run import StageFolder
from seekling.text.tokenizer import Tokenizer, train
from tests.fixtures.fake_vllm import Fake, program
from tests.fixtures.fake_vllm import serving as serving_fake
from tests.unit.test_tied import gone

COMMON = dict(
    vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
    intermediate_size=48, max_position_embeddings=64, initializer_range=0.3,
)  # fmt: skip
DENSE = ModelConfig(model_type="qwen3", **COMMON)
MIXED = ModelConfig(
    model_type="qwen3_moe", **COMMON, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
)
PROBLEMS = [Problem(f"p{n}", "sums", f"{n}+{n}=", str(2 * n), 1) for n in range(4)]
SAMPLING = {"max_tokens": 10, "temperature": 0.8}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train([f"{a}+{b}={a + b}" for a in range(30) for b in range(30)], 300)


@pytest.fixture(autouse=True)
def waits_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("served", "serving"):
        monkeypatch.setattr(f"seekling.recipes.{room}.Patience", lambda timeout_s: Patience(timeout_s, 2, 0.0))


class Bench:
    """A stage of one policy, what it warned of, and the engines made for it."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, shape: ModelConfig = DENSE) -> None:
        self.folder, self.warned = folder, list[str]()
        model = Decoder(shape).init_weights(0)
        self.policy = Policy(model, tokenizer, Engine(model, tokenizer.stops))
        (folder / "zero").mkdir()
        self.ledger = Ledger(folder)
        self.stage = Stage(
            "zero", StageFolder(folder / "zero"), (), "0/zero", 0, torch.device("cpu"), torch.float32, self.ledger,
            lambda *_: None, self.warned.append,
        )  # fmt: skip
        self.base = folder / "base"
        save_model(self.base, model)

    def served(self, sampler: str = "vllm", sampling: dict[str, Any] | None = None, **vllm: Any) -> Served:
        told = {"sampler": sampler, "sampling": sampling or SAMPLING, "vllm": vllm}
        config = Grpo.model_validate({"name": "zero", "from": "base", "steps": 3, **told})
        engine = Served(self.stage, config, self.policy, self.policy.prompts(PROBLEMS))
        self.stage.closing.callback(engine.close)
        return engine

    def move(self, size: float, seed: int = 1) -> None:
        """As an update would: every weight a little."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.policy.model.parameters():
                weight.add_(size * torch.randn(weight.shape, generator=generator))

    def close(self) -> None:
        self.stage.closing.close()
        self.stage.metrics.close()
        self.ledger.close()

    @property
    def facts(self) -> dict[str, Any]:
        told: dict[str, Any] = self.stage.folder.facts()["sampler"]
        return told


@pytest.fixture
def bench(tmp_path: Path, tokenizer: Tokenizer) -> Iterator[Bench]:
    made = Bench(tmp_path, tokenizer)
    yield made
    made.close()


def asked(bench: Bench, count: int = 4) -> list[Request]:
    return [Request(bench.policy.prompts(PROBLEMS)[n % 4], 50 + n, tell_kept=True) for n in range(count)]


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal completions, but for what floats lose in other company."""
    assert [(one.tokens, one.stop, one.routes) for one in ours] == [(one.tokens, one.stop, None) for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.logps, other.logps, atol=2e-5)
        assert (one.kept is None) == (other.kept is None)
        if one.kept is not None:
            np.testing.assert_array_equal(one.kept.ids, other.kept.ids)
            np.testing.assert_array_equal(one.kept.ends, other.kept.ends)


# --- rollouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 8},
        {"top_k": 20, "top_p": 0.8, "temperature": 1.3},
        {"top_k": 9, "min_p": 0.1},
    ],
)
def test_a_server_says_what_the_engine_would(bench: Bench, how: dict[str, Any]) -> None:
    sampling = Sampling(max_tokens=10, **how)
    with serving_fake(bench.base) as fake:
        engine = bench.served(fake.url, sampling.model_dump())
        assert_same(
            engine.generate(asked(bench, 12), sampling), bench.policy.engine.generate(asked(bench, 12), sampling)
        )


def test_groups_are_the_same_whoever_samples(bench: Bench) -> None:
    with serving_fake(bench.base) as fake:
        served = replace(bench.policy, engine=bench.served(fake.url))
        here, there = (
            sample_groups(policy, PROBLEMS, 3, Sampling(**SAMPLING), "s") for policy in (bench.policy, served)
        )
    assert here == there and len({r.seed for group in there for r in group.rollouts}) == 12


def test_tokens_and_streams_come_from_the_server_too(bench: Bench) -> None:
    with serving_fake(bench.base) as fake:
        engine = bench.served(fake.url)
        (whole,) = engine.generate(asked(bench, 1), Sampling(**SAMPLING))
        assert tuple(engine.tokens(asked(bench, 1)[0], Sampling(**SAMPLING))) == whole.tokens
        assert [(n, one.tokens) for n, one in engine.stream(asked(bench, 1), Sampling(**SAMPLING))] == [
            (0, whole.tokens)
        ]


def test_an_answer_that_reaches_the_context_ends_there(bench: Bench) -> None:
    request, sampling = Request(tuple(range(10, 70)), 1), Sampling(max_tokens=10)
    with serving_fake(bench.base) as fake:
        assert_same(
            bench.served(fake.url).generate([request], sampling), bench.policy.engine.generate([request], sampling)
        )


@pytest.mark.parametrize(
    ("request_", "sampling", "said"),
    [
        (Request((5,), 1, rules=(Banned(lambda said: ()),)), {}, "cannot be told here which tokens must not come"),
        (Request((5,), 1, tell_kept=True), {"top_p": 0.9}, "what a truncated sampler chose among"),
        (Request((5,), 1, tell_kept=True), {"top_k": 129}, "what a truncated sampler chose among"),
        (Request((5,) * 64, 1), {}, "a prompt of 64 tokens does not fit the model's context of 64"),
    ],
)
def test_what_a_server_cannot_do_is_refused(
    bench: Bench, request_: Request, sampling: dict[str, Any], said: str
) -> None:
    with serving_fake(bench.base) as fake:
        engine = bench.served(fake.url)
        with pytest.raises(UserError, match=said):
            engine.generate([request_], Sampling(max_tokens=4, **sampling))
    assert not any(place.startswith("/v1/completions") for place, _ in fake.heard)


def test_who_only_evaluates_may_truncate_as_they_like(bench: Bench) -> None:
    with serving_fake(bench.base) as fake:
        request, sampling = replace(asked(bench, 1)[0], tell_kept=False), Sampling(max_tokens=10, top_p=0.9)
        assert_same(
            bench.served(fake.url).generate([request], sampling), bench.policy.engine.generate([request], sampling)
        )


def test_a_server_with_a_shorter_context_is_refused(bench: Bench) -> None:
    with serving_fake(bench.base, context=12) as fake, pytest.raises(UserError, match="holds 12 tokens, and"):
        bench.served(fake.url).generate(asked(bench), Sampling(**SAMPLING))


# --- hand-overs -------------------------------------------------------------------------------------------------------


def test_weights_are_handed_over_when_next_something_is_sampled(bench: Bench) -> None:
    with serving_fake(bench.base) as fake:
        engine = bench.served(fake.url)
        assert "/collective_rpc" not in fake.places()
        for seed in range(3):
            bench.move(0.02, seed)
            engine.load(bench.policy.model)
        engine.generate(asked(bench), Sampling(**SAMPLING))
        engine.generate(asked(bench), Sampling(**SAMPLING))
    assert fake.places().count("/collective_rpc") == 1
    assert bench.facts["hand_overs"] == 1 and bench.facts["apart"] < 1e-5


def test_every_hand_over_brings_the_new_weights_and_the_last_two_stay(bench: Bench) -> None:
    folder = bench.stage.folder.folder / FOLDER
    with serving_fake(bench.base) as fake:
        engine = bench.served(fake.url)
        for seed in range(4):
            bench.move(0.02, seed)
            engine.load(bench.policy.model)
            said = engine.generate(asked(bench), Sampling(**SAMPLING))
            assert_same(said, bench.policy.engine.generate(asked(bench), Sampling(**SAMPLING)))
        assert sorted(one.name for one in folder.iterdir()) == ["000003", "000004"]
        engine.close()
    assert not folder.exists() and bench.facts["worst"] < 1e-5


def test_adapters_are_handed_over_merged(tmp_path: Path, tokenizer: Tokenizer) -> None:
    bench = Bench(tmp_path, tokenizer)
    model = bench.policy.model
    add_adapters(model, rank=2, scale=8.0, targets=("self_attn",), seed=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".B"):
                weight.fill_(0.05)
    with serving_fake(bench.base) as fake:
        bench.served(fake.url).generate(asked(bench), Sampling(**SAMPLING))
        whole = merged(model)
        assert all(
            torch.equal(a, b)
            for a, b in zip(fake.model.state_dict().values(), whole.state_dict().values(), strict=True)
        )
    bench.close()


def test_weights_can_go_by_another_folder_which_keeps_what_was_there(bench: Bench, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "others").mkdir(parents=True)
    with serving_fake(bench.base) as fake:
        engine = bench.served(fake.url, folder=str(shared))
        engine.generate(asked(bench), Sampling(**SAMPLING))
        (path,) = [body["kwargs"]["weights_path"] for place, body in fake.heard if place == "/collective_rpc"]
        assert Path(path).parents[1] == shared and not (bench.stage.folder.folder / FOLDER).exists()
        engine.close()
    assert [one.name for one in shared.iterdir()] == ["others"]


def test_two_lanes_share_one_hand_over(bench: Bench) -> None:
    with serving_fake(bench.base) as fake:
        policy = replace(bench.policy, lanes=Lanes(2), engine=bench.served(fake.url))
        there = sample_groups(policy, PROBLEMS, 3, Sampling(**SAMPLING), "s")
    assert there == sample_groups(bench.policy, PROBLEMS, 3, Sampling(**SAMPLING), "s")
    assert fake.places().count("/collective_rpc") == 1


@pytest.mark.soak
def test_two_lanes_share_one_new_server_where_theirs_died(bench: Bench) -> None:
    served = bench.served(command=str(program(bench.folder, "dies", left=1)))
    policy = replace(bench.policy, lanes=Lanes(2), engine=served)
    there = sample_groups(policy, PROBLEMS, 3, Sampling(**SAMPLING), "s")
    assert there == sample_groups(bench.policy, PROBLEMS, 3, Sampling(**SAMPLING), "s")
    assert len(starts(bench)) == 2


def test_a_critic_stays_here(bench: Bench) -> None:
    add_head(bench.policy.model, seed=1)
    with serving_fake(bench.base) as fake:
        bench.served(fake.url).generate(asked(bench), Sampling(**SAMPLING))
    assert "score.weight" not in fake.model.state_dict() and bench.facts["apart"] < 1e-5


def test_earlier_weights_are_refused_however_small_the_move(bench: Bench) -> None:
    with serving_fake(bench.base, "stale") as fake:
        engine = bench.served(fake.url)
        engine.generate(asked(bench), Sampling(**SAMPLING))
        bench.move(1e-4)
        engine.load(bench.policy.model)
        with pytest.raises(
            UserError, match='stage "zero" stops: the server still speaks with earlier weights'
        ) as caught:
            engine.generate(asked(bench), Sampling(**SAMPLING))
        assert bench.facts["apart"] < 0.02 and "reload_weights" in caught.value.next_step
        with pytest.raises(UserError, match=r"earlier weights|differ"):  # nor is it sampled from the next time
            engine.generate(asked(bench), Sampling(**SAMPLING))


@pytest.mark.parametrize("shape", [DENSE, MIXED], ids=["dense", "experts"])
def test_weights_that_a_reload_garbles_are_refused(tmp_path: Path, tokenizer: Tokenizer, shape: ModelConfig) -> None:
    bench = Bench(tmp_path, tokenizer, shape)
    with serving_fake(bench.base, "scrambled") as fake:
        engine = bench.served(fake.url)
        with pytest.raises(
            UserError, match=r"the server's weights differ from the learner's by .* nats, limit 0.02"
        ) as caught:
            engine.generate(asked(bench), Sampling(**SAMPLING))
    assert 'sampler = "vllm"' in caught.value.next_step and "after hand-over 1" in caught.value.what
    assert [line for line in bench.warned if "does not say which experts" in line] == bench.warned
    assert len(bench.warned) == (shape is MIXED)
    bench.close()


@pytest.mark.parametrize("how", [{"temperature": 0.7}, {"top_k": 5}])
def test_log_probabilities_of_another_distribution_are_refused(bench: Bench, how: dict[str, Any]) -> None:
    sampling = {"max_tokens": 10, **how}
    with (
        serving_fake(bench.base, "raw") as fake,
        pytest.raises(UserError, match=r"of its own answers are .* nats off") as caught,
    ):
        bench.served(fake.url, sampling).generate(asked(bench), Sampling(**sampling))
    assert "processed_logprobs" in caught.value.next_step


def test_at_temperature_one_nothing_is_left_out(bench: Bench) -> None:
    with serving_fake(bench.base, "raw") as fake:
        bench.served(fake.url, {"max_tokens": 10}).generate(asked(bench), Sampling(max_tokens=10))
    assert bench.facts["drawn"] < 1e-5


def test_a_folder_that_the_server_does_not_see_is_a_letter(bench: Bench) -> None:
    with serving_fake(bench.base) as fake:
        engine = bench.served(fake.url)
        fake.reload = lambda folder: Fake.reload(fake, folder + "/elsewhere")  # type: ignore[method-assign]
        with pytest.raises(UserError, match=r"could not load the weights handed over: .*Repo id") as caught:
            engine.generate(asked(bench), Sampling(**SAMPLING))
    assert "must see that folder" in caught.value.next_step


def test_a_limit_of_ones_own_is_kept(bench: Bench) -> None:
    with serving_fake(bench.base) as fake, pytest.raises(UserError, match="limit 1e-12"):
        bench.served(fake.url, limit=1e-12).generate(asked(bench), Sampling(**SAMPLING))


def test_another_version_goes_on_with_a_word(bench: Bench) -> None:
    with serving_fake(bench.base) as fake:
        bench.served(fake.url).generate(asked(bench), Sampling(**SAMPLING))
        assert not bench.warned
        bench.stage.folder.write(sampler={**bench.facts, "version": "0.31.0"})
        bench.served(fake.url).generate(asked(bench), Sampling(**SAMPLING))
    assert bench.warned == ["this stage began with vLLM 0.31.0 and goes on with 0.32.0"]


# --- a server of our own ----------------------------------------------------------------------------------------------


def starts(bench: Bench) -> list[dict[str, Any]]:
    file = bench.folder / "starts.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_our_own_begins_with_the_first_rollout_and_ends_with_the_stage(bench: Bench) -> None:
    engine = bench.served(command=str(program(bench.folder)))
    assert not starts(bench)
    said = engine.generate(asked(bench), Sampling(**SAMPLING))
    assert_same(said, bench.policy.engine.generate(asked(bench), Sampling(**SAMPLING)))
    bench.stage.closing.close()
    (one,) = starts(bench)
    assert gone(one["pid"]) and not (bench.stage.folder.folder / FOLDER).exists()
    key = one["environment"]["VLLM_API_KEY"]
    assert len(key) > 20 and key not in json.dumps(one["argv"]) + (bench.stage.folder.folder / LOG).read_text()
    assert key not in json.dumps(bench.stage.folder.facts()) and one["environment"]["VLLM_SERVER_DEV_MODE"] == "1"


def test_the_command_is_what_vllm_needs(bench: Bench) -> None:
    bench.served(command=str(program(bench.folder)), arguments=["--seed", "3"]).generate(
        asked(bench), Sampling(**SAMPLING)
    )
    argv = starts(bench)[0]["argv"]
    assert argv[0] == "serve" and Path(argv[1]).is_absolute() and argv[-2:] == ["--seed", "3"]
    pairs = dict(pairwise(argv))
    assert (pairs["--host"], pairs["--dtype"], pairs["--max-model-len"]) == ("127.0.0.1", "float32", "64")
    assert pairs["--logprobs-mode"] == "processed_logprobs" and "--enforce-eager" in argv
    assert "--enable-sleep-mode" not in argv and "--gpu-memory-utilization" not in argv


def test_where_reloading_fails_our_own_is_restarted_with_the_weights(bench: Bench) -> None:
    engine = bench.served(command=str(program(bench.folder, "scrambled")))
    for seed in range(3):
        bench.move(0.02, seed)
        engine.load(bench.policy.model)
        said = engine.generate(asked(bench), Sampling(**SAMPLING))
        assert_same(said, bench.policy.engine.generate(asked(bench), Sampling(**SAMPLING)))
    assert len(starts(bench)) == 3 and bench.facts["restarts"] == 2
    first, second = bench.warned
    assert first.startswith("after a reload the server's weights differ") and first.endswith("is restarted with them")
    assert second == "this build of vLLM reloads these weights wrongly: it is restarted for every hand-over"
    assert all(gone(one["pid"]) for one in starts(bench)[:-1])


def test_a_reload_is_doubted_long_before_the_limit(bench: Bench) -> None:
    engine = bench.served(command=str(program(bench.folder, "smudged")))
    for seed in range(2):
        bench.move(0.02, seed)
        engine.load(bench.policy.model)
        engine.generate(asked(bench), Sampling(**SAMPLING))
    told = float(re.findall(r"by ([\d.e-]+) nats", bench.warned[0])[0])
    assert 1e-3 < told < 0.02 and len(starts(bench)) == 2 and bench.facts["apart"] < 1e-5


def test_where_a_restart_changes_nothing_reloading_is_not_to_blame(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = bench.served(command=str(program(bench.folder)))
    engine.generate(asked(bench), Sampling(**SAMPLING))
    ask = engine._probe.ask
    monkeypatch.setattr(engine._probe, "ask", lambda *how: replace(ask(*how), apart=0.015))
    for seed in range(3):
        bench.move(0.02, seed)
        engine.load(bench.policy.model)
        engine.generate(asked(bench), Sampling(**SAMPLING))
    assert len(starts(bench)) == 2 and [line for line in bench.warned if "restarted for every" in line] == []


def test_our_own_that_dies_is_started_again_and_says_the_same(bench: Bench) -> None:
    engine = bench.served(command=str(program(bench.folder, "dies", left=1)))
    said = engine.generate(asked(bench), Sampling(**SAMPLING))
    assert_same(said, bench.policy.engine.generate(asked(bench), Sampling(**SAMPLING)))
    assert len(starts(bench)) == 2 and "vLLM died and is started again" in bench.warned[0]
    assert bench.facts["restarts"] == 1


def test_half_precision_is_handed_over_as_it_is_held(bench: Bench) -> None:
    engine = bench.served(command=str(program(bench.folder)), dtype="bfloat16")
    engine.generate(asked(bench), Sampling(**SAMPLING))
    with safe_open(bench.stage.folder.folder / FOLDER / "000001/model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118


def test_one_that_can_sleep_gives_its_memory_back_and_wakes_with_new_weights(bench: Bench) -> None:
    bench.stage.device = torch.device("meta")  # any but a CPU: the model itself stays where it is
    engine = bench.served(command=str(program(bench.folder)), dtype="float32")
    for seed in range(3):
        said = engine.generate(asked(bench), Sampling(**SAMPLING))
        assert_same(said, bench.policy.engine.generate(asked(bench), Sampling(**SAMPLING)))
        engine.rest()
        engine.rest()
        again = engine.generate(asked(bench), Sampling(**SAMPLING))  # weights that went to sleep are brought again
        assert_same(again, said)
        engine.rest()
        bench.move(0.02, seed)
        engine.load(bench.policy.model)
    argv = starts(bench)[0]["argv"]
    assert len(starts(bench)) == 1 and "--enable-sleep-mode" in argv and "--gpu-memory-utilization" in argv


def test_a_platform_that_cannot_sleep_is_noticed_and_said(bench: Bench) -> None:
    config = Grpo.model_validate({"name": "zero", "from": "base", "steps": 1}).vllm
    config = config.model_copy(update={"command": str(program(bench.folder, "cannot sleep"))})
    started = start(config, bench.base, Place(bench.folder, False, 64, bench.warned.append))
    assert not started.sleeps and started.server.is_healthy()
    started.end()
    assert bench.warned == ["this build of vLLM cannot give memory back (sleep); it keeps it during updates"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo ok; echo 'ValueError: no such model' >&2; sleep 0.1; exit 1",
            "ended before it answered: ValueError: no such model",
        ),
        ("exit 3", "ended before it answered: it said nothing"),
        ("sleep 60", "did not answer within 0.5 s of its start"),
    ],
)
def test_a_program_that_does_not_come_up_is_a_letter(bench: Bench, script: str, said: str) -> None:
    file = bench.folder / "vllm"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    with pytest.raises(UserError, match=said) as caught:
        bench.served(command=str(file), start_s=0.5 if "sleep 60" in script else 30).generate(
            asked(bench), Sampling(**SAMPLING)
        )
    assert LOG in caught.value.where


def test_a_slow_start_gives_signs_of_life(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "SIGN_EVERY_S", 0.0)
    bench.served(command=str(program(bench.folder))).generate(asked(bench), Sampling(**SAMPLING))
    assert bench.warned and all(line.startswith("vLLM has been starting for") for line in bench.warned)


def test_no_such_program_is_said_before_anything_is_sampled(bench: Bench) -> None:
    with pytest.raises(UserError, match='there is no program "vllm-that-is-not"') as caught:
        bench.served(command="vllm-that-is-not")
    assert "vllm.command" in caught.value.next_step


def test_nobody_at_the_address_is_said_before_anything_is_sampled(bench: Bench) -> None:
    shutil.rmtree(bench.base)
    with pytest.raises(UserError, match="gives no answer"):
        bench.served("http://127.0.0.1:9")


# --- settings ---------------------------------------------------------------------------------------------------------


def test_an_address_changes_no_fingerprint_and_vllm_does() -> None:
    from seekling.config import fingerprint, weight_settings

    def told(**how: Any) -> str:
        return fingerprint(weight_settings(Grpo.model_validate({"name": "zero", "from": "base", "steps": 3, **how})))

    here = told(sampler="vllm")
    assert told() != here
    assert here == told(sampler="http://one.test:8000") == told(sampler="https://two.test:9", vllm={"key_env": "K"})
    assert here != told(sampler="vllm", vllm={"dtype": "float16"}) != told(sampler="vllm", vllm={"arguments": ["-x"]})


@pytest.mark.parametrize("sampler", ["sglang", "http://host:secret@host:1", "http://host/v1?x", "host:8000"])
def test_what_is_no_sampler_is_refused(sampler: str) -> None:
    with pytest.raises(ValueError, match=r"sampler|url"):
        Grpo.model_validate({"name": "zero", "from": "base", "steps": 3, "sampler": sampler})


def test_the_model_is_loaded_as_it_was_written(bench: Bench) -> None:
    """The fake reads what vLLM would: a whole model folder, tokenizer and all."""
    with serving_fake(bench.base) as fake:
        bench.served(fake.url).generate(asked(bench), Sampling(**SAMPLING))
        folder = Path(next(body["kwargs"]["weights_path"] for place, body in fake.heard if place == "/collective_rpc"))
        assert Tokenizer.load(folder).stops == bench.policy.tokenizer.stops
        state = bench.policy.model.state_dict()
        assert all(torch.equal(weight, state[name]) for name, weight in load_model(folder).state_dict().items())
