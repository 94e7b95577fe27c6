"""ExactOBS as a technique: its rows lose alike, and what they keep is the best there is."""

import pytest
import torch
from torch import nn

from impls.compression import ExactOBS, Magnitude
from impls.compression._hessian import damped
from impls.compression.interface import LayerStatistics

R, C = 16, 64


def problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, C, generator=generator) @ torch.randn(C, C, generator=generator) / C**0.5
    linear = nn.Linear(C, R)
    nn.init.normal_(linear.weight, generator=generator)
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"hessian"}))
    return linear, statistics


@pytest.mark.parametrize("pattern", ["", "2:4"])
def test_what_stays_of_a_row_solves_the_damped_least_squares_of_its_mask(pattern):
    """H_SS w^_S = (H w)_S for what stays, S: to the rounding of the numbers stored."""
    linear, statistics = problem()
    small = ExactOBS(pattern=pattern, value_dtype="float32").compress(linear, statistics)
    matrix = damped(statistics.hessian, 0.01).matrix
    weight = linear.weight.detach().double()
    for row, got, gone in zip(weight, small.dequantize(), small.weight.removed(), strict=True):
        s = ~gone
        best = torch.linalg.solve(matrix[s][:, s], matrix[s] @ row)
        rounding = 2 * torch.finfo(torch.float32).eps
        torch.testing.assert_close(got[s].double(), best, rtol=rounding, atol=1e-12)
        assert gone.sum() == C // 2


@pytest.mark.parametrize("pattern", ["", "2:4"])
def test_over_a_layer_it_errs_less_than_magnitude(pattern):
    linear, statistics = problem()
    errors, weight = [], linear.weight.detach()
    for technique in (ExactOBS(pattern=pattern), Magnitude(pattern=pattern)):
        lost = (weight - technique.compress(linear, statistics).dequantize()).double()
        errors.append(float(((lost @ statistics.hessian) * lost).sum()))
    assert errors[0] < errors[1] / 2


def test_where_inputs_do_not_act_together_the_largest_stay_as_they_are():
    linear, _ = problem()
    apart = LayerStatistics(1, hessian=2 * torch.eye(C, dtype=torch.float64))
    by_size = Magnitude(scope="row").compress(linear)
    assert torch.equal(ExactOBS().compress(linear, apart).dequantize(), by_size.dequantize())
