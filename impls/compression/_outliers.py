"""A stored weight with single numbers set right: their values and places, row by row.

    bytes = the weight's + K (2 + 2) + 4 (R + 1),    K numbers, R rows of at most 2^15 columns

The numbers replace what the weight holds at their places; rows are compressed as in CSR.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from impls.compression._stored import PackedError, Shapes, StoredWeight, kind_of

NARROW = 2**15  # columns up to which a place takes 16 bits


class OutlierWeight(StoredWeight):
    """A weight, and numbers in float16 that stand in the place of some of its own.

    Args:
        inner: the weight without them.
        values: (R, C); what it holds where `mask` does not say so is not read.
        mask: (R, C) bool.

    Raises:
        ValueError: if a number is too large for float16.
    """

    kind = "outliers"

    def __init__(self, inner: StoredWeight, values: Tensor, mask: Tensor) -> None:
        super().__init__(*mask.shape)
        self.inner = inner
        kept = values[mask]
        if kept.numel() and float(kept.abs().max()) > torch.finfo(torch.float16).max:
            raise ValueError(
                f"an outlier of {float(kept.abs().max()):.3g} does not fit float16: "
                "divide the weights"
            )
        index = torch.int16 if self.columns <= NARROW else torch.int32
        ends = mask.sum(1).cumsum(0).to(torch.int32)
        self.register_buffer("values", kept.half())
        self.register_buffer("places", mask.nonzero()[:, 1].to(index))
        self.register_buffer("starts", torch.cat((ends.new_zeros(1), ends)))

    def dequantize(self) -> Tensor:
        """The weight with its outliers, (R, C) float32."""
        weight = self.inner.dequantize()
        counts = self.starts.diff().long()
        rows = torch.arange(self.rows, device=counts.device).repeat_interleave(counts)
        weight[rows, self.places.long()] = self.values.float()
        return weight

    def header(self) -> dict[str, Any]:
        """The inner weight and how many outliers there are, beside the shape."""
        inner = {"kind": self.inner.kind, **self.inner.header()}
        return {**super().header(), "inner": inner, "n_outliers": len(self.values)}

    @classmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """The inner weight's, values, columns, and where each row starts."""
        inner = kind_of(header["inner"]["kind"]).shapes(header["inner"])
        index = "int16" if header["columns"] <= NARROW else "int32"
        return {
            **{f"inner.{name}": told for name, told in inner.items()},
            "values": ((header["n_outliers"],), "float16"),
            "places": ((header["n_outliers"],), index),
            "starts": ((header["rows"] + 1,), "int32"),
        }

    @classmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The weight of a header and buffers.

        Raises:
            PackedError: if a place lies outside the weight.
        """
        weight = cls.__new__(cls)
        StoredWeight.__init__(weight, header["rows"], header["columns"])
        inside = {n.removeprefix("inner."): t for n, t in buffers.items() if n.startswith("inner.")}
        weight.inner = kind_of(header["inner"]["kind"]).from_packed(header["inner"], inside)
        for name in ("values", "places", "starts"):
            weight.register_buffer(name, buffers[name])
        weight._check_places()
        return weight

    def _check_places(self) -> None:
        starts, places = self.starts, self.places
        whole = int(starts[0]) == 0 and int(starts[-1]) == len(places)
        if not whole or bool((starts.diff() < 0).any()):
            raise PackedError("'starts' of the outliers do not go from 0 up to their number")
        if len(places) and not 0 <= int(places.min()) <= int(places.max()) < self.columns:
            raise PackedError(f"an outlier's place is outside {self.columns} columns")
