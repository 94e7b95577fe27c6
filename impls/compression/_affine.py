"""Scales and zero points of a matrix whose blocks stand in a raster, and rounding by them.

    q = clamp(round(x / s) + z, low, high),      x^ = s (q - z)

One s and z serve a block: R rows and C columns make a x g of them, of R/a x C/g numbers each.
Rounding is to even, as in torch's fake-quantize operators, which give equal bits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Affine:
    """Scales and zero points of one tensor.

    Attributes:
        scale: (a, g) float32, above 0, each representable in the type it is stored in.
        zero: (a, g) float32 integers; 0 for a symmetric grid.
        low: smallest code.
        high: largest code.
    """

    scale: Tensor
    zero: Tensor
    low: int
    high: int

    def codes(self, x: Tensor) -> Tensor:
        """The nearest codes of x (R, C), float32 integers from `low` to `high`."""
        blocks = self._blocks(x)
        codes = torch.round(blocks * (1 / self._over(self.scale))) + self._over(self.zero)
        return codes.clamp(self.low, self.high).view(x.shape)

    def values(self, codes: Tensor) -> Tensor:
        """What codes (R, C) stand for, float32."""
        blocks = self._blocks(codes.float())
        return ((blocks - self._over(self.zero)) * self._over(self.scale)).view(codes.shape)

    def rounded(self, x: Tensor) -> Tensor:
        """The nearest numbers of the grid to x (R, C), float32."""
        return self.values(self.codes(x))

    def columns(self, start: int, stop: int) -> "Affine":
        """The scales of the blocks from column block `start` to before `stop`."""
        return Affine(self.scale[:, start:stop], self.zero[:, start:stop], self.low, self.high)

    def _blocks(self, x: Tensor) -> Tensor:
        return in_blocks(x.float(), *self.scale.shape)

    def _over(self, of_blocks: Tensor) -> Tensor:
        return of_blocks[:, None, :, None]


def in_blocks(x: Tensor, a: int, g: int) -> Tensor:
    """A matrix (R, C) as (a, R/a, g, C/g)."""
    rows, columns = x.shape
    return x.reshape(a, rows // a, g, columns // g)
