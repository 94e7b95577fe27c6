"""A weight of integers with some input columns kept in float16."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from impls.compression._integer import IntegerWeight
from impls.compression._stored import Shapes, StoredWeight


class SplitWeight(StoredWeight):
    """Columns of a weight (R, C) apart from the others.

    Args:
        rest: the other columns, in order, (R, C - k).
        apart: which columns are apart, (k,) integers in order.
        exact: those columns, (R, k), kept in float16.
    """

    kind = "split"

    def __init__(self, rest: IntegerWeight, apart: Tensor, exact: Tensor) -> None:
        super().__init__(rest.rows, rest.columns + len(apart))
        self.rest = rest
        self.register_buffer("apart", apart.to(torch.int32))
        self.register_buffer("exact", exact.to(torch.float16))

    def mask(self) -> Tensor:
        """Which columns are apart, (C,) bool."""
        mask = torch.zeros(self.columns, dtype=torch.bool, device=self.apart.device)
        mask[self.apart.long()] = True
        return mask

    def dequantize(self) -> Tensor:
        """Both kinds of columns in their places, (R, C) float32."""
        mask, rest = self.mask(), self.rest.dequantize()
        weight = rest.new_empty(self.rows, self.columns)
        weight[:, mask], weight[:, ~mask] = self.exact.float(), rest
        return weight

    def header(self) -> dict[str, Any]:
        """The header of the rest, and how many columns are apart."""
        return {**super().header(), "rest": self.rest.header(), "apart": len(self.apart)}

    @classmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """The rest's own, the columns apart and their numbers."""
        rest = IntegerWeight.shapes(header["rest"])
        return {
            **{f"rest.{name}": told for name, told in rest.items()},
            "apart": ((header["apart"],), "int32"),
            "exact": ((header["rows"], header["apart"]), "float16"),
        }

    @classmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The weight of a header and buffers."""
        inner = {n.removeprefix("rest."): b for n, b in buffers.items() if n.startswith("rest.")}
        rest = IntegerWeight.from_packed(header["rest"], inner)
        return cls(rest, buffers["apart"], buffers["exact"])
