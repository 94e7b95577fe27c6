"""The compressed layer: products of integers, exact; rounded inputs; maps; what a file lacks."""

import json
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from impls.compression import RTN
from impls.compression._activation import ActivationRounding
from impls.compression._dense import DenseWeight
from impls.compression._grid import Affine, Grid
from impls.compression._inputs import ChannelScale, ColumnOrder
from impls.compression._integer import IntegerWeight
from impls.compression._product import integer_linear
from impls.compression.interface import CompressedLinear, Packed, PackedError, Parts

SIZES = [(1, 1, 1), (5, 3, 1), (1, 7, 9), (17, 64, 33), (2, 129, 8)]  # tokens, inputs, outputs
SIGNS = list(product([True, False], repeat=2))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn(shape, bits, symmetric, blocks, seed):
    """Any codes with any zero points, the extremes among them, and scale 1."""
    high = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    low = -high if symmetric else 0
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(low, high + 1, shape, generator=generator).float()
    codes.view(-1)[0], codes.view(-1)[-1] = high, low
    zero = torch.zeros(blocks, 1)
    if not symmetric:
        zero = torch.randint(high + 1, (blocks, 1), generator=generator).float()
        zero[0], zero[-1] = 0.0, float(high)
    return codes, Affine(torch.ones(blocks, 1), zero, low, high)


@pytest.mark.parametrize(("x_symmetric", "w_symmetric"), SIGNS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_product_of_integers_is_exact(bits, x_symmetric, w_symmetric):
    for n, c, r in SIZES:
        for x_blocks, w_blocks in product({1, n}, {1, r}):
            q_x, x = drawn((n, c), 8, x_symmetric, x_blocks, seed=1)
            q_w, w = drawn((r, c), bits, w_symmetric, w_blocks, seed=2)
            weight = IntegerWeight(q_w, w, bits=bits, scale_dtype="float32")
            exact = (q_x - x.zero).long() @ (q_w - w.zero).long().T
            assert torch.equal(integer_linear(q_x, x, weight), exact.float())


@pytest.mark.parametrize(("x_symmetric", "w_symmetric"), SIGNS)
@pytest.mark.parametrize("granularity", ["tensor", "token"])
@pytest.mark.parametrize("weights", ["tensor", "channel", "group"])
def test_a_layer_multiplies_what_its_codes_stand_for(
    weights, granularity, x_symmetric, w_symmetric
):
    technique = RTN(
        bits=8,
        symmetric=w_symmetric,
        granularity=weights,
        activation_bits=8,
        activation_symmetric=x_symmetric,
        activation_granularity=granularity,
    )
    linear = nn.Linear(64, 24)
    linear.weight.data, linear.bias.data = normal(24, 64), normal(24, seed=1)
    layer, x = technique.compress(linear), normal(3, 5, 64, seed=2) + 0.5
    rounded, weight = layer.activation(x), layer.weight.dequantize()
    exact = F.linear(rounded.double(), weight.double(), layer.bias.double())
    naive = F.linear(rounded, weight, layer.bias)
    assert (layer(x) - exact).norm() <= 2 * (naive - exact).norm() + 2**-23 * exact.norm()
    assert (layer(x) - F.linear(x, linear.weight, linear.bias)).norm() < 0.02 * exact.norm()


def test_each_token_has_a_scale_of_its_own_whatever_stands_beside_it():
    layer = RTN(bits=8, granularity="channel", activation_bits=8).compress(nn.Linear(16, 4))
    x = normal(6, 16)
    together = layer(torch.cat((x, 1000 * x)))
    assert torch.equal(together[:6], layer(x))
    tensor = ActivationRounding(Grid(bits=8, granularity="tensor", scale_dtype="float32"))
    assert not torch.equal(tensor(torch.cat((x, 1000 * x)))[:6], tensor(x))


def test_a_map_of_the_input_is_undone_in_the_weight_it_stands_for():
    weight, x = normal(8, 6), normal(4, 6, seed=1)
    scale, order = torch.linspace(0.5, 3, 6), torch.tensor([3, 0, 5, 1, 4, 2])
    scaled = CompressedLinear(Parts(DenseWeight(weight * scale), None, ChannelScale(scale)))
    sorted_ = CompressedLinear(Parts(DenseWeight(weight[:, order]), None, ColumnOrder(order)))
    assert torch.equal(sorted_.dequantize(), weight)
    torch.testing.assert_close(scaled.dequantize(), weight, rtol=2**-22, atol=0)
    for layer in (scaled, sorted_):
        assert (layer(x) - F.linear(x, weight)).norm() <= 2**-21 * F.linear(x, weight).norm()
        again = CompressedLinear.unpack(
            Packed(json.loads(json.dumps(layer.pack().header)), layer.pack().tensors)
        )
        assert torch.equal(again(x), layer(x))
    assert sorted_.nbytes() == weight.nbytes + 2 * 6  # places in 16 bits


def test_bytes_are_all_that_is_stored():
    linear = nn.Linear(128, 16)
    layer = RTN(bits=3, group=32).compress(linear)
    codes, scales, zeros = 16 * 128 * 3 // 8, 2 * 16 * 4, 16 * 4 * 3 // 8
    assert layer.nbytes() == codes + scales + zeros + 4 * 16
    assert layer.bits_per_parameter() == 8 * (codes + scales + zeros) / (16 * 128)


def static_layer():
    grid = Grid(bits=8, granularity="tensor", scale_dtype="float32")
    rounding = ActivationRounding(grid, torch.tensor(-1.0), torch.tensor(2.0))
    return CompressedLinear(Parts(DenseWeight(normal(4, 8)), rounding))


def test_a_static_range_is_never_lost_on_the_way():
    """Without its bounds the rounding would pass for a dynamic one."""
    packed = static_layer().pack()
    assert torch.equal(CompressedLinear.unpack(packed)(normal(2, 8)), static_layer()(normal(2, 8)))
    cut = {name: tensor for name, tensor in packed.tensors.items() if "bounds" not in name}
    with pytest.raises(PackedError, match=r"activation\.bounds.* is missing"):
        CompressedLinear.unpack(Packed(packed.header, cut))


@pytest.mark.parametrize(
    "damage",
    [
        {"weight": {"kind": "dense"}},
        {"weight": {"kind": "dense", "rows": 4, "columns": 9, "dtype": "float32"}},
        {"weight": {"kind": "dense", "rows": 4, "columns": 8, "dtype": "float17"}},
        {"weight": {"kind": "../dense"}},
        {"input_map": {"kind": "tomorrow"}},
        {"activation": {"bits": 8}},
        {"beside": {}},
    ],
    ids=str,
)
def test_a_damaged_header_is_refused(damage):
    packed = static_layer().pack()
    with pytest.raises(PackedError):
        CompressedLinear.unpack(Packed({**packed.header, **damage}, packed.tensors))


def test_a_prepared_weight_follows_what_is_loaded_into_it():
    """The kernel keeps codes in its own order: they must not outlive those they were made of."""
    one, other = (RTN().compress(nn.Linear(64, 32)) for _ in range(2))
    x = normal(2, 64)
    with torch.no_grad():
        one(x)
        one.load_state_dict(other.state_dict())
        assert torch.equal(one(x), other(x))
