"""Tokenizers of the published families, small and trained here, in the layout of their repositories.

What is public about a family is kept: its pre-tokenizer, its special tokens and their flags, the order of its ids, the
keys of its configs. The templates are written here, with the constructs that the families' own use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex as Pattern
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "The quick brown fox jumps over the lazy dog. It's 12:30, and 1234567 people don't know why!",
    "深度求索致力于探索通用人工智能的本质。我们用强化学习训练模型,让它学会推理。",
    "🐳 whales 👩‍🔬 and 🇩🇪 flags, naïve café, ΑΒΓ αβγ, привет мир, こんにちは世界",
    "def add(a, b):\n    # sums\n    return a + b\n\nfor i in range(10):\n\tprint(i ** 2, end='')\r\n",
    "   leading blanks\n\n\n   and    many   inside   \n",
    '{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}',
    "<div class='x'>1 < 2 && 3 > 2</div> [INST] not an instruction [/INST] a|b |> <|",
    "øre ÿ þorn ÷ 3.14159e-10 0x7F \u00a0 x² ½ ﬁ",
]
"""What tokenizers are trained on and checked with: scripts, emoji, code, digits, blanks, look-alikes."""

CORPUS = [text for text in TEXTS for _ in range(4)] + [f"{n} + {n} = {2 * n}" for n in range(40)]

GPT4 = "|".join([
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])  # fmt: skip
QWEN = GPT4.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK_V2 = [
    r"[\r\n]", r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽΆΈ-ϿЀ-ҁҊ-ԯԱ-Ֆ]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$",
    "[一-龥ࠀ-一가-퟿]+",
]  # fmt: skip
DEEPSEEK_V3 = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "|".join([
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""", r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
        r" ?[\p{P}\p{S}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
    ]),
]  # fmt: skip
WORDS_V2 = "øöúÿ÷ûýÀùÁþü"
"""Letters that DeepSeek's second generation keeps as added tokens, though they control nothing."""


@dataclass(frozen=True)
class Family:
    """How a family's tokenizer is made. ``added`` are (content, special, normalized), in the order of their ids."""

    name: str
    added: list[tuple[str, bool, bool]]
    config: dict[str, Any]
    template: str
    splits: list[str] = field(default_factory=list)
    digits: bool = False
    normal: str = ""
    frame: str = ""
    is_pieces: bool = False
    ignore_merges: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)
    edits: bool = False

    @property
    def stops(self) -> list[str]:
        """The tokens that end a turn or a text, as the configs name them."""
        return self.beside["stops"]

    def write(self, folder: Path) -> Path:
        """The repository's tokenizer files and configs."""
        folder.mkdir(parents=True, exist_ok=True)
        state = _pieces(self) if self.is_pieces else _bytes(self)
        ids = {token["content"]: token["id"] for token in state["added_tokens"]}
        config = dict(self.config)
        if config.pop("decoder_table", False):
            config["added_tokens_decoder"] = {
                str(token["id"]): {key: value for key, value in token.items() if key != "id"}
                for token in state["added_tokens"]
            }
        generation = {"eos_token_id": [ids[stop] for stop in self.generation.get("eos", [])]} if self.generation else {}
        if self.beside.get("in_config"):
            config["chat_template"] = self.template
        else:
            (folder / "chat_template.jinja").write_text(self.template, encoding="utf-8")
        if special := self.beside.get("special_tokens_map"):
            _write(folder / "special_tokens_map.json", special)
        _write(folder / "tokenizer.json", state)
        _write(folder / "tokenizer_config.json", config)
        _write(folder / "config.json", self.model)
        if generation:
            _write(folder / "generation_config.json", generation)
        return folder


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def _token(place: int, content: str, special: bool, normalized: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    return {"id": place, "content": content, **flags, "normalized": normalized, "special": special}


@cache
def _learned(splits: tuple[str, ...], digits: bool, normal: str) -> str:
    """A byte-level model trained with a family's pre-tokenizer, as JSON."""
    rust = Tokenizer(models.BPE())
    if normal == "NFC":
        rust.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Split(Pattern(one), behavior="isolated") for one in splits]
    if digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    rust.train_from_iterator(CORPUS, trainer)
    return rust.to_str()


