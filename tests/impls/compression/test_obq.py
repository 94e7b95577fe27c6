"""OBQ against one row at a time with explicit downdates, and against every choice there is."""

from itertools import permutations, product

import pytest
import torch
from torch import nn

from impls.compression import GPTQ, OBQ, RTN, obq
from impls.compression._hessian import damped, inverse, without
from impls.compression.interface import LayerStatistics

R, C = 12, 32


def linear(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight)
    return layer


def reads(x):
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"hessian"}))
    return statistics


def correlated(columns=C, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    return torch.randn(200, columns, generator=generator) @ mixing


def some_weight(rows=R, columns=C, seed=1):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def loss(weight, changed, hessian):
    """(w - w^)^T H (w - w^) / 2 over all rows."""
    lost = (weight - changed).double()
    return float(((lost @ hessian) * lost).sum() / 2)


def row_by_row(weight, left, affine):
    """The definition: explicit downdates, outliers before the cheapest; the order of each row."""
    weight, left = weight.double(), left.expand(len(weight), -1, -1).clone()
    step = affine.scale.repeat_interleave(weight.shape[1] // affine.scale.shape[1], 1)
    orders = []
    for row in range(len(weight)):
        free = set(range(weight.shape[1]))
        orders.append([])
        while free:
            error = weight - affine.rounded(weight)
            outliers = {p for p in free if abs(error[row, p]) > 0.5001 * step[row, p]}
            cost = {p: float(error[row, p] ** 2 / left[row, p, p]) for p in outliers or free}
            p = min(cost, key=cost.__getitem__)
            weight[row] -= error[row, p] / left[row, p, p] * left[row, p]
            left[row] = without(left[row], p)
            free.remove(p)
            orders[-1].append(p)
    return weight, orders


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("options", [{"group": 8}, {"granularity": "channel", "symmetric": True}])
def test_every_row_is_that_of_explicit_downdates(bits, options):
    technique, weight = OBQ(bits=bits, **options), some_weight()
    left = inverse(damped(reads(correlated()).hessian).matrix)
    affine = technique.grid.fit(weight)
    expected, orders = row_by_row(weight, left, affine)
    assert len({tuple(order) for order in orders}) == R  # rows do differ in their order
    got = obq.greedy(weight, left, affine)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)  # equal levels, of float32
    layer = technique.compress(linear(weight), reads(correlated()))
    assert torch.equal(layer.dequantize(), got.float())


def test_of_two_columns_the_cheaper_error_is_made_first():
    """With two weights there are two orders; the rest is the best that one free weight can do."""
    weight, statistics = some_weight(rows=64, columns=2), reads(correlated(columns=2))
    technique = OBQ(bits=3, granularity="channel", damp=0.0)
    got = technique.compress(linear(weight), statistics).dequantize()
    affine, matrix = technique.grid.fit(weight), statistics.hessian
    nearest = affine.rounded(weight)
    single = {}  # the least loss with one weight rounded: e^2 / (2 H^-1_pp)
    final = {}
    for p, free in permutations(range(2)):
        error = (weight - nearest)[:, p].double()
        moved = weight.double()
        moved[:, p] = nearest[:, p].double()
        moved[:, free] += error * matrix[p, free] / matrix[free, free]
        lost = weight - moved
        single[p] = ((lost @ matrix) * lost).sum(1) / 2
        torch.testing.assert_close(single[p], error**2 / (2 * inverse(matrix)[p, p]))
        final[p] = affine.rounded(moved)
    expected = torch.where((single[0] < single[1])[:, None], final[0], final[1])
    assert torch.equal(got, expected)
    assert (final[0] != final[1]).any()


def test_no_choice_of_levels_is_better_than_the_best_of_all():
    weight, statistics = some_weight(rows=4, columns=3), reads(correlated(columns=3))
    technique = OBQ(bits=2, granularity="channel", damp=0.0)
    got = technique.compress(linear(weight), statistics).dequantize()
    affine = technique.grid.fit(weight)
    every = [affine.values(torch.tensor(c).expand(4, 3)) for c in product(range(4), repeat=3)]
    for row in range(4):
        losses = [loss(weight[row], values[row], statistics.hessian) for values in every]
        ours = loss(weight[row], got[row], statistics.hessian)
        assert min(losses) <= ours * (1 + 1e-12)
        assert any(torch.equal(values[row], got[row]) for values in every)


@pytest.mark.parametrize("options", [{"group": 8}, {"granularity": "tensor", "bits": 3}])
def test_it_is_rounding_where_inputs_are_uncorrelated(options):
    weight, statistics = some_weight(), reads(torch.diag(torch.arange(1.0, C + 1)))
    got = OBQ(**options).compress(linear(weight), statistics).dequantize()
    assert torch.equal(got, RTN(**options).compress(linear(weight)).dequantize())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_over_all_rows_it_errs_less_than_rounding(bits):
    weight, statistics = some_weight(rows=32), reads(correlated())
    options = {"bits": bits, "granularity": "channel"}
    losses = {
        technique: loss(
            weight,
            technique(**options).compress(linear(weight), statistics).dequantize(),
            statistics.hessian,
        )
        for technique in (RTN, OBQ)
    }
    assert losses[OBQ] < losses[RTN]


def test_an_outlier_goes_before_anything_that_is_cheaper():
    """Beyond the outermost level its error can only grow while others are rounded."""
    error = torch.tensor([[0.01, -0.9, 0.3, 0.6], [0.2, 0.1, 0.4, 0.3]], dtype=torch.float64)
    pivots, steps = torch.ones_like(error), torch.ones_like(error)
    free = torch.ones_like(error, dtype=torch.bool)
    assert obq._next(error, pivots, steps, free).tolist() == [3, 1]
    free[0, 3] = free[1, 1] = False
    assert obq._next(error, pivots, steps, free).tolist() == [1, 0]


def test_chunks_of_rows_change_nothing(monkeypatch):
    weight, statistics = some_weight(), reads(correlated())
    whole = OBQ(group=8).compress(linear(weight), statistics).dequantize()
    monkeypatch.setattr(obq, "CHUNK", 5 * 8 * C * C)  # five rows
    assert torch.equal(OBQ(group=8).compress(linear(weight), statistics).dequantize(), whole)


def test_scales_are_those_of_the_weights_given():
    weight, statistics = some_weight(), reads(correlated())
    layer = OBQ(group=8).compress(linear(weight), statistics)
    assert torch.equal(layer.weight.scales, RTN(group=8).nearest(weight).scales)
    assert layer.nbytes() == GPTQ(group=8).compress(linear(weight), statistics).nbytes()


def test_columns_without_input_become_0():
    x, weight = correlated(), some_weight()
    x[:, [3, 17]] = 0.0
    got = OBQ(group=8).compress(linear(weight), reads(x)).dequantize()
    assert (got[:, [3, 17]] == 0).all()
