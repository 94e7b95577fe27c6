"""Greedy exact removal: its rounds against one removal at a time, its weights against a refit."""

from itertools import combinations

import pytest
import torch

from impls.compression import _greedy
from impls.compression._greedy import greedy
from impls.compression._hessian import inverse, without

EXACT = {"rtol": 1e-11, "atol": 1e-11}  # float64: C removals of 1e-16, H of condition 1e3
R, C = 3, 40


def problem(rows=R, columns=C, seed=0):
    """A weight, inputs, and H of condition about 1000."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    x = torch.randn(8 * columns, columns, generator=generator, dtype=torch.float64)
    x = x * torch.logspace(-0.7, 0.7, columns, dtype=torch.float64)
    x = x @ torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=x.dtype)).Q
    return weight, x, 2 * x.T @ x


def refit(weight, x, removed):
    """Each row's least squares over the columns that stay, from the inputs alone."""
    found = torch.zeros_like(weight)
    for row, gone, wanted in zip(found, removed, weight, strict=True):
        row[~gone] = torch.linalg.lstsq(x[:, ~gone], (x @ wanted)[:, None]).solution[:, 0]
    return found


def one_by_one(weight, hessian, n, period):
    """The definition, a row and a removal at a time, each by a downdate of the whole inverse."""
    weight, places = weight.clone(), []
    for row in weight:
        left, gone = inverse(hessian), []
        while len(gone) < n * (len(row) // period):
            full = {g for g in range(len(row)) if sum(p // period == g for p in gone) == n}
            open_ = [p for p in range(len(row)) if p not in gone and p // period not in full]
            p = min(open_, key=lambda p: float(row[p] ** 2 / left[p, p]))
            row -= row[p] / left[p, p] * left[p].clone()
            row[p] = 0.0
            left = without(left, p)
            gone.append(p)
        places.append(gone)
    return weight, torch.tensor(places)


@pytest.mark.parametrize("size", [1, 7, 128])
@pytest.mark.parametrize(("n", "period"), [(20, C), (C, C), (2, 4), (3, 8)])
def test_rounds_are_removals_one_at_a_time(n, period, size, monkeypatch):
    monkeypatch.setattr(_greedy, "ROUND", size)
    weight, _, hessian = problem()
    before = weight.clone()
    trace = greedy(weight, inverse(hessian), n=n, period=period)
    wanted, places = one_by_one(weight, hessian, n, period)
    assert torch.equal(trace.places, places)
    torch.testing.assert_close(trace.weight, wanted, **EXACT)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("n", [1, 13, C - 1])
def test_what_stays_is_the_least_squares_refit_on_the_same_mask(n):
    weight, x, hessian = problem()
    trace = greedy(weight, inverse(hessian), n=n, period=C)
    removed = trace.removed()
    assert (removed.sum(1) == n).all()
    assert (trace.weight[removed] == 0).all()
    torch.testing.assert_close(trace.weight, refit(weight, x, removed), **EXACT)


@pytest.mark.parametrize("n", [1, 13, C])
def test_losses_sum_to_the_squared_output_error(n):
    """With H = 2 X^T X a loss is (w - w^)^T H (w - w^) / 2 = |X w - X w^|^2: the half is there."""
    weight, x, hessian = problem()
    trace = greedy(weight, inverse(hessian), n=n, period=C)
    error = (x @ (weight - trace.weight).T).square().sum(0)
    torch.testing.assert_close(trace.losses.sum(1), error, **EXACT)


def test_one_removal_loses_what_the_formula_says():
    weight, x, hessian = problem()
    trace = greedy(weight, inverse(hessian), n=1, period=C)
    for row, place, loss, left in zip(
        weight, trace.places, trace.losses, trace.weight, strict=True
    ):
        p = int(place)
        torch.testing.assert_close(
            row[p] ** 2 / (2 * torch.linalg.inv(hessian)[p, p]), loss[0], **EXACT
        )
        torch.testing.assert_close((x @ (row - left)).square().sum(), loss[0], **EXACT)


@pytest.mark.parametrize("seed", range(5))
def test_no_mask_loses_less_than_the_best_of_all_masks(seed):
    """Greedy is not the best; nothing may be better than the best, a wrong loss would be."""
    columns, n = 8, 4
    weight, x, hessian = problem(1, columns, seed)
    trace = greedy(weight, inverse(hessian), n=n, period=columns)
    losses = []
    for gone in combinations(range(columns), n):
        removed = torch.zeros(1, columns, dtype=torch.bool)
        removed[0, list(gone)] = True
        left = refit(weight, x, removed)
        losses.append(float((x @ (weight - left).T).square().sum()))
    assert min(losses) <= float(trace.losses.sum()) * (1 + 1e-11)
    assert float(trace.losses.sum()) < sorted(losses)[len(losses) // 2]  # nor is it just any mask


def test_few_rows_at_once_are_all_rows(monkeypatch):
    weight, _, hessian = problem(rows=5)
    whole = greedy(weight, inverse(hessian), n=20, period=C)
    monkeypatch.setattr(_greedy, "AT_ONCE", 2 * 8 * C * C)
    for got, wanted in zip(greedy(weight, inverse(hessian), n=20, period=C), whole, strict=True):
        torch.testing.assert_close(got, wanted, **EXACT)


def test_nothing_to_remove_leaves_the_row():
    weight, _, hessian = problem()
    trace = greedy(weight, inverse(hessian), n=0, period=C)
    assert torch.equal(trace.weight, weight)
    assert trace.losses.shape == trace.places.shape == (R, 0)
