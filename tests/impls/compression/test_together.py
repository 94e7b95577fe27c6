"""Many removals at once against least squares on the inputs and against explicit inverses."""

import pytest
import torch

from impls.compression._hessian import inverse
from impls.compression._together import diagonals, without

EXACT = {"rtol": 1e-11, "atol": 1e-11}  # float64: C roundings of 1e-16, H of condition 1e3
R, C = 4, 24


def problem():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(R, C, generator=generator, dtype=torch.float64)
    x = torch.randn(200, C, generator=generator, dtype=torch.float64)
    x = x * torch.logspace(-0.7, 0.7, C, dtype=torch.float64)
    x = x @ torch.linalg.qr(torch.randn(C, C, generator=generator, dtype=x.dtype)).Q
    removed = torch.rand(R, C, generator=generator) < torch.tensor([[0.0], [0.1], [0.6], [1.0]])
    return weight, x, removed


def test_what_stays_is_the_least_squares_best_for_the_mask():
    weight, x, removed = problem()
    got = without(weight, inverse(2 * x.T @ x), removed)
    for row, gone, left in zip(weight, removed, got, strict=True):
        best = torch.linalg.lstsq(x[:, ~gone], (x @ row)[:, None]).solution[:, 0]
        torch.testing.assert_close(left[~gone], best, **EXACT)
        assert (left[gone] == 0).all()
    assert torch.equal(got[0], weight[0])


@pytest.mark.parametrize("q", [0, 7, C - 1])
def test_one_removal_is_the_surgeon_s(q):
    """w - w_q / [H^-1]_qq H^-1 e_q."""
    weight, x, _ = problem()
    left = inverse(2 * x.T @ x)
    removed = torch.zeros(R, C, dtype=torch.bool)
    removed[:, q] = True
    wanted = weight - torch.outer(weight[:, q] / left[q, q], left[:, q])
    torch.testing.assert_close(without(weight, left, removed), wanted, **EXACT)


def test_one_portion_after_another_is_all_at_once():
    weight, x, removed = problem()
    left = inverse(2 * x.T @ x)
    first = removed & (torch.arange(C) % 2 == 0)
    halfway = without(weight, left, first)
    rest = without(halfway, left, removed)  # what is gone is 0, so it moves nothing again
    torch.testing.assert_close(rest, without(weight, left, removed), **EXACT)


def test_diagonals_are_those_of_the_inverse_of_what_stays():
    _, x, removed = problem()
    hessian = 2 * x.T @ x
    found = diagonals(inverse(hessian), removed)
    for gone, got in zip(removed, found, strict=True):
        wanted = torch.linalg.inv(hessian[~gone][:, ~gone]).diagonal()
        torch.testing.assert_close(got[~gone], wanted, **EXACT)
        assert (got[gone] == 0).all()
