"""A number per token beside, or instead of, the next token: critics and reward models.

A head stands on the states a decoder leaves before its output matrix, as its part ``score``: so optimizers, checkpoints
and adapters find it like any other. On disk a reward model is what transformers and vLLM call
``*ForSequenceClassification`` with one label: the head is ``score.weight`` [1, D], and there is no ``lm_head``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seekling.errors import UserError
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.foreign import is_foreign
from seekling.model.weights import Shards, load_model, load_tensors, save_model, save_tensors
from seekling.runlog.files import read_json, write_json

NAME = "score.weight"
FILE = "score.safetensors"
"""Where a head stands alone, beside a model that still speaks."""
CAUSAL, RATING = "ForCausalLM", "ForSequenceClassification"


class ScalarHead(nn.Module):
    """States [..., D] to one number each [...]: float32, whatever the decoder is held or computed in. No bias.

    It begins at zero, so that at first it says nothing of anything, or is drawn.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width, dtype=torch.float32))

    def forward(self, states: Tensor) -> Tensor:
        # A sum of products rather than a product of matrices, which autocast would round to bfloat16.
        return (states.to(self.weight.dtype) * self.weight[0]).sum(-1)

    @torch.no_grad()
    def draw(self, seed: int, scale: float) -> None:
        """Normal(0, ``scale``), a function of the seed alone."""
        digest = hashlib.sha256(f"{seed}/{NAME}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        self.weight.copy_(torch.randn(self.weight.shape, generator=generator, dtype=torch.float32) * scale)


# --- on a model in memory ---------------------------------------------------------------------------------------------


def add_head(model: Decoder, seed: int | None = None) -> ScalarHead:
    """Put a head on a decoder: zero, or drawn from ``seed`` at the model's ``initializer_range``. Returns it.

    Raises UserError for a model that runs through transformers: what it leaves are logits, not states.
    """
    if not isinstance(model, Decoder):
        raise UserError(
            "a head cannot stand on a model that runs through transformers: its states are not seen here",
            next_step='Import the model with through = "seekling".',
        )
    head = ScalarHead(model.config.hidden_size)
    if seed is not None:
        head.draw(seed, model.config.initializer_range)
    model.score = head.to(model.embed_tokens.weight.device)
    return head


def head_of(model: Decoder) -> ScalarHead:
    """The head that stands on a model."""
    head = model.score
    assert isinstance(head, ScalarHead)
    return head


def take_head(model: Decoder) -> ScalarHead:
    """Take the head off, as a policy must be written without its critic. Returns it."""
    head = head_of(model)
    del model.score
    return head


def speechless(model: Decoder) -> Decoder:
    """The same decoder, in place, without what only speaks: output matrix and prediction layer."""
    model.lm_head, model.mtp = None, None
    model.config = _silent(model.config)
    return model


def _silent(config: ModelConfig) -> ModelConfig:
    # Tied, there is no output matrix to keep, and readers look for none.
    return config.model_copy(update={"tie_word_embeddings": True, "num_nextn_predict_layers": 0})


# --- on disk ----------------------------------------------------------------------------------------------------------


def save_head(folder: Path, head: ScalarHead) -> None:
    """A head by itself, into a file of its own."""
    save_tensors(folder / FILE, {NAME: head.weight})


def load_head(folder: Path, model: Decoder) -> ScalarHead:
    """Put the head that ``save_head`` wrote on a model. Raises UserError when it does not fit."""
    saved = load_tensors(folder / FILE, str(model.embed_tokens.weight.device)).get(NAME)
    head = add_head(model)
    if saved is None or saved.shape != head.weight.shape:
        raise UserError(f"{folder / FILE} holds no head for states of width {model.config.hidden_size}")
    with torch.no_grad():
        head.weight.copy_(saved)
    return head


def save_scored(folder: Path, model: Decoder, pad: int, dtype: torch.dtype | None = None) -> None:
    """Write a speechless model and its head as transformers' class of one label; config.json is last.

    ``pad`` must never end a text: the library reads a text at its last token that is not ``pad``.
    """
    save_model(folder, model, dtype=dtype)
    told = read_json(folder / "config.json")
    names = [name.replace(CAUSAL, RATING) for name in told["architectures"]]
    label = {"num_labels": 1, "id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    # A regression's number is answered as it is; without the word vLLM would push it through a sigmoid.
    rating = {"architectures": names, "problem_type": "regression", "pad_token_id": pad}
    write_json(folder / "config.json", told | label | rating)


def load_scored(folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Decoder:
    """A speechless model with its head, from what ``save_scored`` or transformers wrote.

    Raises UserError for a folder of something else, and like ``load_model``.
    """
    if not is_reward_model(folder):
        raise UserError(
            f"the model in {folder} is no reward model: its config.json names no {RATING} of one label",
            next_step="Name the folder of a reward_model stage.",
        )
    model = load_model(folder, device=device, dtype=dtype, build=_rater)
    shards, head = Shards(folder), head_of(model).float()
    with torch.no_grad():
        head.weight.copy_(shards.read(NAME))  # again, as it is on disk: it is float32 whatever the rest is held in
    shards.close()
    return model


def is_reward_model(folder: Path) -> bool:
    """Whether a model folder's config.json tells of a decoder that rates whole texts with one number."""
    told: Any = read_json(folder / "config.json")
    names: Collection[Any] = told.get("architectures") or () if isinstance(told, dict) else ()
    rates = any(str(name).endswith(RATING) for name in names)
    return rates and not is_foreign(folder) and len(told.get("id2label") or [0] * told.get("num_labels", 2)) == 1


def _rater(config: ModelConfig) -> Decoder:
    model = Decoder(_silent(config))
    model.score = ScalarHead(config.hidden_size)
    return model
