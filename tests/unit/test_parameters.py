"""Names and shapes from a config alone, against the tensors themselves."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.model.config import ModelConfig
from seekling.model.count import count_parameters
from seekling.model.decoder import Decoder
from seekling.model.lora import adapters, add_adapters
from seekling.model.parameters import adapter_shapes, shapes
from seekling.model.presets import PRESETS
from tests.oracles.tiny import SHAPES
from tests.unit import test_count


def built(config: ModelConfig) -> Decoder:
    with torch.device("meta"):
        return Decoder(config)


@given(test_count.shapes())
def test_the_parameters_told_are_those_of_the_model(config: ModelConfig) -> None:
    model = {name: tuple(weight.shape) for name, weight in built(config).named_parameters()}
    assert shapes(config) == model


@pytest.mark.parametrize("name", PRESETS)
def test_they_count_as_published(name: str) -> None:
    count = count_parameters(PRESETS[name])
    assert sum(map(math.prod, shapes(PRESETS[name]).values())) == count.total + count.mtp


@pytest.mark.parametrize("targets", [("self_attn", "mlp"), ("experts",), ("q_*proj", "layers.1.mlp")])
@pytest.mark.parametrize("name", SHAPES)
def test_adapters_stand_where_they_would_be_put(name: str, targets: tuple[str, ...]) -> None:
    try:
        model = add_adapters(Decoder(SHAPES[name]), rank=3, scale=1.0, targets=targets, seed=0)
    except UserError as refused:
        with pytest.raises(UserError) as told:
            adapter_shapes(SHAPES[name], 3, targets)
        assert str(told.value) == str(refused)
        return
    put = {
        f"{name}/{half}": tuple(getattr(pair, half).shape) for name, pair in adapters(model).items() for half in "AB"
    }
    assert adapter_shapes(SHAPES[name], 3, targets) == put


@given(st.sampled_from(sorted(PRESETS)))
def test_the_largest_models_are_told_in_a_moment(name: str) -> None:
    assert len(shapes(PRESETS[name])) > 3


def test_they_are_told_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import seekling.model.parameters, seekling.plan.fit"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
