"""The user's own chats: three shapes of row in three formats, each fault with its line, and a shelf of texts."""

from __future__ import annotations

import json
import os
import resource
import sys
import tracemalloc
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.recipes import sft
from seekling.recipes.chats import Row, read
from seekling.recipes.config import Sft
from seekling.recipes.sft import Shelf, encode, permuted, shelve
from seekling.recipes.stage import Interrupted
from seekling.remote import rows as stored
from seekling.remote.rows import digest_of, files_of
from seekling.text.tokenizer import Tokenizer, train

ROOT = Path(__file__).parents[2]
ASK, SAY = {"role": "user", "content": "1+2"}, {"role": "assistant", "content": "<answer>3</answer>"}
WRONG = {"role": "assistant", "content": "<answer>4</answer>"}
EARLIER = [{"role": "user", "content": "0+1"}, {"role": "assistant", "content": "1"}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(["1+2 is 3 and 4+5 is 9"] * 5, 300)


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def written(folder: Path, text: str | bytes, name: str = "chats.jsonl") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def table(folder: Path, rows: list[dict[str, Any]], name: str = "chats.parquet", **how: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / name, **how)
    return folder / name


def messages(*files: Path) -> list[list[dict[str, Any]]]:
    return [chat.messages for chat in read(files)]


def refusal(*files: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        list(read(files))
    return caught.value


# --- shapes -----------------------------------------------------------------------------------------------------------

SHAPES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], int]] = {
    "messages": ({"messages": [ASK, SAY]}, [ASK, SAY], 0),
    "prompt and completion": ({"prompt": "1+2", "completion": "<answer>3</answer>"}, [ASK, SAY], 1),
    "prompt and completion, as messages": ({"prompt": [*EARLIER, ASK], "completion": [SAY]}, [*EARLIER, ASK, SAY], 3),
    "a prompt in words, a completion as messages": ({"prompt": "1+2", "completion": [SAY]}, [ASK, SAY], 1),
    "preferences": ({"prompt": "1+2", "chosen": SAY["content"], "rejected": "4"}, [ASK, SAY], 1),
    "preferences, as messages": ({"prompt": [ASK], "chosen": [SAY], "rejected": [WRONG]}, [ASK, SAY], 1),
    "whole conversations preferred": (
        {"chosen": [*EARLIER, ASK, SAY], "rejected": [*EARLIER, ASK, WRONG]}, [*EARLIER, ASK, SAY], 3,
    ),
    "a prompt beside whole conversations": (
        {"prompt": "1+2", "chosen": [ASK, SAY], "rejected": [ASK, WRONG]}, [ASK, SAY], 1,
    ),
    "messages before all else": ({"messages": [ASK, SAY], "prompt": "?", "chosen": "?", "score": 1}, [ASK, SAY], 0),
    "columns that other rows use": ({"messages": None, "prompt": "1+2", "completion": SAY["content"]}, [ASK, SAY], 1),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_a_conversation(tmp_path: Path, shape: str) -> None:
    row, expected, num_given = SHAPES[shape]
    file = written(tmp_path, lines(row))
    assert list(read([file])) == [Row(expected, f"{file}, line 1", num_given)]
    parquet = table(tmp_path, [row])
    assert list(read([parquet])) == [Row(expected, f"{parquet}, row 1", num_given)]


CALL = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}]
TALK = [
    {"role": "system", "content": "Use tools."}, ASK,
    {"role": "assistant", "content": None, "tool_calls": CALL, "reasoning_content": "add them"},
    {"role": "tool", "content": "3", "name": "add"}, SAY,
]  # fmt: skip


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_tools_and_further_keys_pass_through(tmp_path: Path, form: str) -> None:
    tool = {"type": "function", "function": {"name": "add"}}
    row = {"messages": TALK, "tools": [tool], "source": "by hand"}
    file = tmp_path / f"chats.{form}"
    if form == "parquet":
        table(tmp_path, [row])
    else:
        file.write_text(lines(row) if form == "jsonl" else json.dumps([row], indent=1))
    (chat,) = read([file])
    assert chat.messages == TALK
    assert chat.tools == [tool]


