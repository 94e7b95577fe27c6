"""A weight as codes of a uniform grid whose zero points are real numbers, stored beside the scales.

w = s (q - z),    q from 0 to 2^b - 1
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from impls.compression._grid import Affine
from impls.compression._integer import IntegerWeight
from impls.compression._stored import Shapes


class RealZeroWeight(IntegerWeight):
    """Codes of b bits, packed, with a scale and a real zero point for each block.

    Args:
        codes: (R, C) integers from 0 to 2^bits - 1.
        affine: scales and zero points, (a, g), which `dtype` represents.
        bits: of a code.
        dtype: type both are stored in.
    """

    kind = "real_zero"

    def __init__(self, codes: Tensor, affine: Affine, *, bits: int, dtype: str) -> None:
        whole = Affine(affine.scale, torch.zeros_like(affine.zero), affine.low, affine.high)
        super().__init__(codes, whole, bits=bits, scale_dtype=dtype)
        self.zeros = affine.zero.to(self.scales.dtype)

    def affine(self) -> Affine:
        """Its scales and zero points."""
        return Affine(self.scales.float(), self.zeros.float(), 0, 2**self.bits - 1)

    @classmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """Codes, scales and as many zero points of the same type."""
        shapes = super().shapes(header)
        return {**shapes, "zeros": shapes["scales"]}
