"""The second-order core: one layer's Hessian damped, inverted, factored and downdated.

    L(w^) = (w - w^)^T H (w - w^) / 2 for a row,     H = 2 X^T X,     H' = H + lambda mean(diag H) I
    without p:  H^-1 <- H^-1 - H^-1_:p H^-1_p: / H^-1_pp            (arXiv:2208.11580)
    U upper, H'^-1 = U^T U: row i of U holds what is left of H^-1 once columns before i are gone

A column that no token has touched (H_pp = 0) is dead: its weights do nothing and become 0. All in
float64. C columns.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Damped(NamedTuple):
    """A Hessian that can be inverted."""

    matrix: Tensor  # (C, C) float64
    dead: Tensor  # (C,) bool: columns without any input


def damped(hessian: Tensor, share: float = 0.01) -> Damped:
    """The Hessian plus `share` of its mean diagonal; 1 on the diagonal of dead columns.

    Raises:
        ValueError: if no column has any input.
    """
    matrix = hessian.double().clone()
    diagonal = matrix.diagonal()  # a view
    dead = diagonal == 0
    if dead.all():
        raise ValueError("every input of the layer is 0 in calibration: calibrate with real text")
    diagonal[dead] = 1.0
    diagonal += share * diagonal.mean()
    return Damped(matrix, dead)


def inverse(matrix: Tensor) -> Tensor:
    """H^-1 of a positive definite matrix (C, C) float64.

    Raises:
        ValueError: if it is not positive definite.
    """
    return torch.cholesky_inverse(_factor(matrix))


def upper_factor(matrix: Tensor) -> Tensor:
    """The upper triangular U with H^-1 = U^T U, (C, C) float64.

    H = R R^T, R upper triangular, is the Cholesky factor from the last column on, and U = R^-1: a
    quarter less time than by H^-1.

    Raises:
        ValueError: if H is not positive definite.
    """
    upper = _factor(matrix.flip(0, 1)).flip(0, 1)
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    return torch.linalg.solve_triangular(upper, eye, upper=True)


def check_damp(damp: float) -> None:
    """Refuse a damping that is none.

    Raises:
        ValueError: if it is below 0 or not finite.
    """
    if not 0 <= damp < math.inf:
        raise ValueError(f"damp must be at least 0 and finite, got {damp}")


def without(inverse: Tensor, place: Tensor | int) -> Tensor:
    """H^-1 of the problem without one column; its own row and column become 0.

    Args:
        inverse: (C, C), or (R, C, C) with one place a row.
        place: the column, or (R,) int64.
    """
    if inverse.ndim == 2:
        column = inverse[:, place]
        left = inverse - torch.outer(column, column) / column[place]
        left[:, place] = left[place, :] = 0.0
        return left
    rows = torch.arange(len(inverse), device=inverse.device)
    column = inverse[rows, :, place]  # (R, C)
    scaled = column / column[rows, place][:, None]
    left = torch.baddbmm(inverse, column[:, :, None], scaled[:, None, :], alpha=-1)
    left[rows, :, place] = 0.0
    left[rows, place, :] = 0.0
    return left


def _factor(matrix: Tensor) -> Tensor:
    """The lower Cholesky factor."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        raise ValueError(
            f"the Hessian of {len(matrix)} inputs is singular: raise damp, or calibrate with more "
            "tokens than inputs"
        )
    return factor