def test_tools_may_be_written_as_text(tmp_path: Path) -> None:
    rows = [{"messages": [ASK, SAY], "tools": text} for text in ('[{"name": "add"}]', "", None, [])]
    assert [chat.tools for chat in read([written(tmp_path, lines(*rows))])] == [[{"name": "add"}], None, None, None]


def test_what_is_null_is_left_out(tmp_path: Path) -> None:
    row = {"messages": [{**ASK, "name": None}, {**SAY, "tool_calls": None, "weight": 1}]}
    assert messages(written(tmp_path, lines(row))) == [[ASK, {**SAY, "weight": 1}]]


# --- faults -----------------------------------------------------------------------------------------------------------

FAULTS = {
    "no JSON": ("{", "not JSON"),
    "a list": ("[1]", "found a list; expected an object"),
    "other keys": ('{"text": "x", "id": 1}', "found the keys text, id; expected messages, or prompt and completion"),
    "no keys": ("{}", "found no keys"),
    "a prompt alone": ('{"prompt": "x"}', "found the keys prompt"),
    "no messages": ('{"messages": []}', '"messages" is an empty list; expected a list of messages'),
    "messages as text": ('{"messages": "[]"}', '"messages" is a string; expected a list of messages'),
    "a message as text": ('{"messages": ["hi"]}', "message 1 is a string; expected an object with role and content"),
    "an unknown role": (
        '{"messages": [{"role": "bot", "content": "x"}]}',
        "message 1 has the role 'bot'; expected system, user, assistant or tool",
    ),
    "no role": ('{"messages": [{"from": "human", "value": "x"}]}', "message 1 has no role (found the keys from, value"),
    "a list as content": (
        '{"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}',
        "message 1 (user) has a list as content; expected a string",
    ),
    "a number as content": ('{"prompt": "x", "completion": 3}', '"completion" is a number; expected a string or'),
    "null as content": (
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": null}]}',
        "message 2 (assistant) has null as content; expected a string",
    ),
    "NaN as content": (
        '{"messages": [{"role": "user", "content": NaN}]}',
        "not JSON: NaN is no number",
    ),
    "NaN beside it": (
        '{"messages": [{"role": "user", "content": "x", "score": [Infinity]}, {"role": "assistant", "content": "y"}]}',
        "not JSON: Infinity is no number",
    ),
    "a key twice": (
        '{"messages": [{"role": "user", "content": "x", "role": "system"}]}', 'the key "role" is there twice'
    ),
    "an empty answer": ('{"prompt": "x", "completion": " \\n"}', "message 2: the assistant's text is empty"),
    "nobody to learn from": ('{"messages": [{"role": "user", "content": "x"}]}', "nothing to learn"),
    "an assistant in the prompt only": (
        json.dumps({"prompt": EARLIER, "completion": [ASK]}), "nothing to learn"
    ),
    "an answer without its prompt": ('{"chosen": "x", "rejected": "y"}', '"chosen" begins with the assistant'),
    "half a character": ('{"prompt": "\\ud83d", "completion": "x"}', "half a character"),
    "not UTF-8": (b'{"prompt": "caf\xe9", "completion": "x"}', "not UTF-8: byte 0xe9 at 15"),
    "far too deep": ('{"prompt": ' + "[" * 100_000, "nested too deep"),
    "a number of 10,000 digits": ('{"id": ' + "1" * 10_000 + "}", "not JSON"),
    "tools that are none": ('{"prompt": "x", "completion": "y", "tools": "add"}', '"tools" is a string'),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_its_line_and_what_was_expected(tmp_path: Path, fault: str) -> None:
    line, said = FAULTS[fault]
    line = line if isinstance(line, bytes) else line.encode()
    good = lines({"messages": [ASK, SAY]}).encode()
    file = written(tmp_path, good + b"\n" + line + b"\n" + good)
    error = refusal(file)
    assert error.what == "1 row is no chat, of 3"
    assert error.where.startswith(f"{file}, line 3: ")
    assert said in error.where
    assert "docs/data.md" in error.next_step


def test_the_first_faults_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    good, bad = lines({"messages": [ASK, SAY]}), '{"text": 1}\n'
    first, second = written(tmp_path, good + bad * 4), written(tmp_path, bad * 3 + good, "more.jsonl")
    error = refusal(first, second)
    assert error.what == "7 rows are no chats, of 9"
    shown = [line.strip().partition(": ")[0] for line in error.where.split("\n")]
    assert shown == [*(f"{first}, line {number}" for number in range(2, 6)), f"{second}, line 1", "and 2 more"]


def test_nothing_follows_a_fault(tmp_path: Path) -> None:
    good = lines({"messages": [ASK, SAY]})
    rows = read([written(tmp_path, good + "{}\n" + good)])
    assert next(rows).where.endswith("line 1")
    with pytest.raises(UserError):
        next(rows)


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.json", "chats.parquet"])
def test_an_empty_file_holds_no_chats(tmp_path: Path, name: str) -> None:
    for text in ("", "\n \n", "[]"):
        if name == "chats.parquet":
            schema = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string())])))])
            pq.write_table(schema.empty_table(), tmp_path / name)
        elif text != "[]" or name == "chats.json":
            written(tmp_path, text, name)
        assert "holds no chats: it is empty" in refusal(tmp_path / name).what


