"""Published tokenizers and chat templates, family by family, against transformers: ids, flags, text, masks, streams."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from seekling.errors import UserError
from seekling.text.chat import Chat, encode_chat, encode_prompts, encode_turns, render_text
from seekling.text.check import check_tokenizer
from seekling.text.tokenizer import Tokenizer
from tests.oracles.tokenizers import FAMILIES, TALKS, TEXTS, TOOL_TALK, WEATHER, WITH_TOOLS

SPECIAL = "x <｜User｜> <s>hi</s> <|im_end|>\n<think>a</think> [INST] <|eot_id|>"
MORE = ["e\u0301 \u212a", "a", " a", "", "\n", SPECIAL, "".join(TEXTS)]
DAY = {"date_string": "1 Jan 2025"}
Pair = tuple[str, Tokenizer, Any]


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A family's name, its tokenizer as we read it, and as transformers does."""
    folder = FAMILIES[request.param].write(tmp_path_factory.mktemp("family") / "model")
    return request.param, Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)


def talks(name: str) -> list[Chat]:
    """What a family's template takes, with answers and, cut short, without."""
    whole = [Chat(talk, variables=DAY) for talk in TALKS.values()]
    whole += [Chat(TOOL_TALK, [WEATHER], variables=DAY)] if name in WITH_TOOLS else []
    return [*whole, *(dataclasses.replace(chat, messages=chat.messages[:-1], opened=True) for chat in whole)]


def theirs_of(theirs: Any, chat: Chat, **more: Any) -> Any:
    return theirs.apply_chat_template(
        chat.messages, tools=chat.tools, add_generation_prompt=chat.opened, **chat.variables, **more
    )


def test_a_text_has_the_same_ids(pair: Pair) -> None:
    _, ours, theirs = pair
    for text in [*TEXTS, *MORE]:
        assert ours.encode(text, special=True, framed=True) == theirs(text).input_ids, text


def test_added_tokens_have_the_same_ids_and_flags(pair: Pair) -> None:
    name, ours, theirs = pair
    added = {place: repr(token) for place, token in theirs.added_tokens_decoder.items()}
    assert {place: repr(token) for place, token in ours.whole.get_added_tokens_decoder().items()} == added
    assert (ours.bos, ours.eos, ours.pad) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert (ours.vocab_size, dict(ours.names)) == (len(theirs), theirs.special_tokens_map)
    assert [ours.whole.id_to_token(stop) for stop in ours.stops] == FAMILIES[name].stops


