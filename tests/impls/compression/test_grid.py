"""Uniform grids: bit-equal to torch's fake-quantize operators, and what their ranges promise."""

import math

import numpy as np
import pytest
import torch

from impls.compression._affine import Affine
from impls.compression._grid import Grid, percentile_range

BITS = range(2, 9)
every_width = pytest.mark.parametrize("bits", BITS)
every_symmetry = pytest.mark.parametrize("symmetric", [True, False])


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def data():
    """Rows of several sizes, with signs of one kind only, ties, zeros and one number alone."""
    x = normal(12, 96)
    x[1], x[2], x[3] = x[1].abs(), -x[2].abs(), 0.0
    x[4] *= 1e-6
    x[5] *= 1e6
    x[6] = torch.arange(96) / 2 - 24
    x[7, 1:] = 0.0
    return x


def fake(x, affine):
    """What torch's own operators make of the rows of x, each with one scale."""
    if affine.scale.numel() == 1:
        scale, zero = affine.scale.item(), int(affine.zero)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, affine.low, affine.high)
    scale, zero = affine.scale.flatten(), affine.zero.flatten().int()
    return torch.fake_quantize_per_channel_affine(x, scale, zero, 0, affine.low, affine.high)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "token", "group", "input_channel"])
@every_symmetry
def test_rounding_is_torch_s_bit_for_bit(symmetric, granularity):
    x = data()
    # Groups are rows of a tensor with more rows, columns are rows of the transposed one.
    rows = {"group": x.view(-1, 32), "input_channel": x.T.contiguous()}.get(granularity, x)
    for bits in BITS:
        grid = Grid(
            bits=bits, symmetric=symmetric, granularity=granularity, group=32, scale_dtype="float32"
        )
        affine = grid.fit(x)
        expected = fake(rows, affine)
        expected = expected.T if granularity == "input_channel" else expected.view_as(x)
        assert torch.equal(affine.rounded(x), expected)
        assert affine.codes(x).min() >= affine.low
        assert affine.codes(x).max() <= affine.high


def test_what_lies_between_two_codes_falls_as_in_torch():
    """Halves of scales that are no power of two: multiplied by 1 / s, not divided by s."""
    scale = (torch.arange(1, 200) / 1000)[:, None]
    x = (torch.arange(-100, 100) + 0.5) * scale
    affine = Affine(scale, torch.zeros_like(scale), -127, 127)
    assert torch.equal(affine.rounded(x), fake(x, affine))
    assert not torch.equal(torch.round(x / scale), affine.codes(x))


@every_symmetry
@every_width
def test_scales_and_zero_points_are_those_of_the_equations(bits, symmetric):
    x = data().double()
    affine = Grid(bits=bits, symmetric=symmetric, granularity="channel", scale_dtype="float32").fit(
        x.float()
    )
    low, high = x.amin(1, keepdim=True).clamp(max=0), x.amax(1, keepdim=True).clamp(min=0)
    if symmetric:
        scale = x.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    else:
        scale = (high - low) / (2**bits - 1)
    width = high > low
    torch.testing.assert_close(affine.scale[width].double(), scale[width], rtol=2**-22, atol=0)
    assert (affine.scale[~width] == 1).all()
    assert torch.equal(affine.zero, affine.zero.round())
    if not symmetric:  # rounded, and the scale itself was
        assert ((affine.zero + low / affine.scale).abs() <= 0.5 + 2**-14)[width].all()


@every_symmetry
@every_width
def test_zero_is_kept_and_the_error_is_at_most_half_a_step(bits, symmetric):
    """Beyond the half step an asymmetric grid loses as much again where its zero was rounded."""
    x = data()
    affine = Grid(bits=bits, symmetric=symmetric, granularity="channel", scale_dtype="float32").fit(
        x
    )
    error = (affine.rounded(x) - x).abs()
    assert (error <= affine.scale * (0.5 if symmetric else 1.0) * (1 + 2**-12)).all()
    assert (affine.rounded(torch.zeros_like(x)) == 0).all()


