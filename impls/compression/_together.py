"""Removal of many weights of a row at once, by the full inverse of the layer's Hessian.

    w    <- w - H^-1_:P ([H^-1]_PP)^-1 w_P
    H^-1 <- H^-1 - H^-1_:P ([H^-1]_PP)^-1 H^-1_P:,  of which the diagonal is wanted

P the weights that go. What stays is the least-squares best for what the row computed, so removing
one set after another is the same as all together. R rows, C columns.
"""

import torch
from torch import Tensor


def without(weight: Tensor, inverse: Tensor, removed: Tensor) -> Tensor:
    """The weight (R, C) float64 with 0 where removed, the rest moved to make up for it.

    Args:
        weight: (R, C), before anything was removed.
        inverse: H^-1, (C, C) float64.
        removed: (R, C) bool, each row its own.
    """
    left = weight.double().clone()
    for row, gone in zip(left, removed, strict=True):
        factor, across = _removal(inverse, gone)
        row -= across.T @ torch.cholesky_solve(row[gone, None], factor)[:, 0]
        row[gone] = 0.0
    return left


def diagonals(inverse: Tensor, removed: Tensor) -> Tensor:
    """The diagonal of each row's H^-1 without the removed, (R, C) float64; 0 where removed."""
    left = inverse.diagonal().expand(removed.shape).clone()
    for row, gone in zip(left, removed, strict=True):
        factor, across = _removal(inverse, gone)
        row -= torch.linalg.solve_triangular(factor, across, upper=False).square().sum(0)
        row[gone] = 0.0
    return left


def _removal(inverse: Tensor, gone: Tensor) -> tuple[Tensor, Tensor]:
    """The lower factor of [H^-1]_PP, and H^-1_P:."""
    across = inverse[gone]
    return torch.linalg.cholesky(across[:, gone]), across
