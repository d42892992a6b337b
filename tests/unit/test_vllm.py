"""vLLM's client against a fake that follows its protocol: order, seeds, bounds, and every bad answer a letter."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from seekling.engine.config import Sampling
from seekling.engine.engine import Engine, Request
from seekling.errors import UserError
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.weights import save_model
from seekling.remote.vllm import About, Asked, How, Server
from seekling.remote.wire import Patience, Unavailable, is_here
from tests.fixtures.fake_vllm import Fake, serving

SHAPE = ModelConfig(
    model_type="qwen3", vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=16, intermediate_size=48, max_position_embeddings=64, initializer_range=0.4,
)  # fmt: skip
STOPS = (3, 7)
HOW = How(STOPS, temperature=0.8)
PROMPTS = [(5, 9, 11), (4, 8), (20, 21, 22, 23), (5, 9, 11)]
KEY = "sk-very-secret"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model."""
    place = tmp_path_factory.mktemp("model")
    save_model(place, Decoder(SHAPE).init_weights(0))
    return place


@pytest.fixture
def fake(folder: Path) -> Iterator[Fake]:
    with serving(folder) as running:
        yield running


def server_at(url: str, **how: Any) -> Server:
    patience = how.pop("patience", Patience(20.0, 3, 0.0))
    server = Server(url, patience=patience, sleep=lambda _: None, **how)
    return server


def asked(count: int = len(PROMPTS), most: int = 12) -> list[Asked]:
    return [Asked(PROMPTS[n % len(PROMPTS)], 100 + n, most) for n in range(count)]


def said_here(fake: Fake, asked_: list[Asked], sampling: Sampling) -> list[Any]:
    requests = [Request(one.tokens, one.seed, tell_kept=True) for one in asked_]
    return Engine(fake.model, STOPS).generate(requests, sampling)


def test_a_server_says_what_it_is(fake: Fake) -> None:
    server = server_at(fake.url)
    assert server.is_healthy()
    assert server.about() == About("policy", 64, "0.32.0", "float32")
    server.close()


def test_answers_come_in_order_and_are_those_the_seeds_name(fake: Fake) -> None:
    server = server_at(fake.url, at_once=3)
    server.about()
    found = server.generate(asked(12), HOW)
    here = said_here(fake, asked(12), Sampling(temperature=0.8, max_tokens=12))
    assert [one.tokens for one in found] == [one.tokens for one in here]
    assert [one.stopped for one in found] == [one.stop.value == "stop" for one in here]
    for one, own in zip(found, here, strict=True):
        assert one.logps == pytest.approx(own.logps.tolist(), abs=1e-5)
    server.close()


def test_a_truncated_sampler_tells_what_it_chose_among(fake: Fake) -> None:
    server = server_at(fake.url)
    server.about()
    found = server.generate(asked(), How(STOPS, top_k=6, top_p=0.7, tell=6))
    here = said_here(fake, asked(), Sampling(top_k=6, top_p=0.7, max_tokens=12))
    for one, own in zip(found, here, strict=True):
        assert own.kept is not None
        assert [token for kept in one.kept for token in kept] == own.kept.ids.tolist()
        assert [len(kept) for kept in one.kept] == [
            b - a for a, b in zip([0, *own.kept.ends], own.kept.ends, strict=False)
        ]
    server.close()


def test_texts_are_scored_at_temperature_one(fake: Fake) -> None:
    server = server_at(fake.url)
    server.about()
    found = server.score([(5, 9, 11, 2), (4, 8)])
    assert [len(one) for one in found] == [3, 1]
    assert found[1] == pytest.approx(fake._logps((4, 8)))
    server.close()


