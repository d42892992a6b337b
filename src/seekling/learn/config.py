"""Settings of learning: optimizer, schedule, packing, policy objective. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from seekling.config import Settings, runtime


class Optim(Settings):
    """Muon for matrices (or AdamW for all), AdamW for embeddings, norms and routers; one schedule scales both."""

    matrices: Literal["muon", "adamw"] = Field("muon", description="optimizer of the weight matrices")
    lr: float = Field(3e-3, gt=0, description="peak learning rate of AdamW")
    muon_lr: float = Field(2e-2, gt=0, description="peak learning rate of Muon")
    warmup_steps: int = Field(20, ge=0, description="steps of linear rise to the peak")
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="shape of the fall after warm-up")
    final_share: float = Field(0.1, ge=0, le=1, description="share of the peak that is left at the last step")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: how long gradients are remembered")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW: how long their squares are")
    eps: float = Field(1e-8, gt=0, description="AdamW: keeps the division finite")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay of matrices")
    clip_norm: float = Field(1.0, gt=0, description="largest global gradient norm")


class Adapter(Settings):
    """Low-rank adapters beside the frozen model: y = W x + (alpha / rank) B A x (LoRA, arXiv 2106.09685, eq. 3)."""

    rank: int = Field(0, ge=0, le=2**12, description="rank of the adapters; 0: none, the model itself is trained")
    alpha: float = Field(32.0, gt=0, description="scales what they add, by alpha / rank")
    rslora: bool = Field(False, description="by alpha / sqrt(rank) instead, so that high ranks learn alike")
    targets: tuple[str, ...] = Field(
        ("self_attn", "mlp"), min_length=1, description="where they stand: names of modules, or parts of names"
    )
    base: Literal["float32", "bfloat16"] = Field(
        "float32", description="what the frozen model is held in; bfloat16 needs the run's dtype to be bfloat16 too"
    )

    @model_validator(mode="after")
    def _base_of_something(self) -> Adapter:
        if self.base != "float32" and not self.rank:
            raise ValueError("base says what adapters stand beside: set rank too, a model that is trained is float32")
        return self

    @property
    def scale(self) -> float:
        """What B A x is multiplied by (arXiv 2312.03732 for the square root)."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


class Packing(Settings):
    """How texts are laid into rows. Neither setting can change the loss, only its cost."""

    row_tokens: int = Field(128, ge=8, description="tokens in a packed row")
    passes: int = runtime(2, ge=1, description="slices of a step (micro-batches); lanes work on them side by side")


class Gaps(Settings):
    """Random gaps between positions: a model that cannot count by them carries over to longer texts.

    Ruoss et al. 2023, arXiv 2305.16843. Only training sees them; positions stay in order.
    """

    share: float = Field(0.0, ge=0, le=1, description="share of tokens with a gap before them")
    longest: int = Field(5, ge=1, description="positions left out by the longest gap")


class Objective(Settings):
    """A policy objective as a value of orthogonal parts; see ``seekling.learn.objective`` for the equations."""

    advantage: Literal["group_mean_std", "group_mean"] = Field("group_mean", description="what a rollout is judged by")
    clip_low: float = Field(0.2, ge=0, description="the ratio may fall to 1 - this before its gradient stops")
    clip_high: float = Field(0.2, ge=0, description="the ratio may rise to 1 + this before its gradient stops")
    weighting: Literal["per_rollout", "per_token", "constant"] = Field(
        "constant", description="how much a token counts: 1/its rollout, 1/all tokens, 1/the token limit"
    )
    kl: Literal["none", "k1", "k2", "k3"] = Field("none", description="estimate of the KL to the start policy")
    beta: float = Field(0.0, ge=0, description="weight of the KL term in the loss")
