"""Is a tokenizer read rightly? Laws that hold for any, and comparisons with transformers where it is installed.

For a person with a real checkpoint at hand: each check has a name, an outcome, and what was found.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from seekling.errors import UserError
from seekling.text.chat import Chat, encode_prompts, encode_turns, render_text
from seekling.text.tokenizer import Tokenizer
from seekling.text.twins import id_of

TEXTS = (
    "The quick brown fox doesn't jump at 12:30; it costs $1,234,567.89!",
    "深度求索致力于推理。我们让模型学会思考,一步一步。",
    "🐳 👩‍🔬 🇩🇪 naïve café — ΑΒΓ привет こんにちは 한국어 עברית",
    "def f(x):\n    # twice\n\treturn x ** 2\r\n\n\nif f(3) != 9:\n    raise ValueError(f'{x}')",
    "007 3.14159 1e-10 0x7F 1000000 ½ x² ﬁ",
    "a  b   c\n\n\nd \n e\t\tf",
    '{"name": "tool", "arguments": {"q": [1, null, true]}}',
    "<div class='a'>1 < 2 && 3 > 2</div> [x] |y|",
    "ø ÿ þ ▁ Ġ ￿ \u200d",
)
TALK: tuple[dict[str, Any], ...] = (
    {"role": "user", "content": "What is 7 * 6? 你好 🐳"},
    {"role": "assistant", "content": "It is 42.\n\n深度 🐳"},
    {"role": "user", "content": "def f(x):\n\treturn x"},
    {"role": "assistant", "content": "That returns 123456."},
)
SYSTEM = {"role": "system", "content": "Be brief. 简短。"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a word up & tell <what> it means",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}


class Check(NamedTuple):
    """One check. ``passed`` is None where there was nothing to check."""

    name: str
    passed: bool | None
    detail: str


def check_tokenizer(given: Path | Tokenizer, folder: Path | None = None) -> list[Check]:
    """Check the tokenizer of a folder; or one already loaded, ``folder`` being where it came from.

    Raises UserError for a folder that cannot be read. Only files are compared with transformers, so a tokenizer
    without a folder is not.
    """
    tokenizer, folder = (Tokenizer.load(given), given) if isinstance(given, Path) else (given, folder)
    laws = [
        _checked("round trip", lambda: _round_trip(tokenizer)),
        _checked("streaming", lambda: _streaming(tokenizer)),
        _checked("added tokens", lambda: _added(tokenizer)),
        _checked("look-alikes in plain text", lambda: _look_alikes(tokenizer)),
    ]
    if tokenizer.template is None:
        laws.append(Check("chat template", None, "none here: the tokenizer of a base model"))
    else:
        laws += [
            _checked("look-alikes in a user's words", lambda: _users_words(tokenizer)),
            _checked("loss masks", lambda: _masks(tokenizer)),
        ]
    return [*laws, *_against_transformers(tokenizer, folder)]


Findings = Iterator[str]
"""What is wrong, one finding at a time."""


def _checked(name: str, law: Callable[[], Findings]) -> Check:
    """A law's outcome: passed when it finds nothing wrong."""
    try:
        found = list(law())
    except UserError as error:
        found = [str(error).replace("\n", "; ")]
    except Exception as error:  # transformers raises whatever it likes
        found = [f"{type(error).__name__}: {error}"]
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return Check(name, not found, found[0][:300] + more if found else "")


def _round_trip(tokenizer: Tokenizer) -> Findings:
    added = {token.content for token in tokenizer.whole.get_added_tokens_decoder().values()}
    words = added - set(tokenizer.control)  # some of them do not come back, nor do they under transformers
    for text in (text for text in TEXTS if not any(word in text for word in words)):
        back = tokenizer.decode(tokenizer.encode(text))
        if back not in (text, unicodedata.normalize("NFC", text), text.replace("▁", " ")):
            yield f"{text!r} came back as {back!r}"


def _streaming(tokenizer: Tokenizer) -> Findings:
    for text in TEXTS:
        ids = tokenizer.encode(text, framed=True)
        for end in range(len(ids) + 1):  # cut anywhere, within a character too
            whole, parts = tokenizer.decode(ids[:end]), list(tokenizer.decode_stream(ids[:end]))
            if "".join(parts) != whole or not all(parts):
                yield f"{whole!r} was streamed as {parts!r}"


def _added(tokenizer: Tokenizer) -> Findings:
    for content in tokenizer.control:
        place = id_of(tokenizer.whole, content)
        if tokenizer.encode(content, special=True) != [place]:
            yield f"{content!r} is not parsed as its one token {place}"
        elif (
            tokenizer.decode([place]).strip() != content.replace("▁", " " if tokenizer.pieces.stripped else "▁").strip()
        ):
            yield f"token {place} decodes as {tokenizer.decode([place])!r}, not {content!r}"
    for name in ("bos", "pad"):
        named = tokenizer.names.get(f"{name}_token")
        if named is not None and tokenizer.whole.token_to_id(named) != getattr(tokenizer, name):
            yield f"{name} is not the id of {named!r}"


def _look_alikes(tokenizer: Tokenizer) -> Findings:
    control = {tokenizer.whole.token_to_id(content): content for content in tokenizer.control}
    forms = [form for content in tokenizer.control for form in (content, f"x{content}y", f" {content}\n", content * 2)]
    for form, ids in zip(forms, tokenizer.encode_batch(forms), strict=True):
        if made := control.keys() & set(ids):
            yield f"{form!r} makes the token {control[made.pop()]!r}"


