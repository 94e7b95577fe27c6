"""The randomised Hadamard transform of input channels, as a map before a layer.

    M = (H_n / sqrt(n)) D in blocks,      M^-1 = M^T,      n the largest power of two that divides C

H_n the Walsh-Hadamard matrix in its natural order, D random signs. Every channel becomes a mixture
of n channels with equal weights, so that none lies far out. C channels.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from impls.compression._inputs import InputMap
from impls.compression._packing import pack, unpack


class Rotation(InputMap):
    """Signs, then a Hadamard transform of each block.

    Args:
        signs: (C,), -1 or 1; stored as bits.
    """

    kind = "rotation"

    def __init__(self, signs: Tensor) -> None:
        super().__init__()
        self.columns = len(signs)
        self.register_buffer("signs", pack((signs > 0)[None].int(), 1))

    def forward(self, x: Tensor) -> Tensor:
        """The rotated input (..., C), in x's dtype."""
        return hadamard(x * self._signs(x), block_of(self.columns))

    def undone(self, weight: Tensor) -> Tensor:
        """The weight over plain inputs: its rows were rotated as the input is."""
        return hadamard(weight, block_of(self.columns)) * self._signs(weight)

    def _signs(self, like: Tensor) -> Tensor:
        return 2 * unpack(self.signs, 1, self.columns)[0].to(like.dtype) - 1

    def header(self) -> dict[str, Any]:
        """How many signs there are."""
        return {"columns": self.columns}

    @classmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The map of a header and packed signs."""
        signs = unpack(buffers["signs"], 1, header["columns"])[0].int()
        return cls(2 * signs - 1)


def random_signs(columns: int, seed: int) -> Tensor:
    """Signs of so many channels, (C,) of -1 and 1."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randint(2, (columns,), generator=generator) - 1


def block_of(columns: int) -> int:
    """The largest power of two that divides a number."""
    return columns & -columns


def hadamard(x: Tensor, block: int) -> Tensor:
    """H / sqrt(n) times each run of n = `block` numbers of the last axis, in n log n additions."""
    width = 1
    y = x.reshape(-1, x.shape[-1])
    while width < block:
        left, right = y.unflatten(-1, (-1, 2, width)).unbind(-2)
        y = torch.stack((left + right, left - right), dim=-2).flatten(1)
        width *= 2
    return (y * block**-0.5).view(x.shape)
