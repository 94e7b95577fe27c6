"""Magnitude pruning is what torch's own pruning does."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from impls.compression import Magnitude


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.9])
def test_over_a_layer_it_is_torch_s_unstructured_pruning(sparsity):
    torch.manual_seed(0)
    linear, theirs = nn.Linear(30, 7), nn.Linear(30, 7)
    theirs.load_state_dict(linear.state_dict())
    prune.l1_unstructured(theirs, "weight", amount=sparsity)
    small = Magnitude(sparsity=sparsity, value_dtype="float32").compress(linear)
    assert torch.equal(small.dequantize(), theirs.weight)
    assert torch.equal(small.bias, linear.bias)


def test_by_rows_it_is_torch_s_on_each_row():
    torch.manual_seed(0)
    linear = nn.Linear(30, 7)
    small = Magnitude(sparsity=0.4, scope="row", value_dtype="float32").compress(linear)
    for row, got in zip(linear.weight.detach(), small.dequantize(), strict=True):
        theirs = nn.Module()
        theirs.weight = nn.Parameter(row.clone())
        prune.l1_unstructured(theirs, "weight", amount=0.4)
        assert torch.equal(got, theirs.weight)


def test_of_four_neighbours_the_two_largest_stay():
    linear = nn.Linear(8, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, -4, 3, 2, 5, 6, -7, 8]]))
    found = Magnitude(pattern="2:4").compress(linear).dequantize()
    assert found.tolist() == [[0, -4, 3, 0, 0, 0, -7, 8]]


def test_weights_that_are_no_numbers_are_refused():
    linear = nn.Linear(8, 2)
    with torch.no_grad():
        linear.weight[1, 3] = torch.nan
    with pytest.raises(ValueError, match=r"a weight has 1 numbers that are not finite.* \(1, 3\)"):
        Magnitude().compress(linear)