@every_symmetry
def test_finer_scales_never_have_larger_steps(symmetric):
    x = data()

    def steps(granularity, group=64):
        grid = Grid(
            symmetric=symmetric, granularity=granularity, group=group, scale_dtype="float32"
        )
        scale = grid.fit(x).scale
        widened = scale.repeat_interleave(12 // scale.shape[0], 0)
        scale = widened.repeat_interleave(96 // scale.shape[1], 1)
        return torch.where(scale == 1, 0.0, scale)  # 1 where a block is all zeros

    tensor, channel, group = steps("tensor"), steps("channel"), steps("group", 32)
    assert (channel <= tensor).all()
    assert (group <= channel).all()
    assert torch.equal(steps("group", 96), channel)


@pytest.mark.parametrize("scale_dtype", ["float16", "bfloat16", "float32"])
@every_symmetry
def test_numbers_are_rounded_by_the_scale_that_is_stored(scale_dtype, symmetric):
    affine = Grid(symmetric=symmetric, group=32, scale_dtype=scale_dtype).fit(normal(8, 96))
    stored = affine.scale.to(getattr(torch, scale_dtype)).float()
    assert torch.equal(stored, affine.scale)
    assert torch.equal(
        affine.rounded(affine.values(affine.codes(normal(8, 96)))), affine.rounded(normal(8, 96))
    )


@pytest.mark.parametrize(("bits", "decibels"), [(8, 44.54), (4, 19.36), (3, 12.00), (2, 2.88)])
def test_normal_numbers_lose_what_a_reference_computation_says(bits, decibels):
    """Symmetric over groups of 64: within four standard errors, found from 64 samples."""
    grid = Grid(bits=bits, symmetric=True, group=64, scale_dtype="float32")
    x = normal(64, 4096).double()
    noise = (grid.fit(x).rounded(x) - x).square().sum(1)
    found = 10 * torch.log10(x.square().sum(1) / noise)
    of_all = 10 * math.log10(float(x.square().sum() / noise.sum()))
    assert of_all == pytest.approx(decibels, abs=4 * float(found.std()) / 8 + 0.005)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_a_range_on_one_side_of_zero_gains_a_bit_from_a_zero_point(bits):
    """One bit is 6.02 dB in the limit of small steps; numbers that are 0 lose nothing in both."""
    x = normal(64, 4096).clamp(min=0)  # behind a rectifier

    def decibels(symmetric):
        grid = Grid(bits=bits, symmetric=symmetric, granularity="channel", scale_dtype="float32")
        return -10 * math.log10(float((grid.fit(x).rounded(x) - x).square().mean()))

    steps = (2**bits - 1) / (2 ** (bits - 1) - 1)  # 6.02 dB for 2 steps in the place of 1
    assert decibels(False) - decibels(True) == pytest.approx(20 * math.log10(steps), abs=0.1)


@every_symmetry
def test_a_percentile_is_that_of_the_sorted_numbers(symmetric):
    x = normal(1, 1001)
    low, high = percentile_range(x, 98.0, symmetric=symmetric)
    if symmetric:
        bound = np.quantile(x.abs().numpy(), 0.98, method="nearest")
        assert (float(low), float(high)) == (-bound, bound)
    else:
        expected = np.quantile(x.numpy(), [0.01, 0.99], method="nearest")
        np.testing.assert_array_equal([float(low), float(high)], expected)


@every_symmetry
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_range_of_least_squared_error_is_the_best_of_those_tried(bits, symmetric):
    x = normal(6, 64)
    x[:, 0] *= 10
    grids = [
        Grid(bits=bits, symmetric=symmetric, granularity="channel", range=rule)
        for rule in ("mse", "minmax")
    ]
    best, whole = ((grid.fit(x).rounded(x) - x).square().sum(1) for grid in grids)
    assert (best <= whole).all()
    assert best.sum() < whole.sum()
    for share in torch.linspace(1, 1 / 40, 40):
        low, high = x.amin(1, keepdim=True) * share, x.amax(1, keepdim=True) * share
        other = (grids[0].between(low, high).rounded(x) - x).square().sum(1)
        assert (best <= other * (1 + 1e-5)).all()  # shares are rounded here once more


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits must be from 2 to 8, got 1"),
        ({"bits": 9}, "bits must be from 2 to 8, got 9"),
        ({"group": 1}, "group must be at least 2, got 1"),
        ({"percentile": 50.0}, r"percentile must be above 50 and at most 100, got 50\.0"),
    ],
)
def test_options_out_of_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Grid(**options)


def test_what_cannot_be_rounded_is_refused():
    for bad in (torch.nan, torch.inf):
        x = normal(2, 64)
        x[1, 3] = bad
        with pytest.raises(
            ValueError, match=r"1 numbers that are not finite, the first at \(1, 3\)"
        ):
            Grid().fit(x)
    with pytest.raises(ValueError, match="groups of 64 do not divide 96 inputs"):
        Grid().fit(normal(2, 96))
    with pytest.raises(ValueError, match="does not fit float16: set scale_dtype to 'float32'"):
        Grid(bits=2).fit(1e6 * normal(2, 64))
