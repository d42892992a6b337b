"""The tokenizer: what stays one token, what is never parsed, and what a damaged file says."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from seekling.errors import UserError
from seekling.text.tokenizer import CONTROL, SMALLEST, SPECIAL, TAGS, Tokenizer, train

PRIMER = [f"use {n} {n // 2} to make {n % 7}\n{n}+1={n + 1} no 3*4-5=7; (8/2)" for n in range(101)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(PRIMER, 400)


@pytest.mark.parametrize("vocab_size", [384, 400])
def test_numbers_below_100_are_single_tokens(vocab_size: int) -> None:
    small = train(PRIMER, vocab_size)
    assert all(len(small.encode(str(number))) == 1 for number in range(100))


def test_rare_numbers_are_single_tokens_beside_frequent_words() -> None:
    texts = ["the frequent words crowd out the rare " * 50, "73"]
    assert len(train(texts, SMALLEST + 4).encode("73")) == 1


def test_three_digit_numbers_that_the_text_repeats_are_single_tokens() -> None:
    texts = ["23 " * 100 + "123 " * 50, "12"]  # BPE merges 1+23, but the pair 12 has the lower rank
    learned = train(texts, 400)
    assert len(learned.encode("123")) == 1
    assert len(learned.encode("1234")) == 2, "a run of digits is cut after three"


@pytest.mark.parametrize("text", ["12+7-5*3/4=6,8;(9)\n", "1+1", "a=b", "\n\n"])
def test_no_token_crosses_an_operator_or_a_line(text: str) -> None:
    greedy = train(["12+7-5*3/4=6,8;(9)\n 1+1 a=b \n\n" * 200] * 3, 400)
    pieces = [greedy.decode([token]) for token in greedy.encode(text)]
    assert all(len(piece) == 1 or not set(piece[1:]) & set("+-*/=,;()\n") for piece in pieces)
    assert all(len(piece) == 1 or not set(piece) & set("*/=,;()\n") for piece in pieces)


def test_a_term_of_a_sum_is_one_token_with_its_sign() -> None:
    learned = train(["12+7-5+20", "7-12"], 400)
    assert [learned.decode([token]) for token in learned.encode("12+7-5+20")] == ["12", "+7", "-5", "+20"]
    assert [learned.decode([token]) for token in learned.encode("7-12")] == ["7", "-12"]


def test_special_tokens_have_the_lowest_ids_in_deepseeks_order(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([place]) for place in range(len(SPECIAL))] == list(SPECIAL)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (0, 1, 2)
    assert tokenizer.decode([tokenizer.answer_close]) == "</answer>"


def test_text_that_looks_special_is_text_unless_asked(tokenizer: Tokenizer) -> None:
    text = "<｜User｜>hi<think>"
    low = range(len(SPECIAL))
    assert not set(tokenizer.encode(text)) & set(low)
    assert [token for token in tokenizer.encode(text, tags=True) if token in low] == [tokenizer.think_open]
    parsed = tokenizer.encode(text, special=True)
    assert [token for token in parsed if token in low] == [tokenizer.user, tokenizer.think_open]


def test_skipping_special_tokens_keeps_the_reasoning_tags(tokenizer: Tokenizer) -> None:
    everything = [*range(len(SPECIAL)), *tokenizer.encode("7")]
    assert tokenizer.decode(everything, skip_special=True) == "".join(TAGS.values()) + "7"
    assert "".join(tokenizer.decode_stream(everything, skip_special=True)) == "".join(TAGS.values()) + "7"


def test_training_twice_gives_the_same_tokenizer() -> None:
    assert len({train(PRIMER, 384).whole.to_str() for _ in range(3)}) == 1


def test_training_on_tags_spends_no_merges_on_them() -> None:
    tagged = train([f"<think>{line}</think><answer>7</answer>" for line in PRIMER], 400)
    assert not any("ink" in tagged.decode([token]) for token in range(len(SPECIAL), tagged.vocab_size))


def test_a_stream_never_emits_half_a_character(tokenizer: Tokenizer) -> None:
    parts = list(tokenizer.decode_stream(tokenizer.encode("a深🐳e\u0301�z")))
    assert "".join(parts) == "a深🐳e\u0301�z"
    assert parts.count("�") == 1


def test_a_stream_cut_inside_a_character_ends_with_the_replacement_character(tokenizer: Tokenizer) -> None:
    cut = tokenizer.encode("7🐳")[:-1]
    assert "".join(tokenizer.decode_stream(cut)) == tokenizer.decode(cut) == "7�"


def test_lone_surrogates_become_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a�b"
    assert tokenizer.decode(tokenizer.encode("\ud83d\udc33")) == "🐳", "a pair of surrogates is a character"
    assert train(["1\ud8002"] * 3, 300).vocab_size <= 300


def test_saved_and_loaded_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "new")
    again = Tokenizer.load(tmp_path / "new")
    text = "use 3 <think> 深🐳<｜User｜>"
    for special, tags in ((False, False), (True, False), (False, True)):
        assert again.encode(text, special=special, tags=tags) == tokenizer.encode(text, special=special, tags=tags)
    assert again.whole.to_str() == tokenizer.whole.to_str()
    assert (again.template, again.pieces) == (tokenizer.template, tokenizer.pieces)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "chat_template.jinja", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_transformers_loads_what_we_save_and_encodes_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode("use 3 7 to make 10 深🐳") == tokenizer.encode("use 3 7 to make 10 深🐳")
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 1, 2)
    assert theirs.decode([0, tokenizer.think_open, *tokenizer.encode("7")], skip_special_tokens=True) == "<think>7"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "use 3 7"}]
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == f"{CONTROL['bos']}Be brief.{CONTROL['user']}use 3 7{CONTROL['assistant']}"


def test_a_missing_tokenizer_says_where(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no tokenizer here"):
        Tokenizer.load(tmp_path)


def test_damaged_files_are_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_bytes()
    rng = Random(0)
    for damaged in (
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        whole[: len(whole) // 2],
        whole[rng.randrange(9, 99) :],
    ):
        (tmp_path / "tokenizer.json").write_bytes(damaged)
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            Tokenizer.load(tmp_path)


def test_a_damaged_config_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    for damaged in ("{", "[]"):
        (tmp_path / "tokenizer_config.json").write_text(damaged)
        with pytest.raises(UserError, match=r"tokenizer_config\.json"):
            Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old way"}))
    assert Tokenizer.load(tmp_path).template == "old way"


def test_a_tokenizer_without_our_tokens_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8").replace("<answer>", "<reply>")
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="lacks <answer>"):
        Tokenizer.load(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot save the tokenizer"):
        tokenizer.save(tmp_path / "file")


@pytest.mark.parametrize("token", [-1, 10_000])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer: Tokenizer, token: int) -> None:
    with pytest.raises(UserError, match="outside the vocabulary"):
        tokenizer.decode([token])


def test_a_vocabulary_smaller_than_the_bytes_is_refused() -> None:
    with pytest.raises(UserError, match="too small"):
        train(PRIMER, SMALLEST - 1)
    assert train([], SMALLEST).vocab_size == SMALLEST
