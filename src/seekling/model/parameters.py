"""Every parameter of a decoder by name and shape, from its config alone: nothing is allocated, torch is not imported.

Also what a person calls them: names are those of transformers, ``model.layers.0.self_attn.q_proj``; the routed experts
of a layer are one part, ``model.layers.1.mlp.experts``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from seekling.errors import UserError, nearest
from seekling.model.config import ModelConfig

Shape = tuple[int, ...]


def shapes(config: ModelConfig) -> dict[str, Shape]:
    """The parameters of ``Decoder(config)``, named as it names them."""
    width, vocab = config.hidden_size, config.vocab_size
    found: dict[str, Shape] = {"embed_tokens.weight": (vocab, width), "norm.weight": (width,)}
    if not config.tie_word_embeddings:
        found["lm_head.weight"] = (vocab, width)
    for layer in range(config.num_hidden_layers):
        found |= _under(f"layers.{layer}", _block(config, layer))
    if config.num_nextn_predict_layers:
        own = {"enorm.weight": (width,), "hnorm.weight": (width,), "norm.weight": (width,)}
        found |= _under("mtp", own | {"eh_proj.weight": (width, 2 * width)})
        found |= _under("mtp.block", _block(config, config.num_hidden_layers))
    return found


def _under(prefix: str, own: Mapping[str, Shape]) -> dict[str, Shape]:
    return {f"{prefix}.{name}": shape for name, shape in own.items()}


def _block(config: ModelConfig, layer: int) -> dict[str, Shape]:
    width = config.hidden_size
    latent = config.parts.attention == "mla"
    return {
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
        **_under("self_attn", dict(_latent(config) if latent else _grouped(config))),
        **_under("mlp", dict(_experts(config) if config.is_moe(layer) else _dense(config))),
    }


def _map(name: str, num_in: int, num_out: int, *, bias: bool = False) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (num_out, num_in)
    if bias:
        yield f"{name}.bias", (num_out,)


def _grouped(c: ModelConfig) -> Iterator[tuple[str, Shape]]:
    head, width, bias = c.qk_head_dim, c.hidden_size, c.attention_bias or c.parts.qkv_bias
    yield from _map("q_proj", width, c.num_attention_heads * head, bias=bias)
    yield from _map("k_proj", width, c.kv_heads * head, bias=bias)
    yield from _map("v_proj", width, c.kv_heads * head, bias=bias)
    yield from _map("o_proj", c.num_attention_heads * head, width, bias=c.attention_bias)
    if c.parts.qk_norm:
        yield from (("q_norm.weight", (head,)), ("k_norm.weight", (head,)))


def _latent(c: ModelConfig) -> Iterator[tuple[str, Shape]]:
    width, heads, bias = c.hidden_size, c.num_attention_heads, c.attention_bias
    if c.q_lora_rank is None:
        yield from _map("q_proj", width, heads * c.qk_head_dim)
    else:
        yield from _map("q_a_proj", width, c.q_lora_rank, bias=bias)
        yield "q_a_layernorm.weight", (c.q_lora_rank,)
        yield from _map("q_b_proj", c.q_lora_rank, heads * c.qk_head_dim)
    yield from _map("kv_a_proj_with_mqa", width, c.kv_lora_rank + c.qk_rope_head_dim, bias=bias)
    yield "kv_a_layernorm.weight", (c.kv_lora_rank,)
    yield from _map("kv_b_proj", c.kv_lora_rank, heads * (c.qk_nope_head_dim + c.v_head_dim))
    yield from _map("o_proj", heads * c.v_head_dim, width, bias=bias)


def _dense(c: ModelConfig) -> Iterator[tuple[str, Shape]]:
    yield from _gated(c.hidden_size, c.intermediate_size, bias=c.mlp_bias)


def _gated(width: int, hidden: int, *, bias: bool = False) -> Iterator[tuple[str, Shape]]:
    yield from _map("gate_proj", width, hidden, bias=bias)
    yield from _map("up_proj", width, hidden, bias=bias)
    yield from _map("down_proj", hidden, width, bias=bias)


def _experts(c: ModelConfig) -> Iterator[tuple[str, Shape]]:
    assert c.n_routed_experts is not None
    width, hidden, experts = c.hidden_size, c.moe_intermediate_size, c.n_routed_experts
    yield "gate.weight", (experts, width)
    yield "gate_up_proj", (experts, 2 * hidden, width)
    yield "down_proj", (experts, width, hidden)
    if c.n_shared_experts:
        yield from _under("shared_experts", dict(_gated(width, hidden * c.n_shared_experts))).items()


# --- by name ----------------------------------------------------------------------------------------------------------


def told(name: str) -> str:
    """What transformers calls a parameter of ours; the prediction layer, which it does not know, keeps its name."""
    stack = re.search(r"\.mlp\.(?=gate_up_proj$|down_proj$)", name)
    name = name if stack is None else f"{name[: stack.end()]}experts.{name[stack.end() :]}"
    return name if name.startswith(("lm_head", "mtp.")) else f"model.{name}"


def matching(patterns: Iterable[str], names: Iterable[str]) -> set[str]:
    """The names that patterns speak of: ``mlp.gate`` whole dotted parts, ``layers.[0-3].*`` as in a shell.

    Raises UserError for a pattern that speaks of none, with what it may have meant.
    """
    known, found = list(names), set()
    for pattern in patterns:
        own = {name for name in known if fnmatchcase(f".{name}.", f"*.{pattern}.*")}
        if not own:
            raise UserError(
                f'nothing that could be trained here is called "{pattern}"', next_step=_meant(pattern, known)
            )
        found |= own
    return found


def _meant(pattern: str, names: Iterable[str]) -> str:
    """Names without their place (``self_attn.q_proj``) that are near; of those far away, all."""
    plain = {re.sub(r"^model\.|layers\.\d+\.|\.(weight|bias)$", "", name) for name in names}
    by_end = {name.rpartition(".")[2]: name for name in sorted(plain)}
    hint = nearest(pattern, plain | by_end.keys() if nearest(pattern, by_end).startswith("did") else plain)
    return hint[:1].upper() + hint[1:]


def adapter_shapes(config: ModelConfig, rank: int, targets: Iterable[str]) -> dict[str, Shape]:
    """Both halves of every low-rank adapter that ``model.lora.add_adapters`` would put up, by what it stands beside.

    Raises UserError for a target that speaks of none.
    """
    beside: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes(config).items():
        if name.startswith("layers.") and len(shape) >= 2 and not name.endswith("mlp.gate.weight"):
            site = told(name).removesuffix(".weight") if len(shape) == 2 else told(name).rpartition(".")[0]
            beside.setdefault(site, {})[name] = shape
    found: dict[str, Shape] = {}
    for site in matching(targets, beside):
        for name, (*stack, num_out, num_in) in beside[site].items():
            found |= {f"{name}/A": (*stack, rank, num_in), f"{name}/B": (*stack, num_out, rank)}
    return found
