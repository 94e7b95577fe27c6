"""Rotation: the transform, that nothing changes before rounding, and what outliers then cost."""

import json

import pytest
import torch
from torch import nn

from impls.compression import RTN, HadamardRotation
from impls.compression._dense import DenseWeight
from impls.compression._rotation import Rotation, block_of, hadamard, random_signs
from impls.compression.interface import (
    Calibration,
    CompressedLinear,
    Packed,
    Parts,
    inject_outliers,
    layer_errors,
)
from impls.models.decoder import Decoder, DecoderShape

PLAIN = {"bits": 8, "symmetric": True, "granularity": "channel", "activation_bits": 8}


def matrix(n):
    """H_n by Sylvester's construction."""
    found = torch.ones(1, 1, dtype=torch.float64)
    while len(found) < n:
        found = torch.cat((torch.cat((found, found), 1), torch.cat((found, -found), 1)))
    return found


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_the_fast_transform_is_sylvester_s_matrix(n):
    x = torch.randn(3, n, dtype=torch.float64)
    torch.testing.assert_close(hadamard(x, n), x @ matrix(n) / n**0.5, rtol=0, atol=1e-13)


def test_widths_that_are_no_power_of_two_turn_in_blocks():
    assert [block_of(n) for n in (384, 1536, 352, 11, 64)] == [128, 512, 32, 1, 64]
    x = torch.randn(2, 12, dtype=torch.float64)
    wanted = (x.view(2, 3, 4) @ matrix(4) / 2).view(2, 12)
    torch.testing.assert_close(hadamard(x, 4), wanted, rtol=0, atol=1e-14)


@torch.no_grad()
@pytest.mark.parametrize("columns", [64, 96, 35])
def test_nothing_changes_before_rounding(columns):
    torch.manual_seed(0)
    linear = nn.Linear(columns, 24).double()
    x = torch.randn(2, 5, columns, dtype=torch.float64)
    turn = Rotation(random_signs(columns, seed=3))
    turned = CompressedLinear(Parts(DenseWeight(turn(linear.weight)), input_map=turn), linear.bias)
    torch.testing.assert_close(turned(x), linear(x), rtol=0, atol=1e-10)
    torch.testing.assert_close(turn.undone(turn(linear.weight)), linear.weight, rtol=0, atol=1e-13)
    torch.testing.assert_close(turn(x).norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=0)


def test_signs_are_stored_as_bits_and_come_from_the_seed():
    weight = nn.Linear(96, 8)
    one, same, other = (HadamardRotation(seed=s).compress(weight) for s in (0, 0, 1))
    assert torch.equal(one.input_map.signs, same.input_map.signs)
    assert not torch.equal(one.input_map.signs, other.input_map.signs)
    assert one.nbytes() == 8 * 96 // 2 + 8 * 2 + 96 // 8 + 8 * 4  # codes, scales, signs, bias
    packed = one.pack()
    again = CompressedLinear.unpack(Packed(json.loads(json.dumps(packed.header)), packed.tensors))
    x = torch.randn(3, 96)
    assert torch.equal(again(x), one(x))


def test_an_outlier_is_spread_over_its_block():
    x = torch.zeros(1, 64)
    x[0, 5] = 8.0
    assert torch.equal(Rotation(random_signs(64, seed=0))(x).abs(), torch.ones(1, 64))


@torch.no_grad()
def error(technique, x):
    torch.manual_seed(0)
    linear = nn.Linear(x.shape[-1], 64)
    exact = linear(x)
    return float((technique.compress(linear)(x) - exact).norm() / exact.norm())


def test_outliers_cost_little_once_turned():
    """At 8 bits; relative to outputs that the outliers make larger."""
    turned, plain = HadamardRotation(bits=8, activation_bits=8), RTN(**PLAIN)
    x = torch.randn(256, 128, generator=torch.Generator().manual_seed(1))
    calm = error(turned, x)
    x[:, 7] *= 60
    x[:, 77] *= 40
    assert error(turned, x) < error(plain, x) / 3
    assert error(turned, x) < calm


def test_a_model_with_outliers_errs_less_turned():
    torch.manual_seed(0)
    model = Decoder(DecoderShape(vocab_size=32, d_model=64, n_layers=2, n_heads=4, d_ff=96))
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    model = inject_outliers(model.eval(), factor=50.0, channels=2)
    ids = torch.randint(32, (4, 24), generator=torch.Generator().manual_seed(1))
    plain, turned = (
        layer_errors(model, technique.compressed(model), Calibration([ids]))
        for technique in (
            RTN(**PLAIN),
            HadamardRotation(bits=8, activation_bits=8),
        )
    )
    for name, found in plain.items():
        if name.endswith(("q_proj", "up_proj")):
            assert turned[name].output_error < found.output_error / 4


def test_static_ranges_are_refused():
    with pytest.raises(ValueError, match="before they turn"):
        HadamardRotation(activation_static=True, activation_granularity="tensor")
