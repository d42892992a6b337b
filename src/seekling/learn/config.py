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
    spike: float = Field(
        30.0, ge=0, description="an update whose gradient norm is so many times the usual is skipped; 0: none is"
    )
    max_skipped: int = runtime(10, ge=1, description="more updates skipped in a row stop the run")


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
    """How texts are laid into rows, and what is kept of them. No setting can change the loss, only its cost."""

    row_tokens: int = Field(128, ge=8, description="tokens in a packed row")
    passes: int = runtime(2, ge=1, description="slices of a step (micro-batches); lanes work on them side by side")
    checkpoint_activations: bool = runtime(
        False, description="keep only what enters each layer and compute the layer again on the way back: less memory"
    )


class Budget(Settings):
    """What a stage may use, in work that the ledger charges it: training and generation, no evaluation; 0: no bound.

    The stage ends after the first step with which one of them is used up. Tokens and FLOPs are counted, so that the
    same settings end at the same step everywhere; seconds are measured, and end where this machine got to.
    """

    tokens: int = Field(0, ge=0, description="tokens that were trained on or sampled")
    flops: float = Field(0.0, ge=0, description="floating-point operations")
    seconds: float = Field(0.0, ge=0, description="seconds of metered work: another machine ends at another step")

    def share(self, tokens: int, flops: float, seconds: float) -> float:
        """How much of it is used: of the bound that is nearest; 0 without any, 1 and more when it is used up."""
        used = ((tokens, self.tokens), (flops, self.flops), (seconds, self.seconds))
        return max((spent / bound for spent, bound in used if bound), default=0.0)


class Gaps(Settings):
    """Random gaps between positions: a model that cannot count by them carries over to longer texts.

    Ruoss et al. 2023, arXiv 2305.16843. Only training sees them; positions stay in order.
    """

    share: float = Field(0.0, ge=0, le=1, description="share of tokens with a gap before them")
    longest: int = Field(5, ge=1, description="positions left out by the longest gap")


class Critic(Settings):
    """A value head beside the policy, for advantages by ``gae`` (arXiv 1506.02438, eq. 16)."""

    gamma: float = Field(1.0, ge=0, le=1, description="how much a later reward counts, per token")
    lam: float = Field(1.0, ge=0, le=1, description="lambda: 1 trusts what came, 0 the head")
    weight: float = Field(0.1, ge=0, description="weight of the head's loss")
    clip: float = Field(0.2, ge=0, description="how far a value may move within one batch of rollouts")
    detach: bool = Field(False, description="the head's loss reaches the head alone, not the model below it")


class Objective(Settings):
    """A policy objective as a value of orthogonal parts; see ``seekling.learn.objective`` for the equations."""

    advantage: Literal[
        "group_mean_std", "group_mean", "leave_one_out", "batch_mean", "batch_mean_std", "group_mean_batch_std", "gae"
    ] = Field("group_mean", description="what a rollout is judged by")
    apart: bool = Field(False, description="judge it in each criterion of the rubric by itself, then add up (GDPO)")
    ratio: Literal["token", "sequence"] = Field(
        "token", description="what policy and sampler are compared in: each token, or a rollout's geometric mean"
    )
    clip: Literal["ppo", "cispo", "soft", "gamma", "none"] = Field(
        "ppo",
        description="how far a ratio counts: the lesser of clipped and not (ppo), its clipped value as a weight"
        " (cispo), through a soft gate (SAPO), a gamma weight of the whole rollout (VESPO), as it is",
    )
    clip_low: float = Field(0.2, ge=0, description="the ratio may fall to 1 - this")
    clip_high: float = Field(0.2, ge=0, description="the ratio may rise to 1 + this")
    ratio_max: float = Field(0.0, ge=0, description="no ratio counts as more, whatever the advantage; 0: no such bound")
    weighting: Literal["per_rollout", "per_token", "constant", "whole"] = Field(
        "constant", description="how much a token counts: 1/its rollout, 1/all tokens, 1/the token limit, all alike"
    )
    kl: Literal["none", "k1", "k2", "k3", "k3_weighted"] = Field(
        "none", description="estimate of the KL to the start policy"
    )
    beta: float = Field(0.0, ge=0, description="weight of the KL term")
    kl_in: Literal["loss", "reward"] = Field("loss", description="a term of the loss, or taken from the reward")
    entropy: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    correction: Literal["none", "token", "sequence", "token_mask", "sequence_mask"] = Field(
        "none",
        description="importance weight for what sampler and learner disagree in: its unit, and whether what lies"
        " beyond the cap is cut to it or left out",
    )
    correction_max: float = Field(2.0, gt=0, description="its cap")
    stale_max: float = Field(
        0.0, ge=0, description="a bad rollout further from the sampler (nats per token) is left out; 0: none is"
    )
    critic: Critic = Critic()

    @model_validator(mode="after")
    def _parts_that_go_together(self) -> Objective:
        if self.apart and (self.advantage == "gae" or (self.needs_reference and self.kl_in == "reward")):
            raise ValueError("apart compares criteria of the rubric: neither gae nor a KL in the reward goes with it")
        if self.advantage == "gae" and self.kl_in == "loss" and self.needs_reference:
            raise ValueError('with gae the KL is a reward of every token: set kl_in = "reward"')
        return self

    @property
    def needs_reference(self) -> bool:
        """Whether the start policy's log-probabilities enter it."""
        return self.kl != "none" and self.beta > 0

    @property
    def pulls_everywhere(self) -> bool:
        """Whether a rollout without advantage has a gradient too."""
        return self.entropy > 0 or self.advantage == "gae" or (self.needs_reference and self.kl_in == "loss")
