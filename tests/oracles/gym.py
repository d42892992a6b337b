"""One worker for all of reasoning-gym's families, so that its library is imported once for all tests of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from seekling.tasks import gym


def serve(setup: object) -> Callable[[Any], Any]:
    """As ``seekling.tasks.gym.serve``, for the family and the threshold that a request names."""

    @cache
    def served(family: str, threshold: float) -> Callable[[Any], Any]:
        return gym.serve({"family": family, "knobs": {}, "threshold": threshold})

    def answer(request: Mapping[str, Any]) -> Any:
        return served(request["family"], request.get("threshold", 1.0))(request)

    return answer


def serve_scorers(setup: object) -> Callable[[Any], Any]:
    """The names of families whose scorers hand text to Python, by the words of their own source."""
    import inspect
    import re

    import reasoning_gym

    evaluates = re.compile(r"\b(?:eval|exec|parse_expr|sympify|literal_eval)\(")

    def answer(request: object) -> list[str]:
        made = reasoning_gym.factory.DATASETS
        sources = {name: inspect.getsource(dataset.score_answer) for name, (dataset, _) in made.items()}
        return sorted(name for name, source in sources.items() if evaluates.search(source))

    return answer
