"""Ranges from a stream: what numpy finds in all numbers at once, to a bin."""

import numpy as np
import pytest
import torch

from impls.compression._grid import SHRINKS, Grid
from impls.compression._histogram import BINS, Histogram

every_symmetry = pytest.mark.parametrize("symmetric", [True, False])


def stream():
    """Batches that grow, so that the range must widen; one has zeros alone."""
    x = torch.randn(6, 5000, generator=torch.Generator().manual_seed(0))
    x *= torch.tensor([0.01, 0.5, 1.0, 0.0, 30.0, 2.0])[:, None]
    return x + torch.tensor([0.0, 0.0, 0.3, 0.0, 0.0, 0.0])[:, None]


def histogram(batches):
    found = Histogram()
    for batch in batches:
        found.add(batch)
    return found


def grid(rule, symmetric, bits=4, percentile=99.0):
    return Grid(
        bits=bits,
        symmetric=symmetric,
        range=rule,
        percentile=percentile,
        granularity="tensor",
        scale_dtype="float32",
    )


def bin_width(found):
    return 2 * found.bound / BINS


@every_symmetry
def test_the_whole_range_is_exact(symmetric):
    low, high = histogram(stream()).bounds(grid("minmax", symmetric))
    assert (low, high) == (stream().min(), stream().max())


@every_symmetry
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_a_percentile_is_numpy_s_within_a_bin(symmetric, percentile):
    found, numbers = histogram(stream()), stream().numpy().ravel()
    low, high = found.bounds(grid("percentile", symmetric, percentile=percentile))
    if symmetric:
        bound = np.quantile(np.abs(numbers), percentile / 100, method="inverted_cdf")
        expected = -bound, bound
    else:
        outside = (1 - percentile / 100) / 2
        expected = np.quantile(numbers, [outside, 1 - outside], method="inverted_cdf")
    assert float(low) == pytest.approx(expected[0], abs=bin_width(found))
    assert float(high) == pytest.approx(expected[1], abs=bin_width(found))


@every_symmetry
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_the_range_of_least_squared_error_is_the_best_on_all_numbers(symmetric, bits):
    """Its error on the numbers themselves, beside the best of all shares that were tried."""
    found, x = histogram(stream()), stream().view(1, -1)
    rule = grid("mse", symmetric, bits)

    def error(low, high):
        affine = rule.between(low.view(1, 1), high.view(1, 1))
        return float((affine.rounded(x) - x).square().mean())

    shares = [1 - step / SHRINKS for step in range(SHRINKS)]
    best = min(error(x.min() * share, x.max() * share) for share in shares)
    # A number is up to half a bin from the centre that stands for it.
    slack = 2 * best**0.5 * bin_width(found) / 2 + bin_width(found) ** 2 / 4
    assert error(*found.bounds(rule)) <= best + 2 * slack


def test_the_order_and_the_size_of_batches_change_nothing():
    one, other = histogram(stream()), histogram([stream().flip(0)])
    assert one.bound == other.bound
    assert (one.low, one.high) == (other.low, other.high)
    assert one.counts.sum() == other.counts.sum() == stream().numel()
    moved = (one.counts - other.counts).abs().sum() / 2  # numbers on the edge between two bins
    assert moved <= 1e-3 * stream().numel()


def test_zeros_alone_have_a_range_of_no_width():
    low, high = histogram([torch.zeros(10)]).bounds(grid("minmax", symmetric=False))
    assert (low, high) == (0, 0)
