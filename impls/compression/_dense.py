"""A weight as it is, in a floating-point type."""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor
from torch.nn import functional as F

from impls.compression._stored import Shapes, StoredWeight


class DenseWeight(StoredWeight):
    """A weight in a floating-point type."""

    kind = "dense"

    def __init__(self, weight: Tensor) -> None:
        super().__init__(*weight.shape)
        self.register_buffer("weight", weight.detach().clone())

    def dequantize(self) -> Tensor:
        """The weight, (R, C) float32."""
        return self.weight.float()

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The plain product."""
        return F.linear(x, self.weight.to(x.dtype), bias)

    def header(self) -> dict[str, Any]:
        """Its dtype beside the shape."""
        return {**super().header(), "dtype": str(self.weight.dtype).removeprefix("torch.")}

    @classmethod
    def shapes(cls, header: Mapping[str, Any]) -> Shapes:
        """The weight alone."""
        return {"weight": ((header["rows"], header["columns"]), header["dtype"])}

    @classmethod
    def from_packed(cls, header: Mapping[str, Any], buffers: Mapping[str, Tensor]) -> Self:
        """The weight of a header and buffers."""
        return cls(buffers["weight"])