def test_no_more_requests_are_under_way_than_was_said(folder: Path) -> None:
    most, now, lock = [0], [0], threading.Lock()
    with serving(folder) as fake:
        complete = fake.complete

        def counted(body: dict[str, Any]) -> dict[str, Any]:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.02)
            told = complete(body)
            with lock:
                now[0] -= 1
            return told

        fake.complete = counted  # type: ignore[method-assign]
        server = server_at(fake.url, at_once=2)
        server.about()
        threads = [threading.Thread(target=server.generate, args=(asked(6, most=2), HOW)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.close()
    assert most == [2]


def test_the_key_goes_to_the_server_and_stands_in_no_letter(folder: Path) -> None:
    with serving(folder, key=KEY) as fake:
        server = server_at(fake.url, key=KEY)
        assert server.about().model == "policy"
        server.close()
        other = server_at(fake.url, key="sk-another")
        with pytest.raises(UserError, match=r"refuses the key \(status 401\)") as caught:
            other.about()
        other.close()
    assert set(fake.keys) == {f"Bearer {KEY}", "Bearer sk-another"}
    assert "sk-another" not in str(caught.value) and "vllm.key_env" in caught.value.next_step


@pytest.mark.parametrize("fault", ["errors", "dropped", "truncated"])
def test_what_may_pass_is_asked_again_and_changes_no_answer(folder: Path, fault: str) -> None:
    with serving(folder) as fake:
        server = server_at(fake.url)
        server.about()
        sound = server.generate(asked(), HOW)
        server.close()
    with serving(folder, fault, left=2) as fake:
        server = server_at(fake.url, at_once=1)
        server.about()
        assert server.generate(asked(), HOW) == sound
        server.close()
    assert not fake.left


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("errors", "gives no answer: status 500 EngineCore encountered an issue"),
        ("dropped", "gives no answer: RemoteProtocolError|gives no answer: ReadError"),
        ("truncated", "gives no answer: what it answers is cut short or no JSON"),
        ("slow", "gives no answer: nothing within 0.2 s"),
        ("aborts", "ended an answer as 'abort'"),
    ],
)
def test_a_server_that_stays_wrong_is_unavailable(folder: Path, fault: str, said: str) -> None:
    with serving(folder, fault) as fake:
        server = server_at(fake.url, patience=Patience(0.2 if fault == "slow" else 20.0, 2, 0.0))
        server.about()
        with pytest.raises(Unavailable, match=said):
            server.generate(asked(), HOW)
        server.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no ids", "its answers come without token ids or log-probabilities"),
        ("no logps", "its answers come without token ids or log-probabilities"),
        ("short", "tokens of 12 and calls that the limit"),
        ("other prompt", "it read another prompt than it was sent"),
    ],
)
def test_an_answer_that_cannot_be_is_a_letter_at_once(folder: Path, fault: str, said: str) -> None:
    with serving(folder, fault) as fake:
        server = server_at(fake.url)
        server.about()
        with pytest.raises(UserError, match=f"cannot be sampled from: .*{said}") as caught:
            server.generate(asked(1), HOW)
        server.close()
    assert not isinstance(caught.value, Unavailable) and "docs/vllm.md" in caught.value.next_step


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"token_ids": [9, 9], "logprobs": {"token_logprobs": [-1.0]}}, "1 log-probabilities of 2 tokens"),
        ({"token_ids": [9, 9], "logprobs": {"token_logprobs": [-1.0, 0.5]}}, "log-probabilities that are none"),
        ({"token_ids": [9, 9], "logprobs": {"token_logprobs": [-1.0, -9999.0]}}, "log-probabilities that are none"),
        (
            {"token_ids": [9, 9], "logprobs": {"token_logprobs": [-1.0, float("nan")]}},
            "log-probabilities that are none",
        ),
        ({"token_ids": [9], "logprobs": {"token_logprobs": [-1.0]}, "finish_reason": "stop"}, "nothing told it to"),
        ({"token_ids": [], "logprobs": {"token_logprobs": []}, "finish_reason": "stop"}, "nothing told it to"),
        ({"token_ids": [3, 9], "logprobs": {"token_logprobs": [-1.0, -1.0]}}, "went on after its stop"),
        ({"token_ids": [9, 9, 9], "logprobs": {"token_logprobs": [-1.0] * 3}}, "said 3 tokens of 2"),
    ],
)
def test_an_answer_at_odds_with_itself_is_refused(fake: Fake, choice: dict[str, Any], said: str) -> None:
    fake.complete = lambda body: {"finish_reason": "length", **choice}  # type: ignore[method-assign]
    server = server_at(fake.url)
    server.about()
    with pytest.raises(UserError, match=said):
        server.generate(asked(1, most=2), HOW)
    server.close()


