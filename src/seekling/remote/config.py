"""How a chat model behind an endpoint is asked: settings alone, without what asks."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from seekling.config import Settings, runtime


class Asked(Settings):
    """A chat model behind an OpenAI-compatible endpoint. Its key stands in the environment and nowhere else."""

    model: str = Field("", description="the model's name, as its endpoint knows it")
    temperature: float = Field(-1.0, ge=-1, description="of its answers; -1 leaves it to the endpoint")
    max_tokens: int = Field(0, ge=0, description="the longest answer; 0 leaves it to the endpoint")
    more: dict[str, Any] = Field({}, description='what else every request says, such as { reasoning_effort = "low" }')
    url: str = runtime("http://127.0.0.1:8000/v1", description="where it is asked, up to /chat/completions")
    key_env: str = runtime("", description="the environment variable that holds the key, where one is needed")
    concurrency: int = runtime(8, ge=1, description="questions under way at once")
    timeout_s: float = runtime(60.0, gt=0, description="longest wait for one answer")
    tries: int = runtime(4, ge=1, description="attempts for an answer")

    def how(self, temperature: float | None = None) -> dict[str, Any]:
        """What a request says beside its messages; ``temperature`` in place of the usual one."""
        warmth = self.temperature if temperature is None else temperature
        named = {"temperature": warmth if warmth >= 0 else None, "max_tokens": self.max_tokens or None}
        return {name: value for name, value in named.items() if value is not None} | self.more
