"""The column loop against its definition: exact downdates in the same order, blocks or none."""

import pytest
import torch

from impls.compression._columns import settled
from impls.compression._hessian import damped, inverse, upper_factor, without

R, C = 6, 24
EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: C roundings of 1e-16, H of condition 1e3


def problem():
    torch.manual_seed(0)
    x = torch.randn(100, C, dtype=torch.float64) @ torch.randn(C, C, dtype=torch.float64)
    return torch.randn(R, C, dtype=torch.float64), damped(2 * x.T @ x).matrix


def to_halves(_, column):
    return torch.round(2 * column) / 2


def halves(_, __):
    """Whatever the group, a column goes to the nearest multiple of a half."""
    return to_halves


def by_downdates(weight, matrix):
    """Columns in order, those left at their least-squares best, H^-1 downdated exactly."""
    weight, left = weight.clone(), inverse(matrix)
    for i in range(C):
        becomes = torch.round(2 * weight[:, i]) / 2
        weight -= torch.outer((weight[:, i] - becomes) / left[i, i], left[i])
        weight[:, i] = becomes
        left = without(left, i)
    return weight


def test_it_is_exact_downdates_in_the_same_order():
    weight, matrix = problem()
    before = weight.clone()
    got = settled(weight, upper_factor(matrix), halves, step=C)
    torch.testing.assert_close(got, by_downdates(weight, matrix), **EXACT)
    assert torch.equal(weight, before)


def until(stop):
    """Columns before `stop` go to multiples of a half, the others stay as they are then."""

    def enter(first, _):
        return lambda place, w: to_halves(place, w) if first + place < stop else w

    return enter


def test_columns_that_are_left_are_at_their_least_squares_best():
    weight, matrix = problem()
    got = settled(weight, upper_factor(matrix), until(C // 2), step=C)
    first, last = slice(C // 2), slice(C // 2, C)
    change = (got - weight)[:, first]
    best = -torch.linalg.solve(matrix[last, last], matrix[last, first] @ change.T).T
    torch.testing.assert_close((got - weight)[:, last], best, **EXACT)


@pytest.mark.parametrize("step", [1, 5, 8, 24])
@pytest.mark.parametrize("block", [1, 6, 7, 16])
def test_blocks_change_nothing(step, block):
    weight, matrix = problem()
    whole = settled(weight, upper_factor(matrix), halves, step=C, block=C)
    got = settled(weight, upper_factor(matrix), halves, step=step, block=block)
    torch.testing.assert_close(got, whole, **EXACT)


@pytest.mark.parametrize("block", [1, 6, 7, 16, 24])
def test_a_group_is_entered_once_with_all_its_columns_up_to_date(block):
    weight, matrix = problem()
    seen = {}

    def enter(first, columns):
        seen[first] = columns.clone()
        return to_halves

    settled(weight, upper_factor(matrix), enter, step=10, block=block)
    assert {first: columns.shape for first, columns in seen.items()} == {
        0: (R, 10),
        10: (R, 10),
        20: (R, 4),
    }
    for first, columns in seen.items():
        whole = settled(weight, upper_factor(matrix), until(first), step=C, block=C)
        torch.testing.assert_close(columns, whole[:, first : first + 10], **EXACT)
