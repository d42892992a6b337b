"""Preference losses against TRL's own (committed vectors); reward models against transformers' class of one label."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from seekling.errors import UserError
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.reading import read, values_after
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder, Hidden
from seekling.model.heads import add_head, head_of, load_scored, save_scored, speechless
from seekling.model.lora import add_adapters, merged
from seekling.model.weights import Shards, load_model
from seekling.recipes import dpo as recipe
from seekling.recipes import reward_model as rating
from seekling.recipes.config import Dpo, RewardModel
from seekling.recipes.pairs import Couple
from seekling.recipes.preferring import means, weighed
from tests.oracles.tiny import COMMON, EXPERTS, LATENT, V, alone, build, text

TRL = json.loads((Path(__file__).parent / "vectors/trl-preference.json").read_text())
NOBODY: Any = None


class Stateless:
    """A model that says nothing and has no prediction layer."""

    mtp = None

    def __call__(self, *given: object) -> Hidden:
        return Hidden(torch.empty(0))


STATELESS: Any = Stateless()
"""The model of a pass whose numbers are given."""

ASKED = {
    "dpo": dict(loss="dpo"),
    "ipo per token": dict(loss="ipo", average=True),
    "dpo per token": dict(loss="dpo", average=True),
    "dpo and nll": dict(loss="dpo", nll=0.2),
    "cdpo": dict(loss="dpo", label_smoothing=0.1),
}


def settings(**told: Any) -> Dpo:
    return Dpo(name="liked", data="pairs.jsonl", steps=1, beta=TRL["beta"], **told)


def laid_out(row_tokens: int) -> Batch:
    """TRL's pairs as a step would lay them out, the policy's log-probabilities among the values."""
    told = [side for pair in TRL["pairs"] for side in pair]
    blank = [np.zeros(side["prompt"], np.float32) for side in told]
    masks = [np.r_[b, np.ones(len(side["policy"]), np.float32)] for b, side in zip(blank, told, strict=True)]
    texts = weighed([Text([1] * len(mask), mask) for mask in masks])
    chosen = sum(len(pair[0]["policy"]) for pair in TRL["pairs"])
    for number, (own, side, before) in enumerate(zip(texts, told, blank, strict=True)):
        values = {name: np.r_[before, np.float32(side[name])] for name in ("policy", "reference")}
        values["chosen"] = (own.weight > 0) * np.float32((number % 2 == 0) / chosen)
        texts[number] = replace(own, values=values)
    return pack(texts, row_tokens, together=2)


@pytest.mark.parametrize("row_tokens, passes", [(16, 1), (16, 3), (40, 1)])
@pytest.mark.parametrize("name", ASKED)
def test_preference_losses_their_gradients_and_figures_are_trls(
    name: str, row_tokens: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, theirs, config = laid_out(row_tokens), TRL["losses"][name], settings(**ASKED[name])
    loss, totals, grads = 0.0, dict[str, float](), []
    for part in batch.passes(passes):
        logp_BT = part.values["policy"].clone().requires_grad_()
        monkeypatch.setattr(recipe, "cross_entropy", lambda *given, logp_BT=logp_BT: -logp_BT)
        done = recipe.dpo_pass(STATELESS, part, config=config)
        done.value.backward()
        grads.append(logp_BT.grad)
        loss += float(done.value.detach())
        totals = {key: totals.get(key, 0.0) + float(value) for key, value in done.sums.items()}
    assert loss == pytest.approx(theirs["loss"], rel=1e-5)
    for key, value in theirs["figures"].items():
        assert means(totals)[key] == pytest.approx(value, rel=1e-5), key
    expected = np.concatenate([row for pair in theirs["grad"] for row in pair])
    mine = torch.cat([g[b.weight_BT > 0] for g, b in zip(grads, batch.passes(passes), strict=True)])
    np.testing.assert_allclose(np.sort(mine.numpy()), np.sort(expected), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["plain", "margin", "centred"])
def test_the_reward_models_loss_gradient_and_figures_are_trls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    margins = [0.0] * 5 if name == "plain" else TRL["margins"]
    own = np.array([0, 1, 1], np.float32)
    found = [Couple(Text([1, 2, 3], own), Text([1, 2, 4], own), margin) for margin in margins]
    batch, rewards = pack(rating.ended(found), 6, together=2), torch.tensor(TRL["rewards"])
    score_BT = torch.full(batch.targets_BT.shape, 9.0)  # elsewhere than at a text's end nothing is read
    score_BT[:, [1, 4]] = rewards
    score_BT.requires_grad_()
    monkeypatch.setattr(rating, "values_after", lambda model, batch: score_BT)
    config = RewardModel(name="rater", data="pairs.jsonl", steps=1, centre=0.01 if name == "centred" else 0.0)
    done = rating.rating_pass(NOBODY, batch, config=config)
    done.value.backward()
    theirs = TRL["rated"][name]
    assert float(done.value.detach()) == pytest.approx(theirs["loss"], rel=1e-5)
    assert score_BT.grad is not None
    np.testing.assert_allclose(score_BT.grad[:, [1, 4]], theirs["grad"], rtol=1e-4, atol=1e-7)
    assert float(score_BT.grad.abs().sum()) == pytest.approx(np.abs(theirs["grad"]).sum(), rel=1e-4)
    figures = means({name: float(value) for name, value in done.sums.items()})
    for key, value in theirs["figures"].items():
        assert figures[key] == pytest.approx(value, rel=1e-5), key


# reward models and transformers

FAMILIES: dict[str, ModelConfig] = {
    "llama": ModelConfig(**COMMON, model_type="llama"),
    "llama-tied": ModelConfig(**COMMON, model_type="llama", tie_word_embeddings=True),
    "mistral": ModelConfig(**COMMON, model_type="mistral"),
    "qwen2": ModelConfig(**COMMON, model_type="qwen2"),
    "qwen3": ModelConfig(**COMMON, model_type="qwen3", head_dim=8),
    "qwen3_moe": ModelConfig(
        **COMMON, model_type="qwen3_moe", head_dim=8, n_routed_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=8,
    ),
    "deepseek_v2": ModelConfig(
        **EXPERTS | dict(first_k_dense_replace=1), model_type="deepseek_v2", norm_topk_prob=False
    ),
    "deepseek_v3": ModelConfig(**EXPERTS, q_lora_rank=8, num_nextn_predict_layers=1),
    "deepseek_v3-dense": ModelConfig(**LATENT, model_type="deepseek_v3"),
}  # fmt: skip
PAD, STOP = 0, 1


def rater(name: str) -> Decoder:
    config = FAMILIES[name]
    model = Decoder(config).init_weights(0) if config.parts.scoring == "softmax" else build(config)
    add_head(speechless(model), seed=3)
    with torch.no_grad():
        head_of(model).weight.mul_(20)
    return model


def replies() -> list[list[int]]:
    return [[token % (V - 2) + 2 for token in text(length, length)] + [STOP] for length in (5, 11, 8)]


def scores(model: Decoder, replies: list[list[int]]) -> list[float]:
    texts = [Text(tokens, np.ones(len(tokens), np.float32)) for tokens in replies]
    return [float(values[-1]) for values in read(model, texts, values_after, row_tokens=20, passes=2)]


def theirs(folder: Path, replies: list[list[int]]) -> Tensor:
    model, told = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    assert model.config.num_labels == 1
    width = max(map(len, replies))
    padded = torch.tensor([row + [PAD] * (width - len(row)) for row in replies])
    with torch.no_grad():
        return model.eval()(input_ids=padded, attention_mask=(padded != PAD).long()).logits[:, 0]


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_reads_a_reward_model_and_says_the_same_numbers(name: str, tmp_path: Path) -> None:
    model = rater(name)
    save_scored(tmp_path, model, PAD)
    mine = scores(model, replies())
    assert np.std(mine) > 0.05
    np.testing.assert_allclose(theirs(tmp_path, replies()), mine, rtol=2e-4, atol=2e-4)
    shapes = Shards(tmp_path).shapes
    assert shapes["score.weight"] == (1, 24) and "lm_head.weight" not in shapes


@pytest.mark.parametrize("name", FAMILIES)
def test_a_reward_model_is_read_back_to_the_bit(name: str, tmp_path: Path) -> None:
    model = rater(name)
    save_scored(tmp_path, model, PAD)
    again = load_scored(tmp_path)
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    assert scores(again, replies()) == scores(model, replies())


def test_a_reward_model_of_transformers_is_read_here(tmp_path: Path) -> None:
    """A head of its own making, its embeddings not tied in name, as published reward models are."""
    config = transformers.Qwen3Config(
        vocab_size=V, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, head_dim=8,
        intermediate_size=20, max_position_embeddings=48, num_labels=1, pad_token_id=PAD, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.set_seed(0)
    transformers.Qwen3ForSequenceClassification(config).save_pretrained(tmp_path)
    mine = scores(load_scored(tmp_path), replies())
    np.testing.assert_allclose(theirs(tmp_path, replies()), mine, rtol=1e-4, atol=1e-5)


def test_a_head_stays_float32_beside_a_bfloat16_model(tmp_path: Path) -> None:
    model = rater("llama")
    save_scored(tmp_path, model, PAD)
    again = load_scored(tmp_path, dtype=torch.bfloat16)
    assert again.embed_tokens.weight.dtype == torch.bfloat16
    assert torch.equal(head_of(again).weight, head_of(model).weight)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert head_of(again)(again(alone(replies()[0])).states_BTD).dtype == torch.float32


def test_an_adapted_reward_model_is_written_merged(tmp_path: Path) -> None:
    model = rater("qwen3")
    head = head_of(model)
    add_adapters(model, rank=2, scale=1.0, targets=("self_attn",), seed=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".B"):
                weight.fill_(0.1)
    before, plain = scores(model, replies()), merged(model)
    plain.score = head
    save_scored(tmp_path, plain, PAD)
    np.testing.assert_allclose(theirs(tmp_path, replies()), before, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("labels", [2, 3])
def test_a_classifier_of_several_labels_is_no_reward_model(labels: int, tmp_path: Path) -> None:
    save_scored(tmp_path, rater("llama"), PAD)
    told = json.loads((tmp_path / "config.json").read_text())
    told |= {"num_labels": labels, "id2label": {str(n): str(n) for n in range(labels)}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="is no reward model"):
        load_scored(tmp_path)


def test_what_speaks_and_what_rates_are_not_taken_for_one_another(tmp_path: Path) -> None:
    save_scored(tmp_path / "rates", rater("llama"), PAD)
    with pytest.raises(UserError, match="is a reward model: it rates what others say"):
        load_model(tmp_path / "rates")