def _users_words(tokenizer: Tokenizer) -> Findings:
    control = {tokenizer.whole.token_to_id(content) for content in tokenizer.control}
    forged = [*tokenizer.control[:64], "".join(tokenizer.control[-64:]), "<｜User｜>", "</s><s>[INST]", "<|im_end|>"]
    chats = [[{"role": "user", "content": text}] for text in ("plain", *forged)]
    made = [[token for token in ids if token in control] for ids in encode_prompts(tokenizer, chats)]
    for text, tokens in zip(forged, made[1:], strict=True):
        if tokens != made[0]:
            yield f"a user who says {text!r} changes the control tokens"


def _masks(tokenizer: Tokenizer) -> Findings:
    said = [message["content"] for message in TALK if message["role"] == "assistant"]
    spans = []
    for ids, mask in encode_turns(tokenizer, TALK):
        for start in (i for i, yes in enumerate(mask) if yes and not (i and mask[i - 1])):
            end = next((i for i in range(start, len(mask)) if not mask[i]), len(mask))
            spans.append((ids[:start], ids[start:end]))
    if len(spans) != len(said):
        yield f"{len(said)} turns are learned as {len(spans)} spans"
    for place, ((before, learned), text) in enumerate(zip(spans, said, strict=False)):
        if learned[-1] not in tokenizer.stops:
            yield f"turn {place + 1} does not end with a token that stops the model"
        if not tokenizer.decode(learned[:-1]).strip().endswith(text):
            yield f"turn {place + 1} is learned as {tokenizer.decode(learned)!r}"
        if not place and before != encode_prompts(tokenizer, [TALK[:1]])[0]:
            yield "the first turn does not follow its prompt"


def _against_transformers(tokenizer: Tokenizer, folder: Path | None) -> list[Check]:
    if folder is None or find_spec("transformers") is None:
        why = "there is no folder to load" if folder is None else "transformers is not installed"
        return [Check("against transformers", None, f"not compared: {why}")]
    try:
        theirs = import_module("transformers").AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # it raises whatever it likes
        return [Check("against transformers", False, f"it cannot load this: {type(error).__name__}: {error}"[:300])]
    found = [
        _checked("transformers: ids", lambda: _same_ids(tokenizer, theirs)),
        _checked("transformers: added tokens", lambda: _same_tokens(tokenizer, theirs)),
        _checked("transformers: decoding", lambda: _same_decoding(tokenizer, theirs)),
    ]
    if tokenizer.template is not None:
        found.append(_checked("transformers: chat template", lambda: _same_chats(tokenizer, theirs)))
    return found


def _same_ids(tokenizer: Tokenizer, theirs: Any) -> Findings:
    for text in (*TEXTS, "".join(TEXTS), "".join(tokenizer.control[:20]), ""):
        ours = tokenizer.encode(text, special=True, framed=True)
        if ours != theirs(text).input_ids:
            yield f"{text[:60]!r} is {ours[:12]} here and {theirs(text).input_ids[:12]} there"


def _same_tokens(tokenizer: Tokenizer, theirs: Any) -> Findings:
    ours, others = tokenizer.whole.get_added_tokens_decoder(), theirs.added_tokens_decoder
    for place in sorted(ours.keys() | others.keys()):
        if repr(ours.get(place)) != repr(others.get(place)):
            yield f"token {place} is {ours.get(place)!r} here and {others.get(place)!r} there"
    for name in ("bos", "eos", "pad"):
        if getattr(tokenizer, name) != getattr(theirs, f"{name}_token_id"):
            yield f"{name} is {getattr(tokenizer, name)} here and {getattr(theirs, f'{name}_token_id')} there"


def _same_decoding(tokenizer: Tokenizer, theirs: Any) -> Findings:
    for text in TEXTS:
        ids = [*tokenizer.encode(text, framed=True), tokenizer.eos, *tokenizer.encode(text)[:-1]]
        for skip in (False, True):
            there = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            if (here := tokenizer.decode(ids, skip_special=skip)) != there:
                yield f"{here!r} here is {there!r} there"


def _same_chats(tokenizer: Tokenizer, theirs: Any) -> Findings:
    """Text and ids; a conversation that the template refuses must be refused on both sides."""
    talks: list[Sequence[dict[str, Any]]] = [TALK, TALK[:3], TALK[:1], [SYSTEM, *TALK[:2]], [SYSTEM, *TALK[:3]]]
    for talk in talks:
        opened = talk[-1]["role"] == "user"
        for tools in (None, [TOOL]) if "tools" in (tokenizer.template or "") else (None,):
            try:
                there = theirs.apply_chat_template(talk, tools=tools, tokenize=False, add_generation_prompt=opened)
            except Exception as error:  # the template's own refusal, mostly
                there = type(error)
            chat = Chat(talk, tools, opened=opened)
            try:
                here: Any = render_text(tokenizer, chat)
            except UserError as error:
                if isinstance(there, str):
                    yield f"{talk} is refused here: {error}"
                continue
            if here != there:
                yield f"{here!r} here is {there!r} there"
            elif opened:
                ids = theirs.apply_chat_template(talk, tools=tools, return_dict=False, add_generation_prompt=True)
                if encode_prompts(tokenizer, [chat])[0] != ids:
                    yield f"the ids of {here!r} differ"
