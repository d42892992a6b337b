"""How to sample: settings of the engine, torch-free."""

from __future__ import annotations

from pydantic import Field

from seekling.config import Settings, runtime


class Sampling(Settings):
    """How the next token is drawn. The order is the usual one: temperature, then top-k, top-p, min-p."""

    temperature: float = Field(1.0, ge=0, description="divides the logits; 0 always takes the likeliest token")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the likeliest tokens that hold this much probability")
    top_k: int = Field(0, ge=0, description="keep this many likeliest tokens; 0 keeps all")
    min_p: float = Field(0.0, ge=0, le=1, description="keep tokens at least this likely relative to the likeliest")
    max_tokens: int = Field(64, ge=1, description="longest answer in tokens, the stop token included")
    max_rows: int = runtime(512, ge=1, description="how many rollouts run at once")

    @property
    def truncates(self) -> bool:
        """Whether some tokens can never be drawn, however the logits lie."""
        return bool(self.top_k) or self.top_p < 1 or self.min_p > 0
