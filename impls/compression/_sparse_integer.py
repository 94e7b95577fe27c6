"""A weight of which only some numbers are kept, and those as codes of a uniform grid.

    bytes = R ceil(C / 8) + ceil(K b / 8) + those of scales and zero points,    K numbers kept

R rows, C columns, b bits.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from impls.compression._grid import Affine
from impls.compression._packing import pack, packed_width, unpack
from impls.compression._sparse import SparseWeight, check_places
from impls.compression._stored import Shapes, StoredWeight


class SparseIntegerWeight(SparseWeight):
    """Codes of the numbers that were kept, and a map of their places; the rest are 0.

    Args:
        codes: (R, C) integers from 0; what stands at removed places is not read.
        affine: scales and zero points of an asymmetric grid, (a, g).
        removed: (R, C) bool.
        bits: of a code and of a zero point.
        scale_dtype: type the scales are stored in, which represents them.
    """

    kind = "sparse_integer"

    def __init__(
        self,
        codes: Tensor,
        affine: Affine,
        removed: Tensor,
        *,
        bits: int,
        scale_dtype: str = "float16",
    ) -> None:
        StoredWeight.__init__(self, *codes.shape)
        self.bits, self.n_kept = bits, int((~removed).sum())
        self.register_buffer("kept", pack(~removed, 1))
        self.register_buffer("codes", pack(codes[~removed].round().int()[None], bits))
        self.register_buffer("scales", affine.scale.to(getattr(torch, scale_dtype)))
        self.register_buffer("zeros", pack(affine.zero.int().view(1, -1), bits))

    def dequantize(self) -> Tensor:
        """The weight s (q - z) where it is kept, (R, C) float32."""
        removed, scale = self.removed(), self.scales.float()
        codes = unpack(self.codes, self.bits, self.n_kept)[0].float()
        whole = torch.zeros(removed.shape, device=codes.device).masked_scatter_(~removed, codes)
        zero = unpack(self.zeros, self.bits, scale.numel()).float().view_as(scale)
        affine = Affine(scale, zero, 0, 2**self.bits - 1)
        return affine.values(whole).masked_fill_(removed, 0.0)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """By the dequantized weight: its codes have no kernel."""
        return StoredWeight.linear(self, x, bias)

    def header(self) -> dict[str, Any]:
        """The grid and how many numbers are kept, beside the shape."""
        return {
            **StoredWeight.header(self),
            "n_kept": self.n_kept,
            "bits": self.bits,
            "raster": list(self.scales.shape),
            "scale_dtype": str(self.scales.dtype).removeprefix("torch."),
        }

    @classmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """The map, codes, scales and zero points."""
        bits, (a, g) = header["bits"], header["raster"]
        return {
            "kept": ((header["rows"], packed_width(header["columns"], 1)), "uint8"),
            "codes": ((1, packed_width(header["n_kept"], bits)), "uint8"),
            "scales": ((a, g), header["scale_dtype"]),
            "zeros": ((1, packed_width(a * g, bits)), "uint8"),
        }

    @classmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The weight of a header and buffers.

        Raises:
            PackedError: if the map has more or fewer places than there are codes.
        """
        weight = cls.__new__(cls)
        StoredWeight.__init__(weight, header["rows"], header["columns"])
        weight.bits, weight.n_kept = header["bits"], header["n_kept"]
        for name in ("kept", "codes", "scales", "zeros"):
            weight.register_buffer(name, buffers[name])
        check_places(weight, header["n_kept"])
        return weight
