"""Round to nearest over the axes of the taxonomy: torch's operators, bytes, static and dynamic."""

import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from impls.compression import RTN
from impls.compression.interface import LayerStatistics


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(rows=16, columns=128):
    layer = nn.Linear(columns, rows, bias=False)
    layer.weight.data = normal(rows, columns)
    return layer


def statistics(x):
    found = LayerStatistics()
    found.add(x, frozenset({"range"}))
    return found


def decibels(x, rounded):
    return 10 * math.log10(float(x.square().sum() / (rounded - x).square().sum()))


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_stored_weight_is_what_torch_rounds_to_with_its_scales(bits, symmetric, granularity):
    layer = linear()
    stored = RTN(bits=bits, symmetric=symmetric, granularity=granularity).compress(layer)
    affine = stored.weight.affine()
    rows = layer.weight.detach().view(affine.scale.numel(), -1)
    expected = torch.fake_quantize_per_channel_affine(
        rows, affine.scale.flatten(), affine.zero.flatten().int(), 0, affine.low, affine.high
    )
    assert torch.equal(stored.dequantize(), expected.view_as(layer.weight))


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({"group": 128}, 4 + (16 + 4) / 128),  # 4.156
        ({"group": 64}, 4 + (16 + 4) / 64),
        ({"group": 128, "symmetric": True}, 4 + 16 / 128),
        ({"bits": 3, "group": 32}, 3 + (16 + 3) / 32),
        ({"bits": 2, "group": 64, "scale_dtype": "float32"}, 2 + (32 + 2) / 64),
        ({"bits": 8, "granularity": "channel", "symmetric": True}, 8 + 16 / 128),
    ],
    ids=str,
)
def test_bits_a_weight_are_codes_scales_and_zero_points(options, bits):
    assert RTN(**options).compress(linear()).bits_per_parameter() == bits


def test_one_scale_for_each_group_of_a_whole_row_is_one_for_each_row():
    by_group, by_row = RTN(group=128), RTN(granularity="channel")
    assert torch.equal(
        by_group.compress(linear()).dequantize(), by_row.compress(linear()).dequantize()
    )


@pytest.mark.parametrize("symmetric", [True, False])
def test_static_is_dynamic_on_the_tensor_it_was_calibrated_with(symmetric):
    x, options = normal(50, 128), {"activation_bits": 8, "activation_granularity": "tensor"}
    options["activation_symmetric"] = symmetric
    static = RTN(activation_static=True, **options).compress(linear(), statistics(x))
    assert torch.equal(static(x), RTN(**options).compress(linear())(x))


def test_what_has_drifted_is_clipped_where_static_and_not_where_dynamic():
    x, options = normal(50, 128), {"activation_bits": 8, "activation_granularity": "tensor"}
    static = RTN(activation_static=True, **options).compress(linear(), statistics(x)).activation
    dynamic = RTN(**options).compress(linear()).activation
    most = x.abs().max()
    clipped = (4 * x).clamp(-most, most)
    step = most / 127
    assert (static(4 * x) - clipped).abs().max() <= 0.5 * step * (1 + 2**-12)
    assert decibels(4 * x, dynamic(4 * x)) == decibels(x, dynamic(x))
    assert decibels(4 * x, static(4 * x)) < decibels(x, dynamic(x)) - 20


@pytest.mark.parametrize("rule", ["percentile", "mse"])
def test_a_static_range_may_leave_outliers_out(rule):
    x = normal(200, 128)
    x[0, 0] = 50.0
    options = {
        "activation_bits": 4,
        "activation_granularity": "tensor",
        "activation_static": True,
        "activation_percentile": 99.0,
    }
    whole = RTN(**options).compress(linear(), statistics(x)).activation
    part = RTN(activation_range=rule, **options).compress(linear(), statistics(x)).activation
    usual = x[1:]
    assert decibels(usual, part(usual)) > decibels(usual, whole(usual)) + 10


@pytest.mark.parametrize(
    ("granularity", "weights"), list(product(["tensor", "token"], ["tensor", "channel", "group"]))
)
def test_eight_bits_for_both_keep_outputs_within_a_percent(granularity, weights):
    x, layer = normal(64, 128, seed=1), linear()
    technique = RTN(
        bits=8, granularity=weights, activation_bits=8, activation_granularity=granularity
    )
    exact = F.linear(x, layer.weight)
    assert (technique.compress(layer)(x) - exact).norm() < 0.02 * exact.norm()


def test_fewer_bits_of_the_inputs_alone_are_told_in_the_inputs_alone():
    layer, x = linear(), normal(8, 128)
    rounded = RTN(activation_bits=4).compress(layer)
    assert torch.equal(rounded.dequantize(), RTN().compress(layer).dequantize())
    assert not torch.equal(rounded(x), RTN().compress(layer)(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"granularity": "token"}, "a weight has no tokens"),
        ({"activation_bits": 8, "granularity": "input_channel"}, "do not factor out"),
        ({"activation_bits": 8, "activation_granularity": "input_channel"}, "do not factor out"),
        ({"activation_bits": 8, "activation_granularity": "group"}, "do not factor out"),
        ({"activation_bits": 8, "activation_static": True}, "cannot be a token's own"),
        ({"activation_bits": 1}, "bits must be from 2 to 8, got 1"),
    ],
    ids=str,
)
def test_combinations_without_a_meaning_are_refused_with_the_reason(options, message):
    with pytest.raises(ValueError, match=message):
        RTN(**options)


def test_scales_of_input_channels_alone_are_allowed():
    layer = linear()
    layer.weight.data[:, 3] *= 100
    by_column = RTN(granularity="input_channel").compress(layer).dequantize()
    by_row = RTN(granularity="channel").compress(layer).dequantize()
    quiet = torch.arange(128) != 3
    exact = layer.weight.detach()[:, quiet]
    assert decibels(exact, by_column[:, quiet]) > decibels(exact, by_row[:, quiet]) + 10
