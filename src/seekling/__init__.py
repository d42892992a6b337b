"""Seekling grows reasoning models the way DeepSeek did. These are its public names, imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Arithmetic": "seekling.tasks.arithmetic",
    "Countdown": "seekling.tasks.countdown",
    "Decoder": "seekling.model.decoder",
    "Engine": "seekling.engine.engine",
    "Group": "seekling.records",
    "Judge": "seekling.evals.judging",
    "ModelConfig": "seekling.model.config",
    "Objective": "seekling.learn.config",
    "Policy": "seekling.recipes.policy",
    "Problem": "seekling.records",
    "Request": "seekling.engine.engine",
    "Rollout": "seekling.records",
    "Rubric": "seekling.rewards.rubric",
    "Sampling": "seekling.engine.config",
    "Score": "seekling.records",
    "Tokenizer": "seekling.text.tokenizer",
    "UserError": "seekling.errors",
    "Verdict": "seekling.records",
    "build_task": "seekling.tasks.registry",
    "count_parameters": "seekling.model.count",
    "flops_per_token": "seekling.model.count",
    "load_manifest": "seekling.recipes.manifest",
    "load_model": "seekling.model.weights",
    "preset": "seekling.model.presets",
    "problems": "seekling.tasks.protocol",
    "run_manifest": "seekling.recipes.pipeline",
    "sample_groups": "seekling.recipes.policy",
    "save_model": "seekling.model.weights",
    "write_report": "seekling.report.page",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'seekling' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
