"""A chat endpoint on the loopback that is down, slow, full, wrong or rude: each is a letter, and no key is told."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from seekling.errors import UserError
from seekling.remote.chat import Chat, Endpoint, Said
from seekling.remote.wire import Unavailable
from tests.fixtures.endpoint import completion, endpoint

ASKED = [{"role": "user", "content": "hello"}]
KEY = "sk-very-secret"


def chat_at(url: str, waited: list[float] | None = None, **how: Any) -> Chat:
    return Chat(Endpoint(url, "judge-1", **how), sleep=(waited if waited is not None else []).append)


def test_an_answer_comes_with_what_it_took() -> None:
    with endpoint(lambda body: body["messages"][0]["content"] + "!") as heard:
        chat = chat_at(heard.url + "/")
        assert chat.say(ASKED, temperature=0.0, max_tokens=7) == Said("hello!", 10, 5)
        chat.close()
    assert heard.bodies == [{"model": "judge-1", "messages": ASKED, "temperature": 0.0, "max_tokens": 7}]
    assert heard.headers[0]["path"] == "/v1/chat/completions" and "authorization" not in heard.headers[0]


@pytest.mark.parametrize(
    ("message", "ended", "said"),
    [
        ({"content": "7", "reasoning_content": "3+4"}, "stop", Said("7", thinking="3+4")),
        ({"content": "7", "reasoning": "3+4"}, "stop", Said("7", thinking="3+4")),
        ({"content": None, "reasoning_content": "3+"}, "length", Said("", thinking="3+", is_cut=True)),
        ({"content": "half \ud83d", "reasoning_content": None}, None, Said("half ?")),
    ],
)
def test_thinking_that_is_told_apart_is_kept_apart(message: dict[str, Any], ended: str | None, said: Said) -> None:
    body = json.dumps({"choices": [{"message": message, "finish_reason": ended}]}).encode()
    with endpoint(lambda _: (200, body, {})) as heard:
        chat = chat_at(heard.url)
        assert chat.say(ASKED) == said
        chat.close()


def test_the_key_comes_from_the_environment_and_goes_to_the_endpoint_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    rude = json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()
    with endpoint(lambda body: (401, rude, {})) as heard:
        chat = chat_at(heard.url, key_env="JUDGE_KEY")
        with pytest.raises(UserError, match=r"refuses the key \(status 401\) bad key \[key\]") as caught:
            chat.say(ASKED)
        chat.close()
    assert heard.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value) + repr(chat.endpoint) + repr(chat)
    assert "Set JUDGE_KEY" in caught.value.next_step


@pytest.mark.parametrize(("value", "said"), [("", "the environment has no JUDGE_KEY"), ("schlüssel", "no key can")])
def test_a_key_that_is_missing_or_impossible_is_said_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(UserError, match=said) as caught:
        chat_at("http://127.0.0.1:9/v1", key_env="JUDGE_KEY")
    assert "schlüssel" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "said", "advice"),
    [
        (401, "refuses the key", "Name the key's variable in key_env"),
        (403, "refuses the key", "key_env"),
        (404, "was not found", "Check the model's name"),
        (400, "refuses the request", "Change what is asked"),
        (422, "refuses the request", "Change what is asked"),
        (307, "refuses the request", "Change what is asked"),
    ],
)
def test_what_a_person_must_mend_is_said_at_once(status: int, said: str, advice: str) -> None:
    where = {"location": "http://127.0.0.1:9/v1/chat/completions"}
    with endpoint(lambda body: (status, b"no such thing", where)) as heard:
        chat = chat_at(heard.url)
        with pytest.raises(UserError, match=rf'"judge-1" at .* {said} \(status {status}\) no such thing') as caught:
            chat.say(ASKED)
        chat.close()
    assert advice in caught.value.next_step and not isinstance(caught.value, Unavailable)
    assert len(heard.bodies) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_may_pass_is_tried_again_with_growing_pauses(status: int) -> None:
    waited: list[float] = []
    with endpoint(lambda body: (status, b"busy", {})) as heard:
        chat = chat_at(heard.url, waited, tries=4, wait_s=0.5)
        with pytest.raises(Unavailable, match=f"gives no answer: status {status} busy\nafter 4 tries"):
            chat.say(ASKED)
        chat.close()
    assert waited == [0.5, 1.0, 2.0] and len(heard.bodies) == 4


def test_an_endpoint_that_recovers_is_believed_and_its_own_pause_is_kept() -> None:
    waited: list[float] = []
    told = iter([(429, b"", {"retry-after": "7"}), (503, b"", {"retry-after": "Fri, 01 Jan 2027 00:00:00 GMT"})])
    with endpoint(lambda body: next(told, "at last")) as heard:
        chat = chat_at(heard.url, waited, wait_s=0.25)
        assert chat.say(ASKED).text == "at last"
        chat.close()
    assert waited == [7.0, 0.5]


def test_nobody_there_is_a_letter() -> None:
    chat = chat_at("http://127.0.0.1:9/v1", tries=2)
    with pytest.raises(Unavailable, match="ConnectError") as caught:
        chat.say(ASKED)
    assert "See that the server runs" in caught.value.next_step
    chat.close()


def test_an_address_that_is_none_is_a_letter() -> None:
    chat = chat_at("judge.example/v1")
    with pytest.raises(UserError, match=r'"judge.example/v1" is no address'):
        chat.say(ASKED)
    chat.close()


def test_an_endpoint_that_is_slow_is_left_in_time() -> None:
    def slow(body: dict[str, Any]) -> str:
        time.sleep(0.6)
        return "late"

    with endpoint(slow) as heard:
        chat = chat_at(heard.url, timeout_s=0.2, tries=2)
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"nothing within 0.2 s"):
            chat.say(ASKED)
        assert time.monotonic() - began < 2
        chat.close()


def test_an_endpoint_that_drips_is_left_in_time() -> None:
    with endpoint(lambda body: (200, [b" "] * 60 + [completion("late")], {})) as heard:
        chat = chat_at(heard.url, timeout_s=0.3, tries=1)
        with pytest.raises(Unavailable, match=r"not done within 0.3 s"):
            chat.say(ASKED)
        chat.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>gateway</html>", b"{}", b"[]", b'{"choices": []}', b'{"choices": [{"message": null}]}', b"\xff\xfe",
     b'{"choices": [{"message": {"content": null}}]}',
     b'{"choices": [{"message": {"content": "a", "reasoning_content": 7}}]}',
     b'{"choices": [{"message": {"content": ["a"]}}]}',
     b'{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": "many"}}', b"[" * 100_000],
)  # fmt: skip
def test_an_answer_that_is_no_chat_completion_is_none(body: bytes) -> None:
    with endpoint(lambda _: (200, body, {})) as heard:
        chat = chat_at(heard.url, tries=2)
        with pytest.raises(Unavailable, match=r"is no chat completion|without a text"):
            chat.say(ASKED)
        chat.close()
    assert len(heard.bodies) == 2


def test_an_answer_without_end_is_cut_off() -> None:
    with endpoint(lambda _: (200, completion("x" * 2**23), {})) as heard:
        chat = chat_at(heard.url, tries=1)
        with pytest.raises(Unavailable, match="far too long"):
            chat.say(ASKED)
        chat.close()


def test_an_endpoint_that_counts_no_tokens_is_answered_all_the_same() -> None:
    bare = b'{"choices": [{"message": {"content": "yes"}}], "usage": null}'
    with endpoint(lambda _: (200, bare, {})) as heard:
        chat = chat_at(heard.url)
        assert chat.say(ASKED) == Said("yes", 0, 0)
        chat.close()