def _bytes(family: Family) -> dict[str, Any]:
    state = json.loads(_learned(tuple(family.splits), family.digits, family.normal))
    base = len(state["model"]["vocab"])
    state["added_tokens"] = [_token(base + place, *token) for place, token in enumerate(family.added)]
    state["model"]["ignore_merges"] = family.ignore_merges
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    state["decoder"] = byte_level
    post: dict[str, Any] = byte_level | {"trim_offsets": False}
    if family.frame:
        post = {"type": "Sequence", "processors": [byte_level, _frame(family.frame, state["added_tokens"])]}
    state["post_processor"] = post
    return state


@cache
def _learned_pieces() -> str:
    """A model of pieces as sentencepiece makes them: blanks are ▁, and bytes stand in for what it does not know."""
    rust = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    rust.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    lone = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=560, special_tokens=["<unk>", "<s>", "</s>", *lone], show_progress=False, limit_alphabet=90,
        max_token_length=12,
    )  # fmt: skip
    lines = [word for text in CORPUS for word in text.split(" ")]
    rust.train_from_iterator(lines, trainer)
    return rust.to_str()


def _pieces(family: Family) -> dict[str, Any]:
    state = json.loads(_learned_pieces())
    vocab, further = (
        state["model"]["vocab"],
        [token for token in family.added if token[0] not in ("<unk>", "<s>", "</s>")],
    )
    for content, *_ in further:  # as sentencepiece counts its user-defined symbols in
        vocab.setdefault(content, len(vocab))
    state["added_tokens"] = [_token(vocab[content], content, special, normalized)
                             for content, special, normalized in family.added]  # fmt: skip
    state["post_processor"] = _frame(family.frame, state["added_tokens"])
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    state["decoder"] = {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]}
    return state


def _frame(bos: str, added: Iterable[dict[str, Any]]) -> dict[str, Any]:
    ids = {token["content"]: token["id"] for token in added}
    start, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    special = {bos: {"id": bos, "ids": [ids[bos]], "tokens": [bos]}}
    other = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [start, text],
        "pair": [start, text, other],
        "special_tokens": special,
    }


def _table(content: str, *, normalized: bool = False) -> dict[str, Any]:
    """A named token as configs of 2023 write it."""
    return {
        "__type": "AddedToken", "content": content, "lstrip": False, "normalized": normalized, "rstrip": False,
        "single_word": False,
    }  # fmt: skip


# --- templates, written here ------------------------------------------------------------------------------------------

LLAMA2 = """
{%- if messages[0]['role'] == 'system' -%}
    {%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set system, turns = '', messages -%}
{%- endif -%}
{%- for turn in turns -%}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('Roles must take turns: user, assistant, user, ...') -}}
    {%- endif -%}
    {%- if turn['role'] == 'user' -%}
        {{- bos_token + '[INST] ' + (system if loop.first else '') + turn['content'].strip() + ' [/INST]' -}}
    {%- else -%}
        {{- ' ' + turn['content'].strip() + ' ' + eos_token -}}
    {%- endif -%}
{%- endfor -%}
"""

