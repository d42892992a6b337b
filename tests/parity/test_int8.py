"""Weights held as int8: what is sampled from them is what their codes times their scales say."""

from __future__ import annotations

import copy
import ctypes

import pytest
import torch

from seekling.engine.engine import Engine
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder
from seekling.model.int8 import to_codes
from seekling.model.layers import Linear
from seekling.model.moe import DeepSeekMoE
from seekling.model.ops import Plain
from seekling.model.structs import Told
from tests.oracles.tiny import build
from tests.parity.test_ops import DTYPES, SHAPED, SHAPES, compiled, held, off, states

SPANS = [(row, 20, 21 + row % 2) for row in range(5)]


def unrolled(model: Decoder) -> Decoder:
    """The same weights in float32."""
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if isinstance(module, Linear) and module.scale_O is not None:
            whole = module.weight.float() * module.scale_O.unsqueeze(-1)
            module.weight.data, module.scale_O = whole, None
        elif isinstance(module, DeepSeekMoE):
            for weight, scale in (("gate_up_proj", "gate_up_scale"), ("down_proj", "down_scale")):
                whole = getattr(module, weight).float() * getattr(module, scale).unsqueeze(-1)
                getattr(module, weight).data = whole
                setattr(module, scale, None)
    return plain


def test_a_code_is_within_half_a_step_and_the_largest_weight_is_kept() -> None:
    weight = torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(0))
    weight[1, 2] = 0
    codes, scale = to_codes(weight)
    told = codes * scale.unsqueeze(-1)
    assert ((told - weight).abs() <= 0.5001 * scale.unsqueeze(-1)).all()
    torch.testing.assert_close(told.abs().amax(-1), weight.abs().amax(-1))


@SHAPED
@DTYPES
def test_kernels_and_torch_read_codes_as_the_numbers_they_stand_for(shape: str, dtype: torch.dtype) -> None:
    policy = held(build(ModelConfig(**SHAPES[shape])), dtype)
    model = Engine(policy, (), weights="int8").model
    assert any(weight.dtype == torch.int8 for weight in model.parameters()) and model is not policy
    true = states(held(unrolled(model), torch.float32), Plain(), SPANS)
    bound = 1e-5 if dtype == torch.float32 else 0.1  # rounded, a token may meet another expert
    size = float(true.square().mean().sqrt())
    for rows in (0, 10**6):
        ops = compiled(dtype)
        ops.few_rows = rows
        assert off(states(model, ops, SPANS).float(), true) < bound * size


@pytest.mark.parametrize("shape", ["tiles", "qwen2"])
def test_after_an_update_the_codes_are_those_of_the_new_weights_where_the_old_ones_lay(shape: str) -> None:
    policy = build(ModelConfig(**SHAPES[shape]))
    engine = Engine(policy, (), weights="int8")
    places = [weight.data_ptr() for weight in engine.model.parameters()]
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(2)
    engine.refresh()
    assert places == [weight.data_ptr() for weight in engine.model.parameters()]
    fresh = Engine(policy, (), weights="int8").model
    for (name, one), other in zip(engine.model.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@SHAPED
@DTYPES
def test_to_the_bit_codes_are_read_alike_alone_and_in_company(shape: str, dtype: torch.dtype) -> None:
    """A token alone is multiplied by vectors, several by tiles where there are such: sums are exact."""
    policy = held(build(ModelConfig(**SHAPES[shape])), dtype)
    model, ops = Engine(policy, (), weights="int8").model, compiled(dtype)
    ops.few_rows = 10**6
    alone = states(model, ops, [(7, 20, 21)])
    beside = states(model, ops, [(row, 20, 21) for row in range(38)])
    assert torch.equal(alone[0], beside[7])


def multiplied(layer: Linear, x_ND: torch.Tensor) -> torch.Tensor:
    """x W^T by the kernel."""
    out_NO, matrix = torch.empty(len(x_ND), len(layer.weight), dtype=x_ND.dtype), Told(x_ND.dtype).matrix(layer)
    compiled(x_ND.dtype).c.linear(ctypes.byref(matrix), x_ND.data_ptr(), len(x_ND), out_NO.data_ptr(), 1)
    return out_NO


@DTYPES
@pytest.mark.parametrize("width", [64, 896, 16448])  # beyond 8192 channels a sum is carried on in 64 bits
@pytest.mark.parametrize("rows", [1, 2, 17])
def test_a_product_with_codes_is_off_by_sixteen_bits_of_a_tokens_largest_channel(
    dtype: torch.dtype, width: int, rows: int
) -> None:
    drawn = torch.Generator().manual_seed(width + rows)
    x_ND = torch.randn(rows, width, generator=drawn).to(dtype)
    x_ND[:, 3] *= 50  # an outlier, as residual streams have
    layer = Linear(width, 37)
    codes, scale = to_codes(torch.randn(37, width, generator=drawn))
    codes[5], x_ND[-1] = 127, x_ND[-1].abs()  # the largest sum there can be
    layer.requires_grad_(False)
    layer.weight.data, layer.scale_O = codes, scale
    with torch.inference_mode():
        found_NO = multiplied(layer, x_ND)
    weight_OD = codes.double() * scale.double().unsqueeze(-1)
    true_NO = x_ND.double() @ weight_OD.T
    step = x_ND.double().abs().amax(-1, keepdim=True) / 32512 / 2
    bound_NO = step * weight_OD.abs().sum(-1) + 2e-6 * (x_ND.double().abs() @ weight_OD.abs().T) + 2**-8 * true_NO.abs()
    assert ((found_NO.double() - true_NO).abs() <= bound_NO).all()


@DTYPES
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(dtype: torch.dtype, rows: int, wrong: float) -> None:
    x_ND = torch.ones(rows, 64, dtype=dtype)
    x_ND[0, 40] = wrong
    layer = Linear(64, 16).requires_grad_(False)
    layer.weight.data, layer.scale_O = to_codes(torch.randn(16, 64, generator=torch.Generator().manual_seed(0)))
    with torch.inference_mode():
        found_NO = multiplied(layer, x_ND)
    assert not found_NO[0].isfinite().any() and found_NO[1:].isfinite().all()
