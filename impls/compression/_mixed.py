"""Rounding of all input channels but outlying ones, which a second product takes as they are.

    Y = s_x s_w (Q_x Q_w^T) + X_O W_O^T,      O the channels apart

X (N, C) tokens of one call.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from impls.compression._activation import ActivationRounding
from impls.compression._grid import Grid
from impls.compression._product import integer_linear
from impls.compression._split import SplitWeight
from impls.compression._stored import StoredWeight


class MixedRounding(ActivationRounding):
    """Rounds the channels in which nothing is large.

    Args:
        grid: of granularity `token`, symmetric.
        threshold: a channel with |x| at or above it anywhere in the call stays apart; 0: none does.
        apart: channels that always do, (k,) integers, whatever the threshold; None: it decides.
    """

    kind = "mixed"

    def __init__(self, grid: Grid, threshold: float, apart: Tensor | None = None) -> None:
        super().__init__(grid)
        self.threshold = threshold
        self.register_buffer("apart", None if apart is None else apart.to(torch.int32))

    def mask(self, x: Tensor) -> Tensor:
        """Which channels of x (N, C) stay apart, (C,) bool."""
        mask = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
        if self.apart is not None:
            mask[self.apart.long()] = True
        elif self.threshold:
            mask = (x.abs() >= self.threshold).any(0)
        return mask

    def forward(self, x: Tensor) -> Tensor:
        """The input (..., C), rounded but for the channels apart."""
        flat = x.reshape(-1, x.shape[-1])
        mask = self.mask(flat)
        rest = flat.masked_fill(mask, 0)
        rounded = self.affine(rest).rounded(rest).to(x.dtype)
        return torch.where(mask, flat, rounded).view(x.shape)

    def linear(self, x: Tensor, weight: StoredWeight, bias: Tensor | None) -> Tensor:
        """Both products together, from x (..., C) to (..., R) in x's dtype."""
        flat = x.reshape(-1, x.shape[-1])
        mask = self.mask(flat)
        codes, affine = self.quantize(flat.masked_fill(mask, 0))
        split = isinstance(weight, SplitWeight)
        y = flat.new_zeros(len(flat), weight.rows)
        if not mask.all():
            rest, codes = (weight.rest, codes[:, ~mask]) if split else (weight, codes)
            y = integer_linear(codes, affine, rest).to(x.dtype)
        if mask.any():
            exact = weight.exact if split else weight.dequantize()[:, mask]
            y = y + F.linear(flat[:, mask], exact.to(x.dtype))
        y = y if bias is None else y + bias
        return y.view(*x.shape[:-1], -1)

    def header(self) -> dict[str, Any]:
        """The grid and the threshold."""
        return {**super().header(), "threshold": self.threshold}

    @classmethod
    def _of(cls, grid: Grid, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        return cls(grid, header["threshold"], buffers.get("apart"))
