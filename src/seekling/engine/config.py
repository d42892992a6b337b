"""How to sample: settings of the engine, torch-free."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from seekling.config import Settings, runtime


class Sampling(Settings):
    """How the next token is drawn. The order is the usual one: temperature, then top-k, top-p, min-p."""

    temperature: float = Field(1.0, ge=0, description="divides the logits; 0 always takes the likeliest token")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the likeliest tokens that hold this much probability")
    top_k: int = Field(0, ge=0, description="keep this many likeliest tokens; 0 keeps all")
    min_p: float = Field(0.0, ge=0, le=1, description="keep tokens at least this likely relative to the likeliest")
    max_tokens: int = Field(64, ge=1, description="longest answer in tokens, the stop token included")
    drafts: int = runtime(0, ge=0, le=16, description="tokens guessed ahead in each step; 0 guesses none")
    draft_from: Literal["auto", "model", "text"] = runtime(
        "auto",
        description="who guesses: the model's prediction layer or the text so far; auto: the first there is",
    )
    deterministic: bool = Field(
        False, description="the same bits whoever else is sampled, by kernels alone: slower where prompts are long"
    )
    max_rows: int = runtime(512, ge=1, description="how many rollouts run at once")
    cache_tokens: int = runtime(
        0, ge=0, description="most tokens in the cache; who finds no room begins again later; 0: as many as it takes"
    )

    @property
    def truncates(self) -> bool:
        """Whether some tokens can never be drawn, however the logits lie."""
        return bool(self.top_k) or self.top_p < 1 or self.min_p > 0


class Vllm(Settings):
    """A vLLM server as the sampler: one that runs already, or one of our own that begins and ends with the stage."""

    url: str = runtime(
        "", pattern=r"^(https?://[^\s/@?#]+/?)?$", description="a server that runs already; none: it is started here"
    )
    key_env: str = runtime("", description="environment variable with the key of a server that runs already")
    command: str = runtime("vllm", min_length=1, description="the program, from vLLM's own environment: path/bin/vllm")
    arguments: tuple[str, ...] = Field((), description='more arguments, e.g. ["--tensor-parallel-size", "2"]')
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="what its weights are held in; auto: float32 on a CPU, bfloat16 elsewhere"
    )
    memory: float = runtime(0.4, gt=0, lt=1, description="share of the GPU's memory that it may take while it samples")
    sleeps: bool = runtime(True, description="it gives that memory back during updates, where the platform can")
    transfer: Literal["folder", "nccl", "ipc"] = runtime(
        "folder", description="how weights reach a server started here: it reloads a folder, or they go GPU to GPU"
    )
    folder: str = runtime(
        "", description="where weights are handed over: a memory disk, or what both hosts see; none: the stage's own"
    )
    at_once: int = runtime(64, ge=1, le=1024, description="requests under way")
    start_s: float = runtime(600.0, gt=0, description="how long its start may take")
    timeout_s: float = runtime(600.0, gt=0, description="how long one answer may take")
    limit: float | None = runtime(
        None, gt=0, description="largest difference after a hand-over, nats (root mean square); none: by its dtype"
    )

    @model_validator(mode="after")
    def _sends_to_its_own(self) -> Self:
        """Who sends stands in the server's environment, and ends a server that was left waiting: both must be ours."""
        if self.url and self.transfer != "folder":
            raise ValueError(f'transfer = "{self.transfer}" needs a server that is started here, and url names another')
        return self
