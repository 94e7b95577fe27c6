"""MXFP4: torchao's elements and scales, the specification's numbers, bytes."""

import logging
import math

import pytest
import torch
from torch import nn

from impls.compression import MXFP4
from impls.compression._codebook import table
from impls.compression._packing import unpack
from impls.compression.mxfp4 import nearest_e2m1


@pytest.fixture(scope="module")
def torchao_mx():
    """What torchao makes of (R, C): codes (R, C) uint8, biased exponents (R, C / group) uint8."""
    logging.disable(logging.WARNING)  # about libraries for GPUs
    try:
        mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    finally:
        logging.disable(logging.NOTSET)

    def convert(weight, group):
        scales, packed = mx.to_mx(weight, torch.float4_e2m1fn_x2, group)
        return unpack(packed.view(torch.uint8), 4, weight.shape[1]), scales.view(torch.uint8)

    return convert


def linear(weight):
    layer = nn.Linear(*weight.shape[::-1], bias=False)
    layer.weight.data = weight
    return layer


def weights():
    """Rows of many sizes, with a group of zeros, ties and numbers that are hardly there."""
    weight = torch.randn(24, 128, generator=torch.Generator().manual_seed(0))
    weight *= 10.0 ** torch.arange(-12, 12)[:, None]
    weight[3, :32] = 0.0
    weight[4] = torch.arange(128) / 4 - 16
    weight[5, :64] = 2.0**-130
    weight[6, 32:64] = -torch.arange(32) / 8
    return weight


@pytest.mark.parametrize("group", [16, 32, 64])
def test_elements_and_scales_are_those_of_torchao(torchao_mx, group):
    codes, exponents = torchao_mx(weights(), group)
    stored = MXFP4(group=group).compress(linear(weights())).weight
    assert torch.equal(stored.scales.view(torch.uint8), exponents)
    assert torch.equal(unpack(stored.codes, 4, 128), codes)


def test_the_numbers_are_the_specification_s():
    """Table 3 of section 5.3.3: sign, exponent with bias 1, one bit of mantissa."""
    for code, number in enumerate(table("e2m1").tolist()):
        sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
        magnitude = 2 ** (exponent - 1) * (1 + mantissa / 2) if exponent else mantissa / 2
        assert number == (-1) ** sign * magnitude
        assert math.copysign(1, number) == (-1) ** sign


def test_ties_go_to_the_even_code_and_what_is_too_large_to_the_largest():
    x = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.9])
    assert table("e2m1")[nearest_e2m1(x)].tolist() == [0, 1, 1, 2, 2, 4, 4, 6]
    assert table("e2m1")[nearest_e2m1(-x)].tolist() == [-0.0, -1, -1, -2, -2, -4, -4, -6]


def test_the_error_is_half_a_step_or_what_is_cut_off_beyond_six():
    weight = weights()
    weight[5] = 1.0  # what is hardly there has steps below the least scale
    layer = MXFP4().compress(linear(weight))
    scale = layer.weight.scale().repeat_interleave(32, 1)
    x, error = weight.abs() / scale, (layer.dequantize() - weight).abs() / scale
    half_a_step = torch.where(x < 2, 0.25, torch.where(x < 4, 0.5, 1.0))
    assert (error <= torch.where(x > 6, x - 6, half_a_step)).all()
    assert (x < 8).all()


def test_bits_are_four_and_a_quarter():
    layer = MXFP4().compress(linear(torch.randn(64, 256)))
    assert layer.bits_per_parameter() == 4.25


def test_numbers_of_the_format_stay_as_they_are():
    once = MXFP4().compress(linear(weights()))
    twice = MXFP4().compress(linear(once.dequantize()))
    assert torch.equal(twice.dequantize(), once.dequantize())
    assert torch.equal(twice.weight.codes, once.weight.codes)
