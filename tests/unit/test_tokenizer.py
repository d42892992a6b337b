"""The tokenizer: what stays one token, what is never parsed, and what a damaged file says."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from seekling.errors import UserError
from seekling.text.tokenizer import CONTROL, SMALLEST, SPECIAL, TAGS, Tokenizer, train
from tests.oracles.tokenizers import FAMILIES

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
    for damaged in ("{", "[]", "[" * 100_000, "\ud800"):
        (tmp_path / "tokenizer_config.json").write_text(damaged, encoding="utf-8", errors="surrogatepass")
        with pytest.raises(UserError, match=r"tokenizer_config\.json"):
            Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old way", "eos_token": "<think>"}))
    assert Tokenizer.load(tmp_path).template == "old way"


WRONG_CONFIGS: dict[str, dict[str, Any]] = {
    "a named token that is a number": {"eos_token": 5},
    "a named token without content": {"eos_token": {"lstrip": False}},
    "added tokens in a list": {"added_tokens_decoder": []},
    "an added token that is text": {"added_tokens_decoder": {"3": "<a>"}},
    "an added token without content": {"added_tokens_decoder": {"3": {"special": True}}},
    "an added token with a name for an id": {"added_tokens_decoder": {"x": {"content": "<a>"}}},
    "further tokens that are text": {"extra_special_tokens": "<a>"},
    "further tokens that are numbers": {"additional_special_tokens": [1]},
    "a beginning that is a table of tables": {"bos_token": {"content": {"content": "<a>"}}},
}


@pytest.mark.parametrize("wrong", WRONG_CONFIGS.values(), ids=WRONG_CONFIGS)
def test_a_config_of_wrong_types_is_named(tokenizer: Tokenizer, tmp_path: Path, wrong: dict[str, Any]) -> None:
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | wrong))
    with pytest.raises(UserError, match=r"tokenizer_config\.json"):
        Tokenizer.load(tmp_path)


def sequence(*decoders: dict[str, Any]) -> dict[str, Any]:
    return {"decoder": {"type": "Sequence", "decoders": [*decoders]}}


WRONG_STATES: dict[str, dict[str, Any]] = {
    "no model": {"model": None},
    "a model of another kind": {"model": {
        "type": "WordPiece", "vocab": {}, "unk_token": "", "max_input_chars_per_word": 9}},
    "an id beyond all measure": {"model": {"type": "BPE", "vocab": {"a": 2**32 - 2}, "merges": []}},
    "merges that are a number": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": 3}},
    "merges of strange tokens": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}},
    "no decoder": {"decoder": None},
    "a decoder of another kind": {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}},
    "decoders in another order": sequence({"type": "Fuse"}, {"type": "ByteFallback"}),
    "a decoder that decodes nothing": sequence(),
    "a decoder without its setting": sequence({"type": "Replace"}, {"type": "Fuse"}),
    "added tokens in a table": {"added_tokens": {}},
    "a pre-tokenizer with a broken pattern": {"pre_tokenizer": {
        "type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
    "a normalizer that is none": {"normalizer": {"type": "Nonsense"}},
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_STATES.values(), ids=WRONG_STATES)
def test_a_tokenizer_of_an_unknown_kind_is_refused(tokenizer: Tokenizer, tmp_path: Path, wrong: dict[str, Any]) -> None:
    tokenizer.save(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(state | wrong))
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("other", ["vocab.json", "tokenizer.model", "tekken.json"])
def test_without_tokenizer_json_the_way_out_is_told(tmp_path: Path, other: str) -> None:
    (tmp_path / other).write_text("{}")
    with pytest.raises(UserError, match=rf"only {other} is here.*[\s\S]*save_pretrained"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(UserError, match="names no token that ends a text"):
        Tokenizer.load(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "</think>"}}))
    assert Tokenizer.load(tmp_path).eos == tokenizer.think_close


STOPS: list[tuple[Any, Any, list[int]]] = [
    (None, None, [1]),
    (7, None, [1, 7]),
    ([1, 7], 8, [1, 7, 8]),
    ([8, 1], [7, 8], [1, 8, 7]),
]


@pytest.mark.parametrize(("generation", "config", "stops"), STOPS)
def test_stops_are_those_of_all_configs_the_main_one_first(
    tokenizer: Tokenizer, tmp_path: Path, generation: Any, config: Any, stops: list[int]
) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": config}))
    loaded = Tokenizer.load(tmp_path)
    assert (list(loaded.stops), loaded.eos) == (stops, 1)


@pytest.mark.parametrize("wrong", ["<eos>", [1, "2"], [None], True, 1.5, {"a": 1}, -1, 10_000])
def test_a_stop_that_is_no_id_is_refused(tokenizer: Tokenizer, tmp_path: Path, wrong: Any) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": wrong}))
    with pytest.raises(UserError, match="eos_token_id"):
        Tokenizer.load(tmp_path)


def test_the_token_that_ends_a_turn_is_a_stop_though_no_config_says_so(tmp_path: Path) -> None:
    """Base models with a chat template name only the end of a document."""
    folder = FAMILIES["qwen2.5"].write(tmp_path)
    for name in ("generation_config.json", "config.json"):
        (folder / name).unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|endoftext|>"}))
    loaded = Tokenizer.load(folder)
    assert [loaded.whole.id_to_token(stop) for stop in loaded.stops] == ["<|endoftext|>", "<|im_end|>"]


def test_tokens_that_only_a_config_adds_follow_the_others(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    size = tokenizer.vocab_size
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    more = {"pad_token": "[PAD]", "additional_special_tokens": ["<extra>"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | more))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<late>": size + 1, "<early>": size}))
    loaded = Tokenizer.load(tmp_path)
    added = ["<early>", "<late>", "[PAD]", "<extra>"]
    assert [loaded.encode(token, special=True) for token in added] == [[size + place] for place in range(4)]
    assert (loaded.pad, loaded.vocab_size) == (size + 2, size + 4)
    theirs = pytest.importorskip("transformers", reason="transformers is not installed").AutoTokenizer
    assert [theirs.from_pretrained(tmp_path).convert_tokens_to_ids(token) for token in added] == [
        size,
        size + 1,
        size + 2,
        size + 3,
    ]


def leaky(folder: Path, *, knows: bool) -> Path:
    """A tokenizer whose merges, or whose memory of whole words, spell a control token from plain text."""
    FAMILIES["llama3"].write(folder)
    state = json.loads((folder / "tokenizer.json").read_text())
    vocab = state["model"]["vocab"]
    state["model"] |= {"ignore_merges": knows}
    size = len(vocab)
    vocab |= (
        {"<stop>": size}
        if knows
        else {"st": size, "sto": size + 1, "stop": size + 2, "<stop": size + 3, "<stop>": size + 4}
    )
    if not knows:
        state["model"]["merges"] += [["s", "t"], ["st", "o"], ["sto", "p"], ["<", "stop"], ["<stop", ">"]]
    state["pre_tokenizer"]["pretokenizers"].pop(0)  # so that a word may hold brackets
    shift = len(vocab) - size
    for token in state["added_tokens"]:
        token["id"] += shift
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    state["added_tokens"] = [{"id": vocab["<stop>"], "content": "<stop>", **flags}, *state["added_tokens"]]
    for token in state["post_processor"]["processors"][1]["special_tokens"].values():
        token["ids"] = [place + shift for place in token["ids"]]
    (folder / "tokenizer.json").write_text(json.dumps(state))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["added_tokens_decoder"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()
    return folder


@pytest.mark.parametrize("knows", [False, True])
def test_plain_text_cannot_spell_a_control_token_with_merges(tmp_path: Path, knows: bool) -> None:
    loaded = Tokenizer.load(leaky(tmp_path, knows=knows))
    place = loaded.whole.token_to_id("<stop>")
    assert loaded.whole.model.token_to_id("<stop>") == place
    assert loaded.encode("<stop>", special=True) == [place]
    for text in ("<stop>", "a<stop>b", " <stop>", "<stop><stop>"):
        assert place not in loaded.encode(text)
        assert loaded.decode(loaded.encode(text)) == text


def test_loading_reads_nothing_but_tokenizer_files(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    for name in ("tokenizer.py", "tokenizer.pkl", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"\x80\x04.")
    Tokenizer.load(tmp_path).save(tmp_path / "copy")
    assert sorted(file.name for file in (tmp_path / "copy").iterdir()) == [
        "chat_template.jinja", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


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