def test_ids_decode_to_the_same_text_however_they_are_cut(pair: Pair) -> None:
    _, ours, theirs = pair
    for text in [*TEXTS, *MORE]:
        ids = theirs(text).input_ids
        for cut in [*(ids[:end] for end in range(0, len(ids), 7)), ids[3:], ids, ids[::-1]]:
            for skip in (False, True):
                there = theirs.decode(cut, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
                assert ours.decode(cut, skip_special=skip) == there
                parts = list(ours.decode_stream(cut, skip_special=skip))
                assert "".join(parts) == there
                assert all(parts)


def test_a_conversation_is_rendered_the_same(pair: Pair) -> None:
    name, ours, theirs = pair
    for chat in talks(name):
        assert render_text(ours, chat) == theirs_of(theirs, chat, tokenize=False), chat


def test_a_prompt_has_the_same_ids(pair: Pair) -> None:
    name, ours, theirs = pair
    chats = [chat for chat in talks(name) if chat.opened]
    assert encode_prompts(ours, chats) == [theirs_of(theirs, chat, return_dict=False) for chat in chats]


def test_a_conversation_in_one_text_has_the_same_ids(pair: Pair) -> None:
    name, ours, theirs = pair
    num_edited = 0
    for chat in (chat for chat in talks(name) if not chat.opened):
        try:
            ids, _ = encode_chat(ours, chat)
        except UserError as letter:
            assert "encode_turns" in letter.next_step
            num_edited += 1
            continue
        assert ids == theirs_of(theirs, chat, return_dict=False)
    assert bool(num_edited) == (FAMILIES[name].edits or name == "mistral")  # which keeps the system with the last user


def test_every_turn_follows_its_prompt_and_ends_with_a_stop(pair: Pair) -> None:
    """And nothing but what the assistant says is learned, however the template edits the past."""
    name, ours, _ = pair
    for chat in (chat for chat in talks(name) if not chat.opened):
        turns = [place for place, message in enumerate(chat.messages) if message["role"] == "assistant"]
        learned = [span for ids, mask in encode_turns(ours, chat) for span in spans(ids, mask)]
        assert len(learned) == len(turns)
        for place, (before, said) in zip(turns, learned, strict=True):
            prompt = dataclasses.replace(chat, messages=chat.messages[:place])
            if len(encode_turns(ours, chat)) > 1 or place == turns[0]:
                assert before == encode_prompts(ours, [prompt])[0]
            assert said[-1] in ours.stops
            assert not set(said[:-1]) & set(ours.stops)
            assert is_whole(chat.messages[place], ours.decode(said[:-1]))


def spans(ids: list[int], mask: list[bool]) -> list[tuple[list[int], list[int]]]:
    """What comes before each learned stretch, and the stretch."""
    starts = [i for i, yes in enumerate(mask) if yes and not (i and mask[i - 1])]
    ends = [next((i for i in range(start, len(ids)) if not mask[i]), len(ids)) for start in starts]
    return [(ids[:start], ids[start:end]) for start, end in zip(starts, ends, strict=True)]


def is_whole(message: dict[str, Any], said: str) -> bool:
    """Whether a message's words, thoughts and calls are all in what is learned."""
    words = message["content"].replace("<think>\n", "").split()
    calls = [call["function"]["name"] for call in message.get("tool_calls", [])]
    return all(word in said for word in [*words, *calls])


def test_a_saved_folder_is_the_same_to_the_byte(pair: Pair, tmp_path: Path) -> None:
    name, ours, theirs = pair
    ours.save(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert again.chat_template == theirs.chat_template
    source = FAMILIES[name].write(tmp_path / "source")
    files = {file.name for file in source.iterdir()} - {"config.json", "generation_config.json"}
    assert {file.name for file in (tmp_path / "again").iterdir()} == files
    assert all((source / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)


def test_a_template_put_in_its_place_is_saved_for_transformers_too(pair: Pair, tmp_path: Path) -> None:
    _, ours, _ = pair
    changed = dataclasses.replace(ours, template="{{ messages[0].content }}!")
    changed.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "a!"
    assert Tokenizer.load(tmp_path).template == changed.template


def test_the_checks_for_a_real_folder_pass(pair: Pair, tmp_path: Path) -> None:
    name, _, _ = pair
    folder = FAMILIES[name].write(tmp_path)
    assert [check for check in check_tokenizer(folder) if check.passed is not True] == []


def failed(wrong: Tokenizer, folder: Path) -> set[str]:
    return {check.name for check in check_tokenizer(wrong, folder) if check.passed is False}


def test_the_checks_find_a_tokenizer_that_is_read_wrongly(pair: Pair, tmp_path: Path) -> None:
    name, ours, _ = pair
    folder = FAMILIES[name].write(tmp_path)
    table = list(ours.pieces.table)
    table[ours.encode("quick")[-1]] += "é".encode()
    assert {"round trip", "transformers: decoding"} <= failed(
        dataclasses.replace(ours, pieces=dataclasses.replace(ours.pieces, table=tuple(table))), folder
    )
    assert "transformers: chat template" in failed(
        dataclasses.replace(ours, template=f"{ours.template}{{% if messages[1] %}}.{{% endif %}}"), folder
    )
    leaky = dataclasses.replace(ours.twins, plain=dataclasses.replace(ours.twins.plain, rust=ours.whole, moved={}))
    assert "look-alikes in plain text" in failed(dataclasses.replace(ours, twins=leaky), folder)
    assert "transformers: added tokens" in failed(dataclasses.replace(ours, pad=ours.eos, eos=3), folder)
    assert "loss masks" in failed(dataclasses.replace(ours, stops=(5,)), folder)


def test_a_tokenizer_without_a_folder_is_checked_by_its_laws_alone(pair: Pair) -> None:
    _, ours, _ = pair
    *laws, last = check_tokenizer(ours)
    assert all(check.passed for check in laws)
    assert last.passed is None


MARKED = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
"""


NO_END = MARKED.replace("message.content + '<|im_end|>' }}{% end", "message.content }}{% end")


def marked(folder: Path, template: str) -> tuple[Tokenizer, Any]:
    FAMILIES["qwen2.5"].write(folder)
    (folder / "chat_template.jinja").write_text(template)
    return Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("template", [MARKED, NO_END])
def test_a_template_that_marks_what_is_said_is_masked_as_by_transformers(tmp_path: Path, template: str) -> None:
    ours, theirs = marked(tmp_path, template)
    for talk in [TALKS["one turn"], TALKS["two turns"], TALKS["thoughts"]]:
        there = theirs.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
        ids, mask = encode_chat(ours, talk)
        assert (ids, [int(yes) for yes in mask]) == (there["input_ids"], there["assistant_masks"])
        assert encode_turns(ours, talk) == [(ids, mask)]


def test_a_marked_stretch_is_masked_to_the_last_byte(tmp_path: Path) -> None:
    """transformers leaves out all but the first token of its last character."""
    ours, theirs = marked(tmp_path, NO_END)
    talk = TALKS["a system"]
    ids, mask = encode_chat(ours, talk)
    assert ours.decode([token for token, yes in zip(ids, mask, strict=True) if yes]) == talk[-1]["content"]
    there = theirs.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    assert ids == there["input_ids"]
    assert sum(mask) > sum(there["assistant_masks"])


VARIABLES: dict[str, dict[str, Any]] = {
    "thinking off": {"enable_thinking": False},
    "thinking on": {"enable_thinking": True},
    "another bos": {"bos_token": "<|im_start|>"},
}


@pytest.mark.parametrize("variables", VARIABLES.values(), ids=VARIABLES)
def test_variables_reach_the_template(tmp_path: Path, variables: dict[str, Any]) -> None:
    folder = FAMILIES["qwen3"].write(tmp_path)
    ours, theirs = Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    chat = Chat(TALKS["one turn"][:1], variables=variables, opened=True)
    assert render_text(ours, chat) == theirs_of(theirs, chat, tokenize=False)
    off = "<think>\n\n</think>\n\n" in render_text(ours, chat)
    assert off == (variables.get("enable_thinking") is False)


FORMS = """{{- messages[0].content | tojson }}{{ messages[0].content | tojson(ensure_ascii=true, indent=2) }}
{%- for key, value in tools[0] | dictsort %}{{ key ~ value }}{% break %}{% endfor %}
{%- set d = dict(a=1) %}{{ d.a ~ documents[0].title ~ strftime_now('%%') ~ (messages[0].name or 'none') }}
{%- for message in messages %}{% if loop.first %}{% continue %}{% endif %}
{{ message.reasoning_content }}{{ message.thinking }}{{ message.content is defined }}
  {% endfor %}
"""


def test_filters_loops_and_fields_are_those_of_transformers(tmp_path: Path) -> None:
    folder = FAMILIES["qwen2.5"].write(tmp_path)
    (folder / "chat_template.jinja").write_text(FORMS)
    ours, theirs = Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "user", "content": "<b>'深'</b> & \u2028", "name": "Ann"},
        {"role": "assistant", "content": None, "reasoning": "because"},
    ]
    documents = [{"title": "T", "text": "x"}]
    there = theirs.apply_chat_template(messages, tools=[WEATHER], documents=documents, tokenize=False)
    assert render_text(ours, Chat(messages, [WEATHER], documents)) == there


def test_a_second_template_is_used_when_there_are_tools(tmp_path: Path) -> None:
    folder = FAMILIES["qwen2.5"].write(tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    both = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "with {{ tools | length }}"}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": both}))
    ours, theirs = Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    user = [{"role": "user", "content": "hi"}]
    for chat in (Chat(user), Chat(user, [WEATHER])):
        assert render_text(ours, chat) == theirs_of(theirs, chat, tokenize=False)
    assert encode_prompts(ours, [Chat(user), Chat(user, [WEATHER]), Chat(user)]) == [
        ours.encode(text) for text in ("plain", "with 1", "plain")
    ]
