"""Adapters against loops, against themselves in every form, and against PEFT on transformers' models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from seekling.engine.config import Sampling
from seekling.engine.engine import Engine
from seekling.model.decoder import Decoder
from seekling.model.lora import LowRank, adapters, add_adapters, load_adapter, merged, reference_of, save_adapter
from seekling.model.moe import DeepSeekMoE, run_experts
from seekling.model.weights import load_model, save_model
from tests.oracles import decoder as oracle
from tests.oracles.families import gap, logits_of_ours, logits_of_theirs, prompts, theirs
from tests.oracles.paged import PLAIN, chunk_of, pool
from tests.oracles.tiny import SHAPES, alone, build, packed, text
from tests.parity.test_engine import STOP, ask, judge
from tests.parity.test_moe import LOADS, Stacked, looped, stacked

CLOSE = dict(rtol=1e-4, atol=2e-5)
LIMIT = 1e-4
"""Largest difference of logits, relative to the largest logit, in float32."""
EVERY_SHAPE = pytest.mark.parametrize("name", SHAPES)
ALL = ("self_attn", "mlp")


def learned(model: Decoder, *, rank: int = 4, targets: tuple[str, ...] = ALL, size: float = 0.3) -> Decoder:
    """Adapters that have left zero, far enough to change what is said."""
    add_adapters(model, rank=rank, scale=2.0, targets=targets, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for pair in adapters(model).values():
            pair.B.copy_(size * torch.randn(pair.B.shape, generator=generator))
    return model


def looped_sum(matrix: np.ndarray, pair: LowRank) -> np.ndarray:
    """W + (alpha/r) B A, one element after the other, expert by expert."""
    a, b, w = (
        np.atleast_3d(t.T).T for t in (pair.A.detach().double().numpy(), pair.B.detach().double().numpy(), matrix)
    )
    out = w.copy()
    for e in range(len(w)):
        for i in range(w.shape[1]):
            for j in range(w.shape[2]):
                out[e, i, j] += pair.scale * sum(b[e, i, k] * a[e, k, j] for k in range(a.shape[1]))
    return out.reshape(matrix.shape)


@EVERY_SHAPE
def test_an_adapted_decoder_equals_the_papers_loops(name: str) -> None:
    """W x + (alpha/r) B A x in every map: the oracle's matrices are summed element by element."""
    config, tokens = SHAPES[name], text(9)
    model = learned(build(config), rank=2)
    state, pairs = model.state_dict(), adapters(model)
    weights = {n: t.double().numpy() for n, t in state.items() if "adapter." not in n}
    weights |= {n: looped_sum(weights[n], pair) for n, pair in pairs.items()}
    with torch.no_grad():
        mine = model.logits(model(alone(tokens)).states_BTD)[0]
    np.testing.assert_allclose(mine, oracle.logits(tokens, weights, config), **CLOSE)


@EVERY_SHAPE
def test_merged_and_unmerged_say_the_same(name: str) -> None:
    model = learned(build(SHAPES[name], dtype=torch.float64))
    rows = packed([[text(9, 1), text(5, 2)], [text(7, 3)]], 16)
    with torch.no_grad():
        ours, whole, base = (m.logits(m(rows).states_BTD) for m in (model, merged(model), reference_of(model)))
    torch.testing.assert_close(ours, whole, rtol=1e-9, atol=1e-9)
    assert float((ours - base).abs().max()) > 0.5, "the adapters change nothing"


@EVERY_SHAPE
@pytest.mark.parametrize("targets", [ALL, ("kv_b_proj", "k_proj"), ("o_proj", "experts", "down_proj")], ids=str)
def test_adapted_decoding_equals_the_adapted_forward(name: str, targets: tuple[str, ...]) -> None:
    """Latent attention decodes absorbed: its keys and values pass through the adapter's two halves."""
    model = build(SHAPES[name], dtype=torch.float64)
    known = {n.split(".")[-1] for n, _ in model.named_modules()} | ({"experts"} if model.routers() else set())
    learned(model, targets=tuple(t for t in targets if t in known or t in ALL))
    texts, starts = [text(14, 1), text(9, 2), text(11, 3)], [5, 1, 8]
    pages, tables = pool(model.config, 3, 16, torch.float64)
    with torch.no_grad():
        model.extend(chunk_of([t[:s] for t, s in zip(texts, starts, strict=True)], [0, 0, 0], tables), pages, PLAIN)
        for step in range(3):
            lengths = [start + step for start in starts]
            following = [[t[length]] for t, length in zip(texts, lengths, strict=True)]
            hidden = model.extend(chunk_of(following, lengths, tables), pages, PLAIN)
            for row, (so_far, length) in enumerate(zip(texts, lengths, strict=True)):
                whole = model(alone(so_far[: length + 1])).states_BTD[0, -1]
                torch.testing.assert_close(hidden.states_BTD[row], whole, rtol=1e-6, atol=1e-6)


