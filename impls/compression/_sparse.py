"""A weight of which only some numbers are kept: a bit for each place, and the numbers in order.

    bytes = R ceil(C / 8) + K sizeof(value),    K numbers kept

The map of bits serves every pattern: of 2:4 it takes as many bytes as two-bit places would. R rows,
C columns.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from impls.compression._packing import pack, packed_width, unpack
from impls.compression._stored import PackedError, Shapes, StoredWeight
from impls.compression.kernels import sparse

ValueDtype = Literal["float16", "bfloat16", "float32"]


class SparseWeight(StoredWeight):
    """The numbers that were kept and a map of their places; the rest are 0.

    Args:
        weight: (R, C); what it holds at removed places is not read.
        removed: (R, C) bool.
        dtype: type the numbers are stored in.

    Raises:
        ValueError: if a number is too large for its type.
    """

    kind = "sparse"

    def __init__(self, weight: Tensor, removed: Tensor, *, dtype: ValueDtype = "float16") -> None:
        super().__init__(*weight.shape)
        kept = weight[~removed]
        values = kept.to(getattr(torch, dtype))
        if not torch.isfinite(values).all():
            raise ValueError(
                f"a weight of {float(kept.abs().max()):.3g} does not fit {dtype}: "
                "set value_dtype to 'float32'"
            )
        self.register_buffer("kept", pack(~removed, 1))
        self.register_buffer("values", values)

    def removed(self) -> Tensor:
        """Which places hold nothing, (R, C) bool."""
        return unpack(self.kept, 1, self.columns) == 0

    def dequantize(self) -> Tensor:
        """The weight, (R, C) float32."""
        zeros = torch.zeros(self.rows, self.columns, device=self.values.device)
        return zeros.masked_scatter_(~self.removed(), self.values.float())

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """By the kernel where one can be had, else by the dequantized weight."""
        if not self._has_kernel(x):
            return super().linear(x, bias)
        if x.numel() <= sparse.FEW * self.columns:
            return sparse.linear(x, self.kept, self.values, self.columns, bias)
        weight = sparse.expand(self.kept, self.values, self.columns)
        return F.linear(x, weight.to(x.dtype), bias)

    def _has_kernel(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dtype in {torch.float32, torch.bfloat16}
            and not (torch.is_grad_enabled() and x.requires_grad)
            and sparse.available()
        )

    def header(self) -> dict[str, Any]:
        """How many numbers are kept and their type, beside the shape."""
        return {
            **super().header(),
            "n_kept": len(self.values),
            "dtype": str(self.values.dtype).removeprefix("torch."),
        }

    @classmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """The map and the numbers."""
        return {
            "kept": ((header["rows"], packed_width(header["columns"], 1)), "uint8"),
            "values": ((header["n_kept"],), header["dtype"]),
        }

    @classmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The weight of a header and buffers.

        Raises:
            PackedError: if the map has more or fewer places than there are numbers.
        """
        weight = cls.__new__(cls)
        StoredWeight.__init__(weight, header["rows"], header["columns"])
        for name in ("kept", "values"):
            weight.register_buffer(name, buffers[name])
        check_places(weight, header["n_kept"])
        return weight


def check_places(weight: SparseWeight, n_kept: int) -> None:
    """Refuse a map of other than so many places.

    Raises:
        PackedError: with both counts.
    """
    n_places = int(unpack(weight.kept, 1, 8 * weight.kept.shape[1]).sum())
    if n_places != n_kept or weight.removed().sum() != weight.rows * weight.columns - n_kept:
        raise PackedError(
            f"the map 'kept' has {n_places} places for {n_kept} numbers: the file is damaged"
        )