LLAMA3 = """
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now('%d %b %Y') %}
{%- endif %}
{%- set ns = namespace(system='', start=0) %}
{%- if messages[0].role == 'system' %}
    {%- set ns.system = messages[0].content | trim %}
    {%- set ns.start = 1 %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}
    {{- 'Environment: ipython\\n' }}
{%- endif %}
{{- 'Today Date: ' + date_string + '\\n\\n' }}
{%- if tools is not none %}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- '\\n\\n' }}
    {%- endfor %}
{%- endif %}
{{- ns.system + '<|eot_id|>' }}
{%- for message in messages[ns.start:] %}
    {%- if message.role in ['tool', 'ipython'] %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- '<|eot_id|>' }}
    {%- elif message.tool_calls %}
        {%- if message.tool_calls | length != 1 %}
            {{- raise_exception('One call at a time.') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}' }}
        {{- '<|eom_id|>' if tools is not none else '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """
{%- set system = messages[0].content if messages[0].role == 'system' else none %}
{%- set turns = messages[1:] if system is not none else messages %}
{%- set users = turns | selectattr('role', 'equalto', 'user') | list %}
{%- set ns = namespace(expected='user') %}
{%- for turn in turns if turn.role in ['user', 'assistant'] and not turn.tool_calls %}
    {%- if turn.role != ns.expected %}
        {{- raise_exception('After the system message, user and assistant must alternate.') }}
    {%- endif %}
    {%- set ns.expected = 'assistant' if ns.expected == 'user' else 'user' %}
{%- endfor %}
{{- bos_token }}
{%- for turn in turns %}
    {%- if turn.role == 'user' %}
        {%- if tools is not none and turn == users[-1] %}
            {{- '[AVAILABLE_TOOLS] [' }}
            {%- for tool in tools %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, value in tool.function.items() if key != 'return' %}
                    {{- '"' + key + '": ' + (value | tojson) }}
                    {%- if not loop.last %}{{ ', ' }}{% endif %}
                {%- endfor %}
                {{- '}}' }}
                {{- ', ' if not loop.last else ']' }}
            {%- endfor %}
            {{- '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST] ' }}
        {%- if loop.last and system is not none %}{{ system + '\\n\\n' }}{% endif %}
        {{- turn.content + '[/INST]' }}
    {%- elif turn.tool_calls %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in turn.tool_calls %}
            {%- if call.id is not defined or call.id | length != 9 %}
                {{- raise_exception('The id of a tool call has nine characters.') }}
            {%- endif %}
            {%- set written = call.function | tojson %}
            {{- written[:-1] + ', "id": "' + call.id + '"}' }}
            {{- ', ' if not loop.last else ']' + eos_token }}
        {%- endfor %}
    {%- elif turn.role == 'assistant' %}
        {{- ' ' + turn.content | trim + eos_token }}
    {%- elif turn.role == 'tool' %}
        {{- '[TOOL_RESULTS] {"content": ' + turn.content | string }}
        {{- ', "call_id": "' + turn.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
"""

QWEN_TOOLS = """
{%- macro told(text) %}
    {{- '# Tools\\n\\nYou may call:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools>\\n\\nCall one within <tool_call></tool_call> tags.' }}
{%- endmacro %}
"""

QWEN25 = (
    QWEN_TOOLS
    + """
{%- set first = messages[0].content if messages[0]['role'] == 'system' else 'You are a small model, grown here.' %}
{{- '<|im_start|>system\\n' + first }}
{%- if tools %}
    {{- '\\n\\n' + told() }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for message in messages %}
    {%- if (message.role == 'user') or (message.role == 'system' and not loop.first)
            or (message.role == 'assistant' and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for call in message.tool_calls %}
            {%- if call.function is defined %}
                {%- set call = call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
)

QWEN3 = (
    QWEN_TOOLS
    + """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- told() + '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(looking=true, asked=messages | length - 1) %}
{%- for message in messages[::-1] %}
    {%- set place = messages | length - 1 - loop.index0 %}
    {%- if ns.looking and message.role == 'user' and message.content is string
            and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.looking = false %}
        {%- set ns.asked = place %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.asked and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n' if content or not loop.first else '' }}
            {%- set call = call.function or call %}
            {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments if call.arguments is string else call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user' if loop.first or messages[loop.index0 - 1].role != 'tool' else '' }}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {{- '<|im_end|>\\n' if loop.last or messages[loop.index0 + 1].role != 'tool' else '' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
)

DEEPSEEK2 = """
{%- if not add_generation_prompt is defined -%}{%- set add_generation_prompt = false -%}{%- endif -%}
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- 'User: ' + message['content'] + '\\n\\n' -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- 'Assistant: ' + message['content'] + eos_token -}}
    {%- elif message['role'] == 'system' -%}
        {{- message['content'] + '\\n\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}
"""

DEEPSEEK = """
{%- set ns = namespace(is_tool=false, is_first=true, system='') -%}
{%- for message in messages if message['role'] == 'system' -%}
    {%- set ns.system = ns.system + ('' if loop.first else '\\n\\n') + message['content'] -%}
{%- endfor -%}
{{- bos_token + ns.system -}}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {%- set ns.is_tool = false -%}
        {{- '<｜User｜>' + message['content'] -}}
    {%- elif message['role'] == 'assistant' and message['tool_calls'] is defined -%}
        {%- set ns.is_tool = false -%}
        {{- '<｜Assistant｜>' + (message['content'] or '') + '<｜tool▁calls▁begin｜>' -}}
        {%- for call in message['tool_calls'] -%}
            {{- ('' if loop.first else '\\n') + '<｜tool▁call▁begin｜>' + call['type'] + '<｜tool▁sep｜>' -}}
            {{- call['function']['name'] + '\\n```json\\n' + call['function']['arguments'] | tojson + '\\n```' -}}
            {{- '<｜tool▁call▁end｜>' -}}
        {%- endfor -%}
        {{- '<｜tool▁calls▁end｜>' + eos_token -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- '<｜tool▁outputs▁end｜>' if ns.is_tool else '<｜Assistant｜>' -}}
        {%- set ns.is_tool = false -%}
        KEPT
    {%- elif message['role'] == 'tool' -%}
        {{- '\\n' if ns.is_tool else '<｜tool▁outputs▁begin｜>' -}}
        {%- set ns.is_tool = true -%}
        {{- '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if ns.is_tool -%}
    {{- '<｜tool▁outputs▁end｜>' -}}
{%- elif add_generation_prompt -%}
    {{- '<｜Assistant｜>OPENED' -}}
{%- endif -%}
"""
DEEPSEEK3 = DEEPSEEK.replace("KEPT", "{{- message['content'] + eos_token -}}").replace("OPENED", "")
R1 = DEEPSEEK.replace(
    "KEPT",
    """{%- set content = message['content'] -%}
        {%- if '</think>' in content -%}{%- set content = content.split('</think>')[-1] -%}{%- endif -%}
        {{- content + eos_token -}}""",
).replace("OPENED", "<think>\\n")

# --- the families -----------------------------------------------------------------------------------------------------

SPECIAL = (True, False)
TOOLS_V3 = [f"<｜tool▁{name}｜>" for name in (
    "calls▁begin", "calls▁end", "call▁begin", "call▁end", "outputs▁begin", "outputs▁end", "output▁begin", "output▁end",
    "sep",
)]  # fmt: skip
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
LLAMA_CONFIG = {
    "add_bos_token": True, "add_eos_token": False, "bos_token": _table("<s>"), "eos_token": _table("</s>"),
    "unk_token": _table("<unk>"), "pad_token": None, "legacy": False, "tokenizer_class": "LlamaTokenizer",
    "clean_up_tokenization_spaces": False, "model_max_length": 4096, "sp_model_kwargs": {},
}  # fmt: skip
LLAMA_ADDED = [("<unk>", *SPECIAL), ("<s>", *SPECIAL), ("</s>", *SPECIAL)]
LLAMA3_ADDED = [(f"<|{name}|>", *SPECIAL) for name in (
    "begin_of_text", "end_of_text", "reserved_special_token_0", "finetune_right_pad_id", "start_header_id",
    "end_header_id", "eom_id", "eot_id", "python_tag", "reserved_special_token_1",
)]  # fmt: skip
QWEN_ADDED = [(f"<|{name}|>", *SPECIAL) for name in ("endoftext", "im_start", "im_end")]
QWEN_TAGS = [(name, False, False) for name in ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_suffix|>")]
QWEN_CONFIG = {
    "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>", "unk_token": None,
    "pad_token": "<|endoftext|>", "clean_up_tokenization_spaces": False, "errors": "replace", "decoder_table": True,
    "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "split_special_tokens": False,
    "tokenizer_class": "Qwen2Tokenizer",
}  # fmt: skip
DEEPSEEK_CONFIG = {
    "add_bos_token": True, "add_eos_token": False, "bos_token": _table(BOS, normalized=True),
    "eos_token": _table(EOS, normalized=True), "pad_token": _table(EOS, normalized=True), "unk_token": None,
    "legacy": True, "clean_up_tokenization_spaces": False, "tokenizer_class": "LlamaTokenizerFast",
    "sp_model_kwargs": {},
}  # fmt: skip
DISTILL_TAGS = [
    ("<｜User｜>", False, False),
    ("<｜Assistant｜>", False, False),
    (BOS, *SPECIAL),
    ("<|EOT|>", False, False),
]
THOUGHT = [("<think>", False, False), ("</think>", False, False)]
V3_ADDED = [
    (BOS, *SPECIAL), (EOS, *SPECIAL), ("<｜▁pad▁｜>", *SPECIAL),
    *((f"<｜place▁holder▁no▁{n}｜>", True, False) for n in range(20)),
    *((f"<｜fim▁{name}｜>", False, True) for name in ("hole", "begin", "end")),
    ("<｜User｜>", False, True), ("<｜Assistant｜>", False, True), ("<|EOT|>", True, True),
    *((name, False, True) for name in TOOLS_V3),
]  # fmt: skip

FAMILIES = {family.name: family for family in (
    Family(
        "llama2", LLAMA_ADDED, LLAMA_CONFIG, LLAMA2, is_pieces=True, frame="<s>", model={"model_type": "llama"},
        beside={"in_config": True, "stops": ["</s>"],
                "special_tokens_map": {"bos_token": _table("<s>"), "eos_token": _table("</s>")}},
    ),
    Family(
        "llama3", LLAMA3_ADDED,
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "clean_up_tokenization_spaces": True,
         "decoder_table": True, "model_input_names": ["input_ids", "attention_mask"], "model_max_length": 131072,
         "tokenizer_class": "PreTrainedTokenizerFast"},
        LLAMA3, splits=[GPT4], frame="<|begin_of_text|>", ignore_merges=True, model={"model_type": "llama"},
        generation={"eos": ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]},
        beside={"in_config": True, "stops": ["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"],
                "special_tokens_map": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}},
    ),
    Family(
        "mistral",
        [*LLAMA_ADDED, *((name, *SPECIAL) for name in (
            "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]"))],
        {key: value for key, value in LLAMA_CONFIG.items() if key != "legacy"} | {"decoder_table": True},
        MISTRAL, is_pieces=True, frame="<s>", model={"model_type": "mistral"}, beside={"stops": ["</s>"]},
    ),
    Family(
        "qwen2.5", [*QWEN_ADDED, *QWEN_TAGS], QWEN_CONFIG, QWEN25, splits=[QWEN], normal="NFC",
        model={"model_type": "qwen2"}, generation={"eos": ["<|im_end|>", "<|endoftext|>"]},
        beside={"in_config": True, "stops": ["<|im_end|>", "<|endoftext|>"]},
    ),
    Family(
        "qwen3",
        [*QWEN_ADDED, *QWEN_TAGS, ("<tool_response>", False, False), ("</tool_response>", False, False), *THOUGHT],
        QWEN_CONFIG, QWEN3, splits=[QWEN], normal="NFC", model={"model_type": "qwen3"},
        generation={"eos": ["<|im_end|>", "<|endoftext|>"]},
        beside={"in_config": True, "stops": ["<|im_end|>", "<|endoftext|>"]}, edits=True,
    ),
    Family(
        "deepseek_v2", [(BOS, True, True), (EOS, True, True), *((word, False, True) for word in WORDS_V2)],
        DEEPSEEK_CONFIG, DEEPSEEK2, splits=DEEPSEEK_V2, digits=True, frame=BOS, model={"model_type": "deepseek_v2"},
        beside={"in_config": True, "stops": [EOS]},
    ),
    Family(
        "deepseek_v3", V3_ADDED, DEEPSEEK_CONFIG, DEEPSEEK3, splits=DEEPSEEK_V3, frame=BOS,
        model={"model_type": "deepseek_v3"}, beside={"in_config": True, "stops": [EOS]},
    ),
    Family(
        "deepseek_r1", [*V3_ADDED, *((name, False, True) for name, *_ in THOUGHT)], DEEPSEEK_CONFIG, R1,
        splits=DEEPSEEK_V3, frame=BOS, model={"model_type": "deepseek_v3"}, beside={"stops": [EOS]}, edits=True,
    ),
    Family(
        "r1_distill_qwen",
        [(EOS, *SPECIAL), *DISTILL_TAGS, *QWEN_TAGS, *THOUGHT, *((name, False, False) for name in TOOLS_V3)],
        DEEPSEEK_CONFIG, R1, splits=[QWEN], normal="NFC", frame=BOS, model={"model_type": "qwen2"},
        beside={"in_config": True, "stops": [EOS]}, edits=True,
    ),
    Family(
        "r1_distill_llama",
        [(BOS, *SPECIAL), (EOS, *SPECIAL), *(token for token in LLAMA3_ADDED if token[0] != "<|eot_id|>"),
         ("<｜User｜>", False, False), ("<｜Assistant｜>", False, False), *THOUGHT,
         *((name, False, False) for name in TOOLS_V3)],
        DEEPSEEK_CONFIG, R1, splits=[GPT4], frame=BOS, ignore_merges=True, model={"model_type": "llama"},
        beside={"stops": [EOS]}, edits=True,
    ),
)}  # fmt: skip
"""The families, each by a name of this file."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather", "description": "The weather in a città 🌦, as <b>HTML</b> & text",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}  # fmt: skip


def _user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _assistant(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


_CALL = {"id": "abcd12345", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich"}}}

TALKS: dict[str, list[dict[str, Any]]] = {
    "one turn": [_user("What is 7 * 6?"), _assistant("It is 42.")],
    "a system": [{"role": "system", "content": "Be brief. 简短。"}, _user("你好 🐳"), _assistant("你好!\n\n再见")],
    "two turns": [
        _user("Hi\n"), _assistant("  Hello there. "), _user("def f(x):\n\treturn x"), _assistant("code 123456"),
    ],
    "thoughts": [
        _user("2+2?"), _assistant("<think>\nTwo and two.\n</think>\n\nIt is 4."),
        _user("And 3+3?"), _assistant("<think>\nThree and three 🐳.\n</think>\n\nIt is 6."),
    ],
}  # fmt: skip
"""Conversations that every family's template takes."""

TOOL_TALK: list[dict[str, Any]] = [
    _user("Weather in Zürich?"), _assistant("", tool_calls=[_CALL]),
    {"role": "tool", "name": "get_weather", "tool_call_id": "abcd12345", "content": '{"sky": "blue 🌤", "t": 21}'},
    _assistant("It is blue, 21 degrees."),
]  # fmt: skip
"""A conversation with a call of ``WEATHER``, for templates that know tools."""

WITH_TOOLS = (
    "llama3",
    "mistral",
    "qwen2.5",
    "qwen3",
    "deepseek_v3",
    "deepseek_r1",
    "r1_distill_qwen",
    "r1_distill_llama",
)