@EVERY_SHAPE
def test_the_engine_says_what_the_adapted_learner_reads(name: str) -> None:
    model, requests = learned(build(SHAPES[name])), ask(20)
    said = Engine(model, STOP).generate(requests, Sampling(temperature=0.8, max_tokens=12))
    for request, completion in zip(requests, said, strict=True):
        judged = judge(model, request, completion, replay=True, temperature=0.8)
        np.testing.assert_allclose(completion.logps, judged.logps, rtol=0, atol=1e-4)


def test_the_engine_says_what_the_merged_model_says_greedily() -> None:
    for name in ("v3", "qwen3"):
        model, requests = learned(build(SHAPES[name], dtype=torch.float64)), ask(6)
        sampling = Sampling(temperature=0, max_tokens=12)
        adapted, whole = (Engine(m, STOP).generate(requests, sampling) for m in (model, merged(model)))
        assert [c.tokens for c in adapted] == [c.tokens for c in whole]


@pytest.mark.parametrize("width, hidden, rank", [(16, 8, 8), (16, 8, 3), (7, 5, 8)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("load", LOADS)
def test_grouped_adapted_experts_equal_looped_ones_in_value_and_gradient(
    load: str, dtype: torch.dtype, width: int, hidden: int, rank: int
) -> None:
    s, chosen_NA = stacked(11, 5, 2, width, hidden, dtype), torch.tensor(LOADS[load](11))
    pairs = [LowRank(matrix, rank, 0.7).to(dtype) for matrix in (s.gate_up_EFD, s.down_EDF)]
    generator = torch.Generator().manual_seed(3)
    for half in (half for pair in pairs for half in (pair.A, pair.B)):
        half.data.copy_(torch.randn(half.shape, generator=generator, dtype=dtype))
    whole = Stacked(
        s.x_ND, s.weights_NA, *(p.merged(m) for p, m in zip(pairs, (s.gate_up_EFD, s.down_EDF), strict=True))
    )
    halves = [half for pair in pairs for half in (pair.A, pair.B)]
    grouped = run_experts(s.x_ND, chosen_NA, s.weights_NA, s.gate_up_EFD, s.down_EDF, *pairs)
    slow = looped(whole, chosen_NA)
    torch.testing.assert_close(grouped, slow, rtol=1e-3, atol=1e-3)
    mine, other = (torch.autograd.grad(out.square().sum(), halves, retain_graph=True) for out in (grouped, slow))
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a / b.norm(), b / b.norm(), rtol=1e-3, atol=1e-4)


# --- PEFT -------------------------------------------------------------------------------------------------------------

THEIR_OWN = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
"""What PEFT asks of transformers, and transformers would have asked otherwise."""
FAMILIES = pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3_moe", "deepseek_v2", "deepseek_v3"])


def differ(ours: Decoder, other: Any) -> float:
    return gap(logits_of_ours(ours, prompts(0)), logits_of_theirs(other, prompts(0)))


def in_peft(base: Any, folder: Path) -> Any:
    """The folder as PEFT loads it: a tensor that it misses or does not expect is a warning, and that an error."""
    return PeftModel.from_pretrained(base, str(folder)).eval()


@THEIR_OWN
@FAMILIES
@pytest.mark.parametrize("targets", [ALL, ("self_attn",), ("mlp",), ("layers.0",)], ids=str)
def test_peft_loads_what_we_save_and_says_the_same(family: str, targets: tuple[str, ...], tmp_path: Path) -> None:
    """Attention, dense and shared experts, and routed experts too, on transformers' own model."""
    base = theirs(family, 3)
    base.save_pretrained(tmp_path / "base")
    ours = learned(load_model(tmp_path / "base"), targets=targets)
    save_adapter(tmp_path / "adapter", ours, str(tmp_path / "base"))
    loaded = in_peft(base, tmp_path / "adapter")
    assert differ(ours, loaded) < LIMIT
    assert differ(reference_of(ours), loaded) > 0.05, "the adapters change nothing"


@THEIR_OWN
@FAMILIES
def test_what_peft_saves_again_comes_back_to_the_bit(family: str, tmp_path: Path) -> None:
    base = theirs(family, 4)
    base.save_pretrained(tmp_path / "base")
    ours = learned(load_model(tmp_path / "base"))
    save_adapter(tmp_path / "adapter", ours, str(tmp_path / "base"))
    in_peft(base, tmp_path / "adapter").save_pretrained(tmp_path / "again")
    back = load_adapter(tmp_path / "again", load_model(tmp_path / "base")).state_dict()
    assert back.keys() == ours.state_dict().keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in ours.state_dict().items())


