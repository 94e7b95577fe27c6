"""OBD: a saliency is the output error of that removal alone."""

import pytest
import torch
from torch import nn

from impls.compression import OBD, Magnitude
from impls.compression.interface import LayerStatistics
from impls.compression.obd import saliencies

R, C = 4, 10


def problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, C, generator=generator) @ torch.randn(C, C, generator=generator)
    linear = nn.Linear(C, R)
    nn.init.normal_(linear.weight, generator=generator)
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"squares", "hessian"}))
    return linear, statistics, x.double()


def test_a_saliency_is_the_squared_output_error_of_that_removal():
    linear, statistics, x = problem()
    weight = linear.weight.detach()
    found = saliencies(weight, statistics.squares)
    for row in range(R):
        for q in range(C):
            without = weight.double().clone()
            without[row, q] = 0.0
            error = (x @ (weight - without).T).square().sum()
            torch.testing.assert_close(found[row, q], error, rtol=1e-12, atol=0)


def test_it_is_half_the_hessian_s_diagonal_times_the_weight_squared():
    linear, statistics, _ = problem()
    half = statistics.hessian.diagonal() * linear.weight.detach().double().square() / 2
    found = saliencies(linear.weight.detach(), statistics.squares)
    torch.testing.assert_close(found, half, rtol=1e-12, atol=0)


@pytest.mark.parametrize("options", [{"scope": "layer"}, {"scope": "row"}, {"pattern": "1:2"}])
def test_the_lowest_saliencies_go_and_the_rest_is_unchanged(options):
    linear, statistics, _ = problem()
    weight = linear.weight.detach()
    small = OBD(value_dtype="float32", **options).compress(linear, statistics)
    removed = small.weight.removed()
    assert torch.equal(small.dequantize(), weight.masked_fill(removed, 0.0))
    unit = 2 if "pattern" in options else (C if options["scope"] == "row" else R * C)
    score = saliencies(weight, statistics.squares).view(-1, unit)
    gone = removed.view(-1, unit)
    dearest_gone = score.masked_fill(~gone, 0).amax(1)
    assert (dearest_gone < score.masked_fill(gone, torch.inf).amin(1)).all()


def test_where_inputs_are_alike_it_is_magnitude():
    linear, _, _ = problem()
    alike = LayerStatistics(n_tokens=1, squares=torch.full((C,), 3.0, dtype=torch.float64))
    small = OBD().compress(linear, alike)
    assert torch.equal(small.dequantize(), Magnitude().compress(linear).dequantize())
