"""FP8: torch's casts, torchao's scales and codes, relative errors, rounded inputs and outliers."""

import json
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from impls.compression import FP8, RTN
from impls.compression._float8 import DTYPES
from impls.compression.interface import Calibration, CompressedLinear, LayerStatistics, Packed
from impls.models.decoder import Decoder, DecoderShape

every_format = pytest.mark.parametrize("format", DTYPES)


@pytest.fixture(scope="module")
def primitives():
    """The module of torchao with its float8 conversions."""
    logging.disable(logging.WARNING)  # about libraries for GPUs
    try:
        return pytest.importorskip("torchao.quantization.quant_primitives")
    finally:
        logging.disable(logging.NOTSET)


def linear(weight, bias=False):
    layer = nn.Linear(*weight.shape[::-1], bias=bias)
    layer.weight.data = weight
    return layer


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def wide():
    """Rows of many sizes, one of zeros, one with an outlier."""
    weight = normal(16, 96) * 10.0 ** torch.arange(-8, 8)[:, None]
    weight[2] = 0.0
    weight[5, 7] = 1e3
    return weight


@every_format
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_scales_and_codes_are_those_of_torchao(primitives, format, granularity):
    weight = wide()
    weight[2, 0] = 1e-3  # theirs divides a row of zeros by 0
    block = list(weight.shape) if granularity == "tensor" else [1, weight.shape[1]]
    scale = primitives._choose_scale_float8(weight, block, DTYPES[format])
    codes = primitives._quantize_affine_float8(weight, scale, DTYPES[format])
    stored = FP8(format=format, granularity=granularity).compress(linear(weight)).weight
    assert torch.equal(stored.scales, scale)
    assert torch.equal(stored.codes, codes)


@every_format
def test_what_the_format_holds_is_kept_and_the_rest_is_torch_s_cast(format):
    dtype = DTYPES[format]
    numbers = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    numbers = numbers[numbers.isfinite()].view(1, -1)
    held = FP8(format=format).compress(linear(numbers))
    assert torch.equal(held.dequantize(), numbers)
    weight = torch.cat((torch.tensor([torch.finfo(dtype).max]), 50 * normal(999)))[None]  # s = 1
    cast = FP8(format=format).compress(linear(weight)).dequantize()
    assert torch.equal(cast, weight.to(dtype).float())


@pytest.mark.parametrize(("format", "bound"), [("e4m3", 1 / 16), ("e5m2", 1 / 8)])
def test_errors_are_relative_above_the_least_normal_number(format, bound):
    weight = wide()
    layer = FP8(format=format).compress(linear(weight))
    error = (layer.dequantize() - weight).abs()
    normal_numbers = weight.abs() >= layer.weight.scales * torch.finfo(DTYPES[format]).tiny
    # Half a step, and three roundings in float32 of what is divided and multiplied again.
    assert (error <= weight.abs() * (bound / (1 + bound) + 3 * 2**-24))[normal_numbers].all()
    assert normal_numbers.float().mean() > 0.8


def test_a_row_of_zeros_stays_and_one_byte_is_stored_for_each_weight():
    layer = FP8().compress(linear(wide()))
    assert torch.equal(layer.dequantize()[2], torch.zeros(96))
    assert layer.nbytes() == 16 * 96 + 4 * 16
    assert FP8(granularity="tensor").compress(linear(wide())).nbytes() == 16 * 96 + 4


@every_format
@pytest.mark.parametrize("weights", ["tensor", "channel"])
@pytest.mark.parametrize("inputs", ["tensor", "token"])
def test_the_product_of_rounded_inputs_is_that_of_what_they_stand_for(format, weights, inputs):
    technique = FP8(
        format=format, granularity=weights, activation_format=format, activation_granularity=inputs
    )
    layer, x = technique.compress(linear(normal(24, 64), bias=True)), normal(3, 5, 64, seed=1)
    rounded, weight = layer.activation(x), layer.weight.dequantize()
    exact = F.linear(rounded.double(), weight.double(), layer.bias.double())
    naive = F.linear(rounded, weight, layer.bias)
    unit = 2**-23 * float(exact.norm())
    assert (layer(x) - exact).norm() <= 2 * (naive - exact).norm() + unit
    assert layer(x.bfloat16()).dtype == torch.bfloat16


@every_format
def test_a_token_has_the_scale_of_its_own_largest_number(format):
    x = wide()
    rounded = FP8(activation_format=format).compress(linear(normal(4, 96))).activation(x)
    assert torch.equal(rounded, FP8(format=format).compress(linear(x)).dequantize())


def test_static_inputs_are_dynamic_ones_on_what_was_calibrated_and_clip_what_has_drifted():
    x, layer = normal(40, 64), linear(normal(8, 64))
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"range"}))
    options = {"activation_format": "e4m3", "activation_granularity": "tensor"}
    static = FP8(activation_static=True, **options).compress(layer, statistics)
    dynamic = FP8(**options).compress(layer)
    assert torch.equal(static(x), dynamic(x))
    assert static.activation(4 * x).abs().max() <= x.abs().max()
    assert torch.equal(dynamic.activation(4 * x), 4 * dynamic.activation(x))  # a power of two
    again = CompressedLinear.unpack(
        Packed(json.loads(json.dumps(static.pack().header)), static.pack().tensors)
    )
    assert torch.equal(again(x), static(x))


def test_an_outlier_costs_its_neighbours_nothing_where_integers_lose_them():
    x = normal(32, 64)
    x[:, 3] *= 100
    layer, quiet = linear(normal(8, 64)), torch.arange(64) != 3

    def error(technique):
        rounded = technique.compress(layer).activation(x)
        return F.mse_loss(rounded[:, quiet], x[:, quiet])

    assert error(FP8(activation_format="e4m3")) < 0.05 * error(RTN(activation_bits=8))


def test_a_static_range_of_a_model_s_layers_comes_from_calibration():
    torch.manual_seed(0)
    model = Decoder(DecoderShape(vocab_size=16, d_model=32, n_layers=1, n_heads=2)).eval()
    tokens = torch.arange(32).view(2, 16) % 16
    technique = FP8(
        activation_format="e4m3", activation_granularity="tensor", activation_static=True
    )
    with pytest.raises(ValueError, match="FP8 needs calibration"):
        technique.compressed(model)
    small = technique.compressed(model, Calibration([tokens]))
    read = []
    model.blocks[0].mlp.down_proj.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    model(tokens)
    found = small.blocks[0].mlp.down_proj.activation.bounds.abs().max()
    assert found == read[0].abs().max()


@pytest.mark.parametrize("granularity", ["group", "input_channel", "token"])
def test_other_scales_of_weights_are_refused(granularity):
    with pytest.raises(ValueError, match=f"'{granularity}'"):
        FP8(granularity=granularity)


@pytest.mark.parametrize(("field", "value"), [("format", "e3m4"), ("activation_format", "e4m4")])
def test_other_formats_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be one of e4m3, e5m2, got '{value}'"):
        FP8(**{field: value})


def test_other_scales_of_inputs_are_refused():
    with pytest.raises(ValueError, match="do not factor out"):
        FP8(activation_format="e4m3", activation_granularity="input_channel")
    with pytest.raises(ValueError, match="a static range cannot be a token's own"):
        FP8(activation_format="e4m3", activation_static=True)