MADE_THERE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", dict(target_modules=["q_proj", "v_proj", "down_proj"])),
    "all linear, rank-stabilised": ("qwen2", dict(target_modules="all-linear", use_rslora=True)),
    "ranks and alphas of their own": (
        "llama",
        dict(target_modules=["q_proj", "o_proj"], rank_pattern={"o_proj": 3}, alpha_pattern={"layers.0.*q_proj": 5}),
    ),
    "latent attention and shared experts": (
        "deepseek_v3",
        dict(target_modules=["kv_a_proj_with_mqa", "kv_b_proj", "o_proj"],
             target_parameters=["shared_experts.up_proj.weight"]),
    ),
    "experts by the names they had": ("deepseek_v3", dict(target_modules=["kv_b_proj", "gate_proj", "up_proj"])),
    "one stack of experts": ("qwen3_moe", dict(target_modules=["q_proj"], target_parameters=["experts.down_proj"])),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning")
@THEIR_OWN
@pytest.mark.parametrize("case", MADE_THERE)
def test_what_peft_made_says_the_same_here(case: str, tmp_path: Path) -> None:
    family, settings = MADE_THERE[case]
    base = theirs(family, 5)
    base.save_pretrained(tmp_path / "base")
    other = get_peft_model(base, LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **settings)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, half in other.named_parameters():
            if "lora_B" in name:
                half.copy_(0.3 * torch.randn(half.shape, generator=generator))
    other.save_pretrained(tmp_path / "adapter")
    ours = load_adapter(tmp_path / "adapter", load_model(tmp_path / "base"))
    assert differ(ours, other) < LIMIT
    assert differ(reference_of(ours), other) > 0.02, "the adapters change nothing"


@THEIR_OWN
@pytest.mark.parametrize("stack", ["gate_up_proj", "down_proj"])
def test_adapters_of_one_stack_of_experts_go_there_and_back(stack: str, tmp_path: Path) -> None:
    """With one stack PEFT wraps once, and its name is that of the second where there are two."""
    base = theirs("deepseek_v3", 7)
    base.save_pretrained(tmp_path / "base")
    ours = learned(load_model(tmp_path / "base"), targets=("experts",))
    for block in ours.blocks:
        if isinstance(block.mlp, DeepSeekMoE):
            setattr(block.mlp, "gate_up_adapter" if stack == "down_proj" else "down_adapter", None)
    save_adapter(tmp_path / "adapter", ours, str(tmp_path / "base"))
    loaded = in_peft(base, tmp_path / "adapter")
    assert differ(ours, loaded) < LIMIT
    loaded.save_pretrained(tmp_path / "again")
    back = load_adapter(tmp_path / "again", load_model(tmp_path / "base"))
    assert adapters(back).keys() == adapters(ours).keys() and differ(back, loaded) < LIMIT


@pytest.mark.parametrize("family", ["qwen2", "deepseek_v3"])
def test_transformers_loads_the_merged_model_and_says_the_same(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs(family, 6).save_pretrained(tmp_path / "base")
    ours = learned(load_model(tmp_path / "base"))
    save_model(tmp_path / "merged", merged(ours))
    back, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", output_loading_info=True, dtype=torch.float32, experts_implementation="eager"
    )
    ahead = f"model.layers.{ours.config.num_hidden_layers}."
    assert not report["missing_keys"]
    assert not [key for key in report["unexpected_keys"] if not key.startswith(ahead)]
    assert differ(ours, back.eval()) < LIMIT


@THEIR_OWN
def test_a_is_drawn_as_widely_as_peft_draws_it() -> None:
    base = theirs("llama", 1)
    other = get_peft_model(base, LoraConfig(r=64, target_modules=["q_proj"]))
    bounds = {n: float(p.detach().abs().max()) for n, p in other.named_parameters() if "lora_A" in n}
    model = add_adapters(build(SHAPES["llama"]), rank=64, scale=1.0, targets=("q_proj",), seed=0)
    for widest, num_in in [(b, base.config.hidden_size) for b in bounds.values()] + [
        (float(pair.A.detach().abs().max()), pair.A.shape[-1]) for pair in adapters(model).values()
    ]:
        assert widest == pytest.approx(num_in**-0.5, rel=0.01) and widest <= num_in**-0.5


def test_the_oracle_of_this_file_adds_what_it_says() -> None:
    pair = LowRank(torch.zeros(2, 3), 1, 2.0)
    pair.A.data, pair.B.data = Tensor([[1, 2, 3]]), Tensor([[1], [10]])
    assert looped_sum(np.ones((2, 3)), pair).tolist() == [[3, 5, 7], [21, 41, 61]]