# --- lines ------------------------------------------------------------------------------------------------------------


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    odd = {"role": "assistant", "content": "a\u2028b\u2029c\x85d\x0be\rf"}
    file = written(tmp_path, lines({"messages": [ASK, odd]}, {"messages": [ASK, SAY]}))
    assert "\u2028" in file.read_text(encoding="utf-8")
    assert messages(file) == [[ASK, odd], [ASK, SAY]]


def test_marks_and_line_ends_of_other_systems_change_nothing(tmp_path: Path) -> None:
    plain = lines({"messages": [ASK, SAY]}, {"messages": [ASK, {**SAY, "content": "数 🙂"}]})
    expected = messages(written(tmp_path, plain))
    forms = ["\ufeff" + plain, plain.replace("\n", "\r\n"), plain.rstrip("\n"), "\n\n" + plain, "\ufeff" + plain * 1]
    for form in forms:
        assert messages(written(tmp_path, form)) == expected
        array = form.strip("\ufeff\r\n").replace("\n", ",\n")
        assert messages(written(tmp_path, "\ufeff[" + array + "]\r\n", "list.json")) == expected
        assert messages(written(tmp_path, form, "lines.json")) == expected
    assert "is UTF-16" in refusal(written(tmp_path, plain.encode("utf-16"))).what


@pytest.mark.parametrize("size", [1, 2, 7, 64, 2**16])
def test_a_list_is_read_in_pieces_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rows = [{"messages": [ASK, {**SAY, "content": f'"]}},[{{" \\ {number} 🙂'}]} for number in range(20)]
    file = written(tmp_path, json.dumps(rows, indent=2, ensure_ascii=False), "list.json")
    monkeypatch.setattr(stored, "PIECE_CHARS", size)
    found = list(read([file]))
    assert [chat.messages for chat in found] == [row["messages"] for row in rows]
    begins = [number for number, line in enumerate(file.read_text().splitlines(), 1) if line == "  {"]
    assert [chat.where for chat in found] == [f"{file}, line {number}" for number in begins]


