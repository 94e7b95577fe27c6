"""The product of rounded inputs and weights in integers, where scales factor out of the sum.

    Y = s_x s_w (Q_x Q_w^T - z_x 1 rowsum(Q_w)^T - rowsum(Q_x) z_w^T + C z_x z_w^T)

N tokens, R output rows, C input columns.
"""

import torch
from torch import Tensor

from impls.compression._grid import Affine
from impls.compression._integer import IntegerWeight
from impls.compression._stored import StoredWeight


def has_integer_product(weight: StoredWeight) -> bool:
    """Whether a weight's scales factor out of a sum over input channels."""
    whole = weight.kind == IntegerWeight.kind  # a subclass has real zero points
    return whole and weight.scales.shape[1] == 1


def integer_linear(codes: Tensor, x: Affine, weight: IntegerWeight) -> Tensor:
    """The product of rounded inputs and weights, summed as 32-bit integers; (N, R) float32.

    Args:
        codes: of the input, (N, C) integers.
        x: what they stand for.
        weight: with one scale for all or one a row.
    """
    w = weight.affine()
    # Codes from 0 to 255 become -128 to 127, and zero points with them.
    shift_x, shift_w = (128 if affine.low == 0 else 0 for affine in (x, w))
    left, (right, row_sums) = (codes - shift_x).to(torch.int8), weight.signed()
    z_x, z_w = (x.zero.int() - shift_x).view(-1, 1), (w.zero.int() - shift_w).view(1, -1)
    sums = integer_matmul(left, right) - z_x * row_sums
    sums = sums - left.sum(1, dtype=torch.int32)[:, None] * z_w + codes.shape[1] * z_x * z_w
    return sums.float() * (x.scale.view(-1, 1) * w.scale.view(1, -1))


def integer_matmul(left: Tensor, right: Tensor) -> Tensor:
    """The product of left (N, C) and right (R, C) transposed, both int8; (N, R) int32."""
    if left.shape[1] == 1:  # torch's own errs for one channel through a transposed view
        return left.int() * right.int().T
    return torch._int_mm(left.contiguous(), right.T)
