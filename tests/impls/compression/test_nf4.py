"""NF4: bitsandbytes' table, codes and statistics; bytes; what is on the table stays."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from impls.compression import NF4, RTN
from impls.compression._codebook import table
from impls.compression._nested_codebook import RUN, dynamic_table
from impls.compression.interface import CompressedLinear, Packed, PackedError

SHAPES = [(64, 64), (48, 384), (100, 192), (3, 64)]  # runs of scales that end early, too


@pytest.fixture(scope="module")
def bnb():
    """The functions of bitsandbytes."""
    return pytest.importorskip("bitsandbytes").functional


def linear(weight):
    layer = nn.Linear(*weight.shape[::-1], bias=False)
    layer.weight.data = weight
    return layer


def normal(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def theirs_in_our_order(packed, like):
    """Bytes of theirs, the earlier code in the upper half, as ours, with it in the lower."""
    return (packed >> 4 | packed << 4).view_as(like)


def test_the_table_is_that_of_bitsandbytes_and_of_the_quantiles_the_paper_defines(bnb):
    assert torch.equal(table("nf4"), bnb.get_4bit_type("nf4", device="cpu"))
    offset = (1 - 1 / (2 * 15) + 1 - 1 / (2 * 16)) / 2  # appendix E
    above = torch.special.ndtri(torch.linspace(offset, 0.5, 9, dtype=torch.float64))
    below = -torch.special.ndtri(torch.linspace(offset, 0.5, 8, dtype=torch.float64))
    quantiles = torch.cat((above[:-1], below)).sort().values / above[0]
    # Offset and quantiles were computed in float32 there: two roundings of numbers up to 1.
    torch.testing.assert_close(table("nf4").double(), quantiles, atol=2**-22, rtol=0)


def test_the_table_of_scales_is_that_of_bitsandbytes(bnb):
    assert torch.equal(dynamic_table(), bnb.create_dynamic_map())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("group", [32, 64])
def test_codes_scales_and_weights_are_those_of_bitsandbytes(bnb, shape, group):
    weight = normal(shape)
    weight[0, :group] = 0.0
    packed, told = bnb.quantize_4bit(weight, blocksize=group, quant_type="nf4")
    ours = NF4(group=group, nested=False).compress(linear(weight))
    assert torch.equal(ours.weight.codes, theirs_in_our_order(packed, ours.weight.codes))
    assert torch.equal(ours.weight.scales.flatten(), told.absmax)
    assert torch.equal(ours.dequantize(), bnb.dequantize_4bit(packed, told))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scales_in_8_bits_are_those_of_bitsandbytes(bnb, shape):
    """Its CPU kernel reads codes from a table of 2^16 places over [-1, 1]: ours are nearer."""
    weight = normal(shape)
    packed, told = bnb.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    stored = NF4().compress(linear(weight)).weight
    assert torch.equal(stored.codes, theirs_in_our_order(packed, stored.codes))
    assert torch.equal(stored.mean[0], told.offset)
    assert torch.equal(stored.scales_of_scales, told.state2.absmax)
    scales = NF4(nested=False).compress(linear(weight)).weight.scale().flatten()
    ours, theirs = (dynamic_table()[q.flatten().int()] for q in (stored.scales, told.absmax))
    of_scales = stored.scales_of_scales.repeat_interleave(RUN)[: len(scales)]
    share = (scales - stored.mean) / of_scales
    differ = ours != theirs
    assert differ.float().mean() < 0.02
    assert ((share - ours).abs() <= (share - theirs).abs())[differ].all()
    middles = (ours + theirs)[differ] / 2
    torch.testing.assert_close(middles, share[differ], atol=2**-16, rtol=0)


def test_bits_are_those_of_codes_and_scales():
    shape = (256, 256)
    layer = linear(normal(shape))
    n, groups = math.prod(shape), math.prod(shape) // 64
    assert NF4(nested=False).compress(layer).nbytes() == n // 2 + 4 * groups
    assert NF4().compress(layer).nbytes() == n // 2 + groups + 4 * (groups // RUN) + 4
    large = NF4().compress(linear(normal((1024, 1024)))).bits_per_parameter()
    assert large == pytest.approx(4.127, abs=5e-4)  # section 3: 0.127 bits a parameter of scales


def test_what_is_on_the_table_stays_as_it_is():
    once = NF4(nested=False).compress(linear(normal((32, 128))))
    twice = NF4(nested=False).compress(linear(once.dequantize()))
    assert torch.equal(twice.weight.codes, once.weight.codes)
    assert torch.equal(twice.dequantize(), once.dequantize())


def test_normal_weights_lose_less_than_on_an_even_grid():
    weight = normal((512, 512))

    def error(technique):
        return F.mse_loss(technique.compress(linear(weight)).dequantize(), weight)

    even = error(RTN(bits=4, group=64, symmetric=True, scale_dtype="float32"))
    assert error(NF4(nested=False)) < 0.9 * even
    assert error(NF4()) < 1.02 * error(NF4(nested=False))


def test_scales_of_equal_size_need_no_runs():
    """All scales are their mean: what is left is 0, and a run of zeros has scale 0."""
    weight = torch.ones(4, 128)
    assert torch.equal(NF4().compress(linear(weight)).dequantize(), weight)


def test_an_unknown_table_is_refused():
    packed = NF4().compress(linear(normal((2, 64)))).pack()
    header = {**packed.header, "weight": {**packed.header["weight"], "table": "nf5"}}
    with pytest.raises(PackedError, match="'nf5'"):
        CompressedLinear.unpack(Packed(header, packed.tensors))