def test_a_long_row_of_a_list_is_not_parsed_anew_for_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "PIECE_CHARS", 16)
    tape = stored._Tape(StringIO(json.dumps([{"prompt": "x" * 10**6}])))
    reads: list[int] = []
    read, tape._handle.read = tape._handle.read, lambda size: reads.append(size) or read(size)  # type: ignore[method-assign]
    tape.take("[")
    assert not tape.ends_with("]")
    assert len(tape.value()["prompt"]) == 10**6
    assert len(reads) < 24


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[{}\n {}]", 2, "expected ,, found {"),
        ("[\n{}\n,\n", 4, "not JSON"),
        ('[\n{"prompt": "x', 2, "Unterminated string"),
        ("[{},]", 1, "not JSON"),
        ("[{}\n", 2, "expected ,, found the end of the file"),
        ("[" * 100_000, 1, "nested too deep"),
        ('[{"a": 1, "a": 2}]', 1, 'the key "a" is there twice'),
    ],
)
def test_a_broken_list_names_the_line_it_breaks_on(tmp_path: Path, text: str, line: int, said: str) -> None:
    file = written(tmp_path, text, "list.json")
    last = refusal(file).where.split("\n")[-1].strip()
    assert last.startswith(f"{file}, line {line}: ")
    assert said in last


# --- parquet ----------------------------------------------------------------------------------------------------------


