"""HQQ: codes, scales and zero points of the hqq package; the objective; what cannot be stored."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from impls.compression import HQQ
from impls.compression.hqq import shrunk

GOLDEN = Path(__file__).parent / "golden" / "hqq.safetensors"
TOLD = json.loads(GOLDEN.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def linear(weight):
    layer = nn.Linear(*weight.shape[::-1], bias=False)
    layer.weight.data = weight
    return layer


@pytest.mark.parametrize(("name", "bits"), TOLD["cases"])
def test_codes_scales_and_zero_points_are_those_of_the_package(golden, name, bits):
    told = TOLD["options"][name]
    technique = HQQ(
        bits=bits,
        group=TOLD["group"],
        norm=told["lp_norm"],
        beta=told["beta"],
        kappa=told["kappa"],
        steps=told["iters"],
        scale_dtype="float32",
    )
    stored = technique.compress(linear(golden["weight"])).weight
    codes, scale, zero = (golden[f"{what}_{name}_{bits}"] for what in ("codes", "scale", "zero"))
    assert torch.equal(stored.integers(), codes.int())
    # Theirs divides by the inverse of the scale: numbers up to 2^bits, rounded four times a step.
    torch.testing.assert_close(stored.scales, scale, rtol=2**-22, atol=0)
    torch.testing.assert_close(stored.zeros, zero, rtol=0, atol=told["iters"] * 2 ** (bits - 22))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_moving_zero_points_lowers_the_objective_and_the_mean_error(golden, bits):
    layer = linear(golden["weight"])

    def errors(steps):
        technique = HQQ(bits=bits, steps=steps, scale_dtype="float32")
        return (technique.compress(layer).dequantize() - layer.weight).abs()

    before, after = errors(0), errors(20)
    assert after.pow(0.7).sum() < before.pow(0.7).sum()
    assert after.mean() < before.mean()


def test_the_threshold_is_soft_for_p_of_1_and_lets_more_through_below():
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    e = shrunk(x, beta=10.0, p=1.0)
    assert torch.equal(e, x.sign() * (x.abs() - 0.1).clamp(min=0))  # p = 1: the soft threshold
    small = shrunk(x, beta=10.0, p=0.7)
    large = x.abs() > 0.1 ** (1 / 1.3)  # |x| = |x|^(p-1) / beta
    assert (small[~large] == 0).all()
    assert (small[large].abs() > 0).all()
    assert (small.abs() >= e.abs())[x.abs() >= 1].all()


def test_codes_in_float16_are_the_nearest_to_the_scales_and_zero_points_stored(golden):
    layer = linear(golden["weight"])
    for bits in (2, 4, 8):
        stored = HQQ(bits=bits).compress(layer)
        inside = (stored.weight.integers() > 0) & (stored.weight.integers() < 2**bits - 1)
        step = stored.weight.affine().scale.repeat_interleave(64, 1)
        error = (stored.dequantize() - layer.weight).abs()
        assert (error <= step * (0.5 + 2**-12))[inside].all()


def test_bytes_are_codes_and_two_halves_for_each_group():
    layer = linear(torch.randn(32, 256))
    assert HQQ().compress(layer).nbytes() == 32 * 256 // 2 + 2 * 2 * 32 * 4
    assert HQQ(bits=3).compress(layer).nbytes() == 32 * 256 * 3 // 8 + 2 * 2 * 32 * 4


def test_a_group_of_equal_weights_is_kept():
    weight = torch.full((2, 64), 0.375)
    assert torch.equal(HQQ().compress(linear(weight)).dequantize(), weight)


def test_what_float16_cannot_hold_is_refused():
    far = 1e5 + torch.randn(2, 64)
    with pytest.raises(ValueError, match=r"a zero point of .* does not fit float16"):
        HQQ().compress(linear(far))
    with pytest.raises(ValueError, match=r"a scale of .* does not fit float16"):
        HQQ().compress(linear(1e7 * torch.randn(2, 64)))
    assert HQQ(scale_dtype="float32").compress(linear(far)).dequantize().isfinite().all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("norm", 0.0), ("norm", 1.5), ("beta", 0.0), ("kappa", 0.9), ("scale_dtype", "int8")],
)
def test_numbers_out_of_bounds_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"{field} must be .* got {value!r}"):
        HQQ(**{field: value})