@pytest.mark.parametrize("told", [b"", b"null", b'{"choices": []}', b'{"choices": [1]}', b"[" * 100_000])
def test_what_is_no_completion_is_none(fake: Fake, told: bytes) -> None:
    server = server_at(fake.url)
    server.about()
    ask = server._wire._attempt
    server._wire._attempt = lambda place, *how: told if "completions" in place else ask(place, *how)  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="what it answers is"):
        server.generate(asked(1), HOW)
    server.close()


def test_another_vocabulary_is_a_letter(fake: Fake) -> None:
    server = server_at(fake.url)
    server.about()
    with pytest.raises(UserError, match="Token id 70 is out of vocabulary") as caught:
        server.score([(5, 70)])
    assert "another model" in caught.value.next_step
    server.close()


@pytest.mark.parametrize(
    ("fault", "said", "advice"),
    [("two models", "should serve one model, and serves policy, other", "docs/vllm.md"),
     ("no dev", r"was not found \(status 404\)", "VLLM_SERVER_DEV_MODE=1")],
)  # fmt: skip
def test_a_server_that_cannot_be_handed_weights_is_refused(folder: Path, fault: str, said: str, advice: str) -> None:
    with serving(folder, fault) as fake:
        server = server_at(fake.url)
        with pytest.raises(UserError, match=said) as caught:
            server.about()
        server.close()
    assert advice in caught.value.next_step


def test_no_proxy_stands_between_this_machine_and_itself(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server = server_at(fake.url)
    assert server.is_healthy()
    server.close()
    assert not is_here("http://[") and not is_here("http://host:1")


def test_nobody_there_is_not_healthy() -> None:
    server = server_at("http://127.0.0.1:9")
    assert not server.is_healthy()
    with pytest.raises(Unavailable, match="gives no answer: ConnectError"):
        server.about()
    server.close()


def test_one_answer_that_fails_ends_the_others(folder: Path) -> None:
    with serving(folder, "errors", left=1) as fake:
        server = server_at(fake.url, at_once=1, patience=Patience(20.0, 1))
        server.about()
        with pytest.raises(Unavailable):
            server.generate(asked(40), HOW)
        server.generate(asked(1), HOW)  # behind all that would still wait
        assert sum(place == "/v1/completions" for place, _ in fake.heard) <= 4
        server.close()
    assert "/abort_requests" in fake.places()


def test_weights_are_reloaded_between_pause_and_resume(fake: Fake, tmp_path: Path) -> None:
    other = Decoder(SHAPE).init_weights(1)
    save_model(tmp_path, other)
    server = server_at(fake.url)
    server.pause()
    server.reload(str(tmp_path))
    server.resume()
    assert torch.equal(fake.model.embed_tokens.weight, other.embed_tokens.weight)
    assert fake.places() == ["/pause?mode=abort", "/collective_rpc", "/reset_prefix_cache", "/resume"]
    server.sleep()
    assert fake.asleep == {"weights", "kv_cache"}
    server.wake("weights")
    server.wake("kv_cache")
    assert not fake.asleep
    server.close()


def test_a_folder_that_it_cannot_load_is_told_in_its_own_words(fake: Fake) -> None:
    server = server_at(fake.url)
    with pytest.raises(Unavailable, match="status 500 Call to collective_rpc method failed"):
        server.reload("/nowhere")
    assert fake.places() == ["/collective_rpc"]
    server.close()