def test_a_parquet_file_that_is_cut_off_or_damaged(tmp_path: Path) -> None:
    file = table(tmp_path, [{"messages": [ASK, SAY]}] * 500, use_dictionary=False, compression="none")
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[4:64] = bytes(60)
    for content in (whole[:-20], whole[: len(whole) // 2], b"PAR1", b"", bytes(damaged)):
        file.write_bytes(content)
        assert "is no whole parquet file" in refusal(file).what


def test_a_table_without_the_columns_is_refused_before_it_is_read(tmp_path: Path) -> None:
    error = refusal(table(tmp_path, [{"text": "x", "id": 1}]))
    assert "found the keys text, id; expected messages" in error.what


def test_fields_that_a_table_adds_are_taken_out_again(tmp_path: Path) -> None:
    calls = [[{"function": {"name": "add", "arguments": arguments}}] for arguments in ({"a": 1}, {"b": [2, 3]})]
    rows = [{"messages": [ASK, {"role": "assistant", "content": "x", "tool_calls": call}]} for call in calls]
    assert messages(table(tmp_path, rows)) == [row["messages"] for row in rows]


def test_columns_that_do_not_count_are_not_read(tmp_path: Path) -> None:
    rows = [{"image": f"{number}" * 50, "messages": [ASK, SAY]} for number in range(50)]
    file = table(tmp_path, rows, compression="none", use_dictionary=False)
    start = pq.read_metadata(file).row_group(0).column(0).data_page_offset
    content = bytearray(file.read_bytes())
    content[start : start + 200] = bytes(200)
    file.write_bytes(content)
    assert len(messages(file)) == 50


def test_a_fault_in_a_table_names_its_row(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "completion": "y"}] * 300 + [{"prompt": "x", "completion": ""}]
    assert f"{tmp_path / 'chats.parquet'}, row 301: message 2" in refusal(table(tmp_path, rows)).where


def test_without_pyarrow_the_line_that_installs_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = table(tmp_path, [{"messages": [ASK, SAY]}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    error = refusal(file)
    assert "needs pyarrow" in error.what
    assert error.next_step == "Run: .venv/bin/pip install -e '.[data]'"
    assert 'data = ["pyarrow' in (ROOT / "pyproject.toml").read_text()


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_folder_stands_for_its_own_files(tmp_path: Path) -> None:
    text = lines({"messages": [ASK, SAY]})
    second, first = written(tmp_path, text, "b.json"), written(tmp_path, text, "a.jsonl")
    (tmp_path / "README.md").write_text("not a chat")
    (tmp_path / "test").mkdir()
    written(tmp_path / "test", "held out")
    assert files_of(str(tmp_path)) == [first, second]
    assert len(messages(*files_of(str(tmp_path)))) == 2


@pytest.mark.parametrize(
    ("name", "said", "step"),
    [
        ("chat.jsonl", "there is no data file chat.jsonl", 'Did you mean "chats.jsonl"?'),
        (
            "none/chats.jsonl",
            "there is no data file",
            "A file, a folder of files, or a data set of the hub as org/name",
        ),
        ("chats.csv", "ends neither in .jsonl nor in .json", "convert it"),
        ("outer", "holds no .jsonl", "Name one of its folders: outer/inner"),
        ("bare", "holds no .jsonl", "Check the path"),
    ],
)
def test_a_name_that_leads_to_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str, step: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("chats.jsonl", "chats.csv", "outer/inner/chats.jsonl", "bare/notes.txt"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("x")
    with pytest.raises(UserError) as caught:
        files_of(name)
    assert said in caught.value.what
    assert step in caught.value.next_step


def test_a_file_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no revision v1"):
        files_of(str(written(tmp_path, "x")), "v1")


def test_a_content_hash_knows_every_byte_and_every_file(tmp_path: Path) -> None:
    from hashlib import sha256

    file = written(tmp_path, "one")
    assert digest_of(str(file)) == sha256(b"one").hexdigest()
    both = [digest_of(str(tmp_path))]
    written(tmp_path, "two", "more.json")
    both.append(digest_of(str(tmp_path)))
    written(tmp_path, "too", "more.json")
    both.append(digest_of(str(tmp_path)))
    assert both[0] == {"chats.jsonl": sha256(b"one").hexdigest()}
    assert both[0] != both[1] != both[2]


def test_a_data_set_of_the_hub_is_found_and_known_by_its_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []

    def locate(data: str, revision: str, **how: Any) -> Any:
        asked.append((data, revision, how))
        return type("Source", (), {"paths": (tmp_path / "train.jsonl",)})

    monkeypatch.setattr(stored, "locate_data", locate)
    monkeypatch.setattr(stored, "identity", lambda data, revision, kind: {"commit": f"{data}@{revision}/{kind}"})
    assert files_of("org/data:en", "v1", "test", tell=print) == [tmp_path / "train.jsonl"]
    assert asked == [("org/data:en", "v1", {"split": "test", "tell": print})]
    assert digest_of("org/data:en", "v1") == {"commit": "org/data:en@v1/dataset"}
    (tmp_path / "org").mkdir()
    local = written(tmp_path / "org", "x", "data")
    with pytest.raises(UserError, match="org/data is no data file"):  # what is here wins
        files_of(str(local.relative_to(tmp_path)))


# --- texts ------------------------------------------------------------------------------------------------------------


class Desk:
    """As much of a stage as shelving needs."""

    def __init__(self, *, stopped: bool = False) -> None:
        self.warnings: list[str] = []
        self.warn = self.warnings.append
        self.stop_requested = lambda: stopped


def learned_words(tokenizer: Tokenizer, shelf: Shelf) -> list[str]:
    texts = [shelf[place] for place in range(len(shelf))]
    return [tokenizer.decode([t for t, w in zip(text.tokens, text.weight, strict=True) if w]) for text in texts]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    (tmp_path / "stage").mkdir()
    with Shelf(tmp_path / "stage") as shelf:
        yield shelf


def settings(row_tokens: int = 64, **more: Any) -> Sft:
    return Sft(name="tuned", steps=1, data="x", packing={"row_tokens": row_tokens}, **more)  # type: ignore[arg-type]


def test_only_what_is_not_given_is_learned(tmp_path: Path, tokenizer: Tokenizer, shelf: Shelf) -> None:
    rows = [
        {"messages": [*EARLIER, ASK, SAY]},
        {"prompt": [*EARLIER, ASK], "completion": [SAY]},
        {"chosen": [*EARLIER, ASK, SAY], "rejected": [*EARLIER, ASK, WRONG]},
    ]
    shelve(shelf, [written(tmp_path, lines(*rows))], tokenizer, settings(), Desk())  # type: ignore[arg-type]
    said = SAY["content"] + "<｜end▁of▁sentence｜>"
    assert learned_words(tokenizer, shelf) == ["1<｜end▁of▁sentence｜>" + said, said, said]
    first, second = shelf[0], shelf[1]
    assert list(first.tokens) == list(second.tokens)


def test_a_conversation_in_several_texts_is_masked_as_one(tokenizer: Tokenizer) -> None:
    """As templates give it that cut old thinking out: each turn a text, with its own context before it."""
    talk = Row([*EARLIER, ASK, SAY], "here", given=3)
    texts = [([1, 2, 3], [False, True, True]), ([1, 2, 3, 4, 5], [False, False, False, True, True])]
    assert sft._without_given(talk, list(texts)) == texts[1:]
    assert sft._without_given(Row(talk.messages, "here"), list(texts)) == texts
    with pytest.raises(UserError, match="does not keep apart"):
        sft._without_given(talk, [([1, 2], [False, True])])


FORGETFUL = """{% if tools %}{{ tools | tojson }}{% endif %}{% for message in messages %}
{%- if message.role == 'assistant' -%}
<｜Assistant｜>{% if not message.content %}{{ message.tool_calls[0].function | tojson }}
{%- elif loop.last %}{{ message.content }}{% else %}{{ message.content.split('</think>')[-1] }}{% endif -%}
<｜end▁of▁sentence｜>
{%- else %}<｜User｜>{{ message.content }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<｜Assistant｜>{% endif %}"""
"""A template as reasoning models have them: old thinking is cut out, tools stand in front."""


@pytest.fixture(scope="module")
def forgetful(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("forgetful")
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(FORGETFUL)
    return Tokenizer.load(folder)


def test_each_turn_is_learned_in_the_context_it_was_said_in(tmp_path: Path, forgetful: Tokenizer, shelf: Shelf) -> None:
    thought = {"role": "assistant", "content": "<think>0+1</think>1"}
    rows = [{"messages": [EARLIER[0], thought, ASK, SAY]}, {"prompt": [EARLIER[0], thought, ASK], "completion": [SAY]}]
    shelve(shelf, [written(tmp_path, lines(*rows))], forgetful, settings(), Desk())  # type: ignore[arg-type]
    end = "<｜end▁of▁sentence｜>"
    said = [thought["content"] + end, SAY["content"] + end, SAY["content"] + end]
    assert learned_words(forgetful, shelf) == said
    contexts = [forgetful.decode(shelf[place].tokens) for place in range(3)]
    assert contexts[0] == "<｜User｜>0+1<｜Assistant｜>" + said[0]
    assert (
        contexts[1] == contexts[2] == "<｜User｜>0+1<｜Assistant｜>1" + end + "<｜User｜>1+2<｜Assistant｜>" + said[1]
    )


def test_tools_and_calls_reach_the_template(tmp_path: Path, forgetful: Tokenizer, shelf: Shelf) -> None:
    row = {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": CALL}], "tools": [{"name": "add"}]}
    shelve(shelf, [written(tmp_path, lines(row))], forgetful, settings(128), Desk())  # type: ignore[arg-type]
    said = '{"name": "add", "arguments": {"a": 1, "b": 2}}<｜end▁of▁sentence｜>'
    assert forgetful.decode(shelf[0].tokens) == '[{"name": "add"}]<｜User｜>1+2<｜Assistant｜>' + said
    assert learned_words(forgetful, shelf) == [said]


def test_a_template_that_leaves_out_the_assistant_is_said(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.content }}{% generation %}{% endgeneration %}{% endfor %}"
    )
    with pytest.raises(UserError, match="nothing to learn: the chat template leaves out") as caught:
        encode(Tokenizer.load(tmp_path), list(read([written(tmp_path, lines({"messages": [ASK, SAY]}))])))
    assert caught.value.where.endswith("line 1")


def test_the_shipped_template_drops_no_tools_in_silence(tmp_path: Path, tokenizer: Tokenizer) -> None:
    row = {"messages": [ASK, SAY], "tools": [{"name": "add"}]}
    with pytest.raises(UserError, match="knows no tools") as caught:
        encode(tokenizer, list(read([written(tmp_path, lines(row))])))
    assert "line 1" in caught.value.where


def test_a_template_that_refuses_a_chat_names_its_line(tmp_path: Path, tokenizer: Tokenizer) -> None:
    late = {"messages": [ASK, SAY, {"role": "system", "content": "Be late."}]}
    group = list(read([written(tmp_path, lines({"messages": [ASK, SAY]}, late))]))
    with pytest.raises(UserError) as caught:
        encode(tokenizer, group)
    assert f"{tmp_path / 'chats.jsonl'}, line 2" in str(caught.value)


LONG = {"prompt": "1+2", "completion": "1+2 is 3 and " * 40}


def test_a_text_that_fits_no_row_is_said_before_training(tmp_path: Path, tokenizer: Tokenizer, shelf: Shelf) -> None:
    file = written(tmp_path, lines({"messages": [ASK, SAY]}, LONG))
    with pytest.raises(UserError) as caught:
        shelve(shelf, [file], tokenizer, settings(), Desk())  # type: ignore[arg-type]
    found = caught.value
    longest = len(encode(tokenizer, [list(read([file]))[1]])[0][0][0])
    assert "1 of 2 texts are longer than packing.row_tokens = 64" in found.what and str(longest) in found.what
    assert found.where == f"{file}, line 2"
    assert f"Set packing.row_tokens to at least {longest}" in found.next_step


def test_long_texts_are_left_out_when_asked_and_never_all(tmp_path: Path, tokenizer: Tokenizer, shelf: Shelf) -> None:
    desk, drops = Desk(), settings().model_copy(update={"too_long": "drop"})
    shelve(shelf, [written(tmp_path, lines({"messages": [ASK, SAY]}, LONG))], tokenizer, drops, desk)  # type: ignore[arg-type]
    assert len(shelf) == 1
    assert "are left out; the longest has" in desk.warnings[0]
    with Shelf(tmp_path) as other, pytest.raises(UserError, match="1 of 1 texts"):
        shelve(other, [written(tmp_path, lines(LONG))], tokenizer, drops, desk)  # type: ignore[arg-type]


def test_data_is_fetched_for_whoever_watches_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    stage = SimpleNamespace(
        name="tuned", warn=told.append, stop_requested=lambda: True, tell=lambda *what: told.append(what)
    )

    def locate(data: str, revision: str, *, split: str, tell: Any, draw: Any, stop_requested: Any) -> Any:
        tell("fetching")
        draw(3 * 2**20, 5 * 2**20)
        assert stop_requested()
        raise InterruptedError

    monkeypatch.setattr(stored, "locate_data", locate)
    with pytest.raises(Interrupted):
        sft.find(stage, settings().model_copy(update={"data": "org/data"}))  # type: ignore[arg-type]
    assert told == ["fetching", ("tuned", 3, 5, {})]


def test_someone_who_asks_to_stop_is_heard_while_a_file_is_read(
    tmp_path: Path, tokenizer: Tokenizer, shelf: Shelf
) -> None:
    file = written(tmp_path, lines({"messages": [ASK, SAY]}))
    with pytest.raises(Interrupted):
        shelve(shelf, [file], tokenizer, settings(), Desk(stopped=True))  # type: ignore[arg-type]


# --- the shelf --------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1, max_size=9), max_size=9))
def test_a_shelf_gives_back_what_was_put_on_it(texts: list[list[tuple[int, bool]]]) -> None:
    with Shelf(Path(".")) as shelf:
        for text in texts:
            shelf.add([token for token, _ in text], [mask for _, mask in text])
        assert len(shelf) == len(texts)
        for place in reversed(range(len(texts))):
            assert list(shelf[place].tokens) == [token for token, _ in texts[place]]
            assert shelf[place].weight.tolist() == [float(mask) for _, mask in texts[place]]
            assert shelf[place].weight.dtype == np.float32


@given(st.lists(st.integers(1, 9), max_size=9), st.integers(0, 3), st.integers(1, 12))
def test_every_text_is_learned_once_in_each_pass_and_no_step_is_empty(
    lengths: list[int], count: int, tokens_per_step: int
) -> None:
    with Shelf(Path(".")) as shelf:
        for length in lengths:
            shelf.add(range(length), [True] * length)
        steps = shelf.passes("seed", count, tokens_per_step)
        order = [place for step in steps for place in step]
        for number in range(count):
            assert sorted(order[number * len(lengths) :][: len(lengths)]) == list(range(len(lengths)))
        assert len(order) == count * len(lengths) and all(steps)
        tokens = [sum(lengths[place] for place in step) for step in steps]
        assert all(tokens[n] >= tokens_per_step > tokens[n] - lengths[step[-1]] for n, step in enumerate(steps[:-1]))
        assert shelf.passes("seed", count, tokens_per_step) == steps


def test_a_shelf_leaves_no_file(tmp_path: Path, shelf: Shelf) -> None:
    shelf.add([1], [True])
    assert not list((tmp_path / "stage").iterdir())


def test_a_full_disk_is_a_letter(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Shelf(tmp_path) as shelf:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(UserError, match="the disk is full"):
                shelf.add(range(1000), [True] * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            os.ftruncate(shelf._file.fileno(), 0)


def test_the_order_is_that_of_a_whole_shuffle(shelf: Shelf) -> None:
    """A file of chats is learned in the order in which a list of them always was."""
    for count in (1, 2, 21, 22, 100, 1000):
        assert list(permuted(Random(7), count)) == Random(7).sample(range(count), count)
    for token in range(5):
        shelf.add([token], [True])
    texts = shelf.shuffled("0/tuned/3")
    rng = Random("0/tuned/3")
    expected = [token for _ in range(3) for token in rng.sample(range(5), 5)]
    assert [next(texts).tokens[0] for _ in range(15)] == expected


def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    row = lines({"messages": [ASK, {**SAY, "content": "x" * 5000}]})
    files = [
        written(tmp_path, row * 4000),
        written(tmp_path, "[" + (row * 4000).replace("\n", ",")[:-1] + "]", "l.json"),
    ]
    rows = [{"messages": [ASK, {**SAY, "content": f"{number}" + "x" * 5000}]} for number in range(4000)]
    files.append(table(tmp_path, rows, row_group_size=500))
    del rows
    for file in files:
        tracemalloc.start()
        assert sum(1 for _ in read([file])) == 4000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 6 * 2**20 < 4000 * 5000, file.name


# --- docs/data.md -----------------------------------------------------------------------------------------------------

PAGE = ROOT / "docs/data.md"


def blocks(language: str) -> list[str]:
    import re

    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_rows_on_the_data_page_are_chats(tmp_path: Path) -> None:
    found = blocks("json")
    assert len(found) >= 4
    for block in found:
        assert messages(written(tmp_path, block))


def test_the_letter_on_the_data_page_is_the_one_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from seekling.cli.show import letter

    monkeypatch.chdir(tmp_path)
    (rows,) = blocks("jsonl")
    written(tmp_path, rows, "faulty.jsonl")
    letter(refusal(Path("faulty.jsonl")))
    (shown,) = blocks("text")
    assert capsys.readouterr().err.splitlines()[:-1] == shown.splitlines()
